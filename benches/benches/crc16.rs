//! From a key to its slot: CRC16 of the key or of its hash tag. It is paid for every key, so it must stay well below
//! the lookup that follows it.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use duva_engine::{Hasher, key_slot};

fn slots(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crc16");
    for length in [4, 8, 16, 32, 64, 256] {
        let key: Vec<u8> = (0..length).map(|index| b'a' + (index % 26) as u8).collect();
        group.throughput(Throughput::Bytes(length));
        group.bench_function(BenchmarkId::new("key", length), |bencher| {
            bencher.iter(|| key_slot(black_box(&key)));
        });
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("hash tag of 4 in a key of 16", |bencher| {
        bencher.iter(|| key_slot(black_box(b"user:{1234}:name")));
    });
    group.finish();
}

fn slot_and_hash(criterion: &mut Criterion) {
    let hasher = Hasher::new(1);
    criterion.bench_function("slot and hash of a key of 16", |bencher| {
        bencher.iter(|| hasher.key(black_box(b"key:000000000001")));
    });
}

criterion_group!(benches, slots, slot_and_hash);
criterion_main!(benches);
