//! What a shard's log must be: a list, and what was done to it.

use std::rc::Rc;

use duva_persist::format::Position;

/// An entry of a shard's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) term: u64,
    pub(crate) time_ms: u64,
    pub(crate) seed: u64,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Entry(Rc<[u8]>),
    Tick,
    Prepare(u64, Rc<[u8]>),
    Decision(u64, bool),
    Finish(u64, bool),
}

/// A shard, as records up to some point leave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    /// From index 1 on.
    pub(crate) items: Vec<Item>,
    pub(crate) term: u64,
    pub(crate) vote: u64,
    /// The newest snapshot that is marked.
    pub(crate) marked: u64,
    /// Up to here it was said to be committed.
    pub(crate) known: u64,
}

/// Something that was appended to a journal.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) shard: u16,
    pub(crate) what: OpKind,
    /// Nothing of it lies before this.
    pub(crate) start: Position,
    /// All of it lies before this, once its block is closed.
    pub(crate) end: Option<Position>,
    /// It and the next one are kept or dropped together.
    pub(crate) grouped: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum OpKind {
    /// An entry; whatever had its index or a higher one is gone.
    Append(u64, Item),
    Vote(u64, u64),
    Mark(u64),
    /// Entries up to an index are committed; with the term and vote that hold.
    Commit(u64, (u64, u64)),
}

/// What a replay is to visit: index, term, time, seed and payload, which a tick has none of.
pub(crate) type Visit = (u64, u64, u64, u64, Option<Rc<[u8]>>);

/// What a replay is to return as unfinished: transaction, index and payload.
pub(crate) type Open = (u64, u64, Rc<[u8]>);

impl Log {
    pub(crate) fn last_index(&self) -> u64 {
        self.items.len() as u64
    }

    pub(crate) fn apply(&mut self, op: &OpKind) {
        match op {
            OpKind::Append(index, item) => {
                self.items.truncate(*index as usize - 1);
                self.items.push(item.clone());
                self.known = self.known.min(index - 1);
            }
            OpKind::Commit(index, _) => self.known = self.known.max(*index),
            OpKind::Vote(term, vote) => (self.term, self.vote) = (*term, *vote),
            OpKind::Mark(index) => self.marked = *index,
        }
    }

    /// What a snapshot of the first `index` entries holds: enough to tell them from any others.
    pub(crate) fn snapshot(&self, index: u64) -> Vec<u8> {
        let mut crc = 0;
        for item in &self.items[..index as usize] {
            let (kind, number, payload) = match &item.what {
                What::Entry(payload) => (0, 0, &payload[..]),
                What::Tick => (1, 0, &[][..]),
                What::Prepare(id, payload) => (2, *id, &payload[..]),
                What::Decision(id, commit) => (3 + u64::from(*commit), *id, &[][..]),
                What::Finish(id, commit) => (5 + u64::from(*commit), *id, &[][..]),
            };
            for number in [item.term, item.time_ms, item.seed, kind, number] {
                crc = crc32c::crc32c_append(crc, &number.to_le_bytes());
            }
            crc = crc32c::crc32c_append(crc, payload);
        }
        // Long enough for several sectors.
        format!("{index} entries: {crc:08x}\n").repeat(100).into_bytes()
    }

    pub(crate) fn visits(&self, above: u64) -> Vec<Visit> {
        let indexed = (1..).zip(&self.items).filter(|(index, _)| *index > above);
        let visit = |(index, item): (u64, &Item)| {
            let payload = match &item.what {
                What::Entry(payload) => Some(payload.clone()),
                What::Tick => None,
                What::Finish(transaction, true) => Some(self.prepared(*transaction)?.1),
                What::Prepare(..) | What::Decision(..) | What::Finish(_, false) => return None,
            };
            Some((index, item.term, item.time_ms, item.seed, payload))
        };
        indexed.filter_map(visit).collect()
    }

    pub(crate) fn open(&self) -> Vec<Open> {
        let transactions = self.items.iter().filter_map(|item| match item.what {
            What::Prepare(transaction, _) => Some(transaction),
            _ => None,
        });
        let open = transactions.filter(|transaction| self.finished(*transaction).is_none());
        open.filter_map(|transaction| {
            let (index, payload) = self.prepared(transaction)?;
            Some((transaction, index, payload))
        })
        .collect()
    }

    /// Whether a part that was prepared up to `index` was not finished by then.
    pub(crate) fn open_at(&self, index: u64) -> bool {
        self.items[..index as usize].iter().any(|item| match item.what {
            What::Prepare(id, _) => self.finished(id).is_none_or(|(finished, _)| finished > index),
            _ => false,
        })
    }

    pub(crate) fn prepared(&self, transaction: u64) -> Option<(u64, Rc<[u8]>)> {
        (1..).zip(&self.items).find_map(|(index, item)| match &item.what {
            What::Prepare(id, payload) if *id == transaction => Some((index, payload.clone())),
            _ => None,
        })
    }

    /// Where the transaction's part was finished, and how.
    pub(crate) fn finished(&self, transaction: u64) -> Option<(u64, bool)> {
        (1..).zip(&self.items).find_map(|(index, item)| match &item.what {
            What::Finish(id, commit) if *id == transaction => Some((index, *commit)),
            _ => None,
        })
    }

    pub(crate) fn decided(&self, transaction: u64) -> Option<bool> {
        self.items.iter().find_map(|item| match &item.what {
            What::Decision(id, commit) if *id == transaction => Some(*commit),
            _ => None,
        })
    }
}
