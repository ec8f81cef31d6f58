//! ONCE: a write that takes effect once, however often it is sent.
//!
//! `ONCE client-id request-id COMMAND args...` executes a write whose keys are all in one slot, unless the slot's shard has a
//! reply recorded for that client and request: then that reply is the answer. Invariants:
//!
//! - **Decided when it is applied**, from the shard's state: whoever proposes it, and however often, the shard's log says
//!   which entry was the first. So a retry may come while the first is pending, through another node, and after a restart.
//! - **What is refused is not recorded**: [`once_command`] says so before anything is proposed. An error of the command itself
//!   is its reply, recorded as any other.
//! - **One form for all connections**: the command is executed as for RESP3, and its reply is recorded so; RESP2 is made
//!   of it for the first answer as well as for every other.

use std::{error::Error, fmt};

use crate::{
    Call, ONCE_ID_BYTES_MAX, Protocol, Reply, Step, key_slot,
    once::{self, OncePair},
};

use super::{
    Command, Docs, Flags, KeyAccess, Keys, QUOTED_BYTES_MAX, Run,
    docs::{KEY, string},
    lookup, quoted,
};

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "once",
    -5,
    Run::Single(execute),
    Docs::new(
        "generic",
        "7.0.0",
        "That of the command",
        "Executes a write on one slot's keys, or returns its recorded reply if it was executed before.",
    )
    .with(&[
        string("client-id"),
        string("request-id"),
        string("command"),
        KEY,
        string("arg").optional().multiple(),
    ]),
)
.flags(&[Flags::WRITE, Flags::DENYOOM, Flags::MOVABLEKEYS])
.keys(Keys { first: COMMAND_ARGUMENT as u8 + 1, last: COMMAND_ARGUMENT as i8 + 1, step: 1 }, &[ACCESS])];

const ACCESS: KeyAccess =
    KeyAccess::new(&["RW", "access", "update", "incomplete"]).noted("The keys are those of the command.");

/// The argument that names the command.
pub(super) const COMMAND_ARGUMENT: usize = 3;

/// Why a request of ONCE is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnceError {
    /// The client id or the request id is longer than [`ONCE_ID_BYTES_MAX`].
    LongId,
    /// There is no command of that name, of which this is the beginning.
    Unknown(Vec<u8>),
    /// That command does not take so many arguments.
    Arity(&'static str),
    /// That command is no write of keys.
    NoWrite(&'static str),
    /// That command is ONCE.
    Nested,
    /// Its keys are in several slots.
    SeveralSlots,
}

impl fmt::Display for OnceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LongId => {
                write!(formatter, "ERR client-id and request-id may have {ONCE_ID_BYTES_MAX} bytes at most")
            }
            Self::Unknown(name) => {
                write!(formatter, "ERR unknown command '{}' behind ONCE", name.escape_ascii())
            }
            Self::Arity(name) => write!(formatter, "ERR wrong number of arguments for '{name}' command"),
            Self::NoWrite(name) => {
                write!(formatter, "ERR ONCE takes writes of keys alone, and '{name}' is none")
            }
            Self::Nested => formatter.write_str("ERR ONCE cannot be nested"),
            Self::SeveralSlots => {
                formatter.write_str("CROSSSLOT Keys in request don't hash to the same slot")
            }
        }
    }
}

impl Error for OnceError {}

/// The command behind ONCE in a request of `count` arguments, five or more; its first argument is number
/// three of the request.
///
/// # Errors
/// Why such a request is not executed.
pub fn once_command<'a>(
    count: usize,
    argument: impl Fn(usize) -> &'a [u8],
) -> Result<&'static Command, OnceError> {
    if argument(1).len().max(argument(2).len()) > ONCE_ID_BYTES_MAX {
        return Err(OnceError::LongId);
    }
    let name = argument(COMMAND_ARGUMENT);
    let Some(command) = lookup(name) else {
        return Err(OnceError::Unknown(quoted(name, QUOTED_BYTES_MAX).to_vec()));
    };
    if command.flags.contains(Flags::MOVABLEKEYS) {
        return Err(OnceError::Nested);
    }
    if !command.flags.contains(Flags::WRITE) || command.keys == Keys::NONE {
        return Err(OnceError::NoWrite(command.name));
    }
    let own_count = count - COMMAND_ARGUMENT;
    if !command.accepts(own_count) {
        return Err(OnceError::Arity(command.name));
    }
    let mut slots =
        command.keys.positions(own_count).map(|position| key_slot(argument(COMMAND_ARGUMENT + position)));
    let first = slots.next();
    if slots.any(|slot| Some(slot) != first) {
        return Err(OnceError::SeveralSlots);
    }
    Ok(command)
}

fn execute(call: &mut Call<'_>) -> Step {
    let Call { shards, args, keys, database, now_ms, seed, touch, settings, reply } = call;
    let (database, now_ms, seed, touch) = (*database, *now_ms, *seed, *touch);
    let command = match once_command(args.len(), |index| args.get(index)) {
        Ok(command) => command,
        Err(error) => {
            reply.error(&error.to_string());
            return Step::Done;
        }
    };
    let handler = match command.run {
        Run::Single(handler) | Run::Split(handler, _) | Run::Staged(handler, _) => handler,
        Run::Everywhere(..) | Run::Walk(_) | Run::Server(_) => {
            reply.error(&OnceError::NoWrite(command.name).to_string());
            return Step::Done;
        }
    };
    let protocol = reply.protocol();
    let shard = shards.of(keys[0].slot);
    let pair = OncePair { client: args.get(1), request: args.get(2) };
    if let Some(recorded) = shard.find_once(pair, now_ms) {
        let mut answer = Vec::new();
        once::write_reply(recorded, protocol, &mut answer);
        reply.raw(&answer);
        return Step::Done;
    }
    let changes_before = shard.changes_total();
    let mut recorded = Vec::new();
    let mut own = Call {
        shards,
        args: args.tail(COMMAND_ARGUMENT),
        keys,
        database,
        now_ms,
        seed,
        touch,
        settings,
        reply: Reply::new(&mut recorded, Protocol::Resp3),
    };
    if let Step::Continue(mut rest) = handler(&mut own) {
        while !rest.resume(&mut own) {}
    }
    let deadline_ms = now_ms.saturating_add(settings.once_ttl_ms);
    let pair = OncePair { client: args.get(1), request: args.get(2) };
    shards.of(keys[0].slot).record_once(pair, &recorded, deadline_ms, now_ms, changes_before);
    let mut answer = Vec::new();
    once::write_reply(&recorded, protocol, &mut answer);
    reply.raw(&answer);
    Step::Done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::TestKeyspace;

    fn records(keyspace: &TestKeyspace) -> (u64, u64, u64, u64) {
        keyspace.shards.iter().map(|shard| shard.once_totals()).fold((0, 0, 0, 0), |sum, totals| {
            (sum.0 + totals.cached, sum.1 + totals.unique, sum.2 + totals.duplicates, sum.3 + totals.evicted)
        })
    }

    #[test]
    fn a_request_takes_effect_once() {
        let mut keyspace = TestKeyspace::new();
        keyspace.check(&[
            ("ONCE c 1 INCR k", ":1"),
            ("ONCE c 1 INCR k", ":1"),
            ("INCR k", ":2"),
            ("once c 1 INCR k", ":1"),
            ("ONCE c 2 INCR k", ":3"),
            ("ONCE d 1 INCR k", ":4"),
            // The ids are two: their bytes are not run together.
            ("ONCE c1 '' INCR k", ":5"),
            ("ONCE '' c1 INCR k", ":6"),
            // The pair says which request it is, not the command.
            ("ONCE c 1 DEL k", ":1"),
            ("GET k", "$6"),
            ("ONCE \\x00\\x0d\\x0a \\xff APPEND k x", ":2"),
            ("ONCE \\x00\\x0d\\x0a \\xff APPEND k x", ":2"),
            ("ONCE c m MSET {k}1 a {k}2 b", "+OK"),
            ("MGET {k}1 {k}2", "[$a, $b]"),
            ("ONCE c r RENAME {k}1 {k}3", "+OK"),
            ("ONCE c r RENAME {k}1 {k}3", "+OK"),
            ("FLUSHALL", "+OK"),
            ("ONCE c 1 INCR k", ":1"),
            ("EXISTS k", ":0"),
        ]);
        assert_eq!(records(&keyspace), (8, 8, 6, 0));
    }

    #[test]
    fn errors_of_the_command_are_its_reply_and_those_of_the_request_are_not_recorded() {
        let long = "x".repeat(ONCE_ID_BYTES_MAX + 1);
        let longest = "x".repeat(ONCE_ID_BYTES_MAX);
        let mut keyspace = TestKeyspace::new();
        keyspace.check(&[
            ("SET k text", "+OK"),
            ("ONCE c 1 INCR k", "-ERR value is not an integer or out of range"),
            ("SET k 1", "+OK"),
            ("ONCE c 1 INCR k", "-ERR value is not an integer or out of range"),
            ("ONCE c 2 RENAME {k}none {k}", "-ERR no such key"),
        ]);
        assert_eq!(records(&keyspace), (2, 2, 1, 0));
        for (line, error) in [
            ("ONCE c 3 INCR".to_owned(), "-ERR wrong number of arguments for 'once' command"),
            ("ONCE c 3 INCR k 2".to_owned(), "-ERR wrong number of arguments for 'incr' command"),
            ("ONCE c 3 MSET k 2 k".to_owned(), "-ERR wrong number of arguments for 'mset' command"),
            ("ONCE c 3 BO\\x0dGUS k".to_owned(), "-ERR unknown command 'BO\\\\rGUS' behind ONCE"),
            ("ONCE c 3 GET k".to_owned(), "-ERR ONCE takes writes of keys alone, and 'get' is none"),
            (
                "ONCE c 3 FLUSHALL ASYNC".to_owned(),
                "-ERR ONCE takes writes of keys alone, and 'flushall' is none",
            ),
            ("ONCE c 3 CONFIG GET".to_owned(), "-ERR ONCE takes writes of keys alone, and 'config' is none"),
            ("ONCE c 3 ONCE c 4 INCR k".to_owned(), "-ERR ONCE cannot be nested"),
            ("ONCE c 3 MSET a 1 b 2".to_owned(), "-CROSSSLOT Keys in request don't hash to the same slot"),
            (format!("ONCE {long} 3 INCR k"), "-ERR client-id and request-id may have 64 bytes at most"),
            (format!("ONCE c {long} INCR k"), "-ERR client-id and request-id may have 64 bytes at most"),
        ] {
            assert_eq!(keyspace.run(&line), error, "{line}");
        }
        assert_eq!(records(&keyspace), (2, 2, 1, 0));
        assert_eq!(keyspace.run("GET k"), "$1");
        assert_eq!(keyspace.run(&format!("ONCE {longest} {longest} INCR k")), ":2");
    }

    #[test]
    fn every_protocol_version_gets_its_own_form() {
        let mut keyspace = TestKeyspace::new();
        keyspace.check(&[
            ("ONCE c 1 GETDEL none", "nil"),
            ("ONCE c 2 SET k value GET", "nil"),
            ("ONCE c 3 GETSET k other", "$value"),
        ]);
        keyspace.protocol = Protocol::Resp3;
        keyspace.check(&[
            ("ONCE c 1 GETDEL none", "_"),
            ("ONCE c 2 SET k value GET", "_"),
            ("ONCE c 3 GETSET k other", "$value"),
            ("ONCE c 4 GETDEL none", "_"),
        ]);
        keyspace.protocol = Protocol::Resp2;
        assert_eq!(keyspace.run("ONCE c 4 GETDEL none"), "nil");
    }

    #[test]
    fn records_are_over_by_the_time_of_the_shard() {
        let mut keyspace = TestKeyspace::new();
        keyspace.settings.once_ttl_ms = 1_000;
        assert_eq!(keyspace.run("ONCE c 1 INCR k"), ":1");
        keyspace.now_ms += 999;
        // This one is kept longer: each has the time that was set when it came.
        keyspace.settings.once_ttl_ms = 5_000;
        keyspace.check(&[("ONCE c 1 INCR k", ":1"), ("ONCE c 2 INCR k", ":2")]);
        keyspace.now_ms += 1;
        keyspace.check(&[("ONCE c 1 INCR k", ":3"), ("ONCE c 2 INCR k", ":2")]);
        assert_eq!(records(&keyspace), (2, 3, 2, 0));
        keyspace.now_ms += 10_000;
        let now_ms = keyspace.now_ms;
        keyspace.shards.iter_mut().for_each(|shard| {
            shard.tick(now_ms, 10);
        });
        assert_eq!(records(&keyspace), (0, 3, 2, 0));
    }

    #[test]
    fn keys_are_those_of_the_command() {
        TestKeyspace::new().check(&[
            ("COMMAND GETKEYS ONCE c r MSET a 1 b 2", "[$a, $b]"),
            ("COMMAND GETKEYS ONCE c r INCR a", "[$a]"),
            ("COMMAND GETKEYS ONCE c r INCR", "-ERR Invalid number of arguments specified for command"),
            ("COMMAND GETKEYS ONCE c r BOGUS a", "-ERR Invalid command specified"),
            (
                "COMMAND GETKEYSANDFLAGS ONCE c r RENAME a b",
                "[[$a, [+RW, +access, +delete]], [$b, [+OW, +update]]]",
            ),
        ]);
    }
}
