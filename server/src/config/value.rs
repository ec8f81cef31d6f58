//! The text forms of values: one function reads a kind of value, wherever the text comes from.
//!
//! The reasons for a refusal are Redis 7.0's wherever Redis has such a value, because clients and tests compare them.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    path::PathBuf,
};

use duva_engine::parse_i64;

use super::{BindAddress, OutputBufferLimit, OutputBufferLimits, SavePoint};
use crate::cluster::{join::split_address, meta::is_host};

/// Why a value is refused.
pub(super) type Reason = Cow<'static, str>;

/// CPUs are numbered below this: the width of the kernel interface's plain CPU set.
const CPU_COUNT_MAX: u32 = 1024;

/// A decimal integer.
pub(super) fn integer(text: &[u8], range: RangeInclusive<u32>) -> Result<u32, Reason> {
    let number = parse_i64(text).ok_or("argument couldn't be parsed into an integer")?;
    u32::try_from(number).ok().filter(|number| range.contains(number)).ok_or_else(|| {
        format!("argument must be between {} and {} inclusive", range.start(), range.end()).into()
    })
}

/// A decimal integer of sixteen bits.
pub(super) fn short(text: &[u8], range: RangeInclusive<u16>) -> Result<u16, Reason> {
    integer(text, u32::from(*range.start())..=u32::from(*range.end())).map(|number| number as u16)
}

/// Permission bits in octal.
pub(super) fn permissions(text: &[u8]) -> Result<u32, Reason> {
    let number = std::str::from_utf8(text).ok().and_then(|text| i64::from_str_radix(text, 8).ok());
    let number = number.ok_or("argument couldn't be parsed as an octal number")?;
    u32::try_from(number)
        .ok()
        .filter(|&number| number <= 0o777)
        .ok_or(Cow::Borrowed("argument must be between 0 and 777 inclusive"))
}

/// A number of bytes with an optional unit.
pub(super) fn bytes(text: &[u8], range: RangeInclusive<u64>) -> Result<u64, Reason> {
    let number = memory(text).ok_or("argument must be a memory value")?;
    if range.contains(&number) {
        Ok(number)
    } else {
        Err(format!("argument must be between {} and {} inclusive", range.start(), range.end()).into())
    }
}

/// A number of bytes: `k`, `m` and `g` are powers of 1000, `kb`, `mb` and `gb` of 1024. As in Redis, no digits are
/// zero, and what does not fit is the largest number.
fn memory(text: &[u8]) -> Option<u64> {
    let digits_end = text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let factor = match unit.to_ascii_lowercase().as_slice() {
        b"" | b"b" => 1,
        b"k" => 1000,
        b"kb" => 1 << 10,
        b"m" => 1000 * 1000,
        b"mb" => 1 << 20,
        b"g" => 1000 * 1000 * 1000,
        b"gb" => 1 << 30,
        _ => return None,
    };
    let number = digits
        .iter()
        .fold(0_u64, |number, digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    Some(number.saturating_mul(factor))
}

/// One of several names, in any case.
pub(super) fn choice<T: Copy>(
    text: &[u8],
    names: &[(T, &'static str, &'static [&'static str])],
) -> Result<T, Reason> {
    let is_named = |name: &str| name.as_bytes().eq_ignore_ascii_case(text);
    names
        .iter()
        .find(|(_, name, others)| is_named(name) || others.iter().any(|other| is_named(other)))
        .map(|&(choice, _, _)| choice)
        .ok_or_else(|| {
            let names: Vec<&str> = names.iter().map(|&(_, name, _)| name).collect();
            format!("argument(s) must be one of the following: {}", names.join(", ")).into()
        })
}

/// `yes` or `no`, in any case.
pub(super) fn yes_or_no(text: &[u8]) -> Result<bool, Reason> {
    if text.eq_ignore_ascii_case(b"yes") {
        Ok(true)
    } else if text.eq_ignore_ascii_case(b"no") {
        Ok(false)
    } else {
        Err(Cow::Borrowed("argument must be 'yes' or 'no'"))
    }
}

/// The text form of a switch.
pub(super) fn print_yes_or_no(is_on: bool) -> &'static str {
    if is_on { "yes" } else { "no" }
}

/// The plain name of a file in the server's directory.
pub(super) fn file_name(text: &[u8]) -> Result<String, Reason> {
    plain_name(text, "dbfilename can't be empty", "dbfilename can't be a path, just a filename")
}

/// The plain name of a directory in the server's directory.
pub(super) fn directory_name(text: &[u8]) -> Result<String, Reason> {
    plain_name(text, "appenddirname can't be empty", "appenddirname can't be a path, just a dirname")
}

fn plain_name(text: &[u8], empty: &'static str, not_plain: &'static str) -> Result<String, Reason> {
    match utf8(text)? {
        "" => Err(Cow::Borrowed(empty)),
        "." | ".." => Err(Cow::Borrowed(not_plain)),
        name if name.contains(['/', '\0']) => Err(Cow::Borrowed(not_plain)),
        name => Ok(name.to_owned()),
    }
}

/// Save points: pairs of seconds and changes. As in Redis, exactly one space separates the words, and nothing is none.
pub(super) fn save_points(text: &[u8]) -> Result<Vec<SavePoint>, Reason> {
    const REFUSED: Reason = Cow::Borrowed("Invalid save parameters");
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let number = |word: &str, minimum: i64, maximum: i64| {
        let number = word.parse::<i64>().ok().filter(|number| (minimum..=maximum).contains(number));
        number.map(i64::unsigned_abs).ok_or(REFUSED)
    };
    let words: Vec<&str> = std::str::from_utf8(text).map_err(|_| REFUSED)?.split(' ').collect();
    if !words.len().is_multiple_of(2) {
        return Err(REFUSED);
    }
    words
        .chunks_exact(2)
        .map(|pair| {
            Ok(SavePoint {
                seconds: number(pair[0], 1, i64::MAX)?,
                changes: number(pair[1], 0, i64::from(i32::MAX))?,
            })
        })
        .collect()
}

/// The text form of save points.
pub(super) fn print_save_points(points: &[SavePoint]) -> String {
    let words: Vec<String> = points.iter().map(ToString::to_string).collect();
    words.join(" ")
}

/// A path; nothing is none.
pub(super) fn path(text: &[u8]) -> Result<Option<PathBuf>, Reason> {
    if text.contains(&0) {
        return Err(Cow::Borrowed("a path cannot contain a zero byte"));
    }
    let text = utf8(text)?;
    Ok((!text.is_empty()).then(|| PathBuf::from(text)))
}

/// A host and a port, `host:port`; nothing is none.
pub(super) fn address(text: &[u8]) -> Result<Option<String>, Reason> {
    match utf8(text)? {
        "" => Ok(None),
        text if split_address(text).is_some() => Ok(Some(text.to_owned())),
        _ => Err(Cow::Borrowed("argument must be a host and a port such as 10.0.0.1:6379")),
    }
}

/// A host's address or name; nothing is none.
pub(super) fn host(text: &[u8]) -> Result<Option<String>, Reason> {
    match utf8(text)? {
        "" => Ok(None),
        text if is_host(text) => Ok(Some(text.to_owned())),
        _ => Err(Cow::Borrowed("argument must be an IP address or a host name")),
    }
}

/// Addresses, each with a leading `-` where it is optional; `*` and `::*` stand for all interfaces.
pub(super) fn addresses(text: &[u8]) -> Result<Vec<BindAddress>, Reason> {
    let mut addresses: Vec<BindAddress> = Vec::new();
    for word in utf8(text)?.split_ascii_whitespace() {
        let (is_optional, name) = word.strip_prefix('-').map_or((false, word), |name| (true, name));
        let address = match name {
            "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            "::*" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => name
                .parse()
                .map_err(|_| format!("'{word}' is not an IP address; '*' and '::*' stand for all"))?,
        };
        if addresses.iter().any(|other| other.address == address) {
            return Err(format!("'{word}' is listed twice").into());
        }
        addresses.push(BindAddress { address, is_optional });
    }
    Ok(addresses)
}

/// The text form of addresses.
pub(super) fn print_addresses(addresses: &[BindAddress]) -> String {
    let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    words.join(" ")
}

/// CPU numbers and ranges of them, separated by commas.
pub(super) fn cpu_list(text: &[u8]) -> Result<Vec<u32>, Reason> {
    let mut cpus = Vec::new();
    let text = utf8(text)?;
    if text.is_empty() {
        return Ok(cpus);
    }
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number =
            |text: &str| parse_i64(text.trim().as_bytes()).and_then(|number| u32::try_from(number).ok());
        let (Some(first), Some(last)) = (number(first), number(last)) else {
            return Err(format!("'{part}' is neither a CPU number nor a range such as 2-5").into());
        };
        if first > last || last >= CPU_COUNT_MAX {
            return Err(format!("'{part}' must ascend and stay below {CPU_COUNT_MAX}").into());
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("CPU {cpu} is listed twice").into());
            }
            cpus.push(cpu);
        }
    }
    Ok(cpus)
}

/// The text form of a list of CPUs, with runs of them as ranges.
pub(super) fn print_cpu_list(cpus: &[u32]) -> String {
    let runs = cpus.chunk_by(|left, right| left.checked_add(1) == Some(*right));
    let parts: Vec<String> = runs
        .map(|run| match run {
            [only] => only.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => unreachable!("chunk_by yields no empty runs"),
        })
        .collect();
    parts.join(",")
}

/// Changes the limits of the classes that are named: each by its class, hard limit, soft limit and soft seconds. The
/// words are separated by exactly one space, as in Redis.
pub(super) fn change_output_limits(limits: &mut OutputBufferLimits, text: &[u8]) -> Result<(), Reason> {
    if text.is_empty() {
        return Ok(());
    }
    let words: Vec<&[u8]> = text.split(|&byte| byte == b' ').collect();
    if !words.len().is_multiple_of(4) {
        return Err(Cow::Borrowed("Wrong number of arguments in buffer limit configuration."));
    }
    let mut changed = *limits;
    for group in words.chunks_exact(4) {
        let class = match group[0].to_ascii_lowercase().as_slice() {
            b"normal" => &mut changed.normal,
            b"slave" | b"replica" => &mut changed.replica,
            b"pubsub" => &mut changed.pubsub,
            _ => return Err(Cow::Borrowed("Invalid client class specified in buffer limit configuration.")),
        };
        let (Some(hard_bytes), Some(soft_bytes), Some(soft_seconds)) =
            (memory(group[1]), memory(group[2]), seconds(group[3]))
        else {
            return Err(Cow::Borrowed(
                "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
            ));
        };
        *class = OutputBufferLimit { hard_bytes, soft_bytes, soft_seconds };
    }
    *limits = changed;
    Ok(())
}

/// The text form of the limits of all classes. The replicas' class has its older name, as in Redis.
pub(super) fn print_output_limits(limits: &OutputBufferLimits) -> String {
    let classes = [("normal", limits.normal), ("slave", limits.replica), ("pubsub", limits.pubsub)];
    let groups: Vec<String> = classes
        .iter()
        .map(|(class, limit)| {
            format!("{class} {} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_seconds)
        })
        .collect();
    groups.join(" ")
}

/// Seconds; as in Redis, nothing is zero and a plus sign may lead.
fn seconds(text: &[u8]) -> Option<u64> {
    match text {
        b"" => Some(0),
        _ => {
            std::str::from_utf8(text).ok()?.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok())
        }
    }
}

fn utf8(text: &[u8]) -> Result<&str, Reason> {
    std::str::from_utf8(text).map_err(|_| Cow::Borrowed("argument must be UTF-8 text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_units_of_redis() {
        let cases: [(&str, u64); 12] = [
            ("", 0),
            ("7", 7),
            ("7b", 7),
            ("1k", 1000),
            ("1kb", 1024),
            ("1M", 1_000_000),
            ("1mB", 1 << 20),
            ("3g", 3_000_000_000),
            ("3GB", 3 << 30),
            ("kb", 0),
            ("18446744073709551616", u64::MAX),
            ("18446744073709551615gb", u64::MAX),
        ];
        for (text, expected) in cases {
            assert_eq!(memory(text.as_bytes()), Some(expected), "{text}");
        }
        for text in ["-1", "+1", " 1", "1 kb", "1tb", "1kib", "k1", "1.5k", "1%"] {
            assert_eq!(memory(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn permissions_are_octal_and_at_most_777() {
        assert_eq!(permissions(b"0700"), Ok(0o700));
        assert_eq!(permissions(b"777"), Ok(0o777));
        for text in ["999", "", "rwx", "\u{e9}"] {
            assert_eq!(
                permissions(text.as_bytes()).unwrap_err(),
                "argument couldn't be parsed as an octal number"
            );
        }
        for text in ["1000", "-1"] {
            assert_eq!(
                permissions(text.as_bytes()).unwrap_err(),
                "argument must be between 0 and 777 inclusive"
            );
        }
    }

    #[test]
    fn cpu_lists_round_trip() {
        let cases: [(&str, &[u32], &str); 6] = [
            ("", &[], ""),
            ("3", &[3], "3"),
            ("0,2-5", &[0, 2, 3, 4, 5], "0,2-5"),
            ("2-3, 0", &[2, 3, 0], "2-3,0"),
            ("1,2,3", &[1, 2, 3], "1-3"),
            ("1023", &[1023], "1023"),
        ];
        for (text, cpus, printed) in cases {
            let parsed = cpu_list(text.as_bytes()).unwrap();
            assert_eq!(parsed, cpus);
            assert_eq!(print_cpu_list(&parsed), printed);
        }
    }

    #[test]
    fn bad_cpu_lists_are_refused_by_their_part() {
        let cases = [
            ("0,x", "'x' is neither a CPU number nor a range such as 2-5"),
            ("0,", "'' is neither a CPU number nor a range such as 2-5"),
            ("-1", "'-1' is neither a CPU number nor a range such as 2-5"),
            ("1-2-3", "'1-2-3' is neither a CPU number nor a range such as 2-5"),
            ("4294967296", "'4294967296' is neither a CPU number nor a range such as 2-5"),
            ("5-2", "'5-2' must ascend and stay below 1024"),
            ("0-4294967295", "'0-4294967295' must ascend and stay below 1024"),
            ("1024", "'1024' must ascend and stay below 1024"),
            ("0-3,2", "CPU 2 is listed twice"),
        ];
        for (text, expected) in cases {
            assert_eq!(cpu_list(text.as_bytes()).unwrap_err(), expected);
        }
    }

    #[test]
    fn addresses_round_trip() {
        let cases = [
            ("", ""),
            ("127.0.0.1 -::1", "127.0.0.1 -::1"),
            ("  10.0.0.1   ::1 ", "10.0.0.1 ::1"),
            ("* -::*", "0.0.0.0 -::"),
        ];
        for (text, printed) in cases {
            assert_eq!(print_addresses(&addresses(text.as_bytes()).unwrap()), printed);
        }
    }

    #[test]
    fn bad_addresses_are_refused_by_their_word() {
        let cases = [
            ("127.0.0.1 localhost", "'localhost' is not an IP address; '*' and '::*' stand for all"),
            ("127.0.0.1:80", "'127.0.0.1:80' is not an IP address; '*' and '::*' stand for all"),
            ("-", "'-' is not an IP address; '*' and '::*' stand for all"),
            ("::1 -::1", "'-::1' is listed twice"),
        ];
        for (text, expected) in cases {
            assert_eq!(addresses(text.as_bytes()).unwrap_err(), expected);
        }
        assert_eq!(addresses(b"\xff").unwrap_err(), "argument must be UTF-8 text");
    }

    #[test]
    fn paths_are_text_without_zero_bytes() {
        assert_eq!(path(b""), Ok(None));
        assert_eq!(path(b"/a b"), Ok(Some(PathBuf::from("/a b"))));
        assert_eq!(path(b"a\0b").unwrap_err(), "a path cannot contain a zero byte");
        assert_eq!(path(b"\xff").unwrap_err(), "argument must be UTF-8 text");
    }

    #[test]
    fn plain_names_have_no_separators() {
        assert_eq!(file_name("dümp 1..rdb".as_bytes()).unwrap(), "dümp 1..rdb");
        assert_eq!(directory_name(b"...").unwrap(), "...");
        for text in ["a/b", "/", "/a", "a/", "../a", ".", "..", "a\0b"] {
            assert_eq!(
                file_name(text.as_bytes()).unwrap_err(),
                "dbfilename can't be a path, just a filename",
                "{text:?}"
            );
            assert_eq!(
                directory_name(text.as_bytes()).unwrap_err(),
                "appenddirname can't be a path, just a dirname",
                "{text:?}"
            );
        }
        assert_eq!(file_name(b"").unwrap_err(), "dbfilename can't be empty");
        assert_eq!(directory_name(b"").unwrap_err(), "appenddirname can't be empty");
        assert_eq!(file_name(b"\xff").unwrap_err(), "argument must be UTF-8 text");
    }

    #[test]
    fn save_points_round_trip() {
        let cases = [
            ("", ""),
            ("900 1", "900 1"),
            ("3600 1 300 100 60 10000", "3600 1 300 100 60 10000"),
            ("60 1 900 1 60 1", "60 1 900 1 60 1"),
            ("+5 +6", "5 6"),
            ("0010 0", "10 0"),
            ("9223372036854775807 2147483647", "9223372036854775807 2147483647"),
        ];
        for (text, printed) in cases {
            assert_eq!(print_save_points(&save_points(text.as_bytes()).unwrap()), printed, "{text:?}");
        }
    }

    #[test]
    fn bad_save_points_are_refused_whole() {
        let cases: [&[u8]; 15] = [
            b" ",
            b"900",
            b"x",
            b"900 1 60",
            b"900  1",
            b" 900 1",
            b"900 1 ",
            b"0 1",
            b"-1 1",
            b"1 -1",
            b"1 2147483648",
            b"9223372036854775808 1",
            b"1x 2",
            b"0x10 1",
            b"1 \xff",
        ];
        for text in cases {
            let shown = String::from_utf8_lossy(text);
            assert_eq!(save_points(text).unwrap_err(), "Invalid save parameters", "{shown:?}");
        }
    }

    #[test]
    fn a_refused_limit_changes_no_class() {
        let mut limits = OutputBufferLimits::default();
        change_output_limits(&mut limits, b"normal 1 1 1 pubsub x 1 1").unwrap_err();
        assert_eq!(limits, OutputBufferLimits::default());
    }
}
