//! Expiry: EXPIRE and its relatives, TTL and its relatives, PERSIST.

use crate::{Args, Call, Deadline, Step};

use super::{
    Argument, Categories, Command, Docs, Flags, Handler, KeyAccess, Keys, Run,
    docs::{KEY, integer as integer_argument, one_of, unix_time, word},
    expiration::Unit,
    failure::{Failure, attempt, integer, is_word},
};

pub(super) const COMMANDS: &[Command] = &[
    write(
        "expire",
        -3,
        expire,
        docs("1.0.0", "Lets a key expire in so many seconds.").with(&[
            KEY,
            integer_argument("seconds"),
            CONDITION,
        ]),
    )
    .history(CONDITION_HISTORY),
    write(
        "pexpire",
        -3,
        pexpire,
        docs("2.6.0", "Lets a key expire in so many milliseconds.").with(&[
            KEY,
            integer_argument("milliseconds"),
            CONDITION,
        ]),
    )
    .history(CONDITION_HISTORY),
    write(
        "expireat",
        -3,
        expireat,
        docs("1.2.0", "Lets a key expire at a Unix time in seconds.").with(&[
            KEY,
            unix_time("unix-time-seconds"),
            CONDITION,
        ]),
    )
    .history(CONDITION_HISTORY),
    write(
        "pexpireat",
        -3,
        pexpireat,
        docs("2.6.0", "Lets a key expire at a Unix time in milliseconds.").with(&[
            KEY,
            unix_time("unix-time-milliseconds"),
            CONDITION,
        ]),
    )
    .history(CONDITION_HISTORY),
    write("persist", 2, persist, docs("2.2.0", "Clears a key's expiry.").with(&[KEY])),
    read("expiretime", expiretime, docs("7.0.0", "Returns the Unix time in seconds when a key expires.")),
    read(
        "pexpiretime",
        pexpiretime,
        docs("7.0.0", "Returns the Unix time in milliseconds when a key expires."),
    ),
    read("ttl", ttl, docs("1.0.0", "Returns the seconds until a key expires."))
        .history(MISSING_HISTORY)
        .tips(&["nondeterministic_output"]),
    read("pttl", pttl, docs("2.6.0", "Returns the milliseconds until a key expires."))
        .history(MISSING_HISTORY)
        .tips(&["nondeterministic_output"]),
];

const CONDITION: Argument =
    one_of("condition", &[word("nx", "NX"), word("xx", "XX"), word("gt", "GT"), word("lt", "LT")])
        .since("7.0.0")
        .optional();
const CONDITION_HISTORY: &[(&str, &str)] = &[("7.0.0", "Takes `NX`, `XX`, `GT` and `LT`.")];
const MISSING_HISTORY: &[(&str, &str)] = &[("2.8.0", "Answers -2 for a key that is missing.")];

const fn write(name: &'static str, arity: i16, handler: Handler, docs: Docs) -> Command {
    Command::new(name, arity, Run::Single(handler), docs)
        .categories(Categories::KEYSPACE)
        .flags(&[Flags::WRITE, Flags::FAST])
        .keys(Keys::FIRST, &[KeyAccess::UPDATE])
}

const fn read(name: &'static str, handler: Handler, docs: Docs) -> Command {
    Command::new(name, 2, Run::Single(handler), docs.with(&[KEY]))
        .categories(Categories::KEYSPACE)
        .flags(&[Flags::READONLY, Flags::FAST])
        .keys(Keys::FIRST, &[KeyAccess::READ])
}

const fn docs(since: &'static str, summary: &'static str) -> Docs {
    Docs::new("generic", since, "O(1)", summary)
}

fn expire(call: &mut Call<'_>) -> Step {
    set_expiry(call, Unit::EX, "expire")
}

fn pexpire(call: &mut Call<'_>) -> Step {
    set_expiry(call, Unit::PX, "pexpire")
}

fn expireat(call: &mut Call<'_>) -> Step {
    set_expiry(call, Unit::EXAT, "expireat")
}

fn pexpireat(call: &mut Call<'_>) -> Step {
    set_expiry(call, Unit::PXAT, "pexpireat")
}

fn set_expiry(call: &mut Call<'_>, unit: Unit, name: &'static str) -> Step {
    attempt(call, |call| {
        let (mut place, args, reply) = call.first();
        let conditions = Conditions::parse(args)?;
        let now_ms = place.now_ms();
        let number = integer(args, 2)?;
        let time_ms = unit.time_ms(number, now_ms).ok_or(Failure::ExpireTime(name))?;
        let Some(entry) = place.take_up() else {
            reply.integer(0);
            return Ok(());
        };
        let present_ms = entry.deadline_ms().map(u64::cast_signed);
        let holds = conditions.hold(present_ms, time_ms);
        if holds {
            match u64::try_from(time_ms) {
                Ok(time_ms) if time_ms > now_ms => place.set_deadline(Deadline::At(time_ms)),
                // Over already.
                _ => place.remove(),
            };
        }
        reply.integer(i64::from(holds));
        Ok(())
    })
}

/// NX, XX, GT, LT.
#[derive(Default)]
struct Conditions {
    /// Only without an expiry.
    if_none: bool,
    /// Only with one.
    if_some: bool,
    /// Only if it moves later; no expiry is later than any.
    if_later: bool,
    /// Only if it moves earlier.
    if_earlier: bool,
}

impl Conditions {
    fn parse(args: &Args<'_>) -> Result<Self, Failure> {
        let mut conditions = Self::default();
        for index in 3..args.len() {
            let flag = match index {
                _ if is_word(args, index, "nx") => &mut conditions.if_none,
                _ if is_word(args, index, "xx") => &mut conditions.if_some,
                _ if is_word(args, index, "gt") => &mut conditions.if_later,
                _ if is_word(args, index, "lt") => &mut conditions.if_earlier,
                _ => return Err(Failure::UnsupportedOption(args.get(index).to_vec())),
            };
            *flag = true;
        }
        if conditions.if_none && (conditions.if_some || conditions.if_later || conditions.if_earlier) {
            return Err("ERR NX and XX, GT or LT options at the same time are not compatible".into());
        }
        if conditions.if_later && conditions.if_earlier {
            return Err("ERR GT and LT options at the same time are not compatible".into());
        }
        Ok(conditions)
    }

    fn hold(&self, present_ms: Option<i64>, time_ms: i64) -> bool {
        let is_later = present_ms.is_some_and(|present_ms| time_ms > present_ms);
        let is_earlier = present_ms.is_none_or(|present_ms| time_ms < present_ms);
        (!self.if_none || present_ms.is_none())
            && (!self.if_some || present_ms.is_some())
            && (!self.if_later || is_later)
            && (!self.if_earlier || is_earlier)
    }
}

fn persist(call: &mut Call<'_>) -> Step {
    let (mut place, _, reply) = call.first();
    let expires = place.take_up().is_some_and(|entry| entry.deadline_ms().is_some());
    reply.integer(i64::from(expires && place.set_deadline(Deadline::Clear)));
    Step::Done
}

fn ttl(call: &mut Call<'_>) -> Step {
    write_expiry(call, |deadline_ms, now_ms| rounded_seconds(deadline_ms - now_ms))
}

fn pttl(call: &mut Call<'_>) -> Step {
    write_expiry(call, |deadline_ms, now_ms| deadline_ms - now_ms)
}

fn expiretime(call: &mut Call<'_>) -> Step {
    write_expiry(call, |deadline_ms, _| rounded_seconds(deadline_ms))
}

fn pexpiretime(call: &mut Call<'_>) -> Step {
    write_expiry(call, |deadline_ms, _| deadline_ms)
}

/// Replies with `-2` for a missing key, `-1` for one without expiry, or what `show` makes of deadline and present time. No
/// access: a client that watches an expiry does not keep the key warm.
fn write_expiry(call: &mut Call<'_>, show: impl Fn(u64, u64) -> u64) -> Step {
    let (mut place, _, reply) = call.first();
    let now_ms = place.now_ms();
    reply.integer(match place.peek().map(|entry| entry.deadline_ms()) {
        None => -2,
        Some(None) => -1,
        Some(Some(deadline_ms)) => show(deadline_ms, now_ms).cast_signed(),
    });
    Step::Done
}

const fn rounded_seconds(ms: u64) -> u64 {
    (ms + 500) / 1000
}

#[cfg(test)]
mod tests {
    use crate::command::testing::TestKeyspace;

    #[test]
    fn every_unit_sets_the_same_deadline() {
        let mut keyspace = TestKeyspace::at(1_000_000);
        keyspace.run("MSET a 1 b 1 c 1 d 1");
        keyspace.check(&[
            ("EXPIRE a 50", ":1"),
            ("PEXPIRE b 50000", ":1"),
            ("EXPIREAT c 1050", ":1"),
            ("PEXPIREAT d 1050000", ":1"),
        ]);
        for key in ["a", "b", "c", "d"] {
            assert_eq!(keyspace.run(&format!("PEXPIRETIME {key}")), ":1050000");
            assert_eq!(keyspace.run(&format!("EXPIRETIME {key}")), ":1050");
            assert_eq!(keyspace.run(&format!("TTL {key}")), ":50");
            assert_eq!(keyspace.run(&format!("PTTL {key}")), ":50000");
        }
        keyspace.now_ms += 49_999;
        assert_eq!(keyspace.run("PTTL a"), ":1");
        assert_eq!(keyspace.run("TTL a"), ":0");
        keyspace.now_ms += 1;
        assert_eq!(keyspace.run("TTL a"), ":-2");
        assert_eq!(keyspace.run("GET a"), "nil");
    }

    #[test]
    fn missing_keys_and_keys_without_expiry_differ() {
        TestKeyspace::new().check(&[
            ("TTL k", ":-2"),
            ("PEXPIRETIME k", ":-2"),
            ("PERSIST k", ":0"),
            ("EXPIRE k 10", ":0"),
            ("SET k v", "+OK"),
            ("PTTL k", ":-1"),
            ("EXPIRETIME k", ":-1"),
            ("PERSIST k", ":0"),
            ("EXPIRE k 10", ":1"),
            ("PERSIST k", ":1"),
            ("TTL k", ":-1"),
        ]);
    }

    #[test]
    fn conditions_hold_or_refuse() {
        TestKeyspace::new().check(&[
            ("SET k v", "+OK"),
            ("EXPIRE k 100 XX", ":0"),
            ("EXPIRE k 100 GT", ":0"),
            ("EXPIRE k 100 LT", ":1"),
            ("EXPIRE k 200 LT", ":0"),
            ("EXPIRE k 50 GT", ":0"),
            ("EXPIRE k 100 GT", ":0"),
            ("EXPIRE k 100 LT", ":0"),
            ("EXPIRE k 200 gt", ":1"),
            ("EXPIRE k 300 NX", ":0"),
            ("EXPIRE k 300 XX GT", ":1"),
            ("EXPIRE k 300 XX XX", ":1"),
            ("TTL k", ":300"),
            ("EXPIRE k -1 GT", ":0"),
            ("EXISTS k", ":1"),
            ("EXPIRE k -1 LT", ":1"),
            ("EXISTS k", ":0"),
        ]);
    }

    #[test]
    fn errors_come_in_the_order_of_redis() {
        const NOT_COMPATIBLE: &str = "-ERR NX and XX, GT or LT options at the same time are not compatible";
        TestKeyspace::new().check(&[
            ("EXPIRE k", "-ERR wrong number of arguments for 'expire' command"),
            ("EXPIRE k abc BOGUS", "-ERR Unsupported option BOGUS"),
            ("EXPIRE k abc NX XX", NOT_COMPATIBLE),
            ("EXPIRE k 1 NX GT", NOT_COMPATIBLE),
            ("EXPIRE k 1 NX LT", NOT_COMPATIBLE),
            ("EXPIRE k 1 GT LT", "-ERR GT and LT options at the same time are not compatible"),
            ("EXPIRE k abc", "-ERR value is not an integer or out of range"),
            ("EXPIRE k 9223372036854775807", "-ERR invalid expire time in 'expire' command"),
            ("EXPIRE k -9223372036854775808", "-ERR invalid expire time in 'expire' command"),
            ("PEXPIRE k 9223372036854775807", "-ERR invalid expire time in 'pexpire' command"),
            ("EXPIREAT k 9223372036854776", "-ERR invalid expire time in 'expireat' command"),
            ("PEXPIREAT k 9223372036854775807", ":0"),
        ]);
    }

    #[test]
    fn the_past_removes() {
        for command in
            ["EXPIRE k 0", "EXPIRE k -1", "PEXPIRE k -9223372036854775808", "EXPIREAT k 1", "PEXPIREAT k -1"]
        {
            let mut keyspace = TestKeyspace::at(1_700_000_000_000);
            keyspace.run("SET k v");
            assert_eq!(keyspace.run(command), ":1", "{command}");
            assert_eq!(keyspace.run("DBSIZE"), ":0", "{command}");
        }
    }
}
