//! A request, wherever its bytes are.
//!
//! One form serves requests in a receive buffer, in a mesh batch and in memory of their own, so that all of them
//! take the same way through execution.

use duva_engine::{ArgumentRange, Args, Call, Hasher, KeyHash, LARGE_ARGUMENT, Protocol, Reply, Settings, Shards, command::Command};

/// How a connection wants its requests executed.
#[derive(Clone, Copy)]
pub struct Mode {
    /// The selected database.
    pub database: u8,
    /// The protocol version of the reply.
    pub protocol: Protocol,
    /// Whether reads count as accesses.
    pub touch: bool,
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
        let mut bytes = Vec::new();
        let mut large = Vec::new();
        let ranges = copy_arguments(self, 0..self.ranges.len(), &mut bytes, &mut large);
        OwnedRequest { command: self.command, bytes, ranges, keys: self.keys.to_vec(), large, mode: self.mode }
    }
}

/// Appends arguments of `request` to `bytes` and `large`, and returns where they are. Large arguments move.
pub fn copy_arguments(
    request: &mut Request<'_>,
    arguments: impl Iterator<Item = usize>,
    bytes: &mut Vec<u8>,
    large: &mut Vec<Vec<u8>>,
) -> Vec<ArgumentRange> {
    let mut ranges = Vec::new();
    copy_arguments_to(request, arguments, bytes, large, &mut ranges);
    ranges
}

/// As [`copy_arguments`], into an array of ranges that exists.
pub fn copy_arguments_to(
    request: &mut Request<'_>,
    arguments: impl Iterator<Item = usize>,
    bytes: &mut Vec<u8>,
    large: &mut Vec<Vec<u8>>,
    ranges: &mut Vec<ArgumentRange>,
) {
    for index in arguments {
        let (offset, length) = request.ranges[index];
        if offset == LARGE_ARGUMENT {
            ranges.push((LARGE_ARGUMENT, large.len() as u32));
            large.push(std::mem::take(&mut request.large[length as usize]));
        } else {
            ranges.push((bytes.len() as u32, length));
            bytes.extend_from_slice(&request.bytes[offset as usize..(offset + length) as usize]);
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
        let keys = command.keys.positions(arguments.len()).map(|position| hasher.key(arguments[position])).collect();
        Self { command, bytes, ranges, keys, large: Vec::new(), mode }
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

    /// Moves keys that are large arguments to the other bytes, so that they stay when the request is sent in parts.
    pub fn inline_keys(&mut self) {
        for position in self.command.keys.positions(self.ranges.len()) {
            let (offset, number) = self.ranges[position];
            if offset == LARGE_ARGUMENT {
                let key = std::mem::take(&mut self.large[number as usize]);
                self.ranges[position] = (self.bytes.len() as u32, key.len() as u32);
                self.bytes.extend_from_slice(&key);
            }
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

    /// How many arguments there are.
    pub fn argument_count(&self) -> usize {
        self.ranges.len()
    }
}
