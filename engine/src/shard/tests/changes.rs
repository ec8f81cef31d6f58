//! `changes_total`: what counts as a change, and how much.

use super::*;

impl Check {
    /// As `step`, and compares the count of changes.
    pub(super) fn counted_step(&mut self, database: u8, step: Step) {
        let expected = self.keyspace.shard.changes_total() + self.changes_of(database, &step);
        let shown = format!("{step:?}");
        self.step(database, step);
        assert_eq!(self.keyspace.shard.changes_total(), expected, "{shown}");
    }

    /// What a step will add to the count.
    fn changes_of(&self, database: u8, step: &Step) -> u64 {
        match *step {
            Step::Set { .. } | Step::Edit { .. } => 1,
            Step::Fill { count, .. } => u64::from(count),
            Step::RemoveMany { from, count } => {
                (from..from + count).filter(|&key| self.live(database, key).is_some()).count() as u64
            }
            Step::SetDeadline { key, expire_in_ms } => u64::from(
                self.live(database, key)
                    .is_some_and(|expected| expire_in_ms.is_some() || expected.deadline_ms.is_some()),
            ),
            Step::Remove { key } => u64::from(self.live(database, key).is_some()),
            Step::Move { from, copy, .. } => match self.live(database, from) {
                Some(_) if copy => 1,
                Some(_) => 2,
                None => 0,
            },
            Step::Flush { everything } => {
                let range = if everything { 0..3 } else { database..database + 1 };
                range.map(|database| self.keyspace.shard.key_count(database) as u64).sum()
            }
            Step::Swap { other } => u64::from(other != database),
            Step::Pass { .. }
            | Step::Tick { .. }
            | Step::Random { .. }
            | Step::Scan { .. }
            | Step::Snapshot(_) => 0,
        }
    }
}

#[test]
fn every_change_counts_and_nothing_else() {
    let mut keyspace = Keyspace::new();
    let name = Keyspace::name(1);
    let key = keyspace.key(&name);
    let mut last = 0;
    let mut added = |keyspace: &Keyspace| {
        let total = keyspace.shard.changes_total();
        total - std::mem::replace(&mut last, total)
    };

    keyspace.set(0, 1, b"value", Deadline::Clear, START_MS);
    assert_eq!(added(&keyspace), 1);
    keyspace.set(0, 1, b"value", Deadline::Keep, START_MS);
    assert_eq!(added(&keyspace), 1, "a write of what was there counts");
    keyspace.shard.edit_string(0, &name, key, 5, 0..5, START_MS, |_| ());
    assert_eq!(added(&keyspace), 1);

    for (deadline, changes) in [
        (Deadline::Clear, 0),
        (Deadline::Keep, 0),
        (Deadline::At(START_MS + 10), 1),
        (Deadline::Keep, 0),
        (Deadline::At(START_MS + 10), 1),
        (Deadline::Clear, 1),
        // Only the word that remembers the wheel's record is left.
        (Deadline::Clear, 0),
        (Deadline::At(START_MS + 10), 1),
    ] {
        assert!(keyspace.shard.set_deadline(0, &name, key, deadline, START_MS));
        assert_eq!(added(&keyspace), changes, "{deadline:?}");
    }

    keyspace.shard.access(0, &name, key, START_MS);
    keyspace.get(0, 2, START_MS);
    assert!(keyspace.shard.duplicate(0, &name, key, START_MS).is_some());
    assert!(!keyspace.remove(0, 2, START_MS));
    assert_eq!(added(&keyspace), 0, "reads, and removals that find nothing");

    assert!(!keyspace.remove(0, 1, START_MS + 10));
    assert_eq!((keyspace.shard.key_count(0), added(&keyspace)), (0, 0), "a due key is gone already");
    keyspace.set(0, 1, b"value", Deadline::At(START_MS + 20), START_MS + 10);
    keyspace.set(0, 1, b"again", Deadline::At(START_MS + 30), START_MS + 20);
    assert_eq!(added(&keyspace), 2, "a put over a due key counts");
    while keyspace.shard.tick(START_MS + 30, 100) {}
    assert_eq!((keyspace.shard.key_count(0), added(&keyspace)), (0, 0), "a tick counts nothing");
    assert!(!keyspace.shard.set_deadline(0, &name, key, Deadline::Clear, START_MS + 30));
    assert!(keyspace.shard.detach(0, &name, key, START_MS + 30).is_none());
    assert_eq!(added(&keyspace), 0);
}

#[test]
fn whole_databases_count_what_they_hold() {
    let mut keyspace = Keyspace::new();
    keyspace.shard.flush(None);
    assert_eq!(keyspace.shard.changes_total(), 0, "a flush of nothing");
    (0..10).for_each(|number| keyspace.set(0, number, b"value", Deadline::Clear, START_MS));
    (0..5).for_each(|number| keyspace.set(3, number, b"value", Deadline::Clear, START_MS));
    let before = keyspace.shard.changes_total();
    keyspace.shard.swap_databases(0, 3);
    assert_eq!(keyspace.shard.changes_total(), before + 1);
    keyspace.shard.swap_databases(3, 3);
    assert_eq!(keyspace.shard.changes_total(), before + 1, "nothing was exchanged");
    keyspace.shard.flush(Some(0));
    assert_eq!(keyspace.shard.changes_total(), before + 1 + 5);
    keyspace.shard.flush(None);
    assert_eq!(keyspace.shard.changes_total(), before + 1 + 5 + 10);
    keyspace.shard.flush(None);
    while keyspace.shard.reclaim(10) {}
    assert_eq!(keyspace.shard.changes_total(), before + 1 + 5 + 10);
}
