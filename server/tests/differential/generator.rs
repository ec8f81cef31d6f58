//! Random commands over few keys, so that they meet.
//!
//! Invariants:
//! - The same seed makes the same commands.
//! - Two servers that receive them at slightly different times must answer alike: every expiry lies either
//!   in the past or at least a day ahead, and any two expiries are at least `EXPIRY_GAP_S` apart, so a
//!   comparison between them (GT, LT) never depends on the moment.

use std::collections::HashSet;

use crate::support::random::Random;
use crate::support::transcript::Check;

/// Seconds between any two expiries.
const EXPIRY_GAP_S: usize = 200;
/// How many different expiries one generator can hand out.
const EXPIRIES: usize = 100_000;
/// Databases in use.
pub(crate) const DATABASES: usize = 4;
/// Keys that grow long; LCS, whose work is a product of lengths, leaves them alone.
const LONG_KEYS: [&[u8]; 2] = [b"long:1", b"long:2"];
const KEYS: [&[u8]; 22] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"key:1",
    b"key:2",
    b"key:3",
    b"{tag}1",
    b"{tag}2",
    b"{tag}3",
    b"{other}1",
    b"",
    b"\x00\xff",
    b"number:1",
    b"number:2",
    b"number:3",
    b"float:1",
    b"with space",
    b"foo",
    b"bar",
    LONG_KEYS[0],
    LONG_KEYS[1],
];
const FAR_S: usize = 100_000;

/// A command, and how its replies compare.
pub(crate) type Generated = (Vec<Vec<u8>>, Check);

/// Makes commands.
pub(crate) struct Generator {
    random: Random,
    /// The Unix time from which absolute expiries count, the same for both servers.
    now_s: usize,
    expiries_used: HashSet<usize>,
}

impl Generator {
    /// The commands of `seed`; `now_s` is the present Unix time.
    pub(crate) fn new(seed: u64, now_s: usize) -> Self {
        Self { random: Random::new(seed), now_s, expiries_used: HashSet::new() }
    }

    /// How many commands the next pipeline shall have.
    pub(crate) fn pipeline_length(&mut self) -> usize {
        match self.random.below(4) {
            0 => 1,
            1 => 1 + self.random.below(8),
            _ => 1 + self.random.below(120),
        }
    }

    /// Which of `count` connections shall send it.
    pub(crate) fn connection(&mut self, count: usize) -> usize {
        self.random.below(count)
    }

    /// Appends the next command, or two that belong together.
    pub(crate) fn push(&mut self, out: &mut Vec<Generated>) {
        let key = self.key();
        let mut say = |words: Vec<Vec<u8>>, check: Check| out.push((words, check));
        match self.random.below(100) {
            0..8 => say(words(&[b"GET", &key]), Check::Equal),
            8..22 => {
                let (command, past) = self.set(&key);
                say(command, Check::Equal);
                if past {
                    // How long such a key counts for DBSIZE is each server's choice; after DEL it counts for neither.
                    say(words(&[b"GET", &key]), Check::Equal);
                    say(words(&[b"DEL", &key]), Check::Equal);
                }
            }
            22..24 => say(words(&[b"SETNX", &key, &self.value()]), Check::Equal),
            24..26 => {
                let time = self.time();
                let (name, time): (&[u8], _) =
                    if self.random.one_in(2) { (b"SETEX", time) } else { (b"PSETEX", thousandfold(&time)) };
                say(words(&[name, &key, &time, &self.value()]), Check::Equal);
            }
            26..29 => say(self.getex(&key), Check::Equal),
            29..31 => say(words(&[b"GETDEL", &key]), Check::Equal),
            31..33 => say(words(&[b"GETSET", &key, &self.value()]), Check::Equal),
            33..36 => {
                let name: &[u8] = self.random.pick(&[b"GETRANGE".as_slice(), b"SUBSTR"]);
                let (from, to) = (self.index(), self.index());
                say(words(&[name, &key, &from, &to]), Check::Equal);
            }
            36..38 => {
                let long = LONG_KEYS.contains(&&key[..]) && self.random.one_in(3);
                let offset = self.random.below(if long { 70_000 } else { 40 });
                let offset = if self.random.one_in(12) { b"-1".to_vec() } else { text(offset) };
                say(words(&[b"SETRANGE", &key, &offset, &self.value()]), Check::Equal);
            }
            38..42 => say(words(&[b"APPEND", &key, &self.value()]), Check::Equal),
            42..44 => say(words(&[b"STRLEN", &key]), Check::Equal),
            44..51 => say(self.arithmetic(), Check::Equal),
            51..56 => say(self.with_keys(b"MGET"), Check::Equal),
            56..60 => say(self.with_pairs(b"MSET"), Check::Equal),
            60..63 => say(self.with_pairs(b"MSETNX"), Check::Equal),
            63..65 => say(self.lcs(), Check::Equal),
            65..68 => {
                let name: &[u8] = self.random.pick(&[b"DEL".as_slice(), b"UNLINK", b"DEL", b"GETDEL"]);
                if name == b"GETDEL" {
                    say(words(&[name, &key]), Check::Equal)
                } else {
                    say(self.with_keys(name), Check::Equal)
                }
            }
            68..70 => {
                let name: &[u8] = self.random.pick(&[b"EXISTS".as_slice(), b"TOUCH"]);
                say(self.with_keys(name), Check::Equal);
            }
            70 => say(words(&[b"TYPE", &key]), Check::Equal),
            71..74 => {
                let name: &[u8] = self.random.pick(&[b"RENAME".as_slice(), b"RENAMENX"]);
                say(words(&[name, &key, &self.key()]), Check::Equal);
            }
            74..77 => say(self.copy(&key), Check::Equal),
            77 => say(words(&[b"MOVE", &key, &self.database()]), Check::Equal),
            78..84 => say(self.expire(&key), Check::Equal),
            84..88 => {
                let (name, distance): (&[u8], i64) = self.random.pick(&[
                    (b"TTL".as_slice(), 60),
                    (b"PTTL", 60_000),
                    (b"EXPIRETIME", 60),
                    (b"PEXPIRETIME", 60_000),
                ]);
                say(words(&[name, &key]), Check::Near(distance));
            }
            88..90 => say(words(&[b"PERSIST", &key]), Check::Equal),
            90..92 => say(words(&[b"OBJECT", b"ENCODING", &key]), Check::Equal),
            92..95 => say(words(&[b"SELECT", &self.database()]), Check::Equal),
            95 => {
                let pattern: &[u8] =
                    self.random.pick(&[b"*".as_slice(), b"{tag}*", b"?", b"[a-c]*", b"*:[^2]", b"\x00*"]);
                say(words(&[b"KEYS", pattern]), Check::Sorted);
            }
            96 => say(words(&[b"DBSIZE"]), Check::Equal),
            97 => {
                let name: &[u8] =
                    self.random.pick(&[b"RANDOMKEY".as_slice(), b"PING", b"FLUSHDB", b"SWAPDB"]);
                match name {
                    b"SWAPDB" => say(words(&[name, &self.database(), &self.database()]), Check::Equal),
                    b"FLUSHDB" if self.random.one_in(8) => say(words(&[name]), Check::Equal),
                    b"FLUSHDB" => say(words(&[b"ECHO", &key]), Check::Equal),
                    b"RANDOMKEY" => say(words(&[name]), Check::Type),
                    _ => say(words(&[name]), Check::Equal),
                }
            }
            _ => say(self.wrong(&key), Check::Equal),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        self.random.pick(&KEYS).to_vec()
    }

    fn database(&mut self) -> Vec<u8> {
        if self.random.one_in(40) { b"16".to_vec() } else { text(self.random.below(DATABASES)) }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.random.below(12) {
            0 => Vec::new(),
            1..4 => text(self.random.below(2000)),
            4 => format!("-{}", self.random.below(100)).into_bytes(),
            5 => self
                .random
                .pick(&[b"9223372036854775807".as_slice(), b"-9223372036854775808", b"007", b"1.5", b" 1"])
                .to_vec(),
            6..9 => {
                let length = self.random.below(20);
                self.random.bytes(length)
            }
            9 => {
                let length = self.random.pick(&[43, 44, 45, 63, 64, 65, 255, 256, 300]);
                vec![b'a' + self.random.below(26) as u8; length]
            }
            _ => b"abcabdabcaab"[..self.random.below(13)].to_vec(),
        }
    }

    fn index(&mut self) -> Vec<u8> {
        let size = self.random.pick(&[3, 20, 20, 400]);
        let number = self.random.below(size) as i64;
        if self.random.one_in(3) { text(-number) } else { text(number) }
    }

    /// A number of seconds from now that no other expiry is near; sometimes no number at all.
    fn time(&mut self) -> Vec<u8> {
        match self.random.below(20) {
            0 => self.random.pick(&[b"0".as_slice(), b"abc", b"", b"1.5"]).to_vec(),
            _ => text(self.far_s()),
        }
    }

    fn far_s(&mut self) -> usize {
        loop {
            let number = self.random.below(EXPIRIES);
            if self.expiries_used.insert(number) {
                return FAR_S + number * EXPIRY_GAP_S;
            }
        }
    }

    /// EX, PX, EXAT or PXAT with its time; whether that is past.
    fn expiry_option(&mut self) -> (Vec<Vec<u8>>, bool) {
        let far_s = self.far_s();
        match self.random.below(9) {
            0 | 1 => (words(&[b"EX", &text(far_s)]), false),
            2 | 3 => (words(&[b"px", &text(far_s * 1000)]), false),
            4 => (words(&[b"EXAT", &text(self.now_s + far_s)]), false),
            5 => (words(&[b"PXAT", &text((self.now_s + far_s) * 1000 + 7)]), false),
            6 => (words(&[b"PXAT", b"1"]), true),
            7 => (words(&[b"EXAT", b"1"]), true),
            _ => (words(&[b"EX", &self.time()]), false),
        }
    }

    fn set(&mut self, key: &[u8]) -> (Vec<Vec<u8>>, bool) {
        let mut command = words(&[b"SET", key, &self.value()]);
        let mut past = false;
        if !self.random.one_in(2) {
            if self.random.one_in(2) {
                let (option, is_past) = self.expiry_option();
                command.extend(option);
                past = is_past;
            }
            for option in [b"NX".as_slice(), b"xx", b"GET", b"KEEPTTL", b"BOGUS"] {
                let rarity = if option == b"BOGUS" { 40 } else { 5 };
                if self.random.one_in(rarity) {
                    command.push(option.to_vec());
                }
            }
        }
        (command, past)
    }

    fn getex(&mut self, key: &[u8]) -> Vec<Vec<u8>> {
        let mut command = words(&[b"GETEX", key]);
        match self.random.below(4) {
            0 => command.push(b"PERSIST".to_vec()),
            1 => {}
            _ => command.extend(self.expiry_option().0),
        }
        command
    }

    fn arithmetic(&mut self) -> Vec<Vec<u8>> {
        let key = if self.random.one_in(4) {
            self.key()
        } else {
            format!("number:{}", 1 + self.random.below(3)).into_bytes()
        };
        match self.random.below(6) {
            0 => words(&[b"INCR", &key]),
            1 => words(&[b"DECR", &key]),
            2 => words(&[b"INCRBY", &key, &self.value()]),
            3 => words(&[b"DECRBY", &key, &self.value()]),
            _ => {
                let step =
                    self.random.pick(&[b"0.5".as_slice(), b"0.25", b"-1.75", b"3", b"1e3", b"-2.5e1", b"x"]);
                let key = if self.random.one_in(3) { key } else { b"float:1".to_vec() };
                words(&[b"INCRBYFLOAT", &key, step])
            }
        }
    }

    fn with_keys(&mut self, name: &[u8]) -> Vec<Vec<u8>> {
        let mut command = words(&[name]);
        let limit = self.random.pick(&[1, 3, 12]);
        for _ in 0..1 + self.random.below(limit) {
            command.push(self.key());
        }
        command
    }

    fn with_pairs(&mut self, name: &[u8]) -> Vec<Vec<u8>> {
        let mut command = words(&[name]);
        // MSETNX succeeds only where nothing exists: keys of its own, now and then.
        let fresh = name == b"MSETNX" && self.random.one_in(2);
        let limit = self.random.pick(&[1, 3, 8]);
        for _ in 0..1 + self.random.below(limit) {
            command.push(if fresh {
                format!("fresh:{}", self.random.below(40)).into_bytes()
            } else {
                self.key()
            });
            command.push(self.value());
        }
        if self.random.one_in(40) {
            command.pop();
        }
        command
    }

    fn lcs(&mut self) -> Vec<Vec<u8>> {
        let mut short_key = || loop {
            let key = self.key();
            if !LONG_KEYS.contains(&&key[..]) {
                return key;
            }
        };
        let mut command = words(&[b"LCS", &short_key(), &short_key()]);
        match self.random.below(5) {
            0 => command.push(b"LEN".to_vec()),
            1 => command.push(b"IDX".to_vec()),
            2 => {
                command.extend(words(&[b"IDX", b"MINMATCHLEN", &text(self.random.below(4)), b"WITHMATCHLEN"]))
            }
            3 => command.extend(words(&[b"IDX", b"LEN"])),
            _ => {}
        }
        command
    }

    fn copy(&mut self, key: &[u8]) -> Vec<Vec<u8>> {
        let mut command = words(&[b"COPY", key, &self.key()]);
        if self.random.one_in(3) {
            command.extend(words(&[b"DB", &self.database()]));
        }
        if self.random.one_in(2) {
            command.push(b"REPLACE".to_vec());
        }
        command
    }

    fn expire(&mut self, key: &[u8]) -> Vec<Vec<u8>> {
        let far_s = self.far_s();
        let past = self.random.one_in(8);
        let mut command = match (self.random.below(4), past) {
            (0, false) => words(&[b"EXPIRE", key, &text(far_s)]),
            (1, false) => words(&[b"PEXPIRE", key, &text(far_s * 1000)]),
            (2, false) => words(&[b"EXPIREAT", key, &text(self.now_s + far_s)]),
            (_, false) => words(&[b"PEXPIREAT", key, &text((self.now_s + far_s) * 1000 + 3)]),
            (0, true) => words(&[b"EXPIRE", key, b"-1"]),
            (1, true) => words(&[b"PEXPIRE", key, b"0"]),
            (2, true) => words(&[b"EXPIREAT", key, b"1"]),
            (_, true) => words(&[b"PEXPIREAT", key, b"1"]),
        };
        for option in [b"NX".as_slice(), b"XX", b"gt", b"LT"] {
            if self.random.one_in(5) {
                command.push(option.to_vec());
            }
        }
        command
    }

    /// Something the server must refuse.
    fn wrong(&mut self, key: &[u8]) -> Vec<Vec<u8>> {
        let any: &[u8] = self.random.pick(&[
            b"GET".as_slice(),
            b"SET",
            b"MSET",
            b"INCR",
            b"EXPIRE",
            b"RENAME",
            b"COPY",
            b"LCS",
            b"OBJECT",
            b"BOGUS",
            b"GETEX",
        ]);
        match self.random.below(4) {
            0 => words(&[any]),
            1 => words(&[any, key]),
            2 => words(&[any, key, b"x", b"y", b"z", b"w"]),
            _ => words(&[b"SETRANGE", key, b"536870911", b"xx"]),
        }
    }
}

fn words(words: &[&[u8]]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.to_vec()).collect()
}

fn text(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// Seconds as milliseconds, where it is a number.
fn thousandfold(seconds: &[u8]) -> Vec<u8> {
    let mut out = seconds.to_vec();
    if !out.is_empty() && out.iter().all(u8::is_ascii_digit) {
        out.extend_from_slice(b"000");
    }
    out
}
