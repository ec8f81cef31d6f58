//! Three nodes of etcd, its own load, and the same calls from a loop of ours.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::{
    Settings,
    closed_loop::{ClosedLoop, Dialogue, Tally},
    directory::Directory,
    failure::{During, Failure, Result},
    grpc::Puts,
    process::{self, Usage, pinned},
    server::free_port,
};

/// Nodes of a cluster.
const NODES: usize = 3;

/// Keys that are put.
const PUT_KEYS: u64 = 1_000_000;

/// How long a cluster may take until it is healthy.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running cluster, all on the servers' CPU; ended when dropped.
pub(crate) struct Etcd {
    nodes: Vec<Child>,
    /// Of clients.
    ports: Vec<u16>,
    control: PathBuf,
    endpoints: String,
    directory: Directory,
}

impl Etcd {
    /// Starts three nodes of `program`, beside which `etcdctl` is, and waits until they are healthy.
    pub(crate) fn start(program: OsString, settings: &Settings) -> Result<Self> {
        let program = PathBuf::from(program);
        let beside = program.with_file_name("etcdctl");
        let mut etcd = Self {
            nodes: Vec::new(),
            ports: Vec::new(),
            control: if beside.exists() { beside } else { "etcdctl".into() },
            endpoints: String::new(),
            directory: Directory::new(&settings.directory)?,
        };
        let mut urls = Vec::new();
        for _ in 0..NODES {
            let url = |port: u16| format!("http://127.0.0.1:{port}");
            let port = free_port()?;
            urls.push((url(port), url(free_port()?)));
            etcd.ports.push(port);
        }
        let peers: Vec<String> =
            urls.iter().enumerate().map(|(number, (_, peer))| format!("node{number}={peer}")).collect();
        etcd.endpoints = urls.iter().map(|(client, _)| client.as_str()).collect::<Vec<_>>().join(",");
        for (number, (client, peer)) in urls.iter().enumerate() {
            let name = format!("node{number}");
            let path = etcd.directory.path().join(&name);
            let log = path.with_extension("log");
            let output = fs::File::create(&log).during(|| log.display().to_string())?;
            let errors = output.try_clone().during(|| log.display().to_string())?;
            let node = pinned(&program, &[settings.server_cpu])
                .args(["--name", &name, "--data-dir"])
                .arg(&path)
                .args(["--listen-client-urls", client, "--advertise-client-urls", client])
                .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
                .args(["--initial-cluster", &peers.join(","), "--initial-cluster-state", "new"])
                .args(["--log-level", "error"])
                .stdin(Stdio::null())
                .stdout(output)
                .stderr(errors)
                .spawn()
                .during(|| format!("starting {}", program.display()))?;
            etcd.nodes.push(node);
        }
        etcd.wait_until_healthy(settings)?;
        Ok(etcd)
    }

    /// Runs `etcdctl check perf --load=xl`, which takes a minute: 1,000 clients, values of 1 KiB.
    pub(crate) fn writes_per_second(&self, settings: &Settings) -> Result<f64> {
        let mut command = self.control(settings);
        command.args(["check", "perf", "--load=xl", "--auto-compact", "--auto-defrag"]);
        let Output { stdout, stderr, .. } = self.output(&mut command)?;
        // It ends with an error when it thinks that the cluster is slow.
        let text = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
        throughput(&text)
            .ok_or_else(|| Failure::new(format!("etcdctl check perf printed no throughput:\n{text}")))
    }

    /// Lets so many clients put values of so many bytes, over gRPC as etcdctl does, one call at a time each, spread over the
    /// nodes. Returns what was measured from the first second on, for so many seconds at least.
    pub(crate) fn put(&self, clients: usize, value_len_bytes: usize, seconds: usize) -> Result<Tally> {
        let client = |number: usize| {
            let puts = Puts::new(PUT_KEYS, value_len_bytes, number as u64);
            (self.ports[number % self.ports.len()], Box::new(puts) as Box<dyn Dialogue>)
        };
        let running = ClosedLoop::begin((0..clients).map(client).collect(), 1)?;
        running.pass_until(seconds);
        running.finish()
    }

    /// What all nodes have used together.
    pub(crate) fn usage(&self) -> Result<Usage> {
        self.nodes.iter().try_fold(Usage::default(), |sum, node| Ok(sum + Usage::of(node.id())?))
    }

    fn wait_until_healthy(&self, settings: &Settings) -> Result<()> {
        let start = Instant::now();
        loop {
            let output = self.output(self.control(settings).args(["endpoint", "health"]))?;
            if output.status.success() {
                return Ok(());
            }
            if start.elapsed() > START_TIMEOUT {
                let text = String::from_utf8_lossy(&output.stderr).into_owned();
                return Err(Failure::new(format!("etcd did not start: {text}\n{}", self.said())));
            }
            process::pass(Duration::from_millis(100));
        }
    }

    fn control(&self, settings: &Settings) -> Command {
        let mut command = pinned(&self.control, &[settings.client_cpu]);
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.endpoints]);
        command
    }

    fn output(&self, command: &mut Command) -> Result<Output> {
        command.stdin(Stdio::null()).output().during(|| format!("starting {}", self.control.display()))
    }

    fn said(&self) -> String {
        let log = |number: usize| {
            fs::read_to_string(Path::new(self.directory.path()).join(format!("node{number}.log")))
                .unwrap_or_default()
        };
        (0..self.nodes.len()).map(log).collect()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // Where this fails the process has ended already.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// Reads `PASS: Throughput is 7321 writes/s`, or what it prints if that is not as much as it wanted.
fn throughput(text: &str) -> Option<f64> {
    let (before, _) = text.split_once(" writes/s")?;
    before.rsplit([' ', ':']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_found_whatever_is_thought_of_it() {
        assert_eq!(
            throughput(" 60 / 60 Boooo 100.00% 1m0s\rPASS: Throughput is 14999 writes/s\n"),
            Some(14_999.0)
        );
        assert_eq!(throughput("FAIL: Throughput too low: 2812 writes/s\nPASS: Slowest"), Some(2812.0));
        assert_eq!(throughput("Error: context deadline exceeded"), None);
    }
}
