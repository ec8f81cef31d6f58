//! What records say: payloads put together from their fragments, and told in words.

use std::{borrow::Cow, collections::HashMap, fmt::Write as _};

use duva_engine::{Hasher, Settings};
use duva_persist::format::{Fragmented, Kind, RecordHeader, record_flag};
use duva_server::core::log::payload::{Decoded, Decoder};

use super::text;

/// Bytes of fragments that are kept at most; what is larger is told without its command.
const HELD_BYTES_MAX: usize = 2 << 30;

/// Bytes of a transaction's id.
const TRANSACTION_BYTES: usize = 8;

/// Bytes of what a fragmented record's payload begins with.
pub(super) const FRAGMENTED_BYTES: usize = size_of::<Fragmented>();

/// The payload of a record.
pub(super) enum Payload<'a> {
    /// All of it.
    Whole(Cow<'a, [u8]>),
    /// Fragments of it are missing, or too large to be kept; it has so many bytes.
    Incomplete { len: u64 },
}

/// Fragments that wait for their record, of one journal.
#[derive(Default)]
pub(super) struct Streams {
    streams: HashMap<u64, Stream>,
    held_bytes: usize,
}

/// Fragments of one payload.
#[derive(Default)]
struct Stream {
    bytes: Vec<u8>,
    next: u32,
    /// One was missing, or they were too many to be kept.
    is_broken: bool,
}

impl Streams {
    /// Takes a fragment.
    pub(super) fn push(&mut self, header: &RecordHeader, payload: &[u8]) {
        let stream = self.streams.entry(header.index.get()).or_default();
        stream.is_broken |=
            stream.next != header.fragments.get() || self.held_bytes + payload.len() > HELD_BYTES_MAX;
        stream.next = header.fragments.get().wrapping_add(1);
        if stream.is_broken {
            self.held_bytes -= std::mem::take(&mut stream.bytes).len();
        } else {
            stream.bytes.extend_from_slice(payload);
            self.held_bytes += payload.len();
        }
    }

    /// The payload that a record ends, if it has fragments, or simply its own.
    pub(super) fn complete<'a>(&mut self, header: &RecordHeader, payload: &'a [u8]) -> Payload<'a> {
        if header.flags & record_flag::FRAGMENTED == 0 {
            return Payload::Whole(Cow::Borrowed(payload));
        }
        let (Some(stream), Some(len), Some(rest)) =
            (number(payload, 0), number(payload, 8), payload.get(FRAGMENTED_BYTES..))
        else {
            return Payload::Incomplete { len: payload.len() as u64 };
        };
        let Stream { mut bytes, next, is_broken } = self.streams.remove(&stream).unwrap_or_default();
        self.held_bytes -= bytes.len();
        bytes.extend_from_slice(rest);
        if is_broken || next != header.fragments.get() || bytes.len() as u64 != len {
            return Payload::Incomplete { len };
        }
        Payload::Whole(Cow::Owned(bytes))
    }
}

/// The eight bytes at an offset.
fn number(bytes: &[u8], offset: usize) -> Option<u64> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

/// Tells commands.
pub(super) struct Teller {
    decoder: Decoder,
    hasher: Hasher,
}

impl Teller {
    /// With the seed of the directory's hash.
    pub(super) fn new(hash_seed: u64) -> Self {
        Self { decoder: Decoder::default(), hasher: Hasher::new(hash_seed) }
    }

    /// The command of a payload, or why there is none.
    pub(super) fn decode(&mut self, command: &[u8]) -> Result<Decoded<'_>, &'static str> {
        self.decoder.decode(command, &self.hasher).map_err(|error| error.0)
    }

    /// Appends what a record of this kind says.
    pub(super) fn tell(
        &mut self,
        text: &mut String,
        kind: Kind,
        header: &RecordHeader,
        payload: &Payload<'_>,
        width: usize,
    ) {
        let payload = match payload {
            Payload::Whole(payload) => payload.as_ref(),
            Payload::Incomplete { len } => {
                push(text, format_args!("{len} bytes, of which fragments are not at hand"));
                return;
            }
        };
        match kind {
            Kind::Entry => self.tell_command(text, payload, width),
            Kind::Prepare => {
                push_transaction(text, payload);
                self.tell_command(text, payload.get(TRANSACTION_BYTES..).unwrap_or_default(), width);
            }
            Kind::Decision | Kind::Finish => {
                push_transaction(text, payload);
                text.push_str(match payload.get(TRANSACTION_BYTES) {
                    Some(1) => "commit",
                    Some(0) => "abort",
                    _ => "neither commit nor abort",
                });
            }
            Kind::HardState => match number(payload, 0).filter(|_| payload.len() == 8) {
                Some(vote) => push(text, format_args!("term {} vote {vote}", header.term.get())),
                None => text.push_str("no vote"),
            },
            Kind::SnapshotMark => {
                push(text, format_args!("snapshot of term {} is durable", header.term.get()))
            }
            Kind::Fragment => push(
                text,
                format_args!(
                    "{} of stream {}, {} bytes",
                    header.fragments.get(),
                    header.index.get(),
                    payload.len()
                ),
            ),
            Kind::Membership => push(text, format_args!("{} bytes", payload.len())),
            Kind::Tick => {}
        }
    }

    fn tell_command(&mut self, text: &mut String, command: &[u8], width: usize) {
        let default_bytes = Settings::default().bulk_len_bytes_max;
        match self.decode(command) {
            Ok(decoded) => {
                push(text, format_args!("db {} ", decoded.database));
                let limit_bytes = decoded.settings.bulk_len_bytes_max;
                if limit_bytes != default_bytes {
                    push(text, format_args!("limit {limit_bytes} "));
                }
                let arguments = decoded
                    .ranges
                    .iter()
                    .map(|&(offset, length)| &command[offset as usize..offset as usize + length as usize]);
                text::push_arguments(text, arguments, width);
            }
            Err(why) => push(text, format_args!("{} bytes that are no command: {why}", command.len())),
        }
    }
}

fn push_transaction(text: &mut String, payload: &[u8]) {
    match number(payload, 0) {
        Some(transaction) => push(text, format_args!("transaction {transaction:#018x} ")),
        None => text.push_str("no transaction "),
    }
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes everything");
}

/// The command in the payload of a record of this kind, if it has one.
pub(super) fn command(kind: Kind, payload: &[u8]) -> Option<&[u8]> {
    match kind {
        Kind::Entry => Some(payload),
        Kind::Prepare => Some(payload.get(TRANSACTION_BYTES..).unwrap_or_default()),
        _ => None,
    }
}

/// A record's flags in words.
pub(super) fn flags(header: &RecordHeader) -> &'static str {
    match (header.flags & record_flag::GROUP != 0, header.flags & record_flag::FRAGMENTED != 0) {
        (false, false) => "-",
        (true, false) => "group",
        (false, true) => "fragmented",
        (true, true) => "group,fragmented",
    }
}
