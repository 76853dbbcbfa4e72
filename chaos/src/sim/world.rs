//! The data that the simulated nodes share with their observer. The nodes' own code knows none of it.

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

use conclave_cluster::Cluster;
use conclave_crypto::secret::ClusterSecret;

use super::{
    SimBug, SimPlan,
    clock::{MachineClocks as Clock, true_time},
    disk::Disk,
    node::ip,
};
use crate::{history::History, promise::Broken, random::Random};

/// Nodes of a cluster.
pub(super) const NODES: u64 = 3;
/// Largest drift of a clock; two such clocks stay within the margin of the leases.
const MAX_DRIFT_PPM: u64 = 40_000;
/// Largest drift of two clocks in opposite directions that is within the margin: 1.047 / 0.953 is below 1.1.
const FURTHEST_DRIFT_PPM: i64 = 47_000;
/// Sessions that are checked while they are revoked.
const WATCHED: usize = 4;
/// Sessions and codes that clients remember.
const REMEMBERED: usize = 24;

/// Every node.
pub(super) fn nodes() -> std::ops::RangeInclusive<u64> {
    1..=NODES
}

/// The part of a node that outlives its process.
pub(super) struct SimMachine {
    pub clock: Arc<Clock>,
    pub disk: Disk,
    pub data_dir: PathBuf,
}

/// A session of a client.
#[derive(Clone)]
pub(super) struct KnownSession {
    pub number: u64,
    pub session_id: [u8; 16],
    /// The index in the client's cookie.
    pub index: u64,
}

/// The present phase of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScriptStage {
    /// They act at random.
    Faults,
    /// The faults are over: each node must prove that it works.
    Proof,
    /// No client acts.
    Quiet,
}

/// A command of the operator to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OperatorCommand {
    Compact,
    Stop,
    /// Creates what clients need, and signs one in.
    SignIn,
    Revoke,
    CreateUser,
    /// Checks whether this node serves, and from a state that has everything that was acknowledged.
    Look,
}

#[derive(Default)]
struct Shared {
    running: BTreeMap<u64, Cluster>,
    stopped: BTreeMap<u64, String>,
    ended: Vec<u64>,
    incarnations: BTreeMap<u64, u64>,
    commands: BTreeMap<u64, OperatorCommand>,
    works: BTreeMap<u64, bool>,
    seeded: bool,
    sessions: VecDeque<KnownSession>,
    revoked: VecDeque<KnownSession>,
    codes: VecDeque<[u8; 16]>,
    users: Vec<[u8; 16]>,
    carried_out: u64,
    broken: Vec<Broken>,
    /// The node in whose name the network refuses connections.
    answered_for: Option<u64>,
}

pub(super) struct SimWorld {
    pub seed: u64,
    pub plan: SimPlan,
    pub secret: ClusterSecret,
    pub history: History,
    machines: BTreeMap<u64, SimMachine>,
    stage: AtomicU8,
    shared: Mutex<Shared>,
}

impl SimWorld {
    pub(super) fn new(
        seed: u64,
        plan: SimPlan,
        bug: SimBug,
        data: &std::path::Path,
        secret: ClusterSecret,
    ) -> Arc<Self> {
        let mut random = Random::new(seed);
        let machine = |node: u64| {
            let drift = match plan {
                SimPlan::Storm => i64::try_from(random.below(2 * MAX_DRIFT_PPM)).unwrap_or(0) - 40_000,
                // The first node is the first leader; its successor waits as short as possible.
                _ if node == 1 => -FURTHEST_DRIFT_PPM,
                _ => FURTHEST_DRIFT_PPM,
            };
            let disk = Disk::new(random.below(u64::MAX), bug);
            (node, SimMachine { clock: Clock::new(drift), disk, data_dir: data.join(node.to_string()) })
        };
        Arc::new(Self {
            seed,
            plan,
            secret,
            history: History::new(true_time),
            machines: (1..=NODES).map(machine).collect(),
            stage: AtomicU8::new(0),
            shared: Mutex::default(),
        })
    }

    pub(super) fn machine(&self, node: u64) -> Option<&SimMachine> {
        self.machines.get(&node)
    }

    pub(super) fn stage(&self) -> ScriptStage {
        match self.stage.load(Ordering::Relaxed) {
            0 => ScriptStage::Faults,
            1 => ScriptStage::Proof,
            _ => ScriptStage::Quiet,
        }
    }

    pub(super) fn enter(&self, stage: ScriptStage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Records the start of a process; returns its number among those of its node.
    pub(super) fn begin_incarnation(&self, node: u64) -> u64 {
        let mut shared = self.locked();
        shared.stopped.remove(&node);
        let incarnation = shared.incarnations.entry(node).or_default();
        *incarnation += 1;
        *incarnation
    }

    pub(super) fn started(&self, node: u64, cluster: Cluster) {
        self.locked().running.insert(node, cluster);
    }

    /// Records that the process stops, or has stopped, by itself; only the first reason is kept.
    pub(super) fn stopped(&self, node: u64, reason: String) {
        self.locked().stopped.entry(node).or_insert(reason);
    }

    /// Records that the process has ended.
    pub(super) fn ended(&self, node: u64) {
        let mut shared = self.locked();
        shared.running.remove(&node);
        shared.ended.push(node);
    }

    /// The processes that have ended by themselves, and their reasons.
    pub(super) fn take_ended(&self) -> Vec<(u64, String)> {
        let mut shared = self.locked();
        let ended = std::mem::take(&mut shared.ended);
        ended.into_iter().filter_map(|node| Some((node, shared.stopped.remove(&node)?))).collect()
    }

    /// Drops everything of a process that is gone.
    pub(super) fn forget(&self, node: u64) {
        let gone = self.locked().running.remove(&node);
        drop(gone);
    }

    pub(super) fn running(&self) -> BTreeMap<u64, Cluster> {
        self.locked().running.clone()
    }

    pub(super) fn give_command(&self, node: u64, command: OperatorCommand) {
        self.locked().commands.insert(node, command);
    }

    pub(super) fn take_command(&self, node: u64) -> Option<OperatorCommand> {
        self.locked().commands.remove(&node)
    }

    pub(super) fn order_is_carried_out(&self) {
        self.locked().carried_out += 1;
    }

    /// The number of commands carried out.
    pub(super) fn carried_out(&self) -> u64 {
        self.locked().carried_out
    }

    pub(super) fn broken(&self, broken: Vec<Broken>) {
        self.locked().broken.extend(broken);
    }

    pub(super) fn take_broken(&self) -> Vec<Broken> {
        std::mem::take(&mut self.locked().broken)
    }

    /// Makes the network refuse connections to this node from now on.
    pub(super) fn answer_for(&self, node: Option<u64>) {
        self.locked().answered_for = node;
    }

    pub(super) fn is_answered_for(&self, addr: &str) -> bool {
        self.locked().answered_for.is_some_and(|node| addr.starts_with(&format!("{}:", ip(node))))
    }

    pub(super) fn seeded(&self, done: bool) -> bool {
        let mut shared = self.locked();
        shared.seeded |= done;
        shared.seeded
    }

    pub(super) fn works(&self, node: u64) {
        self.locked().works.insert(node, true);
    }

    pub(super) fn all_work(&self) -> bool {
        let shared = self.locked();
        nodes().all(|node| shared.works.contains_key(&node))
    }

    pub(super) fn signed_in(&self, known: KnownSession, code: [u8; 16]) {
        let mut shared = self.locked();
        remember(&mut shared.sessions, known);
        remember(&mut shared.codes, code);
    }

    /// A session to be checked.
    pub(super) fn session(&self, random: &mut Random) -> Option<KnownSession> {
        let shared = self.locked();
        shared.sessions.get(random.index(shared.sessions.len())).cloned()
    }

    /// One of the last few sessions of which a revocation has begun.
    pub(super) fn revoked_last(&self, random: &mut Random) -> Option<KnownSession> {
        let shared = self.locked();
        let back = 1 + random.index(WATCHED.min(shared.revoked.len()));
        shared.revoked.get(shared.revoked.len().checked_sub(back)?).cloned()
    }

    /// A session to be revoked; from now on clients check it.
    pub(super) fn to_revoke(&self, random: &mut Random) -> Option<KnownSession> {
        let mut shared = self.locked();
        let place = random.index(shared.sessions.len());
        let known = shared.sessions.remove(place)?;
        remember(&mut shared.revoked, known.clone());
        Some(known)
    }

    pub(super) fn code(&self, random: &mut Random) -> Option<[u8; 16]> {
        let shared = self.locked();
        shared.codes.get(random.index(shared.codes.len())).copied()
    }

    pub(super) fn user_created(&self, user: [u8; 16]) {
        self.locked().users.push(user);
    }

    /// Each session, and whether it must be live, if that is known.
    pub(super) fn sessions_at_the_end(&self) -> Vec<([u8; 16], Option<bool>)> {
        let named = self.history.fates().into_iter();
        named
            .filter_map(|(name, fate)| Some((u128::from_str_radix(&name, 16).ok()?.to_be_bytes(), fate)))
            .collect()
    }

    pub(super) fn users(&self) -> Vec<[u8; 16]> {
        self.locked().users.clone()
    }

    fn locked(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember<T>(list: &mut VecDeque<T>, item: T) {
    list.push_back(item);
    if list.len() > REMEMBERED {
        list.pop_front();
    }
}
