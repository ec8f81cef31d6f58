//! Deliberate faults. Tests switch one on to show that it is found; without the feature `mutations` there are none, and
//! `is_on` is a constant.

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A vote that comes twice counts twice.
    CountVoteTwice,
    /// Entries are acknowledged before they are durable.
    AcknowledgeBeforeDurable,
    /// Votes leave before they are durable.
    VoteBeforeDurable,
    /// A vote is given in a term in which one was given.
    VoteTwice,
    /// A vote is given to one whose log is behind.
    VoteForShorterLog,
    /// An entry of an earlier term is committed by the count of its copies.
    CommitEarlierTerm,
    /// A follower keeps what contradicts the leader's log.
    KeepConflict,
    /// A follower commits what it has rather than what agrees with the leader.
    CommitUnmatched,
    /// A replica votes right after it started.
    VoteAfterRestart,
    /// A lease runs from the acknowledgement's arrival.
    LeaseFromArrival,
    /// A lease outlives a transfer of leadership.
    LeaseThroughTransfer,
    /// A leader reads before anything of its own term is committed.
    ReadBeforeCommit,
    /// A read round is confirmed by one replica.
    ReadByOne,
    /// A joint membership needs only the new majority.
    JointByNewAlone,
    /// The leader counts as one that holds everything.
    LeaderCountsUndurable,
    /// A follower keeps its log behind a snapshot whose last entry it does not have.
    KeepLogBehindSnapshot,
}

/// Whether `mutation` is on in `active`.
#[inline]
pub(crate) fn is_on(active: Option<Mutation>, mutation: Mutation) -> bool {
    cfg!(feature = "mutations") && active == Some(mutation)
}
