//! What is asked: keys, requests and the values that are to come back.

/// Every key is this long.
pub(crate) const KEY_LEN_BYTES: usize = 16;

pub(crate) type Key = [u8; KEY_LEN_BYTES];

/// What the requests of a load are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operation {
    Get,
    Set,
    Increment,
    /// EXPIREAT, with the time that keys are to expire at.
    Expire,
    /// GET with the probability `reads`, SET otherwise.
    Mixed {
        reads: f64,
    },
}

/// What a request asks for, and hence which reply is right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Request {
    /// `GET`: the key's value, or nothing.
    Get(Key),
    /// `SET`: OK.
    Set,
    /// `INCR`: an integer.
    Increment,
    /// `EXPIREAT`: 1, or 0 where there is no key.
    Expire,
}

/// The stream of requests.
pub(crate) struct Workload {
    operation: Operation,
    keys: u64,
    sequential: bool,
    /// The prefix, the rest zeros.
    key_zero: Key,
    prefix_len_bytes: usize,
    /// A whole SET of key 0.
    set: Vec<u8>,
    /// Where its key and its value begin.
    set_key_at: usize,
    set_value_at: usize,
    /// What follows the key of an EXPIREAT.
    expiry: Vec<u8>,
    value_len_bytes: usize,
    next_key: u64,
    random_state: u64,
}

const GET_HEADER: &[u8] = b"*2\r\n$3\r\nGET\r\n$16\r\n";
const INCREMENT_HEADER: &[u8] = b"*2\r\n$4\r\nINCR\r\n$16\r\n";
const EXPIRE_HEADER: &[u8] = b"*3\r\n$8\r\nEXPIREAT\r\n$16\r\n";

impl Workload {
    /// A stream over `keys` keys that begin with `prefix`; keys that are set get values of `value_len_bytes` bytes and
    /// expire at the Unix time `expire_at_s`, if any, in seconds.
    ///
    /// # Panics
    /// If a key does not fit into [`KEY_LEN_BYTES`].
    pub(crate) fn new(
        operation: Operation,
        keys: u64,
        sequential: bool,
        prefix: &str,
        value_len_bytes: usize,
        expire_at_s: Option<u64>,
        seed: u64,
    ) -> Self {
        let mut key_zero = [b'0'; KEY_LEN_BYTES];
        key_zero[..prefix.len()].copy_from_slice(prefix.as_bytes());
        let mut set = if expire_at_s.is_some() { b"*5".to_vec() } else { b"*3".to_vec() };
        set.extend_from_slice(b"\r\n$3\r\nSET\r\n$16\r\n");
        let set_key_at = set.len();
        set.extend_from_slice(&key_zero);
        set.extend_from_slice(format!("\r\n${value_len_bytes}\r\n").as_bytes());
        let set_value_at = set.len();
        set.extend((0..value_len_bytes).map(pattern));
        set.extend_from_slice(b"\r\n");
        let digits = expire_at_s.unwrap_or(0).to_string();
        let expiry = format!("${}\r\n{digits}\r\n", digits.len());
        if expire_at_s.is_some() {
            set.extend_from_slice(b"$4\r\nEXAT\r\n");
            set.extend_from_slice(expiry.as_bytes());
        }
        Self {
            operation,
            keys,
            sequential,
            key_zero,
            prefix_len_bytes: prefix.len(),
            set,
            set_key_at,
            set_value_at,
            expiry: expiry.into_bytes(),
            value_len_bytes,
            next_key: 0,
            random_state: seed,
        }
    }

    /// Appends the next request to `output`.
    #[inline]
    pub(crate) fn append(&mut self, output: &mut Vec<u8>) -> Request {
        let number = if self.sequential {
            let number = self.next_key;
            self.next_key = (number + 1) % self.keys;
            number
        } else {
            // The high half of a product spreads a random word evenly over a range (Lemire 2019).
            ((u128::from(self.random()) * u128::from(self.keys)) >> 64) as u64
        };
        let key = self.key(number);
        match self.operation {
            Operation::Get => append_short(output, GET_HEADER, &key, Request::Get(key)),
            Operation::Increment => append_short(output, INCREMENT_HEADER, &key, Request::Increment),
            Operation::Set => self.append_set(output, &key),
            Operation::Expire => {
                let request = append_short(output, EXPIRE_HEADER, &key, Request::Expire);
                output.extend_from_slice(&self.expiry);
                request
            }
            Operation::Mixed { reads } => {
                // 53 bits are what a double holds exactly.
                let fraction = (self.random() >> 11) as f64 / (1_u64 << 53) as f64;
                if fraction < reads {
                    append_short(output, GET_HEADER, &key, Request::Get(key))
                } else {
                    self.append_set(output, &key)
                }
            }
        }
    }

    pub(crate) fn value_len_bytes(&self) -> usize {
        self.value_len_bytes
    }

    /// Whether `bytes` are what the value of `key` has at `offset`.
    #[inline]
    pub(crate) fn value_has(&self, key: &Key, offset: usize, bytes: &[u8]) -> bool {
        let value = &self.set[self.set_value_at..][..self.value_len_bytes];
        let Some(expected) = value.get(offset..offset + bytes.len()) else { return false };
        let of_key = KEY_LEN_BYTES.saturating_sub(offset).min(bytes.len());
        bytes[..of_key] == key[offset.min(KEY_LEN_BYTES)..][..of_key] && bytes[of_key..] == expected[of_key..]
    }

    /// Appends a SET whose value is the pattern, its first bytes replaced by the key.
    #[inline]
    fn append_set(&self, output: &mut Vec<u8>, key: &Key) -> Request {
        let start = output.len();
        output.extend_from_slice(&self.set);
        let request = &mut output[start..];
        request[self.set_key_at..][..KEY_LEN_BYTES].copy_from_slice(key);
        let copied = self.value_len_bytes.min(KEY_LEN_BYTES);
        request[self.set_value_at..][..copied].copy_from_slice(&key[..copied]);
        Request::Set
    }

    #[inline]
    fn key(&self, number: u64) -> Key {
        let mut key = self.key_zero;
        let mut rest = number;
        for digit in key[self.prefix_len_bytes..].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        assert!(rest == 0, "the options let every key number fit");
        key
    }

    /// SplitMix64 (Steele, Lea, Flood 2014).
    #[inline]
    fn random(&mut self) -> u64 {
        self.random_state = self.random_state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.random_state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}

#[inline]
fn append_short(output: &mut Vec<u8>, header: &[u8], key: &Key, request: Request) -> Request {
    output.extend_from_slice(header);
    output.extend_from_slice(key);
    output.extend_from_slice(b"\r\n");
    request
}

/// What a value has at `offset`, past its key: letters, so that a shifted or mixed-up value differs.
fn pattern(offset: usize) -> u8 {
    b'a' + (offset % 26 + offset / 26) as u8 % 26
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(workload: &mut Workload) -> (Request, String) {
        let mut output = Vec::new();
        let request = workload.append(&mut output);
        (request, String::from_utf8(output).unwrap())
    }

    #[test]
    fn requests_are_what_the_protocol_asks_for() {
        let mut get = Workload::new(Operation::Get, 1000, true, "key:", 64, None, 1);
        text(&mut get);
        let (request, bytes) = text(&mut get);
        assert_eq!(bytes, "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000001\r\n");
        assert_eq!(request, Request::Get(*b"key:000000000001"));

        let mut increment = Workload::new(Operation::Increment, 1, true, "ctr:", 64, None, 1);
        assert_eq!(text(&mut increment).1, "*2\r\n$4\r\nINCR\r\n$16\r\nctr:000000000000\r\n");

        let mut expire = Workload::new(Operation::Expire, 1, true, "key:", 64, Some(2_000_000_000), 1);
        let expected = "*3\r\n$8\r\nEXPIREAT\r\n$16\r\nkey:000000000000\r\n$10\r\n2000000000\r\n";
        assert_eq!(text(&mut expire).1, expected);

        let mut set = Workload::new(Operation::Set, 2, true, "{t}:", 18, Some(2_000_000_000), 1);
        let expected = "*5\r\n$3\r\nSET\r\n$16\r\n{t}:000000000000\r\n$18\r\n{t}:000000000000qr\r\n\
                        $4\r\nEXAT\r\n$10\r\n2000000000\r\n";
        assert_eq!(text(&mut set).1, expected);
        assert!(text(&mut set).1.contains("{t}:000000000001qr"));
        assert_eq!(text(&mut set).1, expected, "after the last key comes the first");

        let mut empty = Workload::new(Operation::Set, 2, true, "key:", 0, None, 1);
        assert_eq!(text(&mut empty).1, "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000000\r\n$0\r\n\r\n");
        let mut short = Workload::new(Operation::Set, 2, true, "key:", 5, None, 1);
        assert_eq!(text(&mut short).1, "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000000\r\n$5\r\nkey:0\r\n");
    }

    #[test]
    fn a_value_is_recognised_piece_by_piece() {
        for length in [0, 1, 16, 17, 100] {
            let mut workload = Workload::new(Operation::Set, 1000, false, "key:", length, None, 7);
            let (_, bytes) = text(&mut workload);
            let key: Key = bytes.as_bytes()[bytes.find("key:").unwrap()..][..16].try_into().unwrap();
            let value = &bytes.as_bytes()[workload.set_value_at..][..length];
            for start in 0..=length {
                for end in start..=length {
                    assert!(workload.value_has(&key, start, &value[start..end]));
                }
            }
            for position in 0..length {
                let mut wrong = value.to_vec();
                wrong[position] ^= 1;
                assert!(!workload.value_has(&key, 0, &wrong), "a wrong byte at {position} of {length}");
            }
            assert!(!workload.value_has(&key, length, b"x"), "bytes beyond the value");
        }
    }

    #[test]
    fn random_keys_cover_their_range_and_repeat_with_their_seed() {
        let draw = |seed| {
            let mut workload = Workload::new(Operation::Get, 10, false, "key:", 64, None, seed);
            (0..200).map(|_| text(&mut workload).1).collect::<Vec<_>>()
        };
        let first = draw(1);
        assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), 10);
        assert_eq!(first, draw(1));
        assert_ne!(first, draw(2));
    }

    #[test]
    fn a_mixed_load_has_its_share_of_reads() {
        for (reads, range) in [(0.0, 0..=0), (0.25, 200..=300), (1.0, 1000..=1000)] {
            let mut workload = Workload::new(Operation::Mixed { reads }, 10, false, "key:", 8, None, 3);
            let gets = (0..1000).filter(|_| matches!(text(&mut workload).0, Request::Get(_))).count();
            assert!(range.contains(&gets), "{gets} reads for a share of {reads}");
        }
    }
}
