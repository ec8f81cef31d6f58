//! What nodes of a cluster say to one another's shards about commands over several shards. No client can name these.
//!
//! ```text
//! duva.transaction route prepare name head command arg ...     reply: what was asked for, or -REFUSED
//! duva.transaction route decide|commit|abort|forget name       reply: +COMMITTED, +ABORTED or +DONE
//! duva.read route command arg ...                              reply: versions and the command's reply
//! head      answer (1), whether the command takes effect at the end (1), shard of the first participant (2),
//!           those of the others, if this is the first (2 each)
//! versions  instance (8), latest change (8)
//! ```
//!
//! `route` is any key of the shard that is meant: it finds the shard's log and nothing else. See [`crate::TransactionName`] and
//! the transactions of a shard for what holds. What a part comes to is executed as at any other time, at the entry that
//! ends it, with that entry's timestamp and seed; its limits were checked when the client's request was read, so none hold
//! for it any more.

use crate::{
    Args, Call, Prepared, Protocol, Reply, Settings, Shard, Step, TransactionName, Value,
    rdb::dump_payload,
    transaction::{Ended, distinct_keys},
};

use super::{Command, Docs, Flags, KeyAccess, Keys, Run, lookup, table::COUNT_ALL};

/// The commands of nodes have numbers behind those of clients: there are so many in all.
pub const NUMBER_COUNT: usize = COUNT_ALL + INTERNAL.len();

static INTERNAL: [Command; 2] = [
    Command {
        number: COUNT_ALL as u16,
        ..Command::new("duva.transaction", -4, Run::Single(transaction), DOCS)
            .flags(&[Flags::WRITE])
            .keys(Keys::FIRST, &[KeyAccess::UPDATE])
    },
    Command {
        number: COUNT_ALL as u16 + 1,
        ..Command::new("duva.read", -4, Run::Single(read), DOCS)
            .flags(&[Flags::READONLY])
            .keys(Keys::FIRST, &[KeyAccess::READ])
    },
];

const DOCS: Docs = Docs::new("generic", "7.0.0", "That of the command", "Nodes of a cluster send it.");

/// The arguments in front of those of the command behind them.
const PREPARE_ARGUMENTS: usize = 5;
const READ_ARGUMENTS: usize = 2;

/// Nothing that was within the limits before is refused later.
const SETTINGS: Settings = Settings { bulk_len_bytes_max: u64::MAX, once_ttl_ms: 0 };

/// An order about a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Lock the keys of a command, keep it, and answer what is asked.
    Prepare,
    /// To the first participant: commit it, unless it was aborted.
    Decide,
    /// To another one: it is committed.
    Commit,
    /// Abort it, unless it was committed.
    Abort,
    /// To the first participant: all others have ended their parts.
    Forget,
}

impl Order {
    const ALL: [(Self, &'static [u8]); 5] = [
        (Self::Prepare, b"prepare"),
        (Self::Decide, b"decide"),
        (Self::Commit, b"commit"),
        (Self::Abort, b"abort"),
        (Self::Forget, b"forget"),
    ];

    /// Its word.
    pub fn word(self) -> &'static [u8] {
        Self::ALL.iter().find(|(order, _)| *order == self).expect("each has one").1
    }

    /// The order of a request of [`is_transaction`].
    pub fn of(args: &Args<'_>) -> Option<Self> {
        let word = if args.len() > 2 { args.get(2) } else { &[] };
        Self::ALL.iter().find(|(_, other)| *other == word).map(|(order, _)| *order)
    }
}

/// What a part that is prepared answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Of every key of its command whether it exists: a digit each.
    Existence,
    /// The first key's deadline (8 bytes, 0: none) and value, as DUMP has it; nothing if it does not exist.
    Value,
    /// The reply of its command, a read.
    Reply,
}

/// The command of nodes that has this name.
pub fn internal(name: &[u8]) -> Option<&'static Command> {
    INTERNAL.iter().find(|command| command.name.as_bytes() == name)
}

/// The command by which shards are told of transactions.
pub fn transaction_command() -> &'static Command {
    &INTERNAL[0]
}

/// The command by which shards are read together.
pub fn read_command() -> &'static Command {
    &INTERNAL[1]
}

/// Whether this is the command by which shards are told of transactions.
#[inline]
pub fn is_transaction(command: &Command) -> bool {
    usize::from(command.number) == COUNT_ALL
}

/// The head of an order to prepare. `others`: the shards of the other participants, of the first one.
pub fn prepare_head(asked: Asked, takes_effect: bool, first: u16, others: &[u16]) -> Vec<u8> {
    let asked = match asked {
        Asked::Existence => 0,
        Asked::Value => 1,
        Asked::Reply => 2,
    };
    let mut head = vec![asked, u8::from(takes_effect)];
    head.extend_from_slice(&first.to_le_bytes());
    others.iter().for_each(|other| head.extend_from_slice(&other.to_le_bytes()));
    head
}

/// The names of the keys that a request of [`is_transaction`] or of [`read_command`] is about, and the transaction's, if it
/// has one.
pub fn subject<'a>(
    command: &Command,
    count: usize,
    argument: impl Fn(usize) -> &'a [u8] + Copy,
) -> (Option<TransactionName>, Vec<&'a [u8]>) {
    let (first, name) = if is_transaction(command) {
        let is_prepare = count > 2 && argument(2) == Order::Prepare.word();
        let first = if is_prepare { PREPARE_ARGUMENTS } else { count };
        (first, if count > 3 { TransactionName::decode(argument(3)) } else { None })
    } else {
        (READ_ARGUMENTS, None)
    };
    if first >= count {
        return (name, Vec::new());
    }
    let own = lookup(argument(first)).filter(|own| own.accepts(count - first));
    let positions = own.map(|own| own.keys.positions(count - first));
    let names = positions.into_iter().flatten().map(|position| argument(first + position));
    (name, names.collect())
}

/// The command that a request of [`is_transaction`] or of [`read_command`] carries to a shard.
pub fn carried(command: &Command, args: &Args<'_>) -> Option<&'static Command> {
    let first = if is_transaction(command) {
        (Order::of(args) == Some(Order::Prepare)).then_some(PREPARE_ARGUMENTS)?
    } else if command.number == read_command().number {
        READ_ARGUMENTS
    } else {
        return None;
    };
    if args.len() > first { lookup(args.get(first)) } else { None }
}

/// Whether a part can be executed at its end: it is nothing, or a whole command of single shards.
pub(crate) fn can_end(arguments: &[Vec<u8>]) -> bool {
    let Some(name) = arguments.first() else { return true };
    lookup(name).is_some_and(|command| is_of_shards(command, arguments.len()))
}

/// Whether it is a whole command of the kind that parts are of.
fn is_of_shards(command: &Command, count: usize) -> bool {
    let runs = matches!(command.run, Run::Single(_) | Run::Split(..) | Run::Staged(..));
    runs && command.accepts(count) && !command.flags.contains(Flags::MOVABLEKEYS)
}

fn transaction(call: &mut Call<'_>) -> Step {
    let name = TransactionName::decode(call.args.get(3));
    let (Some(order), Some(name)) = (Order::of(&call.args), name) else {
        call.reply.error("ERR that is no order about a transaction");
        return Step::Done;
    };
    if order == Order::Prepare {
        if let Err(error) = prepare(call, name) {
            call.reply.error(error);
        }
        return Step::Done;
    }
    let shard = call.shards.of(call.keys[0].slot);
    let transactions = shard.transactions_mut();
    let (ended, takes_effect) = match order {
        Order::Decide => (transactions.decide(name), true),
        Order::Commit => (transactions.commit(name), true),
        Order::Abort | Order::Prepare => (transactions.abort(name), false),
        Order::Forget => {
            transactions.forget(name);
            (Ended::Unknown, false)
        }
    };
    let word = match (order, &ended) {
        (Order::Decide, Ended::Unknown) => "ABORTED",
        (Order::Decide, _) | (Order::Abort, Ended::Committed) => "COMMITTED",
        (Order::Abort, _) => "ABORTED",
        _ => "DONE",
    };
    call.reply.simple(word);
    if let Ended::Now(part) = ended
        && takes_effect
    {
        execute(call, &part);
    }
    Step::Done
}

/// Lets a part take effect.
fn execute(call: &mut Call<'_>, part: &Prepared) {
    let Some(command) = part.arguments.first().and_then(|name| lookup(name)) else { return };
    let (mut bytes, mut ranges) = (Vec::new(), Vec::new());
    for argument in &part.arguments {
        ranges.push((bytes.len() as u32, argument.len() as u32));
        bytes.extend_from_slice(argument);
    }
    let shard = call.shards.of(call.keys[0].slot);
    let positions = command.keys.positions(part.arguments.len());
    let keys: Vec<_> = positions.map(|position| shard.key(&part.arguments[position])).collect();
    shard.note_changed(&keys);
    let (Run::Single(handler) | Run::Split(handler, _) | Run::Staged(handler, _)) = command.run else {
        return;
    };
    let mut ignored = Vec::new();
    let mut own = Call {
        shards: call.shards,
        args: Args::new(&bytes, &ranges, &mut []),
        keys: &keys,
        database: part.database,
        now_ms: call.now_ms,
        seed: call.seed,
        touch: true,
        settings: &SETTINGS,
        reply: Reply::new(&mut ignored, Protocol::Resp2),
    };
    if let Step::Continue(mut rest) = handler(&mut own) {
        while !rest.resume(&mut own) {}
    }
}

/// The command behind `first` arguments, and the hashes of its keys, all of which the call's shard must have.
fn inner<'a>(
    call: &mut Call<'a>,
    first: usize,
) -> Result<(&'static Command, Vec<crate::KeyHash>), &'static str> {
    const NONE: &str = "ERR there is no command of one shard behind it";
    if call.args.len() <= first {
        return Err(NONE);
    }
    let own_count = call.args.len() - first;
    let command = lookup(call.args.get(first)).ok_or(NONE)?;
    if !is_of_shards(command, own_count) {
        return Err(NONE);
    }
    let shard = call.shards.of(call.keys[0].slot);
    let positions = command.keys.positions(own_count);
    let keys: Vec<_> = positions.map(|position| shard.key(call.args.get(first + position))).collect();
    let is_here = !keys.is_empty() && keys.iter().all(|key| shard.slots().contains(&key.slot));
    if is_here { Ok((command, keys)) } else { Err(NONE) }
}

fn prepare(call: &mut Call<'_>, name: TransactionName) -> Result<(), &'static str> {
    const BAD_HEAD: &str = "ERR the head of that order cannot be read";
    let (command, keys) = inner(call, PREPARE_ARGUMENTS)?;
    let (&[asked, takes_effect, first_low, first_high], others) =
        call.args.get(4).split_first_chunk().ok_or(BAD_HEAD)?;
    let takes_effect = takes_effect != 0;
    if takes_effect != command.flags.contains(Flags::WRITE) && (takes_effect || asked == 2) {
        return Err(BAD_HEAD);
    }
    let others = others.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let own_count = call.args.len() - PREPARE_ARGUMENTS;
    let argument = |index: usize| call.args.get(PREPARE_ARGUMENTS + index);
    let arguments = if takes_effect {
        (0..own_count).map(|index| argument(index).to_vec()).collect()
    } else {
        Vec::new()
    };
    let shard = call.shards.of(call.keys[0].slot);
    let names = command.keys.positions(own_count).map(argument);
    let part = Prepared {
        first: u16::from_le_bytes([first_low, first_high]),
        others,
        database: call.database,
        keys: distinct_keys(shard.hasher(), names),
        arguments,
    };
    if !shard.transactions_mut().prepare(name, part) {
        return Err("REFUSED another command over several shards holds one of the keys");
    }
    let (database, now_ms) = (call.database, call.now_ms);
    let find = if call.touch { Shard::touch } else { Shard::get };
    match asked {
        0 => {
            let digits = keys.iter().zip(command.keys.positions(own_count)).map(|(key, position)| {
                let exists = find(shard, database, argument(position), *key, now_ms).is_some();
                if exists { b'1' } else { b'0' }
            });
            let digits: Vec<u8> = digits.collect();
            call.reply.bulk(&digits);
        }
        1 => {
            let position = usize::from(command.keys.first);
            let mut answer = Vec::new();
            if let Some(entry) = find(shard, database, argument(position), keys[0], now_ms) {
                answer.extend_from_slice(&entry.deadline_ms().unwrap_or(0).to_le_bytes());
                let Value::String(value) = entry.value();
                dump_payload(Value::String(value), &mut answer);
            }
            call.reply.bulk(&answer);
        }
        _ => {
            let reply = reply_of(call, command, &keys, PREPARE_ARGUMENTS);
            call.reply.bulk(&reply);
        }
    }
    Ok(())
}

/// The reply of the command behind `first` arguments, a read.
fn reply_of(call: &mut Call<'_>, command: &Command, keys: &[crate::KeyHash], first: usize) -> Vec<u8> {
    let mut reply = Vec::new();
    let (Run::Single(handler) | Run::Split(handler, _) | Run::Staged(handler, _)) = command.run else {
        return reply;
    };
    let protocol = call.reply.protocol();
    let mut own = Call {
        shards: call.shards,
        args: call.args.tail(first),
        keys,
        database: call.database,
        now_ms: call.now_ms,
        seed: call.seed,
        touch: call.touch,
        settings: call.settings,
        reply: Reply::new(&mut reply, protocol),
    };
    if let Step::Continue(mut rest) = handler(&mut own) {
        while !rest.resume(&mut own) {}
    }
    reply
}

fn read(call: &mut Call<'_>) -> Step {
    let (command, keys) = match inner(call, READ_ARGUMENTS) {
        Ok((command, keys)) if !command.flags.contains(Flags::WRITE) => (command, keys),
        _ => {
            call.reply.error("ERR there is no read of one shard behind it");
            return Step::Done;
        }
    };
    let seed = call.seed;
    let (instance, latest) = call.shards.of(call.keys[0].slot).versions(&keys, seed);
    let mut answer = Vec::new();
    answer.extend_from_slice(&instance.to_le_bytes());
    answer.extend_from_slice(&latest.to_le_bytes());
    answer.extend_from_slice(&reply_of(call, command, &keys, READ_ARGUMENTS));
    call.reply.bulk(&answer);
    Step::Done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::TestKeyspace;

    fn name(age: u64) -> TransactionName {
        TransactionName { age, tie: 0, attempt: 0 }
    }

    fn order(keyspace: &mut TestKeyspace, words: &[&[u8]]) -> Vec<u8> {
        let arguments: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
        keyspace.execute_internal(&arguments)
    }

    fn prepare(keyspace: &mut TestKeyspace, age: u64, head: &[u8], command: &[&[u8]]) -> Vec<u8> {
        let encoded = name(age).encode();
        let own: [&[u8]; 5] = [b"duva.transaction", b"{k}", b"prepare", &encoded, head];
        let words = [&own, command].concat();
        order(keyspace, &words)
    }

    fn end(keyspace: &mut TestKeyspace, age: u64, word: &[u8]) -> Vec<u8> {
        order(keyspace, &[b"duva.transaction", b"{k}", word, &name(age).encode()])
    }

    #[test]
    fn a_part_takes_effect_when_it_is_committed() {
        let mut keyspace = TestKeyspace::new();
        keyspace.check(&[("SET {k}1 old", "+OK")]);
        let head = prepare_head(Asked::Existence, true, 0, &[5]);
        let mset: &[&[u8]] = &[b"mset", b"{k}1", b"new", b"{k}2", b"two", b"{k}1", b"newest"];
        assert_eq!(prepare(&mut keyspace, 1, &head, mset), b"$3\r\n101\r\n");
        assert_eq!(keyspace.run("GET {k}1"), "$old", "the server keeps others away, not the engine");
        assert!(prepare(&mut keyspace, 2, &head, &[b"del", b"{k}2"]).starts_with(b"-REFUSED"));
        assert_eq!(end(&mut keyspace, 1, b"decide"), b"+COMMITTED\r\n");
        keyspace.check(&[("MGET {k}1 {k}2", "[$newest, $two]")]);
        assert_eq!(end(&mut keyspace, 1, b"abort"), b"+COMMITTED\r\n");
        assert_eq!(end(&mut keyspace, 1, b"forget"), b"+DONE\r\n");
        assert_eq!(end(&mut keyspace, 1, b"abort"), b"+ABORTED\r\n");
        assert_eq!(prepare(&mut keyspace, 2, &head, &[b"del", b"{k}2"]), b"$1\r\n1\r\n");
        assert_eq!(end(&mut keyspace, 2, b"abort"), b"+ABORTED\r\n");
        assert_eq!(end(&mut keyspace, 2, b"decide"), b"+ABORTED\r\n");
        keyspace.check(&[("GET {k}2", "$two")]);
        assert_eq!(end(&mut keyspace, 3, b"commit"), b"+DONE\r\n");
    }

    #[test]
    fn values_travel_with_their_deadlines() {
        let mut keyspace = TestKeyspace::new();
        keyspace.check(&[("SET {k}1 value PX 5000", "+OK")]);
        let head = prepare_head(Asked::Value, true, 0, &[]);
        let reply = prepare(&mut keyspace, 1, &head, &[b"del", b"{k}1"]);
        let start = reply.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        let (deadline, payload) = reply[start..reply.len() - 2].split_first_chunk::<8>().unwrap();
        assert_eq!(end(&mut keyspace, 1, b"commit"), b"+DONE\r\n");
        let deadline = u64::from_le_bytes(*deadline).to_string();
        let head = prepare_head(Asked::Existence, true, 0, &[]);
        let restore: &[&[u8]] = &[b"restore", b"{k}2", deadline.as_bytes(), payload, b"REPLACE", b"ABSTTL"];
        assert_eq!(prepare(&mut keyspace, 2, &head, restore), b"$1\r\n0\r\n");
        assert_eq!(end(&mut keyspace, 2, b"commit"), b"+DONE\r\n");
        keyspace.check(&[("GET {k}1", "nil"), ("GET {k}2", "$value"), ("PTTL {k}2", ":5000")]);
        assert_eq!(
            prepare(&mut keyspace, 3, &prepare_head(Asked::Value, false, 0, &[]), &[b"exists", b"{k}1"]),
            b"$0\r\n\r\n"
        );
    }

    #[test]
    fn reads_say_whether_keys_have_changed() {
        let mut keyspace = TestKeyspace::new();
        keyspace.seed = 77;
        keyspace.check(&[("SET {k}1 a", "+OK")]);
        let words: &[&[u8]] = &[b"duva.read", b"{k}", b"mget", b"{k}1", b"{k}2"];
        let first = order(&mut keyspace, words);
        keyspace.seed = 78;
        assert_eq!(order(&mut keyspace, words), first);
        let head = prepare_head(Asked::Existence, true, 0, &[]);
        // The same value again is a change as well.
        prepare(&mut keyspace, 1, &head, &[b"set", b"{k}1", b"a"]);
        assert_eq!(order(&mut keyspace, words), first);
        end(&mut keyspace, 1, b"commit");
        assert_ne!(order(&mut keyspace, words), first);
    }

    #[test]
    fn what_is_no_order_is_refused_and_clients_know_of_none() {
        let mut keyspace = TestKeyspace::new();
        let head = prepare_head(Asked::Existence, true, 0, &[]);
        for words in [
            &[&b"duva.transaction"[..], b"{k}", b"prepare", b"short"][..],
            &[b"duva.transaction", b"{k}", b"bogus", &[0; 20]],
            &[b"duva.transaction", b"{k}", b"prepare", &[0; 20]],
            &[b"duva.transaction", b"{k}", b"prepare", &[0; 20], &head],
            &[b"duva.transaction", b"{k}", b"prepare", &[0; 20], &head, b"bogus", b"{k}"],
            &[b"duva.transaction", b"{k}", b"prepare", &[0; 20], &head, b"set", b"{k}"],
            &[b"duva.transaction", b"{k}", b"prepare", &[0; 20], &head, b"get", b"{k}"],
            &[b"duva.transaction", b"{k}", b"prepare", &[0; 20], &head[..3], b"del", b"{k}"],
            &[b"duva.transaction", b"{k}", b"prepare", &[0; 20], &head, b"del", b"elsewhere"],
            &[b"duva.transaction", b"{k}", b"prepare", &[0; 20], &head, b"once", b"c", b"r", b"del", b"{k}"],
            &[b"duva.transaction", b"{k}", b"prepare", &[0; 20], &head, b"flushall", b"async"],
            &[b"duva.read", b"{k}", b"del", b"{k}"],
            &[b"duva.read", b"{k}", b"get", b"elsewhere"],
        ] {
            assert!(order(&mut keyspace, words).starts_with(b"-ERR"), "{words:?}");
        }
        assert!(keyspace.shards.iter().all(|shard| shard.transactions().is_empty()));
        assert!(keyspace.run("DUVA.TRANSACTION a b c").starts_with("-ERR unknown command"));
        assert!(lookup(b"duva.read").is_none() && internal(b"duva.read").is_some());
    }
}
