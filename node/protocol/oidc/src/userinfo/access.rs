//! Presented access tokens: their content and validity. Userinfo, introspection, revocation and exchange use this one
//! check, so that none of them accepts a token that another refuses.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_state::{
    State,
    client::{Client, GrantType},
    ids::{AccessTokenId, GrantId},
    user::User,
};

use conclave_auth::{Auth, policy::Circumstances};
use conclave_cluster::ViewError;
use conclave_crypto::{
    jwk::Alg,
    jwt::{Expect, VerifyingKey, unverified_kid},
};

use crate::Oidc;
use crate::token::tokens::{ACCESS_PURPOSE, ACCESS_TYP, AccessClaims};

/// An access token that is valid in this version of the state.
pub(crate) struct LiveToken {
    pub claims: AccessClaims,
    pub state: Arc<State>,
    /// The client that holds it.
    pub client: Arc<Client>,
    /// The user who authorized the client; `None` for a client's own token.
    pub person: Option<Arc<User>>,
}

/// The reason why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dead {
    /// Not made here, expired, revoked, or no longer allowed; deliberately not distinguished.
    Invalid,
    /// This node is behind and cannot decide.
    Unavailable,
}

/// Returns the token's content if it is valid now, according to a state with all acknowledged revocations.
///
/// # Errors
/// [`Dead`].
pub(crate) async fn live(oidc: &Oidc, token: &str) -> Result<LiveToken, Dead> {
    let Read { claims, kid } = opened(oidc, token).await.ok_or(Dead::Invalid)?;
    let state = match oidc.auth.cluster().serving_view(claims.idx).await {
        Ok(state) => state,
        Err(ViewError::FromTheFuture) => return Err(Dead::Invalid),
        Err(ViewError::Behind) => return Err(Dead::Unavailable),
    };
    // The signature was checked with a key from this node's view. Like all other facts, the key must still be in the
    // version of the state that is decided on.
    if kid.is_some_and(|kid| state.key(&kid).is_none()) {
        return Err(Dead::Invalid);
    }
    judged(claims, state, &oidc.auth).ok_or(Dead::Invalid)
}

/// The claims of a token of the current lineage, valid or not. Its seal or signature is checked before any of its
/// content is used.
pub(crate) async fn read(oidc: &Oidc, token: &str) -> Option<AccessClaims> {
    opened(oidc, token).await.map(|read| read.claims)
}

/// The claims of a token and the id of the key that signed it; `None` for a sealed token.
struct Read {
    claims: AccessClaims,
    kid: Option<String>,
}

async fn opened(oidc: &Oidc, token: &str) -> Option<Read> {
    let (json, kid) = if token.contains('.') {
        let (json, kid) = signed(oidc, token).await?;
        (json, Some(kid))
    } else {
        (sealed(oidc, token)?, None)
    };
    let claims: AccessClaims = serde_json::from_slice(&json).ok()?;
    let ours = claims.iss == oidc.auth.settings().public_url.issuer() && oidc.auth.knows_epoch(claims.epc);
    ours.then_some(Read { claims, kid })
}

fn sealed(oidc: &Oidc, token: &str) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    oidc.auth.access_tokens().open(ACCESS_PURPOSE, &bytes).ok()
}

async fn signed(oidc: &Oidc, token: &str) -> Option<(Vec<u8>, String)> {
    let kid = unverified_kid(token).ok().flatten()?;
    let key = key(oidc, &kid).await?;
    let json = key.verify(token, Expect { typ: Some(ACCESS_TYP), algs: &Alg::ALL }).ok()?;
    Some((json, kid))
}

/// Finds a verification key. It may have been made a moment ago on another node, so the leader is consulted before a
/// token counts as foreign.
async fn key(oidc: &Oidc, kid: &str) -> Option<VerifyingKey> {
    if let Some(key) = oidc.auth.signing().verifier(&oidc.auth.cluster().view(), kid) {
        return Some(key);
    }
    oidc.auth.signing().verifier(&*oidc.auth.cluster().confirmed_view().await?, kid)
}

fn judged(claims: AccessClaims, state: Arc<State>, auth: &Auth) -> Option<LiveToken> {
    let now = auth.now(&state);
    if claims.exp.saturating_mul(1_000) <= now.0 {
        return None;
    }
    // A token ends together with the token that it was exchanged for.
    let is_ended = |jti: &String| token_id(jti).is_none_or(|id| state.is_access_revoked(id));
    if claims.exchanged.iter().chain([&claims.jti]).any(is_ended) {
        return None;
    }
    let client = state.client(&claims.client_id).filter(|client| !client.disabled).cloned()?;
    let person = match &claims.gid {
        Some(gid) => Some(person(gid, &client, &state, auth)?),
        None if is_own(&claims, &client) => None,
        None => return None,
    };
    Some(LiveToken { claims, state, client, person })
}

/// The user of the grant. After an exchange, the client that the user authorized and the client that holds the token
/// must both still be allowed.
fn person(gid: &str, holder: &Client, state: &State, auth: &Auth) -> Option<Arc<User>> {
    let (grant, user) = state.live_grant(GrantId::from_hex(gid)?, auth.now(state))?;
    let first = state.client(grant.client.as_str()).filter(|client| !client.disabled)?;
    let exchanged = first.id != holder.id;
    let around = Circumstances::of_grant(state, grant);
    let stands = auth.client_admits(state, first, user, &around)
        && (!exchanged || auth.client_admits(state, holder, user, &around))
        && (!exchanged || holder.allows(GrantType::TokenExchange));
    stands.then(|| Arc::clone(user))
}

fn is_own(claims: &AccessClaims, client: &Client) -> bool {
    client.allows(GrantType::ClientCredentials)
        && claims.sub == client.id.as_str()
        && claims.idx >= client.own_tokens_since
}

/// The id of the row that would revoke this token early.
pub(crate) fn token_id(jti: &str) -> Option<AccessTokenId> {
    let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(jti).ok()?.try_into().ok()?;
    Some(AccessTokenId::new(bytes))
}
