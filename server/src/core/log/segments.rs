//! The files of a core's segments: prepared ahead, removed or used again once nothing in them is needed.
//!
//! The first segment's file is there from the start on, with what the journal began with; it only has to get its length.

use std::{collections::VecDeque, path::PathBuf};

use duva_net::io::{File, FileTask, Io};
use duva_persist::{format::Position, journal::Journal, names};

use super::retired::Retired;
use crate::core::{persistence_report::PersistenceReport, save, tickets::Ticket};

/// How long the disk is left alone after a segment could not be prepared or removed, in nanoseconds.
const RETRY_NS: u64 = 500_000_000;

/// The files of a core's segments.
pub(super) struct Segments {
    core: usize,
    directory: PathBuf,
    len_bytes: u32,
    /// The segment whose file is there already.
    first: Option<u32>,
    /// Those that are open or being prepared, by sequence.
    files: VecDeque<(u32, File)>,
    unused: Vec<File>,
    file_count: u32,
    /// Files that nothing needs.
    retired: Retired,
    /// Bytes of segments of earlier starts.
    earlier_bytes: u64,
    /// Why the last one could not be prepared, and when to try again, in monotonic nanoseconds.
    failure: Option<(i32, u64)>,
}

impl Segments {
    /// `first` is the segment that the journal was begun with.
    pub(super) fn new(
        core: usize,
        directory: PathBuf,
        len_bytes: u32,
        first: Option<u32>,
        earlier_bytes: u64,
    ) -> Self {
        Self {
            core,
            directory,
            len_bytes,
            first,
            files: VecDeque::new(),
            unused: Vec::new(),
            file_count: save::FILE_COUNT,
            retired: Retired::new(),
            earlier_bytes,
            failure: None,
        }
    }

    /// The file of a segment that is open.
    pub(super) fn file(&self, sequence: u32) -> File {
        let found = self.files.iter().find(|&&(other, _)| other == sequence);
        found.expect("a segment that is written to is open").1
    }

    /// Bytes of a segment.
    pub(super) fn len_bytes(&self) -> u64 {
        u64::from(self.len_bytes)
    }

    fn path(&self, sequence: u32) -> PathBuf {
        self.directory.join(names::segment(self.core as u16, sequence))
    }

    /// Asks for the segments that the journal wants, and lets a file go that nothing needs; `is_written`: with every byte
    /// written, so that each fsync of what takes its place is cheap.
    pub(super) fn prepare(&mut self, journal: &mut Journal, io: &mut impl Io, now_ns: u64, is_written: bool) {
        if self.failure.is_some_and(|(_, retry_ns)| retry_ns <= now_ns) {
            let (errno, _) = self.failure.expect("it was just looked at");
            self.failure = Some((errno, u64::MAX));
            journal.retry_segments();
        }
        while let Some(sequence) = journal.wants_segment() {
            let file = self.unused.pop().unwrap_or_else(|| {
                self.file_count += 1;
                File(self.file_count - 1)
            });
            self.files.push_back((sequence, file));
            let path = self.path(sequence);
            let recycle = if self.first == Some(sequence) {
                Some(path.clone())
            } else {
                self.retired.recycle(sequence)
            };
            let length_bytes = u64::from(self.len_bytes);
            let task = FileTask::Prepare { file, path, length_bytes, recycle, is_written };
            io.file_task(Ticket::Segment(sequence).number(), task);
        }
        if let Some(path) = self.retired.remove(now_ns) {
            io.file_task(Ticket::Retired.number(), FileTask::Remove { paths: vec![path] });
        }
    }

    /// The file that was to be removed is gone, or is not.
    pub(super) fn removed(&mut self, result: Result<(), i32>, now_ns: u64) {
        if let Err(errno) = result {
            let error = std::io::Error::from_raw_os_error(errno);
            tracing::warn!(core = self.core, %error, "removing a segment that nothing needs failed; trying again");
        }
        self.retired.removed(result.is_ok(), now_ns + RETRY_NS);
    }

    /// A segment is there, or could not be prepared.
    pub(super) fn prepared(
        &mut self,
        sequence: u32,
        result: Result<(), i32>,
        journal: &mut Journal,
        now_ns: u64,
    ) {
        self.retired.recycled(sequence, result.is_ok());
        match result {
            Ok(()) => {
                journal.segment_ready(sequence);
                if self.failure.take().is_some() {
                    tracing::info!(core = self.core, sequence, "the journal has room again");
                    // Another may have failed, which nothing else asks for again.
                    journal.retry_segments();
                }
            }
            Err(errno) => {
                if self.failure.is_none() {
                    let error = std::io::Error::from_raw_os_error(errno);
                    let path = self.path(sequence);
                    tracing::error!(path = %path.display(), %error, "preparing a segment of the journal failed; trying again");
                }
                if let Some(index) = self.files.iter().position(|&(other, _)| other == sequence)
                    && let Some((_, file)) = self.files.remove(index)
                {
                    self.unused.push(file);
                }
                self.failure = Some((errno, now_ns + RETRY_NS));
                journal.segment_failed(sequence);
            }
        }
    }

    /// Why no segment could be prepared.
    pub(super) fn failure(&self) -> Option<i32> {
        self.failure.map(|(errno, _)| errno)
    }

    /// When to try again.
    pub(super) fn retry_ns(&self) -> Option<u64> {
        self.failure.map(|(_, retry_ns)| retry_ns).filter(|&retry_ns| retry_ns != u64::MAX)
    }

    /// Lets go of segments wholly before `keep_from`.
    pub(super) fn trim(&mut self, journal: &mut Journal, keep_from: Position, io: &mut impl Io) {
        for sequence in journal.trim(keep_from) {
            let path = self.path(sequence);
            if let Some(index) = self.files.iter().position(|&(other, _)| other == sequence)
                && let Some((_, file)) = self.files.remove(index)
            {
                io.file_task(Ticket::Ignored.number(), FileTask::Close { file });
                self.unused.push(file);
            }
            self.retired.add(path);
        }
    }

    /// Segments of earlier starts are gone.
    pub(super) fn forget_earlier(&mut self) {
        self.earlier_bytes = 0;
    }

    /// Bytes of the journal: what earlier starts left, and what this one has appended.
    pub(super) fn journal_bytes(&self, journal: &Journal) -> u64 {
        let oldest = journal.segments().next();
        let Some(oldest) = oldest else { return self.earlier_bytes };
        let end = journal.mark_position();
        let whole = u64::from(end.sequence().saturating_sub(oldest)) * u64::from(self.len_bytes);
        self.earlier_bytes + whole + u64::from(end.offset())
    }

    pub(super) fn report(&self, journal: &Journal, report: &mut PersistenceReport) {
        let opened = journal.segments().count();
        report.segments = opened as u64;
        report.spare_segments = self.files.len().saturating_sub(opened) as u64;
        report.journal_bytes = self.journal_bytes(journal);
    }
}
