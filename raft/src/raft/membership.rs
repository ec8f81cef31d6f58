//! Changing who replicates the group (thesis, chapter 4).
//!
//! # Invariants
//!
//! - A membership is in force as soon as it is in the log, and an earlier one again if it is truncated.
//! - One change at a time, and none before the leader has committed something of its own term.
//! - Voters change through a joint membership only, which the leader leaves by itself once it is committed.
//! - Who loses its vote may still hold elections until that is committed, and who has none if it is asked for it and
//!   its log is ahead (see [`Raft::is_promotable`]). A leader counts itself only if it has a vote.
//! - A leader that has no vote any more leads until that is committed, without counting itself.

use super::Raft;
use crate::{Entry, EntryKind, Index, Membership, ProposeError, ReplicaId};

impl Raft {
    /// Changes who replicates the group to these voters and learners, whatever it was before. Another set of voters
    /// takes two entries, the joint membership and its end, of which the leader proposes the second one by itself;
    /// other learners take one. Says where the first entry is.
    ///
    /// # Errors
    ///
    /// This replica does not lead or hands leadership over, an earlier change is not finished, nothing of this term is
    /// committed yet, or the membership is none or the present one. Nothing has changed then.
    pub fn propose_membership(
        &mut self,
        now_ns: u64,
        voters: &[ReplicaId],
        learners: &[ReplicaId],
    ) -> Result<Index, ProposeError> {
        self.advance_clock(now_ns);
        self.check_accepts_proposals()?;
        let mut proposed = Membership::new(voters, learners).ok_or(ProposeError::InvalidMembership)?;
        let (index, present) = self.log.membership();
        if present.is_joint() || index > self.commit_index || !self.has_committed_in_term() {
            return Err(ProposeError::ChangePending);
        }
        if proposed == *present {
            return Err(ProposeError::InvalidMembership);
        }
        if proposed.voters != present.voters {
            proposed.outgoing.clone_from(&present.voters);
        }
        Ok(self.append_own(EntryKind::Membership, &proposed.encode()))
    }

    /// Puts an entry of the leader's own into the log.
    pub(super) fn append_own(&mut self, kind: EntryKind, payload: &[u8]) -> Index {
        let index = self.log.last_index() + 1;
        self.log.append(Entry {
            index,
            term: self.term,
            timestamp_ms: 0,
            seed: 0,
            kind,
            payload: payload.into(),
        });
        if kind == EntryKind::Membership {
            self.match_peers_to_membership();
            // It may take fewer now to confirm them.
            self.confirm_reads();
        }
        index
    }

    /// Goes on with a change once its entry is committed.
    pub(super) fn go_on_with_membership(&mut self) {
        let (index, membership) = self.log.membership();
        if index > self.commit_index || !self.has_committed_in_term() {
            return;
        }
        if membership.is_joint() {
            let left = membership.left().encode();
            self.append_own(EntryKind::Membership, &left);
        } else if !self.is_voter() {
            self.hand_over_leadership();
        }
    }
}
