//! The journal and its recovery against a model, over a disk that tears, reorders, forgets, fails and flips bits.
//!
//! Each seed is a data directory with several lives. A life is a server with some number of cores; random steps append
//! entries, groups, large entries in fragments, votes and transactions, overwrite what is not committed, take snapshots, trim and
//! recycle. It ends in the middle of whatever it does: the process dies, or the power goes. So may the next one's
//! recovery. After each, every core's shards must be what some prefix of what was appended there makes them, no
//! shorter than what was acknowledged: written, if only processes died, or synced. Groups are never split, and
//! nothing that was dropped ever comes back. A start's own steps are such steps: it may crash at each. Now and then files
//! are taken away: that is refused, unless nothing in them was needed.
//!
//! `DUVA_CRASH_SEEDS` is how many seeds are tried, `DUVA_CRASH_SEED` the only one.

mod disk;
mod life;
mod model;
mod random;
mod world;

use std::{env, panic};

use world::World;

/// What a server could get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Recovery takes no notice of `synced_to`.
    IgnoreSyncedTo,
    /// Recovery records the manifest without making sure that what it keeps is durable.
    KeepUnsynced,
    /// Recovery syncs what it keeps, without writing it again.
    TrustSync,
    /// Recovery goes on in the same epoch, and records no cut.
    ReuseEpoch,
    /// Recovery records cuts behind what it dropped.
    CutLate,
    /// The first segments' headers do not carry votes on.
    ForgetVotes,
    /// The manifest says that the journals are begun before their first segments are durable.
    BeginEarly,
    /// Recovery looks only at journals that have files.
    DemandNothing,
    /// What the next journals' headers make superfluous is removed before the manifest says that they are begun.
    RemoveEarly,
    /// Segments are used before their files' names are durable.
    UseSegmentsEarly,
    /// Snapshots get their names before the journal is synced up to them.
    NameSnapshotsEarly,
    /// Snapshots get their names before they are synced themselves.
    LeaveSnapshotsUnsynced,
}

/// How many seeds are tried unless the environment says otherwise.
const SEEDS: u64 = 1500;

/// A mutation must be caught within so many seeds.
const MUTATION_SEEDS: u64 = 1500;

#[test]
fn every_crash_is_recovered_from() {
    let number = |name| env::var(name).ok().map(|value| value.parse().expect("a number of seeds, or a seed"));
    if let Some(seed) = number("DUVA_CRASH_SEED") {
        World::run(seed, None).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        return;
    }
    let mut seen = world::Seen::default();
    for seed in 0..number("DUVA_CRASH_SEEDS").unwrap_or(SEEDS) {
        match panic::catch_unwind(|| World::run(seed, None)) {
            Ok(Ok(more)) => seen.add(more),
            Ok(Err(failure)) => panic!("seed {seed} (DUVA_CRASH_SEED={seed} repeats it): {failure}"),
            Err(panicked) => {
                eprintln!("seed {seed} (DUVA_CRASH_SEED={seed} repeats it) panicked");
                panic::resume_unwind(panicked);
            }
        }
    }
    println!("{seen:?}");
    seen.check();
}

#[test]
fn mutations_are_caught() {
    let all = [
        Mutation::IgnoreSyncedTo,
        Mutation::KeepUnsynced,
        Mutation::TrustSync,
        Mutation::ReuseEpoch,
        Mutation::CutLate,
        Mutation::ForgetVotes,
        Mutation::BeginEarly,
        Mutation::RemoveEarly,
        Mutation::DemandNothing,
        Mutation::UseSegmentsEarly,
        Mutation::NameSnapshotsEarly,
        Mutation::LeaveSnapshotsUnsynced,
    ];
    for mutation in all {
        let caught = (0..MUTATION_SEEDS)
            .find_map(|seed| World::run(seed, Some(mutation)).err().map(|failure| (seed, failure)));
        match caught {
            Some((seed, failure)) => println!("{mutation:?}: seed {seed}: {failure}"),
            None => panic!("{mutation:?} is not caught"),
        }
    }
}
