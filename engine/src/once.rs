//! What a shard remembers of requests that must take effect once: their replies, by client id and request id.
//!
//! Records lie one behind the other in chunks of bytes, in the order in which they came; an index finds them. Invariants:
//!
//! - **A function of the log.** What [`OnceRecords::find`] says, and what leaves for want of room, follows from the entries
//!   applied and their timestamps alone. Records leave from the front only: those that are over, when the next one
//!   comes or time moves on, and then the oldest, while there are more than [`RECORDS_MAX`] or [`RECORD_BYTES_MAX`] bytes of
//!   them. That the first kind leaves early or late is seen by nobody.
//! - **The newest stays**, whatever its length.
//! - **A pair has one record that counts**, the last. An earlier one, which was over by then, lies there until it
//!   comes to the front.
//! - A chunk that a snapshot holds does not change: the next record goes to a copy.
//!
//! So a request is executed once as long as its retries come within the time that its record has, and as long as
//! no more than the shard has room for came in between; how many went too early is counted.

use std::{collections::VecDeque, error::Error, fmt, sync::Arc};

use hashbrown::HashTable;

use crate::{Hasher, Protocol};

/// The longest client id, and request id, in bytes.
pub const ONCE_ID_BYTES_MAX: usize = 64;

/// How many records a shard has room for. Every replica must agree on it.
const RECORDS_MAX: usize = 65_536;

/// For how many bytes of records, their heads included, a shard has room. Every replica must agree on it.
const RECORD_BYTES_MAX: usize = 16 << 20;

/// A chunk with so many bytes takes no more records.
const CHUNK_BYTES: usize = 32 << 10;

/// What a record begins with: its deadline and the length of the reply (8 bytes each), and the lengths of both ids
/// (a byte each).
const HEAD_BYTES: usize = 18;

/// Who asks for what: a client id and a request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OncePair<'a> {
    pub(crate) client: &'a [u8],
    pub(crate) request: &'a [u8],
}

/// What a shard remembers, and what happened, since the shard was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OnceTotals {
    /// Records that are kept now.
    pub cached: u64,
    /// Requests that were executed.
    pub unique: u64,
    /// Requests that were answered from a record.
    pub duplicates: u64,
    /// Records that had to leave before they were over.
    pub evicted: u64,
}

/// A shard's records.
#[derive(Default)]
pub(crate) struct OnceRecords {
    chunks: VecDeque<Arc<Vec<u8>>>,
    /// The number of the first chunk, counted from the first that ever was.
    first_chunk: u64,
    /// Where the first record begins in the first chunk.
    head: usize,
    /// Bytes of all records that are kept.
    bytes: usize,
    index: HashTable<Place>,
    totals: OnceTotals,
}

/// Where a record begins.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    chunk: u64,
    offset: u32,
}

/// A record where it lies.
struct Record<'a> {
    deadline_ms: u64,
    pair: OncePair<'a>,
    /// In RESP3.
    reply: &'a [u8],
    len_bytes: usize,
}

impl<'a> Record<'a> {
    /// The record at the start of `bytes`; `None`: they begin with no whole one.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let reply_bytes = usize::try_from(number(8)).ok()?;
        let (client, rest) = rest.split_at_checked(usize::from(head[16]))?;
        let (request, rest) = rest.split_at_checked(usize::from(head[17]))?;
        let reply = rest.get(..reply_bytes)?;
        let len_bytes = HEAD_BYTES + client.len() + request.len() + reply_bytes;
        Some(Self { deadline_ms: number(0), pair: OncePair { client, request }, reply, len_bytes })
    }

    fn write(out: &mut Vec<u8>, pair: OncePair<'_>, reply: &[u8], deadline_ms: u64) {
        out.extend_from_slice(&deadline_ms.to_le_bytes());
        out.extend_from_slice(&(reply.len() as u64).to_le_bytes());
        out.push(pair.client.len() as u8);
        out.push(pair.request.len() as u8);
        out.extend_from_slice(pair.client);
        out.extend_from_slice(pair.request);
        out.extend_from_slice(reply);
    }
}

impl OnceRecords {
    /// The reply to a request that was executed, in RESP3, unless its record is over; counts which of both it is.
    pub(crate) fn find(&mut self, pair: OncePair<'_>, hasher: &Hasher, now_ms: u64) -> Option<&[u8]> {
        let (chunks, first_chunk) = (&self.chunks, self.first_chunk);
        let is_it = |place: &Place| record_at(chunks, first_chunk, *place).pair == pair;
        let place = *self.index.find(hash(hasher, pair), is_it)?;
        let record = record_at(&self.chunks, self.first_chunk, place);
        if record.deadline_ms <= now_ms {
            return None;
        }
        self.totals.duplicates += 1;
        Some(record.reply)
    }

    /// Records the reply, in RESP3, to a request that was executed at `now_ms`, until `deadline_ms`.
    pub(crate) fn record(
        &mut self,
        pair: OncePair<'_>,
        reply: &[u8],
        deadline_ms: u64,
        hasher: &Hasher,
        now_ms: u64,
    ) {
        self.expire(hasher, now_ms);
        self.totals.unique += 1;
        self.push(pair, reply, deadline_ms, hasher);
    }

    /// Lets go of what is over, from the front.
    pub(crate) fn expire(&mut self, hasher: &Hasher, now_ms: u64) {
        while let Some(first) = self.first()
            && first.deadline_ms <= now_ms
        {
            self.pop(hasher);
        }
    }

    fn push(&mut self, pair: OncePair<'_>, reply: &[u8], deadline_ms: u64, hasher: &Hasher) {
        if self.chunks.back().is_none_or(|chunk| chunk.len() >= CHUNK_BYTES) {
            self.chunks.push_back(Arc::default());
        }
        let chunk = self.first_chunk + self.chunks.len() as u64 - 1;
        let bytes = Arc::make_mut(self.chunks.back_mut().expect("it was made above"));
        let before = bytes.len();
        Record::write(bytes, pair, reply, deadline_ms);
        self.bytes += bytes.len() - before;
        self.totals.cached += 1;
        let place = Place { chunk, offset: before as u32 };
        let (chunks, first_chunk) = (&self.chunks, self.first_chunk);
        let hash_of = |place: &Place| hash(hasher, record_at(chunks, first_chunk, *place).pair);
        let is_it = |place: &Place| record_at(chunks, first_chunk, *place).pair == pair;
        match self.index.find_mut(hash(hasher, pair), is_it) {
            Some(known) => *known = place,
            None => {
                self.index.insert_unique(hash(hasher, pair), place, hash_of);
            }
        }
        while self.totals.cached > 1
            && (self.totals.cached > RECORDS_MAX as u64 || self.bytes > RECORD_BYTES_MAX)
        {
            self.totals.evicted += u64::from(self.pop(hasher));
        }
    }

    fn first(&self) -> Option<Record<'_>> {
        Record::read(self.chunks.front()?.get(self.head..)?)
    }

    /// Removes the first record; says whether it was the one that counts for its pair.
    fn pop(&mut self, hasher: &Hasher) -> bool {
        let Some(first) = self.first() else { return false };
        let (place, len_bytes) =
            (Place { chunk: self.first_chunk, offset: self.head as u32 }, first.len_bytes);
        let counts = match self.index.find_entry(hash(hasher, first.pair), |other| *other == place) {
            Ok(entry) => {
                entry.remove();
                true
            }
            Err(_) => false,
        };
        self.head += len_bytes;
        self.bytes -= len_bytes;
        self.totals.cached -= 1;
        if self.chunks.front().is_some_and(|chunk| chunk.len() == self.head) {
            self.chunks.pop_front();
            self.first_chunk += 1;
            self.head = 0;
        }
        if self.chunks.is_empty() {
            self.index = HashTable::new();
        }
        counts
    }

    pub(crate) fn totals(&self) -> OnceTotals {
        self.totals
    }

    /// Bytes of memory.
    pub(crate) fn used_bytes(&self) -> usize {
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.capacity()).sum();
        chunks + self.index.allocation_size()
    }

    /// The records as they are now.
    pub(crate) fn snapshot(&self) -> OnceSnapshot {
        OnceSnapshot { chunks: self.chunks.clone(), head: self.head }
    }

    /// Appends records of a snapshot.
    pub(crate) fn restore(&mut self, mut bytes: &[u8], hasher: &Hasher) -> Result<(), BadOnceRecords> {
        while !bytes.is_empty() {
            let Record { deadline_ms, pair, reply, len_bytes } =
                Record::read(bytes).ok_or(BadOnceRecords("one ends early"))?;
            if pair.client.len().max(pair.request.len()) > ONCE_ID_BYTES_MAX {
                return Err(BadOnceRecords("an id is too long"));
            }
            if translate(reply, |_| {}).is_none() {
                return Err(BadOnceRecords("a reply is none"));
            }
            self.push(pair, reply, deadline_ms, hasher);
            bytes = &bytes[len_bytes..];
        }
        Ok(())
    }
}

fn record_at(chunks: &VecDeque<Arc<Vec<u8>>>, first_chunk: u64, place: Place) -> Record<'_> {
    let chunk = &chunks[(place.chunk - first_chunk) as usize];
    Record::read(&chunk[place.offset as usize..]).expect("records are written whole")
}

fn hash(hasher: &Hasher, pair: OncePair<'_>) -> u64 {
    hasher.hash(pair.client).rotate_left(23) ^ hasher.hash(pair.request)
}

/// A shard's records at the moment of a snapshot, which holds them until it has written them.
#[derive(Default)]
pub struct OnceSnapshot {
    chunks: VecDeque<Arc<Vec<u8>>>,
    head: usize,
}

impl OnceSnapshot {
    /// Lets `write` write the next whole records, about 32 KiB of them or one that is longer; `None`: there are no more.
    pub fn next<T>(&mut self, write: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let chunk = self.chunks.pop_front()?;
        Some(write(&chunk[std::mem::take(&mut self.head)..]))
    }
}

/// Why bytes are no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadOnceRecords(&'static str);

impl fmt::Display for BadOnceRecords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the recorded replies of ONCE cannot be read: {}", self.0)
    }
}

impl Error for BadOnceRecords {}

/// Appends a reply that is recorded in RESP3 as the protocol version has it.
///
/// RESP3 says more than RESP2, so nothing else needs to be recorded: but for the absent array, which no write answers.
pub(crate) fn write_reply(reply: &[u8], protocol: Protocol, out: &mut Vec<u8>) {
    let before = out.len();
    if protocol == Protocol::Resp3 || translate(reply, |bytes| out.extend_from_slice(bytes)).is_none() {
        out.truncate(before);
        out.extend_from_slice(reply);
    }
}

/// Gives `write` a RESP3 reply as RESP2, in parts; `None`: it is not exactly one reply.
fn translate(reply: &[u8], mut write: impl FnMut(&[u8])) -> Option<()> {
    let mut rest = reply;
    // Elements that are still to come.
    let mut missing: u64 = 1;
    while missing > 0 {
        missing -= 1;
        let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, behind) = (&rest[..end], &rest[end + 2..]);
        rest = behind;
        let (&kind, text) = line.split_first()?;
        let length = || std::str::from_utf8(text).ok()?.parse::<u64>().ok();
        match kind {
            b'+' | b'-' | b':' => write(&[line, b"\r\n"].concat()),
            b'_' => write(b"$-1\r\n"),
            b'#' => write(if text == b"t" { b":1\r\n" } else { b":0\r\n" }),
            b',' => {
                write(format!("${}\r\n", text.len()).as_bytes());
                write(text);
                write(b"\r\n");
            }
            b'$' | b'=' => {
                let content = rest.get(..usize::try_from(length()?).ok()?)?;
                rest = rest[content.len()..].strip_prefix(b"\r\n")?;
                // Verbatim text says first what kind of text it is.
                let content = if kind == b'=' { content.get(4..)? } else { content };
                write(format!("${}\r\n", content.len()).as_bytes());
                write(content);
                write(b"\r\n");
            }
            b'*' | b'~' | b'>' | b'%' => {
                let count = length()?.checked_mul(if kind == b'%' { 2 } else { 1 })?;
                missing = missing.checked_add(count)?;
                write(format!("*{count}\r\n").as_bytes());
            }
            _ => return None,
        }
    }
    rest.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn pair<'a>(client: &'a [u8], request: &'a [u8]) -> OncePair<'a> {
        OncePair { client, request }
    }

    fn number(number: u32) -> [u8; 4] {
        number.to_le_bytes()
    }

    fn known(records: &mut OnceRecords, hasher: &Hasher, request: u32, now_ms: u64) -> Option<Vec<u8>> {
        records.find(pair(b"c", &number(request)), hasher, now_ms).map(<[u8]>::to_vec)
    }

    /// What a snapshot of `records` holds, restored.
    fn restored(records: &OnceRecords, hasher: &Hasher) -> OnceRecords {
        let (mut snapshot, mut fresh) = (records.snapshot(), OnceRecords::default());
        while let Some(result) = snapshot.next(|bytes| fresh.restore(bytes, hasher)) {
            result.expect("it was written here");
        }
        fresh
    }

    #[test]
    fn the_oldest_leave_when_there_are_too_many() {
        let hasher = Hasher::new(1);
        let mut records = OnceRecords::default();
        let count = RECORDS_MAX as u32 + 10;
        for request in 0..count {
            let reply = format!(":{request}\r\n");
            records.record(pair(b"c", &number(request)), reply.as_bytes(), HOUR_MS, &hasher, 1);
        }
        let totals = records.totals();
        assert_eq!((totals.cached, totals.unique, totals.evicted), (RECORDS_MAX as u64, count.into(), 10));
        assert_eq!(known(&mut records, &hasher, 9, 1), None);
        assert_eq!(known(&mut records, &hasher, 10, 1), Some(b":10\r\n".to_vec()));
        assert_eq!(
            known(&mut records, &hasher, count - 1, 1),
            Some(format!(":{}\r\n", count - 1).into_bytes())
        );
        // One more does the same to what a snapshot brought.
        let mut copy = restored(&records, &hasher);
        for records in [&mut records, &mut copy] {
            records.record(pair(b"d", b""), b"+OK\r\n", HOUR_MS, &hasher, 1);
            assert_eq!(known(records, &hasher, 10, 1), None);
            assert!(known(records, &hasher, 11, 1).is_some());
            assert_eq!(records.bytes, RECORDS_MAX * HEAD_BYTES + ids_and_replies(records));
        }
        assert!(copy.used_bytes() < 8 << 20, "{}", copy.used_bytes());
    }

    /// Bytes of all records besides their heads, counted one after the other.
    fn ids_and_replies(records: &OnceRecords) -> usize {
        let mut snapshot = records.snapshot();
        let mut sum = 0;
        while snapshot
            .next(|mut bytes| {
                while let Some(record) = Record::read(bytes) {
                    sum += record.len_bytes - HEAD_BYTES;
                    bytes = &bytes[record.len_bytes..];
                }
            })
            .is_some()
        {}
        sum
    }

    #[test]
    fn long_replies_push_the_oldest_out_and_the_newest_stays() {
        let hasher = Hasher::new(1);
        let mut records = OnceRecords::default();
        let reply = |length: usize| format!("${length}\r\n{}\r\n", "x".repeat(length)).into_bytes();
        for request in 0..3 {
            records.record(pair(b"c", &number(request)), &reply(6 << 20), HOUR_MS, &hasher, 1);
        }
        assert_eq!(known(&mut records, &hasher, 0, 1), None);
        assert!(known(&mut records, &hasher, 1, 1).is_some());
        records.record(pair(b"c", &number(3)), &reply(20 << 20), HOUR_MS, &hasher, 1);
        assert_eq!(known(&mut records, &hasher, 2, 1), None);
        assert_eq!(known(&mut records, &hasher, 3, 1), Some(reply(20 << 20)));
        assert_eq!((records.totals().cached, records.totals().evicted), (1, 3));
        assert_eq!(known(&mut restored(&records, &hasher), &hasher, 3, 1), Some(reply(20 << 20)));
        records.record(pair(b"c", &number(4)), b"+OK\r\n", HOUR_MS, &hasher, HOUR_MS);
        assert_eq!(
            (records.totals().cached, records.totals().evicted),
            (1, 3),
            "what is over is not evicted"
        );
        assert!(records.used_bytes() < 1 << 20, "{}", records.used_bytes());
    }

    #[test]
    fn a_snapshot_holds_the_moment() {
        let hasher = Hasher::new(1);
        let mut records = OnceRecords::default();
        records.record(pair(b"c", &number(0)), b":0\r\n", 10, &hasher, 1);
        records.record(pair(b"c", &number(1)), b":1\r\n", HOUR_MS, &hasher, 1);
        let mut snapshot = records.snapshot();
        records.record(pair(b"c", &number(0)), b":2\r\n", HOUR_MS, &hasher, 20);
        let mut before = OnceRecords::default();
        while let Some(result) = snapshot.next(|bytes| before.restore(bytes, &hasher)) {
            result.expect("it was written here");
        }
        assert_eq!(before.totals().cached, 2);
        assert_eq!(known(&mut before, &hasher, 0, 9), Some(b":0\r\n".to_vec()));
        assert_eq!(known(&mut before, &hasher, 0, 10), None);
        assert_eq!(known(&mut records, &hasher, 0, 20), Some(b":2\r\n".to_vec()));
        assert_eq!(known(&mut restored(&records, &hasher), &hasher, 0, 20), Some(b":2\r\n".to_vec()));
    }

    #[test]
    fn replies_become_resp2() {
        for (resp3, resp2) in [
            ("_\r\n", "$-1\r\n"),
            (":1\r\n", ":1\r\n"),
            ("+OK\r\n", "+OK\r\n"),
            ("-ERR a b\r\n", "-ERR a b\r\n"),
            ("$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"),
            ("#t\r\n", ":1\r\n"),
            ("#f\r\n", ":0\r\n"),
            (",1.5\r\n", "$3\r\n1.5\r\n"),
            ("=6\r\ntxt:ab\r\n", "$2\r\nab\r\n"),
            ("*2\r\n_\r\n~1\r\n:1\r\n", "*2\r\n$-1\r\n*1\r\n:1\r\n"),
            ("%1\r\n$1\r\na\r\n:1\r\n", "*2\r\n$1\r\na\r\n:1\r\n"),
        ] {
            for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
                let mut out = b"before".to_vec();
                write_reply(resp3.as_bytes(), protocol, &mut out);
                assert_eq!(out, [b"before", expected.as_bytes()].concat(), "{resp3:?}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_records_are_refused() {
        let hasher = Hasher::new(1);
        let record = |ids: usize, reply: &[u8]| {
            let mut bytes = Vec::new();
            let id = vec![b'i'; ids];
            Record::write(&mut bytes, pair(&id, &id), reply, HOUR_MS);
            bytes
        };
        let restore = |bytes: &[u8]| OnceRecords::default().restore(bytes, &hasher);
        assert_eq!(restore(&record(ONCE_ID_BYTES_MAX, b":1\r\n")), Ok(()));
        assert!(restore(&record(ONCE_ID_BYTES_MAX + 1, b":1\r\n")).is_err());
        for reply in [
            "",
            ":1",
            ":1\r\n:2\r\n",
            "$5\r\nabc\r\n",
            "*2\r\n:1\r\n",
            "*99999999999999999999\r\n",
            "?\r\n",
            "$-1\r\n",
        ] {
            assert!(restore(&record(1, reply.as_bytes())).is_err(), "{reply:?}");
        }
        let whole = record(3, b":1\r\n");
        for length in 1..whole.len() {
            assert!(restore(&whole[..length]).is_err(), "{length}");
        }
        let mut endless = whole;
        endless[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(restore(&endless).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let hasher = Hasher::new(1);
            let mut records = OnceRecords::default();
            let _ = records.restore(&bytes, &hasher);
            let mut out = Vec::new();
            write_reply(&bytes, Protocol::Resp2, &mut out);
        }

        /// Against a model: a list of what was recorded.
        #[test]
        fn records_are_as_a_list_of_them(
            steps in prop::collection::vec((0..20_u32, 1..50_u64, 0..20_u64), 1..300),
        ) {
            let hasher = Hasher::new(1);
            let mut records = OnceRecords::default();
            let mut model: Vec<(u32, u64, Vec<u8>)> = Vec::new();
            let mut now_ms = 1;
            for (step, (request, time_ms, passed_ms)) in steps.into_iter().enumerate() {
                now_ms += passed_ms;
                let live = model.iter().rev().find(|(other, ..)| *other == request);
                let live = live.filter(|(_, deadline_ms, _)| *deadline_ms > now_ms).map(|(.., reply)| reply.clone());
                prop_assert_eq!(known(&mut records, &hasher, request, now_ms), live.clone());
                if live.is_none() {
                    let reply = format!(":{step}\r\n").into_bytes();
                    records.record(pair(b"c", &number(request)), &reply, now_ms + time_ms, &hasher, now_ms);
                    model.push((request, now_ms + time_ms, reply));
                }
                if step % 50 == 49 {
                    records = restored(&records, &hasher);
                }
            }
        }
    }
}
