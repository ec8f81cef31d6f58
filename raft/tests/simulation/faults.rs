//! What breaks. A fault is a few actions, now and later; its end is one of them.

mod traps;

use duva_raft::Durability;

use super::{
    actions::Action,
    disk::{Speed, Stop},
    network::Quality,
    operator::leader_of,
    queue::Event,
    world::World,
};

const MS: u64 = 1_000_000;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The nodes fall into two sides.
    Split,
    /// One link carries nothing.
    OneWay,
    /// A leader is on the smaller side.
    CutLeader,
    /// A link becomes another.
    BadLink,
    /// A connection breaks.
    Reset,
    /// A node does nothing for a while.
    Pause,
    /// A process dies.
    Kill,
    /// A machine loses power.
    PowerCut,
    /// All do.
    Blackout,
    /// A disk is lost.
    Wipe,
    SlowDisk,
    StalledDisk,
    ClockRate,
    WallJump,
    /// A leader is asked to hand over.
    Transfer,
    /// Several replicas hold elections at once.
    Campaign,
    /// A leader holds a lease while those who granted it restart and somebody else asks for their votes.
    LeaseTrap,
    /// A leader hears its followers late, and then not at all.
    SlowAcks,
    /// A leader that hands over does not hear what becomes of it.
    TransferTrap,
    /// A leader with a stalled disk and one follower commits, and loses power.
    LostTail,
    /// A vote request is on its way while the voter restarts.
    HeldVote,
    /// A leader proposes a lot while it is cut off, and comes back when others have just begun to go on without it.
    LongTail,
    /// A follower with a slow disk gets a snapshot, and loses power.
    LateFollower,
    /// Entries of an earlier term get about.
    OldTerm,
}

/// Kinds of faults.
pub(crate) const FAULTS: usize = Fault::OldTerm as usize + 1;

/// All of them, in order.
pub(crate) const ALL_FAULTS: [Fault; FAULTS] = [
    Fault::Split,
    Fault::OneWay,
    Fault::CutLeader,
    Fault::BadLink,
    Fault::Reset,
    Fault::Pause,
    Fault::Kill,
    Fault::PowerCut,
    Fault::Blackout,
    Fault::Wipe,
    Fault::SlowDisk,
    Fault::StalledDisk,
    Fault::ClockRate,
    Fault::WallJump,
    Fault::Transfer,
    Fault::Campaign,
    Fault::LeaseTrap,
    Fault::SlowAcks,
    Fault::TransferTrap,
    Fault::LostTail,
    Fault::HeldVote,
    Fault::LongTail,
    Fault::LateFollower,
    Fault::OldTerm,
];

impl World {
    /// Something breaks.
    pub(crate) fn fault(&mut self) {
        let kind = ALL_FAULTS[self.outside.random.weighted(&self.outside.setup.weights)];
        self.outside.trace.note(self.outside.now_ns, [10, kind as u64, 0], || format!("FAULT {kind:?}"));
        let random = &mut self.outside.random;
        let nodes = self.outside.setup.nodes;
        let node = random.index(nodes);
        let other = (node + 1 + random.index(nodes - 1)) % nodes;
        let length_ns = random.between(10, 600) * MS;
        match kind {
            Fault::Split => {
                let side: Vec<usize> = (0..nodes).filter(|_| self.outside.random.coin()).collect();
                self.split(&side, 0, length_ns);
            }
            Fault::OneWay => {
                self.at(0, Action::Block { from: node, to: other });
                self.at(length_ns, Action::Unblock { from: node, to: other });
            }
            Fault::CutLeader => self.cut_leader(length_ns),
            Fault::BadLink => self.bad_link(node, other, length_ns),
            Fault::Reset => self.at(0, Action::Reset { one: node, other }),
            Fault::Pause => {
                let node = self.victim();
                self.at(0, Action::Pause(node));
                self.at(length_ns, Action::Resume(node));
            }
            Fault::Kill | Fault::PowerCut => {
                let node = self.victim();
                let how = if kind == Fault::Kill { Stop::Process } else { Stop::Power };
                let length_ns = if self.outside.random.coin() { length_ns / 20 } else { length_ns };
                self.at(0, Action::Stop { node, how });
                self.at(length_ns, Action::Start(node));
            }
            Fault::Blackout => self.blackout(),
            Fault::Wipe => {
                let node = self.victim();
                self.at(0, Action::Wipe(node));
                self.at(length_ns, Action::Start(node));
            }
            Fault::SlowDisk | Fault::StalledDisk => {
                let node = self.victim();
                let speed = if kind == Fault::SlowDisk { Speed::Slow } else { Speed::Stalled };
                self.at(0, Action::SetSpeed { node, speed });
                self.at(length_ns, Action::SetSpeed { node, speed: Speed::Normal });
            }
            Fault::ClockRate => {
                let rate = self.outside.random_rate();
                self.at(0, Action::SetRate { node, rate });
            }
            Fault::WallJump => {
                let by_ms = self.outside.random.between(0, 4000) as i64 - 2000;
                self.at(0, Action::JumpWall { node, by_ms });
            }
            Fault::Transfer => {
                let group = self.outside.random.index(self.groups.len());
                self.at(0, Action::Transfer { group });
            }
            Fault::Campaign => self.duel(),
            Fault::LeaseTrap => self.lease_trap(),
            Fault::SlowAcks => self.slow_acks(),
            Fault::TransferTrap => self.transfer_trap(),
            Fault::LostTail => self.lost_tail(),
            Fault::HeldVote => self.held_vote(),
            Fault::LongTail => self.long_tail(),
            Fault::LateFollower => self.late_follower(),
            Fault::OldTerm => self.old_term(),
        }
        let mut pause_ns = self.outside.setup.fault_pause_ns;
        pause_ns += self.outside.random.below(2 * self.outside.setup.fault_every_ns);
        self.outside.later(pause_ns, Event::Fault);
    }

    pub(crate) fn at(&mut self, delay_ns: u64, action: Action) {
        self.outside.later(delay_ns, Event::Action(action));
    }

    /// A node that something happens to: often a leader's.
    fn victim(&mut self) -> usize {
        let group = self.outside.random.index(self.groups.len());
        let by_chance = self.outside.random.index(self.nodes.len());
        let leader = leader_of(&self.nodes, group).filter(|_| self.outside.random.coin());
        leader.unwrap_or(by_chance)
    }

    /// A leader and the others, in an order that is left to chance.
    fn leader_and_others(&mut self) -> Option<(usize, Vec<usize>)> {
        let group = self.outside.random.index(self.groups.len());
        let leader = leader_of(&self.nodes, group)?;
        let mut others: Vec<usize> = (0..self.nodes.len()).filter(|&node| node != leader).collect();
        for place in (1..others.len()).rev() {
            others.swap(place, self.outside.random.index(place + 1));
        }
        Some((leader, others))
    }

    fn split(&mut self, side: &[usize], delay_ns: u64, length_ns: u64) {
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                if side.contains(&from) != side.contains(&to) {
                    self.at(delay_ns, Action::Block { from, to });
                    self.at(delay_ns + length_ns, Action::Unblock { from, to });
                }
            }
        }
    }

    fn cut_leader(&mut self, length_ns: u64) {
        let Some((leader, others)) = self.leader_and_others() else { return };
        let company = self.outside.random.index(self.nodes.len() / 2);
        let mut side = vec![leader];
        side.extend_from_slice(&others[..company]);
        self.split(&side, 0, length_ns);
    }

    fn bad_link(&mut self, from: usize, to: usize, length_ns: u64) {
        let usual = self.outside.setup.quality;
        let random = &mut self.outside.random;
        let quality = Quality {
            delay_ns: random.pick(&[50_000, 5 * MS, 40 * MS]),
            spread_ns: random.pick(&[MS, 40 * MS]),
            lost_permille: random.pick(&[0, 300]),
            twice_permille: random.pick(&[0, 500]),
            in_order: random.coin(),
            ..usual
        };
        self.at(0, Action::SetQuality { from, to, quality });
        self.at(length_ns, Action::SetQuality { from, to, quality: usual });
    }

    /// All machines lose power, and come back when they like.
    fn blackout(&mut self) {
        // Without its page cache no replica may come back in memory mode.
        let how = match self.outside.setup.durability() {
            Durability::Fsync => Stop::Power,
            Durability::Memory => Stop::Process,
        };
        for node in 0..self.nodes.len() {
            let length_ns = self.outside.random.between(1, 400) * MS;
            self.at(0, Action::Stop { node, how });
            self.at(length_ns, Action::Start(node));
        }
    }
}
