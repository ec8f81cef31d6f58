//! The clients that make the load: `redis-benchmark`, and our own `duva-load` where nanoseconds or a wrong reply
//! matter.

use std::{
    env,
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use crate::{
    failure::{During, Failure, Result},
    process::{pinned, yielding},
    server::{Server, beside_this},
};

/// What a client measured. Latencies are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Measured {
    pub(crate) requests: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// When the slowest reply came, in seconds after the start, if the client says so.
    pub(crate) max_at_s: Option<f64>,
    /// Requests for keys that had no value, if the client counts them.
    pub(crate) missing: Option<u64>,
}

/// Where the clients are and where they run.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    redis_benchmark: PathBuf,
    duva_load: PathBuf,
    cpu: usize,
}

impl Clients {
    pub(crate) fn on_cpu(cpu: usize) -> Self {
        let path =
            |variable: &str, otherwise: PathBuf| env::var_os(variable).map_or(otherwise, PathBuf::from);
        Self {
            redis_benchmark: path("REDIS_BENCHMARK", "redis-benchmark".into()),
            duva_load: path("DUVA_LOAD", beside_this("duva-load")),
            cpu,
        }
    }

    /// Runs `redis-benchmark` with `options`.
    pub(crate) fn redis_benchmark(&self, server: &Server, options: &str) -> Result<Measured> {
        let mut command = pinned(&self.redis_benchmark, &[self.cpu]);
        command.args(["-h", "127.0.0.1", "-p", &server.port.to_string(), "--precision", "3"]);
        let text = run(command.args(options.split_whitespace()), &server.name)?;
        summary(&text).ok_or_else(|| {
            Failure::new(format!("{}: redis-benchmark {options} printed no summary:\n{text}", server.name))
        })
    }

    /// Runs `duva-load` with `options`; a wrong reply is a failure.
    pub(crate) fn duva_load(&self, server: &Server, options: &str) -> Result<Measured> {
        let mut command = self.duva_load_command(server, options);
        tally(&run(&mut command, &server.name)?, &server.name)
    }

    /// Starts `duva-load` with `options`, to be ended by [`Background::finish`].
    pub(crate) fn duva_load_in_background(&self, server: &Server, options: &str) -> Result<Background> {
        self.begin(self.duva_load_command(server, options), server)
    }

    /// The same, on what others leave of the CPU: another client is not measured later than its reply came.
    pub(crate) fn duva_load_in_leisure(&self, server: &Server, options: &str) -> Result<Background> {
        let mut command = self.duva_load_command(server, options);
        yielding(&mut command);
        self.begin(command, server)
    }

    fn begin(&self, mut command: Command, server: &Server) -> Result<Background> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().during(|| format!("starting {}", self.duva_load.display()))?;
        Ok(Background { child, name: server.name.clone() })
    }

    fn duva_load_command(&self, server: &Server, options: &str) -> Command {
        let mut command = pinned(&self.duva_load, &[self.cpu]);
        command.args(["--json", "--port", &server.port.to_string()]).args(options.split_whitespace());
        command
    }
}

/// A client that runs while something else is looked at; ended when dropped.
pub(crate) struct Background {
    child: Child,
    name: String,
}

impl Background {
    /// Waits for the first line it prints.
    pub(crate) fn first_line(&mut self) -> Result<String> {
        let output = self.child.stdout.as_mut().expect("standard output is a pipe");
        let mut line = String::new();
        BufReader::with_capacity(1, output)
            .read_line(&mut line)
            .during(|| "reading from duva-load".into())?;
        if line.is_empty() {
            return Err(Failure::new(format!("{}: duva-load ended", self.name)));
        }
        Ok(line)
    }

    /// Ends its standard input, waits until it has ended well, and returns what it measured.
    pub(crate) fn measured(self) -> Result<Measured> {
        let name = self.name.clone();
        tally(&self.finish()?, &name)
    }

    /// The same of a load that may have got errors. Returns how many, too, and the first one.
    pub(crate) fn measured_with_errors(self) -> Result<(Measured, u64, Option<String>)> {
        let name = self.name.clone();
        let (text, status) = self.end()?;
        let (measured, errors, first_error) = tally_with_errors(&text, &name)?;
        if status.success() || errors > 0 {
            return Ok((measured, errors, first_error));
        }
        Err(Failure::new(format!("{name}: duva-load failed with {status}: {text}")))
    }

    /// Ends its standard input and waits until it has ended well. Returns what it printed last.
    pub(crate) fn finish(self) -> Result<String> {
        let name = self.name.clone();
        match self.end()? {
            (text, status) if status.success() => Ok(text),
            (text, status) => Err(Failure::new(format!("{name}: duva-load failed with {status}: {text}"))),
        }
    }

    fn end(mut self) -> Result<(String, ExitStatus)> {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        let output = self.child.stdout.as_mut().expect("standard output is a pipe");
        output.read_to_string(&mut rest).during(|| "reading from duva-load".into())?;
        let status = self.child.wait().during(|| "waiting for duva-load".into())?;
        Ok((rest, status))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // After `finish` both have no effect.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(command: &mut Command, server: &str) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } = command.output().during(|| format!("starting {program}"))?;
    let text = String::from_utf8_lossy(&stdout).into_owned();
    let errors = String::from_utf8_lossy(&stderr);
    if !status.success() || text.contains("Error from server") || errors.contains("Error from server") {
        return Err(Failure::new(format!("{server}: {program} failed with {status}:\n{text}{errors}")));
    }
    Ok(text)
}

/// Reads what `duva-load --json` prints of a load.
fn tally(text: &str, server: &str) -> Result<Measured> {
    tally_with_errors(text, server).map(|(measured, ..)| measured)
}

fn tally_with_errors(text: &str, server: &str) -> Result<(Measured, u64, Option<String>)> {
    let unread = || Failure::new(format!("{server}: duva-load printed {text}"));
    let json: serde_json::Value = serde_json::from_str(text).map_err(|_| unread())?;
    let number = |value: &serde_json::Value| value.as_f64().ok_or_else(unread);
    let latency = &json["latency_ns"];
    let measured = Measured {
        requests: number(&json["requests"])? as u64,
        requests_per_second: number(&json["requests_per_second"])?,
        p50_us: number(&latency["p50"])? / 1e3,
        p99_us: number(&latency["p99"])? / 1e3,
        p999_us: number(&latency["p99_9"])? / 1e3,
        max_us: number(&latency["max"])? / 1e3,
        max_at_s: Some(number(&latency["max_at_s"])?),
        missing: Some(number(&json["missing"])? as u64),
    };
    let first_error = json["first_error"].as_str().map(str::to_owned);
    Ok((measured, number(&json["errors"])? as u64, first_error))
}

/// Reads what `redis-benchmark` prints for one test. It has no p99.9, but a percentile just above.
fn summary(text: &str) -> Option<Measured> {
    let (_, text) = text.split_once("====== ")?;
    let before = |marker: &str| {
        let line = text.lines().find(|line| line.contains(marker))?;
        line.split(marker).next()?.split_whitespace().next_back()?.parse::<f64>().ok()
    };
    let requests = before("requests completed in")? as u64;
    let requests_per_second = before("requests per second")?;
    let p999_ms = text.lines().find_map(|line| {
        let (percent, rest) = line.split_once("% <= ")?;
        let is_high = percent.parse::<f64>().ok()? >= 99.9;
        is_high.then(|| rest.split_once(" milliseconds")?.0.parse::<f64>().ok())?
    })?;
    let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with("latency summary")).skip(1);
    let names: Vec<&str> = lines.next()?.split_whitespace().collect();
    let figures: Vec<&str> = lines.next()?.split_whitespace().collect();
    let milliseconds = |name: &str| {
        let position = names.iter().position(|&column| column == name)?;
        figures.get(position)?.parse::<f64>().ok()
    };
    Some(Measured {
        requests,
        requests_per_second,
        p50_us: milliseconds("p50")? * 1e3,
        p99_us: milliseconds("p99")? * 1e3,
        p999_us: p999_ms * 1e3,
        max_us: milliseconds("max")? * 1e3,
        max_at_s: None,
        missing: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_of_redis_benchmark_is_read() {
        let text = "GET: rps=0.0 (overall: -nan) avg_msec=-nan\r====== GET ======\n  \
            100000 requests completed in 0.46 seconds\n  50 parallel clients\n\n\
            Latency by percentile distribution:\n50.000% <= 2.375 milliseconds (cumulative count 50112)\n\
            99.805% <= 25.695 milliseconds (cumulative count 99824)\n\
            99.902% <= 25.775 milliseconds (cumulative count 99904)\n\
            100.000% <= 25.919 milliseconds (cumulative count 100000)\n\nSummary:\n  \
            throughput summary: 219298.25 requests per second\n  latency summary (msec):\n          \
            avg       min       p50       p95       p99       max\n        \
            3.466     0.200     2.375     8.903    13.831    25.919\n";
        let expected = Measured {
            requests: 100_000,
            requests_per_second: 219_298.25,
            p50_us: 2375.0,
            p99_us: 13_831.0,
            p999_us: 25_775.0,
            max_us: 25_919.0,
            max_at_s: None,
            missing: None,
        };
        assert_eq!(summary(text), Some(expected));
        assert_eq!(summary("====== GET ======\n"), None);
    }
}
