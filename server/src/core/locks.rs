//! Locks of commands whose keys lie on several cores.
//!
//! What one request asks for is taken all at once or not at all; a transaction of very many keys asks several times, a
//! bounded piece each time, and gives back as it took. Invariants:
//!
//! - **No deadlock.** A lock request waits only while it is older than every holder and every waiting lock request
//!   in its way; a younger one is refused, gives back what it holds elsewhere, and asks again under the same,
//!   by then older, identity (wait-die, Rosenkrantz, Stearns and Lewis 1978). Single requests hold nothing, so nothing that holds waits for them.
//! - **Order.** A request waits behind earlier waiting requests for the same key.

use std::collections::VecDeque;

use duva_engine::KeyHash;
use hashbrown::{HashMap, HashSet, hash_map::EntryRef};

/// A transaction's identity: older is smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub u64);

/// What a waiter or a lock covers.
#[derive(Clone, Copy)]
pub enum Scope<'a> {
    /// These keys, in any database.
    Keys(&'a [KeyHash]),
    /// Every key of this core.
    All,
}

impl<'a> Scope<'a> {
    /// What a command with these keys covers: without keys it is about all of them.
    pub fn of(keys: &'a [KeyHash]) -> Self {
        if keys.is_empty() { Self::All } else { Self::Keys(keys) }
    }
}

/// Whether a lock request was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The locks are held.
    Granted,
    /// It must wait: park it.
    Wait,
    /// It must give up for now.
    Refused,
}

/// The locks of one core, and what waits for them. `W` is a parked piece of work.
pub struct Locks<W> {
    held: Held,
    /// The keys that each holder of keys holds.
    holdings: HashMap<TransactionId, Vec<KeyHash>, ahash::RandomState>,
    all: Option<TransactionId>,
    waiting: VecDeque<Waiter<W>>,
    /// How many of `waiting` name each key.
    waiting_keys: HashMap<KeyHash, u32, ahash::RandomState>,
    /// How many of `waiting` need every key.
    waiting_all: usize,
}

/// Tables of the keys that are held. One table of very many keys would grow in one long step.
const TABLES: usize = 256;

/// An empty table keeps no more room than for so many keys.
const KEPT_KEYS: usize = 64;

/// Who holds each key.
struct Held {
    /// By the hash's low bits.
    tables: Box<[HashMap<KeyHash, TransactionId, ahash::RandomState>]>,
    /// How many keys there are in all of them.
    count: usize,
}

impl Held {
    fn get(&self, key: KeyHash) -> Option<TransactionId> {
        self.tables[key.hash as usize % TABLES].get(&key).copied()
    }

    fn insert(&mut self, key: KeyHash, transaction: TransactionId) {
        let previous = self.tables[key.hash as usize % TABLES].insert(key, transaction);
        self.count += usize::from(previous.is_none());
    }

    /// Forgets that `transaction` holds a key. It may have named it twice, and somebody else may hold it by now.
    fn remove(&mut self, key: KeyHash, transaction: TransactionId) {
        let table = &mut self.tables[key.hash as usize % TABLES];
        if table.get(&key) == Some(&transaction) {
            table.remove(&key);
            self.count -= 1;
        }
        if table.is_empty() && table.capacity() > KEPT_KEYS {
            table.shrink_to(KEPT_KEYS / 2);
        }
    }
}

struct Waiter<W> {
    /// Sorted.
    keys: Vec<KeyHash>,
    all: bool,
    transaction: Option<TransactionId>,
    work: W,
}

impl<W> Waiter<W> {
    fn scope(&self) -> Scope<'_> {
        if self.all { Scope::All } else { Scope::Keys(&self.keys) }
    }

    fn overlaps(&self, scope: Scope<'_>) -> bool {
        match scope {
            Scope::Keys(keys) if !self.all => keys.iter().any(|key| self.keys.binary_search(key).is_ok()),
            _ => true,
        }
    }
}

impl<W> Default for Locks<W> {
    fn default() -> Self {
        Self {
            held: Held {
                tables: (0..TABLES).map(|_| HashMap::with_hasher(hash_state())).collect(),
                count: 0,
            },
            holdings: HashMap::with_hasher(hash_state()),
            all: None,
            waiting: VecDeque::new(),
            waiting_keys: HashMap::with_hasher(hash_state()),
            waiting_all: 0,
        }
    }
}

/// Keys that are taken by what comes earlier in a queue.
struct Taken {
    keys: HashSet<KeyHash, ahash::RandomState>,
    all: bool,
    any: bool,
}

impl Taken {
    fn new() -> Self {
        Self { keys: HashSet::with_hasher(hash_state()), all: false, any: false }
    }

    fn overlaps(&self, scope: Scope<'_>) -> bool {
        match scope {
            Scope::All => self.any,
            Scope::Keys(keys) => self.all || keys.iter().any(|key| self.keys.contains(key)),
        }
    }

    fn add(&mut self, scope: Scope<'_>) {
        self.any = true;
        match scope {
            Scope::All => self.all = true,
            Scope::Keys(keys) => self.keys.extend(keys.iter().copied()),
        }
    }
}

impl<W> Locks<W> {
    /// Whether anything is held or waits: the one test that requests pay when nothing is.
    #[inline]
    pub fn is_active(&self) -> bool {
        self.held.count > 0 || self.all.is_some() || !self.waiting.is_empty()
    }

    /// Whether a request that holds no locks must wait.
    pub fn blocks(&self, scope: Scope<'_>) -> bool {
        self.is_active() && (self.holders(scope).next().is_some() || self.is_waited_for(scope))
    }

    /// Whether anything that waits overlaps `scope`.
    fn is_waited_for(&self, scope: Scope<'_>) -> bool {
        match scope {
            Scope::All => !self.waiting.is_empty(),
            Scope::Keys(keys) => {
                self.waiting_all > 0
                    || (!self.waiting_keys.is_empty()
                        && keys.iter().any(|key| self.waiting_keys.contains_key(key)))
            }
        }
    }

    /// Tries to take every lock of `scope` for `transaction`, which may hold others, or some of these, already.
    pub fn lock(&mut self, transaction: TransactionId, scope: Scope<'_>) -> Grant {
        let waiting = if self.is_waited_for(scope) { &self.waiting } else { &VecDeque::new() };
        let waiting_first =
            waiting.iter().filter(|waiter| waiter.overlaps(scope)).filter_map(|waiter| waiter.transaction);
        let others = self.holders(scope).chain(waiting_first).filter(|&other| other != transaction);
        let mut in_the_way = others.peekable();
        if in_the_way.peek().is_some() {
            return if in_the_way.all(|other| transaction < other) { Grant::Wait } else { Grant::Refused };
        }
        drop(in_the_way);
        self.take(transaction, scope);
        Grant::Granted
    }

    /// Parks work that must wait; `transaction` if it is a lock request.
    pub fn park(&mut self, scope: Scope<'_>, transaction: Option<TransactionId>, work: W) {
        let (mut keys, all) = match scope {
            Scope::Keys(keys) => (keys.to_vec(), false),
            Scope::All => (Vec::new(), true),
        };
        keys.sort_unstable();
        keys.dedup();
        let waiter = Waiter { keys, all, transaction, work };
        self.count_waiter(&waiter, true);
        self.waiting.push_back(waiter);
    }

    /// Gives back every lock of `transaction` and forgets what it parked; returns the work that goes on now, in order.
    /// Lock requests among it hold their locks already; the others may be executed without asking again.
    pub fn release(&mut self, transaction: TransactionId) -> Vec<W> {
        if self.all == Some(transaction) {
            self.all = None;
        }
        for key in self.holdings.remove(&transaction).unwrap_or_default() {
            self.held.remove(key, transaction);
        }
        self.take_ready(transaction)
    }

    /// Gives back locks of at most `count` keys of `transaction`, which asks for nothing any more; returns the work that goes
    /// on now, as [`Self::release`] does, and whether it holds more.
    pub fn release_some(&mut self, transaction: TransactionId, count: usize) -> (Vec<W>, bool) {
        let Some(keys) = self.holdings.get_mut(&transaction) else { return (Vec::new(), false) };
        let freed = keys.split_off(keys.len().saturating_sub(count));
        let has_more = !keys.is_empty();
        if !has_more {
            self.holdings.remove(&transaction);
        }
        for &key in &freed {
            self.held.remove(key, transaction);
        }
        // Nobody else has become ready.
        let is_wanted = self.is_waited_for(Scope::Keys(&freed));
        (if is_wanted { self.take_ready(transaction) } else { Vec::new() }, has_more)
    }

    /// Takes the work that nothing is in the way of, and forgets what `transaction` parked.
    fn take_ready(&mut self, transaction: TransactionId) -> Vec<W> {
        let mut ready = Vec::new();
        if self.waiting.is_empty() {
            return ready;
        }
        // A request waits behind everything before it; a lock request only behind other lock requests, because a single
        // request may itself wait for locks that are older than the request that would wait for it.
        let (mut before, mut locks_before) = (Taken::new(), Taken::new());
        for waiter in std::mem::take(&mut self.waiting) {
            if waiter.transaction == Some(transaction) {
                self.count_waiter(&waiter, false);
                continue;
            }
            let ahead = if waiter.transaction.is_some() { &locks_before } else { &before };
            if !ahead.overlaps(waiter.scope()) && self.holders(waiter.scope()).next().is_none() {
                if let Some(transaction) = waiter.transaction {
                    self.take(transaction, waiter.scope());
                }
                self.count_waiter(&waiter, false);
                ready.push(waiter.work);
            } else {
                before.add(waiter.scope());
                if waiter.transaction.is_some() {
                    locks_before.add(waiter.scope());
                }
                self.waiting.push_back(waiter);
            }
        }
        ready
    }

    fn take(&mut self, transaction: TransactionId, scope: Scope<'_>) {
        match scope {
            Scope::All => self.all = Some(transaction),
            Scope::Keys(keys) => {
                keys.iter().for_each(|&key| self.held.insert(key, transaction));
                self.holdings.entry(transaction).or_default().extend_from_slice(keys);
            }
        }
    }

    fn count_waiter(&mut self, waiter: &Waiter<W>, is_new: bool) {
        if waiter.all {
            self.waiting_all = if is_new { self.waiting_all + 1 } else { self.waiting_all - 1 };
        }
        for &key in &waiter.keys {
            if is_new {
                *self.waiting_keys.entry(key).or_insert(0) += 1;
            } else if let EntryRef::Occupied(mut count) = self.waiting_keys.entry_ref(&key) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }

    /// How many locks are held and how many pieces of work wait.
    pub fn counts(&self) -> (usize, usize) {
        (self.held.count + usize::from(self.all.is_some()), self.waiting.len())
    }

    fn holders<'a>(&'a self, scope: Scope<'a>) -> impl Iterator<Item = TransactionId> + 'a {
        let (keys, everything): (&[KeyHash], bool) = match scope {
            Scope::Keys(keys) => (keys, false),
            Scope::All => (&[], true),
        };
        let of_keys = keys.iter().filter_map(|key| self.held.get(*key));
        let of_all = self.holdings.keys().copied().filter(move |_| everything);
        self.all.into_iter().chain(of_keys).chain(of_all)
    }
}

/// The keys are hashes already, of a secret seed; fixed seeds keep the simulator's runs equal.
fn hash_state() -> ahash::RandomState {
    ahash::RandomState::with_seeds(1, 2, 3, 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u16) -> KeyHash {
        KeyHash { slot, hash: u64::from(slot) }
    }

    #[test]
    fn the_older_waits_and_the_younger_is_refused() {
        let mut locks = Locks::<&str>::default();
        let (old, middle, young) = (TransactionId(1), TransactionId(2), TransactionId(3));
        assert_eq!(locks.lock(middle, Scope::Keys(&[key(1), key(2)])), Grant::Granted);
        assert_eq!(locks.lock(young, Scope::Keys(&[key(2), key(3)])), Grant::Refused);
        assert_eq!(locks.lock(old, Scope::Keys(&[key(2), key(3)])), Grant::Wait);
        locks.park(Scope::Keys(&[key(2), key(3)]), Some(old), "old");
        assert_eq!(locks.lock(young, Scope::Keys(&[key(3)])), Grant::Refused, "behind one that waits");
        assert!(locks.blocks(Scope::Keys(&[key(1)])));
        assert!(!locks.blocks(Scope::Keys(&[key(4)])));
        assert_eq!(locks.release(middle), ["old"]);
        assert!(locks.blocks(Scope::Keys(&[key(3)])), "the lock request holds its locks");
        assert!(locks.release(old).is_empty());
        assert!(!locks.is_active());
    }

    #[test]
    fn single_requests_wait_in_order_and_never_hold_up_a_lock() {
        let mut locks = Locks::<u32>::default();
        let (first, second) = (TransactionId(1), TransactionId(2));
        assert_eq!(locks.lock(first, Scope::Keys(&[key(1)])), Grant::Granted);
        locks.park(Scope::Keys(&[key(1)]), None, 10);
        locks.park(Scope::Keys(&[key(1), key(2)]), None, 11);
        assert!(locks.blocks(Scope::Keys(&[key(2)])), "behind the second that waits");
        assert_eq!(locks.lock(second, Scope::Keys(&[key(2)])), Grant::Granted);
        assert_eq!(locks.release(first), [10]);
        assert_eq!(locks.release(second), [11]);
        assert!(!locks.is_active());
    }

    #[test]
    fn a_lock_of_everything_excludes_all() {
        let mut locks = Locks::<u32>::default();
        assert_eq!(locks.lock(TransactionId(2), Scope::Keys(&[key(1)])), Grant::Granted);
        assert_eq!(locks.lock(TransactionId(1), Scope::All), Grant::Wait);
        locks.park(Scope::All, Some(TransactionId(1)), 1);
        assert!(locks.blocks(Scope::Keys(&[key(9)])));
        locks.park(Scope::Keys(&[key(9)]), None, 2);
        assert_eq!(locks.release(TransactionId(2)), [1]);
        assert_eq!(locks.release(TransactionId(1)), [2]);
        assert!(!locks.is_active());
    }

    #[test]
    fn a_transaction_takes_and_gives_back_piece_by_piece() {
        let mut locks = Locks::<u32>::default();
        let (old, young) = (TransactionId(1), TransactionId(2));
        let keys: Vec<KeyHash> = (0..1_000).map(key).collect();
        for piece in keys.chunks(100) {
            assert_eq!(locks.lock(young, Scope::Keys(piece)), Grant::Granted);
        }
        assert_eq!(
            locks.lock(young, Scope::Keys(&[key(0), key(5_000)])),
            Grant::Granted,
            "its own key again"
        );
        locks.park(Scope::Keys(&[key(0)]), None, 0);
        locks.park(Scope::Keys(&[key(1), key(999)]), None, 999);
        assert_eq!(locks.lock(old, Scope::Keys(&[key(500)])), Grant::Wait);
        locks.park(Scope::Keys(&[key(500)]), Some(old), 500);
        let (mut ready, mut releases) = (Vec::new(), 0);
        loop {
            let (work, has_more) = locks.release_some(young, 100);
            ready.extend(work);
            releases += 1;
            if !has_more {
                break;
            }
        }
        assert_eq!(releases, 11);
        assert_eq!(ready, [0, 500, 999], "each as soon as all of its keys are free");
        assert_eq!(locks.counts(), (1, 0));
        assert!(locks.release(old).is_empty());
        assert!(!locks.is_active());
        assert_eq!(locks.release_some(young, 100), (Vec::new(), false));
    }

    #[test]
    fn a_lock_request_never_waits_behind_a_single_request() {
        let mut locks = Locks::<&str>::default();
        let (third, second, first) = (TransactionId(3), TransactionId(2), TransactionId(1));
        assert_eq!(locks.lock(third, Scope::Keys(&[key(1)])), Grant::Granted);
        locks.park(Scope::Keys(&[key(1), key(2)]), None, "single");
        assert_eq!(locks.lock(second, Scope::Keys(&[key(1)])), Grant::Wait);
        locks.park(Scope::Keys(&[key(1)]), Some(second), "second");
        assert_eq!(locks.lock(first, Scope::Keys(&[key(2)])), Grant::Granted);
        // The single request still waits for the first; the second must not wait for it.
        assert_eq!(locks.release(third), ["second"]);
        assert!(locks.release(second).is_empty());
        assert_eq!(locks.release(first), ["single"]);
        assert!(!locks.is_active());
        assert_eq!(locks.counts(), (0, 0));
    }
}
