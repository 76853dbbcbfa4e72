//! Userinfo (OIDC Core §5.3): claims for an access token whose grant is live in this node's state; as JSON, or as a JWT
//! for a client that is registered so (§5.3.2). A token bound to a key is accepted only with a proof of that key (RFC
//! 9449 §7).

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use conclave_proto::command::v1::{SpendProofs, SpentProof, command::Body};
use conclave_state::ids::GrantId;
use serde_json::{Map, Value, json};

use conclave_auth::claims::About;
use conclave_auth::{AuthError, write_key::WriteKey};
use conclave_cluster::ProposeError;

use crate::authorization::request::Parameters;
use crate::token::dpop::{self, DpopProof};
use crate::token::tokens::{Confirmation, ID_TYP};
use crate::userinfo::access::{self, LiveToken};
use crate::userinfo::claims;
use crate::{
    Oidc,
    error::{BearerError, no_store},
    head::RequestHead,
    paths,
};

/// A token, and the scheme with which it was presented (RFC 6750 §2, RFC 9449 §7.1).
enum Presented {
    Bearer(String),
    Dpop(String),
}

pub(crate) async fn by_get(State(oidc): State<Oidc>, headers: RequestHead) -> Response {
    let presented = in_header(&headers);
    respond(&oidc, &headers, answer(&oidc, &headers, "GET", presented).await)
}

/// The token may also be in the form body (RFC 6750 §2.2), but not in both places.
pub(crate) async fn by_post(State(oidc): State<Oidc>, headers: RequestHead, body: Bytes) -> Response {
    let in_body = Parameters::parse(&body).ok().and_then(|form| form.get("access_token").map(str::to_owned));
    let presented = match (in_header(&headers), in_body) {
        (Ok(_), Some(_)) => Err(BearerError::InvalidRequest),
        (Err(BearerError::Missing), Some(token)) => Ok(Presented::Bearer(token)),
        (from_header, _) => from_header,
    };
    respond(&oidc, &headers, answer(&oidc, &headers, "POST", presented).await)
}

fn respond(oidc: &Oidc, headers: &HeaderMap, result: Result<Response, BearerError>) -> Response {
    let mut response = result.unwrap_or_else(IntoResponse::into_response);
    if headers.contains_key(dpop::DPOP)
        && let Some(nonce) = dpop::next_nonce(oidc)
    {
        response.headers_mut().insert(dpop::DPOP_NONCE, nonce);
    }
    response
}

fn in_header(headers: &HeaderMap) -> Result<Presented, BearerError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(BearerError::Missing)?;
    if values.next().is_some() {
        return Err(BearerError::InvalidRequest);
    }
    let value = value.to_str().map_err(|_| BearerError::InvalidRequest)?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            Ok(Presented::Bearer(token.trim().to_owned()))
        }
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("dpop") => {
            Ok(Presented::Dpop(token.trim().to_owned()))
        }
        _ => Err(BearerError::InvalidRequest),
    }
}

#[tracing::instrument(name = "oidc.userinfo", skip_all)]
async fn answer(
    oidc: &Oidc,
    headers: &RequestHead,
    method: &str,
    presented: Result<Presented, BearerError>,
) -> Result<Response, BearerError> {
    let presented = presented?;
    let (Presented::Bearer(token) | Presented::Dpop(token)) = &presented;
    let proof = match &presented {
        Presented::Bearer(_) => None,
        Presented::Dpop(token) => {
            let proof = dpop::verify_proof(oidc, headers, method, paths::USERINFO, Some(token))?;
            Some(proof.ok_or(BearerError::InvalidDpopProof)?)
        }
    };
    let live = access::live(oidc, token).await?;
    bound_to_key(&live, proof.as_ref())?;
    bound_to_certificate(&live, headers)?;
    let claims = claims_for(oidc, &live)?;
    if let Some(proof) = proof {
        use_up(oidc, proof.spent_by(&live.claims.client_id)).await?;
    }
    respond_with_claims(oidc, &live, claims)
}

/// Checks the DPoP binding. A bound token without its key is a stolen one; a proof with an unbound token proves nothing
/// about it.
fn bound_to_key(live: &LiveToken, proof: Option<&DpopProof>) -> Result<(), BearerError> {
    let bound = live.claims.cnf.as_ref().and_then(|cnf| cnf.jkt.clone());
    if bound == proof.map(DpopProof::jkt_text) { Ok(()) } else { Err(BearerError::DpopTokenRefused) }
}

/// Checks the certificate binding: such a token is accepted only on a connection with that certificate (RFC 8705 §3).
fn bound_to_certificate(live: &LiveToken, head: &RequestHead) -> Result<(), BearerError> {
    let Some(bound) = live.claims.cnf.as_ref().and_then(|cnf| cnf.x5t.as_ref()) else { return Ok(()) };
    let shown = Confirmation::of(None, head.thumbprint()).and_then(|shown| shown.x5t);
    if shown.as_ref() == Some(bound) { Ok(()) } else { Err(BearerError::InvalidToken) }
}

fn claims_for(oidc: &Oidc, live: &LiveToken) -> Result<Map<String, Value>, BearerError> {
    let person = live.person.as_ref().ok_or(BearerError::InvalidToken)?;
    if !live.claims.aud.includes(oidc.auth.settings().public_url.issuer()) {
        return Err(BearerError::InvalidToken);
    }
    let scopes: Vec<String> = live.claims.scope.split(' ').map(str::to_owned).collect();
    if !scopes.iter().any(|scope| scope == "openid") {
        return Err(BearerError::InsufficientScope);
    }
    let issuer = oidc.auth.settings().public_url.issuer();
    let known = claims::ClaimSubject { user: person, state: &live.state, issuer };
    let mut claims = claims::of(&known, &scopes);
    let grant = live.claims.gid.as_deref().and_then(GrantId::from_hex).and_then(|id| live.state.grant(id));
    if let Some(grant) = grant {
        claims::add_named(&mut claims, &known, &grant.userinfo_claims);
    }
    if let Some(grant) = grant {
        let sign_in = (grant.auth_time.0, grant.amr.as_slice());
        let about = About { state: &live.state, user: person, sign_in, now_ms: oidc.auth.now(&live.state).0 };
        oidc.auth.claim_expressions().add(&mut claims, &live.client, &scopes, &about);
    }
    claims.insert("sub".into(), json!(live.claims.sub));
    Ok(claims)
}

/// Spends the proof: it is accepted once in the cluster. This is the last step, so that only a valid token can make the
/// log grow.
async fn use_up(oidc: &Oidc, proof: SpentProof) -> Result<(), BearerError> {
    let write_key = WriteKey::fresh(&oidc.auth.deriving_keys().request, &*oidc.auth.runtime().entropy);
    let command = Body::SpendProofs(SpendProofs { proofs: vec![proof] });
    match oidc.auth.cluster().propose(write_key.request(), command).await {
        Ok(_) => Ok(()),
        Err(ProposeError::Refused(_)) => Err(BearerError::InvalidDpopProof),
        Err(error) => {
            tracing::info!("a DPoP proof could not be spent: {}", AuthError::from(error));
            Err(BearerError::Unavailable)
        }
    }
}

fn respond_with_claims(
    oidc: &Oidc,
    live: &LiveToken,
    mut claims: Map<String, Value>,
) -> Result<Response, BearerError> {
    let Some(algorithm) = live.client.tokens.userinfo_algorithm else {
        return Ok((no_store(), Json(claims)).into_response());
    };
    claims.insert("iss".into(), json!(oidc.auth.settings().public_url.issuer()));
    claims.insert("aud".into(), json!(live.client.id.as_str()));
    let signed =
        oidc.auth.signing().signer(&live.state, algorithm).and_then(|key| {
            key.sign(ID_TYP, &claims).map_err(|error| AuthError::Internal(error.to_string()))
        });
    let text = signed.map_err(|error| {
        tracing::error!("userinfo could not be signed: {error}");
        BearerError::Unavailable
    })?;
    let mut headers = no_store();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwt"));
    Ok((headers, text).into_response())
}
