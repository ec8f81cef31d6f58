//! Locks of commands whose keys lie on several cores.
//!
//! A core's locks are taken all at once or not at all. Invariants:
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
    held: HashMap<KeyHash, TransactionId, ahash::RandomState>,
    /// The keys that each holder of keys holds.
    holdings: HashMap<TransactionId, Vec<KeyHash>, ahash::RandomState>,
    all: Option<TransactionId>,
    waiting: VecDeque<Waiter<W>>,
    /// How many of `waiting` name each key.
    waiting_keys: HashMap<KeyHash, u32, ahash::RandomState>,
    /// How many of `waiting` need every key.
    waiting_all: usize,
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
            held: HashMap::with_hasher(hash_state()),
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
        !self.held.is_empty() || self.all.is_some() || !self.waiting.is_empty()
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

    /// Tries to take every lock of `scope` for `transaction`.
    pub fn lock(&mut self, transaction: TransactionId, scope: Scope<'_>) -> Grant {
        let waiting = if self.is_waited_for(scope) { &self.waiting } else { &VecDeque::new() };
        let waiting_first =
            waiting.iter().filter(|waiter| waiter.overlaps(scope)).filter_map(|waiter| waiter.transaction);
        let mut in_the_way = self.holders(scope).chain(waiting_first).peekable();
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
            self.held.remove(&key);
        }
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
                self.held.extend(keys.iter().map(|&key| (key, transaction)));
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
        (self.held.len() + usize::from(self.all.is_some()), self.waiting.len())
    }

    fn holders<'a>(&'a self, scope: Scope<'a>) -> impl Iterator<Item = TransactionId> + 'a {
        let (keys, everything): (&[KeyHash], bool) = match scope {
            Scope::Keys(keys) => (keys, false),
            Scope::All => (&[], true),
        };
        let of_keys = keys.iter().filter_map(|key| self.held.get(key).copied());
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
