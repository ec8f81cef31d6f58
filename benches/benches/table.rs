//! The keyspace by itself, with a million keys: what a lookup and an overwrite cost alone, and in batches whose cache
//! misses overlap through prefetching.

mod keyspace;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use duva_engine::{Deadline, Hasher, KeyHash, SLOT_COUNT, Shard, Value};
use keyspace::{Batches, KEY_COUNT, NOW_MS, Name, shuffled_names};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 16;
const VALUE: [u8; 32] = [b'x'; 32];

/// A key with its place, which is not what is measured here.
struct Key {
    name: Name,
    hash: KeyHash,
}

fn get(shard: &mut Shard, key: &Key) -> usize {
    match shard.get(0, &key.name, key.hash, NOW_MS).map(|entry| entry.value()) {
        Some(Value::String(value)) => value.len(),
        None => panic!("every key is there"),
    }
}

fn set(shard: &mut Shard, key: &Key) {
    shard.set_string(0, &key.name, key.hash, black_box(&VALUE), Deadline::Clear, NOW_MS);
}

fn prefetch(shard: &Shard, keys: &[Key]) {
    for key in keys {
        shard.prefetch_table(0, key.hash);
    }
    for key in keys {
        shard.prefetch_entry(0, key.hash);
    }
}

fn table(criterion: &mut Criterion) {
    let hasher = Hasher::new(1);
    let keys: Vec<Key> =
        shuffled_names().into_iter().map(|name| Key { name, hash: hasher.key(&name) }).collect();
    let mut shard = Shard::new(0..SLOT_COUNT, hasher);
    for key in &keys {
        set(&mut shard, key);
    }
    assert_eq!(shard.key_count(0), KEY_COUNT);
    let mut batches = Batches::new(keys);

    let mut group = criterion.benchmark_group("table of 1M keys");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("get, 16 one by one", |bencher| {
        bencher.iter(|| batches.next(BATCH).iter().map(|key| get(&mut shard, key)).sum::<usize>());
    });
    group.bench_function("get, 16 prefetched", |bencher| {
        bencher.iter(|| {
            let keys = batches.next(BATCH);
            prefetch(&shard, keys);
            keys.iter().map(|key| get(&mut shard, key)).sum::<usize>()
        });
    });
    group.bench_function("set, 16 one by one", |bencher| {
        bencher.iter(|| batches.next(BATCH).iter().for_each(|key| set(&mut shard, key)));
    });
    group.bench_function("set, 16 prefetched", |bencher| {
        bencher.iter(|| {
            let keys = batches.next(BATCH);
            prefetch(&shard, keys);
            keys.iter().for_each(|key| set(&mut shard, key));
        });
    });
    // Which key comes next depends on the value before, so that no two misses overlap.
    group.throughput(Throughput::Elements(1));
    group.bench_function("get, each after the last", |bencher| {
        let mut length = VALUE.len();
        bencher.iter(|| {
            let step = 1 + length - VALUE.len();
            length = get(&mut shard, &batches.next(step)[0]);
        });
    });
    group.finish();
}

criterion_group!(benches, table);
criterion_main!(benches);
