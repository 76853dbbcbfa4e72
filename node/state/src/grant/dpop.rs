//! The key that a redemption or a refresh must prove (RFC 9449). The proof itself was verified at the edge; its key is
//! compared here.

use crate::{
    client::Client,
    reply::{Reason, Refusal},
};

/// Parses a SHA-256 thumbprint (RFC 7638), or nothing.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<[u8; 32]>, Refusal> {
    match bytes {
        [] => Ok(None),
        bytes => bytes.try_into().map(Some).map_err(|_| Refusal::malformed("dpop_jkt must be 32 bytes")),
    }
}

/// Checks that the proved key is the one that the row is bound to, and that there is one if the client requires it.
pub(super) fn proved(
    client: &Client,
    bound: Option<[u8; 32]>,
    shown: Option<[u8; 32]>,
) -> Result<(), Refusal> {
    let is_bound_one = bound.is_none_or(|bound| shown == Some(bound));
    if is_bound_one && (shown.is_some() || !client.tokens.dpop_bound) {
        return Ok(());
    }
    Err(Refusal::new(Reason::DpopKeyMismatch, "bound to a DPoP key that was not proved"))
}

/// Checks the proved key of something that is not bound to a key yet.
pub(crate) fn proved_key(client: &Client, shown: &[u8]) -> Result<(), Refusal> {
    proved(client, None, parse(shown)?)
}
