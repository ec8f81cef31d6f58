//! What holds for journals on any input; shared by the fuzz targets and the crate's own tests.
//!
//! Whatever the bytes are, the readers return or refuse, and allocate no more than in proportion to them. What they
//! return is what `journal_model.rs`, which is written independently of them, finds there too: they agree on every
//! header, block and record, on where each journal ends, on what every shard comes to and on each entry that is visited.

#![allow(dead_code, reason = "each program that shares this file uses a part of it")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io,
};

use duva_persist::{
    format::{BlockHeader, RecordHeader, ShardState},
    journal::{Journal, JournalOptions, SEGMENT_BYTES_MIN},
    manifest::{Cut, Manifest, ManifestError, Start, Truncation},
    names,
    recovery::{self, Directory, EntryKind, RecoveryError, ReplayError, Scan, ScanOptions, segment},
};

pub(crate) mod journal_bytes;
pub(crate) mod journal_model;
pub(crate) mod journal_recipe;

use journal_bytes::{Head, Record, State, checksum, number};
use journal_model::{Model, Visit};
use journal_recipe::set;

/// The system's allocator, with each thread's bytes counted.
struct Counting;

thread_local! {
    /// Bytes that the thread holds, and the most that it held since that was asked for last.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

impl Counting {
    fn count(bytes: isize) {
        // A thread that ends may have none any more.
        let _ = HELD.try_with(|held| {
            let (now, most) = held.get();
            held.set((now + bytes, most.max(now + bytes)));
        });
    }
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count(layout.size() as isize);
        // SAFETY: the caller keeps the contract, which is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::count(-(layout.size() as isize));
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        // Both may be there for a moment.
        Self::count(new_bytes as isize);
        Self::count(-(layout.size() as isize));
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.realloc(pointer, layout, new_bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Does something that may hold at most so many bytes at once.
fn within<T>(bytes_max: usize, work: impl FnOnce() -> T) -> T {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let result = work();
    let held = HELD.with(|held| held.get().1 - before);
    assert!(held <= bytes_max as isize, "{held} bytes were held at once, and {bytes_max} are enough");
    result
}

/// Checks one fuzz input: a byte that says what is put right, and a segment's file.
pub(crate) fn check_records(data: &[u8]) {
    let [choice, file @ ..] = data else { return };
    let mut file = file.to_vec();
    if choice & 1 != 0 && file.len() >= 104 {
        file[..8].copy_from_slice(b"DUVASEG\n");
    }
    // Where the first block that can be found says it lies.
    let mut place = None;
    for at in (0..file.len().saturating_sub(63)).step_by(64) {
        if choice & 2 != 0 && at == 64 * usize::from(choice >> 4) {
            file[at..at + 4].copy_from_slice(b"DBLK");
        }
        if &file[at..at + 4] == b"DBLK" {
            place.get_or_insert((number(&file, at + 58, 2) as u16, number(&file, at + 16, 4) as u32));
            if choice & 4 != 0 {
                set(&mut file, at + 20, 4, at as u64);
            }
        }
    }
    if choice & 8 != 0 {
        journal_recipe::sign(&mut file);
    }
    check_file(&file, place.unwrap_or_default());
}

/// Checks that the reader agrees with the model on everything in a segment's file of this core and sequence.
pub(crate) fn check_file(file: &[u8], (core, sequence): (u16, u32)) {
    let model = journal_bytes::head(file);
    for complete in [true, false] {
        let found = match within(0, || segment::head(file, complete)) {
            segment::Head::Newer { reader_version } => Head::Newer(reader_version),
            segment::Head::Invalid => Head::Invalid,
            segment::Head::Longer(bytes) => Head::Longer(bytes),
            segment::Head::Whole(header) => Head::Whole(journal_bytes::Header {
                core: header.core.get(),
                epoch: header.epoch.get(),
                sequence: header.sequence.get(),
                segment_len: header.segment_len.get() as usize,
                cluster: header.cluster,
                node: header.node,
                states: segment::states(file, &header).iter().map(state).collect(),
                blocks_from: segment::blocks_from(&header),
            }),
        };
        let longer = matches!(model, Head::Longer(_));
        assert_eq!(found, if complete && longer { Head::Invalid } else { model.clone() });
    }
    let found = segment::search(file, 0, core, sequence);
    let found: Vec<_> = found.map(block).collect();
    assert_eq!(found, journal_bytes::search(file, 0, core, sequence));
    for offset in 0..file.len() + 2 {
        let header = within(0, || segment::block(file, offset, core, sequence));
        let model = journal_bytes::block(file, offset, core, sequence);
        assert_eq!(header.map(block), model, "{offset}");
        for end in [file.len(), offset + 100] {
            check_record(file, offset, end, 0);
        }
        let Some(header) = header else { continue };
        let block = block(header);
        assert_eq!(segment::block_end(header), block.end());
        let mut next = Some(offset + 64);
        while let Some(at) = next.filter(|at| *at < block.records_end()) {
            next = check_record(file, at, block.records_end(), header.salt());
        }
    }
}

/// Checks a record; returns where the next one begins.
fn check_record(file: &[u8], offset: usize, end: usize, salt: u32) -> Option<usize> {
    let found = within(0, || segment::record(file, offset, end));
    let model = journal_bytes::record(file, offset, end, salt);
    let read = found.map(|(header, payload, _)| {
        (record(header, payload), segment::record_is_whole(file, offset, header, salt))
    });
    assert_eq!(read, model, "{offset}");
    found.map(|(_, _, next)| next)
}

fn state(state: &ShardState) -> State {
    State {
        shard: state.shard.get(),
        ownership: state.ownership.get(),
        term: state.term.get(),
        vote: state.vote.get(),
        last: (state.last_index.get(), state.last_term.get()),
        snapshot: (state.snapshot_index.get(), state.snapshot_term.get()),
        time_ms: state.time_ms.get(),
    }
}

fn block(header: &BlockHeader) -> journal_bytes::Block {
    journal_bytes::Block {
        epoch: header.epoch.get(),
        offset: header.offset.get() as usize,
        number: header.number.get(),
        synced_to: duva_persist::format::Position(header.synced_to.get()),
        len: header.len.get() as usize,
        records: header.records.get().into(),
        sealed: header.flags.get() & 1 == 1,
        salt: header.salt(),
    }
}

fn record(header: &RecordHeader, payload: &[u8]) -> Record {
    Record {
        shard: header.shard.get(),
        kind: header.kind,
        flags: header.flags,
        index: header.index.get(),
        term: header.term.get(),
        timestamp_ms: header.timestamp_ms.get(),
        seed: header.seed.get(),
        fragments: header.fragments.get(),
        payload: payload.to_vec(),
    }
}

/// Checks one fuzz input: a byte that says what is put right, and a manifest's file.
pub(crate) fn check_manifest(data: &[u8]) {
    let [choice, file @ ..] = data else { return };
    let mut file = file.to_vec();
    if choice & 1 != 0 {
        // As many entries as fit.
        file.truncate(file.len().saturating_sub(104) / 32 * 32 + 104);
    }
    if choice & 2 != 0 && file.len() >= 104 {
        file[..12].copy_from_slice(b"DUVAMAN\n\x01\0\x01\0");
        let entries = (file.len() - 104) / 32;
        let cuts = entries * usize::from(choice >> 4 & 3) / 3;
        let truncations = (entries - cuts) * usize::from(choice >> 6) / 3;
        set(&mut file, 92, 4, cuts as u64);
        set(&mut file, 96, 4, truncations as u64);
        set(&mut file, 100, 4, (entries - cuts - truncations) as u64);
    }
    if choice & 4 != 0 && file.len() >= 104 {
        let len = file.len() as u64;
        set(&mut file, 16, 4, len);
    }
    if choice & 8 != 0 && file.len() >= 104 {
        let crc = checksum(&file, 12);
        set(&mut file, 12, 4, crc.into());
    }
    check_manifest_file(&file);
}

/// Checks that the reader agrees with the model on a manifest's file.
pub(crate) fn check_manifest_file(file: &[u8]) {
    let found = within(4 * file.len() + 1024, || Manifest::decode(file));
    match (&found, model_manifest(file)) {
        (Ok(found), Ok(model)) => assert_eq!(*found, model),
        (Err(ManifestError::Contradiction(_)), Err(ManifestError::Contradiction(_))) => {}
        (found, model) => assert_eq!(*found, model),
    }
    match found {
        Ok(manifest) => {
            let encoded = manifest.encode();
            assert_eq!(encoded.len(), file.len());
            assert_eq!(Manifest::decode(&encoded), Ok(manifest));
        }
        Err(error) => drop(error.to_string()),
    }
}

fn model_manifest(file: &[u8]) -> Result<Manifest, ManifestError> {
    if file.len() < 104 || &file[..8] != b"DUVAMAN\n" {
        return Err(ManifestError::NotAManifest);
    }
    if number(file, 16, 4) as usize != file.len() || number(file, 12, 4) as u32 != checksum(file, 12) {
        return Err(ManifestError::Damaged);
    }
    if number(file, 10, 2) > 1 {
        return Err(ManifestError::Newer { reader_version: number(file, 10, 2) as u16 });
    }
    let [cuts, truncations, starts] = [92, 96, 100].map(|at| number(file, at, 4) as usize);
    if file.len() != 104 + 32 * (cuts + truncations + starts) {
        return Err(ManifestError::Damaged);
    }
    let mut entries = file[104..].chunks_exact(32);
    let position = |entry: &[u8]| duva_persist::format::Position(number(entry, 8, 8));
    let owner = |entry: &[u8]| number(entry, 28, 2) as u16;
    let manifest = Manifest {
        cuts: (entries.by_ref().take(cuts))
            .map(|entry| Cut { epoch: number(entry, 0, 8), core: owner(entry), end: position(entry) })
            .collect(),
        truncations: (entries.by_ref().take(truncations))
            .map(|entry| Truncation {
                shard: owner(entry),
                from_epoch: number(entry, 0, 8),
                from_ownership: number(entry, 24, 4) as u32,
                from: position(entry),
                to_epoch: number(entry, 16, 8),
            })
            .collect(),
        starts: entries
            .map(|entry| Start { core: owner(entry), sequence: position(entry).sequence() })
            .collect(),
        cluster: *file[24..].first_chunk().expect("a header"),
        node: *file[40..].first_chunk().expect("a header"),
        kernel_boot: *file[56..].first_chunk().expect("a header"),
        hash_seed: number(file, 72, 8),
        hash_algorithm: number(file, 88, 2) as u16,
        shards: number(file, 20, 2) as u16,
        epoch: number(file, 80, 8),
        must_not_vote: file[22] & 1 == 1,
    };
    let later = |epoch: u64| epoch >= manifest.epoch;
    let places: BTreeSet<_> = manifest.cuts.iter().map(|cut| (cut.epoch, cut.core)).collect();
    let starts: BTreeSet<u16> = manifest.starts.iter().map(|start| start.core).collect();
    let wrong = manifest.shards == 0
        || manifest.epoch == u64::MAX
        || places.len() < manifest.cuts.len()
        || starts.len() < manifest.starts.len()
        || manifest.cuts.iter().any(|cut| later(cut.epoch))
        || manifest.truncations.iter().any(|known| later(known.to_epoch) || known.shard >= manifest.shards);
    if wrong { Err(ManifestError::Contradiction("")) } else { Ok(manifest) }
}

/// A data directory in memory.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) manifest: Manifest,
}

impl Directory for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().rev().cloned().collect())
    }

    fn read(&self, name: &str, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        buffer.extend_from_slice(self.files.get(name).ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }
}

/// Checks one fuzz input: a recipe, see `journal_recipe.rs`.
pub(crate) fn check_directory(data: &[u8]) {
    check_folder(&journal_recipe::folder(data));
}

/// What recovery allocates at most, in bytes.
fn allocated_max(folder: &Folder) -> usize {
    let bytes: usize = folder.files.iter().map(|(name, bytes)| name.len() + bytes.len()).sum();
    let manifest = &folder.manifest;
    let entries = manifest.cuts.len() + manifest.truncations.len() + manifest.starts.len();
    16 * bytes + 128 * entries + 1024 * usize::from(manifest.shards) + 65_536
}

/// Checks that recovery and the model agree on a directory; whether it is recovered, without giving up anything.
pub(crate) fn check_folder(folder: &Folder) -> bool {
    let whole = check_recovery(folder, false);
    let truncated = check_recovery(folder, true);
    if whole.is_some() {
        assert_eq!(truncated, whole, "there is nothing to give up");
    }
    whole.is_some()
}

/// Recovers, and once more as the next starts find it; returns the next manifest.
fn check_recovery(folder: &Folder, truncate: bool) -> Option<Manifest> {
    let (scan, next) = check_start(folder, truncate)?;
    let manifest = Manifest::decode(&next.encode());
    assert_eq!(manifest.as_ref(), Ok(&next));
    let states = scan.states();
    // Not begun, and begun.
    let mut later = vec![Folder { manifest: next.clone(), ..folder.clone() }];
    later.push(begin(folder, &scan, &next));
    for folder in later {
        let (scan, _) = check_start(&folder, false).expect("what is recovered once can be recovered again");
        assert_eq!(scan.states(), states);
        // Where a journal ends that nothing is kept of says nothing.
        let kept = |cut: &&Cut| cut.epoch < next.epoch && cut.end.offset() > 0;
        assert!(scan.cuts().iter().filter(kept).all(|cut| next.cuts.contains(cut)), "the end stays the end");
    }
    Some(next)
}

/// The directory once the journals of two cores are begun.
fn begin(folder: &Folder, scan: &Scan, next: &Manifest) -> Folder {
    let mut folder = Folder { manifest: scan.begun_manifest(next, 2), ..folder.clone() };
    for core in 0..2 {
        let options = JournalOptions {
            core,
            epoch: next.epoch,
            segment_len: SEGMENT_BYTES_MIN,
            cluster: next.cluster,
            node: next.node,
            kernel_boot: next.kernel_boot,
        };
        let states = scan.states().into_iter().filter(|state| state.shard.get() % 2 == core);
        let sequence = scan.next_sequence(core);
        let write = Journal::new(options, sequence, states.collect()).begin(1);
        folder.files.insert(names::segment(core, sequence), write.bytes);
    }
    folder
}

/// Recovers as the model says; returns what came of it, and the next manifest.
fn check_start(folder: &Folder, truncate: bool) -> Option<(Scan, Manifest)> {
    let options = ScanOptions { truncate, threads: 1 };
    let bytes_max = allocated_max(folder);
    let scan = within(bytes_max, || recovery::scan(folder, &folder.manifest, options));
    if std::env::var_os("DUMP").is_some() {
        eprintln!("DUMP truncate {truncate} {:?}", folder.manifest);
        for (name, bytes) in &folder.files {
            eprintln!("DUMP {name} {} bytes", bytes.len());
            if let Some((core, sequence)) = names::parse_segment(name) {
                if let Head::Whole(head) = journal_bytes::head(bytes) {
                    eprintln!(
                        "DUMP   epoch {} seq {} len {} from {}",
                        head.epoch, head.sequence, head.segment_len, head.blocks_from
                    );
                    for state in &head.states {
                        eprintln!("DUMP   {state:?}");
                    }
                }
                for block in journal_bytes::search(bytes, 0, core, sequence) {
                    eprintln!("DUMP   {block:?}");
                    let mut at = block.offset + 64;
                    while let Some((record, whole)) =
                        journal_bytes::record(bytes, at, block.records_end(), block.salt)
                    {
                        eprintln!("DUMP     {at} {whole} {record:?}");
                        at = journal_bytes::up(at + 48 + record.payload.len(), 8);
                    }
                }
            }
        }
        match &scan {
            Ok(scan) => eprintln!("DUMP = {:?} {:?}", scan.segments(), scan.lost()),
            Err(error) => eprintln!("DUMP = {error}"),
        }
    }
    let model = journal_model::recover(&folder.files, &folder.manifest, truncate);
    let (scan, model) = match (scan, model) {
        (Ok(scan), Ok(model)) => (scan, model),
        (Ok(_), Err(_)) => panic!("what is wrong was accepted"),
        (Err(error), Ok(_)) => panic!("what is right was refused: {error}"),
        (Err(error), Err(_)) => {
            assert!(!matches!(error, RecoveryError::Changed { .. }), "nothing has changed: {error}");
            return None;
        }
    };
    check_scan(folder, &scan, &model);
    let snapshot = |shard: u16| model.snapshots[usize::from(shard)].unwrap_or(0);
    check_replay(folder, &scan, &model, |shard| Some(snapshot(shard)));
    check_replay(folder, &scan, &model, |_| Some(0));
    for wanted in 0..folder.manifest.shards.min(4) {
        check_replay(folder, &scan, &model, |shard| {
            (shard == wanted).then(|| snapshot(shard).saturating_add(1))
        });
    }
    let next = scan.next_manifest(&folder.manifest);
    Some((scan, next))
}

fn check_scan(folder: &Folder, scan: &Scan, model: &Model) {
    assert_eq!(scan.cuts(), model.cuts);
    assert_eq!(scan.empty(), model.empty);
    assert_eq!(scan.segments(), model.segments);
    assert_eq!(scan.lost().is_some(), model.lost);
    assert_eq!(scan.states().iter().map(state).collect::<Vec<_>>(), model.states);
    let snapshots: Vec<_> = (0..)
        .zip(&model.snapshots)
        .map(|(shard, index)| {
            index.map(|index| recovery::Snapshot { name: names::snapshot(shard, index), index })
        })
        .collect();
    assert_eq!(scan.snapshots(), snapshots);
    for core in 0..4 {
        let files = folder.files.keys().filter_map(|name| names::parse_segment(name));
        let last = files.filter(|file| file.0 == core).map(|file| file.1).max();
        assert_eq!(scan.next_sequence(core), last.map_or(1, |last| last + 1));
    }
    if let Some(lost) = scan.lost() {
        assert!(!lost.sentence.is_empty() && !lost.places.is_empty());
    }
}

fn check_replay(folder: &Folder, scan: &Scan, model: &Model, above: impl Fn(u16) -> Option<u64>) {
    let mut visits = vec![Vec::new(); usize::from(folder.manifest.shards)];
    let replayed = scan.replay(folder, &above, |entry| {
        let payload = match entry.kind {
            EntryKind::Entry => Some(entry.payload.to_vec()),
            EntryKind::Tick => None,
            EntryKind::Membership => unreachable!("a membership is not to be applied"),
        };
        visits[usize::from(entry.shard)].push(Visit {
            index: entry.index,
            term: entry.term,
            timestamp_ms: entry.timestamp_ms,
            seed: entry.seed,
            payload,
        });
        Ok::<_, Infallible>(())
    });
    let wanted = (0..folder.manifest.shards).filter_map(|shard| Some((shard, above(shard)?)));
    let models: Option<Vec<_>> =
        wanted.map(|(shard, above)| Some((shard, model.replay(shard, above)?))).collect();
    let (replayed, models) = match (replayed, models) {
        (Ok(replayed), Some(models)) => (replayed, models),
        (Err(ReplayError::Recovery(RecoveryError::MissingPrepare { .. })), None) => return,
        (replayed, models) => panic!("{replayed:?}, and the model says {models:?}"),
    };
    let mut unfinished = Vec::new();
    let mut entries = 0;
    for (shard, (expected, open)) in models {
        let visits = std::mem::take(&mut visits[usize::from(shard)]);
        assert_eq!(visits, expected, "shard {shard}");
        entries += expected.len() as u64;
        unfinished.extend(open);
    }
    assert!(visits.iter().all(Vec::is_empty), "only wanted shards are visited");
    assert_eq!((replayed.entries, replayed.unfinished), (entries, unfinished));
}
