//! A client connection that does exactly what a test says: raw bytes out, whole replies in.
//!
//! Invariant: no read or write waits for ever. `PATIENCE` bounds each, and running into it is a failure
//! that says so; no test's outcome depends on how long something took below that.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::resp::{self, Reply};

/// How long one read or write may take before the server counts as hung.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// More than this is not written in one go without reading replies meanwhile: a server may stop reading
/// from a client that does not read.
const WRITE_ALONE_BYTES_MAX: usize = 16 * 1024;

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// A Unix socket's path.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(SocketAddr),
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// One connection to a server.
pub struct Connection {
    stream: Stream,
    received: Vec<u8>,
    /// Bytes of `received` that belong to replies already returned.
    consumed: usize,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// The system's error.
    pub fn open(address: &Address) -> io::Result<Self> {
        let stream = match address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Stream::Unix(stream)
            }
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Stream::Tcp(stream)
            }
        };
        Ok(Self { stream, received: Vec::new(), consumed: 0 })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The system's error; `TimedOut` or `WouldBlock` when the server did not take them within `PATIENCE`.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer().write_all(bytes)
    }

    /// Sends one request.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_request<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<()> {
        let mut bytes = Vec::new();
        resp::encode_request(arguments, &mut bytes);
        self.send(&bytes)
    }

    /// The next reply.
    ///
    /// # Errors
    /// `UnexpectedEof` when the server closed the connection first, `InvalidData` when what came is not
    /// a reply, otherwise the system's error.
    pub fn receive(&mut self) -> io::Result<Reply> {
        loop {
            match resp::parse(&self.received[self.consumed..]) {
                Ok(Some((reply, length))) => {
                    self.consumed += length;
                    return Ok(reply);
                }
                Ok(None) => {}
                Err(sentence) => return Err(io::Error::new(io::ErrorKind::InvalidData, sentence)),
            }
            if self.fill()? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
            }
        }
    }

    /// Sends one request and waits for its reply.
    ///
    /// # Panics
    /// When either fails.
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Reply {
        self.try_call(arguments).unwrap_or_else(|error| panic!("{}: {error}", resp::show_request(arguments)))
    }

    /// Sends one request and waits for its reply.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::receive`].
    pub fn try_call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Reply> {
        self.send_request(arguments)?;
        self.receive()
    }

    /// Sends one request, given as words separated by spaces, and waits for its reply.
    ///
    /// # Panics
    /// When either fails.
    pub fn words(&mut self, line: &str) -> Reply {
        self.call(&line.split(' ').collect::<Vec<_>>())
    }

    /// Sends `bytes`, which hold `count` requests, reading the replies meanwhile.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::receive`].
    pub fn exchange(&mut self, bytes: &[u8], count: usize) -> io::Result<Vec<Reply>> {
        if bytes.len() <= WRITE_ALONE_BYTES_MAX {
            self.send(bytes)?;
            return (0..count).map(|_| self.receive()).collect();
        }
        let mut writer = self.try_clone_writer()?;
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || writer.write_all(bytes));
            let replies = (0..count).map(|_| self.receive()).collect::<io::Result<Vec<_>>>();
            // After a failed read the server may never take the rest: closing both ways ends the writer.
            if replies.is_err() {
                self.shut_down();
            }
            let sent = sender.join().expect("the writer does not panic");
            let replies = replies?;
            sent?;
            Ok(replies)
        })
    }

    /// Whether the server has closed the connection, waiting for it to do so or to send something.
    ///
    /// # Errors
    /// `InvalidData` when the server sent something instead; otherwise the system's error.
    pub fn wait_for_end(&mut self) -> io::Result<()> {
        if self.received.len() > self.consumed {
            let rest = self.received[self.consumed..].escape_ascii().to_string();
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("instead of closing, it sent {rest}"),
            ));
        }
        match self.fill() {
            Ok(0) => Ok(()),
            Ok(_) => self.wait_for_end(),
            Err(error) if is_end(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Closes both directions at once.
    pub fn shut_down(&mut self) {
        // A connection that the other side ended already is as closed as it can be.
        let _ = match &self.stream {
            Stream::Unix(stream) => stream.shutdown(std::net::Shutdown::Both),
            Stream::Tcp(stream) => stream.shutdown(std::net::Shutdown::Both),
        };
    }

    /// Closes the direction to the server: nothing more will be sent.
    ///
    /// # Panics
    /// When the connection is closed already.
    pub fn finish_sending(&mut self) {
        let result = match &self.stream {
            Stream::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
            Stream::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
        };
        result.expect("the connection was open");
    }

    /// A second handle for writing, for a thread of its own.
    ///
    /// # Errors
    /// The system's error.
    pub fn try_clone_writer(&self) -> io::Result<Box<dyn Write + Send>> {
        Ok(match &self.stream {
            Stream::Unix(stream) => Box::new(stream.try_clone()?),
            Stream::Tcp(stream) => Box::new(stream.try_clone()?),
        })
    }

    /// How long a single read or write may wait.
    ///
    /// # Errors
    /// The system's error.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        match &self.stream {
            Stream::Unix(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))
            }
            Stream::Tcp(stream) => {
                stream.set_read_timeout(Some(patience))?;
                stream.set_write_timeout(Some(patience))
            }
        }
    }

    fn writer(&mut self) -> &mut dyn Write {
        match &mut self.stream {
            Stream::Unix(stream) => stream,
            Stream::Tcp(stream) => stream,
        }
    }

    /// Reads once; the number of bytes, 0 at the end.
    fn fill(&mut self) -> io::Result<usize> {
        if self.consumed > 0 && (self.consumed == self.received.len() || self.consumed > 1 << 20) {
            self.received.drain(..self.consumed);
            self.consumed = 0;
        }
        let mut chunk = [0; 64 * 1024];
        let count = match &mut self.stream {
            Stream::Unix(stream) => stream.read(&mut chunk),
            Stream::Tcp(stream) => stream.read(&mut chunk),
        }?;
        self.received.extend_from_slice(&chunk[..count]);
        Ok(count)
    }
}

/// Whether an error says no more than that the other side has closed. Closing with unread input resets the
/// connection; to the client that is an end all the same.
pub fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof
    )
}

impl AsRawFd for Connection {
    fn as_raw_fd(&self) -> RawFd {
        match &self.stream {
            Stream::Unix(stream) => stream.as_raw_fd(),
            Stream::Tcp(stream) => stream.as_raw_fd(),
        }
    }
}
