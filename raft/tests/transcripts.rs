//! What replicas do and say, rule by rule, as transcripts: each file of `testdata/` is a sequence of commands to a
//! small cluster, each followed by what it printed.
//!
//! `DUVA_REWRITE=1 cargo test -p duva-raft --test transcripts` writes the output that came into the files, to be
//! read as a diff: the transcripts are the specification. Commands are listed in `transcripts/commands.rs`, the
//! text's form is in `transcripts/script.rs`. Every transcript is held to the rules of `transcripts/checks.rs`
//! besides. The rules that [`Mutation`] breaks are each shown by one of them.
//!
//! `1->2 append` is printed when replica 1 sends, `2<-1 append` when the message arrives. An entry is shown as
//! index/term and content, and `prev=4/2` is the entry 4 of term 2.

#[path = "transcripts/mod.rs"]
mod harness;

use std::{collections::BTreeSet, env, fs, panic, path::PathBuf};

use duva_raft::mutation::Mutation;

use crate::harness::{commands, script::Script, world::World};

/// One test a file, named as the file.
macro_rules! transcripts {
    ($($name:ident)*) => {
        const FILES: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { check(stringify!($name)); })*
    };
}

transcripts! {
    commit_own_term
    commit_with_own_term
    durability_follower_stalled
    durability_fsync
    durability_leader_stalled
    durability_memory
    durability_term_change
    election
    election_candidate_gives_way
    election_check_quorum
    election_check_quorum_half
    election_log_later_term
    election_log_longer
    election_lone_voter
    election_one_vote
    election_pre_vote
    election_pre_vote_behind
    election_restart_silence
    election_split_vote
    election_sticky
    election_timeout
    election_vote_outdated
    election_vote_repeated
    fetch
    fetch_compacted
    fetch_gone
    fetch_lazy
    fetch_paced
    fetch_stalled
    membership_demote
    membership_joint
    membership_joint_election
    membership_joint_leader_lost
    membership_joint_outgoing_leads
    membership_learner
    membership_learner_remove
    membership_learner_votes
    membership_new_voter_behind
    membership_refused
    membership_remove
    membership_remove_leader
    membership_remove_leader_lost
    membership_removed_disturbs
    membership_removed_restarts
    membership_replace
    membership_truncated
    proposals
    proposals_deposed
    read_before_commit
    read_busy
    read_deposed
    read_forwarded
    read_forwarded_failed
    read_index
    read_joint
    read_learner_counts_not
    read_lease
    read_lone_voter
    read_membership
    read_stale_leader
    replication
    replication_backoff
    replication_bytes
    replication_figure7
    replication_gap
    replication_lost
    replication_lost_commit
    replication_old_append
    replication_pipeline
    replication_probe
    replication_unmatched
    restart
    restart_all
    restart_lost_writes
    restart_process
    restart_vote
    snapshot
    snapshot_installing
    snapshot_leader_changes
    snapshot_log_dropped
    snapshot_log_kept
    snapshot_lost_piece
    snapshot_membership
    snapshot_other
    snapshot_overtaken
    snapshot_own
    snapshot_refused
    snapshot_resume
    snapshot_stale_leader
    snapshot_unneeded
    snapshot_unreadable
    stale_leader
    timeout_now_outdated
    transfer
    transfer_behind
    transfer_joint
    transfer_other_target
    transfer_refused
    transfer_restarted_voter
    transfer_timeout
}

fn check(name: &str) {
    let path = folder().join(format!("{name}.txt"));
    let before = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut world = World::new(None);
    let (after, differences) = Script::parse(&before).run(|words| {
        // Shown if the command fails.
        println!("{name}: > {words}");
        commands::run(&mut world, words)
    });
    if env::var("DUVA_REWRITE").is_ok_and(|value| value == "1") {
        if after != before {
            fs::write(&path, after).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        return;
    }
    assert!(
        differences.is_empty(),
        "{} differs; DUVA_REWRITE=1 accepts it\n{}",
        path.display(),
        differences.join("\n")
    );
}

/// Every rule that is broken on purpose, and a transcript that shows it.
const SHOWN: &[(Mutation, &str)] = &[
    (Mutation::CountVoteTwice, "election_vote_repeated"),
    (Mutation::AcknowledgeBeforeDurable, "durability_fsync"),
    (Mutation::VoteBeforeDurable, "election"),
    (Mutation::VoteTwice, "election_one_vote"),
    (Mutation::VoteForShorterLog, "election_log_later_term"),
    (Mutation::CommitEarlierTerm, "commit_own_term"),
    (Mutation::KeepConflict, "replication_figure7"),
    (Mutation::CommitUnmatched, "replication_unmatched"),
    (Mutation::VoteAfterRestart, "election_restart_silence"),
    (Mutation::LeaseFromArrival, "read_lease"),
    (Mutation::LeaseThroughTransfer, "transfer_timeout"),
    (Mutation::ReadBeforeCommit, "read_before_commit"),
    (Mutation::ReadByOne, "read_learner_counts_not"),
    (Mutation::JointByNewAlone, "membership_joint"),
    (Mutation::LeaderCountsUndurable, "durability_fsync"),
    (Mutation::KeepLogBehindSnapshot, "snapshot_log_dropped"),
];

#[test]
fn transcripts_show_broken_rules() {
    for &(mutation, name) in SHOWN {
        let text = fs::read_to_string(folder().join(format!("{name}.txt"))).expect("a transcript");
        // The replicas or the checks may stop it.
        let is_shown = panic::catch_unwind(|| {
            let mut world = World::new(Some(mutation));
            let (_, differences) = Script::parse(&text).run(|words| commands::run(&mut world, words));
            !differences.is_empty()
        });
        assert!(is_shown.unwrap_or(true), "{name} does not show {mutation:?}");
    }
}

#[test]
fn every_file_is_run() {
    let found: BTreeSet<String> = fs::read_dir(folder())
        .expect("the folder of transcripts")
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| path.file_stem().expect("a file name").to_string_lossy().into_owned())
        .collect();
    let listed: BTreeSet<String> = FILES.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(found, listed);
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/testdata")
}
