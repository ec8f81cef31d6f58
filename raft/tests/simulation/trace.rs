//! What happened. Always as a hash, by which two runs of a seed are compared; as text only when somebody will read it, because
//! a failing seed is simply run again.

use std::collections::VecDeque;

use super::random::mix;

/// Lines that are kept.
const LINES_MAX: usize = 400;

/// What happened so far.
pub(crate) struct Trace {
    hash: u64,
    lines: Option<VecDeque<String>>,
    prints: bool,
}

/// How much of what happens becomes text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Nothing.
    Hash,
    /// The last lines.
    Tail,
    /// All of it, printed as it happens.
    Print,
}

impl Trace {
    pub(crate) fn new(detail: Detail) -> Self {
        Self { hash: 0, lines: (detail != Detail::Hash).then(VecDeque::new), prints: detail == Detail::Print }
    }

    /// Something happened: `words` say what for the hash, `text` for readers.
    pub(crate) fn note(&mut self, now_ns: u64, words: [u64; 3], text: impl FnOnce() -> String) {
        let mut hash = self.hash.wrapping_add(now_ns);
        for word in words {
            hash = mix(hash.rotate_left(5) ^ word);
        }
        self.hash = hash;
        if let Some(lines) = &mut self.lines {
            let line = format!("{:>10.3} ms  {}", now_ns as f64 / 1e6, text());
            if self.prints {
                println!("{line}");
            }
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.into_iter().flatten().collect()
    }
}
