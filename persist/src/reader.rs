//! Reading a shard's entries back from the running journal, without I/O: bytes in, records out.
//!
//! The caller knows a block from which on the entries lie ([`crate::entry_index`]), reads the segment's file from
//! [`LogReader::position`] on, and gives the bytes to [`LogReader::read`], again and again.
//!
//! Invariants:
//!
//! - Nothing is believed before its checksum was found right, and no block that does not name this epoch, core and place: a
//!   segment that was recycled meanwhile, wholly or in part, is noticed. What was visited before that is right.
//! - A payload is handed out whole or not at all, its fragments in order and checked together.
//! - Memory is bounded: fragments beyond a limit are dropped, and their records have no payload. Fragments of one shard alone are
//!   kept.
//!
//! A record that was replaced since lies there still: only index and term together say that it is the entry wanted.

use std::{collections::HashMap, ops::ControlFlow};

use zerocopy::FromBytes;

use crate::{
    format::{BLOCK_ALIGN, Fragmented, Kind, Position, RecordHeader, align_up, block_flag, record_flag},
    journal::SEGMENT_BYTES_MAX,
    record::Record,
    recovery::segment::{self, BLOCK_HEADER_BYTES, Head, SEGMENT_HEADER_BYTES},
};

/// The largest segment header, in bytes: a quarter of the largest segment.
const HEADER_BYTES_MAX: usize = SEGMENT_BYTES_MAX as usize / 4;

/// What a fragment counts for besides its own bytes.
const FRAGMENT_OVERHEAD_BYTES: usize = 64;

/// A record of a shard's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRecord<'a> {
    /// What it says. The flags are those on disk.
    pub record: Record,
    /// Its whole payload; `None`: it has fragments, and they are another shard's than the reader's, or some lie before its
    /// beginning, or they are too large together.
    pub payload: Option<&'a [u8]>,
}

/// Why [`LogReader::read`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// It goes on with at least so many bytes from [`LogReader::position`] on, which may be in the next segment. Where the file
    /// is missing or ends before that, it is as if it were [`ReadOutcome::Gone`].
    NeedMore(usize),
    /// All that is written was read.
    End,
    /// The visitor wants no more for now. Another call goes on behind the record that it saw last.
    Stopped,
    /// The journal does not have this any more: the segment was recycled, or is damaged. The reader is of no more use.
    Gone,
}

/// Reads the records of the logs in a core's journal, for the sake of one shard.
#[derive(Debug)]
pub struct LogReader {
    core: u16,
    epoch: u64,
    /// Whose fragments are put together.
    shard: u16,
    /// A block begins here, or a segment.
    position: Position,
    /// Records of that block before this offset in it were read already.
    read_to: usize,
    /// The next block's number, once one was read.
    next_number: Option<u64>,
    /// Fragments that no record has completed yet.
    streams: HashMap<u64, Stream>,
    stream_bytes: usize,
    stream_bytes_max: usize,
}

/// Fragments of one payload, from the first on.
#[derive(Debug)]
struct Stream {
    next: u32,
    bytes: Vec<u8>,
}

/// The reader is of no more use.
struct Gone;

impl LogReader {
    /// Reads what `core` wrote in `epoch`, from a block or segment that begins at `position`. Fragments of `shard` that wait for
    /// their record take up to `stream_bytes_max` bytes.
    pub fn new(core: u16, epoch: u64, shard: u16, position: Position, stream_bytes_max: usize) -> Self {
        Self {
            core,
            epoch,
            shard,
            position,
            read_to: 0,
            next_number: None,
            streams: HashMap::new(),
            stream_bytes: 0,
            stream_bytes_max,
        }
    }

    /// Where the bytes for the next call of [`LogReader::read`] begin.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Visits the records of logs in these bytes, which begin at [`LogReader::position`], as the journal was written.
    /// It reads whole blocks that lie before `written_to`, [`crate::journal::Journal::written_to`].
    pub fn read(
        &mut self,
        bytes: &[u8],
        written_to: Position,
        mut visit: impl FnMut(LogRecord<'_>) -> ControlFlow<()>,
    ) -> ReadOutcome {
        let mut rest = bytes;
        loop {
            if self.position >= written_to {
                return ReadOutcome::End;
            }
            let step = if self.position.offset() == 0 {
                self.segment_header(rest)
            } else {
                self.block(rest, &mut visit)
            };
            match step {
                // Where padding is missing, what comes next begins behind these bytes.
                Ok(Step::Read(len)) => rest = rest.get(len..).unwrap_or_default(),
                Ok(Step::NextSegment) => return ReadOutcome::NeedMore(SEGMENT_HEADER_BYTES),
                Ok(Step::NeedMore(len)) => return ReadOutcome::NeedMore(len),
                Ok(Step::Stopped) => return ReadOutcome::Stopped,
                Err(Gone) => return ReadOutcome::Gone,
            }
        }
    }

    fn segment_header(&mut self, bytes: &[u8]) -> Result<Step, Gone> {
        if bytes.len() < SEGMENT_HEADER_BYTES {
            return Ok(Step::NeedMore(SEGMENT_HEADER_BYTES));
        }
        let header = match segment::head(bytes, false) {
            Head::Whole(header) => header,
            Head::Longer(len) if len <= HEADER_BYTES_MAX => return Ok(Step::NeedMore(len)),
            Head::Longer(_) | Head::Newer { .. } | Head::Invalid => return Err(Gone),
        };
        let sequence = self.position.sequence();
        if (header.core.get(), header.epoch.get(), header.sequence.get()) != (self.core, self.epoch, sequence)
        {
            return Err(Gone);
        }
        let blocks_from = segment::blocks_from(&header);
        self.position = Position::new(sequence, blocks_from as u32);
        Ok(Step::Read(blocks_from))
    }

    fn block(
        &mut self,
        bytes: &[u8],
        visit: &mut impl FnMut(LogRecord<'_>) -> ControlFlow<()>,
    ) -> Result<Step, Gone> {
        if bytes.len() < BLOCK_HEADER_BYTES {
            return Ok(Step::NeedMore(BLOCK_HEADER_BYTES));
        }
        let block = segment::block_at(bytes, self.position, self.core).ok_or(Gone)?;
        let number = block.number.get();
        if block.epoch.get() != self.epoch || self.next_number.is_some_and(|next| next != number) {
            return Err(Gone);
        }
        let records_end = BLOCK_HEADER_BYTES + block.len.get() as usize;
        if bytes.len() < records_end {
            return Ok(Step::NeedMore(records_end));
        }
        let salt = block.salt();
        let mut next = BLOCK_HEADER_BYTES;
        while next < records_end {
            let (record, payload, record_end) = segment::record(bytes, next, records_end).ok_or(Gone)?;
            if next >= self.read_to {
                if !segment::record_is_whole(bytes, next, record, salt) {
                    return Err(Gone);
                }
                if self.record(record, payload, visit)?.is_break() {
                    self.read_to = record_end;
                    return Ok(Step::Stopped);
                }
            }
            next = record_end;
        }
        self.read_to = 0;
        self.next_number = Some(number.wrapping_add(1));
        let sequence = self.position.sequence();
        if block.flags.get() & block_flag::SEALED != 0 {
            self.position = Position::new(sequence.checked_add(1).ok_or(Gone)?, 0);
            return Ok(Step::NextSegment);
        }
        let len = align_up(records_end, BLOCK_ALIGN);
        let end = self.position.offset().checked_add(len as u32).ok_or(Gone)?;
        self.position = Position::new(sequence, end);
        Ok(Step::Read(len))
    }

    /// A record whose checksum fits.
    fn record(
        &mut self,
        header: &RecordHeader,
        payload: &[u8],
        visit: &mut impl FnMut(LogRecord<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Gone> {
        let record = Record {
            shard: header.shard.get(),
            kind: Kind::from_number(header.kind).ok_or(Gone)?,
            flags: header.flags,
            index: header.index.get(),
            term: header.term.get(),
            timestamp_ms: header.timestamp_ms.get(),
            seed: header.seed.get(),
            fragments: header.fragments.get(),
        };
        let is_own = record.shard == self.shard;
        if record.kind == Kind::Fragment {
            if is_own {
                self.fragment(&record, payload);
            }
            return Ok(ControlFlow::Continue(()));
        }
        let whole;
        let payload = if record.flags & record_flag::FRAGMENTED == 0 {
            Some(payload)
        } else if !is_own {
            None
        } else {
            whole = self.complete(&record, payload)?;
            whole.as_deref()
        };
        if record.in_log() { Ok(visit(LogRecord { record, payload })) } else { Ok(ControlFlow::Continue(())) }
    }

    #[cold]
    fn fragment(&mut self, record: &Record, payload: &[u8]) {
        let (id, ordinal) = (record.index, record.fragments);
        if ordinal == 0 {
            self.drop_stream(id);
            self.streams.insert(id, Stream { next: 0, bytes: Vec::new() });
        }
        let cost_bytes = FRAGMENT_OVERHEAD_BYTES + payload.len();
        let is_room = self.stream_bytes + cost_bytes <= self.stream_bytes_max;
        if let Some(stream) = self.streams.get_mut(&id)
            && is_room
            && stream.next == ordinal
        {
            stream.next = ordinal.saturating_add(1);
            stream.bytes.extend_from_slice(payload);
            self.stream_bytes += cost_bytes;
        } else {
            // Without one of its fragments it is of no use.
            self.drop_stream(id);
        }
    }

    /// A fragmented record's whole payload, if all its fragments were read.
    #[cold]
    fn complete(&mut self, record: &Record, payload: &[u8]) -> Result<Option<Vec<u8>>, Gone> {
        let (fragmented, rest) = Fragmented::ref_from_prefix(payload).map_err(|_| Gone)?;
        let stream = match self.drop_stream(fragmented.stream.get()) {
            Some(stream) => stream,
            None if record.fragments == 0 => Stream { next: 0, bytes: Vec::new() },
            None => return Ok(None),
        };
        let mut whole = stream.bytes;
        whole.extend_from_slice(rest);
        let is_whole = stream.next == record.fragments
            && whole.len() as u64 == fragmented.len.get()
            && crc32c::crc32c(&whole) == fragmented.crc.get();
        if is_whole { Ok(Some(whole)) } else { Err(Gone) }
    }

    fn drop_stream(&mut self, id: u64) -> Option<Stream> {
        let stream = self.streams.remove(&id)?;
        self.stream_bytes -= stream.bytes.len() + stream.next as usize * FRAGMENT_OVERHEAD_BYTES;
        Some(stream)
    }
}

/// What became of a segment's header, or a block.
enum Step {
    /// It was read, and takes so many bytes, of which padding may be missing.
    Read(usize),
    /// It was read, and the next segment comes.
    NextSegment,
    NeedMore(usize),
    Stopped,
}
