//! Signing keys: public half in clear, private half sealed at the edge. Each algorithm has at most one active key.

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
/// Longest public or sealed private key: RSA 4096 as PKCS#8 stays below.
const MAX_KEY_BYTES: usize = 8192;

/// A signing key.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// RFC 7638 thumbprint; the `kid` header.
    pub kid: Arc<str>,
    /// What it signs with.
    pub algorithm: SigningAlgorithm,
    /// The public key as a JWK, JSON.
    pub public_jwk: Vec<u8>,
    /// PKCS#8, sealed under the cluster's sealing key.
    pub sealed_private_key: Vec<u8>,
    /// Whether new tokens are signed with it. A retired key is published only.
    pub active: bool,
    /// When it came.
    pub created_at: Stamp,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

pub(crate) fn add(draft: &mut Draft, order: &pb::AddSigningKey) -> Result<Reply, Refusal> {
    let algorithm = crate::client::parse_algorithm(order.algorithm())?;
    let kid: Arc<str> = text::required("kid", &order.kid, text::MAX_TEXT_BYTES)?.into();
    let active = draft.state.active_key(algorithm).cloned();
    if draft.state.keys.contains_key(&kid) || (order.only_if_absent && active.is_some()) {
        return Err(Refusal::new(Reason::KeyExists, "there is such a key already"));
    }
    if order.public_jwk.len() > MAX_KEY_BYTES
        || order.sealed_private_key.len() > MAX_KEY_BYTES
        || draft.state.keys.len() >= MAX_KEYS
    {
        return Err(Refusal::malformed("too many keys, or a key is too long"));
    }
    if let Some(active) = active {
        draft.state.put_key(SigningKey { active: false, ..(*active).clone() });
    }
    draft.state.put_key(SigningKey {
        kid,
        algorithm,
        public_jwk: order.public_jwk.clone(),
        sealed_private_key: order.sealed_private_key.clone(),
        active: true,
        created_at: draft.at,
    });
    Ok(done())
}

/// Takes a key out of publication. The active key of an algorithm stays: without it nothing could be signed.
pub(crate) fn retire(draft: &mut Draft, order: &pb::RetireSigningKey) -> Result<Reply, Refusal> {
    let unknown = || Refusal::new(Reason::KeyUnknown, "there is no such key");
    let key = draft.state.keys.get(order.kid.as_str()).cloned().ok_or_else(unknown)?;
    if key.active {
        return Err(Refusal::new(
            Reason::LastKey,
            "the active key cannot be retired; add its successor first",
        ));
    }
    draft.state.keys.remove(&key.kid);
    Ok(done())
}

impl State {
    /// The key that signs with this algorithm.
    pub fn active_key(&self, algorithm: SigningAlgorithm) -> Option<&Arc<SigningKey>> {
        self.keys.values().find(|key| key.active && key.algorithm == algorithm)
    }

    /// The key with this id.
    pub fn key(&self, kid: &str) -> Option<&Arc<SigningKey>> {
        self.keys.get(kid)
    }

    /// Every published key, in the order of their ids.
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
        rows::SigningKeyRow {
            kid: self.kid.to_string(),
            algorithm: self.algorithm.into(),
            public_jwk: self.public_jwk.clone(),
            sealed_private_key: self.sealed_private_key.clone(),
            active: self.active,
            created_at_ms: self.created_at.0,
        }
    }

    fn from_wire(wire: rows::SigningKeyRow) -> Result<Self, Refusal> {
        let algorithm = SigningAlgorithm::try_from(wire.algorithm)
            .map_err(|_| Refusal::malformed("an algorithm of a newer version"))?;
        Ok(Self {
            kid: wire.kid.into(),
            algorithm,
            public_jwk: wire.public_jwk,
            sealed_private_key: wire.sealed_private_key,
            active: wire.active,
            created_at: Stamp(wire.created_at_ms),
        })
    }

    fn put(self, state: &mut State) {
        state.put_key(self);
    }
}
