//! What clients are told.

use super::*;

/// Replies to requests that arrive together, so that nothing that they begin can end between them.
fn together(client: &mut Connection, lines: &[&str]) -> Vec<String> {
    let mut requests = Vec::new();
    for line in lines {
        resp::encode_request(&line.split(' ').collect::<Vec<_>>(), &mut requests);
    }
    let replies = client.exchange(&requests, lines.len()).expect("the server answers");
    replies.iter().map(|reply| String::from_utf8_lossy(&reply.encode()).trim_end().to_owned()).collect()
}

const STARTED: &str = "+Background saving started";
const ALREADY: &str = "-ERR Background save already in progress";
const REWRITE_STARTED: &str = "+Background append only file rewriting started";
const REWRITE_ALREADY: &str = "-ERR Background append only file rewriting already in progress";

#[test]
fn one_save_at_a_time() {
    let data = TemporaryDirectory::new();
    let server = journalling(&data, 2).start();
    let mut client = server.connect();
    fill(&mut client, 0..100, 10, 1);
    let replies = together(&mut client, &["BGSAVE", "BGSAVE", "BGSAVE SCHEDULE", "SAVE", "BGREWRITEAOF"]);
    let scheduled = "+Background append only file rewriting scheduled";
    assert_eq!(replies, [STARTED, ALREADY, ALREADY, ALREADY, scheduled]);
    wait_until_saved(&server);
    assert_eq!((number(&mut client, "rdb_saves"), number(&mut client, "aof_rewrites")), (1, 1));
    assert_eq!(field(&mut client, "rdb_last_bgsave_status"), "ok");
    assert_eq!(field(&mut client, "aof_last_bgrewrite_status"), "ok");
}

#[test]
fn a_save_waits_for_a_rewrite() {
    let data = TemporaryDirectory::new();
    let server = journalling(&data, 2).start();
    let mut client = server.connect();
    fill(&mut client, 0..100, 10, 1);
    let replies = together(
        &mut client,
        &["BGREWRITEAOF", "BGREWRITEAOF", "BGSAVE", "BGSAVE SCHEDULE", "SAVE", "DBSIZE"],
    );
    let another = "-ERR Another child process is active (AOF?): can't BGSAVE right now. \
                   Use BGSAVE SCHEDULE in order to schedule a BGSAVE whenever possible.";
    let expected = [REWRITE_STARTED, REWRITE_ALREADY, another, "+Background saving scheduled", "+OK", ":100"];
    assert_eq!(replies, expected);
    assert_eq!((number(&mut client, "rdb_saves"), number(&mut client, "aof_rewrites")), (1, 1));
    expect_filled(&mut redis_on(&data).connect(), 0..100, 10, 1);
}

#[test]
fn save_tells_that_it_is_done() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 2).start();
    let mut client = server.connect();
    let before = client.words("LASTSAVE").integer().expect("a time");
    fill(&mut client, 0..10, 10, 1);
    assert_eq!(number(&mut client, "rdb_changes_since_last_save"), 10);
    assert!(client.words("SAVE").is_status("OK"));
    assert!(dump_path(&data).exists());
    assert_eq!(number(&mut client, "rdb_changes_since_last_save"), 0);
    assert_eq!(number(&mut client, "rdb_bgsave_in_progress"), 0);
    let after = client.words("LASTSAVE").integer().expect("a time");
    assert!(after >= before && after as u64 == number(&mut client, "rdb_last_save_time"));
    assert!(!client.words("SET key:3 new").is_error());
    assert!(!client.words("DEL key:4").is_error());
    assert_eq!(number(&mut client, "rdb_changes_since_last_save"), 2);
}

#[test]
fn there_is_no_journal_to_rewrite_without_one() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 1).start();
    let reply = server.connect().words("BGREWRITEAOF");
    assert_eq!(reply.bytes(), Some(&b"ERR There is no journal to rewrite: appendonly is off"[..]));
}

#[test]
fn save_points_save_by_themselves() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 2).option("save", &["1", "2"]).start();
    let mut client = server.connect();
    client.words("SET a 1");
    client.words("SET b 2");
    server.wait_until("a save point is reached", || dump_path(&data).exists());
    wait_until_saved(&server);
    assert_eq!(number(&mut client, "rdb_changes_since_last_save"), 0);
    assert_eq!(redis_on(&data).connect().words("GET b").bytes(), Some(&b"2"[..]));
    // Set at run time, too.
    assert!(client.words("CONFIG SET save").is_error());
    assert!(client.call(&["CONFIG", "SET", "save", "1 1"]).is_status("OK"));
    client.words("SET c 3");
    server.wait_until("the new save point is reached", || number(&mut client, "rdb_saves") == 2);
}

#[test]
fn shutdown_takes_options_as_redis_does() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 2).start();
    let mut client = server.connect();
    for line in ["SHUTDOWN ABORT", "SHUTDOWN abort ABORT"] {
        assert_eq!(client.words(line).bytes(), Some(&b"ERR No shutdown in progress."[..]), "{line}");
    }
    for line in [
        "SHUTDOWN ABORT NOW",
        "SHUTDOWN FORCE ABORT",
        "SHUTDOWN SAVE ABORT",
        "SHUTDOWN SAVE NOSAVE",
        "SHUTDOWN NOSAVE SAVE",
        "SHUTDOWN LATER",
    ] {
        assert_eq!(client.words(line).bytes(), Some(&b"ERR syntax error"[..]), "{line}");
    }
    client.send_request(&["SHUTDOWN", "NOSAVE", "NOW", "FORCE", "nosave"]).expect("the server listens");
    client.wait_for_end().expect("the server goes without a reply");
    assert!(server.wait_for_exit().0.success());
}
