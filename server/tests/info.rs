//! INFO tells what Redis tells: the sections, the fields of the persistence section, what was counted of commands, errors and
//! keys.

mod support;

use std::collections::BTreeMap;

use support::connection::Connection;
use support::process::{Server, ServerOptions, TemporaryDirectory};

/// INFO with these words.
fn info(client: &mut Connection, sections: &str) -> String {
    let reply = client.words(&format!("INFO {sections}"));
    String::from_utf8(reply.bytes().expect("INFO answers with a text").to_vec()).expect("UTF-8")
}

/// The value of a field.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let value = text.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("{name} in\n{text}"))
}

/// The names in the section, in order.
fn fields(server: &Server) -> Vec<String> {
    let reply = server.connect().words("INFO persistence");
    let text = String::from_utf8(reply.bytes().expect("INFO answers with a text").to_vec()).expect("UTF-8");
    let mut lines = text.split("\r\n");
    assert_eq!(lines.next(), Some("# Persistence"));
    let names = lines.filter(|line| !line.is_empty());
    names.map(|line| line.split_once(':').expect("a name and a value").0.to_owned()).collect()
}

#[test]
fn without_a_journal_the_fields_are_those_of_redis() {
    let redis = fields(&ServerOptions::redis().start());
    assert_eq!(fields(&ServerOptions::duva(2).start()), redis);
}

#[test]
fn with_a_journal_its_fields_follow_those_of_redis() {
    let redis = ServerOptions::redis().option("appendonly", &["yes"]).start();
    let duva = ServerOptions::duva(2).option("appendonly", &["yes"]).start();
    let (redis, duva) = (fields(&redis), fields(&duva));
    assert!(redis.contains(&"aof_current_size".to_owned()), "Redis shows what it does with a journal");
    let (shared, own) = duva.split_at(redis.len());
    assert_eq!(shared, redis);
    assert!(!own.is_empty() && own.iter().all(|name| name.starts_with("journal_")), "{own:?}");
}

#[test]
fn a_new_server_counts_as_saved_when_it_started() {
    for server in [ServerOptions::redis().start(), ServerOptions::duva(2).start()] {
        let mut client = server.connect();
        let text = client.words("INFO everything");
        let text =
            String::from_utf8(text.bytes().expect("INFO answers with a text").to_vec()).expect("UTF-8");
        let value = |name: &str| -> u64 {
            let line = text.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} in\n{text}"))
        };
        let started = value("server_time_usec") / 1_000_000 - value("uptime_in_seconds");
        // Both numbers are cut to whole seconds.
        assert!(value("rdb_last_save_time").abs_diff(started) <= 1, "{text}");
    }
}

#[test]
fn the_sections_are_those_of_redis() {
    let (redis, duva) = (ServerOptions::redis().start(), ServerOptions::duva(2).start());
    let (mut redis, mut duva) = (redis.connect(), duva.connect());
    let titles = |text: String| -> Vec<String> {
        text.split("\r\n").filter(|line| line.starts_with('#')).map(str::to_owned).collect()
    };
    for words in [
        "",
        "default",
        "all",
        "everything",
        "modules",
        "commandstats",
        "ErrorStats latencystats",
        "default commandstats",
        "nothing",
        "keyspace nothing SERVER server",
    ] {
        assert_eq!(titles(info(&mut duva, words)), titles(info(&mut redis, words)), "INFO {words}");
    }
}

/// Calls, rejected calls and failed calls of every command that has any.
fn command_counts(client: &mut Connection) -> BTreeMap<String, [u64; 3]> {
    let text = info(client, "commandstats");
    let mut lines = text.split("\r\n");
    assert_eq!(lines.next(), Some("# Commandstats"));
    let counts = lines.filter(|line| !line.is_empty()).map(|line| {
        let (name, values) = line.split_once(':').expect("a name and values");
        let values: Vec<(&str, &str)> =
            values.split(',').map(|value| value.split_once('=').expect("a name and a value")).collect();
        let [calls, usec, usec_per_call, rejected, failed] = values[..] else { panic!("{line}") };
        let names = [calls, usec, usec_per_call, rejected, failed].map(|(name, _)| name);
        assert_eq!(names, ["calls", "usec", "usec_per_call", "rejected_calls", "failed_calls"]);
        let number = |(_, value): (&str, &str)| value.parse().expect("a count");
        let _: u64 = number(usec);
        assert!(usec_per_call.1.parse::<f64>().is_ok(), "{line}");
        (name.to_owned(), [number(calls), number(rejected), number(failed)])
    });
    counts.collect()
}

/// What each of these servers counts after CONFIG RESETSTAT and these commands.
fn compare_counts(redis: &Server, duva: &Server, commands: &[&str]) {
    let seen = [redis, duva].map(|server| {
        let mut client = server.connect();
        client.words("FLUSHALL");
        client.words("CONFIG RESETSTAT");
        for command in commands {
            client.words(command);
        }
        let stats = info(&mut client, "stats");
        let names = ["total_commands_processed", "total_error_replies", "keyspace_hits", "keyspace_misses"];
        let fields = names.map(|name| format!("{name}:{}", field(&stats, name)));
        (command_counts(&mut client), info(&mut client, "errorstats"), fields)
    });
    let [redis, duva] = seen;
    assert_eq!(duva, redis);
}

const COUNTED: &[&str] = &[
    "SET a 1",
    "GET a",
    "get missing",
    "MGET a b missing {tag}a",
    "EXISTS a missing",
    "GET",
    "GET a b",
    "INCR a",
    "SET b text",
    "INCR b",
    "INCRBY b 1",
    "SET a 1 BOGUS",
    "MSET a 1 b",
    "MSET a 1 b 2 c 3",
    "MSETNX a 1 d 2",
    "RENAME missing other",
    "RENAME c e",
    "COPY a {a}f",
    "COPY a a",
    "OBJECT ENCODING a",
    "OBJECT BOGUS a",
    "OBJECT",
    "RESTORE a 0 x",
    "RESTORE g 0 x",
    "EXPIRE a x",
    "KEYS *",
    "SCAN 0",
    "SCAN x",
    "DBSIZE",
    "FLUSHALL bogus",
    "SWAPDB 0 99",
    "FLUSHDB",
    "LCS a b LEN",
    "LCS a b LEN IDX",
    "BOGUS",
    "BOGUS x y",
    "PING",
    "ping x",
    "PING x y",
    "SELECT 99",
    "AUTH x",
    "AUTH nobody x",
    "HELLO 9",
    "CONFIG",
    "CONFIG BOGUS x",
    "CONFIG GET timeout",
    "CONFIG SET bogus 1",
    "CLIENT KILL 1.2.3.4:5",
    "CLIENT ID",
    "COMMAND COUNT",
    "COMMAND GETKEYS PING x",
    "WAIT 0 0",
    "WAIT x 0",
    "INFO server",
    "LASTSAVE x",
];

#[test]
fn commands_and_errors_are_counted_as_in_redis() {
    let redis = ServerOptions::redis().start();
    for cores in [1, 2] {
        compare_counts(&redis, &ServerOptions::duva(cores).start(), COUNTED);
    }
}

#[test]
fn with_a_journal_the_counts_are_the_same() {
    let redis = ServerOptions::redis().start();
    for fsync in ["always", "no"] {
        let directory = TemporaryDirectory::new();
        let duva = ServerOptions::duva(2).journal(directory.path()).option("appendfsync", &[fsync]).start();
        compare_counts(&redis, &duva, COUNTED);
    }
}

#[test]
fn reads_are_counted_as_in_redis() {
    let redis = ServerOptions::redis().start();
    let duva = ServerOptions::duva(1).start();
    let (mut redis, mut duva) = (redis.connect(), duva.connect());
    let counts = |client: &mut Connection, command: &str| {
        for line in ["FLUSHALL", "MSET k 123 l 456", "CONFIG RESETSTAT", command] {
            client.words(line);
        }
        let stats = info(client, "stats");
        ["keyspace_hits", "keyspace_misses"].map(|name| field(&stats, name).to_owned())
    };
    for name in ["k", "m"] {
        for command in [
            "GET $",
            "SET $ 1",
            "SET $ 1 NX",
            "SET $ 1 XX",
            "SET $ 1 GET",
            "SET $ 1 XX GET",
            "SETNX $ 1",
            "SETEX $ 9 1",
            "GETEX $",
            "GETEX $ EX 9",
            "GETDEL $",
            "GETSET $ 1",
            "GETRANGE $ 0 1",
            "SETRANGE $ 0 1",
            "SETRANGE $ 0 \"\"",
            "APPEND $ 1",
            "STRLEN $",
            "INCR $",
            "DECRBY $ 1",
            "INCRBYFLOAT $ 1",
            "MGET $ l",
            "MSET $ 1 l 2",
            "MSETNX $ 1 l 2",
            "LCS $ l",
            "LCS $ l LEN IDX",
            "DEL $",
            "EXISTS $ l",
            "TOUCH $ l",
            "TYPE $",
            "RENAME $ l",
            "RENAMENX $ n",
            "COPY $ l",
            "COPY $ n",
            "COPY $ $",
            "MOVE $ 1",
            "EXPIRE $ 9",
            "EXPIRE $ -1",
            "EXPIRE $ x",
            "PERSIST $",
            "TTL $",
            "PTTL $",
            "EXPIRETIME $",
            "PEXPIRETIME $",
            "KEYS *",
            "SCAN 0",
            "DBSIZE",
            "DUMP $",
            "RESTORE $ 0 x",
            "OBJECT ENCODING $",
            "OBJECT IDLETIME $",
            "OBJECT REFCOUNT $",
            "MEMORY USAGE $",
        ] {
            let command = command.replace('$', name);
            assert_eq!(counts(&mut duva, &command), counts(&mut redis, &command), "{command}");
        }
    }
    // CLIENT NO-TOUCH is about access times alone.
    duva.words("CLIENT NO-TOUCH on");
    assert_eq!(counts(&mut duva, "GET k"), ["1", "0"]);
}

#[test]
fn requests_before_auth_are_rejected_as_in_redis() {
    let seen = [ServerOptions::redis(), ServerOptions::duva(2)].map(|options| {
        let server = options.option("requirepass", &["secret"]).start();
        let mut stranger = server.connect();
        for command in ["GET a", "GET", "PING", "BOGUS", "HELLO 3", "AUTH wrong"] {
            assert!(stranger.words(command).is_error());
        }
        let mut client = server.connect();
        assert!(client.words("AUTH secret").is_status("OK"));
        (command_counts(&mut client), info(&mut client, "errorstats"))
    });
    let [redis, duva] = seen;
    assert_eq!(duva, redis);
}

#[test]
fn many_executions_are_counted_exactly_and_timed_about() {
    const PINGS: usize = 5_000;
    let duva = ServerOptions::duva(2).start();
    let mut client = duva.connect();
    client.words("CONFIG RESETSTAT");
    let mut bytes = Vec::new();
    for number in 0..PINGS {
        support::resp::encode_request(&["SET", &format!("key:{number}"), "value"], &mut bytes);
        support::resp::encode_request(&["PING"], &mut bytes);
    }
    client.exchange(&bytes, 2 * PINGS).expect("as many replies");
    let counts = command_counts(&mut client);
    let count = PINGS as u64;
    assert_eq!((counts["cmdstat_set"], counts["cmdstat_ping"]), ([count, 0, 0], [count, 0, 0]));
    let text = info(&mut client, "commandstats");
    for name in ["cmdstat_set", "cmdstat_ping"] {
        let usec = field(&text, name).split(',').find_map(|value| value.strip_prefix("usec="));
        assert!(usec.is_some_and(|usec| usec != "0"), "{text}");
    }
}

#[test]
fn average_times_to_live_are_told() {
    let duva = ServerOptions::duva(2).start();
    let mut client = duva.connect();
    let average = |client: &mut Connection, database: &str| -> u64 {
        let text = info(client, "keyspace");
        let value = field(&text, database).rsplit_once("avg_ttl=").expect("an average").1;
        value.parse().expect("a number")
    };
    client.words("SET a 1");
    assert_eq!(average(&mut client, "db0"), 0);
    client.words("MSET b 1 c 1 d 1");
    client.words("EXPIRE b 1000");
    client.words("EXPIRE c 3000");
    // A slow machine takes its time between the commands.
    const SLACK_MS: u64 = 60_000;
    assert!((2_000_000 - SLACK_MS..=2_000_000).contains(&average(&mut client, "db0")));
    client.words("EXPIRE d 5000");
    client.words("PERSIST b");
    assert!((4_000_000 - SLACK_MS..=4_000_000).contains(&average(&mut client, "db0")));
    client.words("SELECT 1");
    client.words("SET a 1 EX 500");
    assert!((500_000 - SLACK_MS..=500_000).contains(&average(&mut client, "db1")));
    client.words("FLUSHDB");
    client.words("SET a 1");
    assert_eq!(average(&mut client, "db1"), 0);
}
