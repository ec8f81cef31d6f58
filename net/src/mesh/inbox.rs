//! How a core learns that another one did something for it: a bit for every sender, and whether to be woken.
//!
//! A set bit means "look at what you share with that core": a batch arrived, or room for one. Bits may be set
//! without need, never missing.
//!
//! Invariants:
//! - A bit is set after the event it announces and taken before the owner looks, so an event is either found by
//!   that look or leaves a bit for the next one.
//! - An owner sleeps only after it announced so and then saw no bit. A sender looks for a sleeper only after it set
//!   its bit. The two fences forbid that both miss each other.
//! - One announcement of sleep is answered by at most one wake.

use crossbeam_utils::CachePadded;

use super::{
    core_set::{CoreSet, position, words_for},
    sync::{AtomicBool, AtomicU64, Ordering, fence},
};

/// One core's letter box, shared by all cores.
pub(super) struct Inbox {
    /// A bit for every sender. Padded: senders in different words do not contend.
    words: Box<[CachePadded<AtomicU64>]>,
    /// Apart from the words, as senders only read it while the owner is awake.
    sleeping: CachePadded<AtomicBool>,
}

impl Inbox {
    pub(super) fn new(cores: usize) -> Self {
        Self {
            words: (0..words_for(cores)).map(|_| CachePadded::new(AtomicU64::new(0))).collect(),
            sleeping: CachePadded::new(AtomicBool::new(false)),
        }
    }

    /// Tells the owner to look at what it shares with `sender`. Returns whether the caller must wake the owner.
    #[inline]
    pub(super) fn notify(&self, sender: usize) -> bool {
        let (word, bit) = position(sender);
        // Release: the owner, taking the bit, sees what it announces. That holds when other senders set their bits
        // in between, because read-modify-writes continue a release sequence.
        self.words[word].fetch_or(bit, Ordering::Release);
        // Pairs with the fence in `prepare_sleep`. Of two such fences one comes first: if ours, the owner sees the
        // bit; if the owner's, we see it sleeping.
        fence(Ordering::SeqCst);
        // Looked at before it is swapped, so that notices to a busy core leave this line shared.
        self.sleeping.load(Ordering::Relaxed) && self.claim_wake()
    }

    /// Of all senders that found the owner asleep, exactly one gets true.
    #[cold]
    fn claim_wake(&self) -> bool {
        // Relaxed suffices: the flag decides only who wakes, and all changes of it are totally ordered. A failed
        // exchange writes nothing, so a late sender never touches the announcement of a later sleep but by waking it.
        self.sleeping.compare_exchange(true, false, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Moves all set bits into `taken`, on top of what it holds.
    #[inline]
    pub(super) fn take(&self, taken: &mut CoreSet) {
        for (word, taken) in self.words.iter().zip(taken.words_mut()) {
            // The look before the swap spares an idle poll the exclusive ownership of the senders' line.
            if word.load(Ordering::Relaxed) != 0 {
                // Acquire: with a bit comes everything its sender did before it set it.
                *taken |= word.swap(0, Ordering::Acquire);
            }
        }
    }

    /// Whether any bit is set. Taking the bits, not this look, is what makes their events visible.
    #[inline]
    pub(super) fn has_mail(&self) -> bool {
        self.words.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Announces that the owner is about to sleep, and looks once more. False: there is mail, and the announcement
    /// is withdrawn.
    pub(super) fn prepare_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::Relaxed);
        // Pairs with the fence in `notify`.
        fence(Ordering::SeqCst);
        if self.has_mail() {
            self.awake();
            return false;
        }
        true
    }

    /// Withdraws the announcement of sleep.
    #[inline]
    pub(super) fn awake(&self) {
        // A sender may have claimed the wake just before; it then arrives at a core that is up already.
        self.sleeping.store(false, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn bits_of_every_word_are_taken_once() {
        let inbox = Inbox::new(130);
        for sender in [0, 63, 64, 129] {
            assert!(!inbox.notify(sender), "an owner that is awake needs no wake");
        }
        assert!(inbox.has_mail());
        let mut taken = CoreSet::new(130);
        taken.insert(5);
        inbox.take(&mut taken);
        assert!(!inbox.has_mail());
        for sender in [0, 5, 63, 64, 129] {
            assert!(taken.contains(sender));
            taken.remove(sender);
        }
        assert!(taken.is_empty());
    }

    #[test]
    fn one_sleep_is_answered_by_one_wake() {
        let inbox = Inbox::new(3);
        assert!(inbox.prepare_sleep());
        assert!(inbox.notify(1));
        assert!(!inbox.notify(2));
        assert!(!inbox.notify(1));
        assert!(!inbox.prepare_sleep(), "mail keeps the owner up");
        assert!(!inbox.notify(1), "a withdrawn announcement wakes nobody");
        inbox.take(&mut CoreSet::new(3));
        assert!(inbox.prepare_sleep());
        inbox.awake();
        assert!(!inbox.notify(2));
    }
}
