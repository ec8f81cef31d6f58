//! A shard's part of commands over several shards: what is prepared, which keys that locks, and what was decided.
//!
//! ```text
//! first participant    prepare ------ decide ------------------- forget
//! every other one             prepare ------- commit (or abort)
//! ```
//!
//! Each step is an entry of its shard's log, so this state is the same on every replica, and part of snapshots. Invariants:
//!
//! - **A key is locked from the entry that prepares it to the entry that ends it.** Nobody else's write of it takes effect
//!   between the two, and no read is served.
//! - **The first participant decides**, and prepares before anybody else does: whoever is prepared and asks it, and finds
//!   that it knows nothing of the transaction, knows that it was aborted.
//! - **Decided once.** What was aborted is not committed later, nor the other way round, whatever order orders come in.
//! - A commitment is remembered until all others have confirmed that they ended their parts. An abort need not be.
//! - Every order may come more than once: it says the same again.
//!
//! Besides, a shard that is asked for reads of several shards counts changes of keys, to tell whether two reads saw the
//! same: see [`Versions`]. That is a replica's own, and no part of its state.

use std::{collections::BTreeMap, error::Error, fmt, ops::Range};

use hashbrown::HashMap;

use crate::{DATABASE_COUNT, Hasher, KeyHash, command::transaction::can_end};

/// Bytes of a transaction's name.
const TRANSACTION_BYTES: usize = 20;

/// Counters of changes of a shard's keys, which share them.
const VERSION_COUNT: usize = 1024;

/// A transaction, or rather one attempt at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionName {
    /// When it began: the older one is smaller.
    pub age: u64,
    /// At random: tells it from others of the same age.
    pub tie: u64,
    /// Which attempt it is.
    pub attempt: u32,
}

impl TransactionName {
    /// Whether it is older than another transaction.
    pub fn is_older(self, other: Self) -> bool {
        (self.age, self.tie) < (other.age, other.tie)
    }

    /// As bytes.
    pub fn encode(self) -> [u8; TRANSACTION_BYTES] {
        let mut bytes = [0; TRANSACTION_BYTES];
        bytes[..8].copy_from_slice(&self.age.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.tie.to_le_bytes());
        bytes[16..].copy_from_slice(&self.attempt.to_le_bytes());
        bytes
    }

    /// From its bytes; `None`: they are of another length.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; TRANSACTION_BYTES] = bytes.try_into().ok()?;
        let [age, tie] = [0, 8].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight")));
        Some(Self { age, tie, attempt: u32::from_le_bytes(bytes[16..].try_into().expect("four")) })
    }
}

/// A part that is prepared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// The shard of the first participant.
    pub first: u16,
    /// At the first participant: the shards of all others.
    pub others: Vec<u16>,
    /// The database of `arguments`.
    pub database: u8,
    /// Its keys, which are locked.
    pub keys: Vec<KeyHash>,
    /// The command that it comes to; empty: it changes nothing.
    pub arguments: Vec<Vec<u8>>,
}

/// What became of an order to commit or to abort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It ends now: what was prepared, which is to take effect if it was committed.
    Now(Prepared),
    /// It had been committed before.
    Committed,
    /// It is not known here: it was aborted, or it has ended.
    Unknown,
}

/// The state of one shard.
pub struct Transactions {
    prepared: BTreeMap<TransactionName, Prepared>,
    /// At the first participant: what was committed, and who has not confirmed that it ended.
    committed: BTreeMap<TransactionName, Vec<u16>>,
    locked: HashMap<KeyHash, TransactionName, ahash::RandomState>,
    /// How often keys were unlocked.
    unlocks: u64,
}

impl Default for Transactions {
    fn default() -> Self {
        Self {
            prepared: BTreeMap::new(),
            committed: BTreeMap::new(),
            // The keys are hashes of a secret seed already.
            locked: HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4)),
            unlocks: 0,
        }
    }
}

impl Transactions {
    /// Whether any key is locked.
    #[inline]
    pub fn has_locks(&self) -> bool {
        !self.locked.is_empty()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.prepared.is_empty() && self.committed.is_empty()
    }

    /// Who has locked a key.
    pub fn holder(&self, key: KeyHash) -> Option<TransactionName> {
        self.locked.get(&key).copied()
    }

    /// Whether one of these keys is locked; without keys, whether any is.
    pub fn locks(&self, keys: &[KeyHash]) -> bool {
        self.has_locks() && (keys.is_empty() || keys.iter().any(|key| self.locked.contains_key(key)))
    }

    /// A number that changes whenever keys are unlocked.
    pub fn unlocks(&self) -> u64 {
        self.unlocks
    }

    /// What is prepared.
    pub fn prepared(&self) -> impl Iterator<Item = (TransactionName, &Prepared)> {
        self.prepared.iter().map(|(name, part)| (*name, part))
    }

    /// What was committed here, as the first participant, and who has not confirmed its end.
    pub fn committed(&self) -> impl Iterator<Item = (TransactionName, &[u16])> {
        self.committed.iter().map(|(name, others)| (*name, &**others))
    }

    /// Locks the keys of a part and keeps it; false: another transaction holds one of them, or this one is known already.
    pub fn prepare(&mut self, name: TransactionName, part: Prepared) -> bool {
        let is_known = self.prepared.contains_key(&name) || self.committed.contains_key(&name);
        if is_known || self.locks_some_of(&part.keys) {
            return false;
        }
        self.locked.extend(part.keys.iter().map(|key| (*key, name)));
        self.prepared.insert(name, part);
        true
    }

    fn locks_some_of(&self, keys: &[KeyHash]) -> bool {
        keys.iter().any(|key| self.locked.contains_key(key))
    }

    /// The first participant: it is committed, unless it is not prepared any more.
    pub fn decide(&mut self, name: TransactionName) -> Ended {
        if self.committed.contains_key(&name) {
            return Ended::Committed;
        }
        let Some(part) = self.end(name) else { return Ended::Unknown };
        if !part.others.is_empty() {
            self.committed.insert(name, part.others.clone());
        }
        Ended::Now(part)
    }

    /// Another participant: the first one has committed it.
    pub fn commit(&mut self, name: TransactionName) -> Ended {
        self.end(name).map_or(Ended::Unknown, Ended::Now)
    }

    /// It is aborted, unless it was committed here.
    pub fn abort(&mut self, name: TransactionName) -> Ended {
        if self.committed.contains_key(&name) {
            return Ended::Committed;
        }
        self.commit(name)
    }

    /// The first participant: all others have ended their parts.
    pub fn forget(&mut self, name: TransactionName) {
        self.committed.remove(&name);
    }

    /// Unlocks the keys of a part, and takes it out.
    fn end(&mut self, name: TransactionName) -> Option<Prepared> {
        let part = self.prepared.remove(&name)?;
        for key in &part.keys {
            self.locked.remove(key);
        }
        self.unlocks += 1;
        Some(part)
    }

    /// Bytes of memory, about.
    pub(crate) fn used_bytes(&self) -> usize {
        if self.is_empty() {
            return 0;
        }
        let of_part = |part: &Prepared| {
            let arguments: usize = part.arguments.iter().map(|argument| argument.len() + 24).sum();
            size_of::<Prepared>() + arguments + 2 * part.others.len() + 16 * part.keys.len()
        };
        let prepared: usize = self.prepared.values().map(of_part).sum();
        let committed: usize = self.committed.values().map(|others| 64 + 2 * others.len()).sum();
        prepared + committed + self.locked.allocation_size()
    }

    /// Everything, a record each, as a snapshot has it:
    ///
    /// ```text
    /// kind (1: 0 prepared, 1 committed), name (20), first (2), count of others (2), others (2 each), and of what is prepared:
    /// database (1), count of keys (4), slot (2) and hash (8) of each, count of arguments (4), length (4) and bytes of each
    /// ```
    pub(crate) fn records(&self) -> Vec<Vec<u8>> {
        let head = |kind: u8, name: TransactionName, first: u16, others: &[u16]| {
            let mut out = vec![kind];
            out.extend_from_slice(&name.encode());
            out.extend_from_slice(&first.to_le_bytes());
            out.extend_from_slice(&(others.len() as u16).to_le_bytes());
            others.iter().for_each(|other| out.extend_from_slice(&other.to_le_bytes()));
            out
        };
        let prepared = self.prepared.iter().map(|(name, part)| {
            let mut out = head(PREPARED, *name, part.first, &part.others);
            out.push(part.database);
            out.extend_from_slice(&(part.keys.len() as u32).to_le_bytes());
            for key in &part.keys {
                out.extend_from_slice(&key.slot.to_le_bytes());
                out.extend_from_slice(&key.hash.to_le_bytes());
            }
            out.extend_from_slice(&(part.arguments.len() as u32).to_le_bytes());
            for argument in &part.arguments {
                out.extend_from_slice(&(argument.len() as u32).to_le_bytes());
                out.extend_from_slice(argument);
            }
            out
        });
        let committed = self.committed.iter().map(|(name, others)| head(COMMITTED, *name, 0, others));
        prepared.chain(committed).collect()
    }

    /// Takes a record of a snapshot.
    pub(crate) fn restore(&mut self, bytes: &[u8], slots: &Range<u16>) -> Result<(), BadTransaction> {
        let mut fields = Fields(bytes);
        let [kind] = fields.take()?;
        let name = TransactionName::decode(&fields.take::<TRANSACTION_BYTES>()?).ok_or(SHORT)?;
        let first = u16::from_le_bytes(fields.take()?);
        let count = u16::from_le_bytes(fields.take()?);
        let mut others = Vec::new();
        for _ in 0..count {
            others.push(u16::from_le_bytes(fields.take()?));
        }
        match kind {
            COMMITTED => drop(self.committed.insert(name, others)),
            PREPARED => {
                let [database] = fields.take()?;
                let mut part = Prepared { first, others, database, ..Prepared::default() };
                for _ in 0..u32::from_le_bytes(fields.take()?) {
                    let (slot, hash) = (fields.take()?, fields.take()?);
                    part.keys
                        .push(KeyHash { slot: u16::from_le_bytes(slot), hash: u64::from_le_bytes(hash) });
                }
                for _ in 0..u32::from_le_bytes(fields.take()?) {
                    let length = u32::from_le_bytes(fields.take()?) as usize;
                    let (argument, rest) = fields.0.split_at_checked(length).ok_or(SHORT)?;
                    fields.0 = rest;
                    part.arguments.push(argument.to_vec());
                }
                let is_here = !part.keys.is_empty() && part.keys.iter().all(|key| slots.contains(&key.slot));
                if !is_here || part.database >= DATABASE_COUNT || !can_end(&part.arguments) {
                    return Err(BadTransaction("one is none of this shard's"));
                }
                if !self.prepare(name, part) {
                    return Err(BadTransaction("two of them have one key, or one name"));
                }
            }
            _ => return Err(BadTransaction("there is none of that kind")),
        }
        if fields.0.is_empty() { Ok(()) } else { Err(BadTransaction("one is too long")) }
    }
}

const PREPARED: u8 = 0;
const COMMITTED: u8 = 1;
const SHORT: BadTransaction = BadTransaction("one ends early");

/// Bytes that are read from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const COUNT: usize>(&mut self) -> Result<[u8; COUNT], BadTransaction> {
        let (field, rest) = self.0.split_first_chunk().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*field)
    }
}

/// Why bytes are no transaction of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadTransaction(&'static str);

impl fmt::Display for BadTransaction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the transactions under way cannot be read: {}", self.0)
    }
}

impl Error for BadTransaction {}

/// Counts of changes, by hashes of keys. Two reads of some keys that found the same instance and the same latest count, at one
/// replica whose reads are linearizable, had no write of those keys between them. A key that comes due in between
/// changes no count, but what is read.
pub(crate) struct Versions {
    instance: u64,
    changes: u64,
    latest: Box<[u64]>,
    /// The count when all keys changed last.
    latest_of_all: u64,
}

impl Versions {
    /// Counts from now on. `instance` tells them from those of any other replica or time.
    pub(crate) fn new(instance: u64) -> Self {
        Self { instance, changes: 0, latest: vec![0; VERSION_COUNT].into(), latest_of_all: 0 }
    }

    /// These keys changed; without keys all did.
    pub(crate) fn note(&mut self, keys: &[KeyHash]) {
        self.changes += 1;
        if keys.is_empty() {
            self.latest_of_all = self.changes;
        }
        for key in keys {
            self.latest[key.hash as usize % VERSION_COUNT] = self.changes;
        }
    }

    /// The instance, and when one of these keys changed last.
    pub(crate) fn of(&self, keys: &[KeyHash]) -> (u64, u64) {
        let latest = keys.iter().map(|key| self.latest[key.hash as usize % VERSION_COUNT]);
        (self.instance, latest.fold(self.latest_of_all, u64::max))
    }
}

/// The hashes of keys, as locks have them: of every key once.
pub(crate) fn distinct_keys<'a>(hasher: &Hasher, names: impl Iterator<Item = &'a [u8]>) -> Vec<KeyHash> {
    let mut keys: Vec<KeyHash> = names.map(|name| hasher.key(name)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::SLOT_COUNT;

    const ALL: Range<u16> = 0..SLOT_COUNT;

    fn name(age: u64) -> TransactionName {
        TransactionName { age, tie: 7, attempt: 1 }
    }

    fn key(number: u64) -> KeyHash {
        KeyHash { slot: number as u16, hash: number }
    }

    fn part(keys: &[u64], others: &[u16]) -> Prepared {
        Prepared {
            first: 3,
            others: others.to_vec(),
            database: 2,
            keys: keys.iter().map(|&number| key(number)).collect(),
            arguments: vec![b"set".to_vec(), b"key".to_vec(), vec![0xFF; keys.len()]],
        }
    }

    fn restored(state: &Transactions) -> Transactions {
        let mut copy = Transactions::default();
        state.records().iter().for_each(|record| copy.restore(record, &ALL).expect("it was written here"));
        copy
    }

    #[test]
    fn keys_are_locked_from_prepare_to_end() {
        let mut state = Transactions::default();
        assert!(!state.has_locks() && state.is_empty());
        assert!(state.prepare(name(2), part(&[1, 2], &[9])));
        assert!(state.locks(&[key(5), key(2)]) && state.locks(&[]) && !state.locks(&[key(3)]));
        assert_eq!(state.holder(key(1)), Some(name(2)));
        assert!(!state.prepare(name(1), part(&[2, 3], &[])), "the older one, too, finds it locked");
        assert!(!state.locks(&[key(3)]), "what was refused locks nothing");
        assert!(!state.prepare(name(2), part(&[8], &[])), "a name is taken once");
        let unlocks = state.unlocks();
        assert_eq!(state.decide(name(2)), Ended::Now(part(&[1, 2], &[9])));
        assert!(!state.has_locks() && !state.is_empty() && state.unlocks() != unlocks);
        assert_eq!(state.decide(name(2)), Ended::Committed);
        assert_eq!(state.abort(name(2)), Ended::Committed, "what was decided stays decided");
        assert!(!state.prepare(name(2), part(&[1], &[])));
        state.forget(name(2));
        assert!(state.is_empty());
    }

    #[test]
    fn who_asks_in_vain_aborts() {
        let mut state = Transactions::default();
        assert!(state.prepare(name(1), part(&[1], &[9])));
        assert_eq!(state.abort(name(1)), Ended::Now(part(&[1], &[9])));
        assert_eq!(state.decide(name(1)), Ended::Unknown, "the coordinator comes too late");
        assert_eq!(state.abort(name(1)), Ended::Unknown);
        assert!(state.is_empty());
    }

    #[test]
    fn other_participants_end_once() {
        let mut state = Transactions::default();
        assert!(state.prepare(name(1), part(&[1], &[])));
        assert_eq!(state.commit(name(1)), Ended::Now(part(&[1], &[])));
        assert_eq!(state.commit(name(1)), Ended::Unknown);
        assert!(state.is_empty());
    }

    #[test]
    fn a_snapshot_holds_all_of_it() {
        let mut state = Transactions::default();
        assert!(state.prepare(name(1), part(&[1, 2], &[4, 5])));
        assert!(state.prepare(name(2), part(&[3], &[6])));
        assert!(matches!(state.decide(name(2)), Ended::Now(_)));
        let mut copy = restored(&state);
        assert_eq!(copy.records(), state.records());
        assert_eq!(copy.holder(key(2)), Some(name(1)));
        assert_eq!(copy.committed().collect::<Vec<_>>(), [(name(2), &[6][..])]);
        assert_eq!(copy.decide(name(1)), Ended::Now(part(&[1, 2], &[4, 5])));
        for record in state.records() {
            for length in 0..record.len() {
                assert!(Transactions::default().restore(&record[..length], &ALL).is_err(), "{length}");
            }
            let longer = [&record[..], &[0]].concat();
            assert!(Transactions::default().restore(&longer, &ALL).is_err());
        }
    }

    #[test]
    fn what_could_not_be_ended_is_not_taken_from_a_snapshot() {
        let refuses = |part: Prepared, slots: Range<u16>| {
            let mut state = Transactions::default();
            assert!(state.prepare(name(1), part));
            Transactions::default().restore(&state.records()[0], &slots).is_err()
        };
        assert!(!refuses(part(&[1], &[]), ALL));
        assert!(refuses(part(&[1], &[]), 2..9), "a slot of another shard");
        assert!(refuses(Prepared { database: 16, ..part(&[1], &[]) }, ALL));
        let arguments = vec![b"mset".to_vec(), b"key".to_vec()];
        assert!(refuses(Prepared { arguments, ..part(&[1], &[]) }, ALL), "half a command");
    }

    #[test]
    fn ages_compare_without_the_attempt() {
        let again = TransactionName { attempt: 2, ..name(1) };
        assert!(!name(1).is_older(again) && !again.is_older(name(1)) && again.is_older(name(2)));
        assert_eq!(TransactionName::decode(&again.encode()), Some(again));
        assert_eq!(TransactionName::decode(&[0; 19]), None);
    }

    #[test]
    fn versions_tell_of_every_change() {
        let mut versions = Versions::new(5);
        let both = [key(1), key(2)];
        let before = versions.of(&both);
        versions.note(&[key(3)]);
        assert_eq!(versions.of(&both), before);
        versions.note(&[key(2)]);
        let changed = versions.of(&both);
        assert_ne!(changed, before);
        versions.note(&[]);
        assert_ne!(versions.of(&both), changed);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Transactions::default().restore(&bytes, &ALL);
        }

        /// Whatever orders come, in whatever order and however often, locks and parts agree, and nothing ends both ways.
        #[test]
        fn orders_in_any_order(steps in prop::collection::vec((0..6_u8, 0..5_u64, 0..4_u64), 1..120)) {
            let mut state = Transactions::default();
            let (mut committed, mut aborted) = (Vec::new(), Vec::new());
            for (step, (order, age, first_key)) in steps.into_iter().enumerate() {
                match order {
                    0 | 1 if !aborted.contains(&name(age)) && !committed.contains(&name(age)) => {
                        state.prepare(name(age), part(&[first_key, first_key + 1], &[1]));
                    }
                    2 => {
                        if let Ended::Now(_) | Ended::Committed = state.decide(name(age)) {
                            prop_assert!(!aborted.contains(&name(age)));
                            committed.push(name(age));
                        }
                    }
                    3 => match state.abort(name(age)) {
                        Ended::Now(_) => aborted.push(name(age)),
                        Ended::Committed => prop_assert!(committed.contains(&name(age))),
                        Ended::Unknown => {}
                    },
                    4 => state.forget(name(age)),
                    _ => {}
                }
                if step % 7 == 3 {
                    state = restored(&state);
                }
                let keys: usize = state.prepared().map(|(_, part)| part.keys.len()).sum();
                prop_assert_eq!(state.locked.len(), keys);
                for (name, part) in state.prepared() {
                    prop_assert!(part.keys.iter().all(|key| state.holder(*key) == Some(name)));
                }
            }
        }
    }
}
