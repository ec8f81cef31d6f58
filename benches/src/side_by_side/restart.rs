//! How long a server with many keys is away when it is started again.
//!
//! Every case has a directory of its own, prepared once by the server that is measured. A restart changes nothing in it
//! that matters, so rounds alternate over all cases. The page cache holds all files.

use std::sync::Arc;

use crate::{
    Settings,
    directory::Directory,
    failure::{Failure, Result},
    report::{Report, Table},
    server::{Family, Kind, Persistence, Server},
    statistics::{Spread, short},
};

/// With how many cores a server that can use several is measured.
const CORES: [usize; 2] = [1, 2];

/// Files are to stay as they were prepared.
const NO_REWRITES: &str = "--auto-aof-rewrite-percentage 0";

/// What is in a directory, and how it is loaded.
struct Case {
    name: String,
    family: Family,
    kind: Kind,
    directory: Arc<Directory>,
    len_bytes: u64,
    seconds: Vec<f64>,
}

pub(crate) fn run(settings: &Settings, report: &mut Report, kinds: &[Kind]) -> Result<()> {
    let keys = settings.many_keys();
    let mut table = Table::new(1, ["what is loaded", "files, MB", "seconds", "keys/s"]);
    let mut cases = Vec::new();
    for kind in kinds {
        match prepare(settings, kind, keys) {
            Ok(prepared) => cases.extend(prepared),
            Err(failure) => report.failed(&mut table, &kind.name, &failure),
        }
    }
    for number in 1..=settings.rounds {
        for case in &mut cases {
            let seconds = measure(settings, case, keys)?;
            eprintln!("restart {number}/{} {}: {seconds:.3} s", settings.rounds, case.name);
            case.seconds.push(seconds);
        }
    }
    for Case { name, len_bytes, seconds, .. } in &cases {
        table.line([
            name.clone(),
            short(*len_bytes as f64 / 1e6),
            Spread::of(seconds.iter().copied()).write(short),
            Spread::of(seconds.iter().map(|seconds| keys as f64 / seconds)).write(short),
        ]);
    }
    let remark = format!(
        "{} keys of 16 bytes with values of 32 bytes. Seconds from before the server's process is made until its first \
         reply that is no error; median (range) of {} alternating rounds. All files are in the page cache. Servers on the \
         CPUs from {} on. Files: all that is in the server's directory, prepared segments included.",
        short(keys as f64),
        settings.rounds,
        settings.server_cpu
    );
    report.table("Restart", &remark, &table)?;
    let mut ratios = Table::new(2, ["ours", "theirs", "theirs / ours"]);
    for ours in cases.iter().filter(|case| case.family == Family::Duva) {
        for theirs in cases.iter().filter(|case| case.family == Family::Redis) {
            let ratio =
                Spread::of_ratios(&theirs.seconds, &ours.seconds).write(|ratio| format!("{ratio:.2}"));
            ratios.line([ours.name.clone(), theirs.name.clone(), ratio]);
        }
    }
    report.table("Restart: ratios", "How many times as long the other one takes; above 1 is better.", &ratios)
}

fn prepare(settings: &Settings, kind: &Kind, keys: u64) -> Result<Vec<Case>> {
    eprintln!("restart: preparing the files of {}", kind.name);
    match kind.family() {
        Family::Duva => {
            let mut cases = Vec::new();
            for cores in CORES {
                let kind =
                    keeping(&kind.with_cores(cores), Persistence::EverySecond)?.with_arguments(NO_REWRITES);
                let journal = filled(settings, &kind, keys)?.end()?;
                let snapshots = rewritten(settings, &kind, &journal)?;
                cases.push(case("journal", &kind, journal)?);
                cases.push(case("snapshots", &kind, snapshots)?);
            }
            Ok(cases)
        }
        Family::Redis => {
            let durable = keeping(kind, Persistence::EverySecond)?.with_arguments(NO_REWRITES);
            let [plain, mixed] = ["no", "yes"]
                .map(|answer| durable.with_arguments(&format!("--aof-use-rdb-preamble {answer}")));
            let written = filled(settings, &plain, keys)?.end()?;
            let rewritten_plain = rewritten(settings, &plain, &written)?;
            let rewritten_mixed = rewritten(settings, &mixed, &written)?;
            let volatile = keeping(kind, Persistence::None)?;
            let server = filled(settings, &volatile, keys)?;
            server.connect()?.command(&["BGSAVE"])?;
            server.wait_until_saved(|| Ok(()))?;
            Ok(vec![
                case("RDB", &volatile, server.end()?)?,
                case("AOF as written", &plain, written)?,
                case("AOF rewritten, without RDB preamble", &plain, rewritten_plain)?,
                case("AOF rewritten, with RDB preamble", &mixed, rewritten_mixed)?,
            ])
        }
    }
}

fn keeping(kind: &Kind, persistence: Persistence) -> Result<Kind> {
    kind.keeping(persistence).ok_or_else(|| {
        Failure::new(format!("{} cannot be told to keep its data: see {{persistence}} in --help", kind.name))
    })
}

fn case(what: &str, kind: &Kind, directory: Arc<Directory>) -> Result<Case> {
    directory.sync()?;
    Ok(Case {
        name: format!("{}: {what}", kind.name),
        family: kind.family(),
        kind: kind.clone(),
        len_bytes: directory.warm()?,
        directory,
        seconds: Vec::new(),
    })
}

/// A server that has all keys.
fn filled(settings: &Settings, kind: &Kind, keys: u64) -> Result<Server> {
    let server = Server::start(kind, settings)?;
    let options = format!("--fill {keys} --value-bytes 32 --connections 4 --pipeline 64");
    settings.clients.duva_load(&server, &options)?;
    Ok(server)
}

/// A copy of a directory in which the journal was rewritten.
fn rewritten(settings: &Settings, kind: &Kind, directory: &Directory) -> Result<Arc<Directory>> {
    let copy = Arc::new(directory.duplicate(&settings.directory)?);
    let (server, _) = Server::restart(kind, settings, &copy)?;
    server.connect()?.command(&["BGREWRITEAOF"])?;
    server.wait_until_saved(|| Ok(()))?;
    drop(copy);
    server.end()
}

fn measure(settings: &Settings, case: &Case, keys: u64) -> Result<f64> {
    case.directory.sync()?;
    case.directory.warm()?;
    let (server, duration) = Server::restart(&case.kind, settings, &case.directory)?;
    let loaded = server.connect()?.command(&["DBSIZE"])?;
    if loaded != keys.to_string() {
        return Err(Failure::new(format!("{} has {loaded} keys of {keys}", case.name)));
    }
    server.end()?;
    Ok(duration.as_secs_f64())
}
