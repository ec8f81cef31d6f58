//! Handing leadership over (thesis, section 3.10).
//!
//! # Invariants
//!
//! - From its beginning on the leader has no lease, and gets none in this term, whatever becomes of the transfer: the
//!   target's election does not wait for a lease to end.
//! - While it lasts nothing is proposed, so that the target can catch up.

use super::Raft;
use crate::{Body, Index, ProposeError, ReplicaId, mutation::Mutation};

/// A transfer that lasts.
#[derive(Debug)]
pub(super) struct Transfer {
    to: ReplicaId,
    /// When it is given up.
    pub(super) deadline_ns: u64,
    /// Whether the target was told to hold an election.
    is_told: bool,
}

impl Raft {
    /// Hands leadership to a voter: catches it up, then tells it to hold an election at once. Given up after
    /// [`crate::Config::election_timeout_max_ns`]; proposals are refused meanwhile.
    ///
    /// # Errors
    ///
    /// This replica does not lead, or hands leadership to another already, or the target has no vote in the
    /// membership that is in force or to come.
    pub fn transfer_leadership(&mut self, now_ns: u64, to: ReplicaId) -> Result<(), ProposeError> {
        self.advance_clock(now_ns);
        self.check_leads()?;
        if !self.membership().voters.contains(&to) {
            return Err(ProposeError::NotVoter);
        }
        match self.transfer_target() {
            Some(target) if target == to => return Ok(()),
            Some(to) => return Err(ProposeError::Transferring { to }),
            None if to == self.config.id => return Ok(()),
            None => {}
        }
        self.leading.lease_is_dropped = !self.is_on(Mutation::LeaseThroughTransfer);
        let deadline_ns = self.now_ns.saturating_add(self.config.election_timeout_max_ns);
        self.leading.transfer = Some(Transfer { to, deadline_ns, is_told: false });
        self.go_on_with_transfer();
        Ok(())
    }

    /// To whom leadership is being handed.
    pub fn transfer_target(&self) -> Option<ReplicaId> {
        self.leading.transfer.as_ref().map(|transfer| transfer.to)
    }

    /// Tells the target, once it has the whole log.
    pub(super) fn go_on_with_transfer(&mut self) {
        let last_index = self.log.last_index();
        let Some(transfer) = self.leading.transfer.as_mut().filter(|transfer| !transfer.is_told) else {
            return;
        };
        let to = transfer.to;
        if self.leading.peers.iter().any(|peer| peer.id == to && peer.progress.match_index() == last_index) {
            transfer.is_told = true;
            self.send(to, Body::TimeoutNow);
        }
    }

    pub(super) fn tick_transfer(&mut self) {
        if self.leading.transfer.as_ref().is_some_and(|transfer| self.now_ns >= transfer.deadline_ns) {
            self.leading.transfer = None;
        }
    }

    /// Steps down for good, and has the best voter hold an election at once.
    pub(super) fn hand_over_leadership(&mut self) {
        let best: Option<(Index, ReplicaId)> = self
            .peers()
            .filter(|(id, _)| self.membership().voters.contains(id))
            .map(|(id, progress)| (progress.match_index(), id))
            .max_by_key(|&(match_index, id)| (match_index, std::cmp::Reverse(id)));
        if let Some((_, id)) = best {
            self.send(id, Body::TimeoutNow);
        }
        self.become_follower(None);
    }

    pub(super) fn handle_timeout_now(&mut self, from: ReplicaId) {
        let is_the_leader = self.leader_of_term.is_none_or(|leader| leader == from);
        if is_the_leader && self.may_take_over() {
            self.become_candidate(true);
        }
    }
}
