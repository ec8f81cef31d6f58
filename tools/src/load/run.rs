//! Running a load: in a closed loop, where a reply makes room for the next request, or in an open one, where the
//! clock says when a request is due.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    connection::Connection,
    failure::Failure,
    options::{Limit, Mode, Options},
    socket::{Poll, refine_timers},
    tally::Tally,
    workload::Workload,
};

/// What one read takes at most.
const RECEIVE_LEN_BYTES: usize = 256 << 10;

/// Closer than this to the next due request the open loop asks without waiting: falling asleep takes longer.
const SPIN: Duration = Duration::from_micros(30);

/// Runs the load that `options` ask for.
pub(crate) fn run(options: &Options) -> Result<Tally, Failure> {
    let mut connections = Vec::with_capacity(options.connections);
    for _ in 0..options.connections {
        connections.push(Connection::open(options)?);
    }
    let poll = Poll::new(options.connections.min(1024))
        .map_err(|error| Failure::io("making an epoll instance", error))?;
    let load = Load {
        options,
        workload: Workload::new(
            options.operation,
            options.keys,
            options.sequential,
            &options.prefix,
            options.value_len_bytes,
            options.expire_at_s,
            options.seed,
        ),
        poll,
        connections,
        buffer: vec![0; RECEIVE_LEN_BYTES],
        tally: Tally::new(),
        start: Instant::now(),
    };
    match options.rate {
        Some(rate) => load.open_loop(rate),
        None if options.connections == 1 && options.pipeline == 1 => load.lone(),
        None => load.closed_loop(),
    }
}

struct Load<'a> {
    options: &'a Options,
    workload: Workload,
    poll: Poll,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    tally: Tally,
    start: Instant,
}

/// How much is still to be asked in a closed loop.
enum Budget {
    Requests(u64),
    Until(Duration),
    UntilInputEnds(InputEnd),
}

impl Budget {
    fn of(mode: Mode) -> Self {
        match mode {
            Mode::Load(Limit::Requests(count)) | Mode::Fill(count) => Self::Requests(count),
            Mode::Load(Limit::Duration(duration)) => Self::Until(duration),
            Mode::Load(Limit::Input) => Self::UntilInputEnds(InputEnd::watch()),
            Mode::Idle(_) => unreachable!("idle connections carry no load"),
        }
    }

    /// Takes up to `count` requests out.
    #[inline]
    fn take(&mut self, count: usize, elapsed: Duration) -> usize {
        match self {
            Self::Requests(left) => {
                let taken = (*left).min(count as u64);
                *left -= taken;
                taken as usize
            }
            Self::Until(end) if elapsed < *end => count,
            Self::UntilInputEnds(end) if !end.has_come() => count,
            Self::Until(_) | Self::UntilInputEnds(_) => 0,
        }
    }
}

/// Whether standard input has ended.
struct InputEnd(Arc<AtomicBool>);

impl InputEnd {
    /// Reads standard input on a thread, which ends with it or with the process.
    fn watch() -> Self {
        let has_come = Arc::new(AtomicBool::new(false));
        let end = Self(Arc::clone(&has_come));
        thread::spawn(move || {
            // An input that cannot be read has ended, too.
            let _ = io::copy(&mut io::stdin(), &mut io::sink());
            has_come.store(true, Ordering::Relaxed);
        });
        end
    }

    #[inline]
    fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Load<'_> {
    /// One connection and one request at a time: the socket blocks, so that nothing but a write and a read is timed.
    fn lone(mut self) -> Result<Tally, Failure> {
        let connection = &mut self.connections[0];
        connection
            .stream
            .set_timeout(self.options.timeout)
            .map_err(|error| Failure::io("setting a timeout", error))?;
        let mut budget = Budget::of(self.options.mode);
        let start = Instant::now();
        let now_ns = || start.elapsed().as_nanos() as u64;
        while budget.take(1, start.elapsed()) == 1 {
            connection.push(&mut self.workload, now_ns());
            connection.send_blocking()?;
            while connection.outstanding() > 0 {
                if !connection.receive(&mut self.buffer, &self.workload, &mut self.tally, now_ns)? {
                    return Err(Failure::Silence(self.options.timeout));
                }
            }
        }
        Ok(self.tally)
    }

    fn closed_loop(mut self) -> Result<Tally, Failure> {
        self.watch_all()?;
        let mut budget = Budget::of(self.options.mode);
        let mut busy = 0;
        for number in 0..self.connections.len() {
            busy += usize::from(self.begin_pipeline(number, &mut budget)?);
        }
        while busy > 0 {
            let count = self.wait(self.options.timeout)?;
            if count == 0 {
                return Err(Failure::Silence(self.options.timeout));
            }
            for index in 0..count {
                let number = self.serve(index)?;
                let answered = self.connections[number].outstanding() == 0;
                if answered && !self.begin_pipeline(number, &mut budget)? {
                    busy -= 1;
                }
            }
        }
        Ok(self.tally)
    }

    /// Sends a pipeline of requests on a connection that has none outstanding; false if the budget is used up.
    fn begin_pipeline(&mut self, number: usize, budget: &mut Budget) -> Result<bool, Failure> {
        let elapsed = self.start.elapsed();
        let count = budget.take(self.options.pipeline, elapsed);
        let connection = &mut self.connections[number];
        for _ in 0..count {
            connection.push(&mut self.workload, elapsed.as_nanos() as u64);
        }
        connection.send(&self.poll, number)?;
        Ok(count > 0)
    }

    fn open_loop(mut self, rate: f64) -> Result<Tally, Failure> {
        refine_timers();
        self.watch_all()?;
        let mut input_end = None;
        let mut total = match self.options.mode {
            Mode::Load(Limit::Requests(count)) | Mode::Fill(count) => count,
            Mode::Load(Limit::Duration(duration)) => (duration.as_secs_f64() * rate).ceil() as u64,
            Mode::Load(Limit::Input) => {
                input_end = Some(InputEnd::watch());
                u64::MAX
            }
            Mode::Idle(_) => unreachable!("idle connections carry no load"),
        };
        let due_ns = |request: u64| (request as f64 * 1e9 / rate) as u64;
        let (mut asked, mut next) = (0, 0);
        let mut last_reply = Duration::ZERO;
        while self.tally.replies() < total {
            let now = self.start.elapsed();
            let now_ns = now.as_nanos() as u64;
            if input_end.as_ref().is_some_and(InputEnd::has_come) {
                // What was due until now still is: a stall is not forgiven because the end came during it.
                total = total.min((now_ns as f64 * rate / 1e9) as u64).max(asked);
            }
            let mut has_room = true;
            while has_room && asked < total && due_ns(asked) <= now_ns {
                // A request that finds no room anywhere is sent later, and keeps the moment it was due.
                has_room = match self.connection_with_room(next) {
                    Some(number) => {
                        self.connections[number].push(&mut self.workload, due_ns(asked));
                        self.connections[number].send(&self.poll, number)?;
                        next = (number + 1) % self.connections.len();
                        asked += 1;
                        true
                    }
                    None => false,
                };
            }
            let patience = (last_reply + self.options.timeout).saturating_sub(now);
            if self.tally.replies() == asked {
                last_reply = now;
            } else if patience.is_zero() {
                return Err(Failure::Silence(self.options.timeout));
            }
            let mut timeout = patience;
            if has_room && asked < total {
                let until_due = Duration::from_nanos(due_ns(asked).saturating_sub(now_ns));
                timeout = timeout.min(if until_due < SPIN { Duration::ZERO } else { until_due });
            }
            let replies = self.tally.replies();
            for index in 0..self.wait(timeout)? {
                self.serve(index)?;
            }
            if self.tally.replies() > replies {
                last_reply = self.start.elapsed();
            }
        }
        Ok(self.tally)
    }

    fn connection_with_room(&self, first: usize) -> Option<usize> {
        let count = self.connections.len();
        (first..count)
            .chain(0..first)
            .find(|&number| self.connections[number].outstanding() < self.options.pipeline)
    }

    fn watch_all(&mut self) -> Result<(), Failure> {
        for (number, connection) in self.connections.iter().enumerate() {
            connection
                .stream
                .set_nonblocking()
                .and_then(|()| self.poll.add(&connection.stream, number))
                .map_err(|error| Failure::io("watching a socket", error))?;
        }
        self.start = Instant::now();
        Ok(())
    }

    fn wait(&mut self, timeout: Duration) -> Result<usize, Failure> {
        self.poll.wait(timeout).map_err(|error| Failure::io("waiting for replies", error))
    }

    /// Sends and receives what event `index` allows. Returns the connection's number.
    fn serve(&mut self, index: usize) -> Result<usize, Failure> {
        let ready = self.poll.ready(index);
        let connection = &mut self.connections[ready.number];
        if ready.writable {
            connection.send(&self.poll, ready.number)?;
        }
        if ready.readable {
            let start = self.start;
            let now_ns = || start.elapsed().as_nanos() as u64;
            connection.receive(&mut self.buffer, &self.workload, &mut self.tally, now_ns)?;
        }
        Ok(ready.number)
    }
}
