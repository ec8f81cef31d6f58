//! What holds for every command.

use proptest::prelude::*;

use super::{
    testing::{TestKeyspace, readable},
    *,
};
use crate::Protocol;

#[test]
fn what_is_no_command_is_refused_as_in_redis() {
    let long = "x".repeat(200);
    let kept = "x".repeat(128);
    let mut keyspace = TestKeyspace::new();
    keyspace.check(&[
        ("bogus", "-ERR unknown command 'bogus', with args beginning with: "),
        ("bogus a b", "-ERR unknown command 'bogus', with args beginning with: 'a' 'b' "),
        ("CON\\x00FIG a", "-ERR unknown command 'CON', with args beginning with: 'a' "),
        ("bo\\x0d\\x0agus", "-ERR unknown command 'bo  gus', with args beginning with: "),
        ("CONFIG bogus", "-ERR unknown subcommand 'bogus'. Try CONFIG HELP."),
        ("CONFIG", "-ERR wrong number of arguments for 'config' command"),
        ("CONFIG get", "-ERR wrong number of arguments for 'config|get' command"),
        ("GET", "-ERR wrong number of arguments for 'get' command"),
        ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command"),
        ("MSETNX a 1 b", "-ERR wrong number of arguments for 'msetnx' command"),
    ]);
    assert_eq!(
        keyspace.run(&format!("{long} {long} b")),
        format!("-ERR unknown command '{kept}', with args beginning with: '{kept}' ")
    );
}

#[test]
fn rows_are_consistent() {
    for command in all().iter().flat_map(|command| std::iter::once(command).chain(command.subcommands)) {
        let name = command.name;
        let keys = command.keys.positions(usize::from(command.arity.unsigned_abs())).count();
        match command.run {
            Run::Single(_) => assert_eq!(keys, 1, "{name}"),
            Run::Split(..) => assert_ne!(command.keys.last, command.keys.first as i8, "{name}"),
            Run::Staged(_, Plan::SetIfNone) => assert_eq!(command.keys, Keys::PAIRS, "{name}"),
            Run::Staged(..) => assert_eq!(command.keys, Keys::TWO, "{name}"),
            Run::Everywhere(..) | Run::Walk(_) | Run::Server(_) => assert_eq!(keys, 0, "{name}"),
        }
        assert_eq!(command.access.is_empty(), command.keys == Keys::NONE, "{name}");
        assert!(!(command.flags.contains(Flags::WRITE) && command.flags.contains(Flags::READONLY)), "{name}");
        assert!(command.docs.summary.ends_with('.'), "{name}");
    }
}

/// Words that commands know, and values that they find hard.
fn argument() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "a",
        "b",
        "{a}b",
        "",
        "0",
        "1",
        "-1",
        "10",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551615",
        "99999999999999999999",
        "0.1",
        "1e300",
        "-1e-300",
        "1e4932",
        "inf",
        "nan",
        "0x1p-3",
        "*",
        "[a",
        "nx",
        "xx",
        "gt",
        "lt",
        "ex",
        "px",
        "exat",
        "pxat",
        "keepttl",
        "persist",
        "get",
        "match",
        "count",
        "type",
        "string",
        "db",
        "replace",
        "len",
        "idx",
        "minmatchlen",
        "withmatchlen",
        "samples",
        "async",
        "sync",
        "filterby",
        "aclcat",
        "pattern",
        "module",
        "set",
        "mset",
        "object",
        "encoding",
        "1000",
    ]);
    prop_oneof![
        4 => words.prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

fn request() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let rows = all().iter().flat_map(|command| std::iter::once(command).chain(command.subcommands));
    let names: Vec<&str> = rows.map(|command| command.name).collect();
    (prop::sample::select(names), prop::collection::vec(argument(), 0..7)).prop_map(|(name, arguments)| {
        let names = name.split('|').map(|name| name.to_ascii_uppercase().into_bytes());
        names.chain(arguments).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever a client sends, in whatever order: exactly one reply comes, and it is well-formed.
    #[test]
    fn every_request_gets_one_reply(
        requests in prop::collection::vec((request(), 0..20_000_u64), 1..30),
        resp3: bool,
        database in 0..3_u8,
    ) {
        let mut keyspace = TestKeyspace::new();
        keyspace.settings.bulk_len_bytes_max = 1 << 16;
        keyspace.protocol = if resp3 { Protocol::Resp3 } else { Protocol::Resp2 };
        keyspace.database = database;
        for (request, elapsed_ms) in requests {
            keyspace.now_ms += elapsed_ms;
            keyspace.seed += 1;
            let reply = keyspace.execute(&request);
            let parsed = readable(&reply, false);
            prop_assert!(
                parsed.is_some_and(|(_, rest)| rest.is_empty()),
                "{:?} gave {}", request, reply.escape_ascii()
            );
        }
    }
}
