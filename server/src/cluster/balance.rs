//! Where replicas and preferred leaders should be: the next step from the present placement to a balanced one.
//!
//! Invariants:
//! - A step follows from the state and the caller's answers alone, so a new meta leader goes on where the last one stopped.
//! - A shard's list grows before it shrinks: a replica is taken off only when every one that stays is caught up. Until
//!   then the list is one longer than it is meant to be.
//! - A replica that stays keeps its id and its place in the list, unless the preferred leader changes.
//! - What is on a node that is down, but not yet given up, stays there: only what others do is weighed against one
//!   another, so that a node which comes back soon finds everything as it was.
//! - A favoured node is the preferred leader of all that it has replicas of; only what it has none of is spread.
//! - When nothing is left to do there is no step: every shard has as many replicas as the replication factor says, or as there
//!   are nodes; on nodes that are up, replicas differ by one at most, and so do preferred leaders.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use duva_raft::ReplicaId;

use super::{
    meta::{MetaCommand, MetaState},
    node_of, replica,
};

/// The next step, as one command; `None` if there is nothing to do, or nothing until somebody is caught up or comes back.
///
/// `alive` says whether a node is up. `dead_for_replacement` lists the nodes whose replicas should move away: those that
/// have been down too long, and those that are about to leave. `is_caught_up` says whether a shard's replica has what its
/// leader has, as far as the leader knows; it is true of the leader itself.
pub fn plan(
    state: &MetaState,
    alive: &dyn Fn(u32) -> bool,
    dead_for_replacement: &[u32],
    is_caught_up: &dyn Fn(u16, ReplicaId) -> bool,
) -> Option<MetaCommand> {
    let nodes = Nodes::new(state, alive, dead_for_replacement);
    let targets = targets(state, &nodes);
    let mut next: Vec<Vec<ReplicaId>> = (0..)
        .zip(state.placement.iter().zip(&targets))
        .map(|(shard, (current, target))| {
            step(state, &nodes, current, target, &|replica| is_caught_up(shard, replica))
        })
        .collect();
    let is_settled = next.iter().zip(&targets).all(|(list, target)| {
        list.len() == target.len() && list.iter().all(|replica| target.contains(&node_of(*replica)))
    });
    choose_leaders(&nodes, state, &mut next, is_settled);

    let mut changed =
        (0..).zip(next.iter().zip(&state.placement)).filter(|(_, (next, current))| next != current);
    let (shard, _) = changed.next()?;
    Some(if changed.next().is_none() {
        MetaCommand::Place { shard, replicas: next.swap_remove(usize::from(shard)) }
    } else {
        MetaCommand::PlaceAll(next)
    })
}

/// The nodes, as far as a plan goes.
struct Nodes {
    /// Those that are up and stay: where replicas may go.
    open: BTreeSet<u32>,
    /// Those that stay, up or not.
    usable: BTreeSet<u32>,
    /// Those of the cluster.
    known: BTreeSet<u32>,
    /// How many replicas a shard should have.
    wanted: usize,
}

impl Nodes {
    fn new(state: &MetaState, alive: &dyn Fn(u32) -> bool, dead_for_replacement: &[u32]) -> Self {
        let known: BTreeSet<u32> = state.nodes.keys().copied().collect();
        let usable: BTreeSet<u32> =
            known.iter().copied().filter(|node| !dead_for_replacement.contains(node)).collect();
        let open = usable.iter().copied().filter(|node| alive(*node)).collect();
        let wanted = usize::from(state.replication_factor).min(known.len());
        Self { open, usable, known, wanted }
    }
}

/// By shard, the nodes that should hold it in the end.
fn targets(state: &MetaState, nodes: &Nodes) -> Vec<Vec<u32>> {
    let mut targets: Vec<Vec<u32>> = state
        .placement
        .iter()
        .map(|list| list.iter().map(|replica| node_of(*replica)).filter(|node| nodes.usable.contains(node)))
        .map(Iterator::collect)
        .collect();
    let mut loads: BTreeMap<u32, usize> = nodes.usable.iter().map(|node| (*node, 0)).collect();
    for node in targets.iter().flatten() {
        *loads.entry(*node).or_default() += 1;
    }
    for target in &mut targets {
        while target.len() > nodes.wanted {
            // One that is down goes first, and the preferred leader last; else one of the node that holds the most.
            let worst = (0..target.len())
                .max_by_key(|&place| {
                    let node = target[place];
                    (!nodes.open.contains(&node), place > 0, loads[&node], place)
                })
                .expect("the list is not empty");
            let node = target.remove(worst);
            *loads.entry(node).or_default() -= 1;
        }
    }
    for (target, list) in targets.iter_mut().zip(&state.placement) {
        while target.len() < nodes.wanted {
            let free = nodes.open.iter().copied().filter(|node| !target.contains(node));
            let Some(node) = free.min_by_key(|node| loads[node]) else { break };
            target.push(node);
            *loads.entry(node).or_default() += 1;
        }
        // Nobody can take the place of one that is given up: it is better than none. If even the cluster has forgotten
        // it, it counts only where there is no other.
        for must_be_known in [true, false] {
            for node in list.iter().map(|replica| node_of(*replica)) {
                let is_short = if must_be_known { target.len() < nodes.wanted } else { target.is_empty() };
                if is_short && !target.contains(&node) && (!must_be_known || nodes.known.contains(&node)) {
                    target.push(node);
                }
            }
        }
    }
    exchange(state, nodes, &mut targets, &mut loads);
    even_out(state, nodes, &mut targets, &loads);
    targets
}

/// Evens out what can be without a single copy: where a list is longer than its target, another one may stay.
fn exchange(state: &MetaState, nodes: &Nodes, targets: &mut [Vec<u32>], loads: &mut BTreeMap<u32, usize>) {
    loop {
        let mut edges = Edges::new();
        // Preferred leaders stay where something else can go.
        for are_leaders in [false, true] {
            for (shard, (target, list)) in targets.iter().zip(&state.placement).enumerate() {
                let leader = node_of(list[0]);
                let others = list.iter().map(|replica| node_of(*replica));
                for other in others.filter(|node| !target.contains(node)) {
                    for node in target.iter().filter(|&&node| (node == leader) == are_leaders) {
                        edges.entry(*node).or_default().entry(other).or_insert(shard);
                    }
                }
            }
        }
        let Some(chain) = chain(nodes, loads, &edges) else { return };
        for (shard, from, to) in chain {
            let place = targets[shard].iter().position(|node| *node == from).expect("it was there");
            targets[shard][place] = to;
            *loads.entry(from).or_default() -= 1;
            *loads.entry(to).or_default() += 1;
        }
    }
}

/// Moves replicas between nodes that are up until they hold the same number, or one more: as few moves as possible.
fn even_out(state: &MetaState, nodes: &Nodes, targets: &mut [Vec<u32>], loads: &BTreeMap<u32, usize>) {
    if nodes.open.is_empty() {
        return;
    }
    let mut by_load: Vec<u32> = nodes.open.iter().copied().collect();
    by_load.sort_by_key(|node| (std::cmp::Reverse(loads[node]), *node));
    let sum: usize = by_load.iter().map(|node| loads[node]).sum();
    let (least, more) = (sum / by_load.len(), sum % by_load.len());
    // Those that hold the most already may hold one more than the others.
    let quotas: Vec<(u32, usize)> =
        by_load.iter().enumerate().map(|(rank, node)| (*node, least + usize::from(rank < more))).collect();
    let mut takers: Vec<(u32, usize)> =
        quotas.iter().map(|(node, quota)| (*node, quota.saturating_sub(loads[node]))).collect();
    let mut has_moved = vec![false; targets.len()];
    for &(giver, quota) in &quotas {
        let mut spare = loads[&giver].saturating_sub(quota);
        for (taker, room) in &mut takers {
            let count = spare.min(*room);
            if count == 0 {
                continue;
            }
            let mut shards: Vec<usize> = (0..targets.len())
                .filter(|&shard| targets[shard].contains(&giver) && !targets[shard].contains(taker))
                .collect();
            let holds =
                |shard: usize, node: u32| state.placement[shard].iter().any(|it| node_of(*it) == node);
            // Best where the copy is there already, or the one that goes is not; then where nothing else moves; then where
            // the preferred leader stays.
            shards.sort_by_key(|&shard| {
                (
                    !holds(shard, *taker),
                    holds(shard, giver),
                    has_moved[shard],
                    node_of(state.placement[shard][0]) == giver,
                )
            });
            for &shard in shards.iter().take(count) {
                let place = targets[shard].iter().position(|node| *node == giver).expect("filtered above");
                targets[shard][place] = *taker;
                has_moved[shard] = true;
            }
            let moved = count.min(shards.len());
            spare -= moved;
            *room -= moved;
        }
    }
}

/// The shard's next list on its way to `target`.
fn step(
    state: &MetaState,
    nodes: &Nodes,
    current: &[ReplicaId],
    target: &[u32],
    is_caught_up: &dyn Fn(ReplicaId) -> bool,
) -> Vec<ReplicaId> {
    let mut list = current.to_vec();
    let is_meant = |replica: &ReplicaId| target.contains(&node_of(*replica));
    let stays_whole = list.iter().filter(|it| is_meant(it)).all(|replica| is_caught_up(*replica));
    if list.iter().any(|replica| !is_meant(replica)) && stays_whole {
        if list.iter().filter(|it| is_meant(it)).count() == target.len() {
            list.retain(is_meant);
            return list;
        }
        if list.len() > nodes.wanted {
            // More than one has to be exchanged: one goes, and makes room for the next. Those that have not everything go
            // first, so that one with everything goes only when all have it; then those that are given up, and the
            // preferred leader last.
            let goes = (0..list.len())
                .filter(|&place| !is_meant(&list[place]))
                .max_by_key(|&place| {
                    (!is_caught_up(list[place]), !nodes.usable.contains(&node_of(list[place])), place)
                })
                .expect("there is one that is not meant");
            // What is down and has not been missed yet may be the only one that has everything.
            if list.iter().enumerate().any(|(place, other)| place != goes && is_caught_up(*other)) {
                list.remove(goes);
            }
            return list;
        }
    }
    let missing = target.iter().filter(|node| !current.iter().any(|replica| node_of(*replica) == **node));
    for node in missing {
        if list.len() > nodes.wanted {
            break;
        }
        list.push(replica(*node, state.next_incarnation));
    }
    list
}

/// Puts the preferred leader first in each list: the one that is favoured, else the present one, unless it is taken off or given up or,
/// once the placement is settled, leads more shards than its share.
fn choose_leaders(nodes: &Nodes, state: &MetaState, lists: &mut [Vec<ReplicaId>], is_settled: bool) {
    let mut loads: BTreeMap<u32, usize> = nodes.open.iter().map(|node| (*node, 0)).collect();
    for list in lists.iter() {
        *loads.entry(node_of(list[0])).or_default() += 1;
    }
    for (list, current) in lists.iter_mut().zip(&state.placement) {
        if list[0] == current[0] && nodes.usable.contains(&node_of(list[0])) {
            continue;
        }
        let others = (0..list.len()).filter(|&place| nodes.open.contains(&node_of(list[place])));
        if let Some(place) = others.min_by_key(|&place| loads[&node_of(list[place])]) {
            lead(list, place, &mut loads);
        }
    }
    let favoured = state.favoured.filter(|node| nodes.usable.contains(node));
    let place_in = |list: &[ReplicaId]| list.iter().position(|it| Some(node_of(*it)) == favoured);
    for list in lists.iter_mut() {
        if let Some(place) = place_in(list) {
            lead(list, place, &mut loads);
        }
    }
    if !is_settled {
        return;
    }
    loop {
        let mut edges = Edges::new();
        for (shard, list) in lists.iter().enumerate().filter(|(_, list)| place_in(list).is_none()) {
            for other in &list[1..] {
                edges.entry(node_of(list[0])).or_default().entry(node_of(*other)).or_insert(shard);
            }
        }
        let Some(chain) = chain(nodes, &loads, &edges) else { return };
        for (shard, _, to) in chain {
            let place = lists[shard].iter().position(|replica| node_of(*replica) == to).expect("it holds it");
            lead(&mut lists[shard], place, &mut loads);
        }
    }
}

fn lead(list: &mut [ReplicaId], place: usize, loads: &mut BTreeMap<u32, usize>) {
    *loads.entry(node_of(list[0])).or_default() -= 1;
    list[..=place].rotate_right(1);
    *loads.entry(node_of(list[0])).or_default() += 1;
}

/// By node, to which other nodes it can hand something over, with one shard where it can.
type Edges = BTreeMap<u32, BTreeMap<u32, usize>>;

/// The shortest chain of shards, each with who hands it to whom, that takes one from a node with much and gives one to a node
/// with at least two fewer; on the nodes between, numbers stay. Only nodes that are up take part.
fn chain(nodes: &Nodes, loads: &BTreeMap<u32, usize>, edges: &Edges) -> Option<Vec<(usize, u32, u32)>> {
    let mut by_load: Vec<u32> = nodes.open.iter().copied().collect();
    by_load.sort_by_key(|node| (std::cmp::Reverse(loads[node]), *node));
    let least = by_load.last().map_or(0, |node| loads[node]);
    by_load.iter().take_while(|node| least + 2 <= loads[node]).find_map(|from| {
        let mut came_from: BTreeMap<u32, (u32, usize)> = BTreeMap::new();
        let mut queue = VecDeque::from([*from]);
        while let Some(node) = queue.pop_front() {
            if loads[&node] + 2 <= loads[from] {
                let (mut chain, mut at) = (Vec::new(), node);
                while at != *from {
                    let (before, shard) = came_from[&at];
                    chain.push((shard, before, at));
                    at = before;
                }
                return Some(chain);
            }
            for (&other, &shard) in edges.get(&node).into_iter().flatten() {
                if other != *from && nodes.open.contains(&other) && !came_from.contains_key(&other) {
                    came_from.insert(other, (node, shard));
                    queue.push_back(other);
                }
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::meta::{MetaOutcome, NodeInfo},
        *,
    };

    /// A cluster in which copies come as the test says.
    struct World {
        state: MetaState,
        down: BTreeSet<u32>,
        given_up: Vec<u32>,
        /// What has been copied, by shard.
        copied: BTreeSet<(u16, ReplicaId)>,
        /// Replicas that were added.
        added: usize,
    }

    impl World {
        fn new(shards: u16, replication_factor: u8) -> Self {
            let state = MetaState::genesis([9; 16], shards, 1, replication_factor, NodeInfo::example(1));
            let copied = (0..shards).map(|shard| (shard, state.placement[0][0])).collect();
            Self { state, down: BTreeSet::new(), given_up: Vec::new(), copied, added: 0 }
        }

        fn join(&mut self) -> u32 {
            let outcome =
                self.state.apply(&MetaCommand::AddNode(NodeInfo::example(self.state.next_node as u8)));
            let MetaOutcome::Node(number) = outcome else { panic!("{outcome:?}") };
            number
        }

        fn join_many(&mut self, count: usize) {
            for _ in 0..count {
                self.join();
            }
        }

        fn plan(&self) -> Option<MetaCommand> {
            plan(&self.state, &|node| !self.down.contains(&node), &self.given_up, &|shard, replica| {
                self.copied.contains(&(shard, replica)) && !self.down.contains(&node_of(replica))
            })
        }

        /// Takes a step, if there is one, and checks it.
        fn step(&mut self) -> bool {
            let Some(command) = self.plan() else { return false };
            let before = self.state.clone();
            assert_eq!(self.state.apply(&command), MetaOutcome::Changed, "{command:?}");
            let wanted = usize::from(before.replication_factor).min(before.nodes.len());
            for (shard, (old, new)) in (0..).zip(before.placement.iter().zip(&self.state.placement)) {
                let whole = |replica: &&ReplicaId| {
                    self.copied.contains(&(shard, **replica)) && !self.down.contains(&node_of(**replica))
                };
                self.added += new.iter().filter(|replica| !old.contains(replica)).count();
                assert!(new.len() <= wanted.max(old.len()).max(wanted + 1), "{shard}: {old:?} -> {new:?}");
                let is_shorter = old.iter().any(|replica| !new.contains(replica));
                assert!(
                    !is_shorter || new.iter().all(|replica| old.contains(replica)),
                    "it grows or shrinks"
                );
                if is_shorter {
                    assert!(new.iter().filter(whole).count() >= wanted.min(old.iter().filter(whole).count()));
                    assert!(new.iter().any(|replica| self.copied.contains(&(shard, *replica))));
                }
            }
            true
        }

        /// Copies whatever is missing on nodes that are up.
        fn copy(&mut self) {
            for (shard, list) in (0..).zip(&self.state.placement) {
                let up = list.iter().filter(|replica| !self.down.contains(&node_of(**replica)));
                self.copied.extend(up.map(|replica| (shard, *replica)));
            }
        }

        fn settle(&mut self) {
            for _ in 0..100 {
                if !self.step() {
                    return;
                }
                self.copy();
            }
            panic!("it never ends: {:?}", self.plan());
        }

        /// Replicas and preferred leaders of every node that is there to stay.
        fn loads(&self) -> BTreeMap<u32, (usize, usize)> {
            let stays = self.state.nodes.keys().filter(|node| !self.given_up.contains(node));
            let count = |node: u32| {
                let lists = &self.state.placement;
                let held = lists.iter().flatten().filter(|replica| node_of(**replica) == node).count();
                (held, lists.iter().filter(|list| node_of(list[0]) == node).count())
            };
            stays.map(|node| (*node, count(*node))).collect()
        }

        #[track_caller]
        fn check_balance(&self) {
            let loads = self.loads();
            let spread = |of: fn(&(usize, usize)) -> usize| {
                loads.values().map(of).max().unwrap_or(0) - loads.values().map(of).min().unwrap_or(0)
            };
            assert!(spread(|load| load.0) <= 1, "replicas by node: {loads:?}");
            assert!(spread(|load| load.1) <= 1, "replicas and leaders by node: {loads:?}");
            let wanted = usize::from(self.state.replication_factor).min(self.state.nodes.len());
            for list in &self.state.placement {
                assert_eq!(list.len(), wanted, "{list:?}");
            }
        }
    }

    #[test]
    fn a_lone_node_has_nothing_to_do() {
        let world = World::new(64, 3);
        assert_eq!(world.plan(), None);
    }

    #[test]
    fn the_second_and_third_node_get_everything_in_one_step_each() {
        let mut world = World::new(64, 3);
        for _ in 0..2 {
            world.join();
            assert!(matches!(world.plan(), Some(MetaCommand::PlaceAll(_))));
            assert!(world.step());
            world.copy();
            world.settle();
            world.check_balance();
        }
        assert_eq!(world.added, 128);
        assert!(world.state.placement.iter().all(|list| list.contains(&super::super::GENESIS_REPLICA)));
    }

    #[test]
    fn a_fourth_node_takes_its_share_and_no_more() {
        let mut world = World::new(64, 3);
        world.join();
        world.join();
        world.settle();
        world.added = 0;
        let fourth = world.join();
        assert!(world.step());
        assert_eq!(world.added, 48);
        assert!(world.state.placement.iter().all(|list| list.len() >= 3));
        assert_eq!(world.plan(), None, "nothing is taken off before the copies are there");
        world.settle();
        world.copy();
        world.settle();
        assert_eq!(world.added, 48);
        assert_eq!(world.loads()[&fourth], (48, 16));
        world.check_balance();
    }

    #[test]
    fn a_fourth_node_takes_its_share_of_leaders_one_by_one_and_nobody_else_changes() {
        let mut world = World::new(64, 3);
        world.join_many(2);
        world.settle();
        world.copy();
        let leaders = |world: &World| -> Vec<u32> {
            world.state.placement.iter().map(|list| node_of(list[0])).collect()
        };
        let (at_first, mut known, mut changes) = (leaders(&world), leaders(&world), 0);
        let fourth = world.join();
        let mut look = |world: &World| {
            let now = leaders(world);
            changes += now.iter().zip(&known).filter(|(now, known)| now != known).count();
            known = now;
        };
        // Its copies come one after the other, and the plan is made anew each time.
        loop {
            while world.step() {
                look(&world);
            }
            let missing = (0..).zip(&world.state.placement).find_map(|(shard, list)| {
                list.iter().map(|replica| (shard, *replica)).find(|copy| !world.copied.contains(copy))
            });
            let Some(copy) = missing else { break };
            world.copied.insert(copy);
        }
        world.check_balance();
        assert_eq!(changes, 16);
        let others = known.iter().zip(&at_first).filter(|(now, at_first)| now != at_first);
        assert!(others.clone().all(|(now, _)| *now == fourth) && others.count() == 16);
    }

    #[test]
    fn what_a_favoured_node_leads_stays_with_it() {
        let mut world = World::new(64, 3);
        world.join_many(3);
        world.settle();
        assert_eq!(world.state.apply(&MetaCommand::Favour(Some(2))), MetaOutcome::Changed);
        // Only what it has no replica of may still be spread.
        world.settle();
        let loads = world.loads();
        assert_eq!(loads[&2], (48, 48));
        assert!(loads.iter().all(|(node, load)| *node == 2 || (5..=6).contains(&load.1)), "{loads:?}");
        world.down.insert(2);
        assert_eq!(world.plan(), None, "it may come back soon");
        world.down.clear();
        assert_eq!(world.plan(), None);
        assert_eq!(world.state.apply(&MetaCommand::Favour(None)), MetaOutcome::Changed);
        world.settle();
        world.check_balance();
    }

    #[test]
    fn a_copy_that_is_there_lets_its_own_shard_go_on() {
        let mut world = World::new(4, 1);
        world.join();
        assert!(world.step());
        let shard = world.state.placement.iter().position(|list| list.len() == 2).unwrap();
        world.copied.insert((shard as u16, world.state.placement[shard][1]));
        assert!(
            matches!(world.plan(), Some(MetaCommand::Place { shard: only, .. }) if usize::from(only) == shard)
        );
        assert!(world.step());
        assert_eq!(world.state.placement[shard].len(), 1);
        assert_eq!(world.plan(), None);
    }

    #[test]
    fn a_node_that_is_down_is_waited_for_and_then_replaced() {
        let mut world = World::new(64, 3);
        world.join_many(3);
        world.settle();
        world.added = 0;
        world.down.insert(2);
        assert_eq!(world.plan(), None);
        world.given_up.push(2);
        world.settle();
        assert_eq!(world.added, 48);
        assert!(world.state.placement.iter().flatten().all(|replica| node_of(*replica) != 2));
        world.check_balance();
        assert_eq!(world.state.apply(&MetaCommand::RemoveNode(2)), MetaOutcome::Changed);
        assert_eq!(world.plan(), None);
    }

    #[test]
    fn one_that_nobody_can_replace_stays() {
        let mut world = World::new(8, 3);
        world.join();
        world.join();
        world.settle();
        world.down.insert(3);
        world.given_up.push(3);
        world.settle();
        assert!(world.state.placement.iter().all(|list| list.len() == 3 && node_of(list[0]) != 3));
        assert_eq!(world.state.apply(&MetaCommand::RemoveNode(3)), MetaOutcome::Changed);
        world.settle();
        assert!(world.state.placement.iter().all(|list| list.len() == 2));
    }

    #[test]
    fn a_smaller_factor_takes_replicas_off_and_a_larger_one_adds_them() {
        let mut world = World::new(16, 3);
        world.join_many(4);
        world.settle();
        for factor in [1, 5, 2] {
            assert_eq!(world.state.apply(&MetaCommand::SetReplicationFactor(factor)), MetaOutcome::Changed);
            world.settle();
            world.check_balance();
        }
    }

    /// What happens to a cluster.
    #[derive(Clone, Debug)]
    enum Event {
        Join,
        Step,
        /// Copies are made of what is missing.
        Copy,
        /// A node stops.
        Stop(usize),
        Start(usize),
        GiveUp(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            2 => Just(Event::Join),
            4 => Just(Event::Step),
            2 => Just(Event::Copy),
            1 => (0..8_usize).prop_map(Event::Stop),
            1 => (0..8_usize).prop_map(Event::Start),
            1 => (0..8_usize).prop_map(Event::GiveUp),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// Whatever happened before, when all nodes are up again the cluster comes to rest in balance, and stays there.
        #[test]
        fn it_comes_to_rest_in_balance(
            shards in (0..7_u32).prop_map(|log| 1_u16 << log),
            factor in 1..=7_u8,
            events in prop::collection::vec(event(), 0..40),
        ) {
            let mut world = World::new(shards, factor);
            for event in events {
                let pick = |index: usize| *world.state.nodes.keys().nth(index % world.state.nodes.len()).unwrap();
                match event {
                    Event::Join => world.join_many(usize::from(world.state.nodes.len() < 12)),
                    Event::Step => {
                        world.step();
                    }
                    Event::Copy => world.copy(),
                    Event::Stop(index) => {
                        world.down.insert(pick(index));
                    }
                    Event::Start(index) => {
                        world.down.remove(&pick(index));
                    }
                    Event::GiveUp(index) if world.given_up.len() < 2 => world.given_up.push(pick(index)),
                    Event::GiveUp(_) => {}
                }
            }
            world.down.clear();
            world.given_up.clear();
            world.copy();
            world.settle();
            world.check_balance();
            prop_assert_eq!(world.plan(), None);
        }

        /// A joining node costs no more copies than its share.
        #[test]
        fn a_joining_node_moves_as_little_as_needed(
            shards in (0..8_u32).prop_map(|log| 1_u16 << log),
            factor in 1..=5_u8,
            nodes in 1..10_usize,
        ) {
            let mut world = World::new(shards, factor);
            world.join_many(nodes - 1);
            world.settle();
            world.added = 0;
            world.join();
            world.settle();
            world.check_balance();
            let wanted = usize::from(factor).min(nodes + 1);
            let share = (usize::from(shards) * wanted).div_ceil(nodes + 1);
            prop_assert!(world.added <= share, "{} copies for a share of {share}", world.added);
        }
    }
}
