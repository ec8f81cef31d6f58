//! A core's part of `dump.rdb`: the pieces of its shards, all as they were at one moment.

use std::collections::VecDeque;

use duva_engine::Shards;

use super::{PIECES_MAX, Part, SaveMessage, encoder, encoder::Encoder};
use crate::core::node::Node;

/// A shard with so much forced out by changes comes first.
const URGENT_BYTES: usize = 64 << 10;

/// One core's part of a dump.
pub(super) struct DumpPart {
    pub(super) encoder: Encoder,
    /// First slots of the shards that are not done; the last is next.
    shards: Vec<u16>,
    /// Memory of each piece on its way.
    pieces: VecDeque<usize>,
    is_abandoned: bool,
}

impl DumpPart {
    pub(super) fn piece_taken(&mut self) {
        self.pieces.pop_front().expect("a piece comes back that was sent");
    }

    /// Memory of the piece at work, and of those on their way, in bytes.
    pub(super) fn piece_bytes(&mut self) -> usize {
        self.encoder.piece().capacity() + self.pieces.iter().sum::<usize>()
    }

    pub(super) fn abandon(&mut self, shards: &mut Shards) {
        self.is_abandoned = true;
        self.shards.iter().for_each(|&slot| shards.of(slot).abandon_snapshot());
    }

    /// The shard to go on with: changes force entries out of all of them meanwhile.
    fn choose(&mut self, shards: &mut Shards) -> Option<u16> {
        if self.encoder.is_within_entry() {
            return self.shards.last().copied();
        }
        let early = |&(_, slot): &(usize, u16)| shards.of(slot).saved_early_bytes();
        let numbered = self.shards.iter().copied().enumerate();
        let (index, slot) = numbered.max_by_key(early)?;
        if shards.of(slot).saved_early_bytes() >= URGENT_BYTES {
            let last = self.shards.len() - 1;
            self.shards.swap(index, last);
        }
        self.shards.last().copied()
    }
}

impl Node {
    /// Under all locks: begins the snapshots of all shards, as they are without what waits for a commit.
    pub(in crate::core) fn begin_dump_part(&mut self) {
        assert!(self.saver.part.is_none(), "one save or rewrite at a time");
        let mut shards = Vec::new();
        let mut keys = 0;
        let at_ms = self.visible_ms();
        for shard in self.executor.shards.iter_mut() {
            shard.begin_snapshot(at_ms);
            shards.push(shard.slots().start);
            keys += (0..duva_engine::DATABASE_COUNT).map(|number| shard.key_count(number)).sum::<usize>();
        }
        shards.reverse();
        let encoder = Encoder::new(self.rdb_options());
        self.saver.keys_total = keys as u64;
        self.saver.part =
            Some(Part::Dump(DumpPart { encoder, shards, pieces: VecDeque::new(), is_abandoned: false }));
        self.saver.has_work = true;
        self.publish_sizes();
        self.close_gate();
    }

    pub(super) fn run_dump_part(&mut self) {
        let Self { saver, executor, .. } = self;
        let Some(Part::Dump(part)) = &mut saver.part else { return };
        if part.is_abandoned {
            if let Some(&slot) = part.shards.last()
                && encoder::step_abandoned(executor.shards.of(slot))
            {
                part.shards.pop();
            }
            saver.has_work = !part.shards.is_empty();
            if part.shards.is_empty() && part.pieces.is_empty() {
                self.end_part(false, Vec::new());
            }
            return;
        }
        if !part.encoder.is_full()
            && let Some(slot) = part.choose(&mut executor.shards)
        {
            let shard = executor.shards.of(slot);
            if part.encoder.step(shard) {
                part.shards.pop();
            }
            executor.has_garbage |= shard.has_garbage();
        }
        let is_last = part.shards.is_empty();
        let is_ready = part.encoder.is_full() || (is_last && !part.encoder.piece().is_empty());
        if is_ready && part.pieces.len() < PIECES_MAX {
            let spare = saver.spare.pop().unwrap_or_default();
            let piece = part.encoder.take(spare);
            part.pieces.push_back(piece.bytes.capacity());
            saver.has_work = !is_last;
            self.tell(0, SaveMessage::Piece(piece));
        } else {
            saver.has_work = !is_last && !is_ready;
            if is_last && !is_ready && part.pieces.is_empty() {
                self.end_part(true, Vec::new());
            }
        }
    }
}
