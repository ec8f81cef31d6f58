//! Error replies by their code: INFO errorstats.

/// How many error replies had which code, the first word (`ERR`, `WRONGTYPE`, ...). Codes are the server's own, never a
/// client's, so there are few; memory is allocated when one is met for the first time.
#[derive(Clone, Debug, Default)]
pub struct ErrorCounts(Vec<(Box<str>, u64)>);

impl ErrorCounts {
    /// Counts an error reply, given as it is sent or without the minus sign.
    #[cold]
    pub fn count(&mut self, error: &[u8]) {
        let code = code(error);
        match self.0.iter_mut().find(|(known, _)| &**known == code) {
            Some((_, count)) => *count += 1,
            None => self.0.push((code.into(), 1)),
        }
    }

    /// Adds what another core counted.
    pub fn merge(&mut self, other: &Self) {
        for (code, count) in &other.0 {
            match self.0.iter_mut().find(|(known, _)| known == code) {
                Some((_, sum)) => *sum += count,
                None => self.0.push((code.clone(), *count)),
            }
        }
    }

    /// All error replies.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// Codes and counts, in the order of the codes.
    pub fn sorted(&self) -> Vec<(&str, u64)> {
        let mut rows: Vec<_> = self.0.iter().map(|(code, count)| (&**code, *count)).collect();
        rows.sort_unstable();
        rows
    }
}

/// The first word of an error; as in Redis, one that has none of at most 31 bytes counts as `ERR`.
fn code(error: &[u8]) -> &str {
    const CODE_BYTES_MAX: usize = 31;
    let text = error.strip_prefix(b"-").unwrap_or(error);
    let end = text.iter().take(CODE_BYTES_MAX + 1).position(|&byte| byte == b' ');
    end.and_then(|end| std::str::from_utf8(&text[..end]).ok()).unwrap_or("ERR")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_their_first_words() {
        let mut counts = ErrorCounts::default();
        for error in ["-WRONGTYPE no such\r\n", "ERR a", "-ERR b\r\n", "-OOM\r\n", "-"] {
            counts.count(error.as_bytes());
        }
        counts.count(&[b'x'; 100]);
        let mut other = ErrorCounts::default();
        other.count(b"-NOAUTH x\r\n");
        other.count(b"-ERR x\r\n");
        counts.merge(&other);
        assert_eq!(counts.sorted(), [("ERR", 6), ("NOAUTH", 1), ("WRONGTYPE", 1)]);
        assert_eq!(counts.total(), 8);
    }
}
