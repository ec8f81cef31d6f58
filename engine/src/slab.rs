//! Memory for entries: size classes of eight bytes, so that a 56-byte entry takes 56 bytes.
//!
//! Every small block lives in a *chunk* of one size class. Chunks are aligned to their size, so a block's
//! chunk is found by masking its address; chunks come from a [`pool`] that all slabs share. Larger blocks go to the
//! global allocator directly.
//!
//! Invariants:
//!
//! - A block's class follows from its size alone, which the caller passes to both `allocate` and `release`.
//! - A chunk is linked in its class's list exactly while it has room.
//! - A chunk without blocks goes back to the pool, unless it is its class's last one with room.

mod pool;

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::{self, NonNull};

/// The largest block that comes from a chunk, in bytes.
pub(crate) const SLAB_SIZE_MAX: usize = 512;

const CHUNK_BYTES: usize = 32 << 10;
const CLASS_COUNT: usize = SLAB_SIZE_MAX / 8;

/// Blocks start here: the header has a cache line of its own.
const BLOCKS_OFFSET: usize = 64;

/// Sits at the start of each chunk.
#[repr(C)]
struct Chunk {
    /// Neighbours in the list of the class's chunks with room, or of the pool's free chunks.
    previous: *mut Chunk,
    next: *mut Chunk,
    /// Released blocks; each one's first word points to the next.
    free: *mut u8,
    /// Where the part begins that was never handed out.
    fresh: u32,
    /// Blocks in use.
    live: u32,
    /// Blocks' size in bytes.
    size: u32,
    /// The pool's number for the region that it was cut from.
    region: u32,
    /// Where the slab's list of all its chunks has it.
    number: u32,
}

const _: () = assert!(size_of::<Chunk>() <= BLOCKS_OFFSET);

impl Chunk {
    fn is_full(&self) -> bool {
        self.free.is_null() && self.fresh as usize + self.size as usize > CHUNK_BYTES
    }
}

/// The memory of one shard's entries.
pub(crate) struct Slab {
    /// By class: the first chunk with room.
    partial: [*mut Chunk; CLASS_COUNT],
    /// Every chunk of this slab.
    chunks: Vec<NonNull<Chunk>>,
    used_bytes: usize,
    live_blocks: usize,
    large_blocks: usize,
}

// SAFETY: the pointers lead to memory that this slab alone owns; nothing in it belongs to a thread.
unsafe impl Send for Slab {}

impl Slab {
    pub(crate) fn new() -> Self {
        Self {
            partial: [ptr::null_mut(); CLASS_COUNT],
            chunks: Vec::new(),
            used_bytes: 0,
            live_blocks: 0,
            large_blocks: 0,
        }
    }

    /// What a block of `size` bytes takes: `size`, rounded up to its class.
    #[inline]
    pub(crate) const fn rounded(size: usize) -> usize {
        (size + 7) & !7
    }

    /// Bytes in blocks, rounded up to their classes.
    #[inline]
    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Blocks in use.
    pub(crate) fn live_blocks(&self) -> usize {
        self.live_blocks
    }

    /// Blocks in use that came from the global allocator, which dropping the slab does not free.
    pub(crate) fn large_blocks(&self) -> usize {
        self.large_blocks
    }

    /// A block of `size` bytes (at least one), aligned to eight, its content undefined.
    #[inline]
    pub(crate) fn allocate(&mut self, size: usize) -> NonNull<u8> {
        debug_assert!(size > 0);
        let size = Self::rounded(size);
        self.used_bytes += size;
        self.live_blocks += 1;
        if size > SLAB_SIZE_MAX {
            self.large_blocks += 1;
            return allocate_global(large_layout(size));
        }
        let class = size / 8 - 1;
        if self.partial[class].is_null() {
            self.add_chunk(class);
        }
        let chunk = self.partial[class];
        // SAFETY: a listed chunk is alive and ours alone, and has room: either a released block, whose first word
        // is the list's next link, or the range from `fresh` on, which lies within the chunk.
        unsafe {
            let block = (*chunk).free;
            let block = if block.is_null() {
                let block = chunk.cast::<u8>().add((*chunk).fresh as usize);
                (*chunk).fresh += size as u32;
                block
            } else {
                (*chunk).free = block.cast::<*mut u8>().read();
                block
            };
            (*chunk).live += 1;
            if (*chunk).is_full() {
                unlink(&mut self.partial[class], chunk);
            }
            NonNull::new_unchecked(block)
        }
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// This slab's `allocate` returned `block` for the same rounded `size`, and nobody uses it any more.
    #[inline]
    pub(crate) unsafe fn release(&mut self, block: NonNull<u8>, size: usize) {
        let size = Self::rounded(size);
        self.used_bytes -= size;
        self.live_blocks -= 1;
        if size > SLAB_SIZE_MAX {
            self.large_blocks -= 1;
            // SAFETY: blocks of this size come from the global allocator with this layout.
            unsafe { dealloc(block.as_ptr(), large_layout(size)) };
            return;
        }
        let class = size / 8 - 1;
        let block = block.as_ptr();
        let chunk = block.map_addr(|address| address & !(CHUNK_BYTES - 1)).cast::<Chunk>();
        // SAFETY: chunks are aligned to their size, so the mask leads to the header of the block's chunk, which is
        // alive while one of its blocks is; the block is unused, so its first word may become a link.
        unsafe {
            debug_assert_eq!(
                (*chunk).size as usize,
                size,
                "a block returns with the size it was allocated with"
            );
            let was_full = (*chunk).is_full();
            block.cast::<*mut u8>().write((*chunk).free);
            (*chunk).free = block;
            (*chunk).live -= 1;
            if was_full {
                link(&mut self.partial[class], chunk);
            }
            if (*chunk).live == 0 && !((*chunk).previous.is_null() && (*chunk).next.is_null()) {
                unlink(&mut self.partial[class], chunk);
                self.release_chunk(NonNull::new_unchecked(chunk));
            }
        }
    }

    /// Gives `class` one more chunk.
    #[cold]
    fn add_chunk(&mut self, class: usize) {
        let chunk = pool::take();
        let number = self.chunks.len() as u32;
        self.chunks.push(chunk);
        // SAFETY: the chunk is `CHUNK_BYTES` of our memory that no block uses.
        unsafe {
            let region = chunk.as_ref().region;
            chunk.write(Chunk {
                previous: ptr::null_mut(),
                next: ptr::null_mut(),
                free: ptr::null_mut(),
                fresh: BLOCKS_OFFSET as u32,
                live: 0,
                size: (class as u32 + 1) * 8,
                region,
                number,
            });
            link(&mut self.partial[class], chunk.as_ptr());
        }
    }

    /// Returns an unlinked chunk without blocks to the pool.
    ///
    /// # Safety
    /// The chunk is this slab's, has no blocks in use and is in no list.
    #[cold]
    unsafe fn release_chunk(&mut self, chunk: NonNull<Chunk>) {
        // SAFETY: as the caller says; chunks in the slab's list are alive.
        unsafe {
            let number = chunk.as_ref().number;
            self.chunks.swap_remove(number as usize);
            if let Some(moved) = self.chunks.get_mut(number as usize) {
                moved.as_mut().number = number;
            }
            pool::give(chunk);
        }
    }
}

impl Drop for Slab {
    /// Returns the chunks, whatever is left in them. Large blocks must have been released before.
    fn drop(&mut self) {
        for chunk in self.chunks.drain(..) {
            // SAFETY: the chunk came from the pool, and its slab's lists are used no more.
            unsafe { pool::give(chunk) };
        }
    }
}

/// Puts `chunk` at the head of a list.
///
/// # Safety
/// The list's chunks and `chunk` are alive; `chunk` is in no list.
unsafe fn link(head: &mut *mut Chunk, chunk: *mut Chunk) {
    // SAFETY: as the caller says.
    unsafe {
        (*chunk).previous = ptr::null_mut();
        (*chunk).next = *head;
        if !head.is_null() {
            (**head).previous = chunk;
        }
    }
    *head = chunk;
}

/// Takes `chunk` out of the list with this head.
///
/// # Safety
/// `chunk` is in that list, whose chunks are alive.
unsafe fn unlink(head: &mut *mut Chunk, chunk: *mut Chunk) {
    // SAFETY: as the caller says.
    unsafe {
        let (previous, next) = ((*chunk).previous, (*chunk).next);
        if previous.is_null() {
            *head = next;
        } else {
            (*previous).next = next;
        }
        if !next.is_null() {
            (*next).previous = previous;
        }
        (*chunk).previous = ptr::null_mut();
        (*chunk).next = ptr::null_mut();
    }
}

fn large_layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("no entry approaches the address space")
}

fn allocate_global(layout: Layout) -> NonNull<u8> {
    // SAFETY: no caller asks for a size of zero.
    let block = unsafe { alloc(layout) };
    NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A block filled with its own mark.
    struct Block {
        pointer: NonNull<u8>,
        size: usize,
        mark: u8,
    }

    fn allocate(slab: &mut Slab, size: usize, mark: u8) -> Block {
        let pointer = slab.allocate(size);
        assert_eq!(pointer.as_ptr() as usize % 8, 0);
        // SAFETY: the block has `size` bytes.
        unsafe { pointer.as_ptr().write_bytes(mark, size) };
        Block { pointer, size, mark }
    }

    fn release(slab: &mut Slab, block: Block) {
        // SAFETY: the block is in use and has `size` bytes, all written.
        let content = unsafe { std::slice::from_raw_parts(block.pointer.as_ptr(), block.size) };
        assert!(content.iter().all(|&byte| byte == block.mark), "another block wrote here");
        // SAFETY: it came from this slab with this size, and is used no more.
        unsafe { slab.release(block.pointer, block.size) };
    }

    #[test]
    fn classes_are_eight_bytes_apart() {
        let mut slab = Slab::new();
        let blocks = [1, 8, 56, 57, 512, 513].map(|size| allocate(&mut slab, size, 7));
        assert_eq!(slab.used_bytes(), 8 + 8 + 56 + 64 + 512 + 520);
        assert_eq!((slab.live_blocks(), slab.large_blocks()), (6, 1));
        blocks.into_iter().for_each(|block| release(&mut slab, block));
        assert_eq!((slab.used_bytes(), slab.live_blocks(), slab.large_blocks()), (0, 0, 0));
    }

    #[test]
    fn memory_of_free_chunks_returns() {
        let mut slab = Slab::new();
        let blocks: Vec<Block> = (0..100_000).map(|number| allocate(&mut slab, 48, number as u8)).collect();
        assert!(slab.chunks.len() >= 100_000 * 48 / CHUNK_BYTES);
        blocks.into_iter().for_each(|block| release(&mut slab, block));
        assert_eq!(slab.chunks.len(), 1, "one chunk of the class stays");

        // Chunks of one class serve another.
        let blocks: Vec<Block> = (0..100_000).map(|number| allocate(&mut slab, 96, number as u8)).collect();
        blocks.into_iter().rev().for_each(|block| release(&mut slab, block));
        assert!(slab.chunks.len() <= 2);
    }

    proptest! {
        #[test]
        fn blocks_never_overlap(steps in prop::collection::vec((any::<bool>(), 1..700_usize, any::<u16>()), 1..2_000)) {
            let mut slab = Slab::new();
            let mut blocks: Vec<Block> = Vec::new();
            let mut bytes = 0;
            for (number, (add, size, choice)) in steps.into_iter().enumerate() {
                if add || blocks.is_empty() {
                    blocks.push(allocate(&mut slab, size, number as u8));
                    bytes += Slab::rounded(size);
                } else {
                    let block = blocks.swap_remove(usize::from(choice) % blocks.len());
                    bytes -= Slab::rounded(block.size);
                    release(&mut slab, block);
                }
                prop_assert_eq!((slab.used_bytes(), slab.live_blocks()), (bytes, blocks.len()));
            }
            blocks.into_iter().for_each(|block| release(&mut slab, block));
            prop_assert_eq!((slab.used_bytes(), slab.live_blocks(), slab.large_blocks()), (0, 0, 0));
        }
    }
}
