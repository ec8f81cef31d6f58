//! Strings as numbers: INCR and its relatives.

use crate::{Call, Deadline, Step, format_i64, parse_i64};

use super::{
    Categories, Command, Docs, Flags, KeyAccess, Keys, Run,
    docs::{KEY, double, integer as integer_argument},
    extended::Extended,
    failure::{Failure, NOT_AN_INTEGER, attempt, integer},
};

pub(super) const COMMANDS: &[Command] = &[
    row("incr", 2, incr, docs("1.0.0", "Adds one to an integer.").with(&[KEY])),
    row("decr", 2, decr, docs("1.0.0", "Subtracts one from an integer.").with(&[KEY])),
    row(
        "incrby",
        3,
        incrby,
        docs("1.0.0", "Adds a number to an integer.").with(&[KEY, integer_argument("increment")]),
    ),
    row(
        "decrby",
        3,
        decrby,
        docs("1.0.0", "Subtracts a number from an integer.").with(&[KEY, integer_argument("decrement")]),
    ),
    row(
        "incrbyfloat",
        3,
        incrbyfloat,
        docs("2.6.0", "Adds a number to a floating point number.").with(&[KEY, double("increment")]),
    ),
];

const NOT_A_FLOAT: &str = "ERR value is not a valid float";

const fn row(name: &'static str, arity: i16, handler: super::Handler, docs: Docs) -> Command {
    Command::new(name, arity, Run::Single(handler), docs)
        .categories(Categories::STRING)
        .flags(&[Flags::WRITE, Flags::DENYOOM, Flags::FAST])
        .keys(Keys::FIRST, &[KeyAccess::READ_UPDATE])
}

const fn docs(since: &'static str, summary: &'static str) -> Docs {
    Docs::new("string", since, "O(1)", summary)
}

fn incr(call: &mut Call<'_>) -> Step {
    attempt(call, |call| add(call, 1))
}

fn decr(call: &mut Call<'_>) -> Step {
    attempt(call, |call| add(call, -1))
}

fn incrby(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        let increment = integer(&call.args, 2)?;
        add(call, increment)
    })
}

fn decrby(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        let decrement = integer(&call.args, 2)?;
        // The smallest integer has no counterpart.
        add(call, decrement.checked_neg().ok_or("ERR decrement would overflow")?)
    })
}

fn add(call: &mut Call<'_>, increment: i64) -> Result<(), Failure> {
    let (mut place, _, reply) = call.first();
    let old = match place.take_up_string() {
        Some(value) => parse_i64(value).ok_or(NOT_AN_INTEGER)?,
        None => 0,
    };
    let new = old.checked_add(increment).ok_or("ERR increment or decrement would overflow")?;
    place.set(format_i64(new, &mut [0; 20]), Deadline::Keep);
    reply.integer(new);
    Ok(())
}

fn incrbyfloat(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        let (mut place, args, reply) = call.first();
        let old = match place.take_up_string() {
            Some(value) => Extended::parse(value).ok_or(NOT_A_FLOAT)?,
            None => Extended::ZERO,
        };
        let increment = Extended::parse(args.get(2)).ok_or(NOT_A_FLOAT)?;
        let new = old.add(increment).ok_or("ERR increment would produce NaN or Infinity")?;
        let text = new.format();
        if parse_i64(&text).is_some() {
            place.set_printed(&text);
        } else {
            place.set(&text, Deadline::Keep);
        }
        reply.bulk(&text);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use crate::command::testing::TestKeyspace;

    #[test]
    fn integers_count() {
        TestKeyspace::new().check(&[
            ("INCR n", ":1"),
            ("INCR n", ":2"),
            ("DECR n", ":1"),
            ("INCRBY n 41", ":42"),
            ("DECRBY n 2", ":40"),
            ("DECRBY fresh 5", ":-5"),
            ("INCRBY n -0", "-ERR value is not an integer or out of range"),
            ("INCRBY n 1.5", "-ERR value is not an integer or out of range"),
            ("INCRBY n +1", "-ERR value is not an integer or out of range"),
            ("GET n", "$40"),
            ("SET n 10 EX 100", "+OK"),
            ("INCR n", ":11"),
            ("TTL n", ":100"),
        ]);
    }

    #[test]
    fn the_edges_of_64_bits_hold() {
        TestKeyspace::new().check(&[
            ("SET n 9223372036854775806", "+OK"),
            ("INCR n", ":9223372036854775807"),
            ("INCR n", "-ERR increment or decrement would overflow"),
            ("INCRBY n -9223372036854775808", ":-1"),
            ("DECRBY n 9223372036854775807", ":-9223372036854775808"),
            ("DECR n", "-ERR increment or decrement would overflow"),
            ("DECRBY n -9223372036854775808", "-ERR decrement would overflow"),
            ("GET n", "$-9223372036854775808"),
        ]);
    }

    #[test]
    fn what_is_no_integer_stays_as_it_is() {
        for text in ["abc", "''", "' 11'", "1.0", "0012", "+5", "-0", "9223372036854775808"] {
            let mut keyspace = TestKeyspace::new();
            keyspace.run(&format!("SET n {text}"));
            let before = keyspace.run("GET n");
            assert_eq!(keyspace.run("INCR n"), "-ERR value is not an integer or out of range", "{text}");
            assert_eq!(keyspace.run("GET n"), before);
        }
    }

    #[test]
    fn floats_count() {
        TestKeyspace::new().check(&[
            ("INCRBYFLOAT f 1.5", "$1.5"),
            ("INCRBYFLOAT f -3", "$-1.5"),
            ("SET f 10.50", "+OK"),
            ("INCRBYFLOAT f 0.1", "$10.6"),
            ("SET f 5.0e3", "+OK"),
            ("INCRBYFLOAT f 2.0e2", "$5200"),
            ("SET f 3.0", "+OK"),
            ("INCRBYFLOAT f 0", "$3"),
            ("GET f", "$3"),
            ("INCRBYFLOAT f inf", "-ERR increment would produce NaN or Infinity"),
            ("INCRBYFLOAT f nan", "-ERR value is not a valid float"),
            ("INCRBYFLOAT f abc", "-ERR value is not a valid float"),
            ("SET f abc EX 10", "+OK"),
            ("INCRBYFLOAT f 1", "-ERR value is not a valid float"),
            ("SET f 1 EX 10", "+OK"),
            ("INCRBYFLOAT f 0.25", "$1.25"),
            ("TTL f", ":10"),
        ]);
    }
}
