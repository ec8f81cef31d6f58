//! What goes wrong in a run: the faults of its seed, and what is broken on purpose to show that the checkers notice.

use super::random::Random;

/// What the world breaks on purpose, to show that the checkers notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// A wake between two cores is lost.
    LoseWake,
    /// Two replies of one send change places.
    SwapReplies,
    /// A client's MSET is sent as two, and one of the replies swallowed.
    SplitSets,
    /// The last byte of a reply never arrives.
    LoseByte,
}

/// How often things go wrong: one in so many times; 0: never.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    /// A multishot receive ends with the bytes it delivers.
    pub(crate) unarmed: u64,
    /// A receive finds no buffer though there is one.
    pub(crate) no_buffers: u64,
    /// A send completes before all of it has left.
    pub(crate) short_send: u64,
    /// An operation takes long.
    pub(crate) slow: u64,
    /// Accepting fails for want of descriptors.
    pub(crate) accept: u64,
    /// The wall clock jumps.
    pub(crate) clock_jump: u64,
    /// A core stands still for a while.
    pub(crate) stall: u64,
    /// A sync takes longer than a second.
    pub(crate) stuck_sync: u64,
    /// The disk is full from the next task on that needs room, for a while.
    pub(crate) no_space: u64,
    /// Whether a full disk has no room for writes to segments either, as where files are copied on writing.
    pub(crate) is_thin: bool,
    /// A sync fails.
    pub(crate) sync_error: u64,
}

impl Faults {
    /// How often this seed's world fails.
    pub(crate) fn choose(random: &mut Random) -> Self {
        let mut rate = |rates: &[u64]| random.pick(rates);
        Self {
            unarmed: rate(&[0, 3, 20, 100]),
            no_buffers: rate(&[0, 5, 50]),
            short_send: rate(&[0, 2, 10]),
            slow: rate(&[0, 10, 50]),
            accept: rate(&[0, 4, 20]),
            clock_jump: rate(&[0, 20, 200]),
            stall: rate(&[0, 100, 1000]),
            stuck_sync: rate(&[0, 0, 10, 40]),
            no_space: rate(&[0, 0, 3, 10]),
            is_thin: rate(&[0, 0, 1]) == 1,
            sync_error: rate(&[0, 0, 0, 0, 20, 200]),
        }
    }

    /// Nothing goes wrong any more.
    pub(crate) fn none() -> Self {
        Self {
            unarmed: 0,
            no_buffers: 0,
            short_send: 0,
            slow: 0,
            accept: 0,
            clock_jump: 0,
            stall: 0,
            stuck_sync: 0,
            no_space: 0,
            is_thin: false,
            sync_error: 0,
        }
    }
}

/// How fast the disk is.
#[derive(Clone, Debug)]
pub(crate) struct DiskPace {
    /// The longest that an ordinary sync takes, in nanoseconds.
    sync_ns: u64,
    /// The longest that an ordinary file task takes, in nanoseconds.
    task_ns: u64,
}

/// The longest that a sync takes that is stuck, and that the disk is full, in nanoseconds.
const STUCK_NS: u64 = 1_600_000_000;

/// How long the server leaves the disk alone after it was full, in nanoseconds.
const SEGMENT_RETRY_NS: u64 = 500_000_000;

impl DiskPace {
    /// How fast this seed's disk is.
    pub(crate) fn choose(random: &mut Random) -> Self {
        Self {
            sync_ns: random.pick(&[100_000, 1_000_000, 20_000_000, 300_000_000]),
            task_ns: random.pick(&[50_000, 2_000_000, 50_000_000]),
        }
    }

    /// How fast the disk of a seed's node of a cluster is: a vote must be durable before others give up waiting for it.
    pub(crate) fn choose_quick(random: &mut Random) -> Self {
        Self {
            sync_ns: random.pick(&[100_000, 1_000_000, 15_000_000]),
            task_ns: random.pick(&[50_000, 2_000_000]),
        }
    }

    /// How long the next sync takes.
    pub(crate) fn sync_ns(&self, random: &mut Random, faults: &Faults) -> u64 {
        if random.one_in(faults.stuck_sync) {
            random.between(STUCK_NS / 4, STUCK_NS)
        } else {
            random.between(self.sync_ns / 10, self.sync_ns)
        }
    }

    /// How long the next file task takes.
    pub(crate) fn task_ns(&self, random: &mut Random, faults: &Faults) -> u64 {
        if random.one_in(faults.slow) {
            random.between(self.task_ns, 10 * self.task_ns)
        } else {
            random.below(self.task_ns)
        }
    }

    /// The longest that a commit takes, about, in milliseconds: its block waits for the sync under way, for its own, and for a
    /// segment.
    pub(crate) fn commit_ms_max(&self, faults: &Faults) -> u64 {
        let sync_ns = if faults.stuck_sync > 0 { STUCK_NS } else { self.sync_ns };
        let full_ns = if faults.no_space > 0 { STUCK_NS + SEGMENT_RETRY_NS } else { 0 };
        let task_ns = 10 * self.task_ns;
        (2 * sync_ns + full_ns + 3 * task_ns) / 1_000_000
    }

    /// How long the disk is full.
    pub(crate) fn no_space_ns(random: &mut Random) -> u64 {
        random.between(1_000_000, STUCK_NS)
    }
}
