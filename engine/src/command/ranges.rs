//! Parts of strings: GETRANGE, SETRANGE, APPEND, STRLEN.

use crate::{Call, Deadline, Step};

use super::{
    Categories, Command, Docs, Flags, KeyAccess, Keys, Run,
    docs::{KEY, integer as integer_argument, string},
    failure::{Failure, attempt, integer},
};

pub(super) const COMMANDS: &[Command] =
    &[
        row("getrange", 4, getrange, docs("2.4.0", RANGE_COST, "Returns a part of a string.").with(RANGE))
            .flags(&[Flags::READONLY])
            .keys(Keys::FIRST, &[KeyAccess::READ]),
        row(
            "substr",
            4,
            getrange,
            docs("1.0.0", RANGE_COST, "Returns a part of a string; GETRANGE's old name.").with(RANGE),
        )
        .deprecated("2.0.0", "`GETRANGE`")
        .flags(&[Flags::READONLY])
        .keys(Keys::FIRST, &[KeyAccess::READ]),
        row(
            "setrange",
            4,
            setrange,
            docs("2.2.0", "O(N) where N is the length of the value", "Overwrites a part of a string.")
                .with(&[KEY, integer_argument("offset"), string("value")]),
        )
        .flags(&[Flags::WRITE, Flags::DENYOOM])
        .keys(Keys::FIRST, &[KeyAccess::UPDATE]),
        row(
            "append",
            3,
            append,
            docs("2.0.0", "O(N) where N is the length of the value, amortized", "Appends to a string.")
                .with(&[KEY, string("value")]),
        )
        .flags(&[Flags::WRITE, Flags::DENYOOM, Flags::FAST])
        .keys(Keys::FIRST, &[KeyAccess::EXTEND]),
        row("strlen", 2, strlen, docs("2.2.0", "O(1)", "Returns the length of a string.").with(&[KEY]))
            .flags(&[Flags::READONLY, Flags::FAST])
            .keys(Keys::FIRST, &[KeyAccess::PEEK]),
    ];

const RANGE_COST: &str = "O(N) where N is the length of the part";
const RANGE: &[super::Argument] = &[KEY, integer_argument("start"), integer_argument("end")];

const OFFSET_OUT_OF_RANGE: &str = "ERR offset is out of range";
const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";

const fn row(name: &'static str, arity: i16, handler: super::Handler, docs: Docs) -> Command {
    Command::new(name, arity, Run::Single(handler), docs).categories(Categories::STRING)
}

const fn docs(since: &'static str, complexity: &'static str, summary: &'static str) -> Docs {
    Docs::new("string", since, complexity, summary)
}

fn getrange(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        let (mut place, args, reply) = call.first();
        let (start, end) = (integer(args, 2)?, integer(args, 3)?);
        let value = place.read_string().unwrap_or_default();
        reply.bulk(part(value, start, end));
        Ok(())
    })
}

/// The bytes from `start` to `end`, both included; negative ones count from the end.
fn part(value: &[u8], start: i64, end: i64) -> &[u8] {
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let length = value.len() as i64;
    let from_start = |index: i64| if index < 0 { (length + index).max(0) } else { index };
    let (start, end) = (from_start(start), from_start(end).min(length - 1));
    if start > end { &[] } else { &value[start as usize..=end as usize] }
}

fn setrange(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        let len_bytes_max = call.settings.bulk_len_bytes_max;
        let (mut place, args, reply) = call.first();
        let offset = u64::try_from(integer(args, 2)?).map_err(|_| OFFSET_OUT_OF_RANGE)?;
        let value = args.get(3);
        let old_length = place.take_up_string().map_or(0, <[u8]>::len);
        if value.is_empty() {
            reply.integer(old_length as i64);
            return Ok(());
        }
        let end = checked_length(offset, value.len(), len_bytes_max)?;
        let length = old_length.max(end);
        place.edit(length, end - value.len()..end, |bytes| bytes.copy_from_slice(value));
        reply.integer(length as i64);
        Ok(())
    })
}

fn append(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        let len_bytes_max = call.settings.bulk_len_bytes_max;
        let (mut place, args, reply) = call.first();
        let value = args.get(2);
        let length = match place.take_up_string().map(<[u8]>::len) {
            None => {
                // Nothing was there to edit: the value is stored like any other.
                place.set(value, Deadline::Clear);
                value.len()
            }
            Some(old_length) => {
                let length = checked_length(old_length as u64, value.len(), len_bytes_max)?;
                place.edit(length, old_length..length, |bytes| bytes.copy_from_slice(value));
                length
            }
        };
        reply.integer(length as i64);
        Ok(())
    })
}

/// The length of a string that ends with `added` bytes at `offset`.
fn checked_length(offset: u64, added: usize, len_bytes_max: u64) -> Result<usize, Failure> {
    let length = offset.checked_add(added as u64).filter(|&length| length <= len_bytes_max);
    Ok(length.ok_or(TOO_LONG)? as usize)
}

fn strlen(call: &mut Call<'_>) -> Step {
    let (mut place, _, reply) = call.first();
    let length = place.read_string().map_or(0, <[u8]>::len);
    reply.integer(length as i64);
    Step::Done
}

#[cfg(test)]
mod tests {
    use super::part;
    use crate::command::testing::TestKeyspace;

    #[test]
    fn parts_are_cut_as_in_redis() {
        let table: &[(i64, i64, &str)] = &[
            (0, -1, "hello"),
            (0, 0, "h"),
            (1, 3, "ell"),
            (-3, -1, "llo"),
            (-1, -3, ""),
            (3, 1, ""),
            (-100, 1, "he"),
            (-100, -50, "h"),
            (-50, -100, ""),
            (2, 100, "llo"),
            (5, 9, ""),
            (0, -6, "h"),
            (i64::MIN, i64::MAX, "hello"),
            (i64::MAX, i64::MIN, ""),
        ];
        for &(start, end, expected) in table {
            assert_eq!(part(b"hello", start, end), expected.as_bytes(), "{start} {end}");
            assert_eq!(part(b"", start, end), b"", "{start} {end}");
        }
    }

    #[test]
    fn ranges_are_read_and_written() {
        TestKeyspace::new().check(&[
            ("SET k 'hello world'", "+OK"),
            ("GETRANGE k -5 -1", "$world"),
            ("SUBSTR k 0 4", "$hello"),
            ("GETRANGE missing 0 -1", "$"),
            ("GETRANGE k a 1", "-ERR value is not an integer or out of range"),
            ("GETRANGE k 1 b", "-ERR value is not an integer or out of range"),
            ("SETRANGE k 6 Redis", ":11"),
            ("GET k", "$hello Redis"),
            ("SETRANGE k 12 !", ":13"),
            ("GET k", "$hello Redis\\x00!"),
            ("SETRANGE k 100 ''", ":13"),
            ("SETRANGE k -1 x", "-ERR offset is out of range"),
            ("SETRANGE k x x", "-ERR value is not an integer or out of range"),
            ("SETRANGE missing 5 ''", ":0"),
            ("EXISTS missing", ":0"),
            ("SETRANGE fresh 2 ab", ":4"),
            ("GET fresh", "$\\x00\\x00ab"),
            ("STRLEN fresh", ":4"),
            ("STRLEN missing", ":0"),
        ]);
    }

    #[test]
    fn appended_strings_grow_and_keep_their_expiry() {
        TestKeyspace::new().check(&[
            ("APPEND k abc", ":3"),
            ("APPEND k ''", ":3"),
            ("EXPIRE k 50", ":1"),
            ("APPEND k def", ":6"),
            ("GET k", "$abcdef"),
            ("TTL k", ":50"),
            ("APPEND empty ''", ":0"),
            ("EXISTS empty", ":1"),
        ]);
    }

    #[test]
    fn no_string_outgrows_the_limit() {
        let mut keyspace = TestKeyspace::new();
        keyspace.settings.bulk_len_bytes_max = 10;
        keyspace.check(&[
            ("SETRANGE k 9 x", ":10"),
            ("SETRANGE k 10 x", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
            (
                "SETRANGE k 9223372036854775807 x",
                "-ERR string exceeds maximum allowed size (proto-max-bulk-len)",
            ),
            ("APPEND k x", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
            ("STRLEN k", ":10"),
        ]);
    }
}
