//! The rules one by one, as redis-server 7.0.15 answers to the same bytes; then streams cut at any place.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::{ArgumentRange, LARGE_ARGUMENT, Limits, Parser, Progress, ProtocolError};
use resp_check::{Outcome, check, check_stream, receive};

#[path = "../../fuzz/resp_check.rs"]
mod resp_check;

const ECHO: &str = "*2\r\n$4\r\nECHO\r\n";

/// What `stream` holds, however it is cut.
fn read_with(limits: &Limits, stream: impl AsRef<[u8]>) -> Vec<Outcome> {
    let stream = stream.as_ref();
    check_stream(stream, limits, stream.len() as u64);
    receive([stream], limits)
}

fn read(stream: impl AsRef<[u8]>) -> Vec<Outcome> {
    read_with(&Limits::default(), stream)
}

/// The requests in `stream`, which must hold nothing else; shown with escapes.
fn requests(stream: impl AsRef<[u8]>) -> Vec<Vec<String>> {
    let show = |argument: &Vec<u8>| argument.escape_ascii().to_string();
    let request = |outcome: &Outcome| match outcome {
        Outcome::Request(arguments, _) => arguments.iter().map(show).collect(),
        other => panic!("{other:?}"),
    };
    read(stream).iter().map(request).collect()
}

fn error_with(limits: &Limits, stream: impl AsRef<[u8]>) -> String {
    match &read_with(limits, stream)[..] {
        [.., Outcome::Error(error)] => {
            error.text().map_or("closed".to_owned(), |text| text.escape_ascii().to_string())
        }
        other => panic!("no error: {other:?}"),
    }
}

fn error(stream: impl AsRef<[u8]>) -> String {
    error_with(&Limits::default(), stream)
}

#[test]
fn bulk_strings_are_ranges_of_the_buffer() {
    let (mut parser, mut ranges) = (Parser::default(), vec![(7, 7)]);
    let bytes = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*1\r\n";
    let progress = parser.parse(bytes, &mut ranges, &Limits::default());
    assert_eq!(progress, Progress::Complete { consumed: 26 });
    assert_eq!(ranges, [(7, 7), (8, 3), (17, 1), (24, 0)]);
    assert!(parser.is_at_start());
}

#[test]
fn lengths_of_every_width_are_read() {
    for length in [0, 1, 9, 10, 99, 100, 999, 1000, 12_345, 123_456, 1_234_567, 12_345_678] {
        let value = vec![b'v'; length];
        let mut stream = format!("{ECHO}${length}\r\n").into_bytes();
        stream.extend_from_slice(&value);
        stream.extend_from_slice(b"\r\nPING\r\n");
        let (end, whole) = (stream.len() - 6, vec![b"ECHO".to_vec(), value]);
        let expected = [Outcome::Request(whole, end), Outcome::Request(vec![b"PING".to_vec()], end + 6)];
        for pieces in [1 << 30, 16 * 1024, 16 * 1024 + 1] {
            assert_eq!(receive(stream.chunks(pieces), &Limits::default()), expected, "{length}");
        }
    }
}

#[test]
fn counts_of_several_digits_are_read() {
    for count in [9, 10, 11, 99, 100, 1000, 12_345] {
        let stream = format!("*{count}\r\n{}", "$1\r\na\r\n".repeat(count));
        assert_eq!(requests(stream), [vec!["a"; count]]);
    }
}

#[test]
fn requests_without_arguments_are_skipped() {
    let ping = |end| Outcome::Request(vec![b"PING".to_vec()], end);
    for empty in [
        "*0\r\n",
        "*-1\r\n",
        "*-5\r\n",
        "*-9223372036854775808\r\n",
        "\r\n",
        "\n",
        "   \r\n",
        "\t\x0b\x0c\r\r\n",
    ] {
        let (end, limits) = (empty.len(), Limits { authenticated: false, ..Limits::default() });
        assert_eq!(read_with(&limits, format!("{empty}PING\r\n")), [Outcome::Empty(end), ping(end + 6)]);
    }
}

#[test]
fn wrong_counts_are_refused() {
    for count in
        ["", "+1", " 1", "1 ", "01", "00", "-0", "1a", "a", "-", "--1", "1-", "0x1", "1\n", "1\0", "\0"]
    {
        assert_eq!(
            error(format!("*{count}\r\n")),
            "ERR Protocol error: invalid multibulk length",
            "{count:?}"
        );
    }
    for count in
        ["2147483648", "9223372036854775807", "9223372036854775808", "-9223372036854775809", &"9".repeat(99)]
    {
        assert_eq!(
            error(format!("*{count}\r\n")),
            "ERR Protocol error: invalid multibulk length",
            "{count:?}"
        );
    }
    assert_eq!(read("*2147483647\r\n"), [], "the most that may be announced is awaited");
    let limits = Limits { multibulk_len_max: 3, ..Limits::default() };
    assert_eq!(error_with(&limits, "*4\r\n"), "ERR Protocol error: invalid multibulk length");
    assert_eq!(read_with(&limits, "*3\r\n"), []);
}

#[test]
fn wrong_bulk_lengths_are_refused() {
    for length in [
        "",
        "-1",
        "-0",
        "00",
        "+1",
        " 1",
        "1 ",
        "01",
        "1a",
        "1\n",
        "\0",
        "9223372036854775808",
        &"9".repeat(99),
    ] {
        assert_eq!(
            error(format!("{ECHO}${length}\r\na\r\n")),
            "ERR Protocol error: invalid bulk length",
            "{length:?}"
        );
    }
    assert_eq!(read(format!("{ECHO}$536870912\r\n")), []);
    assert_eq!(error(format!("{ECHO}$536870913\r\n")), "ERR Protocol error: invalid bulk length");
    let limits = Limits { bulk_len_bytes_max: 5, ..Limits::default() };
    assert_eq!(read_with(&limits, "*1\r\n$5\r\n"), []);
    assert_eq!(error_with(&limits, "*1\r\n$6\r\n"), "ERR Protocol error: invalid bulk length");
}

#[test]
fn any_length_may_be_announced_when_nothing_limits_it() {
    let limits = Limits { bulk_len_bytes_max: u64::MAX, ..Limits::default() };
    let (mut parser, mut ranges) = (Parser::default(), Vec::new());
    let progress = parser.parse(b"*1\r\n$9223372036854775807\r\nab", &mut ranges, &limits);
    assert_eq!(progress, Progress::Large { length: i64::MAX as u64, available: 2 });
    assert_eq!(ranges.capacity(), 0, "nothing is reserved for what is announced");
}

#[test]
fn a_bulk_must_begin_with_a_dollar_sign() {
    assert_eq!(error("*1\r\nPING\r\n"), "ERR Protocol error: expected \\'$\\', got \\'P\\'");
    assert_eq!(error("*1\r\n:1\r\n"), "ERR Protocol error: expected \\'$\\', got \\':\\'");
    assert_eq!(error("*1\r\n\r\n$4\r\n"), "ERR Protocol error: expected \\'$\\', got \\' \\'");
    assert_eq!(error("*1\r\n\n"), "ERR Protocol error: expected \\'$\\', got \\' \\'");
    assert_eq!(error(b"*1\r\n\xff\r\n"), "ERR Protocol error: expected \\'$\\', got \\'\\xff\\'");
    assert_eq!(error("*2\r\n$1\r\na\r\n*1\r\n"), "ERR Protocol error: expected \\'$\\', got \\'*\\'");
}

#[test]
fn bytes_at_line_ends_are_skipped_unseen() {
    let twice = [["PING"], ["PING"]];
    assert_eq!(requests("*1\rX$4\rXPINGXXPING\r\n"), twice);
    assert_eq!(requests("*1\r\r$4\r\rPING\r\nPING\r\n"), twice);
    assert_eq!(requests(format!("{ECHO}$1\r\naXYPING\r\n")), [vec!["ECHO", "a"], vec!["PING"]]);
    assert_eq!(read("*1\n$4\nPING\n"), [], "a line feed alone does not end a header");
}

#[test]
fn headers_and_lines_have_a_longest_length() {
    let of = |length: usize, start: &str| format!("{start}{}", "1".repeat(length));
    assert_eq!(read(of(65_535, "*")), []);
    assert_eq!(error(of(65_535, "*") + "\r\n"), "ERR Protocol error: invalid multibulk length");
    assert_eq!(error(of(65_536, "*")), "ERR Protocol error: too big mbulk count string");
    assert_eq!(error(of(65_536, "*") + "\r\n"), "ERR Protocol error: too big mbulk count string");
    assert_eq!(read(of(65_535, "*1\r\n$")), []);
    assert_eq!(error(of(65_535, "*1\r\n$") + "\r\n"), "ERR Protocol error: invalid bulk length");
    assert_eq!(error(of(65_536, "*1\r\n$")), "ERR Protocol error: too big bulk count string");
    assert_eq!(read(of(65_536, "")), []);
    assert_eq!(requests(of(65_535, "") + "\r\n"), [["1".repeat(65_535)]]);
    assert_eq!(requests(of(65_536, "") + "\n"), [["1".repeat(65_536)]]);
    assert_eq!(error(of(65_537, "")), "ERR Protocol error: too big inline request");
    assert_eq!(error(of(65_536, "") + "\r\n"), "ERR Protocol error: too big inline request");
}

#[test]
fn unauthenticated_clients_may_send_little() {
    let limits = Limits { authenticated: false, ..Limits::default() };
    assert_eq!(read_with(&limits, "*10\r\n"), []);
    assert_eq!(error_with(&limits, "*11\r\n"), "ERR Protocol error: unauthenticated multibulk length");
    assert_eq!(error_with(&limits, "*2000000\r\n"), "ERR Protocol error: unauthenticated multibulk length");
    assert_eq!(read_with(&limits, "*1\r\n$16384\r\n"), []);
    assert_eq!(error_with(&limits, "*1\r\n$16385\r\n"), "ERR Protocol error: unauthenticated bulk length");
    assert_eq!(error_with(&limits, "*1\r\n$999999999999\r\n"), "ERR Protocol error: invalid bulk length");
    assert_eq!(read_with(&limits, format!("PING{}\r\n", " a".repeat(11))).len(), 1, "lines are not limited");
}

#[test]
fn inline_arguments_are_ranges_of_the_buffer_unless_quoted() {
    let (mut parser, mut ranges) = (Parser::default(), Vec::new());
    let progress = parser.parse(b" SET  k\tv\r\nGET", &mut ranges, &Limits::default());
    assert_eq!((progress, &ranges[..]), (Progress::Complete { consumed: 11 }, &[(1, 3), (6, 1), (8, 1)][..]));
    ranges.clear();
    let progress = parser.parse(b"SET 'k' v\n", &mut ranges, &Limits::default());
    let expected = Progress::Unquoted { consumed: 10, bytes: b"SETkv".to_vec() };
    assert_eq!((progress, &ranges[..]), (expected, &[(0, 3), (3, 1), (4, 1)][..]));
}

#[test]
fn inline_lines_are_split_as_redis_splits_them() {
    for (line, arguments) in [
        ("PING\n", &["PING"][..]),
        ("PING\r\r\n", &["PING"]),
        ("\rPING\r\n", &["PING"]),
        (" PING \r\n", &["PING"]),
        ("PING\ta\r\n", &["PING", "a"]),
        ("PING \x0b\x0ca\r\n", &["PING", "a"]),
        ("PING\x0ba\r\n", &["PING\\x0ba"]),
        ("PING\x0ca\r\n", &["PING\\x0ca"]),
        ("PING a\\n\r\n", &["PING", "a\\\\n"]),
        ("PING a\0b\r\n", &["PING", "a\\x00b"]),
        ("$1\r\n", &["$1"]),
        ("+OK\r\n", &["+OK"]),
        (" *1\r\n", &["*1"]),
        ("\"PING\"\r\n", &["PING"]),
        ("PING \"a b\"\r\n", &["PING", "a b"]),
        (r#"PING "a\x41\n\r\t\b\a\\\"\q""#, &["PING", r#"aA\n\r\t\x08\x07\\\"q"#]),
        (r#"PING "\x4" "\xzz" "\x4g1" "\xaF""#, &["PING", "x4", "xzz", "x4g1", "\\xaf"]),
        (r"PING 'a\'b\n'", &["PING", r"a\'b\\n"]),
        (r#"PING a"b c" a"" a'b'"#, &["PING", "ab c", "a", "ab"]),
        (r#"PING "" ''"#, &["PING", "", ""]),
        (r#""""#, &[""]),
        ("PING \"a\"\x0b\r\n", &["PING", "a"]),
        ("PING \"a\0b\"\r\n", &["PING", "a\\x00b"]),
    ] {
        let line = if line.ends_with('\n') { line.to_owned() } else { format!("{line}\r\n") };
        assert_eq!(requests(&line), [arguments], "{line:?}");
    }
}

#[test]
fn unbalanced_quotes_are_refused() {
    for line in [
        "'a'b",
        "\"a\"b",
        "\"a",
        "'a",
        "a\"b\"c",
        "a\"b\"'c'",
        "\"a\\",
        "\"a\\\"",
        "'a\\'",
        "\"",
        "'",
        "a'",
        "'a\n'",
    ] {
        assert_eq!(
            error(format!("PING {line}\r\n")),
            "ERR Protocol error: unbalanced quotes in request",
            "{line}"
        );
    }
}

#[test]
fn every_error_can_be_logged() {
    assert_eq!(
        ProtocolError::ExpectedBulk(0xff).to_string(),
        "Protocol error: expected \\'$\\', got \\'\\xff\\'"
    );
    assert_eq!(ProtocolError::BulkLength.to_string(), "Protocol error: invalid bulk length");
    for silent in [ProtocolError::Http, ProtocolError::RequestTooBig] {
        assert_eq!(silent.text(), None);
        assert!(!silent.to_string().is_empty());
    }
}

#[test]
fn a_large_bulk_is_received_elsewhere() {
    let limits = Limits { large_bulk_bytes_min: 4, ..Limits::default() };
    let (mut parser, mut ranges) = (Parser::default(), Vec::new());
    let mut input = b"*3\r\n$3\r\nSET\r\n$4\r\nlo".to_vec();
    let progress = parser.parse(&input, &mut ranges, &limits);
    assert_eq!(progress, Progress::Large { length: 4, available: 2 });
    assert_eq!(parser.position(), 17);
    assert_eq!(parser.parse(&input, &mut ranges, &limits), progress, "asking again changes nothing");
    input.truncate(parser.position());
    parser.large_received(0, &mut ranges);
    assert_eq!(parser.parse(&input, &mut ranges, &limits), Progress::Incomplete);
    input.extend_from_slice(b"$5\r\nlarge\r");
    assert_eq!(parser.parse(&input, &mut ranges, &limits), Progress::Large { length: 5, available: 6 });
    input.truncate(parser.position());
    parser.large_received(1, &mut ranges);
    assert_eq!(parser.parse(&input, &mut ranges, &limits), Progress::Complete { consumed: 21 });
    assert_eq!(ranges, [(8, 3), (LARGE_ARGUMENT, 0), (LARGE_ARGUMENT, 1)]);
}

#[test]
fn a_large_bulk_that_is_there_stays_in_place() {
    let limits = Limits { large_bulk_bytes_min: 4, ..Limits::default() };
    let (mut parser, mut ranges) = (Parser::default(), Vec::new());
    let mut input = b"*1\r\n$4\r\nlarg".to_vec();
    assert_eq!(parser.parse(&input, &mut ranges, &limits), Progress::Large { length: 4, available: 4 });
    input.extend_from_slice(b"\r\n");
    assert_eq!(parser.parse(&input, &mut ranges, &limits), Progress::Complete { consumed: 14 });
    assert_eq!(ranges, [(8, 4)]);
}

#[test]
#[should_panic(expected = "a large bulk without its header")]
fn a_large_bulk_that_nobody_announced_is_a_broken_invariant() {
    Parser::default().large_received(0, &mut Vec::new());
}

#[test]
#[should_panic(expected = "bytes of an unfinished request are missing")]
fn losing_bytes_of_an_unfinished_request_is_a_broken_invariant() {
    let (mut parser, mut ranges) = (Parser::default(), Vec::new());
    assert_eq!(parser.parse(b"*1\r\n$4\r\nPI", &mut ranges, &Limits::default()), Progress::Incomplete);
    parser.parse(b"*1\r\n", &mut ranges, &Limits::default());
}

#[test]
fn a_request_that_trickles_in_is_read_once() {
    let stream = format!("*3\r\n$3\r\nSET\r\n$000{}\r\n", "1".repeat(99));
    assert_eq!(error(&stream), "ERR Protocol error: invalid bulk length");
    let stream = format!("*1001\r\n{}${}\r\nlast\r\n", "$12\r\nhello, world\r\n".repeat(1000), 4);
    let (mut parser, mut ranges): (Parser, Vec<ArgumentRange>) = Default::default();
    for length in 1..stream.len() {
        // Whatever is parsed is spoilt: a byte looked at again would make an error or another range.
        let mut bytes = stream.as_bytes()[..length].to_vec();
        bytes[..parser.position()].fill(b'?');
        assert_eq!(parser.parse(&bytes, &mut ranges, &Limits::default()), Progress::Incomplete, "{length}");
    }
    let progress = parser.parse(stream.as_bytes(), &mut ranges, &Limits::default());
    assert_eq!(progress, Progress::Complete { consumed: stream.len() });
    assert_eq!(ranges.len(), 1001);
    assert_eq!(ranges[0], (12, 12));
}

#[test]
fn the_end_of_a_long_line_is_not_searched_again() {
    for start in ["", "*", "*1\r\n$"] {
        let (mut parser, mut ranges) = (Parser::default(), Vec::new());
        let mut bytes = format!("{start}{}", "1".repeat(1000)).into_bytes();
        assert_eq!(parser.parse(&bytes, &mut ranges, &Limits::default()), Progress::Incomplete);
        // An end that appears among the bytes seen before goes unnoticed.
        bytes[start.len() + 500] = if start.is_empty() { b'\n' } else { b'\r' };
        bytes.push(b'1');
        assert_eq!(parser.parse(&bytes, &mut ranges, &Limits::default()), Progress::Incomplete);
    }
}

#[test]
fn a_lowered_limit_ends_a_line_under_way() {
    for (start, expected) in [("", ProtocolError::InlineTooBig), ("*", ProtocolError::MultibulkHeaderTooBig)]
    {
        let (mut parser, mut ranges) = (Parser::default(), Vec::new());
        let bytes = format!("{start}{}", "1".repeat(100));
        assert_eq!(parser.parse(bytes.as_bytes(), &mut ranges, &Limits::default()), Progress::Incomplete);
        let limits = Limits { inline_len_bytes_max: 16, ..Limits::default() };
        assert_eq!(parser.parse(bytes.as_bytes(), &mut ranges, &limits), Progress::Error(expected));
    }
}

#[test]
fn a_request_beyond_addressable_memory_is_refused() {
    let bytes = b"*2\r\n$1\r\na\r\n$4\r\nlong\r\n";
    let (limits, too_big) = (Limits::default(), Progress::Error(ProtocolError::RequestTooBig));
    let in_place = |length_max, length| {
        let mut parser = Parser::default();
        let progress = parser.parse_within(length_max, &bytes[..length], &mut Vec::new(), &limits);
        (progress, parser)
    };
    assert_eq!(in_place(21, 21).0, Progress::Complete { consumed: 21 });
    for length in 20..=21 {
        assert_eq!(in_place(20, length), (too_big.clone(), Parser::default()));
    }
    assert_eq!(in_place(20, 19).0, Progress::Incomplete);
    let large = Limits { large_bulk_bytes_min: 4, ..limits };
    let progress = Parser::default().parse_within(17, &bytes[..17], &mut Vec::new(), &large);
    assert_eq!(
        progress,
        Progress::Large { length: 4, available: 2 },
        "a large bulk takes no room in the buffer"
    );
    assert_eq!(Parser::default().parse_within(17, &bytes[..18], &mut Vec::new(), &large), too_big);
    assert_eq!(Parser::default().parse_within(4, b"PING\r\n", &mut Vec::new(), &limits), too_big);
}

/// A valid request: its arguments and its bytes.
fn any_request() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<u8>)> {
    let argument = prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..20),
        1 => prop::collection::vec(any::<u8>(), 90..120),
        1 => prop::collection::vec(any::<u8>(), 990..1100),
    ];
    let multibulk = prop::collection::vec(argument, 0..14).prop_map(|arguments| {
        let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in &arguments {
            bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            bytes.extend_from_slice(argument);
            bytes.extend_from_slice(b"\r\n");
        }
        (arguments, bytes)
    });
    // The first begins as no other kind of request.
    let word = prop::collection::vec(any::<u8>(), 0..20);
    let inline = (prop::collection::vec((word, 0..3_u8, "[ \t]{1,3}"), 0..6), any::<bool>()).prop_map(
        |(words, carriage)| {
            let (mut arguments, mut bytes) = (vec![b"COMMAND".to_vec()], b"COMMAND ".to_vec());
            for (word, style, space) in words {
                let (written, word) = write_word(&word, style);
                bytes.extend_from_slice(&written);
                bytes.extend_from_slice(space.as_bytes());
                arguments.push(word);
            }
            bytes.extend_from_slice(if carriage { b"\r\n" } else { b"\n" });
            (arguments, bytes)
        },
    );
    prop_oneof![3 => multibulk, 1 => inline]
}

/// Writes a word in one of three styles; some styles can only write some words.
fn write_word(word: &[u8], style: u8) -> (Vec<u8>, Vec<u8>) {
    let double = |word: &[u8]| word.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
    match style {
        0 => (format!("\"{}\"", double(word)).into_bytes(), word.to_vec()),
        1 => {
            let word: Vec<u8> = word.iter().copied().filter(|byte| !matches!(byte, b'\n' | b'\\')).collect();
            let written =
                word.iter().flat_map(|&byte| if byte == b'\'' { vec![b'\\', byte] } else { vec![byte] });
            (b"'".iter().copied().chain(written).chain(*b"'").collect(), word)
        }
        _ => {
            let mut word: Vec<u8> = word
                .iter()
                .copied()
                .filter(|byte| !byte.is_ascii_whitespace() && !matches!(byte, 11 | b'"' | b'\''))
                .collect();
            word.push(b'.');
            (word.clone(), word)
        }
    }
}

fn any_limits() -> impl Strategy<Value = Limits> {
    prop_oneof![Just(0), Just(1), Just(10), Just(100), Just(1000), Just(usize::MAX)]
        .prop_map(|large_bulk_bytes_min| Limits { large_bulk_bytes_min, ..Limits::default() })
}

proptest! {
    #[test]
    fn any_cut_of_valid_requests_gives_the_requests(
        requests in prop::collection::vec(any_request(), 0..8), limits in any_limits(), seed: u64,
    ) {
        let stream: Vec<u8> = requests.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        check_stream(&stream, &limits, seed);
        let mut end = 0;
        let expected: Vec<Outcome> = requests.into_iter().map(|(arguments, bytes)| {
            end += bytes.len();
            if arguments.is_empty() { Outcome::Empty(end) } else { Outcome::Request(arguments, end) }
        }).collect();
        prop_assert_eq!(receive([&stream[..]], &limits), expected);
    }

    #[test]
    fn any_cut_of_spoilt_requests_gives_the_same(
        requests in prop::collection::vec(any_request(), 1..4),
        spoils in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        limits in any_limits(), seed: u64,
    ) {
        let mut stream: Vec<u8> = requests.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
        for (index, byte) in spoils {
            let index = index.index(stream.len());
            stream[index] = byte;
        }
        check_stream(&stream, &limits, seed);
    }

    #[test]
    fn any_cut_of_likely_bytes_gives_the_same(
        tokens in prop::collection::vec(prop::sample::select(&[
            "*", "$", "\r\n", "\r", "\n", "0", "1", "2", "3", "10", "-", "a", " ", "\"", "'", "\\", "\\x4", "\0",
            "*1\r\n", "*2\r\n", "$0\r\n", "$1\r\n", "$4\r\n", "$23\r\n",
        ][..]), 0..60),
        selector: u8, seed: u8,
    ) {
        let mut data = vec![selector, seed];
        data.extend(tokens.concat().bytes());
        check(&data);
    }

    #[test]
    fn any_cut_of_random_bytes_gives_the_same(data in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&data);
    }
}

#[test]
fn inputs_kept_from_fuzzing_pass() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/resp");
    let mut count = 0;
    for file in fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display())) {
        check(&fs::read(file.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 30, "{count} inputs in {}", corpus.display());
}
