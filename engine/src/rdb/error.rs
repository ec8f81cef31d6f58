//! What can be wrong with an RDB stream.

use std::fmt;

/// Why a stream could not be read on, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RdbError {
    /// Where the record begins that could not be read: bytes from the start of the stream.
    pub offset: u64,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The stream does not begin as an RDB does.
    NotRdb,
    /// A version that this server does not read.
    Version(u16),
    /// A length that begins with this byte.
    Length(u8),
    /// A string in an encoding of this number.
    StringEncoding(u8),
    /// A compressed string that does not decompress to its announced length.
    Compressed,
    /// A string longer than the reader's owner allows.
    TooLong,
    /// A database whose number this server does not have.
    Database(u64),
    /// A value of a type that this server does not have, or another kind of content for which the name stands.
    Unsupported {
        /// What it is.
        what: &'static str,
        /// Its key, or its name.
        key: Vec<u8>,
    },
    /// A value whose type byte no version knows.
    Type {
        /// The byte.
        byte: u8,
        /// The key.
        key: Vec<u8>,
    },
    /// A byte that is neither a type nor an opcode of any version.
    Opcode(u8),
    /// The checksum at the end is not that of the bytes.
    Checksum {
        /// What the stream says.
        stored: u64,
        /// What its bytes yield.
        computed: u64,
    },
    /// The stream ended within a record, or before the end mark.
    Truncated,
    /// Bytes follow the checksum.
    Trailing,
    /// The reader has reported an error before and reads nothing any more.
    Failed,
}

impl fmt::Display for RdbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.fault, self.offset)
    }
}

impl std::error::Error for RdbError {}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRdb => write!(f, "this is no RDB: it does not begin with REDIS and a version"),
            Self::Version(version) => write!(
                f,
                "RDB version {version} cannot be read; versions 1 to {} can",
                super::READ_VERSION_MAX
            ),
            Self::Length(byte) => write!(f, "no length begins with byte {byte:#04x}"),
            Self::StringEncoding(number) => write!(f, "string encoding {number} is unknown"),
            Self::Compressed => write!(f, "a compressed string is damaged"),
            Self::TooLong => write!(f, "a string is too long"),
            Self::Database(number) => write!(
                f,
                "database {number} does not exist; this server has databases 0 to {}",
                crate::DATABASE_COUNT - 1
            ),
            Self::Unsupported { what, key } => {
                write!(f, "this server cannot hold a {what}: '{}'", Quoted(key))
            }
            Self::Type { byte, key } => {
                write!(f, "value type {byte} of key '{}' is unknown", Quoted(key))
            }
            Self::Opcode(byte) => write!(f, "opcode {byte} is unknown"),
            Self::Checksum { stored, computed } => {
                write!(f, "the checksum is {stored:#018x}, but the content's is {computed:#018x}")
            }
            Self::Truncated => write!(f, "the end is missing"),
            Self::Trailing => write!(f, "bytes follow the end"),
            Self::Failed => write!(f, "reading has failed before"),
        }
    }
}

/// The beginning of a key in printable form.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES_MAX: usize = 128;
        write!(f, "{}", self.0[..self.0.len().min(SHOWN_BYTES_MAX)].escape_ascii())?;
        if self.0.len() > SHOWN_BYTES_MAX { write!(f, "...") } else { Ok(()) }
    }
}

/// Why a reader stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadError<E> {
    /// The stream is wrong. What the visitor was given before stands.
    Rdb(RdbError),
    /// The visitor refused an item.
    Visitor(E),
}

impl<E: fmt::Display> fmt::Display for ReadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rdb(error) => error.fmt(f),
            Self::Visitor(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for ReadError<E> {}
