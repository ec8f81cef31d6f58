//! What clients ask for, and what they make of the replies at once.
//!
//! A seed's [`Plan`] says which keys there are and who shares them. A client plays one or more [`Role`]s by turns on
//! the same connection; what concerns several clients is judged after the run, from what was sent.

use duva_server::config::AppendFsync;

use super::{
    check::{history::History, loss::Times, model::Window, register::RegisterAction, token},
    client::Sent,
    random::Random,
    resp::Reply,
    world::WALL_OFFSET_MS_MAX,
};

/// How far a core's clock may be from the world's, in milliseconds: jumps, and time that went on without them.
const CLOCK_SLACK_MS: i64 = 4 * WALL_OFFSET_MS_MAX;

/// Register operations of one connection that are under way at most: more would give the judge too many orders.
const REGISTER_OPERATIONS_MAX: usize = 3;

/// SCANs of one iteration at most; more keys than that do not exist.
const SCANS_MAX: usize = 4000;

/// A request and how it is judged.
pub(crate) struct Planned {
    /// The command and its arguments.
    pub(crate) arguments: Vec<Vec<u8>>,
    /// What it is for.
    pub(crate) purpose: Purpose,
}

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// On a key that only this connection uses.
    Private,
    /// On this shared counter; whether it increments.
    Counter(usize, bool),
    /// On this register; results are filled in later.
    Register(usize, RegisterAction),
    /// On all registers: removes everything.
    Flush,
    /// Moves a token, or has none to move.
    Move,
    /// Reads all tokens' places.
    Places,
    /// A step of an iteration.
    Scan,
    /// All keys that stay.
    Keys,
    /// Makes what is there from the beginning: the plan's preparation with this number.
    Prepare(usize),
    /// Looks at what a crash has left.
    Survey,
    /// Begins to save, if nothing stands against it.
    Save,
    /// The reply is OK.
    Status,
    /// The reply is a number at least so large.
    Number(i64),
    /// The reply is this text, or contains it.
    Text(&'static [u8]),
    /// The reply is a list.
    List,
    /// A violation of the protocol.
    Garbage,
}

/// Who plays what in a run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The keys of each register.
    pub(crate) registers: Vec<Vec<Vec<u8>>>,
    /// The counters' keys.
    pub(crate) counters: Vec<Vec<u8>>,
    /// Where tokens can be.
    pub(crate) places: Vec<Vec<u8>>,
    /// How many tokens there are.
    pub(crate) tokens: usize,
    /// Keys that stay as long as the server.
    pub(crate) stay: Vec<Vec<u8>>,
    /// Whether everything is removed now and then; then there are only registers.
    pub(crate) has_flushes: bool,
    /// Whether clients close each other's connections.
    pub(crate) has_kills: bool,
    /// Whether clients pause the server.
    pub(crate) has_pauses: bool,
    /// The length of large values in bytes, 0 if there are none.
    pub(crate) large_bytes: usize,
    /// Whether some keys are as large.
    pub(crate) has_large_keys: bool,
    /// The longest that a commit takes, about, in milliseconds; `None`: nothing is journalled.
    pub(crate) commit_ms_max: Option<i64>,
    /// What `appendfsync` is set to while the server runs, by turns.
    pub(crate) fsyncs: Vec<AppendFsync>,
    /// Whether data is saved, and the journal rewritten.
    pub(crate) has_saves: bool,
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn choose(random: &mut Random, piece_bytes_max: usize, commit_ms_max: Option<i64>) -> Self {
        let has_flushes = random.one_in(5);
        let named = |prefix: &str, count: u64| -> Vec<Vec<u8>> {
            (0..count).map(|number| format!("{prefix}:{number}").into_bytes()).collect()
        };
        let register_count = if has_flushes { 1 } else { 2 };
        let registers = (0..register_count)
            .map(|number| {
                // Some with so many keys that a command over them is worked on piece by piece.
                let is_long = piece_bytes_max >= 4096 && random.one_in(8);
                let count = if is_long { random.between(600, 1_400) } else { random.between(2, 6) };
                named(&format!("register{number}"), count)
            })
            .collect();
        let counter_count = random.between(1, 5);
        let place_count = random.between(4, 7);
        let stay_count = random.between(10, 60);
        Self {
            registers,
            counters: named("counter", counter_count),
            places: named("place", place_count),
            tokens: place_count as usize / 2,
            stay: named("stays", stay_count),
            has_flushes,
            has_kills: random.one_in(5),
            has_pauses: random.one_in(4),
            has_large_keys: piece_bytes_max >= 4096 && random.one_in(6),
            large_bytes: match piece_bytes_max {
                ..4096 => 0,
                // Long enough to be journalled in several pieces.
                65_536.. if commit_ms_max.is_some() => random.between(64 << 10, 700 << 10) as usize,
                _ => random.between(64 << 10, 200 << 10) as usize,
            },
            commit_ms_max,
            fsyncs: match random.below(12) {
                0 => vec![AppendFsync::EverySecond, AppendFsync::Always],
                1 => vec![AppendFsync::EverySecond, AppendFsync::Always, AppendFsync::No],
                _ => Vec::new(),
            },
            has_saves: random.one_in(2),
        }
    }

    /// Whether writes are journalled.
    pub(crate) fn has_journal(&self) -> bool {
        self.commit_ms_max.is_some()
    }

    /// The requests that make what is there from the beginning.
    pub(crate) fn preparations(&self) -> Vec<Planned> {
        if self.has_flushes {
            return Vec::new();
        }
        let tokens = self.places.iter().take(self.tokens).enumerate();
        let tokens = tokens.map(|(number, place)| vec![b"SET".to_vec(), place.clone(), token::name(number)]);
        let stay = self.stay.iter().map(|key| vec![b"SET".to_vec(), key.clone(), b"x".to_vec()]);
        let all = tokens.chain(stay).enumerate();
        all.map(|(number, arguments)| Planned { arguments, purpose: Purpose::Prepare(number) }).collect()
    }
}

/// A role of one client.
pub(crate) enum Role {
    /// Uses keys of its own, and knows every reply.
    Private {
        /// Begins the names of its keys.
        prefix: String,
        /// What happened to them.
        history: History,
    },
    /// Increments and reads shared counters.
    Counter,
    /// Writes and reads registers.
    Register {
        /// Begins the values that it writes, which nobody else writes.
        next_value: u64,
        /// Its operations under way.
        under_way: usize,
    },
    /// Moves tokens.
    Token,
    /// Iterates over all keys.
    Scan {
        /// Where to go on; `None`: a step is under way.
        cursor: Option<Vec<u8>>,
        /// What was found.
        found: Vec<Vec<u8>>,
        /// Steps of this iteration.
        steps: usize,
    },
    /// Looks after the server.
    Admin,
}

impl Role {
    /// The roles of client `client`.
    pub(crate) fn choose(random: &mut Random, plan: &Plan, client: usize) -> Vec<Self> {
        let mut roles = Vec::new();
        for _ in 0..random.between(1, 3) {
            roles.push(match random.below(if plan.has_flushes { 4 } else { 12 }) {
                0..3 => Self::Register { next_value: (client as u64 + 1) * 1_000_000, under_way: 0 },
                3 => Self::Admin,
                4..8 => Self::Private { prefix: String::new(), history: History::new() },
                8 | 9 => Self::Counter,
                10 => Self::Token,
                _ => Self::Scan { cursor: None, found: Vec::new(), steps: 0 },
            });
        }
        // Two writers of one client must not write the same values.
        roles.dedup_by(|a, b| std::mem::discriminant(a) == std::mem::discriminant(b));
        let mut has_register = false;
        roles.retain(|role| match role {
            Self::Register { .. } => !std::mem::replace(&mut has_register, true),
            _ => true,
        });
        roles
    }

    /// A connection begins: which one of which client, and which role this is there. Returns the history of keys that are
    /// not used any more.
    pub(crate) fn begin(
        &mut self,
        random: &mut Random,
        (client, session, role): (usize, usize, usize),
    ) -> Option<History> {
        match self {
            Self::Private { prefix, history } => {
                if !prefix.is_empty() && history.is_certain() && random.one_in(2) {
                    return None;
                }
                let is_first = prefix.is_empty();
                *prefix = format!("own{client}-{session}-{role}");
                let retired = std::mem::replace(history, History::new());
                return (!is_first).then_some(retired);
            }
            Self::Register { under_way, .. } => *under_way = 0,
            Self::Scan { cursor, found, steps } => {
                *cursor = Some(b"0".to_vec());
                found.clear();
                *steps = 0;
            }
            Self::Counter | Self::Token | Self::Admin => {}
        }
        None
    }

    /// The history of its keys, if it has keys of its own.
    pub(crate) fn history(&mut self) -> Option<&mut History> {
        if let Self::Private { history, .. } = self { Some(history) } else { None }
    }

    /// Its next request, if it has one now.
    pub(crate) fn next(&mut self, random: &mut Random, plan: &Plan) -> Option<Planned> {
        match self {
            Self::Private { prefix, .. } => {
                Some(Planned { arguments: private(random, plan, prefix), purpose: Purpose::Private })
            }
            Self::Counter => {
                let counter = random.index(plan.counters.len());
                let increments = !random.one_in(3);
                let name = if increments { "INCR" } else { "GET" };
                let arguments = vec![name.into(), plan.counters[counter].clone()];
                Some(Planned { arguments, purpose: Purpose::Counter(counter, increments) })
            }
            Self::Register { next_value, under_way } => {
                if *under_way == REGISTER_OPERATIONS_MAX {
                    return None;
                }
                *under_way += 1;
                *next_value += 1;
                Some(register(random, plan, *next_value))
            }
            Self::Token => Some(token_request(random, plan)),
            Self::Scan { cursor, .. } => {
                let cursor = cursor.take()?;
                if cursor == b"0" && random.one_in(4) {
                    let arguments = vec![b"KEYS".to_vec(), b"stays:*".to_vec()];
                    return Some(Planned { arguments, purpose: Purpose::Keys });
                }
                let mut arguments = vec![b"SCAN".to_vec(), cursor];
                if random.one_in(2) {
                    arguments.extend([b"COUNT".to_vec(), random.between(1, 30).to_string().into_bytes()]);
                }
                if random.one_in(3) {
                    arguments.extend([b"MATCH".to_vec(), b"stays:*".to_vec()]);
                }
                Some(Planned { arguments, purpose: Purpose::Scan })
            }
            Self::Admin => Some(admin(random, plan)),
        }
    }

    /// A request of this role was refused because the disk is full: nothing has happened.
    pub(crate) fn refused(&mut self) {
        if let Self::Register { under_way, .. } = self {
            *under_way -= 1;
        }
    }

    /// A request of this role got no reply, and was perhaps executed within `window`.
    pub(crate) fn not_answered(&mut self, arguments: &[Vec<u8>], window: Window, times: Times, plan: &Plan) {
        if let Self::Private { history, .. } = self {
            history.assume(arguments, seen_within(arguments, window, plan), times);
        }
    }

    /// Judges the reply to a request of this role.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn replied(
        &mut self,
        arguments: &[Vec<u8>],
        sent: &Sent,
        reply: &Reply,
        plan: &Plan,
    ) -> Result<(), String> {
        let purpose = &sent.purpose;
        match self {
            Self::Private { history, .. } => {
                let window = seen_within(arguments, sent.window(), plan);
                return history.apply(arguments, reply, window, sent.times());
            }
            Self::Register { under_way, .. } => *under_way -= 1,
            Self::Scan { cursor, found, steps } => {
                if *purpose == Purpose::Keys {
                    *cursor = Some(b"0".to_vec());
                    let mut keys = texts(reply)?;
                    token::check_keys(&keys, &plan.stay)?;
                    keys.sort();
                    keys.dedup();
                    let is_whole = keys.len() == plan.stay.len();
                    return if is_whole { Ok(()) } else { Err(format!("unknown keys in {}", reply.shown())) };
                }
                let Reply::Array(parts) = reply else {
                    return Err(format!("SCAN was answered {}", reply.shown()));
                };
                let [Reply::Bulk(next), keys] = &parts[..] else {
                    return Err(format!("SCAN was answered {}", reply.shown()));
                };
                found.extend(texts(keys)?);
                *steps += 1;
                *cursor = Some(next.clone());
                if next == b"0" {
                    *steps = 0;
                    return token::check_keys(&std::mem::take(found), &plan.stay);
                }
                if *steps > SCANS_MAX {
                    return Err("an iteration does not end".to_owned());
                }
            }
            Self::Counter | Self::Token | Self::Admin => {}
        }
        check_shape(purpose, reply, plan)
    }
}

/// Whether a reply says that the journal takes nothing now.
pub(crate) fn is_refusal(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with(b"MISCONF Errors writing to the AOF file: No space left"))
}

/// Whether a command may be refused when the journal takes nothing.
pub(crate) fn is_write(name: &[u8]) -> bool {
    let reads: [&[u8]; 17] = [
        b"GET",
        b"STRLEN",
        b"EXISTS",
        b"MGET",
        b"TTL",
        b"PTTL",
        b"SCAN",
        b"KEYS",
        b"DBSIZE",
        b"PING",
        b"CLIENT",
        b"INFO",
        b"HELLO",
        b"CONFIG",
        b"SAVE",
        b"BGSAVE",
        b"BGREWRITEAOF",
    ];
    !reads.contains(&name)
}

/// When a request can have been executed, by the cores' clocks, if it was within `window` by the world's.
pub(crate) fn seen_within(arguments: &[Vec<u8>], window: Window, plan: &Plan) -> Window {
    // A read sees what was there when the oldest write came that is not committed.
    let late_ms = if is_single_write(arguments) { 0 } else { plan.commit_ms_max.unwrap_or(0) };
    (window.0 - CLOCK_SLACK_MS - late_ms, window.1 + CLOCK_SLACK_MS)
}

/// Whether a command is a write of one key, which takes effect at the time when it was proposed.
fn is_single_write(arguments: &[Vec<u8>]) -> bool {
    let several: [&[u8]; 6] = [b"MSET", b"MSETNX", b"DEL", b"RENAME", b"RENAMENX", b"COPY"];
    is_write(&arguments[0]) && !several.contains(&&arguments[0][..])
}

/// Judges a reply by its form, where that is all there is to say at once.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_shape(purpose: &Purpose, reply: &Reply, plan: &Plan) -> Result<(), String> {
    let contains = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    let is_right = match (purpose, reply) {
        (Purpose::Status | Purpose::Flush | Purpose::Prepare(_), reply) => *reply == Reply::ok(),
        (Purpose::Save, Reply::Simple(_)) => true,
        (Purpose::Save, Reply::Error(text)) => text.starts_with(b"ERR "),
        (Purpose::Survey, reply) => !matches!(reply, Reply::Error(_)),
        (Purpose::Number(low), Reply::Integer(number)) => number >= low,
        (Purpose::Text(text), Reply::Bulk(bytes) | Reply::Simple(bytes)) => contains(bytes, text),
        (Purpose::List, Reply::Array(_)) => true,
        (Purpose::Garbage, Reply::Error(text)) => text.starts_with(b"ERR Protocol error"),
        (Purpose::Move, Reply::Integer(0 | 1)) => true,
        (Purpose::Move, Reply::Error(text)) => text.starts_with(b"ERR no such key"),
        (Purpose::Places, reply) => return token::check_places(reply, plan.tokens),
        (Purpose::Scan | Purpose::Keys | Purpose::Private, _) => true,
        (Purpose::Counter(_, true), Reply::Integer(_)) => true,
        (Purpose::Counter(_, false), Reply::Nil | Reply::Bulk(_)) => true,
        (Purpose::Register(number, action), reply) => {
            return answered(*action, plan, *number, reply).map(drop);
        }
        _ => false,
    };
    if is_right { Ok(()) } else { Err(format!("{purpose:?} was answered {}", reply.shown())) }
}

/// The register operation `action`, with what its reply says.
///
/// # Errors
/// What is wrong with the reply by itself, such as half of a write.
pub(crate) fn answered(
    action: RegisterAction,
    plan: &Plan,
    register: usize,
    reply: &Reply,
) -> Result<RegisterAction, String> {
    let size = plan.registers[register].len() as i64;
    let value = |bytes: &[u8]| {
        let text = std::str::from_utf8(bytes).ok();
        text.and_then(|text| text.parse().ok()).ok_or_else(|| format!("a register holds {}", reply.shown()))
    };
    match (action, reply) {
        (RegisterAction::Write(_), reply) if *reply == Reply::ok() => Ok(action),
        (RegisterAction::WriteIfNone(new, _), Reply::Integer(wrote @ (0 | 1))) => {
            Ok(RegisterAction::WriteIfNone(new, Some(*wrote == 1)))
        }
        (RegisterAction::Clear(_), Reply::Integer(count)) if *count == 0 || *count == size => {
            Ok(RegisterAction::Clear(Some(*count > 0)))
        }
        (RegisterAction::Exists(_), Reply::Integer(count)) if *count == 0 || *count == size => {
            Ok(RegisterAction::Exists(*count > 0))
        }
        (RegisterAction::Read(_), Reply::Nil) => Ok(RegisterAction::Read(None)),
        (RegisterAction::Read(_), Reply::Bulk(bytes)) => Ok(RegisterAction::Read(Some(value(bytes)?))),
        (RegisterAction::Read(_), Reply::Array(items)) => {
            let [first, rest @ ..] = &items[..] else { return Err("an empty register".to_owned()) };
            if rest.iter().any(|item| item != first) {
                return Err(format!("a torn read: {}", reply.shown()));
            }
            answered(action, plan, register, first)
        }
        _ => Err(format!("{action:?} of {size} keys was answered {}", reply.shown())),
    }
}

fn texts(reply: &Reply) -> Result<Vec<Vec<u8>>, String> {
    let refuse = || format!("not a list of keys: {}", reply.shown());
    let Reply::Array(items) = reply else { return Err(refuse()) };
    let text = |item: &Reply| if let Reply::Bulk(bytes) = item { Ok(bytes.clone()) } else { Err(refuse()) };
    items.iter().map(text).collect()
}

fn private(random: &mut Random, plan: &Plan, prefix: &str) -> Vec<Vec<u8>> {
    let key = |random: &mut Random| {
        let number = random.below(5);
        let mut key = format!("{prefix}:{number}").into_bytes();
        if number == 0 && plan.has_large_keys {
            key.resize(70 << 10, b'k');
        }
        key
    };
    let value = |random: &mut Random| -> Vec<u8> {
        match random.below(20) {
            0 if plan.large_bytes > 0 => {
                // Around the length from which on bulks are received apart.
                let length = random.pick(&[(64 << 10) - 1, 64 << 10, plan.large_bytes]);
                let first = random.bits() as usize;
                (0..length).map(|at| b'a' + ((first.wrapping_add(at)) % 26) as u8).collect()
            }
            1..6 => (0..random.below(80)).map(|_| random.bits() as u8).collect(),
            _ => random.below(1000).to_string().into_bytes(),
        }
    };
    let name = random.pick(&[
        "SET", "SET", "SET", "GET", "GET", "INCR", "APPEND", "STRLEN", "SETNX", "GETSET", "GETDEL", "DEL",
        "EXISTS", "MSET", "MSET", "MGET", "MGET", "MSETNX", "RENAME", "RENAMENX", "COPY", "EXPIRE",
        "PEXPIRE", "PERSIST", "TTL", "PTTL",
    ]);
    let mut arguments = vec![name.as_bytes().to_vec(), key(random)];
    match name {
        "SET" | "SETNX" | "GETSET" | "APPEND" => arguments.push(value(random)),
        "DEL" | "EXISTS" | "MGET" => {
            for _ in 0..random.below(4) {
                arguments.push(key(random));
            }
        }
        "MSET" | "MSETNX" => {
            arguments.push(value(random));
            for _ in 0..random.below(4) {
                arguments.extend([key(random), value(random)]);
            }
        }
        "RENAME" | "RENAMENX" | "COPY" => {
            let other = std::iter::repeat_with(|| key(random)).find(|other| *other != arguments[1]);
            arguments.extend(other);
            if name == "COPY" && random.one_in(2) {
                arguments.push(b"REPLACE".to_vec());
            }
        }
        "EXPIRE" => arguments.push(random.between(100, 10_000).to_string().into_bytes()),
        "PEXPIRE" => arguments.push(random.between(1, 300).to_string().into_bytes()),
        _ => {}
    }
    arguments
}

fn register(random: &mut Random, plan: &Plan, value: u64) -> Planned {
    let number = random.index(plan.registers.len());
    let keys = &plan.registers[number];
    let value_text = value.to_string().into_bytes();
    let of = |name: &str, keys: &[Vec<u8>]| -> Vec<Vec<u8>> {
        std::iter::once(name.as_bytes().to_vec()).chain(keys.iter().cloned()).collect()
    };
    let pairs = |name: &str, first: usize| -> Vec<Vec<u8>> {
        let mut arguments = vec![name.as_bytes().to_vec()];
        for at in 0..keys.len() {
            arguments.extend([keys[(first + at) % keys.len()].clone(), value_text.clone()]);
        }
        arguments
    };
    let first = random.index(keys.len());
    let (arguments, action) = match random.below(12) {
        0..4 => (pairs("MSET", first), RegisterAction::Write(value)),
        4 => (pairs("MSETNX", first), RegisterAction::WriteIfNone(value, None)),
        5 => (of("DEL", keys), RegisterAction::Clear(None)),
        // Always the same key: single requests of one pipeline on several cores need not take effect in their order.
        6 => (of("GET", &keys[..1]), RegisterAction::Read(None)),
        7 if plan.has_flushes => {
            let name = random.pick(&["FLUSHALL", "FLUSHDB"]);
            return Planned { arguments: of(name, &[]), purpose: Purpose::Flush };
        }
        8 if plan.has_flushes => (of("DBSIZE", &[]), RegisterAction::Exists(false)),
        9 => (of("EXISTS", keys), RegisterAction::Exists(false)),
        _ => (of("MGET", keys), RegisterAction::Read(None)),
    };
    Planned { arguments, purpose: Purpose::Register(number, action) }
}

fn token_request(random: &mut Random, plan: &Plan) -> Planned {
    if random.one_in(3) {
        let mut arguments = vec![b"MGET".to_vec()];
        arguments.extend(plan.places.iter().cloned());
        return Planned { arguments, purpose: Purpose::Places };
    }
    let from = random.index(plan.places.len());
    let to = (from + 1 + random.index(plan.places.len() - 1)) % plan.places.len();
    let arguments = vec![b"RENAMENX".to_vec(), plan.places[from].clone(), plan.places[to].clone()];
    Planned { arguments, purpose: Purpose::Move }
}

fn admin(random: &mut Random, plan: &Plan) -> Planned {
    let of = |words: &[&str], purpose: Purpose| Planned {
        arguments: words.iter().map(|word| word.as_bytes().to_vec()).collect(),
        purpose,
    };
    let text = |number: u64| number.to_string();
    match random.below(18) {
        14 if plan.has_journal() && !plan.fsyncs.is_empty() => {
            let fsync = plan.fsyncs[random.index(plan.fsyncs.len())].name();
            of(&["CONFIG", "SET", "appendfsync", fsync], Purpose::Status)
        }
        15 | 16 if plan.has_saves => of(&["BGREWRITEAOF"], Purpose::Save),
        17 if plan.has_saves => {
            of(random.pick(&[&["SAVE"], &["BGSAVE"], &["BGSAVE", "SCHEDULE"]]), Purpose::Save)
        }
        0 if plan.has_pauses => {
            let length_ms = text(random.between(1, 40));
            let mode = random.pick(&["ALL", "WRITE"]);
            of(&["CLIENT", "PAUSE", &length_ms, mode], Purpose::Status)
        }
        1 if plan.has_pauses => of(&["CLIENT", "UNPAUSE"], Purpose::Status),
        2 if plan.has_kills => {
            let id = text(random.between(1, 30));
            of(&["CLIENT", "KILL", "ID", &id], Purpose::Number(0))
        }
        3 => of(&["CLIENT", "LIST"], Purpose::Text(b"id=")),
        4 => of(&["CLIENT", "ID"], Purpose::Number(1)),
        5 => of(&["CLIENT", "INFO"], Purpose::Text(b"addr=10.0.0.1:")),
        6 => of(&["INFO", "clients"], Purpose::Text(b"connected_clients")),
        7 => of(&["CONFIG", "GET", "maxclients"], Purpose::List),
        8 => of(&["CLIENT", "SETNAME", "somebody"], Purpose::Status),
        9 if !plan.has_flushes => of(&["DBSIZE"], Purpose::Number(plan.stay.len() as i64)),
        10 => of(&["HELLO", random.pick(&["2", "3"])], Purpose::List),
        _ => of(&["PING"], Purpose::Text(b"PONG")),
    }
}
