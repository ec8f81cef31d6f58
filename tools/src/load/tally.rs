//! What the replies came to, and how it is told.

use std::fmt::Write as _;

use crate::{histogram::Histogram, reply::Verdict};

/// Counts of a run. Times are nanoseconds since its start.
pub(crate) struct Tally {
    latencies: Histogram,
    missing: u64,
    errors: u64,
    first_error: Option<String>,
    /// When the slowest reply arrived.
    slowest_at_ns: u64,
    last_at_ns: u64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            latencies: Histogram::new(),
            missing: 0,
            errors: 0,
            first_error: None,
            slowest_at_ns: 0,
            last_at_ns: 0,
        }
    }

    /// Counts a reply that arrived at `now_ns` to a request whose latency runs from `from_ns`.
    #[inline]
    pub(crate) fn count(&mut self, verdict: Verdict, from_ns: u64, now_ns: u64) {
        let latency_ns = now_ns.saturating_sub(from_ns);
        if latency_ns > self.latencies.max() {
            self.slowest_at_ns = now_ns;
        }
        self.latencies.record(latency_ns);
        self.last_at_ns = now_ns;
        match verdict {
            Verdict::Right => {}
            Verdict::Missing => self.missing += 1,
            Verdict::Wrong(text) => {
                self.errors += 1;
                self.first_error.get_or_insert(text);
            }
        }
    }

    pub(crate) fn replies(&self) -> u64 {
        self.latencies.count()
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors
    }

    fn seconds(&self) -> f64 {
        self.last_at_ns as f64 / 1e9
    }

    fn requests_per_second(&self) -> f64 {
        if self.last_at_ns == 0 { 0.0 } else { self.replies() as f64 / self.seconds() }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{} requests in {:.3} s: {:.0} a second, {} errors, {} keys missing\n",
            self.replies(),
            self.seconds(),
            self.requests_per_second(),
            self.errors,
            self.missing
        );
        let microseconds = |ns: u64| ns as f64 / 1e3;
        let latencies = &self.latencies;
        let _ = writeln!(
            text,
            "latency in microseconds: min {:.1}, mean {:.1}, p50 {:.1}, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, p99.99 {:.1}, \
             max {:.1} (after {:.3} s)",
            microseconds(latencies.min()),
            latencies.mean() / 1e3,
            microseconds(latencies.quantile(0.5)),
            microseconds(latencies.quantile(0.9)),
            microseconds(latencies.quantile(0.99)),
            microseconds(latencies.quantile(0.999)),
            microseconds(latencies.quantile(0.9999)),
            microseconds(latencies.max()),
            self.slowest_at_ns as f64 / 1e9,
        );
        if let Some(error) = &self.first_error {
            let _ = writeln!(text, "first error: {error}");
        }
        text
    }

    /// For programs: one object on one line.
    pub(crate) fn json(&self) -> String {
        let latencies = &self.latencies;
        let first_error = self.first_error.as_deref().map_or_else(|| "null".into(), json_string);
        format!(
            "{{\"requests\":{},\"errors\":{},\"missing\":{},\"seconds\":{:.9},\"requests_per_second\":{:.3},\
             \"latency_ns\":{{\"min\":{},\"mean\":{:.1},\"p50\":{},\"p90\":{},\"p99\":{},\"p99_9\":{},\"p99_99\":{},\
             \"max\":{},\"max_at_s\":{:.6}}},\"first_error\":{first_error}}}\n",
            self.replies(),
            self.errors,
            self.missing,
            self.seconds(),
            self.requests_per_second(),
            latencies.min(),
            latencies.mean(),
            latencies.quantile(0.5),
            latencies.quantile(0.9),
            latencies.quantile(0.99),
            latencies.quantile(0.999),
            latencies.quantile(0.9999),
            latencies.max(),
            self.slowest_at_ns as f64 / 1e9,
        )
    }
}

fn json_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\0'..='\x1f' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_reply_and_the_first_error_are_remembered() {
        let mut tally = Tally::new();
        tally.count(Verdict::Right, 1_000, 3_000);
        tally.count(Verdict::Wrong("ERR \"no\"\n".into()), 1_000, 9_000);
        tally.count(Verdict::Wrong("later".into()), 8_000, 9_500);
        tally.count(Verdict::Missing, 9_000, 10_000);
        assert_eq!((tally.replies(), tally.errors()), (4, 2));
        let json = tally.json();
        assert!(json.contains("\"missing\":1,"), "{json}");
        assert!(json.contains("\"max\":8000,\"max_at_s\":0.000009}"), "{json}");
        assert!(json.contains(r#""first_error":"ERR \"no\"\u000a"}"#), "{json}");
        assert!(tally.text().contains("first error: ERR \"no\""));
    }
}
