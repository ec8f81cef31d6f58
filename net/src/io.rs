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

use std::{ops::Deref, time::Duration};

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

    /// Wakes core `core` from a blocking turn.
    fn wake(&mut self, core: usize);

    /// Submits everything queued and waits as told.
    fn turn(&mut self, wait: Wait);

    /// The next completion of this turn.
    fn next_event(&mut self) -> Option<Event<Self::Buffer>>;

    /// Whether the implementation can wait for several completions without delaying the only one.
    fn can_batch(&self) -> bool;
}
