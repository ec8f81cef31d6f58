//! Slow work on files, beside the cores: opening, preparing, publishing, removing.
//!
//! Every core has two storage threads of its own: one prepares what the journal waits for, the other writes, publishes and
//! removes whole files, which takes as long as the disk does. That keeps tasks in order with nothing but channels, and no
//! core's long task ever stands before another's; a thread that waits costs nothing but its stack. Invariants:
//!
//! - **Order.** The tasks of a thread are done, and answered, in the order given.
//! - **Two holders of a descriptor.** A thread opens a file and keeps it under its number; the core holds it as well,
//!   from the answer on until it gives a task that closes the number. Whoever lets go last closes it, and the core
//!   passes what it would close to the second thread: taking a large removed file down takes time.
//! - **Nothing is cut off.** Dropping the [`Storage`] waits until everything that was given is done.

mod disk;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fs, io,
    sync::{Arc, mpsc},
    thread,
};

use disk::Disk;
pub(crate) use disk::errno;

use crate::{
    io::{File, FileTask},
    ring::WakeHandle,
};

/// How much the thread that writes whole files yields to the cores, as a nice value: about a tenth of a core's share of a CPU.
const NICE: i32 = 10;

/// What a thread is asked to do.
enum Request {
    /// To do a task and answer with this ticket.
    Task(u64, FileTask),
    /// To close a file that was closed by number before, while a sync was under way.
    LetGo(fs::File),
}

/// What a task changed about a number.
#[derive(Debug)]
pub(crate) enum Change {
    /// Nothing.
    None,
    /// It is open, for the core as well.
    Opened(File, Arc<fs::File>),
    /// It is closed.
    Closed(File),
}

/// The answer to a task.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) ticket: u64,
    pub(crate) buffer: Vec<u8>,
    pub(crate) result: Result<(), i32>,
    pub(crate) change: Change,
}

/// A core's storage threads, as the core holds them.
pub struct Storage {
    /// For what the journal waits for.
    preparer: Worker,
    /// For files that are written, published and removed.
    writer: Worker,
    answers: mpsc::Receiver<Done>,
}

/// One thread.
struct Worker {
    /// Taken only when this is dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Storage {
    /// Starts the storage threads of core `core`, which `wake` wakes when a task was done. The threads may run on the
    /// CPUs of the calling one.
    ///
    /// # Errors
    /// When there cannot be more threads.
    pub fn start(core: usize, wake: WakeHandle) -> io::Result<Self> {
        let (done, answers) = mpsc::channel();
        let preparer = Worker::start(format!("storage-{core}"), 0, done.clone(), wake.clone())?;
        let writer = Worker::start(format!("writer-{core}"), NICE, done, wake)?;
        Ok(Self { preparer, writer, answers })
    }

    /// Gives a task.
    pub(crate) fn give(&self, ticket: u64, task: FileTask) {
        let worker = if task.is_output() { &self.writer } else { &self.preparer };
        worker.request(Request::Task(ticket, task));
    }

    /// Lets go of a descriptor; if nobody else holds it, a thread closes it.
    pub(crate) fn let_go(&self, descriptor: Arc<fs::File>) {
        if let Some(last) = Arc::into_inner(descriptor) {
            self.writer.request(Request::LetGo(last));
        }
    }

    /// The next answer, if one is there.
    pub(crate) fn answer(&self) -> Option<Done> {
        self.answers.try_recv().ok()
    }
}

impl Worker {
    fn start(name: String, nice: i32, done: mpsc::Sender<Done>, wake: WakeHandle) -> io::Result<Self> {
        let (requests, to_do) = mpsc::channel();
        let thread = thread::Builder::new().name(name).spawn(move || serve(nice, &to_do, &done, &wake))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    fn request(&self, request: Request) {
        let requests = self.requests.as_ref().expect("taken only when dropped");
        assert!(requests.send(request).is_ok(), "a storage thread ended early");
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It ended by panicking: that was reported, and nothing is left to wait for.
            let _ = thread.join();
        }
    }
}

fn serve(nice: i32, requests: &mpsc::Receiver<Request>, answers: &mpsc::Sender<Done>, wake: &WakeHandle) {
    yield_to_cores(nice);
    let mut disk = Disk::default();
    for request in requests {
        match request {
            Request::Task(ticket, task) => {
                let done = disk.perform(ticket, task);
                // Nobody waits for it any more when the core has ended.
                if answers.send(done).is_ok() {
                    wake.wake();
                }
            }
            Request::LetGo(file) => disk::take_down(&file),
        }
    }
}

/// Makes the calling thread give way to the cores. Where the kernel refuses, it works without.
///
/// It never takes the CPU from a core when it wakes. What prepares segments keeps as large a share of a busy CPU as a core has:
/// its work is short, and all writes may wait for it. With a tenth of that a segment's 64 MiB took up to half a minute
/// beside three busy cores.
fn yield_to_cores(nice: i32) {
    // SAFETY: the parameter is a local; 0 names the calling thread in both calls.
    unsafe {
        let mut parameter: libc::sched_param = std::mem::zeroed();
        parameter.sched_priority = 0;
        libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameter);
        if nice > 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, nice);
        }
    }
}
