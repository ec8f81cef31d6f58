//! [`Io`] on one io_uring a core.
//!
//! The ring is made on the thread that uses it, with SINGLE_ISSUER, DEFER_TASKRUN and COOP_TASKRUN: completions are
//! reaped when the loop asks for them and never interrupt it. Accepts and receives are multishot, but for those on
//! Unix sockets' connections; receives take buffers from a ring that the kernel and this module share.

mod buffers;
mod connects;
mod files;
mod setup;
mod spin;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, os::fd::AsRawFd, time::Duration};

use io_uring::{
    EnterFlags, IoUring, cqueue, opcode, squeue,
    types::{CancelBuilder, Fd, SubmitArgs, Timespec},
};

use buffers::BufferRing;
pub use buffers::ReceiveBuffer;
use connects::Connects;
use files::Files;
pub use setup::{RingError, RingOptions, WakeHandle};
use spin::{SPIN_NS, Spin};

use crate::io::{Clock, Event, File, FileTask, GENERATION_LIMIT, Io, ReceiveEnd, Socket, Token, Wait};
use crate::socket;

/// How long a turn that wants several completions waits for them before one is enough.
const BATCH_WAIT_US: u32 = 20;

/// How long a turn that wants one completion beside those of its sends waits for it, before it looks at what is there: a
/// send may be slow to complete.
const SEND_WAIT_US: u32 = 200;

/// More sends than these in a turn are not held up for a sync: the writes that come meanwhile then share the next one, and a
/// core that is never done saves more by that than the disk loses.
const YIELD_SENDS_MAX: u32 = 32;

/// The most that one receive into private memory waits for: the loop sees large bulks arrive in steps of this size.
const WHOLE_RECEIVE_BYTES: usize = 256 << 10;

/// The group number of the receive buffers.
const BUFFER_GROUP: u16 = 0;

/// What an operation was, in the top byte of its user data.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Accept = 1,
    Receive,
    ReceiveInto,
    Send,
    Wake,
    Sync,
    /// Operations whose completion says nothing: cancel, shutdown, close, wake-ups sent.
    Ignored,
    Connect,
}

impl Kind {
    fn data(self, token: Token) -> u64 {
        debug_assert!(token.generation < GENERATION_LIMIT);
        u64::from(self as u8) << 56 | u64::from(token.generation) << 32 | u64::from(token.index)
    }

    fn split(data: u64) -> (Self, Token) {
        let kind = match (data >> 56) as u8 {
            1 => Self::Accept,
            2 => Self::Receive,
            3 => Self::ReceiveInto,
            4 => Self::Send,
            5 => Self::Wake,
            6 => Self::Sync,
            7 => Self::Ignored,
            8 => Self::Connect,
            other => panic!("a completion of unknown kind {other}"),
        };
        (kind, Token { index: data as u32, generation: (data >> 32) as u32 & (GENERATION_LIMIT - 1) })
    }
}

/// One core's ring.
pub struct Ring {
    ring: IoUring,
    buffers: BufferRing,
    listeners: Vec<socket::Listener>,
    /// Ring descriptors and wake descriptors of all cores.
    wakes: Vec<WakeHandle>,
    wake_value: Box<u64>,
    own_wake: WakeHandle,
    /// Buffers of sends under way, by connection index.
    sending: Vec<Vec<u8>>,
    /// Buffers of receives into private memory under way, by connection index.
    receiving: Vec<Vec<u8>>,
    /// Whether a descriptor is known to be a connection of a Unix socket: from its first receive here until it is closed here.
    unix_connections: Vec<bool>,
    files: Files,
    connects: Connects,
    completions: Vec<(u64, i32, u32)>,
    next_completion: usize,
    /// Completions that come by themselves soon after the next submission: sends queued in this turn.
    sends_queued: u32,
    /// How many of the entries that wait to be submitted there are up to the last sync that goes first.
    queued_to_sync: u32,
    /// How often the worker was let in.
    #[cfg(test)]
    worker_turns: u32,
    random_state: u64,
    can_batch: bool,
    spin: Spin,
}

impl Ring {
    /// Makes the ring on the calling thread, which becomes the only one to use it.
    pub fn new(options: RingOptions) -> Result<Self, RingError> {
        setup::new(options)
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: every buffer an entry points to is owned by `self` (sending, receiving, connects, files, wake_value) until its
        // completion was reaped, and `Drop` leaks those still under way.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.enter(0, 0, None);
        }
    }

    fn enter(&mut self, events: u32, batch_wait_us: u32, timeout: Option<Duration>) {
        if events == 0 {
            let queued = self.ring.submission().len() as u32;
            // SAFETY: no argument is passed. GETEVENTS runs the deferred work that posts completions.
            let result = unsafe {
                self.ring.submitter().enter::<libc::sigset_t>(queued, 0, EnterFlags::GETEVENTS.bits(), None)
            };
            return Self::check(result);
        }
        let timespec;
        let mut arguments = SubmitArgs::new();
        if events > 1 {
            arguments = arguments.min_wait_usec(batch_wait_us);
        }
        let result = match timeout {
            Some(timeout) => {
                timespec = Timespec::from(timeout);
                self.ring.submitter().submit_with_args(events as usize, &arguments.timespec(&timespec))
            }
            None => self.ring.submitter().submit_with_args(events as usize, &arguments),
        };
        Self::check(result);
    }

    fn check(result: io::Result<usize>) {
        match result {
            Ok(_) => {}
            // Timed out, interrupted, or completions must be reaped first: the turn goes on with what is there.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) => {}
            Err(error) => panic!("io_uring_enter: {error}"),
        }
    }

    /// Lets the kernel's thread that syncs go on, as far as it can, before this turn's sends. It runs on this core's CPU, and
    /// the scheduler would not take that from a core that is at work: the disk would be idle until the core is.
    fn let_worker_in(&mut self) {
        let queued = std::mem::take(&mut self.queued_to_sync);
        if queued > 0 {
            // SAFETY: no argument is passed.
            Self::check(unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, 0, None) });
        }
        std::thread::yield_now();
        #[cfg(test)]
        {
            self.worker_turns += 1;
        }
    }

    /// Submits, and looks for a completion that is not one of this turn's sends, for a moment, if that has paid lately.
    /// Returns whether one is there.
    fn spin_for_one(&mut self) -> bool {
        if !self.spin.is_due() {
            return false;
        }
        let sends = std::mem::take(&mut self.sends_queued) as usize;
        self.enter(0, 0, None);
        let end_ns = read_clock_ns(libc::CLOCK_MONOTONIC) + SPIN_NS;
        let mut found = self.ring.completion().len() > sends;
        // The flag says that completions wait to be posted, without a system call.
        while !found && read_clock_ns(libc::CLOCK_MONOTONIC) < end_ns {
            for _ in 0..16 {
                std::hint::spin_loop();
            }
            found = self.ring.submission().taskrun();
        }
        self.spin.learn(found);
        if found {
            self.enter(0, 0, None);
        }
        found || !self.ring.completion().is_empty()
    }

    /// Takes over what has completed.
    fn reap(&mut self) {
        self.sends_queued = 0;
        self.completions.clear();
        self.next_completion = 0;
        self.completions
            .extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result(), entry.flags())));
    }

    fn arm_wake(&mut self) {
        let entry = opcode::Read::new(
            Fd(self.own_wake.event.as_raw_fd()),
            (&raw mut *self.wake_value).cast(),
            size_of::<u64>() as u32,
        )
        .build()
        .user_data(Kind::Wake.data(Token::default()));
        self.push(entry);
    }

    /// Whether a connection is one of a Unix socket. The ring that accepted it need not be this one.
    fn is_unix_connection(&mut self, socket: Socket) -> bool {
        let place = socket.0 as usize;
        if self.unix_connections.get(place) == Some(&true) {
            return true;
        }
        // Receives on other connections are armed so rarely that asking again costs nothing.
        let is_unix = socket::is_unix(socket.0);
        if is_unix {
            self.unix_connections.resize(self.unix_connections.len().max(place + 1), false);
            self.unix_connections[place] = true;
        }
        is_unix
    }

    fn slot(slots: &mut Vec<Vec<u8>>, token: Token) -> &mut Vec<u8> {
        let index = token.index as usize;
        if slots.len() <= index {
            slots.resize_with(index + 1, Vec::new);
        }
        &mut slots[index]
    }
}

impl Io for Ring {
    type Buffer = ReceiveBuffer;

    fn clock(&mut self) -> Clock {
        Clock {
            wall_ms: read_clock_ns(libc::CLOCK_REALTIME) / 1_000_000,
            monotonic_ns: read_clock_ns(libc::CLOCK_BOOTTIME),
        }
    }

    fn random(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014), seeded from the kernel.
        self.random_state = self.random_state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random_state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn accept(&mut self, listener: u32) {
        let descriptor = self.listeners[listener as usize].as_raw_fd();
        let entry = opcode::AcceptMulti::new(Fd(descriptor))
            .flags(libc::SOCK_CLOEXEC)
            .build()
            .user_data(Kind::Accept.data(Token { index: listener, generation: 0 }));
        self.push(entry);
    }

    fn connect(&mut self, ticket: u64, address: SocketAddr) {
        if let Some(entry) = self.connects.begin(ticket, address) {
            self.push(entry);
        }
    }

    fn receive(&mut self, connection: Token, socket: Socket) {
        let entry = if self.is_unix_connection(socket) {
            // Kernels that know how much a Unix socket holds (6.17 and later, until it is repaired there) lose its end in a multishot
            // receive, if the last bytes and the end come before the receive goes on: github.com/axboe/liburing/issues/1549.
            opcode::Recv::new(Fd(socket.0), std::ptr::null_mut(), 0)
                .buf_group(BUFFER_GROUP)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT)
        } else {
            opcode::RecvMulti::new(Fd(socket.0), BUFFER_GROUP).build()
        };
        self.push(entry.user_data(Kind::Receive.data(connection)));
    }

    fn receive_into(&mut self, connection: Token, socket: Socket, mut buffer: Vec<u8>, length_max: usize) {
        let spare = buffer.spare_capacity_mut();
        let length = spare.len().min(length_max).min(WHOLE_RECEIVE_BYTES);
        assert!(length > 0, "a receive needs room");
        let entry = opcode::Recv::new(Fd(socket.0), spare.as_mut_ptr().cast(), length as u32)
            .flags(libc::MSG_WAITALL)
            .build()
            .user_data(Kind::ReceiveInto.data(connection));
        let slot = Self::slot(&mut self.receiving, connection);
        assert!(slot.capacity() == 0, "two receives on one connection");
        *slot = buffer;
        self.push(entry);
    }

    fn cancel_receive(&mut self, connection: Token) {
        for kind in [Kind::Receive, Kind::ReceiveInto] {
            let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(kind.data(connection)))
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(Kind::Ignored.data(Token::default()));
            self.push(entry);
        }
    }

    fn recycle(&mut self, buffer: ReceiveBuffer) {
        self.buffers.recycle(buffer);
    }

    fn send(&mut self, connection: Token, socket: Socket, buffer: Vec<u8>, offset: usize) {
        let bytes = &buffer[offset..];
        assert!(!bytes.is_empty(), "an empty send never completes with progress");
        let entry = opcode::Send::new(Fd(socket.0), bytes.as_ptr(), bytes.len().min(1 << 30) as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build()
            .user_data(Kind::Send.data(connection));
        let slot = Self::slot(&mut self.sending, connection);
        assert!(slot.capacity() == 0, "two sends on one connection");
        *slot = buffer;
        self.sends_queued += 1;
        self.push(entry);
    }

    fn shutdown(&mut self, socket: Socket) {
        // A system call of its own, which connections rarely need: the ring would leave it to a worker that looks the
        // descriptor up later, when it may belong to another connection.
        // SAFETY: shutdown takes no pointers; the descriptor is open, as it is closed through this ring alone.
        unsafe { libc::shutdown(socket.0, libc::SHUT_RDWR) };
    }

    fn close(&mut self, socket: Socket) {
        if let Some(is_unix) = self.unix_connections.get_mut(socket.0 as usize) {
            *is_unix = false;
        }
        let entry = opcode::Close::new(Fd(socket.0))
            .build()
            .flags(squeue::Flags::SKIP_SUCCESS)
            .user_data(Kind::Ignored.data(Token::default()));
        self.push(entry);
    }

    fn addresses(&mut self, socket: Socket) -> (String, String) {
        socket::addresses(socket.0)
    }

    fn set_keepalive(&mut self, seconds: u32) {
        for listener in &self.listeners {
            // An option that the kernel has just accepted at start; a refusal leaves the old value in force.
            let _ = listener.set_keepalive(seconds);
        }
    }

    fn file_task(&mut self, ticket: u64, task: FileTask) {
        self.files.give(ticket, task);
    }

    fn write_file(&mut self, file: File, bytes: &[u8], offset_bytes: u64) -> Result<(), i32> {
        self.files.write(file, bytes, offset_bytes)
    }

    fn sync_file(&mut self, ticket: u64, file: File, is_first: bool) {
        let entry = self.files.begin_sync(ticket, file, is_first);
        self.push(entry);
        if is_first {
            self.queued_to_sync = self.ring.submission().len() as u32;
        }
    }

    fn wake(&mut self, core: usize) {
        let entry = opcode::MsgRingData::new(
            Fd(self.wakes[core].ring),
            0,
            Kind::Wake.data(Token { index: 1, generation: 0 }),
            None,
        )
        .build()
        .flags(squeue::Flags::SKIP_SUCCESS)
        .user_data(Kind::Ignored.data(Token::default()));
        self.push(entry);
    }

    fn turn(&mut self, wait: Wait) {
        assert!(self.next_completion == self.completions.len(), "a turn left completions unread");
        assert!(self.files.done.is_empty(), "a turn left finished tasks unread");
        self.buffers.publish();
        let is_syncing = self.files.first_syncs > 0;
        if is_syncing
            && self.sends_queued <= YIELD_SENDS_MAX
            && (self.sends_queued > 0 || !matches!(wait, Wait::Block { .. }))
        {
            self.let_worker_in();
        }
        self.queued_to_sync = 0;
        match wait {
            // An attempt to connect that failed at once is told in this turn.
            _ if self.connects.has_failed() => self.enter(0, 0, None),
            Wait::Poll => self.enter(0, 0, None),
            Wait::Yield => {
                self.enter(0, 0, None);
                if self.ring.completion().is_empty() {
                    std::thread::yield_now();
                    self.enter(0, 0, None);
                }
            }
            Wait::Block { events, timeout } => {
                if events == 1 && !is_syncing && self.spin_for_one() {
                    return self.reap();
                }
                // Sends usually complete while they are submitted; they are no news to wait for.
                let wait_us = if events > 1 { BATCH_WAIT_US } else { SEND_WAIT_US };
                self.enter(if self.can_batch { events + self.sends_queued } else { 1 }, wait_us, timeout);
            }
        }
        self.reap();
    }

    fn next_event(&mut self) -> Option<Event<ReceiveBuffer>> {
        loop {
            if let Some(done) = self.files.done.pop_front() {
                return Some(Event::FileDone {
                    ticket: done.ticket,
                    buffer: done.buffer,
                    result: done.result,
                });
            }
            if let Some(event) = self.connects.take_failed() {
                return Some(event);
            }
            let &(data, result, flags) = self.completions.get(self.next_completion)?;
            self.next_completion += 1;
            let (kind, connection) = Kind::split(data);
            let armed = cqueue::more(flags);
            return Some(match kind {
                Kind::Receive => {
                    let leased =
                        cqueue::buffer_select(flags).map(|id| self.buffers.lease(id, result.max(0) as u32));
                    let result = match (leased, result) {
                        (Some(buffer), 1..) => Ok(buffer),
                        (leased, result) => {
                            if let Some(buffer) = leased {
                                self.buffers.recycle(buffer);
                            }
                            Err(receive_end(result))
                        }
                    };
                    Event::Received { connection, result, armed }
                }
                Kind::Send => {
                    let buffer = std::mem::take(&mut self.sending[connection.index as usize]);
                    let result = if result >= 0 { Ok(result as usize) } else { Err(-result) };
                    Event::Sent { connection, buffer, result }
                }
                Kind::ReceiveInto => {
                    let mut buffer = std::mem::take(&mut self.receiving[connection.index as usize]);
                    let result = if result > 0 {
                        // SAFETY: the kernel wrote `result` bytes behind the buffer's length, within its capacity.
                        unsafe { buffer.set_len(buffer.len() + result as usize) };
                        Ok(result as usize)
                    } else {
                        Err(receive_end(result))
                    };
                    Event::ReceivedInto { connection, buffer, result }
                }
                Kind::Accept => Event::Accepted {
                    listener: connection.index,
                    result: if result >= 0 { Ok(Socket(result)) } else { Err(-result) },
                    armed,
                },
                Kind::Wake => {
                    // Index 0 is the event descriptor's read, 1 another ring's message. The storage thread answers
                    // before it writes to the event descriptor, so what was missed here is seen at the next read.
                    if connection.index == 0 {
                        self.arm_wake();
                        self.files.take_answers();
                    }
                    Event::Woken
                }
                Kind::Sync => self.files.end_sync(connection.index, result),
                Kind::Connect => self.connects.end(connection.index, result),
                Kind::Ignored => continue,
            });
        }
    }

    fn can_batch(&self) -> bool {
        self.can_batch
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The kernel may still read or write these; a process that drops a ring is about to end.
        for buffer in self.sending.drain(..).chain(self.receiving.drain(..)) {
            std::mem::forget(buffer);
        }
        self.files.forget_operations();
        self.connects.forget_operations();
        std::mem::forget(std::mem::take(&mut self.wake_value));
    }
}

fn receive_end(result: i32) -> ReceiveEnd {
    match -result {
        0 => ReceiveEnd::Closed,
        libc::ENOBUFS => ReceiveEnd::NoBuffers,
        libc::ECANCELED => ReceiveEnd::Cancelled,
        errno => ReceiveEnd::Failed(errno),
    }
}

fn read_clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    assert!(result == 0, "clock_gettime: {}", io::Error::last_os_error());
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
