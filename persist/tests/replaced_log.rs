//! Snapshots that replace the log of a shard, with a crash at every step, and votes that only headers carry.
//!
//! A replica that installs another's snapshot publishes the file, then appends a tick at the snapshot's index and term, and the
//! mark. Whatever its log was before, after a crash at any step, and after any number of starts, the log is the old one as long
//! as there is no file, and then what goes on from the snapshot.

use std::{collections::BTreeMap, io};

use duva_persist::{
    format::Kind,
    journal::{Journal, JournalOptions, SEGMENT_BYTES_MIN},
    manifest::Manifest,
    names,
    record::Record,
    recovery::{Directory, EntryKind, RecoveryError, Scan, ScanOptions, scan},
};

const CLUSTER: [u8; 16] = [1; 16];
const NODE: [u8; 16] = [2; 16];

/// The files, and the manifest.
#[derive(Clone)]
struct Folder {
    files: BTreeMap<String, Vec<u8>>,
    manifest: Manifest,
}

impl Directory for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }

    fn read(&self, name: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        buffer.extend_from_slice(self.files.get(name).ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }

    fn snapshot_term(&self, name: &str) -> io::Result<Option<u64>> {
        let bytes = self.files.get(name).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(Err(io::ErrorKind::InvalidData.into()), |term| Ok(Some(u64::from_le_bytes(*term))))
    }
}

impl Folder {
    fn new() -> Self {
        let manifest = Manifest {
            cluster: CLUSTER,
            node: NODE,
            kernel_boot: [0; 16],
            hash_seed: 0,
            hash_algorithm: 0,
            shards: 2,
            epoch: 0,
            must_not_vote: false,
            starts: Vec::new(),
            cuts: Vec::new(),
            truncations: Vec::new(),
        };
        Self { files: BTreeMap::new(), manifest }
    }

    fn scan(&self) -> Result<Scan, RecoveryError> {
        scan(self, &self.manifest, ScanOptions { truncate: false, threads: 1 })
    }

    /// A start; a crash in the middle of it changes nothing.
    fn start(&mut self) -> Life<'_> {
        self.start_with(&[])
    }

    /// As [`Self::start`], with a journal that begins with these ticks, which count from its segment on.
    fn start_with(&mut self, first: &[Point]) -> Life<'_> {
        let scan = self.scan().unwrap();
        let found = self.log(&scan);
        let next = scan.next_manifest(&self.manifest);
        let begun = scan.begun_manifest(&next, 1);
        self.manifest = next;
        assert_eq!(self.log(&self.scan().unwrap()), found);
        let options = JournalOptions {
            core: 0,
            epoch: self.manifest.epoch,
            segment_len: SEGMENT_BYTES_MIN,
            cluster: CLUSTER,
            node: NODE,
            kernel_boot: [0; 16],
        };
        let mut journal = Journal::new(options, scan.next_sequence(0), scan.states());
        let write = journal.begin_with(1, |journal| {
            for &(index, term) in first {
                journal.append(&Record { index, term, ..Record::new(Kind::Tick, 0) }, |_| {});
            }
        });
        self.files.insert(names::segment(0, write.sequence), write.bytes);
        let mut begun_log = found;
        begun_log.entries.extend(first);
        begun_log.last = first.last().copied().unwrap_or(begun_log.last);
        assert_eq!(self.log(&self.scan().unwrap()), begun_log);
        self.manifest = begun;
        for name in scan.empty().iter().chain(scan.idle_segments().map(|segment| &segment.name)) {
            self.files.remove(name);
        }
        let earlier = scan.segments().iter().map(|segment| segment.name.clone()).collect();
        Life { folder: self, journal, earlier, tick_at: None }
    }

    /// What recovery says of shard 0: its snapshot, the entries behind it, and the last one.
    fn log(&self, scan: &Scan) -> Shown {
        let snapshot = scan.snapshots()[0].as_ref().map_or(0, |snapshot| snapshot.index);
        let mut entries = Vec::new();
        let visit = |entry: duva_persist::recovery::Entry<'_>| {
            assert_eq!(entry.kind, EntryKind::Tick);
            entries.push((entry.index, entry.term));
            Ok::<_, ()>(())
        };
        scan.replay_log(self, |shard| (shard == 0).then_some(snapshot), visit).unwrap();
        let state = scan.states()[0];
        Shown {
            snapshot: (snapshot, state.snapshot_term.get()),
            entries,
            last: (state.last_index.get(), state.last_term.get()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    snapshot: (u64, u64),
    entries: Vec<(u64, u64)>,
    last: (u64, u64),
}

struct Life<'a> {
    folder: &'a mut Folder,
    journal: Journal,
    /// Segments of earlier starts.
    earlier: Vec<String>,
    /// Where the tick of an installation goes.
    tick_at: Option<duva_persist::format::Position>,
}

/// An index and a term.
type Point = (u64, u64);

#[derive(Clone, Copy, Debug)]
enum Step {
    Append(Point),
    /// A snapshot file gets its name.
    Publish(Point),
    /// The tick that stands for an installed snapshot.
    Install(Point),
    Mark(Point),
}

/// What the steps do besides.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// Each goes into a segment of its own.
    roll: bool,
    /// With an installed snapshot's mark, all older segments go.
    trim: bool,
}

impl Life<'_> {
    fn run(&mut self, steps: &[Step], manner: Manner) {
        for step in steps {
            if let Step::Install(_) = step {
                self.tick_at = Some(self.journal.block_position());
            }
            match *step {
                Step::Append(point) | Step::Install(point) => self.append(Kind::Tick, point),
                Step::Mark(point) => self.append(Kind::SnapshotMark, point),
                Step::Publish((index, term)) => {
                    self.folder.files.retain(|name, _| names::parse_snapshot(name).is_none());
                    self.folder.files.insert(names::snapshot(0, index), term.to_le_bytes().to_vec());
                }
            }
            self.write(manner.roll);
            if let (Step::Mark(_), true, Some(keep_from)) = (step, manner.trim, self.tick_at) {
                self.trim(keep_from);
            }
        }
    }

    fn append(&mut self, kind: Kind, (index, term): Point) {
        self.journal.append(&Record { index, term, ..Record::new(kind, 0) }, |_| {});
    }

    /// Writes all that was appended, and syncs it.
    fn write(&mut self, roll: bool) {
        if roll {
            self.journal.roll(1);
        }
        self.journal.close_block(1);
        loop {
            while let Some(sequence) = self.journal.wants_segment() {
                // Its length comes with what is written: so the files are small.
                self.folder.files.entry(names::segment(0, sequence)).or_default();
                self.journal.segment_ready(sequence);
            }
            let Some(write) = self.journal.next_write() else { break };
            let file = self.folder.files.get_mut(&names::segment(0, write.sequence)).unwrap();
            file.resize(file.len().max(write.end().offset() as usize), 0);
            file[write.offset as usize..write.end().offset() as usize].copy_from_slice(&write.bytes);
            self.journal.written(write, 1);
        }
        while let Some(sync) = self.journal.next_sync() {
            self.journal.synced(sync);
        }
    }

    fn trim(&mut self, keep_from: duva_persist::format::Position) {
        let trimmed = self.journal.trim(keep_from).into_iter().map(|sequence| names::segment(0, sequence));
        for name in self.earlier.drain(..).chain(trimmed) {
            self.folder.files.remove(&name);
        }
    }
}

/// What the log must be.
#[derive(Clone, Default)]
struct Model {
    snapshot: Option<Point>,
    terms: BTreeMap<u64, u64>,
}

impl Model {
    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match *step {
                Step::Append((index, term)) | Step::Install((index, term)) => {
                    self.terms.split_off(&index);
                    self.terms.insert(index, term);
                }
                Step::Publish(point) => self.snapshot = Some(point),
                Step::Mark(_) => {}
            }
        }
    }

    /// After a crash: what contradicts the snapshot is gone, for good.
    fn recover(&mut self) -> Shown {
        let snapshot = self.snapshot.unwrap_or_default();
        if snapshot.0 > 0 && self.terms.get(&snapshot.0) != Some(&snapshot.1) {
            self.terms.split_off(&snapshot.0);
            self.terms.insert(snapshot.0, snapshot.1);
        }
        let entries = self.terms.range(snapshot.0 + 1..).map(|(index, term)| (*index, *term)).collect();
        let last = self.terms.last_key_value().map_or((0, 0), |(index, term)| (*index, *term));
        Shown { snapshot, entries, last }
    }
}

fn appends(indexes: std::ops::RangeInclusive<u64>, term: u64) -> impl Iterator<Item = Step> {
    indexes.map(move |index| Step::Append((index, term)))
}

/// Runs a life's first steps for every number of them, a second one likewise, and then another start.
fn check(first: &[Step]) {
    for (roll, trim) in [(false, false), (true, false), (true, true)] {
        let manner = Manner { roll, trim };
        for first in (0..=first.len()).map(|count| &first[..count]) {
            let mut folder = Folder::new();
            let mut model = Model::default();
            folder.start().run(first, manner);
            model.run(first);
            let shown = model.recover();
            assert_eq!(folder.log(&folder.scan().unwrap()), shown, "{manner:?} {first:?}");
            // The same term goes on, as with the leader that sent the snapshot.
            let (last, term) = (shown.last.0, shown.last.1.max(1));
            let second = [
                Step::Append((last + 1, term)),
                Step::Append((last + 2, term)),
                Step::Append((last + 3, term)),
                // It is replaced, right behind the snapshot perhaps.
                Step::Append((last + 1, 9)),
                Step::Append((last + 2, 9)),
                Step::Publish((last + 1, 9)),
                Step::Mark((last + 1, 9)),
                Step::Append((last + 3, 9)),
                Step::Publish((last + 2, 10)),
                Step::Install((last + 2, 10)),
                Step::Mark((last + 2, 10)),
                Step::Append((last + 3, 10)),
            ];
            for second in (0..=second.len()).map(|count| &second[..count]) {
                let (mut folder, mut model) = (folder.clone(), model.clone());
                folder.start().run(second, manner);
                model.run(second);
                let shown = model.recover();
                let context = || format!("{manner:?} {first:?}, then {second:?}");
                assert_eq!(folder.log(&folder.scan().unwrap()), shown, "{}", context());
                folder.start();
                assert_eq!(folder.log(&folder.scan().unwrap()), shown, "{}, once more", context());
            }
        }
    }
}

#[test]
fn a_snapshot_far_ahead_of_the_log_replaces_it() {
    let steps = [Step::Publish((100, 7)), Step::Install((100, 7)), Step::Mark((100, 7))];
    let later = appends(101..=103, 7);
    check(&appends(1..=4, 1).chain(steps).chain(later).collect::<Vec<_>>());
    // An empty log, too.
    check(&steps);
}

#[test]
fn a_snapshot_replaces_entries_of_another_term() {
    let steps = [Step::Publish((3, 2)), Step::Install((3, 2)), Step::Mark((3, 2))];
    check(&appends(1..=5, 1).chain(steps).chain(appends(4..=6, 2)).collect::<Vec<_>>());
    // The entry of another term is the last one.
    check(&appends(1..=3, 1).chain(steps).chain(appends(4..=4, 2)).collect::<Vec<_>>());
}

#[test]
fn a_log_that_has_the_snapshots_last_entry_stays() {
    let log = appends(1..=2, 1).chain(appends(3..=5, 2));
    check(&log.chain([Step::Publish((4, 2)), Step::Mark((4, 2)), Step::Append((6, 3))]).collect::<Vec<_>>());
}

#[test]
fn several_snapshots_are_installed_one_after_the_other() {
    let install = |point| [Step::Publish(point), Step::Install(point), Step::Mark(point)];
    let steps = appends(1..=3, 1)
        .chain(install((2, 4)))
        .chain(appends(3..=5, 4))
        .chain(install((4, 5)))
        .chain(install((50, 6)))
        .chain(appends(51..=52, 6));
    check(&steps.collect::<Vec<_>>());
}

#[test]
fn a_gap_that_no_snapshot_covers_is_refused() {
    let mut folder = Folder::new();
    let steps = [Step::Append((1, 1)), Step::Publish((4, 2)), Step::Append((6, 2))];
    folder.start().run(&steps, Manner { roll: false, trim: false });
    let Err(RecoveryError::IndexGap { shard: 0, first: 5, last: 5, .. }) = folder.scan().map(drop) else {
        panic!("entry 5 is missing");
    };
    folder.files.insert(names::snapshot(0, 5), 2_u64.to_le_bytes().to_vec());
    // Entry 5 is not in the log: what is behind it may go on from another one.
    assert_eq!(
        folder.log(&folder.scan().unwrap()),
        Shown { snapshot: (5, 2), entries: vec![], last: (5, 2) }
    );
}

#[test]
fn an_unreadable_snapshot_is_refused_by_name() {
    let mut folder = Folder::new();
    folder.start().run(&[Step::Append((1, 1)), Step::Publish((1, 1))], Manner { roll: false, trim: false });
    let name = names::snapshot(0, 1);
    folder.files.insert(name.clone(), vec![]);
    let refusal = folder.scan().map(drop).unwrap_err().to_string();
    assert!(refusal.starts_with(&format!("{name} cannot be read")), "{refusal}");
}

#[test]
fn the_only_vote_survives_the_segment_that_has_it() {
    let votes = |folder: &Folder| {
        let states = folder.scan().unwrap().states();
        [0, 1].map(|shard: usize| (states[shard].term.get(), states[shard].vote.get()))
    };
    let mut folder = Folder::new();
    let mut life = folder.start();
    let vote = |life: &mut Life<'_>, shard, term: u64, vote: u64| {
        let record = Record { term, ..Record::new(Kind::HardState, shard) };
        life.journal.append(&record, |buffer| buffer.extend_from_slice(&vote.to_le_bytes()));
    };
    vote(&mut life, 0, 5, 3 << 32 | 1);
    life.write(true);
    life.append(Kind::Tick, (1, 5));
    life.write(true);
    let keep_from = life.journal.appended_to();
    let first = life.journal.segments().next().unwrap();
    // What follows is that the segment with the vote goes, and with it the entry, which a snapshot has.
    life.folder.files.insert(names::snapshot(0, 1), 5_u64.to_le_bytes().to_vec());
    life.trim(keep_from);
    assert!(!life.folder.files.contains_key(&names::segment(0, first)));
    vote(&mut life, 1, 6, 7);
    life.write(false);
    assert_eq!(votes(&folder), [(5, 3 << 32 | 1), (6, 7)]);
    // The next starts' headers carry it on, and a later record counts more than any header before it.
    for term in 7..10 {
        let mut life = folder.start();
        vote(&mut life, 1, term, 1);
        life.write(false);
        assert_eq!(votes(&folder), [(5, 3 << 32 | 1), (term, 1)]);
    }
}

#[test]
fn what_a_start_begins_with_counts_whether_the_start_ends_or_not() {
    let manner = Manner { roll: false, trim: false };
    let mut folder = Folder::new();
    folder.start().run(&[Step::Append((1, 1)), Step::Append((2, 1))], manner);
    for is_over in [true, false] {
        let mut folder = folder.clone();
        drop(folder.start_with(&[(3, 5), (4, 5)]));
        if !is_over {
            // The crash comes right before the manifest says that the journal is begun.
            folder.manifest.starts.clear();
        }
        folder.start().run(&[Step::Append((5, 6))], manner);
        let log = folder.log(&folder.scan().unwrap());
        assert_eq!(log.entries, [(1, 1), (2, 1), (3, 5), (4, 5), (5, 6)], "{is_over}");
        drop(folder.start());
        assert_eq!(folder.log(&folder.scan().unwrap()), log);
    }
}
