//! What a record says, and how it becomes bytes.
//!
//! Invariants:
//!
//! - A record is written in place, behind what the buffer holds: its payload is never copied from elsewhere.
//! - Of a record's bytes only the checksum depends on its block, by exclusive or: a record may be moved.

use zerocopy::{
    FromBytes, IntoBytes,
    little_endian::{U16, U32, U64},
};

use crate::format::{BLOCK_ALIGN, Kind, RECORD_ALIGN, RecordHeader, align_up};

/// Bytes of a record's header.
pub(crate) const RECORD_HEADER_BYTES: usize = size_of::<RecordHeader>();

/// A record but for its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The shard that it belongs to.
    pub shard: u16,
    /// What it is.
    pub kind: Kind,
    /// [`crate::format::record_flag`].
    pub flags: u8,
    /// The entry's index in its shard's log; a fragment's stream; with a hard state, up to where the log is committed, or 0; 0
    /// where it means nothing.
    pub index: u64,
    /// The entry's term.
    pub term: u64,
    /// The entry's timestamp, in milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// The entry's randomness.
    pub seed: u64,
    /// A fragment's ordinal number; for a record that has fragments, how many.
    pub fragments: u32,
}

impl Record {
    /// A record of this kind, every number zero.
    pub const fn new(kind: Kind, shard: u16) -> Self {
        Self { shard, kind, flags: 0, index: 0, term: 0, timestamp_ms: 0, seed: 0, fragments: 0 }
    }

    /// Whether the record is one of its shard's log: it takes an index there.
    pub const fn in_log(&self) -> bool {
        let logged = matches!(
            self.kind,
            Kind::Entry | Kind::Tick | Kind::Membership | Kind::Prepare | Kind::Decision | Kind::Finish
        );
        logged && self.index > 0
    }

    /// Appends header, payload and padding to `bytes`, whose length is a multiple of [`RECORD_ALIGN`], for the block
    /// with this salt; returns the payload's length.
    #[inline]
    pub(crate) fn write(&self, bytes: &mut Vec<u8>, salt: u32, payload: impl FnOnce(&mut Vec<u8>)) -> usize {
        let at = bytes.len();
        debug_assert_eq!(at % RECORD_ALIGN, 0);
        bytes.extend_from_slice(&[0; RECORD_HEADER_BYTES]);
        payload(bytes);
        let end = bytes.len();
        assert!(end >= at + RECORD_HEADER_BYTES, "a payload only adds to the buffer");
        let payload_bytes = end - at - RECORD_HEADER_BYTES;
        bytes.resize(align_up(end, RECORD_ALIGN), 0);
        let mut header = RecordHeader {
            len: U32::new(u32::try_from(payload_bytes).expect("a payload fits a block")),
            crc: U32::ZERO,
            index: U64::new(self.index),
            term: U64::new(self.term),
            timestamp_ms: U64::new(self.timestamp_ms),
            seed: U64::new(self.seed),
            shard: U16::new(self.shard),
            kind: self.kind as u8,
            flags: self.flags,
            fragments: U32::new(self.fragments),
        };
        bytes[at..at + RECORD_HEADER_BYTES].copy_from_slice(header.as_bytes());
        header.crc = U32::new(crc32c::crc32c(&bytes[at + CHECKED_FROM..end]) ^ salt);
        bytes[at..at + RECORD_HEADER_BYTES].copy_from_slice(header.as_bytes());
        payload_bytes
    }
}

/// The record that `bytes` begin with moves from a block with one salt to a block with another.
pub(crate) fn move_record(bytes: &mut [u8], from_salt: u32, to_salt: u32) {
    let (header, _) = RecordHeader::mut_from_prefix(bytes).expect("a record begins with its header");
    header.crc = U32::new(header.crc.get() ^ from_salt ^ to_salt);
}

/// Where in a record its checksum begins to cover it.
const CHECKED_FROM: usize = core::mem::offset_of!(RecordHeader, index);

/// The most that a record with so much payload takes of a segment, in bytes: it may need a block of its own.
pub const fn record_room_bytes(payload_bytes: usize) -> u64 {
    (BLOCK_ALIGN + align_up(RECORD_HEADER_BYTES + payload_bytes, BLOCK_ALIGN)) as u64
}
