//! A node's clocks: one that only runs, too fast or too slow, from the machine's start (CLOCK_BOOTTIME); and a wall clock,
//! which may be wrong and jump.

/// A clock that runs at the right speed.
pub(crate) const RATE_EXACT: u64 = 1_000_000;

/// The speeds that the lease's margin allows: 120 ms of the slowest are over before 150 ms of the fastest.
pub(crate) const RATE_MIN: u64 = 925_000;
pub(crate) const RATE_MAX: u64 = 1_075_000;

/// Both clocks.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    /// What the running clock showed at `since_ns`.
    base_ns: u64,
    since_ns: u64,
    /// Millionths of the right speed.
    rate: u64,
    wall_offset_ms: i64,
}

impl Clock {
    /// A machine that starts now.
    pub(crate) fn new(now_ns: u64, rate: u64, wall_offset_ms: i64) -> Self {
        Self { base_ns: 1_000_000, since_ns: now_ns, rate, wall_offset_ms }
    }

    pub(crate) fn local_ns(&self, now_ns: u64) -> u64 {
        self.base_ns + scale(now_ns - self.since_ns, self.rate, RATE_EXACT)
    }

    /// The first moment of the world at which this clock shows `local_ns`.
    pub(crate) fn world_ns(&self, local_ns: u64) -> u64 {
        let ahead = local_ns.saturating_sub(self.base_ns).min(u64::MAX / 4);
        self.since_ns.saturating_add(scale(ahead, RATE_EXACT, self.rate)).saturating_add(1)
    }

    pub(crate) fn wall_ms(&self, now_ns: u64) -> u64 {
        (1_000_000 + (now_ns / 1_000_000) as i64 + self.wall_offset_ms).max(0) as u64
    }

    pub(crate) fn set_rate(&mut self, now_ns: u64, rate: u64) {
        self.base_ns = self.local_ns(now_ns);
        self.since_ns = now_ns;
        self.rate = rate;
    }

    pub(crate) fn jump_wall(&mut self, by_ms: i64) {
        self.wall_offset_ms += by_ms;
    }

    /// The machine starts anew: the running clock begins near 0.
    pub(crate) fn reboot(&mut self, now_ns: u64) {
        self.base_ns = 1_000_000;
        self.since_ns = now_ns;
    }
}

fn scale(value: u64, by: u64, of: u64) -> u64 {
    (u128::from(value) * u128::from(by) / u128::from(of)) as u64
}
