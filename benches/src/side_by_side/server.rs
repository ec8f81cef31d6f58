//! Servers under comparison: which there are, and one running.
//!
//! Every server is started by the harness, on a port that was free, pinned, in a directory of its own, and without
//! persistence unless its kind says otherwise; it is ended, by its process number, when its value is dropped.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Settings,
    connection::Connection,
    directory::Directory,
    failure::{During, Failure, Result},
    process::{self, Usage, pinned},
};

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long it may take to read what it has on the disk, to write that, or to end in order.
const DISK_TIMEOUT: Duration = Duration::from_secs(300);

/// How often a server is asked whether it has finished.
const LOOK: Duration = Duration::from_millis(20);

/// The limits of connections are above what any comparison opens.
const DUVA_ARGUMENTS: &str = "--port {port} --bind 127.0.0.1 --cores {cores} --cpus {cpus} --dir {dir} \
                              {persistence} --maxclients 15000";
const REDIS_ARGUMENTS: &str = "--port {port} --bind 127.0.0.1 --dir {dir} {persistence} --maxclients 15000";
const KEVY_ARGUMENTS: &str = "--port {port} --bind 127.0.0.1 --threads {cores} --dir {dir} --no-aof";
const OTHER_ARGUMENTS: &str = "--port {port}";

/// How a server keeps its data on disk. Snapshots are not taken by themselves, but a rewrite of the journal is, at the
/// growth that is usual for the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Persistence {
    #[default]
    None,
    EverySecond,
    Always,
}

impl Persistence {
    /// Redis's options for it, which are Duva's too.
    fn words(self) -> &'static str {
        match self {
            Self::None => "--appendonly no --save \"\"",
            Self::EverySecond => "--appendonly yes --appendfsync everysec --save \"\"",
            Self::Always => "--appendonly yes --appendfsync always --save \"\"",
        }
    }
}

/// Which programs a rewrite of the journal makes different files with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Journals by core, snapshots by shard.
    Duva,
    /// AOF and RDB.
    Redis,
}

/// A server that can be started.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kind {
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    /// Separated by blanks; `""` is an empty one. {port}, {dir}, {cores}, {cpus} and {persistence} are replaced.
    pub(crate) arguments: String,
    /// Threads that serve data.
    pub(crate) cores: usize,
    pub(crate) persistence: Persistence,
    /// The first of its CPUs; `None`: that of all servers.
    pub(crate) first_cpu: Option<usize>,
}

impl Kind {
    /// Duva, Redis, and whatever else the environment names.
    pub(crate) fn all() -> Vec<Self> {
        let path =
            |variable: &str, otherwise: PathBuf| env::var_os(variable).map_or(otherwise, PathBuf::from);
        let kind = |name: &str, program, arguments: &str| Self {
            program,
            arguments: arguments.into(),
            ..Self::plain(name)
        };
        let mut kinds = vec![
            kind("duva", path("DUVA_SERVER", beside_this("duva-server")), DUVA_ARGUMENTS),
            kind("redis", path("REDIS_SERVER", "redis-server".into()), REDIS_ARGUMENTS),
        ];
        let mut peers: Vec<(String, String)> = env::vars()
            .filter_map(|(variable, program)| Some((variable.strip_prefix("PEER_")?.to_owned(), program)))
            // etcd speaks another protocol: see `cluster`.
            .filter(|(name, _)| !name.ends_with("_ARGS") && name != "ETCD")
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

    /// A program of that name with the usual options of an unknown server.
    pub(crate) fn plain(name: &str) -> Self {
        Self {
            name: name.into(),
            program: name.into(),
            arguments: OTHER_ARGUMENTS.into(),
            cores: 1,
            persistence: Persistence::None,
            first_cpu: None,
        }
    }

    /// The same server, keeping its data in that way; `None` if it cannot be told to.
    pub(crate) fn keeping(&self, persistence: Persistence) -> Option<Self> {
        let can_be_told = self.arguments.contains("{persistence}") || persistence == Persistence::None;
        can_be_told.then(|| Self { persistence, ..self.clone() })
    }

    /// The same server with further arguments.
    pub(crate) fn with_arguments(&self, arguments: &str) -> Self {
        Self { arguments: format!("{} {arguments}", self.arguments), ..self.clone() }
    }

    /// What it writes to disk, as far as its name tells: an older Duva may be compared under a name such as `duva-0`.
    pub(crate) fn family(&self) -> Family {
        if self.name.starts_with("duva") { Family::Duva } else { Family::Redis }
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
            .replace("{persistence}", self.persistence.words())
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
    // It is removed after the process has ended.
    directory: Arc<Directory>,
    persistence: Persistence,
}

impl Server {
    /// Starts a server in a new directory, on as many CPUs as it has cores, and waits until it answers.
    pub(crate) fn start(kind: &Kind, settings: &Settings) -> Result<Self> {
        let directory = Arc::new(Directory::new(&settings.directory)?);
        Self::launch(kind, settings, directory, free_port()?, START_TIMEOUT).map(|(server, _)| server)
    }

    /// Starts a server in `directory` and on a port that others know it by.
    pub(crate) fn start_at(
        kind: &Kind,
        settings: &Settings,
        directory: &Arc<Directory>,
        port: u16,
    ) -> Result<Self> {
        Self::launch(kind, settings, Arc::clone(directory), port, DISK_TIMEOUT).map(|(server, _)| server)
    }

    /// Starts a server on what another one left in `directory`. Returns also how long it took until the first reply
    /// that was no error, and hence until everything was loaded, from before the process was made.
    pub(crate) fn restart(
        kind: &Kind,
        settings: &Settings,
        directory: &Arc<Directory>,
    ) -> Result<(Self, Duration)> {
        Self::launch(kind, settings, Arc::clone(directory), free_port()?, DISK_TIMEOUT)
    }

    fn launch(
        kind: &Kind,
        settings: &Settings,
        directory: Arc<Directory>,
        port: u16,
        timeout: Duration,
    ) -> Result<(Self, Duration)> {
        let first_cpu = kind.first_cpu.unwrap_or(settings.server_cpu);
        let cpus: Vec<usize> = (first_cpu..first_cpu + kind.cores).collect();
        let log = directory.path().join("output");
        let output = fs::File::create(&log).during(|| log.display().to_string())?;
        let errors = output.try_clone().during(|| log.display().to_string())?;
        let start = Instant::now();
        let child = pinned(&kind.program, &cpus)
            .args(kind.arguments(port, directory.path(), &cpus))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .during(|| format!("starting {} ({})", kind.name, kind.program.display()))?;
        let mut server =
            Self { name: kind.name.clone(), port, child, directory, persistence: kind.persistence };
        while !server.answers() {
            let ended = server.child.try_wait().during(|| format!("waiting for {}", server.name))?.is_some();
            if ended || start.elapsed() > timeout {
                let what = if ended { "ended" } else { "did not answer" };
                return Err(Failure::new(format!("{} {what}; it said:\n{}", server.name, server.said())));
            }
            process::pass(Duration::from_millis(5));
        }
        Ok((server, start.elapsed()))
    }

    /// Ends the server in order, so that what it has is on its disk, and returns its directory.
    pub(crate) fn end(mut self) -> Result<Arc<Directory>> {
        process::signal(&self.child, libc::SIGTERM)?;
        let deadline = Instant::now() + DISK_TIMEOUT;
        loop {
            match self.child.try_wait().during(|| format!("waiting for {}", self.name))? {
                Some(status) if status.success() => return Ok(Arc::clone(&self.directory)),
                Some(status) => {
                    return Err(Failure::new(format!(
                        "{} ended with {status}; it said:\n{}",
                        self.name,
                        self.said()
                    )));
                }
                None if Instant::now() > deadline => {
                    return Err(Failure::new(format!("{} did not end", self.name)));
                }
                None => process::pass(LOOK),
            }
        }
    }

    /// Waits until no snapshot and no rewrite is under way, or about to be; `look` is called now and then.
    ///
    /// # Errors
    /// Also if the last one went wrong.
    pub(crate) fn wait_until_saved(&self, mut look: impl FnMut() -> Result<()>) -> Result<()> {
        let mut connection = self.connect()?;
        let deadline = Instant::now() + DISK_TIMEOUT;
        loop {
            look()?;
            let section = connection.command(&["INFO", "persistence"])?;
            let shows = |field: &str| section.lines().any(|line| line.trim_end() == field);
            if shows("rdb_last_bgsave_status:err") || shows("aof_last_bgrewrite_status:err") {
                return Err(Failure::new(format!("{} could not save; it said:\n{}", self.name, self.said())));
            }
            let is_busy =
                ["rdb_bgsave_in_progress:1", "aof_rewrite_in_progress:1", "aof_rewrite_scheduled:1"];
            if !is_busy.into_iter().any(shows) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Failure::new(format!("{} did not finish saving", self.name)));
            }
            process::pass(LOOK);
        }
    }

    /// Has everything written that was begun, so that nothing of this server runs while another is measured, and stops
    /// it. A process that it had made itself would not stop with it.
    pub(crate) fn rest(&self) -> Result<()> {
        if self.persistence != Persistence::None {
            self.wait_until_saved(|| Ok(()))?;
        }
        self.pause()
    }

    fn said(&self) -> String {
        fs::read_to_string(self.directory.path().join("output")).unwrap_or_default()
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
        // Where this fails the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago. Should another process take it meanwhile, the server says so and ends.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").during(|| "asking for a free port".into())?;
    Ok(listener.local_addr().during(|| "asking for a free port".into())?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_filled_in() {
        let kind = Kind {
            arguments: "--port {port}  --save \"\" --cpus={cpus} -d {dir}/{cores}".into(),
            cores: 2,
            ..Kind::plain("x")
        };
        let arguments = kind.arguments(77, Path::new("/tmp/a b"), &[0, 1]);
        assert_eq!(arguments, ["--port", "77", "--save", "", "--cpus=0,1", "-d", "/tmp/a b/2"]);
    }

    #[test]
    fn a_server_keeps_its_data_only_if_it_can_be_told_how() {
        let peer = Kind::plain("x");
        assert_eq!(peer.keeping(Persistence::Always), None);
        assert_eq!(peer.keeping(Persistence::None), Some(peer.clone()));
        let kind = peer.with_arguments("{persistence} --last").keeping(Persistence::Always).unwrap();
        assert_eq!(
            kind.arguments(7, Path::new("/"), &[0]),
            ["--port", "7", "--appendonly", "yes", "--appendfsync", "always", "--save", "", "--last"]
        );
    }
}
