//! The workloads, a row of the result each.

use std::fmt;

use crate::server::Persistence;

/// One workload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Rows that are run together under one name.
    pub(crate) group: &'static str,
    pub(crate) field: Field,
    pub(crate) load: Load,
    /// Keys there are, all of which have a value before a round.
    pub(crate) keys: u64,
    pub(crate) value_len_bytes: u64,
    /// How many requests a round has, about three seconds of them at full speed.
    pub(crate) requests: u64,
}

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// All servers, keeping their data in this way.
    All(Persistence),
    /// The first server keeping its data in this way, and the same server without persistence.
    CostOf(Persistence),
}

impl Field {
    /// Whether syncs are part of what is measured.
    pub(crate) fn needs_disk(self) -> bool {
        self != Self::All(Persistence::None)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::All(Persistence::None) => "without persistence",
            Self::All(Persistence::EverySecond) => "appendfsync everysec",
            Self::All(Persistence::Always) => "appendfsync always",
            Self::CostOf(Persistence::None) => "without persistence, twice",
            Self::CostOf(Persistence::EverySecond) => "everysec over appendonly no",
            Self::CostOf(Persistence::Always) => "always over appendonly no",
        })
    }
}

/// Who makes the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// `redis-benchmark -t test` with pipelines of this depth.
    RedisBenchmark { test: &'static str, pipeline: u32, connections: u32 },
    /// `duva-load --op operation` on so many connections, each with one request at a time.
    Steady { operation: &'static str, connections: u32 },
    /// `duva-load --op get` at a fixed rate, alone and beside as many SETs as 50 connections can make; the requests are
    /// those of the GETs.
    GetBesideSet,
}

/// GETs a second beside SETs: few enough that a server that is not stalled has them answered at once.
const BESIDE_RATE: u64 = 5_000;

impl Row {
    /// The client's options, for `scale` times the usual number of requests.
    pub(crate) fn options(&self, scale: f64) -> String {
        let requests = ((self.requests as f64 * scale) as u64).max(100);
        let Self { keys, value_len_bytes, .. } = self;
        match self.load {
            Load::RedisBenchmark { test, pipeline, connections } => {
                format!(
                    "-t {test} -c {connections} -P {pipeline} -n {requests} -r {keys} -d {value_len_bytes}"
                )
            }
            // Values that redis-benchmark has set are not of the form that duva-load sets.
            Load::Steady { operation, connections } => format!(
                "--op {operation} --connections {connections} --pipeline 1 --requests {requests} --keys {keys} \
                 --value-bytes {value_len_bytes} --any-value"
            ),
            Load::GetBesideSet => format!(
                "--op get --connections 10 --pipeline 1 --rate {BESIDE_RATE} --requests {requests} --keys {keys} \
                 --value-bytes {value_len_bytes}"
            ),
        }
    }
}

/// Every row; those that share a data set follow one another.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: String, group, load, keys, value_len_bytes, requests| {
        let field = Field::All(Persistence::None);
        rows.push(Row { name, group, field, load, keys, value_len_bytes, requests });
    };
    let benchmark = |test, pipeline| Load::RedisBenchmark { test, pipeline, connections: 50 };
    for (pipeline, requests) in [(1, 450_000), (16, 2_500_000), (64, 5_000_000)] {
        for test in ["get", "set"] {
            add(
                format!("{test}-p{pipeline}"),
                "pipelines",
                benchmark(test, pipeline),
                1_000_000,
                64,
                requests,
            );
        }
    }
    for (name, connections, requests) in [("lone", 1, 100_000), ("light", 50, 600_000)] {
        for operation in ["get", "set"] {
            let load = Load::Steady { operation, connections };
            add(format!("{name}-{operation}"), name, load, 1_000_000, 64, requests);
        }
    }
    for (pipeline, requests) in [(1, 250_000), (16, 400_000)] {
        add(format!("mset-p{pipeline}"), "mset", benchmark("mset", pipeline), 1_000_000, 64, requests);
    }
    // The keys of large values are fewer, so that every data set is about 100 MB.
    for (size, value_len_bytes, keys, requests) in
        [("1k", 1 << 10, 100_000, 400_000), ("16k", 16 << 10, 6_000, 150_000), ("1m", 1 << 20, 100, 4_000)]
    {
        for test in ["get", "set"] {
            add(format!("{test}-{size}"), "values", benchmark(test, 1), keys, value_len_bytes, requests);
        }
    }
    rows.extend(durable());
    rows
}

/// The rows in which data is kept on disk; those of one field follow one another.
fn durable() -> impl Iterator<Item = Row> {
    let set = |pipeline, connections| Load::RedisBenchmark { test: "set", pipeline, connections };
    let light = |connections| Load::Steady { operation: "set", connections };
    let always = Field::All(Persistence::Always);
    [
        ("set-always-c50", always, set(1, 50), 60_000),
        ("set-always-c500", always, set(1, 500), 200_000),
        ("light-set-always-c50", always, light(50), 120_000),
        ("light-set-always-c500", always, light(500), 300_000),
        ("get-beside-set-always", always, Load::GetBesideSet, 3 * BESIDE_RATE),
        ("set-everysec-p16", Field::All(Persistence::EverySecond), set(16, 50), 2_500_000),
        ("set-appendonly-cost-p16", Field::CostOf(Persistence::EverySecond), set(16, 50), 2_500_000),
    ]
    .into_iter()
    .map(|(name, field, load, requests)| Row {
        name: name.into(),
        group: "persistence",
        field,
        load,
        keys: 1_000_000,
        value_len_bytes: 64,
        requests,
    })
}

/// The names of the rows, by group, for people.
pub(crate) fn names() -> String {
    let mut text = String::from("\nROWS (by group):\n");
    for rows in all().chunk_by(|one, next| one.group == next.group) {
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        text.push_str(&format!("    {:11} {}\n", rows[0].group, names.join(" ")));
    }
    text
}

/// The rows that `names` (of rows or groups, or `all`) stand for, in the order of [`all`]; or the name that stands for
/// none.
pub(crate) fn select<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Row>, &'a str> {
    let rows = all();
    let mut selected = vec![false; rows.len()];
    for name in names {
        let mut is_known = false;
        for (row, selected) in rows.iter().zip(&mut selected) {
            if name == "all" || name == row.name || name == row.group {
                (*selected, is_known) = (true, true);
            }
        }
        if !is_known {
            return Err(name);
        }
    }
    Ok(rows.into_iter().zip(selected).filter_map(|(row, selected)| selected.then_some(row)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(selected: &[&'static str]) -> Result<Vec<String>, &'static str> {
        Ok(select(selected.iter().copied())?.into_iter().map(|row| row.name).collect())
    }

    #[test]
    fn rows_are_found_by_name_and_by_group() {
        assert_eq!(
            names(&["mset-p16", "lone", "get-p1"]).unwrap(),
            ["get-p1", "lone-get", "lone-set", "mset-p16"]
        );
        assert_eq!(names(&["all"]).unwrap().len(), all().len());
        assert_eq!(names(&["get-p1", "get-p2"]), Err("get-p2"));
    }

    #[test]
    fn every_row_is_named_once_in_the_help_text() {
        let text = super::names();
        let words: Vec<&str> = text.split_whitespace().collect();
        for row in all() {
            assert_eq!(words.iter().filter(|&&word| word == row.name).count(), 1, "{} in {text}", row.name);
        }
    }

    #[test]
    fn names_are_distinct() {
        let names: std::collections::BTreeSet<String> = all().into_iter().map(|row| row.name).collect();
        assert_eq!(names.len(), all().len());
    }

    #[test]
    fn options_say_what_the_row_is() {
        let row = &select(["set-p16"]).unwrap()[0];
        assert_eq!(row.options(0.1), "-t set -c 50 -P 16 -n 250000 -r 1000000 -d 64");
        let always = &select(["set-always-c500"]).unwrap()[0];
        assert_eq!(always.options(0.1), "-t set -c 500 -P 1 -n 20000 -r 1000000 -d 64");
        assert!(always.field.needs_disk() && !row.field.needs_disk());
        assert!(select(["lone-get"]).unwrap()[0].options(1e-9).contains("--op get --connections 1 "));
    }
}
