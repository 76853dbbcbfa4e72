//! The final checks of a history: what was acknowledged exists, what was revoked does not, and all nodes have equal
//! states.

use conclave_cluster::Cluster;
use conclave_state::{State, ids::UserId, snapshot};

use crate::promise::{Broken, Promise};

use super::{
    traffic::is_live,
    world::{SimWorld, nodes},
};

/// True if all nodes run and have applied the same index.
pub(super) fn agree(world: &SimWorld) -> bool {
    let running = world.running();
    let mut indexes: Vec<u64> = running.values().map(|cluster| cluster.view().index()).collect();
    indexes.dedup();
    running.len() == nodes().count() && indexes.len() == 1
}

/// A description of each broken promise.
pub(super) fn at_the_end(world: &SimWorld) -> Vec<Broken> {
    let running = world.running();
    if !agree(world) {
        let at = |(node, cluster): (&u64, &Cluster)| {
            format!(
                "node {node} at {} under {:?}, {:?}",
                cluster.view().index(),
                cluster.leader_id(),
                cluster.readiness()
            )
        };
        let places: Vec<String> = running.iter().map(at).collect();
        let how = format!("the nodes do not reach the same index: {}", places.join("; "));
        return vec![Promise::WorksAgain.broken(how)];
    }
    let mut broken = Vec::new();
    let digests: Vec<_> = running.values().map(|cluster| snapshot::digest(&cluster.view())).collect();
    if digests.windows(2).any(|pair| pair.first() != pair.last()) {
        broken.push(Promise::EqualDigests.broken("the digests differ at the same index"));
    }
    for (node, cluster) in &running {
        broken.extend(missing(world, *node, &cluster.view()));
    }
    broken
}

/// Everything that was acknowledged and is missing, or was ended and still exists, in a state that this node serves
/// from.
pub(super) fn missing(world: &SimWorld, node: u64, state: &State) -> Vec<Broken> {
    let users = world.users().into_iter().filter(|id| state.user(UserId::new(*id)).is_none());
    let mut broken: Vec<Broken> = users
        .map(|id| {
            Promise::AcknowledgedStays.broken(format!(
                "node {node} lacks the user {:032x}, whose creation was acknowledged",
                u128::from_be_bytes(id)
            ))
        })
        .collect();
    for (session_id, must_live) in world.sessions_at_the_end() {
        match (must_live, is_live(state, session_id)) {
            (Some(true), false) => broken.push(
                Promise::AcknowledgedStays.broken(format!("node {node} lost a session that was not revoked")),
            ),
            (Some(false), true) => broken.push(
                Promise::AcknowledgedStays
                    .broken(format!("node {node} has a session whose revocation was acknowledged")),
            ),
            _ => {}
        }
    }
    broken
}
