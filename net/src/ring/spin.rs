//! Whether a core looks for its next completion a moment longer before it sleeps.
//!
//! Going to sleep and being woken costs a lone client more than its request does. So a core that expects one completion
//! spins for up to [`SPIN_NS`], as long as that pays: after a spin in vain it skips the next one, then the next two,
//! four, and so on up to [`SKIPPED_MAX`]. A client that asks once in a while thus costs next to nothing, and an idle core
//! sleeps.

/// The longest spin.
pub(super) const SPIN_NS: u64 = 50_000;

/// How many waits are slept through after spins in vain, at most.
const SKIPPED_MAX: u32 = 256;

/// What recent spins were worth.
#[derive(Default)]
pub(super) struct Spin {
    /// Waits to be slept through after the next spin in vain.
    penalty: u32,
    /// Waits still to be slept through.
    skipped: u32,
}

impl Spin {
    /// Whether to spin before this wait.
    pub(super) fn is_due(&mut self) -> bool {
        if self.skipped > 0 {
            self.skipped -= 1;
            return false;
        }
        true
    }

    /// Learns what a spin was worth.
    pub(super) fn learn(&mut self, found: bool) {
        self.penalty = if found { 0 } else { (self.penalty * 2).clamp(1, SKIPPED_MAX) };
        self.skipped = self.penalty;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spins_in_vain_become_rare_and_success_brings_them_back() {
        let mut spin = Spin::default();
        let mut spins = 0;
        for _ in 0..10_000 {
            if spin.is_due() {
                spins += 1;
                spin.learn(false);
            }
        }
        assert!(spins < 50, "{spins}");
        while !spin.is_due() {}
        spin.learn(true);
        assert!(spin.is_due());
    }
}
