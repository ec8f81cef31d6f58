//! Linearizability of what clients saw, for each register (Herlihy, Wing 1990).
//!
//! Every write is told what it replaced, and no two write the same value, so the order of a register's writes follows from what
//! the clients saw. A read belongs between the write of what it saw and the next; having seen it expired, after those that
//! saw it alive. A conditional write that did not take place is a read. What remains is to compare this order with time:
//! nothing may come before something that had ended when it began. That is exact, because every operation ends: clients
//! repeat theirs until they are answered.

use std::collections::BTreeMap;

use super::{Event, Operation, Outcome, Violation};
use crate::simulation::machine::{Reply, Seen};

struct Call {
    operation: Operation,
    began_ns: u64,
    /// `None` before it was answered.
    ended: Option<(u64, Outcome)>,
}

/// All operations of all clients.
#[derive(Default)]
pub(super) struct History {
    calls: Vec<Call>,
    /// A client's present one.
    present: BTreeMap<u64, usize>,
}

/// An operation with its place in the order of its register.
struct Placed<'a> {
    place: u64,
    ended_ns: u64,
    call: &'a Call,
}

impl History {
    pub(super) fn see(&mut self, event: Event<'_>) {
        match event {
            Event::Invoked { operation, now_ns } => {
                self.present.insert(operation.client, self.calls.len());
                self.calls.push(Call { operation, began_ns: now_ns, ended: None });
            }
            Event::Returned { client, request, result, now_ns } => {
                let call = self.present.get(&client).map(|&place| &mut self.calls[place]);
                if let Some(call) = call.filter(|call| call.operation.request == request) {
                    call.ended = Some((now_ns, result));
                }
            }
            _ => {}
        }
    }

    pub(super) fn answered(&self) -> usize {
        self.calls.iter().filter(|call| call.ended.is_some()).count()
    }

    pub(super) fn check(&self) -> Result<(), Violation> {
        let mut registers: BTreeMap<(usize, u64), Vec<&Call>> = BTreeMap::new();
        for call in &self.calls {
            registers.entry((call.operation.group, call.operation.key)).or_default().push(call);
        }
        registers.values().try_for_each(|calls| check_register(calls))
    }
}

fn check_register(calls: &[&Call]) -> Result<(), Violation> {
    let order = order_of_writes(calls)?;
    let mut placed = Vec::with_capacity(calls.len());
    for &call in calls {
        let Some((ended_ns, outcome)) = call.ended else { continue };
        let (seen, is_write) = match outcome {
            Outcome::Read(seen) => (seen, false),
            Outcome::Wrote(Reply { before, is_written: false }) => (before, false),
            Outcome::Wrote(Reply { is_written: true, .. }) => {
                let value = call.operation.write.map_or(0, |command| command.value);
                (Seen { value, is_expired: false }, true)
            }
        };
        let Some(&number) = order.get(&seen.value) else {
            return violated(format!("{:?} saw {seen:?}, which nobody wrote", call.operation));
        };
        let place = 3 * number + if is_write { 0 } else { 1 + u64::from(seen.is_expired) };
        placed.push(Placed { place, ended_ns, call });
    }
    placed.sort_by_key(|placed| placed.place);
    check_expired(&placed, &order)?;
    // What begins last among all that come before.
    let mut latest: Option<&Placed<'_>> = None;
    for same in placed.chunk_by(|one, other| one.place == other.place) {
        for later in same {
            if let Some(earlier) = latest.filter(|earlier| later.ended_ns < earlier.call.began_ns) {
                return violated(format!(
                    "{} ended before {} began, but comes after it",
                    describe(later.call),
                    describe(earlier.call)
                ));
            }
        }
        let last = same.iter().max_by_key(|placed| placed.call.began_ns);
        latest = latest.into_iter().chain(last).max_by_key(|placed| placed.call.began_ns);
    }
    Ok(())
}

/// The place of every value in the order in which they were written; 0, which nobody wrote, comes first.
fn order_of_writes(calls: &[&Call]) -> Result<BTreeMap<u64, u64>, Violation> {
    let mut next: BTreeMap<u64, u64> = BTreeMap::new();
    for call in calls {
        let Some((_, Outcome::Wrote(Reply { before, is_written: true }))) = call.ended else { continue };
        let Some(command) = call.operation.write else { continue };
        if let Some(other) = next.insert(before.value, command.value) {
            return violated(format!("{other} and {} both replaced {}", command.value, before.value));
        }
    }
    let mut order = BTreeMap::from([(0, 0)]);
    let mut value = 0;
    while let Some(&following) = next.get(&value) {
        let place = order.len() as u64;
        if order.insert(following, place).is_some() {
            return violated(format!("{following} was written before and after itself"));
        }
        value = following;
    }
    match next.iter().find(|(before, _)| !order.contains_key(before)) {
        Some((before, value)) => violated(format!("{value} replaced {before}, which nobody wrote")),
        None => Ok(order),
    }
}

/// What one saw expired nobody replaces alive.
fn check_expired(placed: &[Placed<'_>], order: &BTreeMap<u64, u64>) -> Result<(), Violation> {
    let mut expired: Vec<u64> =
        placed.iter().filter(|placed| placed.place % 3 == 2).map(|placed| placed.place / 3).collect();
    expired.dedup();
    for placed in placed.iter().filter(|placed| placed.place % 3 == 0) {
        let Some((_, Outcome::Wrote(Reply { before, .. }))) = placed.call.ended else { continue };
        let number = order.get(&before.value).copied().unwrap_or(0);
        if !before.is_expired && expired.binary_search(&number).is_ok() {
            return violated(format!("{} replaced what had expired", describe(placed.call)));
        }
    }
    Ok(())
}

fn describe(call: &Call) -> String {
    let ended = call.ended.map(|(ended_ns, outcome)| (ended_ns as f64 / 1e6, outcome));
    format!("{:?}, begun at {} ms, ended at {ended:?} (ms)", call.operation, call.began_ns as f64 / 1e6)
}

fn violated<T>(what: String) -> Result<T, Violation> {
    Err(Violation::new("linearizability", what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::machine::Command;

    /// Operations of different clients on one register.
    #[derive(Default)]
    struct Story(History);

    impl Story {
        fn add(&mut self, began_ns: u64, ended_ns: u64, write: Option<u64>, result: Outcome) -> &mut Self {
            let client = self.0.calls.len() as u64;
            let write = write.map(|value| Command {
                client,
                request: 1,
                key: 0,
                value,
                expected: None,
                lifetime_ms: 0,
            });
            let operation = Operation { client, request: 1, group: 0, key: 0, write };
            self.0.see(Event::Invoked { operation, now_ns: began_ns });
            self.0.see(Event::Returned { client, request: 1, result, now_ns: ended_ns });
            self
        }

        fn write(&mut self, time: (u64, u64), value: u64, before: u64) -> &mut Self {
            let before = Seen { value: before, is_expired: false };
            self.add(time.0, time.1, Some(value), Outcome::Wrote(Reply { before, is_written: true }))
        }

        fn read(&mut self, time: (u64, u64), value: u64, is_expired: bool) -> &mut Self {
            self.add(time.0, time.1, None, Outcome::Read(Seen { value, is_expired }))
        }

        fn holds(&self) -> bool {
            self.0.check().is_ok()
        }
    }

    #[test]
    fn what_overlaps_may_have_happened_in_any_order() {
        assert!(
            Story::default().write((0, 10), 1, 0).read((5, 20), 0, false).read((5, 20), 1, false).holds()
        );
        assert!(Story::default().write((0, 10), 1, 2).write((0, 10), 2, 0).read((11, 12), 1, false).holds());
    }

    #[test]
    fn what_was_replaced_is_not_read_again() {
        assert!(!Story::default().write((0, 10), 1, 0).read((11, 20), 0, false).holds());
        assert!(
            !Story::default()
                .write((0, 9), 1, 0)
                .write((10, 30), 2, 1)
                .read((11, 12), 2, false)
                .read((13, 14), 1, false)
                .holds()
        );
        assert!(
            Story::default()
                .write((0, 9), 1, 0)
                .write((10, 30), 2, 1)
                .read((11, 12), 1, false)
                .read((13, 14), 2, false)
                .holds()
        );
    }

    #[test]
    fn writes_do_not_get_lost_and_follow_time() {
        assert!(!Story::default().write((0, 10), 1, 0).write((0, 10), 2, 0).holds());
        assert!(!Story::default().write((0, 10), 1, 7).holds());
        assert!(!Story::default().write((0, 10), 1, 2).write((11, 20), 2, 0).holds());
        assert!(!Story::default().read((0, 10), 7, false).holds());
    }

    #[test]
    fn what_expired_does_not_come_back() {
        assert!(Story::default().write((0, 1), 1, 0).read((2, 3), 1, false).read((4, 5), 1, true).holds());
        assert!(!Story::default().write((0, 1), 1, 0).read((2, 3), 1, true).read((4, 5), 1, false).holds());
        assert!(!Story::default().write((0, 1), 1, 0).read((2, 3), 1, true).write((2, 9), 2, 1).holds());
    }
}
