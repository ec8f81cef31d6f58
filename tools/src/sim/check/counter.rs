//! Counters that many clients increment.
//!
//! An INCR's reply is its place in the order of all of them, so linearizability is a comparison: no two alike, and
//! what began after another one was answered has a later place. A GET stands between the increment it shows and the
//! next one.

/// One INCR or GET that was answered.
#[derive(Clone, Debug)]
pub(crate) struct CounterOperation {
    /// When it was sent.
    pub(crate) invoked: u64,
    /// When it was answered.
    pub(crate) replied: u64,
    /// Whether it increments.
    pub(crate) increments: bool,
    /// The number in the reply; 0 if the counter did not exist.
    pub(crate) value: u64,
}

impl CounterOperation {
    fn place(&self) -> u64 {
        2 * self.value + u64::from(!self.increments)
    }
}

/// Checks one counter that began at `first`, and that up to `unanswered` increments without a reply may have changed.
///
/// # Errors
/// What cannot have happened.
pub(crate) fn check(operations: &[CounterOperation], first: u64, unanswered: u64) -> Result<(), String> {
    let mut values: Vec<u64> = operations.iter().filter(|one| one.increments).map(|one| one.value).collect();
    values.sort_unstable();
    if let Some(pair) = values.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("two increments were both answered {}", pair[0]));
    }
    let top = operations.iter().map(|one| one.value).max().unwrap_or(first);
    if top > first + values.len() as u64 + unanswered {
        return Err(format!("{} increments cannot take {first} to {top}", values.len() as u64 + unanswered));
    }
    let is_below = |one: &&CounterOperation| one.value < first + u64::from(one.increments);
    if let Some(below) = operations.iter().find(is_below) {
        return Err(format!("it was at {first}, and then there was {below:?}"));
    }
    let mut by_reply: Vec<&CounterOperation> = operations.iter().collect();
    by_reply.sort_by_key(|one| one.replied);
    let mut by_invocation = by_reply.clone();
    by_invocation.sort_by_key(|one| one.invoked);
    let mut earlier = by_reply.into_iter().peekable();
    let mut latest: Option<&CounterOperation> = None;
    for operation in by_invocation {
        while let Some(answered) = earlier.next_if(|one| one.replied < operation.invoked) {
            if latest.is_none_or(|latest| answered.place() > latest.place()) {
                latest = Some(answered);
            }
        }
        let goes_back = latest.is_some_and(|latest| {
            operation.place() < latest.place()
                || (operation.increments && operation.place() == latest.place())
        });
        if goes_back {
            return Err(format!("{operation:?} began after {latest:?} was answered"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn increment(invoked: u64, replied: u64, value: u64) -> CounterOperation {
        CounterOperation { invoked, replied, increments: true, value }
    }

    fn get(invoked: u64, replied: u64, value: u64) -> CounterOperation {
        CounterOperation { invoked, replied, increments: false, value }
    }

    #[test]
    fn overlapping_increments_may_be_answered_in_any_order() {
        let history =
            [increment(1, 9, 2), increment(2, 8, 1), get(3, 7, 0), get(4, 6, 2), increment(10, 11, 3)];
        assert_eq!(check(&history, 0, 0), Ok(()));
    }

    #[test]
    fn increments_without_a_reply_leave_gaps() {
        assert_eq!(check(&[increment(1, 2, 2)], 0, 1), Ok(()));
        assert!(check(&[increment(1, 2, 2)], 0, 0).is_err());
    }

    #[test]
    fn wrong_histories_are_refused() {
        assert!(check(&[increment(1, 2, 1), increment(3, 4, 1)], 0, 5).is_err(), "twice the same");
        assert!(check(&[increment(1, 2, 2), increment(3, 4, 1)], 0, 5).is_err(), "back in time");
        assert!(check(&[increment(1, 2, 1), get(3, 4, 0)], 0, 5).is_err(), "a stale read");
        assert!(check(&[get(1, 2, 1), increment(3, 4, 1)], 0, 5).is_err(), "a read of the future");
        assert!(check(&[get(1, 2, 1), get(3, 4, 0), increment(1, 9, 1)], 0, 5).is_err(), "reads go back");
    }
    #[test]
    fn a_counter_goes_on_from_where_it_was() {
        assert_eq!(check(&[get(1, 2, 7), increment(3, 4, 8)], 7, 0), Ok(()));
        assert!(check(&[increment(1, 2, 7)], 7, 0).is_err(), "an increment is lost");
        assert!(check(&[get(1, 2, 6)], 7, 0).is_err(), "an increment is lost");
        assert!(check(&[get(1, 2, 9)], 7, 1).is_err(), "an increment was counted twice");
    }
}
