//! The judgement of what clients saw, from one start of the server to its end.

use super::Run;
use crate::sim::{
    check::{
        counter::{self, CounterOperation},
        loss::{Fate, Times},
        register::{self, RegisterAction, RegisterOperation, Verdict},
    },
    client::{Sent, Session},
    resp::Reply,
    script::{Plan, Purpose, answered},
    trace,
};

/// What the clients' shared data was when the server started.
#[derive(Clone, Debug)]
pub(super) struct Bases {
    /// Of each register.
    pub(super) registers: Vec<Option<u64>>,
    /// Of each counter.
    pub(super) counters: Vec<u64>,
}

impl Bases {
    /// Nothing.
    pub(super) fn new(plan: &Plan) -> Self {
        Self { registers: vec![None; plan.registers.len()], counters: vec![0; plan.counters.len()] }
    }
}

/// The connection that looks at what is left, among those of a register.
const SURVEY: usize = usize::MAX;

impl Run {
    /// Judges the connections of one start of the server, and what `left` says was there after its crash, if nothing may
    /// be missing of it.
    pub(super) fn judge(&mut self, sessions: &[Session], left: Option<&Bases>) -> Result<(), String> {
        for session in sessions {
            self.summary.connections += 1;
            self.summary.requests += session.sent.len() as u64;
            self.summary.replies += session.replied as u64;
            self.summary.refused += session.sent.iter().filter(|sent| sent.is_refused).count() as u64;
        }
        let last = self.world.borrow().stamp + 1;
        for (number, &first) in self.bases.counters.iter().enumerate() {
            let (mut operations, unanswered) = counter_history(sessions, number)?;
            operations.extend(left.map(|left| CounterOperation {
                invoked: last,
                replied: last + 1,
                increments: false,
                value: left.counters[number],
            }));
            counter::check(&operations, first, unanswered)
                .map_err(|error| format!("counter {number}: {error}"))?;
        }
        for (number, &first) in self.bases.registers.iter().enumerate() {
            let history = register_history(sessions, &self.plan, number)?;
            let mut operations: Vec<RegisterOperation> = history.iter().map(|(one, _)| *one).collect();
            operations.extend(left.map(|left| RegisterOperation {
                connection: SURVEY,
                invoked: last,
                replied: Some(last + 1),
                action: RegisterAction::Read(left.registers[number]),
            }));
            self.summary.register_operations += operations.len() as u64;
            let verdict = register::check(&operations, first);
            match verdict.map_err(|error| format!("register {number}: {error}"))? {
                Verdict::Linearizable => {}
                Verdict::Undecided => self.summary.undecided += 1,
            }
        }
        Ok(())
    }

    /// What became of the writes to registers and counters, given what is left of them, as far as that is certain.
    pub(super) fn shared_fates(&self, sessions: &[Session], left: &Bases) -> Result<Vec<Fate>, String> {
        let mut fates = Vec::new();
        for (number, &seen) in left.counters.iter().enumerate() {
            let increments = sessions.iter().flat_map(|session| &session.sent).filter(|sent| {
                sent.purpose == Purpose::Counter(number, true) && sent.invoked.is_some() && !sent.is_refused
            });
            let top = self.bases.counters[number] + increments.clone().count() as u64;
            if !(self.bases.counters[number]..=top).contains(&seen) {
                return Err(format!("counter {number} is at {seen} after {top} increments at most"));
            }
            fates.extend(increments.filter_map(|sent| {
                let Some(Reply::Integer(value)) = sent.reply else { return None };
                let keys = vec![self.plan.counters[number].clone()];
                Some(Fate { keys, times: sent.times(), is_left: value as u64 <= seen })
            }));
        }
        for (number, &seen) in left.registers.iter().enumerate() {
            let history = register_history(sessions, &self.plan, number)?;
            fates.extend(
                register_fates(&history, self.bases.registers[number], seen)
                    .map_err(|error| format!("register {number}: {error}"))?
                    .into_iter()
                    .map(|(times, is_left)| Fate {
                        keys: self.plan.registers[number].clone(),
                        times,
                        is_left,
                    }),
            );
        }
        Ok(fates)
    }
}

/// Increments and reads that were answered, and how many increments were not.
fn counter_history(sessions: &[Session], counter: usize) -> Result<(Vec<CounterOperation>, u64), String> {
    let mut operations = Vec::new();
    let mut unanswered = 0;
    for sent in sessions.iter().flat_map(|session| &session.sent) {
        let Purpose::Counter(number, increments) = sent.purpose else { continue };
        if number != counter || sent.is_refused {
            continue;
        }
        let (Some(invoked), Some(replied)) = (sent.invoked, sent.replied) else {
            unanswered += u64::from(increments && sent.invoked.is_some());
            continue;
        };
        let value = match &sent.reply {
            Some(reply) => {
                counter_value(reply).ok_or_else(|| format!("counter {counter}: {}", reply.shown()))?
            }
            None => return Err(format!("counter {counter} has no reply")),
        };
        operations.push(CounterOperation { invoked, replied, increments, value });
    }
    Ok((operations, unanswered))
}

/// What a reply says that a counter holds.
pub(super) fn counter_value(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Integer(value) => u64::try_from(*value).ok(),
        Reply::Nil => Some(0),
        Reply::Bulk(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

fn register_history(
    sessions: &[Session],
    plan: &Plan,
    register: usize,
) -> Result<Vec<(RegisterOperation, Times)>, String> {
    let mut history = Vec::new();
    let mut add = |session: &Session, sent: &Sent| {
        let Some(invoked) = sent.invoked.filter(|_| !sent.is_refused) else { return Ok(()) };
        let action = match sent.purpose {
            Purpose::Register(number, action) if number == register => action,
            Purpose::Flush => RegisterAction::Clear(None),
            _ => return Ok(()),
        };
        let action = match &sent.reply {
            Some(reply) => answered(action, plan, register, reply)?,
            // A read that nobody saw says nothing.
            None if matches!(action, RegisterAction::Read(_) | RegisterAction::Exists(_)) => return Ok(()),
            None => action,
        };
        let operation =
            RegisterOperation { connection: session.link, invoked, replied: sent.replied, action };
        trace::note(|| format!("register {register}: {operation:?}"));
        history.push((operation, sent.times()));
        Ok::<(), String>(())
    };
    for session in sessions {
        session.sent.iter().try_for_each(|sent| add(session, sent))?;
    }
    Ok(history)
}

/// What became of a register's writes if it began with `first`, and a crash has left it with `seen`: those that are certain.
fn register_fates(
    history: &[(RegisterOperation, Times)],
    first: Option<u64>,
    seen: Option<u64>,
) -> Result<Vec<(Times, bool)>, String> {
    let clears = || history.iter().filter(|(one, _)| matches!(one.action, RegisterAction::Clear(_)));
    let changes = |action: RegisterAction| {
        let has_value =
            matches!(action, RegisterAction::Write(_) | RegisterAction::WriteIfNone(_, Some(true)));
        has_value || action == RegisterAction::Clear(Some(true))
    };
    let wrote = |action: RegisterAction| match action {
        RegisterAction::Write(value) => Some(value),
        RegisterAction::WriteIfNone(value, wrote) => (wrote != Some(false)).then_some(value),
        _ => None,
    };
    let writer = history.iter().find(|(one, _)| seen.is_some() && wrote(one.action) == seen);
    let mut fates = Vec::new();
    // Writes that came later than whatever left the register like this are lost.
    let is_later = |one: &RegisterOperation| match (writer, seen) {
        (Some((writer, _)), _) => writer.replied.is_some_and(|replied| one.invoked > replied),
        (None, Some(_)) => true,
        (None, None) => {
            clears().all(|(clear, _)| clear.replied.is_some_and(|replied| replied < one.invoked))
                && wrote(one.action).is_some()
        }
    };
    let is_possible = writer.is_some() || seen == first || (seen.is_none() && clears().next().is_some());
    if !is_possible {
        return Err(format!("it holds {seen:?} after a crash, which nobody wrote"));
    }
    fates.extend(writer.map(|(_, times)| (*times, true)));
    let lost = history.iter().filter(|(one, _)| changes(one.action) && is_later(one));
    fates.extend(lost.map(|(_, times)| (*times, false)));
    Ok(fates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(invoked: u64, replied: u64, action: RegisterAction) -> (RegisterOperation, Times) {
        let replied = (replied > 0).then_some(replied);
        let times =
            Times { invoked, invoked_ns: invoked, replied: replied.map(|replied| (replied, replied)) };
        (RegisterOperation { connection: 0, invoked, replied, action }, times)
    }

    fn fates(history: &[(RegisterOperation, Times)], seen: Option<u64>) -> Result<Vec<(u64, bool)>, String> {
        let fates = register_fates(history, Some(9), seen)?;
        Ok(fates.into_iter().map(|(times, is_left)| (times.invoked, is_left)).collect())
    }

    #[test]
    fn writes_behind_the_one_that_is_left_are_lost() {
        let history = [
            one(1, 2, RegisterAction::Write(1)),
            one(3, 4, RegisterAction::Write(2)),
            one(5, 6, RegisterAction::Clear(Some(true))),
            one(7, 8, RegisterAction::WriteIfNone(3, Some(true))),
            one(9, 0, RegisterAction::Write(4)),
        ];
        assert_eq!(fates(&history, Some(3)), Ok(vec![(7, true), (9, false)]));
        assert_eq!(
            fates(&history, Some(1)),
            Ok(vec![(1, true), (3, false), (5, false), (7, false), (9, false)])
        );
        assert_eq!(fates(&history, Some(9)).unwrap().len(), 5);
        assert_eq!(fates(&history, None), Ok(vec![(7, false), (9, false)]));
        assert_eq!(fates(&history, Some(4)), Ok(vec![(9, true)]));
        assert!(fates(&history, Some(5)).is_err());
        assert!(fates(&history[..2], None).is_err());
    }
}
