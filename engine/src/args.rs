//! A request's arguments, in place.
//!
//! Small arguments are ranges of one byte buffer (the receive buffer, or a mesh batch). A large bulk was
//! received straight into an allocation of its own, which a command may take instead of copying.

/// Offset and length of an argument in the request's buffer. An offset of [`LARGE_ARGUMENT`] means that the
/// second number is an index into the request's large arguments.
pub type ArgumentRange = (u32, u32);

/// The offset that marks a large argument.
pub const LARGE_ARGUMENT: u32 = u32::MAX;

/// The arguments of one request; number 0 is the command's name.
pub struct Args<'a> {
    bytes: &'a [u8],
    ranges: &'a [ArgumentRange],
    large: &'a mut [Vec<u8>],
}

impl<'a> Args<'a> {
    /// Arguments at `ranges` of `bytes`, with the large ones in `large`.
    pub fn new(bytes: &'a [u8], ranges: &'a [ArgumentRange], large: &'a mut [Vec<u8>]) -> Self {
        Self { bytes, ranges, large }
    }

    /// How many arguments there are, the command's name included.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a request has at least its command's name")]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Argument `index`.
    ///
    /// # Panics
    /// If there is no such argument.
    #[inline]
    pub fn get(&self, index: usize) -> &[u8] {
        let (offset, length) = self.ranges[index];
        if offset == LARGE_ARGUMENT {
            return &self.large[length as usize];
        }
        &self.bytes[offset as usize..offset as usize + length as usize]
    }

    /// Argument `index` as an allocation of its own, when it was received into one; it is empty afterwards.
    #[inline]
    pub fn take_large(&mut self, index: usize) -> Option<Vec<u8>> {
        let (offset, large_index) = self.ranges[index];
        (offset == LARGE_ARGUMENT).then(|| std::mem::take(&mut self.large[large_index as usize]))
    }

    /// The arguments from `first` on, as a request of their own.
    #[inline]
    pub(crate) fn tail(&mut self, first: usize) -> Args<'_> {
        Args { bytes: self.bytes, ranges: &self.ranges[first..], large: self.large }
    }

    /// The same arguments, borrowed for a shorter time.
    #[inline]
    pub fn reborrow(&mut self) -> Args<'_> {
        Args { bytes: self.bytes, ranges: self.ranges, large: self.large }
    }
}
