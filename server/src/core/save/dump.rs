//! A core's part of `dump.rdb`: the pieces of its shards, all as they were at one moment.

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
    /// Pieces on their way.
    pieces: usize,
    is_abandoned: bool,
}

impl DumpPart {
    pub(super) fn piece_taken(&mut self) {
        self.pieces -= 1;
    }

    pub(super) fn abandon(&mut self, shards: &mut Shards) {
        self.is_abandoned = true;
        self.shards.iter().for_each(|&slot| shards.of(slot).abandon_snapshot());
    }

    /// The shard to go on with: changes force entries out of all of them meanwhile.
    fn choose(&mut self, shards: &mut Shards) -> Option<u16> {
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
    /// Under all locks, with nothing waiting for a commit: begins the snapshots of all shards.
    pub(in crate::core) fn begin_dump_part(&mut self) {
        assert!(self.saver.part.is_none(), "one save or rewrite at a time");
        let mut shards = Vec::new();
        let mut keys = 0;
        for shard in self.executor.shards.iter_mut() {
            shard.begin_snapshot();
            shards.push(shard.slots().start);
            keys += (0..duva_engine::DATABASE_COUNT).map(|number| shard.key_count(number)).sum::<usize>();
        }
        shards.reverse();
        let encoder = Encoder::new(self.rdb_options());
        self.saver.keys_total = keys as u64;
        self.saver.part = Some(Part::Dump(DumpPart { encoder, shards, pieces: 0, is_abandoned: false }));
        self.saver.has_work = true;
        self.publish_sizes();
        self.set_gate();
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
            if part.shards.is_empty() && part.pieces == 0 {
                self.end_part(false, Vec::new());
            }
            return;
        }
        if !part.encoder.is_full()
            && let Some(slot) = part.choose(&mut executor.shards)
            && part.encoder.step(executor.shards.of(slot))
        {
            part.shards.pop();
        }
        let is_last = part.shards.is_empty();
        let is_ready = part.encoder.is_full() || (is_last && !part.encoder.piece().is_empty());
        if is_ready && part.pieces < PIECES_MAX {
            part.pieces += 1;
            let spare = saver.spare.pop().unwrap_or_default();
            let piece = part.encoder.take(spare);
            saver.has_work = !is_last;
            self.tell(0, SaveMessage::Piece(piece));
        } else {
            saver.has_work = !is_last && !is_ready;
            if is_last && !is_ready && part.pieces == 0 {
                self.end_part(true, Vec::new());
            }
        }
    }
}
