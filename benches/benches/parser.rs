//! Parsing requests: what every byte from a client passes first.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use duva_net::resp::{Limits, Parser, Progress};

/// A request of bulk strings.
fn request(arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
    for argument in arguments {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Parses all requests in `bytes` and returns how many there were.
fn parse_all(bytes: &[u8], ranges: &mut Vec<(u32, u32)>) -> usize {
    let (limits, mut parser) = (Limits::default(), Parser::default());
    let (mut rest, mut count) = (bytes, 0);
    while !rest.is_empty() {
        ranges.clear();
        match parser.parse(rest, ranges, &limits) {
            Progress::Complete { consumed } => rest = &rest[consumed..],
            other => panic!("a whole request gave {other:?}"),
        }
        black_box(&*ranges);
        count += 1;
    }
    count
}

fn whole_requests(criterion: &mut Criterion) {
    let (key, value) = (b"key:000000000001".as_slice(), [b'x'; 64]);
    let mset: Vec<&[u8]> = [b"MSET".as_slice()].into_iter().chain([key, &value].repeat(10)).collect();
    let mut group = criterion.benchmark_group("parser");
    for (name, bytes) in [
        ("get", request(&[b"GET", key])),
        ("set of 64 bytes", request(&[b"SET", key, &value])),
        ("mset of 10 keys", request(&mset)),
        ("inline get", b"GET key:000000000001\r\n".to_vec()),
    ] {
        for pipeline in [1, 64] {
            let stream = bytes.repeat(pipeline);
            let mut ranges = Vec::new();
            group.throughput(Throughput::Elements(pipeline as u64));
            group.bench_function(BenchmarkId::new(name, pipeline), |bencher| {
                bencher.iter(|| assert_eq!(parse_all(black_box(&stream), &mut ranges), pipeline));
            });
        }
    }
    group.finish();
}

/// A pipeline that arrives in pieces of a TCP segment: every piece ends within a request.
fn pieces(criterion: &mut Criterion) {
    const SEGMENT_LEN_BYTES: usize = 1448;
    let stream = request(&[b"SET", b"key:000000000001", &[b'x'; 64]]).repeat(64);
    let (limits, mut ranges) = (Limits::default(), Vec::new());
    let mut group = criterion.benchmark_group("parser");
    group.throughput(Throughput::Elements(64));
    group.bench_function("set of 64 bytes in segments/64", |bencher| {
        bencher.iter(|| {
            let (mut parser, mut start, mut count) = (Parser::default(), 0, 0);
            let mut end = 0;
            while end < stream.len() {
                end = stream.len().min(end + SEGMENT_LEN_BYTES);
                while let Progress::Complete { consumed } =
                    parser.parse(black_box(&stream[start..end]), &mut ranges, &limits)
                {
                    black_box(&ranges);
                    ranges.clear();
                    start += consumed;
                    count += 1;
                }
            }
            assert_eq!(count, 64);
            ranges.clear();
        });
    });
    group.finish();
}

criterion_group!(benches, whole_requests, pieces);
criterion_main!(benches);
