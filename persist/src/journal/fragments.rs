//! A payload that is too large for one record: pieces now, the record that makes them count at the end.

use zerocopy::{
    IntoBytes,
    little_endian::{U32, U64},
};

use super::Journal;
use crate::{
    format::{Fragmented, record_flag},
    record::Record,
};

/// A large payload on its way into the journal, over as many turns as it takes. It counts for nothing until
/// [`Fragments::finish`].
#[derive(Debug)]
pub struct Fragments {
    stream: u64,
    shard: u16,
    count: u32,
    len: u64,
    crc: u32,
}

impl Fragments {
    /// Begins a payload for a record of this shard.
    pub fn begin(journal: &mut Journal, shard: u16) -> Self {
        Self { stream: journal.new_stream(), shard, count: 0, len: 0, crc: 0 }
    }

    /// The largest piece of [`Fragments::finish`], in bytes; [`Journal::payload_bytes_max`] is that of the others.
    pub fn last_bytes_max(journal: &Journal) -> usize {
        journal.payload_bytes_max() - size_of::<Fragmented>()
    }

    /// Appends the payload's next piece.
    pub fn push(&mut self, journal: &mut Journal, bytes: &[u8]) {
        journal.append_fragment(self.stream, self.count, self.shard, bytes);
        self.count += 1;
        self.add(bytes);
    }

    /// Appends the record, with the payload's last piece.
    pub fn finish(mut self, journal: &mut Journal, record: &Record, bytes: &[u8]) {
        assert_eq!(record.shard, self.shard, "a payload's pieces belong to one shard");
        self.add(bytes);
        let fragmented = Fragmented {
            stream: U64::new(self.stream),
            len: U64::new(self.len),
            crc: U32::new(self.crc),
            reserved: U32::ZERO,
        };
        let record =
            Record { flags: record.flags | record_flag::FRAGMENTED, fragments: self.count, ..*record };
        journal.append(&record, |buffer| {
            buffer.extend_from_slice(fragmented.as_bytes());
            buffer.extend_from_slice(bytes);
        });
    }

    /// Gives the payload up.
    pub fn abandon(self, journal: &mut Journal) {
        journal.abandon_stream(self.stream);
    }

    fn add(&mut self, bytes: &[u8]) {
        self.len += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }
}
