//! Chunks for the slabs of all shards.
//!
//! Chunks are cut from *regions* of a few MiB, which come from the global allocator in one piece and are large enough
//! for huge pages. Shards share them, because a region for each of 64 shards would make a small database resident 64
//! times over. A lock is taken once a chunk, that is once in hundreds of entries.
//!
//! Invariant: a region goes back to the global allocator when none of its chunks is handed out.

use std::alloc::{Layout, dealloc};
use std::ptr::{self, NonNull};
use std::sync::{Mutex, PoisonError};

use super::{CHUNK_BYTES, Chunk, allocate_global, link, unlink};

const REGION_CHUNKS: usize = 128;

/// The chunks of this process.
static POOL: Mutex<Pool> = Mutex::new(Pool::new());

/// Hands out a chunk; only `region` of its header is written.
pub(super) fn take() -> NonNull<Chunk> {
    // The pool is consistent between any two statements that could panic.
    POOL.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Takes a chunk back.
///
/// # Safety
/// The chunk came from [`take`], is in no list, and nothing uses it any more.
pub(super) unsafe fn give(chunk: NonNull<Chunk>) {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: as the caller says.
    unsafe { pool.give(chunk) }
}

/// A piece of memory that chunks are cut from.
struct Region {
    base: NonNull<u8>,
    /// Chunks handed out at present.
    live: u32,
    /// Chunks ever cut: those from here on were never touched.
    cut: u32,
}

struct Pool {
    /// Chunks that were handed out before and are not now.
    free: *mut Chunk,
    /// `None` where a region was given back.
    regions: Vec<Option<Region>>,
    /// The region to cut the next chunk from.
    newest: usize,
}

// SAFETY: the pointers lead to memory that the pool alone owns; nothing in it belongs to a thread.
unsafe impl Send for Pool {}

impl Pool {
    const fn new() -> Self {
        Self { free: ptr::null_mut(), regions: Vec::new(), newest: 0 }
    }

    fn take(&mut self) -> NonNull<Chunk> {
        let (chunk, number) = match NonNull::new(self.free) {
            // SAFETY: a listed free chunk is alive, and its header is written.
            Some(chunk) => unsafe {
                unlink(&mut self.free, chunk.as_ptr());
                (chunk, chunk.as_ref().region)
            },
            None => self.cut(),
        };
        self.regions[number as usize].as_mut().expect("a chunk's region is alive").live += 1;
        // SAFETY: the chunk is alive and ours; a field is written without reading the rest of the header.
        unsafe { (&raw mut (*chunk.as_ptr()).region).write(number) };
        chunk
    }

    /// A chunk that was never used, and its region.
    fn cut(&mut self) -> (NonNull<Chunk>, u32) {
        let has_room =
            |region: &Option<Region>| region.as_ref().is_some_and(|region| region.cut < REGION_CHUNKS as u32);
        if !self.regions.get(self.newest).is_some_and(has_room) {
            let region = Region { base: allocate_global(region_layout()), live: 0, cut: 0 };
            // A vacant number is only looked for once a region: `regions` has one word for 4 MiB.
            self.newest = self.regions.iter().position(Option::is_none).unwrap_or(self.regions.len());
            if self.newest == self.regions.len() {
                self.regions.push(None);
            }
            self.regions[self.newest] = Some(region);
        }
        let region = self.regions[self.newest].as_mut().expect("the newest region is alive");
        // SAFETY: fewer than `REGION_CHUNKS` were cut, so the result lies within the region.
        let chunk = unsafe { region.base.add(region.cut as usize * CHUNK_BYTES) };
        region.cut += 1;
        (chunk.cast(), self.newest as u32)
    }

    /// # Safety
    /// As [`give`].
    unsafe fn give(&mut self, chunk: NonNull<Chunk>) {
        // SAFETY: as the caller says.
        let number = unsafe {
            link(&mut self.free, chunk.as_ptr());
            chunk.as_ref().region as usize
        };
        let region = self.regions[number].as_mut().expect("a chunk's region is alive");
        region.live -= 1;
        if region.live > 0 {
            return;
        }
        for index in 0..region.cut as usize {
            // SAFETY: every chunk that was cut has a header, and with none handed out all are in the free list.
            unsafe { unlink(&mut self.free, region.base.as_ptr().add(index * CHUNK_BYTES).cast()) };
        }
        // SAFETY: the region was allocated with this layout, and nothing points into it any more.
        unsafe { dealloc(region.base.as_ptr(), region_layout()) };
        self.regions[number] = None;
    }
}

fn region_layout() -> Layout {
    const { assert!(CHUNK_BYTES.is_power_of_two()) };
    Layout::from_size_align(REGION_CHUNKS * CHUNK_BYTES, CHUNK_BYTES).expect("constant and valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_without_chunks_go_back() {
        let mut pool = Pool::new();
        let live = |pool: &Pool| pool.regions.iter().flatten().count();
        let mut chunks: Vec<_> = (0..2 * REGION_CHUNKS + 1).map(|_| pool.take()).collect();
        assert_eq!(live(&pool), 3);
        let last = chunks.pop().expect("there are many");
        for chunk in chunks {
            // SAFETY: the chunk came from this pool and nothing uses it.
            unsafe { pool.give(chunk) };
        }
        assert_eq!(live(&pool), 1);
        let again = pool.take();
        assert_eq!(live(&pool), 1, "a region with room serves first");
        for chunk in [last, again] {
            // SAFETY: as above.
            unsafe { pool.give(chunk) };
        }
        assert_eq!(live(&pool), 0);
        assert!(pool.free.is_null());
    }
}
