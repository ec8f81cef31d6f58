//! Whole databases: KEYS, RANDOMKEY, DBSIZE, FLUSHDB, FLUSHALL, SWAPDB.
//!
//! Each handler sees this core's shards only; the server merges what the cores say.

use crate::{
    Args, Call, Cursor, Protocol, Reply, Resume, SLOT_COUNT, Shard, Shards, Step, glob_match, parse_i64,
};

use super::{
    Argument, Categories, Command, Docs, Flags, Handler, Merge, Run,
    docs::{integer, one_of, pattern, word},
    failure::{SYNTAX, attempt, database_numbered, is_word},
};

pub(super) const COMMANDS: &[Command] = &[
    row(
        "keys",
        2,
        keys,
        Merge::Concatenate,
        "generic",
        "1.0.0",
        "O(N) where N is the number of keys",
        "Lists the keys that match a pattern.",
    )
    .arguments(&[pattern("pattern")])
    .flags(&[Flags::READONLY])
    .categories(Categories::DANGEROUS)
    .tips(&["request_policy:all_shards", "nondeterministic_output_order"]),
    row("randomkey", 1, randomkey, Merge::Draw, "generic", "1.0.0", "O(1)", "Draws a key.")
        .flags(&[Flags::READONLY])
        .tips(&["request_policy:all_shards", "nondeterministic_output"]),
    row("dbsize", 1, dbsize, Merge::Sum, "server", "1.0.0", "O(1)", "Counts the keys of the database.")
        .flags(&[Flags::READONLY, Flags::FAST])
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"]),
    row(
        "flushdb",
        -1,
        flushdb,
        Merge::Status,
        "server",
        "1.0.0",
        FLUSH_COST,
        "Removes every key of the database.",
    )
    .arguments(FLUSH_MODE)
    .history(FLUSH_HISTORY)
    .flags(&[Flags::WRITE])
    .categories(Categories::DANGEROUS)
    .tips(FLUSH_TIPS),
    row(
        "flushall",
        -1,
        flushall,
        Merge::Status,
        "server",
        "1.0.0",
        FLUSH_COST,
        "Removes every key of every database.",
    )
    .arguments(FLUSH_MODE)
    .history(FLUSH_HISTORY)
    .flags(&[Flags::WRITE])
    .categories(Categories::DANGEROUS)
    .tips(FLUSH_TIPS),
    row(
        "swapdb",
        3,
        swapdb,
        Merge::Status,
        "server",
        "4.0.0",
        "O(1)",
        "Exchanges two databases for every client.",
    )
    .arguments(&[integer("index1"), integer("index2")])
    .flags(&[Flags::WRITE, Flags::FAST])
    .categories(Categories::DANGEROUS),
];

const FLUSH_COST: &str = "O(1); memory is freed later, O(N) in the number of keys";
const FLUSH_MODE: &[Argument] =
    &[one_of("async", &[word("async", "ASYNC").since("4.0.0"), word("sync", "SYNC").since("6.2.0")])
        .optional()];
const FLUSH_HISTORY: &[(&str, &str)] = &[("4.0.0", "Takes `ASYNC`."), ("6.2.0", "Takes `SYNC`.")];
const FLUSH_TIPS: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];

/// Entries that one step of KEYS looks at.
const KEYS_STEP_ENTRIES: usize = 2_000;

#[expect(clippy::too_many_arguments, reason = "a row of the table")]
const fn row(
    name: &'static str,
    arity: i16,
    handler: Handler,
    merge: Merge,
    group: &'static str,
    since: &'static str,
    complexity: &'static str,
    summary: &'static str,
) -> Command {
    Command::new(name, arity, Run::Everywhere(handler, merge), Docs::new(group, since, complexity, summary))
        .categories(Categories::KEYSPACE)
}

fn keys(call: &mut Call<'_>) -> Step {
    let mut listing = Listing { next: Some(Cursor(0)), count: 0, bulks: Vec::new() };
    if listing.resume(call) { Step::Done } else { Step::Continue(Box::new(listing)) }
}

/// KEYS under way.
struct Listing {
    /// Where the next step begins; `None` at the end.
    next: Option<Cursor>,
    /// Keys that matched so far.
    count: usize,
    /// Those keys as bulk strings.
    bulks: Vec<u8>,
}

impl Resume for Listing {
    fn resume(&mut self, call: &mut Call<'_>) -> bool {
        let Call { shards, args, database, now_ms, .. } = call;
        let pattern = args.get(1);
        let mut looked_at = 0;
        while let Some(from) = self.next
            && looked_at < KEYS_STEP_ENTRIES
        {
            let budget = KEYS_STEP_ENTRIES - looked_at;
            let Some(shard) = shard_from(shards, from) else {
                self.next = None;
                break;
            };
            let end = shard.slots().end;
            let next = shard.scan(*database, from, budget, budget, *now_ms, |entry| {
                looked_at += 1;
                if matches_all(pattern) || glob_match(pattern, entry.key()) {
                    self.count += 1;
                    Reply::new(&mut self.bulks, Protocol::Resp2).bulk(entry.key());
                }
            });
            if next.is_some() {
                // The step ends where the shard's budget did.
                looked_at = KEYS_STEP_ENTRIES;
            }
            self.next = next.or_else(|| (end < SLOT_COUNT).then(|| Cursor::of_slot(end)));
        }
        if self.next.is_none() {
            call.reply.array(self.count);
            call.reply.raw(&self.bulks);
        }
        self.next.is_none()
    }
}

/// The first of this core's shards that a cursor has not passed.
fn shard_from(shards: &mut Shards, cursor: Cursor) -> Option<&mut Shard> {
    shards.iter_mut().find(|shard| shard.slots().end > cursor.slot())
}

/// The pattern that matches even the empty key.
pub(super) fn matches_all(pattern: &[u8]) -> bool {
    pattern == b"*"
}

/// Replies with this core's part of the draw: how many keys it holds and one of them.
fn randomkey(call: &mut Call<'_>) -> Step {
    let Call { shards, database, now_ms, seed, reply, .. } = call;
    let count: usize = shards.iter().map(|shard| shard.key_count(*database)).sum();
    reply.array(2);
    reply.integer(count as i64);
    // A draw over all keys says which shard it falls into; if that one turns out to hold only keys that are
    // due, the others follow in their order.
    let draw = mix(*seed) as usize % count.max(1);
    let mut before = 0;
    let falls_into = shards.iter().position(|shard| {
        before += shard.key_count(*database);
        draw < before
    });
    let first = falls_into.unwrap_or(0);
    for wrapped in [false, true] {
        for (number, shard) in shards.iter_mut().enumerate() {
            if (number < first) == wrapped
                && let Some(entry) = shard.random_key(*database, mix(*seed ^ DRAW_WITHIN), *now_ms)
            {
                reply.bulk(entry.key());
                return Step::Done;
            }
        }
    }
    reply.null();
    Step::Done
}

/// Makes the draw within a shard independent of the draw among shards.
const DRAW_WITHIN: u64 = 0x5851_F42D_4C95_7F2D;

/// Scrambles a seed (the finisher of SplitMix64), for seeds may follow one another in a simple way.
pub(super) const fn mix(seed: u64) -> u64 {
    let seed = (seed ^ (seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    seed ^ (seed >> 31)
}

fn dbsize(call: &mut Call<'_>) -> Step {
    let count: usize = call.shards.iter().map(|shard| shard.key_count(call.database)).sum();
    call.reply.integer(count as i64);
    Step::Done
}

fn flushdb(call: &mut Call<'_>) -> Step {
    flush(call, Some(call.database))
}

fn flushall(call: &mut Call<'_>) -> Step {
    flush(call, None)
}

/// Both ASYNC and SYNC detach at once and free later: the difference is one of blocking, and nothing blocks.
fn flush(call: &mut Call<'_>, database: Option<u8>) -> Step {
    attempt(call, |call| {
        check_flush_mode(&call.args)?;
        for shard in call.shards.iter_mut() {
            shard.flush(database);
        }
        call.reply.ok();
        Ok(())
    })
}

fn check_flush_mode(args: &Args<'_>) -> Result<(), &'static str> {
    let is_known = match args.len() {
        1 => true,
        2 => is_word(args, 1, "async") || is_word(args, 1, "sync"),
        _ => false,
    };
    if is_known { Ok(()) } else { Err(SYNTAX) }
}

fn swapdb(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        let number = |index| parse_i64(call.args.get(index)).and_then(|number| i32::try_from(number).ok());
        let first = number(1).ok_or("ERR invalid first DB index")?;
        let second = number(2).ok_or("ERR invalid second DB index")?;
        let (first, second) = (database_numbered(first)?, database_numbered(second)?);
        for shard in call.shards.iter_mut() {
            shard.swap_databases(first, second);
        }
        call.reply.ok();
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::KEYS_STEP_ENTRIES;
    use crate::command::testing::TestKeyspace;

    #[test]
    fn keys_lists_what_matches() {
        let mut keyspace = TestKeyspace::new();
        assert_eq!(keyspace.run("KEYS *"), "[]");
        keyspace.run("MSET one 1 two 2 three 3 '' empty");
        assert_eq!(keyspace.run_sorted("KEYS *"), "[$, $one, $three, $two]");
        assert_eq!(keyspace.run_sorted("KEYS t*"), "[$three, $two]");
        assert_eq!(keyspace.run("KEYS **e"), keyspace.run("KEYS *e"));
        assert_eq!(keyspace.run("KEYS none"), "[]");
        keyspace.run("PEXPIRE one 1");
        keyspace.now_ms += 1;
        assert_eq!(keyspace.run("KEYS one"), "[]");
    }

    #[test]
    fn keys_goes_through_a_large_database_in_steps() {
        let mut keyspace = TestKeyspace::new();
        let count = 3 * KEYS_STEP_ENTRIES;
        for number in 0..count {
            keyspace.run(&format!("SET key:{number} v"));
        }
        keyspace.steps = 0;
        assert_eq!(keyspace.run("KEYS *").matches("$key:").count(), count);
        assert!(keyspace.steps >= 3, "{} steps", keyspace.steps);
        assert_eq!(keyspace.run("KEYS key:5999"), "[$key:5999]");
    }

    #[test]
    fn randomkey_draws_every_key() {
        let mut keyspace = TestKeyspace::new();
        assert_eq!(keyspace.run("RANDOMKEY"), "nil");
        keyspace.run("MSET a 1 b 2 c 3 d 4");
        let mut drawn: Vec<_> = (0..200)
            .map(|seed| {
                keyspace.seed = seed;
                keyspace.run("RANDOMKEY")
            })
            .collect();
        drawn.sort();
        drawn.dedup();
        assert_eq!(drawn, ["$a", "$b", "$c", "$d"]);
        for key in ["a", "b", "c"] {
            keyspace.run(&format!("PEXPIRE {key} 1"));
        }
        keyspace.now_ms += 1;
        for seed in 0..20 {
            keyspace.seed = seed;
            assert_eq!(keyspace.run("RANDOMKEY"), "$d");
        }
    }

    /// As in Redis: such keys are missing, but they count until something removes them.
    #[test]
    fn keys_that_are_due_count_until_they_are_removed() {
        let mut keyspace = TestKeyspace::new();
        keyspace.run("SET a 1 PX 5");
        keyspace.now_ms += 5;
        keyspace.check(&[("GET a", "nil"), ("DBSIZE", ":1"), ("DEL a", ":0"), ("DBSIZE", ":0")]);
    }

    #[test]
    fn databases_are_flushed_and_swapped() {
        let mut keyspace = TestKeyspace::new();
        keyspace.check(&[
            ("SET a zero", "+OK"),
            ("SWAPDB 0 1", "+OK"),
            ("DBSIZE", ":0"),
            ("SWAPDB 1 1", "+OK"),
            ("SWAPDB x y", "-ERR invalid first DB index"),
            ("SWAPDB 0 y", "-ERR invalid second DB index"),
            ("SWAPDB 99999999999 0", "-ERR invalid first DB index"),
            ("SWAPDB 0 16", "-ERR DB index is out of range"),
            ("SWAPDB -1 0", "-ERR DB index is out of range"),
            ("FLUSHDB", "+OK"),
            ("SWAPDB 0 1", "+OK"),
            ("GET a", "$zero"),
            ("FLUSHDB bogus", "-ERR syntax error"),
            ("FLUSHALL SYNC x", "-ERR syntax error"),
            ("DBSIZE", ":1"),
            ("FLUSHDB async", "+OK"),
            ("DBSIZE", ":0"),
            ("SET a 1", "+OK"),
            ("SWAPDB 0 3", "+OK"),
            ("FLUSHALL SYNC", "+OK"),
            ("SWAPDB 0 3", "+OK"),
            ("DBSIZE", ":0"),
        ]);
    }
}
