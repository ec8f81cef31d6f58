//! What holds for RDB streams and RESTORE payloads on any input; shared by the fuzz targets and the crate's own tests.
//!
//! The reader is compared with a model that is written independently of it, for whole streams, as plainly as the format
//! can be put. They must agree on every item and on the error, however the stream is cut, and what was read must come back
//! when it is written and read again.

#![allow(dead_code, reason = "each program that shares this file uses a part of it")]

use std::convert::Infallible;

use duva_engine::Value;
use duva_engine::rdb::{
    self, Checksum, Fault, Item, LoadedValue, PayloadError, RdbError, RdbOptions, ReadError, Reader, Visitor,
};

/// One thing a stream holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Aux(Vec<u8>, Vec<u8>),
    Resize(u8, u64, u64),
    Entry(Entry),
}

/// An entry of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) database: u8,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) deadline_ms: Option<u64>,
    pub(crate) idle_seconds: Option<u64>,
    pub(crate) frequency: Option<u8>,
}

/// What a stream holds, and how it ends.
pub(crate) type Outcome = (Vec<Event>, Result<(), RdbError>);

#[derive(Default)]
struct Recorder(Vec<Event>);

impl Visitor for Recorder {
    type Error = Infallible;

    fn aux(&mut self, name: &[u8], value: &[u8]) -> Result<(), Infallible> {
        self.0.push(Event::Aux(name.to_vec(), value.to_vec()));
        Ok(())
    }

    fn resize(&mut self, database: u8, keys: u64, expiring: u64) -> Result<(), Infallible> {
        self.0.push(Event::Resize(database, keys, expiring));
        Ok(())
    }

    fn entry(&mut self, item: Item<'_>) -> Result<(), Infallible> {
        let LoadedValue::String(value) = item.value;
        self.0.push(Event::Entry(Entry {
            database: item.database,
            key: item.key.to_vec(),
            value: value.into_owned(),
            deadline_ms: item.deadline_ms,
            idle_seconds: item.idle_seconds,
            frequency: item.frequency,
        }));
        Ok(())
    }
}

/// Checks one fuzz input: a byte that chooses how the stream is completed and cut, and the stream.
pub(crate) fn check_stream(data: &[u8]) {
    let [choice, stream @ ..] = data else { return };
    let mut stream = stream.to_vec();
    if choice & 1 == 1 {
        stream.splice(0..0, *b"REDIS0010");
    }
    if choice & 2 == 2 {
        stream.push(0xFF);
        let checksum = Checksum::of(&stream);
        stream.extend_from_slice(&checksum.to_le_bytes());
    }
    check_whole_stream(&stream, u64::from(*choice));
}

/// Checks that the reader agrees with the model on `stream`, whole, byte by byte, and cut at random.
pub(crate) fn check_whole_stream(stream: &[u8], seed: u64) {
    let expected = model(stream);
    assert_eq!(read([stream]), expected, "whole");
    assert_eq!(read(stream.chunks(1)), expected, "byte by byte");
    for seed in [seed, !seed] {
        assert_eq!(read(cut(stream, seed)), expected, "cut by seed {seed}");
    }
    let entries: Vec<_> = expected.0.into_iter().filter_map(Event::into_entry).collect();
    for compress in [false, true] {
        check_round_trip(&entries, compress);
    }
}

impl Event {
    /// The entry, if it is one.
    pub(crate) fn into_entry(self) -> Option<Entry> {
        match self {
            Self::Entry(entry) => Some(entry),
            Self::Aux(..) | Self::Resize(..) => None,
        }
    }
}

/// Checks that `entries`, written and read, are the same, but for what the writer leaves out.
pub(crate) fn check_round_trip(entries: &[Entry], compress: bool) {
    let stream = write(entries, compress);
    let (events, end) = read(cut(&stream, stream.len() as u64));
    assert_eq!(end, Ok(()));
    let read: Vec<_> = events.into_iter().filter_map(Event::into_entry).collect();
    let written: Vec<_> = entries
        .iter()
        .map(|entry| Entry {
            // The one time that readers take for no deadline.
            deadline_ms: entry.deadline_ms.filter(|&deadline_ms| deadline_ms != u64::MAX),
            idle_seconds: None,
            frequency: None,
            ..entry.clone()
        })
        .collect();
    assert_eq!(read, written);
}

/// A stream of `entries`.
pub(crate) fn write(entries: &[Entry], compress: bool) -> Vec<u8> {
    let mut stream = Vec::new();
    rdb::write_header(&mut stream, &[("redis-bits", b"64")]);
    for entry in entries {
        rdb::write_select(&mut stream, entry.database);
        let value = Value::String(&entry.value);
        rdb::write_entry(&mut stream, &entry.key, value, entry.deadline_ms, RdbOptions { compress });
    }
    rdb::write_end(&mut stream);
    let checksum = Checksum::of(&stream);
    stream.extend_from_slice(&checksum.to_le_bytes());
    stream
}

/// What the reader makes of a stream that arrives in these pieces.
pub(crate) fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut reader = Reader::new();
    let mut recorder = Recorder::default();
    for piece in pieces {
        if let Err(ReadError::Rdb(error)) = reader.feed(piece, &mut recorder) {
            assert!(reader.finish().is_err(), "a reader that failed has finished");
            return (recorder.0, Err(error));
        }
    }
    (recorder.0, reader.finish())
}

/// `bytes` in pieces of lengths that a seed determines.
pub(crate) fn cut(bytes: &[u8], seed: u64) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (bytes, seed);
    std::iter::from_fn(move || {
        // A linear congruential generator; its high bits are good enough to cut with.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length_max = [2, 5, 60, 4096][(state >> 62) as usize];
        let length = 1 + (state >> 33) as usize % length_max;
        let (piece, behind) = rest.split_at(length.min(rest.len()));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Checks one fuzz input: the version, and a value with its type. Also as a payload that is damaged.
pub(crate) fn check_payload(data: &[u8]) {
    let _ = rdb::restore_payload(data, u64::MAX);
    let [version, content @ ..] = data else { return };
    let mut payload = content.to_vec();
    payload.extend_from_slice(&[*version, 0]);
    let checksum = Checksum::of(&payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    let restored = rdb::restore_payload(&payload, u64::MAX);
    if *version > 12 {
        return assert_eq!(restored, Err(PayloadError::Footer));
    }
    let mut rest = Rest { bytes: content, at: 0 };
    let expected = match rest.byte() {
        Ok(0) => rest.string().map_err(|_| PayloadError::Data),
        _ => Err(PayloadError::Data),
    };
    let restored = restored.map(|LoadedValue::String(bytes)| bytes.into_owned());
    assert_eq!(restored, expected);
    let Ok(value) = restored else { return };
    assert!(value.len() <= data.len() * EXPANSION_MAX, "more bytes than the payload can hold");
    let mut dumped = Vec::new();
    rdb::dump_payload(Value::String(&value), &mut dumped);
    let again = rdb::restore_payload(&dumped, value.len() as u64 + 20);
    assert_eq!(again.map(|LoadedValue::String(bytes)| bytes.into_owned()), Ok(value));
}

/// Three compressed bytes make at most 264.
const EXPANSION_MAX: usize = 88;

/// Why the model stops: the stream ends within a record, or cannot be read on.
enum Stop {
    End,
    Wrong(Fault),
}

/// What a whole stream holds.
pub(crate) fn model(stream: &[u8]) -> Outcome {
    let mut events = Vec::new();
    let mut offset = 0;
    let end = model_records(stream, &mut offset, &mut events).map_err(|stop| {
        let fault = match stop {
            Stop::End => Fault::Truncated,
            Stop::Wrong(fault) => fault,
        };
        RdbError { offset: offset as u64, fault }
    });
    (events, end)
}

fn model_records(stream: &[u8], offset: &mut usize, events: &mut Vec<Event>) -> Result<(), Stop> {
    let version = model_header(stream)?;
    *offset = 9;
    let mut next = Entry::default();
    loop {
        let mut rest = Rest { bytes: stream, at: *offset };
        match rest.byte()? {
            0 => {
                next.key = rest.string()?;
                next.value = rest.string()?;
                events.push(Event::Entry(next.clone()));
                next = Entry { database: next.database, ..Entry::default() };
            }
            kind @ 1..=127 => {
                let key = rest.string()?;
                const LISTS: [u8; 4] = [1, 10, 14, 18];
                return Err(Stop::Wrong(match kind {
                    _ if LISTS.contains(&kind) => Fault::Unsupported { what: "list", key },
                    2 | 11 | 20 => Fault::Unsupported { what: "set", key },
                    3 | 5 | 12 | 17 => Fault::Unsupported { what: "sorted set", key },
                    4 | 9 | 13 | 16 => Fault::Unsupported { what: "hash", key },
                    6 | 7 => Fault::Unsupported { what: "module value", key },
                    15 | 19 | 21 => Fault::Unsupported { what: "stream", key },
                    22..=25 => Fault::Unsupported { what: "hash with expiring fields", key },
                    byte => Fault::Type { byte, key },
                }));
            }
            244 => {
                rest.length()?;
                rest.length()?;
                rest.length()?;
            }
            245 | 246 => {
                let key = rest.string()?;
                return Err(Stop::Wrong(Fault::Unsupported { what: "function library", key }));
            }
            247 => {
                return Err(Stop::Wrong(Fault::Unsupported { what: "module's data", key: Vec::new() }));
            }
            248 => next.idle_seconds = Some(rest.length()?),
            249 => next.frequency = Some(rest.byte()?),
            250 => {
                let name = rest.string()?;
                events.push(Event::Aux(name, rest.string()?));
            }
            251 => {
                let keys = rest.length()?;
                events.push(Event::Resize(next.database, keys, rest.length()?));
            }
            252 => {
                let time = rest.little_endian(8)? as i64;
                next.deadline_ms = if time == -1 { None } else { Some(time.max(0) as u64) };
            }
            253 => next.deadline_ms = Some((rest.little_endian(4)? as i32).max(0) as u64 * 1000),
            254 => {
                let number = rest.length()?;
                if number > 15 {
                    return Err(Stop::Wrong(Fault::Database(number)));
                }
                next.database = number as u8;
            }
            255 => {
                *offset = rest.at;
                break;
            }
            byte => return Err(Stop::Wrong(Fault::Opcode(byte))),
        }
        *offset = rest.at;
    }
    if version >= 5 {
        let computed = Checksum::of(&stream[..*offset]);
        let stored = Rest { bytes: stream, at: *offset }.little_endian(8)?;
        if stored != 0 && stored != computed {
            return Err(Stop::Wrong(Fault::Checksum { stored, computed }));
        }
        *offset += 8;
    }
    if *offset < stream.len() { Err(Stop::Wrong(Fault::Trailing)) } else { Ok(()) }
}

fn model_header(stream: &[u8]) -> Result<u16, Stop> {
    let magic = &stream[..stream.len().min(5)];
    if !b"REDIS".starts_with(magic) {
        return Err(Stop::Wrong(Fault::NotRdb));
    }
    let text = stream.get(5..9).ok_or(Stop::End)?;
    if !text.iter().all(u8::is_ascii_digit) {
        return Err(Stop::Wrong(Fault::NotRdb));
    }
    let version = String::from_utf8_lossy(text).parse().expect("four digits");
    if (1..=12).contains(&version) { Ok(version) } else { Err(Stop::Wrong(Fault::Version(version))) }
}

/// What of a stream was not read yet.
struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Rest<'_> {
    fn byte(&mut self) -> Result<u8, Stop> {
        let byte = *self.bytes.get(self.at).ok_or(Stop::End)?;
        self.at += 1;
        Ok(byte)
    }

    fn take(&mut self, count: u64) -> Result<Vec<u8>, Stop> {
        if count > (self.bytes.len() - self.at) as u64 {
            return Err(Stop::End);
        }
        (0..count).map(|_| self.byte()).collect()
    }

    fn little_endian(&mut self, count: u64) -> Result<u64, Stop> {
        Ok(self.take(count)?.into_iter().rev().fold(0, |number, byte| number << 8 | u64::from(byte)))
    }

    fn big_endian(&mut self, count: u64) -> Result<u64, Stop> {
        Ok(self.take(count)?.into_iter().fold(0, |number, byte| number << 8 | u64::from(byte)))
    }

    fn length(&mut self) -> Result<u64, Stop> {
        let first = self.byte()?;
        match first {
            0..=0x3F => Ok(u64::from(first)),
            0x40..=0x7F => Ok(u64::from(first - 0x40) * 256 + u64::from(self.byte()?)),
            0x80 => self.big_endian(4),
            0x81 => self.big_endian(8),
            byte => Err(Stop::Wrong(Fault::Length(byte))),
        }
    }

    fn string(&mut self) -> Result<Vec<u8>, Stop> {
        let text = |number: i64| number.to_string().into_bytes();
        match self.bytes.get(self.at) {
            Some(0xC0..=0xFF) => {}
            _ => {
                let length = self.length()?;
                return self.take(length);
            }
        }
        match self.byte()? {
            0xC0 => Ok(text(self.little_endian(1)? as i8 as i64)),
            0xC1 => Ok(text(self.little_endian(2)? as i16 as i64)),
            0xC2 => Ok(text(self.little_endian(4)? as i32 as i64)),
            0xC3 => {
                let compressed_length = self.length()?;
                let length = self.length()?;
                let compressed = self.take(compressed_length)?;
                let string = model_lzf(&compressed).filter(|string| string.len() as u64 == length);
                string.ok_or(Stop::Wrong(Fault::Compressed))
            }
            byte => Err(Stop::Wrong(Fault::StringEncoding(byte - 0xC0))),
        }
    }
}

fn model_lzf(compressed: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = compressed.iter().copied();
    let mut string = Vec::new();
    while let Some(control) = bytes.next() {
        if control < 32 {
            for _ in 0..=control {
                string.push(bytes.next()?);
            }
            continue;
        }
        let mut length = usize::from(control >> 5) + 2;
        if length == 9 {
            length += usize::from(bytes.next()?);
        }
        let distance = usize::from(control & 31) * 256 + usize::from(bytes.next()?) + 1;
        for _ in 0..length {
            string.push(*string.get(string.len().checked_sub(distance)?)?);
        }
    }
    Some(string)
}
