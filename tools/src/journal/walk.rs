//! A segment's blocks and records, as far as they are sound, and also behind what is not.
//!
//! Recovery decides which of them count; here they are only found. Every record that is shown matches its checksum, in a
//! block that names the segment and its epoch.

use duva_persist::{
    format::{BlockHeader, RecordHeader, SegmentHeader, block_flag},
    recovery::segment::{self, BLOCK_HEADER_BYTES, Head},
};

/// What a segment's file turns out to be.
pub(super) enum Contents {
    /// It has a header of its own.
    Segment(Box<SegmentHeader>),
    /// Its header is damaged, but there are blocks of this epoch.
    Headless { epoch: u64 },
    /// Nothing was written to it under its name.
    Spare,
    /// It takes a later version to read it.
    Newer { reader_version: u16 },
    /// Its header is sound and of another core or segment.
    Foreign { core: u16, sequence: u32 },
}

impl Contents {
    /// What the file of this core and sequence is.
    pub(super) fn of(bytes: &[u8], core: u16, sequence: u32) -> Self {
        match segment::head(bytes, true) {
            Head::Newer { reader_version } => Self::Newer { reader_version },
            // What was recycled and not written since has an earlier header.
            Head::Whole(header) if header.sequence.get() >= sequence => {
                let place = (header.core.get(), header.sequence.get());
                if place == (core, sequence) {
                    Self::Segment(Box::new(header))
                } else {
                    Self::Foreign { core: place.0, sequence: place.1 }
                }
            }
            _ => {
                let epochs = segment::search(bytes, 0, core, sequence).map(|block| block.epoch.get());
                epochs.max().map_or(Self::Spare, |epoch| Self::Headless { epoch })
            }
        }
    }

    /// The epoch in which it was written, if it was.
    pub(super) fn epoch(&self) -> Option<u64> {
        match self {
            Self::Segment(header) => Some(header.epoch.get()),
            Self::Headless { epoch } => Some(*epoch),
            Self::Spare | Self::Newer { .. } | Self::Foreign { .. } => None,
        }
    }
}

/// Something in a segment.
pub(super) enum Item<'a> {
    /// A block begins here. Its records follow.
    Block(&'a BlockHeader),
    /// A record of that block.
    Record(Place<'a>),
    /// Here nothing sound can be read although something was written here or further on.
    Gap {
        offset: usize,
        why: &'static str,
        /// Where the next sound block begins.
        resumes: Option<usize>,
    },
}

/// A record in its segment.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) offset: usize,
    pub(super) header: &'a RecordHeader,
    pub(super) payload: &'a [u8],
}

/// How a segment ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// Where the next block would begin.
    pub(super) offset: usize,
    /// The last block says that no other follows.
    pub(super) sealed: bool,
}

/// Visits everything in the segment of this core and sequence.
///
/// # Errors
///
/// The visitor's error, which ends the walk.
pub(super) fn walk<E>(
    bytes: &[u8],
    (core, sequence): (u16, u32),
    contents: &Contents,
    mut visit: impl FnMut(Item<'_>) -> Result<(), E>,
) -> Result<End, E> {
    let Some(epoch) = contents.epoch() else { return Ok(End::default()) };
    let next_block = |from: usize| {
        let mut later = segment::search(bytes, from, core, sequence);
        later.find(|block| block.epoch.get() == epoch).map(|block| block.offset.get() as usize)
    };
    let mut offset = match contents {
        Contents::Segment(header) => segment::blocks_from(header),
        _ => {
            let resumes = next_block(0);
            visit(Item::Gap { offset: 0, why: "the segment's header is damaged", resumes })?;
            resumes.unwrap_or(bytes.len())
        }
    };
    loop {
        let block = segment::block(bytes, offset, core, sequence);
        let Some(block) = block.filter(|block| block.epoch.get() == epoch) else {
            let Some(resumes) = next_block(offset) else { return Ok(End { offset, sealed: false }) };
            let why = "no block begins where one should";
            visit(Item::Gap { offset, why, resumes: Some(resumes) })?;
            offset = resumes;
            continue;
        };
        visit(Item::Block(block))?;
        let end = segment::block_end(block);
        if let Some((at, why)) = records(bytes, block, &mut visit)? {
            let resumes = next_block(end);
            visit(Item::Gap { offset: at, why, resumes })?;
            let Some(resumes) = resumes else { return Ok(End { offset: end, sealed: false }) };
            offset = resumes;
            continue;
        }
        if block.flags.get() & block_flag::SEALED != 0 {
            return Ok(End { offset: end, sealed: true });
        }
        offset = end;
    }
}

/// Visits the records of a block; returns where, and why, they cannot be read on.
fn records<E>(
    bytes: &[u8],
    block: &BlockHeader,
    visit: &mut impl FnMut(Item<'_>) -> Result<(), E>,
) -> Result<Option<(usize, &'static str)>, E> {
    let start = block.offset.get() as usize;
    let end = start + BLOCK_HEADER_BYTES + block.len.get() as usize;
    let salt = block.salt();
    let mut offset = start + BLOCK_HEADER_BYTES;
    let mut count = 0;
    while offset < end {
        let Some((header, payload, next)) = segment::record(bytes, offset, end) else {
            return Ok(Some((offset, "a record does not fit into its block")));
        };
        if !segment::record_is_whole(bytes, offset, header, salt) {
            return Ok(Some((offset, "a record does not match its checksum")));
        }
        visit(Item::Record(Place { offset, header, payload }))?;
        count += 1;
        offset = next;
    }
    let is_complete = count == block.records.get();
    Ok((!is_complete).then_some((start, "the block here has not as many records as it says")))
}
