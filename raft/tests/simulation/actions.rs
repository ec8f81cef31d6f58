//! What can be done to nodes and links: of such steps faults are made.

use duva_raft::{Durability, Membership};

use super::{
    disk::{Speed, Stop},
    flaw::Flaw,
    image::{Image, Rule},
    network::Quality,
    operator::{self, leader_of},
    world::World,
};

/// One thing that is done to the nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    Block {
        from: usize,
        to: usize,
    },
    Unblock {
        from: usize,
        to: usize,
    },
    /// What leaves now arrives later.
    Hold {
        from: usize,
        to: usize,
        for_ns: u64,
    },
    SetQuality {
        from: usize,
        to: usize,
        quality: Quality,
    },
    Reset {
        one: usize,
        other: usize,
    },
    Pause(usize),
    Resume(usize),
    Stop {
        node: usize,
        how: Stop,
    },
    /// The disk is lost, with the process.
    Wipe(usize),
    Start(usize),
    SetSpeed {
        node: usize,
        speed: Speed,
    },
    SetRate {
        node: usize,
        rate: u64,
    },
    JumpWall {
        node: usize,
        by_ms: i64,
    },
    Transfer {
        group: usize,
    },
    Campaign {
        node: usize,
    },
    /// All links of a node, both ways.
    Isolate {
        node: usize,
        is_blocked: bool,
    },
}

impl World {
    pub(crate) fn act(&mut self, action: Action) {
        let outside = &mut self.outside;
        outside.trace.note(outside.now_ns, [11, 0, 0], || format!("      {action:?}"));
        match action {
            Action::Block { from, to } => outside.network.set_blocked(from, to, true),
            Action::Unblock { from, to } => outside.network.set_blocked(from, to, false),
            Action::Hold { from, to, for_ns } => outside.network.hold(from, to, outside.now_ns + for_ns),
            Action::SetQuality { from, to, quality } => outside.network.set_quality(from, to, quality),
            Action::Reset { one, other } => {
                outside.network.reset(one, other);
                self.nodes[one].lose_link(outside, other);
                self.nodes[other].lose_link(outside, one);
            }
            Action::Pause(node) => self.nodes[node].pause(),
            Action::Resume(node) => self.nodes[node].resume(outside),
            Action::Stop { node, how } => self.stop(node, how),
            Action::Wipe(node) => self.wipe(node),
            Action::Start(node) => self.nodes[node].start(outside),
            Action::SetSpeed { node, speed } => self.nodes[node].disk.speed = speed,
            Action::SetRate { node, rate } => self.nodes[node].clock.set_rate(outside.now_ns, rate),
            Action::JumpWall { node, by_ms } => self.nodes[node].clock.jump_wall(by_ms),
            Action::Transfer { group } => self.transfer(group),
            Action::Campaign { node } => {
                let local_ns = self.nodes[node].clock.local_ns(outside.now_ns);
                for replica in self.nodes[node].replicas.iter_mut().flatten() {
                    replica.raft.campaign(local_ns);
                }
                self.nodes[node].wake(outside);
            }
            Action::Isolate { node, is_blocked } => {
                for other in (0..self.nodes.len()).filter(|&other| other != node) {
                    outside.network.set_blocked(node, other, is_blocked);
                    outside.network.set_blocked(other, node, is_blocked);
                }
            }
        }
    }

    fn stop(&mut self, node: usize, how: Stop) {
        let loses = how == Stop::Power && self.outside.setup.durability() == Durability::Memory;
        if !loses {
            return self.nodes[node].stop(&mut self.outside, how);
        }
        if self.may_lose(node, Flaw::KeepIdAfterPowerLoss) {
            self.nodes[node].stop(&mut self.outside, how);
            if !self.outside.is(Flaw::KeepIdAfterPowerLoss) {
                operator::lose(&mut self.nodes, &mut self.groups, node);
            }
        }
    }

    fn wipe(&mut self, node: usize) {
        if !self.may_lose(node, Flaw::KeepIdAfterWipe) {
            return;
        }
        self.nodes[node].stop(&mut self.outside, Stop::Power);
        if !self.outside.is(Flaw::KeepIdAfterWipe) {
            return operator::lose(&mut self.nodes, &mut self.groups, node);
        }
        for group in 0..self.groups.len() {
            // It knows its name, and nothing else.
            let id = self.nodes[node].replica_id(group);
            let image = id.map(|id| Image::new(id, Membership::default(), Rule::Last));
            self.nodes[node].disk.set(group, image);
        }
    }

    /// Whether all can do without this node's data. A flaw that brings it back without them is given one chance only, as more would be
    /// more than a minority.
    fn may_lose(&mut self, node: usize, flaw: Flaw) -> bool {
        let may = self.nodes[node].is_up
            && operator::may_lose(&self.nodes, &self.groups, node)
            && !(self.outside.is(flaw) && self.losses > 0);
        self.losses += usize::from(may);
        may
    }

    fn transfer(&mut self, group: usize) {
        let Some(leader) = leader_of(&self.nodes, group) else { return };
        let node = &mut self.nodes[leader];
        let local_ns = node.clock.local_ns(self.outside.now_ns);
        let Some(replica) = &mut node.replicas[group] else { return };
        let voters = replica.raft.membership().voters.clone();
        let others: Vec<_> = voters.into_iter().filter(|&voter| voter != replica.id).collect();
        if !others.is_empty() {
            let to = self.outside.random.pick(&others);
            // A refusal is an answer too.
            let _ = replica.raft.transfer_leadership(local_ns, to);
            node.wake(&mut self.outside);
        }
    }
}
