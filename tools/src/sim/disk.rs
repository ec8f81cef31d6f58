//! The simulated disk: names, contents, each core's open files and work on them, and what is left after a crash.
//!
//! Everything is kept twice: as the kernel shows it, and as far as it is durable. A write is shown at once and durable once
//! a sync has ended that began after it; a name that was given or taken is durable with the next sync of the folder. A
//! killed server leaves what the kernel shows. A power loss leaves what is durable, and of the rest any part: of
//! contents any sectors, whole or torn; of changes of names the first few.
//!
//! A core's tasks take effect when they complete, in two orders that know nothing of one another, as the real threads. A crash
//! may find one of each half done.
//!
//! A core that uses a number that is not open breaks a real ring's rules; that is asserted.

mod content;
mod task;

#[cfg(test)]
mod tests;

use std::{
    cell::{Ref, RefCell},
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
    rc::Rc,
};

use duva_net::io::{Event, File, FileTask};

use super::{random::Random, world::Leased};
use content::Content;
use task::{Steps, Stored};

/// EIO, as Linux numbers it.
const INPUT_OUTPUT: i32 = 5;

/// A file's content, which lives as long as a name or somebody who has it open.
type Shared = Rc<RefCell<Content>>;

/// A change of names that is not durable.
enum Change {
    Link(PathBuf, Shared),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Shared>) {
        match self {
            Self::Link(path, content) => drop(names.insert(path.clone(), Rc::clone(content))),
            Self::Unlink(path) => drop(names.remove(path)),
            Self::Rename(from, to) => {
                if let Some(content) = names.remove(from) {
                    names.insert(to.clone(), content);
                }
            }
        }
    }
}

/// Every name there is.
#[derive(Default)]
pub(crate) struct Disk {
    names: BTreeMap<PathBuf, Shared>,
    /// The names as of the last sync of the folder, and the changes since.
    durable_names: BTreeMap<PathBuf, Shared>,
    changes: Vec<Change>,
    /// Until then nothing can be added.
    pub(crate) full_until_ns: u64,
}

/// A task given, and not done.
struct Task {
    ticket: u64,
    end_ns: u64,
    task: FileTask,
}

/// A sync under way.
struct Sync {
    ticket: u64,
    end_ns: u64,
    content: Shared,
    /// What it makes durable, and where; `None`: it fails, and nothing ever does.
    covered: Option<Vec<(usize, Vec<u8>)>>,
}

/// One core's files.
#[derive(Default)]
pub(crate) struct CoreFiles {
    /// What the core may use, by number.
    open: BTreeMap<u32, Shared>,
    /// What its storage threads have open, by number.
    stored: BTreeMap<u32, Stored>,
    /// What they have to do: segments are prepared, and files are written.
    tasks: [VecDeque<Task>; 2],
    syncs: Vec<Sync>,
}

impl CoreFiles {
    /// Takes a task, to be done at `end_ns`, or once those ahead of it are done.
    pub(crate) fn give(&mut self, ticket: u64, task: FileTask, end_ns: u64) {
        if let Some(file) = task.closes() {
            self.open.remove(&file.0);
        }
        let tasks = &mut self.tasks[usize::from(task.is_output())];
        let end_ns = tasks.back().map_or(end_ns, |last| last.end_ns.max(end_ns));
        tasks.push_back(Task { ticket, end_ns, task });
    }

    /// Writes at once.
    pub(crate) fn write(&self, file: File, bytes: &[u8], offset_bytes: u64) {
        self.content(file).borrow_mut().write(offset_bytes as usize, bytes);
    }

    /// Begins a sync, which fails in the end if `fails`.
    pub(crate) fn begin_sync(&mut self, ticket: u64, file: File, end_ns: u64, fails: bool) {
        let content = Rc::clone(self.content(file));
        // The kernel counts what a failed sync was to write as written.
        let covered = content.borrow_mut().take_written();
        self.syncs.push(Sync { ticket, end_ns, content, covered: (!fails).then_some(covered) });
    }

    /// Begins a sync that says in the end that it was done, and makes nothing durable.
    pub(crate) fn pretend_sync(&mut self, ticket: u64, file: File, end_ns: u64) {
        let content = Rc::clone(self.content(file));
        self.syncs.push(Sync { ticket, end_ns, content, covered: Some(Vec::new()) });
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.tasks.iter().all(VecDeque::is_empty) && self.syncs.is_empty()
    }

    /// When something next ends.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let tasks = self.tasks.iter().filter_map(|tasks| Some(tasks.front()?.end_ns));
        self.syncs.iter().map(|sync| sync.end_ns).chain(tasks).min()
    }

    /// Ends what has ended by now.
    pub(crate) fn advance(&mut self, disk: &mut Disk, now_ns: u64, ready: &mut VecDeque<Event<Leased>>) {
        while let Some(Task { ticket, task, .. }) = self.next_task(now_ns) {
            // Given before the task that opened the file was done.
            if let Some(file) = task.closes() {
                self.open.remove(&file.0);
            }
            let mut buffer = Vec::new();
            let opened = disk.perform(&mut self.stored, task, &mut buffer, now_ns, &mut Steps::all());
            let result = opened.map(|opened| {
                if let Some((file, content)) = opened {
                    insert(&mut self.open, file, content);
                }
            });
            ready.push_back(Event::FileDone { ticket, buffer, result });
        }
        for sync in self.syncs.extract_if(.., |sync| sync.end_ns <= now_ns) {
            let ticket = sync.ticket;
            let result = sync.covered.ok_or(INPUT_OUTPUT).map(|covered| {
                sync.content.borrow_mut().make_durable(covered);
            });
            ready.push_back(Event::Synced { ticket, result });
        }
    }

    /// Takes the next task that is done by now.
    fn next_task(&mut self, now_ns: u64) -> Option<Task> {
        let due = |tasks: &&mut VecDeque<Task>| tasks.front().is_some_and(|task| task.end_ns <= now_ns);
        let tasks = self.tasks.iter_mut().filter(due).min_by_key(|tasks| tasks[0].end_ns)?;
        tasks.pop_front()
    }

    /// The server is gone: of either thread's tasks the first few were done, and perhaps a part of the next.
    pub(crate) fn cut(mut self, disk: &mut Disk, now_ns: u64, random: &mut Random) {
        for tasks in std::mem::take(&mut self.tasks) {
            let whole = random.index(tasks.len() + 1);
            for (number, Task { task, .. }) in tasks.into_iter().enumerate().take(whole + 1) {
                let mut steps = if number < whole { Steps::all() } else { Steps::few(random) };
                // Nobody is left to be told.
                let _ = disk.perform(&mut self.stored, task, &mut Vec::new(), now_ns, &mut steps);
            }
        }
    }

    fn content(&self, file: File) -> &Shared {
        self.open.get(&file.0).unwrap_or_else(|| panic!("file {} is not open", file.0))
    }
}

impl Disk {
    /// Whether there was a time without room.
    pub(crate) fn has_been_full(&self) -> bool {
        self.full_until_ns > 0
    }

    /// Somebody makes room.
    pub(crate) fn make_room(&mut self) {
        self.full_until_ns = self.full_until_ns.min(1);
    }

    /// Every file, with what it holds now.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, Ref<'_, [u8]>)> {
        self.names
            .iter()
            .map(|(path, content)| (&**path, Ref::map(content.borrow(), |content| content.shown())))
    }

    /// From now on there are these files and no others, all of them durable. `None`: a file that is as it was.
    pub(crate) fn replace_all(&mut self, files: Vec<(PathBuf, Option<Vec<u8>>)>) {
        let earlier = std::mem::take(&mut self.names);
        let content = |path: &PathBuf, bytes: Option<Vec<u8>>| match bytes {
            Some(bytes) => Rc::new(RefCell::new(Content::durable(bytes))),
            None => Rc::clone(&earlier[path]),
        };
        self.names = files
            .into_iter()
            .map(|(path, bytes)| {
                let content = content(&path, bytes);
                (path, content)
            })
            .collect();
        self.sync_names();
    }

    /// The power fails, and comes back. No core has a file open.
    pub(crate) fn lose_power(&mut self, random: &mut Random) {
        let kept = random.index(self.changes.len() + 1);
        let mut names = std::mem::take(&mut self.durable_names);
        self.changes.drain(..).take(kept).for_each(|change| change.apply(&mut names));
        let lose = |content: Shared| Rc::new(RefCell::new(content.borrow().after_power_loss(random)));
        let left = names.into_iter().map({
            let mut lose = lose;
            move |(path, content)| (path, lose(content))
        });
        self.names = left.collect();
        self.sync_names();
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    /// Makes all names durable.
    fn sync_names(&mut self) {
        self.durable_names.clone_from(&self.names);
        self.changes.clear();
    }
}

fn insert(open: &mut BTreeMap<u32, Shared>, file: File, content: Shared) {
    let earlier = open.insert(file.0, content);
    assert!(earlier.is_none(), "file {} was open already", file.0);
}
