//! The ring of receive buffers that the kernel takes from.
//!
//! Every buffer is in exactly one of three places: offered to the kernel, leased to the loop, or between a
//! completion and its reading. The memory is mapped once and lives as long as the process.

use std::{
    io,
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{IoUring, types::BufRingEntry};

/// A leased receive buffer: bytes that arrived.
#[derive(Debug)]
pub struct ReceiveBuffer {
    bytes: NonNull<u8>,
    length: u32,
    id: u16,
}

impl Deref for ReceiveBuffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is never unmapped, the kernel wrote `length` bytes, and it does not touch them again
        // before the lease is returned by value.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), self.length as usize) }
    }
}

pub(super) struct BufferRing {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    size_bytes: u32,
    /// Where the next returned buffer goes; published to the kernel once a turn.
    tail: u16,
}

impl BufferRing {
    /// Maps `count` (a power of two) buffers of `size_bytes` and registers them as `group`.
    pub(super) fn new(ring: &IoUring, group: u16, count: u16, size_bytes: u32) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        let entries = map(usize::from(count) * size_of::<BufRingEntry>())?.cast();
        let memory = map(usize::from(count) * size_bytes as usize)?;
        let mut this = Self { entries, memory, count, size_bytes, tail: 0 };
        // SAFETY: the mapping holds `count` entries and is never unmapped.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, count, group, 0)?;
        }
        for id in 0..count {
            this.offer(id);
        }
        this.publish();
        Ok(this)
    }

    /// Takes the buffer `id`, into which the kernel wrote `length` bytes.
    #[inline]
    pub(super) fn lease(&mut self, id: u16, length: u32) -> ReceiveBuffer {
        assert!(id < self.count && length <= self.size_bytes);
        // SAFETY: `id` is within the mapping.
        let bytes = unsafe { self.memory.add(usize::from(id) * self.size_bytes as usize) };
        ReceiveBuffer { bytes, length, id }
    }

    /// Takes a lease back.
    #[inline]
    pub(super) fn recycle(&mut self, buffer: ReceiveBuffer) {
        self.offer(buffer.id);
    }

    #[inline]
    fn offer(&mut self, id: u16) {
        let position = self.tail & (self.count - 1);
        // SAFETY: positions and ids are within their mappings; the kernel does not read an entry at or past the
        // published tail. Entry 0 shares its last two bytes with the ring's tail, which only `publish` writes.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(usize::from(position));
            entry.set_addr(self.memory.as_ptr().add(usize::from(id) * self.size_bytes as usize) as u64);
            entry.set_len(self.size_bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    /// Shows the kernel what was returned.
    #[inline]
    pub(super) fn publish(&mut self) {
        // SAFETY: the tail lies within the first entry, aligned to two bytes; the kernel reads it with acquire order.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

fn map(length_bytes: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a fresh anonymous mapping.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length_bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(NonNull::new(address.cast()).expect("mmap returned a null mapping"))
}
