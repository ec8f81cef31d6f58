//! Holding connections that do nothing.

use std::{
    io::{self, Read, Write},
    sync::mpsc,
};

use crate::{failure::Failure, options::Options, socket::Stream};

/// Opens `count` connections, each of which has one PING answered so that the server has surely made all it keeps
/// for a client, says so on standard output, and holds them until standard input ends or `options.hold` is over.
///
/// # Errors
/// If a connection cannot be opened or did not survive.
pub(crate) fn hold(options: &Options, count: usize) -> Result<(), Failure> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        streams.push(open(options)?);
    }
    let mut output = io::stdout().lock();
    let announced = if options.json {
        writeln!(output, "{{\"idle_connections\":{count}}}")
    } else {
        writeln!(output, "{count} connections are open; they close when standard input ends")
    };
    announced
        .and_then(|()| output.flush())
        .map_err(|error| Failure::io("writing to standard output", error))?;
    match options.hold {
        Some(duration) => {
            // Nobody sends: this waits, no more.
            let (sender, receiver) = mpsc::channel::<()>();
            let _ = receiver.recv_timeout(duration);
            drop(sender);
        }
        None => {
            io::copy(&mut io::stdin(), &mut io::sink())
                .map_err(|error| Failure::io("reading standard input", error))?;
        }
    }
    for stream in &mut streams {
        stream.set_nonblocking().map_err(|error| Failure::io("looking at a connection", error))?;
        match stream.read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Failure::io("holding a connection", error)),
            Ok(0) => return Err(Failure::Closed),
            Ok(_) => return Err(Failure::Unasked),
        }
    }
    Ok(())
}

fn open(options: &Options) -> Result<Stream, Failure> {
    let mut stream =
        Stream::connect(&options.target).map_err(|error| Failure::io("connecting to the server", error))?;
    stream.set_timeout(options.timeout).map_err(|error| Failure::io("setting a timeout", error))?;
    stream.write_all(b"*1\r\n$4\r\nPING\r\n").map_err(|error| Failure::io("sending", error))?;
    let mut reply = [0; 7];
    stream.read_exact(&mut reply).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => Failure::Silence(options.timeout),
        io::ErrorKind::UnexpectedEof => Failure::Closed,
        _ => Failure::io("receiving", error),
    })?;
    if &reply != b"+PONG\r\n" {
        return Err(Failure::Nonsense(format!("{} to PING", String::from_utf8_lossy(&reply).escape_debug())));
    }
    Ok(stream)
}
