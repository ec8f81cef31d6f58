//! What goes wrong between and below the nodes of a run, and when it is right again.

use crate::sim::{random::Random, world::Crash};

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
            pause_ns: random.pick(&[400_000_000, 1_500_000_000]),
            has_power_losses: may_lose_power,
            is_harsh: random.one_in(3),
        }
    }

    /// How long until the next fault.
    pub(super) fn pause_ns(&self, random: &mut Random) -> u64 {
        random.between(self.pause_ns / 10, self.pause_ns)
    }

    /// The next fault. `is_whole` says of each node whether it runs and nothing is decided about it.
    pub(super) fn next(&self, random: &mut Random, is_whole: &[bool]) -> Option<Fault> {
        let total = self.cut + self.link + self.stop + self.crash + self.clock;
        if total == 0 {
            return None;
        }
        let node = random.index(is_whole.len());
        let longest_ns = if random.one_in(4) { LONG_NS_MAX } else { SHORT_NS_MAX };
        let lasts_ns = random.between(20_000_000, longest_ns);
        let mut place = random.below(total);
        let mut is_it = |weight: u64| {
            let is_it = place < weight;
            place = place.wrapping_sub(weight);
            is_it
        };
        if is_it(self.cut) {
            return Some(Fault::Cut(ways(random, node, is_whole.len()), lasts_ns));
        }
        if is_it(self.link) {
            return Some(Fault::Break);
        }
        if is_it(self.stop) {
            return Some(Fault::Stop(node, lasts_ns));
        }
        if is_it(self.crash) {
            let may_end = is_whole[node] && (self.is_harsh || is_whole.iter().all(|&is_whole| is_whole));
            let loses_power = self.has_power_losses && random.one_in(2);
            let crash = if loses_power { Crash::PowerLoss } else { Crash::Kill };
            return may_end.then_some(Fault::Crash(node, crash, lasts_ns));
        }
        let jump_ms = random.pick(&[50, 2_000, 100_000]);
        Some(Fault::Jump(node, random.below(2 * jump_ms + 1) as i64 - jump_ms as i64))
    }
}

/// Ways that are cut together: from and to one node, in one direction, to one other, or all of them.
fn ways(random: &mut Random, node: usize, nodes: usize) -> Vec<(usize, usize)> {
    let others = || (0..nodes).filter(move |&other| other != node);
    let other = (node + 1 + random.index(nodes - 1)) % nodes;
    match random.below(7) {
        0 | 1 => others().flat_map(|other| [(node, other), (other, node)]).collect(),
        2 => others().map(|other| (node, other)).collect(),
        3 => others().map(|other| (other, node)).collect(),
        4 => vec![(node, other), (other, node)],
        5 => vec![(node, other)],
        _ => {
            (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))).filter(|(a, b)| a != b).collect()
        }
    }
}
