//! What a leader knows about one peer, and how it sends to it.
//!
//! - **Probe**: where the logs agree is not known. One append at a time asks; another only after an answer, or after
//!   an answered heartbeat shows that the peer is there and the probe may be lost. That one goes without entries, in
//!   case the peer is only slow.
//! - **Replicate**: appends follow one another without waiting, as many as the window holds. What is not in memory, and many
//!   entries that were committed without the peer, the driver is asked for, once at a time.
//! - **Snapshot**: the log does not have what the peer lacks. Pieces of a snapshot go, one at a time.
//!
//! The match index only grows, and is always below the next index.

use std::collections::VecDeque;

use crate::{Index, SnapshotMeta, Term};

/// How a leader sends to a peer; see the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressState {
    /// It asks where the logs agree.
    Probe,
    /// Appends are pipelined.
    Replicate,
    /// The peer gets a snapshot.
    Snapshot,
}

/// What a leader knows about one peer.
#[derive(Clone, Debug)]
pub struct Progress {
    match_index: Index,
    next_index: Index,
    state: ProgressState,
    inflight: Inflight,
    /// The probe that is on its way.
    probe: Option<Probe>,
    /// Whether one was sent from the same index before, with entries.
    probes_again: bool,
    /// Where the entries begin that the driver was asked for.
    fetch_from: Option<Index>,
    /// The snapshot that is on its way.
    pub(crate) outgoing: Option<Outgoing>,
    /// Append messages that may be on their way. A rejection makes it one; each acknowledgement lets one more go.
    window: usize,
    /// The commit index that the peer knows if nothing was lost.
    commit_told: Index,
    /// Whether an append without entries is to ask what arrived.
    asks: bool,
    /// When an append was sent, or one acknowledged, last.
    moved_ns: u64,
    /// When the peer was heard last.
    pub(crate) heard_ns: u64,
    /// When the latest heartbeat was sent that the peer acknowledged.
    pub(crate) acknowledged_ns: Option<u64>,
    /// The latest round of reads that the peer acknowledged.
    pub(crate) read_round: u64,
}

/// An append that asks where the logs agree.
#[derive(Clone, Copy, Debug)]
struct Probe {
    prev_index: Index,
    last_index: Index,
    bytes: usize,
}

impl Progress {
    pub(crate) fn new(next_index: Index, now_ns: u64) -> Self {
        Self {
            match_index: 0,
            next_index,
            state: ProgressState::Probe,
            inflight: Inflight::default(),
            probe: None,
            probes_again: false,
            fetch_from: None,
            outgoing: None,
            window: usize::MAX,
            commit_told: 0,
            asks: false,
            moved_ns: now_ns,
            heard_ns: now_ns,
            acknowledged_ns: None,
            read_round: 0,
        }
    }

    /// The last entry that the peer is known to hold durably.
    pub fn match_index(&self) -> Index {
        self.match_index
    }

    /// The next entry to be sent.
    pub fn next_index(&self) -> Index {
        self.next_index
    }

    /// How the leader sends to the peer.
    pub fn state(&self) -> ProgressState {
        self.state
    }

    /// Append messages on their way: not acknowledged, not known to be lost.
    pub fn inflight_messages(&self) -> usize {
        self.inflight.sent.len() + usize::from(self.probe.is_some())
    }

    /// Where in its bytes the next piece of a snapshot begins, while one is sent.
    pub fn snapshot_offset(&self) -> Option<u64> {
        self.outgoing.as_ref().map(|outgoing| outgoing.offset)
    }

    /// When the peer was heard last, in nanoseconds.
    pub fn heard_ns(&self) -> u64 {
        self.heard_ns
    }

    /// Whether a probe may go.
    pub(crate) fn may_probe(&self) -> bool {
        self.state == ProgressState::Probe && self.probe.is_none()
    }

    /// Whether the probe takes entries along.
    pub(crate) fn probes_with_entries(&self) -> bool {
        !self.probes_again
    }

    /// Whether an append with entries may go.
    pub(crate) fn may_replicate(&self, messages_max: usize, bytes_max: usize) -> bool {
        self.state == ProgressState::Replicate
            && self.fetch_from.is_none()
            && self.inflight.has_room(messages_max.min(self.window), bytes_max)
    }

    /// Whether an append without entries is to go that asks how far the peer has come.
    pub(crate) fn asks(&self) -> bool {
        self.state == ProgressState::Replicate && self.asks
    }

    /// Whether an append without entries is to go that tells the peer what is committed.
    pub(crate) fn lacks_commit(&self, commit: Index) -> bool {
        self.state == ProgressState::Replicate && commit.min(self.next_index - 1) > self.commit_told
    }

    /// An append from the next index on is sent.
    pub(crate) fn sent(&mut self, entries: u64, bytes: usize, commit: Index, now_ns: u64) {
        let prev_index = self.next_index - 1;
        let last_index = prev_index + entries;
        match self.state {
            ProgressState::Probe => self.probe = Some(Probe { prev_index, last_index, bytes }),
            ProgressState::Replicate => {
                self.next_index = last_index + 1;
                if entries > 0 {
                    self.inflight.push(last_index, bytes);
                }
                self.asks = false;
                self.commit_told = self.commit_told.max(commit.min(last_index));
            }
            ProgressState::Snapshot => unreachable!("no append is sent in place of a snapshot"),
        }
        self.moved_ns = now_ns;
    }

    /// A heartbeat told that entries up to `commit` are committed.
    pub(crate) fn told(&mut self, commit: Index) {
        self.commit_told = self.commit_told.max(commit);
    }

    /// The peer holds everything up to `match_index`. `compacted`: how far the leader's log is compacted. Says
    /// whether that is news.
    pub(crate) fn acknowledged(&mut self, match_index: Index, compacted: Index, now_ns: u64) -> bool {
        let is_news = match_index > self.match_index;
        if is_news {
            self.match_index = match_index;
            self.moved_ns = now_ns;
            self.window = self.window.saturating_add(1);
            self.next_index = self.next_index.max(match_index + 1);
        }
        match self.state {
            ProgressState::Probe => {
                let probe = self.probe.take();
                self.replicate();
                // The probe agreed, and so will its entries: they need not be sent again.
                if let Some(probe) =
                    probe.filter(|probe| (probe.prev_index..probe.last_index).contains(&self.match_index))
                {
                    self.next_index = probe.last_index + 1;
                    self.inflight.push(probe.last_index, probe.bytes);
                }
            }
            ProgressState::Replicate => {
                self.inflight.free_to(self.match_index);
            }
            ProgressState::Snapshot if self.match_index >= compacted => self.replicate(),
            ProgressState::Snapshot => {}
        }
        is_news
    }

    /// Whether a rejection of an append behind `prev_index` is about one that is still of interest.
    pub(crate) fn minds_rejection(&self, prev_index: Index) -> bool {
        match self.state {
            ProgressState::Probe => self.probe.is_some_and(|probe| probe.prev_index == prev_index),
            ProgressState::Replicate => prev_index > self.match_index && prev_index < self.next_index,
            ProgressState::Snapshot => false,
        }
    }

    /// The logs do not agree; `next_index` is to be tried.
    pub(crate) fn rejected(&mut self, next_index: Index) {
        // A gap makes the peer reject everything behind it: were the whole window sent again for each of these, there
        // would be no end.
        if self.state == ProgressState::Replicate {
            self.window = 1;
        }
        self.probe_from(next_index);
    }

    /// The link broke: what was on its way is lost.
    pub(crate) fn unreachable(&mut self, now_ns: u64) {
        match &mut self.outgoing {
            Some(outgoing) => outgoing.broke(now_ns),
            None => self.probe_from(self.match_index + 1),
        }
    }

    /// The peer follows, and answered a heartbeat that was sent at `sent_ns`: what was sent before and is not
    /// acknowledged may be lost.
    pub(crate) fn answered_heartbeat(&mut self, sent_ns: u64) {
        match self.state {
            ProgressState::Probe if sent_ns > self.moved_ns => {
                self.probes_again |= self.probe.take().is_some();
            }
            ProgressState::Replicate if !self.inflight.sent.is_empty() && sent_ns > self.moved_ns => {
                self.asks = true;
            }
            ProgressState::Probe | ProgressState::Replicate => {}
            ProgressState::Snapshot => {
                if let Some(outgoing) = &mut self.outgoing {
                    outgoing.peer_is_back();
                }
            }
        }
    }

    /// The log does not have what the peer lacks.
    pub(crate) fn send_snapshot(&mut self) {
        self.leave_state(ProgressState::Snapshot);
        self.next_index = self.match_index + 1;
        self.outgoing = Some(Outgoing::new());
    }

    /// Runs the timer of a snapshot that is on its way. `compacted`: how far the leader's log is compacted.
    pub(crate) fn tick_snapshot(&mut self, now_ns: u64, answer_ns: u64, compacted: Index) {
        let Some(outgoing) = &mut self.outgoing else { return };
        let has_waited = outgoing.tick(now_ns, answer_ns) == Some(SnapshotStep::Read);
        // There was no snapshot that helps, and the log has it all: the driver may find the entries by now.
        if has_waited && self.match_index >= compacted {
            self.probe_from(self.match_index + 1);
        }
    }

    /// The driver is asked for the entries from the next one on.
    pub(crate) fn fetch(&mut self) {
        self.fetch_from = Some(self.next_index);
    }

    /// The driver answered. Says whether the entries are still what is to be sent next.
    pub(crate) fn fetched(&mut self, from: Index) -> bool {
        if self.fetch_from != Some(from) {
            return false;
        }
        self.fetch_from = None;
        self.state == ProgressState::Replicate && self.next_index == from
    }

    fn replicate(&mut self) {
        self.leave_state(ProgressState::Replicate);
        self.next_index = self.match_index + 1;
    }

    fn probe_from(&mut self, next_index: Index) {
        self.leave_state(ProgressState::Probe);
        self.next_index = next_index.max(self.match_index + 1);
    }

    fn leave_state(&mut self, state: ProgressState) {
        self.state = state;
        self.inflight.clear();
        self.probe = None;
        self.probes_again = false;
        self.asks = false;
        self.outgoing = None;
        // Whatever told it may be lost; what matched is acknowledged, and heartbeats tell as much.
        self.commit_told = self.commit_told.min(self.match_index);
    }
}

/// The window: appends on their way, oldest first.
#[derive(Clone, Debug, Default)]
struct Inflight {
    /// The last entry and the bytes of each.
    sent: VecDeque<(Index, usize)>,
    bytes: usize,
}

impl Inflight {
    /// There is always room for one message.
    fn has_room(&self, messages_max: usize, bytes_max: usize) -> bool {
        self.sent.is_empty() || (self.sent.len() < messages_max && self.bytes < bytes_max)
    }

    fn push(&mut self, last_index: Index, bytes: usize) {
        debug_assert!(self.sent.back().is_none_or(|&(index, _)| index < last_index));
        self.sent.push_back((last_index, bytes));
        self.bytes += bytes;
    }

    fn free_to(&mut self, match_index: Index) {
        while let Some(&(last_index, bytes)) = self.sent.front()
            && last_index <= match_index
        {
            self.sent.pop_front();
            self.bytes -= bytes;
        }
    }

    fn clear(&mut self) {
        self.sent.clear();
        self.bytes = 0;
    }
}

/// A snapshot on its way to a peer, piece by piece.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// Which; `None` until the driver gave its first piece.
    pub(crate) meta: Option<SnapshotMeta>,
    /// Where the next piece begins, or the one that is on its way.
    pub(crate) offset: u64,
    pub(crate) step: SnapshotStep,
}

/// What happens next to a snapshot on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SnapshotStep {
    /// A piece is to be read.
    Read,
    /// The driver reads it.
    Reading,
    /// A piece is on its way.
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
    fn new() -> Self {
        Self { meta: None, offset: 0, step: SnapshotStep::Read }
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

    /// It is of no use: the newest is tried, from its beginning, later.
    pub(crate) fn begin_anew(&mut self, at_ns: u64) {
        *self = Self { step: SnapshotStep::Wait { until_ns: at_ns }, ..Self::new() };
    }

    /// The peer says where to go on.
    pub(crate) fn go_on(&mut self, next_offset: u64) {
        let is_answer = match self.step {
            // The answer that made this piece go says where it begins, and may come twice. A first piece may have been refused.
            SnapshotStep::Sent { .. } => next_offset != self.offset || next_offset == 0,
            SnapshotStep::Ask | SnapshotStep::Asked { .. } | SnapshotStep::Broken { .. } => true,
            SnapshotStep::Read | SnapshotStep::Reading | SnapshotStep::Wait { .. } => false,
        };
        if is_answer {
            self.offset = next_offset;
            self.step = SnapshotStep::Read;
        }
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

    fn broke(&mut self, now_ns: u64) {
        if matches!(self.step, SnapshotStep::Sent { .. } | SnapshotStep::Asked { .. }) {
            self.step = SnapshotStep::Broken { since_ns: now_ns };
        }
    }

    fn peer_is_back(&mut self) {
        if matches!(self.step, SnapshotStep::Broken { .. }) {
            self.step = SnapshotStep::Ask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER_NS: u64 = 300;

    fn replicating(match_index: Index) -> Progress {
        let mut progress = Progress::new(match_index + 1, 0);
        progress.acknowledged(match_index, 0, 0);
        progress
    }

    fn sending_snapshot(offset: u64, step: SnapshotStep) -> Progress {
        let mut progress = Progress::new(1, 0);
        progress.send_snapshot();
        let outgoing = progress.outgoing.as_mut().unwrap();
        outgoing.meta = Some(SnapshotMeta { index: 9, term: 2, ..SnapshotMeta::default() });
        outgoing.offset = offset;
        outgoing.step = step;
        progress
    }

    fn step(progress: &Progress) -> SnapshotStep {
        progress.outgoing.as_ref().unwrap().step
    }

    #[test]
    fn one_probe_goes_until_it_is_answered() {
        let mut progress = Progress::new(11, 5);
        assert!(progress.may_probe());
        progress.sent(3, 300, 0, 10);
        assert!(!progress.may_probe() && progress.next_index() == 11);
        // A heartbeat that left with it, or before, says nothing about it.
        progress.answered_heartbeat(10);
        assert!(!progress.may_probe());
        progress.answered_heartbeat(11);
        assert!(progress.may_probe() && !progress.probes_with_entries());
        progress.sent(0, 0, 0, 20);
        progress.rejected(5);
        assert!(progress.may_probe() && progress.probes_with_entries());
    }

    #[test]
    fn entries_of_a_probe_that_agreed_are_not_sent_again() {
        let mut progress = Progress::new(11, 0);
        progress.sent(3, 300, 0, 0);
        assert!(progress.acknowledged(10, 0, 1));
        assert_eq!(
            (progress.state(), progress.match_index(), progress.next_index()),
            (ProgressState::Replicate, 10, 14)
        );
        assert_eq!(progress.inflight_messages(), 1);
        progress.acknowledged(13, 0, 1);
        assert_eq!(progress.inflight_messages(), 0);
    }

    #[test]
    fn a_late_acknowledgement_makes_a_probing_leader_go_on_from_there() {
        let mut progress = Progress::new(11, 0);
        progress.sent(3, 300, 0, 0);
        progress.acknowledged(4, 0, 1);
        assert_eq!((progress.state(), progress.next_index()), (ProgressState::Replicate, 5));
    }

    #[test]
    fn rejections_count_while_they_are_about_what_is_on_its_way() {
        let mut progress = Progress::new(11, 0);
        assert!(!progress.minds_rejection(10));
        progress.sent(1, 1, 0, 0);
        assert!(progress.minds_rejection(10) && !progress.minds_rejection(9));
        progress.rejected(5);
        assert!(progress.may_probe() && progress.next_index() == 5);

        let mut progress = replicating(10);
        progress.sent(2, 1, 0, 0);
        assert!(
            progress.minds_rejection(12) && !progress.minds_rejection(10) && !progress.minds_rejection(13)
        );
        progress.rejected(1);
        assert_eq!((progress.state(), progress.next_index()), (ProgressState::Probe, 11));
    }

    #[test]
    fn the_window_is_bounded_by_messages_and_bytes_but_takes_one() {
        let mut progress = replicating(10);
        assert!(progress.may_replicate(1, 0));
        progress.sent(1, 100, 0, 0);
        assert!(!progress.may_replicate(1, 1000) && !progress.may_replicate(9, 100));
        assert!(progress.may_replicate(2, 101));
        progress.sent(1, 100, 0, 0);
        progress.acknowledged(11, 0, 0);
        assert!(progress.may_replicate(2, 101));
        progress.acknowledged(12, 0, 0);
        assert!(progress.may_replicate(1, 0));
    }

    #[test]
    fn a_stalled_window_asks_once_a_heartbeat() {
        let mut progress = replicating(10);
        progress.sent(1, 100, 0, 20);
        progress.answered_heartbeat(20);
        assert!(!progress.asks());
        progress.answered_heartbeat(30);
        assert!(progress.asks());
        progress.sent(0, 0, 0, 31);
        assert!(!progress.asks());
        progress.acknowledged(11, 0, 32);
        progress.answered_heartbeat(40);
        assert!(!progress.asks());
    }

    #[test]
    fn what_is_committed_is_told_once() {
        let mut progress = replicating(10);
        assert!(progress.lacks_commit(9));
        progress.sent(0, 0, 9, 0);
        assert!(!progress.lacks_commit(9));
        progress.told(10);
        assert!(!progress.lacks_commit(10));
        // It cannot be told of what was not sent to it.
        assert!(!progress.lacks_commit(11));
    }

    #[test]
    fn a_fetch_counts_only_for_what_is_next() {
        let mut progress = replicating(10);
        progress.fetch();
        assert!(!progress.may_replicate(9, 9));
        assert!(!progress.fetched(10));
        assert!(progress.fetched(11));
        assert!(progress.may_replicate(9, 9));
        progress.fetch();
        progress.unreachable(0);
        assert!(!progress.fetched(11));
    }

    #[test]
    fn a_snapshot_ends_when_the_peer_has_what_the_log_begins_with() {
        let mut progress = sending_snapshot(0, SnapshotStep::Reading);
        progress.acknowledged(8, 9, 0);
        assert_eq!((progress.state(), progress.match_index()), (ProgressState::Snapshot, 8));
        progress.acknowledged(9, 9, 0);
        assert_eq!((progress.state(), progress.next_index()), (ProgressState::Replicate, 10));
    }

    #[test]
    fn a_snapshot_goes_on_where_the_peer_says() {
        let mut progress = sending_snapshot(100, SnapshotStep::Sent { since_ns: 0 });
        let outgoing = progress.outgoing.as_mut().unwrap();
        outgoing.go_on(100);
        assert_eq!(outgoing.step, SnapshotStep::Sent { since_ns: 0 });
        outgoing.go_on(200);
        assert_eq!((outgoing.step, outgoing.offset), (SnapshotStep::Read, 200));
        outgoing.go_on(0);
        assert_eq!(outgoing.offset, 200);
        outgoing.step = SnapshotStep::Asked { since_ns: 0 };
        outgoing.go_on(200);
        assert_eq!((outgoing.step, outgoing.offset), (SnapshotStep::Read, 200));
    }

    #[test]
    fn a_lost_piece_makes_the_leader_ask() {
        let mut progress = sending_snapshot(100, SnapshotStep::Sent { since_ns: 50 });
        let outgoing = progress.outgoing.as_mut().unwrap();
        assert_eq!(outgoing.deadline_ns(ANSWER_NS), Some(350));
        outgoing.tick(349, ANSWER_NS);
        assert_eq!(outgoing.step, SnapshotStep::Sent { since_ns: 50 });
        outgoing.tick(350, ANSWER_NS);
        assert_eq!(outgoing.step, SnapshotStep::Ask);
    }

    #[test]
    fn a_broken_link_makes_the_leader_ask_once_the_peer_is_back() {
        let mut progress = sending_snapshot(100, SnapshotStep::Sent { since_ns: 50 });
        progress.unreachable(60);
        assert_eq!(step(&progress), SnapshotStep::Broken { since_ns: 60 });
        progress.answered_heartbeat(70);
        assert_eq!(step(&progress), SnapshotStep::Ask);

        let mut progress = sending_snapshot(100, SnapshotStep::Reading);
        progress.unreachable(60);
        assert_eq!(step(&progress), SnapshotStep::Reading);
    }

    #[test]
    fn a_leader_without_a_snapshot_tries_its_log_again() {
        for (compacted, state) in [(5, ProgressState::Snapshot), (4, ProgressState::Probe)] {
            let mut progress = replicating(4);
            progress.send_snapshot();
            progress.outgoing.as_mut().unwrap().begin_anew(500);
            progress.tick_snapshot(500, ANSWER_NS, compacted);
            assert_eq!(progress.state(), state);
        }
    }

    #[test]
    fn an_unreadable_snapshot_begins_anew_later() {
        let mut progress = sending_snapshot(100, SnapshotStep::Reading);
        let outgoing = progress.outgoing.as_mut().unwrap();
        outgoing.begin_anew(500);
        assert_eq!((outgoing.meta.as_ref(), outgoing.offset), (None, 0));
        outgoing.tick(499, ANSWER_NS);
        assert_eq!(outgoing.step, SnapshotStep::Wait { until_ns: 500 });
        outgoing.tick(500, ANSWER_NS);
        assert_eq!(outgoing.step, SnapshotStep::Read);
    }
}
