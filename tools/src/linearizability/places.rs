//! Several keys as one object, for commands that read or write more than one of them at one moment.
//!
//! Invariants:
//!
//! - The object's value is what its places hold, in their order, with bars between them. What is empty at the end is left out, and
//!   an object without anything has no value. So equal contents are equal values, and what a place holds is never empty and
//!   has no bar in it.
//! - A set of places is a number with a bit for each.

use std::fmt;

use super::Answer;

/// What a command does to the places.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// GET of one place. What reads all of them is an ordinary read of the object.
    Get(usize),
    /// SET or MSET of these places to this value.
    Set(u32, Vec<u8>),
    /// MSETNX.
    SetIfNone(u32, Vec<u8>),
    /// DEL.
    Delete(u32),
    /// FLUSHALL, which does not say how many there were.
    Clear(u32),
    /// RENAME of one place to another.
    Rename(usize, usize),
    /// RENAMENX.
    RenameIfNone(usize, usize),
    /// COPY.
    Copy(usize, usize),
    /// COPY with REPLACE.
    CopyOver(usize, usize),
}

impl Change {
    /// The value after the change, and the answer.
    pub(super) fn execute(&self, value: Option<&[u8]>) -> (Option<Vec<u8>>, Answer) {
        let mut places = split(value);
        let taken = |places: &[Option<&[u8]>], set: u32| {
            members(set).filter(|&place| places.get(place).copied().flatten().is_some()).count()
        };
        let answer = match self {
            Self::Get(place) => Answer::Value(held(&places, *place).map(<[u8]>::to_vec)),
            Self::Set(set, new) => {
                members(*set).for_each(|place| put(&mut places, place, Some(new)));
                Answer::Done
            }
            Self::SetIfNone(set, new) => {
                let is_free = taken(&places, *set) == 0;
                if is_free {
                    members(*set).for_each(|place| put(&mut places, place, Some(new)));
                }
                Answer::Integer(i64::from(is_free))
            }
            Self::Delete(set) => {
                let count = taken(&places, *set);
                members(*set).for_each(|place| put(&mut places, place, None));
                Answer::Integer(count as i64)
            }
            Self::Clear(set) => {
                members(*set).for_each(|place| put(&mut places, place, None));
                Answer::Done
            }
            Self::Rename(from, _) | Self::RenameIfNone(from, _) if held(&places, *from).is_none() => {
                Answer::NoKey
            }
            Self::Rename(from, to) => {
                let moved = held(&places, *from);
                put(&mut places, *from, None);
                put(&mut places, *to, moved);
                Answer::Done
            }
            Self::RenameIfNone(from, to) => {
                let (moved, is_free) = (held(&places, *from), held(&places, *to).is_none());
                if is_free {
                    put(&mut places, *from, None);
                    put(&mut places, *to, moved);
                }
                Answer::Integer(i64::from(is_free))
            }
            Self::Copy(from, to) | Self::CopyOver(from, to) => {
                let copied = held(&places, *from);
                let may_write = matches!(self, Self::CopyOver(..)) || held(&places, *to).is_none();
                if may_write && copied.is_some() {
                    put(&mut places, *to, copied);
                }
                Answer::Integer(i64::from(may_write && copied.is_some()))
            }
        };
        (join(&places), answer)
    }

    /// What it has in common with all changes that do the same; `None`: no other one does.
    pub(super) fn effect(&self) -> Option<[u32; 3]> {
        let two = |kind, from: usize, to: usize| Some([kind, from as u32, to as u32]);
        match *self {
            Self::Get(place) => two(0, place, 0),
            Self::Set(..) | Self::SetIfNone(..) => None,
            // They differ in their answers only.
            Self::Delete(set) | Self::Clear(set) => Some([1, set, 0]),
            Self::Rename(from, to) => two(2, from, to),
            Self::RenameIfNone(from, to) => two(3, from, to),
            Self::Copy(from, to) => two(4, from, to),
            Self::CopyOver(from, to) => two(5, from, to),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |set: &u32| members(*set).map(|place| place.to_string()).collect::<Vec<_>>().join(",");
        match self {
            Self::Get(place) => write!(formatter, "GET at {place}"),
            Self::Set(set, value) => write!(formatter, "SET {} at {}", value.escape_ascii(), list(set)),
            Self::SetIfNone(set, value) => {
                write!(formatter, "MSETNX {} at {}", value.escape_ascii(), list(set))
            }
            Self::Delete(set) => write!(formatter, "DEL at {}", list(set)),
            Self::Clear(set) => write!(formatter, "FLUSHALL at {}", list(set)),
            Self::Rename(from, to) => write!(formatter, "RENAME {from} to {to}"),
            Self::RenameIfNone(from, to) => write!(formatter, "RENAMENX {from} to {to}"),
            Self::Copy(from, to) => write!(formatter, "COPY {from} to {to}"),
            Self::CopyOver(from, to) => write!(formatter, "COPY {from} to {to} REPLACE"),
        }
    }
}

/// The places of a set.
pub fn members(set: u32) -> impl Iterator<Item = usize> {
    (0..32).filter(move |place| set >> place & 1 == 1)
}

/// The value of an object whose places hold this.
pub fn join(places: &[Option<&[u8]>]) -> Option<Vec<u8>> {
    let count = places.iter().rposition(Option::is_some)? + 1;
    let places: Vec<&[u8]> = places[..count].iter().map(|place| place.unwrap_or_default()).collect();
    Some(places.join(&b'|'))
}

fn split(value: Option<&[u8]>) -> Vec<Option<&[u8]>> {
    let each = value.into_iter().flat_map(|value| value.split(|&byte| byte == b'|'));
    each.map(|place| Some(place).filter(|place| !place.is_empty())).collect()
}

fn held<'a>(places: &[Option<&'a [u8]>], place: usize) -> Option<&'a [u8]> {
    places.get(place).copied().flatten()
}

fn put<'a>(places: &mut Vec<Option<&'a [u8]>>, place: usize, value: Option<&'a [u8]>) {
    places.resize(places.len().max(place + 1), None);
    places[place] = value;
}
