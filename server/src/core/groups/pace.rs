//! How much of what followers lack is on its way to them.
//!
//! A node that catches up shares CPUs, disks and links with clients' requests. As in LEDBAT (RFC 6817), which lets a transfer in
//! the background make way for others, the time that acknowledgements take tells: much more than the shortest seen means that
//! something on the way has more to do than it can. Then half as much is sent; else a little more each time.
//!
//! Invariants:
//!
//! - What is on its way is bounded by [`ALLOWED_BYTES_MAX`] and one piece.
//! - A piece that is not acknowledged counts as lost after a while, so that a follower that is gone holds nothing up for long.

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
    /// When something was on its way last.
    used_ns: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { pieces: VecDeque::new(), allowed_bytes: ALLOWED_BYTES_MIN, shortest_ns: u64::MAX, used_ns: 0 }
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

    /// Learns from the pieces that have been acknowledged, or are lost. `lacks` says whether a follower has not acknowledged an entry.
    pub(super) fn learn(&mut self, now_ns: u64, lacks: impl Fn(&LastSent) -> bool) {
        if !self.pieces.is_empty() {
            self.used_ns = now_ns;
        }
        while let Some(first) = self.pieces.front() {
            let passed_ns = now_ns - first.sent_ns;
            let is_lost = passed_ns >= LOST_NS;
            if !is_lost && first.last.iter().any(&lacks) {
                return;
            }
            self.pieces.pop_front();
            self.shortest_ns = self.shortest_ns.min(passed_ns);
            let is_late = is_lost || passed_ns > 2 * self.shortest_ns + LATE_NS;
            let allowed_bytes =
                if is_late { self.allowed_bytes / 2 } else { self.allowed_bytes + MORE_BYTES };
            self.allowed_bytes = allowed_bytes.clamp(ALLOWED_BYTES_MIN, ALLOWED_BYTES_MAX);
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
            pace.learn(*now_ns, |_| false);
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

    #[test]
    fn what_is_on_its_way_takes_room_until_it_is_acknowledged() {
        let mut pace = Pace::default();
        pace.note_sent(MS, 40 << 10, vec![(0, ReplicaId(1), 7), (1, ReplicaId(2), 9)]);
        assert_eq!(pace.room_bytes(), 24 << 10);
        pace.note_sent(MS, 40 << 10, vec![(0, ReplicaId(1), 8)]);
        assert_eq!(pace.room_bytes(), 0);
        pace.learn(2 * MS, |&(shard, ..)| shard == 1);
        assert_eq!((pace.room_bytes(), pace.next_ns()), (0, MS + LOST_NS));
        pace.learn(3 * MS, |&(.., last)| last == 8);
        assert_eq!(pace.room_bytes(), ALLOWED_BYTES_MIN + MORE_BYTES - (40 << 10));
        // A follower that is gone acknowledges nothing.
        pace.learn(MS + LOST_NS - 1, |_| true);
        assert_eq!(pace.pieces.len(), 1);
        pace.learn(MS + LOST_NS, |_| true);
        assert_eq!((pace.room_bytes(), pace.next_ns()), (ALLOWED_BYTES_MIN, u64::MAX));
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
