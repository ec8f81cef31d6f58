//! Shelves of a few places, between which values are moved and copied: MSETNX, COPY, RENAME and RENAMENX, beside plain reads and
//! writes of single places, and beside FLUSHALL.
//!
//! Invariants:
//!
//! - A shelf is one object ([`duva_tools::linearizability::places`]): one order of whole commands must explain all replies. So whoever sees
//!   a part of a command sees all of it.
//! - FLUSHALL comes to each shard at one moment between its request and its reply, but not to all at the same one: it is as many
//!   operations as a shelf has shards, each of all places in its shard. If it is refused, it may have come to some of them.
//! - Every value is put on a shelf by one request only.

use duva_engine::key_slot;
use duva_tools::linearizability::{
    Action, Answer, Operation,
    places::{Change, join, members},
};

use super::several::key;
use crate::sim::{random::Random, resp::Reply};

/// Places of a shelf, and the set of all of them.
const PLACES: usize = 3;
const ALL: u32 = (1 << PLACES) - 1;

/// Where the places of a shelf are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shelf {
    /// In several shards.
    Spread,
    /// In one shard, but in several slots.
    Near,
    /// In one slot.
    Tagged,
}

/// The forms of FLUSHALL.
const FLUSHES: [&[&[u8]]; 4] =
    [&[b"FLUSHALL"], &[b"FLUSHALL", b"ASYNC"], &[b"FLUSHDB"], &[b"FLUSHDB", b"SYNC"]];

impl Shelf {
    const EACH: [Self; 3] = [Self::Spread, Self::Near, Self::Tagged];

    /// The name of the object.
    pub(super) fn name(self) -> Vec<u8> {
        format!("{self:?} shelf").into_bytes()
    }

    fn place(self, number: usize) -> Vec<u8> {
        match self {
            Self::Spread => key("shelf", number),
            Self::Near => key(&format!("near{number}"), 1),
            Self::Tagged => format!("{{shelf}}:{number}").into_bytes(),
        }
    }

    /// Something to do with one, and which.
    pub(super) fn invent(random: &mut Random, value: &str) -> (Self, Action) {
        let shelf = random.pick(&[Self::Spread, Self::Spread, Self::Near, Self::Tagged]);
        let value = value.as_bytes().to_vec();
        let place = random.index(PLACES);
        let other = (place + 1 + random.index(PLACES - 1)) % PLACES;
        let set = 1 + random.below(u64::from(ALL)) as u32;
        let change = match random.below(24) {
            0..=3 => return (shelf, Action::Get),
            4..=6 => Change::Get(place),
            7 | 8 => Change::Set(1 << place, value),
            9 => Change::Set(set, value),
            10..=13 => Change::SetIfNone(set, value),
            14 | 15 => Change::Delete(set),
            16 => Change::Delete(ALL),
            17 | 18 => Change::Copy(place, other),
            19 | 20 => Change::CopyOver(place, other),
            21 | 22 => Change::RenameIfNone(place, other),
            _ => Change::Rename(place, other),
        };
        (shelf, Action::Places(change))
    }

    /// What is read last, of all shelves.
    pub(super) fn last_reads() -> impl Iterator<Item = (Self, Action)> {
        let places = || (0..PLACES).map(|place| Action::Places(Change::Get(place)));
        Self::EACH
            .into_iter()
            .flat_map(move |shelf| places().chain([Action::Get]).map(move |read| (shelf, read)))
    }

    /// Whether the keys of something are in several slots.
    pub(super) fn crosses(self, action: Option<&Action>) -> bool {
        let is_of_one = match action {
            Some(Action::Places(Change::Get(_))) => true,
            Some(Action::Places(Change::Set(set, _) | Change::SetIfNone(set, _) | Change::Delete(set))) => {
                set.count_ones() == 1
            }
            _ => false,
        };
        !is_of_one && self != Self::Tagged
    }

    /// The request.
    pub(super) fn arguments(self, action: Option<&Action>) -> Vec<Vec<u8>> {
        let words = |name: &str, places: &[usize]| {
            let places = places.iter().map(|&place| self.place(place));
            std::iter::once(name.as_bytes().to_vec()).chain(places).collect::<Vec<_>>()
        };
        let pairs = |name: &str, set: u32, value: &Vec<u8>| {
            let pairs = members(set).flat_map(|place| [self.place(place), value.clone()]);
            std::iter::once(name.as_bytes().to_vec()).chain(pairs).collect()
        };
        let change = match action {
            Some(Action::Places(change)) => change,
            _ => return words("MGET", &[0, 1, 2]),
        };
        match change {
            Change::Get(place) => words("GET", &[*place]),
            Change::Set(set, value) if set.count_ones() == 1 => pairs("SET", *set, value),
            Change::Set(set, value) => pairs("MSET", *set, value),
            Change::SetIfNone(set, value) => pairs("MSETNX", *set, value),
            Change::Delete(set) | Change::Clear(set) => words("DEL", &members(*set).collect::<Vec<_>>()),
            Change::Rename(from, to) => words("RENAME", &[*from, *to]),
            Change::RenameIfNone(from, to) => words("RENAMENX", &[*from, *to]),
            Change::Copy(from, to) => words("COPY", &[*from, *to]),
            Change::CopyOver(from, to) => {
                let mut words = words("COPY", &[*from, *to]);
                words.push(b"REPLACE".to_vec());
                words
            }
        }
    }

    /// What a reply that is no other error says; `None`: it is none to this.
    pub(super) fn hear(action: Option<&Action>, reply: &Reply) -> Option<Answer> {
        let change = match action {
            Some(Action::Places(change)) => Some(change),
            _ => None,
        };
        let value = |reply: &Reply| match reply {
            Reply::Nil => Some(None),
            Reply::Bulk(value) => Some(Some(value.clone())),
            _ => None,
        };
        let answer = match (change, reply) {
            (None, Reply::Array(items)) if items.len() == PLACES => {
                let values = items.iter().map(value).collect::<Option<Vec<_>>>()?;
                Answer::Value(join(&values.iter().map(Option::as_deref).collect::<Vec<_>>()))
            }
            (Some(Change::Get(_)), reply) => Answer::Value(value(reply)?),
            (Some(Change::Set(..) | Change::Rename(..)), Reply::Simple(text)) if text == b"OK" => {
                Answer::Done
            }
            (Some(Change::Rename(..) | Change::RenameIfNone(..)), Reply::Error(text))
                if text == b"ERR no such key" =>
            {
                Answer::NoKey
            }
            (Some(Change::Set(..) | Change::Rename(..)) | None, _) => return None,
            (Some(_), Reply::Integer(number)) => Answer::Integer(*number),
            _ => return None,
        };
        Some(answer)
    }
}

/// The request for which everything is removed, in one of its forms.
pub(super) fn flush_arguments(form: usize) -> Vec<Vec<u8>> {
    FLUSHES[form % FLUSHES.len()].iter().map(|word| word.to_vec()).collect()
}

/// What a request for which everything is removed does to all shelves, and to other keys.
pub(super) fn flush_operations(
    client: usize,
    invoked_ns: u64,
    returned_ns: Option<u64>,
    keys: impl Iterator<Item = Vec<u8>>,
) -> impl Iterator<Item = Operation> {
    let clear = |set| Action::Places(Change::Clear(set));
    let shelves = Shelf::EACH.into_iter().flat_map(move |shelf| {
        let sets = if shelf == Shelf::Spread { vec![1, 2, 4] } else { vec![ALL] };
        sets.into_iter().map(move |set| (shelf.name(), clear(set)))
    });
    keys.map(|key| (key, Action::Clear)).chain(shelves).map(move |(key, action)| Operation {
        client,
        key,
        invoked_ns,
        action,
        returned: returned_ns.map(|at_ns| (at_ns, Answer::Done)),
    })
}

/// Where a client is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// The node, from 0.
    pub(super) to: usize,
    pub(super) slot: u16,
}

/// Where an error sends a client; `None`: it is another one.
///
/// # Errors
/// It sends it nowhere.
pub(super) fn moved(text: &[u8]) -> Result<Option<Moved>, String> {
    let Some(rest) = text.strip_prefix(b"MOVED ") else { return Ok(None) };
    let text = String::from_utf8_lossy(rest);
    let parsed = text.split_once(' ').and_then(|(slot, address)| {
        let to = (0..16).find(|&node| address == format!("{}:7000", super::io::address_of(node)))?;
        Some(Moved { to, slot: slot.parse().ok()? })
    });
    parsed.map(Some).ok_or_else(|| format!("a client is moved nowhere: {text}"))
}

/// The slot of a request's first key, or 0.
pub(super) fn slot_of(arguments: &[Vec<u8>]) -> u16 {
    let place = if arguments[0] == b"ONCE" { 4 } else { 1 };
    arguments.get(place).map_or(0, |key| key_slot(key))
}
