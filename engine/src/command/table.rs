//! The command table and the way from a name to its row.
//!
//! Names hash into a table that the compiler builds. A name of up to sixteen bytes is its first and its last eight
//! bytes; those are compared as two words, so a lookup touches no string. Invariant: [`Signature::of`] is
//! the same function at compile time and at run time.

use super::{
    Command, connection, databases, dump, expiry, introspect, keys, lcs, many, numbers, object, once, ranges,
    scan, server, strings,
};

/// Every command, without subcommands (those hang below their containers).
pub fn all() -> &'static [Command] {
    &COMMANDS
}

/// Every command, each followed by its subcommands.
pub fn every() -> impl Iterator<Item = &'static Command> + Clone {
    all().iter().flat_map(|command| std::iter::once(command).chain(command.subcommands))
}

/// The command called `name`, whatever its case.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Command> {
    let signature = Signature::of(name);
    let mut place = signature.place();
    loop {
        let bucket = &BUCKETS[place];
        if bucket.index == VACANT {
            return None;
        }
        if bucket.signature.equals(signature) {
            let command = &COMMANDS[usize::from(bucket.index)];
            let is_whole = name.len() <= 16 || command.name.as_bytes().eq_ignore_ascii_case(name);
            return is_whole.then_some(command);
        }
        place = (place + 1) % BUCKET_COUNT;
    }
}

/// One family a file.
const FAMILIES: &[&[Command]] = &[
    strings::COMMANDS,
    numbers::COMMANDS,
    ranges::COMMANDS,
    many::COMMANDS,
    lcs::COMMANDS,
    keys::COMMANDS,
    databases::COMMANDS,
    scan::COMMANDS,
    object::COMMANDS,
    dump::COMMANDS,
    expiry::COMMANDS,
    once::COMMANDS,
    connection::COMMANDS,
    server::COMMANDS,
    introspect::COMMANDS,
];

static COMMANDS: [Command; COUNT] = assemble();

/// Every container's subcommands, one container's after the other's.
static SUBCOMMANDS: [Command; SUBCOMMAND_COUNT] = assemble_subcommands();

/// How many commands there are, subcommands included.
pub const COUNT_ALL: usize = COUNT + SUBCOMMAND_COUNT;

const COUNT: usize = {
    let mut count = 0;
    let mut family = 0;
    while family < FAMILIES.len() {
        count += FAMILIES[family].len();
        family += 1;
    }
    count
};

const SUBCOMMAND_COUNT: usize = {
    let mut count = 0;
    let mut family = 0;
    while family < FAMILIES.len() {
        let mut row = 0;
        while row < FAMILIES[family].len() {
            count += FAMILIES[family][row].subcommands.len();
            row += 1;
        }
        family += 1;
    }
    count
};

const fn assemble() -> [Command; COUNT] {
    let mut commands = [FAMILIES[0][0]; COUNT];
    let mut count = 0;
    let mut subcommands: &'static [Command] = &SUBCOMMANDS;
    let mut family = 0;
    while family < FAMILIES.len() {
        let mut row = 0;
        while row < FAMILIES[family].len() {
            commands[count] = FAMILIES[family][row];
            commands[count].number = count as u16;
            let (own, others) = subcommands.split_at(commands[count].subcommands.len());
            commands[count].subcommands = own;
            subcommands = others;
            count += 1;
            row += 1;
        }
        family += 1;
    }
    commands
}

const fn assemble_subcommands() -> [Command; SUBCOMMAND_COUNT] {
    let mut commands = [FAMILIES[0][0]; SUBCOMMAND_COUNT];
    let mut count = 0;
    let mut family = 0;
    while family < FAMILIES.len() {
        let mut row = 0;
        while row < FAMILIES[family].len() {
            let subcommands = FAMILIES[family][row].subcommands;
            let mut index = 0;
            while index < subcommands.len() {
                commands[count] = subcommands[index];
                commands[count].number = (COUNT + count) as u16;
                count += 1;
                index += 1;
            }
            row += 1;
        }
        family += 1;
    }
    commands
}

/// A power of two, several times the number of commands, so that probes are short.
const BUCKET_COUNT: usize = 256;

const VACANT: u16 = u16::MAX;

#[derive(Clone, Copy)]
struct Bucket {
    signature: Signature,
    /// Into [`COMMANDS`], or [`VACANT`].
    index: u16,
}

static BUCKETS: [Bucket; BUCKET_COUNT] = {
    assert!(COUNT * 2 < BUCKET_COUNT, "the table of names is too small");
    let commands = assemble();
    let vacant = Bucket { signature: Signature { first: 0, last: 0, length: 0 }, index: VACANT };
    let mut buckets = [vacant; BUCKET_COUNT];
    let mut index = 0;
    while index < COUNT {
        let signature = Signature::of(commands[index].name.as_bytes());
        let mut place = signature.place();
        while buckets[place].index != VACANT {
            assert!(!buckets[place].signature.equals(signature), "two commands have one name");
            place = (place + 1) % BUCKET_COUNT;
        }
        buckets[place] = Bucket { signature, index: index as u16 };
        index += 1;
    }
    buckets
};

/// A name in lower case, as words.
#[derive(Clone, Copy)]
struct Signature {
    /// The first eight bytes, zeros behind a shorter name.
    first: u64,
    /// The last eight bytes of a name longer than eight.
    last: u64,
    length: usize,
}

impl Signature {
    #[inline]
    const fn of(name: &[u8]) -> Self {
        let length = name.len();
        let (first, last) = if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
            (u64::from_le_bytes(*first), if length > 8 { u64::from_le_bytes(*last) } else { 0 })
        } else if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
            // The two halves overlap where they agree.
            let (first, last) = (u32::from_le_bytes(*first) as u64, u32::from_le_bytes(*last) as u64);
            (first | last << (8 * (length - 4)), 0)
        } else if length > 0 {
            let middle = length / 2;
            let first = name[0] as u64
                | (name[middle] as u64) << (8 * middle)
                | (name[length - 1] as u64) << (8 * (length - 1));
            (first, 0)
        } else {
            (0, 0)
        };
        Self { first: lower_case(first), last: if length > 8 { lower_case(last) } else { 0 }, length }
    }

    #[inline]
    const fn place(self) -> usize {
        let word = self.first ^ self.last.rotate_left(31) ^ self.length as u64;
        (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - BUCKET_COUNT.ilog2())) as usize
    }

    #[inline]
    const fn equals(self, other: Self) -> bool {
        self.first == other.first && self.last == other.last && self.length == other.length
    }
}

/// Eight ASCII letters in lower case at once; all other bytes stay as they are.
#[inline]
const fn lower_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low_bits = word & (0x7F * ONES);
    let from_a = low_bits + (0x80 - b'A' as u64) * ONES;
    let past_z = low_bits + (0x7F - b'Z' as u64) * ONES;
    let is_upper = (from_a ^ past_z) & !word & (0x80 * ONES);
    word | is_upper >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_every_case() {
        for command in all() {
            let upper = command.name.to_ascii_uppercase();
            let mixed: String = (0..)
                .zip(upper.chars())
                .map(|(index, c)| if index % 2 == 0 { c.to_ascii_lowercase() } else { c })
                .collect();
            for name in [command.name, &upper, &mixed] {
                assert_eq!(lookup(name.as_bytes()).map(|found| found.name), Some(command.name));
            }
        }
    }

    #[test]
    fn names_are_lower_case_and_subcommands_carry_their_containers() {
        for command in all() {
            assert_eq!(command.name, command.name.to_ascii_lowercase());
            for subcommand in command.subcommands {
                assert_eq!(subcommand.name.split('|').next(), Some(command.name));
                let own = subcommand.own_name().to_ascii_uppercase();
                assert_eq!(command.subcommand(own.as_bytes()).map(|found| found.name), Some(subcommand.name));
            }
        }
    }

    #[test]
    fn every_command_has_a_number_of_its_own() {
        let mut numbers: Vec<u16> = every().map(|command| command.number).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..COUNT_ALL as u16));
    }

    #[test]
    fn near_misses_are_not_found() {
        let misses: [&[u8]; 14] = [
            b"",
            b"g",
            b"ge",
            b"gets",
            b"get\0",
            b"g\x05t",
            b"GE4",
            b"set ",
            b"incrbyfloatt",
            b"incrbyfloa",
            b"expiretime\0",
            b"\xe7et",
            b"PEXPIRETIMEPEXPIRETIME",
            b"flushal",
        ];
        for name in misses {
            assert!(lookup(name).is_none(), "{}", name.escape_ascii());
        }
    }
}
