//! **Rotation of the cluster secret**: the secret from which values are derived, the data that outlives its secret, and
//! the background work of a rotation.
//!
//! During a rotation nodes hold both secrets, and some derive from the old one while others derive from the new one.
//! Values that must be *equal* on every node (ids and secrets derived from a request, successors of refresh tokens) are
//! derived from the secret that the replicated state names, so that a retry at another node finds the result of the
//! first. Data that must outlive its secret is kept in the state, sealed: the key of pairwise subjects for ever, and
//! the keys of earlier secrets behind the long-lived credentials of users. See
//! `docs/decisions/0017-secret-rotation.md`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use conclave_proto::{
    command::v1::{ChangeSecret, RehashAppPassword, Reseal, Resealed, command::Body, resealed},
    state::v1::{KeptKeys, RetiredKeys},
};
use conclave_state::{
    Stamp, State,
    app_password::AppPassword,
    ids::{FamilyId, SecretHash},
    secret::{MAX_RESEALED, SecretInUse},
};
use prost::Message as _;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use conclave_crypto::{
    aead::{SealError, Sealer},
    handle::{HandleContents, HandleError, HandleKey, HandleKind, HandleSecret, LineageTag, refresh_secret},
    keys::{ClusterKeys, Key, KeyId},
    mac,
};

use super::{Auth, AuthError, machine_client::app_password_hash, write_key::WriteKey};

/// The interval at which a node checks. A check costs nothing when nothing is due, and a rotation should not have to
/// wait for it.
const PERIOD: Duration = Duration::from_secs(1);
/// Maximum number of earlier secrets whose keys are kept. Each is one more key with which a forged handle is compared.
const MAX_RETIRED: usize = 4;
/// Maximum number of app passwords rehashed at once; others are rehashed when they are next used.
const REHASHED_AT_ONCE: usize = 16;
/// The purpose that the seal of the kept keys is bound to.
const PURPOSE: &str = "kept-keys";

/// Opens and caches the keys that outlive their secret.
pub struct Secrets {
    sealer: Sealer,
    opened: Mutex<Option<(Arc<SecretInUse>, Arc<Kept>)>>,
    rehashing: Arc<Semaphore>,
}

/// The keys that outlive the secret from which they were derived.
#[derive(Debug)]
struct Kept {
    pairwise: Key,
    retired: Vec<Retired>,
}

/// The kept keys of an earlier secret.
#[derive(Debug)]
struct Retired {
    id: KeyId,
    mac: Key,
    /// `mac`, prepared as a handle key.
    handles: HandleKey,
    refresh: Key,
    app_password: Key,
    at: Stamp,
}

impl Secrets {
    pub fn new(keys: &ClusterKeys) -> Self {
        let sealer = Sealer::ring(keys, |keys| &keys.sealing);
        Self { sealer, opened: Mutex::default(), rehashing: Arc::new(Semaphore::new(REHASHED_AT_ONCE)) }
    }

    /// The keys kept in the state. If the row cannot be opened (it was sealed again while this node lacks the secret),
    /// the keys opened before are still valid: kept keys never change, new ones are only added.
    fn kept(&self, row: &Arc<SecretInUse>) -> Result<Arc<Kept>, SealError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, kept)) = opened.as_ref().filter(|(of, _)| Arc::ptr_eq(of, row) || of == row) {
            return Ok(Arc::clone(kept));
        }
        match self.open(&row.sealed) {
            Ok(kept) => {
                let kept = Arc::new(kept);
                *opened = Some((Arc::clone(row), Arc::clone(&kept)));
                Ok(kept)
            }
            Err(error) => opened.as_ref().map(|(_, kept)| Arc::clone(kept)).ok_or(error),
        }
    }

    fn open(&self, sealed: &[u8]) -> Result<Kept, SealError> {
        let plain = Zeroizing::new(self.sealer.open(PURPOSE, sealed)?);
        let kept = KeptKeys::decode(plain.as_slice()).map_err(|_| SealError::Malformed)?;
        Kept::from_wire(&kept).ok_or(SealError::Malformed)
    }
}

impl Kept {
    fn from_wire(wire: &KeptKeys) -> Option<Self> {
        let retired = wire.retired.iter().map(Retired::from_wire).collect::<Option<_>>()?;
        Some(Self { pairwise: key(&wire.pairwise)?, retired })
    }

    fn to_wire(&self) -> KeptKeys {
        KeptKeys {
            pairwise: self.pairwise.expose().to_vec(),
            retired: self.retired.iter().map(Retired::to_wire).collect(),
        }
    }
}

impl Retired {
    fn new(id: KeyId, mac: Key, refresh: Key, app_password: Key, at: Stamp) -> Self {
        Self { id, handles: HandleKey::new(&mac), mac, refresh, app_password, at }
    }

    fn of(keys: &ClusterKeys, at: Stamp) -> Self {
        let (mac, refresh) = (keys.cookie_mac.clone(), keys.refresh.clone());
        Self::new(keys.secret_check, mac, refresh, keys.app_password.clone(), at)
    }

    fn from_wire(wire: &RetiredKeys) -> Option<Self> {
        let id = wire.secret_id.as_slice().try_into().ok()?;
        let (mac, refresh) = (key(&wire.handle_mac)?, key(&wire.refresh)?);
        Some(Self::new(id, mac, refresh, key(&wire.app_password)?, Stamp(wire.retired_at_ms)))
    }

    fn to_wire(&self) -> RetiredKeys {
        RetiredKeys {
            secret_id: self.id.to_vec(),
            handle_mac: self.mac.expose().to_vec(),
            refresh: self.refresh.expose().to_vec(),
            app_password: self.app_password.expose().to_vec(),
            retired_at_ms: self.at.0,
        }
    }
}

fn key(bytes: &[u8]) -> Option<Key> {
    bytes.try_into().ok().map(Key::new)
}

impl Auth {
    /// The keys for values that every node must derive alike: those of the secret that the state names, if this node
    /// has it.
    pub fn deriving_keys(&self) -> &ClusterKeys {
        let (keys, state) = (self.cluster_keys(), self.cluster().view());
        let named = state.meta().secret.as_ref().and_then(|secret| keys.named(&secret.id));
        named.unwrap_or(keys)
    }

    /// The key of pairwise subjects: that of the first secret, for ever.
    ///
    /// # Errors
    /// Fails if it is kept under a secret that this node lacks.
    pub fn pairwise_key(&self) -> Result<Key, AuthError> {
        let state = self.cluster().view();
        let Some(row) = &state.meta().secret else {
            // Nothing is kept yet: the data directory records which secret is the first.
            let first = self.cluster_keys().named(&self.cluster().secret_of_data());
            return Ok(first.unwrap_or_else(|| self.cluster_keys()).pairwise.clone());
        };
        let kept = self.inner.secrets.kept(row);
        kept.map(|kept| kept.pairwise.clone()).map_err(|error| unusable(&error))
    }

    /// Checks that this node has the secrets that the state needs. Called at start, before the first request is served.
    ///
    /// # Errors
    /// Fails if this node lacks a secret.
    pub fn check_secrets(&self) -> Result<(), AuthError> {
        self.pairwise_key().map(drop)
    }

    /// Ids of retired secrets that stored data still depends on.
    pub fn retired_secrets(&self) -> Vec<KeyId> {
        self.kept().map(|kept| kept.retired.iter().map(|retired| retired.id).collect()).unwrap_or_default()
    }

    fn kept(&self) -> Option<Arc<Kept>> {
        let state = self.cluster().view();
        self.inner.secrets.kept(state.meta().secret.as_ref()?).ok()
    }

    /// Parses a handle that an earlier secret made. The MAC keeps attackers from making nodes wait for an index; the
    /// handle's own secret decides if it is accepted.
    pub(super) fn parse_of_earlier_secret(
        &self,
        kind: HandleKind,
        lineage: LineageTag,
        text: &str,
    ) -> Result<HandleContents, HandleError> {
        let kept = self.kept().ok_or(HandleError::Forged)?;
        let mut parsed = kept.retired.iter().map(|retired| retired.handles.parse(kind, lineage, text));
        parsed.find(|parsed| !matches!(parsed, Err(HandleError::Forged))).unwrap_or(Err(HandleError::Forged))
    }

    /// True if the secret of a refresh token matches its family and generation, under any secret of the ring. Under an
    /// earlier secret this holds only while the family has not been rotated since, so that a holder of that secret
    /// cannot make tokens for newer generations.
    pub fn is_refresh_secret(&self, handle: &HandleContents) -> bool {
        let is_of = |key: &Key| {
            let expected = refresh_secret(key, &handle.id, handle.generation);
            mac::equal(expected.expose(), handle.secret.expose())
        };
        if self.cluster_keys().any(|keys| is_of(&keys.refresh)) {
            return true;
        }
        let Some(kept) = self.kept() else { return false };
        let state = self.cluster().view();
        let rotated_at = state.family(FamilyId::new(handle.id)).map_or(Stamp(0), |family| family.rotated_at);
        // A retry with the last token from before the rotation is not newer: its successor is the current token.
        let is_older = |retired: &&Retired| rotated_at <= retired.at || is_retry(&state, handle);
        kept.retired.iter().filter(is_older).any(|retired| is_of(&retired.refresh))
    }

    /// True if this is the secret of the app password. A password hashed under another key than the current one is
    /// rehashed once.
    pub fn is_app_password(&self, row: &AppPassword, secret: &HandleSecret) -> bool {
        let is_of = |key: &Key| row.secret_hash.matches(&SecretHash::new(app_password_hash(key, secret)));
        let deriving = self.deriving_keys();
        if is_of(&deriving.app_password) {
            return true;
        }
        let of_ring = self.cluster_keys().any(|keys| is_of(&keys.app_password));
        let of_earlier = || {
            self.kept().is_some_and(|kept| kept.retired.iter().any(|retired| is_of(&retired.app_password)))
        };
        if !of_ring && !of_earlier() {
            return false;
        }
        self.rehash(RehashAppPassword {
            app_password_id: row.id.to_vec(),
            before: row.secret_hash.bytes().to_vec(),
            secret_hash: app_password_hash(&deriving.app_password, secret).to_vec(),
            secret_id: deriving.secret_check.to_vec(),
        });
        true
    }

    /// Rehashes in the background, because the check does not wait for a write.
    fn rehash(&self, command: RehashAppPassword) {
        let Ok(place) = Arc::clone(&self.inner.secrets.rehashing).try_acquire_owned() else { return };
        let auth = self.clone();
        tokio::spawn(async move {
            if let Err(error) = auth.propose(Body::RehashAppPassword(command)).await {
                tracing::debug!(%error, "an app password is hashed anew when it is next used");
            }
            drop(place);
        });
    }

    /// Runs until the task is dropped.
    pub async fn keep_to_the_secret(self) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.tend_secret().await {
                // Another leader may have done it; if not, it is due again in a moment.
                tracing::debug!(%error, "a step to the new secret was put off");
            }
        }
    }

    /// Does the steps that are due. The leader changes the secret in use to its own, and seals again every value that
    /// is under another secret. Once the state uses this node's secret, every node records that secret in its data
    /// directory.
    ///
    /// # Errors
    /// Fails if a write fails, or the kept keys cannot be opened.
    pub async fn tend_secret(&self) -> Result<(), AuthError> {
        if self.cluster().is_leader() {
            if let Some(command) = self.change_due()? {
                self.propose(Body::ChangeSecret(command)).await?;
                tracing::info!("keys are derived from another cluster secret from now on");
            }
            let (values, _) = self.values_to_reseal();
            for values in values.chunks(MAX_RESEALED) {
                self.propose(Body::Reseal(Reseal { values: values.to_vec() })).await?;
            }
        }
        let own = self.cluster_keys().secret_check;
        if self.cluster().view().meta().secret.as_ref().is_some_and(|secret| secret.id == own) {
            let settled = self.cluster().record_secret_id(own);
            settled.map_err(|error| AuthError::Internal(format!("the data directory: {error}")))?;
        }
        Ok(())
    }

    /// The change to this node's secret, if another one is in use. Nothing needs to be kept while there has been only
    /// one secret.
    fn change_due(&self) -> Result<Option<ChangeSecret>, AuthError> {
        let (keys, state) = (self.cluster_keys(), self.cluster().view());
        let (before, kept) = match &state.meta().secret {
            None if keys.accepted().is_empty() => return Ok(None),
            None => {
                let first = keys.named(&self.cluster().secret_of_data()).unwrap_or(keys);
                (
                    Vec::new(),
                    after(
                        &Kept { pairwise: first.pairwise.clone(), retired: Vec::new() },
                        first,
                        keys,
                        self.now(&state),
                    ),
                )
            }
            Some(row) if row.id == keys.secret_check && self.inner.secrets.sealer.is_current(&row.sealed) => {
                return Ok(None);
            }
            Some(row) => {
                let kept = self.inner.secrets.open(&row.sealed).map_err(|error| unusable(&error))?;
                let former = keys.named(&row.id).unwrap_or(keys);
                (row.sealed.clone(), after(&kept, former, keys, self.now(&state)))
            }
        };
        let plain = Zeroizing::new(kept.encode_to_vec());
        let sealed = self.inner.secrets.sealer.seal(PURPOSE, &plain, &*self.runtime().entropy);
        let sealed = sealed.map_err(|error| unusable(&error))?;
        Ok(Some(ChangeSecret { before, secret_id: keys.secret_check.to_vec(), sealed }))
    }

    /// Every value in the state that is not sealed under this node's key, sealed again; and the number of values that
    /// cannot be opened.
    pub fn values_to_reseal(&self) -> (Vec<Resealed>, usize) {
        let state = self.cluster().view();
        let entropy = &*self.runtime().entropy;
        let keys = state.keys().map(|row| {
            let name = resealed::Row::SigningKey(row.kid.to_string());
            (name, &row.sealed_private_key, self.signing().resealed(row, entropy))
        });
        let upstreams = state.upstreams().map(|row| {
            let name = resealed::Row::Upstream(row.name.to_string());
            (name, &row.sealed_secret, self.resealed_upstream(row))
        });
        let (mut values, mut lost) = (Vec::new(), 0);
        for (row, before, renewed) in keys.chain(upstreams) {
            match renewed {
                Ok(None) => {}
                Ok(Some(sealed)) => values.push(Resealed { row: Some(row), before: before.clone(), sealed }),
                Err(error) => {
                    lost += 1;
                    tracing::debug!(?row, %error, "a sealed value cannot be opened here");
                }
            }
        }
        (values, lost)
    }

    async fn propose(&self, body: Body) -> Result<(), AuthError> {
        let write_key = WriteKey::fresh(&self.cluster_keys().request, &*self.runtime().entropy);
        self.cluster().propose(write_key.request(), body).await?;
        Ok(())
    }
}

/// True if the token is the predecessor of the family's current one.
fn is_retry(state: &State, handle: &HandleContents) -> bool {
    let family = state.family(FamilyId::new(handle.id));
    family.is_some_and(|family| handle.generation.checked_add(1) == Some(family.generation))
}

/// The keys to keep when `own` replaces `former`.
fn after(kept: &Kept, former: &ClusterKeys, own: &ClusterKeys, now: Stamp) -> KeptKeys {
    let mut kept = kept.to_wire();
    kept.retired
        .retain(|retired| retired.secret_id != own.secret_check && retired.secret_id != former.secret_check);
    if former.secret_check != own.secret_check {
        kept.retired.push(Retired::of(former, now).to_wire());
    }
    let forgotten = kept.retired.len().saturating_sub(MAX_RETIRED);
    kept.retired.drain(..forgotten);
    kept
}

fn unusable(error: &SealError) -> AuthError {
    AuthError::Internal(format!("the keys that outlive their secret cannot be used: {error}"))
}
