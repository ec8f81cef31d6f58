//! Starts of nodes: the first makes the cluster, the others are let in by it and begin with what it tells them.
//!
//! The real start reads and changes a real folder, which holds what the simulated disk holds: see [`crate::sim::start`].
//! Only the connection over which a node asks to be let in is not the server's own: a client of the simulation asks, with the
//! same words.

use std::{cell::RefCell, path::PathBuf, rc::Rc, sync::Arc};

use duva_net::{io::Wait, mesh::mesh};
use duva_persist::{manifest::Manifest, names};
use duva_server::{
    cluster::{self, file::ClusterFile, join::JoinAnswer},
    config::{Config, RaftDurability, RaftReadMode},
    core::{Core, admin::Shared},
    launch::{self, ClusterStart},
    storage::Store,
};

use super::{
    io::{SimIo, address_of},
    world::{PEER_LISTENER, PEER_PORT, World},
};
use crate::sim::{
    random::Random,
    start::{Place, folder},
};

/// Shards of the cluster.
pub(super) const SHARDS: u16 = 4;

/// The smallest segment, so that there are many.
const SEGMENT_BYTES: u32 = 1 << 20;

/// A core, and what it waits for since when.
pub(super) struct SimCore {
    pub(super) core: Core<SimIo>,
    pub(super) wait: Option<(Wait, u64)>,
}

impl SimCore {
    /// Whether its journal has failed.
    pub(super) fn has_lost_journal(&self) -> bool {
        let log = self.core.node().log.as_ref();
        log.is_some_and(|log| log.refusal().is_some_and(|refusal| refusal.is_final()))
    }
}

/// A node, running or not.
pub(super) struct SimNode {
    /// Its number, from 0.
    number: usize,
    config: Config,
    place: Place,
    /// The id by which it asks to be let in.
    pub(super) id: [u8; 16],
    /// Whether it has begun, and is not gone for good.
    pub(super) is_member: bool,
    /// None while it does not run.
    pub(super) cores: Vec<SimCore>,
}

/// What all nodes of a run have in common.
pub(super) fn choose_config(random: &mut Random) -> Config {
    Config {
        replication_factor: random.pick(&[3, 3, 5]),
        session_wait_ms: random.pick(&[0, 20, 1_000]),
        shards: SHARDS,
        append_only: true,
        is_cluster_enabled: true,
        segment_size_bytes: SEGMENT_BYTES,
        peer_port: PEER_PORT,
        port: 7000,
        raft_durability: random.pick(&[RaftDurability::Fsync, RaftDurability::Fsync, RaftDurability::Memory]),
        raft_read_mode: random.pick(&[RaftReadMode::Lease, RaftReadMode::Lease, RaftReadMode::ReadIndex]),
        election_timeout_min_ms: random.pick(&[150, 150, 300]),
        snapshot_is_compressed: random.one_in(2),
        rewrite_size_bytes_min: random.pick(&[64 << 10, 256 << 10, 64 << 20]),
        ..Config::default()
    }
}

fn random_id(random: &mut Random) -> [u8; 16] {
    (u128::from(random.bits()) << 64 | u128::from(random.bits())).to_be_bytes()
}

impl SimNode {
    /// One that was never started.
    pub(super) fn new(number: usize, common: &Config, random: &mut Random) -> Self {
        let place = Place::new();
        let config = Config {
            cores: random.pick(&[1, 1, 2]),
            directory: place.path().to_owned(),
            announce_host: Some(address_of(number).to_string()),
            cluster: number == 0,
            ..common.clone()
        };
        Self { number, config, place, id: random_id(random), is_member: false, cores: Vec::new() }
    }

    /// It is gone, with all that it had. Another one may begin on its machine.
    pub(super) fn lose(&mut self, random: &mut Random) {
        self.cores.clear();
        self.is_member = false;
        self.id = random_id(random);
    }

    /// The feature level that it speaks, or will after its next start.
    pub(super) fn level(&self) -> u16 {
        self.config.feature_level
    }

    /// From its next start on it is a version that speaks this feature level, and knows of these commands that they are newer.
    pub(super) fn change(&mut self, level: u16, newer_commands: &'static [(&'static str, u16)]) {
        self.config.feature_level = level;
        self.config.newer_commands = newer_commands;
    }

    pub(super) fn is_running(&self) -> bool {
        !self.cores.is_empty()
    }

    /// Whether a journal of it has failed: nothing is written to it before the next start.
    pub(super) fn has_lost_journal(&self) -> bool {
        self.cores.iter().any(SimCore::has_lost_journal)
    }

    /// What its empty disk holds before its first start: as the start itself would make it, but from the seed, or from what the
    /// cluster has answered.
    fn first_files(
        &self,
        random: &mut Random,
        answer: Option<&JoinAnswer>,
    ) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let manifest = Manifest {
            cluster: answer.map_or_else(|| random_id(random), |answer| answer.state.cluster),
            node: self.id,
            kernel_boot: random_id(random),
            hash_seed: answer.map_or_else(|| random.bits(), |answer| answer.state.hash_seed),
            hash_algorithm: 1,
            shards: answer.map_or(SHARDS, |answer| answer.state.shards),
            epoch: 0,
            must_not_vote: false,
            starts: Vec::new(),
            cuts: Vec::new(),
            truncations: Vec::new(),
        };
        vec![(folder(&self.config).join(names::MANIFEST), Some(manifest.encode()))]
    }

    /// Its first start, as the first node, or with what the cluster has answered.
    ///
    /// # Errors
    /// The sentence with which it refuses.
    pub(super) fn begin(
        &mut self,
        world: &Rc<RefCell<World>>,
        answer: Option<JoinAnswer>,
    ) -> Result<(), String> {
        {
            let world = &mut *world.borrow_mut();
            let files = self.first_files(&mut world.random, answer.as_ref());
            world.machines[self.number].disk.replace_all(files);
        }
        let joined = answer.map(JoinAnswer::into_file);
        self.is_member = true;
        self.start(world, joined)
    }

    /// A start with what the disk holds.
    ///
    /// # Errors
    /// The sentence with which it refuses.
    pub(super) fn start(
        &mut self,
        world: &Rc<RefCell<World>>,
        joined: Option<ClusterFile>,
    ) -> Result<(), String> {
        let (node, cores) = (self.number, usize::from(self.config.cores));
        let folder = folder(&self.config);
        let text = |error: std::io::Error| error.to_string();
        self.place.lay_out(&world.borrow().machines[node].disk, &folder).map_err(text)?;
        let mut store = Store::open(&self.config, None)?;
        let start =
            cluster::start::open(&self.config, &mut store, joined)?.ok_or("it belongs to no cluster")?;
        store.set_cluster();
        let (started_ms, now_ns, seeds, mesh_capacity) = {
            let mut world = world.borrow_mut();
            world.begin(node, cores);
            let seeds: Vec<u64> = (0..cores).map(|_| world.random.bits()).collect();
            let mesh_capacity = world.random.pick(&[1, 2, 8]);
            (world.wall_ms(node), world.monotonic_ns(node), seeds, mesh_capacity)
        };
        let begun = ClusterStart::new(start, &self.config).begun_at(now_ns);
        let run_id = format!("{:040x}", seeds[0]);
        let shared = Arc::new(Shared::new(self.config.clone(), None, self.config.port, started_ms, run_id));
        shared.set_peer_listeners(PEER_LISTENER..PEER_LISTENER + 1);
        shared.set_earlier_segments(Arc::clone(store.earlier().expect("there is a journal")));
        let config = Arc::new(self.config.clone());
        let mut nodes = Vec::new();
        for (core, (endpoint, seed)) in mesh(cores, mesh_capacity).into_iter().zip(seeds).enumerate() {
            let (config, shared) = (Arc::clone(&config), Arc::clone(&shared));
            nodes.push(launch::load(core, config, shared, endpoint, &store, Some(&begun), seed)?);
        }
        store.commit()?;
        drop(store);
        self.place.take_up(&mut world.borrow_mut().machines[node].disk, &folder).map_err(text)?;
        let cores = nodes.into_iter().enumerate().map(|(core, loaded)| {
            let io = SimIo { node, core, world: Rc::clone(world) };
            SimCore { core: Core::new(io, loaded, PEER_LISTENER + 1), wait: None }
        });
        self.cores = cores.collect();
        Ok(())
    }
}
