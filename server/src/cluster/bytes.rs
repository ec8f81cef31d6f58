//! Numbers and texts in bytes, little-endian. Reading never takes more memory than the bytes do.

use std::{error::Error, fmt};

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They end too early.
    Short,
    /// They go on behind their end.
    Long,
    /// They do not begin as such bytes begin.
    Magic,
    /// They are of a version that this program does not know.
    Version(u16),
    /// They are not as they were written.
    Checksum,
    /// They say what nothing encodes; the sentence says where.
    Invalid(&'static str),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => formatter.write_str("the bytes end too early"),
            Self::Long => formatter.write_str("there are more bytes than belong there"),
            Self::Magic => formatter.write_str("the bytes are something else"),
            Self::Version(version) => write!(formatter, "version {version} is not known here"),
            Self::Checksum => formatter.write_str("the checksum is wrong"),
            Self::Invalid(sentence) => formatter.write_str(sentence),
        }
    }
}

impl Error for DecodeError {}

/// Reads bytes from front to back.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Reads what begins with `magic` and this version.
    pub(super) fn of_file(bytes: &'a [u8], magic: [u8; 8], version: u16) -> Result<Self, DecodeError> {
        let mut reader = Self::new(bytes);
        if reader.array()? != magic {
            return Err(DecodeError::Magic);
        }
        match reader.u16()? {
            found if found == version => Ok(reader),
            found => Err(DecodeError::Version(found)),
        }
    }

    pub(super) fn remaining(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or(DecodeError::Short)?;
        self.bytes = rest;
        Ok(taken)
    }

    pub(super) fn array<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], DecodeError> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(DecodeError::Short)?;
        self.bytes = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length of 32 bits, and so many bytes.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    /// A number of things that take at least so many bytes each: one that the bytes cannot hold is refused before
    /// memory is taken for it.
    pub(super) fn count(&mut self, bytes_each: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if self.remaining() / bytes_each < count { Err(DecodeError::Short) } else { Ok(count) }
    }

    pub(super) fn end(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(DecodeError::Long) }
    }
}

/// Appends a length of 32 bits, and the bytes.
pub(super) fn put_bytes(bytes: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(&length_of(bytes.len()).to_le_bytes());
    into.extend_from_slice(bytes);
}

/// A length or count as 32 bits.
pub(super) fn length_of(length: usize) -> u32 {
    u32::try_from(length).expect("what a cluster knows of itself is far below 4 GiB")
}
