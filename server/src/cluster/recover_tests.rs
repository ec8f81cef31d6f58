//! What a new cluster of one node is made of, for every log that can be on its disk.

use duva_raft::{AppliedLog, Entry};

use super::{
    super::{GENESIS_REPLICA, meta::MetaCommand},
    *,
};
use crate::core::groups::own_replicas;

/// The node that survives.
const OWN: u32 = 3;

/// The new cluster.
const FRESH: [u8; 16] = [0xEE; 16];

fn node(number: u32) -> NodeInfo {
    NodeInfo { id: [number as u8; 16], host: "10.0.0.1".to_owned(), port: 6379, peer_port: 16379, level: 1 }
}

/// A cluster of four nodes and two shards: the node has a replica of the first one alone.
fn old_file() -> ClusterFile {
    let mut state = MetaState::genesis([0xAA; 16], 2, 7, 3, node(1));
    for number in 2..5 {
        state.apply(&MetaCommand::AddNode(node(number)));
    }
    let entry = |index, command: &MetaCommand| Entry {
        index,
        term: 4,
        timestamp_ms: 0,
        seed: 0,
        kind: EntryKind::Data(1),
        payload: command.encode().into(),
    };
    let place = |shard, replicas: &[ReplicaId]| MetaCommand::Place { shard, replicas: replicas.to_vec() };
    let entries = vec![
        entry(8, &place(0, &[GENESIS_REPLICA, replica(2, 2), replica(OWN, 2)])),
        entry(9, &place(1, &[GENESIS_REPLICA, replica(2, 3), replica(4, 3)])),
    ];
    ClusterFile {
        number: OWN,
        is_recovering: false,
        cluster: state.cluster,
        hard_state: HardState { term: 5, vote: Some(replica(2, 1)) },
        snapshot: SnapshotMeta {
            index: 7,
            term: 3,
            membership: Membership::new(&[replica(1, 1), replica(2, 1), replica(OWN, 1)], &[]).unwrap(),
        },
        state,
        entries,
        kept: Vec::new(),
    }
}

fn summary(last_index: u64, voters: &[ReplicaId], learners: &[ReplicaId]) -> LogSummary {
    LogSummary { last_index, last_term: 6, membership: Membership::new(voters, learners).unwrap() }
}

/// The logs of a node that votes in the first shard and has nothing of the second.
fn logs() -> Vec<LogSummary> {
    vec![
        summary(20, &[GENESIS_REPLICA, replica(2, 2), replica(OWN, 2)], &[]),
        LogSummary { last_index: 0, last_term: 0, membership: genesis_membership() },
    ]
}

fn founded(file: &ClusterFile, logs: &[LogSummary]) -> Foundation {
    plan(file, node(OWN), logs, FRESH, (false, true)).unwrap().expect("there is something to do")
}

#[test]
fn the_new_cluster_is_the_node_alone_under_new_names() {
    let Foundation { file, shards } = founded(&old_file(), &logs());
    assert!(file.is_recovering);
    assert_eq!((file.cluster, file.state.cluster), (FRESH, FRESH));
    assert_eq!(file.state.nodes, BTreeMap::from([(OWN, node(OWN))]));
    assert_eq!(own_replicas(&file), [Some(replica(OWN, 4)); 2]);
    assert_eq!((file.state.next_node, file.state.next_incarnation), (5, 5));
    assert_eq!((file.hard_state.term, file.hard_state.vote), (6, None));
    assert_eq!((file.snapshot.index, file.snapshot.term), (10, 6));
    assert_eq!(file.snapshot.membership, alone(replica(OWN, 1)));
    assert_eq!(ClusterFile::decode(&file.encode()).as_ref(), Ok(&file));
    let said: Vec<String> = shards.iter().map(ShardFate::to_string).collect();
    assert!(
        said[0].contains("shard 0: what this node's replica has is kept: up to entry 20 of term 6"),
        "{said:?}"
    );
    assert!(said[1].contains("shard 1: this node has nothing of it: it begins empty"), "{said:?}");
}

#[test]
fn names_are_new_even_if_only_a_log_knows_the_last_ones() {
    let mut logs = logs();
    logs[0] = summary(20, &[replica(OWN, 2), replica(9, 40)], &[replica(OWN, 4)]);
    let Foundation { file, .. } = founded(&old_file(), &logs);
    assert_eq!(own_replicas(&file)[0], Some(replica(OWN, 41)));
    assert_eq!((file.state.next_node, file.state.next_incarnation), (10, 42));
}

#[test]
fn what_is_missing_is_named_unless_it_is_given_up() {
    let refused =
        |logs: &[LogSummary]| plan(&old_file(), node(OWN), logs, FRESH, (false, false)).unwrap_err();
    let mut logs = logs();
    assert_eq!(refused(&logs), FoundationError::MissingShards(vec![1]));
    assert!(refused(&logs).to_string().contains("no replica of 1 shards (1)"), "{}", refused(&logs));
    // What is left of a replica that was moved away may be old, even if it does not know it.
    logs[1] = summary(9, &[GENESIS_REPLICA, replica(OWN, 1)], &[]);
    assert_eq!(refused(&logs), FoundationError::MissingShards(vec![1]));
    assert_eq!(founded(&old_file(), &logs).shards[1].holding, Holding::LeftOver);
    // A replica that got nothing yet is none.
    logs[0] = LogSummary { last_index: 0, last_term: 0, membership: genesis_membership() };
    assert_eq!(refused(&logs), FoundationError::MissingShards(vec![0, 1]));
    let many = FoundationError::MissingShards((0..100).collect()).to_string();
    assert!(many.contains("100 shards (0, 1,") && many.contains(", 31, and 68 more)"), "{many}");
}

#[test]
fn a_learner_is_better_than_nothing() {
    let mut logs = logs();
    logs[0] = summary(20, &[GENESIS_REPLICA, replica(2, 2)], &[replica(OWN, 2)]);
    let holding = |logs: &[LogSummary]| founded(&old_file(), logs).shards[0].holding;
    assert_eq!(holding(&logs), Holding::Learner);
    // It has not got so far as to learn that it learns.
    logs[0] = summary(20, &[GENESIS_REPLICA, replica(2, 2)], &[]);
    assert_eq!(holding(&logs), Holding::Learner);
    // It votes until the change of voters is over.
    logs[0].membership.outgoing = vec![replica(OWN, 2)];
    assert_eq!(holding(&logs), Holding::Voter);
}

/// The file of a node that is the only one, and its logs.
fn lone() -> (ClusterFile, Vec<LogSummary>) {
    let file = ClusterFile { is_recovering: false, ..founded(&old_file(), &logs()).file };
    (file, vec![summary(21, &[replica(OWN, 4)], &[]), summary(1, &[replica(OWN, 4)], &[])])
}

#[test]
fn who_is_alone_already_stays_as_it_is() {
    let (file, logs) = lone();
    let planned = |file: &ClusterFile, logs: &[LogSummary], may_have_lost| {
        plan(file, node(OWN), logs, FRESH, (may_have_lost, false))
    };
    assert_eq!(planned(&file, &logs, false), Ok(None));
    assert!(planned(&file, &logs, true).unwrap().is_some(), "it may have lost something");
    let has_something = |change: &dyn Fn(&mut ClusterFile, &mut Vec<LogSummary>)| {
        let (mut file, mut logs) = lone();
        change(&mut file, &mut logs);
        assert!(planned(&file, &logs, false).unwrap().is_some());
    };
    has_something(&|file, _| _ = file.state.nodes.insert(7, node(7)));
    has_something(&|file, _| file.state.placement[0].push(replica(7, 5)));
    has_something(&|file, _| file.snapshot.membership.learners = vec![replica(7, 1)]);
    has_something(&|_, logs| logs[1].membership.learners = vec![replica(7, 5)]);
    has_something(&|_, logs| logs[0].membership.outgoing = vec![replica(7, 5)]);
    has_something(&|file, _| {
        let payload = Membership::new(&[replica(OWN, 1), replica(7, 1)], &[]).unwrap().encode().into();
        let kind = EntryKind::Membership;
        file.entries = vec![Entry { index: 11, term: 6, timestamp_ms: 0, seed: 0, kind, payload }];
    });
}

#[test]
fn numbers_that_run_out_are_refused() {
    let refused = |change: &dyn Fn(&mut ClusterFile, &mut Vec<LogSummary>)| {
        let (mut file, mut logs) = (old_file(), logs());
        change(&mut file, &mut logs);
        let planned = plan(&file, node(OWN), &logs, FRESH, (false, true));
        assert_eq!(planned, Err(FoundationError::NumbersRanOut));
    };
    refused(&|file, _| file.hard_state.term = u64::MAX);
    refused(&|file, _| file.state.next_incarnation = u32::MAX);
    refused(&|_, logs| logs[0].membership.voters.push(replica(u32::MAX, 1)));
    refused(&|_, logs| logs[0].membership.voters.push(replica(5, u32::MAX)));
}

/// A log with commands and memberships, behind a snapshot.
fn old_log(length: usize) -> ShardLog {
    let joint =
        Membership { outgoing: vec![GENESIS_REPLICA], ..Membership::new(&[replica(2, 2)], &[]).unwrap() };
    let memberships =
        [genesis_membership(), joint, Membership::new(&[replica(2, 2), replica(OWN, 2)], &[]).unwrap()];
    let entry = |place: usize| {
        let (kind, payload) = match place % 3 {
            1 => (Kind::Membership, memberships[place / 3 % 3].encode()),
            _ => (Kind::Entry, vec![place as u8]),
        };
        let (index, term) = (11 + place as u64, 3 + place as u64 / 4);
        LogEntry { index, term, timestamp_ms: 100, seed: place as u64, kind, payload: payload.into() }
    };
    ShardLog {
        shard: 0,
        term: 5,
        vote: replica(2, 2).0,
        snapshot_index: 10,
        snapshot_term: 2,
        membership: genesis_membership().encode(),
        applied: AppliedLog::default(),
        entries: (0..length).map(entry).collect(),
    }
}

/// The same log with its first entries applied and dropped.
fn dropped(log: ShardLog, count: usize) -> ShardLog {
    let ShardLog { mut entries, .. } = log;
    let mut applied = AppliedLog::default();
    for entry in entries.drain(..count) {
        (applied.index, applied.dropped_to) = (entry.index, entry.index);
        if applied.terms.last().is_none_or(|(_, term)| *term != entry.term) {
            applied.terms.push((entry.index, entry.term));
        }
        if entry.kind == Kind::Membership {
            let membership = Membership::decode(&entry.payload).unwrap();
            applied.memberships.push((entry.index, membership));
        }
    }
    ShardLog { applied, entries, ..log }
}

#[test]
fn a_log_of_which_much_is_applied_becomes_its_replica_s_alone_as_well() {
    let own = replica(OWN, 4);
    for (length, count) in (0..12).flat_map(|length| (0..=length).map(move |count| (length, count))) {
        let (mut whole, mut log) = (old_log(length), dropped(old_log(length), count));
        assert_eq!(log.last(), whole.last());
        assert_eq!(make_alone(&mut whole, own), Ok(true));
        assert_eq!(make_alone(&mut log, own), Ok(true), "{count} of {length}");
        let (last, expected) = (log.entries.last().unwrap(), whole.entries.last().unwrap());
        assert_eq!(
            (last.index, last.term, &last.payload),
            (expected.index, expected.term, &expected.payload)
        );
        // It says so once, wherever that is.
        let count = log.entries.len();
        assert_eq!(make_alone(&mut dropped(whole, count), own), Ok(false));
    }
    // The only member by what is dropped.
    let mut log = dropped(old_log(5), 5);
    let alone = Membership::new(&[own], &[]).unwrap();
    log.applied.memberships.push((15, alone));
    assert_eq!(make_alone(&mut log, own), Ok(false));
}

fn membership_of(log: &ShardLog) -> Membership {
    let entries = log.entries.iter().map(|entry| (entry.kind, &*entry.payload));
    last_membership(&log.membership, entries).unwrap()
}

#[test]
fn any_prefix_of_a_log_becomes_its_replica_s_alone_once() {
    let own = replica(OWN, 4);
    for length in 0..12 {
        let (before, mut log) = (old_log(length), old_log(length));
        assert_eq!(make_alone(&mut log, own), Ok(true), "{length}");
        assert_eq!(membership_of(&log), alone(own));
        let (last, kept) = log.entries.split_last().unwrap();
        let shown = |entries: &[LogEntry]| format!("{entries:?}");
        assert_eq!(shown(kept), shown(&before.entries), "nothing is dropped");
        let highest = before.entries.last().map_or(0, |entry| entry.term).max(before.term);
        assert_eq!((last.index, last.term, last.timestamp_ms), (11 + length as u64, highest + 1, 0));
        assert_eq!((log.term, log.vote), (last.term, 0));
        let once = format!("{log:?}");
        assert_eq!(make_alone(&mut log, own), Ok(false), "{length}");
        assert_eq!(format!("{log:?}"), once);
    }
}

/// A crash leaves the first file or not, and of what the first start appends any number of whole shards' logs: whatever it is,
/// starts without the option are the old cluster's or the new one's alone.
#[test]
fn a_crash_at_any_moment_leaves_the_old_cluster_or_the_new_one() {
    let (old, fresh) = (old_file(), founded(&old_file(), &logs()).file);
    assert_ne!(old.cluster, fresh.cluster, "nodes of one are refused by the other");
    for appended in 0..=2 {
        let mut disk = [old_log(7), old_log(0)];
        disk[1].shard = 1;
        let replicas = own_replicas(&fresh);
        for (log, own) in disk.iter_mut().zip(&replicas).take(appended) {
            assert_eq!(make_alone(log, own.unwrap()), Ok(true));
        }
        // The flag is there, so the next start goes on.
        assert!(fresh.is_recovering);
        for (shard, (log, own)) in disk.iter_mut().zip(&replicas).enumerate() {
            assert_eq!(make_alone(log, own.unwrap()), Ok(shard >= appended));
            assert_eq!(membership_of(log), alone(own.unwrap()));
        }
    }
    // Before the first file nothing is appended: what the old cluster's start finds is what was there.
    assert_eq!(own_replicas(&old), [Some(replica(OWN, 2)), None]);
}

#[test]
fn a_start_takes_up_the_replica_that_has_not_ended_before_one_that_is_placed() {
    let kept = vec![(0, replica(OWN, 1)), (1, replica(OWN, 9))];
    assert_eq!(
        own_replicas(&ClusterFile { kept, ..old_file() }),
        [Some(replica(OWN, 1)), Some(replica(OWN, 9))]
    );
}

#[test]
fn a_log_that_cannot_be_read_is_refused_by_its_shard() {
    let mut log = old_log(2);
    log.entries[1].payload = [1].as_slice().into();
    let error = make_alone(&mut log, replica(OWN, 4)).unwrap_err();
    assert_eq!(error, "shard 0 cannot be made this node's alone: its last membership cannot be read");
    let mut log = old_log(0);
    log.term = u64::MAX;
    assert!(make_alone(&mut log, replica(OWN, 4)).unwrap_err().contains("have run out"));
    log.term = 5;
    log.membership = Vec::new();
    assert_eq!(
        make_alone(&mut log, GENESIS_REPLICA),
        Ok(false),
        "a shard begins with its first replica alone"
    );
}
