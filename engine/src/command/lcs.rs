//! LCS: the longest common subsequence of two strings.
//!
//! Redis fills a table of 32-bit lengths cell by cell and walks back through it. The same answer, the same way back
//! included, comes from one bit a cell: whether the length grows from the cell to its left. Bit-parallel
//! arithmetic makes 64 of those at once (Hyyro, "Bit-parallel LCS-length computation revisited", 2004). The
//! limit on memory and its error stay those of Redis, which counts four bytes a cell.
//!
//! A calculation owns copies of both strings, so that keys may change while it goes on in steps.

mod matrix;

use crate::{Args, Call, Reply, Resume, Settings, Step, Value, parse_i64};

use super::{
    Categories, Command, Docs, Flags, KeyAccess, Keys, Plan, Run,
    docs::{integer, key, word},
    failure::{Failure, NOT_AN_INTEGER, SYNTAX, attempt, is_word},
};
use matrix::Matrix;

pub(super) const COMMANDS: &[Command] = &[Command::new(
    "lcs",
    -3,
    Run::Staged(lcs, Plan::LongestCommonSubsequence),
    Docs::new(
        "string",
        "7.0.0",
        "O(N*M) where N and M are the lengths of the strings",
        "Finds the longest subsequence that two strings have in common.",
    )
    .with(&[
        key("key1"),
        key("key2"),
        word("len", "LEN").optional(),
        word("idx", "IDX").optional(),
        integer("len").after("MINMATCHLEN").optional(),
        word("withmatchlen", "WITHMATCHLEN").optional(),
    ]),
)
.categories(Categories::STRING)
.flags(&[Flags::READONLY])
.keys(Keys::TWO, &[KeyAccess::READ])];

/// About half a millisecond's work, in words of 64 cells, or in bytes on the way back.
const STEP_BUDGET: usize = 200_000;

/// Begins to compare two strings that were read already, the first one key's and the second one's: for a server whose
/// cores hold one each. Returns the calculation, or `None` when the reply is written.
pub fn begin(
    args: &Args<'_>,
    a: Vec<u8>,
    b: Vec<u8>,
    settings: &Settings,
    reply: &mut Reply<'_>,
) -> Option<Box<dyn Resume>> {
    let checked = Options::parse(args).and_then(|options| {
        check_sizes(a.len(), b.len(), settings)?;
        Ok(options)
    });
    match checked {
        Ok(options) => start(options, a, b, reply),
        Err(text) => {
            reply.error(text);
            None
        }
    }
}

fn lcs(call: &mut Call<'_>) -> Step {
    let mut rest = None;
    let done = attempt(call, |call| {
        let mut lengths = [0; 2];
        for (ordinal, length) in lengths.iter_mut().enumerate() {
            *length = call.place(ordinal, 1 + ordinal).0.read_string().map_or(0, <[u8]>::len);
        }
        let options = Options::parse(&call.args)?;
        // Nothing is copied for a calculation that is refused.
        check_sizes(lengths[0], lengths[1], call.settings)?;
        let [a, b] = [0, 1].map(|ordinal| {
            let mut place = call.place(ordinal, 1 + ordinal).0;
            place.find().map_or_else(Vec::new, |entry| {
                let Value::String(bytes) = entry.value();
                bytes.to_vec()
            })
        });
        rest = start(options, a, b, &mut call.reply);
        Ok::<(), Failure>(())
    });
    match rest {
        Some(state) => Step::Continue(state),
        None => done,
    }
}

/// Does the first step, which is the only one for strings of some kilobytes.
fn start(options: Options, a: Vec<u8>, b: Vec<u8>, reply: &mut Reply<'_>) -> Option<Box<dyn Resume>> {
    let mut lcs = Lcs::new(options, a, b);
    if lcs.step(STEP_BUDGET) {
        lcs.write(reply);
        return None;
    }
    Some(Box::new(lcs))
}

fn check_sizes(a: usize, b: usize, settings: &Settings) -> Result<(), &'static str> {
    const LEN_BYTES_MAX: usize = u32::MAX as usize - 1;
    if a >= LEN_BYTES_MAX || b >= LEN_BYTES_MAX {
        return Err("ERR String too long for LCS");
    }
    let bytes = (a as u128 + 1) * (b as u128 + 1) * 4;
    if bytes > u128::from(settings.bulk_len_bytes_max) {
        return Err("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
    }
    Ok(())
}

/// What the reply is to contain.
#[derive(Clone, Copy, Debug, Default)]
struct Options {
    /// LEN.
    length: bool,
    /// IDX.
    indexes: bool,
    /// MINMATCHLEN.
    match_len_min: i64,
    /// WITHMATCHLEN.
    with_match_len: bool,
}

impl Options {
    fn parse(args: &Args<'_>) -> Result<Self, &'static str> {
        let mut options = Self::default();
        let mut index = 3;
        while index < args.len() {
            if is_word(args, index, "idx") {
                options.indexes = true;
            } else if is_word(args, index, "len") {
                options.length = true;
            } else if is_word(args, index, "withmatchlen") {
                options.with_match_len = true;
            } else if is_word(args, index, "minmatchlen") && index + 1 < args.len() {
                index += 1;
                options.match_len_min = parse_i64(args.get(index)).ok_or(NOT_AN_INTEGER)?;
            } else {
                return Err(SYNTAX);
            }
            index += 1;
        }
        if options.indexes && options.length {
            return Err("ERR If you want both the length and indexes, please just use IDX.");
        }
        Ok(options)
    }
}

/// A calculation: first the matrix, then the way back through it.
struct Lcs {
    options: Options,
    a: Vec<u8>,
    b: Vec<u8>,
    matrix: Matrix,
    /// Where the way back has come to: so many bytes of each string are still before it.
    left: Option<(usize, usize)>,
    /// The common subsequence, the last byte first.
    common: Vec<u8>,
    /// Runs of matching bytes, the last one first.
    runs: Vec<Streak>,
}

/// A run of matching bytes.
#[derive(Clone, Copy)]
struct Streak {
    /// Where it begins in the first string.
    a: usize,
    /// Where it begins in the second string.
    b: usize,
    length: usize,
}

impl Lcs {
    fn new(options: Options, a: Vec<u8>, b: Vec<u8>) -> Self {
        let matrix = Matrix::new(a.len(), b.len(), !options.length);
        Self { options, a, b, matrix, left: None, common: Vec::new(), runs: Vec::new() }
    }

    /// Works for about `budget` words or bytes; true when finished.
    fn step(&mut self, mut budget: usize) -> bool {
        if !self.matrix.fill(&self.a, &self.b, &mut budget) {
            return false;
        }
        if self.options.length {
            return true;
        }
        let (mut i, mut j) = self.left.unwrap_or((self.a.len(), self.b.len()));
        while i > 0 && j > 0 && budget > 0 {
            budget -= 1;
            if self.a[i - 1] == self.b[j - 1] {
                i -= 1;
                j -= 1;
                self.take(i, j);
            } else if self.matrix.grows_from_left(i - 1, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        self.left = Some((i, j));
        i == 0 || j == 0
    }

    /// Notes that byte `a` of one string matches byte `b` of the other.
    fn take(&mut self, a: usize, b: usize) {
        if !self.options.indexes {
            self.common.push(self.a[a]);
            return;
        }
        match self.runs.last_mut() {
            Some(run) if run.a == a + 1 && run.b == b + 1 => {
                *run = Streak { a, b, length: run.length + 1 };
            }
            _ => self.runs.push(Streak { a, b, length: 1 }),
        }
    }

    fn write(&mut self, reply: &mut Reply<'_>) {
        let length = self.matrix.length() as i64;
        if self.options.length {
            reply.integer(length);
        } else if self.options.indexes {
            let match_len_min = self.options.match_len_min;
            let shown = || self.runs.iter().filter(|run| run.length as i64 >= match_len_min);
            reply.map(2);
            reply.bulk(b"matches");
            reply.array(shown().count());
            for run in shown() {
                reply.array(2 + usize::from(self.options.with_match_len));
                for start in [run.a, run.b] {
                    reply.array(2);
                    reply.integer(start as i64);
                    reply.integer((start + run.length - 1) as i64);
                }
                if self.options.with_match_len {
                    reply.integer(run.length as i64);
                }
            }
            reply.bulk(b"len");
            reply.integer(length);
        } else {
            self.common.reverse();
            reply.bulk(&self.common);
        }
    }
}

impl Resume for Lcs {
    fn resume(&mut self, call: &mut Call<'_>) -> bool {
        let is_done = self.step(STEP_BUDGET);
        if is_done {
            self.write(&mut call.reply);
        }
        is_done
    }
}

#[cfg(test)]
mod tests;
