//! A file on its way: created under another name, added to, and published whole.
//!
//! Invariant: what is under the final name is complete and durable. Until then, and after a failure, the file that was
//! there before is there.

use std::{collections::VecDeque, path::PathBuf};

use duva_engine::rdb::{self, Checksum};
use duva_net::io::{Digest, File, FileTask, Io};

use crate::core::tickets::Ticket;

/// Capacity that a returned buffer may keep.
const KEPT_BYTES_MAX: usize = 256 << 10;

/// One RDB file that is being written. Its tasks are answered in the order in which they were given.
pub(super) struct Output {
    file: File,
    temporary: PathBuf,
    path: PathBuf,
    has_checksum: bool,
    given: VecDeque<Given>,
    /// Appends under way, and the memory of what they append.
    appends: usize,
    append_bytes: usize,
    /// Bytes of the file.
    bytes: u64,
    is_published: bool,
    is_discarded: bool,
    failure: Option<Failure>,
}

/// A task that was given to the storage thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Given {
    Create,
    /// Of a piece that this core made, if one did, with so much memory.
    Append(Option<usize>, usize),
    Publish,
    Discard,
}

/// RDB's checksum, which the storage thread computes.
#[derive(Debug)]
struct RdbDigest(Checksum);

impl Digest for RdbDigest {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn value(&self) -> [u8; 8] {
        self.0.value().to_le_bytes()
    }
}

/// What could not be done, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    what: &'static str,
    errno: i32,
}

impl Failure {
    /// Logs it.
    pub(super) fn log(self, path: &std::path::Path) {
        let error = std::io::Error::from_raw_os_error(self.errno);
        tracing::error!(path = %path.display(), %error, "{} failed", self.what);
    }
}

impl Output {
    /// Begins the file that is to be `path`, as `temporary`.
    pub(super) fn create(
        io: &mut impl Io,
        file: File,
        temporary: PathBuf,
        path: PathBuf,
        has_checksum: bool,
    ) -> Self {
        let mut this = Self {
            file,
            temporary,
            path,
            has_checksum,
            given: VecDeque::new(),
            appends: 0,
            append_bytes: 0,
            bytes: 0,
            is_published: false,
            is_discarded: false,
            failure: None,
        };
        let digest = has_checksum.then(|| -> Box<dyn Digest> { Box::new(RdbDigest(Checksum::new())) });
        let task = FileTask::Create { file, path: this.temporary.clone(), digest };
        this.give(io, Given::Create, task);
        this
    }

    /// Where it is to be.
    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends under way.
    pub(super) fn appends(&self) -> usize {
        self.appends
    }

    /// Memory of what they append, in bytes.
    pub(super) fn append_bytes(&self) -> usize {
        self.append_bytes
    }

    /// Why it cannot be published.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Whether it is in its place, durably.
    pub(super) fn is_published(&self) -> bool {
        self.is_published && self.given.is_empty()
    }

    /// Whether nothing of it is left.
    pub(super) fn is_discarded(&self) -> bool {
        self.is_discarded && self.given.is_empty()
    }

    /// Adds a piece, whose buffer is to go back to core `maker`.
    pub(super) fn append(&mut self, io: &mut impl Io, piece: Vec<u8>, maker: Option<usize>) {
        let memory_bytes = piece.capacity();
        self.bytes += piece.len() as u64;
        self.appends += 1;
        self.append_bytes += memory_bytes;
        let task = FileTask::Append { file: self.file, bytes: piece };
        self.give(io, Given::Append(maker, memory_bytes), task);
    }

    /// Ends the file with what is left in `piece`, and publishes it.
    pub(super) fn publish(&mut self, io: &mut impl Io, mut piece: Vec<u8>) {
        rdb::write_end(&mut piece);
        if self.has_checksum {
            self.bytes += size_of::<u64>() as u64;
        } else {
            piece.extend_from_slice(&0_u64.to_le_bytes());
        }
        self.append(io, piece, None);
        let task = FileTask::Publish { file: self.file, from: self.temporary.clone(), to: self.path.clone() };
        self.give(io, Given::Publish, task);
    }

    /// Removes what there is of it.
    pub(super) fn discard(&mut self, io: &mut impl Io) {
        if self.is_discarded || self.is_published {
            return;
        }
        self.is_discarded = true;
        let task = FileTask::Discard { file: self.file, path: self.temporary.clone() };
        self.give(io, Given::Discard, task);
    }

    fn give(&mut self, io: &mut impl Io, given: Given, task: FileTask) {
        self.given.push_back(given);
        io.file_task(Ticket::Save(self.file.0).number(), task);
    }

    /// The oldest task was done, or failed. Returns a piece's buffer, and which core it goes back to.
    pub(super) fn completed(
        &mut self,
        mut buffer: Vec<u8>,
        result: Result<(), i32>,
    ) -> Option<(usize, Vec<u8>)> {
        let given = self.given.pop_front().expect("a task is answered that was given");
        let what = match given {
            Given::Create => "creating a snapshot",
            Given::Append(..) => "writing a snapshot",
            Given::Publish => "publishing a snapshot",
            Given::Discard => "removing an unfinished snapshot",
        };
        match result {
            Ok(()) => self.is_published |= given == Given::Publish,
            Err(errno) => {
                self.failure.get_or_insert(Failure { what, errno });
            }
        }
        let Given::Append(maker, memory_bytes) = given else { return None };
        self.appends -= 1;
        self.append_bytes -= memory_bytes;
        buffer.shrink_to(KEPT_BYTES_MAX);
        maker.map(|maker| (maker, buffer))
    }
}
