//! The ring's attempts to connect that are under way.
//!
//! An attempt owns its socket and the address that the kernel reads until its completion; a socket that did not get
//! connected is closed with it.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    os::fd::{AsRawFd, IntoRawFd, OwnedFd},
};

use io_uring::{opcode, squeue, types::Fd};

use super::{Kind, ReceiveBuffer};
use crate::{
    files::errno,
    io::{Event, Socket, Token},
    socket::{self, RawAddress},
};

/// One attempt.
struct Attempt {
    ticket: u64,
    socket: OwnedFd,
    /// Boxed, so that it stays where the kernel looks for it.
    address: Box<RawAddress>,
}

/// Attempts by the number that their completions carry.
#[derive(Default)]
pub(super) struct Connects {
    attempts: Vec<Option<Attempt>>,
    free: Vec<u32>,
    /// Tickets and errnos of those that the kernel never saw.
    failed: VecDeque<(u64, i32)>,
}

impl Connects {
    /// Begins an attempt: what is to be submitted, unless it has failed already.
    pub(super) fn begin(&mut self, ticket: u64, address: SocketAddr) -> Option<squeue::Entry> {
        let (socket, address) = match socket::outgoing(address) {
            Ok(made) => made,
            Err(error) => {
                self.failed.push_back((ticket, errno(error)));
                return None;
            }
        };
        let attempt = Attempt { ticket, socket, address: Box::new(address) };
        let place = self.free.pop().unwrap_or_else(|| {
            self.attempts.push(None);
            self.attempts.len() as u32 - 1
        });
        let entry = opcode::Connect::new(
            Fd(attempt.socket.as_raw_fd()),
            (&raw const attempt.address.storage).cast(),
            attempt.address.length,
        )
        .build()
        .user_data(Kind::Connect.data(Token { index: place, generation: 0 }));
        self.attempts[place as usize] = Some(attempt);
        Some(entry)
    }

    /// Ends an attempt with the kernel's result.
    pub(super) fn end(&mut self, place: u32, result: i32) -> Event<ReceiveBuffer> {
        let attempt = self.attempts[place as usize].take().expect("an attempt ends once");
        self.free.push(place);
        let result = if result < 0 { Err(-result) } else { Ok(Socket(attempt.socket.into_raw_fd())) };
        Event::Connected { ticket: attempt.ticket, result }
    }

    /// Whether an attempt has failed that was not told of.
    pub(super) fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Tells of one that the kernel never saw.
    pub(super) fn take_failed(&mut self) -> Option<Event<ReceiveBuffer>> {
        let (ticket, errno) = self.failed.pop_front()?;
        Some(Event::Connected { ticket, result: Err(errno) })
    }

    /// Leaves what the kernel may still use.
    pub(super) fn forget_operations(&mut self) {
        for attempt in self.attempts.drain(..).flatten() {
            std::mem::forget(attempt);
        }
    }
}
