//! Segments of earlier server starts: kept until snapshots cover what they hold.
//!
//! Invariant: a core's segments go oldest first, so that what is left is always the end of its journals, without gaps.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A segment that an earlier start wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierSegment {
    /// Its file.
    pub path: PathBuf,
    /// The core that wrote it.
    pub core: u16,
    /// Bytes of the journal in it.
    pub bytes: u64,
    /// The last index in it of each shard that it has entries of; `u64::MAX`: no snapshot covers it.
    pub last_indexes: Vec<(u16, u64)>,
}

impl EarlierSegment {
    /// Whether snapshots up to these indexes hold everything in it.
    fn is_covered(&self, snapshot_index: &dyn Fn(u16) -> u64) -> bool {
        self.last_indexes.iter().all(|&(shard, last)| last <= snapshot_index(shard))
    }
}

/// The segments of earlier server starts. Those of one core come in the order in which they were written.
#[derive(Debug, Default)]
pub struct EarlierSegments(Mutex<Vec<EarlierSegment>>);

impl EarlierSegments {
    /// These segments.
    pub fn new(segments: Vec<EarlierSegment>) -> Self {
        Self(Mutex::new(segments))
    }

    /// Takes out the segments that nobody needs once each shard has a durable snapshot, and a durable mark of it, up to
    /// `snapshot_index`: their files are to be removed.
    pub fn covered(&self, snapshot_index: &dyn Fn(u16) -> u64) -> Vec<PathBuf> {
        let mut needed_cores = Vec::new();
        let is_covered = |segment: &mut EarlierSegment| {
            let is_free = !needed_cores.contains(&segment.core) && segment.is_covered(snapshot_index);
            if !is_free {
                needed_cores.push(segment.core);
            }
            is_free
        };
        self.segments().extract_if(.., is_covered).map(|segment| segment.path).collect()
    }

    /// Bytes of the journal in them.
    pub fn bytes(&self) -> u64 {
        self.segments().iter().map(|segment| segment.bytes).sum()
    }

    fn segments(&self) -> MutexGuard<'_, Vec<EarlierSegment>> {
        // A panic is a broken invariant, which ends the process.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(name: &str, core: u16, bytes: u64, last_indexes: &[(u16, u64)]) -> EarlierSegment {
        EarlierSegment { path: PathBuf::from(name), core, bytes, last_indexes: last_indexes.to_vec() }
    }

    #[test]
    fn segments_go_when_all_their_shards_are_covered() {
        let earlier = EarlierSegments::new(vec![
            segment("a", 0, 1, &[(0, 5), (1, 9)]),
            segment("b", 0, 20, &[(1, 10)]),
            segment("c", 1, 300, &[(2, u64::MAX)]),
            segment("d", 2, 4000, &[]),
        ]);
        assert_eq!(earlier.bytes(), 4321);
        assert_eq!(earlier.covered(&|shard| if shard == 0 { 4 } else { 9 }), [PathBuf::from("d")]);
        assert_eq!(earlier.covered(&|shard| if shard == 0 { 5 } else { 9 }), [PathBuf::from("a")]);
        assert_eq!(earlier.bytes(), 320);
        assert_eq!(earlier.covered(&|_| 10), [PathBuf::from("b")]);
        assert!(earlier.covered(&|_| 10).is_empty());
        assert_eq!(earlier.bytes(), 300);
    }

    #[test]
    fn no_segment_goes_before_an_older_one_of_its_core() {
        let earlier = EarlierSegments::new(vec![
            segment("a", 0, 1, &[(0, 5)]),
            segment("b", 1, 1, &[(1, 5)]),
            segment("c", 0, 1, &[(1, 5)]),
        ]);
        assert_eq!(earlier.covered(&|shard| if shard == 0 { 4 } else { 5 }), [PathBuf::from("b")]);
        assert_eq!(earlier.covered(&|_| 5), [PathBuf::from("a"), PathBuf::from("c")]);
    }
}
