//! Starts of the server: what is on the simulated disk, as the real start reads it, and the cores that come of it.
//!
//! The real start reads and changes a real folder. So the simulated disk's files are laid out in one, the start is let
//! have its way with it, and what it leaves is the simulated disk from then on. What it has written counts as durable, names
//! as well: a start syncs whatever it changes. What it has not written stays as durable as it was: what a killed server left
//! in the page cache only, and the start keeps without writing it again, the next power loss may take. Nothing of the
//! folder's place has a part in what happens.

use std::{
    cell::RefCell,
    env, fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use duva_net::{io::Wait, mesh::mesh};
use duva_persist::{manifest::Manifest, names};
use duva_server::{
    config::Config,
    core::{Core, admin::Shared, node::Node},
    launch,
    storage::Store,
};

use super::{disk::Disk, io::SimIo, random::Random, world::World};

/// When files that a start finds were modified last: so those are told that it writes to.
const UNTOUCHED: SystemTime = SystemTime::UNIX_EPOCH;

/// A core, and what it waits for since when.
pub(crate) struct SimCore {
    /// The core.
    pub(crate) core: Core<SimIo>,
    /// What it waits for, and since when, in nanoseconds.
    pub(crate) wait: Option<(Wait, u64)>,
}

/// A running server.
pub(crate) struct Server {
    /// What its cores share.
    pub(crate) shared: Arc<Shared>,
    /// They.
    pub(crate) cores: Vec<SimCore>,
}

/// A folder of this run's own, which goes with it.
pub(crate) struct Place(PathBuf);

impl Place {
    /// A new one, in memory if the machine has a place for that.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { env::temp_dir() };
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("duva-sim-{}-{number}", process::id()));
        fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it hold these files, in the folder of journals and beside it.
    pub(crate) fn lay_out(&self, disk: &Disk, folder: &Path) -> std::io::Result<()> {
        fs::remove_dir_all(&self.0)?;
        fs::create_dir_all(folder)?;
        disk.files().try_for_each(|(path, bytes)| {
            let mut file = fs::File::create(path)?;
            file.write_all(&bytes)?;
            file.set_modified(UNTOUCHED)
        })
    }

    /// Makes the simulated disk hold what is here. What the start has written is durable; the rest as much as it was.
    pub(crate) fn take_up(&self, disk: &mut Disk, folder: &Path) -> std::io::Result<()> {
        let mut files = Vec::new();
        for directory in [&*self.0, folder] {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                if entry.file_type()?.is_file() && entry.file_name() != names::LOCK {
                    let is_touched = entry.metadata()?.modified()? != UNTOUCHED;
                    let bytes = if is_touched { Some(fs::read(entry.path())?) } else { None };
                    files.push((entry.path(), bytes));
                }
            }
        }
        disk.replace_all(files);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != ErrorKind::NotFound
        {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}

/// What a directory that was never used holds: as the first start would make it, but from the seed.
pub(crate) fn first_files(random: &mut Random, config: &Config) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut id = || (u128::from(random.bits()) << 64 | u128::from(random.bits())).to_be_bytes();
    let manifest = Manifest {
        cluster: id(),
        node: id(),
        kernel_boot: id(),
        hash_seed: random.bits(),
        hash_algorithm: 1,
        shards: config.shards,
        epoch: 0,
        must_not_vote: false,
        starts: Vec::new(),
        cuts: Vec::new(),
        truncations: Vec::new(),
    };
    vec![(folder(config).join(names::MANIFEST), Some(manifest.encode()))]
}

/// The folder of the journals.
pub(crate) fn folder(config: &Config) -> PathBuf {
    config.directory.join(&config.append_directory_name)
}

/// A start that is cut off when all data was loaded: nothing that counts was changed.
///
/// # Errors
/// The sentence with which it refuses.
pub(crate) fn attempt(world: &Rc<RefCell<World>>, config: &Config, place: &Place) -> Result<(), String> {
    let start = Start::new(&mut world.borrow_mut(), config);
    start.load(&world.borrow(), config, place).map(drop)
}

/// Starts a server as `config` says. Its world has as many kernels as the configuration has cores, all of them new.
///
/// # Errors
/// The sentence with which it refuses.
pub(crate) fn start(world: &Rc<RefCell<World>>, config: &Config, place: &Place) -> Result<Server, String> {
    let start = Start::new(&mut world.borrow_mut(), config);
    let mut nodes = Vec::new();
    let shared = Arc::clone(&start.shared);
    if config.append_only {
        let store;
        (store, nodes) = start.load(&world.borrow(), config, place)?;
        store.commit()?;
        place.take_up(&mut world.borrow_mut().disk, &folder(config)).map_err(|error| error.to_string())?;
    } else {
        let (each, hash_seed) = (Arc::new(config.clone()), start.seeds[0]);
        for (core, endpoint) in mesh(start.seeds.len(), start.mesh_capacity).into_iter().enumerate() {
            nodes.push(launch::node(core, Arc::clone(&each), Arc::clone(&shared), endpoint, hash_seed));
        }
    }
    let cores = nodes.into_iter().enumerate().map(|(core, node)| {
        let io = SimIo { core, world: Rc::clone(world) };
        SimCore { core: Core::new(io, node, 1), wait: None }
    });
    Ok(Server { cores: cores.collect(), shared })
}

/// What a start begins with.
struct Start {
    shared: Arc<Shared>,
    mesh_capacity: usize,
    /// One for each core.
    seeds: Vec<u64>,
}

impl Start {
    fn new(world: &mut World, config: &Config) -> Self {
        let started_ms = world.wall_ms() as u64;
        Self {
            shared: Arc::new(Shared::new(config.clone(), None, config.port, started_ms, "0".repeat(40))),
            mesh_capacity: world.random.pick(&[1, 2, 8]),
            seeds: (0..config.cores).map(|_| world.random.bits()).collect(),
        }
    }

    /// Lets the real start load what is on the disk.
    fn load(self, world: &World, config: &Config, place: &Place) -> Result<(Store, Vec<Node>), String> {
        place.lay_out(&world.disk, &folder(config)).map_err(|error| error.to_string())?;
        let store = Store::open(config, None)?;
        self.shared.set_earlier_segments(Arc::clone(store.earlier().expect("there is a journal")));
        let each = Arc::new(config.clone());
        let endpoints = mesh(self.seeds.len(), self.mesh_capacity).into_iter().zip(&self.seeds).enumerate();
        let load = |(core, (endpoint, &seed))| {
            launch::load(core, Arc::clone(&each), Arc::clone(&self.shared), endpoint, &store, None, seed)
        };
        let nodes = endpoints.map(load).collect::<Result<Vec<Node>, String>>()?;
        Ok((store, nodes))
    }
}
