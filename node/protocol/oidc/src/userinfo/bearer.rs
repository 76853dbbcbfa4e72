//! Validation of access tokens for the other slices: returns a token's user without exposing how tokens are made.

use std::sync::Arc;

use conclave_state::ids::SessionId;
use futures_util::{FutureExt as _, future::BoxFuture};

use conclave_auth::{
    Auth, AuthError,
    machine_client::{AccessTokenUser, AccessTokens},
    session::SignedIn,
};
use conclave_web::pages::Site;

use crate::Oidc;
use crate::token::audience::Audience;
use crate::token::polls::Polls;
use crate::userinfo::access::{self, Dead};

/// The access token validator for the other slices.
pub fn access_tokens(auth: Auth, site: Arc<Site>) -> Arc<dyn AccessTokens> {
    let polls = Arc::new(Polls::new(auth.runtime().clone()));
    Arc::new(Oidc { auth, site, polls, documents: Arc::default() })
}

impl AccessTokens for Oidc {
    fn authenticate<'a>(
        &'a self,
        token: &'a str,
    ) -> BoxFuture<'a, Result<Option<AccessTokenUser>, AuthError>> {
        async move {
            match access::live(self, token).await {
                Ok(live) => Ok(spoken_for(self, live)),
                Err(Dead::Invalid) => Ok(None),
                Err(Dead::Unavailable) => Err(AuthError::Unavailable),
            }
        }
        .boxed()
    }
}

/// The session behind the token. A grant may outlive its session (`offline_access`), but the check requires a live
/// session.
fn spoken_for(oidc: &Oidc, live: access::LiveToken) -> Option<AccessTokenUser> {
    if live.claims.cnf.is_some() || live.person.is_none() {
        return None;
    }
    let session = SessionId::from_hex(live.claims.sid.as_deref()?)?;
    let (session, user) = live.state.live_session(session, oidc.auth.now(&live.state))?;
    let (session, user) = (Arc::clone(session), Arc::clone(user));
    if live.person.is_none_or(|person| person.id != user.id) {
        return None;
    }
    let audiences = match live.claims.aud {
        Audience::One(one) => vec![one],
        Audience::Several(several) => several,
    };
    Some(AccessTokenUser { signed_in: SignedIn { session, user, state: live.state }, audiences })
}
