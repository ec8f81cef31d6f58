//! How this node's wall clock compares with those of the others, as core 0 finds out for all cores. What nodes say of their clocks
//! also says whether they can keep anything.
//!
//! Nodes tell one another the time once a second. A clock that is set forward would let keys expire that the other nodes still
//! have, for ever, if its node led their shard: time in a shard's log never goes back. Invariants:
//!
//! - The time that this node gives its shards is not ahead of what a majority of the clocks it knows show, by more than
//!   `max-clock-offset`, whatever its own clock shows.
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

/// The flag of who can keep nothing, because a journal of it has failed.
const BROKEN: u8 = 1;

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

/// The clocks of the other nodes.
pub struct Clocks {
    offset_ms_max: i64,
    heartbeat_ns: u64,
    by_node: BTreeMap<u32, Heard>,
    tell_ns: u64,
    has_news: bool,
    /// The time that shards may be given at the most, at monotonic time 0, in milliseconds; `None`: any.
    ceiling_ms: Option<i64>,
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
            ceiling_ms: None,
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

    /// The time that shards may be given at the most by a node whose clock shows `wall_ms`, at monotonic time 0; `None`: any.
    fn judge(&mut self, wall_ms: u64, now_ns: u64) -> Option<i64> {
        self.by_node.retain(|_, heard| now_ns < heard.heard_ns.saturating_add(2 * WINDOW_NS));
        let others =
            self.by_node.values().map(|heard| heard.offset_ms.max(heard.earlier_ms.unwrap_or(i64::MIN)));
        let mut known: Vec<i64> = others.chain([offset_ms(wall_ms, now_ns)]).collect();
        known.sort_unstable_by(|one, other| other.cmp(one));
        // More than half of them show this, or more.
        let shown_ms = known[known.len() / 2];
        (known.len() > 1).then(|| shown_ms.saturating_add(self.offset_ms_max))
    }
}

impl Node {
    /// Takes what another node's clock shows, and whether it can keep anything.
    pub(super) fn take_clock(&mut self, from: u32, flags: u8, payload: &[u8], now_ns: u64) {
        let is_broken = flags & BROKEN != 0;
        if self.cluster.as_ref().is_some_and(|cluster| cluster.set_broken(from, is_broken)) {
            if is_broken {
                tracing::warn!(node = from, "a node's journal has failed: it is given nothing to lead");
            } else {
                tracing::info!(node = from, "a node can keep again what it is given");
            }
        }
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

    /// Tells the others what this node's own clock shows, and all cores what follows from theirs.
    pub(super) fn run_clocks(&mut self, clock: Clock) {
        let Clock { wall_ms, monotonic_ns: now_ns } = clock;
        let (Some(clocks), Some(cluster)) = (&mut self.clocks, &self.cluster) else { return };
        if clocks.tell_ns <= now_ns {
            clocks.tell_ns = with_heartbeats(now_ns, TELL_NS, clocks.heartbeat_ns);
            clocks.has_news = true;
            let own = self.peers.identity().map_or(0, |own| own.number);
            let flags = if cluster.broken().contains(&own) { BROKEN } else { 0 };
            let nodes: Vec<u32> = self.peers.nodes().collect();
            for node in nodes {
                let _ = self.peers.push(node, Kind::Clock, flags, LINK_GROUP, |out| {
                    out.extend_from_slice(&wall_ms.to_le_bytes());
                });
            }
        }
        if !std::mem::take(&mut clocks.has_news) {
            return;
        }
        // Who hears of nobody for a while holds to what it knew.
        let last_ms = clocks.ceiling_ms.filter(|_| self.peers.nodes().next().is_some());
        let ceiling_ms = clocks.judge(wall_ms, now_ns).or(last_ms);
        let before_ms = std::mem::replace(&mut clocks.ceiling_ms, ceiling_ms);
        cluster.set_ceiling(ceiling_ms);
        let is_held = |ceiling_ms: Option<i64>| ceiling_ms.is_some_and(|it| it < offset_ms(wall_ms, now_ns));
        if is_held(ceiling_ms) && !is_held(before_ms) {
            tracing::warn!(
                "the clock of this node is ahead of most others': its shards' time follows theirs"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const WALL_MS: u64 = 1_800_000_000_000;

    /// What clocks of others that differ from the right one by so many milliseconds make of one that shows `wall`: the
    /// ceiling over the right one.
    fn ceiling_ms(others_ms: &[i64], wall: i64) -> Option<i64> {
        let mut clocks = Clocks::new(500, 50_000_000);
        let now_ns = 100 * SECOND_NS;
        let at = |ms| WALL_MS.strict_add_signed(ms);
        for (node, other_ms) in (2..).zip(others_ms) {
            clocks.hear(node, at(*other_ms), now_ns);
        }
        clocks.judge(at(wall), now_ns).map(|it| it - offset_ms(WALL_MS, now_ns))
    }

    #[test]
    fn a_clock_is_held_to_a_majoritys() {
        assert_eq!(ceiling_ms(&[], 0), None);
        assert_eq!(ceiling_ms(&[0, 3], 2), Some(502));
        assert_eq!(ceiling_ms(&[0, 3], 86_400_000), Some(503));
        // With one other the later one is held to the earlier one.
        assert_eq!(ceiling_ms(&[0], 86_400_000), Some(500));
        // One that jumps holds nobody, nor lets anybody go.
        assert_eq!(ceiling_ms(&[0, 86_400_000], 2), Some(502));
        assert_eq!(ceiling_ms(&[0, -86_400_000], 2), Some(500));
        assert_eq!(ceiling_ms(&[-9000, 86_400_000, 4, 3], 2), Some(503));
    }

    #[test]
    fn late_packets_do_not_count_and_old_ones_are_forgotten() {
        let mut clocks = Clocks::new(500, 50_000_000);
        let shown_ms = |second: u64| WALL_MS + second * 1000;
        let ceiling_ms = |clocks: &mut Clocks, second: u64| {
            let ceiling_ms = clocks.judge(shown_ms(second) + 90_000, second * SECOND_NS);
            ceiling_ms.map(|it| it - offset_ms(WALL_MS, 0))
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
