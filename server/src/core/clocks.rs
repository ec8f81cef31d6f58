//! How this node's wall clock compares with those of the others, as core 0 finds out for all cores.
//!
//! Nodes tell one another the time once a second. A clock that is set forward would let keys expire that the other nodes still
//! have, for ever, if its node led their shard: time in a shard's log never goes back. Invariants:
//!
//! - The time that this node uses does not jump ahead of what a majority of the clocks it knows show, by more than
//!   `max-clock-offset`: it goes on with the monotonic clock instead. It never goes back.
//! - A node whose time is ahead of a majority's by more than twice that all the same, because it started so, does not lead.
//! - Packets that were long on their way make another's clock seem late, never early; of several the best counts.

use std::collections::BTreeMap;

use duva_net::io::Clock;

use super::{
    groups::with_heartbeats,
    node::Node,
    peer::frame::{Kind, LINK_GROUP},
};

/// How often a node tells the others its time, in nanoseconds.
const TELL_NS: u64 = 1_000_000_000;

/// For how long what was heard counts at least, in nanoseconds; twice that at the most.
const WINDOW_NS: u64 = 5_000_000_000;

/// What another node's clock shows at this node's monotonic time 0, in milliseconds, as far as is known.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// The best in this window, and in the one before.
    offset_ms: i64,
    earlier_ms: Option<i64>,
    window_ns: u64,
    heard_ns: u64,
}

/// What comes of all that was heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The time that this node may use at the most, at its monotonic time 0, in milliseconds; `None`: any.
    pub ceiling_ms: Option<i64>,
    /// Whether the time that it uses is ahead of a majority's.
    pub is_ahead: bool,
}

/// The clocks of the other nodes.
pub struct Clocks {
    offset_ms_max: i64,
    heartbeat_ns: u64,
    by_node: BTreeMap<u32, Heard>,
    tell_ns: u64,
    has_news: bool,
    verdict: Verdict,
}

/// What a clock shows at monotonic time 0.
fn offset_ms(time_ms: u64, monotonic_ns: u64) -> i64 {
    i64::try_from(time_ms).unwrap_or(i64::MAX).saturating_sub((monotonic_ns / 1_000_000) as i64)
}

impl Clocks {
    /// Nothing is known of others yet.
    pub fn new(offset_ms_max: u32, heartbeat_ns: u64) -> Self {
        Self {
            offset_ms_max: i64::from(offset_ms_max),
            heartbeat_ns,
            by_node: BTreeMap::new(),
            tell_ns: 0,
            has_news: false,
            verdict: Verdict::default(),
        }
    }

    /// When there is something to do if nothing happens before, in monotonic nanoseconds.
    pub fn next_ns(&self) -> u64 {
        self.tell_ns
    }

    /// A node said that its clock shows `time_ms`.
    fn hear(&mut self, node: u32, time_ms: u64, now_ns: u64) {
        let offset_ms = offset_ms(time_ms, now_ns);
        let fresh = Heard { offset_ms, earlier_ms: None, window_ns: now_ns, heard_ns: now_ns };
        let heard = self.by_node.entry(node).or_insert(fresh);
        if now_ns >= heard.heard_ns.saturating_add(WINDOW_NS) {
            *heard = fresh;
        } else if now_ns >= heard.window_ns.saturating_add(WINDOW_NS) {
            *heard = Heard { earlier_ms: Some(heard.offset_ms), ..fresh };
        }
        heard.offset_ms = heard.offset_ms.max(offset_ms);
        heard.heard_ns = now_ns;
        self.has_news = true;
    }

    /// What follows for a node of `nodes`, whose clock shows `wall_ms` and that uses `used_ms`.
    fn judge(&mut self, nodes: usize, wall_ms: u64, used_ms: u64, now_ns: u64) -> Verdict {
        self.by_node.retain(|_, heard| now_ns < heard.heard_ns.saturating_add(2 * WINDOW_NS));
        let others =
            self.by_node.values().map(|heard| heard.offset_ms.max(heard.earlier_ms.unwrap_or(i64::MIN)));
        let used_ms = offset_ms(used_ms, now_ns);
        let behind = others.clone().filter(|offset_ms| used_ms - offset_ms > 2 * self.offset_ms_max).count();
        let mut known: Vec<i64> = others.chain([offset_ms(wall_ms, now_ns)]).collect();
        known.sort_unstable_by(|one, other| other.cmp(one));
        // More than half of them show this, or more.
        let shown_ms = known[known.len() / 2];
        Verdict {
            ceiling_ms: (known.len() > 1).then(|| shown_ms.saturating_add(self.offset_ms_max)),
            is_ahead: behind > nodes / 2,
        }
    }
}

impl Node {
    /// Takes what another node's clock shows.
    pub(super) fn take_clock(&mut self, from: u32, payload: &[u8], now_ns: u64) {
        if let (Some(clocks), Ok(bytes)) = (&mut self.clocks, payload.try_into()) {
            clocks.hear(from, u64::from_le_bytes(bytes), now_ns);
        }
    }

    /// A link is up: who is at its other end is to know soon.
    pub(super) fn tell_clock_soon(&mut self) {
        if let Some(clocks) = &mut self.clocks {
            clocks.tell_ns = 0;
        }
    }

    /// Tells the others what the clock shows, and all cores what follows from theirs.
    pub(super) fn run_clocks(&mut self, clock: Clock) {
        let Clock { wall_ms, monotonic_ns: now_ns } = clock;
        let (Some(clocks), Some(cluster)) = (&mut self.clocks, &self.cluster) else { return };
        if clocks.tell_ns <= now_ns {
            clocks.tell_ns = with_heartbeats(now_ns, TELL_NS, clocks.heartbeat_ns);
            clocks.has_news = true;
            let until_ns = now_ns.next_multiple_of(clocks.heartbeat_ns);
            let nodes: Vec<u32> = self.peers.nodes().collect();
            for node in nodes {
                let _ = self.peers.push_unhurried((node, until_ns), Kind::Clock, 0, LINK_GROUP, |out| {
                    out.extend_from_slice(&wall_ms.to_le_bytes());
                });
            }
        }
        if !std::mem::take(&mut clocks.has_news) {
            return;
        }
        let nodes = self.peers.nodes().count() + 1;
        let verdict = clocks.judge(nodes, wall_ms, self.executor.now_ms, now_ns);
        let before = std::mem::replace(&mut clocks.verdict, verdict);
        cluster.judge_clock(verdict);
        match (before.is_ahead, verdict.is_ahead) {
            (false, true) => tracing::warn!(
                "the clock of this node was ahead of most others' when it started: it leads no shard. Set it right, and start again"
            ),
            (true, false) => tracing::info!("the clock of this node is not ahead of most others' any more"),
            _ => {}
        }
        let is_held = |verdict: Verdict| verdict.ceiling_ms.is_some_and(|it| it < offset_ms(wall_ms, now_ns));
        if is_held(verdict) && !is_held(before) {
            tracing::warn!(
                "the wall clock is ahead of most other nodes': time goes on with the monotonic clock"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const WALL_MS: u64 = 1_800_000_000_000;

    /// What clocks of others that differ from the right one by so many milliseconds make of one of `nodes` that shows `wall`
    /// and uses `used`: the ceiling over the right one, and whether it is ahead.
    fn judge(nodes: usize, others_ms: &[i64], (wall, used): (i64, i64)) -> (Option<i64>, bool) {
        let mut clocks = Clocks::new(500, 50_000_000);
        let now_ns = 100 * SECOND_NS;
        for (node, other_ms) in (2..).zip(others_ms) {
            clocks.hear(node, WALL_MS.strict_add_signed(*other_ms), now_ns);
        }
        let at = |ms| WALL_MS.strict_add_signed(ms);
        let verdict = clocks.judge(nodes, at(wall), at(used), now_ns);
        (verdict.ceiling_ms.map(|it| it - offset_ms(WALL_MS, now_ns)), verdict.is_ahead)
    }

    #[test]
    fn a_clock_that_jumps_is_held_to_a_majoritys() {
        assert_eq!(judge(3, &[], (0, 0)), (None, false));
        assert_eq!(judge(3, &[0, 3], (2, 2)), (Some(502), false));
        assert_eq!(judge(3, &[0, 3], (86_400_000, 2)), (Some(503), false));
        // With one other the later one is held to the earlier one.
        assert_eq!(judge(3, &[0], (86_400_000, 2)), (Some(500), false));
        // One that jumps holds nobody, nor lets anybody go.
        assert_eq!(judge(3, &[0, 86_400_000], (2, 2)), (Some(502), false));
        assert_eq!(judge(5, &[-9000, 86_400_000, 4, 3], (2, 2)), (Some(503), false));
    }

    #[test]
    fn who_started_ahead_of_a_majority_does_not_lead() {
        assert_eq!(judge(3, &[0, 3], (2, 1003)), (Some(502), false));
        assert_eq!(judge(3, &[0, 3], (2, 1004)), (Some(502), true));
        // Of one other nobody knows which is right.
        assert!(!judge(3, &[0], (86_400_000, 86_400_000)).1);
        assert!(!judge(2, &[0], (86_400_000, 86_400_000)).1);
        assert!(!judge(5, &[0, 0], (86_400_000, 86_400_000)).1);
        assert!(judge(5, &[0, 0, 0], (86_400_000, 86_400_000)).1);
    }

    #[test]
    fn late_packets_do_not_count_and_old_ones_are_forgotten() {
        let mut clocks = Clocks::new(500, 50_000_000);
        let shown_ms = |second: u64| WALL_MS + second * 1000;
        let ceiling_ms = |clocks: &mut Clocks, second: u64| {
            let verdict = clocks.judge(2, shown_ms(second) + 90_000, shown_ms(second), second * SECOND_NS);
            verdict.ceiling_ms.map(|it| it - offset_ms(WALL_MS, 0))
        };
        clocks.hear(2, shown_ms(1), SECOND_NS);
        // Each of these was three seconds on its way.
        for second in 2..=9 {
            clocks.hear(2, shown_ms(second) - 3000, second * SECOND_NS);
            assert_eq!(ceiling_ms(&mut clocks, second), Some(500), "{second}");
        }
        for second in 10..=15 {
            clocks.hear(2, shown_ms(second) - 3000, second * SECOND_NS);
        }
        assert_eq!(ceiling_ms(&mut clocks, 15), Some(500 - 3000));
        assert_eq!(ceiling_ms(&mut clocks, 24), Some(500 - 3000));
        assert_eq!(ceiling_ms(&mut clocks, 25), None);
    }
}
