//! Faults that go together, each to bring about what a rule of Raft is there for.

use super::{
    super::{
        actions::Action,
        disk::{Speed, Stop},
        network::Quality,
        world::World,
    },
    MS,
};

impl World {
    /// A leader appeared. Perhaps it is cut off soon, and whoever was before comes back.
    pub(crate) fn unsettle(&mut self, node: usize) {
        let planned_ns = self.cuts.pop_front();
        let random = &mut self.outside.random;
        if self.outside.is_over
            || (planned_ns.is_none() && !random.permille(self.outside.setup.unstable_permille))
        {
            return;
        }
        let delay_max_ns = random.pick(&[1, 4 * MS, 30 * MS]);
        let delay_ns = planned_ns.unwrap_or(random.below(delay_max_ns));
        let length_ns = random.between(200, 700) * MS;
        let (is_sudden, is_crash) = (random.coin() || planned_ns.is_some(), random.permille(200));
        if let Some(before) = self.isolated.replace(node) {
            self.at(delay_ns, Action::Isolate { node: before, is_blocked: false });
        }
        self.at(delay_ns, Action::Isolate { node, is_blocked: true });
        self.at(delay_ns + length_ns, Action::Isolate { node, is_blocked: false });
        if is_sudden {
            // Not even what it just sent arrives.
            for other in (0..self.nodes.len()).filter(|&other| other != node) {
                self.at(delay_ns, Action::Reset { one: node, other });
            }
        }
        if is_crash && planned_ns.is_none() {
            self.at(delay_ns, Action::Stop { node, how: Stop::Process });
            self.at(delay_ns + length_ns / 4, Action::Start(node));
        }
    }

    pub(super) fn lease_trap(&mut self) {
        let Some((leader, others)) = self.leader_and_others() else { return };
        let candidate = others[0];
        // The candidate must not have heard the leader: because it restarts too, or for the shortest election timeout.
        let restarts = self.outside.random.coin();
        let trap_ns = if restarts { 0 } else { self.outside.random.between(160, 300) * MS };
        self.at(0, Action::Block { from: leader, to: candidate });
        for &voter in others.iter().filter(|&&voter| restarts || voter != candidate) {
            let down_ns = self.outside.random.between(200_000, 5 * MS);
            self.at(trap_ns, Action::Stop { node: voter, how: Stop::Process });
            self.at(trap_ns + down_ns, Action::Start(voter));
        }
        self.at(trap_ns, Action::Isolate { node: leader, is_blocked: true });
        let campaign_ns = trap_ns + self.outside.random.between(5, 15) * MS;
        self.at(campaign_ns, Action::Campaign { node: candidate });
        self.at(trap_ns + 300 * MS, Action::Isolate { node: leader, is_blocked: false });
    }

    pub(super) fn slow_acks(&mut self) {
        let Some((leader, others)) = self.leader_and_others() else { return };
        let usual = self.outside.setup.quality;
        let late_ns = self.outside.random.between(60, 140) * MS;
        let quality = Quality { delay_ns: late_ns, lost_permille: 0, in_order: true, ..usual };
        for &other in &others {
            self.at(0, Action::SetQuality { from: other, to: leader, quality });
            self.at(260 * MS, Action::Block { from: leader, to: other });
            self.at(650 * MS, Action::SetQuality { from: other, to: leader, quality: usual });
            self.at(650 * MS, Action::Unblock { from: leader, to: other });
        }
    }

    pub(super) fn transfer_trap(&mut self) {
        let Some((leader, others)) = self.leader_and_others() else { return };
        let (delay_ns, for_ns) =
            (self.outside.random.between(200_000, MS), self.outside.random.between(100, 250) * MS);
        for group in 0..self.groups.len() {
            self.at(0, Action::Transfer { group });
        }
        for &from in &others {
            self.at(delay_ns, Action::Hold { from, to: leader, for_ns });
        }
    }

    pub(super) fn lost_tail(&mut self) {
        let Some((leader, others)) = self.leader_and_others() else { return };
        // With the leader, a follower less than a majority.
        let company = self.nodes.len() / 2 - 1 + usize::from(self.outside.random.coin());
        let (near, far) = others.split_at(company);
        self.at(0, Action::SetSpeed { node: leader, speed: Speed::Stalled });
        for &from in far {
            for (from, to) in [(from, leader), (leader, from)] {
                self.at(0, Action::Block { from, to });
                self.at(60 * MS, Action::Unblock { from, to });
            }
        }
        self.at(50 * MS, Action::Stop { node: leader, how: Stop::Power });
        self.at(50 * MS, Action::SetSpeed { node: leader, speed: Speed::Normal });
        self.at(55 * MS, Action::Start(leader));
        for &node in near {
            self.at(50 * MS, Action::Stop { node, how: Stop::Process });
            self.at(900 * MS, Action::Start(node));
        }
    }

    /// Two ask for a third one's vote in one term; the second request arrives after the voter has lost power.
    pub(super) fn held_vote(&mut self) {
        let Some((voter, others)) = self.leader_and_others() else { return };
        let (first, second) = (others[0], others[1]);
        for node in 0..self.nodes.len() {
            self.at(0, Action::Stop { node, how: Stop::Process });
            self.at(MS, Action::Start(node));
        }
        // Nobody has to wait any more, by the slowest clock.
        let begin_ns = self.outside.random.between(326, 334) * MS;
        for from in 0..self.nodes.len() {
            for to in (0..self.nodes.len()).filter(|&to| to != from) {
                self.at(0, Action::SetQuality { from, to, quality: Quality::GOOD });
            }
        }
        if self.outside.random.coin() {
            self.at(begin_ns - MS, Action::SetSpeed { node: voter, speed: Speed::Stalled });
        }
        self.at(0, Action::Hold { from: second, to: voter, for_ns: begin_ns + 450 * MS });
        self.at(begin_ns, Action::Campaign { node: first });
        self.at(begin_ns, Action::Campaign { node: second });
        let apart_ns = begin_ns + self.outside.random.between(200_000, 1_500_000);
        self.at(apart_ns, Action::Block { from: first, to: second });
        let cut_ns = begin_ns + self.outside.random.between(2, 8) * MS;
        self.at(cut_ns, Action::Stop { node: voter, how: Stop::Power });
        self.at(cut_ns, Action::SetSpeed { node: voter, speed: Speed::Normal });
        self.at(cut_ns, Action::Block { from: first, to: voter });
        self.at(cut_ns, Action::Pause(second));
        self.at(cut_ns + MS, Action::Start(voter));
        self.at(begin_ns + 470 * MS, Action::Resume(second));
        self.at(begin_ns + 600 * MS, Action::Unblock { from: first, to: second });
        self.at(begin_ns + 600 * MS, Action::Unblock { from: first, to: voter });
    }

    pub(super) fn long_tail(&mut self) {
        let Some((leader, others)) = self.leader_and_others() else { return };
        let back_ns = self.outside.random.between(205, 300) * MS;
        self.at(0, Action::Isolate { node: leader, is_blocked: true });
        self.at(200 * MS, Action::Campaign { node: others[0] });
        self.at(back_ns, Action::Isolate { node: leader, is_blocked: false });
    }

    pub(super) fn duel(&mut self) {
        let mut candidates: Vec<usize> = (0..self.nodes.len()).collect();
        let mut delay_ns = 0;
        if let Some((leader, others)) = self.leader_and_others()
            && self.outside.random.coin()
        {
            // Who has just heard a leader asks nobody.
            self.at(0, Action::Isolate { node: leader, is_blocked: true });
            self.at(400 * MS, Action::Isolate { node: leader, is_blocked: false });
            delay_ns = 165 * MS;
            candidates = others;
        }
        for node in candidates {
            if self.outside.random.coin() {
                self.at(delay_ns, Action::Campaign { node });
            }
        }
    }

    /// A follower falls behind, gets a snapshot on a slow disk, and loses power.
    pub(super) fn late_follower(&mut self) {
        let Some((_, others)) = self.leader_and_others() else { return };
        let node = others[0];
        let back_ns = self.outside.random.between(60, 300) * MS;
        let cut_ns = back_ns + self.outside.random.between(2, 80) * MS;
        self.at(0, Action::Isolate { node, is_blocked: true });
        self.at(back_ns, Action::SetSpeed { node, speed: Speed::Slow });
        self.at(back_ns, Action::Isolate { node, is_blocked: false });
        self.at(cut_ns, Action::Stop { node, how: Stop::Power });
        self.at(cut_ns, Action::SetSpeed { node, speed: Speed::Normal });
        self.at(cut_ns + 2 * MS, Action::Start(node));
    }

    /// The paper's figure 8: a leader's entries reach nobody, nor do the next one's; the first leads again, and is cut
    /// off while it sends its old entries.
    pub(super) fn old_term(&mut self) {
        let Some((leader, others)) = self.leader_and_others() else { return };
        let last_ns = self.outside.random.between(1, 8) * MS;
        self.isolated = Some(leader);
        self.cuts.clear();
        self.cuts.extend([0, last_ns]);
        self.at(0, Action::Isolate { node: leader, is_blocked: true });
        self.at(165 * MS, Action::Campaign { node: others[0] });
        self.at(185 * MS, Action::Campaign { node: leader });
        self.at(400 * MS, Action::Isolate { node: leader, is_blocked: false });
    }
}
