//! What a driver has to do.

use std::sync::Arc;

use crate::{Body, Entry, HardState, Index, Message, ReplicaId, SnapshotMeta, Term};

/// What is to be done, all of it since the last one. Kept by the driver and filled again, so that nothing is
/// allocated anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// To be sent, in order. May leave at once. May be lost.
    pub messages: Vec<Message>,
    /// To be made durable.
    pub write: Option<Write>,
    /// Committed: to be applied in order, each once, then [`crate::Raft::applied`]. They may be applied before they
    /// are durable here.
    pub committed: Vec<Entry>,
    /// Reads that may be served once their index is applied.
    pub reads: Vec<ReadState>,
    /// Reads that this replica cannot serve: it does not lead any more, or does not know the leader.
    pub failed_reads: Vec<u64>,
    /// Entries that followers lack and that are not in memory any more, or are many: [`crate::Raft::fetched`].
    pub fetches: Vec<Fetch>,
    /// Pieces of snapshots to be read for followers: [`crate::Raft::snapshot_read`].
    pub snapshot_reads: Vec<SnapshotRead>,
    /// A piece of a snapshot that came: [`crate::Raft::snapshot_stored`], and after the last one
    /// [`crate::Raft::snapshot_installed`].
    pub snapshot_writes: Vec<SnapshotWrite>,
    /// Where lists of entries come from, and where the driver puts those that it is done with.
    pub lists: Lists,
}

/// How many empty lists are kept, and how long they may be. What more entries than that share may be allocated for them.
const LISTS_MAX: usize = 256;
const LIST_ENTRIES_MAX: usize = 64;

/// Empty lists of entries, kept so that the next ones are not allocated anew. All are equal: what memory there is changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Lists(Vec<Vec<Entry>>);

impl PartialEq for Lists {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

impl Eq for Lists {}

impl Lists {
    /// An empty list.
    pub fn take(&mut self) -> Vec<Entry> {
        self.0.pop().unwrap_or_default()
    }

    /// Keeps the memory of a list.
    pub fn give(&mut self, mut list: Vec<Entry>) {
        list.clear();
        if (1..=LIST_ENTRIES_MAX).contains(&list.capacity()) && self.0.len() < LISTS_MAX {
            self.0.push(list);
        }
    }

    /// Keeps the memory of a message's list, if it has one.
    pub fn give_of(&mut self, message: Message) {
        if let Body::Append { entries, .. } = message.body {
            self.give(entries);
        }
    }
}

/// What is to be written, as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// One more than the last one's.
    pub number: u64,
    /// The new term and vote, to be synced soon: something waits for it.
    pub hard_state: Option<HardState>,
    /// To be appended. The first replaces all that the log has at its index and after.
    pub entries: Vec<Entry>,
}

/// A read that may be served once `index` is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadState {
    /// The driver's name for it.
    pub context: u64,
    /// What must be applied.
    pub index: Index,
}

/// Entries to be read from the log for a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// For whom.
    pub peer: ReplicaId,
    /// The first one.
    pub from: Index,
    /// Behind the last one that is of use.
    pub to: Index,
    /// Bytes of entries that are of use, beyond the first one; see [`crate::Config`].
    pub bytes_max: usize,
}

/// A piece of a snapshot to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRead {
    /// For whom.
    pub peer: ReplicaId,
    /// Which; `None`: the newest there is, at its beginning.
    pub snapshot: Option<(Index, Term)>,
    /// Where in it.
    pub offset: u64,
    /// Bytes at the most.
    pub bytes_max: usize,
}

/// A piece of a snapshot to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotWrite {
    /// Which.
    pub meta: SnapshotMeta,
    /// Where in it; 0 begins it anew.
    pub offset: u64,
    /// The piece.
    pub bytes: Arc<[u8]>,
    /// Whether it is the last.
    pub is_last: bool,
}
