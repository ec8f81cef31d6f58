//! INFO's persistence section: Redis's fields in Redis's order, then the journal's own.
//!
//! Where Redis tells how much memory copy-on-write took, this tells how much a snapshot took: there is no fork.

use super::line;
use crate::{
    config::Config,
    core::{
        persistence_report::PersistenceReport,
        save_status::{Activity, SaveStatus},
    },
};

/// Writes the section. The journal's fields are there only if there is a journal, as in Redis.
pub(super) fn write(
    config: &Config,
    status: &SaveStatus,
    report: &PersistenceReport,
    now_ms: u64,
    text: &mut String,
) {
    let SaveStatus { save, rewrite, .. } = status;
    let is_rewrite_scheduled = u8::from(rewrite.is_scheduled());
    lines!(text,
        // Clients are served only once everything is loaded.
        "loading" => 0,
        "async_loading" => 0,
        "current_cow_peak" => report.snapshot_bytes_peak,
        "current_cow_size" => report.snapshot_bytes,
        "current_cow_size_age" => 0,
        "current_fork_perc" => format_args!("{:.2}", percentage(report)),
        "current_save_keys_processed" => report.snapshot_keys_done,
        "current_save_keys_total" => report.snapshot_keys_total,
        "rdb_changes_since_last_save" => status.changes_unsaved(report.changes),
        "rdb_bgsave_in_progress" => u8::from(save.is_under_way()),
        "rdb_last_save_time" => status.last_save_seconds(),
        "rdb_last_bgsave_status" => ok_or_err(save.is_last_ok()),
        "rdb_last_bgsave_time_sec" => last_seconds(save),
        "rdb_current_bgsave_time_sec" => current_seconds(save, now_ms),
        "rdb_saves" => save.count(),
        "rdb_last_cow_size" => save.last_bytes_peak(),
        "rdb_last_load_keys_expired" => status.keys_expired,
        "rdb_last_load_keys_loaded" => status.keys_loaded,
        "aof_enabled" => u8::from(config.append_only),
        "aof_rewrite_in_progress" => u8::from(rewrite.is_under_way()),
        "aof_rewrite_scheduled" => is_rewrite_scheduled,
        "aof_last_rewrite_time_sec" => last_seconds(rewrite),
        "aof_current_rewrite_time_sec" => current_seconds(rewrite, now_ms),
        "aof_last_bgrewrite_status" => ok_or_err(rewrite.is_last_ok()),
        "aof_rewrites" => rewrite.count(),
        "aof_rewrites_consecutive_failures" => rewrite.failures(),
        "aof_last_write_status" => ok_or_err(!report.has_write_failed && !report.is_poisoned),
        "aof_last_cow_size" => rewrite.last_bytes_peak(),
        "module_fork_in_progress" => 0,
        "module_fork_last_cow_size" => 0,
    );
    if config.append_only {
        lines!(text,
            "aof_current_size" => report.journal_bytes + report.snapshot_file_bytes,
            "aof_base_size" => report.journal_base_bytes,
            "aof_pending_rewrite" => is_rewrite_scheduled,
            "aof_buffer_length" => report.buffer_bytes,
            "aof_pending_bio_fsync" => report.syncs_under_way,
            "aof_delayed_fsync" => report.syncs_delayed,
            "journal_segments" => report.segments,
            "journal_spare_segments" => report.spare_segments,
            "journal_bytes" => report.journal_bytes,
            "journal_poisoned" => u8::from(report.is_poisoned),
            "journal_fsyncs" => report.sync_times.count(),
            "journal_fsync_p50_us" => report.sync_times.quantile_us(0.5),
            "journal_fsync_p99_us" => report.sync_times.quantile_us(0.99),
            "journal_fsync_max_us" => report.sync_times.max_us(),
            "journal_fsync_histogram_us" => histogram(report),
        );
    }
}

/// How much of the snapshot under way is done, in percent; 0 when none is.
fn percentage(report: &PersistenceReport) -> f64 {
    match report.snapshot_keys_total {
        0 => 0.0,
        total => report.snapshot_keys_done as f64 / total as f64 * 100.0,
    }
}

fn ok_or_err(is_ok: bool) -> &'static str {
    if is_ok { "ok" } else { "err" }
}

fn last_seconds(activity: &Activity) -> i64 {
    seconds_or_none(activity.last_seconds())
}

fn current_seconds(activity: &Activity, now_ms: u64) -> i64 {
    seconds_or_none(activity.seconds(now_ms))
}

/// Seconds as Redis shows them: none is -1.
fn seconds_or_none(seconds: Option<u64>) -> i64 {
    seconds.map_or(-1, |seconds| i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// How many times were shorter than a power of two, for the powers that matter: `256=7,512=9`.
fn histogram(report: &PersistenceReport) -> String {
    let counts = report.sync_times.shorter_than();
    let words: Vec<String> = counts.iter().map(|(micros, count)| format!("{micros}={count}")).collect();
    words.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::save_status::Outcome;

    const START_MS: u64 = 1_795_492_495_000;

    fn section(config: &Config, status: &SaveStatus, report: &PersistenceReport, now_ms: u64) -> String {
        let mut text = String::new();
        write(config, status, report, now_ms, &mut text);
        text
    }

    #[track_caller]
    fn shows(text: &str, fields: &[(&str, &str)]) {
        for (name, value) in fields {
            let expected = format!("\r\n{name}:{value}\r\n");
            assert!(format!("\r\n{text}").contains(&expected), "{name}:{value} in\n{text}");
        }
    }

    #[test]
    fn a_new_server_shows_what_a_new_redis_shows() {
        let config = Config { append_only: false, ..Config::default() };
        let text = section(&config, &SaveStatus::new(START_MS), &PersistenceReport::default(), START_MS);
        // As redis-server 7.0.15 prints it.
        let expected = "loading:0 async_loading:0 current_cow_peak:0 current_cow_size:0 current_cow_size_age:0 \
             current_fork_perc:0.00 current_save_keys_processed:0 current_save_keys_total:0 \
             rdb_changes_since_last_save:0 rdb_bgsave_in_progress:0 rdb_last_save_time:1795492495 \
             rdb_last_bgsave_status:ok rdb_last_bgsave_time_sec:-1 rdb_current_bgsave_time_sec:-1 rdb_saves:0 \
             rdb_last_cow_size:0 rdb_last_load_keys_expired:0 rdb_last_load_keys_loaded:0 aof_enabled:0 \
             aof_rewrite_in_progress:0 aof_rewrite_scheduled:0 aof_last_rewrite_time_sec:-1 \
             aof_current_rewrite_time_sec:-1 aof_last_bgrewrite_status:ok aof_rewrites:0 \
             aof_rewrites_consecutive_failures:0 aof_last_write_status:ok aof_last_cow_size:0 \
             module_fork_in_progress:0 module_fork_last_cow_size:0";
        assert_eq!(text.split_terminator("\r\n").collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn with_a_journal_its_fields_follow() {
        let mut report = PersistenceReport {
            segments: 3,
            spare_segments: 1,
            journal_bytes: 1000,
            journal_base_bytes: 400,
            buffer_bytes: 50,
            syncs_under_way: 2,
            syncs_delayed: 4,
            ..PersistenceReport::default()
        };
        [100, 100, 300].into_iter().for_each(|micros| report.sync_times.record(micros));
        let text = section(&Config::default(), &SaveStatus::new(START_MS), &report, START_MS);
        let after =
            text.split_once("module_fork_last_cow_size:0\r\n").expect("the last field of all servers").1;
        let expected = "aof_current_size:1000 aof_base_size:400 aof_pending_rewrite:0 aof_buffer_length:50 \
             aof_pending_bio_fsync:2 aof_delayed_fsync:4 journal_segments:3 journal_spare_segments:1 \
             journal_bytes:1000 journal_poisoned:0 journal_fsyncs:3 journal_fsync_p50_us:100 \
             journal_fsync_p99_us:301 journal_fsync_max_us:301 journal_fsync_histogram_us:128=2,512=3";
        assert_eq!(after.split_terminator("\r\n").collect::<Vec<_>>().join(" "), expected);
        shows(&text, &[("aof_enabled", "1")]);
    }

    #[test]
    fn a_save_and_a_rewrite_under_way_show() {
        let mut status = SaveStatus::new(START_MS);
        status.save_started(5, START_MS);
        status.rewrite_started(START_MS + 1000);
        status.rewrite.schedule();
        let report = PersistenceReport {
            changes: 9,
            snapshot_keys_done: 1,
            snapshot_keys_total: 3,
            snapshot_bytes: 10,
            snapshot_bytes_peak: 20,
            ..PersistenceReport::default()
        };
        let text = section(&Config::default(), &status, &report, START_MS + 7500);
        shows(
            &text,
            &[
                ("current_cow_peak", "20"),
                ("current_cow_size", "10"),
                ("current_fork_perc", "33.33"),
                ("current_save_keys_processed", "1"),
                ("current_save_keys_total", "3"),
                ("rdb_changes_since_last_save", "9"),
                ("rdb_bgsave_in_progress", "1"),
                ("rdb_current_bgsave_time_sec", "7"),
                ("rdb_saves", "1"),
                ("aof_rewrite_in_progress", "1"),
                ("aof_rewrite_scheduled", "1"),
                ("aof_pending_rewrite", "1"),
                ("aof_current_rewrite_time_sec", "6"),
                ("aof_rewrites", "1"),
            ],
        );
    }

    #[test]
    fn what_ended_well_and_what_failed_shows() {
        let mut status = SaveStatus::new(START_MS);
        status.loaded(100, 7);
        status.save_started(5, START_MS);
        status.save_finished(Outcome::Done, 77, START_MS + 2000);
        status.rewrite_started(START_MS);
        status.rewrite_finished(false, 88, START_MS + 3000);
        let report = PersistenceReport { changes: 9, has_write_failed: true, ..PersistenceReport::default() };
        let text = section(&Config::default(), &status, &report, START_MS + 7500);
        shows(
            &text,
            &[
                ("rdb_changes_since_last_save", "4"),
                ("rdb_last_save_time", "1795492497"),
                ("rdb_last_bgsave_status", "ok"),
                ("rdb_last_bgsave_time_sec", "2"),
                ("rdb_current_bgsave_time_sec", "-1"),
                ("rdb_last_cow_size", "77"),
                ("rdb_last_load_keys_expired", "7"),
                ("rdb_last_load_keys_loaded", "100"),
                ("aof_last_rewrite_time_sec", "3"),
                ("aof_last_bgrewrite_status", "err"),
                ("aof_rewrites_consecutive_failures", "1"),
                ("aof_last_write_status", "err"),
                ("aof_last_cow_size", "88"),
                ("journal_poisoned", "0"),
            ],
        );
        let report = PersistenceReport { is_poisoned: true, ..PersistenceReport::default() };
        let text = section(&Config::default(), &status, &report, START_MS);
        shows(&text, &[("aof_last_write_status", "err"), ("journal_poisoned", "1")]);
    }
}
