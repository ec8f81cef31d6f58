//! Linearizability of what clients saw of single keys (Herlihy, Wing: "Linearizability", 1990).
//!
//! Keys are independent, so a history is linearizable if and only if the history of each key is. For one key this is the
//! search of Wing and Gong with Lowe's improvements ("Testing for linearizability", 2017): just in time, so an operation is
//! placed at the latest when its reply is seen, and with memory, so no situation is followed twice.
//!
//! Invariants:
//! - The verdict is exact: what is refused has no order that explains it, what is accepted has one. When there are too many
//!   situations to follow, the check says so instead of guessing.
//! - A write whose fate is unknown may take effect once, at any time after it was sent, however late, or never. To have more
//!   of them left is never worse, and those of one kind with the same effect are interchangeable: both keep the number of
//!   situations small.
//! - Tokens of APPEND are unique and none is a part of another or of a value of SET. So a token that was read went behind
//!   exactly what was read before it, and of one that was never read only the length counts.
//! - A read that fits takes effect at once: it never changes anything, so to have it done is never worse. So does what was answered
//!   that it has changed nothing.
//! - Keys that commands read or write together are one key here, of an object with several places: see [`places`].

#[path = "linearizability/places.rs"]
#[allow(dead_code, reason = "test programs of the server use this file without them")]
pub mod places;

use std::{
    collections::{BTreeMap, HashMap, btree_map},
    error::Error,
    fmt,
    rc::Rc,
};

/// Situations that are followed at the same time at most.
const SITUATIONS_MAX: usize = 50_000;

/// How many operations before the one that nothing explains are shown.
const SHOWN_MAX: usize = 40;

/// Bytes of a value that are shown.
const SHOWN_VALUE_BYTES_MAX: usize = 60;

/// What an operation asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// GET.
    Get,
    /// SET to this value.
    Set(Vec<u8>),
    /// DEL.
    Delete,
    /// INCR.
    Increment,
    /// APPEND of these bytes, which nobody else writes and which are no part of what somebody else writes.
    Append(Vec<u8>),
    /// FLUSHALL.
    #[allow(dead_code, reason = "test programs of the server use this file without it")]
    Clear,
    /// Something done to an object with several places.
    #[allow(dead_code, reason = "test programs of the server use this file without it")]
    Places(places::Change),
}

/// What an operation was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// OK.
    Done,
    /// The value of a GET; `None`: there was none.
    Value(Option<Vec<u8>>),
    /// How many keys DEL removed, what INCR made of the number, or the length after an APPEND.
    Integer(i64),
    /// The value is no number, or would not be one any more: the refusal of an INCR.
    NotANumber,
    /// There is no such key: the refusal of a RENAME.
    NoKey,
}

/// One operation of one client on one key. What is known not to have been executed is no operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who sent it; shown in reports and of no other meaning.
    pub client: usize,
    /// The key that it concerns.
    pub key: Vec<u8>,
    /// When it was sent, in nanoseconds of a clock that all clients share.
    pub invoked_ns: u64,
    /// What it asks for.
    pub action: Action,
    /// When it was answered, by the same clock, and what; `None`: whether it was executed, or will be, is unknown.
    pub returned: Option<(u64, Answer)>,
}

/// Why a history is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The key: of several that fail, the one with the fewest operations up to the failure.
    pub key: Vec<u8>,
    /// Whether the check gave up: there were too many orders to try, and nothing was shown to be wrong.
    pub is_undecided: bool,
    /// The key's history up to the reply that no order explains, by the time of sending.
    pub history: Vec<Operation>,
    /// The values that the key could have had just before that reply, some of them.
    pub possible: Vec<Option<Vec<u8>>>,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what =
            if self.is_undecided { "there are too many orders to try up to" } else { "no order explains" };
        writeln!(formatter, "key {}: {what} the last reply of these operations", self.key.escape_ascii())?;
        let hidden = self.history.len().saturating_sub(SHOWN_MAX);
        if hidden > 0 {
            writeln!(formatter, "  ... {hidden} operations before")?;
        }
        let first_ns = self.history.first().map_or(0, |operation| operation.invoked_ns);
        let ms = |time_ns: u64| time_ns.saturating_sub(first_ns) as f64 / 1e6;
        for operation in &self.history[hidden..] {
            let Operation { client, invoked_ns, action, returned, .. } = operation;
            write!(formatter, "  client {client:3} {:12.3} ms", ms(*invoked_ns))?;
            match returned {
                Some((at_ns, answer)) => {
                    writeln!(formatter, " to {:12.3} ms  {action} -> {answer}", ms(*at_ns))?;
                }
                None => writeln!(formatter, " to       ?         {action} -> unknown")?,
            }
        }
        let possible: Vec<String> = self.possible.iter().map(|value| shown_value(value.as_deref())).collect();
        write!(formatter, "  before that reply the value was one of: {}", possible.join(", "))
    }
}

impl Error for Violation {}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Get => formatter.write_str("GET"),
            Self::Set(value) => write!(formatter, "SET {}", shown(value)),
            Self::Delete => formatter.write_str("DEL"),
            Self::Increment => formatter.write_str("INCR"),
            Self::Append(token) => write!(formatter, "APPEND {}", shown(token)),
            Self::Clear => formatter.write_str("FLUSHALL"),
            Self::Places(change) => change.fmt(formatter),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => formatter.write_str("OK"),
            Self::Value(value) => formatter.write_str(&shown_value(value.as_deref())),
            Self::Integer(number) => write!(formatter, "{number}"),
            Self::NotANumber => formatter.write_str("not a number"),
            Self::NoKey => formatter.write_str("no such key"),
        }
    }
}

fn shown_value(value: Option<&[u8]>) -> String {
    value.map_or_else(|| "nothing".to_owned(), shown)
}

/// The end of a value tells more than its beginning: that is where tokens are appended.
fn shown(value: &[u8]) -> String {
    match value.len().checked_sub(SHOWN_VALUE_BYTES_MAX) {
        Some(cut) if cut > 0 => format!("\"...{}\"", value[cut..].escape_ascii()),
        _ => format!("\"{}\"", value.escape_ascii()),
    }
}

/// Checks a history in which no key had a value at first. The order of `operations` is of no meaning.
///
/// # Errors
/// The key whose history has no order that explains every reply.
pub fn check(operations: &[Operation]) -> Result<(), Violation> {
    let mut keys: BTreeMap<&[u8], Vec<&Operation>> = BTreeMap::new();
    for operation in operations {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let violations = keys.into_values().filter_map(|history| check_key(history).err());
    // What was shown to be wrong says more than what could not be decided.
    violations.min_by_key(|one| (one.is_undecided, one.history.len())).map_or(Ok(()), Err)
}

/// The value of a key.
type Value = Option<Rc<[u8]>>;

/// A value, and which of the operations that were sent have taken effect. Both lists are sorted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Situation {
    value: Value,
    /// Those whose reply is still to come.
    answered_later: Vec<usize>,
    /// Those that are never answered.
    unknown: Vec<usize>,
}

/// A set of situations without any that is no better than another one.
#[derive(Default)]
struct Situations {
    /// By value and answered operations: the sets of unknown ones, none a part of another.
    sets: HashMap<(Value, Vec<usize>), Vec<Vec<usize>>>,
    count: usize,
}

impl Situations {
    /// Whether the situation is new and better than none that is there.
    fn insert(&mut self, situation: &Situation) -> bool {
        let Situation { value, answered_later, unknown } = situation;
        let sets = self.sets.entry((value.clone(), answered_later.clone())).or_default();
        if sets.iter().any(|other| is_part_of(other, unknown)) {
            return false;
        }
        let before = sets.len();
        sets.retain(|other| !is_part_of(unknown, other));
        sets.push(unknown.clone());
        self.count = self.count + sets.len() - before;
        true
    }

    fn into_list(self) -> Vec<Situation> {
        let each = self.sets.into_iter().flat_map(|((value, answered_later), sets)| {
            sets.into_iter().map(move |unknown| Situation {
                value: value.clone(),
                answered_later: answered_later.clone(),
                unknown,
            })
        });
        each.collect()
    }
}

/// Whether all of `part` is in `whole`; both are sorted.
fn is_part_of(part: &[usize], whole: &[usize]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|one| rest.by_ref().any(|other| other == one))
}

fn insert_sorted(list: &mut Vec<usize>, number: usize) {
    let place = list.partition_point(|&other| other < number);
    list.insert(place, number);
}

/// A key's operations, and which of them are under way.
struct Search<'a> {
    operations: Vec<&'a Operation>,
    /// Sent and not answered yet.
    open: Vec<usize>,
    /// Sent and never answered, in the order of sending: of the same effect the first is taken first.
    unknown: BTreeMap<Effect, Vec<usize>>,
    /// What was read before the token of an APPEND that is never answered.
    read_before: HashMap<usize, &'a [u8]>,
}

/// What an operation of unknown fate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effect {
    Delete,
    Increment,
    /// APPEND of so many bytes that nobody read.
    Lengthen(usize),
    /// The same to an object's places.
    Places([u32; 3]),
    /// Something that no other operation does.
    Own,
}

fn check_key(mut operations: Vec<&Operation>) -> Result<(), Violation> {
    operations.sort_by_key(|operation| operation.invoked_ns);
    // At equal times sending comes before replies: they may have overlapped.
    let mut events: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * operations.len());
    for (number, operation) in operations.iter().enumerate() {
        events.push((operation.invoked_ns, false, number));
        if let Some((at_ns, _)) = operation.returned {
            events.push((at_ns.max(operation.invoked_ns), true, number));
        }
    }
    events.sort_unstable();
    let mut search =
        Search { operations, open: Vec::new(), unknown: BTreeMap::new(), read_before: HashMap::new() };
    let first = Situation { value: None, answered_later: Vec::new(), unknown: Vec::new() };
    let mut situations = vec![first];
    for (_, is_reply, number) in events {
        if !is_reply {
            search.send(number);
            continue;
        }
        situations = match search.reply(number, &situations) {
            Some(next) if !next.is_empty() => next,
            other => return Err(search.violation(number, &situations, other.is_none())),
        };
        search.open.retain(|&open| open != number);
    }
    Ok(())
}

impl<'a> Search<'a> {
    fn send(&mut self, number: usize) {
        let operation = self.operations[number];
        if operation.returned.is_some() {
            self.open.push(number);
            return;
        }
        let effect = match &operation.action {
            Action::Get | Action::Places(places::Change::Get(_)) => return,
            Action::Delete | Action::Clear => Effect::Delete,
            Action::Places(change) => change.effect().map_or(Effect::Own, Effect::Places),
            Action::Increment => Effect::Increment,
            Action::Set(_) => Effect::Own,
            Action::Append(token) => match self.read_before(token) {
                Some(before) => {
                    self.read_before.insert(number, before);
                    Effect::Own
                }
                None => Effect::Lengthen(token.len()),
            },
        };
        self.unknown.entry(effect).or_default().push(number);
    }

    /// What was read before a token; `None`: nobody read it.
    fn read_before(&self, token: &[u8]) -> Option<&'a [u8]> {
        let values = self.operations.iter().filter_map(|operation| match &operation.returned {
            Some((_, Answer::Value(Some(value)))) => Some(value.as_slice()),
            _ => None,
        });
        let place = |value: &'a [u8]| {
            let place = value.windows(token.len().max(1)).position(|part| part == token)?;
            Some(&value[..place])
        };
        values.filter_map(place).next()
    }

    /// The situations in which `replied` has taken effect; `None`: they are too many.
    fn reply(&self, replied: usize, situations: &[Situation]) -> Option<Vec<Situation>> {
        let mut done = Situations::default();
        let mut seen = Situations::default();
        let mut waiting = Vec::new();
        for situation in situations {
            self.reach(situation.clone(), replied, &mut done, &mut seen, &mut waiting);
        }
        while let Some(situation) = waiting.pop() {
            if seen.count + done.count > SITUATIONS_MAX {
                return None;
            }
            for &number in &self.open {
                if !situation.answered_later.contains(&number)
                    && let Some(value) = self.effect(number, &situation.value)
                {
                    let mut next = Situation { value, ..situation.clone() };
                    insert_sorted(&mut next.answered_later, number);
                    self.reach(next, replied, &mut done, &mut seen, &mut waiting);
                }
            }
            for (&effect, numbers) in &self.unknown {
                let is_left = |number: &&usize| situation.unknown.binary_search(number).is_err();
                let taken = if effect == Effect::Own { usize::MAX } else { 1 };
                let left = numbers.iter().filter(is_left).take(taken);
                for &number in left {
                    let value_before = situation.value.as_deref().unwrap_or_default();
                    if self.read_before.get(&number).is_some_and(|&read| read != value_before) {
                        continue;
                    }
                    // One that changes nothing is better left.
                    if let Some(value) = self.effect(number, &situation.value)
                        && value != situation.value
                    {
                        let mut next = Situation { value, ..situation.clone() };
                        insert_sorted(&mut next.unknown, number);
                        self.reach(next, replied, &mut done, &mut seen, &mut waiting);
                    }
                }
            }
        }
        Some(done.into_list())
    }

    /// Notes a situation: one in which `replied` has taken effect is where the search ends for now.
    fn reach(
        &self,
        mut situation: Situation,
        replied: usize,
        done: &mut Situations,
        seen: &mut Situations,
        waiting: &mut Vec<Situation>,
    ) {
        for &number in &self.open {
            if only_reads(self.operations[number])
                && !situation.answered_later.contains(&number)
                && self.effect(number, &situation.value).is_some()
            {
                insert_sorted(&mut situation.answered_later, number);
            }
        }
        if let Ok(place) = situation.answered_later.binary_search(&replied) {
            situation.answered_later.remove(place);
            done.insert(&situation);
        } else if seen.insert(&situation) {
            waiting.push(situation);
        }
    }

    /// The value after an operation; `None` if it would have been answered otherwise.
    fn effect(&self, number: usize, value: &Value) -> Option<Value> {
        let Operation { action, returned, .. } = self.operations[number];
        let (after, answer) = execute(action, value);
        match returned {
            Some((_, seen)) if *seen != answer => None,
            _ => Some(after),
        }
    }

    fn violation(&self, replied: usize, situations: &[Situation], is_undecided: bool) -> Violation {
        let last = self.operations[replied];
        let end_ns = last.returned.as_ref().map_or(u64::MAX, |&(at_ns, _)| at_ns);
        let before = self.operations.iter().enumerate();
        let before = before.filter(|&(number, other)| number != replied && other.invoked_ns <= end_ns);
        let mut history: Vec<Operation> = before.map(|(_, &other)| other.clone()).collect();
        history.push(last.clone());
        let mut possible = BTreeMap::new();
        for situation in situations {
            if let btree_map::Entry::Vacant(place) = possible.entry(situation.value.clone()) {
                place.insert(());
            }
        }
        let possible = possible.into_keys().take(8).map(|value| value.map(|value| value.to_vec())).collect();
        Violation { key: last.key.clone(), is_undecided, history, possible }
    }
}

/// Whether an operation can change nothing, whenever it takes effect: by what it is, or by its answer.
fn only_reads(operation: &Operation) -> bool {
    match (&operation.action, &operation.returned) {
        (Action::Get | Action::Places(places::Change::Get(_)), _) => true,
        (Action::Places(_), Some((_, answer))) => matches!(answer, Answer::Integer(0) | Answer::NoKey),
        _ => false,
    }
}

/// The key as a server must have it: the value after an action, and the answer.
fn execute(action: &Action, value: &Value) -> (Value, Answer) {
    match action {
        Action::Get => (value.clone(), Answer::Value(value.as_deref().map(<[u8]>::to_vec))),
        Action::Set(new) => (Some(new.as_slice().into()), Answer::Done),
        Action::Delete => (None, Answer::Integer(i64::from(value.is_some()))),
        Action::Increment => {
            let number =
                value.as_deref().map_or(Some(0), |bytes| std::str::from_utf8(bytes).ok()?.parse().ok());
            match number.and_then(|number: i64| number.checked_add(1)) {
                Some(next) => (Some(next.to_string().into_bytes().into()), Answer::Integer(next)),
                None => (value.clone(), Answer::NotANumber),
            }
        }
        Action::Append(token) => {
            let bytes = [value.as_deref().unwrap_or_default(), token].concat();
            let length = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
            (Some(bytes.into()), Answer::Integer(length))
        }
        Action::Clear => (None, Answer::Done),
        Action::Places(change) => {
            let (after, answer) = change.execute(value.as_deref());
            (after.map(Rc::from), answer)
        }
    }
}
