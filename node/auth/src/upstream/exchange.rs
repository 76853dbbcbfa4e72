//! Exchanges a code for the provider's claims: the token endpoint, then the ID token or userinfo.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use conclave_state::upstream::{Admission, Upstream};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Auth, AuthError, ticket::LoginStep};

use super::{
    UpstreamError, UpstreamIdentity, UpstreamLogin,
    id_token::{self, ExpectedClaims, IdTokenError},
    provider::ProviderMetadata,
};

/// RFC 6749 §5.1. Some providers send an error with status 200.
#[derive(Deserialize)]
struct Tokens {
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    id_token: String,
}

impl Auth {
    /// The identity that the provider asserts.
    pub(super) async fn redeem_upstream_code(
        &self,
        upstream: &Upstream,
        provider: &ProviderMetadata,
        login: &UpstreamLogin,
        code: &str,
    ) -> Result<UpstreamIdentity, UpstreamError> {
        let tokens = self.upstream_tokens(upstream, provider, login, code).await?;
        if !upstream.is_openid() {
            let claims = self.upstream_userinfo(provider, &tokens).await?;
            // Nothing of it is signed, so it may not state the time of authentication.
            let identity = UpstreamIdentity::read(&claims, &upstream.claims)?;
            return Ok(UpstreamIdentity { auth_time_secs: None, ..identity });
        }
        let claims = self.id_token_claims(upstream, provider, login, &tokens.id_token).await?;
        let mut identity = UpstreamIdentity::read(&claims, &upstream.claims)?;
        let is_known = self.cluster().view().identity(&upstream.name, &identity.subject).is_some();
        let may_be_new = !is_known
            && matches!(login.ticket.step, LoginStep::Login { .. })
            && upstream.rule.admission != Admission::None;
        if may_be_new && identity.email.is_empty() && provider.userinfo.is_some() {
            let more = self.upstream_userinfo(provider, &tokens).await?;
            let more = UpstreamIdentity::read(&more, &upstream.claims)?;
            // OIDC Core §5.3.2: otherwise it is about another user.
            if more.subject != identity.subject {
                return Err(UpstreamError::Answer("its userinfo is about another subject".into()));
            }
            identity.fill(more);
        }
        Ok(identity)
    }

    async fn upstream_tokens(
        &self,
        upstream: &Upstream,
        provider: &ProviderMetadata,
        login: &UpstreamLogin,
        code: &str,
    ) -> Result<Tokens, UpstreamError> {
        let (redirect_uri, verifier) = (self.upstream_redirect_uri(&upstream.name), login.verifier());
        let secret = self.upstream_secret(upstream)?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &redirect_uri),
            ("code_verifier", &verifier),
        ];
        let mut authorization = None;
        match &secret {
            Some(secret) if provider.posts_secret => {
                form.extend([("client_id", upstream.client_id.as_str()), ("client_secret", secret)]);
            }
            Some(secret) => authorization = Some(basic(&upstream.client_id, secret)),
            None => form.push(("client_id", &upstream.client_id)),
        }
        let answer = self.upstreams().outbound.post(&provider.token, &form, authorization.as_deref()).await?;
        if answer.status != StatusCode::OK {
            let why = format!("its token endpoint returned {}", answer.status);
            return Err(UpstreamError::Answer(why));
        }
        let tokens: Tokens = serde_json::from_slice(&answer.body)
            .map_err(|_| UpstreamError::Answer("its token endpoint did not return JSON".into()))?;
        if tokens.access_token.is_empty() || (upstream.is_openid() && tokens.id_token.is_empty()) {
            return Err(UpstreamError::Answer("its token endpoint returned no token".into()));
        }
        Ok(tokens)
    }

    /// The claims of the ID token. If the key is unknown, the key set is fetched once more: the provider may have
    /// rotated its keys.
    async fn id_token_claims(
        &self,
        upstream: &Upstream,
        provider: &ProviderMetadata,
        login: &UpstreamLogin,
        token: &str,
    ) -> Result<Map<String, Value>, UpstreamError> {
        let nonce = login.nonce();
        let expected = ExpectedClaims {
            issuer: provider.issuer.as_deref().unwrap_or_default(),
            client_id: &upstream.client_id,
            nonce: &nonce,
            now_secs: self.runtime().clock.now_ms() / 1_000,
        };
        let providers = &self.upstreams().providers;
        let keys = providers.keys(self, provider, false).await?;
        match id_token::verify(token, &keys, &provider.algs, &expected) {
            Err(IdTokenError::UnknownKey) => {}
            judged => return Ok(judged?),
        }
        let keys = providers.keys(self, provider, true).await?;
        Ok(id_token::verify(token, &keys, &provider.algs, &expected)?)
    }

    async fn upstream_userinfo(
        &self,
        provider: &ProviderMetadata,
        tokens: &Tokens,
    ) -> Result<Map<String, Value>, UpstreamError> {
        let url = provider.userinfo.as_deref().unwrap_or_default();
        let bearer = format!("Bearer {}", tokens.access_token);
        let answer = self.upstreams().outbound.get(url, Some(&bearer)).await?;
        if answer.status != StatusCode::OK {
            return Err(UpstreamError::Answer(format!("its userinfo endpoint returned {}", answer.status)));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|_| UpstreamError::Answer("its userinfo endpoint did not return a JSON object".into()))
    }
}

/// RFC 6749 §2.3.1: each part is form-encoded first.
fn basic(id: &str, secret: &str) -> String {
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret))))
}

impl From<conclave_state::Refusal> for UpstreamError {
    fn from(refusal: conclave_state::Refusal) -> Self {
        Self::Failed(AuthError::Refused(refusal))
    }
}
