//! Redis and Duva get the same random commands and must give the same replies.
//!
//! Each seed is a history of pipelines over three connections, some through a Unix socket and some over
//! TCP, so that requests arrive at every core. A failure prints its seed; `DUVA_DIFFERENTIAL_SEED=N` replays
//! that one alone, with the same commands.

mod support;

#[path = "differential/generator.rs"]
mod generator;

use std::time::{SystemTime, UNIX_EPOCH};

use generator::{DATABASES, Generated, Generator};
use support::connection::Connection;
use support::process::{Server, ServerOptions};
use support::resp::{self, Reply};
use support::transcript::{Check, scan};

const SEEDS: std::ops::Range<u64> = 1..13;
const PIPELINES: usize = 300;
const CONNECTIONS: usize = 3;
/// How many earlier commands on the same keys a failure shows.
const HISTORY_SHOWN: usize = 60;

#[test]
fn random_commands_on_one_core() {
    run_all(1);
}

#[test]
fn random_commands_on_two_cores() {
    run_all(2);
}

fn run_all(cores: usize) {
    let redis = ServerOptions::redis().tcp().start();
    let duva = ServerOptions::duva(cores).tcp().start();
    let only: Option<u64> = std::env::var("DUVA_DIFFERENTIAL_SEED")
        .ok()
        .map(|seed| seed.parse().expect("DUVA_DIFFERENTIAL_SEED is a number"));
    for seed in SEEDS
        .filter(|seed| only.is_none_or(|only| only == *seed))
        .chain(only.filter(|only| !SEEDS.contains(only)))
    {
        if let Err(sentence) = History::new(seed, &redis, &duva).run() {
            panic!("seed {seed}, {cores} cores: {sentence}");
        }
    }
}

/// One seed's run.
struct History {
    generator: Generator,
    redis: Vec<Connection>,
    duva: Vec<Connection>,
    /// The database that each connection has selected.
    databases: [Vec<u8>; CONNECTIONS],
    past: Vec<Past>,
}

/// A command that both servers answered alike.
struct Past {
    connection: usize,
    database: Vec<u8>,
    words: Vec<Vec<u8>>,
    reply: Reply,
}

impl History {
    fn new(seed: u64, redis: &Server, duva: &Server) -> Self {
        let open = |server: &Server| -> Vec<Connection> {
            let mut connections: Vec<_> = (0..CONNECTIONS)
                .map(|index| if index % 2 == 0 { server.connect() } else { server.connect_tcp() })
                .collect();
            assert!(connections[0].words("FLUSHALL").is_status("OK"));
            connections
        };
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs();
        let generator = Generator::new(seed, usize::try_from(now_s).expect("64 bits"));
        Self {
            generator,
            redis: open(redis),
            duva: open(duva),
            databases: std::array::from_fn(|_| b"0".to_vec()),
            past: Vec::new(),
        }
    }

    fn run(mut self) -> Result<(), String> {
        for _ in 0..PIPELINES {
            let connection = self.generator.connection(CONNECTIONS);
            let length = self.generator.pipeline_length();
            let mut commands = Vec::new();
            while commands.len() < length {
                self.generator.push(&mut commands);
            }
            self.pipeline(connection, commands)?;
        }
        self.compare_state()
    }

    fn pipeline(&mut self, connection: usize, commands: Vec<Generated>) -> Result<(), String> {
        let mut bytes = Vec::new();
        for (words, _) in &commands {
            resp::encode_request(words, &mut bytes);
        }
        let exchange = |connection: &mut Connection| connection.exchange(&bytes, commands.len());
        let redis = exchange(&mut self.redis[connection]).map_err(|error| format!("redis: {error}"))?;
        let duva = exchange(&mut self.duva[connection]).map_err(|error| {
            format!("duva: {error}, in a pipeline that begins {}", resp::show_request(&commands[0].0))
        })?;
        for ((words, check), (redis, duva)) in commands.into_iter().zip(redis.into_iter().zip(duva)) {
            if !check.accepts(redis.clone(), duva.clone()) {
                return Err(format!(
                    "{}\n{connection}> {}\n  redis: {redis}\n  duva:  {duva}",
                    self.history_of(connection, &words),
                    resp::show_request(&words)
                ));
            }
            if words[0] == b"SELECT" && redis.is_status("OK") {
                self.databases[connection].clone_from(&words[1]);
            }
            let database = self.databases[connection].clone();
            self.past.push(Past { connection, database, words, reply: redis });
        }
        Ok(())
    }

    /// Earlier commands that may have led to this one's reply: on the same keys, or on whole databases.
    fn history_of(&self, connection: usize, words: &[Vec<u8>]) -> String {
        let whole = [b"SWAPDB".as_slice(), b"FLUSHDB", b"MOVE", b"COPY"];
        let related = |past: &&Past| {
            let same_database = past.database == self.databases[connection];
            let shares = past.words[1..].iter().any(|word| !word.is_empty() && words[1..].contains(word));
            (same_database && (shares || words.len() == 1)) || whole.contains(&&past.words[0][..])
        };
        let mut shown: Vec<String> = self
            .past
            .iter()
            .rev()
            .filter(related)
            .take(HISTORY_SHOWN)
            .map(|past| {
                let database = past.database.escape_ascii();
                format!(
                    "{}@{database}> {}    {}",
                    past.connection,
                    resp::show_request(&past.words),
                    past.reply
                )
            })
            .collect();
        shown.reverse();
        shown.join("\n")
    }

    /// Every key of every database, its value, expiry and form.
    fn compare_state(&mut self) -> Result<(), String> {
        for database in 0..DATABASES {
            let select = (vec![b"SELECT".to_vec(), database.to_string().into_bytes()], Check::Equal);
            self.pipeline(0, vec![select])?;
            let arguments = [b"SCAN".to_vec(), b"0".to_vec(), b"COUNT".to_vec(), b"7".to_vec()];
            let keys = scan(&mut self.redis[0], &arguments)?;
            let duva = scan(&mut self.duva[0], &arguments)?;
            if keys != duva {
                let show = resp::show_request;
                return Err(format!(
                    "database {database}\n  redis: {}\n  duva:  {}",
                    show(&keys),
                    show(&duva)
                ));
            }
            let mut commands: Vec<Generated> = vec![(vec![b"DBSIZE".to_vec()], Check::Equal)];
            for key in keys {
                let command = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
                commands.push((command(&[b"GET", &key]), Check::Equal));
                commands.push((command(&[b"PEXPIRETIME", &key]), Check::Near(60_000)));
                commands.push((command(&[b"OBJECT", b"ENCODING", &key]), Check::Equal));
            }
            self.pipeline(0, commands)?;
        }
        Ok(())
    }
}
