//! A shard's snapshot as pieces of an RDB file, a budget at a time.
//!
//! Invariant: a piece is whole entries behind the number of their database, so that pieces of different shards may follow
//! one another in any order.

use duva_engine::{
    Saved, Shard, Value,
    rdb::{self, RdbOptions},
};

/// A piece with so many bytes is handed on. One may be longer by a table's small entries, or by one value.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// The walk's own budget, after which the encoder's is asked: it looks at one table, and emits 4 KiB of values from it.
const WALK_ENTRIES: usize = 1;

/// What a step may cost, in bytes of values: about 50 microseconds of small entries, compressed.
const STEP_COST: usize = 32 << 10;

/// What one entry costs beside its value, and a table beside its entries.
const ENTRY_COST: usize = 64;
const TABLE_COST: usize = 64;

/// Longer values are not compressed: it would take longer than anything else in a turn.
const COMPRESSED_BYTES_MAX: usize = 256 << 10;

/// Writes the entries of shards, one shard after the other.
pub(super) struct Encoder {
    options: RdbOptions,
    /// Whose entries the piece goes on with.
    database: Option<u8>,
    piece: Vec<u8>,
    /// Entries written so far.
    pub(super) entries: u64,
}

impl Encoder {
    pub(super) fn new(options: RdbOptions) -> Self {
        Self { options, database: None, piece: Vec::new(), entries: 0 }
    }

    /// Goes on with `shard`'s snapshot for one budget; true: it is over.
    pub(super) fn step(&mut self, shard: &mut Shard) -> bool {
        let mut cost = 0;
        loop {
            let is_over = shard.snapshot_step(WALK_ENTRIES, |saved| cost += self.write(&saved));
            cost += TABLE_COST;
            if is_over || cost >= STEP_COST || self.is_full() {
                return is_over;
            }
        }
    }

    /// Whether the piece is to be handed on.
    pub(super) fn is_full(&self) -> bool {
        self.piece.len() >= PIECE_BYTES
    }

    /// The piece so far.
    pub(super) fn piece(&mut self) -> &mut Vec<u8> {
        &mut self.piece
    }

    /// Takes the piece, and begins the next one in `spare`.
    pub(super) fn take(&mut self, spare: Vec<u8>) -> Vec<u8> {
        self.database = None;
        std::mem::replace(&mut self.piece, spare)
    }

    /// Writes an entry; returns what it cost.
    fn write(&mut self, saved: &Saved<'_>) -> usize {
        if self.database != Some(saved.database) {
            self.database = Some(saved.database);
            rdb::write_select(&mut self.piece, saved.database);
        }
        let Value::String(value) = saved.value;
        let compress = self.options.compress && value.len() <= COMPRESSED_BYTES_MAX;
        let options = RdbOptions { compress };
        rdb::write_entry(&mut self.piece, saved.key, saved.value, saved.deadline_ms, options);
        self.entries += 1;
        ENTRY_COST + value.len()
    }
}

/// Goes on with giving a snapshot up for one budget; true: the next one may begin.
pub(super) fn step_abandoned(shard: &mut Shard) -> bool {
    shard.snapshot_step(STEP_COST / ENTRY_COST, |_| {})
}

#[cfg(test)]
mod tests {
    use duva_engine::{
        Deadline, Hasher, Shards,
        rdb::{Item, LoadedValue, Reader, Visitor},
    };

    use super::*;

    /// Entries as a reader finds them: database, key and value.
    #[derive(Default)]
    struct Found(Vec<(u8, Vec<u8>, Vec<u8>)>);

    impl Visitor for Found {
        type Error = ();

        fn entry(&mut self, item: Item<'_>) -> Result<(), ()> {
            let LoadedValue::String(value) = item.value;
            self.0.push((item.database, item.key.to_vec(), value.into_owned()));
            Ok(())
        }
    }

    fn shards(hasher: &Hasher) -> Shards {
        let mut shards = Shards::new(4);
        for number in 0..4 {
            let slots = shards.slots_of(number);
            shards.adopt(number, Box::new(Shard::new(slots, hasher.clone())));
        }
        shards
    }

    #[test]
    fn pieces_of_shards_in_any_order_make_a_file() {
        let hasher = Hasher::new(1);
        let mut shards = shards(&hasher);
        let mut expected = Vec::new();
        for number in 0..20_000_u32 {
            let (database, name) = ((number % 3) as u8, format!("key:{number}").into_bytes());
            let value =
                vec![b'v'; if number == 777 { COMPRESSED_BYTES_MAX + 1 } else { number as usize % 90 }];
            let key = hasher.key(&name);
            shards.of(key.slot).set_string(database, &name, key, &value, Deadline::Clear, 1);
            expected.push((database, name, value));
        }
        shards.iter_mut().for_each(Shard::begin_snapshot);
        let mut encoder = Encoder::new(RdbOptions { compress: true });
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        let mut unfinished: Vec<u16> = shards.iter().map(|shard| shard.slots().start).collect();
        let mut steps = 0;
        while !unfinished.is_empty() {
            let index = steps % unfinished.len();
            let before = encoder.entries;
            if encoder.step(shards.of(unfinished[index])) {
                unfinished.swap_remove(index);
            }
            // A step ends with a table's entries at most, behind the one that used its budget up.
            assert!(encoder.entries - before <= (STEP_COST / ENTRY_COST + 1024) as u64);
            steps += 1;
            if encoder.is_full() || unfinished.is_empty() {
                pieces.push(encoder.take(Vec::new()));
            }
        }
        assert!(pieces.len() > 5 && steps > 20, "{} pieces in {steps} steps", pieces.len());
        let small = pieces.iter().filter(|piece| piece.len() < 3 * PIECE_BYTES).count();
        assert_eq!(small, pieces.len() - 1, "all but the one with the long value");
        let mut file = Vec::new();
        rdb::write_header(&mut file, &[]);
        // They say themselves whose entries they hold.
        pieces.iter().rev().for_each(|piece| file.extend_from_slice(piece));
        rdb::write_end(&mut file);
        file.extend_from_slice(&[0; 8]);
        let (mut reader, mut found) = (Reader::new(), Found::default());
        assert!(reader.feed(&file, &mut found).is_ok() && reader.finish().is_ok());
        found.0.sort();
        expected.sort();
        assert!(found.0 == expected);
    }
}
