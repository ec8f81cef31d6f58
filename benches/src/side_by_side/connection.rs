//! A small client for the few commands that the harness itself needs.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use crate::failure::{During, Failure, Result};

/// FLUSHALL of a large keyspace is the slowest thing asked for.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A reply, or the beginning of an array, of so many items.
enum Item {
    Text(String),
    Array(usize),
}

pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(port: u16) -> Result<Self> {
        let stream =
            TcpStream::connect(("127.0.0.1", port)).during(|| format!("connecting to port {port}"))?;
        stream
            .set_read_timeout(Some(TIMEOUT))
            .and(stream.set_nodelay(true))
            .during(|| "setting socket options".into())?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command and returns the text of its status, integer or bulk string reply.
    pub(crate) fn command(&mut self, words: &[&str]) -> Result<String> {
        let name = words.join(" ");
        self.send(words)?;
        match self.item(&name)? {
            Item::Text(text) => Ok(text),
            Item::Array(length) => Err(Failure::new(format!("{name} answered *{length}"))),
        }
    }

    /// Sends a command and returns the texts of its reply, those of arrays in arrays one after the other.
    pub(crate) fn words(&mut self, words: &[&str]) -> Result<Vec<String>> {
        let name = words.join(" ");
        self.send(words)?;
        let (mut found, mut missing) = (Vec::new(), 1_usize);
        while missing > 0 {
            missing -= 1;
            match self.item(&name)? {
                Item::Text(text) => found.push(text),
                Item::Array(length) => missing += length,
            }
        }
        Ok(found)
    }

    fn send(&mut self, words: &[&str]) -> Result<()> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(request.as_bytes()).during(|| words.join(" "))
    }

    fn item(&mut self, name: &str) -> Result<Item> {
        let mut line = String::new();
        self.stream.read_line(&mut line).during(|| name.into())?;
        let line = line.trim_end();
        let length = || line[1..].parse().map_err(|_| Failure::new(format!("{name} answered {line}")));
        match line.as_bytes().first() {
            Some(b'+' | b':') => Ok(Item::Text(line[1..].into())),
            Some(b'$' | b'=') => {
                let mut body = vec![0; length()? + 2];
                self.stream.read_exact(&mut body).during(|| name.into())?;
                body.truncate(body.len() - 2);
                Ok(Item::Text(String::from_utf8_lossy(&body).into_owned()))
            }
            Some(b'*') => Ok(Item::Array(length()?)),
            Some(_) => Err(Failure::new(format!("{name} answered {line}"))),
            None => Err(Failure::new(format!("{name} was not answered"))),
        }
    }

    /// The number that `INFO section` has under `name`, if the server reports it.
    pub(crate) fn info(&mut self, section: &str, name: &str) -> Result<Option<u64>> {
        let text = self.command(&["INFO", section])?;
        Ok(text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok()))
    }
}
