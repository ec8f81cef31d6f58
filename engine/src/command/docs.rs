//! What COMMAND DOCS says of a command, and the builders that keep the table's rows short.

/// What COMMAND DOCS says of a command.
#[derive(Clone, Copy)]
pub struct Docs {
    /// One sentence.
    pub summary: &'static str,
    /// The Redis version that introduced it.
    pub since: &'static str,
    /// The group: `string`, `generic`, `connection`, `server`, `cluster`.
    pub group: &'static str,
    /// Its cost; empty: nothing is said of it.
    pub complexity: &'static str,
    /// When it went out of use, and for what.
    pub deprecation: Option<Deprecation>,
    /// What changed since: versions, each with a sentence.
    pub history: &'static [(&'static str, &'static str)],
    /// Its arguments.
    pub arguments: &'static [Argument],
}

impl Docs {
    /// Documentation of a command without arguments.
    pub(super) const fn new(
        group: &'static str,
        since: &'static str,
        complexity: &'static str,
        summary: &'static str,
    ) -> Self {
        Self { summary, since, group, complexity, deprecation: None, history: &[], arguments: &[] }
    }

    /// The same with arguments.
    pub(super) const fn with(self, arguments: &'static [Argument]) -> Self {
        Self { arguments, ..self }
    }
}

/// A command's end, which Redis only announces.
#[derive(Clone, Copy)]
pub struct Deprecation {
    /// The Redis version that announced it.
    pub since: &'static str,
    /// What to use instead.
    pub replaced_by: &'static str,
}

/// One argument in COMMAND DOCS, as Redis structures it.
#[derive(Clone, Copy)]
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// `key`, `string`, `integer`, `double`, `pattern`, `unix-time`, `pure-token`, `oneof`, `block`.
    pub kind: &'static str,
    /// The word that introduces it, or is it.
    pub token: Option<&'static str>,
    /// The Redis version that introduced it, if that came after the command.
    pub since: Option<&'static str>,
    /// The Redis version that announced its end.
    pub deprecated_since: Option<&'static str>,
    /// It may be left out.
    pub optional: bool,
    /// It may be repeated.
    pub multiple: bool,
    /// The parts of a `oneof` or `block`.
    pub arguments: &'static [Argument],
}

impl Argument {
    /// The same argument, which may be left out.
    pub(super) const fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// The same argument, which may be repeated.
    pub(super) const fn multiple(self) -> Self {
        Self { multiple: true, ..self }
    }

    /// The same argument, younger than its command.
    pub(super) const fn since(self, version: &'static str) -> Self {
        Self { since: Some(version), ..self }
    }

    /// The same argument, out of use.
    pub(super) const fn deprecated_since(self, version: &'static str) -> Self {
        Self { deprecated_since: Some(version), ..self }
    }

    /// The same argument, introduced by a word.
    pub(super) const fn after(self, token: &'static str) -> Self {
        Self { token: Some(token), ..self }
    }
}

/// The key of a command with one key.
pub(super) const KEY: Argument = key("key");

/// A key.
pub(super) const fn key(name: &'static str) -> Argument {
    argument(name, "key")
}

/// Any bytes.
pub(super) const fn string(name: &'static str) -> Argument {
    argument(name, "string")
}

/// A 64-bit integer.
pub(super) const fn integer(name: &'static str) -> Argument {
    argument(name, "integer")
}

/// A floating point number.
pub(super) const fn double(name: &'static str) -> Argument {
    argument(name, "double")
}

/// A glob pattern.
pub(super) const fn pattern(name: &'static str) -> Argument {
    argument(name, "pattern")
}

/// A point in time.
pub(super) const fn unix_time(name: &'static str) -> Argument {
    argument(name, "unix-time")
}

/// A word that stands for itself.
pub(super) const fn word(name: &'static str, token: &'static str) -> Argument {
    argument(name, "pure-token").after(token)
}

/// One of several.
pub(super) const fn one_of(name: &'static str, arguments: &'static [Argument]) -> Argument {
    Argument { arguments, ..argument(name, "oneof") }
}

/// Several in a row.
pub(super) const fn block(name: &'static str, arguments: &'static [Argument]) -> Argument {
    Argument { arguments, ..argument(name, "block") }
}

const fn argument(name: &'static str, kind: &'static str) -> Argument {
    Argument {
        name,
        kind,
        token: None,
        since: None,
        deprecated_since: None,
        optional: false,
        multiple: false,
        arguments: &[],
    }
}
