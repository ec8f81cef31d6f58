//! What a core's loop needs from the world: sockets, memory for them, wake-ups, time and randomness.
//!
//! The loop is generic over [`Io`]; the ring implements it on io_uring, the simulator on a seed. Invariants:
//!
//! - **Ownership of memory.** A buffer handed to an operation belongs to the implementation until the operation's
//!   completion hands it back; the loop never sees memory that the kernel may still write.
//! - **One of a kind.** A connection has at most one send, and at most one receive of either form, under way.
//! - **Completions are accounted for.** Every operation yields completions until one says it was the last; a token
//!   carries a generation, so a late completion is told from one of the connection that took its place.
//! - **One kernel entry a turn.** Operations are queued; [`Io::turn`] submits and waits in one call.
//! - **Files by number.** The loop numbers its files. A number is open from the event of the task that opened it until
//!   a task that closes it is given; tasks on one number are done in the order given, so it may be given anew at
//!   once. A number is that of prepared files or of created ones, never of both. A sync keeps what it syncs open by itself.

use std::{fmt, net::SocketAddr, ops::Deref, path::PathBuf, time::Duration};

/// A connected socket's descriptor. The loop that was given it closes it, through [`Io::close`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket(pub i32);

/// Names a connection in operations and completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Token {
    /// The connection's place in the core's table.
    pub index: u32,
    /// How often that place was used before, modulo 2^24.
    pub generation: u32,
}

/// Generations wrap at this value.
pub const GENERATION_LIMIT: u32 = 1 << 24;

/// A file that the loop has open; numbers are chosen by the loop, small, and used again after the file was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct File(pub u32);

/// A checksum of a created file, computed where the file is written.
pub trait Digest: Send + fmt::Debug {
    /// Takes the next bytes of the file.
    fn update(&mut self, bytes: &[u8]);

    /// The checksum of all bytes so far, as it is to stand behind them.
    fn value(&self) -> [u8; 8];
}

/// Slow and rare work on files: done beside the cores, for one core in two orders that do not wait for each other. What
/// creates files, reads and removes them ([`Self::is_output`]) may take long and is done in the order given; so is the rest,
/// which the journal waits for.
///
/// A task on a number that is not open fails with EBADF, unless it says otherwise; so tasks may be given before those
/// ahead of them were answered.
#[derive(Debug)]
pub enum FileTask {
    /// Opens `path` as `file`, `length_bytes` long, every byte allocated, durable with its directory entry.
    ///
    /// Nothing is overwritten: EEXIST if there is a `path`, unless `recycle` is just that. After any other error there is no
    /// `path`; `recycle` is where it was if it is `path`, or could not be renamed.
    Prepare {
        /// The number to open it as.
        file: File,
        /// Where the file is to be.
        path: PathBuf,
        /// How long it is to be.
        length_bytes: u64,
        /// A file that was prepared once, to be renamed to `path`, or `path` itself: its bytes stay, zeros follow as far
        /// as it is too short. `None`: zeros.
        recycle: Option<PathBuf>,
        /// Whether the zeros are written, so that syncs of what takes their place change no metadata; otherwise the
        /// room is only reserved, which costs no time.
        is_written: bool,
    },
    /// Creates `path` as `file`, to be appended to; what was there is cut to nothing.
    Create {
        /// The number to open it as.
        file: File,
        /// Where the file is to be.
        path: PathBuf,
        /// Its checksum, if it is to have one.
        digest: Option<Box<dyn Digest>>,
    },
    /// Adds `bytes` at the end of a created file. After an error this file takes no more, and is not published: both
    /// fail with that errno. What was added is written out as the file grows, so that publishing it does not have to
    /// wait for all of it at once.
    Append {
        /// The file.
        file: File,
        /// What to add; the buffer comes back, emptied.
        bytes: Vec<u8>,
    },
    /// Adds the checksum to a created file that is to have one, makes it durable, closes it and renames it, durably.
    ///
    /// The file is closed in any case. After an error `from` was removed; if it was the directory's sync that failed,
    /// `to` is the new file and may not outlive a power loss.
    Publish {
        /// The file.
        file: File,
        /// Where it is.
        from: PathBuf,
        /// Where it is to be, in place of what is there.
        to: PathBuf,
    },
    /// Closes the created file if it is open, and removes `path` if it is there.
    Discard {
        /// The file.
        file: File,
        /// Where it may be.
        path: PathBuf,
    },
    /// Closes the prepared file if it is open.
    Close {
        /// The file.
        file: File,
    },
    /// Removes files, durably; missing ones are fine. An error ends nothing early: it is the first one.
    Remove {
        /// Where they are.
        paths: Vec<PathBuf>,
    },
    /// Replaces a small file, durably and as a whole, by way of `path` with `.tmp` behind it: that name is this task's.
    ///
    /// After an error the old file is there; if it was the directory's sync that failed, the new one is, and may not
    /// outlive a power loss.
    Replace {
        /// The file.
        path: PathBuf,
        /// What it is to hold; the buffer comes back, emptied.
        bytes: Vec<u8>,
    },
    /// Reads a part of a file, which the buffer of [`Event::FileDone`] brings: fewer bytes where the file ends, none behind
    /// its end, and none after an error.
    Read {
        /// The file.
        path: PathBuf,
        /// Where the part begins.
        offset_bytes: u64,
        /// How much is wanted at most; no more memory is taken than the file has bytes.
        length_bytes: usize,
    },
}

impl FileTask {
    /// Whether it creates, fills, reads or removes files: what may take long.
    pub fn is_output(&self) -> bool {
        match self {
            Self::Create { .. }
            | Self::Append { .. }
            | Self::Publish { .. }
            | Self::Discard { .. }
            | Self::Remove { .. }
            | Self::Read { .. } => true,
            Self::Prepare { .. } | Self::Close { .. } | Self::Replace { .. } => false,
        }
    }

    /// The file that is not open any more once this was given.
    pub fn closes(&self) -> Option<File> {
        match *self {
            Self::Publish { file, .. } | Self::Discard { file, .. } | Self::Close { file } => Some(file),
            Self::Prepare { .. }
            | Self::Create { .. }
            | Self::Append { .. }
            | Self::Remove { .. }
            | Self::Replace { .. }
            | Self::Read { .. } => None,
        }
    }
}

/// One reading of the clocks, taken after completions were reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Clock {
    /// Milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Nanoseconds of a clock that never goes back and counts suspended time.
    pub monotonic_ns: u64,
}

/// How long a turn may wait for completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: submit, and take what is there.
    Poll,
    /// Not at all, but other threads on this CPU go first: what is left to do is not urgent.
    Yield,
    /// Until `events` completions are there, or a short batching interval passed and there is one; at most `timeout`.
    Block {
        /// The number of completions worth waiting for; at least 1.
        events: u32,
        /// When to return without any; `None`: never.
        timeout: Option<Duration>,
    },
}

/// Why a receive ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// The peer finished sending.
    Closed,
    /// All receive buffers were in use: arm it again once some were returned.
    NoBuffers,
    /// It was cancelled.
    Cancelled,
    /// An error, as errno.
    Failed(i32),
}

/// A completion.
#[derive(Debug)]
pub enum Event<B> {
    /// A listener accepted a connection, or failed with errno.
    Accepted {
        /// The listener's number.
        listener: u32,
        /// The new socket.
        result: Result<Socket, i32>,
        /// Whether the listener goes on accepting by itself.
        armed: bool,
    },
    /// A connection that was asked for is there, or failed.
    Connected {
        /// The number that was given with it.
        ticket: u64,
        /// The new socket, or errno.
        result: Result<Socket, i32>,
    },
    /// Bytes arrived on a connection, or its receive ended.
    Received {
        /// The connection.
        connection: Token,
        /// The bytes, to be returned with [`Io::recycle`] within the turn.
        result: Result<B, ReceiveEnd>,
        /// Whether the receive goes on by itself.
        armed: bool,
    },
    /// A receive into the connection's own memory completed; the count was appended to the buffer.
    ReceivedInto {
        /// The connection.
        connection: Token,
        /// The buffer, longer by what arrived.
        buffer: Vec<u8>,
        /// How many bytes arrived.
        result: Result<usize, ReceiveEnd>,
    },
    /// A send completed.
    Sent {
        /// The connection.
        connection: Token,
        /// The buffer that was given.
        buffer: Vec<u8>,
        /// How many of its bytes from the given offset on were sent, or errno.
        result: Result<usize, i32>,
    },
    /// A file task was done, or failed.
    FileDone {
        /// The number that was given with it.
        ticket: u64,
        /// The task's buffer, emptied; without capacity if it had none. What [`FileTask::Read`] has read.
        buffer: Vec<u8>,
        /// Errno, if it failed.
        result: Result<(), i32>,
    },
    /// What was written to a file before the sync was asked for is durable, unless it failed.
    Synced {
        /// The number that was given with it.
        ticket: u64,
        /// Errno, if it failed: what was written is then in doubt for good, and no later sync makes it durable.
        result: Result<(), i32>,
    },
    /// Another thread asked for attention.
    Woken,
}

/// The world, as a core's loop sees it. Dispatch is static; nothing above it may assume the ring.
pub trait Io {
    /// A leased receive buffer.
    type Buffer: Deref<Target = [u8]>;

    /// The clocks.
    fn clock(&mut self) -> Clock;

    /// 64 random bits.
    fn random(&mut self) -> u64;

    /// Arms listener `listener`: accepts until told otherwise.
    fn accept(&mut self, listener: u32);

    /// Connects to `address`; ends with [`Event::Connected`], after some seconds if nobody answers. What is sent later and
    /// stays unacknowledged for some seconds breaks the connection, so that a peer that is gone is found out soon.
    fn connect(&mut self, ticket: u64, address: SocketAddr);

    /// Arms a receive into leased buffers, which goes on until an event says it is no longer armed.
    fn receive(&mut self, connection: Token, socket: Socket);

    /// Receives once into the free capacity behind `buffer`'s bytes, at most `length_max` bytes.
    fn receive_into(&mut self, connection: Token, socket: Socket, buffer: Vec<u8>, length_max: usize);

    /// Ends the receive that is under way; its last event still comes.
    fn cancel_receive(&mut self, connection: Token);

    /// Returns a leased buffer.
    fn recycle(&mut self, buffer: Self::Buffer);

    /// Sends `buffer` from `offset` on.
    fn send(&mut self, connection: Token, socket: Socket, buffer: Vec<u8>, offset: usize);

    /// Ends both directions: operations under way complete soon.
    fn shutdown(&mut self, socket: Socket);

    /// Closes a socket that has no operation under way.
    fn close(&mut self, socket: Socket);

    /// The address of the peer, as CLIENT LIST shows it, and of this end.
    fn addresses(&mut self, socket: Socket) -> (String, String);

    /// Sets the idle seconds before keep-alive probes on connections accepted from now on; 0: never.
    fn set_keepalive(&mut self, seconds: u32);

    /// Does slow work on files, beside this core; ends with [`Event::FileDone`].
    fn file_task(&mut self, ticket: u64, task: FileTask);

    /// Writes all of `bytes` at `offset_bytes`, now, as far as the page cache.
    ///
    /// # Errors
    /// Errno; any part of the bytes may have been written.
    fn write_file(&mut self, file: File, bytes: &[u8], offset_bytes: u64) -> Result<(), i32>;

    /// Makes what was written to the file before this durable; ends with [`Event::Synced`]. Syncs may end in any order.
    ///
    /// `is_first`: the sends that are asked for behind it do not depend on it, and others wait for it, so that it is to go
    /// before them, and is to go on whenever it can.
    fn sync_file(&mut self, ticket: u64, file: File, is_first: bool);

    /// Wakes core `core` from a blocking turn.
    fn wake(&mut self, core: usize);

    /// Submits everything queued and waits as told.
    fn turn(&mut self, wait: Wait);

    /// The next completion of this turn.
    fn next_event(&mut self) -> Option<Event<Self::Buffer>>;

    /// Whether the implementation can wait for several completions without delaying the only one.
    fn can_batch(&self) -> bool;
}
