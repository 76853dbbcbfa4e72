//! The cluster secret: the progress of a change from one to the next, and ending everything after a leak. No secret is
//! ever shown, only names of secrets.

use conclave_proto::{
    admin::v1::{self as pb, secret_service_server::SecretService},
    command::v1::{RaiseRevocationEpoch, command::Body},
};
use conclave_state::State;
use tonic::{Request, Response, Status};

use conclave_cluster::MemberStatus;
use conclave_crypto::hex;

use super::Api;

/// The most app passwords that are named in one response.
const MAX_NAMED: usize = 1_000;

#[tonic::async_trait]
impl SecretService for Api {
    async fn get_secret_status(
        &self,
        request: Request<pb::GetSecretStatusRequest>,
    ) -> Result<Response<pb::SecretStatus>, Status> {
        let (reading, _) = self.read(request).await?;
        let mut members = self.auth.cluster().member_statuses().await;
        members.sort_by_key(|member| member.node);
        let mut status = self.of_state(&reading.state);
        status.nodes = members.iter().map(of_node).collect();
        status.reasons = why_not(&status);
        status.safe_to_drop = status.reasons.is_empty();
        status.reasons.extend(what_is_left(&status));
        reading.reply(status)
    }

    async fn end_everything(
        &self,
        request: Request<pb::EndEverythingRequest>,
    ) -> Result<Response<pb::EndEverythingResponse>, Status> {
        let (writing, _) = self.write(request, "EndEverything").await?;
        let committed = writing.propose(Body::RaiseRevocationEpoch(RaiseRevocationEpoch {})).await?;
        let revocation_epoch = committed.state.meta().revocation_epoch;
        writing.reply(&committed, pb::EndEverythingResponse { revocation_epoch })
    }
}

impl Api {
    fn of_state(&self, state: &State) -> pb::SecretStatus {
        let in_use = state.meta().secret.as_ref();
        let (values, lost) = self.auth.values_to_reseal();
        let others = state.app_passwords_after(None).filter(|row| match in_use {
            Some(secret) => row.secret_id != Some(secret.id),
            None => false,
        });
        let (mut count, mut named) = (0, Vec::new());
        for row in others {
            count += 1;
            if named.len() < MAX_NAMED {
                let owner = state.user(row.user).map_or("", |user| &user.username);
                named.push(format!("{} ({owner}: {})", row.id, row.name));
            }
        }
        pb::SecretStatus {
            secret_id: in_use.map(|secret| hex::encode(&secret.id)).unwrap_or_default(),
            changed_at_ms: in_use.map_or(0, |secret| secret.changed_at.0),
            sealed_under_other_key: (values.len() + lost) as u64,
            sealed_and_lost: lost as u64,
            app_passwords_under_other_key: count,
            app_passwords: named,
            retired: self.auth.retired_secrets().iter().map(|id| hex::encode(id)).collect(),
            ..pb::SecretStatus::default()
        }
    }
}

fn of_node(member: &MemberStatus) -> pb::SecretOfNode {
    let Ok(status) = &member.status else {
        return pb::SecretOfNode { id: member.node, ..pb::SecretOfNode::default() };
    };
    let mut ids = status.secret_ids.iter().map(|id| hex::encode(id));
    pb::SecretOfNode {
        id: member.node,
        reachable: true,
        makes_with: ids.next().unwrap_or_default(),
        accepts: ids.collect(),
        snapshot_under_other_key: status.snapshot_under_other_key,
    }
}

/// Every reason for which a node still needs a secret that it only accepts.
fn why_not(status: &pb::SecretStatus) -> Vec<String> {
    let mut reasons = Vec::new();
    let accepting = status.nodes.iter().any(|node| !node.accepts.is_empty());
    if accepting && status.secret_id.is_empty() {
        reasons.push("the cluster has not recorded the change yet; ask again in a moment".to_owned());
    }
    for node in &status.nodes {
        let id = node.id;
        if !node.reachable {
            reasons.push(format!("node {id} does not answer"));
        } else if !status.secret_id.is_empty() && node.makes_with != status.secret_id {
            reasons.push(format!(
                "node {id} uses the secret {}, the cluster {}",
                node.makes_with, status.secret_id
            ));
        } else if node.snapshot_under_other_key {
            reasons.push(format!(
                "the newest snapshot of node {id} is sealed under another key; the node takes a new one soon"
            ));
        }
    }
    if status.sealed_and_lost > 0 {
        reasons.push(format!(
            "{} values cannot be opened with the secrets of this node; add their secrets to cluster.accept_secret_files",
            status.sealed_and_lost
        ));
    }
    let waiting = status.sealed_under_other_key.saturating_sub(status.sealed_and_lost);
    if waiting > 0 {
        reasons.push(format!("{waiting} values have yet to be sealed again; the leader does this"));
    }
    reasons
}

/// Remaining work that does not prevent dropping the secret.
fn what_is_left(status: &pb::SecretStatus) -> Option<String> {
    (status.app_passwords_under_other_key > 0).then(|| {
        format!(
            "{} app passwords were not used since the change; they stay valid, and are hashed again when they are used",
            status.app_passwords_under_other_key
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64, makes_with: &str) -> pb::SecretOfNode {
        let accepts = vec!["old".to_owned()];
        pb::SecretOfNode { id, reachable: true, makes_with: makes_with.into(), accepts, ..Default::default() }
    }

    fn done() -> pb::SecretStatus {
        let nodes = (1..=3).map(|id| node(id, "new")).collect();
        pb::SecretStatus { secret_id: "new".into(), nodes, ..Default::default() }
    }

    #[test]
    fn a_secret_is_dropped_when_nothing_needs_it_and_not_before() {
        assert_eq!(why_not(&done()), Vec::<String>::new());
        let spoilt: [fn(&mut pb::SecretStatus); 6] = [
            |status| status.secret_id.clear(),
            |status| status.nodes[1] = node(2, "old"),
            |status| status.nodes[2].reachable = false,
            |status| status.nodes[0].snapshot_under_other_key = true,
            |status| status.sealed_under_other_key = 1,
            |status| (status.sealed_under_other_key, status.sealed_and_lost) = (1, 1),
        ];
        for (number, spoil) in spoilt.into_iter().enumerate() {
            let mut status = done();
            spoil(&mut status);
            assert_eq!(why_not(&status).len(), 1, "reason {number}: {:?}", why_not(&status));
        }
    }

    #[test]
    fn app_passwords_stand_against_nothing_and_are_told() {
        let status = pb::SecretStatus { app_passwords_under_other_key: 2, ..done() };
        assert!(why_not(&status).is_empty());
        assert!(what_is_left(&status).unwrap().starts_with("2 app passwords"));
    }
}
