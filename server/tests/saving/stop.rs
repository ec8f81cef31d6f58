//! Stopping: with a snapshot, or without.

use super::*;

/// Whether the process ended well.
fn ends(server: Server) -> bool {
    let (status, _directory) = server.wait_for_exit();
    status.success()
}

/// Sends a request to which a server that stops does not reply.
fn stop(server: Server, line: &str) {
    let mut client = server.connect();
    let words: Vec<&str> = line.split(' ').collect();
    client.send_request(&words).expect("the server listens");
    client.wait_for_end().expect("the server goes without a reply");
    assert!(ends(server));
}

#[test]
fn it_saves_when_it_is_told_to() {
    let data = TemporaryDirectory::new();
    for version in 0..2 {
        let server = options(&data, 2).start();
        fill(&mut server.connect(), 0..1000, 20, version);
        stop(server, "SHUTDOWN SAVE");
        expect_filled(&mut redis_on(&data).connect(), 0..1000, 20, version);
        expect_filled(&mut options(&data, 1).start().connect(), 0..1000, 20, version);
    }
}

#[test]
fn it_saves_when_there_are_save_points_unless_told_not_to() {
    let data = TemporaryDirectory::new();
    let saving = || options(&data, 2).option("save", &["3600", "1000000"]).start();
    let server = saving();
    fill(&mut server.connect(), 0..10, 20, 1);
    stop(server, "SHUTDOWN");
    let server = saving();
    let mut client = server.connect();
    expect_filled(&mut client, 0..10, 20, 1);
    fill(&mut client, 0..10, 20, 2);
    drop(client);
    server.signal(libc::SIGTERM);
    assert!(ends(server));
    let server = saving();
    let mut client = server.connect();
    expect_filled(&mut client, 0..10, 20, 2);
    fill(&mut client, 0..10, 20, 3);
    stop(server, "SHUTDOWN NOSAVE");
    expect_filled(&mut redis_on(&data).connect(), 0..10, 20, 2);
}

#[test]
fn it_does_not_save_without_save_points() {
    for line in ["SHUTDOWN", "SHUTDOWN NOW", "SHUTDOWN NOSAVE"] {
        let data = TemporaryDirectory::new();
        let server = options(&data, 2).start();
        fill(&mut server.connect(), 0..10, 20, 1);
        stop(server, line);
        assert!(!dump_path(&data).exists(), "{line}");
    }
}

#[test]
fn what_was_acknowledged_before_it_stopped_is_saved() {
    let data = TemporaryDirectory::new();
    let server = options(&data, 3).start();
    fill(&mut server.connect(), 1..20_000, 50, 1);
    let counts: Vec<i64> = std::thread::scope(|scope| {
        let count = |thread: usize| {
            let mut client = server.connect();
            move || {
                let mut last = 0;
                while let Ok(reply) = client.try_call(&["INCR", &format!("counter:{thread}")]) {
                    last = reply.integer().expect("a number");
                }
                last
            }
        };
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(count(thread))).collect();
        let mut client = server.connect();
        server.wait_until("the threads count", || integer(&client.words("GET counter:3")) > 100);
        client.send_request(&["SHUTDOWN", "SAVE"]).expect("the server listens");
        client.wait_for_end().expect("the server goes without a reply");
        threads.into_iter().map(|thread| thread.join().expect("it only counts")).collect()
    });
    assert!(ends(server));
    let redis = redis_on(&data);
    let mut client = redis.connect();
    for (thread, acknowledged) in counts.into_iter().enumerate() {
        let saved = integer(&client.words(&format!("GET counter:{thread}")));
        assert!((acknowledged..=acknowledged + 1).contains(&saved), "{saved} of {acknowledged}");
    }
}

#[test]
fn a_save_or_rewrite_under_way_does_not_hold_it_up() {
    for first in ["BGSAVE", "BGREWRITEAOF"] {
        let data = TemporaryDirectory::new();
        let server = journalling(&data, 2).start();
        let mut client = server.connect();
        fill(&mut client, 0..5000, 50, 1);
        let mut requests = Vec::new();
        resp::encode_request(&[first], &mut requests);
        resp::encode_request(&["SET", "last", "1"], &mut requests);
        resp::encode_request(&["SHUTDOWN", "SAVE"], &mut requests);
        client.send(&requests).expect("the server listens");
        assert!(!client.receive().expect("it replies").is_error());
        assert!(client.receive().expect("it replies").is_status("OK"));
        client.wait_for_end().expect("the server goes without a reply");
        assert!(ends(server));
        let redis = redis_on(&data);
        let mut client = redis.connect();
        expect_filled(&mut client, 0..5000, 50, 1);
        assert_eq!(client.words("GET last").bytes(), Some(&b"1"[..]));
        drop(redis);
        // And the journal alone tells the same.
        fs::remove_file(dump_path(&data)).expect("it is there");
        assert!(journal_files(&data, ".tmp").is_empty());
        let server = journalling(&data, 1).start();
        let mut client = server.connect();
        expect_filled(&mut client, 0..5000, 50, 1);
        assert_eq!(client.words("GET last").bytes(), Some(&b"1"[..]));
    }
}

#[test]
fn nothing_unfinished_is_left() {
    let data = TemporaryDirectory::new();
    let server = journalling(&data, 2).start();
    let mut client = server.connect();
    fill(&mut client, 0..20_000, 100, 1);
    let mut requests = Vec::new();
    resp::encode_request(&["BGSAVE"], &mut requests);
    resp::encode_request(&["SHUTDOWN", "NOSAVE"], &mut requests);
    client.send(&requests).expect("the server listens");
    assert!(client.receive().expect("it replies").is_status("Background saving started"));
    client.wait_for_end().expect("the server goes without a reply");
    assert!(ends(server));
    let entries = fs::read_dir(data.path()).expect("it is ours");
    let names: Vec<_> = entries.map(|entry| entry.expect("it can be listed").file_name()).collect();
    assert_eq!(names, ["appendonlydir"]);
}
