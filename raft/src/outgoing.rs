//! A snapshot on its way to a peer, piece by piece.
//!
//! # Invariants
//!
//! - Pieces go in order, each from where the one before ends; there is always room for one, and for more as the window allows.
//! - Only an answer to a question, or one that says that the peer has less than it had, makes a leader send again what it
//!   sent: an answer that says nothing new may be about a piece that came twice, or too early.
//! - What is lost is found by silence, or by a broken link. Then the peer is asked, and no piece goes before it answers.
//! - The window is one piece at first, and after whatever was lost.

use std::collections::VecDeque;

use crate::{Index, SnapshotMeta, Term};

/// A snapshot on its way to a peer.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// Which; `None` until the driver gave its first piece.
    pub(crate) meta: Option<SnapshotMeta>,
    /// Where the next piece begins.
    pub(crate) offset: u64,
    pub(crate) step: SnapshotStep,
    /// How much of it the peer is known to have.
    stored: u64,
    /// Pieces on their way, oldest first: where each ends, and when it was sent.
    inflight: VecDeque<(u64, u64)>,
    /// Whether the last piece was sent.
    is_whole: bool,
    window: Window,
}

/// What happens next to a snapshot on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotStep {
    /// A piece is to be read.
    Read,
    /// The driver reads it.
    Reading,
    /// As much is on its way as may be, or all there is; that moved last at this time.
    Sent { since_ns: u64 },
    /// The peer is to be asked how much it has.
    Ask,
    /// It was asked.
    Asked { since_ns: u64 },
    /// The link broke.
    Broken { since_ns: u64 },
    /// The driver could not read it.
    Wait { until_ns: u64 },
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self {
            meta: None,
            offset: 0,
            step: SnapshotStep::Read,
            stored: 0,
            inflight: VecDeque::new(),
            is_whole: false,
            window: Window::new(),
        }
    }

    /// Whether this is the snapshot that is on its way.
    pub(crate) fn is(&self, index: Index, term: Term) -> bool {
        self.meta.as_ref().is_some_and(|meta| (meta.index, meta.term) == (index, term))
    }

    /// Whether something is to be done at once.
    pub(crate) fn has_step(&self) -> bool {
        matches!(self.step, SnapshotStep::Read | SnapshotStep::Ask)
    }

    /// Whether a peer that holds everything up to `match_index` has no use for it.
    pub(crate) fn is_obsolete(&self, match_index: Index) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.index <= match_index)
    }

    /// Bytes on their way to a peer that has taken some.
    pub(crate) fn inflight_bytes(&self) -> u64 {
        if self.stored == 0 || self.inflight.is_empty() { 0 } else { self.offset - self.stored }
    }

    /// It is of no use: the newest is tried, from its beginning, later.
    pub(crate) fn begin_anew(&mut self, at_ns: u64) {
        *self = Self { step: SnapshotStep::Wait { until_ns: at_ns }, ..Self::new() };
    }

    /// A piece of `len` bytes from `offset` on is sent.
    pub(crate) fn sent(&mut self, len: u64, is_last: bool, now_ns: u64) {
        self.offset = self.offset.saturating_add(len);
        self.inflight.push_back((self.offset, now_ns));
        self.is_whole = is_last;
        self.window.is_used_up |= self.inflight.len() >= self.window.pieces;
        self.go_on(now_ns);
    }

    /// The peer says that it has so many bytes. `pieces_max` may be on their way at most.
    pub(crate) fn answered(&mut self, stored: u64, now_ns: u64, pieces_max: usize) {
        match self.step {
            SnapshotStep::Ask | SnapshotStep::Asked { .. } | SnapshotStep::Broken { .. } => {
                self.go_back(stored);
            }
            SnapshotStep::Read | SnapshotStep::Reading | SnapshotStep::Sent { .. } => {
                if stored < self.stored {
                    self.go_back(stored);
                } else if stored > self.stored {
                    self.acknowledged(stored, now_ns, pieces_max);
                }
            }
            SnapshotStep::Wait { .. } => {}
        }
    }

    /// The peer goes on from there, whatever was sent.
    fn go_back(&mut self, stored: u64) {
        (self.stored, self.offset) = (stored, stored);
        self.inflight.clear();
        self.is_whole = false;
        self.window = Window::new();
        // A piece that is being read may not be the next one any more.
        self.step = SnapshotStep::Read;
    }

    fn acknowledged(&mut self, stored: u64, now_ns: u64, pieces_max: usize) {
        self.stored = stored;
        while let Some(&(end, sent_ns)) = self.inflight.front()
            && end <= stored
        {
            self.inflight.pop_front();
            self.window.acknowledged(end, now_ns.saturating_sub(sent_ns), self.offset, pieces_max);
        }
        if stored > self.offset && !self.is_whole {
            // It has more than was sent since it was asked.
            self.offset = stored;
            self.step = SnapshotStep::Read;
        } else if matches!(self.step, SnapshotStep::Sent { .. }) {
            self.go_on(now_ns);
        }
    }

    /// Has the next piece read if it may go.
    fn go_on(&mut self, now_ns: u64) {
        let has_room = !self.is_whole && self.inflight.len() < self.window.pieces;
        self.step = if has_room { SnapshotStep::Read } else { SnapshotStep::Sent { since_ns: now_ns } };
    }

    /// When [`Self::tick`] has something to do, if the peer may take so long to answer.
    pub(crate) fn deadline_ns(&self, answer_ns: u64) -> Option<u64> {
        match self.step {
            SnapshotStep::Sent { since_ns }
            | SnapshotStep::Asked { since_ns }
            | SnapshotStep::Broken { since_ns } => Some(since_ns.saturating_add(answer_ns)),
            SnapshotStep::Wait { until_ns } => Some(until_ns),
            SnapshotStep::Read | SnapshotStep::Reading | SnapshotStep::Ask => None,
        }
    }

    /// Goes on if it is time, and says with what.
    pub(crate) fn tick(&mut self, now_ns: u64, answer_ns: u64) -> Option<SnapshotStep> {
        if self.deadline_ns(answer_ns).is_none_or(|deadline_ns| now_ns < deadline_ns) {
            return None;
        }
        self.step = match self.step {
            SnapshotStep::Wait { .. } => SnapshotStep::Read,
            _ => SnapshotStep::Ask,
        };
        Some(self.step)
    }

    /// The link broke: what is on its way is lost, or was stored and not acknowledged.
    pub(crate) fn broke(&mut self, now_ns: u64) {
        let is_on_its_way = match self.step {
            SnapshotStep::Sent { .. } | SnapshotStep::Asked { .. } => true,
            SnapshotStep::Read | SnapshotStep::Reading => !self.inflight.is_empty(),
            SnapshotStep::Ask | SnapshotStep::Broken { .. } | SnapshotStep::Wait { .. } => false,
        };
        if is_on_its_way {
            self.step = SnapshotStep::Broken { since_ns: now_ns };
        }
    }

    pub(crate) fn peer_is_back(&mut self) {
        if matches!(self.step, SnapshotStep::Broken { .. }) {
            self.step = SnapshotStep::Ask;
        }
    }
}

/// How many pieces may be on their way.
///
/// The least time after which a piece was acknowledged is what distance and disk take; what another one took beyond that, it
/// spent in queues, where it delays whatever else is sent. Once as many pieces as the window holds were acknowledged, the fastest
/// of them says which share of the time all of them spend in queues, and so how many of the window's pieces are there. Fewer
/// than one: there is room for more. More than two: there is less.
#[derive(Clone, Debug)]
struct Window {
    pieces: usize,
    /// The least time after which a piece was acknowledged, and of those that were sent since the last change.
    least_ns: u64,
    fastest_ns: u64,
    /// Up to where pieces were sent before the last change, and how many later ones were acknowledged.
    changed_at: u64,
    acknowledged: usize,
    /// Whether it held pieces back since the last change, or would have.
    is_used_up: bool,
    /// Whether there ever were pieces in queues.
    has_queued: bool,
}

impl Window {
    fn new() -> Self {
        Self {
            pieces: 1,
            least_ns: u64::MAX,
            fastest_ns: u64::MAX,
            changed_at: 0,
            acknowledged: 0,
            is_used_up: false,
            has_queued: false,
        }
    }

    /// The piece that ends there was acknowledged `took_ns` after it was sent; so far all up to `sent` were sent.
    fn acknowledged(&mut self, end: u64, took_ns: u64, sent: u64, pieces_max: usize) {
        self.least_ns = self.least_ns.min(took_ns);
        if end <= self.changed_at {
            return;
        }
        self.fastest_ns = self.fastest_ns.min(took_ns);
        self.acknowledged += 1;
        if self.acknowledged < self.pieces {
            return;
        }
        let took_ns = std::mem::replace(&mut self.fastest_ns, u64::MAX);
        (self.changed_at, self.acknowledged) = (sent, 0);
        let is_used_up = std::mem::take(&mut self.is_used_up);
        let took = u128::from(took_ns.max(1));
        let queued = u128::from(took_ns - self.least_ns) * self.pieces as u128;
        if queued < took {
            if is_used_up {
                let more = if self.has_queued { 1 } else { self.pieces };
                self.pieces = self.pieces.saturating_add(more).min(pieces_max);
            }
        } else if !std::mem::replace(&mut self.has_queued, true) {
            // It was doubled once too often.
            self.pieces = self.pieces.div_ceil(2);
        } else if queued > 2 * took {
            self.pieces -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER_NS: u64 = 300;
    const MAX: usize = 8;

    /// One that is sent in pieces of 100 bytes, `pieces` of which may be on their way; none is yet.
    fn outgoing(offset: u64, pieces: usize) -> Outgoing {
        let mut outgoing = Outgoing::new();
        outgoing.meta = Some(SnapshotMeta { index: 9, term: 2, ..SnapshotMeta::default() });
        (outgoing.offset, outgoing.stored) = (offset, offset);
        outgoing.window.pieces = pieces;
        outgoing
    }

    /// Sends whatever may be sent.
    fn send_all(outgoing: &mut Outgoing, now_ns: u64) {
        while outgoing.step == SnapshotStep::Read {
            outgoing.step = SnapshotStep::Reading;
            outgoing.sent(100, false, now_ns);
        }
    }

    #[test]
    fn pieces_go_without_waiting_while_there_is_room() {
        let mut outgoing = outgoing(100, 3);
        send_all(&mut outgoing, 10);
        assert_eq!((outgoing.offset, outgoing.step), (400, SnapshotStep::Sent { since_ns: 10 }));
        assert_eq!(outgoing.inflight_bytes(), 300);
        outgoing.answered(200, 20, 3);
        send_all(&mut outgoing, 20);
        assert_eq!((outgoing.offset, outgoing.inflight_bytes()), (500, 300));
        // One answer may stand for several.
        outgoing.answered(400, 30, 3);
        assert_eq!((outgoing.step, outgoing.inflight_bytes()), (SnapshotStep::Read, 100));
        outgoing.step = SnapshotStep::Reading;
        outgoing.sent(7, true, 40);
        assert_eq!((outgoing.offset, outgoing.step), (507, SnapshotStep::Sent { since_ns: 40 }));
        outgoing.answered(500, 50, 3);
        assert_eq!(outgoing.step, SnapshotStep::Sent { since_ns: 50 }, "there is no other piece");
    }

    #[test]
    fn the_first_pieces_do_not_count_before_the_peer_has_taken_one() {
        let mut outgoing = outgoing(0, 2);
        send_all(&mut outgoing, 0);
        assert_eq!((outgoing.offset, outgoing.inflight_bytes()), (200, 0));
        outgoing.answered(100, 1, MAX);
        assert_eq!(outgoing.inflight_bytes(), 100);
    }

    #[test]
    fn an_answer_that_says_nothing_new_is_no_reason_to_send_again() {
        let mut outgoing = outgoing(100, 2);
        send_all(&mut outgoing, 0);
        outgoing.answered(100, 5, MAX);
        assert_eq!((outgoing.offset, outgoing.step), (300, SnapshotStep::Sent { since_ns: 0 }));
    }

    #[test]
    fn a_peer_that_has_less_than_it_said_gets_it_again() {
        for reads in [false, true] {
            let mut outgoing = outgoing(400, 2);
            send_all(&mut outgoing, 0);
            if reads {
                outgoing.answered(500, 5, 2);
                outgoing.step = SnapshotStep::Reading;
            }
            outgoing.answered(0, 6, MAX);
            assert_eq!((outgoing.offset, outgoing.step), (0, SnapshotStep::Read));
            assert_eq!((outgoing.window.pieces, outgoing.inflight_bytes()), (1, 0));
            // All that was on its way is refused.
            outgoing.answered(0, 7, MAX);
            send_all(&mut outgoing, 8);
            outgoing.answered(0, 9, MAX);
            assert_eq!((outgoing.offset, outgoing.step), (100, SnapshotStep::Sent { since_ns: 8 }));
        }
    }

    #[test]
    fn a_peer_that_has_more_than_was_sent_again_is_not_sent_that() {
        let mut outgoing = outgoing(400, 1);
        outgoing.answered(0, 0, MAX);
        send_all(&mut outgoing, 1);
        outgoing.answered(600, 2, MAX);
        assert_eq!((outgoing.offset, outgoing.step), (600, SnapshotStep::Read));
    }

    #[test]
    fn silence_makes_the_leader_ask_and_only_the_answer_lets_it_go_on() {
        let mut outgoing = outgoing(100, 3);
        send_all(&mut outgoing, 50);
        assert_eq!(outgoing.deadline_ns(ANSWER_NS), Some(350));
        outgoing.tick(349, ANSWER_NS);
        assert_eq!(outgoing.step, SnapshotStep::Sent { since_ns: 50 });
        outgoing.tick(350, ANSWER_NS);
        assert_eq!(outgoing.step, SnapshotStep::Ask);
        outgoing.step = SnapshotStep::Asked { since_ns: 350 };
        outgoing.answered(200, 360, MAX);
        assert_eq!((outgoing.offset, outgoing.step), (200, SnapshotStep::Read));
        send_all(&mut outgoing, 370);
        assert_eq!(outgoing.offset, 300, "it begins with one again");
    }

    #[test]
    fn an_unreadable_snapshot_begins_anew_later() {
        let mut outgoing = outgoing(100, 3);
        send_all(&mut outgoing, 0);
        outgoing.begin_anew(500);
        assert_eq!((outgoing.meta.as_ref(), outgoing.offset), (None, 0));
        outgoing.answered(200, 400, MAX);
        outgoing.tick(499, ANSWER_NS);
        assert_eq!(outgoing.step, SnapshotStep::Wait { until_ns: 500 });
        outgoing.tick(500, ANSWER_NS);
        assert_eq!((outgoing.step, outgoing.offset), (SnapshotStep::Read, 0));
    }

    #[test]
    fn a_broken_link_loses_what_is_on_its_way_even_while_more_is_read() {
        let mut outgoing = outgoing(100, 3);
        outgoing.step = SnapshotStep::Reading;
        outgoing.broke(5);
        assert_eq!(outgoing.step, SnapshotStep::Reading, "nothing was");
        outgoing.sent(100, false, 6);
        outgoing.step = SnapshotStep::Reading;
        outgoing.broke(7);
        assert_eq!(outgoing.step, SnapshotStep::Broken { since_ns: 7 });
    }

    /// A link that a piece takes `piece_ns` to go through, to a peer that is half of `distance_ns` away. Returns the windows.
    fn windows(distance_ns: u64, piece_ns: u64, pieces_max: usize) -> Vec<usize> {
        let mut outgoing = outgoing(0, 1);
        let (mut windows, mut answers) = (Vec::new(), VecDeque::new());
        let (mut now_ns, mut idle_ns) = (0, 0);
        while windows.len() < 600 {
            while outgoing.step == SnapshotStep::Read {
                outgoing.step = SnapshotStep::Reading;
                outgoing.sent(100, false, now_ns);
                idle_ns = now_ns.max(idle_ns) + piece_ns;
                answers.push_back((idle_ns + distance_ns, outgoing.offset));
            }
            let (at_ns, stored) = answers.pop_front().expect("something is on its way");
            now_ns = at_ns;
            outgoing.answered(stored, now_ns, pieces_max);
            windows.push(outgoing.window.pieces);
        }
        windows
    }

    #[test]
    fn the_window_grows_with_the_distance_and_leaves_no_queue() {
        // A peer next door: the link, or the disk, is busy all the time with two.
        let near = windows(0, 1000, 16);
        assert!(near.iter().all(|&pieces| pieces <= 4) && near[20..].iter().all(|&pieces| pieces <= 2));
        // Far away, 64 KiB through 100 MB/s at 50 ms: all that is allowed, soon.
        let far = windows(50_000_000, 655_000, 16);
        assert_eq!((far.iter().max(), far.last()), (Some(&16), Some(&16)));
        assert!(far.iter().position(|&pieces| pieces == 16) < Some(32));
        // Far away behind a thin line that is full with six: doubled once too often, and then two in a queue.
        let thin = windows(50_000_000, 10_000_000, 64);
        assert!(thin.iter().all(|&pieces| pieces <= 16), "{thin:?}");
        assert!(thin[60..].iter().all(|pieces| (6..=8).contains(pieces)), "{thin:?}");
        // One at a time, if it is to be so.
        assert!(windows(50_000_000, 1000, 1).iter().all(|&pieces| pieces == 1));
    }

    #[test]
    fn the_window_does_not_grow_while_it_is_not_used_up() {
        let mut window = Window::new();
        window.acknowledged(100, 10, 100, MAX);
        assert_eq!(window.pieces, 1);
        window.is_used_up = true;
        window.acknowledged(100, 10, 200, MAX);
        assert_eq!(window.pieces, 1, "that was sent before");
        window.acknowledged(200, 10, 400, MAX);
        assert_eq!(window.pieces, 2);
        window.is_used_up = true;
        window.acknowledged(500, 10, 600, MAX);
        assert_eq!(window.pieces, 2, "the window has not passed");
        window.acknowledged(600, 10, 600, MAX);
        assert_eq!(window.pieces, 4);
    }
}
