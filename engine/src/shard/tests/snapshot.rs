//! Snapshots: what comes out is what there was, whatever happens meanwhile.

use super::*;

/// A value of this length has an allocation of its own.
const LARGE_BYTES: usize = 20 << 10;

/// A value of this length is emitted in five parts.
const HUGE_BYTES: usize = 600 << 10;

/// What a snapshot has yet to emit: by database and key, value and deadline.
pub(super) type Content = BTreeMap<(u8, Vec<u8>), (Vec<u8>, Option<u64>)>;

#[derive(Clone, Debug)]
pub(super) enum SnapshotStep {
    Begin,
    Walk { budget: usize },
    Abandon,
}

pub(super) fn any_snapshot_step() -> impl Strategy<Value = SnapshotStep> {
    prop_oneof![
        3 => Just(SnapshotStep::Begin),
        11 => prop_oneof![1..8_usize, 1..600_usize].prop_map(|budget| SnapshotStep::Walk { budget }),
        1 => Just(SnapshotStep::Abandon),
    ]
}

/// Checks what is emitted against what is due, once. Of a value that goes on, the rest stays due.
fn check_off(content: &mut Content, emitting: &mut Option<(u8, Vec<u8>)>, saved: Saved<'_>) {
    let (place, bytes, rest_bytes) = match saved {
        Saved::Entry(SavedEntry { database, key, value: Value::String(bytes), rest_bytes, deadline_ms }) => {
            assert_eq!(*emitting, None, "nothing comes before the rest of a value");
            let place = (database, key.to_vec());
            let expected = content.get(&place);
            assert_eq!(expected.map(|(_, expected_ms)| *expected_ms), Some(deadline_ms), "{place:?}");
            (place, bytes, Some(rest_bytes))
        }
        Saved::Part(bytes) => (emitting.take().expect("a value goes on"), bytes, None),
    };
    let Some((mut expected, deadline_ms)) = content.remove(&place) else {
        panic!("emitted twice, or never there: {place:?}");
    };
    assert!(expected.starts_with(bytes), "another value");
    expected.drain(..bytes.len());
    assert!(rest_bytes.is_none_or(|rest_bytes| rest_bytes == expected.len()));
    assert!(bytes.len() <= 256 << 10, "no more at once");
    if !expected.is_empty() {
        content.insert(place.clone(), (expected, deadline_ms));
        *emitting = Some(place);
    }
}

impl Keyspace {
    fn step(&mut self, budget: usize, content: &mut Content) -> bool {
        let Self { shard, emitting, .. } = self;
        shard.snapshot_step(budget, |saved| check_off(content, emitting, saved))
    }

    /// Everything that changes have forced out.
    fn drain(&mut self, content: &mut Content) {
        while self.shard.saved_early_bytes() > 0 {
            assert!(!self.step(1, content), "the next step ends it");
        }
    }

    /// Everything that is still to come.
    fn finish(&mut self, budget: usize, content: &mut Content) {
        while !self.step(budget, content) {
            assert!(self.shard.is_saving());
        }
        assert!(!self.shard.is_saving());
        assert_eq!(*content, Content::new(), "left out");
        self.check_memory();
    }

    /// What the snapshot emits, for tests that know what they want.
    fn finish_and_list(&mut self) -> Vec<(u8, Vec<u8>)> {
        let mut list = Vec::new();
        while !self.shard.snapshot_step(10, |saved| list.extend(begun(saved))) {}
        list.sort();
        list
    }

    /// Outside of snapshots: no bit is out of line, and nothing is left over.
    fn check_memory(&mut self) {
        while self.shard.reclaim(1_000) {}
        let shard = &mut self.shard;
        let heap = &shard.heap;
        let mut keys = 0;
        let mut external = 0;
        let mut bytes = shard.wheel.used_bytes();
        for database in &mut shard.databases {
            assert!(database.walk.is_none());
            bytes += size_of_val(&*database.slots);
            for slot in &mut database.slots {
                bytes += slot.table_bytes();
                let mut from = Some(0);
                while let Some(hash) = from {
                    let (table, next) = slot.table_from_mut(hash);
                    for entry in table.iter() {
                        assert!(!entry.is_unsaved(heap));
                        keys += 1;
                        bytes += entry.as_ref().block_bytes();
                        let Value::String(value) = entry.as_ref().value();
                        external += usize::from(value.len() > crate::entry::INLINE_VALUE_BYTES_MAX);
                    }
                    from = next;
                }
            }
        }
        assert_eq!(heap.slab.live_blocks(), keys);
        assert!(heap.external_count >= external, "short values may have allocations too");
        assert_eq!(shard.used_bytes(), bytes, "every byte is counted, and none twice");
    }
}

/// Database and key of an entry of which something is emitted for the first time.
fn begun(saved: Saved<'_>) -> Option<(u8, Vec<u8>)> {
    match saved {
        Saved::Entry(entry) => Some((entry.database, entry.key.to_vec())),
        Saved::Part(_) => None,
    }
}

impl Check {
    fn content(&self) -> Content {
        let time_ms = self.keyspace.shard.time_ms();
        let mut content = Content::new();
        for (database, model) in self.model.iter().enumerate() {
            for (&key, expected) in model.iter().filter(|(_, expected)| !expected.is_due(time_ms)) {
                let value = (expected.value.clone(), expected.deadline_ms);
                content.insert((database as u8, Keyspace::name(key)), value);
            }
        }
        content
    }

    pub(super) fn snapshot_step(&mut self, step: SnapshotStep) {
        match step {
            SnapshotStep::Begin => {
                self.finish_snapshot(100);
                self.to_emit = self.content();
                self.keyspace.shard.begin_snapshot(u64::MAX);
                assert!(self.keyspace.shard.is_saving());
            }
            SnapshotStep::Walk { budget } => {
                if self.keyspace.step(budget, &mut self.to_emit) {
                    self.keyspace.finish(1, &mut self.to_emit);
                }
            }
            SnapshotStep::Abandon => {
                self.keyspace.shard.abandon_snapshot();
                assert_eq!(self.keyspace.shard.saved_early_bytes(), 0);
                // Nothing may be emitted from here on.
                self.to_emit.clear();
                self.keyspace.emitting = None;
            }
        }
    }

    pub(super) fn finish_snapshot(&mut self, budget: usize) {
        self.keyspace.finish(budget, &mut self.to_emit);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 96 }))]

    /// Several databases, large enough for directories, change between small steps; then once more.
    #[test]
    fn what_is_emitted_is_what_there_was(
        fills in prop::collection::vec((0..3_u8, 0..2_000_u32, 1..1_500_u32, prop::option::of(any_duration())), 1..6),
        large in prop::collection::vec((0..3_u8, any_key(), any_length()), 0..12),
        snapshots in prop::collection::vec(
            (any::<bool>(), prop::collection::vec((0..3_u8, any_step(), 1..300_usize), 0..40)),
            1..4,
        ),
    ) {
        let mut check = Check::new();
        for (database, from, count, expire_in_ms) in fills {
            check.step(database, Step::Fill { from, count, expire_in_ms });
        }
        for (database, key, length) in large {
            check.step(database, Step::Set { key, length, deadline: Some(None), owned: true });
        }
        for (abandon, steps) in snapshots {
            check.snapshot_step(SnapshotStep::Begin);
            for (database, step, budget) in steps {
                check.counted_step(database, step);
                check.snapshot_step(SnapshotStep::Walk { budget });
            }
            if abandon {
                check.snapshot_step(SnapshotStep::Abandon);
            }
        }
        check.finish_snapshot(7);
        check.compare();
    }
}

#[test]
fn an_empty_shard_is_saved_at_once() {
    let mut keyspace = Keyspace::new();
    assert!(keyspace.step(1, &mut Content::new()), "there is no snapshot");
    keyspace.shard.begin_snapshot(u64::MAX);
    assert!(keyspace.shard.is_saving());
    // Not there at the begin.
    keyspace.set(0, 1, b"value", Deadline::Clear, START_MS);
    assert!(keyspace.step(1, &mut Content::new()) && !keyspace.shard.is_saving());
    keyspace.shard.begin_snapshot(u64::MAX);
    assert_eq!(keyspace.finish_and_list(), [(0, Keyspace::name(1))]);
}

#[test]
#[should_panic(expected = "one snapshot of a shard at a time")]
fn a_second_snapshot_has_to_wait() {
    let mut keyspace = Keyspace::new();
    keyspace.shard.begin_snapshot(u64::MAX);
    keyspace.shard.begin_snapshot(u64::MAX);
}

#[test]
fn reads_force_nothing_out() {
    let mut keyspace = Keyspace::new();
    let name = Keyspace::name(1);
    let key = keyspace.key(&name);
    keyspace.set(0, 1, b"value", Deadline::Clear, START_MS);
    keyspace.shard.begin_snapshot(u64::MAX);
    keyspace.shard.access(0, &name, key, START_MS + 10_000);
    keyspace.shard.duplicate(0, &name, key, START_MS);
    keyspace.shard.random_key(0, 1, START_MS);
    keyspace.scan_all(0, 10, START_MS);
    assert!(keyspace.shard.set_deadline(0, &name, key, Deadline::Clear, START_MS), "which it has not");
    assert!(keyspace.shard.set_deadline(0, &name, key, Deadline::Keep, START_MS));
    assert_eq!(keyspace.shard.saved_early_bytes(), 0);
    assert_eq!(keyspace.finish_and_list(), [(0, name)]);
}

#[test]
fn a_large_value_that_goes_is_not_copied() {
    let mut keyspace = Keyspace::new();
    let mut addresses = Vec::new();
    for number in 0..3 {
        keyspace.set(0, number, &[number as u8; LARGE_BYTES], Deadline::At(START_MS + 10), START_MS);
        let name = Keyspace::name(number);
        let key = keyspace.key(&name);
        let entry = keyspace.shard.get(0, &name, key, START_MS).unwrap();
        let Value::String(value) = entry.value();
        addresses.push(value.as_ptr());
    }
    keyspace.shard.begin_snapshot(u64::MAX);
    let before = keyspace.shard.used_bytes();
    assert!(keyspace.remove(0, 0, START_MS));
    keyspace.set(0, 1, &[9; LARGE_BYTES], Deadline::Clear, START_MS);
    while keyspace.shard.tick(START_MS + 10, 10) {}
    assert_eq!(keyspace.shard.key_count(0), 1, "one was removed, one has expired");
    assert!(keyspace.shard.saved_early_bytes() >= 3 * LARGE_BYTES);
    assert!(keyspace.shard.used_bytes() < before + LARGE_BYTES + 4_096, "the new value and some words");
    let mut seen = Vec::new();
    let mut is_over = false;
    while !is_over {
        is_over = keyspace.shard.snapshot_step(1, |saved| {
            let Saved::Entry(saved) = saved else { panic!("it is not as large as that") };
            let Value::String(value) = saved.value;
            assert_eq!((saved.database, saved.deadline_ms), (0, Some(START_MS + 10)));
            assert!(value.iter().all(|&byte| Keyspace::name(u32::from(byte)) == saved.key));
            seen.push(value.as_ptr());
        });
    }
    seen.reverse();
    assert_eq!(seen, addresses);
    keyspace.check_memory();
}

#[test]
fn what_waits_is_counted() {
    let mut keyspace = Keyspace::new();
    (0..100).for_each(|number| keyspace.set(0, number, &[1; 50], Deadline::Clear, START_MS));
    let before = keyspace.shard.used_bytes();
    keyspace.shard.begin_snapshot(u64::MAX);
    (0..100).for_each(|number| keyspace.set(0, number, &[2; 50], Deadline::Clear, START_MS));
    let waiting = keyspace.shard.saved_early_bytes();
    assert_eq!(waiting, keyspace.shard.heap.used_bytes() / 2);
    let bookkeeping = keyspace.shard.snapshot.used_bytes();
    assert!((100 * 16..=128 * 16).contains(&bookkeeping));
    assert_eq!(keyspace.shard.used_bytes(), before + waiting + bookkeeping);
    // Each once only: the entries are new now.
    (0..100).for_each(|number| keyspace.set(0, number, &[3; 50], Deadline::Clear, START_MS));
    assert_eq!(keyspace.shard.saved_early_bytes(), waiting);
    let mut content: Content =
        (0..100).map(|number| ((0, Keyspace::name(number)), (vec![1; 50], None))).collect();
    keyspace.drain(&mut content);
    assert!(content.is_empty());
    assert_eq!(keyspace.finish_and_list(), []);
    assert_eq!(keyspace.shard.used_bytes(), before);
}

#[test]
fn a_step_hands_out_what_waits_before_it_ends_the_snapshot() {
    let mut keyspace = Keyspace::new();
    (0..3).for_each(|number| keyspace.set(0, number, b"old", Deadline::Clear, START_MS));
    keyspace.shard.begin_snapshot(u64::MAX);
    (0..3).for_each(|number| assert!(keyspace.remove(0, number, START_MS)));
    let waiting = keyspace.shard.saved_early_bytes();
    let mut content: Content =
        (0..3).map(|number| ((0, Keyspace::name(number)), (b"old".to_vec(), None))).collect();
    assert!(!keyspace.step(1, &mut content));
    assert_eq!((content.len(), keyspace.shard.saved_early_bytes()), (2, waiting / 3 * 2));
    keyspace.finish(1, &mut content);
}

#[test]
fn keys_that_an_older_entry_may_still_keep_are_saved() {
    let mut keyspace = Keyspace::new();
    keyspace.set(0, 0, b"due before", Deadline::At(START_MS + 10), START_MS);
    keyspace.set(0, 1, b"due meanwhile", Deadline::At(START_MS + 20), START_MS);
    // An entry was proposed and waits; the one that keeps the key was proposed before.
    keyspace.shard.advance(START_MS + 25);
    assert_eq!(keyspace.shard.begin_snapshot(START_MS + 15), START_MS + 15);
    assert_eq!(keyspace.finish_and_list(), [(0, Keyspace::name(1))]);
    // Shard time that is not so far yet is not overtaken.
    assert_eq!(keyspace.shard.begin_snapshot(u64::MAX), START_MS + 25);
    assert_eq!(keyspace.finish_and_list(), []);
}

#[test]
fn databases_have_the_numbers_that_they_had() {
    let mut keyspace = Keyspace::new();
    (0..4).for_each(|number| keyspace.set(1, number, b"value", Deadline::Clear, START_MS));
    keyspace.shard.swap_databases(1, 5);
    keyspace.shard.begin_snapshot(u64::MAX);
    keyspace.shard.swap_databases(5, 2);
    keyspace.set(2, 0, b"new", Deadline::Clear, START_MS);
    keyspace.set(5, 1, b"another", Deadline::Clear, START_MS);
    let mut content: Content =
        (0..4).map(|number| ((5, Keyspace::name(number)), (b"value".to_vec(), None))).collect();
    keyspace.drain(&mut content);
    assert_eq!(content.len(), 3);
    keyspace.shard.flush(Some(2));
    keyspace.shard.swap_databases(2, 0);
    let left: Vec<_> = (1..4).map(|number| (5, Keyspace::name(number))).collect();
    assert_eq!(keyspace.finish_and_list(), left);
}

#[test]
fn flushed_entries_wait_for_the_walk() {
    let mut keyspace = Keyspace::new();
    let before = keyspace.shard.used_bytes();
    (0..5_000).for_each(|number| keyspace.set(0, number, &[7; 100], Deadline::Clear, START_MS));
    keyspace.set(1, 0, &[7; LARGE_BYTES], Deadline::Clear, START_MS);
    keyspace.shard.begin_snapshot(u64::MAX);
    let mut emitted = Vec::new();
    let mut step = |keyspace: &mut Keyspace, budget| {
        keyspace.shard.snapshot_step(budget, |saved| emitted.extend(begun(saved)))
    };
    assert!(!step(&mut keyspace, 1_000));
    keyspace.shard.flush(None);
    let waiting = keyspace.shard.saved_early_bytes();
    assert!((5_000 * 100..keyspace.shard.used_bytes()).contains(&waiting), "{waiting}");
    assert!(!keyspace.shard.reclaim(usize::MAX), "nor may their memory go");
    // New content, and another flush: it was not there at the begin, so it goes at once.
    keyspace.set(0, 1, b"new", Deadline::Clear, START_MS);
    keyspace.shard.flush(Some(0));
    assert!(keyspace.shard.has_garbage());
    while keyspace.shard.reclaim(100) {}
    let mut steps = 0;
    while !step(&mut keyspace, 100) {
        steps += 1;
    }
    assert!(steps >= 4, "within budgets");
    emitted.sort();
    let mut expected: Vec<_> = (0..5_000).map(|number| (0, Keyspace::name(number))).collect();
    expected.push((1, Keyspace::name(0)));
    expected.sort();
    assert!(emitted == expected);
    while keyspace.shard.reclaim(100) {}
    assert_eq!(keyspace.shard.used_bytes(), before);
}

#[test]
fn what_was_flushed_before_is_not_saved() {
    let mut keyspace = Keyspace::new();
    (0..100).for_each(|number| keyspace.set(0, number, b"flushed", Deadline::Clear, START_MS));
    keyspace.shard.flush(None);
    keyspace.set(0, 1, b"value", Deadline::Clear, START_MS);
    keyspace.shard.begin_snapshot(u64::MAX);
    while keyspace.shard.reclaim(10) {}
    assert_eq!(keyspace.shard.saved_early_bytes(), 0);
    assert_eq!(keyspace.finish_and_list(), [(0, Keyspace::name(1))]);
}

#[test]
fn a_step_stays_within_its_budget() {
    let mut keyspace = Keyspace::new();
    (0..5_000).for_each(|number| keyspace.set(0, number, b"value", Deadline::Clear, START_MS));
    let (mut steps, mut over) = (0, false);
    keyspace.shard.begin_snapshot(u64::MAX);
    while !over {
        let mut count = 0;
        over = keyspace.shard.snapshot_step(50, |_| count += 1);
        assert!(count <= 50 + crate::table::TABLE_BUCKETS_MAX);
        steps += 1;
    }
    assert!(steps > 5);

    (0..200).for_each(|number| keyspace.set(1, number, &[1; LARGE_BYTES], Deadline::Clear, START_MS));
    keyspace.shard.flush(Some(0));
    keyspace.shard.begin_snapshot(u64::MAX);
    let (mut all, mut over) = (0, false);
    while !over {
        let mut count = 0;
        over = keyspace.shard.snapshot_step(50, |_| count += 1);
        assert!(count <= 50 * 4_096 / LARGE_BYTES + 1, "values count too: {count}");
        all += count;
    }
    assert_eq!(all, 200);
}

#[test]
fn deadlines_are_those_of_the_begin() {
    let mut keyspace = Keyspace::new();
    keyspace.set(0, 1, b"due", Deadline::At(START_MS + 5), START_MS);
    for number in 2..6 {
        keyspace.set(0, number, b"later", Deadline::At(START_MS + 50), START_MS);
    }
    // Its wheel record outlives its deadline.
    let name = Keyspace::name(5);
    let key = keyspace.key(&name);
    assert!(keyspace.shard.set_deadline(0, &name, key, Deadline::Clear, START_MS));
    keyspace.shard.advance(START_MS + 5);
    keyspace.shard.begin_snapshot(u64::MAX);
    let mut content: Content = (2..6)
        .map(|number| {
            let deadline_ms = (number != 5).then_some(START_MS + 50);
            ((0, Keyspace::name(number)), (b"later".to_vec(), deadline_ms))
        })
        .collect();
    let name = Keyspace::name(2);
    let key = keyspace.key(&name);
    assert!(keyspace.shard.set_deadline(0, &name, key, Deadline::Clear, START_MS + 5));
    let name = Keyspace::name(3);
    let key = keyspace.key(&name);
    keyspace.shard.edit_string(0, &name, key, 2, 0..2, START_MS + 5, |value| value.fill(b'x'));
    // Removes 1, 3 and 4, and the left-over words of 2 and 5.
    while keyspace.shard.tick(START_MS + 100, 10) {}
    assert_eq!((keyspace.shard.key_count(0), keyspace.shard.expiring_count(0)), (2, 0));
    assert_eq!(keyspace.shard.next_due_ms(), None);
    keyspace.drain(&mut content);
    assert_eq!(content.into_keys().collect::<Vec<_>>(), [(0, Keyspace::name(5))]);
    assert_eq!(keyspace.finish_and_list(), [(0, Keyspace::name(5))]);
}

#[test]
fn a_renamed_key_is_saved_under_its_old_name() {
    for length in [10, LARGE_BYTES] {
        let mut keyspace = Keyspace::new();
        let (from, to) = (Keyspace::name(1), Keyspace::name(2));
        let (from_key, to_key) = (keyspace.key(&from), keyspace.key(&to));
        keyspace.set(0, 1, &vec![1; length], Deadline::Clear, START_MS);
        keyspace.set(0, 2, b"replaced", Deadline::Clear, START_MS);
        keyspace.shard.begin_snapshot(u64::MAX);
        let entry = keyspace.shard.detach(0, &from, from_key, START_MS).unwrap();
        keyspace.shard.attach(0, &to, to_key, entry, START_MS);
        assert_eq!(keyspace.get(0, 2, START_MS), Some(vec![1; length]));
        let mut content =
            Content::from([((0, from), (vec![1; length], None)), ((0, to), (b"replaced".to_vec(), None))]);
        keyspace.drain(&mut content);
        keyspace.finish(1, &mut content);
    }
}

#[test]
fn an_abandoned_snapshot_ends_without_output() {
    let mut keyspace = Keyspace::new();
    (0..3_000).for_each(|number| keyspace.set(0, number, b"value", Deadline::Clear, START_MS));
    (0..50).for_each(|number| keyspace.set(1, number, &[1; LARGE_BYTES], Deadline::Clear, START_MS));
    (0..50).for_each(|number| keyspace.set(2, number, b"value", Deadline::Clear, START_MS));
    keyspace.shard.begin_snapshot(u64::MAX);
    assert!(!keyspace.shard.snapshot_step(100, |_| ()));
    (0..40).for_each(|number| assert!(keyspace.remove(1, number, START_MS)));
    keyspace.shard.flush(Some(2));
    keyspace.shard.abandon_snapshot();
    assert_eq!(keyspace.shard.saved_early_bytes(), 0);
    // Changes of what is not marked yet.
    keyspace.remove(0, 1, START_MS);
    keyspace.set(0, 2, b"other", Deadline::Clear, START_MS);
    let name = Keyspace::name(45);
    let key = keyspace.key(&name);
    keyspace.shard.edit_string(1, &name, key, 9, 0..9, START_MS, |_| ());
    let mut steps = 0;
    while !keyspace.shard.snapshot_step(100, |_| panic!("abandoned")) {
        assert!(keyspace.shard.is_saving());
        steps += 1;
    }
    assert!(steps > 2, "within budgets");
    keyspace.check_memory();
    keyspace.shard.abandon_snapshot();
    assert!(!keyspace.shard.is_saving(), "there is none");

    keyspace.shard.begin_snapshot(u64::MAX);
    assert_eq!(keyspace.finish_and_list().len(), 2_999 + 10);
}

/// What a shard that goes holds, the debug build's count of its blocks shows.
#[test]
fn a_shard_may_go_in_the_middle_of_a_snapshot() {
    for abandon in [false, true] {
        let mut keyspace = Keyspace::new();
        (0..2_000).for_each(|number| keyspace.set(0, number, b"value", Deadline::Clear, START_MS));
        (0..5).for_each(|number| keyspace.set(1, number, &[1; LARGE_BYTES], Deadline::Clear, START_MS));
        (0..5).for_each(|number| keyspace.set(2, number, &[1; LARGE_BYTES], Deadline::Clear, START_MS));
        keyspace.set(3, 0, &[1; HUGE_BYTES], Deadline::Clear, START_MS);
        keyspace.shard.begin_snapshot(u64::MAX);
        assert!(keyspace.remove(3, 0, START_MS));
        assert!(!keyspace.shard.snapshot_step(1, |_| ()));
        (0..3).for_each(|number| assert!(keyspace.remove(1, number, START_MS)));
        keyspace.shard.flush(Some(2));
        if abandon {
            keyspace.shard.abandon_snapshot();
        }
    }
}

impl Keyspace {
    /// Where the allocation of a value is.
    fn allocation(&mut self, number: u32) -> *const u8 {
        let name = Self::name(number);
        let key = self.key(&name);
        let entry = self.shard.get(0, &name, key, START_MS).expect("it is there");
        let Value::String(value) = entry.value();
        value.as_ptr()
    }

    fn write_at(&mut self, number: u32, offset: usize, bytes: &[u8]) {
        let name = Self::name(number);
        let key = self.key(&name);
        let length = self.get(0, number, START_MS).map_or(0, |value| value.len());
        let range = offset..offset + bytes.len();
        let length = length.max(range.end);
        self.shard.edit_string(0, &name, key, length, range, START_MS, |value| value.copy_from_slice(bytes));
    }

    fn expire(&mut self, number: u32, deadline: Deadline) {
        let name = Self::name(number);
        let key = self.key(&name);
        assert!(self.shard.set_deadline(0, &name, key, deadline, START_MS));
    }
}

/// A value in which every place can be told.
fn huge() -> Vec<u8> {
    (0..HUGE_BYTES).map(|place| (place / 1000) as u8 ^ place as u8).collect()
}

fn one_huge(deadline_ms: Option<u64>) -> (Keyspace, Content) {
    let mut keyspace = Keyspace::new();
    let deadline = deadline_ms.map_or(Deadline::Clear, Deadline::At);
    keyspace.set(0, 1, &huge(), deadline, START_MS);
    keyspace.shard.begin_snapshot(u64::MAX);
    (keyspace, Content::from([((0, Keyspace::name(1)), (huge(), deadline_ms))]))
}

#[test]
fn a_huge_value_comes_in_parts_and_what_changes_of_it_is_all_that_is_kept() {
    for parts_before in 0..5 {
        let (mut keyspace, mut content) = one_huge(Some(START_MS + 100));
        let before = keyspace.shard.used_bytes();
        let step = |keyspace: &mut Keyspace, content: &mut Content| {
            let due = content.values().map(|(value, _)| value.len()).sum::<usize>();
            assert!(!keyspace.step(1, content));
            let left = content.values().map(|(value, _)| value.len()).sum::<usize>();
            assert!(due - left <= 128 << 10, "a step emits one part");
        };
        (0..parts_before).for_each(|_| step(&mut keyspace, &mut content));
        let allocation = keyspace.allocation(1);
        keyspace.expire(1, Deadline::Clear);
        keyspace.expire(1, Deadline::At(START_MS + 7));
        // Twice at the same place, over the bounds of parts, and at both ends.
        for offset in [0, 130_000, 131_000, 131_000, 400_000, HUGE_BYTES - 500] {
            keyspace.write_at(1, offset, &[offset as u8 ^ 0xAA; 500]);
        }
        assert_eq!(keyspace.allocation(1), allocation);
        // It grows, and moves.
        keyspace.write_at(1, HUGE_BYTES, &[1; HUGE_BYTES]);
        assert_ne!(keyspace.allocation(1), allocation);
        keyspace.write_at(1, HUGE_BYTES - 20, &[2; 40]);
        let kept = keyspace.shard.saved_early_bytes();
        assert!(kept < 8 * 600 && (parts_before == 5 || kept > 500), "{kept}");
        step(&mut keyspace, &mut content);
        // It goes in the middle, or before it begins; nothing is copied then either.
        assert!(keyspace.remove(0, 1, START_MS));
        assert!(keyspace.shard.used_bytes() < before + 2 * HUGE_BYTES);
        keyspace.finish(1, &mut content);
        keyspace.check_memory();
    }
}

#[test]
fn a_huge_value_that_only_gets_another_deadline_is_not_copied() {
    let (mut keyspace, mut content) = one_huge(None);
    let (before, allocation) = (keyspace.shard.used_bytes(), keyspace.allocation(1));
    keyspace.expire(1, Deadline::At(START_MS + 100));
    assert_eq!(keyspace.allocation(1), allocation);
    assert!(keyspace.shard.saved_early_bytes() < 200 && keyspace.shard.used_bytes() < before + 4_096);
    // It comes due before it was saved.
    while keyspace.shard.tick(START_MS + 100, 10) {}
    assert_eq!(keyspace.shard.key_count(0), 0);
    assert!(keyspace.shard.saved_early_bytes() >= HUGE_BYTES);
    keyspace.finish(1, &mut content);
}

#[test]
fn of_many_values_that_change_only_what_changes_is_kept() {
    let mut keyspace = Keyspace::new();
    (0..50).for_each(|number| keyspace.set(0, number, &[1; LARGE_BYTES], Deadline::Clear, START_MS));
    keyspace.shard.begin_snapshot(u64::MAX);
    let mut content: Content =
        (0..50).map(|number| ((0, Keyspace::name(number)), (vec![1; LARGE_BYTES], None))).collect();
    for number in 0..50 {
        keyspace.expire(number, Deadline::At(START_MS + 100));
        keyspace.write_at(number, 500, b"changed");
        keyspace.write_at(number, LARGE_BYTES, b"and longer");
    }
    assert!(keyspace.shard.saved_early_bytes() < 50 * 300, "{}", keyspace.shard.saved_early_bytes());
    (0..10).for_each(|number| assert!(keyspace.remove(0, number, START_MS)));
    keyspace.finish(1, &mut content);
}

#[test]
fn a_huge_value_is_emitted_to_its_end_whatever_takes_it_away() {
    type Take = fn(&mut Keyspace);
    let takes: [Take; 6] = [
        |_| (),
        |keyspace| assert!(keyspace.remove(0, 1, START_MS)),
        |keyspace| keyspace.set(0, 1, b"other", Deadline::Clear, START_MS),
        |keyspace| keyspace.shard.flush(None),
        |keyspace| keyspace.shard.swap_databases(0, 3),
        |keyspace| {
            let name = Keyspace::name(1);
            let key = keyspace.key(&name);
            let entry = keyspace.shard.detach(0, &name, key, START_MS).unwrap();
            keyspace.shard.attach(1, &name, key, entry, START_MS);
        },
    ];
    for (take, parts_before) in takes.iter().flat_map(|take| [0, 1, 4].map(|parts| (take, parts))) {
        let (mut keyspace, mut content) = one_huge(None);
        (0..parts_before).for_each(|_| assert!(!keyspace.step(1, &mut content)));
        take(&mut keyspace);
        keyspace.finish(1, &mut content);
        keyspace.check_memory();
        // And given up instead.
        keyspace.set(0, 1, &huge(), Deadline::Clear, START_MS);
        keyspace.shard.begin_snapshot(u64::MAX);
        (0..parts_before).for_each(|_| assert!(!keyspace.shard.snapshot_step(1, |_| ())));
        take(&mut keyspace);
        keyspace.shard.abandon_snapshot();
        keyspace.finish(1, &mut Content::new());
        keyspace.check_memory();
    }
}

#[test]
fn keys_count_against_a_steps_budget() {
    let mut keyspace = Keyspace::new();
    for number in 0..200 {
        let mut name = Keyspace::name(number);
        name.resize(10_000, b'k');
        let key = keyspace.key(&name);
        keyspace.shard.set_string(0, &name, key, b"value", Deadline::Clear, START_MS);
    }
    keyspace.shard.begin_snapshot(u64::MAX);
    let (mut all, mut is_over) = (0, false);
    while !is_over {
        let mut count = 0;
        is_over = keyspace.shard.snapshot_step(5, |_| count += 1);
        assert!(count <= 5 * 4_096 / 10_000 + 1, "{count}");
        all += count;
    }
    assert_eq!(all, 200);
}
