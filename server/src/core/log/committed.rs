//! The journal says from time to time how far its shards' logs are committed, so that a start applies that much while it loads
//! instead of keeping it in memory until a leader says so.
//!
//! Invariants:
//!
//! - Only what its group has applied is called committed, and only while nothing that groups have handed out waits for room: so
//!   all that is meant lies in the journal before.
//! - Whatever the number of starts, little more than a bounded number of bytes of a core's entries are applied that the journal
//!   does not call committed.

use duva_persist::record::record_room_bytes;

use super::Log;

/// The most bytes of a core's entries from one time to the next.
const BYTES_BETWEEN_MAX: u64 = 8 << 20;

/// How often it is said while a segment is filled.
const TIMES_A_SEGMENT: u64 = 64;

/// The least bytes from one time to the next for each of the core's shards, which all get a record then.
const BYTES_A_SHARD: u64 = 4 << 10;

/// Bytes of a core's entries from one time to the next, with segments of this length and so many shards.
fn bytes_between(segment_len_bytes: u32, shards: usize) -> u64 {
    let bytes = u64::from(segment_len_bytes) / TIMES_A_SEGMENT;
    bytes.max(BYTES_A_SHARD * shards as u64).min(BYTES_BETWEEN_MAX)
}

/// What the journal of this start says of that.
#[derive(Default)]
pub(super) struct Committed {
    /// By shard; 0: nothing.
    said: Vec<u64>,
    /// Bytes of entries since it was said last, those included that the start has kept.
    bytes: u64,
    /// When it is said again.
    bytes_between: u64,
}

impl Committed {
    /// For a start that has kept so many bytes of entries, with segments of this length and so many shards.
    pub(super) fn new(kept_bytes: u64, segment_len_bytes: u32, shards: usize) -> Self {
        Self { said: Vec::new(), bytes: kept_bytes, bytes_between: bytes_between(segment_len_bytes, shards) }
    }

    /// The journal is told that a shard's log ends earlier: what was said of the rest does not count any more.
    pub(super) fn forget(&mut self, shard: u16) {
        if let Some(said) = self.said.get_mut(usize::from(shard)) {
            *said = 0;
        }
    }

    /// An entry of so many bytes was appended.
    #[inline]
    pub(super) fn note(&mut self, bytes: u64) {
        self.bytes += bytes;
    }
}

impl Log {
    /// Says how far the logs are committed, if it is time to. Nothing of them waits for room.
    #[inline]
    pub(super) fn tell_committed(&mut self) {
        if self.replicated.committed.bytes >= self.replicated.committed.bytes_between {
            self.append_committed();
        }
    }

    #[cold]
    fn append_committed(&mut self) {
        for place in 0..self.journal.states().len() {
            let state = self.journal.states()[place];
            let (shard, last_index) = (state.shard.get(), state.last_index.get());
            let number = usize::from(shard);
            let committed = &mut self.replicated.committed;
            if committed.said.len() <= number {
                committed.said.resize(number + 1, 0);
            }
            let known = committed.said[number].max(state.snapshot_index.get());
            let index = self.applied[number];
            if index <= known || index > last_index {
                continue;
            }
            if !self.has_replicated_room(size_of::<u64>()) {
                // The rest once there is room.
                return;
            }
            self.journal.append_committed(shard, index);
            self.take_room(record_room_bytes(size_of::<u64>()));
            self.replicated.committed.said[number] = index;
        }
        self.replicated.committed.bytes = 0;
    }
}
