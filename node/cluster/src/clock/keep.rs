//! Polls the clocks of the peers once a second and acts on the result: logs, and transfers the lead if this leader's
//! clock is wrong.

use std::{sync::Arc, time::Duration};

use conclave_clock::{ClockAnswer, ClockChange, ClockVerdict, ClusterReading, Micros, Standing};
use conclave_proto::cluster::v1 as pb;
use openraft::async_runtime::WatchReceiver as _;
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::{ClockTrouble, ClockWarning, ClusterClock};
use crate::{
    leader::Leader,
    leader_transfer,
    lease::Leases,
    peers::{ChannelKind, Peers},
    settings::SharedSettings,
    types::{Member, NodeId},
};

/// The interval between two comparisons of clocks. Even a bad oscillator drifts by far less than a millisecond in that
/// time.
const POLL: Duration = Duration::from_secs(1);
/// The pause while there is no agreement yet, so that a start is not delayed. It doubles up to [`POLL`].
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// The time limit of one reply. A slower reply says little about a clock.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// The least time between two attempts to transfer the lead, so that two nodes with wrong clocks do not pass it back
/// and forth.
const BETWEEN_HANDOVERS: Duration = Duration::from_mins(1);
/// The interval at which a lasting problem is logged again.
const REMIND: Duration = Duration::from_mins(1);

/// The state that the loop keeps between rounds.
struct Keeper {
    clock: Arc<ClusterClock>,
    leader: Leader,
    leases: Leases,
    peers: Arc<Peers>,
    settings: Arc<SharedSettings>,
    said: Option<(ClockTrouble, Instant)>,
    warned: Option<(ClockWarning, Instant)>,
    handed_over: Option<Instant>,
}

/// Runs until the task is dropped. Must be called inside the consensus runtime.
pub(crate) async fn run(leader: Leader, leases: Leases, peers: Arc<Peers>, settings: Arc<SharedSettings>) {
    let clock = Arc::clone(leader.clock());
    let mut keeper =
        Keeper { clock, leader, leases, peers, settings, said: None, warned: None, handed_over: None };
    let mut pause = FIRST_PAUSE;
    loop {
        let verdict = keeper.round().await;
        let agreed = verdict.is_some_and(|verdict| verdict.standing == Standing::Agreed);
        let changed = verdict.is_some_and(|verdict| verdict.change.is_some());
        pause = match (agreed, changed) {
            (_, true) => FIRST_PAUSE,
            (true, false) => POLL,
            (false, false) => POLL.min(pause * 2),
        };
        sleep(pause).await;
    }
}

impl Keeper {
    /// Polls every member, evaluates the clocks and acts on the verdict. Returns `None` while no member is known.
    async fn round(&mut self) -> Option<ClockVerdict> {
        let voters = voters(&self.leader);
        if voters.is_empty() {
            return None;
        }
        let own = self.peers.identity.node;
        let members = self.peers.identity.members();
        let asking = members.iter().filter(|(id, _)| *id != own).map(|(id, member)| self.ask(*id, member));
        futures_util::future::join_all(asking).await;
        let verdict = self.clock.look(&voters);
        self.report(&verdict);
        self.give_away_if_wrong(&verdict).await;
        Some(verdict)
    }

    async fn ask(&self, node: NodeId, member: &Member) {
        let Ok(mut client) = self.peers.client(Some(node), &member.cluster_addr, ChannelKind::Lease) else {
            return;
        };
        let request = pb::ReadClocksRequest { envelope: Some(self.peers.identity.envelope(node)) };
        let sent = self.clock.steady_us();
        let reply = timeout(ANSWER_LIMIT, client.read_clocks(request)).await;
        let received = self.clock.steady_us();
        match reply {
            Ok(Ok(reply)) => {
                let reply = reply.into_inner();
                self.settings.heard(node, &reply.settings_digest);
                self.clock.clocks().observe(node, answer_of(&reply), sent, received);
            }
            Ok(Err(status)) if status.code() == Code::Unimplemented => self.clock.clocks().cannot_tell(node),
            Ok(Err(_)) | Err(_) => {}
        }
    }

    /// Logs each change once. Logs a problem when it begins, once a minute while it lasts, and when it ends.
    fn report(&mut self, verdict: &ClockVerdict) {
        match verdict.change {
            Some(ClockChange::Stepped(by)) => {
                tracing::warn!(clock.step_us = by, "the cluster clock stepped: a quorum of clocks was set");
            }
            Some(ClockChange::Rejoined(by)) => tracing::warn!(
                clock.step_us = by,
                "this node's clock had drifted from the others; it follows the cluster clock again"
            ),
            Some(ClockChange::Reconciled(by)) => {
                tracing::warn!(clock.step_us = by, "the members' clocks had drifted apart; they agree again");
            }
            Some(ClockChange::Established) => tracing::debug!("the cluster clock is established"),
            None => {}
        }
        let now = Instant::now();
        self.warn(now);
        let trouble = self.clock.trouble();
        match (trouble, self.said) {
            (Some(trouble), Some((said, at))) if same(trouble, said) && now - at < REMIND => {}
            // At its start a node has not heard from the others yet.
            (Some(ClockTrouble::Unestablished | ClockTrouble::Alone), None) => {
                self.said = trouble.map(|it| (it, now))
            }
            (Some(trouble), _) => {
                tracing::warn!(clock.offset_us = verdict.wall_offset, "{trouble}");
                self.said = Some((trouble, now));
            }
            (None, Some((said, _))) => {
                if !matches!(said, ClockTrouble::Unestablished | ClockTrouble::Alone) {
                    tracing::info!("the clocks are in order again");
                }
                self.said = None;
            }
            (None, None) => {}
        }
    }

    /// Logs a warning when it begins, and once a minute while it lasts.
    fn warn(&mut self, now: Instant) {
        let warning = self.clock.warning();
        let kind = |warning: &ClockWarning| std::mem::discriminant(warning);
        match (warning, self.warned) {
            (Some(new), Some((said, at))) if kind(&new) == kind(&said) && now - at < REMIND => {}
            (Some(new), _) => {
                tracing::warn!("{new}");
                self.warned = Some((new, now));
            }
            (None, _) => self.warned = None,
        }
    }

    /// Transfers the lead if this leader's clock is wrong. Its stamps are correct, because they follow the cluster
    /// clock, but another node leads from here on.
    async fn give_away_if_wrong(&mut self, verdict: &ClockVerdict) {
        let is_wrong = verdict.is_wall_off || matches!(verdict.change, Some(ClockChange::Rejoined(_)));
        let too_soon = self.handed_over.is_some_and(|at| at.elapsed() < BETWEEN_HANDOVERS);
        if !is_wrong || too_soon || !self.leader.is_leader() {
            return;
        }
        self.handed_over = Some(Instant::now());
        tracing::warn!("this node's clock is wrong: transferring the lead to another node");
        let clock = &self.clock;
        leader_transfer::step_down(&self.leader, &self.leases, |node| clock.is_wall_of_peer_right(node))
            .await;
    }
}

/// True if both are the same kind of problem, whatever its size.
fn same(one: ClockTrouble, other: ClockTrouble) -> bool {
    std::mem::discriminant(&one) == std::mem::discriminant(&other)
}

fn voters(leader: &Leader) -> Vec<NodeId> {
    let metrics = leader.raft().metrics();
    let seen = metrics.borrow_watched();
    seen.membership_config.membership().voter_ids().collect()
}

fn answer_of(reply: &pb::ReadClocksReply) -> ClockAnswer {
    let has_cluster = reply.cluster_us != 0;
    let at: Micros = reply.cluster_us;
    ClockAnswer {
        wall: reply.wall_us,
        cluster: has_cluster.then_some(ClusterReading { at, steps: reply.steps }),
    }
}

/// The reply to a peer's request.
pub(crate) fn reply_of(answer: ClockAnswer, settings: &SharedSettings) -> pb::ReadClocksReply {
    let cluster = answer.cluster;
    pb::ReadClocksReply {
        wall_us: answer.wall,
        cluster_us: cluster.map_or(0, |reading| reading.at),
        steps: cluster.map_or(0, |reading| reading.steps),
        settings_digest: settings.overall().to_vec(),
    }
}
