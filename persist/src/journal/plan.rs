//! The bytes that are to be written: blocks built in place, in the buffers that writes hand out.
//!
//! Invariants:
//!
//! - A planned write lies in one segment; each begins where the one before it ends, or at offset 0 of the next segment.
//! - At most one block is open, the last. The headers of closed blocks are complete; those of blocks that ended but
//!   are not closed lack time, `synced_to` and checksum, and are not handed out.
//! - A block lies in one segment and is no larger than [`Plan::block_bytes_max`]; segments end only for want of
//!   room, or by [`Plan::seal`]. Either way their last block is sealed.

use std::collections::VecDeque;

use zerocopy::{
    FromBytes, FromZeros, IntoBytes,
    little_endian::{U16, U32, U64},
};

use super::{JournalOptions, Write, segments::Segments, states::States};
use crate::{
    format::{
        BLOCK_ALIGN, BLOCK_BYTES_MAX, BLOCK_MAGIC, BlockHeader, FORMAT_VERSION, Position, READER_VERSION,
        SEGMENT_MAGIC, SegmentHeader, align_up, block_flag,
    },
    record::{RECORD_HEADER_BYTES, move_record},
};

/// Bytes of a block's header.
pub(super) const BLOCK_HEADER_BYTES: usize = size_of::<BlockHeader>();

/// Where in a segment's header its checksum is.
const SEGMENT_CRC_AT: usize = core::mem::offset_of!(SegmentHeader, crc);

/// How many buffers are kept for later writes, and how large they are together, in bytes.
const FREE_BUFFERS_MAX: usize = 8;
const FREE_BYTES_MAX: usize = 8 * BLOCK_BYTES_MAX;

/// Bytes for one place in one segment.
struct Planned {
    sequence: u32,
    /// Where in the segment the bytes belong.
    offset: u32,
    bytes: Vec<u8>,
    /// So many of the bytes are closed.
    closed: usize,
    /// The last block is sealed: the next segment's file must exist before this is written.
    sealed: bool,
}

/// The block that takes records.
struct Open {
    /// Where in the last planned write's bytes it begins.
    start: usize,
    /// Its header as far as it is known; the bytes have none yet.
    header: BlockHeader,
    /// [`BlockHeader::salt`].
    salt: u32,
    records: u32,
    /// Where in those bytes it must end.
    end_max: usize,
}

pub(super) struct Plan {
    options: JournalOptions,
    block_bytes_max: usize,
    planned: VecDeque<Planned>,
    open: Option<Open>,
    /// Where the open block begins, or the next one will; offset 0: that segment has no header yet.
    next: Position,
    /// The next block's number.
    number: u64,
    free: Vec<Vec<u8>>,
}

impl Plan {
    pub(super) fn new(options: JournalOptions, first_sequence: u32) -> Self {
        let block_bytes_max = options.block_bytes_max();
        let next = Position::new(first_sequence, 0);
        Self {
            options,
            block_bytes_max,
            planned: VecDeque::new(),
            open: None,
            next,
            number: 0,
            free: Vec::new(),
        }
    }

    /// Where the open block begins, or the next one will.
    pub(super) fn next(&self) -> Position {
        self.next
    }

    /// Where the next record goes, at the earliest.
    pub(super) fn position(&self) -> Position {
        match (&self.open, self.planned.back()) {
            (Some(_), Some(last)) => Position::new(last.sequence, last.offset + last.bytes.len() as u32),
            _ => self.next,
        }
    }

    pub(super) fn planned_bytes(&self) -> usize {
        self.planned.iter().map(|planned| planned.bytes.len()).sum()
    }

    /// Bytes that the next segment's header takes, with padding.
    pub(super) fn segment_header_bytes(states: &States) -> usize {
        let states_bytes = size_of_val(states.all()) + states.membership_bytes();
        align_up(size_of::<SegmentHeader>() + states_bytes, BLOCK_ALIGN)
    }

    /// Opens a block if none is, in the next segment if no record fits into this one.
    #[inline]
    pub(super) fn begin(&mut self, states: &States, segments: &mut Segments) {
        if self.open.is_none() {
            self.begin_block(states, segments);
        }
    }

    /// Opens a block that has room for a record of so many bytes, unless the open one has.
    pub(super) fn begin_for(&mut self, record_bytes: usize, states: &States, segments: &mut Segments) {
        self.begin(states, segments);
        let end = last(&mut self.planned).bytes.len() + record_bytes;
        if self.open.as_ref().is_some_and(|open| end > open.end_max) {
            self.end_before(record_bytes, segments);
            self.begin_block(states, segments);
        }
    }

    /// The bytes that the next record is appended to; a block is open.
    #[inline]
    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.open.is_some());
        &mut last(&mut self.planned).bytes
    }

    /// The open block's salt.
    #[inline]
    pub(super) fn salt(&self) -> u32 {
        self.open.as_ref().expect("a block is open").salt
    }

    /// Takes the record that was appended from `at` on into the open block, or moves it into a new one if it does not
    /// fit there; returns where it begins in [`Plan::bytes_mut`].
    #[inline]
    pub(super) fn take_record(&mut self, at: usize, states: &States, segments: &mut Segments) -> usize {
        let end = last(&mut self.planned).bytes.len();
        let open = self.open.as_mut().expect("a block is open");
        if end <= open.end_max {
            open.records += 1;
            return at;
        }
        self.move_record(at, states, segments)
    }

    /// Ends the open block, if there is one. One that leaves no room for another is sealed.
    pub(super) fn end(&mut self, mut flags: u16, segments: &mut Segments) {
        let Some(open) = self.open.take() else { return };
        let planned = last(&mut self.planned);
        if planned.offset as usize + align_up(planned.bytes.len(), BLOCK_ALIGN)
            == self.options.segment_len as usize
        {
            flags |= block_flag::SEALED;
        }
        let header = BlockHeader {
            len: U32::new((planned.bytes.len() - open.start - BLOCK_HEADER_BYTES) as u32),
            records: U32::new(open.records),
            flags: U16::new(flags),
            ..open.header
        };
        planned.bytes[open.start..open.start + BLOCK_HEADER_BYTES].copy_from_slice(header.as_bytes());
        planned.bytes.resize(align_up(planned.bytes.len(), BLOCK_ALIGN), 0);
        planned.sealed = flags & block_flag::SEALED != 0;
        self.number += 1;
        self.next = Position::new(planned.sequence, planned.offset + planned.bytes.len() as u32);
        segments.set_end(planned.sequence, self.next.offset());
    }

    /// Ends the segment: with the open block, or one of its own, unless the last one filled the segment.
    pub(super) fn seal(&mut self, segments: &mut Segments) {
        if self.open.is_none() && self.room_bytes() > 0 {
            self.open_block();
        }
        self.end(block_flag::SEALED, segments);
        let sequence = self.next.sequence().checked_add(1).expect("sequences do not run out");
        self.next = Position::new(sequence, 0);
    }

    /// Completes the headers of all blocks that ended; returns whether there was one.
    pub(super) fn close(&mut self, now_ms: u64, synced_to: Position) -> bool {
        debug_assert!(self.open.is_none());
        let unclosed =
            self.planned.iter_mut().rev().take_while(|planned| planned.closed < planned.bytes.len());
        let mut closed_any = false;
        for planned in unclosed {
            closed_any = true;
            let mut at = planned.closed;
            if planned.offset == 0 && at == 0 {
                at = close_segment_header(&mut planned.bytes, now_ms);
            }
            while at < planned.bytes.len() {
                at += close_block_header(&mut planned.bytes[at..], now_ms, synced_to);
            }
            planned.closed = at;
        }
        closed_any
    }

    /// The oldest bytes that are closed and whose segment is ready.
    pub(super) fn next_write(&mut self, segments: &Segments) -> Option<Write> {
        let first = self.planned.front_mut()?;
        let (sequence, offset, closed) = (first.sequence, first.offset, first.closed);
        let whole = closed == first.bytes.len();
        if closed == 0
            || !segments.is_ready(sequence)
            || whole && first.sealed && !segments.is_ready(sequence + 1)
        {
            return None;
        }
        if whole {
            return self.planned.pop_front().map(|first| Write { sequence, offset, bytes: first.bytes });
        }
        // Blocks that are not closed yet stay behind, in a buffer of their own.
        let mut rest = self.free.pop().unwrap_or_default();
        rest.extend_from_slice(&first.bytes[closed..]);
        first.bytes.truncate(closed);
        let bytes = std::mem::replace(&mut first.bytes, rest);
        first.offset += closed as u32;
        first.closed = 0;
        if self.planned.len() == 1
            && let Some(open) = &mut self.open
        {
            open.start -= closed;
            open.end_max -= closed;
        }
        Some(Write { sequence, offset, bytes })
    }

    /// All that was closed so far, which is one write, whether its segment is ready or not.
    pub(super) fn take_first(&mut self) -> Write {
        let first = self.planned.pop_front().expect("something was closed");
        assert!(self.planned.is_empty() && first.closed == first.bytes.len(), "it is one write");
        Write { sequence: first.sequence, offset: first.offset, bytes: first.bytes }
    }

    /// Takes a buffer back.
    pub(super) fn recycle(&mut self, mut bytes: Vec<u8>) {
        let free_bytes: usize = self.free.iter().map(Vec::capacity).sum();
        if self.free.len() < FREE_BUFFERS_MAX && free_bytes + bytes.capacity() <= FREE_BYTES_MAX {
            bytes.clear();
            self.free.push(bytes);
        }
    }

    /// Bytes of the segment behind what is planned into it.
    pub(super) fn room_bytes(&self) -> usize {
        (self.options.segment_len - self.position().offset()) as usize
    }

    /// The same, behind the open block: what blocks after it may take.
    pub(super) fn block_room_bytes(&self) -> usize {
        self.room_bytes() & !(BLOCK_ALIGN - 1)
    }

    fn begin_block(&mut self, states: &States, segments: &mut Segments) {
        if self.room_bytes() < BLOCK_HEADER_BYTES + RECORD_HEADER_BYTES {
            self.seal(segments);
        }
        if self.next.offset() == 0 {
            self.open_segment(states, segments);
        }
        self.open_block();
    }

    /// Opens a block at `next`, whose segment has a header and room.
    fn open_block(&mut self) {
        let room_bytes = self.room_bytes();
        let (sequence, offset) = (self.next.sequence(), self.next.offset());
        let follows = |last: &Planned| {
            last.sequence == sequence && last.offset as usize + last.bytes.len() == offset as usize
        };
        if !self.planned.back().is_some_and(follows) {
            let bytes = self.free.pop().unwrap_or_default();
            self.planned.push_back(Planned { sequence, offset, bytes, closed: 0, sealed: false });
        }
        let bytes = &mut last(&mut self.planned).bytes;
        let start = bytes.len();
        bytes.resize(start + BLOCK_HEADER_BYTES, 0);
        let header = BlockHeader {
            magic: BLOCK_MAGIC,
            epoch: U64::new(self.options.epoch),
            sequence: U32::new(sequence),
            offset: U32::new(offset),
            number: U64::new(self.number),
            core: U16::new(self.options.core),
            ..BlockHeader::new_zeroed()
        };
        let end_max = start + room_bytes.min(self.block_bytes_max);
        self.open = Some(Open { start, header, salt: header.salt(), records: 0, end_max });
    }

    /// Plans the header of segment `next`, with the states as they are.
    #[cold]
    fn open_segment(&mut self, states: &States, segments: &mut Segments) {
        let sequence = self.next.sequence();
        let mut bytes = self.free.pop().unwrap_or_default();
        let padded_bytes = Self::segment_header_bytes(states);
        assert!(
            padded_bytes <= self.options.header_bytes_max(),
            "a segment's header takes a quarter at most"
        );
        let membership_bytes = states.membership_bytes();
        let header_bytes = size_of::<SegmentHeader>() + size_of_val(states.all()) + membership_bytes;
        let header = SegmentHeader {
            magic: SEGMENT_MAGIC,
            format_version: U16::new(FORMAT_VERSION),
            reader_version: U16::new(READER_VERSION),
            crc: U32::ZERO,
            header_len: U32::new(header_bytes as u32),
            segment_len: U32::new(self.options.segment_len),
            core: U16::new(self.options.core),
            states: U16::new(states.all().len() as u16),
            membership_len: U32::new(membership_bytes as u32),
            epoch: U64::new(self.options.epoch),
            sequence: U32::new(sequence),
            reserved: U32::ZERO,
            opened_ms: U64::ZERO,
            cluster: self.options.cluster,
            node: self.options.node,
            kernel_boot: self.options.kernel_boot,
        };
        bytes.extend_from_slice(header.as_bytes());
        states.write(&mut bytes);
        debug_assert_eq!(bytes.len(), header_bytes);
        bytes.resize(padded_bytes, 0);
        self.planned.push_back(Planned { sequence, offset: 0, bytes, closed: 0, sealed: false });
        self.next = Position::new(sequence, padded_bytes as u32);
        let ahead = 1 + self.options.spare_segments();
        segments.extend_to(sequence.checked_add(ahead).expect("sequences do not run out"));
    }

    /// The record from `at` on does not fit into the open block: that ends before it, and a new one takes it.
    #[cold]
    fn move_record(&mut self, at: usize, states: &States, segments: &mut Segments) -> usize {
        let mut record = self.free.pop().unwrap_or_default();
        let from_salt = self.salt();
        let bytes = self.bytes_mut();
        record.extend_from_slice(&bytes[at..]);
        bytes.truncate(at);
        self.end_before(record.len(), segments);
        self.begin_block(states, segments);
        move_record(&mut record, from_salt, self.salt());
        let bytes = self.bytes_mut();
        let moved_at = bytes.len();
        bytes.extend_from_slice(&record);
        let end = bytes.len();
        self.recycle(record);
        let open = self.open.as_mut().expect("a block was opened");
        assert!(end <= open.end_max, "an empty block takes any record");
        open.records += 1;
        moved_at
    }

    /// Ends the open block, and the segment too if a block with a record of so many bytes does not fit behind it.
    fn end_before(&mut self, record_bytes: usize, segments: &mut Segments) {
        if BLOCK_HEADER_BYTES + record_bytes <= self.block_room_bytes() {
            self.end(0, segments);
        } else {
            self.seal(segments);
        }
    }
}

fn last(planned: &mut VecDeque<Planned>) -> &mut Planned {
    planned.back_mut().expect("an open block lies in the last planned write")
}

/// Completes a segment's header; returns how many bytes it takes.
fn close_segment_header(bytes: &mut [u8], now_ms: u64) -> usize {
    let (header, _) = SegmentHeader::mut_from_prefix(bytes).expect("a segment begins with its header");
    header.opened_ms = U64::new(now_ms);
    let header_bytes = header.header_len.get() as usize;
    let crc = crc32c::crc32c(&bytes[..header_bytes]);
    bytes[SEGMENT_CRC_AT..SEGMENT_CRC_AT + size_of::<U32>()].copy_from_slice(U32::new(crc).as_bytes());
    align_up(header_bytes, BLOCK_ALIGN)
}

/// Completes the header of the block that `bytes` begin with; returns how many bytes the block takes.
fn close_block_header(bytes: &mut [u8], now_ms: u64, synced_to: Position) -> usize {
    let (header, _) = BlockHeader::mut_from_prefix(bytes).expect("a block begins with its header");
    header.time_ms = U64::new(now_ms);
    header.synced_to = U64::new(synced_to.0);
    header.crc = U32::new(crc32c::crc32c(header.as_bytes()));
    align_up(BLOCK_HEADER_BYTES + header.len.get() as usize, BLOCK_ALIGN)
}
