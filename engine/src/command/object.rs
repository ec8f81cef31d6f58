//! What lies behind a key: OBJECT and MEMORY.
//!
//! ENCODING answers with the names that Redis's own forms have, which clients and tests know; the forms here are others.

use crate::entry::Form;
use crate::{Args, Call, EntryRef, Reply, Step, Value, parse_i64};

use super::{
    Categories, Command, Docs, Flags, Handler, KeyAccess, Keys, Run, ServerCommand,
    docs::{KEY, integer},
    failure::{Failure, NOT_AN_INTEGER, SYNTAX, attempt, is_word},
};

pub(super) const COMMANDS: &[Command] = &[
    container("object", "generic", "2.2.3", "What there is to know about a value besides itself.")
        .subcommands(OBJECT),
    container("memory", "server", "4.0.0", "What memory is used for.").subcommands(MEMORY),
];

const OBJECT: &[Command] = &[
    object("object|encoding", encoding, "2.2.3", "Returns the name of the form in which a value is kept."),
    object(
        "object|freq",
        freq,
        "4.0.0",
        "Returns how often a key is accessed, where the eviction policy counts it.",
    ),
    object("object|idletime", idletime, "2.2.3", "Returns the seconds since a key was last accessed."),
    object("object|refcount", refcount, "2.2.3", "Returns how many references to a value there are."),
    help("object|help", "generic", "6.2.0").categories(Categories::KEYSPACE),
];

const MEMORY: &[Command] = &[
    Command::new(
        "memory|usage",
        -3,
        Run::Single(memory_usage),
        Docs::new("server", "4.0.0", "O(1)", "Returns the bytes of memory that a key takes.")
            .with(&[KEY, integer("count").after("SAMPLES").optional()]),
    )
    .flags(&[Flags::READONLY])
    .keys(Keys::SECOND, &[KeyAccess::PEEK]),
    help("memory|help", "server", "4.0.0"),
];

/// The longest string that Redis keeps beside its header, in bytes.
const EMBEDDED_BYTES_MAX: usize = 44;

/// So many integers, from 0 on, exist once in Redis.
const SHARED_INTEGERS: i64 = 10_000;

const fn object(name: &'static str, handler: Handler, since: &'static str, summary: &'static str) -> Command {
    let docs = Docs::new("generic", since, "O(1)", summary).with(&[KEY]);
    Command::new(name, 3, Run::Single(handler), docs)
        .flags(&[Flags::READONLY])
        .categories(Categories::KEYSPACE)
        .keys(Keys::SECOND, &[KeyAccess::PEEK])
        .tips(&["nondeterministic_output"])
}

/// A command that does nothing without a subcommand.
pub(super) const fn container(
    name: &'static str,
    group: &'static str,
    since: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(
        name,
        -2,
        Run::Server(ServerCommand::Help),
        Docs::new(group, since, "Depends on the subcommand", summary),
    )
}

/// A container's HELP.
pub(super) const fn help(name: &'static str, group: &'static str, since: &'static str) -> Command {
    let docs = Docs::new(group, since, "O(1)", "Lists the subcommands.");
    Command::new(name, 2, Run::Server(ServerCommand::Help), docs).flags(&[Flags::LOADING, Flags::STALE])
}

fn encoding(call: &mut Call<'_>) -> Step {
    inspect(call, |reply, entry| {
        reply.bulk(encoding_name(&entry).as_bytes());
        Ok(())
    })
}

fn encoding_name(entry: &EntryRef<'_>) -> &'static str {
    let Value::String(value) = entry.value();
    match (entry.form(), value.len()) {
        (Form::Edited, _) => "raw",
        (Form::Given, 0..=20) if parse_i64(value).is_some() => "int",
        (_, 0..=EMBEDDED_BYTES_MAX) => "embstr",
        _ => "raw",
    }
}

/// Nothing counts accesses by frequency yet, and Redis says this of every policy that does not.
fn freq(call: &mut Call<'_>) -> Step {
    const NOT_COUNTED: &str = "ERR An LFU maxmemory policy is not selected, access frequency not tracked. \
        Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.";
    inspect(call, |_, _| Err(NOT_COUNTED.into()))
}

fn idletime(call: &mut Call<'_>) -> Step {
    let now_ms = call.now_ms;
    inspect(call, |reply, entry| {
        reply.integer(entry.idle_seconds(now_ms) as i64);
        Ok(())
    })
}

/// No value is shared. Redis shares small integers, and says of such a value that it has all the references there can be.
fn refcount(call: &mut Call<'_>) -> Step {
    inspect(call, |reply, entry| {
        let Value::String(value) = entry.value();
        let is_shared = entry.form() == Form::Given
            && parse_i64(value).is_some_and(|number| (0..SHARED_INTEGERS).contains(&number));
        reply.integer(if is_shared { i32::MAX.into() } else { 1 });
        Ok(())
    })
}

/// Replies with what `show` writes about the entry, or null without one. Being inspected is no access.
fn inspect(
    call: &mut Call<'_>,
    show: impl FnOnce(&mut Reply<'_>, EntryRef<'_>) -> Result<(), Failure>,
) -> Step {
    attempt(call, |call| {
        let (mut place, _, reply) = call.place(0, 2);
        match place.peek() {
            Some(entry) => show(reply, entry),
            None => {
                reply.null();
                Ok(())
            }
        }
    })
}

fn memory_usage(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        check_usage_options(&call.args)?;
        let (mut place, _, reply) = call.place(0, 2);
        match place.find() {
            Some(entry) => reply.integer(entry.memory_bytes() as i64),
            None => reply.null(),
        }
        Ok(())
    })
}

/// SAMPLES is for values with elements; a string's memory is known exactly.
fn check_usage_options(args: &Args<'_>) -> Result<(), &'static str> {
    for index in (3..args.len()).step_by(2) {
        if !is_word(args, index, "samples") || index + 1 == args.len() {
            return Err(SYNTAX);
        }
        if parse_i64(args.get(index + 1)).ok_or(NOT_AN_INTEGER)? < 0 {
            return Err(SYNTAX);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::command::testing::TestKeyspace;

    #[test]
    fn encodings_have_the_names_of_redis() {
        let mut keyspace = TestKeyspace::new();
        let (short, long) = ("x".repeat(44), "x".repeat(45));
        for (value, expected) in [
            ("0", "$int"),
            ("-9223372036854775808", "$int"),
            ("9223372036854775808", "$embstr"),
            ("012", "$embstr"),
            ("''", "$embstr"),
            (&short, "$embstr"),
            (&long, "$raw"),
        ] {
            keyspace.run(&format!("SET k {value}"));
            assert_eq!(keyspace.run("OBJECT ENCODING k"), expected, "{value}");
        }
        keyspace.check(&[
            ("SET k 10", "+OK"),
            ("APPEND k 1", ":3"),
            ("object encoding k", "$raw"),
            ("COPY k copy", ":1"),
            ("OBJECT ENCODING copy", "$raw"),
            ("INCR k", ":102"),
            ("OBJECT ENCODING k", "$int"),
            ("APPEND fresh 5", ":1"),
            ("OBJECT ENCODING fresh", "$int"),
            ("SETRANGE ranged 0 5", ":1"),
            ("OBJECT ENCODING ranged", "$raw"),
        ]);
    }

    #[test]
    fn whole_numbers_of_incrbyfloat_are_text() {
        TestKeyspace::new().check(&[
            ("SET k 10 EX 100", "+OK"),
            ("INCRBYFLOAT k 1", "$11"),
            ("OBJECT ENCODING k", "$embstr"),
            ("OBJECT REFCOUNT k", ":1"),
            ("TTL k", ":100"),
            ("COPY k copy", ":1"),
            ("OBJECT ENCODING copy", "$embstr"),
            ("RENAME copy moved", "+OK"),
            ("OBJECT ENCODING moved", "$embstr"),
            ("EXPIRE moved 5", ":1"),
            ("PERSIST moved", ":1"),
            ("OBJECT ENCODING moved", "$embstr"),
            ("INCRBYFLOAT k 0.5", "$11.5"),
            ("OBJECT ENCODING k", "$embstr"),
            ("INCRBYFLOAT k 0.5", "$12"),
            ("INCR k", ":13"),
            ("OBJECT ENCODING k", "$int"),
            ("INCRBYFLOAT k 1", "$14"),
            ("APPEND k 0", ":3"),
            ("OBJECT ENCODING k", "$raw"),
            ("INCRBYFLOAT k 1", "$141"),
            ("OBJECT ENCODING k", "$embstr"),
            ("SET k 141", "+OK"),
            ("OBJECT ENCODING k", "$int"),
        ]);
    }

    #[test]
    fn small_integers_count_as_shared() {
        const ALL: &str = ":2147483647";
        TestKeyspace::new().check(&[
            ("MSET a 0 b 9999 c 10000 d -1 e 01", "+OK"),
            ("OBJECT REFCOUNT a", ALL),
            ("OBJECT REFCOUNT b", ALL),
            ("OBJECT REFCOUNT c", ":1"),
            ("OBJECT REFCOUNT d", ":1"),
            ("OBJECT REFCOUNT e", ":1"),
            ("SETRANGE f 0 5", ":1"),
            ("OBJECT REFCOUNT f", ":1"),
            ("INCR d", ":0"),
            ("OBJECT REFCOUNT d", ALL),
        ]);
    }

    #[test]
    fn values_are_inspected_without_being_accessed() {
        let mut keyspace = TestKeyspace::new();
        keyspace.run("SET k v");
        keyspace.now_ms += 5_000;
        keyspace.check(&[
            ("OBJECT IDLETIME k", ":5"),
            ("OBJECT REFCOUNT k", ":1"),
            ("TTL k", ":-1"),
            ("TYPE k", "+string"),
            ("OBJECT IDLETIME k", ":5"),
            ("GET k", "$v"),
            ("OBJECT IDLETIME k", ":0"),
        ]);
        keyspace.now_ms += 5_000;
        keyspace.touch = false;
        keyspace.check(&[
            ("GET k", "$v"),
            ("OBJECT IDLETIME k", ":5"),
            ("TOUCH k", ":1"),
            ("OBJECT IDLETIME k", ":0"),
        ]);
    }

    #[test]
    fn errors_are_those_of_redis() {
        TestKeyspace::new().check(&[
            ("OBJECT", "-ERR wrong number of arguments for 'object' command"),
            ("OBJECT BOGUS k", "-ERR unknown subcommand 'BOGUS'. Try OBJECT HELP."),
            ("OBJECT ENCODING", "-ERR wrong number of arguments for 'object|encoding' command"),
            ("OBJECT ENCODING k", "nil"),
            ("OBJECT FREQ k", "nil"),
            ("MEMORY USAGE", "-ERR wrong number of arguments for 'memory|usage' command"),
            ("MEMORY USAGE k", "nil"),
            ("MEMORY USAGE k SAMPLES", "-ERR syntax error"),
            ("MEMORY USAGE k SAMPLES -1", "-ERR syntax error"),
            ("MEMORY USAGE k SAMPLES x", "-ERR value is not an integer or out of range"),
            ("MEMORY USAGE k SAMPLES 0 SAMPLES 5", "nil"),
            ("MEMORY USAGE k BOGUS", "-ERR syntax error"),
        ]);
        let mut keyspace = TestKeyspace::new();
        keyspace.run("SET k v");
        assert!(keyspace.run("OBJECT FREQ k").starts_with("-ERR An LFU maxmemory policy is not selected"));
        assert!(keyspace.run("MEMORY USAGE k").starts_with(':'));
    }
}
