//! Counts and times of each command: INFO commandstats.
//!
//! A request costs two increments of numbers of its own core: one where its connection is, one where it is executed. No
//! clock is read for it: only some executions of each command are timed, the first ones all, later one in about 64, and
//! each stands for those before it. So the time of a command that is executed often is an estimate. What takes several
//! turns, and can afford a clock, is timed as it is.
//!
//! Time is that of the handlers on all cores: routing, locks, the mesh and the journal are not in it.

use std::{ops::RangeInclusive, time::Instant};

use duva_engine::command::{Command, transaction::NUMBER_COUNT};

/// What one core's connections asked for, by command.
#[derive(Clone, Debug)]
pub struct CommandCounts(Box<[Count; NUMBER_COUNT]>);

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Requests, those that were rejected included.
    handled: u64,
    /// Requests that were not executed: the wrong number of arguments, no password yet, writes refused.
    rejected: u64,
    /// Requests that were executed and answered with an error.
    failed: u64,
}

impl Default for CommandCounts {
    fn default() -> Self {
        Self(Box::new([Count::default(); NUMBER_COUNT]))
    }
}

impl CommandCounts {
    /// Counts a request.
    #[inline]
    pub fn handle(&mut self, command: &Command) {
        let count = self.of(command);
        count.handled = count.handled.wrapping_add(1);
    }

    /// A request that is counted now is to count only once it is finished: what it tells of is without it, and what it sets
    /// back is followed by it.
    pub fn handle_later(&mut self, command: &Command) {
        let count = self.of(command);
        count.handled = count.handled.wrapping_sub(1);
    }

    /// A request of `command` was answered with this error.
    #[cold]
    pub fn fail(&mut self, command: &Command, error: &[u8]) {
        let count = self.of(command);
        // The journal refuses writes before they are executed.
        if error.starts_with(b"-MISCONF ") {
            count.rejected += 1;
        } else {
            count.failed += 1;
        }
    }

    /// A request of `command` was not executed.
    #[cold]
    pub fn reject(&mut self, command: &Command) {
        self.of(command).rejected += 1;
    }

    #[inline]
    fn of(&mut self, command: &Command) -> &mut Count {
        &mut self.0[usize::from(command.number)]
    }
}

/// How long one core's executions take, by command.
#[derive(Clone, Debug)]
pub struct ExecutionTimes {
    rows: Box<[Times; NUMBER_COUNT]>,
    /// Where the next stride comes from.
    random: u32,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    /// Executions up to the next one that is timed, that included.
    left: u32,
    /// What `left` began with.
    stride: u32,
    /// Executions up to the last one that was timed, that included.
    executions: u64,
    /// How long those took, about.
    executions_ns: u64,
    /// What was timed besides.
    steps_ns: u64,
}

/// A timed execution.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    began: Instant,
    /// The executions that it stands for.
    weight: u32,
}

/// The longest ways from one timed execution to the next: one of them is drawn each time.
const STRIDES: RangeInclusive<u32> = 32..=96;

/// A stride is at most this part of all executions so far.
const STRIDE_PART: u64 = 8;

impl Default for ExecutionTimes {
    fn default() -> Self {
        let times = Times { left: 1, stride: 1, executions: 0, executions_ns: 0, steps_ns: 0 };
        Self { rows: Box::new([times; NUMBER_COUNT]), random: 1 }
    }
}

impl ExecutionTimes {
    /// Begins an execution; what it returns, [`end`](Self::end) takes.
    #[inline]
    pub fn begin(&mut self, command: &Command) -> Option<Timing> {
        let times = self.of(command);
        times.left -= 1;
        if times.left == 0 { Some(self.begin_timed(command)) } else { None }
    }

    /// Ends an execution.
    #[inline]
    pub fn end(&mut self, command: &Command, timing: Option<Timing>) {
        if let Some(timing) = timing {
            self.end_timed(command, timing);
        }
    }

    /// Adds a step of a command that was executed before, or besides.
    pub fn add_step(&mut self, command: &Command, began: Instant) {
        self.of(command).steps_ns += elapsed_ns(began);
    }

    #[cold]
    fn begin_timed(&mut self, command: &Command) -> Timing {
        // Strides differ, so that they stay in step with no client's pipeline (the generator of Numerical Recipes).
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let stride_max = STRIDES.start() + (self.random >> 16) % (STRIDES.end() - STRIDES.start() + 1);
        let times = self.of(command);
        let weight = times.stride;
        times.executions += u64::from(weight);
        let stride = (times.executions / STRIDE_PART).clamp(1, stride_max.into()) as u32;
        (times.left, times.stride) = (stride, stride);
        Timing { began: Instant::now(), weight }
    }

    #[cold]
    fn end_timed(&mut self, command: &Command, Timing { began, weight }: Timing) {
        let times = self.of(command);
        let weighted_ns = elapsed_ns(began).saturating_mul(weight.into());
        times.executions_ns = times.executions_ns.saturating_add(weighted_ns);
    }

    #[inline]
    fn of(&mut self, command: &Command) -> &mut Times {
        &mut self.rows[usize::from(command.number)]
    }
}

impl Times {
    /// How many executions there were.
    fn executions(&self) -> u64 {
        // Before the first one nothing has come since.
        self.executions + u64::from(self.stride - self.left)
    }

    /// How long all executions took, about.
    fn total_ns(&self) -> u64 {
        let scaled = u128::from(self.executions_ns) * u128::from(self.executions())
            / u128::from(self.executions.max(1));
        u64::try_from(scaled).unwrap_or(u64::MAX).saturating_add(self.steps_ns)
    }
}

fn elapsed_ns(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// What one core reports of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandReport {
    /// Requests that were executed.
    pub calls: u64,
    /// Requests that were not.
    pub rejected: u64,
    /// Of those that were executed, those that were answered with an error.
    pub failed: u64,
    /// How long executing took, about, in nanoseconds.
    pub total_ns: u64,
}

impl CommandReport {
    /// Adds what another core reports.
    pub fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.rejected += other.rejected;
        self.failed += other.failed;
        self.total_ns = self.total_ns.saturating_add(other.total_ns);
    }

    /// Whether there is anything to tell.
    pub fn is_empty(&self) -> bool {
        (self.calls, self.rejected, self.failed) == (0, 0, 0)
    }
}

/// What a core reports of every command, by the commands' numbers.
pub fn command_reports(counts: &CommandCounts, times: &ExecutionTimes) -> Vec<CommandReport> {
    let rows = counts.0.iter().zip(&*times.rows);
    let reports = rows.map(|(count, times)| CommandReport {
        calls: count.handled.wrapping_sub(count.rejected),
        rejected: count.rejected,
        failed: count.failed,
        total_ns: times.total_ns(),
    });
    reports.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use duva_engine::command::{all, lookup};

    use super::*;

    fn report(counts: &CommandCounts, times: &ExecutionTimes, command: &Command) -> CommandReport {
        command_reports(counts, times)[usize::from(command.number)]
    }

    #[test]
    fn what_was_rejected_was_not_called() {
        let mut counts = CommandCounts::default();
        let get = lookup(b"get").expect("a command");
        (0..5).for_each(|_| counts.handle(get));
        counts.reject(get);
        counts.fail(get, b"-ERR no\r\n");
        counts.fail(get, b"-MISCONF no\r\n");
        let report = report(&counts, &ExecutionTimes::default(), get);
        assert_eq!(report, CommandReport { calls: 3, rejected: 2, failed: 1, total_ns: 0 });
        let others = command_reports(&counts, &ExecutionTimes::default());
        assert_eq!(others.iter().filter(|report| !report.is_empty()).count(), 1);
    }

    #[test]
    fn a_request_may_count_once_it_is_finished() {
        let mut counts = CommandCounts::default();
        let command = &all()[0];
        counts.handle_later(command);
        counts.handle(command);
        assert!(report(&counts, &ExecutionTimes::default(), command).is_empty());
        counts.handle(command);
        assert_eq!(report(&counts, &ExecutionTimes::default(), command).calls, 1);
    }

    #[test]
    fn executions_are_counted_and_some_of_them_timed() {
        const COUNT: u64 = 100_000;
        let mut times = ExecutionTimes::default();
        let command = &all()[3];
        let mut timed = 0;
        for execution in 1..=COUNT {
            let timing = times.begin(command);
            timed += u64::from(timing.is_some());
            times.end(command, timing);
            assert_eq!(times.rows[3].executions(), execution);
            assert!(execution > 16 || timed == execution, "the first ones are timed");
        }
        assert!((COUNT / 96..COUNT / 32).contains(&timed), "{timed}");
    }

    #[test]
    fn those_timed_stand_for_the_others() {
        let row = Times { left: 30, stride: 40, executions: 90, executions_ns: 9_000, steps_ns: 7 };
        assert_eq!(row.total_ns(), 100 * 100 + 7);
        assert_eq!(Times { executions_ns: u64::MAX, ..row }.total_ns(), u64::MAX);
        assert_eq!(ExecutionTimes::default().rows[0].total_ns(), 0);
        let mut times = ExecutionTimes::default();
        let timing = Timing { began: Instant::now() - Duration::from_secs(1), weight: 10 };
        times.end(&all()[0], Some(timing));
        assert!(times.rows[0].executions_ns >= 10_000_000_000);
    }
}
