//! The tokens that leave: access token (RFC 9068, or sealed), ID token (OIDC Core §2), refresh token (a handle).
//!
//! An access token names its grant and the log index that it is made from, so that userinfo on any node waits for that
//! index and refuses once the grant has ended. A relying party that verifies it offline learns of an end only when it
//! expires.

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

use crate::auth::claims::{About, is_reserved};
use crate::auth::{Auth, AuthError, authorization::PASSWORD_METHOD};
use conclave_crypto::{
    handle::{HandleKind, refresh_secret},
    mac,
};

use super::{acr, audience::Audience, claims};

/// `typ` of access tokens (RFC 9068 §2.1).
pub const ACCESS_TYP: &str = "at+jwt";
/// `typ` of ID tokens.
pub const ID_TYP: &str = "JWT";

/// What an access token says to the cluster itself: a claim about the user by one of these names is left out, or the
/// token could not be read back.
const NAMES_OF_THE_CLUSTER: [&str; 4] = ["gid", "idx", "epc", "exchanged"];

/// Most bytes of what an access token says of its user: with the rest, the token fits a header of 4 KiB, which many
/// servers take.
const MAX_ABOUT_USER_BYTES: usize = 2_048;

/// What the seal of an opaque access token is for; it opens as nothing else.
pub const ACCESS_PURPOSE: &str = "access-token/1";

/// What an access token says, signed or sealed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessClaims {
    pub iss: String,
    /// The person, as the client knows them; for a client's own token its `client_id` (RFC 9068 §2.2).
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
    /// The grant it came from; none for a client's own token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
    /// The log index and the restore epoch it was made at.
    pub idx: u64,
    pub epc: u64,
    /// The key that must be proved with it (RFC 9449 §6.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Confirmation>,
    /// Which clients act for the person, the last first (RFC 8693 §4.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Actor>,
    /// The `jti` of each token that it was exchanged for, the first first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exchanged: Vec<String>,
}

/// A signed access token with what it says of its user to resource servers (RFC 9068 §2.2.3). That is written and never
/// read back: this cluster asks the state.
#[derive(Serialize)]
struct AboutUser<'a> {
    #[serde(flatten)]
    token: &'a AccessClaims,
    #[serde(flatten)]
    user: Map<String, Value>,
}

/// `cnf`: what must be proved with the token. At least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// A DPoP key (RFC 9449 §6.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jkt: Option<String>,
    /// A certificate of the TLS connection (RFC 8705 §3.1).
    #[serde(default, rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    pub x5t: Option<String>,
}

impl Confirmation {
    /// None when the token is bound to nothing.
    pub fn of(jkt: Option<[u8; 32]>, certificate: Option<[u8; 32]>) -> Option<Self> {
        let text = |hash: [u8; 32]| URL_SAFE_NO_PAD.encode(hash);
        let confirmation = Self { jkt: jkt.map(text), x5t: certificate.map(text) };
        (confirmation.jkt.is_some() || confirmation.x5t.is_some()).then_some(confirmation)
    }
}

/// `act`: who acts, and for whom that one acted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    pub sub: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Actor>>,
}

/// What tokens are made from: a reply of the rules, and the rows it names.
pub struct Issue<'a> {
    pub state: &'a State,
    pub client: &'a Client,
    pub user: &'a User,
    pub grant: GrantId,
    pub session: SessionId,
    pub scopes: &'a [String],
    /// What the access token is for (RFC 8707): of what was granted, that which was asked for.
    pub resources: &'a [String],
    pub nonce: &'a str,
    pub auth_time_ms: u64,
    pub amr: &'a [String],
    pub refresh: Option<(FamilyId, u64)>,
    /// The key that the access token is bound to.
    pub dpop_jkt: Option<[u8; 32]>,
    /// The certificate that it is bound to, SHA-256.
    pub certificate: Option<[u8; 32]>,
    /// When and where in the log: the same for the retry of a lost answer, which then gets the same tokens.
    pub at_ms: u64,
    pub index: u64,
}

/// The token endpoint's answer (RFC 6749 §5.1).
#[derive(Debug, Serialize)]
pub struct TokenResponse {
    access_token: String,
    token_type: &'static str,
    expires_in: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    scope: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id_token: Option<String>,
    /// Of an exchange only (RFC 8693 §2.2.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
}

/// Makes the tokens.
///
/// # Errors
/// When there is no key to sign with.
pub fn issue(auth: &Auth, issue: &Issue<'_>) -> Result<TokenResponse, AuthError> {
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
    /// An access token and nothing else.
    pub fn of_access(access_token: String, claims: &AccessClaims) -> Self {
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

    /// The answer to an exchange.
    #[must_use]
    pub fn issued_as(self, token_type: &'static str) -> Self {
        Self { issued_token_type: Some(token_type), ..self }
    }
}

/// How the token is to be presented (RFC 6750, RFC 9449 §5).
pub fn token_type(claims: &AccessClaims) -> &'static str {
    if claims.cnf.as_ref().is_some_and(|cnf| cnf.jkt.is_some()) { "DPoP" } else { "Bearer" }
}

/// The text of an access token: signed, or sealed for a client that is to see nothing in it.
///
/// # Errors
/// When there is no key to sign with.
pub fn access_text(
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

pub fn seconds(length: Duration) -> u64 {
    length.as_secs()
}

impl Issue<'_> {
    /// The `sid`, while the session lives. A grant with `offline_access` outlives it, and an application that keys its
    /// own sessions by a dead one would open one that no logout ever ends.
    fn live_session(&self) -> Option<String> {
        self.state.live_session(self.session, Stamp(self.at_ms)).map(|_| self.session.to_string())
    }
}

fn access_claims(auth: &Auth, issue: &Issue<'_>) -> Result<AccessClaims, AuthError> {
    let iat = issue.at_ms / 1_000;
    // Derived, not random: the retry of a lost answer gets the same token, not a second one.
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

/// The groups, where the scope was granted, and the client's own claims; nothing where they are too long together.
fn about_user(auth: &Auth, issue: &Issue<'_>) -> Map<String, Value> {
    let person =
        claims::Person { user: issue.user, state: issue.state, issuer: auth.settings().public_url.issuer() };
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

/// The claims that the client has of its own.
fn add_own(claims: &mut Map<String, Value>, auth: &Auth, issue: &Issue<'_>) {
    let sign_in = (issue.auth_time_ms, issue.amr);
    let about = About { state: issue.state, user: issue.user, sign_in, now_ms: issue.at_ms };
    auth.claim_expressions().add(claims, issue.client, issue.scopes, &about);
}

fn audience(auth: &Auth, issue: &Issue<'_>) -> Audience {
    let is_openid = issue.scopes.iter().any(|scope| scope == "openid");
    Audience::of(auth.settings().public_url.issuer(), issue.resources, is_openid)
}

/// What was asked for by name; before everything that the token says itself.
fn add_requested(claims: &mut Map<String, Value>, person: &claims::Person<'_>, issue: &Issue<'_>) {
    let Some(grant) = issue.state.grant(issue.grant) else { return };
    claims::add_named(claims, person, &grant.id_token_claims);
    // How people prove who they are elsewhere is not known here, so it reaches no level.
    let by_password = issue.amr.iter().any(|method| method == PASSWORD_METHOD);
    if by_password && grant.id_token_claims.iter().any(|name| name == "acr") {
        claims.insert("acr".into(), json!(acr::PASSWORD));
    }
}

fn id_claims(auth: &Auth, issue: &Issue<'_>, access_token: &str) -> Result<Map<String, Value>, AuthError> {
    let iat = issue.at_ms / 1_000;
    let issuer = auth.settings().public_url.issuer();
    let person = claims::Person { user: issue.user, state: issue.state, issuer };
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
    // Ed25519 hashes with SHA-512 inside, and what its at_hash is made with is read differently by different parties;
    // in the code flow the claim is optional (OIDC Core §3.1.3.6), so it is left out there.
    if issue.client.signing_algorithm != SigningAlgorithm::Eddsa {
        let hash = mac::sha256(access_token.as_bytes());
        put("at_hash", json!(URL_SAFE_NO_PAD.encode(hash.first_chunk::<16>().unwrap_or(&[0; 16]))));
    }
    Ok(claims)
}

/// Generation `generation` of the family: derived, so that it can be given again and is stored nowhere.
fn refresh_token(auth: &Auth, family: FamilyId, generation: u64, index: u64) -> String {
    let secret = refresh_secret(&auth.deriving_keys().refresh, family.bytes(), generation);
    auth.issue(HandleKind::Refresh, *family.bytes(), secret, generation, index)
}
