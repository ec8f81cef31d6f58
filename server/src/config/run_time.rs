//! CONFIG GET and CONFIG SET, with Redis 7.0's rules and words.

use std::{borrow::Cow, fmt};

use duva_engine::glob_match;

use super::{
    Config,
    options::{Change, ConfigOption, OPTIONS},
    value::Reason,
};

impl Config {
    /// What CONFIG GET returns: the name and value of every option that one of `patterns` matches, each once.
    ///
    /// Case does not matter. As in Redis, a pattern without wildcards comes back as the client spelled it.
    pub fn get(&self, patterns: &[&[u8]]) -> Vec<(String, Vec<u8>)> {
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        let mut is_found = vec![false; OPTIONS.len()];
        for pattern in patterns {
            let pattern_lower = pattern.to_ascii_lowercase();
            let has_wildcard = pattern.iter().any(|byte| b"*?[".contains(byte));
            for (option, is_found) in OPTIONS.iter().zip(&mut is_found) {
                let name = option.name.as_bytes();
                let is_match =
                    if has_wildcard { glob_match(&pattern_lower, name) } else { pattern_lower == name };
                if is_match && !std::mem::replace(is_found, true) {
                    let shown = if has_wildcard {
                        Cow::Borrowed(option.name)
                    } else {
                        String::from_utf8_lossy(pattern)
                    };
                    found.push((shown.into_owned(), (option.print)(self)));
                }
            }
        }
        found
    }

    /// What CONFIG SET makes of the configuration: all of `pairs` (names and values), or none of them.
    ///
    /// The configuration itself stays; the caller puts the new one in its place.
    pub fn set(&self, pairs: &[(&[u8], &[u8])]) -> Result<Self, SetError> {
        let mut options: Vec<&ConfigOption> = Vec::with_capacity(pairs.len());
        for &(name, _) in pairs {
            let option = ConfigOption::find(name).ok_or_else(|| SetError::Unknown { name: name.to_vec() })?;
            let refusal = match option.change {
                Change::Start | Change::OneStart | Change::Never => Some("can't set immutable config"),
                Change::StartProtected => Some("can't set protected config"),
                Change::RunTime if options.iter().any(|other| std::ptr::eq(*other, option)) => {
                    Some("duplicate parameter")
                }
                Change::RunTime => None,
            };
            if let Some(reason) = refusal {
                return Err(SetError::Refused { name: name.to_vec(), reason: Cow::Borrowed(reason) });
            }
            options.push(option);
        }
        let mut changed = self.clone();
        for (option, &(_, value)) in options.iter().zip(pairs) {
            let result = (option.parse)(&mut changed, value).and_then(|()| changed.check_ceiling(self));
            result.map_err(|reason| SetError::Refused { name: option.name.into(), reason })?;
        }
        Ok(changed)
    }

    /// Refuses more clients than there are descriptors for. A number that was so from the start may stay.
    fn check_ceiling(&self, before: &Self) -> Result<(), Reason> {
        if self.clients_max > self.clients_ceiling && self.clients_max > before.clients_max {
            return Err(format!(
                "The operating system is not able to handle the specified number of clients, try with {}",
                self.clients_ceiling
            )
            .into());
        }
        Ok(())
    }
}

/// Why CONFIG SET changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// There is no such option.
    Unknown {
        /// The name, as the client spelled it.
        name: Vec<u8>,
    },
    /// The option cannot be set, was given twice, or does not take the value.
    Refused {
        /// The option's name.
        name: Vec<u8>,
        /// Why, in Redis's words where Redis has such a case.
        reason: Reason,
    },
}

impl SetError {
    /// The error's text in the reply, `ERR` included, without line breaks.
    pub fn reply(&self) -> Vec<u8> {
        let mut line = Vec::new();
        match self {
            Self::Unknown { name } => {
                line.extend_from_slice(b"ERR Unknown option or number of arguments for CONFIG SET - '");
                line.extend_from_slice(name);
                line.push(b'\'');
            }
            Self::Refused { name, reason } => {
                line.extend_from_slice(b"ERR CONFIG SET failed (possibly related to argument '");
                line.extend_from_slice(name);
                line.extend_from_slice(b"') - ");
                line.extend_from_slice(reason.as_bytes());
            }
        }
        for byte in &mut line {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        line
    }
}

impl fmt::Display for SetError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.reply()))
    }
}

impl std::error::Error for SetError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(patterns: &[&str]) -> Vec<String> {
        let patterns: Vec<&[u8]> = patterns.iter().map(|pattern| pattern.as_bytes()).collect();
        Config::default().get(&patterns).into_iter().map(|(name, _)| name).collect()
    }

    fn value(config: &Config, name: &str) -> String {
        let found = config.get(&[name.as_bytes()]);
        assert_eq!(found.len(), 1, "{name}");
        String::from_utf8(found[0].1.clone()).unwrap()
    }

    fn set(config: &Config, pairs: &[(&str, &str)]) -> Result<Config, String> {
        let pairs: Vec<(&[u8], &[u8])> =
            pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        config.set(&pairs).map_err(|error| String::from_utf8(error.reply()).unwrap())
    }

    /// The error for these pairs, which must change nothing.
    fn refusal(pairs: &[(&str, &str)]) -> String {
        set(&Config::default(), pairs).expect_err("the values are refused")
    }

    /// The error for one option without what all such errors begin with.
    fn reason(name: &str, value: &str) -> String {
        let line = refusal(&[(name, value)]);
        let start = format!("ERR CONFIG SET failed (possibly related to argument '{name}') - ");
        line.strip_prefix(&start).unwrap_or_else(|| panic!("{line}")).to_owned()
    }

    #[test]
    fn get_finds_names_and_patterns_in_any_case_and_each_once() {
        assert_eq!(names(&["maxclients"]), ["maxclients"]);
        assert_eq!(names(&["MaxClients"]), ["MaxClients"], "a plain name comes back as it was spelled");
        assert_eq!(names(&["MAXCLIENT?"]), ["maxclients"]);
        assert_eq!(names(&["maxclients", "MAXCLIENTS", "maxc*"]), ["maxclients"]);
        assert_eq!(names(&["nope"]), [""; 0]);
        assert_eq!(names(&[]), [""; 0]);
        assert_eq!(names(&["timeout", "nope", "port"]), ["timeout", "port"]);
        assert_eq!(names(&["unixsocket*"]), ["unixsocket", "unixsocketperm"]);
        let mut all = names(&["*", "*a*"]);
        assert_eq!(all.len(), OPTIONS.len());
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), OPTIONS.len());
    }

    #[test]
    fn get_prints_values_as_redis_does() {
        let expected = [
            ("port", "6379"),
            ("bind", "127.0.0.1 -::1"),
            ("unixsocket", ""),
            ("unixsocketperm", "0"),
            ("timeout", "0"),
            ("tcp-keepalive", "300"),
            ("maxclients", "10000"),
            ("requirepass", ""),
            ("client-query-buffer-limit", "1073741824"),
            (
                "client-output-buffer-limit",
                "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
            ),
            ("proto-max-bulk-len", "536870912"),
            ("databases", "16"),
            ("appendonly", "yes"),
            ("appendfsync", "everysec"),
            ("appenddirname", "appendonlydir"),
            ("segment-size", "67108864"),
            ("auto-aof-rewrite-percentage", "100"),
            ("auto-aof-rewrite-min-size", "67108864"),
            ("save", ""),
            ("dbfilename", "dump.rdb"),
            ("rdbcompression", "yes"),
            ("rdbchecksum", "yes"),
            ("stop-writes-on-bgsave-error", "yes"),
            ("recover", "none"),
            ("cluster", "no"),
            ("join", ""),
            ("force-new-cluster", "no"),
            ("cluster-enabled", "no"),
            ("replication-factor", "3"),
            ("peer-port", "16379"),
            ("announce-host", ""),
            ("cluster-routing", "forward"),
            ("consistency", "linearizable"),
            ("session-wait", "1000"),
            ("raft-durability", "fsync"),
            ("read-mode", "lease"),
            ("election-timeout", "150"),
            ("hf", "100"),
            ("ttl", "1500"),
            ("max-clock-offset", "500"),
            ("replace-after", "300"),
            ("loglevel", "notice"),
            ("logfile", ""),
        ];
        for (name, text) in expected {
            assert_eq!(value(&Config::default(), name), text, "{name}");
        }
    }

    #[test]
    fn what_set_changes_get_shows() {
        let cases = [
            ("maxclients", "17", "17"),
            ("TIMEOUT", "5", "5"),
            ("tcp-keepalive", "0", "0"),
            ("requirepass", "secret", "secret"),
            ("requirepass", "", ""),
            ("client-query-buffer-limit", "2gb", "2147483648"),
            ("proto-max-bulk-len", "1MB", "1048576"),
            ("proto-max-bulk-len", "1048577b", "1048577"),
            ("proto-max-bulk-len", "9223372036854775807", "9223372036854775807"),
            ("loglevel", "WARNING", "warning"),
            ("loglevel", "nothing", "nothing"),
            ("loglevel", "info", "notice"),
            ("loglevel", "trace", "debug"),
            ("appendfsync", "ALWAYS", "always"),
            ("appendfsync", "no", "no"),
            ("auto-aof-rewrite-percentage", "0", "0"),
            ("auto-aof-rewrite-min-size", "0", "0"),
            ("auto-aof-rewrite-min-size", "1k", "1000"),
            ("rdbcompression", "NO", "no"),
            ("stop-writes-on-bgsave-error", "no", "no"),
            ("cluster-routing", "REDIRECT", "redirect"),
            ("consistency", "Session", "session"),
            ("session-wait", "0", "0"),
            ("replace-after", "60", "60"),
            ("save", "", ""),
            ("save", "3600 1 300 100 60 10000", "3600 1 300 100 60 10000"),
            (
                "client-output-buffer-limit",
                "SLAVE 1mb 2kb 3 pubsub 1 2 3 normal 9 9 9 normal 8 8 8",
                "normal 8 8 8 slave 1048576 2048 3 pubsub 1 2 3",
            ),
            (
                "client-output-buffer-limit",
                "replica 99999999999999999999 1k +9",
                "normal 0 0 0 slave 18446744073709551615 1000 9 pubsub 33554432 8388608 60",
            ),
            (
                "client-output-buffer-limit",
                "",
                "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
            ),
        ];
        for (name, text, shown) in cases {
            let changed = set(&Config::default(), &[(name, text)]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(value(&changed, name), shown, "{name} {text}");
        }
    }

    #[test]
    fn passwords_are_bytes() {
        let changed = Config::default().set(&[(b"requirepass", b"\xff\0")]).unwrap();
        assert_eq!(changed.get(&[b"requirepass"]), [("requirepass".to_owned(), b"\xff\0".to_vec())]);
    }

    #[test]
    fn set_takes_all_pairs_or_none() {
        let changed = set(&Config::default(), &[("timeout", "7"), ("maxclients", "8")]).unwrap();
        assert_eq!((changed.idle_timeout_seconds, changed.clients_max), (7, 8));
        assert_eq!(
            refusal(&[("timeout", "7"), ("maxclients", "abc")]),
            "ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument couldn't be parsed into an \
             integer"
        );
    }

    #[test]
    fn the_first_mistake_in_names_is_reported_before_any_in_values() {
        let unknown = "ERR Unknown option or number of arguments for CONFIG SET - 'nope'";
        let immutable =
            "ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config";
        assert_eq!(refusal(&[("nope", "1")]), unknown);
        assert_eq!(refusal(&[("timeout", "abc"), ("nope", "3")]), unknown);
        assert_eq!(refusal(&[("nope", "3"), ("databases", "4")]), unknown);
        assert_eq!(refusal(&[("databases", "4"), ("nope", "3")]), immutable);
        assert_eq!(refusal(&[("timeout", "1"), ("databases", "4"), ("timeout", "2")]), immutable);
        assert_eq!(
            refusal(&[("timeout", "1"), ("TIMEOUT", "4"), ("databases", "2")]),
            "ERR CONFIG SET failed (possibly related to argument 'TIMEOUT') - duplicate parameter"
        );
        assert_eq!(
            refusal(&[("DATABASES", "4")]),
            "ERR CONFIG SET failed (possibly related to argument 'DATABASES') - can't set immutable config"
        );
        assert_eq!(
            refusal(&[("TIMEOUT", "abc")]),
            "ERR CONFIG SET failed (possibly related to argument 'timeout') - argument couldn't be parsed into an \
             integer"
        );
        assert_eq!(
            refusal(&[("no\r\npe", "1")]),
            "ERR Unknown option or number of arguments for CONFIG SET - 'no  pe'"
        );
    }

    #[test]
    fn options_that_are_fixed_at_the_start_are_refused() {
        for option in OPTIONS {
            let expected = match option.change {
                Change::RunTime => continue,
                Change::Start | Change::OneStart | Change::Never => "can't set immutable config",
                Change::StartProtected => "can't set protected config",
            };
            assert_eq!(reason(option.name, ""), expected);
        }
        let fixed = [
            "cores",
            "cpus",
            "shards",
            "port",
            "bind",
            "unixsocket",
            "unixsocketperm",
            "databases",
            "appendonly",
            "appenddirname",
            "segment-size",
            "rdbchecksum",
            "recover",
            "cluster",
            "join",
            "force-new-cluster",
            "cluster-enabled",
            "replication-factor",
            "peer-port",
            "announce-host",
            "raft-durability",
            "read-mode",
            "election-timeout",
            "hf",
            "ttl",
            "logfile",
        ];
        for name in fixed {
            assert_eq!(reason(name, "1"), "can't set immutable config");
        }
        for name in ["dir", "dbfilename"] {
            assert_eq!(reason(name, "/"), "can't set protected config");
        }
    }

    #[test]
    fn bad_values_are_refused_in_the_words_of_redis() {
        const NOT_INTEGER: &str = "argument couldn't be parsed into an integer";
        const NOT_MEMORY: &str = "argument must be a memory value";
        const CLIENTS: &str = "argument must be between 1 and 4294967295 inclusive";
        const SECONDS: &str = "argument must be between 0 and 2147483647 inclusive";
        const BYTES: &str = "argument must be between 1048576 and 9223372036854775807 inclusive";
        const LEVELS: &str =
            "argument(s) must be one of the following: debug, verbose, notice, warning, nothing";
        const LIMIT_COUNT: &str = "Wrong number of arguments in buffer limit configuration.";
        const LIMIT_CLASS: &str = "Invalid client class specified in buffer limit configuration.";
        const LIMIT_VALUE: &str =
            "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
        const WHENS: &str = "argument(s) must be one of the following: everysec, always, no";
        let cases: [(&str, &[&str], &str); 19] = [
            (
                "maxclients",
                &["abc", "", " 1", "0100", "+100", "0x10", "1e2", "99999999999999999999"],
                NOT_INTEGER,
            ),
            ("maxclients", &["0", "-1", "4294967296"], CLIENTS),
            ("timeout", &["-1", "2147483648"], SECONDS),
            ("tcp-keepalive", &["-1", "2147483648"], SECONDS),
            ("proto-max-bulk-len", &["1x", "-1", "100%", "2mb2", " 2mb", "+2mb"], NOT_MEMORY),
            (
                "proto-max-bulk-len",
                &["", "1", "1048575", "1024k", "9223372036854775808", "9223372036gb"],
                BYTES,
            ),
            ("client-query-buffer-limit", &["foo"], NOT_MEMORY),
            ("client-query-buffer-limit", &["0", "1048575"], BYTES),
            ("loglevel", &["foo", "", "debug "], LEVELS),
            ("appendfsync", &["foo", "", "yes"], WHENS),
            ("rdbcompression", &["maybe", ""], "argument must be 'yes' or 'no'"),
            ("stop-writes-on-bgsave-error", &["1"], "argument must be 'yes' or 'no'"),
            ("auto-aof-rewrite-percentage", &["-1", "2147483648"], SECONDS),
            ("auto-aof-rewrite-percentage", &["50%"], NOT_INTEGER),
            ("auto-aof-rewrite-min-size", &["-1", "50%"], NOT_MEMORY),
            ("save", &["900", "x", "0 1", " 900 1"], "Invalid save parameters"),
            (
                "client-output-buffer-limit",
                &["normal", "normal 0 0", "normal 0  0 0", " normal 0 0 0 "],
                LIMIT_COUNT,
            ),
            ("client-output-buffer-limit", &["foo 0 0 0", "master 1 0 0", "\"normal\" 1 2 3"], LIMIT_CLASS),
            (
                "client-output-buffer-limit",
                &[
                    "normal x 0 0",
                    "normal 1 0 x",
                    "normal -1 0 0",
                    "normal 1 0 -1",
                    "replica 1% 0 0",
                    "normal 1 2 3x",
                    "replica 1 2 99999999999999999999",
                    "pubsub 1 1 1 normal x 0 0",
                ],
                LIMIT_VALUE,
            ),
        ];
        for (name, values, expected) in cases {
            for value in values {
                assert_eq!(reason(name, value), expected, "{name} '{value}'");
            }
        }
    }

    #[test]
    fn more_clients_than_descriptors_are_refused_with_the_most_there_can_be() {
        let config = Config { clients_max: 100, clients_ceiling: 200, ..Config::default() };
        assert_eq!(set(&config, &[("maxclients", "200")]).unwrap().clients_max, 200);
        assert_eq!(
            set(&config, &[("maxclients", "201")]).unwrap_err(),
            "ERR CONFIG SET failed (possibly related to argument 'maxclients') - The operating system is not able to \
             handle the specified number of clients, try with 200"
        );
    }
}
