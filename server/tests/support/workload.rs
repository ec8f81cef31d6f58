//! Clients that write all the time, and know what they wrote: for servers that are killed under them.
//!
//! Each writer has a database and a connection of its own, so it can tell every reply beforehand; in one more database
//! all of them write the same keys. Invariants:
//! - Every value is written once.
//! - What a writer does comes from its seed alone. How far it comes before the server goes is left to the machine.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::connection::{Connection, is_end};
use super::model::{self, Keys, Request, Value};
use super::process::Server;
use super::random::Random;
use super::resp::{self, Reply};
use super::shared::Shared;

/// The most requests that a writer sends before it reads replies.
const DEPTH_MAX: usize = 8;

/// Hash tags of a writer, and names under each.
const TAGS: usize = 4;
const NAMES: usize = 5;

/// The database of the keys that all clients share; the writers have the first ones.
const SHARED_DATABASE: usize = 15;

/// Deadlines are this time, and a bit: none comes while a test runs.
const DEADLINE_MS: u64 = 4_000_000_000_000;

/// Between two looks at how far the writers are.
const LOOK_PAUSE: Duration = Duration::from_millis(1);
/// Looks after which they count as hung: about half a minute.
const LOOKS_MAX: usize = 30_000;

/// Writers, and what they know.
pub struct Workload {
    writers: Vec<Writer>,
    shared: Shared,
    random: Random,
}

impl Workload {
    /// So many writers of an empty server.
    pub fn new(seed: u64, writers: usize) -> Self {
        assert!((1..SHARED_DATABASE).contains(&writers), "each writer has a database");
        let mut random = Random::new(seed);
        let writers = (0..writers).map(|database| Writer::new(database, random.bits())).collect();
        Self { writers, shared: Shared::new(), random }
    }

    /// Lets everyone work while `direct` runs, which watches the progress and is done once nobody shall go on: the server
    /// was told to end, or the writers stop by themselves.
    ///
    /// # Panics
    /// When a client gets a wrong reply, or loses its connection before it should.
    pub fn run(&mut self, server: &Server, direct: impl FnOnce(&Progress)) {
        let progress = Progress::default();
        let reader_seed = self.random.bits();
        let Self { writers, shared, .. } = self;
        let shared = &*shared;
        thread::scope(|scope| {
            let progress = &progress;
            // Before anything else can fail, so that nobody is waited for in vain.
            let _ending = EndOnDrop(progress);
            let mut clients = Vec::new();
            for writer in writers {
                let client = server.connect();
                clients.push(scope.spawn(move || progress.watch(|| writer.run(client, shared, progress))));
            }
            let client = server.connect();
            clients.push(scope.spawn(move || progress.watch(|| read(client, shared, progress, reader_seed))));
            direct(progress);
            progress.expect_end();
            let failed = clients.into_iter().any(|client| client.join().is_err());
            assert!(!failed, "a client failed; its message is above");
        });
    }

    /// Checks that all that was acknowledged is there, and nothing that cannot be, and goes on from what is there.
    ///
    /// # Panics
    /// With what differs.
    pub fn verify(&mut self, server: &Server) {
        let mut client = server.connect();
        for writer in &mut self.writers {
            writer.verify(&mut client);
        }
        select(&mut client, SHARED_DATABASE).unwrap_or_else(|error| panic!("SELECT: {error}"));
        self.shared.verify(&mut client);
    }
}

/// How far the clients are, and whether they may lose their connections.
#[derive(Default)]
pub struct Progress {
    acknowledged: AtomicU64,
    failed: AtomicUsize,
    is_ending: AtomicBool,
}

impl Progress {
    /// Writes that were acknowledged since the clients began.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many writes are acknowledged.
    ///
    /// # Panics
    /// When the clients get no further for half a minute, or one of them fails.
    pub fn wait_for(&self, acknowledged: u64) {
        let (mut last, mut looks) = (0, 0);
        while self.acknowledged() < acknowledged {
            assert!(self.failed.load(Ordering::Relaxed) == 0, "a client failed; its message is above");
            looks = if self.acknowledged() == last { looks + 1 } else { 0 };
            last = self.acknowledged();
            assert!(looks < LOOKS_MAX, "after {last} writes the clients get no further");
            thread::park_timeout(LOOK_PAUSE);
        }
    }

    /// From now on a lost connection is what is expected, and who has none lost stops.
    pub fn expect_end(&self) {
        self.is_ending.store(true, Ordering::SeqCst);
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::SeqCst)
    }

    /// Runs a client to its end; the server's end is a good one if it was expected.
    fn watch(&self, client: impl FnOnce() -> io::Result<()>) {
        struct Failed<'a>(&'a AtomicUsize);
        impl Drop for Failed<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let failed = Failed(&self.failed);
        if let Err(error) = client() {
            assert!(self.is_ending() && is_end(&error), "a client lost its connection: {error}");
        }
        std::mem::forget(failed);
    }
}

struct EndOnDrop<'a>(&'a Progress);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.expect_end();
    }
}

/// One writer of its own database.
struct Writer {
    database: usize,
    random: Random,
    /// What is there according to the replies.
    acknowledged: Keys,
    /// Requests without a reply, in the order in which they were sent, with the replies they must get.
    in_doubt: VecDeque<(Request, Reply)>,
    /// How many values were made.
    values: u64,
}

impl Writer {
    fn new(database: usize, seed: u64) -> Self {
        let random = Random::new(seed);
        Self { database, random, acknowledged: Keys::new(), in_doubt: VecDeque::new(), values: 0 }
    }

    fn run(&mut self, mut client: Connection, shared: &Shared, progress: &Progress) -> io::Result<()> {
        let mut selection = Selection::default();
        while !progress.is_ending() {
            if self.random.one_in(6) {
                selection.select(&mut client, true, self.database)?;
                let choice = self.random.below(1 << 16);
                if self.random.one_in(2) {
                    shared.increment(&mut client, choice)?;
                } else {
                    self.values += 1;
                    shared.set_group(&mut client, choice, self.values * 100 + self.database as u64)?;
                }
                progress.acknowledged.fetch_add(1, Ordering::Relaxed);
            } else {
                selection.select(&mut client, false, self.database)?;
                self.exchange(&mut client, progress)?;
            }
        }
        Ok(())
    }

    /// Sends some requests at once and takes their replies.
    fn exchange(&mut self, client: &mut Connection, progress: &Progress) -> io::Result<()> {
        let depth = 1 + self.random.below(DEPTH_MAX);
        let mut planned = self.acknowledged.clone();
        let mut bytes = Vec::new();
        for _ in 0..depth {
            let request = self.next_request();
            resp::encode_request(&request.arguments(), &mut bytes);
            let reply = request.apply(&mut planned);
            self.in_doubt.push_back((request, reply));
        }
        client.send(&bytes)?;
        while let Some((request, expected)) = self.in_doubt.front() {
            let reply = client.receive()?;
            let shown = || resp::show_request(&request.arguments());
            assert!(reply == *expected, "{}: '{reply}' instead of '{expected}'", shown());
            request.apply(&mut self.acknowledged);
            self.in_doubt.pop_front();
            progress.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn next_request(&mut self) -> Request {
        match self.random.below(100) {
            0..=24 => Request::Set(self.key("text"), self.value(), self.deadline_ms()),
            25..=39 => Request::Increment(self.key("count")),
            40..=51 => Request::Append(self.key("text"), self.piece()),
            52..=61 => Request::SetAll(self.pairs()),
            62..=64 => Request::SetAllIfNone(self.pairs()),
            65..=74 => Request::Delete((0..=self.random.below(3)).map(|_| self.any_key()).collect()),
            75..=82 => Request::Rename(self.key("text"), self.key("text")),
            83..=86 => self.copy(),
            87..=89 => Request::Persist(self.any_key()),
            90 if self.random.one_in(4) => Request::Flush,
            _ => Request::Get(self.any_key()),
        }
    }

    fn key(&mut self, kind: &str) -> String {
        let (tag, name) = (self.random.below(TAGS), self.random.below(NAMES));
        format!("{{{}:{tag}}}{kind}{name}", self.database)
    }

    fn any_key(&mut self) -> String {
        let kind = self.random.pick(&["text", "count"]);
        self.key(kind)
    }

    /// Keys under one or several tags, each once.
    fn pairs(&mut self) -> Vec<(String, Vec<u8>)> {
        let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
        for _ in 0..2 + self.random.below(3) {
            let key = self.key("text");
            if pairs.iter().all(|(other, _)| *other != key) {
                let value = self.piece();
                pairs.push((key, value));
            }
        }
        pairs
    }

    /// A copy to another key: to itself it is an error.
    fn copy(&mut self) -> Request {
        let (from, to) = (self.key("text"), self.key("text"));
        if from == to { Request::Get(from) } else { Request::Copy(from, to) }
    }

    fn deadline_ms(&mut self) -> Option<u64> {
        self.random.one_in(3).then(|| DEADLINE_MS + self.values)
    }

    /// A few bytes that nobody else writes.
    fn piece(&mut self) -> Vec<u8> {
        self.values += 1;
        format!("<{}:{}>", self.database, self.values).into_bytes()
    }

    /// A value that nobody else writes: mostly short, sometimes long enough for each of the ways that long ones take.
    fn value(&mut self) -> Vec<u8> {
        let mut value = self.piece();
        let rest = match self.random.below(100) {
            0 => 300 << 10,
            1 => 70 << 10,
            2..=5 => 5 << 10,
            _ => 0,
        };
        let rest = if rest == 0 { self.random.below(100) } else { rest + self.random.below(1 << 10) };
        if self.random.one_in(2) {
            value.extend(self.random.bytes(rest));
        } else {
            value.resize(value.len() + rest, b'.');
        }
        value
    }

    fn verify(&mut self, client: &mut Connection) {
        select(client, self.database).unwrap_or_else(|error| panic!("SELECT: {error}"));
        let found = read_all(client);
        let in_doubt: Vec<Request> = self.in_doubt.drain(..).map(|(request, _)| request).collect();
        if let Err(sentence) = model::explain(&self.acknowledged, &in_doubt, &found) {
            panic!("database {}: {sentence}", self.database);
        }
        self.acknowledged = found;
    }
}

/// Which database a writer's connection has selected: the shared one, its own, or none yet.
#[derive(Default)]
struct Selection {
    is_shared: Option<bool>,
}

impl Selection {
    fn select(&mut self, client: &mut Connection, is_shared: bool, own: usize) -> io::Result<()> {
        if self.is_shared != Some(is_shared) {
            select(client, if is_shared { SHARED_DATABASE } else { own })?;
            self.is_shared = Some(is_shared);
        }
        Ok(())
    }
}

fn select(client: &mut Connection, database: usize) -> io::Result<()> {
    let reply = client.try_call(&["SELECT", &database.to_string()])?;
    assert!(reply.is_status("OK"), "SELECT: {reply}");
    Ok(())
}

/// Reads what all clients share.
fn read(mut client: Connection, shared: &Shared, progress: &Progress, seed: u64) -> io::Result<()> {
    let mut random = Random::new(seed);
    select(&mut client, SHARED_DATABASE)?;
    while !progress.is_ending() {
        shared.read_group(&mut client, random.below(1 << 16))?;
    }
    Ok(())
}

/// Everything in the selected database.
///
/// # Panics
/// When the replies contradict one another.
pub fn read_all(client: &mut Connection) -> Keys {
    let reply = client.words("KEYS *");
    let names: Vec<String> = match reply.items() {
        Some(items) => {
            let text = |item: &Reply| String::from_utf8(item.bytes().unwrap_or_default().to_vec());
            items.iter().map(|item| text(item).expect("the keys of tests are text")).collect()
        }
        None => panic!("KEYS: {reply}"),
    };
    let count = client.words("DBSIZE").integer();
    assert_eq!(count, Some(names.len() as i64), "DBSIZE and KEYS differ");
    names.into_iter().map(|name| value_of(client, name)).collect()
}

fn value_of(client: &mut Connection, name: String) -> (String, Value) {
    let reply = client.call(&["GET", &name]);
    let bytes = reply.bytes().unwrap_or_else(|| panic!("KEYS shows {name}, and GET: {reply}")).to_vec();
    let reply = client.call(&["PEXPIRETIME", &name]);
    let deadline_ms = reply.integer().unwrap_or_else(|| panic!("PEXPIRETIME {name}: {reply}"));
    (name, Value { bytes: Arc::new(bytes), deadline_ms: u64::try_from(deadline_ms).ok() })
}
