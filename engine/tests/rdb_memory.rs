//! What an RDB stream announces takes no memory before it comes.

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use duva_engine::rdb::{Item, Reader, Visitor, restore_payload};

/// The system's allocator, and the largest allocation that was asked of it.
struct Watched;

static LARGEST_BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST_BYTES.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        LARGEST_BYTES.fetch_max(new_size, Ordering::Relaxed);
        // SAFETY: as the caller says.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

#[derive(Default)]
struct Ignore;

impl Visitor for Ignore {
    type Error = Infallible;

    fn entry(&mut self, _: Item<'_>) -> Result<(), Infallible> {
        Ok(())
    }
}

/// The largest allocation that `run` asked for.
fn largest_bytes(run: impl FnOnce()) -> usize {
    LARGEST_BYTES.store(0, Ordering::Relaxed);
    run();
    LARGEST_BYTES.load(Ordering::Relaxed)
}

// One test, because the allocator watches every thread.
#[test]
fn announced_lengths_allocate_nothing() {
    const CONTENT_BYTES: usize = 200_000;
    let short = vec![b'v'; 1 << 20];
    let watched = largest_bytes(|| drop(short.clone()));
    assert_eq!(watched, 1 << 20, "the allocator is watched");

    for announced in [1_u64 << 22, 1 << 30, 1 << 40, (1 << 63) - 1, u64::MAX] {
        let length = [&[0x81], &announced.to_be_bytes()[..]].concat();
        for records in [
            [&b"\x00"[..], &length].concat(),
            [&b"\x00\x01k"[..], &length].concat(),
            [&b"\x00\xc3"[..], &length, &length].concat(),
            [&b"\x00\x01k\xc3\x05"[..], &length, b"\x00a\x20\x00\x00"].concat(),
            [&b"\x00\x01k\xc3"[..], &length, &length].concat(),
            [&b"\xfa"[..], &length].concat(),
            [&b"\xfa\x01a"[..], &length].concat(),
            [&b"\xfb"[..], &length, &length].concat(),
            [&b"\x01"[..], &length].concat(),
        ] {
            let stream = [b"REDIS0010", &records[..], &[0xF0; CONTENT_BYTES]].concat();
            for piece_bytes in [1000, stream.len()] {
                let largest = largest_bytes(|| {
                    let mut reader = Reader::new();
                    let failed =
                        stream.chunks(piece_bytes).any(|piece| reader.feed(piece, &mut Ignore).is_err());
                    assert!(failed || reader.finish().is_err());
                });
                assert!(largest <= 2 * stream.len(), "{largest} for {}", records.escape_ascii());
            }
            let largest = largest_bytes(|| assert!(restore_payload(&records, u64::MAX).is_err()));
            assert!(largest <= 2 * records.len(), "{largest} for {}", records.escape_ascii());
        }
    }
}
