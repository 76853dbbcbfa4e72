//! Access tokens that come back: what one says, and whether it is still good. The same judgement for userinfo,
//! introspection, revocation and exchange, so that none of them accepts what another refuses.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_state::{
    State,
    client::{Client, GrantType},
    ids::{AccessTokenId, GrantId},
    user::User,
};

use crate::auth::{Auth, policy::Circumstances};
use conclave_cluster::ViewError;
use conclave_crypto::{
    jwk::Alg,
    jwt::{Expect, VerifyingKey, unverified_kid},
};

use super::{
    Oidc,
    tokens::{ACCESS_PURPOSE, ACCESS_TYP, AccessClaims},
};

/// An access token that is good in this version of the state.
pub struct Live {
    pub claims: AccessClaims,
    pub state: Arc<State>,
    /// The client that holds it.
    pub client: Arc<Client>,
    /// Who let the client have it; none for a client's own token.
    pub person: Option<Arc<User>>,
}

/// Why a token does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dead {
    /// Not ours, over, ended, or no longer allowed: nobody's business which.
    Invalid,
    /// This node is behind and cannot tell.
    Unavailable,
}

/// The token, if it is good now as far as anybody in the cluster knows.
///
/// # Errors
/// [`Dead`].
pub async fn live(oidc: &Oidc, token: &str) -> Result<Live, Dead> {
    let Read { claims, kid } = opened(oidc, token).await.ok_or(Dead::Invalid)?;
    let state = match oidc.auth.cluster().serving_view(claims.idx).await {
        Ok(state) => state,
        Err(ViewError::FromTheFuture) => return Err(Dead::Invalid),
        Err(ViewError::Behind) => return Err(Dead::Unavailable),
    };
    // The signature was checked with a key that this node knew; that the key still stands is for the same version to
    // say as all else.
    if kid.is_some_and(|kid| state.key(&kid).is_none()) {
        return Err(Dead::Invalid);
    }
    judged(claims, state, &oidc.auth).ok_or(Dead::Invalid)
}

/// What a token of this cluster's present life says, dead or alive. Its seal or signature is checked before anything in
/// it is used.
pub async fn read(oidc: &Oidc, token: &str) -> Option<AccessClaims> {
    opened(oidc, token).await.map(|read| read.claims)
}

/// What a token says, and the key that vouches for it; none for one that is sealed.
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

/// A key may have been made a moment ago on another node: before a token is called foreign, the leader is asked.
async fn key(oidc: &Oidc, kid: &str) -> Option<VerifyingKey> {
    if let Some(key) = oidc.auth.signing().verifier(&oidc.auth.cluster().view(), kid) {
        return Some(key);
    }
    oidc.auth.signing().verifier(&*oidc.auth.cluster().confirmed_view().await?, kid)
}

fn judged(claims: AccessClaims, state: Arc<State>, auth: &Auth) -> Option<Live> {
    let now = auth.now(&state);
    if claims.exp.saturating_mul(1_000) <= now.0 {
        return None;
    }
    // With the token that it was exchanged for ends what it was exchanged into.
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
    Some(Live { claims, state, client, person })
}

/// Both the client that was let in and, after an exchange, the one that holds the token must still be able to.
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

/// The row that an early end of this token would have.
pub fn token_id(jti: &str) -> Option<AccessTokenId> {
    let bytes: [u8; 16] = URL_SAFE_NO_PAD.decode(jti).ok()?.try_into().ok()?;
    Some(AccessTokenId::new(bytes))
}
