//! A request, wherever its bytes are.
//!
//! One form serves requests in a receive buffer, in a mesh batch and in memory of their own, so that all of them
//! take the same way through execution.

use std::ops::Range;

use duva_engine::{
    Args, ArgumentRange, Call, Hasher, KeyHash, LARGE_ARGUMENT, Protocol, Reply, Settings, Shards,
    command::Command,
};

/// Where a request is to be read, and whether its reply brings where in its shard's log that was. Of writes only the
/// latter counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Reading {
    /// Where its shard's leader is.
    #[default]
    Leader,
    /// The same, and its reply brings the place.
    LeaderTracked,
    /// At this node's replica, as it is.
    Stale,
    /// At this node's replica, once that has applied the floor that comes along; its reply brings the place.
    Session,
}

impl Reading {
    /// Whether this node's replica may serve it although it does not lead.
    #[inline]
    pub fn is_near(self) -> bool {
        matches!(self, Self::Stale | Self::Session)
    }

    /// Whether its reply brings where it was.
    #[inline]
    pub fn is_tracked(self) -> bool {
        matches!(self, Self::LeaderTracked | Self::Session)
    }

    /// The same, but served where the leader is.
    pub fn at_leader(self) -> Self {
        if self.is_tracked() { Self::LeaderTracked } else { Self::Leader }
    }
}

/// How a connection wants its requests executed.
#[derive(Clone, Copy)]
pub struct Mode {
    /// The selected database.
    pub database: u8,
    /// The protocol version of the reply.
    pub protocol: Protocol,
    /// Whether reads count as accesses.
    pub touch: bool,
    /// Where it is read, in a cluster.
    pub reading: Reading,
}

/// A parsed request whose command is known and whose keys are hashed.
pub struct Request<'a> {
    /// The command, with a subcommand already found.
    pub command: &'static Command,
    /// What the ranges point into.
    pub bytes: &'a [u8],
    /// The arguments.
    pub ranges: &'a [ArgumentRange],
    /// Slot and hash of every key.
    pub keys: &'a [KeyHash],
    /// Large arguments.
    pub large: &'a mut [Vec<u8>],
    /// How to execute it.
    pub mode: Mode,
}

impl Request<'_> {
    /// The arguments.
    pub fn args(&mut self) -> Args<'_> {
        Args::new(self.bytes, self.ranges, self.large)
    }

    /// The call that executes this request.
    #[inline]
    pub fn call<'b>(
        &'b mut self,
        shards: &'b mut Shards,
        settings: &'b Settings,
        now_ms: u64,
        seed: u64,
        output: &'b mut Vec<u8>,
    ) -> Call<'b> {
        Call {
            shards,
            args: Args::new(self.bytes, self.ranges, self.large),
            keys: self.keys,
            database: self.mode.database,
            now_ms,
            seed,
            touch: self.mode.touch,
            settings,
            reply: Reply::new(output, self.mode.protocol),
        }
    }

    /// The same request in memory of its own; large arguments move.
    pub fn to_owned(&mut self) -> OwnedRequest {
        let mut owned = OwnedRequest::empty();
        owned.set(self);
        owned
    }
}

/// What becomes of large arguments when a request is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Large {
    /// They move: the request is not needed again.
    Move,
    /// They are copied: the request may be sent again.
    Copy,
}

/// Appends arguments of `request` to `bytes` and `large`, and where they are to `ranges`.
pub fn copy_arguments(
    request: &mut Request<'_>,
    arguments: impl Iterator<Item = usize>,
    how: Large,
    bytes: &mut Vec<u8>,
    large: &mut Vec<Vec<u8>>,
    ranges: &mut Vec<ArgumentRange>,
) {
    for index in arguments {
        let (offset, length) = request.ranges[index];
        if offset == LARGE_ARGUMENT {
            ranges.push((LARGE_ARGUMENT, large.len() as u32));
            let argument = &mut request.large[length as usize];
            large.push(if how == Large::Move { std::mem::take(argument) } else { argument.clone() });
        } else {
            ranges.push((u32::try_from(bytes.len()).expect("a batch is far below 4 GiB"), length));
            bytes.extend_from_slice(&request.bytes[offset as usize..offset as usize + length as usize]);
        }
    }
}

/// A request in memory of its own: one that waits, or that is worked on over several turns.
pub struct OwnedRequest {
    /// The command.
    pub command: &'static Command,
    bytes: Vec<u8>,
    ranges: Vec<ArgumentRange>,
    /// Slot and hash of every key.
    pub keys: Vec<KeyHash>,
    large: Vec<Vec<u8>>,
    /// How to execute it.
    pub mode: Mode,
}

impl OwnedRequest {
    /// A request made here rather than by a client.
    pub fn new(command: &'static Command, arguments: &[&[u8]], hasher: &Hasher, mode: Mode) -> Self {
        let mut bytes = Vec::new();
        let mut ranges = Vec::new();
        for argument in arguments {
            ranges.push((bytes.len() as u32, argument.len() as u32));
            bytes.extend_from_slice(argument);
        }
        let positions = command.key_positions(arguments.len(), |index| arguments[index]);
        let keys = positions.map(|position| hasher.key(arguments[position])).collect();
        Self { command, bytes, ranges, keys, large: Vec::new(), mode }
    }

    /// Nothing, in the place of a request that is elsewhere for a moment.
    pub fn empty() -> Self {
        Self {
            command: &duva_engine::command::all()[0],
            bytes: Vec::new(),
            ranges: Vec::new(),
            keys: Vec::new(),
            large: Vec::new(),
            mode: Mode { database: 0, protocol: Protocol::Resp2, touch: false, reading: Reading::Leader },
        }
    }

    /// Becomes the same as `request`, in the memory that it has; large arguments move.
    fn set(&mut self, request: &mut Request<'_>) {
        let Self { command, bytes, ranges, keys, large, mode } = self;
        (*command, *mode) = (request.command, request.mode);
        bytes.clear();
        ranges.clear();
        keys.clear();
        large.clear();
        // There may be much else beside its own arguments.
        let own = request.ranges.iter().filter(|range| range.0 != LARGE_ARGUMENT);
        bytes.reserve(own.map(|range| range.1 as usize).sum());
        ranges.reserve(request.ranges.len());
        copy_arguments(request, 0..request.ranges.len(), Large::Move, bytes, large, ranges);
        keys.extend_from_slice(request.keys);
    }

    /// Some arguments of `request`, with the keys whose ordinal numbers are `keys`.
    pub fn select(
        request: &mut Request<'_>,
        arguments: impl Iterator<Item = usize>,
        keys: impl Iterator<Item = usize>,
        how: Large,
    ) -> Self {
        let mut selected = Self::empty();
        selected.command = request.command;
        selected.mode = request.mode;
        selected.keys.extend(keys.map(|ordinal| request.keys[ordinal]));
        copy_arguments(
            request,
            arguments,
            how,
            &mut selected.bytes,
            &mut selected.large,
            &mut selected.ranges,
        );
        selected
    }

    /// Adds keys of `request`, a command of the same name, with their arguments.
    pub fn add_keys(&mut self, request: &mut Request<'_>, keys: impl Iterator<Item = usize> + Clone) {
        let (first, step) = (usize::from(request.command.keys.first), usize::from(request.command.keys.step));
        self.keys.extend(keys.clone().map(|ordinal| request.keys[ordinal]));
        let arguments = keys.flat_map(|ordinal| (0..step).map(move |offset| first + ordinal * step + offset));
        let Self { bytes, large, ranges, .. } = self;
        copy_arguments(request, arguments, Large::Move, bytes, large, ranges);
    }

    /// How many bytes a client sends for it, encoded as Redis's clients do.
    pub fn encoded_bytes(&self) -> usize {
        let header = |number: usize| "$0\r\n".len() + number.checked_ilog10().unwrap_or(0) as usize;
        let lengths = (0..self.argument_count()).map(|index| self.argument(index).len());
        header(self.argument_count()) + lengths.map(|length| header(length) + length + 2).sum::<usize>()
    }

    /// Bytes of the arguments of key number `ordinal`.
    pub fn key_bytes(&self, ordinal: usize) -> usize {
        let (first, step) = (usize::from(self.command.keys.first), usize::from(self.command.keys.step));
        let own = first + ordinal * step..first + (ordinal + 1) * step;
        own.map(|index| self.argument(index).len()).sum()
    }

    /// Where a piece of its keys ends that begins with key number `from` and has at most so many keys, and with their
    /// arguments about so many bytes. It has one key at least.
    pub fn piece_end(&self, from: usize, keys_max: usize, bytes_max: usize) -> usize {
        let end = self.keys.len().min(from + keys_max.max(1));
        let mut rest_bytes = bytes_max;
        let mut keys = from..end;
        // The one with which the bytes are used up still belongs to it.
        let last = keys.find(|&ordinal| {
            rest_bytes = rest_bytes.saturating_sub(self.key_bytes(ordinal));
            rest_bytes == 0
        });
        last.map_or(end, |ordinal| ordinal + 1)
    }

    /// The request with the keys `keys` alone, for a handler whose keys are all arguments but the name, which it does not look
    /// at: that argument is another one here.
    pub fn piece(&mut self, keys: Range<usize>) -> Request<'_> {
        debug_assert!(self.command.keys.first == 1 && self.command.keys.last == -1);
        let step = usize::from(self.command.keys.step);
        Request {
            command: self.command,
            bytes: &self.bytes,
            ranges: &self.ranges[keys.start * step..1 + keys.end * step],
            keys: &self.keys[keys],
            large: &mut self.large,
            mode: self.mode,
        }
    }

    /// The request.
    pub fn view(&mut self) -> Request<'_> {
        Request {
            command: self.command,
            bytes: &self.bytes,
            ranges: &self.ranges,
            keys: &self.keys,
            large: &mut self.large,
            mode: self.mode,
        }
    }

    /// Argument `index`.
    pub fn argument(&self, index: usize) -> &[u8] {
        let (offset, length) = self.ranges[index];
        if offset == LARGE_ARGUMENT {
            &self.large[length as usize]
        } else {
            &self.bytes[offset as usize..(offset + length) as usize]
        }
    }

    /// Bytes that it keeps, about.
    pub fn kept_bytes(&self) -> usize {
        let large: usize = self.large.iter().map(Vec::len).sum();
        size_of::<Self>() + self.bytes.len() + large + size_of_val(&*self.ranges) + size_of_val(&*self.keys)
    }

    /// Bytes of all arguments.
    pub fn argument_bytes(&self) -> usize {
        self.bytes.len() + self.large.iter().map(Vec::len).sum::<usize>()
    }

    /// How many arguments there are.
    pub fn argument_count(&self) -> usize {
        self.ranges.len()
    }
}

/// How many requests are kept for the memory that they have, and how much each may have, in bytes, arguments and keys.
const SPARE_REQUESTS_MAX: usize = 1024;
const SPARE_BYTES_MAX: usize = 1024;
const SPARE_ARGUMENTS_MAX: usize = 16;

/// Requests that were in memory of their own and are not needed any more: the next ones take their places.
#[derive(Default)]
pub struct SpareRequests(
    #[allow(clippy::vec_box, reason = "whoever has a request has it in a box")] Vec<Box<OwnedRequest>>,
);

impl SpareRequests {
    /// As [`Request::to_owned`].
    pub fn own(&mut self, request: &mut Request<'_>) -> Box<OwnedRequest> {
        let mut owned = self.0.pop().unwrap_or_else(|| Box::new(OwnedRequest::empty()));
        owned.set(request);
        owned
    }

    /// Takes one that is not needed any more.
    pub fn give(&mut self, mut request: Box<OwnedRequest>) {
        let is_small = request.bytes.capacity() <= SPARE_BYTES_MAX
            && request.ranges.capacity().max(request.keys.capacity()) <= SPARE_ARGUMENTS_MAX;
        if is_small && self.0.len() < SPARE_REQUESTS_MAX {
            request.large = Vec::new();
            self.0.push(request);
        }
    }
}
