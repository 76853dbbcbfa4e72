//! Settings that must be equal on all nodes, compared by digest. A node that differs from the others is not ready and
//! names the settings.
//!
//! Each reply about clocks carries one digest over all of them. Only if that differs is the peer asked for its list.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use conclave_crypto::mac::sha256;
use conclave_proto::cluster::v1 as pb;
use tokio::time::{Instant, sleep, timeout};

use super::{
    peers::{ChannelKind, Peers},
    types::NodeId,
};

/// Bytes of a digest in messages.
const DIGEST_BYTES: usize = 16;
/// The time for which a node that has served before stays ready with settings that differ from those of most others. It
/// is long enough to restart the other nodes with the new value one after the other, even if each waits for the one
/// before to be ready. A node that starts for the first time gets no such time: its settings were never right.
const ROLLOUT: Duration = Duration::from_mins(10);
/// The interval at which peers that differ are asked for their list.
const PERIOD: Duration = Duration::from_secs(2);
/// The time limit of a peer's list.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// One setting, or all of them, as a digest.
type Digest = Vec<u8>;

/// The shared settings of this node, and what is known of those of the others.
#[derive(Debug, Default)]
pub(crate) struct SharedSettings {
    own: BTreeMap<String, Digest>,
    overall: Digest,
    heard: Mutex<BTreeMap<NodeId, Digest>>,
    differing: Mutex<Vec<SettingDifference>>,
    /// Until this time a difference does not keep this node from being ready.
    rollout_until: Option<Instant>,
}

/// A setting whose value on this node differs from other members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SettingDifference {
    /// The name as in the configuration.
    pub name: String,
    /// The members that have another value.
    pub others: Vec<NodeId>,
    /// True if more members share another value than share this node's: this node is the one to be corrected.
    pub is_minority: bool,
}

impl SharedSettings {
    /// Creates them from names and values in a canonical form.
    pub(crate) fn new(settings: impl IntoIterator<Item = (String, String)>) -> Self {
        let own: BTreeMap<String, Digest> =
            settings.into_iter().map(|(name, value)| (name, short_digest(value.as_bytes()))).collect();
        let all: Vec<u8> = own.iter().flat_map(|(name, value)| [name.as_bytes(), value].concat()).collect();
        let overall = if own.is_empty() { Digest::new() } else { short_digest(&all) };
        Self { own, overall, ..Self::default() }
    }

    /// Grants [`ROLLOUT`] if the node has served before (`has_served`).
    #[must_use]
    pub(crate) fn rolled_out(self, has_served: bool) -> Self {
        Self { rollout_until: has_served.then(|| Instant::now() + ROLLOUT), ..self }
    }

    /// The differences that keep this node from being ready.
    pub(crate) fn blocking(&self) -> Vec<SettingDifference> {
        self.blocking_at(Instant::now())
    }

    fn blocking_at(&self, now: Instant) -> Vec<SettingDifference> {
        if self.rollout_until.is_some_and(|until| now < until) {
            return Vec::new();
        }
        self.differing().into_iter().filter(|difference| difference.is_minority).collect()
    }

    /// The digest over all settings; empty if none are compared.
    pub(crate) fn overall(&self) -> &[u8] {
        &self.overall
    }

    /// The settings for the status of this node.
    pub(crate) fn listed(&self) -> Vec<pb::SettingDigest> {
        let listed = self.own.iter();
        listed
            .map(|(name, digest)| pb::SettingDigest { name: name.clone(), digest: digest.clone() })
            .collect()
    }

    /// Records a peer's digest. A build that compares nothing sends an empty one.
    pub(crate) fn heard(&self, peer: NodeId, overall: &[u8]) {
        if overall.is_empty() {
            lock(&self.heard).remove(&peer);
        } else {
            lock(&self.heard).insert(peer, overall.to_vec());
        }
    }

    /// The settings that differ from other members', by name.
    pub(crate) fn differing(&self) -> Vec<SettingDifference> {
        lock(&self.differing).clone()
    }

    fn compare(&self, others: &BTreeMap<NodeId, BTreeMap<String, Digest>>) -> Vec<SettingDifference> {
        self.own.iter().filter_map(|(name, own)| Self::difference(name, own, others)).collect()
    }

    /// Compares one setting. Members that do not know it run another version and are not compared.
    fn difference(
        name: &str,
        own: &Digest,
        others: &BTreeMap<NodeId, BTreeMap<String, Digest>>,
    ) -> Option<SettingDifference> {
        let theirs = || others.iter().filter_map(|(node, theirs)| Some((*node, theirs.get(name)?)));
        let mut votes: BTreeMap<&Digest, usize> = BTreeMap::from([(own, 1)]);
        for (_, other) in theirs() {
            *votes.entry(other).or_default() += 1;
        }
        let differ: Vec<NodeId> = theirs().filter(|(_, other)| *other != own).map(|(node, _)| node).collect();
        let mine = votes.get(own).copied().unwrap_or(1);
        let most =
            votes.iter().filter(|(value, _)| **value != own).map(|(_, count)| *count).max().unwrap_or(0);
        (!differ.is_empty()).then(|| SettingDifference {
            name: name.to_owned(),
            others: differ,
            is_minority: most > mine,
        })
    }
}

impl std::fmt::Display for SettingDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let others: Vec<String> = self.others.iter().map(ToString::to_string).collect();
        let (noun, others) = (if others.len() == 1 { "node" } else { "nodes" }, others.join(", "));
        write!(f, "the setting {} differs from that of {noun} {others}", self.name)
    }
}

/// Runs until the task is dropped.
pub(crate) async fn run(settings: Arc<SharedSettings>, peers: Arc<Peers>) {
    if settings.own.is_empty() {
        return;
    }
    loop {
        let differing = round(&settings, &peers).await;
        report(&lock(&settings.differing), &differing);
        *lock(&settings.differing) = differing;
        sleep(PERIOD).await;
    }
}

async fn round(settings: &SharedSettings, peers: &Peers) -> Vec<SettingDifference> {
    let members = peers.identity.members();
    let heard = lock(&settings.heard).clone();
    if heard.values().all(|overall| *overall == settings.overall) {
        return Vec::new();
    }
    let others = members.iter().filter(|(id, _)| *id != peers.identity.node && heard.contains_key(id));
    let asking = others.map(|(id, member)| async move {
        let mut client = peers.client(Some(*id), &member.cluster_addr, ChannelKind::Control).ok()?;
        let envelope = Some(peers.identity.envelope(*id));
        let asking = client.status(pb::StatusRequest { envelope, with_digest: false });
        let status = timeout(ANSWER_LIMIT, asking).await.ok()?.ok()?.into_inner();
        let theirs = status.settings.into_iter().map(|setting| (setting.name, setting.digest)).collect();
        Some((*id, theirs))
    });
    let answers = futures_util::future::join_all(asking).await;
    settings.compare(&answers.into_iter().flatten().collect())
}

/// Logs a difference when it is first seen, and when it ends.
fn report(before: &[SettingDifference], now: &[SettingDifference]) {
    for new in now.iter().filter(|new| !before.contains(new)) {
        tracing::warn!(
            setting = %new.name,
            "{new}; all nodes must have one value: a node that differs from most is not ready; a restarted node has {} min until then",
            ROLLOUT.as_secs() / 60
        );
    }
    if now.is_empty() && !before.is_empty() {
        tracing::info!("the settings of all nodes agree again");
    }
}

fn short_digest(bytes: &[u8]) -> Digest {
    sha256(bytes).into_iter().take(DIGEST_BYTES).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> SharedSettings {
        SharedSettings::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    fn others(nodes: &[(NodeId, &SharedSettings)]) -> BTreeMap<NodeId, BTreeMap<String, Digest>> {
        nodes.iter().map(|(node, settings)| (*node, settings.own.clone())).collect()
    }

    #[test]
    fn the_node_that_differs_from_two_others_is_the_one_to_be_corrected() {
        let right = settings(&[("http.public_url", "https://a"), ("http.trusted_proxies", "10.0.0.0/24")]);
        let wrong = settings(&[("http.public_url", "https://a"), ("http.trusted_proxies", "")]);
        assert_ne!(right.overall(), wrong.overall());
        let seen = wrong.compare(&others(&[(1, &right), (2, &right)]));
        assert_eq!(
            seen,
            [SettingDifference {
                name: "http.trusted_proxies".into(),
                others: vec![1, 2],
                is_minority: true
            }]
        );
        assert_eq!(seen[0].to_string(), "the setting http.trusted_proxies differs from that of nodes 1, 2");
        let seen = right.compare(&others(&[(1, &right), (3, &wrong)]));
        assert_eq!(seen[0].others, [3]);
        assert!(!seen[0].is_minority);
    }

    #[test]
    fn one_against_one_stays_ready_so_that_a_change_can_be_rolled_through_the_cluster() {
        let (old, new) =
            (settings(&[("login.session_ttl", "12h")]), settings(&[("login.session_ttl", "8h")]));
        assert!(!old.compare(&others(&[(2, &new)]))[0].is_minority);
        assert!(!new.compare(&others(&[(1, &old)]))[0].is_minority);
    }

    #[test]
    fn a_setting_that_another_version_does_not_know_is_not_compared() {
        let (old, new) = (settings(&[("a", "1")]), settings(&[("a", "1"), ("b", "2")]));
        assert!(old.compare(&others(&[(2, &new), (3, &new)])).is_empty());
        assert!(new.compare(&others(&[(1, &old), (2, &old)])).is_empty());
        let odd = settings(&[("a", "2")]);
        assert!(odd.compare(&others(&[(2, &new), (3, &new)]))[0].is_minority);
    }

    #[test]
    fn a_node_that_has_served_stays_ready_while_a_change_is_rolled_through_the_cluster() {
        let differ = |settings: SharedSettings| {
            let minority = SettingDifference { name: "a".into(), others: vec![1, 2], is_minority: true };
            *lock(&settings.differing) = vec![minority];
            settings
        };
        let (restarted, new) =
            (differ(settings(&[]).rolled_out(true)), differ(settings(&[]).rolled_out(false)));
        assert_eq!((restarted.blocking().len(), new.blocking().len()), (0, 1));
        assert_eq!(restarted.blocking_at(Instant::now() + ROLLOUT).len(), 1);
    }
}
