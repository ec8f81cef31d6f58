//! The log: its newest entries, and of all behind the snapshot the terms and memberships.
//!
//! # Invariants
//!
//! - Indexes follow one another from the snapshot's on; terms never fall.
//! - Entries that are not applied are in memory. Applied ones stay for followers as long as they fit, and go oldest
//!   first.
//! - Terms are kept as runs, so [`Log::term_at`] answers for every index from the snapshot's on, evicted or not.
//! - Memberships are kept with the index that brought them, so that truncation brings the earlier one back.

use std::collections::VecDeque;

use crate::{AppliedLog, Entry, EntryKind, Index, Membership, Restored, SnapshotMeta, Term, queue::Queue};

/// Entries of one term that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: Index,
    term: Term,
}

#[derive(Debug)]
pub(crate) struct Log {
    snapshot: SnapshotMeta,
    /// The newest entries, up to the last one.
    cached: Queue<Entry>,
    /// All terms behind the snapshot.
    runs: VecDeque<Run>,
    last_index: Index,
    /// The memberships behind the snapshot.
    memberships: VecDeque<(Index, Membership)>,
    applied_index: Index,
    /// The cost of entries in memory that are applied.
    applied_bytes: usize,
    cache_bytes_max: usize,
}

impl Log {
    /// # Panics
    ///
    /// Panics if the entries do not follow the snapshot and what was dropped, their terms fall, a membership cannot be read, or
    /// something is applied that is not there.
    pub(crate) fn new(restored: Restored, applied: AppliedLog, cache_bytes_max: usize) -> Self {
        let snapshot_index = restored.snapshot.index;
        let dropped_to = applied.dropped_to.max(snapshot_index);
        let first = applied.terms.first().map(|(first, _)| *first);
        let is_known = first == (dropped_to > snapshot_index).then_some(snapshot_index + 1)
            && applied.terms.is_sorted_by(|one, next| one.0 < next.0 && one.1 < next.1)
            && applied.terms.last().is_none_or(|(first, _)| *first <= dropped_to);
        assert!(is_known, "the terms of all dropped entries are known, and never fall");
        let run = |(first, term)| Run { first, term };
        let mut log = Self {
            last_index: dropped_to,
            applied_index: dropped_to,
            snapshot: restored.snapshot,
            cached: Queue::default(),
            runs: applied.terms.into_iter().map(run).collect(),
            memberships: applied.memberships.into(),
            applied_bytes: 0,
            cache_bytes_max,
        };
        restored.entries.into_iter().for_each(|entry| log.append(entry));
        assert!(applied.index <= log.last_index, "entry {} is applied, and lost", applied.index);
        if applied.index > log.applied_index {
            log.applied(applied.index);
        }
        log
    }

    pub(crate) fn snapshot(&self) -> &SnapshotMeta {
        &self.snapshot
    }

    pub(crate) fn last_index(&self) -> Index {
        self.last_index
    }

    pub(crate) fn last_term(&self) -> Term {
        self.runs.back().map_or(self.snapshot.term, |run| run.term)
    }

    pub(crate) fn applied_index(&self) -> Index {
        self.applied_index
    }

    /// The first entry in memory; behind the last one if there is none.
    pub(crate) fn first_cached(&self) -> Index {
        self.last_index + 1 - self.cached.len() as u64
    }

    /// The term at the snapshot's index, or of an entry behind it.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.snapshot.index {
            return Some(self.snapshot.term);
        }
        if index < self.snapshot.index || index > self.last_index {
            return None;
        }
        let following = self.runs.partition_point(|run| run.first <= index);
        Some(self.runs[following - 1].term)
    }

    /// The last index, not above `index`, of a term not above `term`. `None`: it would be below the snapshot's.
    pub(crate) fn last_not_above(&self, index: Index, term: Term) -> Option<Index> {
        let mut index = index.min(self.last_index);
        for run in self.runs.iter().rev() {
            if run.first > index {
                continue;
            }
            if run.term <= term {
                return Some(index);
            }
            index = run.first - 1;
        }
        (index == self.snapshot.index && self.snapshot.term <= term).then_some(index)
    }

    /// The membership in force, and the index that brought it.
    pub(crate) fn membership(&self) -> (Index, &Membership) {
        match self.memberships.back() {
            Some((index, membership)) => (*index, membership),
            None => (self.snapshot.index, &self.snapshot.membership),
        }
    }

    /// The membership that the entries up to `index` bring about.
    pub(crate) fn membership_at(&self, index: Index) -> &Membership {
        let brought = self.memberships.iter().rev().find(|(at, _)| *at <= index);
        brought.map_or(&self.snapshot.membership, |(_, membership)| membership)
    }

    /// Memberships that may decide, newest first: the one in force at `commit`, and all later ones, which may be
    /// truncated yet.
    pub(crate) fn possible_memberships(&self, commit: Index) -> impl Iterator<Item = &Membership> {
        let is_later = move |entry: &&(Index, Membership)| entry.0 > commit;
        let later = self.memberships.iter().rev().take_while(is_later);
        let present = self.memberships.iter().rev().find(|entry| !is_later(entry));
        let present = present.map_or(&self.snapshot.membership, |(_, membership)| membership);
        later.map(|(_, membership)| membership).chain([present])
    }

    /// Entries in memory from `from` on, up to `to` and without it.
    pub(crate) fn cached_range(&self, from: Index, to: Index) -> impl ExactSizeIterator<Item = &Entry> {
        let first = self.first_cached();
        let end = (to.clamp(first, self.last_index + 1) - first) as usize;
        let begin = ((from.max(first) - first) as usize).min(end);
        self.cached.range(begin..end)
    }

    /// Adds to `entries` those from `from` on, which is in memory or behind the last one: the first, and more as long as their
    /// cost together stays within `bytes_max`.
    pub(crate) fn batch(&self, from: Index, bytes_max: usize, entries: &mut Vec<Entry>) {
        let candidates = || self.cached_range(from, self.last_index + 1);
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let is_first = bytes == 0;
            bytes += entry.cost_bytes();
            is_first || bytes <= bytes_max
        };
        let count = candidates().take_while(fits).count();
        entries.extend(candidates().take(count).cloned());
    }

    /// Adds an entry behind the last one.
    pub(crate) fn append(&mut self, entry: Entry) {
        assert_eq!(entry.index, self.last_index + 1, "entries follow one another");
        let last_term = self.last_term();
        assert!(entry.term >= last_term, "terms never fall: {} after {last_term}", entry.term);
        if self.runs.is_empty() || entry.term != last_term {
            self.runs.push_back(Run { first: entry.index, term: entry.term });
        }
        if entry.kind == EntryKind::Membership {
            let membership = Membership::decode(&entry.payload).expect("a membership in the log can be read");
            self.memberships.push_back((entry.index, membership));
        }
        self.last_index = entry.index;
        self.cached.push_back(entry);
    }

    /// Removes the entry at `from` and all behind it, none of them applied.
    pub(crate) fn truncate(&mut self, from: Index) {
        assert!(from > self.applied_index, "entry {from} is applied and cannot be removed");
        while self.last_index >= from {
            self.cached.pop_back().expect("what is not applied is in memory");
            self.last_index -= 1;
        }
        while self.runs.back().is_some_and(|run| run.first >= from) {
            self.runs.pop_back();
        }
        while self.memberships.back().is_some_and(|(index, _)| *index >= from) {
            self.memberships.pop_back();
        }
    }

    /// Everything up to `index` is applied.
    pub(crate) fn applied(&mut self, index: Index) {
        debug_assert!(index >= self.applied_index && index <= self.last_index);
        let newly: usize = self.cached_range(self.applied_index + 1, index + 1).map(Entry::cost_bytes).sum();
        self.applied_bytes += newly;
        self.applied_index = index;
    }

    /// Forgets applied entries that do not fit, the oldest first, as far as they can be read again: up to
    /// `written_index`.
    pub(crate) fn evict(&mut self, written_index: Index) {
        while self.applied_bytes > self.cache_bytes_max && self.first_cached() <= written_index {
            self.forget_first();
        }
    }

    /// A snapshot of the state at `to`, which is applied, exists: nothing up to there is needed any more.
    pub(crate) fn compact(&mut self, to: Index) {
        assert!(to <= self.applied_index, "entry {to} is not applied");
        let Some(term) = self.term_at(to).filter(|_| to > self.snapshot.index) else { return };
        while let Some((index, _)) = self.memberships.front()
            && *index <= to
            && let Some((_, membership)) = self.memberships.pop_front()
        {
            self.snapshot.membership = membership;
        }
        self.snapshot.index = to;
        self.snapshot.term = term;
        self.forget_to(to);
    }

    /// Begins anew from a snapshot that is ahead of what is applied; entries behind it stay if `keeps_rest`.
    pub(crate) fn install(&mut self, meta: SnapshotMeta, keeps_rest: bool) {
        assert!(meta.index > self.applied_index, "a snapshot never takes back what is applied");
        if keeps_rest && self.last_index > meta.index {
            self.forget_to(meta.index);
            while self.memberships.front().is_some_and(|(index, _)| *index <= meta.index) {
                self.memberships.pop_front();
            }
        } else {
            self.cached.clear();
            self.runs.clear();
            self.memberships.clear();
            self.applied_bytes = 0;
            self.last_index = meta.index;
        }
        self.applied_index = meta.index;
        self.snapshot = meta;
    }

    /// Drops entries up to `to` from memory, and their terms.
    fn forget_to(&mut self, to: Index) {
        while self.cached.front().is_some_and(|entry| entry.index <= to) {
            self.forget_first();
        }
        while self.runs.get(1).is_some_and(|run| run.first <= to + 1) {
            self.runs.pop_front();
        }
        if to == self.last_index {
            self.runs.clear();
        } else if let Some(run) = self.runs.front_mut() {
            run.first = run.first.max(to + 1);
        }
    }

    fn forget_first(&mut self) {
        let entry = self.cached.pop_front().expect("there is one to be forgotten");
        if entry.index <= self.applied_index {
            self.applied_bytes -= entry.cost_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ReplicaId;

    fn entry(index: Index, term: Term) -> Entry {
        Entry {
            index,
            term,
            timestamp_ms: 0,
            seed: 0,
            kind: EntryKind::Data(0),
            payload: vec![0; 36].as_slice().into(),
        }
    }

    fn membership_entry(index: Index, term: Term, voters: &[u64]) -> Entry {
        let payload = membership(voters).encode().as_slice().into();
        Entry { kind: EntryKind::Membership, payload, ..entry(index, term) }
    }

    fn membership(voters: &[u64]) -> Membership {
        let voters: Vec<_> = voters.iter().copied().map(ReplicaId).collect();
        Membership::new(&voters, &[]).unwrap()
    }

    fn meta(index: Index, term: Term) -> SnapshotMeta {
        SnapshotMeta { index, term, membership: membership(&[1]) }
    }

    /// A log behind a snapshot at 2 (term 1), with these terms from index 3 on.
    fn log(terms: &[Term], cache_bytes_max: usize) -> Log {
        let entries = (3..).zip(terms).map(|(index, &term)| entry(index, term)).collect();
        let restored = Restored { snapshot: meta(2, 1), entries, ..Restored::default() };
        Log::new(restored, AppliedLog::default(), cache_bytes_max)
    }

    fn batch(log: &Log, from: Index, bytes_max: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        log.batch(from, bytes_max, &mut entries);
        entries
    }

    fn terms(log: &Log) -> Vec<Option<Term>> {
        (1..=log.last_index() + 1).map(|index| log.term_at(index)).collect()
    }

    #[test]
    fn terms_are_known_from_the_snapshot_on() {
        let log = log(&[1, 1, 2, 5, 5], 0);
        assert_eq!(terms(&log), [None, Some(1), Some(1), Some(1), Some(2), Some(5), Some(5), None]);
        assert_eq!((log.last_index(), log.last_term(), log.first_cached()), (7, 5, 3));
        let empty = self::log(&[], 0);
        assert_eq!((empty.last_index(), empty.last_term(), empty.first_cached()), (2, 1, 3));
    }

    #[test]
    fn what_was_applied_and_dropped_is_known() {
        // Entries 3 to 7, of which 3 to 5 are applied and 3 and 4 not there.
        let restored =
            Restored { snapshot: meta(2, 1), entries: vec![entry(5, 2), entry(6, 4)], ..Restored::default() };
        let memberships = vec![(4, membership(&[1, 2]))];
        let applied = AppliedLog { index: 5, dropped_to: 4, terms: vec![(3, 1), (4, 2)], memberships };
        let mut log = Log::new(restored, applied, 1000);
        assert_eq!(terms(&log), [None, Some(1), Some(1), Some(2), Some(2), Some(4), None]);
        assert_eq!((log.first_cached(), log.applied_index(), log.applied_bytes), (5, 5, 100));
        assert_eq!((log.membership(), log.membership_at(3)), ((4, &membership(&[1, 2])), &membership(&[1])));
        log.truncate(6);
        log.append(entry(6, 5));
        log.applied(6);
        log.compact(3);
        assert_eq!(terms(&log), [None, None, Some(1), Some(2), Some(2), Some(5), None]);
        assert_eq!(log.membership().0, 4);
        log.compact(5);
        assert_eq!(log.snapshot(), &SnapshotMeta { index: 5, term: 2, membership: membership(&[1, 2]) });
        // All of it may be dropped.
        let applied = AppliedLog { index: 4, dropped_to: 4, terms: vec![(3, 3)], memberships: Vec::new() };
        let restored = Restored { snapshot: meta(2, 1), ..Restored::default() };
        let mut log = Log::new(restored, applied, 0);
        assert_eq!((log.last_index(), log.last_term(), log.first_cached()), (4, 3, 5));
        log.append(entry(5, 3));
        assert_eq!(terms(&log), [None, Some(1), Some(3), Some(3), Some(3), None]);
    }

    #[test]
    #[should_panic(expected = "the terms of all dropped entries")]
    fn what_was_dropped_without_a_term_is_refused() {
        let restored = Restored { snapshot: meta(2, 1), ..Restored::default() };
        Log::new(restored, AppliedLog { index: 4, dropped_to: 4, ..AppliedLog::default() }, 0);
    }

    #[test]
    fn the_last_entry_not_above_a_term_is_found() {
        let log = log(&[1, 3, 3, 5, 5], 0);
        assert_eq!(log.last_not_above(7, 5), Some(7));
        assert_eq!(log.last_not_above(100, 9), Some(7));
        assert_eq!(log.last_not_above(7, 4), Some(5));
        assert_eq!(log.last_not_above(4, 4), Some(4));
        assert_eq!(log.last_not_above(7, 2), Some(3));
        assert_eq!(log.last_not_above(2, 1), Some(2));
        assert_eq!(log.last_not_above(7, 0), None);
        assert_eq!(log.last_not_above(1, 9), None);
    }

    #[test]
    fn truncation_takes_terms_back() {
        let mut log = log(&[1, 2, 2, 5], 0);
        log.truncate(5);
        assert_eq!(terms(&log), [None, Some(1), Some(1), Some(2), None]);
        log.append(entry(5, 6));
        assert_eq!(log.term_at(5), Some(6));
        log.truncate(3);
        assert_eq!((log.last_index(), log.last_term()), (2, 1));
        log.append(entry(3, 1));
        assert_eq!(log.term_at(3), Some(1));
    }

    #[test]
    #[should_panic(expected = "applied")]
    fn what_is_applied_is_never_truncated() {
        let mut log = log(&[1, 2], 1000);
        log.applied(3);
        log.truncate(3);
    }

    #[test]
    fn memberships_come_and_go_with_their_entries() {
        let mut log = log(&[1], 1000);
        assert_eq!(log.membership(), (2, &membership(&[1])));
        log.append(membership_entry(4, 2, &[1, 2]));
        log.append(membership_entry(5, 2, &[1, 2, 3]));
        assert_eq!(log.membership(), (5, &membership(&[1, 2, 3])));
        log.truncate(5);
        assert_eq!(log.membership(), (4, &membership(&[1, 2])));
        log.append(membership_entry(5, 3, &[7]));
        log.applied(4);
        log.compact(4);
        assert_eq!(log.snapshot(), &SnapshotMeta { index: 4, term: 2, membership: membership(&[1, 2]) });
        assert_eq!(log.membership(), (5, &membership(&[7])));
        log.truncate(5);
        assert_eq!(log.membership(), (4, &membership(&[1, 2])));
    }

    #[test]
    fn memberships_that_are_not_committed_leave_the_one_before_possible() {
        let mut log = log(&[1], 1000);
        log.append(membership_entry(4, 2, &[2]));
        log.append(membership_entry(5, 2, &[3]));
        let possible = |commit| log.possible_memberships(commit).cloned().collect::<Vec<_>>();
        assert_eq!(possible(3), [membership(&[3]), membership(&[2]), membership(&[1])]);
        assert_eq!(possible(4), [membership(&[3]), membership(&[2])]);
        assert_eq!(possible(5), [membership(&[3])]);
    }

    #[test]
    fn only_applied_entries_are_evicted_and_the_oldest_first() {
        // Each entry costs 100.
        let mut log = log(&[1, 1, 2, 2, 2], 250);
        assert_eq!(log.first_cached(), 3);
        log.applied(4);
        log.evict(7);
        assert_eq!(log.first_cached(), 3);
        log.applied(6);
        log.evict(2);
        assert_eq!(log.first_cached(), 3);
        log.evict(4);
        assert_eq!(log.first_cached(), 5);
        log.evict(7);
        assert_eq!(log.first_cached(), 5);
        assert_eq!(log.term_at(3), Some(1));
        log.applied(7);
        log.evict(7);
        assert_eq!(log.first_cached(), 6);
        assert_eq!(log.cached_range(5, 7).collect::<Vec<_>>(), [&entry(6, 2)]);
        assert_eq!(
            log.cached_range(8, 9).len() + log.cached_range(0, 6).len() + log.cached_range(7, 6).len(),
            0
        );
    }

    #[test]
    fn a_cache_of_nothing_evicts_all_that_is_applied() {
        let mut log = log(&[1, 1], 0);
        log.applied(4);
        log.evict(4);
        assert_eq!(log.first_cached(), 5);
        log.append(entry(5, 1));
        assert_eq!(batch(&log, 5, 0), [entry(5, 1)]);
        log.compact(3);
        assert_eq!(terms(&log), [None, None, Some(1), Some(1), Some(1), None]);
    }

    #[test]
    fn a_batch_has_one_entry_and_more_while_they_fit() {
        let log = log(&[1, 1, 1, 1], 0);
        let indexes =
            |from, bytes| batch(&log, from, bytes).iter().map(|entry| entry.index).collect::<Vec<_>>();
        assert_eq!(indexes(3, 0), [3]);
        assert_eq!(indexes(3, 199), [3]);
        assert_eq!(indexes(3, 200), [3, 4]);
        assert_eq!(indexes(4, 10_000), [4, 5, 6]);
        assert_eq!(indexes(7, 10_000), [0; 0]);
    }

    #[test]
    fn compaction_keeps_the_rest() {
        let mut log = log(&[1, 2, 2, 3], 1000);
        log.applied(6);
        log.compact(4);
        assert_eq!((log.snapshot().index, log.snapshot().term, log.first_cached()), (4, 2, 5));
        assert_eq!(terms(&log), [None, None, None, Some(2), Some(2), Some(3), None]);
        log.compact(3);
        assert_eq!(log.snapshot().index, 4);
        log.compact(6);
        assert_eq!(terms(&log), [None, None, None, None, None, Some(3), None]);
        log.append(entry(7, 3));
        assert_eq!((log.term_at(7), log.first_cached(), log.applied_bytes), (Some(3), 7, 0));
    }

    #[test]
    fn an_installed_snapshot_keeps_the_rest_or_nothing() {
        let mut kept = log(&[1, 2, 2, 3], 1000);
        kept.append(membership_entry(7, 3, &[1, 2]));
        kept.applied(3);
        kept.install(meta(5, 2), true);
        assert_eq!(terms(&kept), [None, None, None, None, Some(2), Some(3), Some(3), None]);
        assert_eq!((kept.first_cached(), kept.applied_index(), kept.applied_bytes), (6, 5, 0));
        assert_eq!(kept.membership().0, 7);

        let mut dropped = log(&[1, 2, 2, 3], 1000);
        dropped.append(membership_entry(7, 3, &[1, 2]));
        dropped.install(meta(5, 4), false);
        assert_eq!((dropped.last_index(), dropped.last_term(), dropped.first_cached()), (5, 4, 6));
        assert_eq!(dropped.membership(), (5, &membership(&[1])));

        let mut beyond = log(&[1], 1000);
        beyond.install(meta(9, 4), false);
        beyond.append(entry(10, 4));
        assert_eq!(beyond.term_at(10), Some(4));
    }
}
