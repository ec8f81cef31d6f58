//! Writing: each function appends one record to a buffer that the caller drains.
//!
//! A file is the header, for each database that has keys its number, its size and its entries, and the end. The checksum is
//! the caller's, who sees the bytes go by: [`Checksum`](super::Checksum).

use super::{MAGIC, WRITTEN_VERSION, length, opcode, string, value};
use crate::{SavedEntry, Value};

/// How entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RdbOptions {
    /// Whether strings above 20 bytes and up to 256 KiB are compressed when that makes them shorter.
    pub compress: bool,
}

/// Begins a file, with what there is to know about it: names and values.
pub fn write_header(out: &mut Vec<u8>, aux: &[(&str, &[u8])]) {
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(format!("{WRITTEN_VERSION:04}").as_bytes());
    for (name, value) in aux {
        write_aux(out, name, value);
    }
}

/// Writes something else about the file, before its entries: a name and a value, which readers that do not know the name
/// pass over.
pub fn write_aux(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.push(opcode::AUX);
    string::write(out, name.as_bytes(), false);
    string::write(out, value, false);
}

/// Says whose entries follow.
pub fn write_select(out: &mut Vec<u8>, database: u8) {
    out.push(opcode::SELECT);
    length::write(out, u64::from(database));
}

/// Says how many entries follow, and how many of them have a deadline. Readers only prepare for as many.
pub fn write_resize(out: &mut Vec<u8>, keys: u64, expiring: u64) {
    out.push(opcode::RESIZE);
    length::write(out, keys);
    length::write(out, expiring);
}

/// Writes an entry; its deadline is in milliseconds since the Unix epoch.
pub fn write_entry(
    out: &mut Vec<u8>,
    key: &[u8],
    value: Value<'_>,
    deadline_ms: Option<u64>,
    options: RdbOptions,
) {
    begin_entry(out, key, value::kind_of(value), deadline_ms, options);
    value::write(out, value, options);
}

/// Writes an entry of a snapshot. If it is not whole, what follows of its value is to be appended as it is.
pub fn write_saved(out: &mut Vec<u8>, entry: &SavedEntry<'_>, options: RdbOptions) {
    let SavedEntry { key, value, rest_bytes, deadline_ms, .. } = *entry;
    if rest_bytes == 0 {
        return write_entry(out, key, value, deadline_ms, options);
    }
    begin_entry(out, key, value::kind_of(value), deadline_ms, options);
    let Value::String(part) = value;
    string::write_head(out, part.len() + rest_bytes);
    out.extend_from_slice(part);
}

fn begin_entry(out: &mut Vec<u8>, key: &[u8], kind: u8, deadline_ms: Option<u64>, options: RdbOptions) {
    if let Some(deadline_ms) = deadline_ms {
        out.push(opcode::EXPIRE_MS);
        out.extend_from_slice(&deadline_ms.to_le_bytes());
    }
    out.push(kind);
    string::write(out, key, options.compress);
}

/// Ends a file, but for the checksum: the eight bytes of [`Checksum::value`](super::Checksum::value) over everything
/// written, the lowest first, or zeros.
pub fn write_end(out: &mut Vec<u8>) {
    out.push(opcode::END);
}
