//! Data directories for the tests: made by the journal's own writer, and looked at by the program under test.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use duva_engine::{
    Value, key_slot,
    rdb::{self, Checksum, RdbOptions},
};
use duva_persist::{
    format::{Kind, ShardState, record_flag},
    journal::{Fragments, Journal, JournalOptions},
    manifest::Manifest,
    names,
    record::Record,
};
use duva_server::storage::{SnapshotHeader, snapshot_header};

pub(crate) const SEGMENT_BYTES: u32 = 1 << 20;
pub(crate) const SHARDS: u16 = 4;
pub(crate) const SLOTS_A_SHARD: u16 = 16_384 / SHARDS;
pub(crate) const CLUSTER: [u8; 16] = [0xC1; 16];
pub(crate) const NODE: [u8; 16] = [0xAB; 16];
/// 2024-03-01T00:00:00.001Z.
pub(crate) const NOW_MS: u64 = 1_709_251_200_001;
pub(crate) const TRANSACTION: u64 = 0x1234;
/// Where the first record lies: behind a header with four states, and a block's header.
pub(crate) const FIRST_RECORD: u32 = 448;

/// A data directory that disappears with the test.
pub(crate) struct Data(pub(crate) PathBuf);

impl Data {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("duva-journal-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        // What a killed process with the same id left behind.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("appendonlydir")).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join("appendonlydir").join(name)
    }

    pub(crate) fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.file(name)).unwrap();
        change(&mut bytes);
        fs::write(self.file(name), bytes).unwrap();
    }

    /// Every file of the folder.
    pub(crate) fn content(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.0.join("appendonlydir")).unwrap();
        let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        files.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    /// Runs a subcommand, which must not change anything; returns status, output and errors.
    pub(crate) fn run(&self, subcommand: &str, more: &[&str]) -> (i32, String, String) {
        let before = self.content();
        let done = run(&[&["journal", subcommand, self.0.to_str().unwrap()], more].concat());
        assert!(before == self.content(), "{subcommand} changed the directory");
        done
    }

    /// Runs a subcommand that must find nothing wrong; returns its output.
    pub(crate) fn told(&self, subcommand: &str, more: &[&str]) -> String {
        let (status, output, errors) = self.run(subcommand, more);
        assert_eq!((status, &*errors), (0, ""), "{output}");
        output
    }

    pub(crate) fn write_manifest(&self, change: impl FnOnce(&mut Manifest)) {
        let mut manifest = Manifest {
            cluster: CLUSTER,
            node: NODE,
            kernel_boot: [0; 16],
            hash_seed: 7,
            hash_algorithm: 1,
            shards: SHARDS,
            epoch: 1,
            must_not_vote: false,
            starts: Vec::new(),
            cuts: Vec::new(),
            truncations: Vec::new(),
        };
        change(&mut manifest);
        fs::write(self.file(names::MANIFEST), manifest.encode()).unwrap();
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    let done =
        Command::new(env!("CARGO_BIN_EXE_duva-tools")).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("what is printed is text");
    let status = done.status.code().expect("it ends by itself");
    (status, text(done.stdout), text(done.stderr))
}

/// A journal of core 0, and its files.
pub(crate) struct Writer<'a> {
    data: &'a Data,
    pub(crate) journal: Journal,
    /// By shard.
    indexes: [u64; SHARDS as usize],
}

impl<'a> Writer<'a> {
    pub(crate) fn new(data: &'a Data) -> Self {
        data.write_manifest(|_| {});
        let options = JournalOptions {
            core: 0,
            epoch: 1,
            segment_len: SEGMENT_BYTES,
            cluster: CLUSTER,
            node: NODE,
            kernel_boot: [0; 16],
        };
        let states = (0..SHARDS).map(|shard| ShardState { shard: shard.into(), ..ShardState::default() });
        Self { data, journal: Journal::new(options, 1, states.collect()), indexes: [0; SHARDS as usize] }
    }

    pub(crate) fn record(&mut self, kind: Kind, shard: u16, flags: u8) -> Record {
        self.indexes[usize::from(shard)] += 1;
        let index = self.indexes[usize::from(shard)];
        Record { index, flags, timestamp_ms: NOW_MS, ..Record::new(kind, shard) }
    }

    pub(crate) fn append(&mut self, kind: Kind, shard: u16, flags: u8, payload: &[u8]) {
        let record = self.record(kind, shard, flags);
        self.journal.append(&record, |bytes| bytes.extend_from_slice(payload));
    }

    pub(crate) fn set(&mut self, shard: u16, value: &[u8]) {
        let command = command(&[b"set", key(shard).as_bytes(), value]);
        self.append(Kind::Entry, shard, 0, &command);
    }

    /// Ends the block, and writes it.
    pub(crate) fn close(&mut self) {
        self.journal.close_block(NOW_MS);
        loop {
            while let Some(sequence) = self.journal.wants_segment() {
                let file = File::create(self.data.file(&names::segment(0, sequence))).unwrap();
                file.set_len(SEGMENT_BYTES.into()).unwrap();
                self.journal.segment_ready(sequence);
            }
            let Some(write) = self.journal.next_write() else { return };
            let path = self.data.file(&names::segment(0, write.sequence));
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&write.bytes, write.offset.into()).unwrap();
            self.journal.written(write, NOW_MS);
        }
    }

    /// Ends the block, and makes it durable: the next one says so.
    pub(crate) fn close_synced(&mut self) {
        self.close();
        while let Some(sync) = self.journal.next_sync() {
            self.journal.synced(sync);
        }
    }
}

/// A key of the shard.
pub(crate) fn key(shard: u16) -> String {
    (0..)
        .map(|number| format!("key:{number}"))
        .find(|key| key_slot(key.as_bytes()) / SLOTS_A_SHARD == shard)
        .unwrap()
}

/// An entry's payload, as docs/format.md has it.
pub(crate) fn command(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0];
    push_varint(&mut bytes, arguments.len());
    for argument in arguments {
        push_varint(&mut bytes, argument.len());
        bytes.extend_from_slice(argument);
    }
    bytes
}

pub(crate) fn push_varint(bytes: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

pub(crate) fn snapshot(shard: u16, index: u64, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    snapshot_header(
        &mut bytes,
        &SnapshotHeader { shard, index, term: 0, time_ms: NOW_MS, node: NODE, membership: Vec::new() },
    );
    rdb::write_select(&mut bytes, 0);
    let options = RdbOptions { compress: false };
    rdb::write_entry(&mut bytes, key(shard).as_bytes(), Value::String(value), None, options);
    rdb::write_end(&mut bytes);
    let mut checksum = Checksum::new();
    checksum.update(&bytes);
    bytes.extend_from_slice(&checksum.value().to_le_bytes());
    bytes
}

/// A directory with a record of every kind in two segments, and a snapshot.
pub(crate) fn full(data: &Data) {
    let mut writer = Writer::new(data);
    writer.set(0, b"a\n\"b\" \x1b");
    writer.append(Kind::Tick, 0, 0, &[]);
    writer.close_synced();
    writer.append(Kind::Entry, 0, record_flag::GROUP, &command(&[b"mset", key(0).as_bytes(), b"1"]));
    writer.append(Kind::Entry, 1, 0, &command(&[b"mset", key(1).as_bytes(), b"2"]));
    writer.close_synced();
    let prepared = [&TRANSACTION.to_le_bytes()[..], &command(&[b"del", key(2).as_bytes()])].concat();
    writer.append(Kind::Prepare, 2, 0, &prepared);
    let decided = [&TRANSACTION.to_le_bytes()[..], &[1]].concat();
    writer.append(Kind::Decision, 2, 0, &decided);
    writer.append(Kind::Finish, 2, 0, &decided);
    writer.journal.append(&Record { term: 3, ..Record::new(Kind::HardState, 3) }, |bytes| {
        bytes.extend_from_slice(&9_u64.to_le_bytes());
    });
    writer.close_synced();
    fs::write(data.file(&names::snapshot(1, 1)), snapshot(1, 1, b"2")).unwrap();
    let mark = Record { index: 1, ..Record::new(Kind::SnapshotMark, 1) };
    writer.journal.append(&mark, |_| {});
    writer.close_synced();

    let large = command(&[b"set", key(3).as_bytes(), &[b'x'; 1_500_000]]);
    let record = writer.record(Kind::Entry, 3, 0);
    let mut fragments = Fragments::begin(&mut writer.journal, 3);
    let mut pieces: Vec<&[u8]> = large.chunks(200_000).collect();
    let last = pieces.pop().unwrap();
    for piece in pieces {
        fragments.push(&mut writer.journal, piece);
        writer.close_synced();
    }
    fragments.finish(&mut writer.journal, &record, last);
    writer.close_synced();
}

/// Three durable blocks, of which the third says so of the others, then three that nothing is said of; each has one record of
/// shard 0. Returns where the records lie.
pub(crate) fn half_synced(data: &Data) -> Vec<usize> {
    let mut writer = Writer::new(data);
    let mut places = Vec::new();
    for number in 0..6 {
        writer.set(0, format!("value {number}").as_bytes());
        if number < 3 {
            writer.close_synced();
        } else {
            writer.close();
        }
    }
    let bytes = fs::read(data.file("0-0000000001.segment")).unwrap();
    for number in 0..6 {
        let needle = format!("value {number}");
        places.push(bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).unwrap());
    }
    places
}
