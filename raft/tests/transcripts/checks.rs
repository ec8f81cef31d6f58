//! What must hold in every transcript, whatever its commands.
//!
//! - A term has one leader (paper, figure 3: election safety).
//! - Two replicas that commit an entry at an index commit the same one (state machine safety).
//! - A replica commits every entry once, in order.
//! - A read sees everything that was committed anywhere before it began (linearizability).

use std::collections::BTreeMap;

use duva_raft::{Entry, Index, ReplicaId, Term};

/// What was seen so far.
#[derive(Default)]
pub struct Checks {
    leaders: BTreeMap<Term, ReplicaId>,
    committed: BTreeMap<Index, Entry>,
    /// For every read that waits: what was committed when it began.
    reads: BTreeMap<(u64, u64), Index>,
}

impl Checks {
    /// `id` leads in `term`.
    pub fn leads(&mut self, id: ReplicaId, term: Term) {
        let leader = *self.leaders.entry(term).or_insert(id);
        assert_eq!(leader, id, "two leaders in term {term}");
    }

    /// A replica, which has applied everything up to `applied`, commits `entries`.
    pub fn commits(&mut self, applied: Index, entries: &[Entry]) {
        for (expected, entry) in (applied + 1..).zip(entries) {
            assert_eq!(entry.index, expected, "entries are committed in order, each once");
            let first = self.committed.entry(entry.index).or_insert_with(|| entry.clone());
            assert_eq!(first, entry, "two replicas commit different entries");
        }
    }

    /// A read begins at a replica.
    pub fn read_begins(&mut self, id: u64, context: u64) {
        let committed = self.committed.keys().next_back().copied().unwrap_or(0);
        self.reads.insert((id, context), committed);
    }

    /// A read is let through at `index`.
    pub fn read_passes(&mut self, id: u64, context: u64, index: Index) {
        let committed = self.reads.remove(&(id, context)).expect("a read that began is answered once");
        assert!(index >= committed, "read {context} at {index} misses what was committed: {committed}");
    }

    /// A read is given up.
    pub fn read_fails(&mut self, id: u64, context: u64) {
        assert!(self.reads.remove(&(id, context)).is_some(), "a read that began fails once");
    }

    /// Reads that began at a replica end with it.
    pub fn crashes(&mut self, id: u64) {
        self.reads.retain(|(at, _), _| *at != id);
    }
}
