//! What all cores know of saving without asking: a few numbers that each core writes for itself, and flags.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

/// How much one core has to save, as of its last look, about a second ago.
#[derive(Default)]
struct Sizes {
    changes: AtomicU64,
    journal_bytes: AtomicU64,
    base_bytes: AtomicU64,
}

/// What all cores know of saving.
pub struct SavingState {
    sizes: Box<[CachePadded<Sizes>]>,
    /// Cores that hold so much back for a snapshot that writes have to wait.
    pressed: AtomicUsize,
    has_failed: AtomicBool,
    is_stop_asked: AtomicBool,
}

impl SavingState {
    /// The state of a server of `cores` cores.
    pub fn new(cores: usize) -> Self {
        Self {
            sizes: (0..cores).map(|_| CachePadded::default()).collect(),
            pressed: AtomicUsize::new(0),
            has_failed: AtomicBool::new(false),
            is_stop_asked: AtomicBool::new(false),
        }
    }

    /// A core says how much it has to save: changes since the start, bytes of journal and its snapshots, and how many
    /// bytes those had after the last rewrite.
    pub(super) fn publish(&self, core: usize, changes: u64, journal_bytes: u64, base_bytes: u64) {
        let sizes = &self.sizes[core];
        sizes.changes.store(changes, Ordering::Relaxed);
        sizes.journal_bytes.store(journal_bytes, Ordering::Relaxed);
        sizes.base_bytes.store(base_bytes, Ordering::Relaxed);
    }

    /// Changes on all cores since the start.
    pub(super) fn changes(&self) -> u64 {
        self.total(|sizes| &sizes.changes)
    }

    /// Bytes of journal and snapshots on all cores.
    pub(super) fn journal_bytes(&self) -> u64 {
        self.total(|sizes| &sizes.journal_bytes)
    }

    /// How many bytes those had after the last rewrite.
    pub(super) fn base_bytes(&self) -> u64 {
        self.total(|sizes| &sizes.base_bytes)
    }

    fn total(&self, of: impl Fn(&Sizes) -> &AtomicU64) -> u64 {
        self.sizes.iter().map(|sizes| of(sizes).load(Ordering::Relaxed)).sum()
    }

    /// A core makes writes wait, or no longer.
    pub(super) fn press(&self, is_pressed: bool) {
        if is_pressed {
            self.pressed.fetch_add(1, Ordering::Relaxed);
        } else {
            self.pressed.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether writes have to wait.
    pub(super) fn is_pressed(&self) -> bool {
        self.pressed.load(Ordering::Relaxed) > 0
    }

    /// Whether the last save failed.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    pub(super) fn set_failed(&self, has_failed: bool) {
        self.has_failed.store(has_failed, Ordering::Relaxed);
    }

    /// A signal asks the server to save and stop.
    pub(in crate::core) fn ask_to_stop(&self) {
        self.is_stop_asked.store(true, Ordering::Release);
    }

    /// Whether a signal has asked since the last call.
    pub(super) fn take_stop(&self) -> bool {
        self.is_stop_asked.load(Ordering::Relaxed) && self.is_stop_asked.swap(false, Ordering::AcqRel)
    }
}
