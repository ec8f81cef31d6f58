//! The simulator over many seeds, and the proof that it finds what is broken on purpose. See [`simulation`].
//!
//! `DUVA_RAFT_SEEDS` and `DUVA_RAFT_FIRST` set how many seeds each test runs, and where they begin.

#[path = "simulation/mod.rs"]
mod simulation;

use simulation::{
    Options, Summary,
    flaw::HUNTS,
    run, run_once,
    setup::{FOCUSES, Focus},
};

/// Seeds of each focus.
const SEEDS: u64 = 300;

fn setting(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number: {value}")))
}

fn run_seeds(focus: Focus) -> Summary {
    let first = setting("DUVA_RAFT_FIRST", 0);
    let mut total = Summary::default();
    for seed in first..first + setting("DUVA_RAFT_SEEDS", SEEDS) {
        match run(Options { focus: Some(focus), ..Options::new(seed) }) {
            Ok(summary) => total.add(&summary),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{focus:?}: {total:?}");
    total
}

#[test]
fn all_holds_under_mixed_faults() {
    run_seeds(Focus::Mixed);
}

#[test]
fn all_holds_while_leaders_do_not_last() {
    let total = run_seeds(Focus::Elections);
    assert!(total.elections >= 5 * total.seeds, "{total:?}");
}

#[test]
fn all_holds_while_candidates_compete() {
    run_seeds(Focus::Votes);
}

#[test]
fn all_holds_while_old_leaders_are_read() {
    let total = run_seeds(Focus::Reads);
    assert!(total.operations >= 400 * total.seeds, "{total:?}");
}

#[test]
fn all_holds_through_crashes_and_slow_disks() {
    let total = run_seeds(Focus::Disks);
    assert!(total.stops >= 5 * total.seeds, "{total:?}");
}

#[test]
fn all_holds_while_members_come_and_go() {
    let total = run_seeds(Focus::Membership);
    assert!(total.memberships >= 10 * total.seeds && total.losses >= total.seeds / 2, "{total:?}");
}

#[test]
fn all_holds_while_followers_get_snapshots() {
    let total = run_seeds(Focus::Snapshots);
    assert!(total.snapshots >= 3 * total.seeds, "{total:?}");
}

/// A gap in a follower's log once made the leader send its whole window again for every rejection.
#[test]
fn no_gap_ends_in_a_storm_of_messages() {
    for seed in [1_050_481, 1_059_273] {
        if let Err(failure) = run(Options::new(seed)) {
            panic!("{failure}");
        }
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..3 {
        for focus in FOCUSES {
            let options = Options { focus: Some(focus), ..Options::new(seed) };
            let [one, other] =
                [run_once(options), run_once(options)].map(|result| result.map_err(|f| f.to_string()));
            assert_eq!(one, other, "seed {seed}, {focus:?}");
        }
    }
}

/// Finds what is broken, in a seed in which nothing happens while it is not.
fn find(name: &str) {
    let hunt = HUNTS.iter().find(|hunt| hunt.name == name).expect("every test names a mutation");
    for seed in 0..hunt.seeds_max {
        let options = hunt.options(seed);
        if let Err(failure) = run_once(options) {
            println!("{name}: seed {seed}: {failure}");
            let unbroken = run_once(Options { flaw: None, ..options });
            assert!(unbroken.is_ok(), "seed {seed} fails without {name} too: {unbroken:?}");
            return;
        }
    }
    panic!("{name} was not found in {} seeds", hunt.seeds_max);
}

/// One test for each mutation.
macro_rules! mutations {
    ($($test:ident: $name:literal,)*) => {
        /// Mutations that have a test.
        const TESTED: &[&str] = &[$($name),*];

        $(
            #[test]
            fn $test() {
                find($name);
            }
        )*
    };
}

mutations! {
    finds_count_vote_twice: "count-vote-twice",
    finds_acknowledge_before_durable: "acknowledge-before-durable",
    finds_vote_before_durable: "vote-before-durable",
    finds_vote_twice: "vote-twice",
    finds_vote_for_shorter_log: "vote-for-shorter-log",
    finds_commit_earlier_term: "commit-earlier-term",
    finds_keep_conflict: "keep-conflict",
    finds_commit_unmatched: "commit-unmatched",
    finds_vote_after_restart: "vote-after-restart",
    finds_lease_from_arrival: "lease-from-arrival",
    finds_lease_through_transfer: "lease-through-transfer",
    finds_read_before_commit: "read-before-commit",
    finds_read_by_one: "read-by-one",
    finds_joint_by_new_alone: "joint-by-new-alone",
    finds_leader_counts_undurable: "leader-counts-undurable",
    finds_keep_log_behind_snapshot: "keep-log-behind-snapshot",
    finds_highest_term_wins: "highest-term-wins",
    finds_keep_replaced_tail: "keep-replaced-tail",
    finds_forget_vote: "forget-vote",
    finds_keep_id_after_wipe: "keep-id-after-wipe",
    finds_keep_id_after_power_loss: "keep-id-after-power-loss",
    finds_sync_without_waiting: "sync-without-waiting",
    finds_install_before_durable: "install-before-durable",
    finds_expire_by_own_clock: "expire-by-own-clock",
    finds_check_once_before_apply: "check-once-before-apply",
    finds_snapshot_without_requests: "snapshot-without-requests",
    finds_answer_before_commit: "answer-before-commit",
    finds_read_before_applied: "read-before-applied",
    finds_read_without_asking: "read-without-asking",
    finds_clocks_beyond_margin: "clocks-beyond-margin",
}

/// What was promised without being durable is seen at once, whatever becomes of it.
#[test]
fn broken_promises_are_found_by_themselves() {
    for (name, rule) in [
        ("acknowledge-before-durable", "persist before send"),
        ("vote-before-durable", "persist before send"),
        ("vote-twice", "one vote a term"),
    ] {
        let hunt = HUNTS.iter().find(|hunt| hunt.name == name).expect("a mutation");
        let mut failures = (0..hunt.seeds_max)
            .filter_map(|seed| run_once(Options { checks_promises: true, ..hunt.options(seed) }).err());
        let found = failures.any(|failure| failure.rule == rule);
        assert!(found, "{name} is not found by: {rule}");
    }
}

#[test]
fn every_mutation_has_a_test() {
    assert!(HUNTS.iter().map(|hunt| hunt.name).eq(TESTED.iter().copied()));
}
