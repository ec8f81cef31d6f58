//! SCAN: a walk over the slots in their order, core after core.
//!
//! The walk is driven from outside. [`parse`] reads the request; each [`ScanRequest::step`] visits some keys of the
//! shards that one core owns in a row, and says where to go on; [`write_reply`] puts the steps' keys together. Whoever drives
//! goes on until [`ScanRequest::count`] keys were visited or the last slot is passed, so `SCAN 0` on a small
//! database returns all of it at once. Because the cursor is a place in the order of (slot, hash), not in a table, a
//! walk sees every key that is there throughout it, whatever else changes or moves.

use crate::{Args, Call, Cursor, Protocol, Reply, Resume, SLOT_COUNT, Shards, Step, glob_match, parse_i64};

use super::{
    Categories, Command, Docs, Flags, Run,
    databases::matches_all,
    docs::{integer, pattern, string},
    failure::{NOT_AN_INTEGER, SYNTAX, is_word},
    keys::type_name,
};

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "scan",
    -2,
    Run::Walk(scan),
    Docs::new(
        "generic",
        "2.8.0",
        "O(1) a call; O(N) for a whole walk, where N is the number of keys",
        "Walks over the keys of the database, some of them a call.",
    )
    .with(&[
        integer("cursor"),
        pattern("pattern").after("MATCH").optional(),
        integer("count").after("COUNT").optional(),
        string("type").after("TYPE").since("6.0.0").optional(),
    ]),
)
.history(&[("6.0.0", "Takes `TYPE`.")])
.categories(Categories::KEYSPACE)
.flags(&[Flags::READONLY])
.tips(&["nondeterministic_output", "request_policy:special"])];

/// Keys that a call visits unless COUNT says otherwise.
const COUNT_DEFAULT: usize = 10;

/// Entries and empty slots that one step looks at, or a table more.
const STEP_ENTRIES: usize = 3_000;

/// A SCAN's arguments.
#[derive(Clone, Copy, Debug)]
pub struct ScanRequest<'a> {
    cursor: Cursor,
    count: usize,
    pattern: Option<&'a [u8]>,
    type_name: Option<&'a [u8]>,
}

/// How far a step came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanProgress {
    /// Where to go on within this core's shards; `None` if the shards that the core owns in a row end here.
    pub cursor: Option<Cursor>,
    /// Keys visited; they use up COUNT.
    pub visited: usize,
    /// Keys that MATCH and TYPE let through: bulk strings appended to the output.
    pub emitted: usize,
}

/// Reads SCAN's arguments.
///
/// # Errors
/// The text of the error reply.
pub fn parse<'a>(args: &'a Args<'_>) -> Result<ScanRequest<'a>, &'static str> {
    let cursor = parse_cursor(args.get(1)).ok_or("ERR invalid cursor")?;
    let mut request = ScanRequest { cursor, count: COUNT_DEFAULT, pattern: None, type_name: None };
    for index in (2..args.len()).step_by(2) {
        if index + 1 == args.len() {
            return Err(SYNTAX);
        }
        let value = args.get(index + 1);
        if is_word(args, index, "count") {
            let count = parse_i64(value).ok_or(NOT_AN_INTEGER)?;
            request.count = usize::try_from(count).ok().filter(|&count| count > 0).ok_or(SYNTAX)?;
        } else if is_word(args, index, "match") {
            request.pattern = Some(value).filter(|pattern| !matches_all(pattern));
        } else if is_word(args, index, "type") {
            request.type_name = Some(value);
        } else {
            return Err(SYNTAX);
        }
    }
    Ok(request)
}

/// Reads a cursor as Redis does, which is as `strtoul` does: an empty text is 0, a sign may come first, a minus
/// counts down from 2^64, a zero byte ends the text.
fn parse_cursor(text: &[u8]) -> Option<Cursor> {
    let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(Cursor(0));
    }
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let magnitude = digits.iter().try_fold(0_u64, |value, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })?;
    Some(Cursor(if negative { magnitude.wrapping_neg() } else { magnitude }))
}

impl ScanRequest<'_> {
    /// Where the client wants to go on; 0 begins.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// How many keys the client wants visited, at least 1.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Visits about `remaining` keys of `database` that are live at `now_ms`, from `cursor` on, in the shards that `shards` has in a row,
    /// and appends those that match to `output` as bulk strings (alike in both protocols). Bounded work: it may stop early.
    ///
    /// # Panics
    /// If the cursor's slot belongs to another core.
    pub fn step(
        &self,
        shards: &mut Shards,
        database: u8,
        cursor: Cursor,
        remaining: usize,
        now_ms: u64,
        output: &mut Vec<u8>,
    ) -> ScanProgress {
        let mut progress = ScanProgress { cursor: Some(cursor), visited: 0, emitted: 0 };
        let mut output = Reply::new(output, Protocol::Resp2);
        while let Some(from) = progress.cursor {
            let budget = STEP_ENTRIES.saturating_sub(progress.visited);
            let wanted = remaining.saturating_sub(progress.visited).min(budget);
            if wanted == 0 {
                break;
            }
            let shard = shards.of(from.slot());
            let end = shard.slots().end;
            let next = shard.scan(database, from, wanted, budget, now_ms, |entry| {
                progress.visited += 1;
                let is_match = self.pattern.is_none_or(|pattern| glob_match(pattern, entry.key()))
                    && self
                        .type_name
                        .is_none_or(|name| name.eq_ignore_ascii_case(type_name(entry.value()).as_bytes()));
                if is_match {
                    progress.emitted += 1;
                    output.bulk(entry.key());
                }
            });
            if next.is_some() {
                progress.cursor = next;
                break;
            }
            let goes_on = end < SLOT_COUNT && shards.get(end).is_some();
            progress.cursor = goes_on.then(|| Cursor::of_slot(end));
        }
        progress
    }
}

/// Writes the reply of a whole call: where the client is to go on (0: the walk is over), and the `emitted` keys that the
/// steps left in `keys`.
pub fn write_reply(cursor: Cursor, emitted: usize, keys: &[u8], reply: &mut Reply<'_>) {
    reply.array(2);
    reply.bulk(cursor.0.to_string().as_bytes());
    reply.array(emitted);
    reply.raw(keys);
}

/// The whole call on one core that owns every shard.
fn scan(call: &mut Call<'_>) -> Step {
    let mut walk = match parse(&call.args) {
        Ok(request) => {
            Walk { cursor: request.cursor, remaining: request.count, emitted: 0, keys: Vec::new() }
        }
        Err(text) => {
            call.reply.error(text);
            return Step::Done;
        }
    };
    if walk.resume(call) { Step::Done } else { Step::Continue(Box::new(walk)) }
}

/// A call under way.
struct Walk {
    cursor: Cursor,
    remaining: usize,
    emitted: usize,
    keys: Vec<u8>,
}

impl Resume for Walk {
    fn resume(&mut self, call: &mut Call<'_>) -> bool {
        let request = parse(&call.args).expect("the same arguments were read before");
        let progress = request.step(
            call.shards,
            call.database,
            self.cursor,
            self.remaining,
            call.now_ms,
            &mut self.keys,
        );
        self.emitted += progress.emitted;
        self.remaining = self.remaining.saturating_sub(progress.visited);
        let is_done = self.remaining == 0 || progress.cursor.is_none();
        self.cursor = progress.cursor.unwrap_or(Cursor(0));
        if is_done {
            write_reply(self.cursor, self.emitted, &self.keys, &mut call.reply);
        }
        is_done
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::command::testing::TestKeyspace;

    #[test]
    fn a_small_database_comes_at_once() {
        let mut keyspace = TestKeyspace::new();
        assert_eq!(keyspace.run("SCAN 0"), "[$0, []]");
        keyspace.run("MSET a 1 b 2 {c}1 3 {c}2 4 '' 5");
        assert_eq!(keyspace.run_sorted("SCAN 0"), "[$0, [$, $a, $b, ${c}1, ${c}2]]");
        assert_eq!(keyspace.run_sorted("SCAN 0 MATCH {c}? COUNT 1000 TYPE String"), "[$0, [${c}1, ${c}2]]");
        assert_eq!(keyspace.run("SCAN 0 TYPE list"), "[$0, []]");
        assert_eq!(keyspace.run("SCAN 0 TYPE bogus"), "[$0, []]");
        assert_eq!(keyspace.run("SCAN 18446744073709551615"), "[$0, []]");
    }

    #[test]
    fn a_walk_returns_every_key_once() {
        let mut keyspace = TestKeyspace::new();
        let mut expected = BTreeSet::new();
        for number in 0..3_000 {
            let key = format!("{{{}}}{number}", number % 7);
            keyspace.run(&format!("SET {key} v"));
            expected.insert(format!("${key}"));
        }
        for count in [1, 7, 1_000, 100_000] {
            let mut cursor = "0".to_owned();
            let mut found = Vec::new();
            loop {
                let reply = keyspace.run(&format!("SCAN {cursor} COUNT {count}"));
                let (next, keys) = reply[2..reply.len() - 2].split_once(", [").expect("cursor and keys");
                found.extend(keys.split(", ").filter(|key| !key.is_empty()).map(str::to_owned));
                cursor = next.to_owned();
                if cursor == "0" {
                    break;
                }
                assert!(keys.split(", ").count() >= count);
            }
            assert_eq!(found.len(), expected.len());
            assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
        }
    }

    #[test]
    fn errors_are_those_of_redis() {
        const CURSOR: &str = "-ERR invalid cursor";
        TestKeyspace::new().check(&[
            ("SCAN", "-ERR wrong number of arguments for 'scan' command"),
            ("SCAN abc", CURSOR),
            ("SCAN 1.5", CURSOR),
            ("SCAN ' 0'", CURSOR),
            ("SCAN '0 '", CURSOR),
            ("SCAN -", CURSOR),
            ("SCAN 18446744073709551616", CURSOR),
            ("SCAN abc COUNT 0", CURSOR),
            ("SCAN 0 COUNT", "-ERR syntax error"),
            ("SCAN 0 COUNT 0", "-ERR syntax error"),
            ("SCAN 0 COUNT -1", "-ERR syntax error"),
            ("SCAN 0 COUNT x", "-ERR value is not an integer or out of range"),
            ("SCAN 0 COUNT 10 COUNT 0", "-ERR syntax error"),
            ("SCAN 0 BOGUS 1", "-ERR syntax error"),
            ("SCAN 0 MATCH * TYPE", "-ERR syntax error"),
            ("SCAN '' COUNT 9223372036854775807", "[$0, []]"),
            ("SCAN 0\\x00abc", "[$0, []]"),
            ("SCAN +0", "[$0, []]"),
            ("SCAN -0", "[$0, []]"),
        ]);
    }

    #[test]
    fn cursors_wrap_as_strtoul_does() {
        assert_eq!(parse_cursor(b"-1"), Some(Cursor(u64::MAX)));
        assert_eq!(parse_cursor(b"18446744073709551615"), Some(Cursor(u64::MAX)));
    }
}
