//! The workloads, a row of the result each.

/// One workload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Rows that are run together under one name.
    pub(crate) group: &'static str,
    pub(crate) load: Load,
    /// Keys there are, all of which have a value before a round.
    pub(crate) keys: u64,
    pub(crate) value_len_bytes: u64,
    /// How many requests a round has, about three seconds of them at full speed.
    pub(crate) requests: u64,
}

/// Who makes the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// `redis-benchmark -t test`, 50 connections, with pipelines of this depth.
    RedisBenchmark { test: &'static str, pipeline: u32 },
    /// `duva-load --op operation` on one connection, one request at a time.
    Lone { operation: &'static str },
}

impl Row {
    /// The client's options, for `scale` times the usual number of requests.
    pub(crate) fn options(&self, scale: f64) -> String {
        let requests = ((self.requests as f64 * scale) as u64).max(100);
        let Self { keys, value_len_bytes, .. } = self;
        match self.load {
            Load::RedisBenchmark { test, pipeline } => {
                format!("-t {test} -c 50 -P {pipeline} -n {requests} -r {keys} -d {value_len_bytes}")
            }
            // Values that redis-benchmark has set are not of the form that duva-load sets.
            Load::Lone { operation } => format!(
                "--op {operation} --connections 1 --pipeline 1 --requests {requests} --keys {keys} \
                 --value-bytes {value_len_bytes} --any-value"
            ),
        }
    }
}

/// Every row; those that share a data set follow one another.
pub(crate) fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |name: String, group, load, keys, value_len_bytes, requests| {
        rows.push(Row { name, group, load, keys, value_len_bytes, requests });
    };
    for (pipeline, requests) in [(1, 450_000), (16, 2_500_000), (64, 5_000_000)] {
        for test in ["get", "set"] {
            let load = Load::RedisBenchmark { test, pipeline };
            add(format!("{test}-p{pipeline}"), "pipelines", load, 1_000_000, 64, requests);
        }
    }
    for operation in ["get", "set"] {
        add(format!("lone-{operation}"), "lone", Load::Lone { operation }, 1_000_000, 64, 100_000);
    }
    for (pipeline, requests) in [(1, 250_000), (16, 400_000)] {
        let load = Load::RedisBenchmark { test: "mset", pipeline };
        add(format!("mset-p{pipeline}"), "mset", load, 1_000_000, 64, requests);
    }
    // The keys of large values are fewer, so that every data set is about 100 MB.
    for (size, value_len_bytes, keys, requests) in
        [("1k", 1 << 10, 100_000, 400_000), ("16k", 16 << 10, 6_000, 150_000), ("1m", 1 << 20, 100, 4_000)]
    {
        for test in ["get", "set"] {
            let load = Load::RedisBenchmark { test, pipeline: 1 };
            add(format!("{test}-{size}"), "values", load, keys, value_len_bytes, requests);
        }
    }
    rows
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
    fn names_are_distinct() {
        let names: std::collections::BTreeSet<String> = all().into_iter().map(|row| row.name).collect();
        assert_eq!(names.len(), all().len());
    }

    #[test]
    fn options_say_what_the_row_is() {
        let row = &select(["set-p16"]).unwrap()[0];
        assert_eq!(row.options(0.1), "-t set -c 50 -P 16 -n 250000 -r 1000000 -d 64");
        assert!(select(["lone-get"]).unwrap()[0].options(1e-9).contains("--op get --connections 1 "));
    }
}
