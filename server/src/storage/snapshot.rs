//! A shard's snapshot file: an RDB file whose AUX fields say what it is a snapshot of.
//!
//! | field | value |
//! | --- | --- |
//! | `duva-format` | [`SNAPSHOT_FORMAT`], decimal, as are all but the last three |
//! | `duva-shard` | the shard |
//! | `duva-index` | the index of the last entry that the snapshot covers |
//! | `duva-term` | the term of that entry |
//! | `duva-time-ms` | shard time, in milliseconds since the Unix epoch: nothing in the file was due then |
//! | `duva-node` | the id of the node that took it, 32 hexadecimal digits |
//! | `duva-membership` | who replicated the shard at that entry, hexadecimal; only in a cluster |
//! | `duva-transaction` | a command over several shards that is prepared or committed here and has not ended, as the engine has it; one each |
//! | `duva-once` | recorded replies of ONCE, some whole records as the engine has them; behind the others, as often as needed |
//!
//! Redis reads such a file as well: it passes over fields that it does not know.

use std::{
    fmt::Write as _,
    fs::File,
    io::{Read, Write as _},
    ops::Range,
    path::Path,
};

use duva_engine::{
    Hasher, OnceSnapshot, Saved, Shard,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Who replicated the shard at that entry, as Raft encodes it; empty where the server stood alone.
    pub membership: Vec<u8>,
}

/// Begins a snapshot file.
pub fn snapshot_header(out: &mut Vec<u8>, header: &SnapshotHeader) {
    let decimal = |value: u64| value.to_string().into_bytes();
    let (shard, index) = (decimal(header.shard.into()), decimal(header.index));
    let (term, time_ms, format) = (decimal(header.term), decimal(header.time_ms), decimal(SNAPSHOT_FORMAT));
    let (node, membership) = (hexadecimal(&header.node), hexadecimal(&header.membership));
    let fields: [(&str, &[u8]); 8] = [
        ("redis-bits", b"64"),
        ("duva-format", &format),
        ("duva-shard", &shard),
        ("duva-index", &index),
        ("duva-term", &term),
        ("duva-time-ms", &time_ms),
        ("duva-node", node.as_bytes()),
        ("duva-membership", membership.as_bytes()),
    ];
    let count = if header.membership.is_empty() { fields.len() - 1 } else { fields.len() };
    rdb::write_header(out, &fields[..count]);
}

/// The field of recorded replies.
const ONCE_FIELD: &str = "duva-once";

/// Writes the next recorded replies of a snapshot, behind its header and before its entries; returns their bytes, or
/// `None` if there are no more.
pub fn write_once(out: &mut Vec<u8>, records: &mut OnceSnapshot) -> Option<usize> {
    records.next(|bytes| {
        rdb::write_aux(out, ONCE_FIELD, bytes);
        bytes.len()
    })
}

/// The field of commands over several shards that the shard takes part in.
const TRANSACTION_FIELD: &str = "duva-transaction";

/// Writes those of a snapshot that begins now, behind its header and before its entries.
pub fn write_transactions(out: &mut Vec<u8>, shard: &Shard) {
    for record in shard.transaction_records() {
        rdb::write_aux(out, TRANSACTION_FIELD, &record);
    }
}

/// Bytes as they are shown.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
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
    node: Option<&[u8; 16]>,
    shard: &mut Shard,
    hasher: &Hasher,
    progress: &Progress,
) -> Result<SnapshotHeader, String> {
    let mut fields = Fields { expected: Expected::Exactly(expected), node, ..Fields::default() };
    read_rdb(path, &mut Loader { shard, hasher, fields: &mut fields }, progress)?;
    let header = fields.header().map_err(|error| format!("{} cannot be loaded: {error}", path.display()))?;
    Ok(header.clone())
}

/// The term in the fields of a snapshot file, of which these are the first [`FIELDS_BYTES_MAX`] bytes; `None`: it is not there.
pub fn snapshot_term(head: &[u8]) -> Option<u64> {
    snapshot_fields(head).term
}

/// Who replicated the shard, as the same bytes say it; empty: they do not.
pub(super) fn snapshot_membership(head: &[u8]) -> Vec<u8> {
    snapshot_fields(head).membership
}

fn snapshot_fields(head: &[u8]) -> SnapshotFields {
    struct Aux(SnapshotFields);
    impl Visitor for Aux {
        type Error = ();

        fn aux(&mut self, name: &[u8], value: &[u8]) -> Result<(), ()> {
            self.0.note(name, value);
            Ok(())
        }

        fn entry(&mut self, _: Item<'_>) -> Result<(), ()> {
            // All fields come before the first entry.
            Err(())
        }
    }
    let mut aux = Aux(SnapshotFields::default());
    let _ = Reader::new().feed(head, &mut aux);
    aux.0
}

/// Bytes at a snapshot file's beginning that hold all its fields.
pub const FIELDS_BYTES_MAX: usize = 16 << 10;

/// Loads a snapshot as its bytes come, into a shard of its own.
pub struct SnapshotLoader {
    shard: Box<Shard>,
    hasher: Hasher,
    fields: Fields<'static>,
    reader: Reader,
}

impl SnapshotLoader {
    /// A loader of a snapshot of the shard with this number and slots.
    pub fn new(number: u16, slots: Range<u16>, hasher: Hasher) -> Self {
        let fields = Fields { expected: Expected::Shard(number), ..Fields::default() };
        let shard = Box::new(Shard::new(slots, hasher.clone()));
        Self { shard, hasher, fields, reader: Reader::new() }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// What is wrong with them; the loader is of no use any more.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Self { shard, hasher, fields, reader } = self;
        reader.feed(bytes, &mut Loader { shard, hasher, fields }).map_err(|error| match error {
            ReadError::Rdb(error) => error.to_string(),
            ReadError::Visitor(error) => error,
        })
    }

    /// The shard, once all bytes have come.
    ///
    /// # Errors
    /// Bytes are missing, or fields.
    pub fn finish(mut self) -> Result<(SnapshotHeader, Box<Shard>), String> {
        self.reader.finish().map_err(|error| error.to_string())?;
        let time_ms = self.fields.header()?.time_ms;
        // A snapshot without entries says what time it is all the same.
        self.shard.advance(time_ms);
        Ok((self.fields.header()?.clone(), self.shard))
    }
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
    membership: Vec<u8>,
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
            b"duva-membership" => self.membership = bytes_of(value).unwrap_or_default(),
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
        // In a cluster it may have come from another node.
        if self.membership.is_empty() && expected_node.is_some_and(|expected| *expected != node) {
            return Err("it belongs to another node than the manifest says".to_owned());
        }
        Ok(SnapshotHeader { shard, index, term, time_ms, node, membership: self.membership.clone() })
    }
}

/// An id from its [`hexadecimal`] form.
fn id(text: &[u8]) -> Option<[u8; 16]> {
    let text = str::from_utf8(text).ok().filter(|text| text.len() == 32)?;
    let number = u128::from_str_radix(text, 16).ok()?;
    Some(number.to_be_bytes())
}

/// Bytes from their [`hexadecimal`] form.
fn bytes_of(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.chunks(2);
    pairs.map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// What a file is expected to be a snapshot of.
enum Expected {
    /// The shard and index in its name.
    Exactly((u16, u64)),
    /// This shard.
    Shard(u16),
}

impl Default for Expected {
    fn default() -> Self {
        Self::Shard(0)
    }
}

/// The fields of a file that is being loaded.
#[derive(Default)]
struct Fields<'a> {
    expected: Expected,
    /// Whose it must be, if that matters.
    node: Option<&'a [u8; 16]>,
    read: SnapshotFields,
    /// Known, and checked, from the first entry on.
    header: Option<SnapshotHeader>,
}

impl Fields<'_> {
    /// What the fields say, once all of them were read.
    fn header(&mut self) -> Result<&SnapshotHeader, String> {
        if self.header.is_none() {
            let expected = match self.expected {
                Expected::Exactly(expected) => expected,
                Expected::Shard(shard) => (shard, self.read.index.unwrap_or(0)),
            };
            self.header = Some(self.read.header(expected, self.node)?);
        }
        Ok(self.header.as_ref().expect("it was set above"))
    }
}

struct Loader<'a, 'f> {
    shard: &'a mut Shard,
    hasher: &'a Hasher,
    fields: &'a mut Fields<'f>,
}

impl Visitor for Loader<'_, '_> {
    type Error = String;

    fn aux(&mut self, name: &[u8], value: &[u8]) -> Result<(), String> {
        if name == ONCE_FIELD.as_bytes() {
            return self.shard.restore_once(value).map_err(|error| error.to_string());
        }
        if name == TRANSACTION_FIELD.as_bytes() {
            return self.shard.restore_transaction(value).map_err(|error| error.to_string());
        }
        self.fields.read.note(name, value);
        Ok(())
    }

    #[inline]
    fn entry(&mut self, item: Item<'_>) -> Result<(), String> {
        let time_ms = match &self.fields.header {
            Some(header) => header.time_ms,
            None => {
                let time_ms = self.fields.header()?.time_ms;
                self.shard.advance(time_ms)
            }
        };
        let key = self.hasher.key(item.key);
        if !self.shard.slots().contains(&key.slot) {
            return Err(format!("the key '{}' belongs to another shard", item.key.escape_ascii()));
        }
        item.store(self.shard, key, time_ms);
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
    write_transactions(&mut out, shard);
    let mut records = shard.once_snapshot();
    while write_once(&mut out, &mut records).is_some() {
        drain(&mut out)?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_come_back_with_their_shard() {
        let hasher = Hasher::new(3);
        let mut shard = Shard::new(0..64, hasher.clone());
        // Committed, by two others to be confirmed; and one that is prepared, of one key.
        let committed = [&[1][..], &[7; 20], &[0, 0], &[2, 0, 5, 0, 6, 0]].concat();
        let key = [&[9, 0][..], &[8; 8]].concat();
        let arguments = [&3_u32.to_le_bytes()[..], b"del", &1_u32.to_le_bytes(), b"k"].concat();
        let (one, two, none) = (1_u32.to_le_bytes(), 2_u32.to_le_bytes(), [0, 0]);
        let prepared = [&[0][..], &[6; 20], &[4, 0], &none, &[2], &one, &key, &two, &arguments].concat();
        for record in [&prepared, &committed] {
            shard.restore_transaction(record).expect("a record");
        }
        let mut header = SnapshotHeader {
            shard: 0,
            index: 12,
            term: 3,
            time_ms: 77,
            node: [1; 16],
            membership: vec![1, 2],
        };
        let mut file = Vec::new();
        snapshot_header(&mut file, &header);
        write_transactions(&mut file, &shard);
        rdb::write_end(&mut file);
        file.extend_from_slice(&Checksum::of(&file).to_le_bytes());
        for length in [1, 50, usize::MAX] {
            let mut loader = SnapshotLoader::new(0, 0..64, hasher.clone());
            file.chunks(length.min(file.len())).for_each(|bytes| loader.feed(bytes).expect("a snapshot"));
            let (read, loaded) = loader.finish().expect("a whole one");
            assert_eq!(read, header);
            assert_eq!(loaded.transaction_records(), [prepared.clone(), committed.clone()]);
            assert!(loaded.transactions().has_locks());
        }
        header.index = 13;
        let mut damaged = Vec::new();
        snapshot_header(&mut damaged, &header);
        rdb::write_aux(&mut damaged, TRANSACTION_FIELD, &prepared[..30]);
        assert!(SnapshotLoader::new(0, 0..64, hasher).feed(&damaged).is_err());
    }
}
