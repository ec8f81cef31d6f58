//! What a disk holds of one replica: the sum of its records, in the order in which they were written.
//!
//! - A record that was written later replaces all entries at its first index and after, whatever the terms.
//! - A snapshot's mark is a record too. The entries after it stay only if they follow it.

use std::{collections::BTreeMap, sync::Arc};

use duva_raft::{Entry, EntryKind, HardState, Index, Membership, ReplicaId, SnapshotMeta, Term, Write};

/// One record of a journal.
#[derive(Clone, Debug)]
pub(crate) enum Record {
    /// What Raft wants to be written.
    Write(Write),
    /// A snapshot is in its file: entries up to its last are not needed any more.
    Mark(Snapshot),
    /// Entries up to this one are committed.
    Committed(Index),
}

/// A snapshot and what it stands for.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) meta: SnapshotMeta,
    pub(crate) bytes: Arc<[u8]>,
    /// It came from another replica.
    pub(crate) is_installed: bool,
}

/// Which of several records of an index recovery takes. All but the first are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The last, which stands for everything behind it too.
    Last,
    /// The last, which stands for its own index.
    LastOfIndex,
    /// The one with the highest term.
    HighestTerm,
}

/// What is there of a replica.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) replica: ReplicaId,
    pub(crate) hard_state: HardState,
    pub(crate) snapshot: Snapshot,
    /// The one before, which may still be on its way to somebody.
    older: Option<Snapshot>,
    pub(crate) entries: Vec<Entry>,
    /// Entries up to this one are known to be committed.
    committed: Index,
    rule: Rule,
    /// By the other rules: what recovery finds behind the snapshot.
    found: BTreeMap<Index, Entry>,
}

impl Image {
    /// A replica that starts with the group's first membership, or with none.
    pub(crate) fn new(replica: ReplicaId, membership: Membership, rule: Rule) -> Self {
        let meta = SnapshotMeta { index: 0, term: 0, membership };
        Self {
            replica,
            hard_state: HardState::default(),
            snapshot: Snapshot { meta, bytes: Arc::from([]), is_installed: false },
            older: None,
            entries: Vec::new(),
            committed: 0,
            rule,
            found: BTreeMap::new(),
        }
    }

    /// # Errors
    ///
    /// If a record does not follow those before it: a sentence that says so.
    pub(crate) fn add(&mut self, record: &Record) -> Result<(), String> {
        match record {
            Record::Write(write) => self.write(write),
            Record::Mark(snapshot) => self.mark(snapshot),
            Record::Committed(index) if *index > self.last_index() => {
                Err(format!("entry {index} is committed, and the log ends with {}", self.last_index()))
            }
            Record::Committed(index) => {
                self.committed = self.committed.max(*index);
                Ok(())
            }
        }
    }

    fn write(&mut self, write: &Write) -> Result<(), String> {
        if let Some(hard_state) = write.hard_state {
            self.hard_state = hard_state;
        }
        let Some(first) = write.entries.first() else { return Ok(()) };
        if first.index <= self.committed {
            return Err(format!("a write replaces entry {}, which is committed", first.index));
        }
        let kept =
            first.index.checked_sub(self.first_index()).filter(|&kept| kept <= self.entries.len() as u64);
        let Some(kept) = kept else {
            return Err(format!(
                "a write at index {} does not follow entries {} to {}",
                first.index,
                self.first_index(),
                self.last_index()
            ));
        };
        self.entries.truncate(kept as usize);
        self.entries.extend_from_slice(&write.entries);
        if self.rule != Rule::Last {
            for entry in &write.entries {
                let place = self.found.entry(entry.index).or_insert_with(|| entry.clone());
                if self.rule == Rule::LastOfIndex || place.term <= entry.term {
                    *place = entry.clone();
                }
            }
        }
        Ok(())
    }

    fn mark(&mut self, snapshot: &Snapshot) -> Result<(), String> {
        let (index, term) = (snapshot.meta.index, snapshot.meta.term);
        if index <= self.snapshot.meta.index {
            return Ok(());
        }
        let follows = self.term_at(index) == Some(term);
        if !follows && !snapshot.is_installed {
            return Err(format!("a snapshot up to entry {index} of term {term} that the log does not hold"));
        }
        let covered = (index - self.snapshot.meta.index).min(self.entries.len() as u64) as usize;
        self.entries.drain(..if follows { covered } else { self.entries.len() });
        self.older = Some(std::mem::replace(&mut self.snapshot, snapshot.clone()));
        self.found = self.found.split_off(&(index + 1));
        if !follows {
            self.found.clear();
        }
        Ok(())
    }

    /// What a replica starts with after this.
    pub(crate) fn recovered_entries(&self) -> Vec<Entry> {
        if self.rule == Rule::Last {
            return self.entries.clone();
        }
        (self.first_index()..).map_while(|index| self.found.get(&index).cloned()).collect()
    }

    /// How much of that is known to be committed.
    pub(crate) fn recovered_commit(&self) -> Index {
        if self.rule == Rule::Last { self.committed.max(self.snapshot.meta.index) } else { 0 }
    }

    pub(crate) fn first_index(&self) -> Index {
        self.snapshot.meta.index + 1
    }

    pub(crate) fn last_index(&self) -> Index {
        self.snapshot.meta.index + self.entries.len() as u64
    }

    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.snapshot.meta.index {
            return Some(self.snapshot.meta.term);
        }
        let place = index.checked_sub(self.first_index())?;
        self.entries.get(place as usize).map(|entry| entry.term)
    }

    /// The snapshot that somebody asks for, unless it is gone.
    pub(crate) fn snapshot_of(&self, wanted: Option<(Index, Term)>) -> Option<&Snapshot> {
        let is_wanted = |snapshot: &&Snapshot| {
            snapshot.meta.index > 0
                && wanted.is_none_or(|wanted| wanted == (snapshot.meta.index, snapshot.meta.term))
        };
        std::iter::once(&self.snapshot).chain(&self.older).find(is_wanted)
    }

    /// The snapshot's membership and all that follow it in the log: any of them may be in force.
    pub(crate) fn memberships(&self) -> impl Iterator<Item = Membership> + '_ {
        let of_entries = self
            .entries
            .iter()
            .filter(|entry| entry.kind == EntryKind::Membership)
            .filter_map(|entry| Membership::decode(&entry.payload).ok());
        std::iter::once(self.snapshot.meta.membership.clone()).chain(of_entries)
    }
}
