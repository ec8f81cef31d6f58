//! Paper, figure 3: the properties that hold at all times, in small clusters to which random things happen.

use std::collections::BTreeMap;

use duva_raft::{Entry, Index, Role, Term};

use crate::network::Network;

/// A small random generator (xorshift), so that a seed tells all.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What was seen in one cluster so far.
#[derive(Default)]
struct Seen {
    leaders: BTreeMap<Term, u64>,
    leaders_log: BTreeMap<u64, (Term, Vec<Entry>)>,
    /// Each with the latest term that anyone was in when it was first seen to be committed.
    committed: BTreeMap<Index, (Entry, Term)>,
}

impl Seen {
    fn check(&mut self, network: &Network, count: u64) {
        let now = (1..=count).map(|id| network.raft(id).term()).max().unwrap_or(0);
        for (leader, term) in network.leaders() {
            // Election safety.
            assert_eq!(*self.leaders.entry(term).or_insert(leader), leader, "two leaders in term {term}");
            let log = network.entries(leader);
            match self.leaders_log.get(&leader) {
                // Leader append-only.
                Some((before_term, before)) if *before_term == term => {
                    assert_eq!(log[..before.len()], before[..], "leader {leader} changed its log");
                }
                // Leader completeness.
                _ => {
                    let earlier = self.committed.values().filter(|(_, committed)| *committed < term);
                    for (entry, _) in earlier {
                        let own = log.get(entry.index as usize - 1);
                        assert_eq!(own, Some(entry), "leader {leader} lacks an entry");
                    }
                }
            }
            self.leaders_log.insert(leader, (term, log));
        }
        for id in 1..=count {
            // State machine safety.
            for entry in network.applied(id) {
                let first = self.committed.entry(entry.index).or_insert_with(|| (entry.clone(), now));
                assert_eq!(&first.0, entry, "replica {id} applied another entry");
            }
            for other in id + 1..=count {
                log_matching(&network.entries(id), &network.entries(other));
            }
        }
    }
}

/// Log matching: from the last entry with an equal index and term on, backwards, all are equal.
fn log_matching(one: &[Entry], other: &[Entry]) {
    let pairs: Vec<_> = one.iter().zip(other).collect();
    let last = pairs.iter().rposition(|(a, b)| a.term == b.term);
    for (a, b) in &pairs[..last.map_or(0, |last| last + 1)] {
        assert_eq!(a, b, "logs that agree on a later entry");
    }
}

/// Figure 3, over random cuts, crashes, lost messages, stalled disks and proposals; and in the end, liveness.
#[test]
fn figure_3_properties_hold() {
    for seed in 1..=60_u64 {
        let count = 3 + seed % 3;
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut network = Network::new(count);
        let mut seen = Seen::default();
        let mut is_down = vec![false; count as usize + 1];
        for step in 0..120 {
            let id = 1 + random.below(count);
            match random.below(12) {
                0 => network.part(&[id], &(1..=count).filter(|&other| other != id).collect::<Vec<_>>()),
                1 | 2 => network.heal(),
                3 if !is_down[id as usize] => {
                    network.crash(id);
                    is_down[id as usize] = true;
                }
                4 | 5 if is_down[id as usize] => {
                    network.restart(id);
                    is_down[id as usize] = false;
                }
                6 => network.stall(id, random.below(2) == 0),
                7 => {
                    let lost = 1 + random.below(count);
                    network.settle_if(|message| message.to.0 != lost);
                }
                _ => {
                    let leaders = network.leaders();
                    if let Some(&(leader, _)) = leaders.get(random.below(2) as usize).or(leaders.first()) {
                        network.propose(leader, &format!("{step}")).expect("a leader takes proposals");
                    }
                }
            }
            network.run(random.below(120));
            seen.check(&network, count);
        }

        network.heal();
        for id in 1..=count {
            if is_down[id as usize] {
                network.restart(id);
            }
            network.stall(id, false);
        }
        network.run(3_000);
        let (leader, _) = network.leaders()[0];
        assert_eq!(network.raft(leader).role(), Role::Leader);
        network.propose(leader, "last").expect("a leader takes proposals");
        network.run(200);
        seen.check(&network, count);
        for id in 1..=count {
            assert_eq!(network.applied(id), network.applied(leader), "seed {seed}: replica {id}");
        }
    }
}
