//! The software of a host: the cluster room of a node, and clients at it.

use std::sync::Arc;

use conclave_base::runtime::{Runtime, testing::SeededEntropy};
use conclave_cluster::{BootstrapPeer, CheckMode, Cluster, ClusterOptions};
use conclave_crypto::keys::ClusterKeys;

use super::{
    SimPlan, traffic, wire,
    world::{SimWorld, nodes},
};

/// The port of every node's cluster plane.
const PORT: u16 = 7946;
/// Clients at each node.
const CLIENTS: u64 = 3;

/// The address of this node, as turmoil assigns it to the host of that number.
pub(super) fn ip(node: u64) -> String {
    format!("192.168.7.{node}")
}

/// Runs until the host is crashed.
pub(super) async fn software(world: Arc<SimWorld>, node: u64) -> turmoil::Result {
    let incarnation = world.begin_incarnation(node);
    match start(&world, node, incarnation).await {
        Ok(cluster) => serve(&world, node, incarnation, cluster).await,
        Err(reason) => {
            world.stopped(node, reason);
            world.ended(node);
        }
    }
    // The process has ended; the simulation starts it again.
    std::future::pending().await
}

async fn start(world: &Arc<SimWorld>, node: u64, incarnation: u64) -> Result<Cluster, String> {
    let machine = world.machine(node).ok_or("no such node")?;
    let runtime = Runtime {
        clock: machine.clock.clone(),
        entropy: SeededEntropy::new(world.seed.wrapping_mul(31).wrapping_add(node * 1_000 + incarnation)),
    };
    let peer = |node| BootstrapPeer { node, addr: format!("{}:{PORT}", ip(node)) };
    let options = ClusterOptions {
        node,
        data_dir: machine.data_dir.clone(),
        plane: wire::plane(world, PORT).await.map_err(|e| e.to_string())?,
        advertise: peer(node).addr,
        api_url: String::new(),
        peers: nodes().map(peer).collect(),
        joined: false,
        checks: CheckMode::Lease,
        public_url: String::new(),
        settings: Vec::new(),
        hints: Vec::new(),
        pace: conclave_cluster::ElectionPace::default(),
        keys: Arc::new(ClusterKeys::derive(&world.secret)),
        runtime,
    };
    let disk = machine.disk.clone();
    Cluster::start_simulated(options, move |_, _| Ok(disk.open())).await.map_err(|e| e.to_string())
}

async fn serve(world: &Arc<SimWorld>, node: u64, incarnation: u64, cluster: Cluster) {
    world.started(node, cluster.clone());
    let clients = if world.plan == SimPlan::Storm { CLIENTS } else { 0 };
    for client in 0..clients {
        tokio::spawn(traffic::visit(
            Arc::clone(world),
            node,
            incarnation * CLIENTS + client,
            cluster.clone(),
        ));
    }
    tokio::spawn(traffic::watch(Arc::clone(world), node, cluster.clone()));
    tokio::spawn(traffic::run_operator_commands(Arc::clone(world), node, cluster.clone()));
    let reason = cluster.stopped().await;
    world.stopped(node, reason);
    world.ended(node);
}
