//! What a command does and may do: flags and ACL categories, named as Redis names them.

/// A set of command flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// No flags.
    pub const NONE: Self = Self(0);
    /// May change data.
    pub const WRITE: Self = Self(1);
    /// Reads data and never changes it.
    pub const READONLY: Self = Self(1 << 1);
    /// May grow memory.
    pub const DENYOOM: Self = Self(1 << 2);
    /// For administrators.
    pub const ADMIN: Self = Self(1 << 3);
    /// Not allowed in scripts.
    pub const NOSCRIPT: Self = Self(1 << 4);
    /// Constant or logarithmic time.
    pub const FAST: Self = Self(1 << 5);
    /// Allowed while data is loading.
    pub const LOADING: Self = Self(1 << 6);
    /// Allowed on a replica with stale data.
    pub const STALE: Self = Self(1 << 7);
    /// Allowed before AUTH.
    pub const NO_AUTH: Self = Self(1 << 8);
    /// Not shown to MONITOR or the slow log.
    pub const SKIP_MONITOR: Self = Self(1 << 9);
    /// Keys are not found at fixed places alone.
    pub const MOVABLEKEYS: Self = Self(1 << 10);
    /// Allowed while a script keeps the server busy.
    pub const ALLOW_BUSY: Self = Self(1 << 11);
    /// Not allowed in a transaction.
    pub const NO_MULTI: Self = Self(1 << 12);
    /// Not allowed while a replica loads data beside the old.
    pub const NO_ASYNC_LOADING: Self = Self(1 << 13);

    /// About messages that clients subscribe to.
    pub const PUBSUB: Self = Self(1 << 14);

    /// Both sets together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every flag of `other` is set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names of the flags, in the order of Redis's replies.
    pub fn names(self) -> impl Iterator<Item = &'static str> + Clone {
        FLAG_NAMES.iter().filter(move |(flag, _)| self.contains(*flag)).map(|&(_, name)| name)
    }
}

/// In the order in which COMMAND INFO lists them.
const FLAG_NAMES: &[(Flags, &str)] = &[
    (Flags::WRITE, "write"),
    (Flags::READONLY, "readonly"),
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::PUBSUB, "pubsub"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::LOADING, "loading"),
    (Flags::STALE, "stale"),
    (Flags::SKIP_MONITOR, "skip_monitor"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::NO_ASYNC_LOADING, "no_async_loading"),
    (Flags::NO_MULTI, "no_multi"),
    (Flags::MOVABLEKEYS, "movablekeys"),
    (Flags::ALLOW_BUSY, "allow_busy"),
];

/// A set of ACL categories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Categories(pub u32);

impl Categories {
    /// No categories.
    pub const NONE: Self = Self(0);
    /// Keys of whatever type, databases, expiry.
    pub const KEYSPACE: Self = Self(1);
    /// Reads data.
    pub const READ: Self = Self(1 << 1);
    /// Writes data.
    pub const WRITE: Self = Self(1 << 2);
    /// Strings.
    pub const STRING: Self = Self(1 << 7);
    /// Messages that clients subscribe to.
    pub const PUBSUB: Self = Self(1 << 12);
    /// For administrators.
    pub const ADMIN: Self = Self(1 << 13);
    /// Constant or logarithmic time.
    pub const FAST: Self = Self(1 << 14);
    /// Everything that is not fast.
    pub const SLOW: Self = Self(1 << 15);
    /// Could disturb other clients.
    pub const DANGEROUS: Self = Self(1 << 17);
    /// The connection itself, and other connections.
    pub const CONNECTION: Self = Self(1 << 18);

    /// Both sets together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether every category of `other` is in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The categories that follow from a command's flags.
    pub const fn implied_by(flags: Flags) -> Self {
        let mut categories = if flags.contains(Flags::FAST) { Self::FAST } else { Self::SLOW };
        if flags.contains(Flags::WRITE) {
            categories = categories.and(Self::WRITE);
        }
        if flags.contains(Flags::READONLY) {
            categories = categories.and(Self::READ);
        }
        if flags.contains(Flags::ADMIN) {
            categories = categories.and(Self::ADMIN).and(Self::DANGEROUS);
        }
        categories
    }

    /// The names of the categories without their `@`, in the order of Redis's replies.
    pub fn names(self) -> impl Iterator<Item = &'static str> + Clone {
        (0..).zip(CATEGORY_NAMES).filter(move |(bit, _)| self.0 >> bit & 1 == 1).map(|(_, &name)| name)
    }

    /// The category called `name`, whatever its case.
    pub fn named(name: &[u8]) -> Option<Self> {
        let bit = CATEGORY_NAMES.iter().position(|known| known.as_bytes().eq_ignore_ascii_case(name))?;
        Some(Self(1 << bit))
    }
}

/// By bit: the whole of Redis's list, so that a category without commands here is still a category.
const CATEGORY_NAMES: &[&str] = &[
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];
