//! Requests whose keys lie in several shards, and what their replies must say.
//!
//! Invariants:
//!
//! - The keys of a family are only ever written together, so they are one register: whoever reads all of them finds the same
//!   everywhere, and whoever reads one of them reads the register. It is judged like any other.
//! - One token is moved from place to place by RENAME: whoever reads all places finds it at one of them. Its value is a register,
//!   written by SET XX, which is no operation where the token is not.
//! - Where nodes send clients to leaders, whatever has keys in several slots is refused with CROSSSLOT, and is no operation.

use duva_engine::key_slot;
use duva_tools::linearizability::{Action, Answer, Operation};

use super::{
    boot::SHARDS,
    client::Heard,
    shelves::{self, Shelf},
};
use crate::sim::{random::Random, resp::Reply};

/// Families of keys, and keys of each.
const FAMILIES: usize = 2;
const MEMBERS: usize = 3;

/// Places of the token.
const PLACES: usize = 3;

/// The token's register, and its first value.
const TOKEN: &[u8] = b"token";
const FIRST_VALUE: &[u8] = b"new";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Several {
    /// All keys of a family are set, to the action's value.
    Set(usize),
    /// All are removed.
    Delete(usize),
    /// All are read.
    Get(usize),
    /// One of them is.
    GetOne(usize, usize),
    /// The token is moved.
    Move(usize, usize),
    /// It gets another value, if it is there.
    Mark(usize),
    /// All its places are read.
    Find,
    /// Something is done with a shelf: the action.
    Shelve(Shelf),
    /// Everything is removed, by a request of this form.
    Flush(usize),
}

/// A key whose name begins so, of a shard.
pub(super) fn key(family: &str, shard: usize) -> Vec<u8> {
    let slots = duva_engine::SLOT_COUNT / SHARDS;
    let names = (0..).map(|number| format!("{family}:{number}").into_bytes());
    let is_there = |name: &Vec<u8>| usize::from(key_slot(name) / slots) == shard % usize::from(SHARDS);
    names.into_iter().find(is_there).expect("every slot has keys")
}

fn member(family: usize, member: usize) -> Vec<u8> {
    key(&format!("family{family}"), family + member)
}

fn place(number: usize) -> Vec<u8> {
    key("token", number + 1)
}

/// What puts the token where it is first.
pub(super) fn first_request() -> Vec<Vec<u8>> {
    vec![b"SET".to_vec(), place(0), FIRST_VALUE.to_vec()]
}

/// That this was done.
pub(super) fn first_operation(now_ns: u64) -> Operation {
    Operation {
        client: usize::MAX,
        key: TOKEN.to_vec(),
        invoked_ns: now_ns,
        action: Action::Set(FIRST_VALUE.to_vec()),
        returned: Some((now_ns, Answer::Done)),
    }
}

/// What is read last.
pub(super) fn last_requests() -> impl Iterator<Item = Several> {
    (0..FAMILIES).map(Several::Get).chain([Several::Find])
}

impl Several {
    /// Something to ask for.
    pub(super) fn invent(random: &mut Random) -> Self {
        let family = random.index(FAMILIES);
        match random.below(14) {
            0..=2 => Self::Set(family),
            3 => Self::Delete(family),
            4..=6 => Self::Get(family),
            7 | 8 => Self::GetOne(family, random.index(MEMBERS)),
            9 => Self::Find,
            10 | 11 => Self::Mark(random.index(PLACES)),
            _ => {
                let from = random.index(PLACES);
                Self::Move(from, (from + 1 + random.index(PLACES - 1)) % PLACES)
            }
        }
    }

    /// What it does to its register, and the register's name.
    pub(super) fn action(self, value: &str) -> (Option<Action>, Vec<u8>) {
        let name = |family: usize| format!("family{family}").into_bytes();
        match self {
            Self::Set(family) => (Some(Action::Set(value.as_bytes().to_vec())), name(family)),
            Self::Delete(family) => (Some(Action::Delete), name(family)),
            Self::Get(family) | Self::GetOne(family, _) => (Some(Action::Get), name(family)),
            Self::Mark(_) => (Some(Action::Set(value.as_bytes().to_vec())), TOKEN.to_vec()),
            Self::Find => (Some(Action::Get), TOKEN.to_vec()),
            Self::Move(..) | Self::Shelve(_) | Self::Flush(_) => (None, Vec::new()),
        }
    }

    /// Whether its keys are in several slots.
    pub(super) fn crosses(self, action: Option<&Action>) -> bool {
        match self {
            Self::Set(_) | Self::Delete(_) | Self::Get(_) | Self::Move(..) | Self::Find => true,
            Self::GetOne(..) | Self::Mark(_) | Self::Flush(_) => false,
            Self::Shelve(shelf) => shelf.crosses(action),
        }
    }

    /// The request.
    pub(super) fn arguments(self, action: Option<&Action>) -> Vec<Vec<u8>> {
        let members = |family: usize| (0..MEMBERS).map(move |number| member(family, number));
        let name = |name: &str| std::iter::once(name.as_bytes().to_vec());
        match self {
            Self::Set(family) => {
                let Some(Action::Set(value)) = action else { panic!("a value is set") };
                name("MSET").chain(members(family).flat_map(|key| [key, value.clone()])).collect()
            }
            Self::Delete(family) => name("DEL").chain(members(family)).collect(),
            Self::Get(family) => name("MGET").chain(members(family)).collect(),
            Self::GetOne(family, number) => name("GET").chain([member(family, number)]).collect(),
            Self::Move(from, to) => name("RENAME").chain([place(from), place(to)]).collect(),
            Self::Mark(at) => {
                let Some(Action::Set(value)) = action else { panic!("a value is set") };
                name("SET").chain([place(at), value.clone(), b"XX".to_vec()]).collect()
            }
            Self::Find => name("MGET").chain((0..PLACES).map(place)).collect(),
            Self::Shelve(shelf) => shelf.arguments(action),
            Self::Flush(form) => shelves::flush_arguments(form),
        }
    }

    /// What a reply says, if nodes send clients to leaders, or do not.
    pub(super) fn hear(
        self,
        action: Option<&Action>,
        reply: &Reply,
        redirects: bool,
    ) -> Result<Heard, String> {
        let value = |reply: &Reply| match reply {
            Reply::Nil => Some(None),
            Reply::Bulk(value) => Some(Some(value.clone())),
            _ => None,
        };
        let wrong = || Err(format!("{self:?} ({action:?}) is answered with {}", reply.shown()));
        let must_cross = redirects && self.crosses(action);
        if let Self::Shelve(_) = self
            && !must_cross
            && let Some(answer) = Shelf::hear(action, reply)
        {
            return Ok(Heard::Answer(answer));
        }
        if let Reply::Error(text) = reply {
            return match text.split(|&byte| byte == b' ').next().unwrap_or_default() {
                b"UNCERTAIN" => Ok(Heard::Uncertain),
                b"CROSSSLOT" if must_cross => Ok(Heard::Crossed),
                b"MOVED" if redirects && !must_cross => Ok(Heard::Moved),
                b"CLUSTERDOWN" | b"LOADING" | b"MISCONF" => Ok(Heard::Refused),
                b"ERR" if matches!(self, Self::Move(..)) && text.ends_with(b"no such key") => {
                    Ok(Heard::Answer(Answer::Done))
                }
                _ => wrong(),
            };
        }
        if must_cross {
            return wrong();
        }
        let answer = match (self, reply) {
            (Self::Mark(_), Reply::Nil) => return Ok(Heard::Refused),
            (Self::Set(_) | Self::Move(..) | Self::Mark(_) | Self::Flush(_), Reply::Simple(text))
                if text == b"OK" =>
            {
                Answer::Done
            }
            (Self::Delete(_), Reply::Integer(count)) if [0, MEMBERS as i64].contains(count) => {
                Answer::Integer(i64::from(*count > 0))
            }
            (Self::GetOne(..), reply) => match value(reply) {
                Some(value) => Answer::Value(value),
                None => return wrong(),
            },
            (Self::Get(_), Reply::Array(items)) if items.len() == MEMBERS => {
                match value(&items[0]).filter(|_| items.iter().all(|item| *item == items[0])) {
                    Some(value) => Answer::Value(value),
                    None => return Err(format!("half of a write is seen: {}", reply.shown())),
                }
            }
            (Self::Find, Reply::Array(items)) if items.len() == PLACES => {
                let mut found = items.iter().filter(|item| **item != Reply::Nil);
                match (found.next().and_then(value), found.next()) {
                    (Some(value), None) => Answer::Value(value),
                    _ => return Err(format!("the token is not at one place: {}", reply.shown())),
                }
            }
            _ => return wrong(),
        };
        Ok(Heard::Answer(answer))
    }
}
