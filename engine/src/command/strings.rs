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
            one_of("condition", &[word("nx", "NX"), word("xx", "XX")]).optional(),
            word("get", "GET").optional(),
            one_of("expiration", &[EX, PX, EXAT, PXAT, word("keepttl", "KEEPTTL")]).optional(),
        ]),
    )
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
            options.condition != Condition::Always && call.first().0.read().is_some()
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
    let is_missing = call.first().0.read().is_none();
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

/// Sets the key to argument `position`, which moves if it has an allocation of its own.
#[inline]
fn store(call: &mut Call<'_>, position: usize, deadline: Deadline) {
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
