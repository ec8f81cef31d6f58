//! A hop between cores: a batch of requests there, a batch of replies back.
//!
//! Both ends spin. What a sleeping core adds is the kernel's price of a wake-up, which the side-by-side harness shows
//! (`--cores 2`).

use std::{
    hint::{black_box, spin_loop},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use duva_net::mesh::{Endpoint, mesh};

type Words = Vec<u64>;

const CAPACITY: usize = 8;
const BATCHES: [usize; 3] = [1, 16, 64];

/// Sends `count` words to `core`.
fn ask(endpoint: &mut Endpoint<Words>, core: usize, count: usize) {
    endpoint.outgoing(core).extend(0..count as u64);
    endpoint.publish_all(|_| {});
}

/// Answers every word that has arrived.
fn answer(endpoint: &mut Endpoint<Words>) {
    let received = endpoint.exchange(|from, words, outbox| {
        outbox.outgoing(from).extend(words.drain(..).map(|word| word + 1));
    });
    if received > 0 {
        endpoint.publish_all(|_| {});
    }
}

/// Takes the words that have arrived and returns how many they were.
fn take(endpoint: &mut Endpoint<Words>) -> usize {
    let mut count = 0;
    let received = endpoint.receive(|_, words| {
        count += black_box(&*words).len();
        words.clear();
    });
    if received > 0 {
        endpoint.publish_all(|_| {});
    }
    count
}

fn one_thread(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mesh");
    for count in BATCHES {
        let mut endpoints = mesh::<Words>(2, CAPACITY);
        let [first, second] = &mut endpoints[..] else { unreachable!("two were made") };
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(BenchmarkId::new("there and back on one thread", count), |bencher| {
            bencher.iter(|| {
                ask(first, 1, count);
                answer(second);
                assert_eq!(take(first), count);
            });
        });
    }
    group.finish();
}

fn two_threads(criterion: &mut Criterion) {
    if thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("mesh: two threads that spin need two CPUs");
        return;
    }
    let mut group = criterion.benchmark_group("mesh");
    for count in BATCHES {
        let mut endpoints = mesh::<Words>(2, CAPACITY).into_iter();
        let (Some(mut first), Some(mut second)) = (endpoints.next(), endpoints.next()) else {
            unreachable!("two were made")
        };
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                pin(1);
                while !ended.load(Ordering::Relaxed) {
                    answer(&mut second);
                    spin_loop();
                }
            });
            pin(0);
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(BenchmarkId::new("there and back on two", count), |bencher| {
                bencher.iter(|| {
                    ask(&mut first, 1, count);
                    let mut back = 0;
                    while back < count {
                        back += take(&mut first);
                        spin_loop();
                    }
                });
            });
            ended.store(true, Ordering::Relaxed);
        });
    }
    group.finish();
}

/// Keeps the calling thread on one CPU, if it may run there.
fn pin(cpu: usize) {
    // SAFETY: an all-zero set is the empty one, `cpu` is far below its end, and the kernel reads it from a local.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &raw const set);
    }
}

criterion_group!(benches, one_thread, two_threads);
criterion_main!(benches);
