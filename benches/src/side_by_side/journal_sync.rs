//! Ways to write a block to a journal and make it durable, without any server: what the choice is worth.
//!
//! One block at a time, one after the other through a file that is as long as a segment. A round measures every way with
//! every length of a block; files are written anew before, untimed, but for the way that is about a file that is not.

mod strategy;

use std::time::{Duration, Instant};

use crate::{
    Settings,
    directory::Directory,
    failure::Result,
    process::Usage,
    report::{Report, Table},
    statistics::{Spread, short},
};
use strategy::{Log, STRATEGIES, Strategy};

const BLOCKS_LEN_BYTES: [usize; 3] = [512, 4 << 10, 32 << 10];

/// As a journal's segment.
const FILE_LEN_BYTES: u64 = 64 << 20;

/// How long one way is measured in a round, unless its file is full before.
const WINDOW: Duration = Duration::from_millis(500);

/// One round of one way with one length.
struct Round {
    syncs_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: f64,
    /// How long threads were ready and had no CPU: time that is not the disk's.
    delay_us: f64,
}

pub(crate) fn run(settings: &Settings, report: &mut Report) -> Result<()> {
    let directory = Directory::new(&settings.directory)?;
    let window = WINDOW.mul_f64(settings.scale);
    let mut rounds: Vec<Vec<Round>> =
        (0..BLOCKS_LEN_BYTES.len() * STRATEGIES.len()).map(|_| Vec::new()).collect();
    for number in 1..=settings.rounds {
        let pairs = BLOCKS_LEN_BYTES.iter().flat_map(|&len| STRATEGIES.iter().map(move |way| (len, way)));
        for ((len_bytes, strategy), rounds) in pairs.zip(&mut rounds) {
            let round = measure(&directory, *strategy, len_bytes, window)?;
            eprintln!(
                "journal-sync {number}/{} {} of {len_bytes}: {} syncs/s, p99 {:.0} us",
                settings.rounds,
                strategy.name(),
                short(round.syncs_per_second),
                round.p99_us
            );
            rounds.push(round);
        }
    }
    let mut table = Table::new(
        2,
        [
            "block, bytes",
            "way",
            "syncs/s",
            "p50 us",
            "p99 us",
            "CPU us/sync",
            "waited for a CPU, us/sync",
            "syncs/s over the first way's",
        ],
    );
    for (len_bytes, rounds) in BLOCKS_LEN_BYTES.iter().zip(rounds.chunks(STRATEGIES.len())) {
        let rates = |rounds: &[Round]| rounds.iter().map(|round| round.syncs_per_second).collect::<Vec<_>>();
        for (strategy, own) in STRATEGIES.iter().zip(rounds) {
            let figures: [fn(&Round) -> f64; 5] = [
                |round| round.syncs_per_second,
                |round| round.p50_us,
                |round| round.p99_us,
                |round| round.cpu_us,
                |round| round.delay_us,
            ];
            let cells = figures.map(|figure| Spread::of(own.iter().map(figure)).write(short));
            let ratio =
                Spread::of_ratios(&rates(own), &rates(&rounds[0])).write(|ratio| format!("{ratio:.2}"));
            let names = [len_bytes.to_string(), strategy.name().to_owned()];
            table.line([names.as_slice(), &cells, &[ratio]].concat());
        }
    }
    let remark = format!(
        "One block at a time in a file of {} MiB in {}; median (range) of {} alternating rounds of at most {:.1} s each. \
         O_DIRECT writes whole 4 KiB, so it pads a smaller block. CPU: of the process, the kernel's threads for its ring \
         included, on CPU {}.",
        FILE_LEN_BYTES >> 20,
        settings.directory.display(),
        settings.rounds,
        window.as_secs_f64(),
        settings.client_cpu
    );
    report.table("Syncing a journal", &remark, &table)
}

/// How long a small block takes in the way that Duva's journals are synced, at the median and in microseconds.
pub(crate) fn usual_p50_us(settings: &Settings) -> Result<f64> {
    let directory = Directory::new(&settings.directory)?;
    measure(&directory, Strategy::RingSync, BLOCKS_LEN_BYTES[0], WINDOW).map(|round| round.p50_us)
}

fn measure(directory: &Directory, strategy: Strategy, len_bytes: usize, window: Duration) -> Result<Round> {
    let mut log = Log::create(&directory.path().join("segment"), strategy, FILE_LEN_BYTES, len_bytes)?;
    // The creation's own traffic is over, the file is the only one.
    directory.sync()?;
    // The ring's threads and the file's first block are there.
    log.append()?;
    let mut latencies_us = Vec::new();
    let before = Usage::of(std::process::id())?;
    let start = Instant::now();
    let mut elapsed = Duration::ZERO;
    while elapsed < window && log.has_room() {
        log.append()?;
        let now = start.elapsed();
        latencies_us.push((now - elapsed).as_secs_f64() * 1e6);
        elapsed = now;
    }
    let usage = Usage::of(std::process::id())?.since(before);
    latencies_us.sort_by(f64::total_cmp);
    let count = latencies_us.len() as f64;
    Ok(Round {
        syncs_per_second: count / elapsed.as_secs_f64(),
        p50_us: quantile(&latencies_us, 0.5),
        p99_us: quantile(&latencies_us, 0.99),
        cpu_us: usage.cpu_ns as f64 / 1e3 / count,
        delay_us: usage.delay_ns as f64 / 1e3 / count,
    })
}

/// The smallest of `sorted` that so large a part does not exceed.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_ranks() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((quantile(&sorted, 0.5), quantile(&sorted, 0.99)), (100.0, 198.0));
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }
}
