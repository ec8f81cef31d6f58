//! How far the journal is written and synced.
//!
//! Invariants:
//!
//! - `synced_to <= written_to`, and both only grow: they are prefixes, whatever the order in which writes complete.
//! - A sync covers the prefix that was written when it was asked for, and nothing later.

use std::collections::VecDeque;

use super::{Sync, segments::Segments};
use crate::format::Position;

/// A write that was handed out.
struct Flight {
    start: Position,
    end: Position,
    /// When it completed.
    done_ms: Option<u64>,
}

pub(super) struct Progress {
    /// In the order of their positions.
    flights: VecDeque<Flight>,
    pub(super) flight_bytes: usize,
    pub(super) written_to: Position,
    pub(super) synced_to: Position,
    /// The sync under way, and when the oldest byte that it covers was written.
    syncing: Option<(Sync, Option<u64>)>,
}

impl Progress {
    pub(super) fn new(start: Position) -> Self {
        Self { flights: VecDeque::new(), flight_bytes: 0, written_to: start, synced_to: start, syncing: None }
    }

    /// Everything up to there is durable from the beginning.
    pub(super) fn begin(&mut self, end: Position) {
        (self.written_to, self.synced_to) = (end, end);
    }

    pub(super) fn take_off(&mut self, start: Position, end: Position) {
        self.flight_bytes += (end.offset() - start.offset()) as usize;
        self.flights.push_back(Flight { start, end, done_ms: None });
    }

    /// The write that began at `start` completed at `now_ms`.
    pub(super) fn land(&mut self, start: Position, now_ms: u64, segments: &mut Segments) {
        let flight = self.flights.iter_mut().find(|flight| flight.start == start && flight.done_ms.is_none());
        let flight = flight.expect("a write completes once");
        flight.done_ms = Some(now_ms);
        self.flight_bytes -= (flight.end.offset() - start.offset()) as usize;
        while let Some(&Flight { end, done_ms: Some(done_ms), .. }) = self.flights.front() {
            assert!(end > self.written_to, "what is written only grows");
            segments.note_written(end.sequence(), done_ms);
            self.written_to = end;
            self.flights.pop_front();
        }
    }

    pub(super) fn next_sync(&mut self, segments: &mut Segments) -> Option<Sync> {
        if self.syncing.is_some() || self.synced_to >= self.written_to {
            return None;
        }
        let mut sequence = self.synced_to.sequence();
        let mut to = self.written_in(sequence, segments);
        if to == self.synced_to {
            // That segment is done; some later one has written bytes, and each has a header at least.
            sequence += 1;
            to = self.written_in(sequence, segments);
        }
        assert!(to > self.synced_to, "a sync covers something");
        let sync = Sync { sequence, to };
        self.syncing = Some((sync, segments.take_unsynced_ms(sequence)));
        Some(sync)
    }

    pub(super) fn synced(&mut self, sync: Sync) {
        let (asked, _) = self.syncing.take().expect("a sync completes once");
        assert_eq!(asked, sync, "one sync at a time");
        self.synced_to = sync.to;
    }

    pub(super) fn oldest_unsynced_ms(&self, segments: &Segments) -> Option<u64> {
        let syncing_ms = self.syncing.and_then(|(_, written_ms)| written_ms);
        syncing_ms.or_else(|| segments.unsynced_ms(self.synced_to.sequence()))
    }

    /// Where the written bytes of the segment end, which is not behind the one being written.
    fn written_in(&self, sequence: u32, segments: &Segments) -> Position {
        if sequence == self.written_to.sequence() { self.written_to } else { segments.end_of(sequence) }
    }
}
