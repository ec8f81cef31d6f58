//! What can be broken on purpose, in Raft or around it, so that it shows that the checkers find it.

use duva_raft::mutation::Mutation;

use super::{Options, faults::Fault, setup::Focus};

/// One thing that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A rule of Raft itself.
    Raft(Mutation),
    /// Recovery takes, of all records of an index, the one with the highest term rather than the last.
    HighestTermWins,
    /// Recovery keeps what was behind a record that was written later.
    KeepReplacedTail,
    /// Recovery knows the term, but not the vote.
    ForgetVote,
    /// A node whose disk was wiped comes back under its old id.
    KeepIdAfterWipe,
    /// A node that lost its page cache comes back under its old id, though what is written counted.
    KeepIdAfterPowerLoss,
    /// What is written is reported as synced.
    SyncWithoutWaiting,
    /// Raft is told that a snapshot is in force before its mark is durable.
    InstallBeforeDurable,
    /// A register expires by the clock of whoever applies the entry.
    ExpireByOwnClock,
    /// A request is compared with those before it when it is proposed, not when it is applied.
    CheckOnceBeforeApply,
    /// Snapshots hold no requests.
    SnapshotWithoutRequests,
    /// A client is answered when its write is proposed.
    AnswerBeforeCommit,
    /// Reads do not wait until their index is applied.
    ReadBeforeApplied,
    /// A replica serves reads by what it has.
    ReadWithoutAsking,
    /// Clocks differ by more than a lease allows.
    ClocksBeyondMargin,
}

/// How a flaw is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hunt {
    pub(crate) name: &'static str,
    flaw: Flaw,
    /// The kind of seeds that find it.
    focus: Focus,
    /// Nothing else breaks in them.
    only: Option<Fault>,
    /// Seeds within which it is found.
    pub(crate) seeds_max: u64,
}

impl Hunt {
    const fn new(name: &'static str, flaw: Flaw, focus: Focus) -> Self {
        Self { name, flaw, focus, only: None, seeds_max: 600 }
    }

    const fn only(self, fault: Fault) -> Self {
        Self { only: Some(fault), ..self }
    }

    /// A seed that may find it, by what becomes of it: broken promises alone do not count.
    pub(crate) fn options(&self, seed: u64) -> Options {
        Options {
            focus: Some(self.focus),
            only: self.only,
            flaw: Some(self.flaw),
            checks_promises: false,
            ..Options::new(seed)
        }
    }
}

/// All flaws.
pub(crate) const HUNTS: [Hunt; 30] = [
    Hunt::new("count-vote-twice", Flaw::Raft(Mutation::CountVoteTwice), Focus::Votes).only(Fault::Campaign),
    Hunt::new("acknowledge-before-durable", Flaw::Raft(Mutation::AcknowledgeBeforeDurable), Focus::Disks)
        .only(Fault::Blackout),
    Hunt::new("vote-before-durable", Flaw::Raft(Mutation::VoteBeforeDurable), Focus::Votes)
        .only(Fault::HeldVote),
    Hunt::new("vote-twice", Flaw::Raft(Mutation::VoteTwice), Focus::Votes).only(Fault::Campaign),
    Hunt::new("vote-for-shorter-log", Flaw::Raft(Mutation::VoteForShorterLog), Focus::Elections),
    Hunt::new("commit-earlier-term", Flaw::Raft(Mutation::CommitEarlierTerm), Focus::Elections)
        .only(Fault::OldTerm),
    Hunt::new("keep-conflict", Flaw::Raft(Mutation::KeepConflict), Focus::Elections),
    Hunt::new("commit-unmatched", Flaw::Raft(Mutation::CommitUnmatched), Focus::Elections),
    Hunt::new("vote-after-restart", Flaw::Raft(Mutation::VoteAfterRestart), Focus::Reads)
        .only(Fault::LeaseTrap),
    Hunt::new("lease-from-arrival", Flaw::Raft(Mutation::LeaseFromArrival), Focus::Reads)
        .only(Fault::SlowAcks),
    Hunt::new("lease-through-transfer", Flaw::Raft(Mutation::LeaseThroughTransfer), Focus::Reads)
        .only(Fault::TransferTrap),
    Hunt::new("read-before-commit", Flaw::Raft(Mutation::ReadBeforeCommit), Focus::Reads),
    Hunt::new("read-by-one", Flaw::Raft(Mutation::ReadByOne), Focus::Reads).only(Fault::CutLeader),
    Hunt::new("joint-by-new-alone", Flaw::Raft(Mutation::JointByNewAlone), Focus::Membership),
    Hunt::new("leader-counts-undurable", Flaw::Raft(Mutation::LeaderCountsUndurable), Focus::Disks)
        .only(Fault::LostTail),
    Hunt::new("keep-log-behind-snapshot", Flaw::Raft(Mutation::KeepLogBehindSnapshot), Focus::Snapshots)
        .only(Fault::LongTail),
    Hunt::new("highest-term-wins", Flaw::HighestTermWins, Focus::Elections),
    Hunt::new("keep-replaced-tail", Flaw::KeepReplacedTail, Focus::Elections),
    Hunt::new("forget-vote", Flaw::ForgetVote, Focus::Votes).only(Fault::HeldVote),
    Hunt::new("keep-id-after-wipe", Flaw::KeepIdAfterWipe, Focus::Disks),
    Hunt::new("keep-id-after-power-loss", Flaw::KeepIdAfterPowerLoss, Focus::Disks),
    Hunt::new("sync-without-waiting", Flaw::SyncWithoutWaiting, Focus::Disks).only(Fault::Blackout),
    Hunt::new("install-before-durable", Flaw::InstallBeforeDurable, Focus::Snapshots)
        .only(Fault::LateFollower),
    Hunt::new("expire-by-own-clock", Flaw::ExpireByOwnClock, Focus::Mixed),
    Hunt::new("check-once-before-apply", Flaw::CheckOnceBeforeApply, Focus::Mixed),
    Hunt::new("snapshot-without-requests", Flaw::SnapshotWithoutRequests, Focus::Snapshots),
    Hunt::new("answer-before-commit", Flaw::AnswerBeforeCommit, Focus::Mixed),
    Hunt::new("read-before-applied", Flaw::ReadBeforeApplied, Focus::Reads),
    Hunt::new("read-without-asking", Flaw::ReadWithoutAsking, Focus::Reads),
    Hunt::new("clocks-beyond-margin", Flaw::ClocksBeyondMargin, Focus::Reads).only(Fault::CutLeader),
];
