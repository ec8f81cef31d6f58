//! A segment's bytes, read without trust: its header, its blocks, its records.

use std::mem::offset_of;

use zerocopy::{FromBytes, IntoBytes};

use crate::format::{
    BLOCK_ALIGN, BLOCK_BYTES_MAX, BLOCK_MAGIC, BlockHeader, FORMAT_VERSION, Position, RECORD_ALIGN,
    RecordHeader, SEGMENT_MAGIC, SegmentHeader, ShardState, align_up,
};

pub(crate) const SEGMENT_HEADER_BYTES: usize = size_of::<SegmentHeader>();
/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: usize = size_of::<BlockHeader>();
pub(super) const RECORD_HEADER_BYTES: usize = size_of::<RecordHeader>();
const STATE_BYTES: usize = size_of::<ShardState>();

/// The largest segment that is read, in bytes.
const SEGMENT_BYTES_MAX: u32 = 1 << 30;

/// How much of a file is read at first to see its header.
pub(super) const HEAD_BYTES: usize = 64 << 10;

/// What a segment's header turns out to be.
pub enum Head {
    /// It is whole, whatever it says.
    Whole(SegmentHeader),
    /// Only a newer server knows what it says.
    Newer {
        /// The oldest format version that can read it.
        reader_version: u16,
    },
    /// It is none, or damaged.
    Invalid,
    /// More of the file is needed to tell: so many bytes.
    Longer(usize),
}

/// Reads a header from the beginning of a segment file; `complete` if `bytes` are all of it.
pub fn head(bytes: &[u8], complete: bool) -> Head {
    let Ok((header, _)) = SegmentHeader::ref_from_prefix(bytes) else { return Head::Invalid };
    let header_len = header.header_len.get() as usize;
    if header.magic != SEGMENT_MAGIC || header_len < SEGMENT_HEADER_BYTES {
        return Head::Invalid;
    }
    let Some(checked) = bytes.get(..header_len) else {
        return if complete { Head::Invalid } else { Head::Longer(header_len) };
    };
    if checksum(checked, offset_of!(SegmentHeader, crc)) != header.crc.get() {
        return Head::Invalid;
    }
    let reader_version = header.reader_version.get();
    if reader_version > FORMAT_VERSION {
        return Head::Newer { reader_version };
    }
    let states_bytes = usize::from(header.states.get()) * STATE_BYTES;
    let end = SEGMENT_HEADER_BYTES + states_bytes + header.membership_len.get() as usize;
    if end != header_len || header.segment_len.get() > SEGMENT_BYTES_MAX {
        return Head::Invalid;
    }
    Head::Whole(*header)
}

/// The shards' states in a segment whose header is whole.
pub fn states<'a>(bytes: &'a [u8], header: &SegmentHeader) -> &'a [ShardState] {
    let states_bytes = usize::from(header.states.get()) * STATE_BYTES;
    let states = bytes.get(SEGMENT_HEADER_BYTES..SEGMENT_HEADER_BYTES + states_bytes);
    states.and_then(|bytes| <[ShardState]>::ref_from_bytes(bytes).ok()).unwrap_or_default()
}

/// Where the first block begins.
pub fn blocks_from(header: &SegmentHeader) -> usize {
    align_up(header.header_len.get() as usize, BLOCK_ALIGN)
}

/// The block header at an offset, if its checksum fits and it says that it belongs there.
pub fn block(bytes: &[u8], offset: usize, core: u16, sequence: u32) -> Option<&BlockHeader> {
    block_at(bytes.get(offset..)?, Position::new(sequence, u32::try_from(offset).ok()?), core)
}

/// The block header that `bytes` begin with, if its checksum fits and it says that it belongs to this place.
pub(crate) fn block_at(bytes: &[u8], at: Position, core: u16) -> Option<&BlockHeader> {
    let (header, _) = BlockHeader::ref_from_prefix(bytes).ok()?;
    let sequence = at.sequence();
    let in_place = header.magic == BLOCK_MAGIC
        && header.offset.get() == at.offset()
        && header.sequence.get() == sequence
        && header.core.get() == core;
    if !in_place || checksum(header.as_bytes(), offset_of!(BlockHeader, crc)) != header.crc.get() {
        return None;
    }
    // What comes later was not durable yet when this was written.
    let sound = header.synced_to.get() <= Position::new(sequence, header.offset.get()).0
        && BLOCK_HEADER_BYTES + header.len.get() as usize <= BLOCK_BYTES_MAX;
    sound.then_some(header)
}

/// Where the block behind this one begins.
pub fn block_end(header: &BlockHeader) -> usize {
    align_up(header.offset.get() as usize + BLOCK_HEADER_BYTES + header.len.get() as usize, BLOCK_ALIGN)
}

/// All sound block headers from an offset on, found wherever they may begin, but not inside one another.
pub fn search(bytes: &[u8], from: usize, core: u16, sequence: u32) -> impl Iterator<Item = &BlockHeader> {
    let mut offset = align_up(from, BLOCK_ALIGN);
    std::iter::from_fn(move || {
        while offset + BLOCK_HEADER_BYTES <= bytes.len() {
            match block(bytes, offset, core, sequence) {
                Some(header) => {
                    offset = block_end(header);
                    return Some(header);
                }
                None => offset += BLOCK_ALIGN,
            }
        }
        None
    })
}

/// The record at an offset, which ends before `end`, with its payload and where the next one begins. Its checksum is not
/// looked at.
#[inline]
pub fn record(bytes: &[u8], offset: usize, end: usize) -> Option<(&RecordHeader, &[u8], usize)> {
    let rest = bytes.get(offset..end)?;
    let (header, rest) = RecordHeader::ref_from_prefix(rest).ok()?;
    let len = header.len.get() as usize;
    let payload = rest.get(..len)?;
    Some((header, payload, align_up(offset + RECORD_HEADER_BYTES + len, RECORD_ALIGN)))
}

/// Whether the record at an offset matches its checksum, in a block with this [`BlockHeader::salt`].
#[inline]
pub fn record_is_whole(bytes: &[u8], offset: usize, header: &RecordHeader, salt: u32) -> bool {
    let checked = offset + offset_of!(RecordHeader, index);
    let end = offset + RECORD_HEADER_BYTES + header.len.get() as usize;
    bytes.get(checked..end).is_some_and(|checked| crc32c::crc32c(checked) ^ salt == header.crc.get())
}

/// CRC32C of bytes that hold that checksum themselves, four bytes at `crc_at` that count as zero.
fn checksum(bytes: &[u8], crc_at: usize) -> u32 {
    let crc = crc32c::crc32c(&bytes[..crc_at]);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, &bytes[crc_at + 4..])
}
