//! A shard's snapshot file, read as a start reads it, but for keeping the keys.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;

use duva_engine::{
    SLOT_COUNT, key_slot,
    rdb::{Item, ReadError, Reader, Visitor},
};
use duva_persist::manifest::Manifest;
use duva_server::storage::{SnapshotFields, SnapshotHeader};

use super::{
    Failure,
    folder::{Folder, SnapshotFile},
    text::Time,
};

/// The file is read in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// Bytes of the checksum at the end.
const CHECKSUM_BYTES: u64 = 8;

/// What a sound snapshot holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) bytes: u64,
    pub(super) keys: u64,
    /// Shard time, in milliseconds since the Unix epoch.
    pub(super) time_ms: u64,
    /// It ends with a checksum, which is right; otherwise it was written without.
    pub(super) has_checksum: bool,
}

/// Reads a snapshot file from its beginning to its end. `manifest`: the one that it must go with. Returns what it holds, or
/// what is wrong with it.
pub(super) fn read(
    folder: &Folder,
    file: &SnapshotFile,
    manifest: Option<&Manifest>,
) -> Result<Result<Summary, String>, Failure> {
    let unreadable = |error| folder.unreadable(&file.name, &error);
    let (mut source, bytes) = folder.open(&file.name).map_err(unreadable)?;
    let mut check = Check { file, manifest, fields: SnapshotFields::default(), keys: 0, is_checked: false };
    let mut reader = Reader::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = match source.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(error)),
        };
        match reader.feed(&piece[..length], &mut check) {
            Ok(()) => {}
            Err(ReadError::Rdb(error)) => return Ok(Err(error.to_string())),
            Err(ReadError::Visitor(error)) => return Ok(Err(error)),
        }
    }
    if let Err(error) = reader.finish() {
        return Ok(Err(error.to_string()));
    }
    let header = match check.header() {
        Ok(header) => header,
        Err(sentence) => return Ok(Err(sentence)),
    };
    let mut checksum = [0; CHECKSUM_BYTES as usize];
    if let Some(at) = bytes.checked_sub(CHECKSUM_BYTES) {
        source.read_exact_at(&mut checksum, at).map_err(unreadable)?;
    }
    let time_ms = header.time_ms;
    Ok(Ok(Summary { bytes, keys: check.keys, time_ms, has_checksum: checksum != [0; 8] }))
}

/// What a sound snapshot holds, in words.
pub(super) fn told(summary: &Summary) -> String {
    let unchecked = if summary.has_checksum { "" } else { ", without a checksum" };
    format!("{} bytes, {} keys, of {}{unchecked}", summary.bytes, summary.keys, Time(summary.time_ms))
}

struct Check<'a> {
    file: &'a SnapshotFile,
    manifest: Option<&'a Manifest>,
    fields: SnapshotFields,
    keys: u64,
    /// The fields were found right.
    is_checked: bool,
}

impl Check<'_> {
    /// What the fields say, if they are there and fit.
    fn header(&self) -> Result<SnapshotHeader, String> {
        let expected = (self.file.shard, self.file.index);
        self.fields.header(expected, self.manifest.map(|manifest| &manifest.node))
    }
}

impl Visitor for Check<'_> {
    type Error = String;

    fn aux(&mut self, name: &[u8], value: &[u8]) -> Result<(), String> {
        self.fields.note(name, value);
        Ok(())
    }

    fn entry(&mut self, item: Item<'_>) -> Result<(), String> {
        if !self.is_checked {
            self.header()?;
            self.is_checked = true;
        }
        self.keys += 1;
        let Some(manifest) = self.manifest else { return Ok(()) };
        if shard_of(item.key, manifest.shards) == self.file.shard {
            Ok(())
        } else {
            Err(format!("the key '{}' belongs to another shard", item.key.escape_ascii()))
        }
    }
}

/// The shard that holds a key; `shards` is a power of two and at most the number of slots.
fn shard_of(key: &[u8], shards: u16) -> u16 {
    key_slot(key) / (SLOT_COUNT / shards)
}
