//! The words of Raft: ids, entries, what is durable, how a replica is set up, why a proposal is refused.

use crate::{Membership, Payload};

/// A term. 0 is before the first election.
pub type Term = u64;

/// An index in a log. The first entry has 1.
pub type Index = u64;

/// One replica's name in its group. Never used again for another, nor for the same one after it lost something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

/// What an entry is to Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// The first entry of a leader's term. Its payload is empty.
    Empty,
    /// A membership, encoded by [`Membership::encode`]. In force from the moment that it is in the log.
    Membership,
    /// The driver's, which tells its own kinds apart by the tag.
    Data(u8),
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the log.
    pub index: Index,
    /// The term of the leader that proposed it.
    pub term: Term,
    /// The proposer's wall clock in milliseconds; opaque here.
    pub timestamp_ms: u64,
    /// The entry's randomness; opaque here.
    pub seed: u64,
    /// What it is to Raft.
    pub kind: EntryKind,
    /// Opaque.
    pub payload: Payload,
}

impl Entry {
    /// What it counts where bytes are bounded.
    pub fn cost_bytes(&self) -> usize {
        self.payload.len() + ENTRY_OVERHEAD_BYTES
    }
}

/// What must never be forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The current term.
    pub term: Term,
    /// Who got this replica's vote in it.
    pub vote: Option<ReplicaId>,
}

/// What a snapshot of the state machine stands for. At index 0 it is the group's first membership, and there is no
/// snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// The last entry that it covers.
    pub index: Index,
    /// That entry's term.
    pub term: Term,
    /// The membership in force at that entry.
    pub membership: Membership,
}

/// When a copy of an entry counts. Terms and votes always count only when synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// When it survives a power loss: [`crate::Raft::synced`].
    Fsync,
    /// When it survives the process: [`crate::Raft::written`].
    Memory,
}

/// How a leader makes sure that it still leads before it lets a read through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// By its lease; by a round of heartbeats while it holds none.
    Lease,
    /// By a round of heartbeats, always.
    ReadIndex,
}

/// What an entry counts beside its payload wherever bytes are bounded: about its header on the wire, and its fields
/// in memory.
pub const ENTRY_OVERHEAD_BYTES: usize = 64;

/// How a replica is set up. Where it bounds bytes of entries, an entry counts its payload and
/// [`ENTRY_OVERHEAD_BYTES`], so that empty ones are bounded too.
///
/// The times are the cluster's, not a node's: leases rely on all replicas having the same.
#[derive(Clone, Debug)]
pub struct Config {
    /// The replica.
    pub id: ReplicaId,
    /// The shortest election timeout, in nanoseconds.
    pub election_timeout_min_ns: u64,
    /// The longest election timeout, in nanoseconds.
    pub election_timeout_max_ns: u64,
    /// How often a leader says that it is there, in nanoseconds.
    pub heartbeat_interval_ns: u64,
    /// How long a heartbeat's acknowledgement lets a leader read, from the heartbeat's sending on, in nanoseconds. Below
    /// `election_timeout_min_ns` by more than clocks drift apart in that time.
    pub lease_ns: u64,
    /// How reads are let through.
    pub read_mode: ReadMode,
    /// When a copy counts.
    pub durability: Durability,
    /// Bytes of entries in one append message, beyond its first entry.
    pub append_bytes_max: usize,
    /// Append messages on their way to one follower.
    pub inflight_messages_max: usize,
    /// Bytes of entries on their way to one follower, beyond one message.
    pub inflight_bytes_max: usize,
    /// A follower that lacks so many committed entries gets them by [`crate::Ready::fetches`], in memory or not: the driver, which knows
    /// all groups, says how much of that is on its way.
    pub paced_entries_min: u64,
    /// Bytes of the driver's entries that a leader takes without having them committed; more are refused.
    pub uncommitted_bytes_max: usize,
    /// Bytes of applied entries kept in memory for followers.
    pub cache_bytes_max: usize,
    /// Bytes of one chunk of a snapshot.
    pub snapshot_chunk_bytes: usize,
    /// Reads that may wait for a round of heartbeats; more are refused.
    pub pending_reads_max: usize,
}

impl Config {
    /// Whether a replica can be set up like this.
    ///
    /// # Errors
    ///
    /// A sentence that says what contradicts what.
    pub fn check(&self) -> Result<(), String> {
        let (min, max) = (self.election_timeout_min_ns, self.election_timeout_max_ns);
        if min > max {
            return Err(format!("the shortest election timeout, {min} ns, is above the longest, {max} ns"));
        }
        if self.heartbeat_interval_ns == 0 || self.heartbeat_interval_ns >= min {
            let interval = self.heartbeat_interval_ns;
            return Err(format!(
                "a heartbeat every {interval} ns is not between 1 ns and the shortest election timeout, {min} ns"
            ));
        }
        if self.lease_ns >= min {
            let lease = self.lease_ns;
            return Err(format!(
                "a lease of {lease} ns is not below the shortest election timeout, {min} ns"
            ));
        }
        if self.inflight_messages_max == 0 || self.snapshot_chunk_bytes == 0 {
            return Err("one append and one byte of a snapshot must be able to be on their way".to_owned());
        }
        Ok(())
    }

    /// A replica with the usual settings: election timeouts of 150 to 300 ms, heartbeats every 50 ms, a lease of 120 ms.
    pub fn new(id: ReplicaId) -> Self {
        const MS: u64 = 1_000_000;
        Self {
            id,
            election_timeout_min_ns: 150 * MS,
            election_timeout_max_ns: 300 * MS,
            heartbeat_interval_ns: 50 * MS,
            lease_ns: 120 * MS,
            read_mode: ReadMode::Lease,
            durability: Durability::Fsync,
            append_bytes_max: 1 << 20,
            inflight_messages_max: 256,
            inflight_bytes_max: 16 << 20,
            paced_entries_min: 1024,
            uncommitted_bytes_max: 64 << 20,
            cache_bytes_max: 16 << 20,
            snapshot_chunk_bytes: 1 << 20,
            pending_reads_max: 1 << 16,
        }
    }
}

/// Why a proposal, a membership change, a transfer or a read is refused. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// This replica does not lead; `leader` does, as far as it knows.
    NotLeader {
        /// Where to go.
        leader: Option<ReplicaId>,
    },
    /// Leadership is on its way to another.
    Transferring {
        /// To whom.
        to: ReplicaId,
    },
    /// As much is uncommitted as may be.
    Busy,
    /// An earlier membership is not committed, or a joint one not left, or nothing of this term is committed yet.
    ChangePending,
    /// The membership would have no voter, or names a replica twice, or equals the present one.
    InvalidMembership,
    /// Leadership cannot go to one that is no voter.
    NotVoter,
}

/// What a replica starts from: what its disk held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// The last durable term and vote.
    pub hard_state: HardState,
    /// The newest durable snapshot; index 0: there is none, and this is the group's first membership.
    pub snapshot: SnapshotMeta,
    /// The log behind the snapshot, without gaps.
    ///
    /// An installed snapshot may have replaced the log. If the disk still has the old one, with an entry of another
    /// term at the snapshot's index, then what is behind that contradicts the snapshot and must not come back. Nor
    /// must it if the journal was to forget the log and a crash came first.
    pub entries: Vec<Entry>,
}

/// How far a restored log is committed and applied already, and what of it is not in [`Restored::entries`]. Nothing by default:
/// then only the snapshot is applied, and all entries are there.
///
/// What a driver persists of that must be true for good: an entry is committed once [`crate::Ready::committed`] has brought it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedLog {
    /// The last entry that is applied.
    pub index: Index,
    /// The last entry behind the snapshot that is not among the entries; all up to there are applied. 0: there is none.
    pub dropped_to: Index,
    /// Their terms: the first index of each, in order.
    pub terms: Vec<(Index, Term)>,
    /// The memberships among them, in order.
    pub memberships: Vec<(Index, Membership)>,
}

/// What a driver wants in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The proposer's wall clock in milliseconds; opaque here.
    pub timestamp_ms: u64,
    /// The entry's randomness; opaque here.
    pub seed: u64,
    /// The driver's kind of entry.
    pub tag: u8,
    /// Opaque.
    pub payload: Payload,
}

/// Where a read stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOutcome {
    /// It may be served once this entry is applied.
    At(Index),
    /// The answer comes in [`crate::Ready::reads`] or [`crate::Ready::failed_reads`].
    Pending,
}

/// What a replica does in its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It follows, or waits for a leader.
    Follower,
    /// It asks who would vote for it. Its term has not changed.
    PreCandidate,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}
