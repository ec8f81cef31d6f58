//! What must be true after the last fault, and the judgement of all that clients were answered.

use std::collections::BTreeMap;

use duva_engine::{Cursor, Shard, Value};
use duva_tools::linearizability;

use super::{boot::SHARDS, client::Client, run::Run, session::SessionClient};

/// How long after the last fault every shard may be without a leader that all nodes know, in nanoseconds: links that died in
/// silence are given up after five seconds, and dialled again within another.
const LEADERLESS_NS_MAX: u64 = 12_000_000_000;

/// How long it may take to let a node in that takes the place of another, and to bring it what it is to have, in nanoseconds.
const REPLACED_NS_MAX: u64 = 60_000_000_000;

/// How long clients may take to be told what they still wait for, and to read everything, in nanoseconds.
const ANSWERS_NS_MAX: u64 = 60_000_000_000;

/// How long replicas may take to hold the same, in nanoseconds.
const CATCH_UP_NS_MAX: u64 = 30_000_000_000;

/// Entries that are visited at a time.
const SCAN_MAX: usize = 1 << 20;

/// What a replica holds: of each key the value and the deadline, and the records of ONCE.
#[derive(PartialEq, Eq)]
struct Content {
    keys: BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>,
    once: Vec<u8>,
}

impl Run {
    /// Nothing goes wrong any more: every shard gets a leader, every client its replies, every replica what it lacks.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        self.calm()?;
        if self.lost.is_some() {
            self.until(REPLACED_NS_MAX, "a node is replaced", |run| {
                run.forget_lost();
                run.is_formed() && run.has_wanted_replicas()
            })
            .map_err(|error| format!("{error}\n{}", self.replicas()))?;
        }
        self.until(LEADERLESS_NS_MAX, "every shard has a leader that all nodes know", |run| run.is_led())
            .map_err(|error| format!("{error}\n{}", self.replicas()))?;
        self.until(ANSWERS_NS_MAX, "every client is answered", |run| run.are_clients_done())
            .map_err(|error| format!("{error}\n{}", self.replicas()))?;
        for node in 0..self.nodes.len() {
            self.mend(node)?;
        }
        let now_ns = self.now_ns();
        let first = self.clients.len();
        {
            let random = &mut self.world.borrow_mut().random;
            let members = (0..self.nodes.len()).filter(|&node| self.nodes[node].is_member);
            let manner = self.manner;
            let readers = members.map(|node| Client::reader(first + node, node, manner, random, now_ns));
            self.clients.extend(readers);
        }
        self.until(ANSWERS_NS_MAX, "every key is read at every node", |run| run.are_clients_done())?;
        self.until(CATCH_UP_NS_MAX, "every command over several shards has ended", |run| {
            run.has_ended_all()
        })?;
        self.until(CATCH_UP_NS_MAX, "all replicas have applied the same", |run| run.is_level())
            .map_err(|error| format!("{error}\n{}", self.replicas()))?;
        self.compare()
    }

    /// One order must explain everything that was answered.
    pub(super) fn judge(&mut self) -> Result<(), String> {
        for node in 0..self.nodes.len() {
            self.count(node);
        }
        let mut history = Vec::new();
        for client in &mut self.clients {
            history.append(&mut client.history);
            let counts = client.counts;
            self.summary.requests += counts.requests;
            self.summary.replies += counts.replies;
            self.summary.refused += counts.refused;
            self.summary.early += counts.early;
            self.summary.without_room += counts.without_room;
            self.summary.uncertain += counts.uncertain;
            self.summary.lost += counts.lost;
            self.summary.retried += counts.retried;
            self.summary.moved += counts.moved;
            self.summary.crossed += counts.crossed;
            self.summary.shelved += counts.shelved;
            self.summary.flushes += counts.flushes;
        }
        for session in &mut self.sessions {
            history.append(&mut session.take_history());
            self.summary.requests += session.requests;
        }
        self.sessions.iter().try_for_each(|session| session.judge(&history, &self.finals))?;
        match linearizability::check(&history) {
            Ok(()) => Ok(()),
            Err(violation) if violation.is_undecided => {
                self.summary.undecided += 1;
                Ok(())
            }
            Err(violation) => Err(violation.to_string()),
        }
    }

    fn are_clients_done(&self) -> bool {
        let now_ns = self.now_ns();
        self.clients.iter().all(|client| client.is_done(now_ns))
            && self.sessions.iter().all(SessionClient::is_done)
    }

    /// Has the lost node forgotten, if somebody still knows it: who has said otherwise had just started.
    fn forget_lost(&mut self) {
        let knows = |id: &[u8; 16]| {
            let metas = self.members().filter_map(|node| node.cores.first()?.core.node().meta.as_ref());
            metas.into_iter().any(|meta| meta.state().number_of(id).is_some())
        };
        if let Some(id) = self.lost.filter(|id| self.operator.is_done() && knows(id)) {
            self.operator.forget(id);
        }
    }

    /// Whether every shard has as many replicas as it should have, and no more.
    fn has_wanted_replicas(&self) -> bool {
        let groups = self.nodes.iter().flat_map(|node| &node.cores).flat_map(|core| &core.core.node().groups);
        let mut counts = [0; SHARDS as usize];
        groups.flat_map(|groups| groups.replicas()).for_each(|(shard, _)| counts[usize::from(shard)] += 1);
        counts == [self.replicas_wanted(); SHARDS as usize]
    }

    /// Whether no replica has a key locked, or anything else of a command over several shards.
    fn has_ended_all(&self) -> bool {
        let cores = self.nodes.iter().flat_map(|node| &node.cores);
        let mut shards = cores.flat_map(|core| core.core.node().executor.shards.iter());
        shards.all(|shard| shard.transactions().is_empty())
    }

    /// Whether all replicas of each shard know the same leader, which knows it, too. Those whose journals have failed keep no
    /// terms, and are not to lead.
    pub(super) fn is_led(&self) -> bool {
        let mut leaders: BTreeMap<u16, Vec<(Option<u64>, u64)>> = BTreeMap::new();
        for core in self.nodes.iter().flat_map(|node| &node.cores) {
            let has_lost = core.has_lost_journal();
            for (shard, raft) in core.core.node().groups.iter().flat_map(|groups| groups.replicas()) {
                let leader = raft.leader().map(|leader| leader.0);
                if !has_lost {
                    leaders.entry(shard).or_default().push((leader, raft.term()));
                } else if raft.leader() == Some(raft.id()) {
                    return false;
                }
            }
        }
        let is_known = |known: &Vec<(Option<u64>, u64)>| {
            known.len() > self.replicas_wanted() / 2
                && known[0].0.is_some()
                && known.iter().all(|it| *it == known[0])
        };
        (0..SHARDS).all(|shard| leaders.get(&shard).is_some_and(is_known))
    }

    /// Whether all replicas of each shard have applied the same entries, which are all that there are.
    fn is_level(&self) -> bool {
        let mut applied: BTreeMap<u16, Vec<[u64; 3]>> = BTreeMap::new();
        for core in self.nodes.iter().flat_map(|node| &node.cores) {
            for (shard, raft) in core.core.node().groups.iter().flat_map(|groups| groups.replicas()) {
                let indexes = [raft.applied_index(), raft.commit_index(), raft.last_index()];
                applied.entry(shard).or_default().push(indexes);
            }
        }
        let is_level = |indexes: &Vec<[u64; 3]>| {
            let first = indexes[0][0];
            indexes.len() == self.replicas_wanted() && indexes.iter().flatten().all(|&index| index == first)
        };
        applied.len() == usize::from(SHARDS) && applied.values().all(is_level)
    }

    /// How all replicas are, for people.
    pub(super) fn replicas(&self) -> String {
        let mut lines = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            for core in &node.cores {
                if let Some(meta) = &core.core.node().meta {
                    lines.push(format!(
                        "node {} applied {} of {} of the meta group, led by {:?}: nodes {:?}, {:?}",
                        number + 1,
                        meta.raft().applied_index(),
                        meta.raft().last_index(),
                        meta.leader(),
                        meta.state().nodes.keys().collect::<Vec<_>>(),
                        meta.state().placement
                    ));
                }
                for (shard, raft) in core.core.node().groups.iter().flat_map(|groups| groups.replicas()) {
                    lines.push(format!(
                        "shard {shard} at node {} as {:?}: {:?} in term {}, leader {:?}, applied {}, committed {}, first {}, last {}, {:?}, {:?}",
                        number + 1,
                        raft.id(),
                        raft.role(),
                        raft.term(),
                        raft.leader(),
                        raft.applied_index(),
                        raft.commit_index(),
                        raft.first_index(),
                        raft.last_index(),
                        raft.membership(),
                        raft.peers().collect::<Vec<_>>()
                    ));
                }
            }
        }
        lines.sort();
        lines.join("\n")
    }

    /// All replicas of a shard must hold the same.
    fn compare(&mut self) -> Result<(), String> {
        let mut seen: BTreeMap<u16, Content> = BTreeMap::new();
        for (number, node) in self.nodes.iter_mut().enumerate() {
            for core in &mut node.cores {
                let node = core.core.node_mut();
                let shards = &mut node.executor.shards;
                let slot_shift = shards.slot_shift();
                let has_replica = |shard: &Shard| {
                    let place = usize::from(shard.slots().start >> slot_shift);
                    node.groups.as_ref().is_some_and(|groups| !groups.is_idle(place))
                };
                for shard in shards.iter_mut().filter(|shard| has_replica(shard)) {
                    let name = shard.slots().start;
                    let content = content_of(shard);
                    let values = content.keys.iter().map(|(key, (value, _))| (key.clone(), value.clone()));
                    self.finals.extend(values);
                    match seen.get(&name) {
                        None => drop(seen.insert(name, content)),
                        Some(first) if *first == content => {}
                        Some(first) => return Err(difference(first, &content, number + 1)),
                    }
                }
            }
        }
        Ok(())
    }
}

fn content_of(shard: &mut Shard) -> Content {
    let mut content = Content { keys: BTreeMap::new(), once: Vec::new() };
    let from = Cursor::of_slot(shard.slots().start);
    let now_ms = shard.time_ms();
    let rest = shard.scan(0, from, SCAN_MAX, SCAN_MAX, now_ms, |entry| {
        let Value::String(value) = entry.value();
        content.keys.insert(entry.key().to_vec(), (value.to_vec(), entry.deadline_ms()));
    });
    assert!(rest.is_none(), "a shard has more keys than clients use");
    let mut records = shard.once_snapshot();
    while records.next(|bytes| content.once.extend_from_slice(bytes)).is_some() {}
    content
}

fn difference(first: &Content, other: &Content, node: usize) -> String {
    let names = first.keys.keys().chain(other.keys.keys());
    let differs = names.into_iter().find(|name| first.keys.get(*name) != other.keys.get(*name));
    match differs {
        Some(name) => format!(
            "node 1 and node {node} hold other values of {}: {:?} and {:?}",
            name.escape_ascii(),
            first.keys.get(name),
            other.keys.get(name)
        ),
        None => format!(
            "node 1 and node {node} hold other records of ONCE: {} and {} bytes",
            first.once.len(),
            other.once.len()
        ),
    }
}
