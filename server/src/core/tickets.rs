//! Names of file operations, as their completions carry them.

/// What a completed file operation was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ticket {
    /// Nobody waits for it.
    Ignored,
    /// The preparation of the segment with this sequence.
    Segment(u32),
    /// The journal's fsync.
    JournalSync,
    /// A step of saving; the number is the saver's own.
    Save(u32),
    /// The removal of a segment that nothing needs.
    Retired,
    /// The replacement of the meta group's file.
    MetaFile,
    /// A piece of a file that a follower needs; the number is the groups' own.
    GroupRead(u32),
    /// A step of a snapshot that comes from a leader, for this shard.
    Install(u32),
    /// The replacement of the file with other nodes' starts.
    StartsFile,
}

impl Ticket {
    /// As a number.
    pub(super) fn number(self) -> u64 {
        let (kind, detail) = match self {
            Self::Ignored => (0_u64, 0),
            Self::Segment(sequence) => (1, sequence),
            Self::JournalSync => (2, 0),
            Self::Save(number) => (3, number),
            Self::Retired => (4, 0),
            Self::MetaFile => (5, 0),
            Self::GroupRead(number) => (6, number),
            Self::Install(shard) => (7, shard),
            Self::StartsFile => (8, 0),
        };
        kind << 32 | u64::from(detail)
    }

    /// From its number.
    ///
    /// # Panics
    /// If no ticket has that number: completions carry only what operations were given.
    pub(super) fn of(number: u64) -> Self {
        let detail = number as u32;
        match number >> 32 {
            0 => Self::Ignored,
            1 => Self::Segment(detail),
            2 => Self::JournalSync,
            3 => Self::Save(detail),
            4 => Self::Retired,
            5 => Self::MetaFile,
            6 => Self::GroupRead(detail),
            7 => Self::Install(detail),
            8 => Self::StartsFile,
            kind => panic!("a completion of unknown kind {kind}"),
        }
    }
}
