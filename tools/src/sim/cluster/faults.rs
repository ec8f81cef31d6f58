//! What goes wrong between and below the nodes of a run, and when it is right again.

use crate::sim::{random::Random, world::Crash};

/// How fast clocks may run too slow or too fast, in millionths: by far more than they do, and less than leases allow for.
pub(super) const DRIFT_PPM_MAX: u64 = 50_000;

/// The longest that something stays wrong, in nanoseconds: longer than elections take, sometimes longer than links live.
const SHORT_NS_MAX: u64 = 1_500_000_000;
const LONG_NS_MAX: u64 = 9_000_000_000;

/// How often what goes wrong: by weight.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    cut: u64,
    link: u64,
    stop: u64,
    crash: u64,
    clock: u64,
    pub(super) disk: u64,
    replacement: u64,
    /// The longest pause between two faults, in nanoseconds.
    pause_ns: u64,
    /// Whether machines lose their power as well: what was not synced is gone.
    has_power_losses: bool,
    /// Whether more than one node may be down at a time.
    is_harsh: bool,
}

/// What happens at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// The next fault is chosen.
    Choose,
    /// The way from one node to another is free again.
    Free(usize, usize),
    /// A node ends.
    End(usize),
    /// It starts again.
    Start(usize),
    /// It is replaced by a version of this feature level.
    Change(usize, u16),
    /// A new node takes the place of one that is gone for good, on this machine.
    Replace(usize),
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskFault {
    /// What is to be synced next is not, of one journal.
    Sync,
    /// The same of all journals.
    Syncs,
    /// What is to be written next is not, or not all of it.
    Write,
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// These ways are cut for so long.
    Cut(Vec<(usize, usize)>, u64),
    /// Some links break.
    Break,
    /// A node's process is stopped for so long.
    Stop(usize, u64),
    /// It ends, and starts again after so long.
    Crash(usize, Crash, u64),
    /// A node's wall clock jumps by so many milliseconds.
    Jump(usize, i64),
    /// A node's clocks run too fast from now on, by so many millionths, or too slow.
    Drift(usize, i64),
    /// These nodes' disks are full for so long.
    FullDisks(Vec<usize>, u64),
    /// A node's disk fails, and after so long it ends like this, and starts again.
    FailingDisk(usize, DiskFault, Crash, u64),
    /// A node is gone, with its disk; after so long another one takes its place.
    Loss(usize, u64),
}

/// What a fault can happen to.
pub(super) struct Target {
    /// The node's machine.
    pub(super) node: usize,
    /// Whether it runs and nothing is decided about it.
    pub(super) is_whole: bool,
}

impl Weights {
    /// How this seed's run fails.
    pub(super) fn choose(random: &mut Random, may_lose_power: bool) -> Self {
        Self {
            cut: random.pick(&[0, 2, 4]),
            link: random.pick(&[0, 1, 2]),
            stop: random.pick(&[0, 1, 3]),
            crash: random.pick(&[0, 1, 3]),
            clock: random.pick(&[0, 1]),
            disk: random.pick(&[0, 0, 1, 3]),
            replacement: random.pick(&[0, 0, 1]),
            pause_ns: random.pick(&[400_000_000, 1_500_000_000]),
            has_power_losses: may_lose_power,
            is_harsh: random.one_in(3),
        }
    }

    /// How long until the next fault.
    pub(super) fn pause_ns(&self, random: &mut Random) -> u64 {
        random.between(self.pause_ns / 10, self.pause_ns)
    }

    /// The next fault. `may_lose` says whether a node may be lost for good.
    pub(super) fn next(&self, random: &mut Random, targets: &[Target], may_lose: bool) -> Option<Fault> {
        let total = self.cut + self.link + self.stop + self.crash + self.clock + self.disk + self.replacement;
        if total == 0 {
            return None;
        }
        let &Target { node, is_whole } = &targets[random.index(targets.len())];
        let are_all_whole = targets.iter().all(|target| target.is_whole);
        let may_end = is_whole && (self.is_harsh || are_all_whole);
        let longest_ns = if random.one_in(4) { LONG_NS_MAX } else { SHORT_NS_MAX };
        let lasts_ns = random.between(20_000_000, longest_ns);
        let mut place = random.below(total);
        let mut is_it = |weight: u64| {
            let is_it = place < weight;
            place = place.wrapping_sub(weight);
            is_it
        };
        if is_it(self.cut) {
            let nodes: Vec<usize> = targets.iter().map(|target| target.node).collect();
            return Some(Fault::Cut(ways(random, node, &nodes), lasts_ns));
        }
        if is_it(self.link) {
            return Some(Fault::Break);
        }
        if is_it(self.stop) {
            return Some(Fault::Stop(node, lasts_ns));
        }
        if is_it(self.crash) {
            return may_end.then(|| Fault::Crash(node, self.crash(random), lasts_ns));
        }
        if is_it(self.disk) {
            if random.one_in(2) {
                let are_all = random.one_in(3);
                let nodes = targets.iter().map(|target| target.node).filter(|&it| are_all || it == node);
                return Some(Fault::FullDisks(nodes.collect(), lasts_ns));
            }
            let fault = random.pick(&[DiskFault::Sync, DiskFault::Sync, DiskFault::Syncs, DiskFault::Write]);
            return may_end.then(|| Fault::FailingDisk(node, fault, self.crash(random), lasts_ns));
        }
        if is_it(self.replacement) {
            return (may_lose && are_all_whole).then_some(Fault::Loss(node, lasts_ns));
        }
        if random.one_in(2) {
            let drift_ppm = random.below(2 * DRIFT_PPM_MAX + 1) as i64 - DRIFT_PPM_MAX as i64;
            return Some(Fault::Drift(node, drift_ppm));
        }
        let jump_ms = random.pick(&[50, 2_000, 100_000]);
        Some(Fault::Jump(node, random.below(2 * jump_ms + 1) as i64 - jump_ms as i64))
    }

    /// How a node ends.
    fn crash(&self, random: &mut Random) -> Crash {
        if self.has_power_losses && random.one_in(2) { Crash::PowerLoss } else { Crash::Kill }
    }
}

/// Ways that are cut together: from and to one node, in one direction, to one other, or all of them.
fn ways(random: &mut Random, node: usize, nodes: &[usize]) -> Vec<(usize, usize)> {
    let others: Vec<usize> = nodes.iter().copied().filter(|&other| other != node).collect();
    let other = others[random.index(others.len())];
    match random.below(7) {
        0 | 1 => others.iter().flat_map(|&other| [(node, other), (other, node)]).collect(),
        2 => others.iter().map(|&other| (node, other)).collect(),
        3 => others.iter().map(|&other| (other, node)).collect(),
        4 => vec![(node, other), (other, node)],
        5 => vec![(node, other)],
        _ => nodes
            .iter()
            .flat_map(|&from| nodes.iter().map(move |&to| (from, to)))
            .filter(|(from, to)| from != to)
            .collect(),
    }
}
