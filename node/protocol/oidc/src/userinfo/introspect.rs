//! Token introspection (RFC 7662; as a signed JWT, RFC 9701): a token's content and validity, for a confidential client
//! that holds it or is its audience. The response to everything else is `{"active": false}`, whatever the reason.

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use conclave_state::{
    client::Client,
    ids::{FamilyId, GrantId},
};
use serde_json::{Map, Value, json};

use conclave_auth::{AuthError, claims::About, policy::Circumstances};
use conclave_crypto::handle::HandleKind;

use crate::clients::authentication as client_auth;
use crate::form::read_form;
use crate::token::exchange::is_meant_for;
use crate::token::tokens::token_type;
use crate::userinfo::access::{self, Dead, LiveToken};
use crate::userinfo::claims;
use crate::{
    Oidc,
    error::{TokenError, no_store},
    head::RequestHead,
};

/// The media type and `typ` of a signed response (RFC 9701 §5).
const JWT_TYPE: &str = "application/token-introspection+jwt";
const JWT_TYP: &str = "token-introspection+jwt";

/// The members of a response about a valid token.
type Facts = Map<String, Value>;

pub(crate) async fn endpoint(State(oidc): State<Oidc>, headers: RequestHead, body: Bytes) -> Response {
    match answer(&oidc, &headers, &body).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

#[tracing::instrument(name = "oidc.introspect", skip_all)]
async fn answer(oidc: &Oidc, headers: &RequestHead, body: &[u8]) -> Result<Response, TokenError> {
    let (form, _) = read_form(oidc, "introspect", headers, body, b"")?;
    let (known, _) = client_auth::authenticate_now(oidc, headers, &form).await?;
    if known.client.is_public() {
        // Any attacker could send requests in its name.
        return Err(TokenError::InvalidClient {
            basic: false,
            why: "introspection requires client authentication; a public client cannot use it",
        });
    }
    let caller = known.used_up(oidc, None).await?;
    let token = form.get("token").ok_or(TokenError::InvalidRequest("token is missing"))?;
    let facts = facts(oidc, &caller, token).await?;
    let answer = facts.unwrap_or_else(|| Map::from_iter([("active".to_owned(), json!(false))]));
    if wants_jwt(headers) {
        return signed(oidc, &caller, &answer);
    }
    Ok((no_store(), Json(answer)).into_response())
}

async fn facts(oidc: &Oidc, caller: &Client, token: &str) -> Result<Option<Facts>, TokenError> {
    if let Some(facts) = of_refresh(oidc, caller, token).await? {
        return Ok(Some(facts));
    }
    match access::live(oidc, token).await {
        Ok(live) if may_see(&live, caller) => Ok(Some(of_access(oidc, &live))),
        Ok(_) | Err(Dead::Invalid) => Ok(None),
        Err(Dead::Unavailable) => Err(TokenError::Unavailable),
    }
}

fn may_see(live: &LiveToken, caller: &Client) -> bool {
    live.claims.client_id == caller.id.as_str() || is_meant_for(&live.claims.aud, caller)
}

fn of_access(oidc: &Oidc, live: &LiveToken) -> Facts {
    let claims = &live.claims;
    let mut facts = of_person(oidc, live);
    let mut put = |name: &str, value: Value| facts.insert(name.to_owned(), value);
    put("active", json!(true));
    put("iss", json!(claims.iss));
    put("sub", json!(claims.sub));
    put("aud", json!(claims.aud));
    put("client_id", json!(claims.client_id));
    put("scope", json!(claims.scope));
    put("token_type", json!(token_type(claims)));
    put("iat", json!(claims.iat));
    put("exp", json!(claims.exp));
    put("jti", json!(claims.jti));
    for (name, value) in [
        ("sid", json!(claims.sid)),
        ("auth_time", json!(claims.auth_time)),
        ("cnf", json!(claims.cnf)),
        ("act", json!(claims.act)),
    ] {
        if !value.is_null() {
            put(name, value);
        }
    }
    facts
}

/// The facts about the token's user: the claims of its scopes, the client's own claims, and `username` (RFC 7662 §2.2).
/// For a client with pairwise subjects the username is disclosed only with `profile`.
fn of_person(oidc: &Oidc, live: &LiveToken) -> Facts {
    let Some(user) = &live.person else { return Map::new() };
    let scopes: Vec<String> = live.claims.scope.split(' ').map(str::to_owned).collect();
    let issuer = oidc.auth.settings().public_url.issuer();
    let mut facts = claims::of(&claims::ClaimSubject { user, state: &live.state, issuer }, &scopes);
    let grant = live.claims.gid.as_deref().and_then(GrantId::from_hex).and_then(|id| live.state.grant(id));
    if let Some(grant) = grant {
        let sign_in = (grant.auth_time.0, grant.amr.as_slice());
        let about = About { state: &live.state, user, sign_in, now_ms: oidc.auth.now(&live.state).0 };
        oidc.auth.claim_expressions().add(&mut facts, &live.client, &scopes, &about);
    }
    let is_pairwise = !live.client.tokens.pairwise_sector.is_empty();
    if !is_pairwise || scopes.iter().any(|scope| scope == "profile") {
        facts.entry("username").or_insert_with(|| json!(&*user.username));
    }
    facts
}

/// A refresh token, for the client that holds it; only the current one of its family.
async fn of_refresh(oidc: &Oidc, caller: &Client, token: &str) -> Result<Option<Facts>, TokenError> {
    let Some(handle) = oidc.auth.parse(HandleKind::Refresh, token) else { return Ok(None) };
    if !oidc.auth.is_refresh_secret(&handle) {
        return Ok(None);
    }
    let Some(state) = oidc.auth.state_at(&handle).await? else { return Ok(None) };
    let now = oidc.auth.now(&state);
    let family = state
        .family(FamilyId::new(handle.id))
        .filter(|family| family.generation == handle.generation && !family.expires_at.is_over_at(now));
    let live = family.and_then(|family| Some((family, state.live_grant(family.grant, now)?)));
    let Some((family, (grant, user))) = live else { return Ok(None) };
    let around = Circumstances::of_grant(&state, grant);
    if grant.client != caller.id || !oidc.auth.client_admits(&state, caller, user, &around) {
        return Ok(None);
    }
    Ok(Some(Map::from_iter([
        ("active".to_owned(), json!(true)),
        ("iss".to_owned(), json!(oidc.auth.settings().public_url.issuer())),
        ("sub".to_owned(), json!(oidc.auth.subject(caller, user)?)),
        ("client_id".to_owned(), json!(caller.id.as_str())),
        ("scope".to_owned(), json!(grant.scopes.join(" "))),
        ("exp".to_owned(), json!(family.expires_at.0 / 1_000)),
    ])))
}

fn wants_jwt(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted
        .split(',')
        .any(|part| part.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case(JWT_TYPE)))
}

fn signed(oidc: &Oidc, caller: &Client, answer: &Facts) -> Result<Response, TokenError> {
    let state = oidc.auth.cluster().view();
    let key = oidc.auth.signing().signer(&state, caller.signing_algorithm)?;
    let claims = json!({
        "iss": oidc.auth.settings().public_url.issuer(),
        "aud": caller.id.as_str(),
        "iat": oidc.auth.now(&state).0 / 1_000,
        "token_introspection": answer,
    });
    let text = key.sign(JWT_TYP, &claims).map_err(|e| AuthError::Internal(e.to_string()))?;
    let mut headers = no_store();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JWT_TYPE));
    Ok((headers, text).into_response())
}
