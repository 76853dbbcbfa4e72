//! Helpers that only tests of this room need: access to the log, a snapshot at once, the parts behind the handle.

use std::time::Duration;

use conclave_proto::cluster::v1 as pb;
use openraft::async_runtime::WatchReceiver as _;

use tonic::transport::Channel;

use super::{Cluster, ClusterOptions, StartError, consensus::Consensus, transport, types::NodeId};
use conclave_crypto::tls::ClusterTls;
use conclave_store::{LogWriter, SledLog, StoreError};

pub use super::{
    machine::{LocalSnapshots, StateMachine},
    propose::{HOLD, MAX_WAITING},
    rt::{FaultInjection, GrantFault, inject, seed},
    transport::{Dialling, Inbound, Probing, Stream, Wire},
};

type Metrics = openraft::metrics::RaftMetrics<super::types::Config>;

/// The longest wait for what Raft does by itself.
const LIMIT: Duration = Duration::from_secs(20);

/// A connection to the cluster plane at `addr`, as a member makes it.
///
/// # Errors
/// An error if `addr` is not a valid address.
pub fn channel(
    tls: &ClusterTls,
    addr: &str,
    node: Option<NodeId>,
) -> Result<Channel, tonic::transport::Error> {
    let wire: std::sync::Arc<dyn transport::Wire> = std::sync::Arc::new(transport::TlsWire::new(tls));
    transport::channel(&wire, addr, node, std::sync::Arc::default())
}

impl Cluster {
    /// Runs [`Cluster::start`] over a log that the test can hold up or break.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_with_log(
        options: ClusterOptions,
        write_log: impl FnOnce(SledLog) -> Result<LogWriter, StoreError> + Send + 'static,
    ) -> Result<Self, StartError> {
        let open = |at: &std::path::Path, new| {
            write_log(if new { SledLog::create(at)? } else { SledLog::open(at)? })
        };
        Self::start_over(options, Consensus::start, open).await
    }

    /// Runs [`Cluster::start`] on the runtime of the caller, over a log of its own: a simulator provides both.
    /// `open_log` gets the path of the log and true if it is new.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_simulated(
        options: ClusterOptions,
        open_log: impl FnOnce(&std::path::Path, bool) -> Result<LogWriter, StoreError> + Send + 'static,
    ) -> Result<Self, StartError> {
        Self::start_over(options, || Ok(Consensus::here()), open_log).await
    }

    /// The voters, as this node knows them; all of them in a joint configuration.
    pub fn voters(&self) -> Vec<NodeId> {
        let metrics = self.inner.leader.raft().metrics().borrow_watched().clone();
        metrics.membership_config.membership().voter_ids().collect()
    }

    /// The term this node is in.
    pub fn term(&self) -> u64 {
        self.inner.leader.raft().metrics().borrow_watched().current_term
    }

    /// Makes this node believe that the leader's stream has ended.
    pub fn suspect(&self, leader: NodeId) {
        self.inner.peers.lost.stream_ended(leader);
    }

    /// Waits until the leader that this node sees is as wanted. Returns `None` if this does not happen within the
    /// limit.
    pub async fn leader_when(&self, wanted: impl Fn(Option<NodeId>) -> bool) -> Option<NodeId> {
        let mut metrics = self.inner.leader.raft().metrics();
        let waiting = async {
            loop {
                let leader = metrics.borrow_watched().current_leader;
                if wanted(leader) {
                    return leader;
                }
                metrics.changed().await.ok()?;
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.ok().flatten()
    }

    /// Takes a snapshot of everything that is applied. Returns its index.
    ///
    /// # Errors
    /// The error of openraft.
    pub async fn take_snapshot(&self) -> Result<u64, String> {
        let raft = self.inner.leader.raft();
        // Raft's metrics lag behind what it has applied.
        let seen = Some(self.view().index());
        let known = raft.wait(Some(LIMIT)).applied_index_at_least(seen, "what is seen").await;
        let applied = known.map_err(|e| e.to_string())?.last_applied.ok_or("nothing is applied")?;
        raft.trigger().snapshot().await.map_err(|e| e.to_string())?;
        let taken = |m: &Metrics| m.snapshot >= Some(applied);
        raft.wait(Some(LIMIT)).metrics(taken, "a snapshot").await.map_err(|e| e.to_string())?;
        Ok(applied.index)
    }

    /// Takes a snapshot and purges the log behind it.
    ///
    /// # Errors
    /// The error of openraft.
    pub async fn compact(&self) -> Result<(), String> {
        let upto = self.take_snapshot().await?;
        let raft = self.inner.leader.raft();
        raft.trigger().purge_log(upto).await.map_err(|e| e.to_string())?;
        let purged = |m: &Metrics| m.purged.is_some_and(|id| id.index >= upto);
        raft.wait(Some(LIMIT)).metrics(purged, "a purge").await.map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Holds this node back if `held` is true: it takes entries and applies none until it is released.
    pub fn hold_back(&self, held: bool) {
        self.inner.leader.view().held.send_replace(held);
    }

    /// The envelope of this node's messages to `to`.
    pub fn envelope(&self, to: NodeId) -> pb::Envelope {
        self.inner.peers.identity.envelope(to)
    }
}
