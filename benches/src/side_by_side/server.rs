//! Servers under comparison: which there are, and one running.
//!
//! Every server is started by the harness, on a port that was free, pinned, without persistence, in a directory of
//! its own; it is ended, by its process number, when its value is dropped.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use crate::{
    connection::Connection,
    failure::{During, Failure, Result},
    process::{self, Usage, pinned},
};

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// The limits of connections are above what any comparison opens.
const DUVA_ARGUMENTS: &str = "--port {port} --bind 127.0.0.1 --cores {cores} --cpus {cpus} --dir {dir} \
                              --appendonly no --save \"\" --maxclients 15000";
const REDIS_ARGUMENTS: &str =
    "--port {port} --bind 127.0.0.1 --dir {dir} --appendonly no --save \"\" --maxclients 15000";
const KEVY_ARGUMENTS: &str = "--port {port} --bind 127.0.0.1 --threads {cores} --dir {dir} --no-aof";
const OTHER_ARGUMENTS: &str = "--port {port}";

/// A server that can be started.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kind {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    /// Separated by blanks; `""` is an empty one. {port}, {dir}, {cores} and {cpus} are replaced.
    pub(crate) arguments: String,
    /// Threads that serve data.
    pub(crate) cores: usize,
}

impl Kind {
    /// Duva, Redis, and whatever else the environment names.
    pub(crate) fn all() -> Vec<Self> {
        let path =
            |variable: &str, otherwise: PathBuf| env::var_os(variable).map_or(otherwise, PathBuf::from);
        let kind = |name: &str, program, arguments: &str| Self {
            name: name.into(),
            program,
            arguments: arguments.into(),
            cores: 1,
        };
        let mut kinds = vec![
            kind("duva", path("DUVA_SERVER", beside_this("duva-server")), DUVA_ARGUMENTS),
            kind("redis", path("REDIS_SERVER", "redis-server".into()), REDIS_ARGUMENTS),
        ];
        let mut peers: Vec<(String, String)> = env::vars()
            .filter_map(|(variable, program)| Some((variable.strip_prefix("PEER_")?.to_owned(), program)))
            .filter(|(name, _)| !name.ends_with("_ARGS"))
            .collect();
        peers.sort();
        for (name, program) in peers {
            let usual = if name == "KEVY" { KEVY_ARGUMENTS } else { OTHER_ARGUMENTS };
            let arguments = env::var(format!("PEER_{name}_ARGS")).unwrap_or_else(|_| usual.into());
            kinds.push(kind(&name.to_lowercase(), program.into(), &arguments));
        }
        kinds
    }

    /// The same server with `cores` threads, under a name that says so.
    pub(crate) fn with_cores(&self, cores: usize) -> Self {
        let unit = if cores == 1 { "core" } else { "cores" };
        Self { name: format!("{}, {cores} {unit}", self.name), cores, ..self.clone() }
    }

    fn arguments(&self, port: u16, directory: &Path, cpus: &[usize]) -> Vec<String> {
        let cpus = cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        let fill = |word: &str| {
            word.replace("{port}", &port.to_string())
                .replace("{dir}", &directory.display().to_string())
                .replace("{cores}", &self.cores.to_string())
                .replace("{cpus}", &cpus)
        };
        self.arguments
            .split_whitespace()
            .map(|word| if word == "\"\"" { String::new() } else { fill(word) })
            .collect()
    }
}

/// A program of this project: beside this one, as Cargo puts it.
pub(crate) fn beside_this(name: &str) -> PathBuf {
    let beside = env::current_exe().ok().and_then(|path| Some(path.parent()?.join(name)));
    match beside {
        Some(path) if path.exists() => path,
        _ => Path::new("target/release").join(name),
    }
}

/// A running server.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) port: u16,
    child: Child,
    directory: PathBuf,
}

impl Server {
    /// Starts a server on the CPUs from `first_cpu` on, as many as it has cores, and waits until it answers.
    pub(crate) fn start(kind: &Kind, first_cpu: usize) -> Result<Self> {
        let cpus: Vec<usize> = (first_cpu..first_cpu + kind.cores).collect();
        let directory = new_directory()?;
        let log = directory.join("output");
        let output = fs::File::create(&log).during(|| log.display().to_string())?;
        let errors = output.try_clone().during(|| log.display().to_string())?;
        let port = free_port()?;
        let child = pinned(&kind.program, &cpus)
            .args(kind.arguments(port, &directory, &cpus))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .during(|| format!("starting {} ({})", kind.name, kind.program.display()))?;
        let mut server = Self { name: kind.name.clone(), port, child, directory };
        let deadline = Instant::now() + START_TIMEOUT;
        while !server.answers() {
            let ended = server.child.try_wait().during(|| format!("waiting for {}", server.name))?.is_some();
            if ended || Instant::now() > deadline {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let what = if ended { "ended" } else { "did not answer" };
                return Err(Failure::new(format!("{} {what}; it said:\n{said}", server.name)));
            }
            process::pass(Duration::from_millis(5));
        }
        Ok(server)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connect(&self) -> Result<Connection> {
        Connection::open(self.port).map_err(|failure| Failure::new(format!("{}: {failure}", self.name)))
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid())
    }

    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        process::resident_bytes(self.pid())
    }

    /// Stops the process where it is, so that it takes nothing from another one being measured.
    pub(crate) fn pause(&self) -> Result<()> {
        process::signal(&self.child, libc::SIGSTOP)
    }

    /// Lets a paused process go on, and waits until it answers.
    pub(crate) fn resume(&self) -> Result<()> {
        process::signal(&self.child, libc::SIGCONT)?;
        self.connect()?.command(&["PING"]).map(drop)
    }

    fn answers(&self) -> bool {
        Connection::open(self.port).and_then(|mut connection| connection.command(&["PING"])).is_ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing it keeps is of worth. Where this fails the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn new_directory() -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = env::temp_dir().join(format!("duva-side-by-side-{}-{number}", std::process::id()));
    fs::create_dir(&directory).during(|| directory.display().to_string())?;
    Ok(directory)
}

/// A port that was free a moment ago. Should another process take it meanwhile, the server says so and ends.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").during(|| "asking for a free port".into())?;
    Ok(listener.local_addr().during(|| "asking for a free port".into())?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_filled_in() {
        let kind = Kind {
            name: "x".into(),
            program: "x".into(),
            arguments: "--port {port}  --save \"\" --cpus={cpus} -d {dir}/{cores}".into(),
            cores: 2,
        };
        let arguments = kind.arguments(77, Path::new("/tmp/a b"), &[0, 1]);
        assert_eq!(arguments, ["--port", "77", "--save", "", "--cpus=0,1", "-d", "/tmp/a b/2"]);
    }
}
