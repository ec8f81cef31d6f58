//! Against Redis's algorithm, written down as a table of lengths, and in steps of any size.

use proptest::prelude::*;

use super::*;
use crate::{Protocol, command::testing::TestKeyspace};

#[test]
fn options_and_replies_are_those_of_redis() {
    TestKeyspace::new().check(&[
        ("MSET a ohmytext b mynewtext", "+OK"),
        ("LCS a b", "$mytext"),
        ("LCS a b LEN", ":6"),
        ("LCS a b IDX", "[$matches, [[[:4, :7], [:5, :8]], [[:2, :3], [:0, :1]]], $len, :6]"),
        ("LCS a b IDX MINMATCHLEN 4", "[$matches, [[[:4, :7], [:5, :8]]], $len, :6]"),
        ("LCS a b idx minmatchlen 4 withmatchlen", "[$matches, [[[:4, :7], [:5, :8], :4]], $len, :6]"),
        ("LCS a b IDX MINMATCHLEN -1 MINMATCHLEN 5", "[$matches, [], $len, :6]"),
        ("LCS a missing", "$"),
        ("LCS a missing LEN", ":0"),
        ("LCS missing a IDX", "[$matches, [], $len, :0]"),
        ("LCS a a LEN WITHMATCHLEN", ":8"),
        ("LCS a b LEN IDX", "-ERR If you want both the length and indexes, please just use IDX."),
        ("LCS a b MINMATCHLEN", "-ERR syntax error"),
        ("LCS a b BOGUS", "-ERR syntax error"),
        ("LCS a b IDX MINMATCHLEN 1.5", "-ERR value is not an integer or out of range"),
    ]);
    let mut keyspace = TestKeyspace::new();
    keyspace.protocol = Protocol::Resp3;
    assert_eq!(keyspace.run("LCS a b IDX"), "%{$matches: [], $len: :0}");
}

#[test]
fn memory_is_limited_as_in_redis() {
    let mut keyspace = TestKeyspace::new();
    keyspace.settings.bulk_len_bytes_max = 4 * 11 * 11;
    keyspace.check(&[
        ("MSET a 0123456789 b 0123456789 c 0123456789x", "+OK"),
        ("LCS a b LEN", ":10"),
        ("LCS a c LEN", "-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"),
    ]);
}

#[test]
fn long_strings_take_several_steps_and_give_the_same() {
    let mut keyspace = TestKeyspace::new();
    let (a, b) = ("abc".repeat(3_000), "acb".repeat(3_000));
    keyspace.run(&format!("MSET a {a} b {b}"));
    let (common, runs, length) = model(a.as_bytes(), b.as_bytes());
    let runs: Vec<_> = runs
        .iter()
        .map(|(a, b, length)| format!("[[:{a}, :{}], [:{b}, :{}]]", a + length - 1, b + length - 1))
        .collect();
    assert_eq!(keyspace.run("LCS a b LEN"), format!(":{length}"));
    assert_eq!(keyspace.run("LCS a b"), format!("${}", common.escape_ascii()));
    keyspace.steps = 0;
    assert_eq!(keyspace.run("LCS a b IDX"), format!("[$matches, [{}], $len, :{length}]", runs.join(", ")));
    assert!(keyspace.steps > 1, "it was meant to take several steps");
}

/// Redis's algorithm: the common subsequence, the runs as (start in a, start in b, length), the length.
fn model(a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<(usize, usize, usize)>, u32) {
    let width = b.len() + 1;
    let mut table = vec![0_u32; (a.len() + 1) * width];
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            table[i * width + j] = if a[i - 1] == b[j - 1] {
                table[(i - 1) * width + j - 1] + 1
            } else {
                table[(i - 1) * width + j].max(table[i * width + j - 1])
            };
        }
    }
    let (mut i, mut j) = (a.len(), b.len());
    let (mut common, mut runs) = (Vec::new(), Vec::<(usize, usize, usize)>::new());
    while i > 0 && j > 0 {
        if a[i - 1] == b[j - 1] {
            i -= 1;
            j -= 1;
            common.push(a[i]);
            match runs.last_mut() {
                Some(run) if (run.0, run.1) == (i + 1, j + 1) => *run = (i, j, run.2 + 1),
                _ => runs.push((i, j, 1)),
            }
        } else if table[(i - 1) * width + j] > table[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    common.reverse();
    (common, runs, table[a.len() * width + b.len()])
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(b'a'..=b'c', 0..200),
        prop::collection::vec(any::<u8>(), 0..100),
        prop::collection::vec(prop_oneof![Just(0), Just(255)], 60..70),
    ]
}

proptest! {
    #[test]
    fn bits_and_lengths_agree(a in text(), b in text(), budget in 1_usize..300) {
        let (common, runs, length) = model(&a, &b);
        for options in [
            Options::default(),
            Options { length: true, ..Options::default() },
            Options { indexes: true, ..Options::default() },
        ] {
            let mut lcs = Lcs::new(options, a.clone(), b.clone());
            while !lcs.step(budget) {}
            prop_assert_eq!(lcs.matrix.length(), length as usize);
            if options.indexes {
                let found: Vec<_> = lcs.runs.iter().map(|run| (run.a, run.b, run.length)).collect();
                prop_assert_eq!(found, runs.clone());
            } else if !options.length {
                lcs.common.reverse();
                prop_assert_eq!(lcs.common, common.clone());
            }
        }
    }
}
