//! A keyspace for tests: one-line commands in, readable replies out, time in the test's hand.

use crate::{Args, Call, Hasher, KeyHash, Protocol, Reply, Settings, Shard, Shards, Step};

use super::{
    Command, Flags, Merge, Run, ServerCommand, help, introspect, merge, once_command, resolve,
    write_unknown_error,
};

/// A core that owns every shard.
pub(crate) struct TestKeyspace {
    pub(crate) shards: Shards,
    hasher: Hasher,
    pub(crate) settings: Settings,
    pub(crate) database: u8,
    pub(crate) now_ms: u64,
    pub(crate) protocol: Protocol,
    pub(crate) seed: u64,
    pub(crate) touch: bool,
    /// Steps that commands took, since the test set this to 0.
    pub(crate) steps: usize,
}

impl TestKeyspace {
    pub(crate) fn new() -> Self {
        Self::at(1_800_000_000_000)
    }

    /// Begins at a time of the test's choice.
    pub(crate) fn at(now_ms: u64) -> Self {
        let hasher = Hasher::new(42);
        let mut shards = Shards::new(8);
        for number in 0..8 {
            let slots = shards.slots_of(number);
            shards.adopt(number, Box::new(Shard::new(slots, hasher.clone())));
        }
        Self {
            shards,
            hasher,
            settings: Settings::default(),
            database: 0,
            now_ms,
            protocol: Protocol::Resp2,
            seed: 0,
            touch: true,
            steps: 0,
        }
    }

    /// Runs the commands one after another and compares each reply.
    #[track_caller]
    pub(crate) fn check(&mut self, table: &[(&str, &str)]) {
        for (line, expected) in table {
            assert_eq!(self.run(line), *expected, "{line}");
        }
    }

    /// Runs a line of words: `'...'` holds a word together, `\xNN` is a byte. Returns the reply in readable form.
    pub(crate) fn run(&mut self, line: &str) -> String {
        self.show(&words(line), false)
    }

    /// As [`run`](Self::run), with the elements of arrays in order.
    pub(crate) fn run_sorted(&mut self, line: &str) -> String {
        self.show(&words(line), true)
    }

    fn show(&mut self, arguments: &[Vec<u8>], sorted: bool) -> String {
        let reply = self.execute(arguments);
        let (text, rest) = readable(&reply, sorted).unwrap_or_else(|| panic!("{}", reply.escape_ascii()));
        assert!(rest.is_empty(), "more than one reply: {}", reply.escape_ascii());
        text
    }

    /// Executes one request as a server would and returns the bytes of the reply.
    pub(crate) fn execute(&mut self, arguments: &[Vec<u8>]) -> Vec<u8> {
        let bytes = arguments.concat();
        let mut offset = 0;
        let ranges: Vec<_> = arguments
            .iter()
            .map(|argument| {
                offset += argument.len();
                ((offset - argument.len()) as u32, argument.len() as u32)
            })
            .collect();
        let mut output = Vec::new();
        let mut args = Args::new(&bytes, &ranges, &mut []);
        let mut reply = Reply::new(&mut output, self.protocol);
        match resolve(args.len(), |index| args.get(index)) {
            None => write_unknown_error(&args, &mut reply),
            Some(command) if !command.accepts(args.len()) => command.write_arity_error(&mut reply),
            Some(command) => {
                let count = args.len();
                if command.flags.contains(Flags::MOVABLEKEYS)
                    && let Err(error) = once_command(count, |index| args.get(index))
                {
                    reply.error(&error.to_string());
                    return output;
                }
                let keys: Vec<_> = command
                    .key_positions(count, |index| args.get(index))
                    .map(|position| self.hasher.key(args.get(position)))
                    .collect();
                self.execute_known(command, args.reborrow(), &keys, reply);
            }
        }
        output
    }

    /// Executes a request that only nodes of a cluster send one another.
    pub(crate) fn execute_internal(&mut self, arguments: &[Vec<u8>]) -> Vec<u8> {
        let bytes = arguments.concat();
        let mut ranges = Vec::new();
        for argument in arguments {
            let offset: u32 = ranges.last().map_or(0, |(offset, length)| offset + length);
            ranges.push((offset, argument.len() as u32));
        }
        let command = super::transaction::internal(&arguments[0]).expect("there is such a command");
        let keys = [self.hasher.key(&arguments[1])];
        let mut output = Vec::new();
        let reply = Reply::new(&mut output, self.protocol);
        self.execute_known(command, Args::new(&bytes, &ranges, &mut []), &keys, reply);
        output
    }

    fn execute_known(&mut self, command: &Command, args: Args<'_>, keys: &[KeyHash], mut reply: Reply<'_>) {
        let handler = match command.run {
            Run::Server(ServerCommand::Command) => return introspect::command_command(&args, &mut reply),
            Run::Server(ServerCommand::Help) => return help::write(command, &mut reply),
            Run::Server(command) => return reply.simple(&format!("{command:?}")),
            Run::Everywhere(handler, Merge::Draw) => {
                let mut part = Vec::new();
                self.call(handler, args, keys, Reply::new(&mut part, self.protocol));
                let parts = [merge::Part { reply: &part, positions: &[] }];
                return merge::merge(Merge::Draw, &parts, self.seed, &mut reply);
            }
            Run::Single(handler)
            | Run::Split(handler, _)
            | Run::Staged(handler, _)
            | Run::Everywhere(handler, _)
            | Run::Walk(handler) => handler,
        };
        self.call(handler, args, keys, reply);
    }

    fn call(&mut self, handler: super::Handler, args: Args<'_>, keys: &[KeyHash], reply: Reply<'_>) {
        let before = reply.position();
        let mut call = Call {
            shards: &mut self.shards,
            args,
            keys,
            database: self.database,
            now_ms: self.now_ms,
            seed: self.seed,
            touch: self.touch,
            settings: &self.settings,
            reply,
        };
        self.steps += 1;
        if let Step::Continue(mut state) = handler(&mut call) {
            loop {
                assert_eq!(call.reply.position(), before, "an unfinished command writes nothing");
                self.steps += 1;
                if state.resume(&mut call) {
                    break;
                }
            }
        }
    }
}

/// Splits a line into words.
fn words(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, behind) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').expect("a closing quote"),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(unescape(word));
        rest = behind.trim_start();
    }
    words
}

fn unescape(word: &str) -> Vec<u8> {
    let mut parts = word.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).expect("two hexadecimal digits"));
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    bytes
}

/// The reply at the start of `bytes` in readable form, and what follows it; `None` if it is not well-formed.
pub(crate) fn readable(bytes: &[u8], sorted: bool) -> Option<(String, &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, mut rest) = (&bytes[..end], &bytes[end + 2..]);
    let (kind, text) = (*line.first()?, &line[1..]);
    if matches!(kind, b'+' | b'-' | b':' | b',' | b'#') {
        let is_number = kind != b':' || crate::parse_i64(text).is_some();
        return is_number.then(|| (escaped(line), rest));
    }
    if kind == b'_' {
        return text.is_empty().then(|| ("_".to_owned(), rest));
    }
    let length = crate::parse_i64(text)?;
    if length == -1 {
        return matches!(kind, b'$' | b'*').then(|| ("nil".to_owned(), rest));
    }
    let length = usize::try_from(length).ok()?;
    if matches!(kind, b'$' | b'=') {
        let content = rest.get(..length)?;
        let behind = rest[length..].strip_prefix(b"\r\n")?;
        return Some((format!("${}", escaped(content)), behind));
    }
    let parts = if kind == b'%' { 2 } else { 1 };
    let mut elements = Vec::new();
    for _ in 0..length {
        let mut element = Vec::new();
        for _ in 0..parts {
            let (text, behind) = readable(rest, sorted)?;
            element.push(text);
            rest = behind;
        }
        elements.push(element.join(": "));
    }
    if sorted && elements.iter().all(|element| element.starts_with('$')) {
        // A cursor and its keys are no list.
        elements.sort();
    }
    let elements = elements.join(", ");
    let text = match kind {
        b'*' => format!("[{elements}]"),
        b'~' => format!("~[{elements}]"),
        b'%' => format!("%{{{elements}}}"),
        _ => return None,
    };
    Some((text, rest))
}

fn escaped(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\'", "'").replace("\\\"", "\"")
}
