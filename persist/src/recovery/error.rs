//! Why a data directory cannot be recovered, in sentences that name the file.

use std::{error::Error, fmt, io};

use crate::format::FORMAT_VERSION;

/// Why recovery stopped. Nothing was changed: the directory is as it was found.
#[derive(Debug)]
pub enum RecoveryError {
    /// The directory cannot be listed.
    List(io::Error),
    /// A file cannot be read.
    Read {
        /// The file.
        file: String,
        /// What the system said.
        error: io::Error,
    },
    /// Bytes that were durable, or that an earlier recovery kept, are not what was written.
    Damage {
        /// The file.
        file: String,
        /// Where in it, in bytes.
        offset: u32,
        /// What is wrong there.
        what: &'static str,
    },
    /// A segment is missing between others.
    SequenceGap {
        /// The file that is missing.
        missing: String,
        /// One that comes later and is there.
        later: String,
    },
    /// A sealed segment's successor is missing, or a segment that the manifest counts on: the first of a running journal that
    /// was not trimmed, or the last of an earlier one.
    MissingSegment {
        /// The file that is missing.
        missing: String,
        /// The file that demands it; none: the manifest does.
        demanded_by: Option<String>,
    },
    /// A snapshot that a journal counts on is missing.
    MissingSnapshot {
        /// The file that is missing; a newer one of the shard would do as well.
        missing: String,
    },
    /// Entries between a shard's snapshot, or beginning, and the rest of its log are missing.
    IndexGap {
        /// The shard.
        shard: u16,
        /// The first index that is missing.
        first: u64,
        /// The last index that is missing.
        last: u64,
        /// The file that counts on them.
        file: String,
    },
    /// A transaction is to be applied whose prepared part is nowhere.
    MissingPrepare {
        /// The file with the record that applies it.
        file: String,
        /// Where in it, in bytes.
        offset: u32,
        /// The shard.
        shard: u16,
        /// The transaction.
        transaction: u64,
    },
    /// A segment belongs to another cluster.
    ForeignCluster {
        /// The file.
        file: String,
    },
    /// A segment belongs to another node.
    ForeignNode {
        /// The file.
        file: String,
    },
    /// A segment can be read only by a newer server.
    Newer {
        /// The file.
        file: String,
        /// The oldest format version that can read it.
        reader_version: u16,
    },
    /// A segment was written by another core than its name says.
    WrongCore {
        /// The file.
        file: String,
        /// The core in its header.
        core: u16,
    },
    /// A segment has a higher sequence than its name says.
    WrongSequence {
        /// The file.
        file: String,
        /// The sequence in its header.
        sequence: u32,
    },
    /// Hardly any later segment can be named.
    NoSequenceLeft {
        /// The file.
        file: String,
    },
    /// A segment's epoch is not one that can come there.
    WrongEpoch {
        /// The file.
        file: String,
        /// Its epoch.
        epoch: u64,
        /// Why not.
        why: &'static str,
    },
    /// A segment names a shard that does not exist, or that it does not hold.
    WrongShard {
        /// The file.
        file: String,
        /// The shard.
        shard: u16,
    },
    /// Two cores' journals claim a shard at the same time.
    TwoOwners {
        /// The shard.
        shard: u16,
        /// A file of the one.
        file: String,
        /// A file of the other.
        other: String,
    },
    /// A file is not what it was a moment ago, while it was scanned.
    Changed {
        /// The file.
        file: String,
        /// Where that was noticed, in bytes.
        offset: u32,
    },
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const ADVICE: &str = "Restore the directory from a copy, or start with --recover truncate, which keeps a copy of \
            what is damaged and drops everything from there on";
        match self {
            Self::List(error) => write!(formatter, "the data directory cannot be listed: {error}"),
            Self::Read { file, error } => write!(formatter, "{file} cannot be read: {error}"),
            Self::Damage { file, offset, what } => write!(
                formatter,
                "{file} is damaged at offset {offset}: {what}. This was safely on disk once, so it is no crash's \
                 doing. {ADVICE}"
            ),
            Self::SequenceGap { missing, later } => {
                write!(formatter, "{missing} is missing although {later} is there. {ADVICE}")
            }
            Self::MissingSegment { missing, demanded_by: Some(file) } => {
                write!(
                    formatter,
                    "{missing} is missing: {file} says that the journal goes on there. {ADVICE}"
                )
            }
            Self::MissingSegment { missing, demanded_by: None } => {
                write!(formatter, "{missing} is missing: the manifest says that a journal has it. {ADVICE}")
            }
            Self::MissingSnapshot { missing } => write!(
                formatter,
                "{missing} is missing: the journal no longer holds what it covers. Restore the directory from a copy"
            ),
            Self::IndexGap { shard, first, last, file } => write!(
                formatter,
                "entries {first} to {last} of shard {shard} are missing, which {file} counts on: a segment or snapshot \
                 is gone. {ADVICE}"
            ),
            Self::MissingPrepare { file, offset, shard, transaction } => write!(
                formatter,
                "{file} applies transaction {transaction} of shard {shard} at offset {offset}, but its prepared part is \
                 missing: a segment is gone. Restore the directory from a copy"
            ),
            Self::ForeignCluster { file } => {
                write!(formatter, "{file} belongs to another cluster than the manifest says. Move it away")
            }
            Self::ForeignNode { file } => {
                write!(formatter, "{file} belongs to another node than the manifest says. Move it away")
            }
            Self::Newer { file, reader_version } => write!(
                formatter,
                "{file} was written by a newer server: reading it takes format version {reader_version}, and this \
                 server knows up to {FORMAT_VERSION}"
            ),
            Self::WrongCore { file, core } => {
                write!(
                    formatter,
                    "{file} was written by core {core}, not the one in its name: it was renamed"
                )
            }
            Self::WrongSequence { file, sequence } => write!(
                formatter,
                "{file} was written as segment {sequence}, not the one in its name: it was renamed"
            ),
            Self::NoSequenceLeft { file } => {
                write!(formatter, "{file} is one of the last segments that can have a name: it was renamed")
            }
            Self::WrongEpoch { file, epoch, why } => {
                write!(formatter, "{file} is of epoch {epoch}, but {why}")
            }
            Self::WrongShard { file, shard } => {
                write!(formatter, "{file} has a record or state of shard {shard}, which cannot be there")
            }
            Self::TwoOwners { shard, file, other } => {
                write!(formatter, "{file} and {other} both claim shard {shard} at the same time")
            }
            Self::Changed { file, offset } => {
                write!(formatter, "{file} changed at offset {offset} while it was read")
            }
        }
    }
}

impl Error for RecoveryError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::List(error) | Self::Read { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Why a replay stopped.
#[derive(Debug)]
pub enum ReplayError<E> {
    /// The journal cannot be read on.
    Recovery(RecoveryError),
    /// The visitor's error.
    Visit(E),
}

impl<E> From<RecoveryError> for ReplayError<E> {
    fn from(error: RecoveryError) -> Self {
        Self::Recovery(error)
    }
}

impl<E: fmt::Display> fmt::Display for ReplayError<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recovery(error) => error.fmt(formatter),
            Self::Visit(error) => error.fmt(formatter),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for ReplayError<E> {}
