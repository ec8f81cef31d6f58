//! Transcripts: commands from a text file, sent to the real Redis and to Duva, replies compared.
//!
//! Invariants:
//! - The expected reply is what Redis answers, byte for byte, unless the line says how it may differ.
//! - A mistake in a file stops the test with file and line; no line is ever skipped.
//!
//! One step a line; words and quotes as in Redis's inline protocol (`"\x00\n"`, `'...'`):
//!
//! ```text
//! # a comment
//! RESP3                     both sides say HELLO 3 (RESP2: HELLO 2)
//! SET key "a value"         replies must be equal
//! b> GET key                the same on a second connection named b
//! @sorted KEYS *            equal once elements are sorted
//! @deep COMMAND INFO get    equal once elements are sorted on every level
//! @near:60 TTL key          integers may differ by 60
//! @type TIME                same type of reply
//! @shape CLIENT LIST        same types and lengths, nested ones too
//! @code AUTH x y            the same error code, the first word
//! @scan SCAN 0 COUNT 3      iterate to the end on both; the same set of keys
//! @closes QUIT              equal replies, then the server closes
//! @ends ...                 no reply, the server closes
//! @send GET key             do not wait for the reply
//! @recv                     wait for one reply (checks may be named: @recv @type)
//! @ended                    the server has closed this connection
//! @raw PING\r\n             these bytes, escapes resolved, instead of an encoded request
//! CLIENT SETINFO LIB-NAME a
//! = +OK\r\n                 what Duva must answer to the line above, not sent to Redis; ... stands for anything
//! ```
//!
//! In an argument `{{x*1000}}` is a thousand `x`; `{{now_s+100}}` and `{{now_ms-5}}` are Unix times.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use super::connection::{self, Connection};
use super::process::Server;
use super::resp::{self, Reply};

/// More commands than this are not sent in one pipeline.
const PIPELINE_COMMANDS_MAX: usize = 64;

/// After so many differences the rest is not worth printing.
const DIFFERENCES_MAX: usize = 40;

/// A SCAN that takes more steps than this does not end.
const SCAN_STEPS_MAX: usize = 100_000;

/// How a file's commands are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One command, one reply.
    Lockstep,
    /// As many commands in one write as the file allows.
    Pipelined,
    /// As `Pipelined`, but in pieces of so many bytes, a write each.
    Fragmented(usize),
}

/// How two replies are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Byte for byte.
    Equal,
    /// Once elements are sorted.
    Sorted,
    /// Once elements are sorted on every level.
    SortedDeeply,
    /// The same type; both null or neither.
    Type,
    /// The same types and lengths on every level.
    Shape,
    /// Errors with the same first word.
    Code,
    /// Integers so far apart at most; negative ones equal.
    Near(i64),
}

impl Check {
    /// Whether Duva's reply will do where Redis gave its own.
    pub fn accepts(self, redis: Reply, duva: Reply) -> bool {
        match self {
            Self::Equal => redis == duva,
            Self::Sorted => redis.sorted() == duva.sorted(),
            Self::SortedDeeply => redis.sorted_deeply() == duva.sorted_deeply(),
            Self::Type => redis.kind() == duva.kind() && redis.is_null() == duva.is_null(),
            Self::Shape => redis.shape() == duva.shape(),
            Self::Code => {
                let code = |reply: &Reply| Some(reply.bytes()?.split(|byte| *byte == b' ').next()?.to_vec());
                redis.is_error() && duva.is_error() && code(&redis) == code(&duva)
            }
            Self::Near(distance) => match (redis.integer(), duva.integer()) {
                // Negative numbers are not times but answers: no key, no expiry.
                (Some(redis), Some(duva)) if redis >= 0 && duva >= 0 => {
                    redis.abs_diff(duva) <= distance.unsigned_abs()
                }
                _ => redis == duva,
            },
        }
    }
}

/// When and how the connection is expected to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Open,
    AfterReply,
    WithoutReply,
}

#[derive(Clone, Debug)]
enum Action {
    /// Send and, unless the ending says otherwise, receive.
    Call { request: Vec<u8>, check: Check, ending: Ending },
    /// A call to Duva alone, and the pattern its reply must match.
    Expect { request: Vec<u8>, pattern: String, ending: Ending },
    /// Send without receiving.
    Send { request: Vec<u8> },
    /// Receive without sending.
    Receive { check: Check },
    /// Iterate a SCAN; the arguments with the cursor's place among them.
    Scan { arguments: Vec<Vec<u8>> },
    /// The server has closed the connection.
    Ended,
}

#[derive(Clone, Debug)]
struct Step {
    line_number: usize,
    text: String,
    connection: String,
    action: Action,
}

/// A parsed file.
pub struct Transcript {
    name: String,
    steps: Vec<Step>,
}

/// Both servers' ends of one named connection.
struct Pair {
    redis: Connection,
    duva: Connection,
}

impl Transcript {
    /// Parses the text of the file `name`; times are resolved now.
    ///
    /// # Panics
    /// When the text is not a transcript.
    pub fn parse(name: &str, text: &str) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            let fail = |sentence: &str| -> ! { panic!("{name}:{line_number}: {sentence}: {line}") };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(pattern) = line.strip_prefix("= ") {
                let Some(step) = steps.last_mut() else { fail("an expectation without a command") };
                step.action = match step.action.clone() {
                    Action::Call { request, check: Check::Equal, ending } => {
                        Action::Expect { request, pattern: pattern.to_owned(), ending }
                    }
                    _ => fail("an expectation of something other than a plain command"),
                };
                continue;
            }
            steps.push(parse_step(line, line_number).unwrap_or_else(|sentence| fail(&sentence)));
        }
        assert!(!steps.is_empty(), "{name}: an empty transcript tests nothing");
        Self { name: name.to_owned(), steps }
    }

    /// The first words of the requests, for checks of coverage: upper case, subcommands after a space.
    pub fn commands(&self) -> impl Iterator<Item = String> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Call { request, .. } | Action::Expect { request, .. } | Action::Send { request } => {
                let (request, _) = resp::parse(request).ok()??;
                let word = |index: usize| Some(request.items()?.get(index)?.bytes()?.to_ascii_uppercase());
                let first = String::from_utf8(word(0)?).ok()?;
                Some(match word(1).and_then(|second| String::from_utf8(second).ok()) {
                    Some(second) => format!("{first} {second}"),
                    None => first,
                })
            }
            Action::Scan { .. } => Some("SCAN".to_owned()),
            Action::Receive { .. } | Action::Ended => None,
        })
    }

    /// Runs every step against both servers; the differences, as text for a person.
    pub fn run(&self, redis: &Server, duva: &Server, mode: Mode) -> Vec<String> {
        let mut run = Run { redis, duva, mode, pairs: BTreeMap::new(), differences: Vec::new() };
        let mut rest = &self.steps[..];
        while !rest.is_empty() && run.differences.len() < DIFFERENCES_MAX {
            let count = if mode == Mode::Lockstep { 1 } else { pipeline_length(rest) };
            let (batch, after) = rest.split_at(count);
            run.batch(batch);
            rest = after;
        }
        let shown = |(step, sentence): &(Step, String)| {
            format!("{}:{} ({mode:?}): {}\n{sentence}", self.name, step.line_number, step.text)
        };
        run.differences.iter().map(shown).collect()
    }
}

/// How many steps from the first on may travel in one write.
fn pipeline_length(steps: &[Step]) -> usize {
    let joins = |step: &&Step| {
        let pipelined = matches!(
            step.action,
            Action::Call { ending: Ending::Open, .. } | Action::Expect { ending: Ending::Open, .. }
        );
        pipelined && step.connection == steps[0].connection
    };
    steps.iter().take(PIPELINE_COMMANDS_MAX).take_while(joins).count().max(1)
}

struct Run<'a> {
    redis: &'a Server,
    duva: &'a Server,
    mode: Mode,
    pairs: BTreeMap<String, Pair>,
    differences: Vec<(Step, String)>,
}

impl Run<'_> {
    fn batch(&mut self, steps: &[Step]) {
        let name = &steps[0].connection;
        let mut pair = match self.pairs.entry(name.clone()) {
            Entry::Occupied(entry) => entry.remove(),
            Entry::Vacant(_) => Pair { redis: self.redis.connect(), duva: self.duva.connect() },
        };
        match self.send(steps, &mut pair) {
            Ok(()) => {
                if steps.iter().all(|step| self.receive(step, &mut pair)) {
                    self.pairs.insert(name.clone(), pair);
                }
            }
            Err(sentence) => self.differences.push((steps[0].clone(), sentence)),
        }
    }

    /// Sends all requests of `steps`.
    fn send(&self, steps: &[Step], pair: &mut Pair) -> Result<(), String> {
        let (mut to_redis, mut to_duva) = (Vec::new(), Vec::new());
        for step in steps {
            match &step.action {
                Action::Call { request, .. } | Action::Send { request } => {
                    to_redis.extend_from_slice(request);
                    to_duva.extend_from_slice(request);
                }
                Action::Expect { request, .. } => to_duva.extend_from_slice(request),
                Action::Receive { .. } | Action::Scan { .. } | Action::Ended => {}
            }
        }
        // A server that is to close may do so before it has taken everything; its reply shows whether it should.
        let closing = steps.iter().any(|step| match step.action {
            Action::Call { ending, .. } | Action::Expect { ending, .. } => ending != Ending::Open,
            // Whether anything comes back is what the lines behind it check.
            Action::Send { .. } => true,
            _ => false,
        });
        let judge = |name: &str, result: io::Result<()>| match result {
            Err(error) if closing && connection::is_end(&error) => Ok(()),
            result => result.map_err(|error| format!("  sending to {name}: {error}")),
        };
        judge("redis", send_as(self.mode, &mut pair.redis, &to_redis))?;
        judge("duva", send_as(self.mode, &mut pair.duva, &to_duva))
    }

    /// Receives and compares what `step` leads to; whether the connections stay usable.
    fn receive(&mut self, step: &Step, pair: &mut Pair) -> bool {
        let outcome = match &step.action {
            Action::Call { ending: Ending::WithoutReply, .. } | Action::Ended => ended(pair).map(|()| false),
            Action::Call { check, ending, .. } => receive_both(pair, *check).and_then(|()| match ending {
                Ending::Open => Ok(true),
                Ending::AfterReply | Ending::WithoutReply => ended(pair).map(|()| false),
            }),
            Action::Receive { check } => receive_both(pair, *check).map(|()| true),
            Action::Expect { pattern, ending, .. } => expect(&mut pair.duva, pattern, *ending),
            Action::Send { .. } => Ok(true),
            Action::Scan { arguments } => scan_both(pair, arguments).map(|()| true),
        };
        match outcome {
            Ok(open) => open,
            Err(Difference { sentence, usable }) => {
                self.differences.push((step.clone(), sentence));
                usable
            }
        }
    }
}

/// Why a step failed, and whether its connections are still in step with each other.
struct Difference {
    sentence: String,
    usable: bool,
}

impl Difference {
    fn broken(sentence: String) -> Self {
        Self { sentence, usable: false }
    }
}

fn send_as(mode: Mode, connection: &mut Connection, bytes: &[u8]) -> io::Result<()> {
    match mode {
        Mode::Lockstep | Mode::Pipelined => connection.send(bytes),
        Mode::Fragmented(length) => bytes.chunks(length).try_for_each(|piece| connection.send(piece)),
    }
}

fn receive_both(pair: &mut Pair, check: Check) -> Result<(), Difference> {
    let redis = pair.redis.receive();
    let duva = pair.duva.receive();
    match (redis, duva) {
        (Ok(redis), Ok(duva)) => {
            if check.accepts(redis.clone(), duva.clone()) {
                return Ok(());
            }
            let sentence = format!("  redis: {redis}\n  duva:  {duva}");
            Err(Difference { sentence, usable: true })
        }
        (redis, duva) => {
            let show = |reply: io::Result<Reply>| {
                reply.map_or_else(|error| error.to_string(), |reply| reply.to_string())
            };
            Err(Difference::broken(format!("  redis: {}\n  duva:  {}", show(redis), show(duva))))
        }
    }
}

fn ended(pair: &mut Pair) -> Result<(), Difference> {
    let redis = pair.redis.wait_for_end();
    let duva = pair.duva.wait_for_end();
    match (&redis, &duva) {
        (Ok(()), Ok(())) => Ok(()),
        _ => Err(Difference::broken(format!("  closing: redis {redis:?}, duva {duva:?}"))),
    }
}

fn expect(duva: &mut Connection, pattern: &str, ending: Ending) -> Result<bool, Difference> {
    let reply = duva.receive().map_err(|error| Difference::broken(format!("  duva:  {error}")))?;
    // Quotes need no escape here: nothing ends at them.
    let encoded = reply.encode().escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"");
    if !fits(pattern, &encoded) {
        let sentence = format!("  expected: {pattern}\n  duva:     {reply}");
        return Err(Difference { sentence, usable: ending == Ending::Open });
    }
    if ending == Ending::Open {
        return Ok(true);
    }
    match duva.wait_for_end() {
        Ok(()) => Ok(false),
        Err(error) => Err(Difference::broken(format!("  duva does not close: {error}"))),
    }
}

/// Whether `text` fits `pattern`, in which `...` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(position) => rest = &rest[position + part.len()..],
            None => return false,
        }
    }
    true
}

fn scan_both(pair: &mut Pair, arguments: &[Vec<u8>]) -> Result<(), Difference> {
    let redis =
        scan(&mut pair.redis, arguments).map_err(|error| Difference::broken(format!("  redis: {error}")))?;
    let duva =
        scan(&mut pair.duva, arguments).map_err(|error| Difference::broken(format!("  duva:  {error}")))?;
    if redis == duva {
        return Ok(());
    }
    let show = |keys: &[Vec<u8>]| resp::show_request(&keys[..keys.len().min(20)]);
    let sentence = format!(
        "  redis: {} keys: {}\n  duva:  {} keys: {}",
        redis.len(),
        show(&redis),
        duva.len(),
        show(&duva)
    );
    Err(Difference { sentence, usable: true })
}

/// Iterates SCAN from cursor 0 back to 0: the keys, sorted, each once.
///
/// # Errors
/// A sentence, when a reply is none of SCAN's or the iteration does not end.
pub fn scan(connection: &mut Connection, arguments: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, String> {
    let mut arguments = arguments.to_vec();
    let mut keys = Vec::new();
    for _ in 0..SCAN_STEPS_MAX {
        let reply = connection.try_call(&arguments).map_err(|error| error.to_string())?;
        let [cursor, found] = reply.items().unwrap_or_default() else {
            return Err(format!("not SCAN's reply: {reply}"));
        };
        let (Some(cursor), Some(found)) = (cursor.bytes(), found.items()) else {
            return Err(format!("not SCAN's reply: {reply}"));
        };
        keys.extend(found.iter().filter_map(|key| key.bytes().map(<[u8]>::to_vec)));
        if cursor == b"0" {
            keys.sort();
            keys.dedup();
            return Ok(keys);
        }
        arguments[1] = cursor.to_vec();
    }
    Err(format!("SCAN did not end after {SCAN_STEPS_MAX} steps"))
}

fn parse_step(line: &str, line_number: usize) -> Result<Step, String> {
    let (connection, mut rest) = match line.split_once("> ") {
        Some((name, rest)) if name.chars().all(|letter| letter.is_ascii_lowercase()) => {
            (name, rest.trim_start())
        }
        _ => ("a", line),
    };
    let step =
        |action| Step { line_number, text: line.to_owned(), connection: connection.to_owned(), action };
    let (mut check, mut ending) = (Check::Equal, Ending::Open);
    let (mut raw, mut send, mut receive, mut scan) = (false, false, false, false);
    while rest.starts_with('@') {
        let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = after.trim_start();
        match word {
            "@sorted" => check = Check::Sorted,
            "@deep" => check = Check::SortedDeeply,
            "@type" => check = Check::Type,
            "@shape" => check = Check::Shape,
            "@code" => check = Check::Code,
            "@closes" => ending = Ending::AfterReply,
            "@ends" => ending = Ending::WithoutReply,
            "@raw" => raw = true,
            "@send" => send = true,
            "@recv" => receive = true,
            "@scan" => scan = true,
            "@ended" if rest.is_empty() => return Ok(step(Action::Ended)),
            _ => match word.strip_prefix("@near:").and_then(|distance| distance.parse().ok()) {
                Some(distance) => check = Check::Near(distance),
                None => return Err(format!("unknown directive {word}")),
            },
        }
    }
    if receive {
        return if rest.is_empty() {
            Ok(step(Action::Receive { check }))
        } else {
            Err("@recv sends nothing".to_owned())
        };
    }
    if rest.is_empty() {
        return Err("a directive without a command".to_owned());
    }
    let mut request = Vec::new();
    match rest {
        "RESP2" => resp::encode_request(&["HELLO", "2"], &mut request),
        "RESP3" => resp::encode_request(&["HELLO", "3"], &mut request),
        _ if raw => {
            request = match &split_words(&format!("\"{}\"", rest.replace('"', "\\\"")))?[..] {
                [bytes] => expand(bytes)?,
                _ => return Err("not one run of bytes".to_owned()),
            };
        }
        _ => {
            let arguments =
                split_words(rest)?.iter().map(|word| expand(word)).collect::<Result<Vec<_>, _>>()?;
            if scan {
                return Ok(step(Action::Scan { arguments }));
            }
            resp::encode_request(&arguments, &mut request);
        }
    }
    if matches!(rest, "RESP2" | "RESP3") {
        // What HELLO says of itself is another transcript's matter.
        check = Check::Type;
    }
    Ok(step(if send { Action::Send { request } } else { Action::Call { request, check, ending } }))
}

/// Splits a line into words, as Redis splits an inline request.
fn split_words(line: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut bytes = line.bytes().peekable();
    loop {
        while bytes.next_if(u8::is_ascii_whitespace).is_some() {}
        let Some(first) = bytes.peek().copied() else { return Ok(words) };
        let mut word = Vec::new();
        if first == b'"' || first == b'\'' {
            bytes.next();
            loop {
                match bytes.next().ok_or("unbalanced quotes")? {
                    byte if byte == first => break,
                    b'\\' if first == b'"' => word.push(escaped(&mut bytes)?),
                    b'\\' if bytes.next_if_eq(&b'\'').is_some() => word.push(b'\''),
                    byte => word.push(byte),
                }
            }
            if bytes.peek().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                return Err("a closing quote inside a word".to_owned());
            }
        } else {
            while let Some(byte) = bytes.next_if(|byte| !byte.is_ascii_whitespace()) {
                word.push(byte);
            }
        }
        words.push(word);
    }
}

fn escaped(bytes: &mut impl Iterator<Item = u8>) -> Result<u8, String> {
    Ok(match bytes.next().ok_or("a backslash at the end")? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'x' => {
            let mut digit = || {
                bytes.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or("\\x needs two digits")
            };
            (digit()? * 16 + digit()?) as u8
        }
        byte => byte,
    })
}

/// Replaces each `{{...}}` in a word.
fn expand(word: &[u8]) -> Result<Vec<u8>, String> {
    let Ok(mut rest) = std::str::from_utf8(word) else { return Ok(word.to_vec()) };
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once("{{") {
        let (inner, after) = after.split_once("}}").ok_or("{{ without }}")?;
        out.push_str(before);
        rest = after;
        if let Some((text, count)) = inner.rsplit_once('*') {
            out.push_str(&text.repeat(count.parse().map_err(|_| format!("not a count: {count}"))?));
            continue;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
        let (base, offset) = match (inner.strip_prefix("now_s"), inner.strip_prefix("now_ms")) {
            (Some(offset), _) => (now.as_secs() as i64, offset),
            (_, Some(offset)) => (now.as_millis() as i64, offset),
            _ => {
                // Braces of the transcript's own: hash tags may look like this.
                let _ = write!(out, "{{{{{inner}}}}}");
                continue;
            }
        };
        let offset: i64 = offset.parse().map_err(|_| format!("not an offset: {offset}"))?;
        // Writing to a string cannot fail.
        let _ = write!(out, "{}", base + offset);
    }
    out.push_str(rest);
    Ok(out.into_bytes())
}
