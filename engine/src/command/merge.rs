//! From the replies of several cores to one.
//!
//! Parts are complete replies that handlers wrote. If one is an error, the first error is the whole reply.

use crate::{Call, Reply, Resume};

use super::{Merge, databases::mix};

/// What one core answered.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Its reply, complete.
    pub reply: &'a [u8],
    /// The ordinal numbers of the keys it was given, for [`Merge::ByKey`].
    pub positions: &'a [usize],
}

/// Writes the reply that `parts` make together. `draw` is the randomness of [`Merge::Draw`].
///
/// # Panics
/// If a part is no reply of the kind that the merge expects, or the positions are not each key once: handlers and
/// server do not agree.
pub fn merge(merge: Merge, parts: &[Part<'_>], draw: u64, reply: &mut Reply<'_>) {
    if let Some(error) = first_error(parts) {
        reply.raw(error);
        return;
    }
    match merge {
        Merge::Sum => reply.integer(parts.iter().map(|part| integer(part.reply)).sum()),
        Merge::ByKey => by_key(parts, reply),
        Merge::Concatenate => concatenate(parts, reply),
        Merge::Status => reply.raw(parts.first().expect("every core answers").reply),
        Merge::Draw => draw_one(parts, draw, reply),
    }
}

/// The first part's reply that is an error.
pub fn first_error<'a>(parts: &[Part<'a>]) -> Option<&'a [u8]> {
    parts.iter().map(|part| part.reply).find(|reply| reply.first() == Some(&b'-'))
}

/// What one core answered to a part of very many keys, piece after piece.
#[derive(Debug, Default)]
pub struct LongPart {
    /// The pieces' replies, one after the other: arrays.
    pub reply: Vec<u8>,
    /// The ordinal numbers of its keys, ascending.
    pub positions: Vec<usize>,
    /// How many of the keys are in its pieces up to and including each.
    pub piece_ends: Vec<usize>,
}

/// [`Merge::ByKey`] of very many keys, in steps.
pub struct LongMerge {
    parts: Vec<LongPart>,
    /// How far each part is: keys, bytes, pieces.
    places: Vec<[usize; 3]>,
    /// The key whose element is next, and how many there are.
    next: usize,
    count: usize,
    output: Vec<u8>,
}

/// Elements, and about so many bytes of them, that one step of it copies.
const STEP_ELEMENTS: usize = 4096;
const STEP_BYTES: usize = 256 << 10;

impl LongMerge {
    /// The reply that `parts` make together.
    ///
    /// # Panics
    /// In a step, as [`merge`] does.
    pub fn new(parts: Vec<LongPart>, protocol: crate::Protocol) -> Self {
        let count = parts.iter().map(|part| part.positions.len()).sum();
        let mut output = Vec::with_capacity(parts.iter().map(|part| part.reply.len()).sum());
        Reply::new(&mut output, protocol).array(count);
        Self { places: vec![[0; 3]; parts.len()], parts, next: 0, count, output }
    }

    /// Goes on for one budget; true once all is copied.
    fn go_on(&mut self) -> bool {
        let end = self.count.min(self.next + STEP_ELEMENTS);
        let bytes_end = self.output.len() + STEP_BYTES;
        while self.next < end && self.output.len() < bytes_end {
            self.step();
        }
        self.next == self.count
    }

    /// Copies the next element.
    fn step(&mut self) {
        let mut both = self.parts.iter().zip(&mut self.places);
        let (part, [key, byte, piece]) = both
            .find(|(part, place)| part.positions.get(place[0]) == Some(&self.next))
            .expect("every key is on one core");
        let start = piece.checked_sub(1).map_or(0, |before| part.piece_ends[before]);
        if *key == start {
            let (length, elements) = array(&part.reply[*byte..]);
            assert!(length == part.piece_ends[*piece] - start, "an element a key");
            *byte = part.reply.len() - elements.len();
        }
        let length = reply_length(&part.reply[*byte..]);
        self.output.extend_from_slice(&part.reply[*byte..*byte + length]);
        *byte += length;
        *key += 1;
        *piece += usize::from(*key == part.piece_ends[*piece]);
        self.next += 1;
    }
}

impl Resume for LongMerge {
    fn resume(&mut self, call: &mut Call<'_>) -> bool {
        let is_done = self.go_on();
        if is_done {
            call.reply.raw(&self.output);
        }
        is_done
    }
}

fn by_key(parts: &[Part<'_>], reply: &mut Reply<'_>) {
    let count = parts.iter().map(|part| part.positions.len()).sum();
    let mut elements: Vec<Option<&[u8]>> = vec![None; count];
    for part in parts {
        let (length, mut rest) = array(part.reply);
        assert!(length == part.positions.len(), "an element a key");
        for &position in part.positions {
            let (element, behind) = rest.split_at(reply_length(rest));
            assert!(elements[position].replace(element).is_none(), "a key is on one core");
            rest = behind;
        }
    }
    reply.array(count);
    for element in elements {
        reply.raw(element.expect("every key is on a core"));
    }
}

fn concatenate(parts: &[Part<'_>], reply: &mut Reply<'_>) {
    reply.array(parts.iter().map(|part| array(part.reply).0).sum());
    for part in parts {
        reply.raw(array(part.reply).1);
    }
}

/// Each part is an array of the number of keys and one of them, or null.
fn draw_one(parts: &[Part<'_>], draw: u64, reply: &mut Reply<'_>) {
    let drawn_from = || {
        parts.iter().filter_map(|part| {
            let (_, elements) = array(part.reply);
            let (count, key) = elements.split_at(reply_length(elements));
            // A core may count keys of which none turned out to live.
            let weight =
                if key.first() == Some(&b'$') && key.get(1) != Some(&b'-') { integer(count) } else { 0 };
            (weight > 0).then_some((weight as u64, key))
        })
    };
    let total: u64 = drawn_from().map(|(weight, _)| weight).sum();
    if total == 0 {
        return reply.null();
    }
    let mut rank = mix(draw) % total;
    for (weight, key) in drawn_from() {
        if rank < weight {
            return reply.raw(key);
        }
        rank -= weight;
    }
    unreachable!("the weights add up to the total");
}

/// The number of elements of an array, and its elements.
fn array(reply: &[u8]) -> (usize, &[u8]) {
    assert!(reply.first() == Some(&b'*'), "an array was expected");
    let line = line_length(reply);
    (number(&reply[1..line - 2]) as usize, &reply[line..])
}

/// The value of an integer.
fn integer(reply: &[u8]) -> i64 {
    assert!(reply.first() == Some(&b':'), "an integer was expected");
    number(&reply[1..line_length(reply) - 2])
}

/// How long the reply at the start of `bytes` is: integers, bulk strings and nulls of both protocols.
fn reply_length(bytes: &[u8]) -> usize {
    let line = line_length(bytes);
    match bytes[0] {
        b'$' => match number(&bytes[1..line - 2]) {
            ..0 => line,
            length => line + length as usize + 2,
        },
        b':' | b'+' | b'_' => line,
        kind => panic!("no handler's array has elements of kind {}", kind.escape_ascii()),
    }
}

fn line_length(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| byte == b'\n').expect("a reply's first line ends") + 1
}

fn number(text: &[u8]) -> i64 {
    crate::parse_i64(text).expect("handlers write canonical integers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Protocol;

    fn merged(kind: Merge, parts: &[(&str, &[usize])], draw: u64) -> String {
        let parts: Vec<_> =
            parts.iter().map(|&(reply, positions)| Part { reply: reply.as_bytes(), positions }).collect();
        let mut output = Vec::new();
        merge(kind, &parts, draw, &mut Reply::new(&mut output, Protocol::Resp2));
        String::from_utf8(output).expect("text")
    }

    #[test]
    fn integers_add_up() {
        assert_eq!(merged(Merge::Sum, &[(":1\r\n", &[]), (":41\r\n", &[]), (":0\r\n", &[])], 0), ":42\r\n");
    }

    #[test]
    fn elements_return_to_their_keys() {
        let parts: &[(&str, &[usize])] = &[
            ("*2\r\n$3\r\na\r\n\r\n$-1\r\n", &[2, 0]),
            ("*0\r\n", &[]),
            ("*3\r\n$0\r\n\r\n_\r\n$2\r\nok\r\n", &[1, 4, 3]),
        ];
        assert_eq!(merged(Merge::ByKey, parts, 0), "*5\r\n$-1\r\n$0\r\n\r\n$3\r\na\r\n\r\n$2\r\nok\r\n_\r\n");
    }

    #[test]
    fn elements_of_long_parts_return_to_their_keys() {
        const KEYS: usize = 3 * STEP_ELEMENTS;
        // Every third key is on another core; pieces are of 1,000 keys.
        let part = |is_own: fn(usize) -> bool| {
            let positions: Vec<usize> = (0..KEYS).filter(|&key| is_own(key)).collect();
            let mut part = LongPart::default();
            for piece in positions.chunks(1_000) {
                part.reply.extend_from_slice(format!("*{}\r\n", piece.len()).as_bytes());
                for key in piece {
                    part.reply.extend_from_slice(format!(":{key}\r\n").as_bytes());
                }
                part.piece_ends.push(part.piece_ends.last().unwrap_or(&0) + piece.len());
            }
            LongPart { positions, ..part }
        };
        let parts = vec![part(|key| key % 3 != 0), LongPart::default(), part(|key| key % 3 == 0)];
        let mut merge = LongMerge::new(parts, Protocol::Resp2);
        let elements: String = (0..KEYS).map(|key| format!(":{key}\r\n")).collect();
        let (mut output, mut steps) = (Vec::new(), 1);
        while !merge.go_on() {
            steps += 1;
        }
        Reply::new(&mut output, Protocol::Resp2).raw(&merge.output);
        assert_eq!(String::from_utf8(output).expect("text"), format!("*{KEYS}\r\n{elements}"));
        assert_eq!(steps, 3);
    }

    #[test]
    fn arrays_join() {
        let parts: &[(&str, &[usize])] =
            &[("*1\r\n$1\r\na\r\n", &[]), ("*0\r\n", &[]), ("*2\r\n$1\r\nb\r\n$1\r\nc\r\n", &[])];
        assert_eq!(merged(Merge::Concatenate, parts, 0), "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n");
    }

    #[test]
    fn the_first_error_is_the_reply() {
        for kind in [Merge::Sum, Merge::ByKey, Merge::Concatenate, Merge::Status, Merge::Draw] {
            let parts: &[(&str, &[usize])] =
                &[("+OK\r\n", &[]), ("-ERR one\r\n", &[]), ("-ERR two\r\n", &[])];
            assert_eq!(merged(kind, parts, 0), "-ERR one\r\n");
        }
        assert_eq!(merged(Merge::Status, &[("+OK\r\n", &[]), ("+OK\r\n", &[])], 0), "+OK\r\n");
    }

    #[test]
    fn draws_weigh_cores_by_their_keys() {
        let parts: &[(&str, &[usize])] = &[
            ("*2\r\n:0\r\n$-1\r\n", &[]),
            ("*2\r\n:300\r\n$1\r\na\r\n", &[]),
            ("*2\r\n:9000\r\n_\r\n", &[]),
            ("*2\r\n:100\r\n$1\r\nb\r\n", &[]),
        ];
        let drawn: Vec<_> = (0..1_000).map(|draw| merged(Merge::Draw, parts, draw)).collect();
        let count = |key: &str| drawn.iter().filter(|reply| *reply == key).count();
        assert_eq!(count("$1\r\na\r\n") + count("$1\r\nb\r\n"), 1_000);
        assert!((700..800).contains(&count("$1\r\na\r\n")), "{}", count("$1\r\na\r\n"));
        assert_eq!(merged(Merge::Draw, &parts[..1], 0), "$-1\r\n");
        assert_eq!(merged(Merge::Draw, &[], 0), "$-1\r\n");
    }
}
