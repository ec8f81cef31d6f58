//! On one io_uring, without anything between: multishot accept and receive, a ring of provided buffers, one send a
//! connection a turn, and the three set-up flags that matter most.

use std::{
    alloc::{Layout, alloc_zeroed},
    io,
    net::TcpListener,
    os::fd::AsRawFd,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{
    IoUring, cqueue, opcode, squeue,
    types::{BufRingEntry, Fd},
};

use crate::answer::answer;

const BUFFER_COUNT: u16 = 256;
const BUFFER_LEN_BYTES: usize = 16 << 10;

/// Kinds of operations; they and the descriptor make up the user data.
const ACCEPT: u64 = 1 << 32;
const RECEIVE: u64 = 2 << 32;
const SEND: u64 = 3 << 32;

#[derive(Default)]
struct Connection {
    /// The beginning of a request that is not whole.
    rest: Vec<u8>,
    /// Replies that wait for the send under way.
    output: Vec<u8>,
    /// What the kernel is sending; untouched until it says that it is done.
    sending: Vec<u8>,
    is_sending: bool,
    /// No more requests will be read; closes once nothing is being sent.
    is_ended: bool,
    is_dirty: bool,
}

pub(crate) fn serve(listener: &TcpListener) -> io::Result<()> {
    let mut ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_cqsize(8192)
        .build(1024)?;
    let mut buffers = Buffers::register(&ring)?;
    let mut connections: Vec<Connection> = Vec::new();
    let mut dirty: Vec<i32> = Vec::new();
    let mut completions: Vec<cqueue::Entry> = Vec::new();
    push(&mut ring, accept(listener.as_raw_fd()))?;
    loop {
        match ring.submit_and_wait(1) {
            // A signal, such as the one that continues a stopped process.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            submitted => drop(submitted?),
        }
        completions.extend(ring.completion());
        for completion in completions.drain(..) {
            let descriptor = completion.user_data() as u32 as i32;
            let result = completion.result();
            match completion.user_data() & !u64::from(u32::MAX) {
                ACCEPT => {
                    if result >= 0 {
                        let index = result as usize;
                        connections.resize_with(connections.len().max(index + 1), Connection::default);
                        connections[index] = Connection::default();
                        set_nodelay(result);
                        push(&mut ring, receive(result))?;
                    }
                    if !cqueue::more(completion.flags()) {
                        push(&mut ring, accept(descriptor))?;
                    }
                }
                RECEIVE => {
                    let connection = &mut connections[descriptor as usize];
                    if let Some(buffer) = cqueue::buffer_select(completion.flags()) {
                        let bytes = buffers.bytes(buffer, result.max(0) as usize);
                        connection.is_ended |= !connection.take(bytes);
                        buffers.give_back(buffer);
                    }
                    connection.is_ended |= result == 0 || (result < 0 && result != -libc::ENOBUFS);
                    if !cqueue::more(completion.flags()) && !connection.is_ended {
                        push(&mut ring, receive(descriptor))?;
                    }
                    if !connection.is_dirty {
                        connection.is_dirty = true;
                        dirty.push(descriptor);
                    }
                }
                _ => {
                    let connection = &mut connections[descriptor as usize];
                    connection.is_sending = false;
                    connection.is_ended |= result != connection.sending.len() as i32;
                    connection.sending.clear();
                    if !connection.is_dirty {
                        connection.is_dirty = true;
                        dirty.push(descriptor);
                    }
                }
            }
        }
        buffers.publish();
        for descriptor in dirty.drain(..) {
            let connection = &mut connections[descriptor as usize];
            connection.is_dirty = false;
            if connection.is_sending {
                continue;
            }
            if connection.is_ended {
                // SAFETY: the descriptor came from accept, and nothing uses it after this.
                unsafe { libc::close(descriptor) };
            } else if !connection.output.is_empty() {
                std::mem::swap(&mut connection.output, &mut connection.sending);
                connection.is_sending = true;
                let entry = send(descriptor, &connection.sending);
                push(&mut ring, entry)?;
            }
        }
    }
}

impl Connection {
    /// Answers what is whole of `bytes`, in place unless a request began before; false if they are no requests.
    fn take(&mut self, bytes: &[u8]) -> bool {
        if self.rest.is_empty() {
            return match answer(bytes, &mut self.output) {
                Some(consumed) => {
                    self.rest.extend_from_slice(&bytes[consumed..]);
                    true
                }
                None => false,
            };
        }
        self.rest.extend_from_slice(bytes);
        match answer(&self.rest, &mut self.output) {
            Some(consumed) => {
                self.rest.drain(..consumed);
                true
            }
            None => false,
        }
    }
}

fn accept(listener: i32) -> squeue::Entry {
    opcode::AcceptMulti::new(Fd(listener)).build().user_data(ACCEPT | listener as u64)
}

fn receive(descriptor: i32) -> squeue::Entry {
    opcode::RecvMulti::new(Fd(descriptor), 0).build().user_data(RECEIVE | descriptor as u64)
}

fn send(descriptor: i32, bytes: &[u8]) -> squeue::Entry {
    opcode::Send::new(Fd(descriptor), bytes.as_ptr(), bytes.len() as u32)
        .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
        .build()
        .user_data(SEND | descriptor as u64)
}

fn push(ring: &mut IoUring, entry: squeue::Entry) -> io::Result<()> {
    // SAFETY: the only memory that entries point to are `sending` buffers, which stay until their completion, and
    // whose heap memory does not move with their connection.
    while unsafe { ring.submission().push(&entry) }.is_err() {
        ring.submit()?;
    }
    Ok(())
}

fn set_nodelay(descriptor: i32) {
    let on: libc::c_int = 1;
    // SAFETY: the option is read from a local. A refusal costs latency only.
    unsafe {
        let length = size_of_val(&on) as libc::socklen_t;
        libc::setsockopt(descriptor, libc::IPPROTO_TCP, libc::TCP_NODELAY, (&raw const on).cast(), length);
    }
}

/// The buffers that receives take from. They live as long as the process.
struct Buffers {
    entries: *mut BufRingEntry,
    memory: *mut u8,
    tail: u16,
}

impl Buffers {
    fn register(ring: &IoUring) -> io::Result<Self> {
        let allocate = |len_bytes| {
            let layout = Layout::from_size_align(len_bytes, 4096).map_err(io::Error::other)?;
            // SAFETY: the layout is not empty.
            let memory = unsafe { alloc_zeroed(layout) };
            if memory.is_null() { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok::<_, io::Error>(memory) }
        };
        let entries = allocate(usize::from(BUFFER_COUNT) * size_of::<BufRingEntry>())?.cast();
        let memory = allocate(usize::from(BUFFER_COUNT) * BUFFER_LEN_BYTES)?;
        let mut buffers = Self { entries, memory, tail: 0 };
        // SAFETY: there are so many entries, aligned to a page, and they are never freed.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries as u64, BUFFER_COUNT, 0, 0)? };
        (0..BUFFER_COUNT).for_each(|buffer| buffers.give_back(buffer));
        buffers.publish();
        Ok(buffers)
    }

    fn bytes(&self, buffer: u16, len_bytes: usize) -> &[u8] {
        assert!(buffer < BUFFER_COUNT && len_bytes <= BUFFER_LEN_BYTES);
        // SAFETY: within the memory, which was zeroed, and the kernel does not write there until it is given back.
        unsafe {
            std::slice::from_raw_parts(self.memory.add(usize::from(buffer) * BUFFER_LEN_BYTES), len_bytes)
        }
    }

    fn give_back(&mut self, buffer: u16) {
        assert!(buffer < BUFFER_COUNT);
        // SAFETY: both places are within their memory, and the kernel reads no entry past the published tail.
        unsafe {
            let entry = &mut *self.entries.add(usize::from(self.tail % BUFFER_COUNT));
            entry.set_addr(self.memory.add(usize::from(buffer) * BUFFER_LEN_BYTES) as u64);
            entry.set_len(BUFFER_LEN_BYTES as u32);
            entry.set_bid(buffer);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail is in the first entry, aligned to two bytes, and read by the kernel with acquire order.
        unsafe {
            (*BufRingEntry::tail(self.entries).cast::<AtomicU16>()).store(self.tail, Ordering::Release)
        };
    }
}
