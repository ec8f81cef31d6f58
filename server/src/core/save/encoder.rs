//! A shard's snapshot as pieces of an RDB file, a budget at a time.
//!
//! Invariant: a piece is whole entries behind the number of their database, so that pieces of different shards may follow
//! one another in any order; but a large value may go on in the shard's next pieces, and those belong together.

use duva_engine::{
    OnceSnapshot, Saved, SavedEntry, Shard, Value,
    rdb::{self, RdbOptions},
};

use crate::storage::write_once;

/// A piece with so many bytes is handed on. One may be longer by a table's small entries, or by one entry or part of one.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// The walk's own budget, after which the encoder's is asked: it looks at one table, and emits 4 KiB of keys and values from
/// it.
const WALK_ENTRIES: usize = 1;

/// What a step may cost, in bytes of keys and values: about 40 microseconds of small entries, compressed, which is what a
/// turn of fifty requests takes that wait for a sync.
const STEP_COST: usize = 8 << 10;

/// What one entry costs beside its bytes, and a table beside its entries.
const ENTRY_COST: usize = 64;
const TABLE_COST: usize = 64;

/// Writes the entries of shards, one shard after the other.
pub(super) struct Encoder {
    options: RdbOptions,
    /// Whose entries the piece goes on with.
    database: Option<u8>,
    piece: Vec<u8>,
    /// Bytes of the last entry's value that are still to come.
    rest_bytes: usize,
    /// Entries begun so far.
    pub(super) entries: u64,
    /// Recorded replies of ONCE that come before the entries.
    once: OnceSnapshot,
}

/// A piece of a file.
#[derive(Default)]
pub struct Piece {
    pub(super) bytes: Vec<u8>,
    /// Whether its last entry goes on in the next piece of its shard.
    pub(super) goes_on: bool,
}

impl Encoder {
    pub(super) fn new(options: RdbOptions) -> Self {
        Self {
            options,
            database: None,
            piece: Vec::new(),
            rest_bytes: 0,
            entries: 0,
            once: OnceSnapshot::default(),
        }
    }

    /// An encoder of one shard's snapshot file, which has recorded replies of ONCE as well.
    pub(super) fn with_once(options: RdbOptions, once: OnceSnapshot) -> Self {
        Self { once, ..Self::new(options) }
    }

    /// Whether the next step has to be the same shard's: an entry of it goes on.
    pub(super) fn is_within_entry(&self) -> bool {
        self.rest_bytes > 0
    }

    /// Goes on with `shard`'s snapshot for one budget; true: it is over.
    pub(super) fn step(&mut self, shard: &mut Shard) -> bool {
        let mut cost = 0;
        loop {
            if let Some(len_bytes) = write_once(&mut self.piece, &mut self.once) {
                cost += len_bytes;
                if cost >= STEP_COST || self.is_full() {
                    return false;
                }
                continue;
            }
            let is_over = shard.snapshot_step(WALK_ENTRIES, |saved| cost += self.write(saved));
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
    pub(super) fn take(&mut self, spare: Vec<u8>) -> Piece {
        self.database = None;
        Piece { bytes: std::mem::replace(&mut self.piece, spare), goes_on: self.is_within_entry() }
    }

    /// Writes an entry, or a part of one; returns what it cost.
    fn write(&mut self, saved: Saved<'_>) -> usize {
        let entry = match saved {
            Saved::Entry(entry) => entry,
            Saved::Part(bytes) => {
                self.rest_bytes -= bytes.len();
                self.piece.extend_from_slice(bytes);
                return bytes.len();
            }
        };
        if self.database != Some(entry.database) {
            self.database = Some(entry.database);
            rdb::write_select(&mut self.piece, entry.database);
        }
        rdb::write_saved(&mut self.piece, &entry, self.options);
        let SavedEntry { key, value: Value::String(value), rest_bytes, .. } = entry;
        self.rest_bytes = rest_bytes;
        self.entries += 1;
        ENTRY_COST + key.len() + value.len()
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

    /// More than is emitted at once.
    const LARGE_BYTES: usize = 700 << 10;

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
            let value = vec![b'v'; if number % 6_000 == 777 { LARGE_BYTES } else { number as usize % 90 }];
            let key = hasher.key(&name);
            shards.of(key.slot).set_string(database, &name, key, &value, Deadline::Clear, 1);
            expected.push((database, name, value));
        }
        for shard in shards.iter_mut() {
            shard.begin_snapshot(u64::MAX);
        }
        let mut encoder = Encoder::new(RdbOptions { compress: true });
        let mut pieces: Vec<Piece> = Vec::new();
        let mut unfinished: Vec<u16> = shards.iter().map(|shard| shard.slots().start).collect();
        let (mut steps, mut index) = (0, 0);
        while !unfinished.is_empty() {
            if !encoder.is_within_entry() {
                index = steps % unfinished.len();
            }
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
        assert!(pieces.len() > 25 && steps > 40, "{} pieces in {steps} steps", pieces.len());
        assert!(pieces.iter().all(|piece| piece.bytes.len() < 4 * PIECE_BYTES));
        let mut file = Vec::new();
        rdb::write_header(&mut file, &[]);
        // They say themselves whose entries they hold, but those that share an entry belong together.
        let whole: Vec<&[Piece]> = pieces.chunk_by(|piece, _| piece.goes_on).collect();
        assert!(whole.len() < pieces.len() - 3 * 3);
        whole.into_iter().rev().flatten().for_each(|piece| file.extend_from_slice(&piece.bytes));
        rdb::write_end(&mut file);
        file.extend_from_slice(&[0; 8]);
        let (mut reader, mut found) = (Reader::new(), Found::default());
        assert!(reader.feed(&file, &mut found).is_ok() && reader.finish().is_ok());
        found.0.sort();
        expected.sort();
        assert!(found.0 == expected);
    }
}
