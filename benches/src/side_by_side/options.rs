//! The command line.

use std::path::PathBuf;

use crate::{
    cluster,
    failure::{Failure, Result},
    rows::{self, Row},
    server::Kind,
};

pub(crate) const HELP: &str = "\
side-by-side: compares duva-server with redis-server and any other server of the Redis protocol

USAGE:
    side-by-side [OPTIONS] MODE...

MODES (the rows' throughput, latency and CPU if none is given):
    --rows NAMES        workloads by name or group, separated by commas; all of them by default (see --list). What is named of
                        --cluster is measured without that option, and is then all that is measured of clusters
    --cores N           the rows on the first server with one core and with N cores
    --memory            bytes a key over its payload, with 1M and 10M keys of 16 + 32 bytes
    --idle              memory and CPU of 10,000 idle connections
    --growth            slowest replies while the keyspace grows from 0 to 10M keys
    --growth-tag        the same with all keys under one hash tag, hence in one slot
    --expire            other traffic while 1M keys expire in the same second, and when their memory is back
    --restart           from exec to the first PONG with 10M keys, from journals, snapshots, AOF and RDB
    --bgsave            latencies and memory while 10M keys are saved under 50,000 requests a second
    --journal-sync      ways to write and sync a journal's block, without any server
    --cluster           three nodes of the first server: beside one, beside etcd, idle; failover, a follower away, a fourth node
    --all               every mode but --cores, --journal-sync and --cluster

OPTIONS:
    --servers NAMES     servers by name, the first one being compared with the others  [duva, redis, all in PEER_*]
    --rounds N          rounds, alternating between the servers                         [9]
    --kills N           leaders that are killed for --rows failover                     [3]
    --keys N            keys of --restart, --bgsave and --rows join             [10000000]
    --scale FACTOR      times the usual number of requests, keys and connections; times the requests a second of --rows join
                                                                                        [1]
    --server-cpu N      (first) CPU of the servers                                      [0]
    --follower-cpu N    CPU of a cluster's nodes but the first, which then leads        [that of the servers]
    --client-cpu N      CPU of the clients                                              [1]
    --dir DIRECTORY     where servers have their directories; not a tmpfs       [target/side-by-side]
    --output FILE       append the Markdown tables to a file, too
    --list              print the rows and the servers
    -h, --help          this text

ENVIRONMENT:
    DUVA_SERVER, REDIS_SERVER, REDIS_BENCHMARK, DUVA_LOAD    programs to use instead of the usual ones
    PEER_X=PROGRAM                                           another server, called x
    PEER_X_ARGS=ARGUMENTS                                    its arguments; {port}, {dir}, {cores}, {cpus} are replaced,
                                                             and {persistence} by Redis's options for it
    PEER_ETCD=PROGRAM                                        etcd, for --cluster; etcdctl is beside it
";

/// What is to be measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Mode {
    Rows,
    Cores(usize),
    Memory,
    Idle,
    Growth { one_slot: bool },
    Expire,
    Restart,
    BackgroundSave,
    JournalSync,
    Cluster,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) modes: Vec<Mode>,
    pub(crate) rows: Vec<Row>,
    /// What is measured of clusters.
    pub(crate) cluster_rows: Vec<String>,
    /// At least one; the first one is compared with the others.
    pub(crate) servers: Vec<Kind>,
    pub(crate) rounds: usize,
    pub(crate) kills: usize,
    pub(crate) scale: f64,
    pub(crate) server_cpu: usize,
    /// CPU of the nodes of a cluster but the first; `None`: that of all servers.
    pub(crate) follower_cpu: Option<usize>,
    pub(crate) client_cpu: usize,
    pub(crate) directory: PathBuf,
    pub(crate) keys: Option<u64>,
    pub(crate) output: Option<PathBuf>,
}

impl Options {
    /// Whether anything is measured that a disk is part of.
    pub(crate) fn needs_disk(&self) -> bool {
        self.modes.iter().any(|mode| match mode {
            Mode::Rows | Mode::Cores(_) => self.rows.iter().any(|row| row.field.needs_disk()),
            Mode::Memory | Mode::Idle | Mode::Growth { .. } | Mode::Expire => false,
            Mode::Restart | Mode::BackgroundSave | Mode::JournalSync | Mode::Cluster => true,
        })
    }
}

/// What a command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Asked {
    Help,
    List,
    Measure(Box<Options>),
}

impl Asked {
    /// Parses the arguments after the program's name; `known` are the servers there are.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>, known: &[Kind]) -> Result<Self> {
        let mut options = Options {
            modes: Vec::new(),
            rows: rows::all(),
            cluster_rows: cluster::names().into_iter().map(str::to_owned).collect(),
            servers: known.to_vec(),
            rounds: 9,
            kills: 3,
            scale: 1.0,
            server_cpu: 0,
            follower_cpu: None,
            client_cpu: 1,
            directory: "target/side-by-side".into(),
            keys: None,
            output: None,
        };
        let (mut rows_named, mut cluster_named) = (false, false);
        while let Some(option) = arguments.next() {
            let mut value = || {
                arguments.next().ok_or_else(|| Failure::new(format!("{option} needs a value; see --help")))
            };
            match option.as_str() {
                "-h" | "--help" => return Ok(Self::Help),
                "--list" => return Ok(Self::List),
                "--rows" => {
                    let value = value()?;
                    let is_of_cluster = |name: &&str| cluster::names().contains(name);
                    let (of_cluster, others): (Vec<&str>, Vec<&str>) =
                        value.split(',').partition(is_of_cluster);
                    rows_named = !others.is_empty();
                    if rows_named {
                        options.rows = rows::select(others).map_err(|name| {
                            Failure::new(format!("--rows: there is no row {name}; see --list"))
                        })?;
                    }
                    if !of_cluster.is_empty() {
                        cluster_named = true;
                        options.cluster_rows = of_cluster.into_iter().map(str::to_owned).collect();
                    }
                }
                "--cores" => options.modes.push(Mode::Cores(at_least(&option, &value()?, 1)?)),
                "--memory" => options.modes.push(Mode::Memory),
                "--idle" => options.modes.push(Mode::Idle),
                "--growth" => options.modes.push(Mode::Growth { one_slot: false }),
                "--growth-tag" => options.modes.push(Mode::Growth { one_slot: true }),
                "--expire" => options.modes.push(Mode::Expire),
                "--restart" => options.modes.push(Mode::Restart),
                "--bgsave" => options.modes.push(Mode::BackgroundSave),
                "--journal-sync" => options.modes.push(Mode::JournalSync),
                "--cluster" => options.modes.push(Mode::Cluster),
                "--all" => options.modes.extend([
                    Mode::Rows,
                    Mode::Memory,
                    Mode::Idle,
                    Mode::Growth { one_slot: false },
                    Mode::Growth { one_slot: true },
                    Mode::Expire,
                    Mode::Restart,
                    Mode::BackgroundSave,
                ]),
                "--servers" => options.servers = select(known, &value()?)?,
                "--kills" => options.kills = at_least(&option, &value()?, 1)?,
                "--rounds" => options.rounds = at_least(&option, &value()?, 1)?,
                "--scale" => options.scale = at_least(&option, &value()?, 0.000_001)?,
                "--follower-cpu" => options.follower_cpu = Some(at_least(&option, &value()?, 0)?),
                "--server-cpu" => options.server_cpu = at_least(&option, &value()?, 0)?,
                "--client-cpu" => options.client_cpu = at_least(&option, &value()?, 0)?,
                "--dir" => options.directory = value()?.into(),
                "--keys" => options.keys = Some(at_least(&option, &value()?, 1)?),
                "--output" => options.output = Some(value()?.into()),
                _ => return Err(Failure::new(format!("unknown option {option}; see --help"))),
            }
        }
        if cluster_named && !options.modes.contains(&Mode::Cluster) {
            options.modes.push(Mode::Cluster);
        }
        let has_rows = options.modes.iter().any(|mode| matches!(mode, Mode::Rows | Mode::Cores(_)));
        if options.modes.is_empty() || (rows_named && !has_rows) {
            options.modes.insert(0, Mode::Rows);
        }
        Ok(Self::Measure(Box::new(options)))
    }
}

fn select(known: &[Kind], names: &str) -> Result<Vec<Kind>> {
    names
        .split(',')
        .map(|name| {
            known.iter().find(|kind| kind.name == name).cloned().ok_or_else(|| {
                Failure::new(format!(
                    "--servers: {name} is not known; name its program in PEER_{}",
                    name.to_uppercase()
                ))
            })
        })
        .collect()
}

fn at_least<T: std::str::FromStr + PartialOrd + std::fmt::Display>(
    option: &str,
    value: &str,
    min: T,
) -> Result<T> {
    match value.parse::<T>() {
        Ok(number) if number >= min => Ok(number),
        _ => Err(Failure::new(format!("{option} must be a number of at least {min}, not {value}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<Kind> {
        ["duva", "redis", "kevy"].map(|name| Kind { arguments: String::new(), ..Kind::plain(name) }).into()
    }

    fn options(line: &str) -> Options {
        match Asked::parse(line.split_whitespace().map(str::to_owned), &kinds()) {
            Ok(Asked::Measure(options)) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn without_a_mode_the_rows_are_measured() {
        let options = options("--servers redis,kevy --rounds 3");
        assert_eq!((options.modes, options.rounds), (vec![Mode::Rows], 3));
        assert_eq!(options.rows, rows::all());
        assert_eq!(
            options.servers.iter().map(|kind| kind.name.as_str()).collect::<Vec<_>>(),
            ["redis", "kevy"]
        );
    }

    #[test]
    fn modes_add_up() {
        assert_eq!(options("--memory --idle").modes, [Mode::Memory, Mode::Idle]);
        assert_eq!(options("--memory --rows get-p1").modes, [Mode::Rows, Mode::Memory]);
        let cores = options("--cores 2 --rows get-p1");
        assert_eq!((cores.modes, cores.rows.len()), (vec![Mode::Cores(2)], 1));
        assert!(options("--cluster").needs_disk());
        assert_eq!(options("--cluster").cluster_rows, cluster::names());
        let saving = options("--restart --bgsave --keys 5000 --dir /x");
        assert_eq!(saving.modes, [Mode::Restart, Mode::BackgroundSave]);
        assert!(saving.needs_disk() && !options("--memory").needs_disk());
        assert_eq!((saving.keys, saving.directory), (Some(5000), "/x".into()));
    }

    #[test]
    fn rows_of_clusters_are_chosen_like_others() {
        for line in ["--cluster --rows failover,join --kills 10", "--rows failover,join --kills 10"] {
            let options = options(line);
            assert_eq!((options.modes, options.kills), (vec![Mode::Cluster], 10), "{line}");
            assert_eq!(options.cluster_rows, ["failover", "join"]);
        }
        let both = options("--rows get-p1,idle-cluster");
        assert_eq!((both.modes, both.rows.len()), (vec![Mode::Rows, Mode::Cluster], 1));
        assert_eq!(both.cluster_rows, ["idle-cluster"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, named) in [
            ("--servers duva,x", "PEER_X"),
            ("--rows get-p2", "get-p2"),
            ("--rounds 0", "--rounds"),
            ("--rows failover,get-p2", "get-p2"),
            ("--kills 0", "--kills"),
            ("--keys 0", "--keys"),
            ("--scale", "--scale"),
            ("fast", "fast"),
        ] {
            let error = Asked::parse(line.split_whitespace().map(str::to_owned), &kinds()).unwrap_err();
            assert!(error.to_string().contains(named), "{line}: {error}");
        }
    }
}
