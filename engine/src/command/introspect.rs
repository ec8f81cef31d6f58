//! COMMAND: the table, told to clients.

use crate::{Args, Reply, glob::glob_match_any_case};

use super::{
    Argument, Categories, Command, Docs, Flags, KeyAccess, Run, ServerCommand, all,
    docs::{one_of, pattern, string},
    every,
    failure::{SYNTAX, is_word},
    lookup,
    object::help,
    once::COMMAND_ARGUMENT,
};

pub(super) const COMMANDS: &[Command] =
    &[row("command", -1, "2.8.13", "Describes every command.").tips(NO_ORDER).subcommands(&[
        row("command|count", 2, "2.8.13", "Counts the commands."),
        row("command|docs", -2, "7.0.0", "Returns the documentation of commands.")
            .arguments(&[string("command-name").multiple().optional()])
            .tips(NO_ORDER),
        row("command|getkeys", -4, "2.8.13", "Finds the keys among a command's arguments."),
        row(
            "command|getkeysandflags",
            -4,
            "7.0.0",
            "Finds the keys among a command's arguments, and what it does with them.",
        ),
        row("command|info", -2, "2.8.13", "Describes commands.")
            .arguments(&[string("command-name").multiple().optional()])
            .history(&[("7.0.0", "Without names it describes every command.")])
            .tips(NO_ORDER),
        row("command|list", -2, "7.0.0", "Lists the names of commands.")
            .arguments(&[one_of(
                "filterby",
                &[
                    string("module-name").after("MODULE"),
                    string("category").after("ACLCAT"),
                    pattern("pattern").after("PATTERN"),
                ],
            )
            .after("FILTERBY")
            .optional()])
            .tips(NO_ORDER),
        help("command|help", "server", "5.0.0").categories(Categories::CONNECTION),
    ])];

const NO_ORDER: &[&str] = &["nondeterministic_output_order"];

const fn row(name: &'static str, arity: i16, since: &'static str, summary: &'static str) -> Command {
    let docs = Docs::new("server", since, "O(N) where N is the number of commands", summary);
    Command::new(name, arity, Run::Server(ServerCommand::Command), docs)
        .flags(&[Flags::LOADING, Flags::STALE])
        .categories(Categories::CONNECTION)
}

/// Executes COMMAND and its subcommands but HELP. The number of arguments was checked.
///
/// # Panics
/// If the second argument names no such subcommand.
pub fn command_command(args: &Args<'_>, reply: &mut Reply<'_>) {
    if args.len() == 1 {
        return write_infos(all().iter(), reply);
    }
    let subcommand = lookup(args.get(0)).and_then(|command| command.subcommand(args.get(1)));
    match subcommand.map(Command::own_name) {
        Some("count") => reply.integer(all().len() as i64),
        Some("info") => info(args, reply),
        Some("docs") => docs(args, reply),
        Some("list") => list(args, reply),
        Some("getkeys") => get_keys(args, reply, |_, key, reply| reply.bulk(key)),
        Some("getkeysandflags") => get_keys(args, reply, |flags, key, reply| {
            reply.array(2);
            reply.bulk(key);
            write_words(flags.iter().copied(), "", reply);
        }),
        _ => panic!("no subcommand of COMMAND's own"),
    }
}

/// The command of this name, `container|subcommand` included.
fn named(name: &[u8]) -> Option<&'static Command> {
    match name.iter().position(|&byte| byte == b'|') {
        None => lookup(name),
        Some(bar) => lookup(&name[..bar])?.subcommand(&name[bar + 1..]),
    }
}

fn info(args: &Args<'_>, reply: &mut Reply<'_>) {
    if args.len() == 2 {
        return write_infos(all().iter(), reply);
    }
    reply.array(args.len() - 2);
    for index in 2..args.len() {
        match named(args.get(index)) {
            Some(command) => write_info(command, reply),
            None => reply.null(),
        }
    }
}

fn write_infos(commands: impl ExactSizeIterator<Item = &'static Command>, reply: &mut Reply<'_>) {
    reply.array(commands.len());
    commands.for_each(|command| write_info(command, reply));
}

/// The ten elements that Redis 7.0 has for a command.
fn write_info(command: &Command, reply: &mut Reply<'_>) {
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(command.arity.into());
    write_words(command.flags.names(), "", reply);
    reply.integer(command.keys.first.into());
    reply.integer(command.keys.last.into());
    reply.integer(command.keys.step.into());
    write_words(command.all_categories().names(), "@", reply);
    reply.set(command.tips.len());
    for tip in command.tips {
        reply.bulk(tip.as_bytes());
    }
    reply.set(command.access.len());
    for (number, access) in command.access.iter().enumerate() {
        write_key_specification(command, number, access, reply);
    }
    reply.set(command.subcommands.len());
    for subcommand in command.subcommands {
        write_info(subcommand, reply);
    }
}

fn write_words(words: impl Iterator<Item = &'static str> + Clone, prefix: &str, reply: &mut Reply<'_>) {
    reply.set(words.clone().count());
    for word in words {
        reply.simple(&format!("{prefix}{word}"));
    }
}

/// With one specification, it covers all keys; with several, each covers one key.
fn write_key_specification(command: &Command, number: usize, access: &KeyAccess, reply: &mut Reply<'_>) {
    let keys = command.keys;
    let first = i64::from(keys.first) + number as i64;
    let covers_one = command.access.len() > 1;
    let last = match keys.last {
        _ if covers_one => 0,
        last @ ..0 => i64::from(last),
        last => i64::from(last) - first,
    };
    reply.map(3 + usize::from(access.notes.is_some()));
    if let Some(notes) = access.notes {
        reply.bulk(b"notes");
        reply.bulk(notes.as_bytes());
    }
    reply.bulk(b"flags");
    write_words(access.flags.iter().copied(), "", reply);
    reply.bulk(b"begin_search");
    write_typed("index", &[("index", first)], reply);
    reply.bulk(b"find_keys");
    write_typed("range", &[("lastkey", last), ("keystep", keys.step.into()), ("limit", 0)], reply);
}

fn write_typed(kind: &str, numbers: &[(&str, i64)], reply: &mut Reply<'_>) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(numbers.len());
    for (name, number) in numbers {
        reply.bulk(name.as_bytes());
        reply.integer(*number);
    }
}

fn docs(args: &Args<'_>, reply: &mut Reply<'_>) {
    if args.len() == 2 {
        reply.map(all().len());
        all().iter().for_each(|command| write_docs(command, reply));
        return;
    }
    let found = || (2..args.len()).filter_map(|index| named(args.get(index)));
    reply.map(found().count());
    found().for_each(|command| write_docs(command, reply));
}

fn write_docs(command: &Command, reply: &mut Reply<'_>) {
    let docs = &command.docs;
    reply.bulk(command.name.as_bytes());
    let extras = [
        !docs.complexity.is_empty(),
        !docs.history.is_empty(),
        !docs.arguments.is_empty(),
        !command.subcommands.is_empty(),
    ];
    let count = 3 + extras.into_iter().filter(|&extra| extra).count();
    reply.map(if docs.deprecation.is_some() { count + 3 } else { count });
    write_text("summary", docs.summary, reply);
    write_text("since", docs.since, reply);
    write_text("group", docs.group, reply);
    if !docs.complexity.is_empty() {
        write_text("complexity", docs.complexity, reply);
    }
    if let Some(deprecation) = docs.deprecation {
        reply.bulk(b"doc_flags");
        write_words(std::iter::once("deprecated"), "", reply);
        write_text("deprecated_since", deprecation.since, reply);
        write_text("replaced_by", deprecation.replaced_by, reply);
    }
    if !docs.history.is_empty() {
        reply.bulk(b"history");
        reply.set(docs.history.len());
        for (version, change) in docs.history {
            reply.array(2);
            reply.bulk(version.as_bytes());
            reply.bulk(change.as_bytes());
        }
    }
    if !docs.arguments.is_empty() {
        reply.bulk(b"arguments");
        write_arguments(docs.arguments, command.access.len(), &mut 0, reply);
    }
    if !command.subcommands.is_empty() {
        reply.bulk(b"subcommands");
        reply.map(command.subcommands.len());
        for subcommand in command.subcommands {
            write_docs(subcommand, reply);
        }
    }
}

fn write_text(name: &str, text: &str, reply: &mut Reply<'_>) {
    reply.bulk(name.as_bytes());
    reply.bulk(text.as_bytes());
}

/// `keys` counts the keys met so far: with several key specifications, each key has its own.
fn write_arguments(arguments: &[Argument], specifications: usize, keys: &mut usize, reply: &mut Reply<'_>) {
    reply.array(arguments.len());
    for argument in arguments {
        let is_key = argument.kind == "key";
        let is_flagged = argument.optional || argument.multiple;
        let has_parts = !argument.arguments.is_empty();
        let texts = [
            ("token", argument.token),
            ("since", argument.since),
            ("deprecated_since", argument.deprecated_since),
        ];
        let text_count = texts.iter().filter(|(_, text)| text.is_some()).count();
        let extra_count = [is_key, is_flagged, has_parts].into_iter().filter(|&extra| extra).count();
        reply.map(2 + text_count + extra_count);
        write_text("name", argument.name, reply);
        write_text("type", argument.kind, reply);
        if is_key {
            reply.bulk(b"key_spec_index");
            reply.integer(if specifications > 1 { *keys as i64 } else { 0 });
            *keys += 1;
        }
        for (name, text) in texts {
            if let Some(text) = text {
                write_text(name, text, reply);
            }
        }
        if is_flagged {
            reply.bulk(b"flags");
            let flags = [(argument.optional, "optional"), (argument.multiple, "multiple")];
            write_words(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name), "", reply);
        }
        if has_parts {
            reply.bulk(b"arguments");
            write_arguments(argument.arguments, specifications, keys, reply);
        }
    }
}

/// Which names LIST lists.
#[derive(Clone, Copy)]
enum Filter<'a> {
    All,
    /// No module has commands here.
    Module,
    Category(Option<Categories>),
    Pattern(&'a [u8]),
}

impl<'a> Filter<'a> {
    fn parse(args: &'a Args<'_>) -> Option<Self> {
        match args.len() {
            2 => Some(Self::All),
            5 if args.get(2).eq_ignore_ascii_case(b"filterby") => {
                let value = args.get(4);
                match args.get(3).to_ascii_lowercase().as_slice() {
                    b"module" => Some(Self::Module),
                    b"aclcat" => Some(Self::Category(Categories::named(value))),
                    b"pattern" => Some(Self::Pattern(value)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn admits(self, command: &Command) -> bool {
        match self {
            Self::All => true,
            Self::Module => false,
            Self::Category(category) => {
                category.is_some_and(|category| command.all_categories().contains(category))
            }
            Self::Pattern(pattern) => glob_match_any_case(pattern, command.name.as_bytes()),
        }
    }
}

fn list(args: &Args<'_>, reply: &mut Reply<'_>) {
    let Some(filter) = Filter::parse(args) else { return reply.error(SYNTAX) };
    let admitted = every().filter(|command| filter.admits(command));
    reply.array(admitted.clone().count());
    admitted.for_each(|command| reply.bulk(command.name.as_bytes()));
}

/// Lets `write` write each key of the command behind COMMAND GETKEYS, given what the command does with it.
fn get_keys(
    args: &Args<'_>,
    reply: &mut Reply<'_>,
    write: impl Fn(&'static [&'static str], &[u8], &mut Reply<'_>),
) {
    let (mut start, mut named) = (2, lookup(args.get(2)));
    if named.is_some_and(|command| {
        command.flags.contains(Flags::MOVABLEKEYS) && command.arity_holds(args.len() - start)
    }) {
        // The keys of ONCE are those of the command behind it.
        start += COMMAND_ARGUMENT;
        named = lookup(args.get(start));
    }
    let length = args.len() - start;
    let command = named.and_then(|command| {
        let is_container = !command.subcommands.is_empty() && length > 1;
        if is_container { command.subcommand(args.get(start + 1)) } else { Some(command) }
    });
    let Some(command) = command else { return reply.error("ERR Invalid command specified") };
    if command.access.is_empty() {
        return reply.error("ERR The command has no key arguments");
    }
    if !command.arity_holds(length) {
        return reply.error("ERR Invalid number of arguments specified for command");
    }
    let positions = command.keys.positions(length);
    reply.array(positions.clone().count());
    for (ordinal, position) in positions.enumerate() {
        let access = command.access.get(ordinal).unwrap_or(&command.access[0]);
        let is_read = || (3..length).any(|index| is_word(args, start + index, "get"));
        let flags = match access.flags {
            // SET replaces what it does not return.
            [.., "variable_flags"] if command.name == "set" && !is_read() => KeyAccess::OVERWRITE.flags,
            [flags @ .., "variable_flags"] => flags,
            flags => flags,
        };
        write(flags, args.get(start + position), reply);
    }
}

#[cfg(test)]
mod tests {
    use crate::{Protocol, command::testing::TestKeyspace};

    #[test]
    fn a_command_is_described_as_in_redis() {
        let mut keyspace = TestKeyspace::new();
        assert_eq!(
            keyspace.run("COMMAND INFO get bogus"),
            "[[$get, :2, [+readonly, +fast], :1, :1, :1, [+@read, +@string, +@fast], [], [[$flags, [+RO, +access], \
             $begin_search, [$type, $index, $spec, [$index, :1]], $find_keys, [$type, $range, $spec, [$lastkey, :0, \
             $keystep, :1, $limit, :0]]]], []], nil]"
        );
        keyspace.protocol = Protocol::Resp3;
        assert_eq!(
            keyspace.run("COMMAND INFO mset"),
            "[[$mset, :-3, ~[+write, +denyoom], :1, :-1, :2, ~[+@write, +@string, +@slow], \
             ~[$request_policy:multi_shard, $response_policy:all_succeeded], ~[%{$flags: ~[+OW, +update], \
             $begin_search: %{$type: $index, $spec: %{$index: :1}}, $find_keys: %{$type: $range, $spec: \
             %{$lastkey: :-1, $keystep: :2, $limit: :0}}}], ~[]]]"
        );
        assert_eq!(keyspace.run("COMMAND INFO bogus get|x config|bogus"), "[_, _, _]");
    }

    #[test]
    fn every_command_is_described_by_every_form() {
        let mut keyspace = TestKeyspace::new();
        assert_eq!(keyspace.run("COMMAND"), keyspace.run("COMMAND INFO"));
        let count = keyspace.run("COMMAND COUNT");
        assert_eq!(count, format!(":{}", crate::command::all().len()));
        let listed = keyspace.run("COMMAND LIST");
        for command in crate::command::all() {
            assert!(listed.contains(&format!("${}", command.name)));
            assert!(keyspace.run(&format!("COMMAND DOCS {}", command.name)).contains("$summary"));
        }
    }

    #[test]
    fn documentation_has_the_shape_of_redis() {
        let mut keyspace = TestKeyspace::new();
        keyspace.protocol = Protocol::Resp3;
        let reply = keyspace.run("COMMAND DOCS copy bogus");
        assert!(reply.starts_with("%{$copy: %{$summary: $"), "{reply}");
        assert!(reply.contains("$since: $6.2.0, $group: $generic, $complexity: $"), "{reply}");
        assert!(reply.contains("%{$name: $destination, $type: $key, $key_spec_index: :1}"), "{reply}");
        assert!(
            reply.contains("%{$name: $replace, $type: $pure-token, $token: $REPLACE, $flags: ~[+optional]}"),
            "{reply}"
        );
        assert_eq!(keyspace.run("COMMAND DOCS bogus"), "%{}");
        assert!(keyspace.run("COMMAND DOCS object").contains("$object|encoding: %{$summary: $"));
    }

    #[test]
    fn keys_are_found_among_arguments() {
        const INVALID_NUMBER: &str = "-ERR Invalid number of arguments specified for command";
        const NO_KEYS: &str = "-ERR The command has no key arguments";
        TestKeyspace::new().check(&[
            ("COMMAND GETKEYS get key", "[$key]"),
            ("COMMAND GETKEYS MSET a 1 b 2", "[$a, $b]"),
            ("COMMAND GETKEYS MSET a 1 b", "[$a, $b]"),
            ("COMMAND GETKEYS RENAME a b", "[$a, $b]"),
            ("COMMAND GETKEYS OBJECT ENCODING key", "[$key]"),
            ("COMMAND GETKEYS SET key", INVALID_NUMBER),
            ("COMMAND GETKEYS PING x", NO_KEYS),
            ("COMMAND GETKEYS OBJECT HELP", NO_KEYS),
            ("COMMAND GETKEYS BOGUS x", "-ERR Invalid command specified"),
            ("COMMAND GETKEYS OBJECT BOGUS", "-ERR Invalid command specified"),
            ("COMMAND GETKEYS GET", "-ERR wrong number of arguments for 'command|getkeys' command"),
        ]);
    }

    #[test]
    fn what_happens_to_keys_is_told() {
        TestKeyspace::new().check(&[
            ("COMMAND GETKEYSANDFLAGS get key", "[[$key, [+RO, +access]]]"),
            ("COMMAND GETKEYSANDFLAGS MSET a 1 b", "[[$a, [+OW, +update]], [$b, [+OW, +update]]]"),
            ("COMMAND GETKEYSANDFLAGS RENAME a b", "[[$a, [+RW, +access, +delete]], [$b, [+OW, +update]]]"),
            ("COMMAND GETKEYSANDFLAGS EXISTS a a", "[[$a, [+RO]], [$a, [+RO]]]"),
            ("COMMAND GETKEYSANDFLAGS SET a get EX 5", "[[$a, [+OW, +update]]]"),
            ("COMMAND GETKEYSANDFLAGS SET a 1 EX Get", "[[$a, [+RW, +access, +update]]]"),
            ("COMMAND GETKEYSANDFLAGS SET a", "-ERR Invalid number of arguments specified for command"),
            ("COMMAND GETKEYSANDFLAGS PING x", "-ERR The command has no key arguments"),
            ("COMMAND GETKEYSANDFLAGS BOGUS x", "-ERR Invalid command specified"),
        ]);
        let mut keyspace = TestKeyspace::new();
        keyspace.protocol = Protocol::Resp3;
        assert_eq!(keyspace.run("COMMAND GETKEYSANDFLAGS TTL a"), "[[$a, ~[+RO, +access]]]");
    }

    #[test]
    fn names_are_filtered() {
        TestKeyspace::new().check(&[
            ("COMMAND LIST FILTERBY PATTERN GETR*", "[$getrange]"),
            ("COMMAND LIST filterby pattern config|g*", "[$config|get]"),
            ("COMMAND LIST FILTERBY ACLCAT bogus", "[]"),
            ("COMMAND LIST FILTERBY MODULE any", "[]"),
            ("COMMAND LIST FILTERBY BOGUS x", "-ERR syntax error"),
            ("COMMAND LIST FILTERBY PATTERN", "-ERR syntax error"),
            ("COMMAND LIST FILTERBY PATTERN a b", "-ERR syntax error"),
            ("COMMAND LIST BOGUS", "-ERR syntax error"),
        ]);
        let mut keyspace = TestKeyspace::new();
        let strings = keyspace.run("COMMAND LIST FILTERBY ACLCAT String");
        assert!(strings.contains("$incr,") && !strings.contains("$del"), "{strings}");
        let admin = keyspace.run("COMMAND LIST FILTERBY ACLCAT admin");
        assert!(admin.contains("$config|set") && admin.contains("$shutdown"), "{admin}");
    }
}
