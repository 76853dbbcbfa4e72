//! Requests to a user's authorization server: the pushed request, the code exchange, the revocation of the token. Each
//! carries a DPoP proof of the sign-in's own key (RFC 9449), with the server's nonce once it has sent one. A
//! confidential client also sends a short-lived assertion (RFC 7523).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use conclave_auth::Auth;
use conclave_crypto::jwt::JwtSigningKey;
use conclave_http::outbound::OutboundResponse;

use super::{
    SCOPE, client::ClientIdentity, did::Did, error::AtmosphereError, net::Net, server::Server,
    transaction::Transaction,
};

/// Lifetime of an assertion, enough for a slow network.
const ASSERTION_SECS: u64 = 60;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The error by which the server requests a nonce (RFC 9449 §8); accepted once per request.
const WANTS_NONCE: &str = "use_dpop_nonce";
/// Errors about the client itself: the server found no document, no key, or invalid ones.
const UNKNOWN_CLIENT: [&str; 3] = ["invalid_client", "invalid_client_id", "invalid_client_metadata"];

/// The exchange with one server, for one sign-in.
pub(crate) struct Exchange<'a> {
    pub auth: &'a Auth,
    pub net: &'a Net,
    pub client: &'a ClientIdentity,
    pub server: &'a Server,
    pub transaction: &'a Transaction,
}

/// A token, and the DID that it states.
pub(crate) struct Token {
    pub access: String,
    pub did: Did,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    error: String,
}

impl Exchange<'_> {
    /// Pushes the request (RFC 9126); returns its `request_uri`.
    ///
    /// # Errors
    /// [`AtmosphereError`]
    #[tracing::instrument(name = "atproto.push", skip_all)]
    pub(crate) async fn push(&self, hint: Option<&str>) -> Result<String, AtmosphereError> {
        let (state, challenge) = (self.transaction.state(), self.transaction.challenge());
        let mut form = vec![
            ("response_type", "code"),
            ("redirect_uri", self.client.redirect_uri.as_str()),
            ("scope", SCOPE),
            ("state", &state),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        form.extend(hint.map(|hint| ("login_hint", hint)));
        let answer = self.post(&self.server.pushed, &form).await?;
        if refusal(&answer).is_some_and(|error| UNKNOWN_CLIENT.contains(&error.as_str())) {
            return Err(AtmosphereError::ClientUnknown);
        }
        if !answer.status.is_success() {
            return Err(AtmosphereError::ProviderInvalid("it does not accept the request"));
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let name = body.get("request_uri").and_then(Value::as_str).filter(|name| !name.is_empty());
        name.map(str::to_owned).ok_or(AtmosphereError::ProviderInvalid("it returns no request_uri"))
    }

    /// Exchanges the code for a token, and checks everything that atproto requires of it.
    ///
    /// # Errors
    /// [`AtmosphereError`]
    #[tracing::instrument(name = "atproto.redeem", skip_all)]
    pub(crate) async fn redeem(&self, code: &str) -> Result<Token, AtmosphereError> {
        let verifier = self.transaction.verifier();
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", self.client.redirect_uri.as_str()),
            ("code_verifier", verifier.as_str()),
        ];
        let answer = self.post(&self.server.token, &form).await?;
        let wrong = |why| Err(AtmosphereError::TokenRejected(why));
        if answer.status != StatusCode::OK {
            return wrong("the token endpoint refuses");
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        if !text("token_type").eq_ignore_ascii_case("DPoP") {
            return wrong("it is not bound to the key");
        }
        if !text("scope").split(' ').any(|scope| scope == SCOPE) {
            return wrong("it is not of the scope atproto");
        }
        let Ok(did) = Did::parse(text("sub"), self.net.dev) else { return wrong("it names no valid DID") };
        if text("access_token").is_empty() {
            return wrong("there is none");
        }
        Ok(Token { access: text("access_token").to_owned(), did })
    }

    /// Revokes the token, which is not needed any more. A server that does not revoke it keeps it for an hour at most.
    #[tracing::instrument(name = "atproto.revoke", skip_all)]
    pub(crate) async fn revoke(&self, access: &str) {
        let Some(url) = &self.server.revocation else { return };
        match self.post(url, &[("token", access)]).await {
            Ok(answer) if answer.status.is_success() => {}
            Ok(answer) => tracing::debug!("a token was not revoked: {}", answer.status),
            Err(error) => tracing::debug!("a token was not revoked: {error}"),
        }
    }

    /// Posts with a proof, and once more with the nonce that the server requests.
    async fn post(&self, url: &str, form: &[(&str, &str)]) -> Result<OutboundResponse, AtmosphereError> {
        let key = self.transaction.dpop_key()?;
        let first = self.post_once(url, form, &key, None).await?;
        let nonce = nonce_of(&first);
        if !wants_nonce(&first) {
            // Servers of atproto send a nonce with every response; without one it is not such a server.
            return if nonce.is_some() { Ok(first) } else { Err(NO_NONCE) };
        }
        let nonce = nonce.ok_or(NO_NONCE)?;
        let second = self.post_once(url, form, &key, Some(&nonce)).await?;
        if wants_nonce(&second) {
            return Err(AtmosphereError::ProviderInvalid("it does not accept its own nonce"));
        }
        if nonce_of(&second).is_some() { Ok(second) } else { Err(NO_NONCE) }
    }

    async fn post_once(
        &self,
        url: &str,
        form: &[(&str, &str)],
        key: &JwtSigningKey,
        nonce: Option<&str>,
    ) -> Result<OutboundResponse, AtmosphereError> {
        let proof = self.proof(url, key, nonce)?;
        let assertion = self.assertion()?;
        let mut form = [form, &[("client_id", self.client.id.as_str())]].concat();
        if let Some(assertion) = &assertion {
            form.extend([("client_assertion_type", ASSERTION_TYPE), ("client_assertion", assertion)]);
        }
        self.net.post(url, &form, &proof).await
    }

    fn proof(&self, url: &str, key: &JwtSigningKey, nonce: Option<&str>) -> Result<String, AtmosphereError> {
        let place = url.split(['?', '#']).next().unwrap_or(url);
        let mut claims = json!({"jti": self.chance(), "htm": "POST", "htu": place, "iat": self.now_secs()});
        if let (Some(nonce), Some(members)) = (nonce, claims.as_object_mut()) {
            members.insert("nonce".into(), json!(nonce));
        }
        key.sign_as_proof("dpop+jwt", &claims)
            .map_err(|_| AtmosphereError::ProviderInvalid("no proof can be made"))
    }

    /// The client assertion, by the key with which the sign-in began: the server binds it to that key.
    fn assertion(&self) -> Result<Option<String>, AtmosphereError> {
        let Some(kid) = &self.transaction.kid else { return Ok(None) };
        let key = self.auth.signing().signer_named(&self.auth.cluster().view(), kid)?;
        let now = self.now_secs();
        let claims = json!({
            "iss": self.client.id, "sub": self.client.id, "aud": self.server.issuer,
            "jti": self.chance(), "iat": now, "exp": now + ASSERTION_SECS,
        });
        let signed = key.sign("JWT", &claims);
        signed.map(Some).map_err(|_| AtmosphereError::ProviderInvalid("no assertion can be made"))
    }

    fn chance(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.auth.runtime().entropy.bytes::<16>())
    }

    fn now_secs(&self) -> u64 {
        self.auth.runtime().clock.now_ms() / 1_000
    }
}

const NO_NONCE: AtmosphereError = AtmosphereError::ProviderInvalid("it sends no DPoP nonce");

fn nonce_of(answer: &OutboundResponse) -> Option<String> {
    let nonce = answer.headers.get("dpop-nonce")?.to_str().ok()?;
    (!nonce.is_empty() && nonce.len() <= 512).then(|| nonce.to_owned())
}

fn wants_nonce(answer: &OutboundResponse) -> bool {
    refusal(answer).is_some_and(|error| error == WANTS_NONCE)
}

/// The error code of a refusal (RFC 6749 §5.2).
fn refusal(answer: &OutboundResponse) -> Option<String> {
    let is_refusal = matches!(answer.status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED);
    let read = is_refusal.then(|| serde_json::from_slice::<Failure>(&answer.body));
    read?.ok().map(|failure| failure.error)
}
