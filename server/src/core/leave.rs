//! How a server stops: at once, or, as a node of a cluster, once others lead what it led.
//!
//! Invariants:
//!
//! - All cores serve until the last of them has left: a request that one of them has sent on is answered through another.
//! - A core leaves once, after a bounded time at most. Who asks a second time to stop waits for nothing.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use super::node::Node;

/// Whether the server is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopStage {
    /// It is not.
    Serving,
    /// It stops when every core has left, and serves until then.
    Leaving,
    /// Every core stops after its turn.
    Stopping,
}

const SERVING: u8 = 0;
const LEAVING: u8 = 1;
const STOPPING: u8 = 2;

/// How far the stop is, for all cores.
pub struct Stopping {
    stage: AtomicU8,
    /// Cores that have not left.
    remaining: AtomicUsize,
    /// Whether there is something to be handed over.
    is_of_cluster: bool,
    is_urgent: AtomicBool,
}

impl Stopping {
    /// A server of `cores` cores that is not to stop; a node of a cluster or not.
    pub fn new(cores: usize, is_of_cluster: bool) -> Self {
        Self {
            stage: AtomicU8::new(SERVING),
            remaining: AtomicUsize::new(cores),
            is_of_cluster,
            is_urgent: AtomicBool::new(false),
        }
    }

    /// Begins the stop; the second time, or if it is urgent, it is now.
    pub fn begin(&self) {
        let is_first =
            self.stage.compare_exchange(SERVING, LEAVING, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if !is_first || !self.is_of_cluster || self.is_urgent.load(Ordering::Acquire) {
            self.stage.store(STOPPING, Ordering::Release);
        }
    }

    /// Says whether a stop is to wait for nothing.
    pub fn set_urgent(&self, is_urgent: bool) {
        self.is_urgent.store(is_urgent, Ordering::Release);
    }

    /// A core has left; returns whether it was the last one.
    pub fn core_has_left(&self) -> bool {
        let is_last = self.remaining.fetch_sub(1, Ordering::AcqRel) == 1;
        if is_last {
            self.stage.store(STOPPING, Ordering::Release);
        }
        is_last
    }

    /// How far it is.
    #[inline]
    pub fn stage(&self) -> StopStage {
        match self.stage.load(Ordering::Relaxed) {
            SERVING => StopStage::Serving,
            LEAVING => StopStage::Leaving,
            _ => StopStage::Stopping,
        }
    }
}

impl Node {
    /// Whether this core stops after this turn.
    #[inline]
    pub(super) fn is_to_stop(&mut self) -> bool {
        match self.shared.stop_stage() {
            StopStage::Serving => false,
            StopStage::Leaving => self.leave(),
            StopStage::Stopping => true,
        }
    }

    /// Does what there is to do before this core stops.
    #[cold]
    fn leave(&mut self) -> bool {
        if !self.has_left && self.hand_all_over() {
            self.has_left = true;
            self.shared.core_has_left();
        }
        self.shared.stop_stage() == StopStage::Stopping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_stops_when_its_last_core_has_left() {
        let stopping = Stopping::new(2, true);
        assert_eq!(stopping.stage(), StopStage::Serving);
        stopping.begin();
        assert_eq!(stopping.stage(), StopStage::Leaving);
        assert!(!stopping.core_has_left());
        assert_eq!(stopping.stage(), StopStage::Leaving);
        assert!(stopping.core_has_left());
        assert_eq!(stopping.stage(), StopStage::Stopping);
    }

    #[test]
    fn who_stands_alone_or_is_pressed_waits_for_nothing() {
        let alone = Stopping::new(2, false);
        alone.begin();
        assert_eq!(alone.stage(), StopStage::Stopping);
        let twice = Stopping::new(2, true);
        twice.begin();
        twice.begin();
        assert_eq!(twice.stage(), StopStage::Stopping);
        let urgent = Stopping::new(2, true);
        urgent.set_urgent(true);
        urgent.begin();
        assert_eq!(urgent.stage(), StopStage::Stopping);
        let calm = Stopping::new(2, true);
        calm.set_urgent(true);
        calm.set_urgent(false);
        calm.begin();
        assert_eq!(calm.stage(), StopStage::Leaving);
    }
}
