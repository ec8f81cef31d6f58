//! The command line.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use crate::workload::{KEY_LEN_BYTES, Operation};

pub(crate) const HELP: &str = "\
duva-load: a load generator for servers of the Redis protocol

USAGE:
    duva-load [OPTIONS]                 requests on random keys, as fast as the server answers
    duva-load --rate N [OPTIONS]        requests at a fixed rate, whether the server keeps up or not
    duva-load --fill N [OPTIONS]        sets keys 0 to N-1, each once, in order
    duva-load --idle N [OPTIONS]        opens N connections and holds them until standard input ends

SERVER:
    --host HOST            name or address                                  [127.0.0.1]
    --port PORT            TCP port                                         [6379]
    --socket PATH          Unix socket instead of host and port

LOAD:
    --connections N        connections                                      [50]
    --pipeline N           outstanding requests of a connection             [1]
    --op OP                get, set, incr, expire or mixed                  [get]
    --reads FRACTION       how many requests of a mixed load are GETs       [0.9]
    --keys N               number of keys                                   [1000000]
    --sequential           keys in order instead of at random
    --value-bytes N        length of a value                                [64]
    --prefix TEXT          what keys begin with                             [key: (incr: ctr:)]
    --tag                  all keys under one hash tag, hence in one slot (the prefix {t}:)
    --expire-at SECONDS    the Unix time at which keys expire: SET gets EXAT, --op expire sends EXPIREAT
    --requests N           how many requests                                [1000000]
    --duration SECONDS     how long, instead of how many
    --until-input-ends     until standard input ends, instead of how many
    --rate N               requests a second, of all connections
    --seed N               of the random keys                               [1]
    --timeout SECONDS      silence of the server that ends the run          [30]

OUTPUT:
    --any-value            do not compare the values that GET returns
    --json                 one JSON object instead of text
    -h, --help             this text

Keys are 16 bytes: the prefix and a decimal number padded with zeros, so by default those of redis-benchmark. A value
begins with its key, so that GET can tell a wrong one. Without --rate a connection sends a whole pipeline, then waits
for all replies, as redis-benchmark does. With --rate the latency of a request runs from the moment it was due, so a
server that stalls is charged with the requests that it kept from being sent.

Exit code: 0; 1 if a reply was an error or not what the request asks for, or the run failed; 2 for a wrong option.
";

/// Where the server listens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mode {
    /// Requests, until so many were answered or the time is over.
    Load(Limit),
    /// Set so many keys, each once.
    Fill(u64),
    /// Hold so many connections.
    Idle(usize),
}

/// When a load ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    Requests(u64),
    Duration(Duration),
    /// When standard input ends.
    Input,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) target: Target,
    pub(crate) mode: Mode,
    pub(crate) connections: usize,
    pub(crate) pipeline: usize,
    pub(crate) operation: Operation,
    pub(crate) keys: u64,
    pub(crate) sequential: bool,
    pub(crate) value_len_bytes: usize,
    pub(crate) prefix: String,
    /// Unix time in seconds.
    pub(crate) expire_at_s: Option<u64>,
    /// Requests a second; closed loop without.
    pub(crate) rate: Option<f64>,
    pub(crate) seed: u64,
    pub(crate) timeout: Duration,
    pub(crate) any_value: bool,
    pub(crate) json: bool,
    /// Of `--idle`: how long, if not until standard input ends.
    pub(crate) hold: Option<Duration>,
}

/// A command line that cannot be understood; the text names the option.
#[derive(Debug, PartialEq)]
pub(crate) struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Options {
    /// Parses the arguments after the program's name. `None`: help is asked for.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Self>, UsageError> {
        let mut raw = Raw::default();
        while let Some(option) = arguments.next() {
            let option = option.as_str();
            match option {
                "-h" | "--help" => return Ok(None),
                "--sequential" => raw.sequential = true,
                "--tag" => raw.tag = true,
                "--any-value" => raw.any_value = true,
                "--until-input-ends" => raw.until_input_ends = true,
                "--json" => raw.json = true,
                _ if Raw::VALUED.contains(&option) => {
                    let value =
                        arguments.next().ok_or_else(|| UsageError(format!("{option} needs a value")))?;
                    raw.set(option, &value)?;
                }
                _ => return Err(UsageError(format!("unknown option {option}; see duva-load --help"))),
            }
        }
        raw.finish().map(Some)
    }
}

/// The options as they were given.
#[derive(Default)]
struct Raw {
    host: Option<String>,
    port: Option<u16>,
    socket: Option<PathBuf>,
    connections: Option<usize>,
    pipeline: Option<usize>,
    operation: Option<String>,
    reads: Option<f64>,
    keys: Option<u64>,
    sequential: bool,
    value_len_bytes: Option<usize>,
    prefix: Option<String>,
    tag: bool,
    expire_at_s: Option<u64>,
    requests: Option<u64>,
    duration_s: Option<f64>,
    until_input_ends: bool,
    rate: Option<f64>,
    seed: Option<u64>,
    timeout_s: Option<f64>,
    fill: Option<u64>,
    idle: Option<usize>,
    any_value: bool,
    json: bool,
}

impl Raw {
    const VALUED: [&str; 18] = [
        "--host",
        "--port",
        "--socket",
        "--connections",
        "--pipeline",
        "--op",
        "--reads",
        "--keys",
        "--value-bytes",
        "--prefix",
        "--expire-at",
        "--requests",
        "--duration",
        "--rate",
        "--seed",
        "--timeout",
        "--fill",
        "--idle",
    ];

    fn set(&mut self, option: &str, value: &str) -> Result<(), UsageError> {
        match option {
            "--host" => self.host = Some(value.into()),
            "--port" => self.port = Some(number(option, value, 1)?),
            "--socket" => self.socket = Some(value.into()),
            "--connections" => self.connections = Some(number(option, value, 1)?),
            "--pipeline" => self.pipeline = Some(number(option, value, 1)?),
            "--op" => self.operation = Some(value.into()),
            "--reads" => self.reads = Some(number(option, value, 0.0)?),
            "--keys" => self.keys = Some(number(option, value, 1)?),
            "--value-bytes" => self.value_len_bytes = Some(number(option, value, 0)?),
            "--prefix" => self.prefix = Some(value.into()),
            "--expire-at" => self.expire_at_s = Some(number(option, value, 1)?),
            "--requests" => self.requests = Some(number(option, value, 1)?),
            "--duration" => self.duration_s = Some(number(option, value, 0.001)?),
            "--rate" => self.rate = Some(number(option, value, 0.001)?),
            "--seed" => self.seed = Some(number(option, value, 0)?),
            "--timeout" => self.timeout_s = Some(number(option, value, 0.001)?),
            "--fill" => self.fill = Some(number(option, value, 1)?),
            "--idle" => self.idle = Some(number(option, value, 1)?),
            _ => unreachable!("{option} is not among the options with a value"),
        }
        Ok(())
    }

    fn finish(self) -> Result<Options, UsageError> {
        let refuse = |text: &str| Err(UsageError(text.into()));
        if self.socket.is_some() && (self.host.is_some() || self.port.is_some()) {
            return refuse("--socket excludes --host and --port");
        }
        if self.fill.is_some() && self.idle.is_some() {
            return refuse("--fill excludes --idle");
        }
        if self.requests.is_some() && (self.duration_s.is_some() || self.fill.is_some()) {
            return refuse("--requests excludes --duration and --fill");
        }
        if self.fill.is_some() && (self.duration_s.is_some() || self.operation.is_some()) {
            return refuse("--fill excludes --duration and --op");
        }
        if self.until_input_ends
            && (self.requests.is_some()
                || self.duration_s.is_some()
                || self.fill.is_some()
                || self.idle.is_some())
        {
            return refuse("--until-input-ends excludes --requests, --duration, --fill and --idle");
        }
        if self.tag && self.prefix.is_some() {
            return refuse("--tag excludes --prefix");
        }
        let reads = self.reads.unwrap_or(0.9);
        if reads > 1.0 {
            return refuse("--reads must be between 0 and 1");
        }
        let operation = match self.operation.as_deref() {
            _ if self.fill.is_some() => Operation::Set,
            None | Some("get") => Operation::Get,
            Some("set") => Operation::Set,
            Some("incr") => Operation::Increment,
            Some("expire") if self.expire_at_s.is_none() => return refuse("--op expire needs --expire-at"),
            Some("expire") => Operation::Expire,
            Some("mixed") => Operation::Mixed { reads },
            Some(other) => {
                return refuse(&format!("--op must be get, set, incr, expire or mixed, not {other}"));
            }
        };
        let prefix = match (self.tag, self.prefix) {
            (true, _) => "{t}:".into(),
            (false, Some(prefix)) => prefix,
            (false, None) if operation == Operation::Increment => "ctr:".into(),
            (false, None) => "key:".into(),
        };
        let keys = self.fill.or(self.keys).unwrap_or(1_000_000);
        let digits = (keys - 1).checked_ilog10().unwrap_or(0) as usize + 1;
        if prefix.len() + digits > KEY_LEN_BYTES {
            return refuse(&format!("--prefix and the digits of --keys must fit into {KEY_LEN_BYTES} bytes"));
        }
        let duration = self.duration_s.map(Duration::from_secs_f64);
        let mode = match (self.fill, self.idle) {
            (Some(count), _) => Mode::Fill(count),
            (_, Some(count)) => Mode::Idle(count),
            _ if self.until_input_ends => Mode::Load(Limit::Input),
            _ => Mode::Load(match duration {
                Some(duration) => Limit::Duration(duration),
                None => Limit::Requests(self.requests.unwrap_or(1_000_000)),
            }),
        };
        Ok(Options {
            target: match self.socket {
                Some(path) => Target::Unix(path),
                None => Target::Tcp {
                    host: self.host.unwrap_or_else(|| "127.0.0.1".into()),
                    port: self.port.unwrap_or(6379),
                },
            },
            mode,
            connections: self.connections.unwrap_or(50),
            pipeline: self.pipeline.unwrap_or(1),
            operation,
            keys,
            sequential: self.sequential || self.fill.is_some(),
            value_len_bytes: self.value_len_bytes.unwrap_or(64),
            prefix,
            expire_at_s: self.expire_at_s,
            rate: self.rate,
            seed: self.seed.unwrap_or(1),
            timeout: Duration::from_secs_f64(self.timeout_s.unwrap_or(30.0)),
            any_value: self.any_value,
            json: self.json,
            hold: duration,
        })
    }
}

/// A number of at least `min`. Underscores may group its digits.
fn number<T: FromStr + PartialOrd + fmt::Display>(
    option: &str,
    value: &str,
    min: T,
) -> Result<T, UsageError> {
    // Written so that NaN, which compares to nothing, is refused as well.
    match value.replace('_', "").parse::<T>() {
        Ok(number) if number >= min => Ok(number),
        _ => Err(UsageError(format!("{option} must be a number of at least {min}, not {value}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>, UsageError> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    fn options(line: &str) -> Options {
        parse(line).unwrap().unwrap()
    }

    #[test]
    fn defaults_are_those_of_the_help_text() {
        let options = options("");
        assert_eq!(options.target, Target::Tcp { host: "127.0.0.1".into(), port: 6379 });
        assert_eq!(options.mode, Mode::Load(Limit::Requests(1_000_000)));
        assert_eq!((options.connections, options.pipeline, options.value_len_bytes), (50, 1, 64));
        assert_eq!((options.operation, options.prefix.as_str()), (Operation::Get, "key:"));
    }

    #[test]
    fn modes_set_what_follows_from_them() {
        let fill = options("--fill 10_000_000 --tag --expire-at 2000000000");
        assert_eq!(
            (fill.mode, fill.operation, fill.keys),
            (Mode::Fill(10_000_000), Operation::Set, 10_000_000)
        );
        assert!(fill.sequential);
        assert_eq!((fill.prefix.as_str(), fill.expire_at_s), ("{t}:", Some(2_000_000_000)));
        let timed = options("--op mixed --reads 0.5 --duration 2.5 --rate 1000");
        assert_eq!(timed.mode, Mode::Load(Limit::Duration(Duration::from_millis(2500))));
        assert_eq!((timed.operation, timed.rate), (Operation::Mixed { reads: 0.5 }, Some(1000.0)));
        assert_eq!(options("--rate 10 --until-input-ends").mode, Mode::Load(Limit::Input));
        assert_eq!(options("--op incr").prefix, "ctr:");
        assert_eq!(options("--idle 3 --socket /tmp/s").target, Target::Unix("/tmp/s".into()));
        assert_eq!(parse("--op get --help"), Ok(None));
    }

    #[test]
    fn every_wrong_option_is_named() {
        for (line, named) in [
            ("--colour red", "--colour"),
            ("--port", "--port"),
            ("--port 0", "--port"),
            ("--rate NaN", "--rate"),
            ("--connections -1", "--connections"),
            ("--op del", "--op"),
            ("--reads 1.5", "--reads"),
            ("--op expire", "--expire-at"),
            ("--requests 5 --duration 5", "--requests"),
            ("--fill 5 --op get", "--fill"),
            ("--duration 5 --until-input-ends", "--until-input-ends"),
            ("--socket a --port 1", "--socket"),
            ("--prefix abcdefghij --keys 10000000", "--prefix"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
