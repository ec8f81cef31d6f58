//! Saving turn by turn, on a machine of the test's own: what is in a file, and in memory, whatever happens meanwhile.

mod support;

#[path = "turns/machine.rs"]
#[allow(dead_code, reason = "another test program uses the rest")]
mod machine;

use std::{collections::BTreeMap, convert::Infallible, fs};

use duva_engine::rdb::{Item, LoadedValue, Reader, Visitor};
use duva_server::config::AppendFsync;
use machine::{Bench, Client};
use support::resp::Reply;

const MIB: usize = 1 << 20;

/// What may wait because changes have forced it out, and some more.
const EARLY_BYTES: u64 = 9 << 20;

const FSYNCS: [AppendFsync; 3] = [AppendFsync::Always, AppendFsync::EverySecond, AppendFsync::No];

fn is_ok(reply: &Reply) -> bool {
    reply.is_status("OK")
}

/// A field of INFO persistence or INFO stats.
fn field(bench: &mut Bench, client: Client, name: &str) -> String {
    for section in ["persistence", "stats"] {
        let reply = bench.call(client, &format!("INFO {section}"));
        let text = String::from_utf8_lossy(reply.bytes().expect("a text")).into_owned();
        let value = text.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        if let Some(value) = value {
            return value.to_owned();
        }
    }
    panic!("no {name}");
}

fn number(bench: &mut Bench, client: Client, name: &str) -> u64 {
    field(bench, client, name).parse().expect("a number")
}

/// Sends a request for each of so many keys of a core.
fn send_to(bench: &mut Bench, client: Client, keys: &[String], request: impl Fn(&str) -> String) {
    keys.iter().for_each(|key| bench.send_words(client, &request(key)));
}

/// So many keys of a core.
fn keys_of(bench: &Bench, core: usize, count: usize) -> Vec<String> {
    let names = (0..).map(|number| format!("key:{number}"));
    names.filter(|name| bench.owner(name) == core).take(count).collect()
}

/// So many keys of the shard that `key` is in.
fn neighbours(bench: &Bench, key: &str, count: usize) -> Vec<String> {
    let shard = bench.shard(key);
    let names = (0..).map(|number| format!("{key}:{number}"));
    names.filter(|name| bench.shard(name) == shard).take(count).collect()
}

/// Sets keys to values of so many bytes that do not compress.
fn fill(bench: &mut Bench, client: Client, keys: &[String], length: usize) {
    for key in keys {
        bench.send(client, &[b"SET", key.as_bytes(), &noise(length)]);
    }
    bench.settle();
    let replies = bench.replies(client);
    assert!(replies.len() == keys.len() && replies.iter().all(is_ok));
}

fn noise(length: usize) -> Vec<u8> {
    let mut state = length as u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Entries of database 0 as a file has them: values and deadlines.
#[derive(Default)]
struct Entries(BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)>);

impl Visitor for Entries {
    type Error = Infallible;

    fn entry(&mut self, item: Item<'_>) -> Result<(), Infallible> {
        let LoadedValue::String(value) = item.value;
        let earlier = self.0.insert(item.key.to_vec(), (value.into_owned(), item.deadline_ms));
        assert!(earlier.is_none() && item.database == 0);
        Ok(())
    }
}

/// What the dump holds, its checksum found right.
fn dumped(bench: &Bench) -> BTreeMap<Vec<u8>, (Vec<u8>, Option<u64>)> {
    let bytes = fs::read(bench.path("dump.rdb")).expect("there is a dump");
    assert_ne!(bytes[bytes.len() - 8..], [0; 8], "without a checksum nothing is checked");
    let (mut reader, mut entries) = (Reader::new(), Entries::default());
    reader.feed(&bytes, &mut entries).expect("it can be read");
    reader.finish().expect("it is whole");
    entries.0
}

/// Lets the disk do what it holds, and hold what comes.
fn let_outputs_through(bench: &mut Bench) {
    bench.set_disk(|disk| disk.holds_outputs = false);
    bench.set_disk(|disk| disk.holds_outputs = true);
    bench.settle();
}

/// Two cores' clients, and a key on each.
fn two_cores(fsync: AppendFsync) -> (Bench, [Client; 2], [String; 2]) {
    let mut bench = Bench::new(2, fsync);
    let clients = [bench.connect(), bench.connect()];
    let keys = [0, 1].map(|core| bench.key("key", |bench, key| bench.owner(key) == core));
    (bench, clients, keys)
}

/// A transaction is prepared on both cores and finished on the second alone when the server dies; the first one's journal was
/// rewritten between. `begin` is sent, and `check` finds all of it.
fn is_whole_after_a_rewrite(begin: &str, check: impl Fn(&mut Bench, Client, &[String; 2])) {
    for fsync in FSYNCS {
        let (mut bench, [near, far], keys) = two_cores(fsync);
        let admin = bench.connect();
        let [neighbour, due] = neighbours(&bench, &keys[0], 2).try_into().expect("two");
        for key in &keys {
            assert!(is_ok(&bench.call(near, &format!("SET {key} old"))));
        }
        assert!(is_ok(&bench.call(near, &format!("SET {due} value PX 10"))));
        // The part on the first core is durable, the one on the second is not.
        bench.set_disk(|disk| disk.holds_syncs_of = Some(1));
        let begin = begin.replace("{0}", &keys[0]).replace("{1}", &keys[1]);
        assert_eq!(bench.ask(far, &begin), None);
        // Something else of the shard comes behind it: a write, unless all keys are locked, and the end of a key.
        let last = bench.ask(near, &format!("SET {neighbour} new"));
        assert!(last.as_ref().is_none_or(is_ok));
        bench.pass_ms(20);
        bench.wake_all();
        bench.settle();
        bench.call(admin, "BGREWRITEAOF");
        bench.settle();
        bench.set_disk(|disk| disk.holds_syncs_of = None);
        // The second core decides, and is the only one to know.
        while bench.step(1) {}
        let mut bench = bench.restart(0);
        let client = bench.connect();
        check(&mut bench, client, &keys);
        if last.is_some() {
            assert_eq!(bench.call(client, &format!("GET {neighbour}")).bytes(), Some(&b"new"[..]));
        }
    }
}

#[test]
fn a_rewrite_forgets_no_part_of_a_transaction_that_goes_on() {
    is_whole_after_a_rewrite("MSET {0} new {1} new", |bench, client, keys| {
        for key in keys {
            assert_eq!(bench.call(client, &format!("GET {key}")).bytes(), Some(&b"new"[..]), "{key}");
        }
    });
}

#[test]
fn a_rewrite_forgets_no_part_of_a_flush_that_goes_on() {
    is_whole_after_a_rewrite("FLUSHALL", |bench, client, keys| {
        for key in keys {
            assert!(bench.call(client, &format!("GET {key}")).is_null(), "{key}");
        }
    });
}

#[test]
fn a_rewrite_ends_though_transactions_never_do() {
    let (mut bench, _, [near_key, far_key]) = two_cores(AppendFsync::EverySecond);
    let clients: Vec<Client> = (0..8).map(|_| bench.connect()).collect();
    let (near_keys, far_keys) = (neighbours(&bench, &near_key, 200), neighbours(&bench, &far_key, 200));
    let admin = bench.connect();
    assert!(is_ok(&bench.call(admin, &format!("SET {near_key} value"))));
    bench.set_disk(|disk| disk.holds_syncs_of = Some(1));
    let send = |bench: &mut Bench, number: usize| {
        let (near, far) = (&near_keys[number], &far_keys[number]);
        bench.send_words(clients[number % 8], &format!("MSET {near} {number} {far} {number}"));
    };
    (0..3).for_each(|number| send(&mut bench, number));
    bench.settle();
    bench.call(admin, "BGREWRITEAOF");
    let mut answered = 0;
    for number in 3..200 {
        // While some go on, the next one is prepared.
        send(&mut bench, number);
        bench.settle();
        bench.set_disk(|disk| disk.holds_syncs_of = None);
        bench.set_disk(|disk| disk.holds_syncs_of = Some(1));
        bench.pass_ms(20);
        bench.wake_all();
        bench.settle();
        answered += clients.iter().flat_map(|&client| bench.replies(client)).filter(is_ok).count();
    }
    assert!(answered > 100, "{answered}");
    assert_eq!(field(&mut bench, admin, "aof_rewrite_in_progress"), "0");
    assert_eq!(field(&mut bench, admin, "aof_last_bgrewrite_status"), "ok");
    bench.set_disk(|disk| disk.holds_syncs_of = None);
    bench.settle();
    answered += clients.iter().flat_map(|&client| bench.replies(client)).filter(is_ok).count();
    assert_eq!(answered, 200);
    let mut bench = bench.restart(0);
    let client = bench.connect();
    for (number, keys) in near_keys.iter().zip(&far_keys).enumerate() {
        for key in [keys.0, keys.1] {
            assert_eq!(
                bench.call(client, &format!("GET {key}")).integer_text(),
                Some(number as i64),
                "{key}"
            );
        }
    }
}

trait IntegerText {
    /// The number that a string says.
    fn integer_text(&self) -> Option<i64>;
}

impl IntegerText for Reply {
    fn integer_text(&self) -> Option<i64> {
        str::from_utf8(self.bytes()?).ok()?.parse().ok()
    }
}

#[test]
fn what_changes_force_out_within_a_turn_is_bounded() {
    const LENGTH: usize = 15_000;
    for (fsync, sender) in FSYNCS.iter().flat_map(|&fsync| [(fsync, 0), (fsync, 1)]) {
        let mut bench = Bench::with_segments(2, fsync, 64);
        let clients = [bench.connect(), bench.connect()];
        let admin = bench.connect();
        let keys = keys_of(&bench, 0, 2_000);
        fill(&mut bench, clients[0], &keys, LENGTH);
        bench.set_disk(|disk| disk.holds_outputs = true);
        bench.call(admin, "BGSAVE");
        // Each of them leaves a copy of what it changes.
        send_to(&mut bench, clients[sender], &keys, |key| format!("APPEND {key} x"));
        bench.settle();
        let early_bytes = number(&mut bench, admin, "current_cow_peak");
        assert!(
            (4 << 20..EARLY_BYTES + MIB as u64).contains(&early_bytes),
            "{early_bytes} from core {sender}"
        );
        let answered = bench.replies(clients[sender]).len();
        assert!(answered < keys.len(), "nobody was held back");
        // Reads go on meanwhile, also of keys that others wait to change.
        for client in [clients[1 - sender], admin] {
            let last = keys.last().expect("there are keys");
            assert_eq!(bench.call(client, &format!("STRLEN {last}")).integer(), Some(LENGTH as i64));
        }
        bench.set_disk(|disk| disk.holds_outputs = false);
        bench.settle();
        let replies = bench.replies(clients[sender]);
        assert_eq!(answered + replies.len(), keys.len());
        assert!(replies.iter().all(|reply| reply.integer() == Some(LENGTH as i64 + 1)));
        let dumped = dumped(&bench);
        assert_eq!(dumped.len(), keys.len());
        assert!(dumped.values().all(|(value, _)| value.len() == LENGTH));
    }
}

#[test]
fn a_connection_sees_what_it_wrote_though_that_had_to_wait() {
    let mut bench = Bench::with_segments(2, AppendFsync::EverySecond, 64);
    let (near, far) = (bench.connect(), bench.connect());
    let keys = keys_of(&bench, 0, 1_000);
    fill(&mut bench, near, &keys, 15_000);
    bench.set_disk(|disk| disk.holds_outputs = true);
    bench.call(near, "BGSAVE");
    for key in &keys {
        bench.send_words(far, &format!("APPEND {key} x"));
        bench.send_words(far, &format!("STRLEN {key}"));
    }
    bench.settle();
    let mut replies = bench.replies(far);
    assert!(replies.len() < 2 * keys.len());
    bench.set_disk(|disk| disk.holds_outputs = false);
    bench.settle();
    replies.extend(bench.replies(far));
    assert!(replies.len() == 2 * keys.len() && replies.iter().all(|reply| reply.integer() == Some(15_001)));
}

#[test]
fn writers_wait_where_they_are_until_the_save_has_ended_on_all_cores() {
    let mut bench = Bench::with_segments(2, AppendFsync::EverySecond, 64);
    let (near, far) = (bench.connect(), bench.connect());
    // The first core has nothing to save, so its part is over at once.
    let keys = keys_of(&bench, 1, 2_000);
    fill(&mut bench, far, &keys, 15_000);
    bench.set_disk(|disk| disk.holds_outputs = true);
    bench.call(far, "BGSAVE");
    for chunk in keys.chunks(500) {
        send_to(&mut bench, near, chunk, |key| format!("APPEND {key} x"));
        bench.settle();
    }
    let forwarded = number(&mut bench, far, "forwarded_requests");
    assert!((100..keys.len() as u64).contains(&forwarded), "{forwarded}");
    let early_bytes = number(&mut bench, far, "current_cow_peak");
    assert!(early_bytes < EARLY_BYTES + MIB as u64, "{early_bytes}");
    bench.set_disk(|disk| disk.holds_outputs = false);
    bench.settle();
    assert_eq!(bench.replies(near).len(), keys.len());
}

#[test]
fn what_is_flushed_meanwhile_counts_and_is_saved() {
    let mut bench = Bench::with_segments(2, AppendFsync::EverySecond, 64);
    let (client, other) = (bench.connect(), bench.connect());
    let keys: Vec<String> = (0..2_000).map(|number| format!("key:{number}")).collect();
    fill(&mut bench, client, &keys, 15_000);
    bench.set_disk(|disk| disk.holds_outputs = true);
    bench.call(client, "BGSAVE");
    assert!(is_ok(&bench.call(client, "FLUSHALL")));
    assert!(number(&mut bench, other, "current_cow_size") > 25 << 20);
    assert_eq!(bench.ask(client, "SET key:1 new"), None, "it would take memory beside what was flushed");
    assert!(bench.call(other, "GET key:1").is_null());
    bench.set_disk(|disk| disk.holds_outputs = false);
    bench.settle();
    assert!(bench.replies(client).iter().all(is_ok));
    let dumped = dumped(&bench);
    assert!(dumped.len() == keys.len() && dumped.values().all(|(value, _)| value.len() == 15_000));
    assert_eq!(number(&mut bench, other, "current_cow_size"), 0);
    assert!(number(&mut bench, other, "rdb_last_cow_size") > 25 << 20);
}

#[test]
fn large_values_are_saved_as_they_were_whatever_changes_them_in_the_middle() {
    let mut bench = Bench::with_segments(2, AppendFsync::EverySecond, 64);
    let (near, far) = (bench.connect(), bench.connect());
    let mut expected = BTreeMap::new();
    let value = |number: usize| -> Vec<u8> { (0..3 * MIB).map(|at| (at / 997 + number) as u8).collect() };
    let large: Vec<String> = (0..2).flat_map(|core| keys_of(&bench, core, 6)).collect();
    for (number, key) in large.iter().enumerate() {
        bench.send(near, &[b"SET", key.as_bytes(), &value(number)]);
        bench.settle();
        expected.insert(key.clone().into_bytes(), (value(number), None));
    }
    let small: Vec<String> = (0..500).map(|number| format!("small:{number}")).collect();
    fill(&mut bench, far, &small, 30);
    expected.extend(small.iter().map(|key| (key.clone().into_bytes(), (noise(30), None))));
    bench.replies(near);
    bench.set_disk(|disk| disk.holds_outputs = true);
    bench.call(far, "BGSAVE");
    let (mut rounds, mut requests) = (0, 0);
    while field(&mut bench, far, "rdb_bgsave_in_progress") == "1" {
        // Now the one that is being saved, now another.
        let key = &large[rounds % large.len()];
        let request = match rounds / large.len() {
            0 => format!("EXPIRE {key} 1000"),
            1 => format!("SETRANGE {key} {} changed", rounds * 20_000 % (3 * MIB)),
            2 => format!("APPEND {key} more"),
            3 => format!("SETRANGE {key} {} changed again", 3 * MIB - 5),
            4 if rounds.is_multiple_of(3) => format!("RENAME {key} {key}:moved"),
            4 if rounds.is_multiple_of(2) => format!("DEL {key}"),
            4 => format!("PERSIST {key}"),
            _ => format!("SET {key} short"),
        };
        bench.send_words(near, &request);
        requests += 1;
        bench.settle();
        let_outputs_through(&mut bench);
        rounds += 1;
    }
    assert!(rounds > 50, "in pieces: {rounds}");
    assert_eq!(bench.replies(near).len(), requests);
    assert!(dumped(&bench) == expected);
    // What changed was kept, the values were not copied; one was moved.
    let bytes_peak = number(&mut bench, near, "rdb_last_cow_size");
    assert!(bytes_peak < 20 * MIB as u64, "{bytes_peak}");
}

#[test]
fn a_stop_can_be_called_off_while_it_saves() {
    let (mut bench, [client, other], [key, _]) = two_cores(AppendFsync::EverySecond);
    let (third, reader) = (bench.connect(), bench.connect());
    assert!(
        bench.call(other, "SHUTDOWN ABORT").bytes().is_some_and(|text| text.starts_with(b"ERR No shutdown"))
    );
    for is_saving in [false, true] {
        assert!(is_ok(&bench.call(client, &format!("SET {key} value"))));
        bench.set_disk(|disk| disk.holds_outputs = true);
        if is_saving {
            bench.call(other, "BGSAVE");
        }
        assert_eq!(bench.ask(client, "SHUTDOWN SAVE FORCE"), None);
        assert_eq!(bench.ask(third, "SHUTDOWN SAVE"), None);
        // Every key is locked, so that nothing is missing of what is saved last.
        if !is_saving {
            assert_eq!(bench.ask(reader, &format!("GET {key}")), None);
        }
        bench.send_words(other, "SHUTDOWN ABORT ABORT");
        bench.set_disk(|disk| disk.holds_outputs = false);
        bench.settle();
        for client in [client, third] {
            let refused = bench.replies(client);
            assert!(
                refused.len() == 1 && refused[0].to_string().contains("Errors trying to SHUTDOWN"),
                "{refused:?}"
            );
        }
        let replies = bench.replies(other);
        assert!(replies.last().is_some_and(is_ok), "{replies:?}");
        assert_eq!(bench.replies(reader).len(), usize::from(!is_saving));
        assert_eq!(bench.call(other, &format!("GET {key}")).bytes(), Some(&b"value"[..]));
        assert_eq!(field(&mut bench, other, "rdb_last_bgsave_status"), "ok");
        assert!(is_ok(&bench.call(other, "SAVE")));
    }
}

#[test]
fn a_dump_that_is_about_to_be_published_is_published_though_the_server_is_to_stop() {
    let (mut bench, [client, other], [key, _]) = two_cores(AppendFsync::EverySecond);
    assert!(is_ok(&bench.call(client, &format!("SET {key} value"))));
    bench.set_disk(|disk| disk.holds_outputs = true);
    bench.call(other, "BGSAVE");
    // Everything is written by now, and the file is to get its name.
    let_outputs_through(&mut bench);
    assert!(!bench.path("dump.rdb").exists());
    assert_eq!(bench.ask(client, "SHUTDOWN SAVE"), None);
    assert!(is_ok(&bench.call(other, "SHUTDOWN ABORT")));
    bench.set_disk(|disk| disk.holds_outputs = false);
    bench.settle();
    assert_eq!(dumped(&bench).len(), 1);
    assert_eq!(field(&mut bench, other, "rdb_last_bgsave_status"), "ok");
    assert_eq!(number(&mut bench, other, "rdb_changes_since_last_save"), 0);
}

#[test]
fn a_journal_that_has_outgrown_its_base_is_rewritten_once() {
    for fsync in FSYNCS {
        let (mut bench, [client, other], keys) = two_cores(fsync);
        let options = "auto-aof-rewrite-percentage 100 auto-aof-rewrite-min-size 100kb";
        assert!(is_ok(&bench.call(client, &format!("CONFIG SET {options}"))));
        for key in &keys {
            let keys = neighbours(&bench, key, 50);
            for _ in 0..3 {
                fill(&mut bench, client, &keys, 2000);
            }
        }
        assert!(number(&mut bench, other, "aof_current_size") > 600_000);
        for _ in 0..5 {
            bench.pass_ms(1000);
            bench.wake_all();
            bench.settle();
        }
        assert_eq!(number(&mut bench, other, "aof_rewrites"), 1, "{fsync:?}");
        let size = number(&mut bench, other, "aof_current_size");
        assert!(size < 300_000, "{size}");
        assert_eq!(number(&mut bench, other, "aof_base_size"), size);
    }
}
