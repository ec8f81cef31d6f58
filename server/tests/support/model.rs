//! What a client knows of keys that it alone writes, and whether what is there after a crash can be explained.
//!
//! Invariants:
//! - [`Request::apply`] does to the model what the server must do, and returns the reply that it must give.
//! - What is found is explained only by all that was acknowledged, in order, and some of the requests in doubt. Of those
//!   with keys of one hash tag it is the first ones, whatever happened to the others: one tag is one slot, and a
//!   slot's writes keep their order. A request over several keys happened as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use super::resp::{self, Reply};

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The string.
    pub bytes: Arc<Vec<u8>>,
    /// When it expires, in milliseconds since the Unix epoch.
    pub deadline_ms: Option<u64>,
}

/// Every key of a database.
pub type Keys = BTreeMap<String, Value>;

/// A request to one database. Keys are `{tag}name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `SET key value [PXAT deadline]`
    Set(String, Vec<u8>, Option<u64>),
    /// `APPEND key piece`
    Append(String, Vec<u8>),
    /// `INCR key`
    Increment(String),
    /// `PERSIST key`
    Persist(String),
    /// `GET key`
    Get(String),
    /// `MSET key value ...`
    SetAll(Vec<(String, Vec<u8>)>),
    /// `MSETNX key value ...`
    SetAllIfNone(Vec<(String, Vec<u8>)>),
    /// `DEL key ...`
    Delete(Vec<String>),
    /// `RENAME from to`
    Rename(String, String),
    /// `COPY from to REPLACE`
    Copy(String, String),
    /// `FLUSHDB`
    Flush,
}

impl Request {
    /// As a client sends it.
    pub fn arguments(&self) -> Vec<Vec<u8>> {
        let words = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        let with_pairs = |name: &str, pairs: &[(String, Vec<u8>)]| {
            let pairs = pairs.iter().flat_map(|(key, value)| [key.as_bytes().to_vec(), value.clone()]);
            words(&[name]).into_iter().chain(pairs).collect()
        };
        match self {
            Self::Set(key, value, deadline_ms) => {
                let mut arguments = words(&["SET", key]);
                arguments.push(value.clone());
                if let Some(deadline_ms) = deadline_ms {
                    arguments.extend(words(&["PXAT", &deadline_ms.to_string()]));
                }
                arguments
            }
            Self::Append(key, piece) => {
                let mut arguments = words(&["APPEND", key]);
                arguments.push(piece.clone());
                arguments
            }
            Self::Increment(key) => words(&["INCR", key]),
            Self::Persist(key) => words(&["PERSIST", key]),
            Self::Get(key) => words(&["GET", key]),
            Self::SetAll(pairs) => with_pairs("MSET", pairs),
            Self::SetAllIfNone(pairs) => with_pairs("MSETNX", pairs),
            Self::Delete(keys) => {
                words(&["DEL"]).into_iter().chain(keys.iter().map(|key| key.as_bytes().to_vec())).collect()
            }
            Self::Rename(from, to) => words(&["RENAME", from, to]),
            Self::Copy(from, to) => words(&["COPY", from, to, "REPLACE"]),
            Self::Flush => words(&["FLUSHDB"]),
        }
    }

    /// Does to `keys` what the server must do; the reply that it must give.
    pub fn apply(&self, keys: &mut Keys) -> Reply {
        let ok = || Reply::Line(b'+', b"OK".to_vec());
        let integer = |number: usize| Reply::Line(b':', number.to_string().into_bytes());
        match self {
            Self::Set(key, value, deadline_ms) => {
                set(keys, key, value.clone(), *deadline_ms);
                ok()
            }
            Self::Append(key, piece) => {
                let before = keys.get(key);
                let deadline_ms = before.and_then(|value| value.deadline_ms);
                let whole =
                    before.map_or(&[][..], |value| &value.bytes).iter().chain(piece).copied().collect();
                set(keys, key, whole, deadline_ms);
                integer(keys[key].bytes.len())
            }
            Self::Increment(key) => {
                let before = keys.get(key);
                let deadline_ms = before.and_then(|value| value.deadline_ms);
                let number: usize = before.map_or(0, |value| {
                    let digits =
                        std::str::from_utf8(&value.bytes).expect("counters are written by INCR alone");
                    digits.parse().expect("counters are written by INCR alone")
                });
                set(keys, key, (number + 1).to_string().into_bytes(), deadline_ms);
                integer(number + 1)
            }
            Self::Persist(key) => {
                integer(keys.get_mut(key).and_then(|value| value.deadline_ms.take()).is_some().into())
            }
            Self::Get(key) => {
                keys.get(key).map_or(Reply::Null(b'$'), |value| Reply::Text(b'$', value.bytes.to_vec()))
            }
            Self::SetAll(pairs) => {
                pairs.iter().for_each(|(key, value)| set(keys, key, value.clone(), None));
                ok()
            }
            Self::SetAllIfNone(pairs) => {
                if pairs.iter().any(|(key, _)| keys.contains_key(key)) {
                    return integer(0);
                }
                pairs.iter().for_each(|(key, value)| set(keys, key, value.clone(), None));
                integer(1)
            }
            Self::Delete(some) => integer(some.iter().filter(|key| keys.remove(*key).is_some()).count()),
            Self::Rename(from, to) => match keys.remove(from) {
                None => Reply::Line(b'-', b"ERR no such key".to_vec()),
                Some(value) => {
                    keys.insert(to.clone(), value);
                    ok()
                }
            },
            Self::Copy(from, to) => match keys.get(from).cloned() {
                None => integer(0),
                Some(value) => {
                    keys.insert(to.clone(), value);
                    integer(1)
                }
            },
            Self::Flush => {
                keys.clear();
                ok()
            }
        }
    }

    /// The hash tags of its keys; `None`: those of all keys.
    fn tags(&self) -> Option<BTreeSet<&str>> {
        let keys: Vec<&String> = match self {
            Self::Set(key, ..)
            | Self::Append(key, _)
            | Self::Increment(key)
            | Self::Persist(key)
            | Self::Get(key) => vec![key],
            Self::SetAll(pairs) | Self::SetAllIfNone(pairs) => pairs.iter().map(|(key, _)| key).collect(),
            Self::Delete(keys) => keys.iter().collect(),
            Self::Rename(from, to) | Self::Copy(from, to) => vec![from, to],
            Self::Flush => return None,
        };
        Some(keys.into_iter().map(|key| key.split_once('}').map_or(&**key, |(tag, _)| tag)).collect())
    }

    fn shares_tag(&self, other: &Self) -> bool {
        match (self.tags(), other.tags()) {
            (Some(own), Some(others)) => !own.is_disjoint(&others),
            _ => true,
        }
    }
}

fn set(keys: &mut Keys, key: &str, bytes: Vec<u8>, deadline_ms: Option<u64>) {
    keys.insert(key.to_owned(), Value { bytes: Arc::new(bytes), deadline_ms });
}

/// Whether `found` is what is there after `acknowledged` and some of the requests in doubt, which were sent in that order.
///
/// # Errors
/// What differs, when nothing explains it.
pub fn explain(acknowledged: &Keys, in_doubt: &[Request], found: &Keys) -> Result<(), String> {
    assert!(in_doubt.len() < 16, "every choice among the requests in doubt is looked at");
    let is_chosen = |choice: u32, index: usize| choice & 1 << index != 0;
    let explains = |choice: u32| {
        let mut keys = acknowledged.clone();
        for (index, request) in in_doubt.iter().enumerate() {
            if is_chosen(choice, index) {
                request.apply(&mut keys);
            }
        }
        keys == *found
    };
    // Of two requests with a common tag the later one happens only behind the earlier one.
    let is_possible = |choice: u32| {
        (0..in_doubt.len()).all(|earlier| {
            is_chosen(choice, earlier)
                || (earlier + 1..in_doubt.len())
                    .all(|later| !is_chosen(choice, later) || !in_doubt[earlier].shares_tag(&in_doubt[later]))
        })
    };
    if (0..1 << in_doubt.len()).any(|choice| is_possible(choice) && explains(choice)) {
        return Ok(());
    }
    let mut sentence = "what is there is not what was acknowledged:\n".to_owned();
    let names: BTreeSet<&String> = acknowledged.keys().chain(found.keys()).collect();
    for name in names {
        let (acknowledged, found) = (acknowledged.get(name), found.get(name));
        if acknowledged != found {
            let _ =
                writeln!(sentence, "  {name}: acknowledged {}, found {}", show(acknowledged), show(found));
        }
    }
    sentence.push_str("requests in doubt:\n");
    for request in in_doubt {
        let _ = writeln!(sentence, "  {}", resp::show_request(&request.arguments()));
    }
    Err(sentence)
}

fn show(value: Option<&Value>) -> String {
    let Some(Value { bytes, deadline_ms }) = value else { return "nothing".to_owned() };
    let shown = bytes[..bytes.len().min(60)].escape_ascii();
    let deadline = deadline_ms.map_or_else(String::new, |deadline_ms| format!(" until {deadline_ms}"));
    format!("'{shown}' ({} bytes){deadline}", bytes.len())
}
