//! **The cluster secret in use**, known by its id alone, and the sealed keys that outlive earlier secrets. The rules
//! never see a key: they only check that the replacement of a value was made from that very value.

use std::sync::Arc;

use conclave_proto::{
    command::v1::{self as pb, resealed},
    state::v1 as rows,
};

use crate::{
    draft::Draft,
    key::SigningKey,
    reply::{Reason, Refusal, Reply, done},
    stamp::Stamp,
    upstream::Upstream,
};

/// Longest sealed keys: one key, and a handful of earlier ones.
const MAX_SEALED_BYTES: usize = 4096;
/// Most values resealed by one entry: each is included twice, the former and the new value, and an entry must stay
/// below 64 KiB.
pub const MAX_RESEALED: usize = 3;
/// Longest sealed value: the longest kind of value that is stored sealed.
const MAX_VALUE_BYTES: usize = 8192;

/// The id of a cluster secret; it does not reveal the secret.
pub type SecretId = [u8; 16];

/// The secret from which every node that has it derives new keys.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretInUse {
    /// Its id.
    pub id: SecretId,
    /// The keys that outlive their secret (`conclave.state.v1.KeptKeys`), sealed under this one.
    pub sealed: Vec<u8>,
    /// The time since which it is in use.
    pub changed_at: Stamp,
}

impl std::fmt::Debug for SecretInUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretInUse").field("changed_at", &self.changed_at).finish_non_exhaustive()
    }
}

impl SecretInUse {
    pub(crate) fn to_wire(&self) -> rows::SecretRow {
        rows::SecretRow {
            secret_id: self.id.to_vec(),
            sealed: self.sealed.clone(),
            changed_at_ms: self.changed_at.0,
        }
    }

    pub(crate) fn from_wire(wire: &rows::SecretRow) -> Option<Self> {
        let id = wire.secret_id.as_slice().try_into().ok()?;
        Some(Self { id, sealed: wire.sealed.clone(), changed_at: Stamp(wire.changed_at_ms) })
    }
}

/// Parses the id in a command.
pub(crate) fn parse_id(bytes: &[u8]) -> Result<SecretId, Refusal> {
    bytes.try_into().map_err(|_| Refusal::malformed("the name of a secret has 16 bytes"))
}

pub(crate) fn change(draft: &mut Draft, command: &pb::ChangeSecret) -> Result<Reply, Refusal> {
    let id = parse_id(&command.secret_id)?;
    if command.sealed.is_empty() || command.sealed.len() > MAX_SEALED_BYTES {
        return Err(Refusal::malformed("the keys that are kept are missing or too long"));
    }
    let present = draft.state.meta.secret.as_ref().map_or(&[][..], |secret| &secret.sealed);
    if present != command.before {
        return Err(Refusal::new(Reason::AlreadyExists, "the secret in use was changed by another"));
    }
    let changed_at = draft.at;
    draft.state.meta.secret = Some(Arc::new(SecretInUse { id, sealed: command.sealed.clone(), changed_at }));
    Ok(done())
}

/// Replaces sealed values. A value that is gone or has changed is skipped: the command that changed it sealed it under
/// the new secret.
pub(crate) fn reseal(draft: &mut Draft, command: &pb::Reseal) -> Result<Reply, Refusal> {
    if command.values.len() > MAX_RESEALED {
        return Err(Refusal::malformed(format!("at most {MAX_RESEALED} values are sealed anew at once")));
    }
    for value in &command.values {
        if value.sealed.is_empty() || value.sealed.len() > MAX_VALUE_BYTES {
            return Err(Refusal::malformed("a sealed value is missing or too long"));
        }
        match &value.row {
            Some(resealed::Row::SigningKey(kid)) => reseal_key(draft, kid, value),
            Some(resealed::Row::Upstream(name)) => reseal_upstream(draft, name, value),
            None => return Err(Refusal::malformed("a sealed value of an unknown row")),
        }
    }
    Ok(done())
}

fn reseal_key(draft: &mut Draft, kid: &str, value: &pb::Resealed) {
    let found = draft.state.keys.get(kid).filter(|key| key.sealed_private_key == value.before).cloned();
    if let Some(key) = found {
        draft.state.put_key(SigningKey { sealed_private_key: value.sealed.clone(), ..(*key).clone() });
    }
}

fn reseal_upstream(draft: &mut Draft, name: &str, value: &pb::Resealed) {
    let found = draft.state.upstreams.get(name).filter(|row| row.sealed_secret == value.before).cloned();
    if let Some(row) = found {
        draft.state.put_upstream(Upstream { sealed_secret: value.sealed.clone(), ..(*row).clone() });
    }
}
