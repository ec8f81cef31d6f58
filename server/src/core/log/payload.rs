//! What an entry's payload is: a command that changes keys of one shard.
//!
//! ```text
//! database and flags (1 byte), [the limit of strings (8 bytes)], [the time of ONCE's records (8 bytes)],
//! argument count (varint),
//! for each argument: length (varint) and bytes
//! ```
//!
//! Invariants:
//!
//! - An entry names keys of its shard alone: a command over several shards becomes one entry a shard, in one group.
//! - Together with its timestamp and seed an entry says all that its effect depends on; the setting that can change a
//!   result is part of it wherever it is not the default, and how long ONCE's reply is recorded where it is ONCE besides.

use duva_engine::{
    ArgumentRange, Hasher, KeyHash, LARGE_ARGUMENT, Protocol, Settings,
    command::{self, Command, Flags, Run},
};

use crate::core::request::{Mode, OwnedRequest, Reading, Request};

/// The database's bits in the first byte.
const DATABASE_MASK: u8 = 0x0F;

/// The first byte's bit that says that the limit of strings follows.
const HAS_LIMIT: u8 = 0x80;

/// The first byte's bit that says that the time follows for which ONCE's reply is recorded, in milliseconds.
const HAS_ONCE_TTL: u8 = 0x40;

/// The longest varint of a length, in bytes.
const VARINT_BYTES_MAX: usize = 10;

/// The arguments of an entry: all of a request's, or its name and those of some keys.
#[derive(Clone, Copy)]
pub enum Selection<'a> {
    /// Every argument.
    All,
    /// The name, and the arguments of the keys with these ordinal numbers.
    Keys(&'a [(u16, u32)]),
}

impl Selection<'_> {
    /// How many arguments of `request` are meant.
    fn count(self, request: &Request<'_>) -> usize {
        match self {
            Self::All => request.ranges.len(),
            Self::Keys(keys) => 1 + keys.len() * usize::from(request.command.keys.step),
        }
    }

    /// The number in `request` of the entry's argument `index`.
    fn argument(self, request: &Request<'_>, index: usize) -> usize {
        match self {
            Self::All => index,
            Self::Keys(_) if index == 0 => 0,
            Self::Keys(keys) => {
                let (first, step) =
                    (usize::from(request.command.keys.first), usize::from(request.command.keys.step));
                let (_, ordinal) = keys[(index - 1) / step];
                first + ordinal as usize * step + (index - 1) % step
            }
        }
    }
}

fn argument<'a>(request: &'a Request<'_>, index: usize) -> &'a [u8] {
    let (offset, length) = request.ranges[index];
    if offset == LARGE_ARGUMENT {
        &request.large[length as usize]
    } else {
        &request.bytes[offset as usize..offset as usize + length as usize]
    }
}

/// An upper bound of the payload's length, in bytes.
pub fn len_bytes_max(request: &Request<'_>, selection: Selection<'_>) -> usize {
    let count = selection.count(request);
    let arguments: usize =
        (0..count).map(|index| argument(request, selection.argument(request, index)).len() + 5).sum();
    let is_once = request.command.flags.contains(Flags::MOVABLEKEYS);
    1 + size_of::<u64>() * (1 + usize::from(is_once)) + VARINT_BYTES_MAX + arguments
}

/// The same of a whole request in memory of its own, without a look at every argument.
pub fn owned_len_bytes_max(request: &OwnedRequest) -> usize {
    1 + size_of::<u64>() + VARINT_BYTES_MAX + request.argument_count() * 5 + request.argument_bytes()
}

/// Appends the payload to `out`.
pub fn write(request: &Request<'_>, selection: Selection<'_>, settings: &Settings, out: &mut Vec<u8>) {
    let count = write_head(request, selection, settings, out);
    for index in 0..count {
        let bytes = argument(request, selection.argument(request, index));
        write_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
}

fn write_head(
    request: &Request<'_>,
    selection: Selection<'_>,
    settings: &Settings,
    out: &mut Vec<u8>,
) -> usize {
    debug_assert!(request.mode.database <= DATABASE_MASK);
    let default = Settings::default();
    let has_limit = settings.bulk_len_bytes_max != default.bulk_len_bytes_max;
    let is_once = request.command.flags.contains(Flags::MOVABLEKEYS);
    let has_once_ttl = is_once && settings.once_ttl_ms != default.once_ttl_ms;
    let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
    out.push(request.mode.database | flag(has_limit, HAS_LIMIT) | flag(has_once_ttl, HAS_ONCE_TTL));
    if has_limit {
        out.extend_from_slice(&settings.bulk_len_bytes_max.to_le_bytes());
    }
    if has_once_ttl {
        out.extend_from_slice(&settings.once_ttl_ms.to_le_bytes());
    }
    let count = selection.count(request);
    write_varint(count as u64, out);
    count
}

/// Writes a payload a piece at a time, from the beginning, so that a large one never exists twice.
#[derive(Default)]
pub struct Pieces {
    /// The argument being written, and how many of its bytes were written; its length comes before its first byte.
    index: usize,
    offset: usize,
    has_begun: bool,
}

impl Pieces {
    /// Appends the next piece, of about `piece_bytes_max` bytes and never more; false: that was the last.
    pub fn write(
        &mut self,
        request: &Request<'_>,
        selection: Selection<'_>,
        settings: &Settings,
        piece_bytes_max: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        let end = out.len() + piece_bytes_max;
        if !self.has_begun {
            self.has_begun = true;
            write_head(request, selection, settings, out);
        }
        let count = selection.count(request);
        while self.index < count {
            let bytes = argument(request, selection.argument(request, self.index));
            if self.offset == 0 {
                if out.len() + VARINT_BYTES_MAX >= end {
                    return true;
                }
                write_varint(bytes.len() as u64, out);
            }
            let part = (end - out.len()).min(bytes.len() - self.offset);
            out.extend_from_slice(&bytes[self.offset..self.offset + part]);
            self.offset += part;
            if self.offset < bytes.len() {
                return true;
            }
            self.index += 1;
            self.offset = 0;
        }
        false
    }
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &[u8], position: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let byte = *bytes.get(*position)?;
        *position += 1;
        value |= u64::from(byte & 0x7F).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Why a payload is not one: the journal is sound, but was written by something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadPayload(pub &'static str);

/// Decoded payloads, one at a time; the arrays are reused.
#[derive(Default)]
pub struct Decoder {
    ranges: Vec<ArgumentRange>,
    keys: Vec<KeyHash>,
}

/// A decoded payload.
pub struct Decoded<'a> {
    /// The request. Its large arguments are empty.
    pub command: &'static Command,
    /// The arguments, in the payload.
    pub ranges: &'a [ArgumentRange],
    /// Slots and hashes of its keys.
    pub keys: &'a [KeyHash],
    /// The database.
    pub database: u8,
    /// The settings in force when it was proposed.
    pub settings: Settings,
}

impl Decoder {
    /// Decodes `payload`.
    pub fn decode(&mut self, payload: &[u8], hasher: &Hasher) -> Result<Decoded<'_>, BadPayload> {
        const SHORT: BadPayload = BadPayload("it ends early");
        let mut settings = Settings::default();
        let first = *payload.first().ok_or(SHORT)?;
        let mut position = 1;
        for (bit, setting) in
            [(HAS_LIMIT, &mut settings.bulk_len_bytes_max), (HAS_ONCE_TTL, &mut settings.once_ttl_ms)]
        {
            if first & bit != 0 {
                let bytes = payload.get(position..position + size_of::<u64>()).ok_or(SHORT)?;
                *setting = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
                position += size_of::<u64>();
            }
        }
        let count = read_varint(payload, &mut position).ok_or(SHORT)?;
        self.ranges.clear();
        self.keys.clear();
        for _ in 0..count {
            let length = read_varint(payload, &mut position).ok_or(SHORT)?;
            let rest = payload.len() - position;
            let length = usize::try_from(length).ok().filter(|&length| length <= rest).ok_or(SHORT)?;
            let offset = u32::try_from(position).ok().filter(|&offset| offset != LARGE_ARGUMENT);
            self.ranges.push((offset.ok_or(BadPayload("it is too long"))?, length as u32));
            position += length;
        }
        let argument = |index: usize| {
            let (offset, length): ArgumentRange = self.ranges[index];
            &payload[offset as usize..offset as usize + length as usize]
        };
        let count = self.ranges.len();
        let named =
            || command::resolve(count, argument).or_else(|| command::transaction::internal(argument(0)));
        let command = (count > 0).then(named).flatten().ok_or(BadPayload("it names no command"))?;
        if !command.accepts(self.ranges.len()) || matches!(command.run, Run::Server(_)) {
            return Err(BadPayload("it is no complete command"));
        }
        let positions = command.key_positions(self.ranges.len(), argument);
        self.keys.extend(positions.map(|index| hasher.key(argument(index))));
        if command.flags.contains(Flags::MOVABLEKEYS) && self.keys.is_empty() {
            return Err(BadPayload("it is no write of one slot behind ONCE"));
        }
        Ok(Decoded {
            command,
            ranges: &self.ranges,
            keys: &self.keys,
            database: first & DATABASE_MASK,
            settings,
        })
    }
}

impl<'a> Decoded<'a> {
    /// The request, in `payload`.
    pub fn request(&self, payload: &'a [u8], large: &'a mut [Vec<u8>]) -> Request<'a> {
        let mode = Mode {
            database: self.database,
            protocol: Protocol::Resp2,
            touch: true,
            reading: Reading::Leader,
        };
        Request { command: self.command, bytes: payload, ranges: self.ranges, keys: self.keys, large, mode }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name and the number of keys of what comes out again; the sentence of what does not.
    fn decoded(arguments: &[&[u8]]) -> Result<(&'static str, usize), &'static str> {
        let hasher = Hasher::new(1);
        let mode = Mode { database: 3, protocol: Protocol::Resp2, touch: true, reading: Reading::Leader };
        // Which command it is said to be does not travel.
        let mut request = OwnedRequest::new(&command::all()[0], arguments, &hasher, mode);
        let mut bytes = Vec::new();
        write(&request.view(), Selection::All, &Settings::default(), &mut bytes);
        let mut decoder = Decoder::default();
        let decoded = decoder.decode(&bytes, &hasher).map_err(|bad| bad.0)?;
        assert_eq!((decoded.database, decoded.ranges.len()), (3, arguments.len()));
        Ok((decoded.command.name, decoded.keys.len()))
    }

    #[test]
    fn a_subcommand_is_found_again() {
        assert_eq!(decoded(&[b"OBJECT", b"encoding", b"k"]), Ok(("object|encoding", 1)));
        assert_eq!(decoded(&[b"memory", b"USAGE", b"k", b"SAMPLES", b"0"]), Ok(("memory|usage", 1)));
        assert_eq!(decoded(&[b"SET", b"k", b"v"]), Ok(("set", 1)));
        for arguments in
            [&[&b"OBJECT"[..]][..], &[b"OBJECT", b"HELP"], &[b"OBJECT", b"FREQ"], &[b"CONFIG", b"GET", b"x"]]
        {
            assert_eq!(decoded(arguments), Err("it is no complete command"));
        }
        assert_eq!(decoded(&[b"OBJECT", b"BOGUS", b"k"]), Err("it names no command"));
        assert_eq!(decoded(&[b"BOGUS"]), Err("it names no command"));
    }
}
