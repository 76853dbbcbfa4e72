//! Signing keys: the public half in clear, the private half sealed at the edge. Each algorithm has at most one active
//! key and one next key. The next key is already published, so that relying parties know it before it signs.

use std::sync::Arc;

use conclave_proto::{command::v1 as pb, state::v1 as rows};

use crate::{
    client::SigningAlgorithm,
    draft::Draft,
    reply::{Reason, Refusal, Reply, done},
    snapshot::Row,
    stamp::Stamp,
    state::State,
    text,
};

/// Most keys published at once.
const MAX_KEYS: usize = 64;
/// Longest public or sealed private key: RSA 4096 as PKCS#8 fits.
const MAX_KEY_BYTES: usize = 8192;

/// A signing key.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// RFC 7638 thumbprint; the `kid` header.
    pub kid: Arc<str>,
    /// Its signing algorithm.
    pub algorithm: SigningAlgorithm,
    /// The public key as a JWK, JSON.
    pub public_jwk: Vec<u8>,
    /// PKCS#8, sealed under the cluster's sealing key.
    pub sealed_private_key: Vec<u8>,
    /// Its stage.
    pub stage: KeyStage,
    /// Creation time.
    pub created_at: Stamp,
}

/// The stage of a key. It is published in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStage {
    /// Does not sign yet.
    Next,
    /// Signs new tokens, since this time.
    Active(Stamp),
    /// Replaced by another key; tokens that it signed are still verified.
    Retired {
        /// The time at which it became active.
        active_since: Stamp,
        /// The time at which it was replaced.
        at: Stamp,
    },
}

impl SigningKey {
    /// True if it signs new tokens.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        matches!(self.stage, KeyStage::Active(_))
    }

    fn retired_at(&self, at: Stamp) -> Self {
        match self.stage {
            KeyStage::Active(active_since) => {
                Self { stage: KeyStage::Retired { active_since, at }, ..self.clone() }
            }
            KeyStage::Next | KeyStage::Retired { .. } => self.clone(),
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

pub(crate) fn add(draft: &mut Draft, command: &pb::AddSigningKey) -> Result<Reply, Refusal> {
    let algorithm = crate::client::parse_algorithm(command.algorithm())?;
    let kid: Arc<str> = text::required("kid", &command.kid, text::MAX_TEXT_BYTES)?.into();
    let active = draft.state.active_key(algorithm).cloned();
    let taken = (command.only_if_absent && active.is_some())
        || (command.next && draft.state.next_key(algorithm).is_some())
        || draft.state.keys.contains_key(&kid);
    if taken {
        return Err(Refusal::new(Reason::KeyExists, "there is such a key already"));
    }
    if command.next && active.is_none() {
        return Err(Refusal::new(Reason::KeyUnknown, "there is no key that it could follow"));
    }
    if command.public_jwk.len() > MAX_KEY_BYTES
        || command.sealed_private_key.len() > MAX_KEY_BYTES
        || draft.state.keys.len() >= MAX_KEYS
    {
        return Err(Refusal::malformed("too many keys, or a key is too long"));
    }
    if let Some(active) = active.filter(|_| !command.next) {
        draft.state.put_key(active.retired_at(draft.at));
    }
    draft.state.put_key(SigningKey {
        kid,
        algorithm,
        public_jwk: command.public_jwk.clone(),
        sealed_private_key: command.sealed_private_key.clone(),
        stage: if command.next { KeyStage::Next } else { KeyStage::Active(draft.at) },
        created_at: draft.at,
    });
    Ok(done())
}

/// Makes the next key of its algorithm the active one. Succeeds without a change for a key that is active already.
pub(crate) fn activate(draft: &mut Draft, command: &pb::ActivateSigningKey) -> Result<Reply, Refusal> {
    let unknown = || Refusal::new(Reason::KeyUnknown, "there is no such key that is to follow");
    let next = draft.state.keys.get(command.kid.as_str()).cloned().ok_or_else(unknown)?;
    match next.stage {
        KeyStage::Active(_) => return Ok(done()),
        KeyStage::Retired { .. } => return Err(unknown()),
        KeyStage::Next => {}
    }
    if let Some(active) = draft.state.active_key(next.algorithm).cloned() {
        draft.state.put_key(active.retired_at(draft.at));
    }
    draft.state.put_key(SigningKey { stage: KeyStage::Active(draft.at), ..(*next).clone() });
    Ok(done())
}

/// Removes a key from publication. The active key of an algorithm cannot be removed: without it nothing could be
/// signed.
pub(crate) fn retire(draft: &mut Draft, command: &pb::RetireSigningKey) -> Result<Reply, Refusal> {
    let unknown = || Refusal::new(Reason::KeyUnknown, "there is no such key");
    let key = draft.state.keys.get(command.kid.as_str()).cloned().ok_or_else(unknown)?;
    if key.is_active() {
        return Err(Refusal::new(
            Reason::LastKey,
            "the active key cannot be retired; add its successor first",
        ));
    }
    draft.state.keys.remove(&key.kid);
    Ok(done())
}

impl State {
    /// The active key of this algorithm.
    pub fn active_key(&self, algorithm: SigningAlgorithm) -> Option<&Arc<SigningKey>> {
        self.keys.values().find(|key| key.is_active() && key.algorithm == algorithm)
    }

    /// The next key of this algorithm.
    pub fn next_key(&self, algorithm: SigningAlgorithm) -> Option<&Arc<SigningKey>> {
        self.keys.values().find(|key| key.stage == KeyStage::Next && key.algorithm == algorithm)
    }

    /// The key with this id.
    pub fn key(&self, kid: &str) -> Option<&Arc<SigningKey>> {
        self.keys.get(kid)
    }

    /// Every published key, in order of key id.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<SigningKey>> {
        self.keys.values()
    }

    pub(crate) fn put_key(&mut self, key: SigningKey) {
        self.keys.insert(key.kid.clone(), Arc::new(key));
    }
}

impl Row for SigningKey {
    const TABLE: u32 = 11;
    type Wire = rows::SigningKeyRow;

    fn to_wire(&self) -> rows::SigningKeyRow {
        let (active_since, retired_at) = match self.stage {
            KeyStage::Next => (Stamp(0), Stamp(0)),
            KeyStage::Active(since) => (since, Stamp(0)),
            KeyStage::Retired { active_since, at } => (active_since, at),
        };
        rows::SigningKeyRow {
            kid: self.kid.to_string(),
            algorithm: self.algorithm.into(),
            public_jwk: self.public_jwk.clone(),
            sealed_private_key: self.sealed_private_key.clone(),
            active: self.is_active(),
            created_at_ms: self.created_at.0,
            active_since_ms: if active_since == self.created_at { 0 } else { active_since.0 },
            retired_at_ms: retired_at.0,
        }
    }

    fn from_wire(wire: rows::SigningKeyRow) -> Result<Self, Refusal> {
        let algorithm = SigningAlgorithm::try_from(wire.algorithm)
            .map_err(|_| Refusal::malformed("an algorithm of a newer version"))?;
        let active_since =
            Stamp(if wire.active_since_ms == 0 { wire.created_at_ms } else { wire.active_since_ms });
        let stage = match (wire.active, wire.retired_at_ms) {
            (true, _) => KeyStage::Active(active_since),
            (false, 0) => KeyStage::Next,
            (false, at) => KeyStage::Retired { active_since, at: Stamp(at) },
        };
        Ok(Self {
            kid: wire.kid.into(),
            algorithm,
            public_jwk: wire.public_jwk,
            sealed_private_key: wire.sealed_private_key,
            stage,
            created_at: Stamp(wire.created_at_ms),
        })
    }

    fn put(self, state: &mut State) {
        state.put_key(self);
    }
}
