//! What the kernel says about processes, and on which CPUs they run.

use std::{fs, io, os::unix::process::CommandExt, process::Command, time::Duration};

use crate::failure::{During, Failure, Result};

/// What a process has used since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// CPU time, in nanoseconds, that of threads that have ended included: the kernel's threads that sync a server's
    /// files come and go.
    pub(crate) cpu_ns: u64,
    /// Time its present threads were ready to run and waited for a CPU, in nanoseconds.
    pub(crate) delay_ns: u64,
    /// How often a present thread went to sleep, and hence was woken.
    pub(crate) sleeps: u64,
}

impl Usage {
    /// Of process `pid` by now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let mut usage = Self { cpu_ns: cpu_ns(pid)?, ..Self::default() };
        let tasks = format!("/proc/{pid}/task");
        for task in fs::read_dir(&tasks).during(|| tasks.clone())? {
            let path = task.during(|| tasks.clone())?.path();
            // A thread that has just ended is gone from there.
            let Ok(schedstat) = fs::read_to_string(path.join("schedstat")) else { continue };
            let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
            let mut numbers = schedstat.split_whitespace().map_while(|number| number.parse::<u64>().ok());
            let (Some(_), Some(delay_ns)) = (numbers.next(), numbers.next()) else {
                return Err(Failure::new(format!("{}/schedstat has no figures", path.display())));
            };
            usage.delay_ns += delay_ns;
            usage.sleeps += status_number(&status, "voluntary_ctxt_switches").unwrap_or(0);
        }
        Ok(usage)
    }

    /// What was used after `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            delay_ns: self.delay_ns.saturating_sub(earlier.delay_ns),
            sleeps: self.sleeps.saturating_sub(earlier.sleeps),
        }
    }
}

impl std::ops::Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns + other.cpu_ns,
            delay_ns: self.delay_ns + other.delay_ns,
            sleeps: self.sleeps + other.sleeps,
        }
    }
}

/// CPU time of process `pid`, in nanoseconds: the scheduler's figure that schedstat shows of each thread, for all
/// threads there ever were.
fn cpu_ns(pid: u32) -> Result<u64> {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls write to locals.
    let result = unsafe {
        match libc::clock_getcpuclockid(pid as libc::pid_t, &raw mut clock) {
            0 if libc::clock_gettime(clock, &raw mut time) == 0 => Ok(()),
            0 => Err(io::Error::last_os_error()),
            number => Err(io::Error::from_raw_os_error(number)),
        }
    };
    result.during(|| format!("reading the CPU time of process {pid}"))?;
    Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// Memory of process `pid` that is resident, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).during(|| path.clone())?;
    let kibibytes =
        status_number(&status, "VmRSS").ok_or_else(|| Failure::new(format!("{path} has no VmRSS")))?;
    Ok(kibibytes * 1024)
}

/// Memory of the whole machine that is no file's, in bytes: pages that processes share count once.
pub(crate) fn anonymous_bytes() -> Result<u64> {
    let path = "/proc/meminfo";
    let text = fs::read_to_string(path).during(|| path.into())?;
    let kibibytes =
        status_number(&text, "AnonPages").ok_or_else(|| Failure::new(format!("{path} has no AnonPages")))?;
    Ok(kibibytes * 1024)
}

fn status_number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A command whose process runs on `cpus` only, and ends with this one.
pub(crate) fn pinned(program: &std::path::Path, cpus: &[usize]) -> Command {
    let mut command = Command::new(program);
    let set = cpu_set(cpus);
    // SAFETY: between fork and exec only these two system calls are made, on memory of the closure.
    unsafe {
        command.pre_exec(move || {
            if libc::sched_setaffinity(0, size_of_val(&set), &raw const set) < 0
                || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0
            {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command
}

/// Lets the process of `command` run only while nobody else wants its CPU.
pub(crate) fn yielding(command: &mut Command) {
    // SAFETY: between fork and exec only this system call is made, on memory of the closure.
    unsafe {
        command.pre_exec(|| {
            let nothing = libc::sched_param { sched_priority: 0 };
            match libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const nothing) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
    }
}

/// Keeps this process, whose servers and clients choose for themselves, on one CPU.
pub(crate) fn stay_on(cpu: usize) -> Result<()> {
    let set = cpu_set(&[cpu]);
    // SAFETY: the kernel reads a set from a local.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }.during(|| format!("using CPU {cpu}"))
}

fn cpu_set(cpus: &[usize]) -> libc::cpu_set_t {
    // SAFETY: an all-zero set is the empty one, and a CPU beyond its end is ignored.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for &cpu in cpus.iter().filter(|&&cpu| cpu < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(cpu, &mut set);
        }
        set
    }
}

/// Sends `signal` to a child that has not been waited for, so that its number is still its own.
pub(crate) fn signal(child: &std::process::Child, signal: i32) -> Result<()> {
    // SAFETY: no pointers are passed.
    let result = unsafe { libc::kill(child.id() as libc::pid_t, signal) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }.during(|| "signalling a server".into())
}

/// Raises the limit of open descriptors as far as the system allows; servers inherit it.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls use a local. Where they fail the old limit stands, and a server says so.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// Lets time pass: what is measured over a time needs it, and so does a server that is not listening yet.
#[expect(clippy::disallowed_methods, reason = "it is time that is wanted here, not an event")]
pub(crate) fn pass(duration: Duration) {
    std::thread::sleep(duration);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_what_it_uses() {
        let before = Usage::of(std::process::id()).unwrap();
        let mut word = 1_u64;
        let used = loop {
            word = std::hint::black_box(word.wrapping_mul(3));
            let used = Usage::of(std::process::id()).unwrap().since(before);
            if used.cpu_ns > 0 {
                break used;
            }
        };
        assert!(used.cpu_ns < 60_000_000_000, "{used:?} {word}");
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000);
        assert!(anonymous_bytes().unwrap() > 100_000);
    }

    #[test]
    fn status_lines_are_found_by_their_whole_name() {
        let status =
            "VmRSSx:\t1 kB\nVmRSS:\t  1234 kB\nnonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t8\n";
        assert_eq!(status_number(status, "VmRSS"), Some(1234));
        assert_eq!(status_number(status, "voluntary_ctxt_switches"), Some(8));
        assert_eq!(status_number(status, "VmSize"), None);
    }
}
