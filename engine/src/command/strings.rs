//! Strings as a whole: GET, SET and their relatives.

use crate::{Args, Call, Deadline, Step};

use super::{
    Categories, Command, Docs, Flags, KeyAccess, Keys, Run,
    docs::{KEY, integer, one_of, string, unix_time, word},
    expiration::{Expiration, Expiry, Unit},
    failure::{attempt, is_word},
};

pub(super) const COMMANDS: &[Command] = &[
    row("get", 2, get, docs("1.0.0", "Returns a string.").with(&[KEY]))
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(Keys::FIRST, &[KeyAccess::READ]),
    row(
        "set",
        -3,
        set,
        docs("1.0.0", "Sets a key to a string, whatever it held.").with(&[
            KEY,
            string("value"),
            one_of("condition", &[word("nx", "NX"), word("xx", "XX")]).since("2.6.12").optional(),
            word("get", "GET").since("6.2.0").optional(),
            one_of(
                "expiration",
                &[
                    EX.since("2.6.12"),
                    PX.since("2.6.12"),
                    EXAT.since("6.2.0"),
                    PXAT.since("6.2.0"),
                    word("keepttl", "KEEPTTL").since("6.0.0"),
                ],
            )
            .optional(),
        ]),
    )
    .history(&[
        ("2.6.12", "Takes `EX`, `PX`, `NX` and `XX`."),
        ("6.0.0", "Takes `KEEPTTL`."),
        ("6.2.0", "Takes `GET`, `EXAT` and `PXAT`."),
        ("7.0.0", "`NX` and `GET` may stand together."),
    ])
    .flags(&[Flags::WRITE, Flags::DENYOOM])
    .keys(
        Keys::FIRST,
        &[KeyAccess::new(&["RW", "access", "update", "variable_flags"])
            .noted("RW and ACCESS due to the optional `GET` argument")],
    ),
    row(
        "setnx",
        3,
        setnx,
        docs("1.0.0", "Sets a key to a string unless the key exists.").with(&[KEY, VALUE]),
    )
    .flags(&[Flags::WRITE, Flags::DENYOOM, Flags::FAST])
    .keys(Keys::FIRST, &[KeyAccess::CREATE]),
    row(
        "setex",
        4,
        setex,
        docs("2.0.0", "Sets a key to a string that expires in so many seconds.").with(&[
            KEY,
            integer("seconds"),
            VALUE,
        ]),
    )
    .flags(&[Flags::WRITE, Flags::DENYOOM])
    .keys(Keys::FIRST, &[KeyAccess::OVERWRITE]),
    row(
        "psetex",
        4,
        psetex,
        docs("2.6.0", "Sets a key to a string that expires in so many milliseconds.").with(&[
            KEY,
            integer("milliseconds"),
            VALUE,
        ]),
    )
    .flags(&[Flags::WRITE, Flags::DENYOOM])
    .keys(Keys::FIRST, &[KeyAccess::OVERWRITE]),
    row(
        "getex",
        -2,
        getex,
        docs("6.2.0", "Returns a string, and sets or clears its expiry.")
            .with(&[KEY, one_of("expiration", &[EX, PX, EXAT, PXAT, word("persist", "PERSIST")]).optional()]),
    )
    .flags(&[Flags::WRITE, Flags::FAST])
    .keys(Keys::FIRST, &[KeyAccess::READ_UPDATE.noted("RW and UPDATE because it changes the TTL")]),
    row("getdel", 2, getdel, docs("6.2.0", "Returns a string and removes its key.").with(&[KEY]))
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(Keys::FIRST, &[KeyAccess::READ_DELETE]),
    row(
        "getset",
        3,
        getset,
        docs("1.0.0", "Sets a key to a string and returns what it held.").with(&[KEY, VALUE]),
    )
    .deprecated("6.2.0", "`SET` with `GET`")
    .flags(&[Flags::WRITE, Flags::DENYOOM, Flags::FAST])
    .keys(Keys::FIRST, &[KeyAccess::READ_UPDATE]),
];

const VALUE: super::Argument = string("value");
const EX: super::Argument = integer("seconds").after("EX");
const PX: super::Argument = integer("milliseconds").after("PX");
const EXAT: super::Argument = unix_time("unix-time-seconds").after("EXAT");
const PXAT: super::Argument = unix_time("unix-time-milliseconds").after("PXAT");

const fn row(name: &'static str, arity: i16, handler: super::Handler, docs: Docs) -> Command {
    Command::new(name, arity, Run::Single(handler), docs).categories(Categories::STRING)
}

const fn docs(since: &'static str, summary: &'static str) -> Docs {
    Docs::new("string", since, "O(1)", summary)
}

fn get(call: &mut Call<'_>) -> Step {
    let (mut place, _, reply) = call.first();
    match place.read_string() {
        Some(value) => reply.bulk(value),
        None => reply.null(),
    }
    Step::Done
}

fn set(call: &mut Call<'_>) -> Step {
    if call.args.len() == 3 {
        store(call, 2, Deadline::Clear);
        call.reply.ok();
        return Step::Done;
    }
    attempt(call, |call| {
        let options = SetOptions::parse(&call.args)?;
        let deadline = match options.expiry {
            Expiry::Given(expiration) => expiration.deadline(&call.args, call.now_ms, "set")?,
            Expiry::Keep => Deadline::Keep,
            Expiry::Unsaid | Expiry::Persist => Deadline::Clear,
        };
        let exists = if options.get {
            write_old_value(call)
        } else {
            options.condition != Condition::Always && call.first().0.take_up().is_some()
        };
        let sets = match options.condition {
            Condition::Always => true,
            Condition::IfMissing => !exists,
            Condition::IfExists => exists,
        };
        if sets {
            store(call, 2, deadline);
        }
        match (options.get, sets) {
            (true, _) => {}
            (false, true) => call.reply.ok(),
            (false, false) => call.reply.null(),
        }
        Ok(())
    })
}

fn setnx(call: &mut Call<'_>) -> Step {
    let is_missing = call.first().0.take_up().is_none();
    if is_missing {
        store(call, 2, Deadline::Clear);
    }
    call.reply.integer(i64::from(is_missing));
    Step::Done
}

fn setex(call: &mut Call<'_>) -> Step {
    set_expiring(call, Unit::EX, "setex")
}

fn psetex(call: &mut Call<'_>) -> Step {
    set_expiring(call, Unit::PX, "psetex")
}

fn set_expiring(call: &mut Call<'_>, unit: Unit, name: &'static str) -> Step {
    attempt(call, |call| {
        let deadline = Expiration::new(unit, 2).deadline(&call.args, call.now_ms, name)?;
        store(call, 3, deadline);
        call.reply.ok();
        Ok(())
    })
}

fn getex(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        let mut expiry = Expiry::default();
        let mut index = 2;
        while index < call.args.len() {
            match expiry {
                Expiry::Unsaid | Expiry::Persist if is_word(&call.args, index, "persist") => {
                    expiry = Expiry::Persist;
                    index += 1;
                }
                _ => {
                    expiry.take(&call.args, index)?;
                    index += 2;
                }
            }
        }
        let (mut place, args, reply) = call.first();
        let now_ms = place.now_ms();
        let Some(value) = place.read_string() else {
            reply.null();
            return Ok(());
        };
        // The number is looked at only when there is a key to expire.
        let deadline = match expiry {
            Expiry::Given(expiration) => Some(expiration.deadline(args, now_ms, "getex")?),
            Expiry::Persist => Some(Deadline::Clear),
            Expiry::Unsaid | Expiry::Keep => None,
        };
        reply.bulk(value);
        match deadline {
            Some(Deadline::At(time_ms)) if time_ms <= now_ms => {
                place.remove();
            }
            Some(deadline) => {
                place.set_deadline(deadline);
            }
            None => {}
        }
        Ok(())
    })
}

fn getdel(call: &mut Call<'_>) -> Step {
    if write_old_value(call) {
        call.first().0.remove();
    }
    Step::Done
}

fn getset(call: &mut Call<'_>) -> Step {
    write_old_value(call);
    store(call, 2, Deadline::Clear);
    Step::Done
}

/// Replies with what the key holds and returns whether it exists.
fn write_old_value(call: &mut Call<'_>) -> bool {
    let (mut place, _, reply) = call.first();
    match place.read_string() {
        Some(value) => {
            reply.bulk(value);
            true
        }
        None => {
            reply.null();
            false
        }
    }
}

/// Sets the key to argument `position`, which moves if it has an allocation of its own. A value whose time is over
/// already is not kept for the wheel to find: the key goes at once.
#[inline(always)]
fn store(call: &mut Call<'_>, position: usize, deadline: Deadline) {
    if matches!(deadline, Deadline::At(time_ms) if time_ms <= call.now_ms) {
        call.first().0.remove();
        return;
    }
    match call.args.take_large(position) {
        Some(value) => call.first().0.set_owned(value, deadline),
        None => {
            let (mut place, args, _) = call.first();
            place.set(args.get(position), deadline);
        }
    }
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Condition {
    #[default]
    Always,
    /// NX.
    IfMissing,
    /// XX.
    IfExists,
}

#[derive(Default)]
struct SetOptions {
    condition: Condition,
    get: bool,
    expiry: Expiry,
}

impl SetOptions {
    /// Reads everything behind the value. An option may come again, but not beside one that contradicts it.
    fn parse(args: &Args<'_>) -> Result<Self, &'static str> {
        let mut options = Self::default();
        let mut index = 3;
        while index < args.len() {
            let is = |word| is_word(args, index, word);
            index += match (options.condition, options.expiry) {
                (Condition::Always | Condition::IfMissing, _) if is("nx") => {
                    options.condition = Condition::IfMissing;
                    1
                }
                (Condition::Always | Condition::IfExists, _) if is("xx") => {
                    options.condition = Condition::IfExists;
                    1
                }
                _ if is("get") => {
                    options.get = true;
                    1
                }
                (_, Expiry::Unsaid | Expiry::Keep) if is("keepttl") => {
                    options.expiry = Expiry::Keep;
                    1
                }
                _ => {
                    options.expiry.take(args, index)?;
                    2
                }
            };
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Protocol, command::testing::TestKeyspace};

    const SYNTAX: &str = "-ERR syntax error";
    const NOT_AN_INTEGER: &str = "-ERR value is not an integer or out of range";

    #[test]
    fn strings_are_set_and_returned() {
        TestKeyspace::new().check(&[
            ("GET k", "nil"),
            ("SET k v", "+OK"),
            ("GET k", "$v"),
            ("SET k ''", "+OK"),
            ("GET k", "$"),
            ("SET '' \\x00\\xff", "+OK"),
            ("GET ''", "$\\x00\\xff"),
            ("SETNX k w", ":0"),
            ("SETNX fresh w", ":1"),
            ("GETSET fresh x", "$w"),
            ("GETSET other y", "nil"),
            ("GETDEL fresh", "$x"),
            ("GETDEL fresh", "nil"),
        ]);
        let mut keyspace = TestKeyspace::new();
        keyspace.protocol = Protocol::Resp3;
        keyspace.check(&[("GET k", "_"), ("SET k v XX", "_"), ("SET k v GET", "_"), ("GETDEL k", "$v")]);
    }

    #[test]
    fn conditions_decide_whether_set_sets() {
        TestKeyspace::new().check(&[
            ("SET k v XX", "nil"),
            ("EXISTS k", ":0"),
            ("SET k v NX NX", "+OK"),
            ("SET k w nx", "nil"),
            ("SET k w XX GET", "$v"),
            ("SET k x NX GET", "$w"),
            ("GET k", "$w"),
            ("SET fresh x GET NX", "nil"),
            ("GET fresh", "$x"),
            ("SET k v NX XX", SYNTAX),
            ("SET k v XX NX", SYNTAX),
            ("SET k v BOGUS", SYNTAX),
            ("SET k v PERSIST", SYNTAX),
        ]);
    }

    #[test]
    fn set_gives_keeps_and_drops_an_expiry() {
        TestKeyspace::at(1_000_000).check(&[
            ("SET k v EX 10", "+OK"),
            ("PTTL k", ":10000"),
            ("SET k v PX 1500", "+OK"),
            ("PTTL k", ":1500"),
            ("SET k v EXAT 1010", "+OK"),
            ("PTTL k", ":10000"),
            ("SET k v PXAT 1000001", "+OK"),
            ("PTTL k", ":1"),
            ("SET k v EX 1 EX 20", "+OK"),
            ("SET k w KEEPTTL", "+OK"),
            ("TTL k", ":20"),
            ("SET k w", "+OK"),
            ("TTL k", ":-1"),
            ("SETEX k 5 v", "+OK"),
            ("PTTL k", ":5000"),
            ("PSETEX k 5 v", "+OK"),
            ("PTTL k", ":5"),
            ("GETSET k v", "$v"),
            ("TTL k", ":-1"),
            ("SET k v PXAT 1000000", "+OK"),
            ("DBSIZE", ":0"),
        ]);
    }

    #[test]
    fn times_that_set_refuses() {
        const SET: &str = "-ERR invalid expire time in 'set' command";
        TestKeyspace::new().check(&[
            ("SET k v EX 0", SET),
            ("SET k v PX -1", SET),
            ("SET k v EX 9223372036854775807", SET),
            ("SET k v PX 9223372036854775807", SET),
            ("SET k v EXAT 9223372036854776", SET),
            ("SET k v EX x", NOT_AN_INTEGER),
            ("SET k v EX", SYNTAX),
            ("SET k v EX 10 PX 10", SYNTAX),
            ("SET k v EX 10 KEEPTTL", SYNTAX),
            ("SET k v KEEPTTL EX 10", SYNTAX),
            ("SET k v EX x BOGUS", SYNTAX),
            ("SETEX k 0 v", "-ERR invalid expire time in 'setex' command"),
            ("PSETEX k x v", NOT_AN_INTEGER),
            ("EXISTS k", ":0"),
        ]);
    }

    #[test]
    fn getex_changes_the_expiry_of_what_it_returns() {
        TestKeyspace::at(1_000_000).check(&[
            ("GETEX k EX x", "nil"),
            ("GETEX k EX 10 PERSIST", SYNTAX),
            ("SET k v", "+OK"),
            ("GETEX k", "$v"),
            ("TTL k", ":-1"),
            ("GETEX k EX 10", "$v"),
            ("TTL k", ":10"),
            ("GETEX k", "$v"),
            ("TTL k", ":10"),
            ("GETEX k EX 0", "-ERR invalid expire time in 'getex' command"),
            ("GETEX k EX x", NOT_AN_INTEGER),
            ("GETEX k KEEPTTL", SYNTAX),
            ("GETEX k NX", SYNTAX),
            ("GETEX k PERSIST PERSIST", "$v"),
            ("TTL k", ":-1"),
            ("GETEX k EXAT 1", "$v"),
            ("DBSIZE", ":0"),
        ]);
    }

    #[test]
    fn keys_that_are_due_are_missing() {
        let mut keyspace = TestKeyspace::new();
        keyspace.run("MSET a 1 b 1 c 1");
        for key in ["a", "b", "c"] {
            keyspace.run(&format!("PEXPIRE {key} 10"));
        }
        keyspace.now_ms += 10;
        keyspace.check(&[
            ("GET a", "nil"),
            ("SETNX b 2", ":1"),
            ("TTL b", ":-1"),
            ("SET c 2 KEEPTTL", "+OK"),
            ("TTL c", ":-1"),
        ]);
    }
}
