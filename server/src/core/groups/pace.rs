//! How much of what followers lack is on its way to them.
//!
//! A node that catches up shares CPUs, disks and links with clients' requests. As in LEDBAT (RFC 6817), which lets a transfer in
//! the background make way for others, the time that acknowledgements take tells: much more than the shortest seen means that
//! something on the way has more to do than it can. Then half as much is sent; else a little more each time.
//!
//! Invariants:
//!
//! - What is on its way is bounded by [`ALLOWED_BYTES_MAX`] and what one pass over the journal finds.
//! - A piece that is not acknowledged counts as lost after a while. What was for a follower that is gone holds nothing up.
//! - What was sent before less was allowed does not make it less again: one delay counts once.

use std::collections::VecDeque;

use duva_raft::ReplicaId;

/// Bytes that may be on their way, at least and at most.
const ALLOWED_BYTES_MIN: usize = 64 << 10;
const ALLOWED_BYTES_MAX: usize = 1 << 20;

/// How much more it is for each piece that is acknowledged in time.
const MORE_BYTES: usize = 16 << 10;

/// An acknowledgement is late if it takes twice as long as the shortest, and so much more, in nanoseconds.
const LATE_NS: u64 = 10_000_000;

/// How long one is waited for, in nanoseconds.
const LOST_NS: u64 = 500_000_000;

/// After so long with nothing on its way the shortest time is not known any more, in nanoseconds: links may have changed.
const FORGOTTEN_NS: u64 = 1_000_000_000;

/// The last entry that a follower of a shard was sent.
pub(super) type LastSent = (u16, ReplicaId, u64);

/// What is known of an entry that was sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    OnItsWay,
    Acknowledged,
    /// Its follower is asked anew where the logs agree, or is none any more.
    Unknown,
}

/// What was sent in one turn.
struct Piece {
    sent_ns: u64,
    bytes: usize,
    last: Vec<LastSent>,
}

/// The pieces that are on their way, and how many may be.
pub(super) struct Pace {
    pieces: VecDeque<Piece>,
    allowed_bytes: usize,
    shortest_ns: u64,
    /// When something was on its way last, and when it was allowed to be less.
    used_ns: u64,
    lessened_ns: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            pieces: VecDeque::new(),
            allowed_bytes: ALLOWED_BYTES_MIN,
            shortest_ns: u64::MAX,
            used_ns: 0,
            lessened_ns: 0,
        }
    }
}

impl Pace {
    /// Bytes that may be sent now.
    pub(super) fn room_bytes(&self) -> usize {
        let on_way_bytes: usize = self.pieces.iter().map(|piece| piece.bytes).sum();
        self.allowed_bytes.saturating_sub(on_way_bytes)
    }

    /// So many bytes of entries were sent.
    pub(super) fn note_sent(&mut self, now_ns: u64, bytes: usize, last: Vec<LastSent>) {
        if self.pieces.is_empty() && now_ns >= self.used_ns + FORGOTTEN_NS {
            self.shortest_ns = u64::MAX;
        }
        self.pieces.push_back(Piece { sent_ns: now_ns, bytes, last });
    }

    /// Learns from the pieces that have been acknowledged, or are lost.
    pub(super) fn learn(&mut self, now_ns: u64, fate_of: impl Fn(&LastSent) -> Fate) {
        if self.pieces.is_empty() {
            return;
        }
        self.used_ns = now_ns;
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.retain(|piece| {
            let passed_ns = now_ns - piece.sent_ns;
            let fates = || piece.last.iter().map(&fate_of);
            if passed_ns >= LOST_NS {
                self.lessen(piece.sent_ns, now_ns);
            } else if fates().any(|fate| fate == Fate::OnItsWay) {
                return true;
            } else if fates().all(|fate| fate == Fate::Acknowledged) {
                self.shortest_ns = self.shortest_ns.min(passed_ns);
                if passed_ns > 2 * self.shortest_ns + LATE_NS {
                    self.lessen(piece.sent_ns, now_ns);
                } else {
                    self.allowed_bytes = (self.allowed_bytes + MORE_BYTES).min(ALLOWED_BYTES_MAX);
                }
            }
            false
        });
        self.pieces = pieces;
    }

    /// What was sent at `sent_ns` has taken too long.
    fn lessen(&mut self, sent_ns: u64, now_ns: u64) {
        if sent_ns >= self.lessened_ns {
            self.allowed_bytes = (self.allowed_bytes / 2).max(ALLOWED_BYTES_MIN);
            self.lessened_ns = now_ns;
        }
    }

    /// When the oldest piece counts as lost.
    pub(super) fn next_ns(&self) -> u64 {
        self.pieces.front().map_or(u64::MAX, |first| first.sent_ns + LOST_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Sends pieces of 64 KiB, one after the other, each acknowledged after so long. Returns what is allowed then.
    fn exchange(pace: &mut Pace, now_ns: &mut u64, trips_ns: &[u64]) -> usize {
        for &trip_ns in trips_ns {
            pace.note_sent(*now_ns, 64 << 10, vec![(0, ReplicaId(1), *now_ns)]);
            *now_ns += trip_ns;
            pace.learn(*now_ns, |_| Fate::Acknowledged);
        }
        pace.room_bytes()
    }

    #[test]
    fn more_is_sent_as_long_as_acknowledgements_take_no_longer() {
        let (mut pace, mut now_ns) = (Pace::default(), MS);
        assert_eq!(pace.room_bytes(), ALLOWED_BYTES_MIN);
        // Over a long way, too.
        let room_bytes = exchange(&mut pace, &mut now_ns, &[50 * MS; 10]);
        assert_eq!(room_bytes, ALLOWED_BYTES_MIN + 10 * MORE_BYTES);
        assert_eq!(exchange(&mut pace, &mut now_ns, &[51 * MS; 100]), ALLOWED_BYTES_MAX);
        assert_eq!(exchange(&mut pace, &mut now_ns, &[111 * MS]), ALLOWED_BYTES_MAX / 2);
        assert_eq!(exchange(&mut pace, &mut now_ns, &[300 * MS; 9]), ALLOWED_BYTES_MIN);
    }

    fn on_its_way_if(is_on_its_way: bool) -> Fate {
        if is_on_its_way { Fate::OnItsWay } else { Fate::Acknowledged }
    }

    #[test]
    fn what_is_on_its_way_takes_room_until_it_is_acknowledged() {
        let mut pace = Pace::default();
        pace.note_sent(MS, 40 << 10, vec![(0, ReplicaId(1), 7), (1, ReplicaId(2), 9)]);
        assert_eq!(pace.room_bytes(), 24 << 10);
        pace.note_sent(MS, 40 << 10, vec![(0, ReplicaId(1), 8)]);
        assert_eq!(pace.room_bytes(), 0);
        // The first piece waits for one of its followers, the second one does not wait for that.
        pace.learn(2 * MS, |&(shard, ..)| on_its_way_if(shard == 1));
        let allowed_bytes = ALLOWED_BYTES_MIN + MORE_BYTES;
        assert_eq!((pace.room_bytes(), pace.next_ns()), (allowed_bytes - (40 << 10), MS + LOST_NS));
        pace.learn(3 * MS, |_| Fate::Acknowledged);
        assert_eq!((pace.room_bytes(), pace.next_ns()), (allowed_bytes + MORE_BYTES, u64::MAX));
    }

    #[test]
    fn a_follower_that_is_gone_says_nothing_and_holds_nothing_up() {
        let mut pace = Pace::default();
        pace.note_sent(MS, 60 << 10, vec![(0, ReplicaId(1), 7)]);
        pace.learn(MS, |_| Fate::Unknown);
        assert_eq!((pace.room_bytes(), pace.shortest_ns), (ALLOWED_BYTES_MIN, u64::MAX));
        pace.note_sent(MS, 60 << 10, vec![(0, ReplicaId(1), 7)]);
        pace.learn(MS + LOST_NS - 1, |_| Fate::OnItsWay);
        assert_eq!(pace.pieces.len(), 1);
        pace.learn(MS + LOST_NS, |_| Fate::OnItsWay);
        assert_eq!((pace.room_bytes(), pace.next_ns()), (ALLOWED_BYTES_MIN, u64::MAX));
    }

    #[test]
    fn one_delay_counts_once() {
        let (mut pace, mut now_ns) = (Pace::default(), MS);
        let allowed_bytes = exchange(&mut pace, &mut now_ns, &[MS; 40]);
        for index in 0..4 {
            pace.note_sent(now_ns + index, 64 << 10, vec![(0, ReplicaId(1), index)]);
        }
        // All of them were held up together.
        for index in 0..4 {
            now_ns += 100 * MS;
            pace.learn(now_ns, |&(.., last)| on_its_way_if(last > index));
        }
        assert_eq!(pace.room_bytes(), allowed_bytes / 2);
    }

    #[test]
    fn a_shorter_way_of_long_ago_is_forgotten() {
        let (mut pace, mut now_ns) = (Pace::default(), MS);
        exchange(&mut pace, &mut now_ns, &[MS; 10]);
        now_ns += FORGOTTEN_NS;
        let room_bytes = exchange(&mut pace, &mut now_ns, &[80 * MS; 2]);
        assert_eq!(room_bytes, ALLOWED_BYTES_MIN + 12 * MORE_BYTES);
        assert_eq!(
            exchange(&mut pace, &mut now_ns, &[MS, 80 * MS]),
            (ALLOWED_BYTES_MIN + 13 * MORE_BYTES) / 2
        );
    }
}
