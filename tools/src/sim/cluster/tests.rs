//! A few seeds, and proof that mistakes are found.

use super::{Sabotage, Upgrade, run, upgrade};

#[test]
fn quick_seeds() {
    for seed in 0..48 {
        if let Err(failure) = run(seed, None) {
            panic!("seed {} failed: {}", failure.seed, failure.reason);
        }
    }
}

/// Each of these has found a mistake once.
#[test]
fn seeds_that_failed() {
    // A replica that had all that a snapshot covers, and was sent it for ever; a read that was served before what its own
    // connection had written, because another leader's entries had taken their place; one that was served behind its connection's
    // later write, because its leader had just been elected; shards that nobody led, because of the nodes' clocks; requests that
    // were sent to a node whose answers could not come.
    for seed in [25, 219, 104, 5133, 5294, 20427, 5114, 30283] {
        if let Err(failure) = run(seed, None) {
            panic!("seed {} failed: {}", failure.seed, failure.reason);
        }
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [1, 5] {
        assert_eq!(run(seed, None).unwrap(), run(seed, None).unwrap());
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
fn a_write_sent_twice_is_found() {
    let reason = first_failure(Sabotage::RepeatedWrites);
    assert!(reason.contains("no order explains"), "{reason}");
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
