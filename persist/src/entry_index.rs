//! Where in the journal a shard's entries lie: sparse, so that reading from a mark finds those behind it.
//!
//! Invariants:
//!
//! - Marks grow in index and in position. Every entry from a mark's index on, as far as it was noted and not replaced, lies
//!   wholly at or behind the mark's position, its fragments included.
//! - There is at most one mark for each [`CELL_BYTES`] of the journal, and at most [`MARKS_MAX`]: when there are more, every
//!   second one goes, and later ones are set half as often.
//! - Only what this process has appended is known: positions of other epochs mean nothing here.

use crate::format::Position;

/// There is one mark for so many bytes of the journal, at most.
pub const CELL_BYTES: u64 = 64 << 10;

/// The most marks of a shard.
pub const MARKS_MAX: usize = 4096;

/// A place from which the entries from an index on are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    index: u64,
    at: Position,
}

/// A shard's marks.
#[derive(Debug)]
pub struct EntryIndex {
    marks: Vec<Mark>,
    /// Behind the last entry that was noted.
    end: u64,
    cell_bytes: u64,
}

impl EntryIndex {
    /// Knows no entry.
    pub fn new() -> Self {
        Self { marks: Vec::new(), end: 0, cell_bytes: CELL_BYTES }
    }

    /// The entry at `index` was appended. It replaces what was noted there and above. `at` is
    /// [`crate::journal::Journal::block_position`] right before its first byte was appended: its first fragment's, if it has
    /// fragments. What lies before a gap is forgotten: a snapshot has replaced it.
    pub fn note(&mut self, index: u64, at: Position) {
        if index > self.end {
            self.marks.clear();
        }
        while self.marks.pop_if(|mark| mark.index >= index).is_some() {}
        self.end = index.saturating_add(1);
        // An entry whose fragments began earlier is found only from there.
        let mut first = index;
        while let Some(mark) = self.marks.pop_if(|mark| mark.at > at) {
            first = mark.index;
        }
        if self.marks.last().is_some_and(|mark| self.cell(mark.at) == self.cell(at)) {
            return;
        }
        self.marks.push(Mark { index: first, at });
        if self.marks.len() > MARKS_MAX {
            self.thin_out();
        }
    }

    /// Entries from `index` on are gone.
    pub fn truncate(&mut self, index: u64) {
        while self.marks.pop_if(|mark| mark.index >= index).is_some() {}
        self.end = self.end.min(index);
    }

    /// Segments before the position's are gone, as [`crate::journal::Journal::trim`] does it, or count as gone.
    pub fn trim(&mut self, keep_from: Position) {
        let gone = self.marks.partition_point(|mark| mark.at.sequence() < keep_from.sequence());
        self.marks.drain(..gone);
    }

    /// A block from which the entry at `index` is found, and those behind it; `None`: it is not known where it lies. Records
    /// of the shard that come first may be older ones, or may have been replaced: only index and term together tell.
    pub fn position_of(&self, index: u64) -> Option<Position> {
        if index >= self.end {
            return None;
        }
        let place = self.marks.partition_point(|mark| mark.index <= index);
        place.checked_sub(1).map(|place| self.marks[place].at)
    }

    /// The first entry that [`EntryIndex::position_of`] knows.
    pub fn first_index(&self) -> Option<u64> {
        self.marks.first().map(|mark| mark.index)
    }

    #[cold]
    fn thin_out(&mut self) {
        let mut place = 0;
        self.marks.retain(|_| {
            place += 1;
            place % 2 == 1
        });
        self.cell_bytes *= 2;
    }

    fn cell(&self, at: Position) -> u64 {
        at.0 / self.cell_bytes
    }
}

impl Default for EntryIndex {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CELL: u32 = CELL_BYTES as u32;

    fn at(sequence: u32, offset: u32) -> Position {
        Position::new(sequence, offset)
    }

    fn noted(entries: &[(u64, Position)]) -> EntryIndex {
        let mut index = EntryIndex::new();
        entries.iter().for_each(|&(entry, at)| index.note(entry, at));
        index
    }

    #[test]
    fn entries_are_found_from_the_last_mark_before_them() {
        let index = noted(&[
            (5, at(1, 128)),
            (6, at(1, 256)),
            (7, at(1, CELL)),
            (8, at(1, CELL + 64)),
            (9, at(2, 0)),
            (10, at(2, 640)),
        ]);
        let found = |entry| index.position_of(entry);
        assert_eq!([4, 11].map(found), [None; 2]);
        assert_eq!([5, 6].map(found), [Some(at(1, 128)); 2]);
        assert_eq!([7, 8].map(found), [Some(at(1, CELL)); 2]);
        assert_eq!([9, 10].map(found), [Some(at(2, 0)); 2]);
        assert_eq!((index.first_index(), index.marks.len()), (Some(5), 3));
    }

    #[test]
    fn overwriting_forgets_what_it_replaces() {
        let mut index = noted(&[(1, at(1, 0)), (2, at(1, CELL)), (3, at(1, 2 * CELL))]);
        index.note(2, at(1, 3 * CELL));
        assert_eq!(
            [1, 2, 3].map(|entry| index.position_of(entry)),
            [Some(at(1, 0)), Some(at(1, 3 * CELL)), None]
        );
        index.note(1, at(1, 4 * CELL));
        assert_eq!([1, 2].map(|entry| index.position_of(entry)), [Some(at(1, 4 * CELL)), None]);
        index.truncate(1);
        assert_eq!((index.position_of(1), index.first_index()), (None, None));
    }

    #[test]
    fn a_gap_forgets_what_comes_before_it() {
        let index = noted(&[(1, at(1, 0)), (2, at(1, CELL)), (9, at(1, CELL + 64)), (10, at(1, CELL + 128))]);
        assert_eq!([2, 8].map(|entry| index.position_of(entry)), [None; 2]);
        assert_eq!([9, 10].map(|entry| index.position_of(entry)), [Some(at(1, CELL + 64)); 2]);
    }

    #[test]
    fn entries_with_early_fragments_are_found_from_those() {
        let mut index = noted(&[(1, at(1, 0)), (2, at(1, 2 * CELL)), (3, at(1, 4 * CELL))]);
        index.note(4, at(1, CELL));
        assert_eq!(
            [1, 2, 3, 4].map(|entry| index.position_of(entry).unwrap()),
            [at(1, 0), at(1, CELL), at(1, CELL), at(1, CELL)]
        );
        // In the first mark's cell, that one does.
        index.note(5, at(1, 64));
        assert_eq!([2, 5].map(|entry| index.position_of(entry)), [Some(at(1, 0)); 2]);
    }

    #[test]
    fn trimming_forgets_whole_segments() {
        let mut index = noted(&[(1, at(1, 0)), (2, at(2, 0)), (3, at(2, CELL)), (4, at(3, 0))]);
        index.trim(at(2, CELL));
        assert_eq!((index.first_index(), index.position_of(1)), (Some(2), None));
        index.trim(at(9, 0));
        assert_eq!((index.first_index(), index.position_of(4)), (None, None));
        index.note(5, at(9, 64));
        assert_eq!((index.first_index(), index.position_of(4)), (Some(5), None));
    }

    #[test]
    fn marks_are_bounded_and_still_find_everything() {
        let mut index = EntryIndex::new();
        let entries = 5 * MARKS_MAX as u64;
        let place = |entry: u64| Position(entry * CELL_BYTES);
        for entry in 1..=entries {
            index.note(entry, place(entry));
            assert!(index.marks.len() <= MARKS_MAX);
        }
        assert!(index.marks.len() >= MARKS_MAX / 2, "{}", index.marks.len());
        for entry in 1..=entries {
            let found = index.position_of(entry).unwrap();
            assert!(found <= place(entry) && found.0 + 8 * CELL_BYTES > place(entry).0, "{entry}");
        }
    }
}
