//! Rewrites: the journal becomes short, and nothing is lost whenever the server dies.

use std::sync::atomic::AtomicU64;

use super::*;

fn rewrite(server: &Server) {
    let mut client = server.connect();
    let before = number(&mut client, "aof_rewrites");
    let reply = client.words("BGREWRITEAOF");
    assert!(reply.is_status("Background append only file rewriting started"), "{reply:?}");
    wait_until_saved(server);
    assert_eq!(number(&mut client, "aof_rewrites"), before + 1);
    assert_eq!(field(&mut client, "aof_last_bgrewrite_status"), "ok");
}

#[test]
fn the_journal_becomes_short_and_nothing_is_lost() {
    let data = TemporaryDirectory::new();
    let server = journalling(&data, 2).option("auto-aof-rewrite-percentage", &["0"]).start();
    let mut client = server.connect();
    for version in 0..5 {
        fill(&mut client, 0..5000, 200, version);
    }
    let long = number(&mut client, "journal_bytes");
    assert!(long > 5_000_000, "{long}");
    rewrite(&server);
    let short = number(&mut client, "journal_bytes");
    assert!(short < 100_000, "{short}");
    assert_eq!(number(&mut client, "aof_current_size"), number(&mut client, "aof_base_size"));
    assert_eq!(journal_files(&data, ".snapshot.rdb").len(), 64, "one a shard");
    // Again, after few changes: only what has changed is saved, and older snapshots go.
    assert!(client.words("SET key:0 changed").is_status("OK"));
    rewrite(&server);
    server.wait_until("the older snapshot is removed", || journal_files(&data, ".snapshot.rdb").len() == 64);
    kill(server);
    let earlier = journal_files(&data, ".segment");
    let server = journalling(&data, 3).start();
    let mut client = server.connect();
    assert_eq!(client.words("GET key:0").bytes(), Some(&b"changed"[..]));
    expect_filled(&mut client, 1..5000, 200, 4);
    // What an earlier start left goes as well.
    assert!(client.words("SET key:1 changed").is_status("OK"));
    rewrite(&server);
    server.wait_until("earlier segments are removed", || {
        let names = journal_files(&data, ".segment");
        earlier.iter().all(|name| !names.contains(name))
    });
    kill(server);
    let server = journalling(&data, 1).start();
    let mut client = server.connect();
    assert_eq!(client.words("GET key:1").bytes(), Some(&b"changed"[..]));
    expect_filled(&mut client, 2..5000, 200, 4);
}

const THREADS: usize = 4;
const COUNTERS_A_THREAD: usize = 50;

/// How writers and server go on.
struct Course {
    fsync: &'static str,
    /// Whether keys that change together are in one shard.
    is_one_shard: bool,
    /// Whether the server dies in the middle of everything, or once the writers have ended.
    dies_busy: bool,
}

/// What a writer was told of a counter, and of the pair of keys that it sets to the same number.
#[derive(Default)]
struct Told {
    counter: AtomicU64,
    pair: AtomicU64,
}

impl Course {
    fn pair(&self, counter: usize) -> [String; 2] {
        ["one", "other"].map(|name| match self.is_one_shard {
            true => format!("{name}:{{{counter}}}"),
            false => format!("{name}:{counter}"),
        })
    }

    /// Counts, and sets pairs, until the server is gone or it is enough.
    fn write(&self, thread: usize, told: &[Told], is_over: &AtomicBool, client: &mut Connection) {
        for turn in 0.. {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            let counter = thread * COUNTERS_A_THREAD + turn % COUNTERS_A_THREAD;
            let Ok(reply) = client.try_call(&["INCR", &format!("counter:{counter}")]) else { return };
            let count = reply.integer().expect("a number") as u64;
            assert_eq!(told[counter].counter.swap(count, Ordering::Relaxed), count - 1);
            let ([one, other], text) = (self.pair(counter), count.to_string());
            let Ok(reply) = client.try_call(&["MSET", &one, &text, &other, &text]) else { return };
            assert!(reply.is_status("OK"), "{reply:?}");
            told[counter].pair.store(count, Ordering::Relaxed);
        }
    }

    /// Asserts that everything is there that writers were told; what they were not told counts from now on.
    fn check(&self, told: &[Told], client: &mut Connection) {
        for (counter, told) in told.iter().enumerate() {
            let [one, other] = self.pair(counter);
            let values = client.words(&format!("MGET counter:{counter} {one} {other}"));
            let values: Vec<u64> =
                values.items().expect("an array").iter().map(|value| integer(value) as u64).collect();
            let (last_count, last_pair) =
                (told.counter.load(Ordering::Relaxed), told.pair.load(Ordering::Relaxed));
            // At most one request had not been answered.
            assert!(
                (last_count..=last_count + 1).contains(&values[0]),
                "{counter}: {values:?}, {last_count}"
            );
            assert!((last_pair..=last_count).contains(&values[1]), "{counter}: {values:?}, {last_pair}");
            assert_eq!(values[1], values[2], "{counter}");
            told.counter.store(values[0], Ordering::Relaxed);
            told.pair.store(values[1], Ordering::Relaxed);
        }
    }

    /// The server rewrites its journal again and again beside writers, and is killed, and starts again.
    fn run(&self) {
        let data = TemporaryDirectory::new();
        let told: Vec<Told> = (0..THREADS * COUNTERS_A_THREAD).map(|_| Told::default()).collect();
        for (round, cores) in [2, 3, 1, 2].into_iter().enumerate() {
            let server = journalling(&data, cores).option("appendfsync", &[self.fsync]).start();
            let mut client = server.connect();
            self.check(&told, &mut client);
            fill(&mut client, 0..2000, 100, round);
            let is_over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let writers = (0..THREADS).map(|thread| {
                    let (told, is_over, mut client) = (&told, &is_over, server.connect());
                    scope.spawn(move || self.write(thread, told, is_over, &mut client))
                });
                let writers: Vec<_> = writers.collect();
                for _ in 0..3 {
                    rewrite(&server);
                }
                if !self.dies_busy {
                    is_over.store(true, Ordering::Relaxed);
                    writers.into_iter().for_each(|writer| writer.join().expect("a writer only writes"));
                }
                assert!(!client.words("BGREWRITEAOF").is_error());
                server.signal(libc::SIGKILL);
                is_over.store(true, Ordering::Relaxed);
            });
            let (status, _directory) = server.wait_for_exit();
            assert!(!status.success());
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_it_dies_while_rewriting() {
    Course { fsync: "everysec", is_one_shard: true, dies_busy: true }.run();
}

#[test]
fn nothing_acknowledged_is_lost_when_commits_wait_for_the_disk() {
    Course { fsync: "always", is_one_shard: true, dies_busy: true }.run();
}

#[test]
fn transactions_beside_rewrites_are_all_there() {
    Course { fsync: "everysec", is_one_shard: false, dies_busy: false }.run();
}

#[test]
fn transactions_beside_rewrites_are_all_there_when_commits_wait_for_the_disk() {
    Course { fsync: "always", is_one_shard: false, dies_busy: false }.run();
}

#[test]
fn transactions_are_whole_when_it_dies_while_rewriting() {
    Course { fsync: "everysec", is_one_shard: false, dies_busy: true }.run();
}

#[test]
fn transactions_are_whole_when_commits_wait_for_the_disk() {
    Course { fsync: "always", is_one_shard: false, dies_busy: true }.run();
}

#[test]
fn a_grown_journal_is_rewritten_by_itself_and_its_segments_are_used_again() {
    let data = TemporaryDirectory::new();
    let server = journalling(&data, 2).option("auto-aof-rewrite-min-size", &["2mb"]).start();
    let mut client = server.connect();
    let mut version = 0;
    server.wait_until("it was rewritten five times", || {
        version += 1;
        fill(&mut client, 0..1000, 500, version);
        number(&mut client, "aof_rewrites") >= 5
    });
    wait_until_saved(&server);
    server.wait_until("the journal is short", || {
        number(&mut client, "journal_bytes") < 4 << 20 && journal_files(&data, ".segment").len() < 30
    });
    let written = version * 1000 * 500;
    assert!(written > 5 << 20, "{written}");
    kill(server);
    let server = journalling(&data, 1).start();
    expect_filled(&mut server.connect(), 0..1000, 500, version);
}
