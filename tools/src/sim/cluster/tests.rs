//! A few seeds, and proof that mistakes are found.

use super::{Sabotage, Summary, Upgrade, manner::Manner, run, run::Run, upgrade};

#[test]
fn quick_seeds() {
    let mut total = Summary::default();
    for seed in 0..48 {
        match run(seed, None) {
            Ok(summary) => total.add(&summary),
            Err(failure) => panic!("seed {} failed: {}", failure.seed, failure.reason),
        }
    }
    let is_there = [total.full_disks, total.failing_disks, total.losses, total.drifts, total.near_reads];
    assert!(is_there.iter().all(|&count| count > 0), "{total:?}");
    let is_asked = [total.shelved, total.flushes, total.moved, total.crossed];
    assert!(is_asked.iter().all(|&count| count > 40), "{total:?}");
}

/// Each of these has found a mistake once.
#[test]
fn seeds_that_failed() {
    // A node that was killed before it had written anything after it was let in, and could not start again.
    for seed in [577, 1261] {
        if let Err(failure) = run(seed, None) {
            panic!("seed {} failed: {}", failure.seed, failure.reason);
        }
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 5, 2, 3, 4, 8] {
        assert_eq!(run(seed, None).unwrap(), run(seed, None).unwrap());
    }
}

/// A machine that stands still stops all of its nodes: none of them gives a leader up for that when they go on.
#[test]
fn nodes_that_all_stood_still_keep_their_leaders() {
    const MS: u64 = 1_000_000;
    fn leaders(run: &Run) -> Vec<(usize, u16, u64, Option<u64>)> {
        let nodes = run.nodes.iter().enumerate();
        let cores = nodes.flat_map(|(number, node)| node.cores.iter().map(move |core| (number, core)));
        let groups = cores.flat_map(|(number, core)| {
            let groups = core.core.node().groups.iter();
            groups.flat_map(|groups| groups.replicas()).map(move |replica| (number, replica))
        });
        groups
            .map(|(number, (shard, raft))| (number, shard, raft.term(), raft.leader().map(|leader| leader.0)))
            .collect()
    }
    let mut run = Run::new(1, None, Manner::default());
    run.form().unwrap();
    run.calm().unwrap();
    let wait = |run: &mut Run, duration_ns| {
        let until_ns = run.now_ns() + duration_ns;
        run.until(u64::MAX, "time goes on", |run| run.now_ns() >= until_ns).unwrap();
    };
    wait(&mut run, 10_000 * MS);
    let before = leaders(&run);
    assert!(!before.is_empty() && before.iter().all(|(.., leader)| leader.is_some()));
    for duration_ms in [100, 150, 200, 250, 300, 350, 400, 700, 1_000, 5_000] {
        let until_ns = run.now_ns() + duration_ms * MS;
        for machine in &mut run.world.borrow_mut().machines {
            machine.stopped_until_ns = until_ns;
        }
        wait(&mut run, (duration_ms + 2_000) * MS);
        assert_eq!(leaders(&run), before, "after {duration_ms} ms");
    }
}

/// Runs seeds until one fails, and returns why.
fn first_failure(sabotage: Sabotage) -> String {
    (0..100).find_map(|seed| run(seed, Some(sabotage)).err()).expect("the mistake is found").reason
}

#[test]
fn a_disk_that_lies_is_found() {
    // By who judges, or by a replica itself: what it has committed is to be removed.
    let is_found = std::panic::catch_unwind(|| first_failure(Sabotage::LyingDisks)).map_or_else(
        |panic| panic.downcast_ref::<String>().is_some_and(|reason| reason.contains("is committed")),
        |reason| !reason.is_empty(),
    );
    assert!(is_found, "the mistake is found");
}

#[test]
fn reads_of_what_a_replica_has_are_found() {
    let reason = first_failure(Sabotage::StaleReads);
    assert!(reason.contains("no order explains"), "{reason}");
}

#[test]
fn stale_reads_of_a_session_are_found() {
    let reason = first_failure(Sabotage::StaleSessions);
    assert!(reason.contains("when it has seen it at"), "{reason}");
}

#[test]
fn half_a_write_is_found() {
    let reason = first_failure(Sabotage::HalfWrites);
    // By who reads all keys, by who removes them, or by who reads one.
    let is_found = ["half of a write is seen", "is answered with :", "no order explains"];
    assert!(is_found.iter().any(|found| reason.contains(found)), "{reason}");
}

#[test]
fn half_a_write_of_places_is_found() {
    let reason = first_failure(Sabotage::HalfPlaces);
    assert!(reason.contains("shelf: no order explains"), "{reason}");
}

#[test]
fn a_flush_that_removes_nothing_is_found() {
    let reason = first_failure(Sabotage::NoFlushes);
    assert!(reason.contains("no order explains"), "{reason}");
}

#[test]
fn a_write_sent_twice_is_found() {
    let reason = first_failure(Sabotage::RepeatedWrites);
    // A counter that only grows may be found first to have had a value that nobody gave it.
    let is_found = ["no order explains", "never was"];
    assert!(is_found.iter().any(|found| reason.contains(found)), "{reason}");
}

#[test]
fn upgrades_lose_nothing() {
    let mut early = 0;
    for seed in 0..16 {
        match upgrade(seed, Upgrade::Careful) {
            Ok(summary) => early += summary.early,
            Err(failure) => panic!("seed {} failed: {}", failure.seed, failure.reason),
        }
    }
    assert!(early > 100, "{early} requests came too early");
}

#[test]
fn what_not_all_nodes_know_is_found() {
    // By who judges, or by a node that is to apply it.
    let hasty =
        || (0..100).find_map(|seed| upgrade(seed, Upgrade::Hasty).err()).expect("the mistake is found");
    let reason = match std::panic::catch_unwind(|| hasty().reason) {
        Ok(reason) => reason,
        Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
    };
    assert!(
        reason.contains("of a later feature level") || reason.contains("before all nodes know it"),
        "{reason}"
    );
}
