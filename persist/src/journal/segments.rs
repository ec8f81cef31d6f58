//! The segments of this epoch: those with blocks, the one being filled, and those prepared ahead.
//!
//! Invariants:
//!
//! - Their sequences have no gap; all but the first few of them that are ready hold nothing yet.
//! - A segment goes only from the oldest end, and never the one being filled or one behind it.

use std::collections::VecDeque;

use crate::format::Position;

/// How far the preparation of a segment's file has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Preparation {
    /// To be asked for.
    Wanted,
    /// Asked for, without an answer.
    Asked,
    /// There, durably: blocks may be written to it.
    Ready,
    /// Asked for in vain.
    Failed,
}

struct Segment {
    preparation: Preparation,
    /// Where its blocks end as planned, in bytes; 0: nothing is planned into it.
    end_bytes: u32,
    /// When the oldest of its bytes was written that no sync covers or is about to cover.
    unsynced_ms: Option<u64>,
}

pub(super) struct Segments {
    /// The sequence of the first in the list.
    first: u32,
    list: VecDeque<Segment>,
    /// How many are [`Preparation::Wanted`].
    wanted: u32,
}

impl Segments {
    pub(super) fn new(first: u32) -> Self {
        Self { first, list: VecDeque::new(), wanted: 0 }
    }

    /// Wants all segments before `sequence`.
    pub(super) fn extend_to(&mut self, sequence: u32) {
        while self.end() < sequence {
            self.list.push_back(Segment {
                preparation: Preparation::Wanted,
                end_bytes: 0,
                unsynced_ms: None,
            });
            self.wanted += 1;
        }
    }

    pub(super) fn first(&self) -> u32 {
        self.first
    }

    pub(super) fn take_wanted(&mut self) -> Option<u32> {
        if self.wanted == 0 {
            return None;
        }
        let place = self.list.iter().position(|segment| segment.preparation == Preparation::Wanted)?;
        self.list[place].preparation = Preparation::Asked;
        self.wanted -= 1;
        Some(self.first + place as u32)
    }

    /// Takes the answer for a segment that was asked for.
    pub(super) fn prepared(&mut self, sequence: u32, ready: bool) {
        let segment = self.segment_mut(sequence);
        assert_eq!(segment.preparation, Preparation::Asked, "segment {sequence} was asked for once");
        segment.preparation = if ready { Preparation::Ready } else { Preparation::Failed };
    }

    pub(super) fn retry(&mut self) {
        for segment in &mut self.list {
            if segment.preparation == Preparation::Failed {
                segment.preparation = Preparation::Wanted;
                self.wanted += 1;
            }
        }
    }

    pub(super) fn is_ready(&self, sequence: u32) -> bool {
        let place = sequence.checked_sub(self.first).expect("segments are written before they go");
        self.list.get(place as usize).is_some_and(|segment| segment.preparation == Preparation::Ready)
    }

    pub(super) fn set_end(&mut self, sequence: u32, end_bytes: u32) {
        self.segment_mut(sequence).end_bytes = end_bytes;
    }

    /// Where the segment's blocks end.
    pub(super) fn end_of(&self, sequence: u32) -> Position {
        Position::new(sequence, self.list[(sequence - self.first) as usize].end_bytes)
    }

    /// Bytes were written to the segment at `now_ms` and no sync has been asked for since.
    pub(super) fn note_written(&mut self, sequence: u32, now_ms: u64) {
        let unsynced_ms = &mut self.segment_mut(sequence).unsynced_ms;
        *unsynced_ms = Some(unsynced_ms.map_or(now_ms, |earlier| earlier.min(now_ms)));
    }

    /// A sync begins that covers all that was noted as written; returns since when that waited.
    pub(super) fn take_unsynced_ms(&mut self, sequence: u32) -> Option<u64> {
        self.segment_mut(sequence).unsynced_ms.take()
    }

    /// Since when the oldest written bytes wait that no sync is about to cover, from segment `sequence` on.
    pub(super) fn unsynced_ms(&self, sequence: u32) -> Option<u64> {
        let from = sequence.saturating_sub(self.first) as usize;
        self.list.range(from.min(self.list.len())..).find_map(|segment| segment.unsynced_ms)
    }

    /// Forgets the oldest segments before `sequence`; returns their sequences.
    pub(super) fn forget_before(&mut self, sequence: u32) -> Vec<u32> {
        let first = self.first;
        if sequence > first {
            self.list.drain(..(sequence - first) as usize);
            self.first = sequence;
        }
        (first..self.first).collect()
    }

    fn end(&self) -> u32 {
        let len = u32::try_from(self.list.len()).ok();
        len.and_then(|len| self.first.checked_add(len)).expect("sequences do not run out")
    }

    fn segment_mut(&mut self, sequence: u32) -> &mut Segment {
        let place = sequence.checked_sub(self.first).map(|place| place as usize);
        match place.and_then(|place| self.list.get_mut(place)) {
            Some(segment) => segment,
            None => panic!("segment {sequence} is none of this journal's"),
        }
    }
}
