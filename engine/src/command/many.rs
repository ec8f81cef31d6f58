//! Several strings at once: MGET, MSET, MSETNX.

use crate::{Call, Deadline, Step, call::PREFETCH_KEYS};

use super::{
    Categories, Command, Docs, Flags, KeyAccess, Keys, Merge, Plan, Run,
    docs::{KEY, block, string},
};

pub(super) const COMMANDS: &[Command] = &[
    row(
        "mget",
        -2,
        Run::Split(mget, Merge::ByKey),
        docs("1.0.0", "Returns the strings of several keys.").with(&[KEY.multiple()]),
    )
    .flags(&[Flags::READONLY, Flags::FAST])
    .keys(Keys::ALL, &[KeyAccess::READ])
    .tips(&["request_policy:multi_shard"]),
    row(
        "mset",
        -3,
        Run::Split(mset, Merge::Status),
        docs("1.0.1", "Sets several keys to strings, all at once.").with(&[PAIRS]),
    )
    .flags(&[Flags::WRITE, Flags::DENYOOM])
    .keys(Keys::PAIRS, &[KeyAccess::OVERWRITE])
    .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"]),
    row(
        "msetnx",
        -3,
        Run::Staged(msetnx, Plan::SetIfNone),
        docs("1.0.1", "Sets several keys to strings, unless one of them exists.").with(&[PAIRS]),
    )
    .flags(&[Flags::WRITE, Flags::DENYOOM])
    .keys(Keys::PAIRS, &[KeyAccess::CREATE])
    .tips(&["request_policy:multi_shard", "response_policy:agg_min"]),
];

const PAIRS: super::Argument = block("key_value", &[KEY, string("value")]).multiple();

const fn row(name: &'static str, arity: i16, run: Run, docs: Docs) -> Command {
    Command::new(name, arity, run, docs).categories(Categories::STRING)
}

const fn docs(since: &'static str, summary: &'static str) -> Docs {
    Docs::new("string", since, "O(N) where N is the number of keys", summary)
}

fn mget(call: &mut Call<'_>) -> Step {
    let count = call.keys.len();
    call.reply.array(count);
    for ordinal in 0..count {
        prefetch_from(call, ordinal);
        let (mut place, _, reply) = call.place(ordinal, 1 + ordinal);
        match place.read_string() {
            Some(value) => reply.bulk(value),
            None => reply.null(),
        }
    }
    Step::Done
}

fn mset(call: &mut Call<'_>) -> Step {
    set_all(call);
    call.reply.ok();
    Step::Done
}

/// All keys are on this core: nothing comes between looking and setting.
fn msetnx(call: &mut Call<'_>) -> Step {
    let is_none_there = (0..call.keys.len()).all(|ordinal| {
        prefetch_from(call, ordinal);
        call.place(ordinal, 1 + 2 * ordinal).0.take_up().is_none()
    });
    if is_none_there {
        set_all(call);
    }
    call.reply.integer(i64::from(is_none_there));
    Step::Done
}

fn set_all(call: &mut Call<'_>) {
    for ordinal in 0..call.keys.len() {
        prefetch_from(call, ordinal);
        let position = 1 + 2 * ordinal;
        match call.args.take_large(position + 1) {
            Some(value) => call.place(ordinal, position).0.set_owned(value, Deadline::Clear),
            None => {
                let (mut place, args, _) = call.place(ordinal, position);
                place.set(args.get(position + 1), Deadline::Clear);
            }
        }
    }
}

/// Prefetches the next keys when it is their turn.
#[inline]
pub(super) fn prefetch_from(call: &Call<'_>, ordinal: usize) {
    if ordinal.is_multiple_of(PREFETCH_KEYS) {
        let end = call.keys.len().min(ordinal + PREFETCH_KEYS);
        call.prefetch(&call.keys[ordinal..end]);
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::TestKeyspace;

    #[test]
    fn several_keys_are_set_and_returned() {
        TestKeyspace::new().check(&[
            ("MSET a 1 b 2 a 3", "+OK"),
            ("MGET a missing b a", "[$3, nil, $2, $3]"),
            ("EXPIRE a 10", ":1"),
            ("MSET a 4", "+OK"),
            ("TTL a", ":-1"),
            ("MSETNX c 1 a 5", ":0"),
            ("EXISTS c", ":0"),
            ("MSETNX c 1 d 2 c 3", ":1"),
            ("MGET c d", "[$3, $2]"),
        ]);
    }

    #[test]
    fn more_keys_than_one_prefetch_covers() {
        let pairs: String = (0..50).map(|number| format!(" k{number} v{number}")).collect();
        let names: String = (0..50).map(|number| format!(" k{number}")).collect();
        let values: Vec<_> = (0..50).map(|number| format!("$v{number}")).collect();
        let mut keyspace = TestKeyspace::new();
        assert_eq!(keyspace.run(&format!("MSETNX{pairs}")), ":1");
        assert_eq!(keyspace.run(&format!("MGET{names}")), format!("[{}]", values.join(", ")));
        assert_eq!(keyspace.run(&format!("MSETNX{pairs}")), ":0");
    }
}
