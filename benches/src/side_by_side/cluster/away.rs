//! A follower that is killed, or stands still, while clients write: what is written a second without it, and which errors
//! clients see.
//!
//! The keys are those of slots that the other two nodes lead, and each connection sends to the leader of its keys, so that of
//! the node that goes away nothing is needed but its acknowledgements: what is led there is the failover's matter. All three nodes
//! share a CPU, and a killed one leaves its part of that to the others.

use std::sync::Arc;

use super::{Cluster, NODES};
use crate::{
    Settings,
    closed_loop::{ClosedLoop, Dialogue, Sets},
    failure::{Failure, Result},
    process,
    report::{Report, Table},
    statistics::{Spread, short},
};

/// Seconds until the load is in its stride, and then of each phase: with all nodes, without one, with all again.
const WARM_UP_S: usize = 2;
const PHASE_S: u64 = 10;

const CONNECTIONS: usize = 50;
const PIPELINES: [usize; 2] = [16, 1];
const VALUE_LEN_BYTES: usize = 64;

/// How many names are tried as keys; about two thirds of them are.
const NAMES: usize = 300_000;

/// How a node goes away.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Killed,
    Stopped,
}

/// One round: answers by second of each phase, with all nodes, without one and with it again, and errors.
struct Round {
    before: Vec<f64>,
    without: Vec<f64>,
    after: Vec<f64>,
    errors: [usize; 3],
    /// When the first and the last of them came, in seconds since the node went away.
    errors_s: Option<(f64, f64)>,
    first_error: Option<String>,
}

impl Round {
    /// Of the seconds of a phase, over those before: the mean, and the worst one.
    fn over_before(&self, phase: &[f64]) -> (f64, f64) {
        let before = mean(&self.before);
        let worst = phase.iter().copied().fold(f64::INFINITY, f64::min);
        (mean(phase) / before, worst / before)
    }
}

fn mean(figures: &[f64]) -> f64 {
    figures.iter().sum::<f64>() / figures.len() as f64
}

/// kill -9, and a start on the same directory later.
pub(super) fn killed(settings: &Settings, report: &mut Report, cluster: &mut Cluster<'_>) -> Result<()> {
    run(settings, report, cluster, How::Killed)
}

/// SIGSTOP, and SIGCONT later.
pub(super) fn stopped(settings: &Settings, report: &mut Report, cluster: &mut Cluster<'_>) -> Result<()> {
    run(settings, report, cluster, How::Stopped)
}

fn run(settings: &Settings, report: &mut Report, cluster: &mut Cluster<'_>, how: How) -> Result<()> {
    let phase_s = settings.scaled(PHASE_S).max(2) as usize;
    let name = if how == How::Killed { "killed" } else { "stopped" };
    let mut table = Table::new(
        1,
        [
            "SET, 50 connections",
            "requests/s before",
            "without it",
            "over before",
            "worst second over before",
            "with it again, over before",
            "worst second over before",
            "errors before",
            "without it",
            "with it again",
        ],
    );
    let mut first_error = None;
    for pipeline in PIPELINES {
        let mut rounds: Vec<Round> = Vec::new();
        for number in 1..=settings.rounds {
            let round = measure(cluster, how, pipeline, phase_s)?;
            let (without, worst) = round.over_before(&round.without);
            eprintln!(
                "follower-{name} P={pipeline} {number}/{}: {without:.2} of what it was before, {worst:.2} in the worst second, \
                 errors before, without and with it again: {:?}{}{}",
                settings.rounds,
                round.errors,
                round.errors_s.map_or_else(String::new, |(first, last)| {
                    format!(", from {first:.2} to {last:.2} s after it went")
                }),
                round.first_error.as_ref().map_or_else(String::new, |error| format!(", the first: {error}"))
            );
            first_error = first_error.or_else(|| round.first_error.clone());
            rounds.push(round);
        }
        let spread = |figure: &dyn Fn(&Round) -> f64| Spread::of(rounds.iter().map(figure));
        let ratio = |figure: &dyn Fn(&Round) -> f64| spread(figure).write(|ratio| format!("{ratio:.2}"));
        let errors = |phase: usize| rounds.iter().map(|round| round.errors[phase]).sum::<usize>().to_string();
        table.line([
            format!("P={pipeline}"),
            spread(&|round| mean(&round.before)).write(short),
            spread(&|round| mean(&round.without)).write(short),
            ratio(&|round| round.over_before(&round.without).0),
            ratio(&|round| round.over_before(&round.without).1),
            ratio(&|round| round.over_before(&round.after).0),
            ratio(&|round| round.over_before(&round.after).1),
            errors(0),
            errors(1),
            errors(2),
        ]);
    }
    let (title, way) = match how {
        How::Killed => ("A follower is killed", "killed (`kill -9`), and started again"),
        How::Stopped => ("A follower stands still", "stopped (SIGSTOP), and goes on (SIGCONT)"),
    };
    let remark = format!(
        "Median (range) of {} rounds. {phase_s} s with three nodes, then one of them is {way} after {phase_s} s; what follows \
         is {phase_s} s from then on. Values of {VALUE_LEN_BYTES} bytes; the keys are led by the other two nodes, \
         and the clients talk to these. A worst second is the worst one of its round. All nodes share CPU {}: one that is away leaves \
         its part of the CPU to the others. Errors are those of all rounds{}.",
        settings.rounds,
        settings.server_cpu,
        first_error.map_or_else(String::new, |error| format!(", the first one `{error}`"))
    );
    report.table(title, &remark, &table)
}

fn measure(cluster: &mut Cluster<'_>, how: How, pipeline: usize, phase_s: usize) -> Result<Round> {
    // Others ask the first node how the cluster is.
    let away = NODES - 1;
    let led = keys_by_leader(cluster, away)?;
    let dialogue = |number: usize| {
        let (port, keys) = &led[number % led.len()];
        let sets = Sets::new(Arc::clone(keys), VALUE_LEN_BYTES, number as u64);
        (*port, Box::new(sets) as Box<dyn Dialogue>)
    };
    let running = ClosedLoop::begin((0..CONNECTIONS).map(dialogue).collect(), pipeline)?;
    let (lost, back) = (WARM_UP_S + phase_s, WARM_UP_S + 2 * phase_s);
    running.pass_until(lost);
    match how {
        How::Killed => cluster.kill(away),
        How::Stopped => cluster.node(away).pause()?,
    }
    running.pass_until(back);
    match how {
        How::Killed => cluster.start_again(away)?,
        How::Stopped => cluster.node(away).resume()?,
    }
    running.pass_until(back + phase_s);
    // A moment more, so that the last second is whole.
    process::pass(super::LOOK * 5);
    let tally = running.finish()?;
    let phase = |first: usize| {
        let seconds = tally.seconds(first, phase_s)?;
        Ok::<Vec<f64>, Failure>(seconds.iter().map(|&count| count as f64).collect())
    };
    let (before, without, after) = (phase(WARM_UP_S)?, phase(lost)?, phase(back)?);
    let errors = [(0, lost), (lost, back), (back, usize::MAX)].map(|(from, until)| {
        tally.errors_at.iter().filter(|&&at| (from..until).contains(&(at as usize))).count()
    });
    let since_lost = |at: &f64| at - lost as f64;
    let errors_s = tally.errors_at.first().zip(tally.errors_at.last());
    let errors_s = errors_s.map(|(first, last)| (since_lost(first), since_lost(last)));
    if mean(&before) == 0.0 {
        return Err(Failure::new("nothing was written while all nodes were there"));
    }
    cluster.wait_until_whole()?;
    Ok(Round { before, without, after, errors, errors_s, first_error: tally.first_error })
}

/// Ports of the other nodes, each with keys that it leads.
fn keys_by_leader(cluster: &Cluster<'_>, away: usize) -> Result<Vec<(u16, Arc<[String]>)>> {
    let shards = cluster.shards(cluster.node(0))?;
    let mut led = Vec::new();
    for (_, &(port, _)) in cluster.ports.iter().enumerate().filter(|&(node, _)| node != away) {
        let is_led = |key: &String| {
            let slot = u64::from(slot_of(key.as_bytes()));
            shards.iter().any(|shard| shard.leader_port == port && shard.has(slot))
        };
        let keys: Vec<String> = (0..NAMES).map(|number| format!("key:{number:012}")).filter(is_led).collect();
        if keys.is_empty() {
            return Err(Failure::new(format!("the node at port {port} leads no key")));
        }
        led.push((port, keys.into()));
    }
    Ok(led)
}

/// The slot of a key without a hash tag: CRC16 (XMODEM) of it.
fn slot_of(key: &[u8]) -> u16 {
    let crc = key.iter().fold(0_u16, |crc, &byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(slot_of(b"123456789"), 0x31c3);
        assert_eq!(slot_of(b"foo"), 12_182);
    }

    #[test]
    fn phases_are_compared_with_what_was_before() {
        let (without, after, first_error) = (vec![50.0, 70.0], vec![100.0], None);
        let round =
            Round { before: vec![80.0, 120.0], without, after, errors: [0; 3], errors_s: None, first_error };
        assert_eq!(round.over_before(&round.without), (0.6, 0.5));
        assert_eq!(round.over_before(&round.after), (1.0, 1.0));
    }
}
