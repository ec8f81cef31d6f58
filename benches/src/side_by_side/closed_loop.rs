//! A closed loop of our own: many connections, each of which asks a few things at once and waits for all the answers.
//!
//! For what `redis-benchmark` cannot do: go on where a request fails, count by the second, and speak etcd's protocol. One
//! thread with one epoll instance makes the load, on the CPU of the clients. An answer that is an error is counted, and so is a
//! connection that breaks, which is not opened again; neither counts as an answer.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    failure::{During, Failure, Result},
    process,
};

/// How often the loop looks whether it is to end.
const LOOK_MS: i32 = 10;

/// Sockets that become ready at once; others are reported the next time.
const EVENTS: usize = 256;

/// What one connection says and hears.
pub(crate) trait Dialogue: Send {
    /// Appends what is said once, before anything is asked.
    fn greet(&mut self, output: &mut Vec<u8>);

    /// Appends one request.
    fn ask(&mut self, output: &mut Vec<u8>);

    /// Reads what is whole at the beginning of `input`, and returns how many bytes that is; whatever has to be said to it goes
    /// to `output`.
    ///
    /// # Errors
    /// If the bytes are no answer to anything.
    fn hear(&mut self, input: &[u8], output: &mut Vec<u8>, heard: &mut Heard) -> Result<usize>;
}

/// What answers came to.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Heard {
    pub(crate) answers: u64,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Heard {
    pub(crate) fn error(&mut self, text: impl Into<String>) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| text.into());
    }
}

/// What a loop measured.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answers of each second since the start; the last one may not be whole.
    pub(crate) by_second: Vec<u64>,
    /// When errors came, in seconds since the start, in their order.
    pub(crate) errors_at: Vec<f64>,
    pub(crate) first_error: Option<String>,
    /// From the asking of a connection's requests to the last of their answers.
    latencies_us: Vec<u32>,
}

impl Tally {
    /// Answers a second in `count` seconds from second `first` on, by the second.
    ///
    /// # Errors
    /// If the loop ended before.
    pub(crate) fn seconds(&self, first: usize, count: usize) -> Result<&[u64]> {
        // What did not end before the last second's end may be part of one.
        let whole = &self.by_second[..self.by_second.len().saturating_sub(1)];
        whole.get(first..first + count).ok_or_else(|| Failure::new("the load ended too early"))
    }

    /// The latency that so large a part of the batches did not exceed.
    pub(crate) fn quantile_us(&mut self, part: f64) -> f64 {
        self.latencies_us.sort_unstable();
        let rank = (self.latencies_us.len() as f64 * part).ceil() as usize;
        let place = rank.clamp(1, self.latencies_us.len().max(1)) - 1;
        self.latencies_us.get(place).copied().map_or(0.0, f64::from)
    }
}

/// A loop that runs; ended when dropped.
pub(crate) struct ClosedLoop {
    start: Instant,
    ends: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<Result<Tally>>>,
}

impl ClosedLoop {
    /// Opens a connection to each of the ports, and asks `pipeline` things at once on each.
    pub(crate) fn begin(dialogues: Vec<(u16, Box<dyn Dialogue>)>, pipeline: usize) -> Result<Self> {
        let poll = Poll::new().during(|| "making an epoll instance".into())?;
        let mut connections = Vec::with_capacity(dialogues.len());
        for (number, (port, dialogue)) in dialogues.into_iter().enumerate() {
            let mut connection = Open::to(port, dialogue).during(|| format!("connecting to port {port}"))?;
            poll.control(libc::EPOLL_CTL_ADD, &connection.stream, number, libc::EPOLLIN)
                .during(|| "watching a socket".into())?;
            connection.dialogue.greet(&mut connection.output);
            connections.push(Some(connection));
        }
        let (start, ends) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let running = Running { connections, poll, pipeline, start, tally: Tally::default() };
        let until = Arc::clone(&ends);
        let thread = Some(thread::spawn(move || running.run(&until)));
        Ok(Self { start, ends, thread })
    }

    /// Waits until so many seconds of the loop are over.
    pub(crate) fn pass_until(&self, second: usize) {
        process::pass(Duration::from_secs(second as u64).saturating_sub(self.start.elapsed()));
    }

    /// Ends the loop; what was asked and is not answered counts nowhere.
    pub(crate) fn finish(mut self) -> Result<Tally> {
        self.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("a loop is finished once");
        thread.join().map_err(|_| Failure::new("the thread of a load panicked"))?
    }
}

impl Drop for ClosedLoop {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it measured is of no interest any more.
            let _ = thread.join();
        }
    }
}

/// The loop as its thread has it.
struct Running {
    /// `None`: it broke.
    connections: Vec<Option<Open>>,
    poll: Poll,
    pipeline: usize,
    start: Instant,
    tally: Tally,
}

impl Running {
    fn run(mut self, ends: &AtomicBool) -> Result<Tally> {
        let mut buffer = vec![0; 64 << 10];
        for number in 0..self.connections.len() {
            self.serve(number, None)?;
        }
        while !ends.load(Ordering::Relaxed) {
            for index in 0..self.poll.wait().during(|| "waiting for answers".into())? {
                self.serve(self.poll.ready(index), Some(&mut buffer))?;
            }
        }
        // Seconds at the end in which nothing was answered are seconds, too.
        self.tally.by_second.resize(self.start.elapsed().as_secs() as usize + 1, 0);
        Ok(self.tally)
    }

    /// Reads what has come, asks anew if everything is answered, and sends.
    fn serve(&mut self, number: usize, buffer: Option<&mut Vec<u8>>) -> Result<()> {
        let Some(open) = &mut self.connections[number] else { return Ok(()) };
        let mut heard = Heard::default();
        let served = match buffer {
            Some(buffer) => open.receive(buffer, &mut heard),
            None => Ok(()),
        };
        let now = self.start.elapsed();
        let second = now.as_secs() as usize;
        if self.tally.by_second.len() <= second {
            self.tally.by_second.resize(second + 1, 0);
        }
        self.tally.by_second[second] += heard.answers;
        let answered = (heard.answers + heard.errors) as usize;
        let served = served.and_then(|()| {
            if answered > open.outstanding {
                return Err(io::Error::other("more answers than requests"));
            }
            open.outstanding -= answered;
            if open.outstanding == 0 {
                if answered > 0 {
                    self.tally.latencies_us.push((now - open.asked).as_micros() as u32);
                }
                for _ in 0..self.pipeline {
                    open.dialogue.ask(&mut open.output);
                }
                (open.outstanding, open.asked) = (self.pipeline, now);
            }
            open.send(&self.poll, number)
        });
        if let Err(error) = served {
            heard.error(format!("a connection broke: {error}"));
            self.connections[number] = None;
            if self.connections.iter().all(Option::is_none) {
                return Err(Failure::new(format!(
                    "all connections of the load broke, the last one: {error}"
                )));
            }
        }
        let errors = (0..heard.errors).map(|_| now.as_secs_f64());
        self.tally.errors_at.extend(errors);
        if let Some(text) = heard.first_error {
            self.tally.first_error.get_or_insert(text);
        }
        Ok(())
    }
}

/// A connection.
struct Open {
    stream: TcpStream,
    dialogue: Box<dyn Dialogue>,
    /// What is to be sent.
    output: Vec<u8>,
    /// The beginning of an answer that is not whole.
    input: Vec<u8>,
    outstanding: usize,
    /// When those requests were, since the loop's start.
    asked: Duration,
    wants_write: bool,
}

impl Open {
    fn to(port: u16, dialogue: Box<dyn Dialogue>) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let (output, input) = (Vec::new(), Vec::new());
        Ok(Self {
            stream,
            dialogue,
            output,
            input,
            outstanding: 0,
            asked: Duration::ZERO,
            wants_write: false,
        })
    }

    fn receive(&mut self, buffer: &mut [u8], heard: &mut Heard) -> io::Result<()> {
        let len = match self.stream.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(len) => len,
            Err(error) if is_for_now(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.input.extend_from_slice(&buffer[..len]);
        let consumed = self
            .dialogue
            .hear(&self.input, &mut self.output, heard)
            .map_err(|failure| io::Error::other(failure.to_string()))?;
        self.input.drain(..consumed);
        Ok(())
    }

    fn send(&mut self, poll: &Poll, number: usize) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.output.len() {
            match self.stream.write(&self.output[sent..]) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_for_now(&error) => break,
                Err(error) => return Err(error),
            }
        }
        self.output.drain(..sent);
        let wants_write = !self.output.is_empty();
        if wants_write != self.wants_write {
            let interest = if wants_write { libc::EPOLLIN | libc::EPOLLOUT } else { libc::EPOLLIN };
            poll.control(libc::EPOLL_CTL_MOD, &self.stream, number, interest)?;
            self.wants_write = wants_write;
        }
        Ok(())
    }
}

fn is_for_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Waits for sockets, each known by its number; level-triggered.
struct Poll {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poll {
    fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed, and nobody else owns the new descriptor.
        let epoll = unsafe {
            let descriptor = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(descriptor)
        };
        Ok(Self { epoll, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS] })
    }

    fn control(&self, operation: i32, stream: &TcpStream, number: usize, interest: i32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest as u32, u64: number as u64 };
        // SAFETY: the kernel reads one event from a local.
        let result =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, stream.as_raw_fd(), &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// How many sockets are ready; after [`LOOK_MS`] it may be none.
    fn wait(&mut self) -> io::Result<usize> {
        // SAFETY: the kernel writes at most as many events as the vector has.
        let count = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), self.events.as_mut_ptr(), EVENTS as i32, LOOK_MS)
        };
        match io::Error::last_os_error() {
            _ if count >= 0 => Ok(count as usize),
            error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
            error => Err(error),
        }
    }

    /// The number of the socket that event `index` of the last wait is about.
    fn ready(&self, index: usize) -> usize {
        self.events[index].u64 as usize
    }
}

/// SET of random keys, in the protocol of Redis.
pub(crate) struct Sets {
    keys: Arc<[String]>,
    value: String,
    random: u64,
}

impl Sets {
    /// Values of `value_len_bytes`; `seed` tells connections apart.
    ///
    /// # Panics
    /// If there is no key.
    pub(crate) fn new(keys: Arc<[String]>, value_len_bytes: usize, seed: u64) -> Self {
        assert!(!keys.is_empty(), "there are keys");
        Self { keys, value: "x".repeat(value_len_bytes), random: seed }
    }
}

impl Dialogue for Sets {
    fn greet(&mut self, _: &mut Vec<u8>) {}

    fn ask(&mut self, output: &mut Vec<u8>) {
        let place = (random(&mut self.random) % self.keys.len() as u64) as usize;
        for word in ["*3\r\n$3\r\nSET", &self.keys[place], &self.value] {
            if !word.starts_with('*') {
                output.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            }
            output.extend_from_slice(word.as_bytes());
            output.extend_from_slice(b"\r\n");
        }
    }

    fn hear(&mut self, input: &[u8], _: &mut Vec<u8>, heard: &mut Heard) -> Result<usize> {
        let mut consumed = 0;
        while let Some(len) = input[consumed..].iter().position(|&byte| byte == b'\n') {
            let line = &input[consumed..][..len];
            let text = || String::from_utf8_lossy(line).trim_end().to_owned();
            match line.first() {
                Some(b'+') => heard.answers += 1,
                Some(b'-') => heard.error(text()),
                _ => return Err(Failure::new(format!("SET was answered {}", text()))),
            }
            consumed += len + 1;
        }
        Ok(consumed)
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn answers_and_errors_are_told_apart_in_any_pieces() {
        let mut sets = Sets::new(["k".to_owned()].into(), 2, 1);
        let mut output = Vec::new();
        sets.ask(&mut output);
        assert_eq!(output, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nxx\r\n");
        let mut heard = Heard::default();
        let consumed = sets.hear(b"+OK\r\n-UNCERTAIN x\r\n+O", &mut output, &mut heard).unwrap();
        assert_eq!(consumed, 19);
        let expected = Heard { answers: 1, errors: 1, first_error: Some("-UNCERTAIN x".into()) };
        assert_eq!(heard, expected);
        assert!(sets.hear(b"$1\r\n", &mut output, &mut heard).is_err());
    }

    #[test]
    fn a_broken_connection_is_an_error_and_the_others_go_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let keys: Arc<[String]> = ["k".to_owned()].into();
        let dialogue = |seed| (port, Box::new(Sets::new(Arc::clone(&keys), 1, seed)) as Box<dyn Dialogue>);
        let running = ClosedLoop::begin(vec![dialogue(1), dialogue(2)], 2).unwrap();
        drop(listener.accept().unwrap());
        let (mut other, _) = listener.accept().unwrap();
        let request_len_bytes = 2 * b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nx\r\n".len();
        let mut requests = vec![0; request_len_bytes];
        for answers in ["+OK\r\n-NO\r\n", "+OK\r\n+OK\r\n"] {
            other.read_exact(&mut requests).unwrap();
            other.write_all(answers.as_bytes()).unwrap();
        }
        // By now the answers of two batches have been counted.
        other.read_exact(&mut requests).unwrap();
        let mut tally = running.finish().unwrap();
        assert_eq!((tally.by_second.iter().sum::<u64>(), tally.errors_at.len()), (3, 2));
        assert_eq!(tally.latencies_us.len(), 2);
        assert!(tally.quantile_us(0.5) <= tally.quantile_us(1.0));
    }
}
