//! GET and SET through the command table: lookup of the name, slot and hash of the key, the handler and its reply. All
//! that a request costs between parsing and sending.

mod keyspace;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use duva_engine::{
    Args, ArgumentRange, Call, Hasher, KeyHash, Protocol, Reply, Settings, Shard, Shards, Step,
    command::{self, Run},
};
use keyspace::{Batches, KEY_COUNT, NOW_MS, Name, shuffled_names};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VALUE_LEN_BYTES: usize = 64;

/// As many shards as a server has by default.
const SHARD_COUNT: usize = 64;

/// Pipelines written at once, outside of the measured time: enough to hide the clock's cost, few enough for the cache.
const BLOCK: usize = 32;

/// Requests of one form in one buffer, as a parser leaves them.
struct Requests {
    bytes: Vec<u8>,
    ranges: Vec<ArgumentRange>,
    argument_count: usize,
    hashes: Vec<KeyHash>,
}

impl Requests {
    fn new(argument_count: usize) -> Self {
        Self { bytes: Vec::new(), ranges: Vec::new(), argument_count, hashes: Vec::new() }
    }

    /// Replaces the requests by `name key [value]` for each of `keys`.
    fn write(&mut self, name: &[u8], keys: &[Name]) {
        self.bytes.clear();
        self.ranges.clear();
        for key in keys {
            for argument in [name, key, &[b'x'; VALUE_LEN_BYTES]].into_iter().take(self.argument_count) {
                self.ranges.push((self.bytes.len() as u32, argument.len() as u32));
                self.bytes.extend_from_slice(argument);
            }
        }
    }
}

struct Engine {
    shards: Shards,
    hasher: Hasher,
    settings: Settings,
    output: Vec<u8>,
}

impl Engine {
    /// Executes all `requests` as a core does: hash and prefetch for all, then one after another.
    fn apply(&mut self, requests: &mut Requests) {
        let Requests { bytes, ranges, argument_count, hashes } = requests;
        self.output.clear();
        hashes.clear();
        for ranges in ranges.chunks_exact(*argument_count) {
            let (offset, length) = ranges[1];
            let key = self.hasher.key(&bytes[offset as usize..][..length as usize]);
            if let Some(shard) = self.shards.get(key.slot) {
                shard.prefetch_table(0, key);
            }
            hashes.push(key);
        }
        for &key in &*hashes {
            if let Some(shard) = self.shards.get(key.slot) {
                shard.prefetch_entry(0, key);
            }
        }
        for (ranges, key) in ranges.chunks_exact(*argument_count).zip(&*hashes) {
            let args = Args::new(bytes, ranges, &mut []);
            let command = command::lookup(args.get(0)).expect("the command exists");
            let Run::Single(handler) = command.run else { panic!("a command of one key") };
            assert!(command.accepts(args.len()));
            let step = handler(&mut Call {
                shards: &mut self.shards,
                args,
                keys: std::slice::from_ref(key),
                database: 0,
                now_ms: NOW_MS,
                seed: 0,
                touch: true,
                settings: &self.settings,
                reply: Reply::new(&mut self.output, Protocol::Resp2),
            });
            assert!(matches!(step, Step::Done));
        }
        black_box(&self.output);
    }
}

fn apply(criterion: &mut Criterion) {
    let hasher = Hasher::new(1);
    let keys = shuffled_names();
    let mut shards = Shards::new(SHARD_COUNT);
    for number in 0..SHARD_COUNT {
        shards.adopt(number, Box::new(Shard::new(shards.slots_of(number), hasher.clone())));
    }
    let mut engine = Engine { shards, hasher, settings: Settings::default(), output: Vec::new() };
    let mut requests = Requests::new(3);
    for key in &keys {
        requests.write(b"SET", std::slice::from_ref(key));
        engine.apply(&mut requests);
        assert_eq!(engine.output, b"+OK\r\n");
    }
    assert_eq!(engine.shards.iter().map(|shard| shard.key_count(0)).sum::<usize>(), KEY_COUNT);

    let mut batches = Batches::new(keys);
    let mut group = criterion.benchmark_group("apply with 1M keys");
    for (name, argument_count) in [("GET", 2), ("SET", 3)] {
        for pipeline in [1, 16, 64] {
            let mut block: Vec<Requests> = (0..BLOCK).map(|_| Requests::new(argument_count)).collect();
            group.throughput(Throughput::Elements(pipeline as u64));
            group.bench_function(BenchmarkId::new(name, pipeline), |bencher| {
                bencher.iter_custom(|pipelines| {
                    let (mut left, mut elapsed) = (pipelines as usize, Duration::ZERO);
                    while left > 0 {
                        let block = &mut block[..left.min(BLOCK)];
                        for requests in &mut *block {
                            requests.write(name.as_bytes(), batches.next(pipeline));
                        }
                        let start = Instant::now();
                        for requests in &mut *block {
                            engine.apply(requests);
                        }
                        elapsed += start.elapsed();
                        left -= block.len();
                    }
                    elapsed
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, apply);
criterion_main!(benches);
