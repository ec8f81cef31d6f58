//! Messages as bytes, little-endian, for any transport.
//!
//! A message says nothing about its own length and carries no checksum: frames are the transport's. Reading checks
//! everything: hostile bytes give an error, and never cause an allocation larger than they are.
//!
//! ```text
//! message    kind u8, from u64, to u64, term u64, then by kind:
//! 0 PreVote         last_index u64, last_term u64
//! 1 PreVoteReply    granted u8
//! 2 Vote            last_index u64, last_term u64, is_transfer u8
//! 3 VoteReply       granted u8
//! 4 Append          prev_index u64, prev_term u64, commit u64, count u32, entries; their indexes follow prev_index
//! 5 AppendReply     match_index u64
//! 6 AppendReject    prev_index u64, hint_index u64, hint_term u64
//! 7 Heartbeat       commit u64, sent_ns u64, read_round u64
//! 8 HeartbeatReply  sent_ns u64, read_round u64
//! 9 Snapshot        index u64, term u64, membership, offset u64, is_last u8, length u32, bytes
//! 10 SnapshotReply  index u64, term u64, next_offset u64
//! 11 Stale
//! 12 TimeoutNow
//! 13 ReadIndex      context u64
//! 14 ReadIndexReply context u64, is_some u8, index u64 (0 if it is none)
//!
//! entry      term u64, timestamp_ms u64, seed u64, kind u8 (0 Empty, 1 Membership, 2 Data), tag u8 (0 unless Data),
//!            length u32, payload
//! membership as Membership::encode
//! ```

use std::{error::Error, fmt};

use crate::{
    Body, Entry, EntryKind, Index, Lists, Membership, Message, Payloads, ReplicaId, SnapshotMeta, Term,
};

/// Bytes of an entry without its payload.
const ENTRY_BYTES: usize = 8 + 8 + 8 + 1 + 1 + 4;

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They end too early.
    Short,
    /// They say what no message says.
    Invalid,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Short => "the bytes end too early",
            Self::Invalid => "the bytes say what nothing encodes",
        })
    }
}

impl Error for DecodeError {}

/// Appends a message's bytes.
///
/// # Panics
///
/// Panics if the entries of an append do not follow its `prev_index` without gaps, if a payload, a piece of a
/// snapshot or their number exceeds 32 bits, or if a membership's list is longer than
/// [`crate::membership::MEMBERS_MAX`].
pub fn encode(message: &Message, into: &mut Vec<u8>) {
    let mut writer = Writer { into };
    writer.u8(kind_of(&message.body));
    writer.u64(message.from.0);
    writer.u64(message.to.0);
    writer.u64(message.term);
    match &message.body {
        Body::PreVote { last_index, last_term } => {
            writer.u64(*last_index);
            writer.u64(*last_term);
        }
        Body::PreVoteReply { granted } | Body::VoteReply { granted } => writer.flag(*granted),
        Body::Vote { last_index, last_term, is_transfer } => {
            writer.u64(*last_index);
            writer.u64(*last_term);
            writer.flag(*is_transfer);
        }
        Body::Append { prev_index, prev_term, commit, entries } => {
            writer.u64(*prev_index);
            writer.u64(*prev_term);
            writer.u64(*commit);
            writer.length(entries.len());
            for (index, entry) in (prev_index + 1..).zip(entries) {
                assert_eq!(entry.index, index, "entries follow one another");
                encode_entry(entry, &mut writer);
            }
        }
        Body::AppendReply { match_index } => writer.u64(*match_index),
        Body::AppendReject { prev_index, hint_index, hint_term } => {
            writer.u64(*prev_index);
            writer.u64(*hint_index);
            writer.u64(*hint_term);
        }
        Body::Heartbeat { commit, sent_ns, read_round } => {
            writer.u64(*commit);
            writer.u64(*sent_ns);
            writer.u64(*read_round);
        }
        Body::HeartbeatReply { sent_ns, read_round } => {
            writer.u64(*sent_ns);
            writer.u64(*read_round);
        }
        Body::Snapshot { meta, offset, bytes, is_last } => {
            writer.u64(meta.index);
            writer.u64(meta.term);
            meta.membership.encode_into(writer.into);
            writer.u64(*offset);
            writer.flag(*is_last);
            writer.bytes(bytes);
        }
        Body::SnapshotReply { index, term, next_offset } => {
            writer.u64(*index);
            writer.u64(*term);
            writer.u64(*next_offset);
        }
        Body::Stale | Body::TimeoutNow => {}
        Body::ReadIndex { context } => writer.u64(*context),
        Body::ReadIndexReply { context, index } => {
            writer.u64(*context);
            writer.flag(index.is_some());
            writer.u64(index.unwrap_or(0));
        }
    }
}

fn kind_of(body: &Body) -> u8 {
    match body {
        Body::PreVote { .. } => 0,
        Body::PreVoteReply { .. } => 1,
        Body::Vote { .. } => 2,
        Body::VoteReply { .. } => 3,
        Body::Append { .. } => 4,
        Body::AppendReply { .. } => 5,
        Body::AppendReject { .. } => 6,
        Body::Heartbeat { .. } => 7,
        Body::HeartbeatReply { .. } => 8,
        Body::Snapshot { .. } => 9,
        Body::SnapshotReply { .. } => 10,
        Body::Stale => 11,
        Body::TimeoutNow => 12,
        Body::ReadIndex { .. } => 13,
        Body::ReadIndexReply { .. } => 14,
    }
}

fn encode_entry(entry: &Entry, writer: &mut Writer<'_>) {
    writer.u64(entry.term);
    writer.u64(entry.timestamp_ms);
    writer.u64(entry.seed);
    let (kind, tag) = match entry.kind {
        EntryKind::Empty => (0, 0),
        EntryKind::Membership => (1, 0),
        EntryKind::Data(tag) => (2, tag),
    };
    writer.u8(kind);
    writer.u8(tag);
    writer.bytes(&entry.payload);
}

/// Reads a message from the beginning of `bytes`, and says how many of them it is.
///
/// # Errors
///
/// The bytes end before the message does, or are none.
pub fn decode(bytes: &[u8]) -> Result<(Message, usize), DecodeError> {
    decode_with(bytes, &mut Payloads::default(), &mut Lists::default())
}

/// As [`decode`], with payloads that the replica's `payloads` makes, and one of the `lists` if it brings entries.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_with(
    bytes: &[u8],
    payloads: &mut Payloads,
    lists: &mut Lists,
) -> Result<(Message, usize), DecodeError> {
    let mut reader = Reader::new(bytes);
    let kind = reader.u8()?;
    let from = ReplicaId(reader.u64()?);
    let to = ReplicaId(reader.u64()?);
    let term = reader.u64()?;
    let body = decode_body(kind, &mut reader, payloads, lists)?;
    Ok((Message { from, to, term, body }, bytes.len() - reader.remaining()))
}

fn decode_body(
    kind: u8,
    reader: &mut Reader<'_>,
    payloads: &mut Payloads,
    lists: &mut Lists,
) -> Result<Body, DecodeError> {
    Ok(match kind {
        0 => Body::PreVote { last_index: reader.u64()?, last_term: reader.u64()? },
        1 => Body::PreVoteReply { granted: reader.flag()? },
        2 => Body::Vote { last_index: reader.u64()?, last_term: reader.u64()?, is_transfer: reader.flag()? },
        3 => Body::VoteReply { granted: reader.flag()? },
        4 => {
            let prev_index = reader.u64()?;
            let prev_term = reader.u64()?;
            let commit = reader.u64()?;
            let entries = decode_entries(prev_index, reader, payloads, lists)?;
            Body::Append { prev_index, prev_term, commit, entries }
        }
        5 => Body::AppendReply { match_index: reader.u64()? },
        6 => Body::AppendReject {
            prev_index: reader.u64()?,
            hint_index: reader.u64()?,
            hint_term: reader.u64()?,
        },
        7 => Body::Heartbeat { commit: reader.u64()?, sent_ns: reader.u64()?, read_round: reader.u64()? },
        8 => Body::HeartbeatReply { sent_ns: reader.u64()?, read_round: reader.u64()? },
        9 => Body::Snapshot {
            meta: SnapshotMeta {
                index: reader.u64()?,
                term: reader.u64()?,
                membership: Membership::decode_from(reader)?,
            },
            offset: reader.u64()?,
            is_last: reader.flag()?,
            bytes: reader.bytes()?.into(),
        },
        10 => Body::SnapshotReply { index: reader.u64()?, term: reader.u64()?, next_offset: reader.u64()? },
        11 => Body::Stale,
        12 => Body::TimeoutNow,
        13 => Body::ReadIndex { context: reader.u64()? },
        14 => {
            let context = reader.u64()?;
            let is_some = reader.flag()?;
            let index = reader.u64()?;
            if !is_some && index != 0 {
                return Err(DecodeError::Invalid);
            }
            Body::ReadIndexReply { context, index: is_some.then_some(index) }
        }
        _ => return Err(DecodeError::Invalid),
    })
}

fn decode_entries(
    prev_index: Index,
    reader: &mut Reader<'_>,
    payloads: &mut Payloads,
    lists: &mut Lists,
) -> Result<Vec<Entry>, DecodeError> {
    let count = reader.u32()? as usize;
    if reader.remaining() / ENTRY_BYTES < count {
        return Err(DecodeError::Short);
    }
    // So that no index overflows, here or where one is added to it.
    if prev_index.checked_add(count as u64 + 1).is_none() {
        return Err(DecodeError::Invalid);
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut entries = lists.take();
    entries.reserve(count);
    for nth in 0..count as u64 {
        entries.push(decode_entry(prev_index + 1 + nth, reader, payloads)?);
    }
    Ok(entries)
}

fn decode_entry(
    index: Index,
    reader: &mut Reader<'_>,
    payloads: &mut Payloads,
) -> Result<Entry, DecodeError> {
    let term: Term = reader.u64()?;
    let timestamp_ms = reader.u64()?;
    let seed = reader.u64()?;
    let kind = match (reader.u8()?, reader.u8()?) {
        (0, 0) => EntryKind::Empty,
        (1, 0) => EntryKind::Membership,
        (2, tag) => EntryKind::Data(tag),
        _ => return Err(DecodeError::Invalid),
    };
    let payload = reader.bytes()?;
    match kind {
        EntryKind::Empty if !payload.is_empty() => return Err(DecodeError::Invalid),
        EntryKind::Membership if Membership::decode(payload).is_err() => return Err(DecodeError::Invalid),
        _ => {}
    }
    let payload = payloads.copy(payload);
    Ok(Entry { index, term, timestamp_ms, seed, kind, payload })
}

struct Writer<'a> {
    into: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn u8(&mut self, value: u8) {
        self.into.push(value);
    }

    fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    fn u64(&mut self, value: u64) {
        self.into.extend_from_slice(&value.to_le_bytes());
    }

    fn length(&mut self, length: usize) {
        let length = u32::try_from(length).expect("lengths have 32 bits");
        self.into.extend_from_slice(&length.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.into.extend_from_slice(bytes);
    }
}

/// Takes values off the front of bytes.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.bytes.split_first().ok_or(DecodeError::Short)?;
        self.bytes = rest;
        Ok(first)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid),
        }
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()? as usize;
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(DecodeError::Short)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (&taken, rest) = self.bytes.split_first_chunk::<N>().ok_or(DecodeError::Short)?;
        self.bytes = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: Index, kind: EntryKind, payload: &[u8]) -> Entry {
        Entry {
            index,
            term: 7,
            timestamp_ms: 1_700_000_000_000,
            seed: u64::MAX,
            kind,
            payload: payload.into(),
        }
    }

    fn bodies() -> Vec<Body> {
        let membership = Membership::new(&[ReplicaId(1), ReplicaId(2)], &[ReplicaId(3)]).unwrap();
        vec![
            Body::PreVote { last_index: 1, last_term: 2 },
            Body::PreVoteReply { granted: true },
            Body::Vote { last_index: 3, last_term: 4, is_transfer: true },
            Body::VoteReply { granted: false },
            Body::Append { prev_index: 5, prev_term: 6, commit: 7, entries: Vec::new() },
            Body::Append {
                prev_index: 5,
                prev_term: 6,
                commit: 7,
                entries: vec![
                    entry(6, EntryKind::Empty, b""),
                    entry(7, EntryKind::Membership, &membership.encode()),
                    entry(8, EntryKind::Data(9), b"payload"),
                    entry(9, EntryKind::Data(0), b""),
                ],
            },
            Body::AppendReply { match_index: u64::MAX },
            Body::AppendReject { prev_index: 8, hint_index: 9, hint_term: 10 },
            Body::Heartbeat { commit: 11, sent_ns: 12, read_round: 13 },
            Body::HeartbeatReply { sent_ns: 14, read_round: 15 },
            Body::Snapshot {
                meta: SnapshotMeta { index: 16, term: 17, membership },
                offset: 18,
                bytes: b"piece".as_slice().into(),
                is_last: true,
            },
            Body::SnapshotReply { index: 19, term: 20, next_offset: 21 },
            Body::Stale,
            Body::TimeoutNow,
            Body::ReadIndex { context: 22 },
            Body::ReadIndexReply { context: 23, index: Some(24) },
            Body::ReadIndexReply { context: 25, index: None },
        ]
    }

    fn messages() -> impl Iterator<Item = Message> {
        bodies().into_iter().map(|body| Message {
            from: ReplicaId(1),
            to: ReplicaId(u64::MAX),
            term: 9,
            body,
        })
    }

    #[test]
    fn messages_come_back_and_know_their_end() {
        let mut bytes = Vec::new();
        messages().for_each(|message| encode(&message, &mut bytes));
        let mut at = 0;
        for message in messages() {
            let (decoded, length) = decode(&bytes[at..]).unwrap();
            assert_eq!(decoded, message);
            at += length;
        }
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn short_bytes_are_refused() {
        for message in messages() {
            let mut bytes = Vec::new();
            encode(&message, &mut bytes);
            for short in 0..bytes.len() {
                assert!(decode(&bytes[..short]).is_err(), "{message:?} cut at {short}");
            }
        }
    }

    #[test]
    fn changed_bytes_never_panic_and_what_decodes_encodes_alike() {
        for message in messages() {
            let mut bytes = Vec::new();
            encode(&message, &mut bytes);
            for at in 0..bytes.len() {
                for value in [0, 1, 2, 15, 127, 128, 255] {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    if let Ok((decoded, length)) = decode(&changed) {
                        let mut again = Vec::new();
                        encode(&decoded, &mut again);
                        assert_eq!(again, changed[..length]);
                    }
                }
            }
        }
    }

    #[test]
    fn announced_lengths_are_not_believed() {
        let append = Body::Append { prev_index: 0, prev_term: 0, commit: 0, entries: Vec::new() };
        let message = Message { from: ReplicaId(1), to: ReplicaId(2), term: 1, body: append };
        let mut bytes = Vec::new();
        encode(&message, &mut bytes);
        let count_at = bytes.len() - 4;
        bytes[count_at..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(decode(&bytes), Err(DecodeError::Short));
    }

    #[test]
    fn an_index_cannot_overflow() {
        let append = Body::Append { prev_index: 0, prev_term: 0, commit: 0, entries: Vec::new() };
        let message = Message { from: ReplicaId(1), to: ReplicaId(2), term: 1, body: append };
        let mut bytes = Vec::new();
        encode(&message, &mut bytes);
        bytes[25..33].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(decode(&bytes), Err(DecodeError::Invalid));
    }
}
