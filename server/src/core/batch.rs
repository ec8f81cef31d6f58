//! What cores say to one another: batches of parsed requests, replies, and the parts of gathers.
//!
//! A batch is one turn's messages for one core. Everything variable in size lies in its shared arrays, which keep
//! their capacity as the batch circulates, so that steady traffic allocates nothing.

use std::ops::Range;

use duva_engine::{ArgumentRange, DetachedEntry, KeyHash, command::Command};
use duva_net::io::{Socket, Token};

use crate::cluster::session::Position;

use super::{
    admin::{AdminReply, AdminRequest},
    levels::Observed,
    locks::TransactionId,
    peer::{frame::FrameHeader, hello::PeerIdentity},
    replies::Sequence,
    request::{Large, Mode, OwnedRequest, Request, copy_arguments},
    save::SaveMessage,
};

/// Keys of a gather that a core looks at in one turn at most: what has more of them is worked on piece by piece.
pub const PIECE_KEYS_MAX: usize = 512;

/// Bytes of values after which such a piece ends early.
pub const PIECE_BYTES_MAX: usize = 256 << 10;

/// Capacity that an emptied batch may keep, in bytes.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// One turn's messages for one core.
#[derive(Default)]
pub struct Batch {
    /// Arguments.
    pub bytes: Vec<u8>,
    /// Replies.
    pub replies: Vec<u8>,
    /// Where the arguments are in `bytes` and `large`.
    pub ranges: Vec<ArgumentRange>,
    /// Hashes of keys.
    pub keys: Vec<KeyHash>,
    /// Large arguments.
    pub large: Vec<Vec<u8>>,
    /// Bytes of those.
    large_bytes: usize,
    /// The messages.
    pub messages: Vec<Message>,
}

/// A request's place in a batch.
#[derive(Clone)]
pub struct Packed {
    command: &'static Command,
    mode: Mode,
    ranges: Range<u32>,
    keys: Range<u32>,
}

/// Names a gather: its place at its coordinator, and its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatherKey {
    /// Its place in the coordinator's table.
    pub index: u32,
    /// Its identity, which also tells it from one that had the place before.
    pub transaction: TransactionId,
    /// The part, among the gather's.
    pub part: u16,
}

impl GatherKey {
    /// The bit of an index by which commands over several shards are told from those over several cores.
    pub const OF_SHARDS: u32 = 1 << 31;

    /// Whether it names a command over several shards.
    pub fn is_of_shards(self) -> bool {
        self.index & Self::OF_SHARDS != 0
    }
}

/// What a part does about locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locking {
    /// Nothing: the part neither takes nor needs locks.
    None,
    /// Takes the locks of its keys, which are kept.
    Keys,
    /// Takes the lock of the whole core, which is kept.
    All,
    /// Holds its locks already and gives them back afterwards.
    Release,
}

/// What a part does.
pub enum Work {
    /// Only its locking.
    Nothing,
    /// Executes its request.
    Command,
    /// Takes the value of its key out.
    Detach,
    /// Copies the value of its key.
    Duplicate,
    /// Puts a value under its key.
    Attach(Box<DetachedEntry>),
    /// Says of every key whether it exists: a digit each.
    Exists,
    /// Keeps its request, a piece of what is to be written.
    Stage,
    /// Gives back the locks of a piece; the reply is empty once all are.
    GiveBack,
    /// Journals these requests, or what was staged if there are none, as one group, and applies them.
    Apply(Vec<OwnedRequest>),
    /// Journals what is to be applied if all participants can; answers once that is durable. What, as for [`Self::Apply`].
    Prepare(Vec<OwnedRequest>),
    /// Journals that what was prepared happens, and applies it.
    Finish,
    /// One step of a SCAN from this cursor on, for so many keys more.
    Walk {
        /// Where to begin.
        cursor: u64,
        /// How many keys are still wanted.
        count: usize,
    },
    /// Begins what a save begins at one moment.
    Cut,
    /// Something about the core itself.
    Admin(AdminRequest),
}

/// A part's answer besides its reply bytes.
#[derive(Default)]
pub enum Answer {
    /// The reply bytes say it all.
    #[default]
    Reply,
    /// The same, and where in its shard's log the request was.
    Observed(Observed),
    /// The locks were refused.
    Refused,
    /// A value, if the key had one.
    Entry(Option<Box<DetachedEntry>>),
    /// A step of a walk: where to go on, how many keys were visited, how many are in the bytes.
    Walked {
        /// Where to go on; `None`: this core's shards are done.
        cursor: Option<u64>,
        /// Keys visited.
        visited: usize,
        /// Keys appended to the bytes.
        emitted: usize,
    },
    /// About the core itself.
    Admin(Box<AdminReply>),
}

/// One message.
#[derive(Default)]
pub enum Message {
    /// What is left in the place of a message that was taken.
    #[default]
    Served,
    /// Execute this and reply to that connection's slot.
    Request {
        /// The connection, at the sender.
        token: Token,
        /// Its reply slot.
        sequence: Sequence,
        /// The request.
        packed: Packed,
        /// Whether the connection has unfinished writes, which it must not pass.
        is_ordered: bool,
    },
    /// The same, of a read for this node's replica, once that has applied the floor. Nothing of its connection is under
    /// way.
    NearRequest {
        /// The connection, at the sender.
        token: Token,
        /// Its reply slot.
        sequence: Sequence,
        /// The request.
        packed: Packed,
        /// The floor.
        floor: Position,
    },
    /// Where the connection's request was, whose reply comes next.
    Observed {
        /// The connection, at the receiver.
        token: Token,
        /// Where.
        observed: Observed,
    },
    /// The reply to a request.
    Reply {
        /// The connection, at the receiver.
        token: Token,
        /// Its reply slot.
        sequence: Sequence,
        /// The reply.
        bytes: Range<usize>,
    },
    /// A part of a gather.
    Part {
        /// The gather, at the sender.
        gather: GatherKey,
        /// What to do about locks.
        locking: Locking,
        /// What to do.
        work: Work,
        /// Keys and arguments; `None` for administration, and for work that brings requests of its own.
        packed: Option<Packed>,
    },
    /// The answer to a part.
    PartReply {
        /// The gather, at the receiver.
        gather: GatherKey,
        /// The answer.
        answer: Answer,
        /// The reply.
        bytes: Range<usize>,
    },
    /// Give back the locks of a gather.
    Release(TransactionId),
    /// Whether the sender's journal has too much to write: it takes no more writes then.
    Journal {
        /// Whether.
        is_full: bool,
    },
    /// Writes need not wait for the sender's part of a save any more.
    Relief,
    /// About saving.
    Save(SaveMessage),
    /// Serve this connection from now on.
    Connection {
        /// The socket.
        socket: Socket,
        /// Whether it is a Unix socket's.
        is_unix: bool,
    },
    /// Serve this link from now on.
    PeerConnection {
        /// The socket.
        socket: Socket,
        /// Who sends on it.
        peer: PeerIdentity,
    },
    /// A link broke that the sender received on: what it was to bring to the receiver is lost.
    PeerSilenced {
        /// The node that sent on it.
        node: u32,
    },
    /// A frame for a group of the receiver.
    Peer {
        /// The node that sent it.
        from: u32,
        /// Its header.
        header: FrameHeader,
        /// Its payload, among the arguments.
        bytes: Range<usize>,
    },
}

impl duva_net::mesh::Batch for Batch {
    fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

impl Batch {
    /// Empties it, keeping reasonable capacity.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES_MAX);
        self.replies.clear();
        self.replies.shrink_to(KEPT_BYTES_MAX);
        self.ranges.clear();
        self.ranges.shrink_to(KEPT_BYTES_MAX / size_of::<ArgumentRange>());
        self.keys.clear();
        self.keys.shrink_to(KEPT_BYTES_MAX / size_of::<KeyHash>());
        self.large.clear();
        self.large_bytes = 0;
        self.messages.clear();
    }

    /// Bytes of all arguments.
    pub fn argument_bytes(&self) -> usize {
        self.bytes.len() + self.large_bytes
    }

    /// Copies a reply in; returns where it is.
    pub fn push_reply(&mut self, reply: &[u8]) -> Range<usize> {
        let start = self.replies.len();
        self.replies.extend_from_slice(reply);
        start..self.replies.len()
    }

    /// Copies a whole request in.
    pub fn pack(&mut self, request: &mut Request<'_>, large: Large) -> Packed {
        let keys = self.keys.len() as u32;
        self.keys.extend_from_slice(request.keys);
        let arguments = 0..request.ranges.len();
        self.pack_arguments(request, arguments, keys, large)
    }

    /// Copies some arguments of a request in, with the keys whose ordinal numbers are `keys`.
    pub fn pack_some(
        &mut self,
        request: &mut Request<'_>,
        arguments: impl Iterator<Item = usize>,
        keys: impl Iterator<Item = usize>,
        large: Large,
    ) -> Packed {
        let first = self.keys.len() as u32;
        self.keys.extend(keys.map(|ordinal| request.keys[ordinal]));
        self.pack_arguments(request, arguments, first, large)
    }

    fn pack_arguments(
        &mut self,
        request: &mut Request<'_>,
        arguments: impl Iterator<Item = usize>,
        first_key: u32,
        large: Large,
    ) -> Packed {
        let (first, first_large) = (self.ranges.len() as u32, self.large.len());
        copy_arguments(request, arguments, large, &mut self.bytes, &mut self.large, &mut self.ranges);
        self.large_bytes += self.large[first_large..].iter().map(Vec::len).sum::<usize>();
        Packed {
            command: request.command,
            mode: request.mode,
            ranges: first..self.ranges.len() as u32,
            keys: first_key..self.keys.len() as u32,
        }
    }

    /// The packed request.
    #[inline]
    pub fn request<'a>(
        bytes: &'a [u8],
        ranges: &'a [ArgumentRange],
        keys: &'a [KeyHash],
        large: &'a mut [Vec<u8>],
        packed: &Packed,
    ) -> Request<'a> {
        Request {
            command: packed.command,
            bytes,
            ranges: &ranges[packed.ranges.start as usize..packed.ranges.end as usize],
            keys: &keys[packed.keys.start as usize..packed.keys.end as usize],
            large,
            mode: packed.mode,
        }
    }
}

impl Packed {
    /// The database and the first key's hash, for prefetching.
    #[inline]
    pub fn first_key(&self, keys: &[KeyHash]) -> Option<(u8, KeyHash)> {
        (!self.keys.is_empty()).then(|| (self.mode.database, keys[self.keys.start as usize]))
    }

    /// The packed request, executed as another command.
    pub fn with_command(mut self, command: &'static Command) -> Self {
        self.command = command;
        self
    }
}
