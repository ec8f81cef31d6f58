//! A set of cores: one bit each, any number of them, sized once.

/// Bits in one word of a set.
pub(super) const WORD_BITS: usize = u64::BITS as usize;

/// How many words hold one bit for each of `cores`.
pub(super) fn words_for(cores: usize) -> usize {
    cores.div_ceil(WORD_BITS)
}

/// The word that holds `core`'s bit, and the bit within it.
#[inline]
pub(super) fn position(core: usize) -> (usize, u64) {
    (core / WORD_BITS, 1 << (core % WORD_BITS))
}

/// A set private to one core. The set that is shared between cores is [`super::inbox::Inbox`].
#[derive(Debug)]
pub(super) struct CoreSet {
    words: Box<[u64]>,
}

impl CoreSet {
    /// An empty set with room for the cores `0..cores`.
    pub(super) fn new(cores: usize) -> Self {
        Self { words: vec![0; words_for(cores)].into_boxed_slice() }
    }

    #[inline]
    pub(super) fn insert(&mut self, core: usize) {
        let (word, bit) = position(core);
        self.words[word] |= bit;
    }

    #[inline]
    pub(super) fn remove(&mut self, core: usize) {
        let (word, bit) = position(core);
        self.words[word] &= !bit;
    }

    #[inline]
    pub(super) fn contains(&self, core: usize) -> bool {
        let (word, bit) = position(core);
        self.words[word] & bit != 0
    }

    /// Adds the members of `other`, a set of the same size.
    pub(super) fn insert_all(&mut self, other: &Self) {
        debug_assert_eq!(self.words.len(), other.words.len());
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    /// Removes the members of `other`, a set of the same size.
    pub(super) fn remove_all(&mut self, other: &Self) {
        debug_assert_eq!(self.words.len(), other.words.len());
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
    }

    pub(super) fn clear(&mut self) {
        self.words.fill(0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|&word| word == 0)
    }

    /// The set's words, lowest cores first, for whole-word transfer from an inbox.
    pub(super) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }

    /// The smallest member that is at least `core`.
    ///
    /// A walk with this (rather than an iterator) leaves the set free to change between two members.
    #[inline]
    pub(super) fn next_from(&self, core: usize) -> Option<usize> {
        let first = core / WORD_BITS;
        let mut at_or_above = !0 << (core % WORD_BITS);
        for (index, &word) in self.words.iter().enumerate().skip(first) {
            let remaining = word & at_or_above;
            if remaining != 0 {
                return Some(index * WORD_BITS + remaining.trailing_zeros() as usize);
            }
            at_or_above = !0;
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn members(set: &CoreSet) -> Vec<usize> {
        let mut members = Vec::new();
        let mut at = 0;
        while let Some(core) = set.next_from(at) {
            members.push(core);
            at = core + 1;
        }
        members
    }

    #[test]
    fn members_are_walked_in_order_across_words() {
        let mut set = CoreSet::new(200);
        assert!(set.is_empty());
        for core in [199, 0, 63, 64, 128] {
            set.insert(core);
        }
        assert_eq!(members(&set), [0, 63, 64, 128, 199]);
        set.remove(64);
        assert!(!set.contains(64) && set.contains(63));
        assert_eq!(set.next_from(64), Some(128));
        assert_eq!(set.next_from(200), None);
        assert_eq!(set.next_from(256), None);
    }
}
