//! Memory a key and the slowest insertion: `memory [KEYS] [SHARDS] [one-slot]`, with 16-byte keys and 32-byte values.
//! With `one-slot`, all keys have the same hash tag.

use std::time::{Duration, Instant};

use duva_engine::{Deadline, Hasher, SLOT_COUNT, Shard, Shards};

/// Key and value, in bytes.
const PAYLOAD_BYTES: usize = 16 + 32;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default| arguments.next().map_or(default, |argument| argument.parse().expect("a number"));
    let (key_count, shard_count) = (number(1_000_000), number(64));
    let one_slot = arguments.next().is_some_and(|argument| argument == "one-slot");
    let name = |number: usize| {
        if one_slot { format!("{{t}}{number:013}") } else { format!("{:016}", number * 7_919) }
    };

    let hasher = Hasher::new(1);
    let mut shards = Shards::new(shard_count);
    for number in 0..shard_count {
        shards.adopt(number, Box::new(Shard::new(shards.slots_of(number), hasher.clone())));
    }
    let before = resident_bytes();
    let start = Instant::now();
    let mut slowest = Slowest::default();
    for number in 0..key_count {
        let name = name(number);
        let key = hasher.key(name.as_bytes());
        let insertion = Instant::now();
        shards.of(key.slot).set_string(0, name.as_bytes(), key, &[b'v'; 32], Deadline::Clear, 0);
        let elapsed = insertion.elapsed();
        slowest.note(elapsed);
    }
    let elapsed = start.elapsed();
    let used: usize = shards.iter().map(Shard::used_bytes).sum();
    let over_payload = |bytes: usize| bytes as f64 / key_count as f64 - PAYLOAD_BYTES as f64;
    println!("{key_count} keys in {shard_count} shards, {SLOT_COUNT} slots");
    println!("used_bytes over payload: {:.1} bytes a key", over_payload(used));
    println!("resident over payload:   {:.1} bytes a key", over_payload(resident_bytes() - before));
    println!("insertion: {:.0} ns on average", elapsed.as_nanos() as f64 / key_count as f64);
    println!("slowest insertions: {:?}", slowest.all);
    println!("slowest insertions that the system did not interrupt: {:?}", slowest.undisturbed);

    // Single look-ups, then look-ups in batches that prefetch.
    let names: Vec<String> = (0..1 << 16).map(|number| name(number * 104_729 % key_count)).collect();
    let keys: Vec<_> = names.iter().map(|name| hasher.key(name.as_bytes())).collect();
    for batch in [1, 16] {
        let start = Instant::now();
        let mut found = 0;
        for (names, keys) in names.chunks(batch).zip(keys.chunks(batch)) {
            if batch > 1 {
                keys.iter().for_each(|&key| shards.of(key.slot).prefetch_table(0, key));
                keys.iter().for_each(|&key| shards.of(key.slot).prefetch_entry(0, key));
            }
            for (name, &key) in names.iter().zip(keys) {
                found += usize::from(shards.of(key.slot).get(0, name.as_bytes(), key, 0).is_some());
            }
        }
        assert_eq!(found, names.len());
        println!(
            "look-ups in batches of {batch}: {:.0} ns each",
            start.elapsed().as_nanos() as f64 / found as f64
        );
    }
    // Keys that are in the cache already, as those of a request are.
    let start = Instant::now();
    for name in names[..64].iter().cycle().take(names.len()) {
        std::hint::black_box(hasher.key(std::hint::black_box(name.as_bytes())));
    }
    let both = start.elapsed().as_nanos() as f64 / names.len() as f64;
    let start = Instant::now();
    for name in names[..64].iter().cycle().take(names.len()) {
        std::hint::black_box(duva_engine::key_slot(std::hint::black_box(name.as_bytes())));
    }
    let slot = start.elapsed().as_nanos() as f64 / names.len() as f64;
    println!("slot and hash of a key: {both:.1} ns, the slot alone {slot:.1} ns");
}

/// The slowest insertions, and the slowest ones during which no other thread took the processor.
#[derive(Default)]
struct Slowest {
    all: [Duration; 5],
    undisturbed: [Duration; 5],
    preemptions: usize,
}

impl Slowest {
    fn note(&mut self, elapsed: Duration) {
        if elapsed < Duration::from_micros(20) {
            return;
        }
        keep_slowest(&mut self.all, elapsed);
        // A preemption between two insertions makes the next slow one look disturbed: that errs on the safe side as
        // long as there are many.
        let preemptions = status("nonvoluntary_ctxt_switches:");
        if preemptions == self.preemptions {
            keep_slowest(&mut self.undisturbed, elapsed);
        }
        self.preemptions = preemptions;
    }
}

fn keep_slowest(slowest: &mut [Duration; 5], elapsed: Duration) {
    slowest[4] = slowest[4].max(elapsed);
    slowest.sort_unstable_by(|a, b| b.cmp(a));
}

/// The process's resident memory.
fn resident_bytes() -> usize {
    status("VmRSS:") * 1024
}

/// A number from the kernel's account of this process, which has one thread.
fn status(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel reports it");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}
