//! What commands make of a state, and what bytes are one.

use super::{super::replica, *};

fn state() -> MetaState {
    let mut state = MetaState::genesis([9; 16], 4, 77, 3, NodeInfo::example(1));
    assert_eq!(state.apply(&MetaCommand::AddNode(NodeInfo::example(2))), MetaOutcome::Node(2));
    assert_eq!(state.apply(&MetaCommand::AddNode(NodeInfo::example(3))), MetaOutcome::Node(3));
    state
}

fn place(shard: u16, replicas: &[ReplicaId]) -> MetaCommand {
    MetaCommand::Place { shard, replicas: replicas.to_vec() }
}

#[test]
fn a_cluster_begins_with_one_node_that_has_everything() {
    let state = MetaState::genesis([9; 16], 64, 77, 3, NodeInfo::example(1));
    assert_eq!((state.epoch, state.next_node, state.next_incarnation), (1, 2, 2));
    assert_eq!(state.placement, vec![vec![ReplicaId(1 << 32 | 1)]; 64]);
    assert_eq!(state.nodes, BTreeMap::from([(1, NodeInfo::example(1))]));
}

#[test]
fn a_node_that_is_added_again_keeps_its_number() {
    let mut state = state();
    let epoch = state.epoch;
    assert_eq!(state.apply(&MetaCommand::AddNode(NodeInfo::example(2))), MetaOutcome::Node(2));
    assert_eq!(state.epoch, epoch, "nothing has changed");
    let moved = NodeInfo { host: "elsewhere".to_owned(), ..NodeInfo::example(2) };
    assert_eq!(state.apply(&MetaCommand::AddNode(moved.clone())), MetaOutcome::Node(2));
    assert_eq!((state.epoch, &state.nodes[&2]), (epoch + 1, &moved));
}

#[test]
fn a_number_is_never_given_twice() {
    let mut state = state();
    assert_eq!(state.apply(&MetaCommand::RemoveNode(3)), MetaOutcome::Changed);
    assert_eq!(state.apply(&MetaCommand::RemoveNode(3)), MetaOutcome::Unchanged);
    assert_eq!(state.apply(&MetaCommand::AddNode(NodeInfo::example(3))), MetaOutcome::Node(4));
}

#[test]
fn the_last_node_and_the_last_copy_stay() {
    let mut state = state();
    let refused = |refusal| MetaOutcome::Refused(refusal);
    assert_eq!(state.apply(&MetaCommand::RemoveNode(1)), refused(MetaRefusal::HoldsOnlyReplica { shard: 0 }));
    for shard in 0..4 {
        assert_eq!(state.apply(&place(shard, &[replica(2, 2 + u32::from(shard))])), MetaOutcome::Changed);
    }
    assert_eq!(state.apply(&MetaCommand::RemoveNode(1)), MetaOutcome::Changed);
    assert_eq!(state.apply(&MetaCommand::RemoveNode(3)), MetaOutcome::Changed);
    assert_eq!(state.apply(&MetaCommand::RemoveNode(2)), refused(MetaRefusal::LastNode));
}

#[test]
fn a_favoured_node_is_first_wherever_it_is_until_nodes_change() {
    let mut state = state();
    for (shard, incarnation) in [(0, 2), (2, 3)] {
        let list = [GENESIS_REPLICA, replica(3, incarnation), replica(2, incarnation)];
        assert_eq!(state.apply(&place(shard, &list)), MetaOutcome::Changed);
    }
    let unknown = MetaOutcome::Refused(MetaRefusal::UnknownNode);
    assert_eq!(state.apply(&MetaCommand::Favour(Some(4))), unknown);
    let plain = state.encode();
    assert_eq!(state.apply(&MetaCommand::Favour(Some(2))), MetaOutcome::Changed);
    assert_eq!(state.apply(&MetaCommand::Favour(Some(2))), MetaOutcome::Unchanged);
    let firsts: Vec<u32> = state.placement.iter().map(|list| node_of(list[0])).collect();
    assert_eq!(firsts, [2, 1, 2, 1]);
    assert_eq!(node_of(state.placement[0][1]), 1, "the others keep their order");
    let bytes = state.encode();
    assert_eq!((plain[0], bytes[0], bytes.len()), (1, 2, plain.len() + 4));
    assert_eq!(MetaState::decode(&state.encode()).as_ref(), Ok(&state));
    for wrong in [4_u32, 0] {
        let mut bytes = state.encode();
        let at = bytes.len() - 4;
        bytes[at..].copy_from_slice(&wrong.to_le_bytes());
        assert!(matches!(MetaState::decode(&bytes), Err(DecodeError::Invalid(_))));
        assert!(MetaState::decode(&bytes[..at]).is_err());
    }
    let mut joined = state.clone();
    joined.apply(&MetaCommand::AddNode(NodeInfo::example(2)));
    assert_eq!(joined.favoured, Some(2), "it was there before");
    joined.apply(&MetaCommand::AddNode(NodeInfo::example(4)));
    assert_eq!(joined.favoured, None);
    state.apply(&MetaCommand::RemoveNode(3));
    assert_eq!(state.favoured, None);
}

#[test]
fn a_placement_takes_new_incarnations_and_takes_them_once() {
    let mut state = state();
    let list = [GENESIS_REPLICA, replica(2, 2)];
    assert_eq!(state.apply(&place(0, &list)), MetaOutcome::Changed);
    assert_eq!(state.next_incarnation, 3);
    assert_eq!(state.apply(&place(0, &list)), MetaOutcome::Unchanged);
    let epoch = state.epoch;
    assert_eq!(state.apply(&place(1, &list)), MetaOutcome::Refused(MetaRefusal::Outdated));
    assert_eq!(state.apply(&place(0, &[GENESIS_REPLICA])), MetaOutcome::Changed);
    assert_eq!(state.apply(&place(0, &list)), MetaOutcome::Refused(MetaRefusal::Outdated));
    assert_eq!(state.epoch, epoch + 1);
}

#[test]
fn impossible_placements_are_refused_whole() {
    let mut state = state();
    let before = state.clone();
    for list in
        [&[][..], &[GENESIS_REPLICA, replica(1, 2)], &[GENESIS_REPLICA, replica(4, 2)], &[replica(0, 2)]]
    {
        let refused = MetaOutcome::Refused(MetaRefusal::InvalidReplicas);
        assert_eq!(state.apply(&place(0, list)), refused, "{list:?}");
        let mut all = state.placement.clone();
        all[0] = vec![GENESIS_REPLICA, replica(2, 2)];
        all[3] = list.to_vec();
        assert_eq!(state.apply(&MetaCommand::PlaceAll(all)), refused, "{list:?}");
    }
    let unknown = MetaOutcome::Refused(MetaRefusal::UnknownShard);
    assert_eq!(state.apply(&place(4, &[GENESIS_REPLICA])), unknown);
    assert_eq!(state.apply(&MetaCommand::PlaceAll(vec![vec![GENESIS_REPLICA]; 3])), unknown);
    for factor in [0, 8] {
        let outcome = state.apply(&MetaCommand::SetReplicationFactor(factor));
        assert_eq!(outcome, MetaOutcome::Refused(MetaRefusal::InvalidReplicationFactor));
    }
    assert_eq!(state, before);
}

#[test]
fn nodes_that_cannot_be_reached_are_refused() {
    let mut state = state();
    for bad in [
        NodeInfo { host: String::new(), ..NodeInfo::example(4) },
        NodeInfo { host: "a b".to_owned(), ..NodeInfo::example(4) },
        NodeInfo { host: "a,b".to_owned(), ..NodeInfo::example(4) },
        NodeInfo { host: "a".repeat(HOST_BYTES_MAX + 1), ..NodeInfo::example(4) },
        NodeInfo { port: 0, ..NodeInfo::example(4) },
        NodeInfo { peer_port: 0, ..NodeInfo::example(4) },
        NodeInfo { level: 0, ..NodeInfo::example(4) },
        NodeInfo::example(0),
    ] {
        let outcome = state.apply(&MetaCommand::AddNode(bad.clone()));
        assert_eq!(outcome, MetaOutcome::Refused(MetaRefusal::InvalidNode), "{bad:?}");
    }
}

fn commands() -> [MetaCommand; 10] {
    [
        MetaCommand::AddNode(NodeInfo { level: 258, ..NodeInfo::example(7) }),
        MetaCommand::SetNodeLevel { number: 3, level: 2 },
        MetaCommand::RaiseLevel(2),
        MetaCommand::AddNode(NodeInfo::example(7)),
        MetaCommand::RemoveNode(3),
        place(2, &[replica(2, 9), GENESIS_REPLICA]),
        MetaCommand::PlaceAll(vec![vec![GENESIS_REPLICA], vec![replica(3, 1), replica(2, 8)]]),
        MetaCommand::SetReplicationFactor(5),
        MetaCommand::Favour(Some(3)),
        MetaCommand::Favour(None),
    ]
}

#[test]
fn bytes_come_back() {
    let mut state = state();
    assert_eq!(state.apply(&place(2, &[replica(2, 9), GENESIS_REPLICA])), MetaOutcome::Changed);
    assert_eq!(state.apply(&MetaCommand::RemoveNode(2)), MetaOutcome::Changed);
    assert_eq!(MetaState::decode(&state.encode()), Ok(state));
    for command in commands() {
        assert_eq!(MetaCommand::decode(&command.encode()), Ok(command));
    }
}

/// What bytes are read as, encoded again.
type Again<'a> = &'a dyn Fn(&[u8]) -> Result<Vec<u8>, DecodeError>;

#[test]
fn hostile_bytes_give_an_error_or_something_that_encodes_so() {
    let check = |bytes: &[u8], decode: Again<'_>| {
        for end in 0..bytes.len() {
            assert!(decode(&bytes[..end]).is_err(), "{end} bytes");
        }
        let mut long = bytes.to_vec();
        long.push(0);
        assert_eq!(decode(&long), Err(DecodeError::Long));
        for place in 0..bytes.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut hostile = bytes.to_vec();
                hostile[place] = value;
                if let Ok(again) = decode(&hostile) {
                    assert_eq!(again, hostile, "byte {place}: {value}");
                }
            }
        }
    };
    let mut favoured = state();
    favoured.apply(&MetaCommand::Favour(Some(2)));
    let mut raised = favoured.clone();
    for number in 1..=3 {
        raised.apply(&MetaCommand::SetNodeLevel { number, level: 4 - number as u16 / 2 });
    }
    assert_eq!(raised.apply(&MetaCommand::RaiseLevel(2)), MetaOutcome::Changed);
    for state in [state(), favoured, raised] {
        check(&state.encode(), &|bytes| MetaState::decode(bytes).map(|state| state.encode()));
    }
    for command in commands() {
        check(&command.encode(), &|bytes| MetaCommand::decode(bytes).map(|command| command.encode()));
    }
    let mut version = state().encode();
    version[0] = 4;
    assert_eq!(MetaState::decode(&version), Err(DecodeError::Version(4)));
}

#[test]
fn states_that_no_command_leads_to_are_refused() {
    let refused = |change: &dyn Fn(&mut MetaState)| {
        let mut state = state();
        change(&mut state);
        assert!(matches!(MetaState::decode(&state.encode()), Err(DecodeError::Invalid(_))), "{state:?}");
    };
    refused(&|state| state.epoch = 0);
    refused(&|state| state.replication_factor = 8);
    refused(&|state| state.next_node = 3);
    refused(&|state| state.next_incarnation = 1);
    refused(&|state| state.nodes.clear());
    refused(&|state| state.nodes.get_mut(&2).unwrap().id = [1; 16]);
    refused(&|state| state.placement[1] = vec![]);
    refused(&|state| state.placement[1] = vec![replica(9, 1)]);
    refused(&|state| state.placement[1] = vec![replica(1, 1), replica(1, 1)]);
    refused(&|state| state.shards = 3);
    refused(&|state| state.level = 2);
    refused(&|state| state.nodes.get_mut(&2).unwrap().level = 0);
}
