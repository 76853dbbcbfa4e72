//! The issued tokens: access token (RFC 9068, or sealed), ID token (OIDC Core §2), refresh token (a handle).
//!
//! An access token names its grant and the log index of its creation, so that userinfo on any node waits for that index
//! and refuses once the grant has ended. A relying party that verifies the token offline notices a revocation only when
//! it expires.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_state::{
    Stamp, State,
    client::{Client, SigningAlgorithm},
    ids::{FamilyId, GrantId, SessionId},
    user::User,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use conclave_auth::claims::{About, is_reserved};
use conclave_auth::{Auth, AuthError, authorization::PASSWORD_METHOD};
use conclave_crypto::{
    handle::{HandleKind, refresh_secret},
    mac,
};

use crate::keys::acr;
use crate::token::audience::Audience;
use crate::userinfo::claims;

/// `typ` of access tokens (RFC 9068 §2.1).
pub(crate) const ACCESS_TYP: &str = "at+jwt";
/// `typ` of ID tokens.
pub(crate) const ID_TYP: &str = "JWT";

/// Claims of an access token for the cluster's own use. A claim about the user with one of these names is left out;
/// otherwise the token could not be parsed again.
const NAMES_OF_THE_CLUSTER: [&str; 4] = ["gid", "idx", "epc", "exchanged"];

/// Maximum length of an access token's claims about its user, in bytes. With the rest the token fits into a header of 4
/// KiB, which many servers accept.
const MAX_ABOUT_USER_BYTES: usize = 2_048;

/// The purpose that the seal of an opaque access token is bound to.
pub(crate) const ACCESS_PURPOSE: &str = "access-token/1";

/// The claims of an access token, signed or sealed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct AccessClaims {
    pub iss: String,
    /// The user's subject identifier for the client; for a client's own token its `client_id` (RFC 9068 §2.2).
    pub sub: String,
    pub aud: Audience,
    pub client_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    pub iat: u64,
    pub exp: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<u64>,
    pub jti: String,
    /// The grant it was issued under; `None` for a client's own token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
    /// The log index and the restore epoch of its creation.
    pub idx: u64,
    pub epc: u64,
    /// The key that must be proved with it (RFC 9449 §6.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
    /// The clients that act for the user, the last one first (RFC 8693 §4.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Actor>,
    /// The `jti` of each token that it was exchanged for, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exchanged: Vec<String>,
}

/// A signed access token with claims about its user for resource servers (RFC 9068 §2.2.3). Those are written and never
/// parsed again: this cluster reads the state.
#[derive(Serialize)]
struct AboutUser<'a> {
    #[serde(flatten)]
    token: &'a AccessClaims,
    #[serde(flatten)]
    user: Map<String, Value>,
}

/// `cnf`: the keys that must be proved with the token. At least one is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Confirmation {
    /// A DPoP key (RFC 9449 §6.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jkt: Option<String>,
    /// A certificate of the TLS connection (RFC 8705 §3.1).
    #[serde(default, rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    pub x5t: Option<String>,
}

impl Confirmation {
    /// `None` if the token is not bound to a key.
    pub(crate) fn of(jkt: Option<[u8; 32]>, certificate: Option<[u8; 32]>) -> Option<Self> {
        let text = |hash: [u8; 32]| URL_SAFE_NO_PAD.encode(hash);
        let confirmation = Self { jkt: jkt.map(text), x5t: certificate.map(text) };
        (confirmation.jkt.is_some() || confirmation.x5t.is_some()).then_some(confirmation)
    }
}

/// `act`: the acting client, and the one before it in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Actor {
    pub sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Actor>>,
}

/// The input for tokens: a reply of the rules, and the rows that it names.
pub(crate) struct Issue<'a> {
    pub state: &'a State,
    pub client: &'a Client,
    pub user: &'a User,
    pub grant: GrantId,
    pub session: SessionId,
    pub scopes: &'a [String],
    /// The resources of the access token (RFC 8707): the requested ones among those that were granted.
    pub resources: &'a [String],
    pub nonce: &'a str,
    pub auth_time_ms: u64,
    pub amr: &'a [String],
    pub refresh: Option<(FamilyId, u64)>,
    /// The DPoP key that the access token is bound to.
    pub dpop_jkt: Option<[u8; 32]>,
    /// The certificate that it is bound to, SHA-256.
    pub certificate: Option<[u8; 32]>,
    /// The time and log index of the write: equal for a retry after a lost response, which then gets the same tokens.
    pub at_ms: u64,
    pub index: u64,
}

/// The response of the token endpoint (RFC 6749 §5.1).
#[derive(Debug, Serialize)]
pub(crate) struct TokenResponse {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<String>,
    /// Set for an exchange only (RFC 8693 §2.2.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
}

/// Issues the tokens.
///
/// # Errors
/// Fails if there is no key to sign with.
pub(crate) fn issue(auth: &Auth, issue: &Issue<'_>) -> Result<TokenResponse, AuthError> {
    let access = access_claims(auth, issue)?;
    let access_token = if issue.client.tokens.opaque_access_tokens {
        access_text(auth, issue.state, issue.client, &access)?
    } else {
        sign(auth, issue, ACCESS_TYP, &AboutUser { token: &access, user: about_user(auth, issue) })?
    };
    let is_openid = issue.scopes.iter().any(|scope| scope == "openid");
    let id_token =
        is_openid.then(|| sign(auth, issue, ID_TYP, &id_claims(auth, issue, &access_token)?)).transpose()?;
    let refresh_token =
        issue.refresh.map(|(family, generation)| refresh_token(auth, family, generation, issue.index));
    Ok(TokenResponse { refresh_token, id_token, ..TokenResponse::of_access(access_token, &access) })
}

impl TokenResponse {
    /// A response with an access token and nothing else.
    pub(crate) fn of_access(access_token: String, claims: &AccessClaims) -> Self {
        Self {
            access_token,
            token_type: token_type(claims),
            expires_in: claims.exp.saturating_sub(claims.iat),
            scope: claims.scope.clone(),
            refresh_token: None,
            id_token: None,
            issued_token_type: None,
        }
    }

    /// The response to an exchange.
    #[must_use]
    pub(crate) fn issued_as(self, token_type: &'static str) -> Self {
        Self { issued_token_type: Some(token_type), ..self }
    }
}

/// The scheme with which the token must be presented (RFC 6750, RFC 9449 §5).
pub(crate) fn token_type(claims: &AccessClaims) -> &'static str {
    if claims.cnf.as_ref().is_some_and(|cnf| cnf.jkt.is_some()) { "DPoP" } else { "Bearer" }
}

/// The text of an access token: signed, or sealed for a client that must not see its content.
///
/// # Errors
/// Fails if there is no key to sign with.
pub(crate) fn access_text(
    auth: &Auth,
    state: &State,
    client: &Client,
    claims: &AccessClaims,
) -> Result<String, AuthError> {
    let internal = |error: &dyn std::fmt::Display| AuthError::Internal(error.to_string());
    if !client.tokens.opaque_access_tokens {
        let key = auth.signing().signer(state, client.signing_algorithm)?;
        return key.sign(ACCESS_TYP, claims).map_err(|e| internal(&e));
    }
    let json = serde_json::to_vec(claims).map_err(|e| internal(&e))?;
    let sealed = auth.access_tokens().seal(ACCESS_PURPOSE, &json, &*auth.runtime().entropy);
    sealed.map(|bytes| URL_SAFE_NO_PAD.encode(bytes)).map_err(|e| internal(&e))
}

fn sign(auth: &Auth, issue: &Issue<'_>, typ: &str, claims: &impl Serialize) -> Result<String, AuthError> {
    let key = auth.signing().signer(issue.state, issue.client.signing_algorithm)?;
    key.sign(typ, claims).map_err(|e| AuthError::Internal(e.to_string()))
}

pub(crate) fn seconds(length: Duration) -> u64 {
    length.as_secs()
}

impl Issue<'_> {
    /// The `sid`, while the session is live. A grant with `offline_access` outlives its session. An application that
    /// binds its own session to an ended one would open a session that no logout ever ends.
    fn live_session(&self) -> Option<String> {
        self.state.live_session(self.session, Stamp(self.at_ms)).map(|_| self.session.to_string())
    }
}

fn access_claims(auth: &Auth, issue: &Issue<'_>) -> Result<AccessClaims, AuthError> {
    let iat = issue.at_ms / 1_000;
    // Derived, not random: a retry after a lost response gets the same token, not a second one.
    let material = [issue.grant.bytes().as_slice(), &issue.index.to_be_bytes()];
    let jti = mac::hmac_sha256(&auth.deriving_keys().request, &[b"jti", material[0], material[1]]);
    Ok(AccessClaims {
        iss: auth.settings().public_url.issuer().to_owned(),
        sub: auth.subject(issue.client, issue.user)?,
        aud: audience(auth, issue),
        client_id: issue.client.id.to_string(),
        scope: issue.scopes.join(" "),
        sid: issue.live_session(),
        iat,
        exp: iat.saturating_add(seconds(auth.settings().tokens.access_ttl)),
        auth_time: Some(issue.auth_time_ms / 1_000),
        jti: URL_SAFE_NO_PAD.encode(jti.first_chunk::<16>().unwrap_or(&[0; 16])),
        gid: Some(issue.grant.to_string()),
        idx: issue.index,
        epc: auth.cluster().lineage().epoch,
        cnf: Confirmation::of(issue.dpop_jkt, issue.certificate),
        act: None,
        exchanged: Vec::new(),
    })
}

/// The groups, if that scope was granted, and the client's own claims; empty if they are too long together.
fn about_user(auth: &Auth, issue: &Issue<'_>) -> Map<String, Value> {
    let person = claims::ClaimSubject {
        user: issue.user,
        state: issue.state,
        issuer: auth.settings().public_url.issuer(),
    };
    let groups: Vec<String> = issue.scopes.iter().filter(|scope| *scope == "groups").cloned().collect();
    let mut about_user = claims::of(&person, &groups);
    add_own(&mut about_user, auth, issue);
    about_user.retain(|name, _| !is_reserved(name) && !NAMES_OF_THE_CLUSTER.contains(&name.as_str()));
    let bytes = serde_json::to_string(&about_user).map_or(usize::MAX, |text| text.len());
    if bytes <= MAX_ABOUT_USER_BYTES {
        return about_user;
    }
    tracing::info!(
        client = issue.client.id.as_str(),
        bytes,
        "the access token goes without groups and own claims, which are too long for it; introspection has them"
    );
    Map::new()
}

/// Adds the client's own claims.
fn add_own(claims: &mut Map<String, Value>, auth: &Auth, issue: &Issue<'_>) {
    let sign_in = (issue.auth_time_ms, issue.amr);
    let about = About { state: issue.state, user: issue.user, sign_in, now_ms: issue.at_ms };
    auth.claim_expressions().add(claims, issue.client, issue.scopes, &about);
}

fn audience(auth: &Auth, issue: &Issue<'_>) -> Audience {
    let is_openid = issue.scopes.iter().any(|scope| scope == "openid");
    Audience::of(auth.settings().public_url.issuer(), issue.resources, is_openid)
}

/// Adds the claims requested by name; called before the token's own claims are added.
fn add_requested(claims: &mut Map<String, Value>, person: &claims::ClaimSubject<'_>, issue: &Issue<'_>) {
    let Some(grant) = issue.state.grant(issue.grant) else { return };
    claims::add_named(claims, person, &grant.id_token_claims);
    // The authentication context of a sign-in at another provider is not known here, so it reaches no level.
    let by_password = issue.amr.iter().any(|method| method == PASSWORD_METHOD);
    if by_password && grant.id_token_claims.iter().any(|name| name == "acr") {
        claims.insert("acr".into(), json!(acr::PASSWORD));
    }
}

fn id_claims(auth: &Auth, issue: &Issue<'_>, access_token: &str) -> Result<Map<String, Value>, AuthError> {
    let iat = issue.at_ms / 1_000;
    let issuer = auth.settings().public_url.issuer();
    let person = claims::ClaimSubject { user: issue.user, state: issue.state, issuer };
    let mut claims = claims::of(&person, issue.scopes);
    add_requested(&mut claims, &person, issue);
    add_own(&mut claims, auth, issue);
    let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    put("sub", json!(auth.subject(issue.client, issue.user)?));
    put("iss", json!(auth.settings().public_url.issuer()));
    put("aud", json!(issue.client.id.as_str()));
    put("iat", json!(iat));
    put("exp", json!(iat.saturating_add(seconds(auth.settings().tokens.access_ttl))));
    put("auth_time", json!(issue.auth_time_ms / 1_000));
    put("amr", json!(issue.amr));
    if let Some(sid) = issue.live_session() {
        put("sid", json!(sid));
    }
    if !issue.nonce.is_empty() {
        put("nonce", json!(issue.nonce));
    }
    // Ed25519 uses SHA-512 internally, and implementations differ in the hash for its at_hash. In the code flow the
    // claim is optional (OIDC Core §3.1.3.6), so it is left out there.
    if issue.client.signing_algorithm != SigningAlgorithm::Eddsa {
        let hash = mac::sha256(access_token.as_bytes());
        put("at_hash", json!(URL_SAFE_NO_PAD.encode(hash.first_chunk::<16>().unwrap_or(&[0; 16]))));
    }
    Ok(claims)
}

/// The refresh token of this generation of the family. It is derived, so that it can be issued again and is not stored.
fn refresh_token(auth: &Auth, family: FamilyId, generation: u64, index: u64) -> String {
    let secret = refresh_secret(&auth.deriving_keys().refresh, family.bytes(), generation);
    auth.issue(HandleKind::Refresh, *family.bytes(), secret, generation, index)
}
