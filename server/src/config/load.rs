//! Puts the configuration together: defaults, then the file, then the environment, then the flags.

use std::{
    collections::HashMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use clap::{
    ArgMatches, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{
    CORE_COUNT_MAX, ClusterConflict, Config, ForceNewCluster, PEER_PORT_OFFSET, SHARD_COUNT_DEFAULT,
    SHARDS_PER_CORE_MIN,
    command_line::{self, CONFIG_FLAG, CONFIG_VARIABLE},
    file,
    options::OPTIONS,
    value::Reason,
};

/// What the configuration depends on besides arguments and file.
pub struct Surroundings<'a> {
    /// Looks up an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// CPUs that this process may use; at least one.
    pub cpus_available: usize,
}

impl Config {
    /// The configuration of this process: of its arguments, its environment and the CPUs it may use.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn of_process() -> Result<Self, Error> {
        let surroundings = Surroundings {
            variable: &|name| std::env::var_os(name),
            cpus_available: std::thread::available_parallelism().map_or(1, usize::from),
        };
        Self::load(std::env::args_os(), &surroundings)
    }

    /// The configuration for these arguments (the program's name first) in these surroundings.
    ///
    /// # Errors
    /// One error that names the option and where it was set. [`Error::exit`] prints it and ends the process with
    /// status 2; requests for help and for the version are "errors" as well, which it prints with status 0.
    pub fn load<Argument: Into<OsString> + Clone>(
        arguments: impl IntoIterator<Item = Argument>,
        surroundings: &Surroundings<'_>,
    ) -> Result<Self, Error> {
        let matches = command_line::command().try_get_matches_from(arguments).map_err(explain_stray)?;
        let mut loading = Loading { config: Self::default(), origins: HashMap::new() };
        loading.read_file(&matches, surroundings)?;
        loading.read_environment(surroundings)?;
        loading.read_flags(&matches)?;
        loading.complete(surroundings.cpus_available)
    }
}

/// Where an option's value was set last.
#[derive(Clone, Debug)]
enum Origin {
    Flag,
    Variable(String),
    File { path: PathBuf, line: usize },
}

struct Loading {
    config: Config,
    origins: HashMap<&'static str, Origin>,
}

impl Loading {
    fn read_file(&mut self, matches: &ArgMatches, surroundings: &Surroundings<'_>) -> Result<(), Error> {
        let flag = matches.get_one::<String>(CONFIG_FLAG).map(OsString::from);
        let Some(path) = flag.or_else(|| (surroundings.variable)(CONFIG_VARIABLE)).map(PathBuf::from) else {
            return Ok(());
        };
        let text = std::fs::read_to_string(&path).map_err(|reason| {
            error(ErrorKind::Io, format!("cannot read the file {}: {reason}", path.display()))
        })?;
        let settings =
            file::settings(&text).map_err(|refusal| at_line(&path, refusal.line, &refusal.sentence))?;
        for setting in settings {
            (setting.option.parse)(&mut self.config, setting.text.as_bytes()).map_err(|reason| {
                let (name, expects) = (setting.option.name, setting.option.expects);
                let sentence = format!("'{name}' must be {expects}, not '{}': {reason}", setting.text);
                at_line(&path, setting.line, &sentence)
            })?;
            self.origins.insert(setting.option.name, Origin::File { path: path.clone(), line: setting.line });
        }
        Ok(())
    }

    fn read_environment(&mut self, surroundings: &Surroundings<'_>) -> Result<(), Error> {
        for option in OPTIONS.iter().filter(|option| option.is_settable_at_start()) {
            let variable = option.variable();
            let Some(value) = (surroundings.variable)(&variable) else { continue };
            (option.parse)(&mut self.config, value.as_encoded_bytes()).map_err(|reason| {
                let shown = value.to_string_lossy();
                // Kubernetes describes a Service named "duva" to every container in variables of just these names.
                let hint = if shown.starts_with("tcp://") {
                    " (was it set by Kubernetes for a Service named duva? enableServiceLinks: false turns that off)"
                } else {
                    ""
                };
                let kind = ErrorKind::ValueValidation;
                error(kind, format!("invalid value '{shown}' for the variable {variable}: {reason}{hint}"))
            })?;
            self.origins.insert(option.name, Origin::Variable(variable));
        }
        Ok(())
    }

    fn read_flags(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        for option in OPTIONS.iter().filter(|option| option.is_settable_at_start()) {
            for words in matches.get_occurrences::<String>(option.name).into_iter().flatten() {
                let words: Vec<&str> = words.map(String::as_str).collect();
                let value = words.join(" ");
                (option.parse)(&mut self.config, value.as_bytes()).map_err(|reason: Reason| {
                    let flag = format!("--{} <{}>", option.name, option.placeholder);
                    error(
                        ErrorKind::ValueValidation,
                        format!("invalid value '{value}' for '{flag}': {reason}"),
                    )
                })?;
                self.origins.insert(option.name, Origin::Flag);
            }
        }
        Ok(())
    }

    /// Fills in what depends on the machine, and checks what no option can check by itself.
    fn complete(mut self, cpus_available: usize) -> Result<Config, Error> {
        let config = &mut self.config;
        if !self.origins.contains_key("cores") {
            let cpu_count = if config.cpus.is_empty() { cpus_available } else { config.cpus.len() };
            // Lossless: bounded by a `u16`.
            config.cores = cpu_count.clamp(1, usize::from(CORE_COUNT_MAX)) as u16;
        }
        if !config.cpus.is_empty() && config.cpus.len() < usize::from(config.cores) {
            let (cpus, cores) = (config.cpus.len(), config.cores);
            let sentence = format!("lists {cpus} CPUs for {cores} cores: list more CPUs or lower cores");
            return Err(self.conflict("cpus", &sentence));
        }
        let shards_min = SHARDS_PER_CORE_MIN * config.cores;
        config.is_shard_count_given = self.origins.contains_key("shards");
        if !config.is_shard_count_given {
            config.shards = SHARD_COUNT_DEFAULT.max(shards_min.next_power_of_two());
        }
        if config.shards < shards_min {
            let (shards, cores) = (config.shards, config.cores);
            let sentence = format!(
                "is {shards}, too few for {cores} cores: {shards_min} or more are needed (four a core)"
            );
            return Err(self.conflict("shards", &sentence));
        }
        if (config.port == 0 || config.bind.is_empty()) && config.unix_socket.is_none() {
            let option = if config.port == 0 { "port" } else { "bind" };
            return Err(
                self.conflict(option, "turns TCP off, and without unixsocket there is nothing to listen on")
            );
        }
        if !self.origins.contains_key("peer-port") {
            // What is too large is a conflict for nodes of a cluster alone, and found below.
            config.peer_port = config.port.checked_add(PEER_PORT_OFFSET).unwrap_or(0);
        }
        if config.cluster && config.join.is_some() {
            return Err(self.conflict("join", "joins a cluster and cluster makes one: only one can be"));
        }
        if config.force_new_cluster != ForceNewCluster::No && config.join.is_some() {
            let sentence =
                "makes this node a cluster of its own and join takes it to another: only one can be";
            return Err(self.conflict("force-new-cluster", sentence));
        }
        config.is_cluster_enabled = config.cluster || config.join.is_some();
        if config.is_cluster_enabled
            && let Err(ClusterConflict { option, sentence }) = config.check_for_cluster()
        {
            return Err(self.conflict(option, &sentence));
        }
        let config = &self.config;
        if config.append_directory_name == config.snapshot_file_name {
            let sentence = format!(
                "is {}, and so is dbfilename: a file and a directory need two names",
                config.snapshot_file_name
            );
            return Err(self.conflict("appenddirname", &sentence));
        }
        Ok(self.config)
    }

    fn conflict(&self, name: &'static str, sentence: &str) -> Error {
        let origin: &dyn fmt::Display = match self.origins.get(name) {
            Some(origin) => origin,
            None => &"by default",
        };
        error(ErrorKind::ValueValidation, format!("{name} ({origin}) {sentence}"))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => formatter.write_str("by flag"),
            Self::Variable(name) => write!(formatter, "by the variable {name}"),
            Self::File { path, line } => write!(formatter, "by {}, line {line}", path.display()),
        }
    }
}

/// A word without a flag is most likely the file that Redis takes there; other errors stay as they are.
fn explain_stray(refusal: Error) -> Error {
    match refusal.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word))
            if refusal.kind() == ErrorKind::UnknownArgument && !word.starts_with("--") =>
        {
            let sentence = format!(
                "unexpected argument '{word}': Redis's configuration files are not read; options are given as flags, \
                 or in a TOML file by --config FILE"
            );
            error(ErrorKind::UnknownArgument, sentence)
        }
        _ => refusal,
    }
}

fn at_line(path: &Path, line: usize, sentence: &str) -> Error {
    error(ErrorKind::ValueValidation, format!("{}, line {line}: {sentence}", path.display()))
}

fn error(kind: ErrorKind, message: String) -> Error {
    command_line::command().error(kind, message)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{AppendFsync, ForceNewCluster, RaftDurability, RaftReadMode, Recovery, SavePoint, value},
        *,
    };

    /// Arguments, variables, and what is expected.
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);

    /// Loads in surroundings with these variables and four CPUs.
    fn load_with(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Config, Error> {
        let variable = |name: &str| {
            variables.iter().find(|(other, _)| *other == name).map(|(_, value)| OsString::from(value))
        };
        let arguments = ["duva-server"].iter().chain(arguments);
        Config::load(arguments, &Surroundings { variable: &variable, cpus_available: 4 })
    }

    fn load(arguments: &[&str]) -> Config {
        load_with(arguments, &[]).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// The sentence of the error, which must be one that ends the process with status 2.
    fn refusal(arguments: &[&str], variables: &[(&str, &str)]) -> String {
        let error = load_with(arguments, variables).expect_err("the arguments are refused");
        assert_eq!(error.exit_code(), 2, "{error}");
        let text = error.to_string();
        text.lines().next().unwrap().strip_prefix("error: ").unwrap_or_else(|| panic!("{text}")).to_owned()
    }

    /// A file that disappears with its owner.
    struct File(PathBuf);

    impl File {
        fn new(name: &str, text: &str) -> Self {
            let path = std::env::temp_dir().join(format!("duva-config-{}-{name}.toml", std::process::id()));
            std::fs::write(&path, text).unwrap();
            Self(path)
        }

        fn path(&self) -> &str {
            self.0.to_str().unwrap()
        }
    }

    impl Drop for File {
        fn drop(&mut self) {
            // A file left in the temporary directory harms nobody.
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn without_arguments_the_defaults_hold_for_the_available_cpus() {
        assert_eq!(load(&[]), Config { cores: 4, ..Config::default() });
    }

    #[test]
    fn flag_goes_before_variable_before_file_before_default() {
        let file = File::new("precedence", "port = 1\ntimeout = 1\nmaxclients = 1\n");
        let arguments = ["--config", file.path(), "--port", "3"];
        let config = load_with(&arguments, &[("DUVA_PORT", "2"), ("DUVA_TIMEOUT", "2")]).unwrap();
        assert_eq!((config.port, config.idle_timeout_seconds, config.clients_max), (3, 2, 1));
        assert_eq!(config.tcp_keepalive_seconds, 300);
    }

    #[test]
    fn the_file_can_be_named_by_a_variable_and_the_flag_goes_first() {
        let (one, two) = (File::new("one", "port = 1"), File::new("two", "port = 2"));
        assert_eq!(load_with(&[], &[("DUVA_CONFIG", one.path())]).unwrap().port, 1);
        assert_eq!(load_with(&["--config", two.path()], &[("DUVA_CONFIG", one.path())]).unwrap().port, 2);
    }

    #[test]
    fn the_last_of_several_flags_counts_and_limits_of_classes_add_up() {
        let config = load(&[
            "--maxclients",
            "5",
            "--maxclients=6",
            "--client-output-buffer-limit",
            "pubsub",
            "1kb",
            "2",
            "3",
            "--client-output-buffer-limit",
            "normal 4 5 6",
            "--save",
            "900",
            "1",
            "--save",
            "3600",
            "1",
            "300",
            "100",
            "--appendonly",
            "no",
            "--bind",
            "::1",
            "*",
        ]);
        assert_eq!(config.clients_max, 6);
        assert_eq!(value::print_save_points(&config.save_points), "3600 1 300 100");
        let limits = &config.output_buffer_limits;
        assert_eq!((limits.pubsub.hard_bytes, limits.normal.soft_seconds), (1024, 6));
        assert_eq!(limits.replica.hard_bytes, 256 << 20);
        assert_eq!(config.bind.iter().map(ToString::to_string).collect::<Vec<_>>(), ["::1", "0.0.0.0"]);
    }

    #[test]
    fn what_is_set_about_persistence_is_what_the_server_is_told() {
        let defaults = load(&[]);
        assert!(defaults.append_only && defaults.save_points.is_empty());
        assert_eq!(defaults.recovery, Recovery::None);
        let file = File::new(
            "persistence",
            "appendonly = false\nappendfsync = \"always\"\nsegment-size = \"1mb\"\nsave = [60, 1]\nrdbcompression = false\n",
        );
        let config = load(&[
            "--config",
            file.path(),
            "--recover",
            "TRUNCATE",
            "--segment-size",
            "1gb",
            "--dbfilename",
            "d",
        ]);
        assert!(!config.append_only && !config.snapshot_is_compressed);
        assert_eq!(config.append_fsync, AppendFsync::Always);
        assert_eq!(config.segment_size_bytes, 1 << 30);
        assert_eq!(config.save_points, [SavePoint { seconds: 60, changes: 1 }]);
        assert_eq!((&*config.snapshot_file_name, config.recovery), ("d", Recovery::Truncate));
    }

    #[test]
    fn cores_and_shards_follow_the_cpus() {
        assert_eq!(load(&["--cpus", "2-5,0"]).cores, 5);
        assert_eq!(load(&["--cpus", "2-5,0", "--cores", "3"]).cpus, [2, 3, 4, 5, 0]);
        assert_eq!(load(&["--cores", "16"]).shards, 64);
        assert_eq!(load(&["--cores", "17"]).shards, 128);
        assert_eq!(load(&["--cores", "1024"]).shards, 4096);
        assert_eq!(load(&["--cores", "1", "--shards", "4"]).shards, 4);
    }

    #[test]
    fn settings_that_contradict_one_another_are_refused_with_their_origin() {
        let file = File::new("conflict", "\n\nshards = 8\n");
        let place = format!("shards (by {}, line 3)", file.path());
        let cases: [Case<'_>; 7] = [
            (&["--cores", "3", "--cpus", "0,1"], &[], "cpus (by flag) lists 2 CPUs for 3 cores"),
            (
                &["--cores", "3"],
                &[("DUVA_CPUS", "7")],
                "cpus (by the variable DUVA_CPUS) lists 1 CPUs for 3 cores",
            ),
            (
                &["--cores", "3", "--shards", "8"],
                &[],
                "shards (by flag) is 8, too few for 3 cores: 12 or more",
            ),
            (&["--config", file.path()], &[], &place),
            (&["--port", "0"], &[], "port (by flag) turns TCP off, and without unixsocket there is nothing"),
            (&["--bind", ""], &[], "bind (by flag) turns TCP off, and without unixsocket there is nothing"),
            (
                &["--dbfilename", "x"],
                &[("DUVA_APPENDDIRNAME", "x")],
                "appenddirname (by the variable DUVA_APPENDDIRNAME) is x, and so is dbfilename: a file and a directory",
            ),
        ];
        for (arguments, variables, expected) in cases {
            let sentence = refusal(arguments, variables);
            assert!(sentence.starts_with(expected), "{sentence}");
        }
        assert_eq!(load(&["--port", "0", "--unixsocket", "s"]).port, 0);
    }

    #[test]
    fn a_node_of_a_cluster_is_told_how() {
        let config = load(&[]);
        assert!(!config.cluster && !config.is_cluster_enabled && config.join.is_none());
        assert_eq!((config.peer_port, config.replication_factor), (16379, 3));
        let config = load(&["--cluster", "--port", "7000"]);
        assert!(config.cluster && config.is_cluster_enabled);
        assert_eq!((config.peer_port, config.host_to_announce().as_deref()), (17000, Some("127.0.0.1")));
        assert!(load(&["--cluster", "yes"]).cluster && !load(&["--cluster", "no"]).cluster);
        assert_eq!(load(&[]).force_new_cluster, ForceNewCluster::No);
        assert_eq!(load(&["--force-new-cluster"]).force_new_cluster, ForceNewCluster::Yes);
        let discarding = load(&["--force-new-cluster=discard-missing", "--cluster"]);
        assert_eq!(discarding.force_new_cluster, ForceNewCluster::DiscardMissing);
        let config = load(&["--join", "[::1]:6379", "--bind", "*", "--peer-port", "1"]);
        assert!(config.is_cluster_enabled && !config.cluster);
        assert_eq!((config.join.as_deref(), config.peer_port), (Some("[::1]:6379"), 1));
        assert_eq!(config.host_to_announce(), None);
        let config = load(&["--bind", "* 10.0.0.7", "--announce-host", "node.example"]);
        assert_eq!(config.host_to_announce().as_deref(), Some("node.example"));
        assert_eq!(load(&["--bind=-10.0.0.7"]).host_to_announce().as_deref(), Some("10.0.0.7"));
        assert_eq!(load(&["--port", "60000"]).peer_port, 0, "a server alone needs none");
        let raft =
            load(&["--raft-durability", "MEMORY", "--read-mode", "read-index", "--election-timeout", "50"]);
        assert_eq!(
            (raft.raft_durability, raft.raft_read_mode),
            (RaftDurability::Memory, RaftReadMode::ReadIndex)
        );
        assert_eq!(raft.election_timeout_min_ms, 50);
        let file = File::new("cluster", "cluster = true\nhf = 200\nttl = 300\n");
        let config = load(&["--config", file.path()]);
        assert_eq!((config.cluster, config.gossip_interval_ms, config.gossip_timeout_ms), (true, 200, 300));
    }

    #[test]
    fn what_no_node_of_a_cluster_can_be_is_refused() {
        let cases: [Case<'_>; 11] = [
            (
                &["--cluster", "--appendonly", "no"],
                &[],
                "appendonly (by flag) is no, and a node of a cluster needs its journal",
            ),
            (
                &["--join", "a:1"],
                &[("DUVA_APPENDONLY", "no")],
                "appendonly (by the variable DUVA_APPENDONLY) is no, and a node of a cluster needs its journal",
            ),
            (
                &["--force-new-cluster", "--join", "a:1"],
                &[],
                "force-new-cluster (by flag) makes this node a cluster of its own and join takes it to another",
            ),
            (
                &["--force-new-cluster=all"],
                &[],
                "invalid value 'all' for '--force-new-cluster <HOW>': argument(s) must be one of the following: no, yes, \
                 discard-missing",
            ),
            (&["--cluster", "--join", "a:1"], &[], "join (by flag) joins a cluster and cluster makes one"),
            (
                &["--cluster", "--port", "60000"],
                &[],
                "peer-port (by default) would be port + 10000, which is above 65535: set it",
            ),
            (&["--cluster", "--peer-port", "6379"], &[], "peer-port (by flag) is 6379, and so is port"),
            (
                &["--cluster", "--port", "0", "--unixsocket", "s"],
                &[],
                "port (by flag) turns TCP off, and a node of a cluster needs it",
            ),
            (
                &["--cluster", "--ttl", "100"],
                &[],
                "ttl (by flag) is 100 ms, and must be more than hf, 100 ms",
            ),
            (
                &["--join", "nowhere"],
                &[],
                "invalid value 'nowhere' for '--join <HOST:PORT>': argument must be a host and a port",
            ),
            (
                &["--election-timeout", "49"],
                &[],
                "invalid value '49' for '--election-timeout <MILLISECONDS>': argument must be between 50 and 10000",
            ),
        ];
        for (arguments, variables, expected) in cases {
            let sentence = refusal(arguments, variables);
            assert!(sentence.starts_with(expected), "{sentence}");
        }
        assert!(!load(&["--appendonly", "no", "--ttl", "50"]).append_only, "a server alone may be so");
    }

    #[test]
    fn a_bad_value_is_refused_with_its_flag_or_variable() {
        let cases: [Case<'_>; 14] = [
            (
                &["--maxclients", "many"],
                &[],
                "invalid value 'many' for '--maxclients <COUNT>': argument couldn't be parsed into an integer",
            ),
            (
                &["--timeout", "-1"],
                &[],
                "invalid value '-1' for '--timeout <SECONDS>': argument must be between 0 and 2147483647 inclusive",
            ),
            (
                &["--port", "65536"],
                &[],
                "invalid value '65536' for '--port <PORT>': argument must be between 0 and 65535 inclusive",
            ),
            (
                &["--shards", "48"],
                &[],
                "invalid value '48' for '--shards <COUNT>': argument must be a power of two",
            ),
            (
                &["--appendonly", "maybe"],
                &[],
                "invalid value 'maybe' for '--appendonly <YES/NO>': argument must be 'yes' or 'no'",
            ),
            (
                &["--save", "900", "1", "60"],
                &[],
                "invalid value '900 1 60' for '--save <POINTS>': Invalid save parameters",
            ),
            (
                &["--segment-size", "1023kb"],
                &[],
                "invalid value '1023kb' for '--segment-size <BYTES>': argument must be between 1048576 and 1073741824 \
                 inclusive",
            ),
            (
                &["--segment-size", "1025kb"],
                &[],
                "invalid value '1025kb' for '--segment-size <BYTES>': argument must be a multiple of 4096",
            ),
            (
                &["--dbfilename", "a/b"],
                &[],
                "invalid value 'a/b' for '--dbfilename <NAME>': dbfilename can't be a path, just a filename",
            ),
            (
                &["--appenddirname", ""],
                &[],
                "invalid value '' for '--appenddirname <NAME>': appenddirname can't be empty",
            ),
            (
                &[],
                &[("DUVA_RECOVER", "yes")],
                "invalid value 'yes' for the variable DUVA_RECOVER: argument(s) must be one of the following: none, \
                 truncate",
            ),
            (
                &[],
                &[("DUVA_LOG_FORMAT", "xml")],
                "invalid value 'xml' for the variable DUVA_LOG_FORMAT: argument(s) must be one of the following: \
                 text, json",
            ),
            (
                &[],
                &[("DUVA_PORT", "tcp://10.0.0.1:6379")],
                "invalid value 'tcp://10.0.0.1:6379' for the variable DUVA_PORT: argument couldn't be parsed into an \
                 integer (was it set by Kubernetes for a Service named duva? enableServiceLinks: false turns that off)",
            ),
            (
                &["--dir", ""],
                &[],
                "invalid value '' for '--dir <PATH>': argument must be the path of a directory",
            ),
        ];
        for (arguments, variables, expected) in cases {
            assert_eq!(refusal(arguments, variables), expected);
        }
    }

    #[test]
    fn unknown_arguments_are_refused_by_name() {
        assert!(refusal(&["--prot", "1"], &[]).starts_with("unexpected argument '--prot' found"));
        assert!(refusal(&["--databases", "16"], &[]).starts_with("unexpected argument '--databases' found"));
        for word in ["/etc/redis/redis.conf", "-"] {
            let sentence = refusal(&[word, "--port", "1"], &[]);
            let expected = format!("unexpected argument '{word}': Redis's configuration files are not read");
            assert!(sentence.starts_with(&expected) && sentence.ends_with("--config FILE"), "{sentence}");
        }
    }

    #[test]
    fn help_and_version_end_the_process_well() {
        for (flag, expected) in [("--help", "--maxclients"), ("--version", env!("CARGO_PKG_VERSION"))] {
            let request = load_with(&[flag], &[]).unwrap_err();
            assert_eq!(request.exit_code(), 0);
            assert!(request.to_string().contains(expected), "{request}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let sentence = refusal(&["--config", "/nonexistent/duva.toml"], &[]);
        assert!(
            sentence.starts_with("cannot read the file /nonexistent/duva.toml: No such file"),
            "{sentence}"
        );
    }

    #[test]
    fn errors_in_a_file_name_file_line_key_and_what_is_expected() {
        let cases = [
            (
                "maxclients = 0",
                "line 1: 'maxclients' must be an integer from 1 to 4294967295, not '0': argument must \
              be between 1 and 4294967295 inclusive",
            ),
            ("# a\nport = \"6379\"", "line 2: 'port' must be an integer from 0 to 65535, not a string"),
            ("prot = 1", "line 1: unknown key 'prot': expected the name of an option, which --help lists"),
        ];
        for (number, (text, expected)) in cases.into_iter().enumerate() {
            let file = File::new(&format!("error-{number}"), text);
            assert_eq!(refusal(&["--config", file.path()], &[]), format!("{}, {expected}", file.path()));
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let config = load_with(&[], &[("DUVA_REQUIREPASS", "hunter2")]).unwrap();
        assert!(config.password.matches(b"hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
