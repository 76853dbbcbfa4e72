//! The callback of a sign-in: all checks before a user is signed in. The transaction must be this browser's. The
//! response must come from the requested server. The token must be of the expected user. That user's own documents must
//! still name that server.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
    response::Response,
};
use conclave_proto::command::v1::{SpendProofs, command::Body};
use conclave_state::State as Rows;
use futures_util::future::join;
use tokio::time::timeout;
use tracing::{Instrument as _, info_span};

use super::{
    Atproto,
    error::AtmosphereError,
    exchange::{Exchange, Token},
    profile::{self, Profile},
    resolve::ResolvedIdentity,
    server,
    transaction::Transaction,
};
use conclave_auth::{
    AuthError,
    ticket::LoginStep,
    upstream::{UpstreamIdentity, UpstreamLogin, is_decided_by_handle, is_kept_by_handle},
    write_key::WriteKey,
};
use conclave_base::propagation;
use conclave_cluster::{RemoteView, VerificationReason};
use conclave_http::{ClientInfo, Fault, RequestId, cookie::Cookies};
use conclave_web::pages::{Browser, CallbackContext};

/// Time limit for everything: two documents, a post, three more documents.
const LIMIT: Duration = Duration::from_secs(20);
/// Maximum length of an accepted parameter.
const MAX_VALUE_BYTES: usize = 2_048;

/// The callback's parameters, each at most once.
#[derive(Debug, Default)]
struct CallbackParameters {
    state: String,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

impl CallbackParameters {
    fn parse(query: &str) -> Result<Self, AtmosphereError> {
        let mut parameters = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            if value.len() > MAX_VALUE_BYTES {
                return Err(AtmosphereError::StateInvalid);
            }
            let before = match &*name {
                "state" if parameters.state.is_empty() => {
                    parameters.state = value;
                    None
                }
                "code" => parameters.code.replace(value),
                "iss" => parameters.iss.replace(value),
                "error" => parameters.error.replace(value),
                "state" => Some(value),
                _ => None,
            };
            if before.is_some() {
                return Err(AtmosphereError::StateInvalid);
            }
        }
        Ok(parameters)
    }
}

pub(crate) async fn handle_callback(
    State(atproto): State<Atproto>,
    id: RequestId,
    client: ClientInfo,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.unwrap_or_default();
    let parameters = match CallbackParameters::parse(&query) {
        Ok(parameters) => parameters,
        Err(error) => return atproto.site.fault(&error.fault(), &id),
    };
    let cookie = Transaction::cookie(&parameters.state);
    let handling = async {
        let browser = atproto.site.browser(&headers)?;
        let transaction = transaction(&atproto, &browser, &headers, &parameters).map_err(|e| e.fault())?;
        // Continues the trace of the start, on whichever node that was.
        let span = info_span!("atproto.callback");
        propagation::resume(&span, &transaction.trace);
        let completing = async {
            let (identity, profile) =
                proved(&atproto, &transaction, &parameters).await.map_err(|e| e.fault())?;
            let name = transaction.upstream.clone();
            let context = CallbackContext {
                site: &atproto.site,
                id: &id,
                headers: &headers,
                client: &client,
                name: &name,
                browser,
            };
            let (state, login) =
                (transaction.state, UpstreamLogin::of_verified_callback(transaction.ticket, &name));
            let response = context.complete(login, &identity, &state).await?;
            if let Some(profile) = profile {
                let taking = profile::take_over(atproto.clone(), name.clone(), identity.subject, profile);
                tokio::spawn(taking.instrument(info_span!("atproto.profile")));
            }
            Ok(response)
        };
        completing.instrument(span).await
    };
    let response = handling.await.unwrap_or_else(|fault: Fault| atproto.site.fault(&fault, &id));
    // The sign-in has ended, with either result; only a failure of the cluster leaves it open for another attempt.
    if response.status().is_server_error() {
        response
    } else {
        atproto.site.without_own_cookie(&cookie, response)
    }
}

/// The transaction that this browser began, if the response is for it and comes from the requested server.
fn transaction(
    atproto: &Atproto,
    browser: &Browser,
    headers: &HeaderMap,
    parameters: &CallbackParameters,
) -> Result<Transaction, AtmosphereError> {
    let cookies = Cookies::of(headers);
    let name = atproto.site.own_cookie_name(&Transaction::cookie(&parameters.state));
    let text = cookies.get(&name).ok().flatten().ok_or(AtmosphereError::StateInvalid)?;
    let transaction = Transaction::open(&atproto.site.auth, text, browser.id.as_str())
        .map_err(|_| AtmosphereError::StateInvalid)?;
    if transaction.state() != parameters.state {
        return Err(AtmosphereError::StateInvalid);
    }
    if parameters.iss.as_deref() != Some(&transaction.issuer) {
        return Err(AtmosphereError::IssuerMismatch);
    }
    Ok(transaction)
}

/// Runs all checks; returns the identity.
///
/// The address was counted at the start, and each start has one response.
async fn proved(
    atproto: &Atproto,
    transaction: &Transaction,
    parameters: &CallbackParameters,
) -> Result<(UpstreamIdentity, Option<Profile>), AtmosphereError> {
    if parameters.error.is_some() {
        return Err(AtmosphereError::Denied);
    }
    let code =
        parameters.code.as_deref().filter(|code| !code.is_empty()).ok_or(AtmosphereError::StateInvalid)?;
    let (client, _) = atproto.open().await?;
    let (index, state) = spend(atproto, transaction).await?;
    let proving = async {
        let net = atproto.net();
        let server = server::described(net, &transaction.issuer).await?;
        let exchange = Exchange { auth: &atproto.site.auth, net, client, server: &server, transaction };
        let token = exchange.redeem(code).await?;
        let judged = judged(atproto, transaction, &token).await;
        // Boxed: two concurrent requests would otherwise be a large part of this future.
        let fetching = Box::pin(fetch_profile(atproto, judged.as_ref().ok()));
        let (profile, ()) = join(fetching, exchange.revoke(&token.access)).await;
        judged.map(|resolved| (resolved, profile))
    };
    let slow = || AtmosphereError::Unreachable(conclave_http::outbound::OutboundError::TooSlow);
    let (resolved, profile) = timeout(LIMIT, proving).await.map_err(|_| slow())??;
    let name = profile.as_ref().map(|profile| profile.name.clone()).unwrap_or_default();
    let mut identity = UpstreamIdentity { name, ..identity(&resolved, transaction) };
    if !matches!(transaction.ticket.step, LoginStep::Login { .. }) {
        return Ok((identity, profile));
    }
    let (upstream, now) = (&transaction.upstream, atproto.site.auth.now(&state));
    let reason = VerificationReason::SignIn { state: transaction.proof(), index };
    if is_decided_by_handle(&state, upstream, &identity, now) {
        confirmed_elsewhere(atproto, &identity, reason).await?;
    } else if is_kept_by_handle(&state, upstream, &identity)
        && confirmed_elsewhere(atproto, &identity, reason).await.is_err()
    {
        // The user may sign in, but the handle stays unverified until the next check.
        identity.verified_handle.clear();
        identity.username.clear();
    }
    Ok((identity, profile))
}

/// The user's public profile, if the configuration imports it.
async fn fetch_profile(atproto: &Atproto, resolved: Option<&ResolvedIdentity>) -> Option<Profile> {
    if !atproto.site.auth.settings().atmosphere.import_profile {
        return None;
    }
    profile::read(atproto.net(), resolved?).await
}

/// Requires a second node, if there is one, to confirm the handle of the DID. Called if the handle affects access.
async fn confirmed_elsewhere(
    atproto: &Atproto,
    identity: &UpstreamIdentity,
    reason: VerificationReason,
) -> Result<(), AtmosphereError> {
    match atproto.site.auth.cluster().resolve_on_peer(&identity.subject, reason).await {
        RemoteView::Alone => Ok(()),
        RemoteView::Seen(Some(handle)) if handle == identity.verified_handle => Ok(()),
        RemoteView::Seen(other) => {
            let (did, here) = (&identity.subject, &identity.verified_handle);
            tracing::warn!(
                "{did} has the handle {here:?} from here, and {:?} from another node",
                other.unwrap_or_default()
            );
            Err(AtmosphereError::HandleDisputed)
        }
        RemoteView::Unknown => Err(AtmosphereError::NoSecondLook),
    }
}

/// Spends the response, once in the cluster. This is written before the code is redeemed, so that a cluster that cannot
/// write at the moment leaves the code for another attempt. Each attempt has a fresh request id; otherwise a second
/// callback would count as a retry of the first.
async fn spend(atproto: &Atproto, transaction: &Transaction) -> Result<(u64, Arc<Rows>), AtmosphereError> {
    let auth = &atproto.site.auth;
    // A response that is sent again and again must not make the log grow.
    if auth.cluster().view().is_ticket_spent(transaction.proof()) {
        return Err(AtmosphereError::StateInvalid);
    }
    let write_key = WriteKey::fresh(&auth.deriving_keys().request, &*auth.runtime().entropy);
    let command = Body::SpendProofs(SpendProofs { proofs: vec![transaction.spent()] });
    match auth.cluster().propose(write_key.request(), command).await.map_err(AuthError::from) {
        Ok(committed) => Ok((committed.index, committed.state)),
        Err(AuthError::Refused(_)) => Err(AtmosphereError::StateInvalid),
        Err(error) => Err(error.into()),
    }
}

/// Checks the token's DID: it must be the expected one, and its own documents must name the server that issued the
/// token.
#[tracing::instrument(name = "atproto.judge", skip_all)]
async fn judged(
    atproto: &Atproto,
    transaction: &Transaction,
    token: &Token,
) -> Result<ResolvedIdentity, AtmosphereError> {
    if transaction.did.as_deref().is_some_and(|meant| meant != token.did.as_str()) {
        return Err(AtmosphereError::SubjectMismatch);
    }
    let resolved = atproto.resolver.by_did(&token.did).await?;
    if server::issuer_of(atproto.net(), &resolved.pds).await? != transaction.issuer {
        return Err(AtmosphereError::SubjectMismatch);
    }
    Ok(resolved)
}

/// The identity of the user. From the server only the DID is trusted; the handle was verified by us. The name in the
/// profile is added for new users, for display only.
fn identity(resolved: &ResolvedIdentity, transaction: &Transaction) -> UpstreamIdentity {
    let handle = resolved.handle.as_ref().map(|handle| handle.as_str().to_owned()).unwrap_or_default();
    UpstreamIdentity {
        subject: resolved.did.as_str().to_owned(),
        username: handle.clone(),
        verified_handle: handle,
        first_token_hash: transaction.first_token_hash.clone(),
        ..UpstreamIdentity::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_parameter_counts_twice() {
        for twice in ["state=a&state=b", "state=a&code=x&code=y", "iss=a&iss=a", "error=x&error=y"] {
            assert!(CallbackParameters::parse(twice).is_err(), "{twice}");
        }
        let parameters =
            CallbackParameters::parse("code=c&state=s&iss=i&session_state=x&session_state=y").unwrap();
        assert_eq!((parameters.state.as_str(), parameters.code.as_deref()), ("s", Some("c")));
        assert!(CallbackParameters::parse(&format!("state={}", "a".repeat(3_000))).is_err());
    }
}
