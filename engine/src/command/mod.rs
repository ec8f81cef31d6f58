//! Commands as data: one table, built at compile time, that execution, routing, COMMAND, and later ACL and
//! the command line's hints all read.
//!
//! A family is a file: its handlers, its rows of the table, its tests. Invariants:
//!
//! - **One reply.** A handler writes exactly one complete reply, or nothing and returns [`Step::Continue`].
//! - **Checked arguments.** A handler runs only after [`Command::accepts`] agreed to the number of arguments.
//! - **Bounded work.** What may take longer than half a millisecond (KEYS, SCAN, LCS) goes on in later steps.

mod connection;
mod databases;
mod docs;
mod dump;
mod expiration;
mod expiry;
mod extended;
mod failure;
mod flags;
pub mod help;
pub mod introspect;
pub mod keys;
pub mod lcs;
mod many;
pub mod merge;
mod numbers;
mod object;
mod once;
mod ranges;
pub mod scan;
mod server;
mod strings;
mod table;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod transaction;

use crate::{Args, Call, Reply, Step};

pub use docs::{Argument, Deprecation, Docs};
pub use flags::{Categories, Flags};
pub use once::{OnceError, once_command};
pub use server::ServerCommand;
pub use table::{COUNT_ALL, all, every, lookup};

/// A command's function.
pub type Handler = fn(&mut Call<'_>) -> Step;

/// One command, or one subcommand of a container.
#[derive(Clone, Copy)]
pub struct Command {
    /// The name in lower case; for a subcommand `container|name`.
    pub name: &'static str,
    /// The number of arguments, the name included; negative: at least so many.
    pub arity: i16,
    /// What the command does and may do.
    pub flags: Flags,
    /// The ACL categories that do not follow from the flags.
    pub categories: Categories,
    /// Where its keys are.
    pub keys: Keys,
    /// What it does with its keys: one element for all of them, or one a key.
    pub access: &'static [KeyAccess],
    /// Hints for clients and proxies.
    pub tips: &'static [&'static str],
    /// Who executes it, and how it spreads over shards.
    pub run: Run,
    /// Subcommands, of a container.
    pub subcommands: &'static [Command],
    /// What COMMAND DOCS says.
    pub docs: Docs,
    /// Its place among all commands and subcommands, below [`COUNT_ALL`]: where counters of its own are.
    pub number: u16,
    /// The feature level that all nodes of a cluster must have agreed on before one executes it; 1: any.
    pub feature_level: u16,
}

impl Command {
    /// A command without flags, keys, tips or subcommands: the base of a row.
    const fn new(name: &'static str, arity: i16, run: Run, docs: Docs) -> Self {
        Self {
            name,
            arity,
            flags: Flags::NONE,
            categories: Categories::NONE,
            keys: Keys::NONE,
            access: &[],
            tips: &[],
            run,
            subcommands: &[],
            docs,
            // The table knows it.
            number: 0,
            feature_level: 1,
        }
    }

    /// The same row, of a command that nodes of an earlier feature level do not know.
    pub const fn of_feature_level(self, feature_level: u16) -> Self {
        Self { feature_level, ..self }
    }

    /// The same row with flags.
    const fn flags(self, flags: &[Flags]) -> Self {
        let mut all = self.flags;
        let mut index = 0;
        while index < flags.len() {
            all = all.and(flags[index]);
            index += 1;
        }
        Self { flags: all, ..self }
    }

    /// The same row in more ACL categories.
    const fn categories(self, categories: Categories) -> Self {
        Self { categories: self.categories.and(categories), ..self }
    }

    /// The same row with keys, and what is done with them.
    const fn keys(self, keys: Keys, access: &'static [KeyAccess]) -> Self {
        Self { keys, access, ..self }
    }

    /// The same row with tips.
    const fn tips(self, tips: &'static [&'static str]) -> Self {
        Self { tips, ..self }
    }

    /// The same row with documented arguments.
    const fn arguments(self, arguments: &'static [Argument]) -> Self {
        Self { docs: self.docs.with(arguments), ..self }
    }

    /// The same row, and what changed since its version.
    const fn history(self, history: &'static [(&'static str, &'static str)]) -> Self {
        Self { docs: Docs { history, ..self.docs }, ..self }
    }

    /// The same row, out of use since a version.
    const fn deprecated(self, since: &'static str, replaced_by: &'static str) -> Self {
        Self { docs: Docs { deprecation: Some(Deprecation { since, replaced_by }), ..self.docs }, ..self }
    }

    /// The same row as a container.
    const fn subcommands(self, subcommands: &'static [Command]) -> Self {
        Self { subcommands, ..self }
    }

    /// Whether a request of `length` arguments, the name included, has as many as the command takes: its
    /// arity holds, and no key of key-value pairs lacks its value.
    #[inline]
    pub fn accepts(&self, length: usize) -> bool {
        let pairs = self.keys.step <= 1
            || length.abs_diff(usize::from(self.keys.first)).is_multiple_of(usize::from(self.keys.step));
        self.arity_holds(length) && pairs
    }

    /// Whether the arity alone allows `length` arguments. Redis finds out whether pairs are complete when it executes.
    #[inline]
    pub fn arity_holds(&self, length: usize) -> bool {
        let arity = usize::from(self.arity.unsigned_abs());
        if self.arity >= 0 { length == arity } else { length >= arity }
    }

    /// Whether the first argument is the only key, whatever the number of arguments.
    #[inline]
    pub fn has_first_key_alone(&self) -> bool {
        self.keys.first == 1 && self.keys.last == 1 && !self.flags.contains(Flags::MOVABLEKEYS)
    }

    /// The numbers of the key arguments of a request of `count` arguments, which [`accepts`](Self::accepts) agreed to.
    /// Of ONCE they are those of the command behind it; there are none if [`once_command`] refuses the request.
    #[inline]
    pub fn key_positions<'a>(
        &self,
        count: usize,
        argument: impl Fn(usize) -> &'a [u8],
    ) -> impl Iterator<Item = usize> {
        let (mut keys, mut skipped) = (self.keys, 0);
        if self.flags.contains(Flags::MOVABLEKEYS) {
            skipped = once::COMMAND_ARGUMENT;
            keys = once_command(count, argument).map_or(Keys::NONE, |command| command.keys);
        }
        keys.positions(count - skipped).map(move |position| skipped + position)
    }

    /// Writes the error for a request that [`accepts`](Self::accepts) refused.
    #[cold]
    pub fn write_arity_error(&self, reply: &mut Reply<'_>) {
        reply.error(&format!("ERR wrong number of arguments for '{}' command", self.name));
    }

    /// The subcommand called `name`, whatever its case.
    pub fn subcommand(&self, name: &[u8]) -> Option<&'static Command> {
        self.subcommands.iter().find(|row| row.own_name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Every ACL category, those that follow from the flags included.
    pub fn all_categories(&self) -> Categories {
        self.categories.and(Categories::implied_by(self.flags))
    }

    /// The name without the container's.
    pub fn own_name(&self) -> &'static str {
        self.name.split_once('|').map_or(self.name, |(_, name)| name)
    }
}

/// Finds the command that a request of `count` arguments, at least one, names, with its subcommand: a container alone is a
/// command of its own.
/// `None` when there is none; [`write_unknown_error`] says so.
#[inline]
pub fn resolve<'a>(count: usize, argument: impl Fn(usize) -> &'a [u8]) -> Option<&'static Command> {
    let command = lookup(argument(0))?;
    if command.subcommands.is_empty() || count == 1 {
        return Some(command);
    }
    command.subcommand(argument(1))
}

/// Writes the error for a request that [`resolve`] knows nothing of.
#[cold]
pub fn write_unknown_error(args: &Args<'_>, reply: &mut Reply<'_>) {
    let mut text = Vec::new();
    if let Some(container) = lookup(args.get(0)) {
        text.extend_from_slice(b"ERR unknown subcommand '");
        text.extend_from_slice(quoted(args.get(1), QUOTED_BYTES_MAX));
        text.extend_from_slice(b"'. Try ");
        text.extend_from_slice(container.name.to_ascii_uppercase().as_bytes());
        text.extend_from_slice(b" HELP.");
    } else {
        text.extend_from_slice(b"ERR unknown command '");
        text.extend_from_slice(quoted(args.get(0), QUOTED_BYTES_MAX));
        text.extend_from_slice(b"', with args beginning with: ");
        let start = text.len();
        for index in 1..args.len() {
            let used = text.len() - start;
            if used >= QUOTED_BYTES_MAX {
                break;
            }
            text.push(b'\'');
            text.extend_from_slice(quoted(args.get(index), QUOTED_BYTES_MAX - used));
            text.extend_from_slice(b"' ");
        }
    }
    reply.error_bytes(&text);
}

/// What an error quotes at most of a request, in bytes.
const QUOTED_BYTES_MAX: usize = 128;

/// The beginning of `bytes` as Redis, which formats C strings, quotes it: up to the first zero byte.
fn quoted(bytes: &[u8], len_bytes_max: usize) -> &[u8] {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    &text[..text.len().min(len_bytes_max)]
}

/// Who executes a command, and how it spreads when its keys lie on several cores.
#[derive(Clone, Copy)]
pub enum Run {
    /// One key, hence one shard.
    Single(Handler),
    /// Several keys. On one core the handler does it all at once; over several each core runs the
    /// handler with its share of the arguments, under locks, and the replies are merged.
    Split(Handler, Merge),
    /// Several keys, on several cores in more than one step: the handler serves keys on one core, the plan the rest.
    Staged(Handler, Plan),
    /// Every shard: every core runs the handler over its own shards and the replies are merged.
    Everywhere(Handler, Merge),
    /// A read that walks the slots in order, core after core (SCAN).
    Walk(Handler),
    /// The connection's own core answers; the server knows how.
    Server(ServerCommand),
}

/// How the replies of several cores become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Integers are added.
    Sum,
    /// Each core's array has one element a key it was given; they return to the keys' order.
    ByKey,
    /// Arrays are appended to one another.
    Concatenate,
    /// Every core says OK.
    Status,
    /// One core's answer is drawn, weighted by how many keys each holds (RANDOMKEY).
    Draw,
}

/// A command that needs more than one step when its keys lie on several cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// MSETNX: set all keys if none exists.
    SetIfNone,
    /// RENAME, RENAMENX: move a value to another key.
    Rename,
    /// COPY: duplicate a value under another key.
    Copy,
    /// LCS: read two strings, compute beside them.
    LongestCommonSubsequence,
}

/// Where a command's keys are among its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The first key's argument number; 0: no keys.
    pub first: u8,
    /// The last key's argument number; negative counts from the end.
    pub last: i8,
    /// The distance from one key to the next.
    pub step: u8,
}

impl Keys {
    /// No keys.
    pub const NONE: Self = Self { first: 0, last: 0, step: 0 };
    /// One key, the first argument.
    pub const FIRST: Self = Self { first: 1, last: 1, step: 1 };
    /// One key, the argument after a subcommand's name.
    pub const SECOND: Self = Self { first: 2, last: 2, step: 1 };
    /// The first two arguments.
    pub const TWO: Self = Self { first: 1, last: 2, step: 1 };
    /// Every argument.
    pub const ALL: Self = Self { first: 1, last: -1, step: 1 };
    /// Every other argument: keys and values.
    pub const PAIRS: Self = Self { first: 1, last: -1, step: 2 };

    /// The numbers of the key arguments of a request of `length` arguments.
    #[inline]
    pub fn positions(self, length: usize) -> impl Iterator<Item = usize> + Clone {
        let last = if self.last < 0 { length as i64 + i64::from(self.last) } else { i64::from(self.last) };
        let end = if self.first == 0 { 0 } else { (last + 1).clamp(0, length as i64) as usize };
        (usize::from(self.first)..end).step_by(usize::from(self.step.max(1)))
    }
}

/// What a command does with a key, as COMMAND INFO's key specifications say it.
#[derive(Clone, Copy, Debug)]
pub struct KeyAccess {
    /// Redis's names for it.
    pub flags: &'static [&'static str],
    /// A remark.
    pub notes: Option<&'static str>,
}

impl KeyAccess {
    /// Reads the value, or what could tell of it.
    const READ: Self = Self::new(&["RO", "access"]);
    /// Looks at the key without returning its value.
    const PEEK: Self = Self::new(&["RO"]);
    /// Changes the value without returning it.
    const UPDATE: Self = Self::new(&["RW", "update"]);
    /// Changes the value and returns it.
    const READ_UPDATE: Self = Self::new(&["RW", "access", "update"]);
    /// Returns the value and removes it.
    const READ_DELETE: Self = Self::new(&["RW", "access", "delete"]);
    /// Adds to the value.
    const EXTEND: Self = Self::new(&["RW", "insert"]);
    /// Replaces the value.
    const OVERWRITE: Self = Self::new(&["OW", "update"]);
    /// Creates the key, and leaves it alone if it exists.
    const CREATE: Self = Self::new(&["OW", "insert"]);
    /// Removes the key.
    const DELETE: Self = Self::new(&["RM", "delete"]);

    const fn new(flags: &'static [&'static str]) -> Self {
        Self { flags, notes: None }
    }

    const fn noted(self, notes: &'static str) -> Self {
        Self { notes: Some(notes), ..self }
    }
}
