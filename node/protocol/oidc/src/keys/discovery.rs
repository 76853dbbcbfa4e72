//! Discovery (OIDC Discovery §4, RFC 8414) and JWKS. Both state exactly what this cluster supports, including every
//! `false`. They are equal on every node: discovery comes from the configuration, JWKS from one version of the state.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::IntoResponse,
};
use serde_json::{Value, json};

use conclave_config::{Mtls, PublicUrl, Registration};

use crate::grant_type;
use crate::keys::acr;
use crate::token::dpop;
use crate::userinfo::claims;
use crate::{Oidc, paths};

/// Algorithms that sign tokens, userinfo and introspection responses, and that client assertions may use.
const ALGORITHMS: [&str; 4] = ["RS256", "PS256", "ES256", "EdDSA"];
/// Authentication methods of confidential clients.
const CONFIDENTIAL_METHODS: [&str; 3] = ["client_secret_basic", "client_secret_post", "private_key_jwt"];
/// Authentication methods including public clients.
const AUTH_METHODS: [&str; 4] = ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"];

/// Caching time of both documents. Shorter than the time for which a key is published before it signs.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

pub(crate) async fn configuration(State(oidc): State<Oidc>) -> impl IntoResponse {
    let url = &oidc.auth.settings().public_url;
    let mtls = &oidc.auth.settings().mtls;
    let mut document = json!({
        "issuer": url.issuer(),
        "authorization_endpoint": url.join(paths::AUTHORIZE),
        "token_endpoint": url.join(paths::TOKEN),
        "userinfo_endpoint": url.join(paths::USERINFO),
        "jwks_uri": url.join(paths::JWKS),
        "end_session_endpoint": url.join(paths::LOGOUT),
        "pushed_authorization_request_endpoint": url.join(paths::PUSH),
        "require_pushed_authorization_requests": oidc.auth.settings().authorization.require_pushed,
        "device_authorization_endpoint": url.join(paths::DEVICE),
        "scopes_supported":
            ["openid", "profile", "email", "address", "phone", "groups", "offline_access"],
        "response_types_supported": ["code"],
        "response_modes_supported": ["query", "fragment", "form_post"],
        "grant_types_supported": [
            "authorization_code",
            "refresh_token",
            "client_credentials",
            grant_type::DEVICE_CODE,
            grant_type::TOKEN_EXCHANGE,
        ],
        "subject_types_supported": ["public", "pairwise"],
        "id_token_signing_alg_values_supported": ALGORITHMS,
        "userinfo_signing_alg_values_supported": ALGORITHMS,
        "token_endpoint_auth_methods_supported": methods(&AUTH_METHODS, mtls),
        "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "introspection_endpoint": url.join(paths::INTROSPECT),
        "introspection_endpoint_auth_methods_supported": methods(&CONFIDENTIAL_METHODS, mtls),
        "introspection_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "introspection_signing_alg_values_supported": ALGORITHMS,
        "revocation_endpoint": url.join(paths::REVOKE),
        "revocation_endpoint_auth_methods_supported": methods(&AUTH_METHODS, mtls),
        "revocation_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        "dpop_signing_alg_values_supported": dpop::ALGORITHMS,
        "code_challenge_methods_supported": ["S256"],
        "acr_values_supported": acr::SUPPORTED,
        "claim_types_supported": ["normal"],
        "claims_supported": claims::supported(),
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "authorization_response_iss_parameter_supported": true,
        "claims_parameter_supported": true,
        "backchannel_logout_supported": true,
        "backchannel_logout_session_supported": true,
        "frontchannel_logout_supported": true,
        "frontchannel_logout_session_supported": true,
        "request_parameter_supported": true,
        "request_object_signing_alg_values_supported": ALGORITHMS,
        "request_uri_parameter_supported": false,
        "require_request_uri_registration": false,
    });
    // An endpoint that refuses every request is not advertised (RFC 8414 §2).
    if oidc.auth.settings().authorization.registration != Registration::Off
        && let Some(members) = document.as_object_mut()
    {
        members.insert("registration_endpoint".into(), json!(url.join(paths::REGISTER)));
    }
    if let Some(members) = document.as_object_mut() {
        let takes_documents = !oidc.auth.settings().authorization.client_documents.is_empty();
        members.insert("client_id_metadata_document_supported".into(), json!(takes_documents));
        members.insert("tls_client_certificate_bound_access_tokens".into(), json!(mtls.is_on));
        if let Some(alias) = &mtls.alias {
            members.insert("mtls_endpoint_aliases".into(), aliases(alias));
        }
    }
    (cached(), Json(document))
}

/// The methods including those by certificate, if this cluster requests certificates.
fn methods(others: &[&'static str], mtls: &Mtls) -> Vec<&'static str> {
    let by_certificate = [
        ("tls_client_auth", mtls.is_on && mtls.has_authorities),
        ("self_signed_tls_client_auth", mtls.is_on),
    ];
    let more = by_certificate.into_iter().filter(|(_, is_on)| *is_on).map(|(method, _)| method);
    others.iter().copied().chain(more).collect()
}

/// The endpoints at which clients present certificates (RFC 8705 §5).
fn aliases(url: &PublicUrl) -> Value {
    json!({
        "token_endpoint": url.join(paths::TOKEN),
        "userinfo_endpoint": url.join(paths::USERINFO),
        "introspection_endpoint": url.join(paths::INTROSPECT),
        "revocation_endpoint": url.join(paths::REVOKE),
        "pushed_authorization_request_endpoint": url.join(paths::PUSH),
        "device_authorization_endpoint": url.join(paths::DEVICE),
    })
}

pub(crate) async fn jwks(State(oidc): State<Oidc>) -> impl IntoResponse {
    let state = oidc.auth.cluster().view();
    let keys: Vec<Value> =
        state.keys().filter_map(|key| serde_json::from_slice(&key.public_jwk).ok()).collect();
    (cached(), Json(json!({ "keys": keys })))
}

/// Browser applications read both documents from other origins.
fn cached() -> HeaderMap {
    HeaderMap::from_iter([
        (header::CACHE_CONTROL, CACHE),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    ])
}
