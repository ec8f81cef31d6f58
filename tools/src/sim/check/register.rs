//! Linearizability of one register: a group of keys that are always written and read together.
//!
//! A search over the orders in which operations can have taken effect, just in time: an operation is placed at the
//! latest when its reply is seen (Lowe, "Testing for linearizability", 2017). Operations of one connection take effect in
//! the order in which they were sent.

use std::collections::HashSet;

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RegisterAction {
    /// Sets all keys to this value.
    Write(u64),
    /// Removes all keys; whether there were any, if that was answered.
    Clear(Option<bool>),
    /// Sets all keys unless there is one; whether it did, if that was answered.
    WriteIfNone(u64, Option<bool>),
    /// Sees this value.
    Read(Option<u64>),
    /// Sees whether there is a value.
    Exists(bool),
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegisterOperation {
    /// The connection that sent it.
    pub(crate) connection: usize,
    /// When it was sent.
    pub(crate) invoked: u64,
    /// When it was answered; `None`: never, and whether it happened is unknown.
    pub(crate) replied: Option<u64>,
    /// What it did.
    pub(crate) action: RegisterAction,
}

/// What a check found, short of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is an order that explains every reply.
    Linearizable,
    /// There were too many orders to try.
    Undecided,
}

/// Orders that are followed at the same time at most.
const ORDERS_MAX: usize = 200_000;

/// The value, and how many operations of each connection have taken effect.
type Order = (Option<u64>, Vec<u16>);

/// Checks the history of one register that had the value `first`.
///
/// # Errors
/// The reply that no order explains.
pub(crate) fn check(operations: &[RegisterOperation], first: Option<u64>) -> Result<Verdict, String> {
    let mut by_connection: Vec<Vec<RegisterOperation>> = Vec::new();
    let mut sorted = operations.to_vec();
    sorted.sort_by_key(|one| (one.connection, one.invoked));
    for chunk in sorted.chunk_by(|a, b| a.connection == b.connection) {
        by_connection.push(chunk.to_vec());
    }
    // (when, connection, number, whether it is the reply)
    let mut events = Vec::new();
    for (connection, list) in by_connection.iter().enumerate() {
        for (number, operation) in list.iter().enumerate() {
            events.push((operation.invoked, connection, number, false));
            events.extend(operation.replied.map(|at| (at, connection, number, true)));
        }
    }
    events.sort_unstable();
    let mut invoked = vec![0_u16; by_connection.len()];
    let mut orders: HashSet<Order> = HashSet::from([(first, vec![0; by_connection.len()])]);
    for (_, connection, number, is_reply) in events {
        if !is_reply {
            invoked[connection] += 1;
            continue;
        }
        let mut explained = HashSet::new();
        let mut open: Vec<Order> = orders.into_iter().collect();
        let mut seen: HashSet<Order> = open.iter().cloned().collect();
        while let Some(order) = open.pop() {
            if usize::from(order.1[connection]) > number {
                explained.insert(order);
                continue;
            }
            for (other, list) in by_connection.iter().enumerate() {
                let next = order.1[other];
                if next == invoked[other] {
                    continue;
                }
                if let Some(value) = apply(list[usize::from(next)].action, order.0) {
                    let mut progress = order.1.clone();
                    progress[other] += 1;
                    let order = (value, progress);
                    if seen.insert(order.clone()) {
                        open.push(order);
                    }
                }
            }
            if seen.len() > ORDERS_MAX {
                return Ok(Verdict::Undecided);
            }
        }
        if explained.is_empty() {
            return Err(format!("no order explains {:?}", by_connection[connection][number]));
        }
        orders = explained;
    }
    Ok(Verdict::Linearizable)
}

/// The value after `action`, if it can have seen what it saw.
fn apply(action: RegisterAction, value: Option<u64>) -> Option<Option<u64>> {
    match action {
        RegisterAction::Write(new) => Some(Some(new)),
        RegisterAction::Clear(seen) => seen.is_none_or(|seen| seen == value.is_some()).then_some(None),
        RegisterAction::WriteIfNone(new, wrote) => {
            wrote.is_none_or(|wrote| wrote == value.is_none()).then_some(Some(value.unwrap_or(new)))
        }
        RegisterAction::Read(seen) => (seen == value).then_some(value),
        RegisterAction::Exists(seen) => (seen == value.is_some()).then_some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::{RegisterAction::*, *};

    fn operation(connection: usize, invoked: u64, replied: u64, action: RegisterAction) -> RegisterOperation {
        RegisterOperation { connection, invoked, replied: (replied > 0).then_some(replied), action }
    }

    #[test]
    fn concurrent_writes_take_effect_in_any_order() {
        for last in [1, 2] {
            let history = [
                operation(0, 1, 4, Write(1)),
                operation(1, 2, 5, Write(2)),
                operation(2, 3, 6, Read(None)),
                operation(2, 7, 8, Read(Some(last))),
                operation(0, 9, 10, Clear(Some(true))),
                operation(1, 11, 12, WriteIfNone(3, Some(true))),
                operation(2, 13, 14, Exists(true)),
            ];
            assert_eq!(check(&history, None), Ok(Verdict::Linearizable));
        }
    }

    #[test]
    fn an_unanswered_write_may_take_effect_late_or_never() {
        let write = operation(0, 1, 0, Write(1));
        let seen = [write, operation(1, 2, 3, Read(None)), operation(1, 4, 5, Read(Some(1)))];
        assert_eq!(check(&seen, None), Ok(Verdict::Linearizable));
        let never = [write, operation(1, 2, 3, Read(None)), operation(1, 4, 5, Read(None))];
        assert_eq!(check(&never, None), Ok(Verdict::Linearizable));
        let gone = [write, operation(1, 2, 3, Read(Some(1))), operation(1, 4, 5, Read(None))];
        assert!(check(&gone, None).is_err());
    }

    #[test]
    fn wrong_histories_are_refused() {
        let first = operation(0, 1, 2, Write(1));
        let cases: [&[RegisterOperation]; 7] = [
            &[first, operation(1, 3, 4, Read(None))],
            &[first, operation(1, 3, 4, Read(Some(9)))],
            &[first, operation(0, 3, 4, Write(2)), operation(1, 5, 6, Read(Some(1)))],
            // Two readers disagree on the order of two writes.
            &[
                operation(0, 1, 20, Write(1)),
                operation(1, 2, 21, Write(2)),
                operation(2, 3, 4, Read(Some(1))),
                operation(2, 5, 6, Read(Some(2))),
                operation(3, 7, 8, Read(Some(1))),
            ],
            // A connection reads past its own write, which was sent before.
            &[operation(0, 1, 9, Write(1)), operation(0, 2, 8, Read(None))],
            &[first, operation(1, 3, 4, WriteIfNone(2, Some(true)))],
            &[first, operation(1, 3, 4, Clear(Some(false)))],
        ];
        for (number, history) in cases.iter().enumerate() {
            assert!(check(history, None).is_err(), "case {number}");
        }
    }
}
