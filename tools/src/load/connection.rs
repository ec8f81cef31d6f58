//! One connection: what is to be sent, and what was sent and not yet answered.

use std::{
    collections::VecDeque,
    io::{self, Read, Write},
};

use crate::{
    failure::Failure,
    options::Options,
    reply::ReplyReader,
    socket::{Poll, Stream},
    tally::Tally,
    workload::{Request, Workload},
};

pub(crate) struct Connection {
    pub(crate) stream: Stream,
    /// Requests sent, or about to be, with the moment from which their latency runs; in order.
    pending: VecDeque<(Request, u64)>,
    output: Vec<u8>,
    /// How much of `output` is sent.
    sent: usize,
    wants_write: bool,
    reader: ReplyReader,
}

impl Connection {
    pub(crate) fn open(options: &Options) -> Result<Self, Failure> {
        let stream = Stream::connect(&options.target)
            .map_err(|error| Failure::io("connecting to the server", error))?;
        Ok(Self {
            stream,
            pending: VecDeque::with_capacity(options.pipeline),
            output: Vec::new(),
            sent: 0,
            wants_write: false,
            reader: ReplyReader::new(options.any_value),
        })
    }

    /// Requests not yet answered.
    #[inline]
    pub(crate) fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// Queues the workload's next request; its latency runs from `from_ns`.
    #[inline]
    pub(crate) fn push(&mut self, workload: &mut Workload, from_ns: u64) {
        let request = workload.append(&mut self.output);
        self.pending.push_back((request, from_ns));
    }

    /// Sends what is queued, as far as the socket takes it; `poll` tells when there is room for more.
    pub(crate) fn send(&mut self, poll: &Poll, number: usize) -> Result<(), Failure> {
        while self.sent < self.output.len() {
            match self.stream.write(&self.output[self.sent..]) {
                Ok(length) => self.sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // What is sent is cut off only when it is the larger part, so that moving the rest stays cheap.
                    if self.sent > self.output.len() / 2 {
                        self.output.drain(..self.sent);
                        self.sent = 0;
                    }
                    return self.set_wants_write(poll, number, true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::io("sending", error)),
            }
        }
        self.output.clear();
        self.sent = 0;
        self.set_wants_write(poll, number, false)
    }

    /// Sends everything that is queued on a socket that blocks.
    pub(crate) fn send_blocking(&mut self) -> Result<(), Failure> {
        self.stream.write_all(&self.output).map_err(|error| Failure::io("sending", error))?;
        self.output.clear();
        Ok(())
    }

    /// Reads once, and checks and counts the replies. False: there was nothing to read.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        workload: &Workload,
        tally: &mut Tally,
        now_ns: impl Fn() -> u64,
    ) -> Result<bool, Failure> {
        let length = match self.stream.read(buffer) {
            Ok(0) => return Err(Failure::Closed),
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(error) => return Err(Failure::io("receiving", error)),
        };
        let now_ns = now_ns();
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let Some((request, from_ns)) = self.pending.front() else { return Err(Failure::Unasked) };
            let (consumed, verdict) = self
                .reader
                .read(rest, request, workload)
                .map_err(|nonsense| Failure::Nonsense(nonsense.0))?;
            rest = &rest[consumed..];
            if let Some(verdict) = verdict {
                tally.count(verdict, *from_ns, now_ns);
                self.pending.pop_front();
            }
        }
        Ok(true)
    }

    fn set_wants_write(&mut self, poll: &Poll, number: usize, wants: bool) -> Result<(), Failure> {
        if self.wants_write != wants {
            poll.set_wants_write(&self.stream, number, wants)
                .map_err(|error| Failure::io("waiting for room to send", error))?;
            self.wants_write = wants;
        }
        Ok(())
    }
}
