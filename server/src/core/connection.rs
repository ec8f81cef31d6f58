//! Connections of one core.
//!
//! Invariants: a connection is freed after its last completion; its place is reused under a new generation. An idle
//! connection holds no buffers.

use duva_engine::{ArgumentRange, KeyHash, Protocol};
use duva_net::{
    io::{GENERATION_LIMIT, Socket, Token},
    resp::Parser,
};

use super::{
    replies::{PendingReplies, Sequence},
    request::{Mode, OwnedRequest, Reading},
};
use crate::cluster::session::Session;

/// Bits of a connection's state.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct State(u32);

impl State {
    /// A receive into leased buffers is armed.
    pub const RECEIVING: Self = Self(1);
    /// A receive into private memory is under way.
    pub const RECEIVING_INTO: Self = Self(1 << 1);
    /// Its cancellation was asked for.
    pub const CANCELLING: Self = Self(1 << 2);
    /// A send is under way.
    pub const SENDING: Self = Self(1 << 3);
    /// Nothing more is executed, and the socket is shut down.
    pub const CLOSING: Self = Self(1 << 4);
    /// Nothing more is executed; it closes once its replies have left.
    pub const CLOSE_AFTER_REPLY: Self = Self(1 << 5);
    /// A request that must finish alone is under way.
    pub const FENCED: Self = Self(1 << 6);
    /// It is in the list of connections that have input to go on with.
    pub const READY: Self = Self(1 << 7);
    /// It is in the list of connections that have output to send.
    pub const DIRTY: Self = Self(1 << 8);
    /// It has given the right password, or needs none.
    pub const AUTHENTICATED: Self = Self(1 << 9);
    /// CLIENT NO-TOUCH.
    pub const NO_TOUCH: Self = Self(1 << 10);
    /// CLIENT NO-EVICT.
    pub const NO_EVICT: Self = Self(1 << 11);
    /// CLIENT REPLY OFF.
    pub const REPLY_OFF: Self = Self(1 << 12);
    /// CLIENT REPLY SKIP: the next reply is not sent.
    pub const REPLY_SKIP: Self = Self(1 << 13);
    /// It came through a Unix socket.
    pub const UNIX: Self = Self(1 << 14);
    /// The peer has finished sending; what was received is still answered.
    pub const END_OF_INPUT: Self = Self(1 << 15);
    /// It waits for CLIENT UNPAUSE.
    pub const PAUSED: Self = Self(1 << 16);
    /// The current request is CLIENT REPLY SKIP itself: the next one is skipped.
    pub const REPLY_SKIP_NEXT: Self = Self(1 << 17);

    /// WAIT is under way.
    pub const WAITING: Self = Self(1 << 18);

    /// It waits for room towards another core, or in the log.
    pub const HELD_BACK: Self = Self(1 << 19);

    /// One of the replies that it waits for may be a write's.
    pub const WRITING: Self = Self(1 << 20);

    /// It is a link that this node dialled.
    pub const PEER_OUT: Self = Self(1 << 21);

    /// It is a link that another node dialled.
    pub const PEER_IN: Self = Self(1 << 22);

    /// READONLY: it may read from replicas.
    pub const READ_ONLY: Self = Self(1 << 23);

    /// CLIENT TOPOLOGY.
    pub const TOPOLOGY: Self = Self(1 << 24);

    /// It has subscribed to the channel about leaders and nodes.
    pub const SUBSCRIBED: Self = Self(1 << 25);

    /// It has not been told of the last change of leaders or nodes, because it does not read.
    pub const UNTOLD: Self = Self(1 << 26);

    /// Its reads are stale.
    pub const STALE: Self = Self(1 << 27);

    /// Its reads are of its session.
    pub const SESSION: Self = Self(1 << 28);

    /// Its reads are sequential.
    pub const SEQUENTIAL: Self = Self(1 << 29);

    /// It keeps where in their shards' logs its requests were.
    pub const TRACKED: Self = Self(1 << 30);

    /// One of the replies that it waits for may be that of a read which this node's replica serves.
    pub const READING_NEAR: Self = Self(1 << 31);

    /// Its requests are looked at before they are routed in a cluster.
    pub const LEVELLED: Self =
        Self::READ_ONLY.and(Self::STALE).and(Self::SESSION).and(Self::SEQUENTIAL).and(Self::TRACKED);

    /// Whether any of `other` is set.
    #[inline]
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Sets `other`.
    #[inline]
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Clears `other`.
    #[inline]
    pub fn remove(&mut self, other: Self) {
        self.0 &= !other.0;
    }

    /// Sets or clears `other`.
    pub fn set(&mut self, other: Self, value: bool) {
        if value { self.insert(other) } else { self.remove(other) }
    }

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The request that has not arrived whole.
#[derive(Default)]
pub struct Unfinished {
    /// Arguments found so far.
    pub ranges: Vec<ArgumentRange>,
    /// Its first keys, of a request that has many, so that they are not all hashed at the end.
    pub keys: Vec<KeyHash>,
    /// Large arguments received so far.
    pub large: Vec<Vec<u8>>,
    /// Bytes of `large`.
    pub large_bytes: usize,
    /// The large argument being received, CRLF included.
    pub receiving: Option<Receiving>,
}

/// A large argument being received.
pub struct Receiving {
    /// What has arrived; empty while the kernel holds the buffer.
    pub buffer: Vec<u8>,
    /// How many bytes have arrived.
    pub arrived: usize,
    /// How many bytes are to arrive in all, CRLF included.
    pub length: usize,
}

/// How many replies of other cores a connection may wait for at first, and at most.
pub const REMOTE_WINDOW_FIRST: usize = 256;

/// See [`REMOTE_WINDOW_FIRST`].
pub const REMOTE_WINDOW_MAX: usize = 1024;

/// What only some connections have.
#[derive(Default)]
pub struct Identity {
    /// CLIENT SETNAME.
    pub name: Vec<u8>,
    /// CLIENT SETINFO LIB-NAME.
    pub library_name: Vec<u8>,
    /// CLIENT SETINFO LIB-VER.
    pub library_version: Vec<u8>,
    /// What it has seen of each shard, if it is tracked.
    pub session: Session,
}

/// One client's connection, or a link to or from another node.
pub struct Connection {
    /// The socket.
    pub socket: Socket,
    /// Its name in operations.
    pub token: Token,
    /// Its state.
    pub state: State,
    /// The protocol version of its replies.
    pub protocol: Protocol,
    /// The selected database.
    pub database: u8,
    /// Its number, never used twice.
    pub id: u64,
    /// Bytes that wait to be parsed.
    pub input: Vec<u8>,
    /// Where the parser stands in the request at the beginning of `input`.
    pub parser: Parser,
    /// What was found of that request.
    pub unfinished: Option<Box<Unfinished>>,
    /// A request with large arguments that must wait before it is executed.
    pub stalled: Option<Box<OwnedRequest>>,
    /// Replies to be sent.
    pub output: Vec<u8>,
    /// Replies that wait for earlier ones.
    pub replies: PendingReplies,
    /// Bytes of the send under way.
    pub sending_bytes: usize,
    /// Its unread replies as far as they are in the core's total.
    pub counted_bytes: usize,
    /// Replies of other cores that it may wait for at a time; shrinks while they are large.
    pub remote_window: usize,
    /// Since when its output is past the soft limit, in monotonic nanoseconds.
    pub soft_limit_since_ns: Option<u64>,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it last sent something, in milliseconds since the Unix epoch.
    pub active_ms: u64,
    /// The last command, for CLIENT LIST.
    pub last_command: Option<&'static duva_engine::command::Command>,
    /// Names it gave itself.
    pub identity: Option<Box<Identity>>,
}

impl Connection {
    /// How its requests are executed.
    #[inline]
    pub fn mode(&self) -> Mode {
        Mode {
            database: self.database,
            protocol: self.protocol,
            touch: !self.state.any(State::NO_TOUCH),
            reading: Reading::Leader,
        }
    }

    /// Bytes of requests that were not executed yet.
    pub fn input_bytes(&self) -> usize {
        let unfinished = self.unfinished.as_ref().map_or(0, |unfinished| {
            let receiving = unfinished.receiving.as_ref().map_or(0, |receiving| receiving.arrived);
            let ranges = unfinished.ranges.capacity() * size_of::<ArgumentRange>();
            let keys = unfinished.keys.capacity() * size_of::<KeyHash>();
            unfinished.large_bytes + receiving + ranges + keys
        });
        self.input.len() + unfinished
    }

    /// Bytes of replies that have not left.
    pub fn output_bytes(&self) -> usize {
        self.output.len() + self.sending_bytes + self.replies.held_bytes()
    }

    /// Whether it is a link to or from another node, rather than a client's.
    #[inline]
    pub fn is_peer(&self) -> bool {
        self.state.any(State::PEER_OUT.and(State::PEER_IN))
    }

    /// Its bytes among the core's unread replies: a link has none.
    pub fn unread_bytes(&self) -> usize {
        if self.is_peer() { 0 } else { self.output_bytes() }
    }

    /// Whether an operation on its socket is under way.
    pub fn is_busy(&self) -> bool {
        self.state.any(State::RECEIVING.and(State::RECEIVING_INTO).and(State::SENDING))
    }

    /// Whether replies are dropped rather than sent.
    #[inline]
    pub fn is_silent(&self) -> bool {
        self.state.any(State::REPLY_OFF.and(State::REPLY_SKIP))
    }

    /// Whether it waits for a write, which its later requests must not pass.
    #[inline]
    pub fn has_unfinished_write(&self) -> bool {
        !self.replies.is_empty() && self.state.any(State::WRITING)
    }

    /// Adds a slot for a reply that comes later, of a write or not.
    pub fn wait_for(&mut self, is_write: bool) -> Sequence {
        if self.replies.is_empty() {
            self.state.remove(State::WRITING.and(State::READING_NEAR));
        }
        if is_write {
            self.state.insert(State::WRITING);
        }
        self.wait_for_reply()
    }

    /// Adds a slot for a reply that comes later.
    pub fn wait_for_reply(&mut self) -> Sequence {
        let silent = self.is_silent();
        self.replies.wait(silent)
    }

    /// Lets `write` write a reply that is known now, in its place among those that wait.
    #[inline]
    pub fn reply_with<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        if self.replies.is_empty() {
            let start = self.output.len();
            let result = write(&mut self.output);
            if self.is_silent() {
                self.output.truncate(start);
            }
            return result;
        }
        let start = self.replies.held().len();
        let result = write(self.replies.held());
        if self.is_silent() {
            self.replies.held().truncate(start);
        }
        self.replies.held_from(start);
        result
    }
}

impl Connection {
    /// Whether it has subscribed in RESP2, in which all that comes is then a message.
    #[inline]
    pub fn takes_only_messages(&self) -> bool {
        self.state.any(State::SUBSCRIBED) && self.protocol == Protocol::Resp2
    }

    /// Lets `write` write what is no reply, behind those that wait. CLIENT REPLY does not suppress it.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.replies.is_empty() {
            return write(&mut self.output);
        }
        let start = self.replies.held().len();
        write(self.replies.held());
        self.replies.held_from(start);
    }
}

/// The connections of one core.
#[derive(Default)]
pub struct Connections {
    places: Vec<Place>,
    free: Vec<u32>,
    count: usize,
}

struct Place {
    generation: u32,
    /// Boxed, so that the table of many idle connections grows without copying or reserving them.
    connection: Option<Box<Connection>>,
}

impl Connections {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds one; `make` is given its token.
    pub fn insert(&mut self, make: impl FnOnce(Token) -> Connection) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, connection: None });
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        let token = Token { index, generation: place.generation };
        place.connection = Some(Box::new(make(token)));
        self.count += 1;
        token
    }

    /// The connection of `token`, unless it is gone.
    #[inline]
    pub fn get_mut(&mut self, token: Token) -> Option<&mut Connection> {
        let place = self.places.get_mut(token.index as usize)?;
        if place.generation != token.generation {
            return None;
        }
        place.connection.as_deref_mut()
    }

    /// Frees the place of `token`.
    pub fn remove(&mut self, token: Token) -> Option<Box<Connection>> {
        let place = self.places.get_mut(token.index as usize)?;
        if place.generation != token.generation {
            return None;
        }
        let connection = place.connection.take()?;
        place.generation = (place.generation + 1) % GENERATION_LIMIT;
        self.free.push(token.index);
        self.count -= 1;
        Some(connection)
    }

    /// Every connection.
    pub fn iter(&self) -> impl Iterator<Item = &Connection> {
        self.places.iter().filter_map(|place| place.connection.as_deref())
    }

    /// Every connection.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.places.iter_mut().filter_map(|place| place.connection.as_deref_mut())
    }
}
