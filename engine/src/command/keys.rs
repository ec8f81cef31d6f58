//! Keys of whatever type: DEL, EXISTS, TYPE, RENAME, COPY, MOVE and their relatives.
//!
//! RENAME, RENAMENX and COPY run here when both keys are on one core; otherwise the server takes the value out of one
//! shard and puts it into the other, and only [`parse_copy`] is shared.

use crate::{Args, Call, Step, Value};

use super::{
    Argument, Categories, Command, Docs, Flags, Handler, KeyAccess, Keys, Merge, Plan, Run,
    docs::{KEY, integer, key, word},
    failure::{self, NO_SUCH_KEY, SAME_OBJECT, SYNTAX, attempt, is_word},
    many::prefetch_from,
};

pub(super) const COMMANDS: &[Command] = &[
    counting("del", delete, docs("1.0.0", EACH, "Removes keys."))
        .flags(&[Flags::WRITE])
        .keys(Keys::ALL, &[KeyAccess::DELETE]),
    counting("unlink", delete, docs("4.0.0", EACH, "Removes keys; their memory is freed later."))
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(Keys::ALL, &[KeyAccess::DELETE]),
    counting("exists", exists, docs("1.0.0", EACH, "Counts how many of the keys exist."))
        .history(&[("3.0.3", "Takes several keys.")])
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(Keys::ALL, &[KeyAccess::PEEK]),
    counting("touch", touch, docs("3.2.1", EACH, "Marks keys as accessed and counts those that exist."))
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(Keys::ALL, &[KeyAccess::PEEK]),
    row(
        "type",
        2,
        Run::Single(type_of),
        docs("1.0.0", "O(1)", "Returns the type of a key's value.").with(&[KEY]),
    )
    .flags(&[Flags::READONLY, Flags::FAST])
    .keys(Keys::FIRST, &[KeyAccess::PEEK]),
    row(
        "rename",
        3,
        Run::Staged(rename, Plan::Rename),
        docs("1.0.0", "O(1)", "Gives a value another key, replacing what that key held.")
            .with(&[KEY, key("newkey")]),
    )
    .flags(&[Flags::WRITE])
    .keys(Keys::TWO, &[KeyAccess::READ_DELETE, KeyAccess::OVERWRITE]),
    row(
        "renamenx",
        3,
        Run::Staged(renamenx, Plan::Rename),
        docs("1.0.0", "O(1)", "Gives a value another key, unless that key exists.")
            .with(&[KEY, key("newkey")]),
    )
    .history(&[("3.2.0", "The two keys may be one.")])
    .flags(&[Flags::WRITE, Flags::FAST])
    .keys(Keys::TWO, &[KeyAccess::READ_DELETE, KeyAccess::CREATE]),
    row(
        "copy",
        -3,
        Run::Staged(copy, Plan::Copy),
        docs("6.2.0", "O(N) where N is the size of the value", "Duplicates a value under another key.").with(
            &[
                key("source"),
                key("destination"),
                integer("destination-db").after("DB").optional(),
                word("replace", "REPLACE").optional(),
            ],
        ),
    )
    .flags(&[Flags::WRITE, Flags::DENYOOM])
    .keys(Keys::TWO, &[KeyAccess::READ, KeyAccess::OVERWRITE]),
    row(
        "move",
        3,
        Run::Single(move_to_database),
        docs("1.0.0", "O(1)", "Moves a key to another database.").with(&[KEY, integer("db")]),
    )
    .flags(&[Flags::WRITE, Flags::FAST])
    .keys(Keys::FIRST, &[KeyAccess::READ_UPDATE]),
];

const MANY_KEYS: &[Argument] = &[KEY.multiple()];
const EACH: &str = "O(N) where N is the number of keys";

/// A command that counts keys.
const fn counting(name: &'static str, handler: Handler, docs: Docs) -> Command {
    row(name, -2, Run::Split(handler, Merge::Sum), docs.with(MANY_KEYS))
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
}

const fn row(name: &'static str, arity: i16, run: Run, docs: Docs) -> Command {
    Command::new(name, arity, run, docs).categories(Categories::KEYSPACE)
}

const fn docs(since: &'static str, complexity: &'static str, summary: &'static str) -> Docs {
    Docs::new("generic", since, complexity, summary)
}

fn delete(call: &mut Call<'_>) -> Step {
    count(call, |place| place.remove())
}

fn exists(call: &mut Call<'_>) -> Step {
    count(call, |place| place.peek().is_some())
}

fn touch(call: &mut Call<'_>) -> Step {
    count(call, |place| place.access().is_some())
}

/// Replies with how many of the keys `counts` says yes to.
#[inline]
fn count(call: &mut Call<'_>, counts: impl Fn(&mut crate::call::Place<'_>) -> bool) -> Step {
    let mut total = 0;
    for ordinal in 0..call.keys.len() {
        prefetch_from(call, ordinal);
        total += i64::from(counts(&mut call.place(ordinal, 1 + ordinal).0));
    }
    call.reply.integer(total);
    Step::Done
}

fn type_of(call: &mut Call<'_>) -> Step {
    let (mut place, _, reply) = call.first();
    reply.simple(place.peek().map_or("none", |entry| type_name(entry.value())));
    Step::Done
}

/// What TYPE calls a value.
pub(super) fn type_name(value: Value<'_>) -> &'static str {
    match value {
        Value::String(_) => "string",
    }
}

fn rename(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        let renamed = move_value(call, true).ok_or(NO_SUCH_KEY)?;
        assert!(renamed, "what RENAME replaces is no obstacle");
        call.reply.ok();
        Ok(())
    })
}

fn renamenx(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        let renamed = move_value(call, false).ok_or(NO_SUCH_KEY)?;
        call.reply.integer(i64::from(renamed));
        Ok(())
    })
}

/// Moves the first key's value to the second key. `None` without a value; `Some(false)` if the second key exists and must not
/// be replaced. A key renamed to itself stays as it is. Both keys are accessed, the second one if it is looked at.
fn move_value(call: &mut Call<'_>, replace: bool) -> Option<bool> {
    call.first().0.take_up()?;
    if call.args.get(1) == call.args.get(2) {
        return Some(replace);
    }
    if !replace && call.place(1, 2).0.take_up().is_some() {
        return Some(false);
    }
    let value = call.first().0.detach()?;
    call.place(1, 2).0.attach(value);
    Some(true)
}

/// COPY's options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyOptions {
    /// The database of the destination.
    pub database: u8,
    /// Whether a destination that exists is replaced.
    pub replace: bool,
}

/// Reads COPY's options for a connection that has selected `database`.
///
/// # Errors
/// The text of the error reply: unknown options, no such database, or a source that is its own destination.
pub fn parse_copy(args: &Args<'_>, database: u8) -> Result<CopyOptions, &'static str> {
    let mut options = CopyOptions { database, replace: false };
    let mut index = 3;
    while index < args.len() {
        if is_word(args, index, "replace") {
            options.replace = true;
        } else if is_word(args, index, "db") && index + 1 < args.len() {
            index += 1;
            options.database = failure::database(args.get(index))?;
        } else {
            return Err(SYNTAX);
        }
        index += 1;
    }
    if options.database == database && args.get(1) == args.get(2) {
        return Err(SAME_OBJECT);
    }
    Ok(options)
}

fn copy(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        let options = parse_copy(&call.args, call.database)?;
        let is_there = call.first().0.read().is_some();
        let is_free = is_there && {
            let mut destination = call.place(1, 2).0.in_database(options.database);
            options.replace || destination.take_up().is_none()
        };
        let value = if is_free { call.first().0.duplicate() } else { None };
        let is_copied = value.is_some();
        if let Some(value) = value {
            call.place(1, 2).0.in_database(options.database).attach(value);
        }
        call.reply.integer(i64::from(is_copied));
        Ok(())
    })
}

fn move_to_database(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        let target = failure::database(call.args.get(2))?;
        if target == call.database {
            return Err(SAME_OBJECT.into());
        }
        let is_there = call.first().0.take_up().is_some();
        let is_free = is_there && call.first().0.in_database(target).take_up().is_none();
        let value = if is_free { call.first().0.detach() } else { None };
        let is_moved = value.is_some();
        if let Some(value) = value {
            call.first().0.in_database(target).attach(value);
        }
        call.reply.integer(i64::from(is_moved));
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use crate::command::testing::TestKeyspace;

    #[test]
    fn keys_are_counted_as_often_as_they_are_named() {
        TestKeyspace::new().check(&[
            ("MSET a 1 b 2 c 3", "+OK"),
            ("EXISTS a a missing b", ":3"),
            ("TOUCH a b a missing", ":3"),
            ("DEL a a missing", ":1"),
            ("UNLINK b c b", ":2"),
            ("DBSIZE", ":0"),
            ("TYPE a", "+none"),
            ("SET a 1", "+OK"),
            ("TYPE a", "+string"),
        ]);
        let many: String = (0..100).map(|number| format!(" key:{number} {number}")).collect();
        let mut keyspace = TestKeyspace::new();
        keyspace.run(&format!("MSET{many}"));
        assert_eq!(keyspace.run(&format!("EXISTS{many}")), ":100");
        assert_eq!(keyspace.run(&format!("DEL{many}")), ":100");
    }

    #[test]
    fn values_move_with_their_expiry() {
        TestKeyspace::new().check(&[
            ("RENAME missing b", "-ERR no such key"),
            ("RENAME missing missing", "-ERR no such key"),
            ("RENAMENX missing b", "-ERR no such key"),
            ("RENAMENX missing missing", "-ERR no such key"),
            ("SET a 1 EX 100", "+OK"),
            ("RENAME a a", "+OK"),
            ("RENAMENX a a", ":0"),
            ("SET b 2", "+OK"),
            ("RENAMENX a b", ":0"),
            ("RENAME a b", "+OK"),
            ("GET b", "$1"),
            ("TTL b", ":100"),
            ("EXISTS a", ":0"),
            ("RENAMENX b c", ":1"),
            ("TTL c", ":100"),
        ]);
    }

    #[test]
    fn what_moves_or_stands_in_the_way_is_accessed() {
        let mut keyspace = TestKeyspace::new();
        let mut idle = |line: &str, keys: [&str; 2]| {
            keyspace.run("MSET a 1 b 2");
            keyspace.now_ms += 5_000;
            keyspace.run(line);
            keys.map(|key| keyspace.run(&format!("OBJECT IDLETIME {key}")))
        };
        assert_eq!(idle("RENAME a c", ["c", "b"]), [":0", ":5"]);
        for line in ["COPY a b", "RENAMENX a b"] {
            assert_eq!(idle(line, ["a", "b"]), [":0", ":0"], "{line}");
        }
        for line in ["RENAME a a", "RENAMENX a a", "MSETNX a 3 b 4", "RESTORE a 0 x"] {
            assert_eq!(idle(line, ["a", "b"]), [":0", ":5"], "{line}");
        }
        for line in ["EXISTS a", "MSETNX missing 3", "RENAMENX none a", "COPY none a"] {
            assert_eq!(idle(line, ["a", "b"]), [":5", ":5"], "{line}");
        }
        keyspace.run("FLUSHALL");
        keyspace.run("SET a 1");
        keyspace.now_ms += 5_000;
        keyspace.check(&[("MOVE a 1", ":1"), ("SET a 2", "+OK")]);
        keyspace.now_ms += 5_000;
        assert_eq!(keyspace.run("MOVE a 1"), ":0");
        keyspace.check(&[("OBJECT IDLETIME a", ":0")]);
        keyspace.database = 1;
        keyspace.check(&[("OBJECT IDLETIME a", ":0")]);
        keyspace.touch = false;
        keyspace.now_ms += 5_000;
        keyspace.check(&[("RENAME a b", "+OK"), ("OBJECT IDLETIME b", ":5")]);
    }

    #[test]
    fn copies_stand_alone() {
        TestKeyspace::new().check(&[
            ("COPY missing b", ":0"),
            ("COPY a a", "-ERR source and destination objects are the same"),
            ("SET a 1 EX 100", "+OK"),
            ("COPY a b", ":1"),
            ("TTL b", ":100"),
            ("APPEND a x", ":2"),
            ("GET b", "$1"),
            ("COPY a b", ":0"),
            ("COPY a b REPLACE", ":1"),
            ("GET b", "$1x"),
            ("COPY a a DB 1", ":1"),
            ("COPY a a db 1 replace", ":1"),
            ("COPY a a DB 1 DB 0", "-ERR source and destination objects are the same"),
            ("COPY a b DB", "-ERR syntax error"),
            ("COPY a b BOGUS", "-ERR syntax error"),
            ("COPY a b DB x", "-ERR value is not an integer or out of range"),
            ("COPY a b DB 16", "-ERR DB index is out of range"),
            ("COPY a b DB -1", "-ERR DB index is out of range"),
            (
                "COPY a b DB 99999999999",
                "-ERR value is out of range, value must between -2147483648 and 2147483647",
            ),
        ]);
    }

    #[test]
    fn keys_move_between_databases() {
        let mut keyspace = TestKeyspace::new();
        keyspace.check(&[
            ("SET a zero EX 100", "+OK"),
            ("MOVE a 0", "-ERR source and destination objects are the same"),
            ("MOVE a 16", "-ERR DB index is out of range"),
            ("MOVE a x", "-ERR value is not an integer or out of range"),
            ("MOVE missing 1", ":0"),
            ("MOVE a 1", ":1"),
            ("GET a", "nil"),
            ("SET a again", "+OK"),
            ("MOVE a 1", ":0"),
            ("GET a", "$again"),
        ]);
        keyspace.database = 1;
        keyspace.check(&[("GET a", "$zero"), ("TTL a", ":100")]);
    }
}
