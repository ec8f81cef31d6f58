//! What a seed is like: how many nodes, how they are set up, and what breaks how often.
//!
//! Every seed leaves out some kinds of faults and exaggerates others, because a mean of all hides what a few would show.

use duva_raft::{Config, Durability, ReadMode, ReplicaId};

use super::{
    faults::{ALL_FAULTS, FAULTS, Fault},
    network::Quality,
    random::Random,
};

const MS: u64 = 1_000_000;

/// What a seed is mostly about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Focus {
    /// A bit of everything.
    Mixed,
    /// Leaders that do not last.
    Elections,
    /// Candidates of one term, and voters that restart between them.
    Votes,
    /// Reads at leaders that others have left.
    Reads,
    /// Crashes, power cuts and disks that take their time.
    Disks,
    /// Replicas that come and go.
    Membership,
    /// Followers that are far behind.
    Snapshots,
}

/// All of them.
pub(crate) const FOCUSES: [Focus; 7] = [
    Focus::Mixed,
    Focus::Elections,
    Focus::Votes,
    Focus::Reads,
    Focus::Disks,
    Focus::Membership,
    Focus::Snapshots,
];

/// What does not change while a seed runs.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) focus: Focus,
    pub(crate) nodes: usize,
    pub(crate) groups: usize,
    /// Voters of a group at its beginning, and how many it should have.
    pub(crate) voters_first: usize,
    pub(crate) voters_wanted: usize,
    pub(crate) clients: usize,
    pub(crate) keys: usize,
    /// What a client waits between two operations, at most.
    pub(crate) think_ns: u64,
    /// What it waits for an answer, at most.
    pub(crate) patience_ns: u64,
    pub(crate) reads_permille: u32,
    pub(crate) padding_bytes: usize,
    /// When faults end.
    pub(crate) heal_ns: u64,
    /// The shortest time between two faults, and by how much it is exceeded on average.
    pub(crate) fault_pause_ns: u64,
    pub(crate) fault_every_ns: u64,
    /// How often each kind happens, in relation to the others.
    pub(crate) weights: [u32; FAULTS],
    /// How often a leader is cut off as soon as it is one, in a thousand.
    pub(crate) unstable_permille: u32,
    /// How often a group is split along a change of its membership.
    pub(crate) change_cut_permille: u32,
    /// How often the operator changes a membership that needs no change.
    pub(crate) churn_permille: u32,
    pub(crate) quality: Quality,
    /// Entries between two snapshots.
    pub(crate) snapshot_every: u64,
    /// Entries that a replica applies in a turn.
    pub(crate) apply_max: usize,
    config: Config,
}

impl Setup {
    /// With `only`, nothing else breaks than that.
    pub(crate) fn new(random: &mut Random, focus: Focus, only: Option<Fault>) -> Self {
        let nodes = match focus {
            Focus::Membership => 5,
            Focus::Votes => random.pick(&[3, 5]),
            _ => random.pick(&[3, 3, 5]),
        };
        let voters_wanted = if nodes == 5 { random.pick(&[3, 5, 5]) } else { 3 };
        let voters_first = if random.permille(100) { 1 } else { voters_wanted };
        let mut setup = Self {
            focus,
            nodes,
            groups: random.pick(&[1, 1, 1, 2]),
            voters_first,
            voters_wanted,
            clients: random.between(3, 5) as usize,
            keys: random.between(1, 4) as usize,
            think_ns: random.pick(&[5, 10, 40]) * MS,
            patience_ns: random.pick(&[40, 100, 300]) * MS,
            reads_permille: random.pick(&[200, 400, 600]),
            padding_bytes: random.pick(&[0, 0, 100]),
            heal_ns: random.between(1_500, 5_000) * MS,
            fault_pause_ns: 0,
            fault_every_ns: random.pick(&[40, 80, 160]) * MS,
            weights: weights(random, focus),
            unstable_permille: 0,
            change_cut_permille: 0,
            churn_permille: random.pick(&[0, 0, 50]),
            quality: quality(random),
            snapshot_every: random.pick(&[0, 20, 100]),
            apply_max: random.pick(&[1, 8, usize::MAX]),
            config: config(random),
        };
        setup.exaggerate(random);
        let by_chance = random.permille(50).then(|| random.pick(&ALL_FAULTS));
        if let Some(fault) = only.or(by_chance) {
            setup.weights = [0; FAULTS];
            setup.weights[fault as usize] = 1;
            setup.unstable_permille = 0;
            setup.fault_pause_ns = 1_000 * MS;
            setup.fault_every_ns = 100 * MS;
            setup.heal_ns = 6_000 * MS;
        }
        setup
    }

    fn exaggerate(&mut self, random: &mut Random) {
        match self.focus {
            Focus::Mixed => self.unstable_permille = random.pick(&[0, 0, 300]),
            Focus::Elections => {
                self.unstable_permille = random.pick(&[500, 900]);
                self.config.append_bytes_max = random.pick(&[0, 0, 1 << 20]);
                self.fault_every_ns = random.pick(&[80, 160]) * MS;
                self.think_ns = random.pick(&[3, 10]) * MS;
                self.quality.twice_permille = random.pick(&[0, 300]);
                self.quality.spread_ns = random.pick(&[MS / 10, 2 * MS, 10 * MS]);
            }
            Focus::Votes => {
                self.groups = 1;
                self.voters_wanted = self.nodes;
                self.voters_first = self.nodes;
                self.churn_permille = 0;
                self.quality.twice_permille = random.pick(&[0, 500, 500]);
                self.fault_every_ns = 300 * MS;
                self.heal_ns = 4_000 * MS;
                self.config.durability = Durability::Fsync;
            }
            Focus::Reads => {
                self.groups = 1;
                self.voters_wanted = self.nodes;
                self.voters_first = self.nodes;
                self.clients = self.nodes + 2;
                self.keys = 1;
                self.think_ns = 6 * MS;
                self.patience_ns = 25 * MS;
                self.reads_permille = 600;
                self.fault_every_ns = 250 * MS;
                self.churn_permille = 0;
                self.config.read_mode = random.pick(&[ReadMode::Lease, ReadMode::Lease, ReadMode::ReadIndex]);
            }
            Focus::Disks => {
                self.think_ns = random.pick(&[3, 10]) * MS;
                self.reads_permille = 200;
            }
            Focus::Membership => {
                self.churn_permille = random.pick(&[300, 600]);
                self.change_cut_permille = random.pick(&[0, 300, 600]);
                self.voters_first = random.pick(&[1, 3, 3, 3, 5]);
                self.voters_wanted = 3;
                self.fault_every_ns = random.pick(&[80, 160, 320]) * MS;
            }
            Focus::Snapshots => {
                self.snapshot_every = random.pick(&[5, 10, 20]);
                self.config.cache_bytes_max = random.pick(&[0, 200, 1000]);
                self.config.snapshot_chunk_bytes = random.pick(&[16, 64, 128]);
                self.unstable_permille = random.pick(&[0, 300, 900]);
                self.think_ns = random.pick(&[3, 10]) * MS;
                self.clients = random.between(4, 8) as usize;
                self.patience_ns = random.pick(&[15, 40, 100]) * MS;
            }
        }
    }

    /// How a replica is set up: all alike.
    pub(crate) fn config(&self, id: ReplicaId) -> Config {
        Config { id, ..self.config.clone() }
    }

    pub(crate) fn durability(&self) -> Durability {
        self.config.durability
    }
}

fn config(random: &mut Random) -> Config {
    let mut config = Config::new(ReplicaId(0));
    config.read_mode = random.pick(&[ReadMode::Lease, ReadMode::ReadIndex]);
    config.durability = random.pick(&[Durability::Fsync, Durability::Fsync, Durability::Memory]);
    config.append_bytes_max = random.pick(&[0, 300, 1 << 20]);
    config.inflight_messages_max = random.pick(&[1, 3, 256]);
    config.inflight_bytes_max = random.pick(&[0, 1000, 1 << 20]);
    config.paced_entries_min = random.pick(&[1, 4, 1024]);
    config.uncommitted_bytes_max = random.pick(&[200, 2000, 1 << 20]);
    config.cache_bytes_max = random.pick(&[0, 1000, 1 << 20]);
    config.snapshot_chunk_bytes = random.pick(&[64, 256, 1 << 20]);
    config.pending_reads_max = random.pick(&[1, 4, 1 << 16]);
    config
}

fn quality(random: &mut Random) -> Quality {
    let mut quality = Quality::GOOD;
    quality.in_order = random.coin();
    quality.spread_ns = random.pick(&[100_000, 1_000_000, 10 * MS]);
    quality.late_permille = random.pick(&[0, 0, 10, 50]);
    quality.late_ns = random.pick(&[50, 400]) * MS;
    quality.lost_permille = random.pick(&[0, 0, 10, 50, 150]);
    quality.twice_permille = random.pick(&[0, 0, 20, 200]);
    quality
}

fn weights(random: &mut Random, focus: Focus) -> [u32; FAULTS] {
    let mut weights = [0; FAULTS];
    let mut add = |kinds: &[(Fault, u32)]| {
        for &(kind, weight) in kinds {
            weights[kind as usize] += weight;
        }
    };
    const ELECTIONS: [(Fault, u32); 5] = [
        (Fault::Split, 10),
        (Fault::OneWay, 6),
        (Fault::CutLeader, 10),
        (Fault::Pause, 8),
        (Fault::Campaign, 4),
    ];
    const LINKS: [(Fault, u32); 2] = [(Fault::BadLink, 6), (Fault::Reset, 4)];
    const CRASHES: [(Fault, u32); 3] = [(Fault::Kill, 10), (Fault::PowerCut, 6), (Fault::Blackout, 2)];
    const DISKS: [(Fault, u32); 2] = [(Fault::SlowDisk, 6), (Fault::StalledDisk, 4)];
    const CLOCKS: [(Fault, u32); 2] = [(Fault::ClockRate, 4), (Fault::WallJump, 3)];
    match focus {
        Focus::Mixed => {
            add(&ELECTIONS);
            add(&LINKS);
            add(&CRASHES);
            add(&DISKS);
            add(&CLOCKS);
            add(&[(Fault::Wipe, 3), (Fault::Transfer, 4), (Fault::LostTail, 2)]);
            add(&[(Fault::LeaseTrap, 1), (Fault::SlowAcks, 1), (Fault::TransferTrap, 1)]);
        }
        Focus::Elections => {
            add(&[(Fault::OldTerm, 8)]);
            add(&ELECTIONS);
            add(&LINKS);
            add(&CRASHES);
        }
        Focus::Votes => {
            add(&[(Fault::Campaign, 10), (Fault::HeldVote, 20), (Fault::Split, 3), (Fault::PowerCut, 3)]);
        }
        Focus::Reads => {
            add(&[(Fault::LeaseTrap, 10), (Fault::SlowAcks, 10), (Fault::TransferTrap, 10)]);
            add(&[(Fault::CutLeader, 10), (Fault::Pause, 5), (Fault::ClockRate, 5), (Fault::SlowDisk, 3)]);
        }
        Focus::Disks => {
            add(&CRASHES);
            add(&DISKS);
            add(&[(Fault::Blackout, 8), (Fault::LostTail, 8), (Fault::CutLeader, 4), (Fault::Wipe, 6)]);
        }
        Focus::Membership => {
            add(&ELECTIONS);
            add(&CRASHES);
            add(&[(Fault::Wipe, 10), (Fault::Transfer, 6), (Fault::SlowDisk, 4)]);
        }
        Focus::Snapshots => {
            add(&ELECTIONS);
            add(&CRASHES);
            add(&LINKS);
            add(&[(Fault::SlowDisk, 6), (Fault::Wipe, 4), (Fault::LongTail, 8), (Fault::LateFollower, 8)]);
        }
    }
    for weight in &mut weights {
        if random.permille(300) {
            *weight = 0;
        }
    }
    // Without any, one that is always possible.
    if weights.iter().all(|&weight| weight == 0) {
        weights[Fault::Split as usize] = 1;
    }
    weights
}
