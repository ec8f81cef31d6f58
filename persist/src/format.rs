//! The journal on disk, byte by byte; docs/format.md is the same for people.
//!
//! A segment is a header with the state of every shard on its core, then blocks, each of which is a header and records. All
//! integers are little-endian. Segment header, blocks and records begin at multiples of [`BLOCK_ALIGN`] and
//! [`RECORD_ALIGN`]; the gaps are zero and covered by nothing.
//!
//! Invariants:
//!
//! - Everything is self-describing: a header tells its own place (epoch, sequence, offset), and a record's checksum
//!   depends on its block's, so bytes of a recycled segment's former life are never taken for its present one.
//! - A header or record that does not match its checksum means nothing at all.
//! - Positions compare as the journal was written within one boot epoch.

use core::mem::offset_of;

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{U16, U32, U64},
};

/// The version that is written. A reader refuses segments whose `reader_version` is above its own.
pub const FORMAT_VERSION: u16 = 2;

/// The oldest version that reads rightly what is written.
pub const READER_VERSION: u16 = 1;

/// What a segment begins with.
pub const SEGMENT_MAGIC: [u8; 8] = *b"DUVASEG\n";

/// What a block begins with.
pub const BLOCK_MAGIC: [u8; 4] = *b"DBLK";

/// Blocks, and the end of the segment header, are aligned to so many bytes.
pub const BLOCK_ALIGN: usize = 64;

/// Records are aligned to so many bytes.
pub const RECORD_ALIGN: usize = 8;

/// The largest block, in bytes, header included; a quarter segment if that is less.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;

/// A place in a core's journal: segment sequence in the upper half, offset in the segment in the lower.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The place `offset` bytes into segment `sequence`.
    pub const fn new(sequence: u32, offset: u32) -> Self {
        Self((sequence as u64) << 32 | offset as u64)
    }

    /// The segment.
    pub const fn sequence(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The offset in the segment, in bytes.
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }
}

/// The fixed part of a segment's header. `states` of [`ShardState`], then `membership_len` bytes of
/// memberships (each a [`MembershipHeader`] and its bytes) follow; `crc` covers all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SegmentHeader {
    /// [`SEGMENT_MAGIC`].
    pub magic: [u8; 8],
    /// The version that wrote it.
    pub format_version: U16,
    /// The oldest version that can read it.
    pub reader_version: U16,
    /// CRC32C of the whole header, this field as zero.
    pub crc: U32,
    /// Bytes of the header with states and memberships, before padding.
    pub header_len: U32,
    /// Bytes of the segment file.
    pub segment_len: U32,
    /// The core that wrote it.
    pub core: U16,
    /// How many shard states follow.
    pub states: U16,
    /// Bytes of memberships behind the states.
    pub membership_len: U32,
    /// The number of the server start that wrote it.
    pub epoch: U64,
    /// The segment's number in the core's journal: one more than its predecessor's, over all epochs.
    pub sequence: U32,
    /// Zero.
    pub reserved: U32,
    /// When it was opened, in milliseconds since the Unix epoch.
    pub opened_ms: U64,
    /// Names the cluster.
    pub cluster: [u8; 16],
    /// Names the node.
    pub node: [u8; 16],
    /// The kernel's boot id.
    pub kernel_boot: [u8; 16],
}

/// What a shard's past comes to when a segment is opened, so that older segments hold nothing else of it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct ShardState {
    /// The shard.
    pub shard: U16,
    /// Zero.
    pub flags: U16,
    /// How often the shard has changed its core in this epoch.
    pub ownership: U32,
    /// The current term.
    pub term: U64,
    /// The replica voted for in it; 0: none.
    pub vote: U64,
    /// The index of the last entry.
    pub last_index: U64,
    /// The term of that entry.
    pub last_term: U64,
    /// The index of the last entry that the newest durable snapshot covers.
    pub snapshot_index: U64,
    /// The term of that entry.
    pub snapshot_term: U64,
    /// Shard time, in milliseconds since the Unix epoch.
    pub time_ms: U64,
}

/// Precedes a shard's membership in a segment header.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct MembershipHeader {
    /// The shard.
    pub shard: U16,
    /// Zero.
    pub reserved: U16,
    /// Bytes that follow.
    pub len: U32,
}

/// A block's header. The records follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BlockHeader {
    /// [`BLOCK_MAGIC`].
    pub magic: [u8; 4],
    /// CRC32C of this header, this field as zero.
    pub crc: U32,
    /// The number of the server start that wrote it.
    pub epoch: U64,
    /// The segment it lies in.
    pub sequence: U32,
    /// Its own offset in the segment.
    pub offset: U32,
    /// The block's number among all of this epoch and core, from 0.
    pub number: U64,
    /// Everything before this [`Position`] was durable when the block was written.
    pub synced_to: U64,
    /// Bytes of records behind the header.
    pub len: U32,
    /// How many records those are.
    pub records: U32,
    /// The core's clock, in milliseconds since the Unix epoch.
    pub time_ms: U64,
    /// [`block_flag`].
    pub flags: U16,
    /// The core.
    pub core: U16,
    /// Zero.
    pub reserved: U32,
}

impl BlockHeader {
    /// What the checksums of the block's records depend on: CRC32C of `epoch`, `sequence`, `offset`, `number`, `core`. A
    /// block that was torn so that old records stand behind its new header does not take those for its own.
    pub fn salt(&self) -> u32 {
        let place = &self.as_bytes()[offset_of!(Self, epoch)..offset_of!(Self, synced_to)];
        crc32c::crc32c_append(crc32c::crc32c(place), self.core.as_bytes())
    }
}

/// Bits of [`BlockHeader::flags`].
pub mod block_flag {
    /// No block follows in this segment: the journal goes on in the next one, whose file exists already.
    pub const SEALED: u16 = 1;
}

/// A record's header. The payload follows, then zeros up to [`RECORD_ALIGN`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct RecordHeader {
    /// Bytes of payload.
    pub len: U32,
    /// CRC32C of the header from the next field on, then the payload; all of it xor [`BlockHeader::salt`].
    pub crc: U32,
    /// The entry's index in its shard's log; a fragment's stream; what is committed; 0 where it means nothing.
    pub index: U64,
    /// The entry's term.
    pub term: U64,
    /// The entry's timestamp, in milliseconds since the Unix epoch.
    pub timestamp_ms: U64,
    /// The entry's randomness.
    pub seed: U64,
    /// The shard.
    pub shard: U16,
    /// A [`Kind`].
    pub kind: u8,
    /// [`record_flag`].
    pub flags: u8,
    /// A fragment's ordinal number; for a record that has fragments, how many.
    pub fragments: U32,
}

/// Bits of [`RecordHeader::flags`].
pub mod record_flag {
    /// The next record that is no fragment belongs to the same group: kept whole or not at all.
    pub const GROUP: u8 = 1;
    /// The payload begins with a [`super::Fragmented`]; earlier fragments come before the rest of it.
    pub const FRAGMENTED: u8 = 2;
}

/// What a fragmented record's own payload begins with.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Fragmented {
    /// The fragments' stream, unique in the epoch and core.
    pub stream: U64,
    /// Bytes of the whole payload: all fragments, then the rest of this record's.
    pub len: U64,
    /// CRC32C of the whole payload.
    pub crc: U32,
    /// Zero.
    pub reserved: U32,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A command to apply.
    Entry = 1,
    /// Shard time moves to the timestamp, and what is due goes.
    Tick = 2,
    /// Term and vote: the term in the header, the vote as eight bytes. The index says up to where the shard's log, as the
    /// records before this leave it, is known to be committed; 0: nothing is said of that.
    HardState = 3,
    /// Who replicates the shard.
    Membership = 4,
    /// A part of a transaction over several journals, applied once that is decided.
    Prepare = 5,
    /// Whether a transaction happens.
    Decision = 6,
    /// The prepared part is applied here.
    Finish = 7,
    /// A snapshot up to the index is durable.
    SnapshotMark = 8,
    /// A piece of a large payload that a later record completes.
    Fragment = 9,
}

impl Kind {
    /// The kind of this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Entry,
            2 => Self::Tick,
            3 => Self::HardState,
            4 => Self::Membership,
            5 => Self::Prepare,
            6 => Self::Decision,
            7 => Self::Finish,
            8 => Self::SnapshotMark,
            9 => Self::Fragment,
            _ => return None,
        })
    }
}

const _: () = assert!(size_of::<SegmentHeader>() == 104);
const _: () = assert!(size_of::<ShardState>() == 64);
const _: () = assert!(size_of::<BlockHeader>() == BLOCK_ALIGN);
const _: () = assert!(size_of::<RecordHeader>() == 48);

/// `len` rounded up to a multiple of `align`, a power of two.
pub const fn align_up(len: usize, align: usize) -> usize {
    (len + align - 1) & !(align - 1)
}
