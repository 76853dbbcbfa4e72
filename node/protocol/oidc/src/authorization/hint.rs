//! `id_token_hint`: an ID token of this cluster, used as a hint of the user and the client. Its expiry is ignored (OIDC
//! RP-Initiated Logout §4, Core §3.1.2.1); its signature and issuer are checked.

use conclave_state::State;
use serde::Deserialize;

use conclave_crypto::{
    jwk::Alg,
    jwt::{Expect, unverified_kid},
};

use crate::Oidc;
use crate::token::tokens::ID_TYP;

/// The claims of an ID token that matter as a hint.
#[derive(Debug, Deserialize)]
pub(crate) struct Hint {
    iss: String,
    pub sub: String,
    pub aud: String,
    /// The session in which it was made.
    pub sid: Option<String>,
}

/// The reason why a hint cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It was not made here, or its key was removed.
    Foreign,
    /// This node cannot decide at the moment.
    Unavailable,
}

/// Reads a hint.
///
/// # Errors
/// [`Unread`].
pub(crate) async fn read(oidc: &Oidc, token: &str) -> Result<Hint, Unread> {
    let state = oidc.auth.cluster().serving_view(0).await.map_err(|_| Unread::Unavailable)?;
    verified(oidc, &state, token).ok_or(Unread::Foreign)
}

fn verified(oidc: &Oidc, state: &State, token: &str) -> Option<Hint> {
    let kid = unverified_kid(token).ok().flatten()?;
    let key = oidc.auth.signing().verifier(state, &kid)?;
    let claims = key.verify(token, Expect { typ: Some(ID_TYP), algs: &Alg::ALL }).ok()?;
    let hint: Hint = serde_json::from_slice(&claims).ok()?;
    (hint.iss == oidc.auth.settings().public_url.issuer()).then_some(hint)
}
