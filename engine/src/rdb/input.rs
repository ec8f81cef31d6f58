//! Reading one record from the bytes at hand.

use super::Fault;

/// Why a record could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It has at least so many bytes, more than are at hand.
    More(u64),
    /// It is wrong.
    Wrong(Fault),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Wrong(fault)
    }
}

/// Bytes from the start of a record, and how far they were read.
#[derive(Clone)]
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    /// The record at the start of `bytes`, which may end before it.
    #[inline]
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    #[inline]
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next `length` bytes.
    #[inline]
    pub(super) fn take(&mut self, length: u64) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        if length > rest.len() as u64 {
            return Err(Stop::More((self.at as u64).saturating_add(length)));
        }
        let length = length as usize;
        self.at += length;
        Ok(&rest[..length])
    }

    /// The next `N` bytes.
    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        match self.bytes[self.at..].first_chunk() {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(Stop::More((self.at + N) as u64)),
        }
    }

    /// The next byte.
    #[inline]
    pub(super) fn byte(&mut self) -> Result<u8, Stop> {
        let [byte] = self.array()?;
        Ok(byte)
    }
}
