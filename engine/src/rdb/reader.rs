//! Reading a stream in whatever pieces it arrives.
//!
//! Records that lie whole in a piece are read where they are. A record that a piece cuts is carried over: as much of the
//! next piece as could complete it is appended, it is read from there, and the rest is read in place again. A large
//! string that is not whole goes straight into an allocation of its own. Invariants:
//!
//! - The carry holds one unfinished record or nothing, and is not read again before it has the bytes that the record
//!   is known to have.
//! - What is kept between two calls is at most twice what was fed of the unfinished record.

use std::borrow::Cow;

use super::input::{Input, Stop};
use super::string::{self, Extent, OWNED_BYTES_MIN};
use super::value::{self, LoadedValue, kind};
use super::{Checksum, Fault, MAGIC, READ_VERSION_MAX, RdbError, ReadError, length, opcode};
use crate::{DATABASE_COUNT, Deadline, DetachedEntry, KeyHash, Shard};

/// Where the content of a stream goes.
pub trait Visitor {
    /// Why an item can be refused, which ends the reading.
    type Error;

    /// Something about the file: a name and its value.
    fn aux(&mut self, name: &[u8], value: &[u8]) -> Result<(), Self::Error> {
        let _ = (name, value);
        Ok(())
    }

    /// How many keys of a database probably follow, and how many of them with a deadline. Files can say anything.
    fn resize(&mut self, database: u8, keys: u64, expiring: u64) -> Result<(), Self::Error> {
        let _ = (database, keys, expiring);
        Ok(())
    }

    /// An entry.
    fn entry(&mut self, item: Item<'_>) -> Result<(), Self::Error>;
}

/// An entry as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its database.
    pub database: u8,
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: LoadedValue<'a>,
    /// When it expires: milliseconds since the Unix epoch. It may be over.
    pub deadline_ms: Option<u64>,
    /// Seconds since its last access when it was written, if the file says so.
    pub idle_seconds: Option<u64>,
    /// How often it was accessed, on Redis's logarithmic scale, if the file says so.
    pub frequency: Option<u8>,
}

impl Item<'_> {
    /// Puts the entry into the shard that holds its key, replacing what is there. A large string that has an allocation
    /// of its own is moved.
    #[inline]
    pub fn store(self, shard: &mut Shard, key: KeyHash, now_ms: u64) {
        let (database, name) = (self.database, self.key);
        if self.idle_seconds.is_some() {
            return shard.attach(database, name, key, self.into_detached(now_ms), now_ms);
        }
        let deadline = self.deadline_ms.map_or(Deadline::Clear, Deadline::At);
        match self.value {
            LoadedValue::String(Cow::Borrowed(value)) => {
                shard.set_string(database, name, key, value, deadline, now_ms);
            }
            LoadedValue::String(Cow::Owned(value)) => {
                shard.set_string_owned(database, name, key, value, deadline, now_ms);
            }
        }
    }

    /// The value and its deadline on their way into a shard.
    pub fn into_detached(self, now_ms: u64) -> DetachedEntry {
        self.value.into_detached(self.deadline_ms, self.idle_seconds.unwrap_or(0), now_ms)
    }
}

/// Reads a stream.
pub struct Reader {
    stage: Stage,
    /// Where the record under way begins: bytes from the start of the stream.
    offset: u64,
    /// What came of a record that is not whole.
    carry: Vec<u8>,
    /// How many bytes that record has at least.
    needed: u64,
    /// Of everything before the end mark.
    checksum: Checksum,
    version: u16,
    context: Context,
}

/// What the next bytes are.
enum Stage {
    Header,
    Records,
    /// The rest of a large string.
    Gathering(Gathering),
    Checksum,
    Ended,
    Failed,
}

/// What earlier records say about the next entry, and buffers for decoded strings.
#[derive(Default)]
struct Context {
    database: u8,
    deadline_ms: Option<u64>,
    idle_seconds: Option<u64>,
    frequency: Option<u8>,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// A large string value under way; its key and what else belongs to it is in the context.
struct Gathering {
    extent: Extent,
    bytes: Vec<u8>,
    /// The record's length up to the string's bytes.
    header_bytes: u64,
}

/// What became of a record.
enum Outcome {
    /// It is done, and had so many bytes.
    Done(usize),
    /// It is the last one, and had so many bytes.
    End(usize),
    /// It has at least so many bytes.
    More(u64),
    /// After so many bytes there follows a large string that is not whole.
    Gather(usize, Extent),
}

impl Reader {
    /// A reader at the start of a stream.
    pub fn new() -> Self {
        Self {
            stage: Stage::Header,
            offset: 0,
            carry: Vec::new(),
            needed: 0,
            checksum: Checksum::new(),
            version: 0,
            context: Context::default(),
        }
    }

    /// Reads the next bytes of the stream and gives the visitor every item that they complete.
    ///
    /// # Errors
    /// If the stream is wrong, or the visitor refuses an item; the reader then reads nothing any more.
    pub fn feed<V: Visitor>(&mut self, bytes: &[u8], visitor: &mut V) -> Result<(), ReadError<V::Error>> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.advance(rest, visitor) {
                Ok(taken) => rest = &rest[taken..],
                Err(error) => {
                    self.stage = Stage::Failed;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Says whether the stream came to its end, checksum included. One whose checksum is zero, or whose version has
    /// none, is not checked.
    ///
    /// # Errors
    /// If the end is missing, or reading failed before.
    pub fn finish(&self) -> Result<(), RdbError> {
        match self.stage {
            Stage::Ended => Ok(()),
            Stage::Failed => Err(self.error(Fault::Failed)),
            _ => Err(self.error(Fault::Truncated)),
        }
    }

    /// Takes some of the bytes, at least one, and says how many.
    fn advance<V: Visitor>(&mut self, bytes: &[u8], visitor: &mut V) -> Result<usize, ReadError<V::Error>> {
        let taken = match self.stage {
            Stage::Header => self.header(bytes).map_err(ReadError::Rdb)?,
            Stage::Records if self.carry.is_empty() => self.records(bytes, visitor)?,
            Stage::Records => self.carried(bytes, visitor)?,
            Stage::Gathering(_) => self.gather(bytes, visitor)?,
            Stage::Checksum => return self.trailer(bytes).map_err(ReadError::Rdb),
            Stage::Ended => return Err(ReadError::Rdb(self.error(Fault::Trailing))),
            Stage::Failed => return Err(ReadError::Rdb(self.error(Fault::Failed))),
        };
        self.checksum.update(&bytes[..taken]);
        Ok(taken)
    }

    fn header(&mut self, bytes: &[u8]) -> Result<usize, RdbError> {
        const HEADER_BYTES: usize = MAGIC.len() + 4;
        let taken = bytes.len().min(HEADER_BYTES - self.carry.len());
        self.carry.extend_from_slice(&bytes[..taken]);
        let magic_bytes = self.carry.len().min(MAGIC.len());
        if self.carry[..magic_bytes] != MAGIC[..magic_bytes] {
            return Err(self.error(Fault::NotRdb));
        }
        if self.carry.len() < HEADER_BYTES {
            return Ok(taken);
        }
        let digits = &self.carry[MAGIC.len()..];
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(self.error(Fault::NotRdb));
        }
        self.version = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
        if !(1..=READ_VERSION_MAX).contains(&self.version) {
            return Err(self.error(Fault::Version(self.version)));
        }
        self.carry.clear();
        self.offset = HEADER_BYTES as u64;
        self.stage = Stage::Records;
        Ok(taken)
    }

    /// Reads records where they are.
    fn records<V: Visitor>(&mut self, bytes: &[u8], visitor: &mut V) -> Result<usize, ReadError<V::Error>> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.record(rest, visitor)? {
                Outcome::Done(length) => {
                    at += length;
                    self.offset += length as u64;
                }
                Outcome::End(length) => {
                    self.end(length);
                    return Ok(at + length);
                }
                Outcome::Gather(length, extent) => {
                    self.begin_gathering(length, extent);
                    return Ok(at + length);
                }
                Outcome::More(needed) => {
                    self.carry.extend_from_slice(rest);
                    self.needed = needed;
                    return Ok(bytes.len());
                }
            }
        }
        Ok(at)
    }

    /// Reads the record that the carry begins.
    fn carried<V: Visitor>(&mut self, bytes: &[u8], visitor: &mut V) -> Result<usize, ReadError<V::Error>> {
        let before = self.carry.len();
        // Twice as much as before at least, so that a record is not read again for every few bytes.
        let wanted = self.needed.max(2 * before as u64) - before as u64;
        let appended = wanted.min(bytes.len() as u64) as usize;
        self.carry.extend_from_slice(&bytes[..appended]);
        if (self.carry.len() as u64) < self.needed {
            return Ok(appended);
        }
        let mut carry = std::mem::take(&mut self.carry);
        let outcome = self.record(&carry, visitor)?;
        if let Outcome::More(needed) = outcome {
            self.carry = carry;
            self.needed = needed;
            return Ok(appended);
        }
        carry.clear();
        self.carry = carry;
        let length = match outcome {
            Outcome::Done(length) => {
                self.offset += length as u64;
                length
            }
            Outcome::End(length) => {
                self.end(length);
                length
            }
            Outcome::Gather(length, extent) => {
                self.begin_gathering(length, extent);
                length
            }
            Outcome::More(_) => unreachable!("returned above"),
        };
        // What was carried was no whole record, so the record ends among the bytes that are new.
        assert!(length > before);
        Ok(length - before)
    }

    fn end(&mut self, length: usize) {
        const CHECKSUMS_SINCE: u16 = 5;
        self.offset += length as u64;
        self.stage = if self.version < CHECKSUMS_SINCE { Stage::Ended } else { Stage::Checksum };
    }

    fn begin_gathering(&mut self, length: usize, extent: Extent) {
        let gathering = Gathering { extent, bytes: Vec::new(), header_bytes: length as u64 };
        self.stage = Stage::Gathering(gathering);
    }

    /// Appends to a large string.
    fn gather<V: Visitor>(&mut self, bytes: &[u8], visitor: &mut V) -> Result<usize, ReadError<V::Error>> {
        let Stage::Gathering(gathering) = &mut self.stage else {
            unreachable!("the caller has looked at the stage");
        };
        let missing = gathering.extent.stored_bytes - gathering.bytes.len() as u64;
        let taken = missing.min(bytes.len() as u64) as usize;
        gathering.bytes.extend_from_slice(&bytes[..taken]);
        if (taken as u64) < missing {
            return Ok(taken);
        }
        let Gathering { extent, bytes, header_bytes } = gathering;
        let value = if extent.compressed_from.is_none() {
            Ok(Cow::Owned(std::mem::take(bytes)))
        } else {
            extent.with(bytes).decode(&mut self.context.value, u64::MAX)
        };
        let length = *header_bytes + extent.stored_bytes;
        match value {
            Ok(value) => {
                let item = Item {
                    database: self.context.database,
                    key: &self.context.key,
                    value: LoadedValue::String(value),
                    deadline_ms: self.context.deadline_ms.take(),
                    idle_seconds: self.context.idle_seconds.take(),
                    frequency: self.context.frequency.take(),
                };
                visitor.entry(item).map_err(ReadError::Visitor)?;
            }
            Err(fault) => return Err(ReadError::Rdb(self.error(fault))),
        }
        self.offset += length;
        self.stage = Stage::Records;
        Ok(taken)
    }

    fn trailer(&mut self, bytes: &[u8]) -> Result<usize, RdbError> {
        let taken = bytes.len().min(size_of::<u64>() - self.carry.len());
        self.carry.extend_from_slice(&bytes[..taken]);
        if let Some(stored) = self.carry.first_chunk() {
            let (stored, computed) = (u64::from_le_bytes(*stored), self.checksum.value());
            if stored != 0 && stored != computed {
                return Err(self.error(Fault::Checksum { stored, computed }));
            }
            self.offset += self.carry.len() as u64;
            self.carry.clear();
            self.stage = Stage::Ended;
        }
        Ok(taken)
    }

    /// Reads the record at the start of `bytes`.
    #[inline]
    fn record<V: Visitor>(&mut self, bytes: &[u8], visitor: &mut V) -> Result<Outcome, ReadError<V::Error>> {
        match self.context.record(bytes, visitor) {
            Ok(outcome) => Ok(outcome),
            Err(Refusal::Stop(Stop::More(needed))) => Ok(Outcome::More(needed)),
            Err(Refusal::Stop(Stop::Wrong(fault))) => Err(ReadError::Rdb(self.error(fault))),
            Err(Refusal::Visitor(error)) => Err(ReadError::Visitor(error)),
        }
    }

    #[cold]
    fn error(&self, fault: Fault) -> RdbError {
        RdbError { offset: self.offset, fault }
    }
}

impl Default for Reader {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a record was not read to its end.
enum Refusal<E> {
    Stop(Stop),
    Visitor(E),
}

impl<E> From<Stop> for Refusal<E> {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

impl<E> From<Fault> for Refusal<E> {
    fn from(fault: Fault) -> Self {
        Self::Stop(fault.into())
    }
}

impl Context {
    #[inline]
    fn record<V: Visitor>(&mut self, bytes: &[u8], visitor: &mut V) -> Result<Outcome, Refusal<V::Error>> {
        let mut input = Input::new(bytes);
        let byte = input.byte()?;
        if value::is_known(byte) {
            return self.entry(byte, input, visitor);
        }
        match byte {
            opcode::EXPIRE_MS => {
                // Redis takes -1 for no deadline; any other time before 1970 is over.
                let deadline_ms = i64::from_le_bytes(input.array()?);
                self.deadline_ms = (deadline_ms != -1).then_some(deadline_ms.max(0).cast_unsigned());
            }
            opcode::EXPIRE_SECONDS => {
                let deadline_seconds = i32::from_le_bytes(input.array()?);
                self.deadline_ms = Some(u64::from(deadline_seconds.max(0).cast_unsigned()) * 1000);
            }
            opcode::IDLE => self.idle_seconds = Some(length::read_plain(&mut input)?),
            opcode::FREQUENCY => self.frequency = Some(input.byte()?),
            opcode::SELECT => {
                let number = length::read_plain(&mut input)?;
                let database = u8::try_from(number).ok().filter(|&database| database < DATABASE_COUNT);
                self.database = database.ok_or(Fault::Database(number))?;
            }
            opcode::RESIZE => {
                let keys = length::read_plain(&mut input)?;
                let expiring = length::read_plain(&mut input)?;
                visitor.resize(self.database, keys, expiring).map_err(Refusal::Visitor)?;
            }
            opcode::AUX => {
                let name = string::read(&mut input)?.decode(&mut self.key, u64::MAX)?;
                let value = string::read(&mut input)?.decode(&mut self.value, u64::MAX)?;
                visitor.aux(&name, &value).map_err(Refusal::Visitor)?;
            }
            opcode::SLOT_INFO => {
                // The slot, its keys and those with a deadline: a hint like RESIZE, for a server with a table a slot.
                for _ in 0..3 {
                    length::read_plain(&mut input)?;
                }
            }
            opcode::END => return Ok(Outcome::End(input.position())),
            _ => return Err(self.refuse(byte, input)?.into()),
        }
        Ok(Outcome::Done(input.position()))
    }

    #[inline]
    fn entry<V: Visitor>(
        &mut self,
        kind: u8,
        mut input: Input<'_>,
        visitor: &mut V,
    ) -> Result<Outcome, Refusal<V::Error>> {
        let key = string::read(&mut input)?.decode(&mut self.key, u64::MAX)?;
        let at_value = input.clone();
        let value = match value::read(kind, &mut input, &mut self.value, u64::MAX) {
            Ok(value) => value,
            Err(stop) => {
                let extent = Self::large_string(kind, at_value, &stop);
                let Some((length, extent)) = extent else { return Err(stop.into()) };
                self.key = key.into_owned();
                return Ok(Outcome::Gather(length, extent));
            }
        };
        let item = Item {
            database: self.database,
            key: &key,
            value,
            deadline_ms: self.deadline_ms.take(),
            idle_seconds: self.idle_seconds.take(),
            frequency: self.frequency.take(),
        };
        visitor.entry(item).map_err(Refusal::Visitor)?;
        Ok(Outcome::Done(input.position()))
    }

    /// If the value at `input` is a large string that is not whole: where its bytes begin, and how many they are.
    #[cold]
    fn large_string(kind: u8, mut input: Input<'_>, stop: &Stop) -> Option<(usize, Extent)> {
        if kind != kind::STRING || !matches!(stop, Stop::More(_)) {
            return None;
        }
        let extent = Extent::peek(&mut input).filter(|extent| extent.stored_bytes >= OWNED_BYTES_MIN)?;
        Some((input.position(), extent))
    }

    /// What is wrong with a record that is neither an entry of a known type nor one of the opcodes above.
    #[cold]
    fn refuse(&mut self, byte: u8, mut input: Input<'_>) -> Result<Fault, Stop> {
        let what = match byte {
            opcode::FUNCTION | opcode::FUNCTION_DRAFT => Some("function library"),
            opcode::MODULE_AUX => {
                return Ok(Fault::Unsupported { what: "module's data", key: Vec::new() });
            }
            // Opcodes are given from the top down; types grow from below.
            128.. => return Ok(Fault::Opcode(byte)),
            _ => value::name(byte),
        };
        let key = string::read(&mut input)?.decode(&mut self.key, u64::MAX)?.into_owned();
        Ok(match what {
            Some(what) => Fault::Unsupported { what, key },
            None => Fault::Type { byte, key },
        })
    }
}
