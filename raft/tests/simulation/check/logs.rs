//! The properties of Raft's logs (the paper's figure 3), from what every replica wrote.

use std::collections::BTreeMap;

use duva_raft::{Entry, EntryKind, Index, ReplicaId, Term};

use super::{Event, Violation, digest};
use crate::simulation::Summary;

/// A replica's log, as it wrote it.
#[derive(Default)]
struct Log {
    /// The entry before the first one.
    base: (Index, Term),
    /// Term and digest of each.
    entries: Vec<(Term, u64)>,
}

impl Log {
    fn last_index(&self) -> Index {
        self.base.0 + self.entries.len() as u64
    }

    fn last_term(&self) -> Term {
        self.entries.last().map_or(self.base.1, |&(term, _)| term)
    }

    fn at(&self, index: Index) -> Option<(Term, u64)> {
        let place = index.checked_sub(self.base.0 + 1)?;
        self.entries.get(place as usize).copied()
    }

    fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.base.0 { Some(self.base.1) } else { self.at(index).map(|(term, _)| term) }
    }
}

/// An entry that was in some log: nothing else ever has its index and term.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    term: Term,
    digest: u64,
    previous_term: Term,
}

/// A committed entry.
struct Committed {
    term: Term,
    digest: u64,
    is_membership: bool,
    /// It was committed in this term or before.
    by_term: Term,
}

#[derive(Default)]
struct Group {
    leaders: BTreeMap<Term, ReplicaId>,
    /// By index.
    known: Vec<Vec<Known>>,
    /// From index 1 on.
    committed: Vec<Committed>,
}

/// All logs of all groups.
pub(super) struct Logs {
    groups: Vec<Group>,
    logs: BTreeMap<ReplicaId, Log>,
    /// Snapshots that replicas got from others.
    snapshots: usize,
}

impl Logs {
    pub(super) fn new(groups: usize) -> Self {
        Self { groups: (0..groups).map(|_| Group::default()).collect(), logs: BTreeMap::new(), snapshots: 0 }
    }

    pub(super) fn count(&self, summary: &mut Summary) {
        for group in &self.groups {
            summary.entries += group.committed.len();
            summary.memberships += group.committed.iter().filter(|entry| entry.is_membership).count();
            summary.elections += group.leaders.len();
        }
        summary.snapshots += self.snapshots;
    }

    pub(super) fn see(&mut self, event: Event<'_>) -> Result<(), Violation> {
        match event {
            Event::Started { group, replica, snapshot, entries } => {
                self.logs.insert(replica, Log { base: snapshot, entries: Vec::new() });
                self.write(group, replica, entries)
            }
            Event::Wrote { group, replica, leads, entries } => {
                let log = self.logs.entry(replica).or_default();
                let first = entries.first().map_or(Index::MAX, |entry| entry.index);
                if leads && first <= log.last_index() {
                    let last = log.last_index();
                    let what = format!("{replica:?} leads and replaces its entries {first} to {last}");
                    return Err(Violation::new("leader append-only", what));
                }
                self.write(group, replica, entries)
            }
            Event::Installed { replica, snapshot, .. } => {
                self.snapshots += 1;
                let log = self.logs.entry(replica).or_default();
                if snapshot.0 > log.base.0 && log.term_at(snapshot.0) != Some(snapshot.1) {
                    *log = Log { base: snapshot, entries: Vec::new() };
                }
                Ok(())
            }
            Event::Ends { replica, last } => {
                let log = self.logs.entry(replica).or_default();
                let expected = (log.last_index(), log.last_term());
                if last == expected {
                    return Ok(());
                }
                let what =
                    format!("the log of {replica:?} ends with {last:?}, by what it wrote with {expected:?}");
                Err(Violation::new("log matching", what))
            }
            Event::Led { group, replica, term } => self.lead(group, replica, term),
            Event::Applied { group, replica, term, entry, .. } => self.commit(group, replica, term, entry),
            _ => Ok(()),
        }
    }

    fn write(&mut self, group: usize, replica: ReplicaId, entries: &[Entry]) -> Result<(), Violation> {
        let Some(first) = entries.first() else { return Ok(()) };
        let violated = |what: String| Err(Violation::new("log matching", what));
        let log = self.logs.entry(replica).or_default();
        if first.index <= log.base.0 || first.index > log.last_index() + 1 {
            let (base, last) = (log.base.0, log.last_index());
            return violated(format!(
                "{replica:?} writes entry {} after {base} and up to {last}",
                first.index
            ));
        }
        log.entries.truncate((first.index - log.base.0 - 1) as usize);
        let known = &mut self.groups[group].known;
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            if index != log.last_index() + 1 {
                return violated(format!("{replica:?} writes entry {index} out of order"));
            }
            let previous_term = log.last_term();
            if term < previous_term {
                return violated(format!(
                    "{replica:?}: entry {index} of {term} follows one of {previous_term}"
                ));
            }
            let this = Known { term, digest: digest(entry), previous_term };
            if known.len() <= index as usize {
                known.resize_with(index as usize + 1, Vec::new);
            }
            let others = &mut known[index as usize];
            match others.iter().find(|other| other.term == term) {
                None => others.push(this),
                Some(other) if *other == this => {}
                Some(other) => {
                    let (before, there) = (other.previous_term, previous_term);
                    let what = if before == there { "another content" } else { "another past" };
                    return violated(format!(
                        "{replica:?}: entry {index} of term {term} has {what} elsewhere"
                    ));
                }
            }
            log.entries.push((term, this.digest));
        }
        Ok(())
    }

    fn lead(&mut self, group: usize, replica: ReplicaId, term: Term) -> Result<(), Violation> {
        let group = &mut self.groups[group];
        if let Some(&other) = group.leaders.get(&term).filter(|&&other| other != replica) {
            let what = format!("{replica:?} and {other:?} both lead in term {term}");
            return Err(Violation::new("election safety", what));
        }
        group.leaders.insert(term, replica);
        let log = self.logs.entry(replica).or_default();
        for (place, committed) in group.committed.iter().enumerate() {
            let index = place as Index + 1;
            if committed.by_term >= term || index <= log.base.0 {
                continue;
            }
            if log.at(index) != Some((committed.term, committed.digest)) {
                let what = format!(
                    "{replica:?} leads in term {term} without entry {index} of term {}, committed by term {}",
                    committed.term, committed.by_term
                );
                return Err(Violation::new("leader completeness", what));
            }
        }
        Ok(())
    }

    fn commit(
        &mut self,
        group: usize,
        replica: ReplicaId,
        by_term: Term,
        entry: &Entry,
    ) -> Result<(), Violation> {
        let committed = &mut self.groups[group].committed;
        let is_membership = entry.kind == EntryKind::Membership;
        let this = Committed { term: entry.term, digest: digest(entry), is_membership, by_term };
        let index = entry.index;
        match committed.get_mut(index as usize - 1) {
            None => {
                if index as usize != committed.len() + 1 {
                    let what = format!("{replica:?} applies entry {index}, nobody the one before");
                    return Err(Violation::new("state machine safety", what));
                }
                committed.push(this);
            }
            Some(other) if (other.term, other.digest) == (this.term, this.digest) => {
                other.by_term = other.by_term.min(by_term);
            }
            Some(other) => {
                let (term, other_term) = (this.term, other.term);
                let what = format!(
                    "{replica:?} applies entry {index} of term {term}, others one of {other_term} there"
                );
                return Err(Violation::new("state machine safety", what));
            }
        }
        Ok(())
    }
}
