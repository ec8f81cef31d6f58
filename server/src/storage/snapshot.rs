//! A shard's snapshot file: an RDB file whose AUX fields say what it is a snapshot of.
//!
//! | field | value |
//! | --- | --- |
//! | `duva-format` | [`SNAPSHOT_FORMAT`], decimal, as are all but the last |
//! | `duva-shard` | the shard |
//! | `duva-index` | the index of the last entry that the snapshot covers |
//! | `duva-term` | the term of that entry |
//! | `duva-time-ms` | shard time, in milliseconds since the Unix epoch: nothing in the file was due then |
//! | `duva-node` | the node's id, 32 hexadecimal digits |
//!
//! Redis reads such a file as well: it passes over fields that it does not know.

use std::{
    fmt::Write as _,
    fs::File,
    io::{Read, Write as _},
    path::Path,
};

use duva_engine::{
    Hasher, Saved, Shard,
    rdb::{self, Checksum, Item, RdbOptions, ReadError, Reader, Visitor},
};
use duva_persist::names;

use super::{
    folder::{Folder, PIECE_BYTES, TEMPORARY_SUFFIX},
    progress::Progress,
};

/// The version of the fields.
pub const SNAPSHOT_FORMAT: u64 = 1;

/// Entries that a step of writing looks at.
const STEP_ENTRIES: usize = 1024;

/// What a snapshot is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotHeader {
    /// The shard.
    pub shard: u16,
    /// The index of the last entry that it covers.
    pub index: u64,
    /// The term of that entry.
    pub term: u64,
    /// Shard time at the snapshot, in milliseconds since the Unix epoch.
    pub time_ms: u64,
    /// The node that took it.
    pub node: [u8; 16],
}

/// Begins a snapshot file.
pub fn snapshot_header(out: &mut Vec<u8>, header: &SnapshotHeader) {
    let decimal = |value: u64| value.to_string().into_bytes();
    let (shard, index) = (decimal(header.shard.into()), decimal(header.index));
    let (term, time_ms, format) = (decimal(header.term), decimal(header.time_ms), decimal(SNAPSHOT_FORMAT));
    rdb::write_header(
        out,
        &[
            ("redis-bits", b"64"),
            ("duva-format", &format),
            ("duva-shard", &shard),
            ("duva-index", &index),
            ("duva-term", &term),
            ("duva-time-ms", &time_ms),
            ("duva-node", hexadecimal(&header.node).as_bytes()),
        ],
    );
}

/// An id as it is shown.
fn hexadecimal(id: &[u8; 16]) -> String {
    id.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}

/// Feeds a whole file to `visitor`, a piece at a time.
///
/// # Errors
/// A sentence that names the file, and where in it something is wrong.
pub(super) fn read_rdb<V: Visitor<Error = String>>(
    path: &Path,
    visitor: &mut V,
    progress: &Progress,
) -> Result<(), String> {
    let shown = path.display();
    let unreadable = |error| format!("{shown} cannot be read ({error}): change the rights of the file");
    let mut file = File::open(path).map_err(unreadable)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut reader = Reader::new();
    loop {
        let length = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(error)),
        };
        reader.feed(&piece[..length], visitor).map_err(|error| match error {
            ReadError::Rdb(error) => format!("{shown} cannot be loaded: {error}"),
            ReadError::Visitor(error) => format!("{shown} cannot be loaded: {error}"),
        })?;
        progress.add_bytes(length as u64);
    }
    reader.finish().map_err(|error| format!("{shown} cannot be loaded: {error}"))
}

/// Loads a snapshot file into its shard, which is empty; returns what the file says that it is.
///
/// # Errors
/// A sentence that names the file.
pub(super) fn load(
    path: &Path,
    expected: (u16, u64),
    node: &[u8; 16],
    shard: &mut Shard,
    hasher: &Hasher,
    progress: &Progress,
) -> Result<SnapshotHeader, String> {
    let mut loader =
        Loader { shard, hasher, expected, node, fields: SnapshotFields::default(), header: None };
    read_rdb(path, &mut loader, progress)?;
    loader.header().map_err(|error| format!("{} cannot be loaded: {error}", path.display()))
}

/// The fields of a snapshot file, as far as they were read.
#[derive(Default)]
pub struct SnapshotFields {
    format: Option<u64>,
    shard: Option<u64>,
    index: Option<u64>,
    term: Option<u64>,
    time_ms: Option<u64>,
    node: Option<[u8; 16]>,
}

impl SnapshotFields {
    /// Takes note of an AUX field, and passes over those of others.
    pub fn note(&mut self, name: &[u8], value: &[u8]) {
        let number = || str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        match name {
            b"duva-format" => self.format = number(),
            b"duva-shard" => self.shard = number(),
            b"duva-index" => self.index = number(),
            b"duva-term" => self.term = number(),
            b"duva-time-ms" => self.time_ms = number(),
            b"duva-node" => self.node = id(value),
            _ => {}
        }
    }

    /// What the file is a snapshot of, once all fields were read.
    ///
    /// # Errors
    /// A sentence, which does not name the file, if it is not of the shard and index that are expected, or not of `node`,
    /// where that is known.
    pub fn header(
        &self,
        (shard, index): (u16, u64),
        expected_node: Option<&[u8; 16]>,
    ) -> Result<SnapshotHeader, String> {
        if let Some(format) = self.format.filter(|&format| format != SNAPSHOT_FORMAT) {
            return Err(format!(
                "a newer server wrote it, in format {format}; this one reads format {SNAPSHOT_FORMAT}"
            ));
        }
        let (Some(_), Some(own_shard), Some(own_index), Some(term), Some(time_ms), Some(node)) =
            (self.format, self.shard, self.index, self.term, self.time_ms, self.node)
        else {
            return Err("it is no snapshot of a shard: fields are missing at its beginning".to_owned());
        };
        if (own_shard, own_index) != (u64::from(shard), index) {
            return Err(format!(
                "it is the snapshot of shard {own_shard} at index {own_index}, not the one in its name: it was renamed"
            ));
        }
        if expected_node.is_some_and(|expected| *expected != node) {
            return Err("it belongs to another node than the manifest says".to_owned());
        }
        Ok(SnapshotHeader { shard, index, term, time_ms, node })
    }
}

/// An id from its [`hexadecimal`] form.
fn id(text: &[u8]) -> Option<[u8; 16]> {
    let text = str::from_utf8(text).ok().filter(|text| text.len() == 32)?;
    let number = u128::from_str_radix(text, 16).ok()?;
    Some(number.to_be_bytes())
}

struct Loader<'a> {
    shard: &'a mut Shard,
    hasher: &'a Hasher,
    /// Shard and index in the file's name.
    expected: (u16, u64),
    node: &'a [u8; 16],
    fields: SnapshotFields,
    /// Known, and checked, from the first entry on.
    header: Option<SnapshotHeader>,
}

impl Loader<'_> {
    /// What the fields say, once all of them were read.
    fn header(&mut self) -> Result<SnapshotHeader, String> {
        if let Some(header) = self.header {
            return Ok(header);
        }
        let header = self.fields.header(self.expected, Some(self.node))?;
        self.shard.advance(header.time_ms);
        self.header = Some(header);
        Ok(header)
    }
}

impl Visitor for Loader<'_> {
    type Error = String;

    fn aux(&mut self, name: &[u8], value: &[u8]) -> Result<(), String> {
        self.fields.note(name, value);
        Ok(())
    }

    #[inline]
    fn entry(&mut self, item: Item<'_>) -> Result<(), String> {
        let header = match &self.header {
            Some(header) => *header,
            None => self.header()?,
        };
        let key = self.hasher.key(item.key);
        if !self.shard.slots().contains(&key.slot) {
            return Err(format!("the key '{}' belongs to another shard", item.key.escape_ascii()));
        }
        item.store(self.shard, key, header.time_ms);
        Ok(())
    }
}

/// Writes a shard's snapshot file, whole and durable but for its name: see [`Folder::sync`]. Nothing else uses the shard
/// meanwhile.
pub(super) fn write(
    folder: &Folder,
    header: &SnapshotHeader,
    shard: &mut Shard,
    options: RdbOptions,
    has_checksum: bool,
) -> Result<(), String> {
    let name = names::snapshot(header.shard, header.index);
    let temporary = folder.path_of(&format!("{name}{TEMPORARY_SUFFIX}"));
    let mut file = folder.create(&temporary)?;
    let mut checksum = Checksum::new();
    let mut out = Vec::new();
    let mut drain = |out: &mut Vec<u8>| {
        if has_checksum {
            checksum.update(out);
        }
        let written = file.write_all(out);
        out.clear();
        written.map_err(|error| format!("{} cannot be written ({error}): make room", temporary.display()))
    };
    snapshot_header(&mut out, header);
    let mut database = None;
    shard.begin_snapshot(u64::MAX);
    let mut is_done = false;
    while !is_done {
        is_done = shard.snapshot_step(STEP_ENTRIES, |saved| {
            let entry = match saved {
                Saved::Entry(entry) => entry,
                Saved::Part(bytes) => return out.extend_from_slice(bytes),
            };
            if database != Some(entry.database) {
                database = Some(entry.database);
                rdb::write_select(&mut out, entry.database);
            }
            rdb::write_saved(&mut out, &entry, options);
        });
        if out.len() >= PIECE_BYTES {
            drain(&mut out)?;
        }
    }
    rdb::write_end(&mut out);
    drain(&mut out)?;
    let sum = if has_checksum { checksum.value() } else { 0 };
    file.write_all(&sum.to_le_bytes())
        .map_err(|error| format!("{} cannot be written ({error}): make room", temporary.display()))?;
    folder.publish(file, &temporary, &name)
}
