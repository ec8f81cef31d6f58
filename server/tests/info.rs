//! INFO's persistence section has the fields of Redis, in Redis's order, and after them the journal's own.

mod support;

use support::process::{Server, ServerOptions};

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
