//! Values in the form that travels between servers: DUMP and RESTORE.

use crate::rdb::{PayloadError, dump_payload, restore_payload};
use crate::{Args, Call, Step};

use super::{
    Categories, Command, Docs, Flags, KeyAccess, Keys, Run,
    docs::{KEY, integer, string, word},
    failure::{Failure, SYNTAX, attempt, integer as integer_argument, is_word},
};

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "dump",
        2,
        Run::Single(dump),
        docs("Returns a value in the form that RESTORE takes.").with(&[KEY]),
    )
    .flags(&[Flags::READONLY])
    .categories(Categories::KEYSPACE)
    .keys(Keys::FIRST, &[KeyAccess::READ])
    .tips(&["nondeterministic_output"]),
    Command::new(
        "restore",
        -4,
        Run::Single(restore),
        docs("Sets a key to a value in the form that DUMP returns.").with(&[
            KEY,
            integer("ttl"),
            string("serialized-value"),
            word("replace", "REPLACE").since("3.0.0").optional(),
            word("absttl", "ABSTTL").since("5.0.0").optional(),
            integer("seconds").after("IDLETIME").since("5.0.0").optional(),
            integer("frequency").after("FREQ").since("5.0.0").optional(),
        ]),
    )
    .history(&[
        ("3.0.0", "Takes `REPLACE`."),
        ("5.0.0", "Takes `ABSTTL`."),
        ("5.0.0", "Takes `IDLETIME` and `FREQ`."),
    ])
    .flags(&[Flags::WRITE, Flags::DENYOOM])
    .categories(Categories::KEYSPACE.and(Categories::DANGEROUS))
    .keys(Keys::FIRST, &[KeyAccess::OVERWRITE]),
];

const fn docs(summary: &'static str) -> Docs {
    Docs::new("generic", "2.6.0", "O(N) where N is the size of the value", summary)
}

fn dump(call: &mut Call<'_>) -> Step {
    let (mut place, _, reply) = call.first();
    match place.read() {
        Some(entry) => {
            let mut payload = Vec::new();
            dump_payload(entry.value(), &mut payload);
            reply.bulk(&payload);
        }
        None => reply.null(),
    }
    Step::Done
}

fn restore(call: &mut Call<'_>) -> Step {
    attempt(call, |call| {
        let options = Options::parse(&call.args)?;
        if !options.replace && call.first().0.take_up().is_some() {
            return Err("BUSYKEY Target key name already exists.".into());
        }
        let deadline_ms = deadline(&call.args, &options, call.now_ms)?;
        let value = restore_payload(call.args.get(3), call.settings.bulk_len_bytes_max)?;
        let entry = value.into_detached(deadline_ms, options.idle_seconds.unwrap_or(0), call.now_ms);
        let mut place = call.first().0;
        if deadline_ms.is_some_and(|deadline_ms| deadline_ms <= place.now_ms()) {
            // What came too late is not kept, and what it was to replace is gone.
            place.remove();
        } else {
            place.attach(entry);
        }
        call.reply.ok();
        Ok(())
    })
}

/// When the key is to expire: milliseconds since the Unix epoch.
fn deadline(args: &Args<'_>, options: &Options, now_ms: u64) -> Result<Option<u64>, Failure> {
    let ttl_ms = u64::try_from(integer_argument(args, 2)?)
        .map_err(|_| Failure::Text("ERR Invalid TTL value, must be >= 0"))?;
    Ok(match ttl_ms {
        0 => None,
        _ if options.absolute => Some(ttl_ms),
        // Redis adds up 64 bits with a sign: a time beyond them is long past.
        _ => Some(i64::try_from(ttl_ms.saturating_add(now_ms)).map_or(0, i64::cast_unsigned)),
    })
}

/// RESTORE's options.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    /// REPLACE.
    replace: bool,
    /// ABSTTL.
    absolute: bool,
    /// IDLETIME.
    idle_seconds: Option<u64>,
    /// FREQ: checked, and of no effect while nothing counts accesses by frequency.
    has_frequency: bool,
}

impl Options {
    fn parse(args: &Args<'_>) -> Result<Self, &'static str> {
        let mut options = Self::default();
        let mut index = 4;
        while index < args.len() {
            let has_number = index + 1 < args.len();
            if is_word(args, index, "replace") {
                options.replace = true;
            } else if is_word(args, index, "absttl") {
                options.absolute = true;
            } else if is_word(args, index, "idletime") && has_number && !options.has_frequency {
                index += 1;
                let seconds = u64::try_from(integer_argument(args, index)?);
                options.idle_seconds = Some(seconds.map_err(|_| "ERR Invalid IDLETIME value, must be >= 0")?);
            } else if is_word(args, index, "freq") && has_number && options.idle_seconds.is_none() {
                index += 1;
                if !(0..=255).contains(&integer_argument(args, index)?) {
                    return Err("ERR Invalid FREQ value, must be >= 0 and <= 255");
                }
                options.has_frequency = true;
            } else {
                return Err(SYNTAX);
            }
            index += 1;
        }
        Ok(options)
    }
}

impl From<PayloadError> for Failure {
    fn from(error: PayloadError) -> Self {
        Self::Text(match error {
            PayloadError::Footer => "ERR DUMP payload version or checksum are wrong",
            PayloadError::Data => "ERR Bad data format",
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::command::testing::TestKeyspace;

    /// The payload of `value`, escaped for a line of commands.
    fn payload(value: &str) -> String {
        let mut keyspace = TestKeyspace::new();
        keyspace.run(&format!("SET k '{value}'"));
        let reply = keyspace.execute(&[b"DUMP".to_vec(), b"k".to_vec()]);
        let start = reply.iter().position(|&byte| byte == b'\n').expect("a bulk string") + 1;
        escaped(&reply[start..reply.len() - 2])
    }

    fn escaped(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
    }

    /// What follows `content` in a payload of `version`.
    fn sealed(content: &[u8], version: u16) -> String {
        let mut payload = content.to_vec();
        payload.extend_from_slice(&version.to_le_bytes());
        let checksum = crate::rdb::Checksum::of(&payload);
        payload.extend_from_slice(&checksum.to_le_bytes());
        escaped(&payload)
    }

    #[test]
    fn payloads_are_those_of_redis() {
        let brown_fox = "the quick brown fox jumps over the lazy dog, the quick red fox too".repeat(3);
        // Made by Redis 7.0.15.
        for (value, expected) in [
            ("v", "0001760a009108ceb219388ace"),
            ("", "00000a005d9b5c400f7fa2da"),
            ("10", "00c00a0a006e9f57450eae63bb"),
            ("-129", "00c17fff0a001760822854808480"),
            ("100000", "00c2a08601000a00f12403506f2fa674"),
            (&"x".repeat(21), "00c30615017878e00a000a00941a83676017192f"),
            (&"abc".repeat(10), "00c30b1e0361626361e00f020162630a008874be6d67e59d2a"),
            (&"x".repeat(1000), "00c31243e8017878e0ff00e0ff00e0ff00e0c3000178780a009219e2966d932c99"),
            (
                &brown_fox,
                "00c3404540c61f74686520717569636b2062726f776e20666f78206a756d7073206f7665722074201e086c617a7920646f\
                 672c600d802c02726564602a02746f6f40228014e06f41016f6f0a00355411af3c471d91",
            ),
        ] {
            assert_eq!(payload(value).replace("\\x", ""), expected, "{value}");
        }
        TestKeyspace::new().check(&[("DUMP missing", "nil")]);
    }

    #[test]
    fn values_come_back() {
        let long = "abc".repeat(20_000);
        for value in ["", "v", "0", "-1", "127", "128", "-32769", "2147483647", "2147483648", "01", &long] {
            let mut keyspace = TestKeyspace::new();
            assert_eq!(keyspace.run(&format!("RESTORE k 0 {}", payload(value))), "+OK");
            assert_eq!(keyspace.run("GET k"), format!("${value}"));
            assert_eq!(keyspace.run("TTL k"), ":-1");
        }
    }

    #[test]
    fn deadlines_are_relative_or_absolute() {
        let mut keyspace = TestKeyspace::new();
        let (v, now_ms) = (payload("v"), keyspace.now_ms);
        keyspace.run(&format!("RESTORE k 1500 {v}"));
        assert_eq!(keyspace.run("PTTL k"), ":1500");
        keyspace.run(&format!("RESTORE k {} {v} absttl REPLACE", now_ms + 70));
        assert_eq!(keyspace.run("PTTL k"), ":70");
        for line in [
            format!("RESTORE k {now_ms} {v} ABSTTL REPLACE"),
            format!("RESTORE k 1 {v} ABSTTL REPLACE"),
            format!("RESTORE k 9223372036854775807 {v} REPLACE"),
        ] {
            keyspace.run("SET k old");
            assert_eq!(keyspace.run(&line), "+OK");
            assert_eq!(keyspace.run("EXISTS k"), ":0", "{line}");
        }
        assert_eq!(keyspace.run(&format!("RESTORE k 9223372036854775807 {v} ABSTTL")), "+OK");
        assert_eq!(keyspace.run("GET k"), "$v");
    }

    #[test]
    fn idle_times_are_kept() {
        let mut keyspace = TestKeyspace::new();
        let v = payload("v");
        keyspace.run(&format!("RESTORE k 0 {v} IDLETIME 1000"));
        assert_eq!(keyspace.run("OBJECT IDLETIME k"), ":1000");
        keyspace.run(&format!("RESTORE k 0 {v} IDLETIME 9223372036854775807 REPLACE"));
        assert_eq!(keyspace.run("OBJECT IDLETIME k"), ":16777215");
        keyspace.run(&format!("RESTORE k 0 {v} REPLACE FREQ 255"));
        assert_eq!(keyspace.run("OBJECT IDLETIME k"), ":0");
    }

    #[test]
    fn errors_are_those_of_redis() {
        const IDLE: &str = "-ERR Invalid IDLETIME value, must be >= 0";
        const FREQUENCY: &str = "-ERR Invalid FREQ value, must be >= 0 and <= 255";
        const INTEGER: &str = "-ERR value is not an integer or out of range";
        let v = payload("v");
        let mut keyspace = TestKeyspace::new();
        keyspace.run("SET k old");
        for (line, expected) in [
            ("RESTORE k x bad", "-BUSYKEY Target key name already exists."),
            ("RESTORE k 0 bad REPLACE", "-ERR DUMP payload version or checksum are wrong"),
            ("RESTORE n x bad", INTEGER),
            ("RESTORE n -1 bad", "-ERR Invalid TTL value, must be >= 0"),
            ("RESTORE n 0 bad", "-ERR DUMP payload version or checksum are wrong"),
            ("RESTORE k 0 bad BOGUS", "-ERR syntax error"),
            ("RESTORE k 0 bad IDLETIME", "-ERR syntax error"),
            ("RESTORE k 0 bad FREQ", "-ERR syntax error"),
            ("RESTORE k 0 bad IDLETIME -1", IDLE),
            ("RESTORE k 0 bad IDLETIME x", INTEGER),
            ("RESTORE k 0 bad FREQ -1", FREQUENCY),
            ("RESTORE k 0 bad FREQ 256", FREQUENCY),
            ("RESTORE k 0 bad FREQ x", INTEGER),
            ("RESTORE k 0 bad FREQ 1 IDLETIME 1", "-ERR syntax error"),
            ("RESTORE k 0 bad IDLETIME 1 FREQ 1", "-ERR syntax error"),
            ("RESTORE n 0", "-ERR wrong number of arguments for 'restore' command"),
        ] {
            assert_eq!(keyspace.run(line), expected, "{line}");
        }
        assert_eq!(keyspace.run("GET k"), "$old");
        assert_eq!(keyspace.run(&format!("RESTORE k 0 {v}")), "-BUSYKEY Target key name already exists.");
    }

    #[test]
    fn damaged_payloads_are_refused() {
        let mut keyspace = TestKeyspace::new();
        for (content, version, expected) in [
            (&b"\x00\x01v"[..], 12, "+OK"),
            (b"\x00\x01v", 11, "+OK"),
            (b"\x00\x01v", 13, "-ERR DUMP payload version or checksum are wrong"),
            (b"", 10, "-ERR Bad data format"),
            (b"\x00", 10, "-ERR Bad data format"),
            (b"\x00\x02v", 10, "-ERR Bad data format"),
            (b"\x00\x82v", 10, "-ERR Bad data format"),
            (b"\x00\xc4v", 10, "-ERR Bad data format"),
            (b"\x00\xc3\x02\x01\x00v", 10, "+OK"),
            (b"\x00\xc3\x02\x02\x00v", 10, "-ERR Bad data format"),
            (b"\x00\x81\xff\xff\xff\xff\xff\xff\xff\xff", 10, "-ERR Bad data format"),
            // A list of one element: no type that is here.
            (b"\x01\x01\x01a", 10, "-ERR Bad data format"),
            (b"\xfa\x01a\x01b", 10, "-ERR Bad data format"),
        ] {
            let line = format!("RESTORE k 0 {} REPLACE", sealed(content, version));
            assert_eq!(keyspace.run(&line), expected, "{}", content.escape_ascii());
        }
        keyspace.settings.bulk_len_bytes_max = 63;
        let long = payload(&"x".repeat(64));
        assert_eq!(keyspace.run(&format!("RESTORE k 0 {long} REPLACE")), "-ERR Bad data format");
        keyspace.settings.bulk_len_bytes_max = 64;
        assert_eq!(keyspace.run(&format!("RESTORE k 0 {long} REPLACE")), "+OK");
    }
}
