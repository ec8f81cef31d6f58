//! Commands that show something and change nothing.

use duva_raft::HardState;

use crate::harness::{network::IDS, print, world::World};

/// A replica's state, and what it knows of its peers if it leads.
pub fn status(world: &mut World, id: u64) {
    let Some(raft) = &world.replica(id).raft else {
        world.say(format!("{id} is down"));
        return;
    };
    let lease = match raft.lease_until_ns() {
        None => String::new(),
        Some(u64::MAX) => " lease=ever".to_owned(),
        Some(until_ns) => format!(" lease={}", print::time(until_ns)),
    };
    let mut lines = vec![format!(
        "{id}: {:?} term={} vote={} leader={} commit={} applied={} log={}..{} {}{lease}",
        raft.role(),
        raft.term(),
        print::optional(raft.vote()),
        print::optional(raft.leader()),
        raft.commit_index(),
        raft.applied_index(),
        raft.first_index(),
        raft.last_index(),
        print::membership(raft.membership()),
    )];
    lines.extend(raft.peers().map(|(peer, progress)| {
        let (state, held, next) = (progress.state(), progress.match_index(), progress.next_index());
        let inflight = progress.inflight_messages();
        format!("   {}: {state:?} match={held} next={next} inflight={inflight}", peer.0)
    }));
    lines.into_iter().for_each(|line| world.say(line));
}

/// A replica's log, as far as it is in memory.
pub fn log(world: &mut World, id: u64) {
    let raft = world.replica(id).raft.as_ref().expect("a running replica");
    let snapshot = raft.snapshot();
    let list = raft.entries(raft.first_index()..raft.last_index() + 1);
    let mut line = print::entries(&list);
    if snapshot.index > 0 {
        line = format!("snapshot {} {line}", print::snapshot(snapshot));
    }
    world.say(line);
}

/// What a replica's disk holds durably.
pub fn disk(world: &mut World, id: u64) {
    let disk = &world.replica(id).disk;
    let HardState { term, vote } = disk.hard_state;
    let mut line = format!("term={term} vote={} {}", print::optional(vote), print::entries(&disk.entries));
    if disk.snapshot.index > 0 {
        line += &format!(" snapshot {}", print::snapshot(&disk.snapshot));
    }
    world.say(line);
}

/// What a replica applied.
pub fn machine(world: &mut World, id: u64) {
    let line = world.replica(id).machine.show();
    world.say(line);
}

/// All messages on their way.
pub fn waiting(world: &mut World) {
    for link in IDS.flat_map(|from| IDS.map(move |to| (from, to))) {
        let lines: Vec<String> = world.network.waiting(link).map(print::message).collect();
        lines.into_iter().for_each(|line| world.say(line));
    }
}
