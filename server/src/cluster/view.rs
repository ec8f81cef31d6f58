//! What a node knows of its cluster at a moment, and what clients are told of it.
//!
//! Clients see Redis Cluster: a slot has a master, the leader of its shard, and the other nodes with a replica of that
//! shard are its replicas. One node can be master of some slots and replica of others, which Redis has no words for; where
//! a reply has one role for a node, it is a master if it leads anything.
//!
//! Invariants:
//! - A view never changes: a new one takes its place.
//! - A slot whose shard has no known leader is shown without a master, and the cluster's state is then `fail`.
//! - Adjacent ranges with the same leader and replicas are shown as one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use duva_engine::{Reply, SLOT_COUNT};

use super::{
    meta::{MetaState, NodeInfo},
    node_of,
};

/// A cluster as a node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// The meta group's state.
    pub state: MetaState,
    /// The own node's number.
    pub number: u32,
    /// By shard, the node that leads it and in which term, as far as that is known.
    pub leaders: Vec<Option<(u32, u64)>>,
    /// Which nodes are up. One that is not listed is taken to be: nobody has missed it yet.
    pub alive: BTreeMap<u32, bool>,
    /// Nodes that are up as far as is known, and have not answered lately.
    pub suspected: BTreeSet<u32>,
    /// Nodes that this one has no link to.
    pub unlinked: BTreeSet<u32>,
    /// Shards and nodes with a replica that is not known to vote: it may not have its shard's state yet, and clients are not sent
    /// there.
    pub catching_up: BTreeSet<(u16, u32)>,
}

/// What a node's links have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkTotals {
    /// Frames that were put on their way.
    pub sent: u64,
    /// Frames that have come.
    pub received: u64,
    /// Frames that were dropped because too much was unsent.
    pub dropped: u64,
}

/// Slots with the same leader and replicas.
#[derive(PartialEq, Eq)]
struct Group {
    leader: Option<u32>,
    /// The nodes of the other replicas, in ascending order, and whether they have everything.
    replicas: Vec<(u32, bool)>,
    /// First and last slots.
    ranges: Vec<(u16, u16)>,
}

/// A node's id as clients see it: the 32 hexadecimal digits of the id and the 8 of its CRC32C.
pub fn node_id_text(id: &[u8; 16]) -> String {
    format!("{:032x}{:08x}", u128::from_be_bytes(*id), crc32c::crc32c(id))
}

/// The id that [`node_id_text`] shows so; `None` if no node's id is shown so.
pub fn parse_node_id(text: &[u8]) -> Option<[u8; 16]> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() == 40)?;
    // A sign would pass for a digit.
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let id = u128::from_str_radix(&text[..32], 16).ok()?.to_be_bytes();
    (u32::from_str_radix(&text[32..], 16).ok()? == crc32c::crc32c(&id)).then_some(id)
}

impl ClusterView {
    /// A view of `state` in which no leader is known and every node is taken to be up.
    pub fn new(state: MetaState, number: u32) -> Self {
        let leaders = vec![None; usize::from(state.shards)];
        Self {
            state,
            number,
            leaders,
            alive: BTreeMap::new(),
            suspected: BTreeSet::new(),
            unlinked: BTreeSet::new(),
            catching_up: BTreeSet::new(),
        }
    }

    /// Whether a node is up, as far as is known.
    pub fn is_alive(&self, node: u32) -> bool {
        self.alive.get(&node).copied().unwrap_or(true)
    }

    /// Whether another node leads some shard than in `other`, or the cluster has other nodes.
    pub fn has_other_topology(&self, other: &Self) -> bool {
        let is_same = |(one, other): ((&u32, &NodeInfo), (&u32, &NodeInfo))| {
            one.0 == other.0 && one.1.is_same_but_for_level(other.1)
        };
        self.state.nodes.len() != other.state.nodes.len()
            || !self.state.nodes.iter().zip(&other.state.nodes).all(is_same)
            || self.state.shards != other.state.shards
            || (0..self.state.shards).any(|shard| self.leader_of(shard) != other.leader_of(shard))
    }

    /// The shard that holds a slot.
    pub fn shard_of(&self, slot: u16) -> u16 {
        slot / (SLOT_COUNT / self.state.shards)
    }

    /// The node that leads a shard, if it is known and belongs to the cluster.
    pub fn leader_of(&self, shard: u16) -> Option<u32> {
        let leader = self.leaders.get(usize::from(shard)).copied().flatten();
        leader.map(|(node, _)| node).filter(|node| self.state.nodes.contains_key(node))
    }

    /// The error that sends a client to the leader of a slot, without its leading `-`; `None` if this node leads it, or if
    /// nobody is known to.
    pub fn moved(&self, slot: u16) -> Option<String> {
        let leader = self.leader_of(self.shard_of(slot)).filter(|leader| *leader != self.number)?;
        let NodeInfo { host, port, .. } = self.state.nodes.get(&leader)?;
        Some(format!("MOVED {slot} {host}:{port}"))
    }

    /// Whether this node is to have a replica of the slot's shard.
    pub fn has_replica(&self, slot: u16) -> bool {
        let replicas = self.state.placement.get(usize::from(self.shard_of(slot)));
        replicas.is_some_and(|replicas| replicas.iter().any(|&replica| node_of(replica) == self.number))
    }

    /// CLUSTER MYID.
    pub fn write_my_id(&self, reply: &mut Reply<'_>) {
        reply.bulk(self.id_text(self.number).as_bytes());
    }

    /// CLUSTER SLOTS.
    pub fn write_slots(&self, reply: &mut Reply<'_>) {
        let mut groups = self.adjacent_groups();
        groups.retain(|group| group.leader.is_some());
        reply.array(groups.len());
        for Group { leader, replicas, ranges } in groups {
            let available = replicas.iter().filter(|(node, is_whole)| *is_whole && self.is_alive(*node));
            let nodes: Vec<u32> = leader.into_iter().chain(available.map(|(node, _)| *node)).collect();
            reply.array(2 + nodes.len());
            let (first, last) = ranges[0];
            reply.integer(i64::from(first));
            reply.integer(i64::from(last));
            for node in nodes {
                let NodeInfo { host, port, .. } = &self.state.nodes[&node];
                reply.array(4);
                reply.bulk(host.as_bytes());
                reply.integer(i64::from(*port));
                reply.bulk(self.id_text(node).as_bytes());
                reply.map(0);
            }
        }
    }

    /// CLUSTER SHARDS: Redis's shards are nodes with what they hold in common, so all ranges with the same leader and replicas are
    /// one of them, adjacent or not. Offsets of replication are not known here: they are 0.
    pub fn write_shards(&self, reply: &mut Reply<'_>) {
        let mut groups: Vec<Group> = Vec::new();
        for group in self.adjacent_groups() {
            let same =
                groups.iter_mut().find(|it| it.leader == group.leader && it.replicas == group.replicas);
            match same {
                Some(same) => same.ranges.extend(group.ranges),
                None => groups.push(group),
            }
        }
        let shown: BTreeSet<u32> = groups
            .iter()
            .flat_map(|group| group.leader.into_iter().chain(group.replicas.iter().map(|(node, _)| *node)))
            .collect();
        let idle = self.state.nodes.keys().filter(|node| !shown.contains(node));
        groups.extend(idle.map(|&node| Group {
            leader: Some(node),
            replicas: Vec::new(),
            ranges: Vec::new(),
        }));
        reply.array(groups.len());
        for Group { leader, replicas, ranges } in groups {
            reply.map(2);
            reply.bulk(b"slots");
            reply.array(2 * ranges.len());
            for slot in ranges.iter().flat_map(|(first, last)| [first, last]) {
                reply.integer(i64::from(*slot));
            }
            reply.bulk(b"nodes");
            reply.array(replicas.len() + usize::from(leader.is_some()));
            if let Some(leader) = leader {
                self.write_shard_node(leader, "master", true, reply);
            }
            for (node, is_whole) in replicas {
                self.write_shard_node(node, "replica", is_whole, reply);
            }
        }
    }

    fn write_shard_node(&self, node: u32, role: &str, is_whole: bool, reply: &mut Reply<'_>) {
        let NodeInfo { host, port, .. } = &self.state.nodes[&node];
        let health = match (self.is_alive(node), is_whole) {
            (false, _) => "fail",
            (true, false) => "loading",
            (true, true) => "online",
        };
        reply.map(7);
        reply.bulk(b"id");
        reply.bulk(self.id_text(node).as_bytes());
        reply.bulk(b"port");
        reply.integer(i64::from(*port));
        for (name, value) in [("ip", &**host), ("endpoint", host), ("role", role)] {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
        reply.bulk(b"replication-offset");
        reply.integer(0);
        reply.bulk(b"health");
        reply.bulk(health.as_bytes());
    }

    /// CLUSTER NODES.
    pub fn write_nodes(&self, reply: &mut Reply<'_>) {
        reply.verbatim(&self.nodes_text());
    }

    /// A line for each node, as in CLUSTER NODES.
    pub fn nodes_text(&self) -> String {
        self.state.nodes.keys().map(|node| self.node_line(*node) + "\n").collect()
    }

    /// CLUSTER REPLICAS, of the node that is shown as `id`: the nodes with a replica of any shard that it leads.
    pub fn write_replicas(&self, id: &[u8], reply: &mut Reply<'_>) {
        let Some(master) = parse_node_id(id).and_then(|id| self.state.number_of(&id)) else {
            let mut text = b"ERR Unknown node ".to_vec();
            text.extend_from_slice(id);
            return reply.error_bytes(&text);
        };
        if self.master_of(master).is_some() {
            return reply.error("ERR The specified node is not a master");
        }
        let led = self.groups().into_iter().filter(|group| group.leader == Some(master));
        let nodes: BTreeSet<u32> = led.flat_map(|group| group.replicas).map(|(node, _)| node).collect();
        reply.array(nodes.len());
        for node in nodes {
            reply.bulk(self.node_line(node).as_bytes());
        }
    }

    /// CLUSTER INFO, with what the links of all cores have counted.
    pub fn write_info(&self, links: LinkTotals, reply: &mut Reply<'_>) {
        let slots_a_shard = usize::from(SLOT_COUNT / self.state.shards);
        let led: Vec<u32> = (0..self.state.shards).filter_map(|shard| self.leader_of(shard)).collect();
        let suspected = led.iter().filter(|leader| self.suspected.contains(leader)).count() * slots_a_shard;
        let alive = led.iter().filter(|leader| self.is_alive(**leader)).count() * slots_a_shard;
        let all = usize::from(SLOT_COUNT);
        let size = led.iter().collect::<BTreeSet<_>>().len();
        let (known, epoch) = (self.state.nodes.len(), self.state.epoch);
        // As in Redis, slots of nodes that are only suspected do not make the cluster fail.
        let cluster_state = if alive == all { "ok" } else { "fail" };
        let (ok, failed) = (alive - suspected, all - alive);
        let LinkTotals { sent, received, dropped } = links;
        reply.verbatim(&format!(
            "cluster_state:{cluster_state}\r\ncluster_slots_assigned:{all}\r\ncluster_slots_ok:{ok}\r\n\
             cluster_slots_pfail:{suspected}\r\ncluster_slots_fail:{failed}\r\ncluster_known_nodes:{known}\r\n\
             cluster_size:{size}\r\ncluster_current_epoch:{epoch}\r\ncluster_my_epoch:{epoch}\r\n\
             cluster_stats_messages_sent:{sent}\r\ncluster_stats_messages_received:{received}\r\n\
             total_cluster_links_buffer_limit_exceeded:{dropped}\r\n"
        ));
    }

    fn id_text(&self, node: u32) -> String {
        self.state.nodes.get(&node).map_or_else(|| "0".repeat(40), |node| node_id_text(&node.id))
    }

    /// A node's line in CLUSTER NODES, without its line break.
    fn node_line(&self, node: u32) -> String {
        let NodeInfo { host, port, peer_port, .. } = &self.state.nodes[&node];
        let master = self.master_of(node);
        let mut line = format!("{} {host}:{port}@{peer_port} ", self.id_text(node));
        if node == self.number {
            line.push_str("myself,");
        }
        line.push_str(if master.is_some() { "slave" } else { "master" });
        let is_alive = self.is_alive(node);
        if !is_alive {
            line.push_str(",fail");
        } else if self.suspected.contains(&node) {
            line.push_str(",fail?");
        }
        let master = master.map_or_else(|| "-".to_owned(), |master| self.id_text(master));
        let link = if is_alive && !self.unlinked.contains(&node) { "connected" } else { "disconnected" };
        // Writing to a string does not fail.
        let _ = write!(line, " {master} 0 0 {} {link}", self.state.epoch);
        let led = (0..self.state.shards).filter(|shard| self.leader_of(*shard) == Some(node));
        for (first, last) in merge(led.map(|shard| self.slots_of(shard))) {
            // As Redis has it, a single slot stands alone.
            let _ = if first == last { write!(line, " {first}") } else { write!(line, " {first}-{last}") };
        }
        line
    }

    /// Whose replica a node is shown as: it leads nothing, and this is the leader of the first shard that it holds.
    fn master_of(&self, node: u32) -> Option<u32> {
        let mut master = None;
        for shard in 0..self.state.shards {
            let leader = self.leader_of(shard);
            if leader == Some(node) {
                return None;
            }
            let holds = || self.state.placement[usize::from(shard)].iter().any(|it| node_of(*it) == node);
            if master.is_none() && leader.is_some() && holds() {
                master = leader;
            }
        }
        master
    }

    fn slots_of(&self, shard: u16) -> (u16, u16) {
        let count = SLOT_COUNT / self.state.shards;
        (shard * count, shard * count + (count - 1))
    }

    /// A group for each shard.
    fn groups(&self) -> Vec<Group> {
        let group = |(shard, list): (u16, &Vec<_>)| {
            let leader = self.leader_of(shard);
            let mut replicas: Vec<(u32, bool)> = list
                .iter()
                .map(|replica| node_of(*replica))
                .filter(|node| Some(*node) != leader && self.state.nodes.contains_key(node))
                .map(|node| (node, !self.catching_up.contains(&(shard, node))))
                .collect();
            replicas.sort_unstable();
            Group { leader, replicas, ranges: vec![self.slots_of(shard)] }
        };
        (0..).zip(&self.state.placement).map(group).collect()
    }

    /// The groups, with adjacent ones of the same nodes as one. Each has one range.
    fn adjacent_groups(&self) -> Vec<Group> {
        let mut merged: Vec<Group> = Vec::new();
        for group in self.groups() {
            match merged.last_mut() {
                Some(last) if last.leader == group.leader && last.replicas == group.replicas => {
                    last.ranges[0].1 = group.ranges[0].1;
                }
                _ => merged.push(group),
            }
        }
        merged
    }
}

/// Ascending ranges, with those that touch as one.
fn merge(ranges: impl Iterator<Item = (u16, u16)>) -> Vec<(u16, u16)> {
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if before.1 + 1 == first => before.1 = last,
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use duva_engine::Protocol;

    use super::{super::replica, *};

    /// Four nodes; of four shards, node 1 leads the first two, node 2 the third, and the last one has no leader. Node 3 has a
    /// replica of all but the last, node 4 has nothing.
    fn view() -> ClusterView {
        let mut state = MetaState::genesis([9; 16], 4, 77, 3, NodeInfo::example(1));
        state.nodes.extend((2..5).map(|number| (u32::from(number), NodeInfo::example(number))));
        let placed = |nodes: &[u32]| nodes.iter().map(|node| replica(*node, 2)).collect();
        state.placement = vec![placed(&[1, 2, 3]), placed(&[1, 3, 2]), placed(&[2, 3]), placed(&[1, 2])];
        let mut view = ClusterView::new(state, 2);
        view.leaders = vec![Some((1, 5)), Some((1, 6)), Some((2, 5)), None];
        view
    }

    fn written(protocol: Protocol, write: impl Fn(&mut Reply<'_>)) -> String {
        let mut output = Vec::new();
        write(&mut Reply::new(&mut output, protocol));
        String::from_utf8(output).unwrap()
    }

    /// The reply in RESP2 as words, for comparison: lines without the lengths of bulk strings.
    fn words(write: impl Fn(&mut Reply<'_>)) -> String {
        let text = written(Protocol::Resp2, write);
        let lines: Vec<&str> = text.split("\r\n").filter(|line| !line.starts_with('$')).collect();
        lines.join(" ").trim_end().to_owned()
    }

    fn id(number: u8) -> String {
        node_id_text(&[number; 16])
    }

    #[test]
    fn ids_are_shown_with_their_checksum_and_read_again() {
        let text = node_id_text(b"123456789abcdef0");
        assert_eq!(text.len(), 40);
        assert!(text.starts_with("31323334353637383961626364656630"));
        assert_eq!(parse_node_id(text.as_bytes()), Some(*b"123456789abcdef0"));
        assert_eq!(parse_node_id(text.to_uppercase().as_bytes()), Some(*b"123456789abcdef0"));
        let mut wrong = text.clone().into_bytes();
        wrong[39] ^= 1;
        for bad in [&wrong[..], &text.as_bytes()[..39], b"", &[0xFF; 40], &[b'+'; 40]] {
            assert_eq!(parse_node_id(bad), None);
        }
    }

    #[test]
    fn slots_are_ranges_of_the_same_nodes() {
        let mut view = view();
        let (one, two, three) = (id(1), id(2), id(3));
        let first = format!(
            "*5 :0 :8191 *4 10.0.0.1 :7000 {one} *0 *4 10.0.0.2 :7000 {two} *0 *4 10.0.0.3 :7000 {three} *0"
        );
        let second = format!("*4 :8192 :12287 *4 10.0.0.2 :7000 {two} *0 *4 10.0.0.3 :7000 {three} *0");
        assert_eq!(words(|reply| view.write_slots(reply)), format!("*2 {first} {second}"));
        assert!(
            written(Protocol::Resp3, |reply| view.write_slots(reply)).contains(&format!("{one}\r\n%0\r\n"))
        );

        view.alive.insert(3, false);
        let second = format!("*3 :8192 :12287 *4 10.0.0.2 :7000 {two} *0");
        assert!(words(|reply| view.write_slots(reply)).ends_with(&second));

        view.alive.clear();
        view.catching_up.insert((1, 3));
        let ranges = words(|reply| view.write_slots(reply));
        assert!(ranges.starts_with("*3 *5 :0 :4095") && ranges.contains("*4 :4096 :8191"), "{ranges}");
    }

    #[test]
    fn shards_are_nodes_with_what_they_have_in_common() {
        let mut view = view();
        view.leaders[3] = Some((2, 9));
        view.state.placement[3] = view.state.placement[2].clone();
        view.state.placement[1] = view.state.placement[2].clone();
        view.leaders[1] = Some((3, 1));
        view.leaders[0] = Some((2, 9));
        view.state.placement[0] = view.state.placement[2].clone();
        view.alive.insert(3, false);
        view.catching_up.insert((1, 2));
        let node = |number: u8, role: &str, health: &str| {
            let id = id(number);
            format!(
                "*14 id {id} port :7000 ip 10.0.0.{number} endpoint 10.0.0.{number} role {role} \
                 replication-offset :0 health {health}"
            )
        };
        let expected = [
            "*4",
            "*4 slots *4 :0 :4095 :8192 :16383 nodes *2",
            &node(2, "master", "online"),
            &node(3, "replica", "fail"),
            "*4 slots *2 :4096 :8191 nodes *2",
            &node(3, "master", "fail"),
            &node(2, "replica", "loading"),
            "*4 slots *0 nodes *1",
            &node(1, "master", "online"),
            "*4 slots *0 nodes *1",
            &node(4, "master", "online"),
        ];
        assert_eq!(words(|reply| view.write_shards(reply)), expected.join(" "));
        assert!(
            written(Protocol::Resp3, |reply| view.write_shards(reply)).starts_with("*4\r\n%2\r\n$5\r\nslots")
        );
    }

    #[test]
    fn shards_without_a_leader_have_no_master() {
        let text = words(|reply| view().write_shards(reply));
        let last =
            text.split("*4 slots").find(|shard| shard.starts_with(" *2 :12288 :16383 nodes *2")).unwrap();
        assert!(!last.contains("master") && last.matches("replica *").count() == 0, "{last}");
        assert_eq!(last.matches("role replica").count(), 2);
    }

    #[test]
    fn nodes_have_a_line_each() {
        let mut view = view();
        view.alive.insert(1, false);
        let text = written(Protocol::Resp2, |reply| view.write_nodes(reply));
        let lines: Vec<&str> = text.split("\r\n").nth(1).unwrap().lines().collect();
        assert_eq!(
            lines,
            [
                format!("{} 10.0.0.1:7000@17000 master,fail - 0 0 1 disconnected 0-8191", id(1)),
                format!("{} 10.0.0.2:7000@17000 myself,master - 0 0 1 connected 8192-12287", id(2)),
                format!("{} 10.0.0.3:7000@17000 slave {} 0 0 1 connected", id(3), id(1)),
                format!("{} 10.0.0.4:7000@17000 master - 0 0 1 connected", id(4)),
            ]
        );
        assert!(text.ends_with("\n\r\n"));
        view.suspected.insert(3);
        view.unlinked.extend([3, 4]);
        let text = view.nodes_text();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                format!("{} 10.0.0.3:7000@17000 slave,fail? {} 0 0 1 disconnected", id(3), id(1)),
                format!("{} 10.0.0.4:7000@17000 master - 0 0 1 disconnected", id(4)),
            ]
        );
    }

    #[test]
    fn leaders_and_nodes_make_the_topology() {
        let view = view();
        let mut other = view.clone();
        other.leaders[0] = Some((1, 9));
        other.alive.insert(1, false);
        other.state.epoch += 1;
        other.state.nodes.get_mut(&2).unwrap().level = 2;
        assert!(!view.has_other_topology(&other), "terms, who answers, and levels are not part of it");
        other.leaders[3] = Some((2, 1));
        assert!(view.has_other_topology(&other));
        other.leaders[3] = None;
        other.state.nodes.remove(&4);
        assert!(view.has_other_topology(&other));
    }

    #[test]
    fn replicas_are_those_of_what_a_node_leads() {
        let view = view();
        let of = |id: &str| words(|reply| view.write_replicas(id.as_bytes(), reply));
        let replicas = of(&id(1));
        assert!(
            replicas.starts_with(&format!("*2 {} 10.0.0.2:7000@17000 myself,master", id(2))),
            "{replicas}"
        );
        assert!(replicas.contains(&format!("{} 10.0.0.3:7000@17000 slave", id(3))), "{replicas}");
        assert_eq!(of(&id(4)), "*0");
        assert_eq!(of(&id(3)), "-ERR The specified node is not a master");
        assert_eq!(of("abc"), "-ERR Unknown node abc");
        assert_eq!(of(&id(9)), format!("-ERR Unknown node {}", id(9)));
    }

    #[test]
    fn info_has_the_fields_of_redis() {
        let mut view = view();
        let info = |view: &ClusterView| {
            let links = LinkTotals { sent: 7, received: 5, dropped: 1 };
            let text = written(Protocol::Resp2, |reply| view.write_info(links, reply));
            text.split_once("\r\n").unwrap().1.replace("\r\n", " ")
        };
        assert_eq!(
            info(&view).trim_end(),
            "cluster_state:fail cluster_slots_assigned:16384 cluster_slots_ok:12288 cluster_slots_pfail:0 \
             cluster_slots_fail:4096 cluster_known_nodes:4 cluster_size:2 cluster_current_epoch:1 \
             cluster_my_epoch:1 cluster_stats_messages_sent:7 cluster_stats_messages_received:5 \
             total_cluster_links_buffer_limit_exceeded:1"
        );
        view.leaders[3] = Some((1, 1));
        assert!(info(&view).starts_with("cluster_state:ok "));
        view.suspected.insert(2);
        assert!(
            info(&view).starts_with(
                "cluster_state:ok cluster_slots_assigned:16384 cluster_slots_ok:12288 cluster_slots_pfail:4096 \
                 cluster_slots_fail:0 "
            ),
            "{}",
            info(&view)
        );
        view.suspected.clear();
        view.alive.insert(2, false);
        assert!(
            info(&view).starts_with("cluster_state:fail cluster_slots_assigned:16384 cluster_slots_ok:12288")
        );
    }

    #[test]
    fn clients_are_sent_to_the_leader_if_it_is_another_node() {
        let mut view = view();
        assert_eq!(view.moved(0).as_deref(), Some("MOVED 0 10.0.0.1:7000"));
        assert_eq!(view.moved(8191).as_deref(), Some("MOVED 8191 10.0.0.1:7000"));
        assert_eq!(view.moved(8192), None, "this node leads it");
        assert_eq!(view.moved(16383), None, "nobody is known to lead it");
        view.state.nodes.remove(&1);
        assert_eq!(view.moved(0), None, "the leader is no node any more");
    }

    #[test]
    fn the_most_shards_have_a_slot_each() {
        let state = MetaState::genesis([9; 16], SLOT_COUNT, 77, 1, NodeInfo::example(1));
        let mut view = ClusterView::new(state, 1);
        view.leaders.fill(Some((1, 1)));
        view.leaders[1] = None;
        let text = words(|reply| view.write_slots(reply));
        assert!(text.starts_with("*2 *3 :0 :0 ") && text.contains("*3 :2 :16383 "), "{text}");
        let text = words(|reply| view.write_nodes(reply));
        assert!(text.trim_end().ends_with("connected 0 2-16383"), "{text}");
    }
}
