//! Files of segments that nothing needs any more: used again or removed, oldest first.
//!
//! Invariant: a file goes only once every older one is gone, whatever fails, and whichever thread does it. So the segments
//! that a crash leaves have no gap.

use std::{collections::VecDeque, path::PathBuf};

/// Files kept to be used again.
const KEPT_MAX: usize = 2;

/// What is known of the oldest file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Oldest {
    /// It is there.
    Kept,
    /// It is being renamed to be this segment.
    Leaving(u32),
    /// It is to be removed, not before this moment in monotonic nanoseconds: perhaps it cannot be used, perhaps it is gone.
    Unusable(u64),
    /// It is being removed.
    Removing,
}

/// The files, oldest first.
pub(super) struct Retired {
    files: VecDeque<PathBuf>,
    oldest: Oldest,
}

impl Retired {
    pub(super) fn new() -> Self {
        Self { files: VecDeque::new(), oldest: Oldest::Kept }
    }

    /// Takes a file that is newer than all others.
    pub(super) fn add(&mut self, path: PathBuf) {
        self.files.push_back(path);
    }

    /// The file to be renamed for segment `sequence`: [`Self::recycled`] says what came of it.
    pub(super) fn recycle(&mut self, sequence: u32) -> Option<PathBuf> {
        let path = self.files.front().filter(|_| self.oldest == Oldest::Kept)?;
        self.oldest = Oldest::Leaving(sequence);
        Some(path.clone())
    }

    /// Segment `sequence` was prepared, or not.
    pub(super) fn recycled(&mut self, sequence: u32, is_prepared: bool) {
        if self.oldest != Oldest::Leaving(sequence) {
            return;
        }
        if is_prepared {
            self.files.pop_front();
            self.oldest = Oldest::Kept;
        } else {
            self.oldest = Oldest::Unusable(0);
        }
    }

    /// The file to be removed now, if there is one: [`Self::removed`] says what came of it.
    pub(super) fn remove(&mut self, now_ns: u64) -> Option<PathBuf> {
        let is_due = match self.oldest {
            Oldest::Kept => self.files.len() > KEPT_MAX,
            Oldest::Unusable(from_ns) => now_ns >= from_ns,
            Oldest::Leaving(_) | Oldest::Removing => false,
        };
        let path = self.files.front().filter(|_| is_due)?;
        self.oldest = Oldest::Removing;
        Some(path.clone())
    }

    /// The file that was to be removed is gone, or is to be tried again at `retry_ns`.
    pub(super) fn removed(&mut self, is_gone: bool, retry_ns: u64) {
        assert_eq!(self.oldest, Oldest::Removing, "one file at a time");
        if is_gone {
            self.files.pop_front();
            self.oldest = Oldest::Kept;
        } else {
            self.oldest = Oldest::Unusable(retry_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(number: u32) -> PathBuf {
        PathBuf::from(number.to_string())
    }

    fn retired(count: u32) -> Retired {
        let mut retired = Retired::new();
        (1..=count).for_each(|number| retired.add(path(number)));
        retired
    }

    #[test]
    fn a_few_are_kept_to_be_used_again_oldest_first() {
        let mut retired = retired(2);
        assert_eq!(retired.remove(0), None);
        assert_eq!(retired.recycle(8), Some(path(1)));
        assert_eq!(retired.recycle(9), None, "nobody knows yet what becomes of the older one");
        retired.recycled(9, true);
        assert_eq!(retired.recycle(10), None, "a segment that was made anew says nothing of it");
        retired.recycled(8, true);
        assert_eq!(retired.recycle(11), Some(path(2)));
        retired.recycled(11, true);
        assert_eq!(retired.recycle(12), None);
    }

    #[test]
    fn those_beyond_are_removed_one_after_the_other() {
        let mut retired = retired(4);
        assert_eq!(retired.remove(0), Some(path(1)));
        assert_eq!((retired.remove(0), retired.recycle(8)), (None, None));
        retired.removed(true, 5);
        assert_eq!(retired.remove(0), Some(path(2)));
        retired.removed(true, 5);
        assert_eq!(retired.remove(0), None);
        assert_eq!(retired.recycle(8), Some(path(3)));
        retired.add(path(5));
        retired.add(path(6));
        assert_eq!(retired.remove(0), None, "the oldest may still be there");
        retired.recycled(8, true);
        assert_eq!(retired.remove(0), Some(path(4)));
    }

    #[test]
    fn one_that_could_not_be_used_again_is_removed_before_any_later_one_goes() {
        let mut retired = retired(2);
        assert_eq!(retired.recycle(8), Some(path(1)));
        retired.recycled(8, false);
        assert_eq!(retired.recycle(8), None, "the segment is made anew");
        assert_eq!(retired.remove(0), Some(path(1)));
        assert_eq!((retired.recycle(9), retired.remove(0)), (None, None));
        retired.removed(false, 5);
        assert_eq!((retired.recycle(9), retired.remove(4)), (None, None));
        assert_eq!(retired.remove(5), Some(path(1)));
        retired.removed(true, 9);
        assert_eq!(retired.recycle(9), Some(path(2)));
    }
}
