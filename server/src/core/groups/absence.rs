//! Noticing that this node did not run for a while: its process or its machine was stopped, or the CPU was somebody else's.
//!
//! Nobody can have been heard meanwhile, so nobody's silence means anything. Were all nodes of a machine stopped, each of them would
//! otherwise give its leaders up the moment it goes on, and hold elections for all shards at once.

/// What was excused, and when.
#[derive(Default)]
pub(in crate::core) struct Absence {
    /// Until when no more is excused.
    until_ns: u64,
}

impl Absence {
    /// Whether something that was due at `due_ns` is so late that this node did not run, in terms of its shortest election
    /// timeout. Several of those pass until it is said again: who is late again and again must notice whose leader is gone.
    pub(in crate::core) fn is_over(&mut self, now_ns: u64, due_ns: u64, election_ns: u64) -> bool {
        let is_over = now_ns > due_ns.saturating_add(election_ns / 2) && now_ns >= self.until_ns;
        if is_over {
            self.until_ns = now_ns + 4 * election_ns;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_late_is_excused_once_in_a_while() {
        let mut absence = Absence::default();
        assert!(!absence.is_over(1_000, 950, 100), "late, and not by enough");
        assert!(absence.is_over(1_051, 1_000, 100));
        assert!(!absence.is_over(1_450, 1_300, 100), "late again and again");
        assert!(absence.is_over(1_451, 1_400, 100));
    }
}
