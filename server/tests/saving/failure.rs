//! Files that cannot be written: errors are told, nothing is lost, and it goes on by itself.

use super::*;

const MISCONF: &str = "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. \
    Commands that may modify the data set are disabled, because this instance is configured to report errors during \
    writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details \
    about the RDB error.";

/// Lets nothing be published as the dump.
fn block(data: &TemporaryDirectory) {
    fs::create_dir(dump_path(data)).expect("the directory is ours");
}

fn unblock(data: &TemporaryDirectory) {
    fs::remove_dir(dump_path(data)).expect("nothing was put into it");
}

#[test]
fn writes_are_refused_after_a_save_failed_in_the_background_until_one_succeeds() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 2).option("save", &["3600", "1000000"]).start();
    let mut client = server.connect();
    fill(&mut client, 0..1000, 20, 1);
    block(&data);
    // Who waits for a save is told, and nobody else is bothered.
    assert!(client.words("SAVE").is_error());
    assert!(client.words("SHUTDOWN").is_error());
    assert_eq!(field(&mut client, "rdb_last_bgsave_status"), "ok");
    fill(&mut client, 0..1000, 20, 1);
    assert!(client.words("BGSAVE").is_status("Background saving started"));
    wait_until_saved(&server);
    assert_eq!(field(&mut client, "rdb_last_bgsave_status"), "err");
    assert_eq!(number(&mut client, "rdb_changes_since_last_save"), 2000);
    let mut others: Vec<Connection> = (0..4).map(|_| server.connect()).collect();
    for client in &mut others {
        server.wait_until("every core refuses writes", || {
            client.words("SET key:1 new").bytes() == Some(MISCONF.as_bytes())
        });
        assert_eq!(client.words("DEL key:1").bytes(), Some(MISCONF.as_bytes()));
        assert!(!client.words("GET key:1").is_error());
    }
    expect_filled(&mut client, 0..1000, 20, 1);
    assert!(client.words("CONFIG SET stop-writes-on-bgsave-error no").is_status("OK"));
    assert!(client.words("SET key:1 new").is_status("OK"));
    assert!(client.words("CONFIG SET stop-writes-on-bgsave-error yes").is_status("OK"));
    assert_eq!(client.words("SET key:1 newer").bytes(), Some(MISCONF.as_bytes()));
    unblock(&data);
    assert!(client.words("SAVE").is_status("OK"));
    for client in &mut others {
        server.wait_until("every core takes writes", || client.words("SET key:1 newest").is_status("OK"));
    }
    assert_eq!(field(&mut client, "rdb_last_bgsave_status"), "ok");
    assert_eq!(redis_on(&data).connect().words("GET key:1").bytes(), Some(&b"new"[..]));
    let names: Vec<_> = fs::read_dir(data.path())
        .expect("it is ours")
        .map(|entry| entry.map(|entry| entry.file_name()))
        .collect();
    assert_eq!(names.len(), 1, "only the dump: {names:?}");
}

#[test]
fn without_save_points_a_failed_save_refuses_nothing() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 2).start();
    let mut client = server.connect();
    block(&data);
    for _ in 0..3 {
        assert!(client.words("BGSAVE").is_status("Background saving started"));
        wait_until_saved(&server);
        assert_eq!(field(&mut client, "rdb_last_bgsave_status"), "err");
        fill(&mut client, 0..1000, 20, 1);
    }
    unblock(&data);
    assert!(client.words("SAVE").is_status("OK"));
    expect_filled(&mut redis_on(&data).connect(), 0..1000, 20, 1);
}

#[test]
fn a_server_that_cannot_save_does_not_stop_unless_forced() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 2).start();
    let mut client = server.connect();
    fill(&mut client, 0..1000, 20, 1);
    block(&data);
    for _ in 0..2 {
        let reply = client.words("SHUTDOWN SAVE");
        assert_eq!(reply.bytes(), Some(&b"ERR Errors trying to SHUTDOWN. Check logs."[..]));
        // Every core goes on.
        fill(&mut client, 0..1000, 20, 2);
    }
    client.send_request(&["SHUTDOWN", "SAVE", "FORCE"]).expect("the server listens");
    client.wait_for_end().expect("the server goes without a reply");
    let (status, _directory) = server.wait_for_exit();
    assert!(status.success());
}

#[test]
fn a_failed_rewrite_leaves_the_journal_as_it_was() {
    let data = TemporaryDirectory::new();
    let server = journalling(&data, 2).start();
    let mut client = server.connect();
    let slot = client.words("CLUSTER KEYSLOT single").integer().expect("a slot");
    // Nothing can be written where the snapshot of the shard's first entry is to be.
    let name = format!("{}-{:020}.snapshot.rdb.tmp", slot / 256, 1);
    let next = data.path().join("appendonlydir").join(name);
    fs::create_dir(&next).expect("the folder is ours");
    assert!(client.words("SET single 1").is_status("OK"));
    assert!(client.words("SELECT 1").is_status("OK"));
    for failures in 1..3 {
        rewrite(&server, "err");
        assert_eq!(number(&mut client, "aof_rewrites_consecutive_failures"), failures);
        assert!(journal_files(&data, ".snapshot.rdb").is_empty());
        assert!(number(&mut client, "journal_bytes") > 0);
    }
    // A save is none the worse for it.
    assert!(client.words("SAVE").is_status("OK"));
    fs::remove_dir(&next).expect("nothing was put into it");
    rewrite(&server, "ok");
    assert_eq!(number(&mut client, "aof_rewrites_consecutive_failures"), 0);
    assert_eq!(journal_files(&data, ".snapshot.rdb").len(), 1);
    kill(server);
    let server = journalling(&data, 1).start();
    assert_eq!(server.connect().words("GET single").bytes(), Some(&b"1"[..]));
}

fn rewrite(server: &Server, status: &str) {
    let mut client = server.connect();
    assert!(!client.words("BGREWRITEAOF").is_error());
    wait_until_saved(server);
    assert_eq!(field(&mut client, "aof_last_bgrewrite_status"), status);
}
