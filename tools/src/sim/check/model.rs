//! What replies the keys of a single client must bring.
//!
//! Sequential but for time: whether a key that is about to expire is still there is known only within a window, so
//! the model follows every state that the replies so far allow.

use std::{collections::BTreeMap, rc::Rc};

use crate::sim::resp::Reply;

/// When something happened by the wall clock, in milliseconds: not before the first, not after the second.
pub(crate) type Window = (i64, i64);

/// States that are followed at the same time at most; few keys expire at once, so more is an error of the model.
const STATES_MAX: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) bytes: Rc<Vec<u8>>,
    /// When it expires.
    pub(super) deadline: Option<Window>,
}

/// What there is.
pub(super) type State = BTreeMap<Rc<[u8]>, Value>;

/// The keys of one client.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    states: Vec<State>,
    /// The keys that the last request changed, if it did what its reply says.
    changed: Vec<Rc<[u8]>>,
}

/// What the reply must be.
enum Expected {
    Exactly(Reply),
    /// A number within these, both included.
    Number(i64, i64),
    /// An error that begins so.
    Error(&'static str),
}

impl Model {
    /// No keys.
    pub(crate) fn new() -> Self {
        Self::of(vec![State::new()])
    }

    /// These states are possible.
    pub(super) fn of(states: Vec<State>) -> Self {
        Self { states, changed: Vec::new() }
    }

    /// The states that are possible.
    pub(super) fn states(&self) -> &[State] {
        &self.states
    }

    /// The keys that the last request changed, if it did what its reply says, or was executed at all.
    pub(super) fn changed(&self) -> &[Rc<[u8]>] {
        &self.changed
    }

    /// Takes a request that was perhaps executed, within `window`: from here on the states if it was.
    pub(super) fn assume(&mut self, arguments: &[Vec<u8>], window: Window) {
        let mut next: Vec<State> = Vec::new();
        self.changed.clear();
        for state in std::mem::take(&mut self.states) {
            for mut branch in expire(state, keys_of(arguments), window) {
                let before = branch.clone();
                execute(&mut branch, arguments, window);
                self.note_changes(arguments, &before, &branch);
                if !next.contains(&branch) {
                    next.push(branch);
                }
            }
        }
        self.states = next;
    }

    /// Takes a request that was executed within `window`, and checks its reply.
    ///
    /// # Errors
    /// What the reply should have been.
    pub(crate) fn apply(
        &mut self,
        arguments: &[Vec<u8>],
        reply: &Reply,
        window: Window,
    ) -> Result<(), String> {
        let mut next: Vec<State> = Vec::new();
        let mut expectations = Vec::new();
        self.changed.clear();
        for state in std::mem::take(&mut self.states) {
            for mut branch in expire(state, keys_of(arguments), window) {
                let before = branch.clone();
                let expected = execute(&mut branch, arguments, window);
                if expected.allows(reply) {
                    self.note_changes(arguments, &before, &branch);
                    if !next.contains(&branch) {
                        next.push(branch);
                    }
                } else {
                    expectations.push(expected.shown());
                }
            }
        }
        if next.is_empty() {
            expectations.dedup();
            return Err(format!("{} instead of {}", reply.shown(), expectations.join(" or ")));
        }
        if next.len() > STATES_MAX {
            return Err("the model follows too many states".to_owned());
        }
        self.states = next;
        Ok(())
    }

    fn note_changes(&mut self, arguments: &[Vec<u8>], before: &State, after: &State) {
        for key in keys_of(arguments) {
            if before.get(key) != after.get(key) && !self.changed.iter().any(|changed| **changed == *key) {
                self.changed.push(key.into());
            }
        }
    }
}

impl Expected {
    fn allows(&self, reply: &Reply) -> bool {
        match (self, reply) {
            (Self::Exactly(expected), reply) => expected == reply,
            (Self::Number(low, high), Reply::Integer(number)) => (*low..=*high).contains(number),
            (Self::Error(start), Reply::Error(text)) => text.starts_with(start.as_bytes()),
            _ => false,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Exactly(reply) => reply.shown(),
            Self::Number(low, high) => format!("a number from {low} to {high}"),
            Self::Error(start) => format!("an error {start}..."),
        }
    }
}

/// The keys that a request names.
pub(super) fn keys_of(arguments: &[Vec<u8>]) -> Vec<&[u8]> {
    let rest = &arguments[1..];
    let keys = match &arguments[0][..] {
        b"MSET" | b"MSETNX" => rest.iter().step_by(2).collect::<Vec<_>>(),
        b"DEL" | b"EXISTS" | b"MGET" => rest.iter().collect(),
        b"RENAME" | b"RENAMENX" | b"COPY" => rest[..2].iter().collect(),
        _ => rest[..1].iter().collect(),
    };
    keys.into_iter().map(|key| &key[..]).collect()
}

/// The states that time can have made of `state` within `window`, as far as `keys` are concerned.
fn expire(state: State, keys: Vec<&[u8]>, window: Window) -> Vec<State> {
    let mut states = vec![state];
    for key in keys {
        let mut next = Vec::new();
        for mut state in states {
            let Some(deadline) = state.get(key).and_then(|value| value.deadline) else {
                next.push(state);
                continue;
            };
            if window.0 <= deadline.1 {
                next.push(state.clone());
            }
            if deadline.0 <= window.1 {
                state.remove(key);
                next.push(state);
            }
        }
        states = next;
    }
    states
}

fn execute(state: &mut State, arguments: &[Vec<u8>], window: Window) -> Expected {
    let argument = |index: usize| -> &[u8] { &arguments[index] };
    let named = |index: usize| -> Rc<[u8]> { arguments[index][..].into() };
    let plain = |bytes: &[u8]| Value { bytes: Rc::new(bytes.to_vec()), deadline: None };
    let bulk = |value: Option<&Value>| value.map_or(Reply::Nil, |value| Reply::Bulk(value.bytes.to_vec()));
    let exactly = |reply| Expected::Exactly(reply);
    let count = |number: usize| Expected::Exactly(Reply::Integer(number as i64));
    let rest = &arguments[1..];
    match &arguments[0][..] {
        b"SET" => {
            state.insert(named(1), plain(argument(2)));
            exactly(Reply::ok())
        }
        b"SETNX" => {
            let is_new = !state.contains_key(argument(1));
            if is_new {
                state.insert(named(1), plain(argument(2)));
            }
            count(usize::from(is_new))
        }
        b"GETSET" => {
            let old = state.insert(named(1), plain(argument(2)));
            exactly(bulk(old.as_ref()))
        }
        b"GET" => exactly(bulk(state.get(argument(1)))),
        b"GETDEL" => exactly(bulk(state.remove(argument(1)).as_ref())),
        b"STRLEN" => count(state.get(argument(1)).map_or(0, |value| value.bytes.len())),
        b"APPEND" => {
            let value = state.entry(named(1)).or_insert_with(|| plain(b""));
            Rc::make_mut(&mut value.bytes).extend_from_slice(argument(2));
            count(value.bytes.len())
        }
        b"INCR" => {
            let value = state.entry(named(1)).or_insert_with(|| plain(b"0"));
            match number(&value.bytes).and_then(|number| number.checked_add(1)) {
                Some(number) => {
                    value.bytes = Rc::new(number.to_string().into_bytes());
                    exactly(Reply::Integer(number))
                }
                None => Expected::Error("ERR "),
            }
        }
        b"DEL" => count(rest.iter().filter(|key| state.remove(&key[..]).is_some()).count()),
        b"EXISTS" => count(rest.iter().filter(|key| state.contains_key(&key[..])).count()),
        b"MGET" => exactly(Reply::Array(rest.iter().map(|key| bulk(state.get(&key[..]))).collect())),
        b"MSET" => {
            set_all(state, rest);
            exactly(Reply::ok())
        }
        b"MSETNX" => {
            let is_free = rest.iter().step_by(2).all(|key| !state.contains_key(&key[..]));
            if is_free {
                set_all(state, rest);
            }
            count(usize::from(is_free))
        }
        b"RENAME" => match state.remove(argument(1)) {
            Some(value) => {
                state.insert(named(2), value);
                exactly(Reply::ok())
            }
            None => Expected::Error("ERR no such key"),
        },
        b"RENAMENX" => {
            let is_free = !state.contains_key(argument(2));
            match state.get(argument(1)).cloned() {
                Some(value) if is_free => {
                    state.remove(argument(1));
                    state.insert(named(2), value);
                    count(1)
                }
                Some(_) => count(0),
                None => Expected::Error("ERR no such key"),
            }
        }
        b"COPY" => {
            let may = arguments.len() > 3 || !state.contains_key(argument(2));
            match state.get(argument(1)).cloned() {
                Some(value) if may => {
                    state.insert(named(2), value);
                    count(1)
                }
                _ => count(0),
            }
        }
        b"EXPIRE" | b"PEXPIRE" => {
            let unit_ms = if argument(0) == b"EXPIRE" { 1000 } else { 1 };
            let delay_ms = number(argument(2)).expect("the script gives a number") * unit_ms;
            match state.get_mut(argument(1)) {
                Some(value) => {
                    value.deadline = Some((window.0 + delay_ms, window.1 + delay_ms));
                    count(1)
                }
                None => count(0),
            }
        }
        b"PERSIST" => {
            let had = state.get_mut(argument(1)).and_then(|value| value.deadline.take());
            count(usize::from(had.is_some()))
        }
        b"TTL" | b"PTTL" => match state.get(argument(1)) {
            None => exactly(Reply::Integer(-2)),
            Some(Value { deadline: None, .. }) => exactly(Reply::Integer(-1)),
            Some(Value { deadline: Some((low, high)), .. }) => {
                let (low, high) = ((low - window.1).max(0), (high - window.0).max(0));
                if argument(0) == b"TTL" {
                    Expected::Number((low + 500) / 1000, (high + 500) / 1000)
                } else {
                    Expected::Number(low, high)
                }
            }
        },
        other => panic!("the model does not know {}", other.escape_ascii()),
    }
}

fn set_all(state: &mut State, pairs: &[Vec<u8>]) {
    for pair in pairs.chunks_exact(2) {
        state.insert(pair[0][..].into(), Value { bytes: Rc::new(pair[1].clone()), deadline: None });
    }
}

/// A number as Redis reads one: no spaces, no plus, no leading zeros.
fn number(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.as_bytes().to_vec())
    }

    #[test]
    fn replies_follow_the_requests_before() {
        let mut model = Model::new();
        let steps = [
            ("SET a 1", Reply::ok()),
            ("INCR a", Reply::Integer(2)),
            ("APPEND a x", Reply::Integer(2)),
            ("INCR a", Reply::Error(b"ERR value is not an integer or out of range".to_vec())),
            ("MSETNX a 1 b 2", Reply::Integer(0)),
            ("RENAME a b", Reply::ok()),
            ("COPY b c", Reply::Integer(1)),
            ("MGET a b c", Reply::Array(vec![Reply::Nil, bulk("2x"), bulk("2x")])),
            ("DEL a b c", Reply::Integer(2)),
            ("RENAMENX b c", Reply::Error(b"ERR no such key".to_vec())),
        ];
        for (text, reply) in steps {
            assert_eq!(model.apply(&request(text), &reply, (0, 0)), Ok(()), "{text}");
        }
        assert!(model.clone().apply(&request("GET c"), &bulk("2x"), (0, 0)).is_err());
        assert!(model.apply(&request("EXISTS c"), &Reply::Integer(1), (0, 0)).is_err());
    }

    #[test]
    fn a_key_is_there_until_its_time_and_gone_after_it() {
        let mut model = Model::new();
        model.apply(&request("SET a 1"), &Reply::ok(), (0, 5)).unwrap();
        model.apply(&request("PEXPIRE a 100"), &Reply::Integer(1), (0, 5)).unwrap();
        assert!(model.clone().apply(&request("GET a"), &Reply::Nil, (90, 95)).is_err(), "too early");
        assert!(model.clone().apply(&request("GET a"), &bulk("1"), (110, 120)).is_err(), "too late");
        assert!(model.clone().apply(&request("PTTL a"), &Reply::Integer(101), (10, 20)).is_err());
        assert_eq!(model.clone().apply(&request("PTTL a"), &Reply::Integer(88), (10, 20)), Ok(()));
        assert_eq!(model.clone().apply(&request("GET a"), &bulk("1"), (90, 120)), Ok(()));
        model.apply(&request("GET a"), &Reply::Nil, (90, 120)).unwrap();
        assert!(model.apply(&request("GET a"), &bulk("1"), (90, 120)).is_err(), "it came back");
    }
}
