//! Keys that several clients write at once, and what may be found of them after a crash.
//!
//! A clock that every client moves orders what they did as far as it did not overlap. Invariants:
//! - A counter is at least what any client was told and at most how often it was asked for.
//! - The keys of a group are only ever set together, so they are equal at all times, and no value is found that was
//!   certainly overwritten: by a request that began after that value's had ended and was acknowledged, or
//!   whose value was read.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::connection::Connection;
use super::resp::Reply;

/// Keys of a group: one hash tag each, so on several shards and cores.
const GROUP_KEYS: usize = 4;
const GROUPS: usize = 3;
const COUNTERS: usize = 3;

/// Setting a group to a value.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// The value, which no other attempt has.
    pub value: u64,
    /// When it began.
    pub begin: u64,
    /// When it was acknowledged; `u64::MAX`: it was not.
    pub end: u64,
}

/// What is known of a group.
#[derive(Clone, Debug)]
pub struct Group {
    attempts: Vec<Attempt>,
    /// At this time the group had got this value, or a later one.
    bounds: Vec<(u64, u64)>,
}

impl Group {
    /// A group that has `value` and that nobody writes.
    pub fn new(value: u64) -> Self {
        Self { attempts: vec![Attempt { value, begin: 0, end: 0 }], bounds: Vec::new() }
    }

    /// The group was set, or may have been.
    pub fn attempted(&mut self, attempt: Attempt) {
        self.attempts.push(attempt);
        if attempt.end != u64::MAX {
            self.bounds.push((attempt.begin, attempt.value));
        }
    }

    /// A read that began at this time found this value.
    pub fn observed(&mut self, begin: u64, value: u64) {
        self.bounds.push((begin, value));
    }

    /// Whether the group may have this value now that nobody writes it.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, value: u64) -> Result<(), String> {
        let Some(found) = self.attempts.iter().find(|attempt| attempt.value == value) else {
            return Err(format!("nobody ever wrote {value}"));
        };
        match self.bounds.iter().find(|&&(at, other)| other != value && found.end < at) {
            Some((at, other)) => {
                Err(format!("{value} was complete at {}, and {other} replaced it after {at}", found.end))
            }
            None => Ok(()),
        }
    }
}

#[derive(Default)]
struct Counter {
    /// The highest number that a client was told.
    told: AtomicU64,
    attempted: AtomicU64,
}

/// The keys that all clients share.
pub struct Shared {
    clock: AtomicU64,
    counters: [Counter; COUNTERS],
    groups: [Mutex<Group>; GROUPS],
}

impl Shared {
    /// Nothing is there yet.
    pub fn new() -> Self {
        Self {
            clock: AtomicU64::new(1),
            counters: std::array::from_fn(|_| Counter::default()),
            groups: std::array::from_fn(|_| Mutex::new(Group::new(0))),
        }
    }

    /// Moves the clock on.
    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn change(&self, group: usize, change: impl FnOnce(&mut Group)) {
        change(&mut self.groups[group].lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Increments a counter.
    ///
    /// # Errors
    /// The connection's.
    ///
    /// # Panics
    /// On another reply than a number that was not told before.
    pub fn increment(&self, client: &mut Connection, choice: usize) -> io::Result<()> {
        let number = choice % COUNTERS;
        let counter = &self.counters[number];
        counter.attempted.fetch_add(1, Ordering::SeqCst);
        let reply = client.try_call(&["INCR", &counter_key(number)])?;
        let count = reply.integer().and_then(|count| u64::try_from(count).ok());
        counter.told.fetch_max(count.unwrap_or_else(|| panic!("INCR: {reply}")), Ordering::SeqCst);
        Ok(())
    }

    /// Sets a group to `value`, which must be new.
    ///
    /// # Errors
    /// The connection's.
    ///
    /// # Panics
    /// On another reply than OK.
    pub fn set_group(&self, client: &mut Connection, choice: usize, value: u64) -> io::Result<()> {
        let group = choice % GROUPS;
        let mut arguments = vec!["MSET".to_owned()];
        arguments.extend(group_keys(group).flat_map(|key| [key, value.to_string()]));
        let begin = self.now();
        let result = client.try_call(&arguments);
        let end = if result.is_ok() { self.now() } else { u64::MAX };
        self.change(group, |group| group.attempted(Attempt { value, begin, end }));
        let reply = result?;
        assert!(reply.is_status("OK"), "MSET: {reply}");
        Ok(())
    }

    /// Reads a group.
    ///
    /// # Errors
    /// The connection's.
    ///
    /// # Panics
    /// When its keys are not equal.
    pub fn read_group(&self, client: &mut Connection, choice: usize) -> io::Result<()> {
        let group = choice % GROUPS;
        let begin = self.now();
        let value = read(client, group)?;
        self.change(group, |group| group.observed(begin, value));
        Ok(())
    }

    /// Checks what is there now that nobody writes, and goes on from it.
    ///
    /// # Panics
    /// When it cannot be.
    pub fn verify(&mut self, client: &mut Connection) {
        for (number, counter) in self.counters.iter_mut().enumerate() {
            let reply = client.call(&["GET", &counter_key(number)]);
            let count = reply.bytes().map_or(0, parse);
            let (told, attempted) = (counter.told.get_mut(), counter.attempted.get_mut());
            assert!(
                (*told..=*attempted).contains(&count),
                "counter {number} is {count}; {told} was acknowledged and {attempted} were asked for"
            );
            (*told, *attempted) = (count, count);
        }
        for (number, group) in self.groups.iter_mut().enumerate() {
            let value = read(client, number).unwrap_or_else(|error| panic!("MGET: {error}"));
            let group = group.get_mut().unwrap_or_else(PoisonError::into_inner);
            group.check(value).unwrap_or_else(|sentence| panic!("group {number}: {sentence}"));
            *group = Group::new(value);
        }
        // What was found counts as complete before anything that begins now.
        self.clock = AtomicU64::new(1);
    }
}

fn counter_key(number: usize) -> String {
    format!("counter:{number}")
}

fn group_keys(group: usize) -> impl Iterator<Item = String> {
    (0..GROUP_KEYS).map(move |key| format!("group:{group}:{key}"))
}

/// The value of a group; 0 when it was never set.
fn read(client: &mut Connection, group: usize) -> io::Result<u64> {
    let arguments: Vec<String> = ["MGET".to_owned()].into_iter().chain(group_keys(group)).collect();
    let reply = client.try_call(&arguments)?;
    let values: Vec<Option<&[u8]>> = match reply.items() {
        Some(items) => items.iter().map(Reply::bytes).collect(),
        None => panic!("MGET: {reply}"),
    };
    assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "half an MSET in group {group}: {reply}");
    Ok(values[0].map_or(0, parse))
}

fn parse(digits: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(digits);
    text.parse().unwrap_or_else(|_| panic!("not a number that anybody wrote: {text}"))
}
