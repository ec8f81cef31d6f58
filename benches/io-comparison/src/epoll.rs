//! On epoll: one wait, then a read and a write for every connection that has something.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use crate::answer::answer;

const READ_LEN_BYTES: usize = 16 << 10;

struct Connection {
    stream: TcpStream,
    /// The beginning of a request that is not whole.
    rest: Vec<u8>,
    output: Vec<u8>,
}

pub(crate) fn serve(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    // SAFETY: no pointers are passed, and nobody else owns the new descriptor.
    let epoll = unsafe {
        let descriptor = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(descriptor)
    };
    let mut connections: HashMap<i32, Connection> = HashMap::new();
    let mut buffer = vec![0; READ_LEN_BYTES];
    let mut events: Vec<libc::epoll_event> = Vec::with_capacity(1024);
    watch(&epoll, libc::EPOLL_CTL_ADD, listener.as_raw_fd(), libc::EPOLLIN)?;
    loop {
        events.clear();
        // SAFETY: the kernel writes at most `capacity` events, and as many as it says.
        let count = unsafe {
            let count =
                libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), events.capacity() as i32, -1);
            events.set_len(count.max(0) as usize);
            count
        };
        if count < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return Err(io::Error::last_os_error());
        }
        for event in &events {
            let descriptor = event.u64 as i32;
            if descriptor == listener.as_raw_fd() {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    watch(&epoll, libc::EPOLL_CTL_ADD, stream.as_raw_fd(), libc::EPOLLIN)?;
                    let connection = Connection { stream, rest: Vec::new(), output: Vec::new() };
                    connections.insert(connection.stream.as_raw_fd(), connection);
                }
                continue;
            }
            let Some(connection) = connections.get_mut(&descriptor) else { continue };
            let waited_for_room = !connection.output.is_empty();
            match connection.turn(&mut buffer) {
                Ok(()) => {
                    // While replies wait for room, no requests are read.
                    let waits_for_room = !connection.output.is_empty();
                    if waits_for_room != waited_for_room {
                        let interest = if waits_for_room { libc::EPOLLOUT } else { libc::EPOLLIN };
                        watch(&epoll, libc::EPOLL_CTL_MOD, descriptor, interest)?;
                    }
                }
                Err(_) => drop(connections.remove(&descriptor)),
            }
        }
    }
}

impl Connection {
    /// Reads once and answers. An error is the connection's end.
    fn turn(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if self.output.is_empty() {
            let length = self.stream.read(buffer)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let no_requests = || io::Error::from(io::ErrorKind::InvalidData);
            if self.rest.is_empty() {
                let consumed = answer(&buffer[..length], &mut self.output).ok_or_else(no_requests)?;
                self.rest.extend_from_slice(&buffer[consumed..length]);
            } else {
                self.rest.extend_from_slice(&buffer[..length]);
                let consumed = answer(&self.rest, &mut self.output).ok_or_else(no_requests)?;
                self.rest.drain(..consumed);
            }
        }
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(length) if length == self.output.len() => self.output.clear(),
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn watch(epoll: &OwnedFd, operation: i32, descriptor: i32, interest: i32) -> io::Result<()> {
    let mut event = libc::epoll_event { events: interest as u32, u64: descriptor as u64 };
    // SAFETY: the kernel reads one event from a local.
    let result = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), operation, descriptor, &raw mut event) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
