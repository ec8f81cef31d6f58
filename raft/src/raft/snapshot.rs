//! Snapshots: the log's beginning is forgotten, and who lacks it gets a snapshot, piece by piece (paper, section 7).
//!
//! # Invariants
//!
//! - One piece at a time is on its way to a peer. What is lost is asked for: the receiver says how much it has.
//! - A receiver joins only pieces of one snapshot of one sender: two replicas' snapshots of one index may differ in
//!   their bytes.
//! - From the last piece until the snapshot is installed the log does not change, nothing is handed out to be
//!   applied, and no election is held.
//! - A snapshot never takes back what is committed.

use std::sync::Arc;

use super::Raft;
use crate::{
    Body, Index, ReplicaId, SnapshotMeta, SnapshotRead, SnapshotWrite, Term, mutation::Mutation,
    progress::SnapshotStep,
};

/// A snapshot that comes.
#[derive(Debug)]
pub(super) struct Incoming {
    from: ReplicaId,
    meta: SnapshotMeta,
    /// How much of it is stored.
    stored: u64,
    /// How much of it was handed out.
    handed: u64,
    /// Whether its last piece was.
    is_complete: bool,
}

impl Incoming {
    fn is(&self, index: Index, term: Term) -> bool {
        (self.meta.index, self.meta.term) == (index, term)
    }
}

/// Compaction.
impl Raft {
    /// A snapshot of the state machine up to `to` is durable: the log forgets what is in front of it. Peers that lack
    /// that get a snapshot.
    ///
    /// # Panics
    ///
    /// Panics if the driver did not tell that it applied the entry.
    pub fn compact(&mut self, to: Index) {
        self.log.compact(to);
        self.disk.covered(self.log.snapshot().index);
    }
}

/// Sending.
impl Raft {
    /// Does what is next for a peer that gets a snapshot.
    pub(super) fn send_snapshot_step(&mut self, nth: usize, reads: &mut Vec<SnapshotRead>) {
        let peer = &mut self.leading.peers[nth];
        let to = peer.id;
        let Some(outgoing) = &mut peer.progress.outgoing else { return };
        match (outgoing.step, &outgoing.meta) {
            (SnapshotStep::Read, meta) => {
                let snapshot = meta.as_ref().map(|meta| (meta.index, meta.term));
                let (offset, bytes_max) = (outgoing.offset, self.config.snapshot_chunk_bytes);
                reads.push(SnapshotRead { peer: to, snapshot, offset, bytes_max });
                outgoing.step = SnapshotStep::Reading;
            }
            (SnapshotStep::Ask, Some(meta)) => {
                let body =
                    Body::Snapshot { meta: meta.clone(), offset: 0, bytes: Arc::default(), is_last: false };
                outgoing.step = SnapshotStep::Asked { since_ns: self.now_ns };
                self.send(to, body);
            }
            _ => {}
        }
    }

    /// The driver read the piece that [`crate::Ready::snapshot_reads`] asked for. `meta` says of which snapshot: the
    /// one that was asked for, or the newest. Its bytes must not change while its index and term stay the same.
    ///
    /// # Panics
    ///
    /// Panics if the piece is empty and not the last.
    pub fn snapshot_read(
        &mut self,
        peer: ReplicaId,
        meta: SnapshotMeta,
        offset: u64,
        bytes: Arc<[u8]>,
        is_last: bool,
    ) {
        assert!(is_last || !bytes.is_empty(), "only the last piece may be empty");
        let (now_ns, retry_ns) = (self.now_ns, self.config.heartbeat_interval_ns);
        let Some(outgoing) = self.leading.peer_mut(peer).and_then(|progress| progress.outgoing.as_mut())
        else {
            return;
        };
        if outgoing.step != SnapshotStep::Reading || offset != outgoing.offset {
            return;
        }
        let is_other = outgoing.meta.is_some() && !outgoing.is(meta.index, meta.term);
        if is_other && offset != 0 {
            outgoing.begin_anew(now_ns.saturating_add(retry_ns));
            return;
        }
        outgoing.meta = Some(meta.clone());
        outgoing.step = SnapshotStep::Sent { since_ns: now_ns };
        self.send(peer, Body::Snapshot { meta, offset, bytes, is_last });
    }

    /// The driver cannot read the piece that [`crate::Ready::snapshot_reads`] asked for: it has no snapshot yet, or
    /// not that one any more. After [`crate::Config::heartbeat_interval_ns`] the newest is asked for, from its
    /// beginning.
    pub fn snapshot_unreadable(&mut self, peer: ReplicaId) {
        let retry_at_ns = self.now_ns.saturating_add(self.config.heartbeat_interval_ns);
        let Some(outgoing) = self.leading.peer_mut(peer).and_then(|progress| progress.outgoing.as_mut())
        else {
            return;
        };
        if outgoing.step == SnapshotStep::Reading {
            outgoing.begin_anew(retry_at_ns);
        }
    }

    pub(super) fn handle_snapshot_reply(
        &mut self,
        from: ReplicaId,
        index: Index,
        term: Term,
        next_offset: u64,
    ) {
        let Some(outgoing) = self.hear(from).and_then(|progress| progress.outgoing.as_mut()) else { return };
        if outgoing.is(index, term) {
            outgoing.go_on(next_offset);
        }
    }
}

/// Receiving.
impl Raft {
    /// Whether a snapshot has come whole and is not in force yet.
    pub(super) fn is_installing(&self) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| incoming.is_complete)
    }

    pub(super) fn handle_snapshot(&mut self, from: ReplicaId, piece: SnapshotWrite) {
        let (index, term) = (piece.meta.index, piece.meta.term);
        if index <= self.commit_index {
            // It is not needed. What is committed agrees with every leader's log.
            self.following.agree(self.commit_index);
            return;
        }
        if self.is_installing() {
            return;
        }
        let is_question = piece.bytes.is_empty() && !piece.is_last;
        let known =
            self.incoming.as_ref().filter(|incoming| incoming.from == from && incoming.is(index, term));
        if is_question && known.is_none() && self.refused == Some((from, index, term)) {
            // An answer would bring its first piece, again and again.
            return;
        }
        let (stored, handed) = known.map_or((0, 0), |incoming| (incoming.stored, incoming.handed));
        if is_question || piece.offset != handed {
            // A piece that is being stored is answered when it is.
            if stored == handed {
                self.send(from, Body::SnapshotReply { index, term, next_offset: stored });
            }
            return;
        }
        let handed = piece.offset + piece.bytes.len() as u64;
        let is_complete = piece.is_last;
        self.refused = None;
        self.incoming = Some(Incoming { from, meta: piece.meta.clone(), stored, handed, is_complete });
        self.snapshot_writes.push(piece);
    }

    /// The driver stored a piece that [`crate::Ready::snapshot_writes`] brought; `next_offset` is where it ends. The
    /// pieces must be stored in the order in which they came.
    pub fn snapshot_stored(&mut self, index: Index, term: Term, next_offset: u64) {
        let Some(incoming) = &mut self.incoming else { return };
        if !incoming.is(index, term) || next_offset > incoming.handed {
            return;
        }
        incoming.stored = incoming.stored.max(next_offset);
        let from = incoming.from;
        if !incoming.is_complete && incoming.stored == incoming.handed && self.leader == Some(from) {
            self.send(from, Body::SnapshotReply { index, term, next_offset });
        }
    }

    /// The snapshot whose last piece came is in force: durable, so that a restart finds it, and loaded into the state
    /// machine. Writes handed out before it are in the journal, and unless [`Self::keeps_log`] the journal has
    /// forgotten this replica's log behind it. [`Ready::committed`](crate::Ready::committed) goes on behind the
    /// snapshot.
    pub fn snapshot_installed(&mut self, index: Index, term: Term) {
        if !self.is_installing() {
            return;
        }
        let Some(Incoming { meta, .. }) = self.incoming.take_if(|incoming| incoming.is(index, term)) else {
            return;
        };
        let keeps_log = self.keeps_log(index, term);
        if !keeps_log {
            self.disk.truncated(index);
        }
        self.log.install(meta, keeps_log);
        self.disk.covered(index);
        self.commit_index = self.commit_index.max(index);
        self.handed_commit = index;
        self.following.agree(index);
    }

    /// The driver cannot store the snapshot that comes, or cannot load it and still has the state machine as it was.
    /// The leader begins anew once it asks.
    pub fn snapshot_failed(&mut self, index: Index, term: Term) {
        self.incoming.take_if(|incoming| incoming.is(index, term));
    }

    /// The driver has no room for the snapshot whose first piece came. Its leader, which goes on asking, gets no answer before
    /// [`Self::invite_snapshot`], so that a piece that would be refused as well does not come every time.
    pub fn snapshot_refused(&mut self, index: Index, term: Term) {
        if let Some(Incoming { from, .. }) = self.incoming.take_if(|incoming| incoming.is(index, term)) {
            self.refused = Some((from, index, term));
        }
    }

    /// The driver has room for a snapshot: asks for the one that it refused last. False if there is none that its leader
    /// still has to send.
    pub fn invite_snapshot(&mut self) -> bool {
        let Some((from, index, term)) = self.refused.take() else { return false };
        let is_offered = self.leader == Some(from) && self.incoming.is_none() && index > self.commit_index;
        if is_offered {
            self.send(from, Body::SnapshotReply { index, term, next_offset: 0 });
        }
        is_offered
    }

    /// The driver does not take the snapshot that comes, because [`Self::keeps_log`]. What a snapshot covers is committed, so
    /// what the log has up to there is, and agrees with every leader's: it goes on from that.
    pub fn snapshot_needless(&mut self, index: Index, term: Term) {
        let taken = self.incoming.take_if(|incoming| incoming.is(index, term));
        if taken.is_some() && self.log.term_at(index) == Some(term) {
            self.commit_to(index);
            self.following.agree(self.commit_index);
        }
    }

    /// Whether the log has the last entry of such a snapshot, so that what is behind it may stay when the snapshot is
    /// installed.
    pub fn keeps_log(&self, index: Index, term: Term) -> bool {
        self.log.term_at(index) == Some(term) || self.is_on(Mutation::KeepLogBehindSnapshot)
    }
}
