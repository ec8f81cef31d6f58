//! The commands of transcripts. `words` are separated by spaces; `key=value` words are options.
//!
//! | command | what it does |
//! | --- | --- |
//! | `cluster 3 learners=4` | starts all anew, with empty voters 1 to 3 and learner 4; other options: [`configure`] |
//! | `join 4` | starts an empty replica that knows no membership; options as above |
//! | `preset 2 term=3 vote=1 log=1,1,2` | stops a replica and starts it with such a disk: an entry for every term in `log` |
//! | `campaign 1`, `elect 1` | has a replica hold an election; `elect` lets it come to its end, too, and shows only roles |
//! | `tick 2 150ms` | lets time pass, in which only replica 2 looks at the clock, at the end |
//! | `wait 1s`, `run 1s` | lets time pass for all, every timer at its time; `run` has everything come to rest after each |
//! | `propose 1 a b x*100` | proposes payloads, the last one a hundred times `x`, before what is ready is taken |
//! | `read 1 7 8` | begins reads under these names |
//! | `membership 1 voters=1,2,4 learners=5` | proposes a membership |
//! | `transfer 1 2` | hands leadership over |
//! | `deliver 1->2`, `deliver 1->2 1` | delivers all or so many messages of a link (`1->*`, `*->2`, `*`: [`network::links`]) |
//! | `drop`, `duplicate`, `reverse`, `delay`, `release` | do that to what waits on links |
//! | `cut`, `heal` | lose all that is sent on links from then on, or no more; `cut 1` and `cut 1,2` cut them off |
//! | `stabilize` | lets disks and network do everything that is left to be done; no time passes |
//! | `write 1`, `write 1 3`, `sync 1`, `sync 1 3` | the disk has written or synced everything, or up to a write |
//! | `stall 2`, `unstall 2` | its disk does nothing by itself; it does again |
//! | `pause 2`, `unpause 2` | nothing reaches it, and its clock stands still; it is back |
//! | `hold 2`, `unhold 2` | nobody takes what it has ready; somebody does again |
//! | `lazy 2`, `apply 2` | it does not apply what is committed; it does again |
//! | `serve 1` | its disk does the oldest read of entries or snapshot, or store of a piece, that is due |
//! | `fail 1` | its disk fails at the oldest read of a snapshot that is due |
//! | `refuse 3`, `invite 3` | it has no room for the first piece of a snapshot, the oldest of what is due; it has room |
//! | `crash 2 keep=written`, `restart 2` | stops it (`keep=synced` if nothing is said, or `all`) and starts it from its disk |
//! | `snapshot 1`, `snapshot 1 compact=3` | stores a snapshot of all that is applied and forgets the log up to there, or to 3 |
//! | `forget 1 3` | its disk forgets the log up to an entry, though its replica was not told |
//! | `unreachable 1 2` | tells 1 that its link to 2 broke |
//! | `status`, `status 1`, `log 1`, `disk 1`, `machine 1`, `waiting` | show replicas, logs, disks, state machines, messages |
//! | `quiet` before a command | shows only changes of roles and the ends of reads |

use std::collections::BTreeMap;

use duva_raft::{
    Config, Durability, Entry, EntryKind, HardState, Membership, Proposal, ReadMode, ReadOutcome, ReplicaId,
    SnapshotMeta, Term,
};

use crate::harness::{
    disk::{Disk, Keep},
    network::{self, IDS, Link},
    print,
    replica::Replica,
    show,
    world::World,
};

/// A command's words.
struct Words<'a> {
    plain: Vec<&'a str>,
    options: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn parse(text: &'a str) -> Self {
        let (options, plain) = text.split_whitespace().partition::<Vec<_>, _>(|word| word.contains('='));
        Self { plain, options: options.iter().filter_map(|word| word.split_once('=')).collect() }
    }

    fn word(&self, at: usize) -> &'a str {
        self.plain.get(at).unwrap_or_else(|| panic!("{:?} is too short", self.plain))
    }

    /// The numbers from a word on.
    fn numbers(&self, from: usize) -> Vec<u64> {
        self.plain[from..].iter().map(|word| number(word)).collect()
    }

    /// The replica that the command is about.
    fn id(&self) -> u64 {
        number(self.word(1))
    }

    fn option(&self, key: &str) -> Option<&'a str> {
        self.options.get(key).copied()
    }

    /// The links that the command is about.
    fn links(&self) -> Vec<Link> {
        network::links(self.word(1))
    }
}

/// Runs a command and returns what it printed.
pub fn run(world: &mut World, text: &str) -> Vec<String> {
    match text.strip_prefix("quiet ") {
        None => execute(world, &Words::parse(text)),
        Some(rest) => {
            world.is_quiet = true;
            execute(world, &Words::parse(rest));
            world.is_quiet = false;
        }
    }
    world.take_output()
}

fn execute(world: &mut World, words: &Words<'_>) {
    match words.word(0) {
        "cluster" => start_cluster(world, words),
        "join" => start_replica(world, words.id(), words, Disk::default()),
        "preset" => preset(world, words),
        "campaign" => world.tell(words.id(), |raft, now_ns| raft.campaign(now_ns)),
        "elect" => {
            let was_quiet = std::mem::replace(&mut world.is_quiet, true);
            world.tell(words.id(), |raft, now_ns| raft.campaign(now_ns));
            world.stabilize();
            world.is_quiet = was_quiet;
        }
        "tick" => {
            world.now_ns += duration(words.word(2));
            world.tell(words.id(), |raft, now_ns| raft.tick(now_ns));
        }
        "wait" => world.wait(duration(words.word(1)), false),
        "run" => world.wait(duration(words.word(1)), true),
        "propose" => propose(world, words),
        "read" => read(world, words),
        "membership" => propose_membership(world, words),
        "transfer" => transfer(world, words),
        "deliver" | "drop" => receive(world, words, words.word(0) == "deliver"),
        "duplicate" => words.links().into_iter().for_each(|link| world.network.duplicate(link)),
        "reverse" => words.links().into_iter().for_each(|link| world.network.reverse(link)),
        "delay" => words.links().into_iter().for_each(|link| world.network.delay(link)),
        "release" => words.links().into_iter().for_each(|link| world.network.release(link)),
        "cut" => words.links().into_iter().for_each(|link| world.network.cut(link)),
        "heal" => words.links().into_iter().for_each(|link| world.network.heal(link)),
        "stabilize" => world.stabilize(),
        "write" | "sync" => write(world, words),
        "stall" | "unstall" => world.replica(words.id()).is_stalled = words.word(0) == "stall",
        "pause" | "unpause" => world.replica(words.id()).is_paused = words.word(0) == "pause",
        "hold" => world.replica(words.id()).is_held = true,
        "unhold" => {
            world.replica(words.id()).is_held = false;
            world.pump(words.id());
        }
        "lazy" => world.replica(words.id()).is_lazy = true,
        "apply" => {
            world.replica(words.id()).is_lazy = false;
            world.apply(words.id());
            world.pump(words.id());
        }
        "serve" => assert!(world.chore(words.id()), "replica {} has nothing to do", words.id()),
        "fail" => world.fail_read(words.id()),
        "refuse" => world.refuse(words.id()),
        "invite" => world.invite(words.id()),
        "crash" => crash(world, words),
        "restart" => restart(world, words.id()),
        "snapshot" => take_snapshot(world, words),
        "forget" => world.replica(words.id()).disk.forget(number(words.word(2))),
        "unreachable" => {
            let peer = ReplicaId(number(words.word(2)));
            world.tell(words.id(), |raft, _| raft.unreachable(peer));
        }
        "status" => {
            let ids = if words.plain.len() > 1 { words.numbers(1) } else { world.ids() };
            ids.into_iter().for_each(|id| show::status(world, id));
        }
        "log" => show::log(world, words.id()),
        "disk" => show::disk(world, words.id()),
        "machine" => show::machine(world, words.id()),
        "waiting" => show::waiting(world),
        other => panic!("{other} is no command"),
    }
}

fn start_cluster(world: &mut World, words: &Words<'_>) {
    *world = World::new(world.mutation);
    let voters: Vec<ReplicaId> = (1..=words.id()).map(ReplicaId).collect();
    let learners = words.option("learners").map_or(Vec::new(), ids);
    for id in voters.iter().chain(&learners) {
        let membership =
            Membership { voters: voters.clone(), outgoing: Vec::new(), learners: learners.clone() };
        let snapshot = SnapshotMeta { membership, ..SnapshotMeta::default() };
        start_replica(world, id.0, words, Disk::new(snapshot));
    }
}

fn start_replica(world: &mut World, id: u64, words: &Words<'_>, disk: Disk) {
    let mut config = Config::new(ReplicaId(id));
    for (key, value) in &words.options {
        configure(&mut config, key, value);
    }
    assert!(IDS.contains(&id), "ids are digits");
    let replaced = world.replicas.insert(id, Replica::new(config, disk));
    assert!(replaced.is_none(), "replica {id} is there already");
    world.start(id);
    world.pump(id);
}

/// Sets one of a replica's settings: `durability=memory`, `reads=index`, or a number for one of the others.
fn configure(config: &mut Config, key: &str, value: &str) {
    let size = || usize::try_from(number(value)).expect("a small number");
    match (key, value) {
        ("learners", _) => {}
        ("durability", "memory") => config.durability = Durability::Memory,
        ("reads", "index") => config.read_mode = ReadMode::ReadIndex,
        ("append-bytes", _) => config.append_bytes_max = size(),
        ("inflight-messages", _) => config.inflight_messages_max = size(),
        ("inflight-bytes", _) => config.inflight_bytes_max = size(),
        ("paced-entries", _) => config.paced_entries_min = number(value),
        ("uncommitted-bytes", _) => config.uncommitted_bytes_max = size(),
        ("cache-bytes", _) => config.cache_bytes_max = size(),
        ("chunk-bytes", _) => config.snapshot_chunk_bytes = size(),
        ("pending-reads", _) => config.pending_reads_max = size(),
        _ => panic!("{key}={value} is no setting"),
    }
}

fn preset(world: &mut World, words: &Words<'_>) {
    let terms: Vec<Term> =
        words.option("log").map_or(Vec::new(), |list| list.split(',').map(number).collect());
    let entry = |(index, &term): (u64, &Term)| Entry {
        index,
        term,
        timestamp_ms: 0,
        seed: 0,
        kind: EntryKind::Data(0),
        payload: format!("p{index}").as_bytes().into(),
    };
    let replica = world.replica(words.id());
    replica.stop();
    replica.disk.entries = (1..).zip(&terms).map(entry).collect();
    replica.disk.hard_state = HardState {
        term: words.option("term").map_or(0, number),
        vote: words.option("vote").map(|vote| ReplicaId(number(vote))),
    };
    world.start(words.id());
    world.pump(words.id());
}

fn propose(world: &mut World, words: &Words<'_>) {
    let id = words.id();
    let timestamp_ms = world.now_ns / 1_000_000;
    for text in &words.plain[2..] {
        let payload = match text.split_once('*') {
            Some((letter, times)) => letter.repeat(usize::try_from(number(times)).expect("a small number")),
            None => (*text).to_owned(),
        };
        let proposal = Proposal { timestamp_ms, seed: 0, tag: 0, payload: payload.as_bytes().into() };
        let now_ns = world.now_ns;
        let raft = world.replica(id).raft.as_mut().unwrap_or_else(|| panic!("replica {id} is down"));
        let line = match raft.propose(now_ns, proposal) {
            Ok((index, term)) => format!("{id} proposes {text} at {index}/{term}"),
            Err(error) => format!("{id} refuses {text}: {}", print::refusal(error)),
        };
        world.say(line);
    }
    world.pump(id);
}

fn read(world: &mut World, words: &Words<'_>) {
    let id = words.id();
    for context in words.numbers(2) {
        world.checks.read_begins(id, context);
        let now_ns = world.now_ns;
        let raft = world.replica(id).raft.as_mut().unwrap_or_else(|| panic!("replica {id} is down"));
        let line = match raft.read(now_ns, context) {
            Ok(ReadOutcome::At(index)) => {
                world.checks.read_passes(id, context, index);
                format!("{id} may read {context} at {index}")
            }
            Ok(ReadOutcome::Pending) => format!("{id} has read {context} wait"),
            Err(error) => {
                world.checks.read_fails(id, context);
                format!("{id} refuses read {context}: {}", print::refusal(error))
            }
        };
        world.say(line);
    }
    world.pump(id);
}

fn propose_membership(world: &mut World, words: &Words<'_>) {
    let id = words.id();
    let voters = words.option("voters").map_or(Vec::new(), ids);
    let learners = words.option("learners").map_or(Vec::new(), ids);
    let now_ns = world.now_ns;
    let raft = world.replica(id).raft.as_mut().unwrap_or_else(|| panic!("replica {id} is down"));
    let line = match raft.propose_membership(now_ns, &voters, &learners) {
        Ok(index) => format!("{id} proposes that at {index}"),
        Err(error) => format!("{id} refuses that: {}", print::refusal(error)),
    };
    world.say(line);
    world.pump(id);
}

fn transfer(world: &mut World, words: &Words<'_>) {
    let (id, to) = (words.id(), ReplicaId(number(words.word(2))));
    let now_ns = world.now_ns;
    let raft = world.replica(id).raft.as_mut().unwrap_or_else(|| panic!("replica {id} is down"));
    if let Err(error) = raft.transfer_leadership(now_ns, to) {
        world.say(format!("{id} refuses that: {}", print::refusal(error)));
    }
    world.pump(id);
}

fn receive(world: &mut World, words: &Words<'_>, arrives: bool) {
    for link in words.links() {
        let waiting = world.network.len(link);
        let count = words.numbers(2).first().map_or(waiting, |&count| waiting.min(count as usize));
        for _ in 0..count {
            if arrives {
                world.deliver(link);
            } else if let Some(message) = world.network.receive(link) {
                world.say(format!("{}->{} {} lost", link.0, link.1, print::name(&message.body)));
            }
        }
    }
}

fn write(world: &mut World, words: &Words<'_>) {
    let id = words.id();
    let last = world.replica(id).disk.last_unsynced();
    let number = words.numbers(2).first().copied().or(last).expect("there is a write");
    if words.word(0) == "sync" {
        world.synced(id, number);
    } else {
        assert!(world.replica(id).disk.first_unwritten() <= Some(number), "#{number} is written already");
        world.written(id, number);
    }
}

fn crash(world: &mut World, words: &Words<'_>) {
    let keep = match words.option("keep") {
        None | Some("synced") => Keep::Synced,
        Some("written") => Keep::Written,
        Some("all") => Keep::Everything,
        Some(other) => panic!("keep={other} is no way to crash"),
    };
    let replica = world.replica(words.id());
    assert!(replica.raft.is_some(), "replica {} is down already", words.id());
    replica.stop();
    replica.disk.crash(keep);
    world.checks.crashes(words.id());
}

fn restart(world: &mut World, id: u64) {
    assert!(world.replica(id).raft.is_none(), "replica {id} is not down");
    world.start(id);
    show::status(world, id);
    world.pump(id);
}

fn take_snapshot(world: &mut World, words: &Words<'_>) {
    let id = words.id();
    let replica = world.replica(id);
    let (meta, bytes) = replica.machine.snapshot();
    let compact = words.option("compact").map_or(meta.index, number);
    let line = format!("{id} stores snapshot {} of {} bytes", print::snapshot(&meta), bytes.len());
    replica.disk.store_snapshot(meta, bytes);
    replica.disk.forget(compact);
    world.say(line);
    world.tell(id, |raft, _| raft.compact(compact));
}

fn ids(list: &str) -> Vec<ReplicaId> {
    list.split(',').map(|id| ReplicaId(number(id))).collect()
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

/// `150ms` or `2s`, in nanoseconds.
fn duration(text: &str) -> u64 {
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(ms), _) => number(ms) * 1_000_000,
        (None, Some(seconds)) => number(seconds) * 1_000_000_000,
        (None, None) => panic!("{text} is no duration"),
    }
}
