//! The software of a host: the cluster room of a node, and visitors at it.

use std::sync::Arc;

use conclave_base::runtime::{Runtime, testing::SeededEntropy};
use conclave_cluster::{Checks, Cluster, ClusterOptions, Peer};
use conclave_crypto::keys::ClusterKeys;

use super::{
    Plan, traffic, wire,
    world::{World, nodes},
};

/// The port of every node's cluster plane.
const PORT: u16 = 7946;
/// Visitors at each node.
const VISITORS: u64 = 3;

/// The address of this node, as turmoil assigns it to the host of that number.
pub fn ip(node: u64) -> String {
    format!("192.168.7.{node}")
}

/// Runs until the host is crashed.
pub async fn software(world: Arc<World>, node: u64) -> turmoil::Result {
    let life = world.begin_life(node);
    match start(&world, node, life).await {
        Ok(cluster) => serve(&world, node, life, cluster).await,
        Err(reason) => {
            world.stopped(node, reason);
            world.ended(node);
        }
    }
    // The process has ended; the simulation starts it again.
    std::future::pending().await
}

async fn start(world: &Arc<World>, node: u64, life: u64) -> Result<Cluster, String> {
    let machine = world.machine(node).ok_or("no such node")?;
    let runtime = Runtime {
        clock: machine.clock.clone(),
        entropy: SeededEntropy::new(world.seed.wrapping_mul(31).wrapping_add(node * 1_000 + life)),
    };
    let peer = |node| Peer { node, addr: format!("{}:{PORT}", ip(node)) };
    let options = ClusterOptions {
        node,
        data_dir: machine.data_dir.clone(),
        plane: wire::plane(world, PORT).await.map_err(|e| e.to_string())?,
        advertise: peer(node).addr,
        api_url: String::new(),
        peers: nodes().map(peer).collect(),
        joined: false,
        checks: Checks::Lease,
        public_url: String::new(),
        settings: Vec::new(),
        hints: Vec::new(),
        keys: Arc::new(ClusterKeys::derive(&world.secret)),
        runtime,
    };
    let disk = machine.disk.clone();
    Cluster::start_simulated(options, move |_, _| Ok(disk.open())).await.map_err(|e| e.to_string())
}

async fn serve(world: &Arc<World>, node: u64, life: u64, cluster: Cluster) {
    world.started(node, cluster.clone());
    let visitors = if world.plan == Plan::Storm { VISITORS } else { 0 };
    for visitor in 0..visitors {
        tokio::spawn(traffic::visit(Arc::clone(world), node, life * VISITORS + visitor, cluster.clone()));
    }
    tokio::spawn(traffic::watch(Arc::clone(world), node, cluster.clone()));
    tokio::spawn(traffic::obey(Arc::clone(world), node, cluster.clone()));
    let reason = cluster.stopped().await;
    world.stopped(node, reason);
    world.ended(node);
}
