//! The timing wheel: which keys may be due, found without looking at the others.
//!
//! A hierarchical wheel (Varghese and Lauck, 1987) of six levels with 256 buckets each: a bucket of level 0 is one
//! millisecond, one of level `n` is `256^n`. A record is eight bytes and does not know its time: it names the
//! key (database, slot and the top bits of its hash), whose entry knows its deadline. A bucket comes due at
//! its beginning; whoever takes a record out looks the key up and removes it, inserts the record again
//! nearer to the deadline, or drops it (`Shard::expire`).
//!
//! Invariants:
//!
//! - `current_ms` never passes a bucket with records: every bucket begins at or after it, but for those being drained.
//! - `next_ms` is the earliest beginning of a bucket with records.
//! - Inserting costs O(1); taking out too, plus a look at each level once a bucket.

/// A key in a database, by the top bits of its hash.
///
/// `database` 4 bits, `slot` 14 bits, the hash's top 46 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record(u64);

/// How many low bits of the hash a record leaves out.
pub(crate) const RECORD_HASH_SHIFT: u32 = 18;

impl Record {
    pub(crate) fn new(database: u8, slot: u16, hash: u64) -> Self {
        Self((u64::from(database) << 60) | (u64::from(slot) << 46) | (hash >> RECORD_HASH_SHIFT))
    }

    pub(crate) fn database(self) -> u8 {
        (self.0 >> 60) as u8
    }

    pub(crate) fn slot(self) -> u16 {
        (self.0 >> 46) as u16 & 0x3FFF
    }

    /// The hash, its low bits zero.
    pub(crate) fn hash(self) -> u64 {
        self.0 << RECORD_HASH_SHIFT
    }
}

const LEVEL_COUNT: usize = 6;
const LEVEL_BITS: u32 = 8;
const BUCKET_COUNT: usize = 1 << LEVEL_BITS;

/// Records in the first chunk of a bucket, and in the largest ones: each next chunk has four times as many.
const CHUNK_RECORDS_MIN: usize = 4;
const CHUNK_RECORDS_MAX: usize = 1024;

/// The latest time that the wheel can hold; later ones are treated as this one.
const TIME_MS_MAX: u64 = (1 << (LEVEL_BITS as u64 * LEVEL_COUNT as u64)) - 1;

struct Chunk {
    records: Vec<Record>,
    next: Chain,
}

/// The chunks of a bucket, the one with room first.
#[derive(Default)]
struct Chain(Option<Box<Chunk>>);

impl Drop for Chain {
    /// Link by link: a chain may be too long for recursion.
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut chunk) = next {
            next = chunk.next.0.take();
        }
    }
}

struct Level {
    /// One bit a bucket: whether it has records.
    occupied: [u64; BUCKET_COUNT / 64],
    buckets: [Chain; BUCKET_COUNT],
}

impl Level {
    fn new() -> Box<Self> {
        Box::new(Self {
            occupied: [0; BUCKET_COUNT / 64],
            buckets: std::array::from_fn(|_| Chain::default()),
        })
    }

    /// The first bucket from `first` on that has records.
    fn next_occupied(&self, first: usize) -> Option<usize> {
        let mut word = first / 64;
        let mut bits = self.occupied[word] & (u64::MAX << (first % 64));
        while bits == 0 {
            word += 1;
            bits = *self.occupied.get(word)?;
        }
        Some(word * 64 + bits.trailing_zeros() as usize)
    }
}

/// A shard's timing wheel. Times are milliseconds since the Unix epoch.
pub(crate) struct Wheel {
    current_ms: u64,
    /// `u64::MAX` if there is no record in any bucket.
    next_ms: u64,
    levels: [Option<Box<Level>>; LEVEL_COUNT],
    /// What is left of the bucket that came due last, and where its time ends.
    draining: Chain,
    draining_until_ms: u64,
    bytes: usize,
    len: usize,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self {
            current_ms: 0,
            next_ms: u64::MAX,
            levels: [const { None }; LEVEL_COUNT],
            draining: Chain::default(),
            draining_until_ms: 0,
            bytes: 0,
            len: 0,
        }
    }

    /// Records in the wheel.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Memory held, in bytes.
    pub(crate) fn used_bytes(&self) -> usize {
        self.bytes
    }

    /// When a record may be due.
    #[inline]
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        if self.draining.0.is_some() {
            return Some(self.current_ms);
        }
        (self.next_ms != u64::MAX).then_some(self.next_ms)
    }

    /// Adds a record that comes due at `time_ms` or somewhat before.
    pub(crate) fn insert(&mut self, record: Record, time_ms: u64, now_ms: u64) {
        // A wheel that lags behind would sort the record more coarsely than need be.
        self.current_ms = self.current_ms.max(now_ms.min(self.next_ms).min(TIME_MS_MAX));
        let time_ms = time_ms.clamp(self.current_ms, TIME_MS_MAX);
        let differing = (time_ms ^ self.current_ms) | (BUCKET_COUNT as u64 - 1);
        let level = (differing.ilog2() / LEVEL_BITS) as usize;
        let width = LEVEL_BITS * level as u32;
        let bucket = (time_ms >> width) as usize % BUCKET_COUNT;
        self.next_ms = self.next_ms.min((time_ms >> width) << width);

        let bytes = &mut self.bytes;
        let level = self.levels[level].get_or_insert_with(|| {
            *bytes += size_of::<Level>();
            Level::new()
        });
        level.occupied[bucket / 64] |= 1 << (bucket % 64);
        let chain = &mut level.buckets[bucket];
        if chain.0.as_ref().is_none_or(|chunk| chunk.records.len() == chunk.records.capacity()) {
            let capacity = chain.0.as_ref().map_or(CHUNK_RECORDS_MIN, |chunk| chunk.records.capacity() * 4);
            let records = Vec::with_capacity(capacity.min(CHUNK_RECORDS_MAX));
            let chunk = Chunk { records, next: std::mem::take(chain) };
            *bytes += chunk_bytes(&chunk);
            chain.0 = Some(Box::new(chunk));
        }
        chain.0.as_mut().expect("added above").records.push(record);
        self.len += 1;
    }

    /// Takes out a record of a bucket that begins at or before `now_ms`, with the end of that bucket's time.
    pub(crate) fn take_due(&mut self, now_ms: u64) -> Option<(Record, u64)> {
        loop {
            if let Some(chunk) = &mut self.draining.0 {
                if let Some(record) = chunk.records.pop() {
                    self.len -= 1;
                    return Some((record, self.draining_until_ms));
                }
                self.bytes -= chunk_bytes(chunk);
                let next = std::mem::take(&mut chunk.next);
                self.draining = next;
                continue;
            }
            if self.next_ms > now_ms {
                self.current_ms = self.current_ms.max(now_ms.min(TIME_MS_MAX));
                return None;
            }
            self.begin_bucket();
        }
    }

    /// Frees records and their memory, whatever their time: for a wheel that nothing refers to any more.
    pub(crate) fn discard(&mut self, mut budget: usize) -> usize {
        while budget > 0 {
            let Some(chunk) = &mut self.draining.0 else {
                if self.next_ms == u64::MAX {
                    break;
                }
                self.begin_bucket();
                continue;
            };
            self.bytes -= chunk_bytes(chunk);
            self.len -= chunk.records.len();
            // Freeing a chunk costs about as much as freeing an entry, however long it is.
            budget -= 1;
            let next = std::mem::take(&mut chunk.next);
            self.draining = next;
        }
        budget
    }

    /// Makes the earliest bucket with records the one being drained.
    fn begin_bucket(&mut self) {
        debug_assert!(self.draining.0.is_none() && self.next_ms >= self.current_ms);
        let (begin_ms, level, bucket) = self.earliest().expect("next_ms names a bucket");
        debug_assert_eq!(begin_ms, self.next_ms);
        let level_ref = self.levels[level].as_mut().expect("a bucket's level is there");
        level_ref.occupied[bucket / 64] &= !(1 << (bucket % 64));
        self.draining = std::mem::take(&mut level_ref.buckets[bucket]);
        self.draining_until_ms = begin_ms + (1 << (LEVEL_BITS * level as u32));
        self.current_ms = begin_ms;
        self.next_ms = self.earliest().map_or(u64::MAX, |(begin_ms, _, _)| begin_ms);
    }

    /// The earliest bucket with records: its beginning, level and number.
    fn earliest(&self) -> Option<(u64, usize, usize)> {
        let bucket_of = |(number, level): (usize, &Option<Box<Level>>)| {
            let width = LEVEL_BITS * number as u32;
            let position = self.current_ms >> width;
            let bucket = level.as_ref()?.next_occupied(position as usize % BUCKET_COUNT)?;
            let begin_ms = ((position & !(BUCKET_COUNT as u64 - 1)) | bucket as u64) << width;
            Some((begin_ms, number, bucket))
        };
        self.levels.iter().enumerate().filter_map(bucket_of).min()
    }
}

/// What a chunk takes, in bytes.
fn chunk_bytes(chunk: &Chunk) -> usize {
    size_of::<Chunk>() + chunk.records.capacity() * size_of::<Record>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(number: u64) -> Record {
        Record::new((number % 16) as u8, (number % 16_384) as u16, number << RECORD_HASH_SHIFT)
    }

    #[test]
    fn a_record_names_its_key() {
        let record = Record::new(15, 16_383, 0xFEDC_BA98_7654_3210);
        assert_eq!((record.database(), record.slot()), (15, 16_383));
        assert_eq!(record.hash(), 0xFEDC_BA98_7654_3210 >> 18 << 18);
    }

    proptest! {
        /// Every record comes out in time, once, however often it is put back on the way.
        #[test]
        fn records_come_out_when_due(
            start_ms in 0..1_u64 << 41,
            records in prop::collection::vec((0..40_u32, any::<u64>()), 1..200),
            steps in prop::collection::vec((0..36_u32, any::<u64>()), 1..60),
        ) {
            let mut wheel = Wheel::new();
            let mut deadlines = Vec::new();
            for (number, (shift, low)) in records.into_iter().enumerate() {
                let deadline_ms = start_ms + (low & ((1 << shift) - 1));
                deadlines.push(Some(deadline_ms));
                wheel.insert(record(number as u64), deadline_ms, start_ms);
            }
            let mut now_ms = start_ms;
            let last = (44, u64::MAX);
            for (shift, low) in steps.into_iter().chain([last]) {
                now_ms += low & ((1 << shift) - 1);
                while let Some((record, until_ms)) = wheel.take_due(now_ms) {
                    let number = (record.hash() >> RECORD_HASH_SHIFT) as usize;
                    let deadline_ms = deadlines[number].expect("comes out once");
                    prop_assert!(deadline_ms < until_ms, "a record lies in the bucket of its time");
                    if deadline_ms <= now_ms {
                        deadlines[number] = None;
                    } else {
                        wheel.insert(record, deadline_ms, now_ms);
                    }
                }
                prop_assert!(deadlines.iter().flatten().all(|&deadline_ms| deadline_ms > now_ms));
                prop_assert_eq!(wheel.len(), deadlines.iter().flatten().count());
                if let Some(next_ms) = wheel.next_due_ms() {
                    prop_assert!(next_ms > now_ms);
                    prop_assert!(deadlines.iter().flatten().all(|&deadline_ms| deadline_ms >= next_ms));
                }
            }
            prop_assert_eq!(wheel.next_due_ms(), None);
            prop_assert!(wheel.used_bytes() <= LEVEL_COUNT * size_of::<Level>(), "drained buckets hold no memory");
        }
    }

    #[test]
    fn memory_of_many_records_is_about_eight_bytes_each() {
        let mut wheel = Wheel::new();
        (0..1_000_000).for_each(|number| wheel.insert(record(number), 5_000, 0));
        assert!(wheel.used_bytes() < 8_400_000, "{}", wheel.used_bytes());
        while wheel.discard(100) < 100 {}
        assert_eq!((wheel.len(), wheel.next_due_ms()), (0, None));
        assert!(wheel.used_bytes() <= size_of::<Level>());
    }
}
