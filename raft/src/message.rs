//! What replicas say to one another. Groups and nodes are the transport's: it knows where a message belongs.

use std::sync::Arc;

use crate::{Entry, Index, ReplicaId, SnapshotMeta, Term};

/// A message from one replica to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The sender.
    pub from: ReplicaId,
    /// For whom it is. Others ignore it.
    pub to: ReplicaId,
    /// The sender's term; of a pre-vote request, and of its granting reply, the term that is asked for.
    pub term: Term,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Would you vote for me? (thesis, section 9.6)
    PreVote {
        /// The sender's last entry.
        last_index: Index,
        /// Its term.
        last_term: Term,
    },
    /// The answer.
    PreVoteReply {
        /// Whether it would.
        granted: bool,
    },
    /// Vote for me.
    Vote {
        /// The sender's last entry.
        last_index: Index,
        /// Its term.
        last_term: Term,
        /// The leader itself asked for it: no one need wait for its lease to end.
        is_transfer: bool,
    },
    /// The answer.
    VoteReply {
        /// Whether it does.
        granted: bool,
    },
    /// Entries that follow `prev_index`. Without entries it asks whether the logs agree there, with a `commit` of 0, or it tells what
    /// is committed. A follower that acknowledged `prev_index` does not answer that, if it is news and no more than that.
    Append {
        /// The entry before the first one.
        prev_index: Index,
        /// Its term.
        prev_term: Term,
        /// What the leader knows to be committed.
        commit: Index,
        /// Entries in order, without gaps.
        entries: Vec<Entry>,
    },
    /// The logs agree up to `match_index`, and all of that is durable.
    AppendReply {
        /// The last entry that is known to agree.
        match_index: Index,
    },
    /// The logs do not agree at `prev_index`.
    AppendReject {
        /// As it was asked.
        prev_index: Index,
        /// The last entry of the sender's log at or before `prev_index` that the leader may have.
        hint_index: Index,
        /// The term of that entry in the sender's log.
        hint_term: Term,
    },
    /// The leader is there.
    Heartbeat {
        /// At most what this follower is known to hold.
        commit: Index,
        /// The leader's clock when it was sent; comes back.
        sent_ns: u64,
        /// The last round of reads; comes back.
        read_round: u64,
    },
    /// The sender follows this leader in this term.
    HeartbeatReply {
        /// From the heartbeat.
        sent_ns: u64,
        /// From the heartbeat.
        read_round: u64,
    },
    /// A piece of a snapshot; an empty one that is not the last asks how much is there.
    Snapshot {
        /// Which.
        meta: SnapshotMeta,
        /// Where in its bytes the piece begins.
        offset: u64,
        /// The piece.
        bytes: Arc<[u8]>,
        /// Whether it is the last.
        is_last: bool,
    },
    /// How much of a snapshot is there.
    SnapshotReply {
        /// Which: its last index.
        index: Index,
        /// Its last term.
        term: Term,
        /// Where to go on.
        next_offset: u64,
    },
    /// The sender's term is above the receiver's, who does not lead or ask for votes in it.
    Stale,
    /// Hold an election at once: the leader hands over to you.
    TimeoutNow,
    /// A follower asks for an index at which to read.
    ReadIndex {
        /// The follower's name for the read; comes back.
        context: u64,
    },
    /// The answer; `None`: the leader cannot say.
    ReadIndexReply {
        /// From the request.
        context: u64,
        /// Reads see all that was acknowledged before they began, once this entry is applied.
        index: Option<Index>,
    },
}
