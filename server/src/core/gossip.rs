//! Which nodes can be reached, as core 0 finds out for all cores.
//!
//! The failure detector's packets travel on the links of core 0. Of a node that it has heard nothing of the state of the link
//! tells: one that has been missing for `ttl` is down. Invariants:
//!
//! - It informs only: views show it to clients, and nothing else asks.
//! - What is shared changes only when what is known does.

use std::collections::BTreeMap;

use super::{
    cluster_shared::Liveness,
    node::Node,
    peer::frame::{Kind, LINK_GROUP},
};
use crate::cluster::detector::{Detector, Health};

/// What is due is done at multiples of this, in nanoseconds: with heartbeats, if those are sent as often as by default.
const GRAIN_NS: u64 = 50_000_000;

/// This node's part in finding out who is there.
pub struct Gossip {
    detector: Detector,
    timeout_ns: u64,
    /// Since when there is no link to a node, in monotonic nanoseconds.
    lost_since_ns: BTreeMap<u32, u64>,
    /// When a node's own packet came last: it is not down, whatever others say.
    heard_ns: BTreeMap<u32, u64>,
    /// When a link will have been missing for long enough.
    look_ns: u64,
    /// Whether something may have changed since it was shared.
    has_news: bool,
}

impl Gossip {
    /// Nobody is known yet. A node is down that is missing for `timeout_ms`.
    pub fn new(detector: Detector, timeout_ms: u32) -> Self {
        Self {
            detector,
            timeout_ns: u64::from(timeout_ms) * 1_000_000,
            lost_since_ns: BTreeMap::new(),
            heard_ns: BTreeMap::new(),
            look_ns: u64::MAX,
            has_news: true,
        }
    }

    /// When there is something to do if nothing happens before.
    pub fn next_ns(&self) -> u64 {
        let at_ns = self.detector.next_ns().min(self.look_ns);
        at_ns.checked_next_multiple_of(GRAIN_NS).unwrap_or(u64::MAX)
    }

    /// Whether a packet of the node's own came within the time after which a silent one is down.
    fn has_spoken(&self, node: u32, now_ns: u64) -> bool {
        self.heard_ns.get(&node).is_some_and(|heard_ns| now_ns < heard_ns.saturating_add(self.timeout_ns))
    }

    /// What is known of the other nodes, given for each whether there is a link to it.
    fn look(&mut self, links: impl Iterator<Item = (u32, bool)>, now_ns: u64) -> Liveness {
        let heard: BTreeMap<u32, Health> = self.detector.healths().collect();
        let mut liveness = Liveness::default();
        self.look_ns = u64::MAX;
        let mut lost_since_ns = BTreeMap::new();
        for (node, is_linked) in links {
            let mut health = Health::Up;
            if !is_linked {
                let since_ns = self.lost_since_ns.get(&node).copied().unwrap_or(now_ns);
                lost_since_ns.insert(node, since_ns);
                liveness.unlinked.insert(node);
                let due_ns = since_ns.saturating_add(self.timeout_ns);
                if due_ns <= now_ns {
                    health = Health::Down;
                } else {
                    health = Health::Suspected;
                    self.look_ns = self.look_ns.min(due_ns);
                }
            }
            // Others may reach it although this node does not.
            match heard.get(&node) {
                Some(Health::Up) if !is_linked => health = Health::Suspected,
                Some(Health::Down) if self.has_spoken(node, now_ns) => {}
                Some(heard) => health = *heard,
                None => {}
            }
            liveness.alive.insert(node, health != Health::Down);
            if health == Health::Suspected {
                liveness.suspected.insert(node);
            }
        }
        self.lost_since_ns = lost_since_ns;
        liveness
    }
}

impl Node {
    /// Takes a packet of another node's failure detector.
    pub(super) fn take_gossip(&mut self, from: u32, payload: &[u8], now_ns: u64) {
        let Some(gossip) = &mut self.gossip else { return };
        gossip.has_news = true;
        gossip.heard_ns.insert(from, now_ns);
        if let Err(error) = gossip.detector.take(from, payload, now_ns) {
            tracing::debug!(node = from, "{error}");
        }
    }

    /// The link to a node is up, or is not any more.
    pub(super) fn link_has_changed(&mut self, node: u32, is_up: bool, now_ns: u64) {
        let Some(gossip) = &mut self.gossip else { return };
        gossip.has_news = true;
        if is_up {
            gossip.detector.greet(node, now_ns);
        }
    }

    /// Does what is due, sends packets, and shares what is known.
    pub(super) fn run_gossip(&mut self, now_ns: u64) {
        let (Some(gossip), Some(cluster)) = (&mut self.gossip, &self.cluster) else { return };
        if gossip.next_ns() <= now_ns {
            gossip.detector.tick(now_ns);
            gossip.has_news = true;
        }
        if !std::mem::take(&mut gossip.has_news) {
            return;
        }
        if let Some(view) = &self.cluster_view {
            gossip.detector.set_last_number(view.state.nodes.keys().next_back().copied().unwrap_or(0));
        }
        for packet in gossip.detector.take_packets() {
            // Without a link it is lost, as packets may be.
            let write = |out: &mut Vec<u8>| out.extend_from_slice(&packet.bytes);
            let _ = self.peers.push(packet.to, Kind::Gossip, 0, LINK_GROUP, write);
        }
        let links: Vec<(u32, bool)> = self.peers.nodes().map(|node| (node, self.peers.is_up(node))).collect();
        let liveness = gossip.look(links.into_iter(), now_ns);
        cluster.set_alive(liveness);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn gossip() -> Gossip {
        Gossip::new(Detector::new(1, 1, 100, 1500, 1), 1500)
    }

    #[test]
    fn links_tell_until_somebody_says_something() {
        let mut gossip = gossip();
        let look = |gossip: &mut Gossip, is_linked, now_ms: u64| {
            let liveness = gossip.look([(2, is_linked)].into_iter(), now_ms * MS);
            (liveness.alive[&2], liveness.suspected.contains(&2), liveness.unlinked.contains(&2))
        };
        assert_eq!(look(&mut gossip, false, 1000), (true, true, true));
        assert_eq!(gossip.next_ns(), 2500 * MS);
        assert_eq!(look(&mut gossip, false, 2499), (true, true, true));
        assert_eq!(look(&mut gossip, false, 2500), (false, false, true));
        assert_eq!(look(&mut gossip, true, 2600), (true, false, false));
        assert_eq!(gossip.next_ns(), u64::MAX);
        assert_eq!(look(&mut gossip, false, 2700), (true, true, true));
    }

    #[test]
    fn what_nodes_say_counts_more_than_the_own_link() {
        let (mut one, mut two) = (gossip(), Detector::new(2, 1, 100, 1500, 2));
        two.greet(1, 0);
        for packet in two.take_packets() {
            one.detector.take(2, &packet.bytes, 0).unwrap();
        }
        let liveness = one.look([(2, false), (3, false)].into_iter(), 0);
        assert!(liveness.alive[&2] && liveness.suspected.contains(&2));
        let liveness = one.look([(2, false), (3, false)].into_iter(), 10_000 * MS);
        assert_eq!((liveness.alive[&2], liveness.alive[&3]), (true, false));
        // Nobody answers: it is suspected, then down.
        for now_ms in (0..3000).step_by(50) {
            one.detector.tick(now_ms * MS);
        }
        let liveness = one.look([(2, true)].into_iter(), 3000 * MS);
        assert!(!liveness.alive[&2] && !liveness.unlinked.contains(&2));
    }
}
