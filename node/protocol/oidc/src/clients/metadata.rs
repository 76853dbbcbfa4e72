//! Client metadata (RFC 7591 §2), from a registration or from a metadata document, and the part of it that is kept.
//!
//! Redirect URIs pass the same parser as those of an operator. An unsupported value is refused where ignoring it would
//! mislead the client; unknown members are ignored.

use conclave_proto::command::v1::{
    ClientTokens, ClientTokensChange, CreateClient, GrantTypes, Scopes, UpdateClient, Uris,
};
use conclave_state::client::{Client, ClientAuthMethod, ConsentMode, GrantType, SigningAlgorithm};
use serde::Deserialize;
use serde_json::{Value, json};

use conclave_auth::{keys::alg, redirect_uri::RedirectUri};
use conclave_crypto::jwks;

/// Scopes that a client without an operator's approval may request.
const SCOPES: [&str; 7] = ["openid", "profile", "email", "address", "phone", "groups", "offline_access"];
const DEFAULT_SCOPES: &str = "openid profile email offline_access";
const ALGORITHMS: [(&str, SigningAlgorithm); 4] = [
    ("RS256", SigningAlgorithm::Rs256),
    ("PS256", SigningAlgorithm::Ps256),
    ("ES256", SigningAlgorithm::Es256),
    ("EdDSA", SigningAlgorithm::Eddsa),
];
const GRANT_TYPES: [(&str, GrantType); 3] = [
    ("authorization_code", GrantType::AuthorizationCode),
    ("refresh_token", GrantType::RefreshToken),
    (crate::grant_type::DEVICE_CODE, GrantType::DeviceCode),
];
/// Accepted authentication methods; the first one is the default.
pub(crate) type Methods = &'static [(&'static str, ClientAuthMethod)];
/// Authentication methods of clients that can be issued a secret.
pub(crate) const WITH_SECRET: Methods = &[
    ("client_secret_basic", ClientAuthMethod::SecretBasic),
    ("client_secret_post", ClientAuthMethod::SecretPost),
    ("private_key_jwt", ClientAuthMethod::PrivateKeyJwt),
    ("none", ClientAuthMethod::None),
];
/// Authentication methods of clients that cannot be issued a secret.
pub(crate) const WITHOUT_SECRET: Methods =
    &[("none", ClientAuthMethod::None), ("private_key_jwt", ClientAuthMethod::PrivateKeyJwt)];

/// The metadata as it was sent.
#[derive(Debug, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "as RFC 7591 and its neighbours have them")]
pub(crate) struct Metadata {
    pub client_id: Option<String>,
    #[serde(default)]
    redirect_uris: Vec<String>,
    #[serde(default)]
    post_logout_redirect_uris: Vec<String>,
    token_endpoint_auth_method: Option<String>,
    token_endpoint_auth_signing_alg: Option<String>,
    pub jwks: Option<Value>,
    pub jwks_uri: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
    client_name: Option<String>,
    scope: Option<String>,
    id_token_signed_response_alg: Option<String>,
    userinfo_signed_response_alg: Option<String>,
    subject_type: Option<String>,
    backchannel_logout_uri: Option<String>,
    frontchannel_logout_uri: Option<String>,
    #[serde(default)]
    backchannel_logout_session_required: bool,
    #[serde(default)]
    require_pushed_authorization_requests: bool,
    #[serde(default)]
    dpop_bound_access_tokens: bool,
    #[serde(default)]
    tls_client_certificate_bound_access_tokens: bool,
    #[serde(default)]
    require_signed_request_object: bool,
    id_token_encrypted_response_alg: Option<String>,
    userinfo_encrypted_response_alg: Option<String>,
    /// A secret where there can be none.
    pub client_secret: Option<Value>,
}

/// The reason why the metadata is refused (RFC 7591 §3.2.2).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum InvalidMetadata {
    RedirectUri(String),
    Metadata(&'static str),
}

/// The metadata, checked.
#[derive(Debug)]
pub(crate) struct ValidatedMetadata {
    pub method: ClientAuthMethod,
    pub algorithm: SigningAlgorithm,
    assertion_algorithm: Option<SigningAlgorithm>,
    jwks: Vec<u8>,
    grant_types: Vec<i32>,
    scopes: Vec<String>,
    metadata: Metadata,
}

impl Metadata {
    /// Parses the metadata.
    ///
    /// # Errors
    /// [`InvalidMetadata`].
    pub(crate) fn parse(body: &[u8]) -> Result<Self, InvalidMetadata> {
        serde_json::from_slice(body)
            .map_err(|_| InvalidMetadata::Metadata("it is not a JSON object of client metadata"))
    }

    /// Checks the metadata against the supported values.
    ///
    /// # Errors
    /// [`InvalidMetadata`].
    pub(crate) fn check(self, methods: Methods) -> Result<ValidatedMetadata, InvalidMetadata> {
        self.check_addresses()?;
        self.check_what_is_asked()?;
        let wrong = InvalidMetadata::Metadata;
        let method = parse_enum(self.token_endpoint_auth_method.as_deref(), methods)
            .ok_or(wrong("token_endpoint_auth_method is not supported"))?;
        let algorithm = parse_enum(self.id_token_signed_response_alg.as_deref(), &ALGORITHMS)
            .ok_or(wrong("id_token_signed_response_alg is not supported"))?;
        let (jwks, assertion_algorithm) = match method {
            ClientAuthMethod::PrivateKeyJwt => {
                let (jwks, algorithm) = self.keys().map_err(wrong)?;
                (jwks, Some(algorithm))
            }
            _ => (Vec::new(), None),
        };
        let (scopes, grant_types) = (self.scopes(), self.grant_types());
        Ok(ValidatedMetadata {
            method,
            algorithm,
            assertion_algorithm,
            jwks,
            grant_types,
            scopes,
            metadata: self,
        })
    }

    fn check_addresses(&self) -> Result<(), InvalidMetadata> {
        if self.redirect_uris.is_empty() {
            return Err(InvalidMetadata::RedirectUri("redirect_uris is missing".into()));
        }
        for uri in self.redirect_uris.iter().chain(&self.post_logout_redirect_uris) {
            RedirectUri::parse(uri)
                .map_err(|error| InvalidMetadata::RedirectUri(format!("{uri} {error}")))?;
        }
        let logout_uris = [&self.backchannel_logout_uri, &self.frontchannel_logout_uri];
        let is_sound = |uri: &String| RedirectUri::parse(uri).is_ok() && uri.starts_with("http");
        if !logout_uris.into_iter().flatten().all(is_sound) {
            return Err(InvalidMetadata::Metadata("a logout URI is not an https address"));
        }
        Ok(())
    }

    fn check_what_is_asked(&self) -> Result<(), InvalidMetadata> {
        let only = |requested: &Option<Vec<String>>, known: &[&str]| {
            requested
                .as_ref()
                .is_none_or(|requested| requested.iter().all(|one| known.contains(&one.as_str())))
        };
        let wrong = if !only(&self.response_types, &["code"]) {
            "only response_types [\"code\"] is supported"
        } else if !only(&self.grant_types, &GRANT_TYPES.map(|(name, _)| name)) {
            "grant_types contains an unsupported value"
        } else if self.subject_type.as_deref().is_some_and(|subject| subject != "public") {
            "only subject_type public is supported"
        } else if self.userinfo_signed_response_alg.is_some() {
            "userinfo_signed_response_alg is not supported here"
        } else if self.id_token_encrypted_response_alg.is_some()
            || self.userinfo_encrypted_response_alg.is_some()
        {
            "encrypted responses are not supported"
        } else if self.tls_client_certificate_bound_access_tokens {
            "tls_client_certificate_bound_access_tokens is not supported here; use dpop_bound_access_tokens"
        } else if self.require_signed_request_object {
            "require_signed_request_object is not supported here; use require_pushed_authorization_requests"
        } else if self.client_name.as_deref().is_some_and(|name| name.contains(turns_text)) {
            "client_name has characters that change the direction of writing"
        } else {
            return Ok(());
        };
        Err(InvalidMetadata::Metadata(wrong))
    }

    /// The keys for client authentication, and their algorithm: the named one, or the first that a key fits.
    fn keys(&self) -> Result<(Vec<u8>, SigningAlgorithm), &'static str> {
        let set = self.jwks.as_ref().ok_or("private_key_jwt needs jwks with the client's public keys")?;
        let jwks = jwks::without_unknown(set)?.to_string().into_bytes();
        let keys = jwks::parse(&jwks)?;
        let fits = |algorithm| alg(algorithm).is_some_and(|alg| keys.iter().any(|key| key.fits(alg)));
        let algorithm = match self.token_endpoint_auth_signing_alg.as_deref() {
            Some(_) => parse_enum(self.token_endpoint_auth_signing_alg.as_deref(), &ALGORITHMS)
                .ok_or("token_endpoint_auth_signing_alg is not supported")?,
            None => ALGORITHMS
                .into_iter()
                .map(|(_, algorithm)| algorithm)
                .find(|algorithm| fits(*algorithm))
                .ok_or("no key of jwks is for a supported algorithm")?,
        };
        if fits(algorithm) {
            Ok((jwks, algorithm))
        } else {
            Err("no key of jwks is for the client's algorithm")
        }
    }

    /// The requested scopes that the client may have.
    fn scopes(&self) -> Vec<String> {
        let requested = self.scope.as_deref().unwrap_or(DEFAULT_SCOPES);
        let scopes = SCOPES.iter().filter(|scope| requested.split(' ').any(|one| one == **scope));
        scopes.map(|scope| (*scope).to_owned()).collect()
    }

    fn grant_types(&self) -> Vec<i32> {
        let is_asked = |name: &str, grant_type: GrantType| match &self.grant_types {
            Some(requested) => requested.iter().any(|one| one == name),
            None => grant_type != GrantType::DeviceCode,
        };
        GRANT_TYPES
            .iter()
            .filter(|(name, grant_type)| is_asked(name, *grant_type))
            .map(|(_, grant_type)| i32::from(*grant_type))
            .collect()
    }
}

impl ValidatedMetadata {
    /// The `client_id` in the metadata.
    pub(crate) fn named(&self) -> Option<&str> {
        self.metadata.client_id.as_deref()
    }

    /// The command that creates this client. It asks each user for consent once, and has no application's access rule.
    pub(crate) fn create(&self, client_id: &str) -> CreateClient {
        let metadata = &self.metadata;
        CreateClient {
            client_id: client_id.to_owned(),
            name: metadata.client_name.clone().unwrap_or_default(),
            auth_method: self.method.into(),
            redirect_uris: metadata.redirect_uris.clone(),
            post_logout_redirect_uris: metadata.post_logout_redirect_uris.clone(),
            scopes: self.scopes.clone(),
            signing_algorithm: self.algorithm.into(),
            tokens: Some(ClientTokens {
                grant_types: self.grant_types.clone(),
                jwks: self.jwks.clone(),
                assertion_algorithm: self.assertion_algorithm.unwrap_or_default().into(),
                dpop_bound: metadata.dpop_bound_access_tokens,
                ..ClientTokens::default()
            }),
            consent: ConsentMode::Once.into(),
            back_channel_logout_uri: metadata.backchannel_logout_uri.clone().unwrap_or_default(),
            front_channel_logout_uri: metadata.frontchannel_logout_uri.clone().unwrap_or_default(),
            back_channel_logout_session_required: metadata.backchannel_logout_session_required,
            require_pushed_authorization_requests: metadata.require_pushed_authorization_requests,
            ..CreateClient::default()
        }
    }

    /// The command that makes the existing client match this metadata: omitted members fall back to their default (RFC
    /// 7592 §2.2).
    pub(crate) fn update(self, client_id: &str) -> UpdateClient {
        let metadata = self.metadata;
        UpdateClient {
            client_id: client_id.to_owned(),
            name: Some(metadata.client_name.unwrap_or_default()),
            redirect_uris: Some(Uris { uris: metadata.redirect_uris }),
            post_logout_redirect_uris: Some(Uris { uris: metadata.post_logout_redirect_uris }),
            scopes: Some(Scopes { scopes: self.scopes }),
            signing_algorithm: Some(self.algorithm.into()),
            tokens: Some(ClientTokensChange {
                grant_types: Some(GrantTypes { grant_types: self.grant_types }),
                jwks: Some(self.jwks),
                assertion_algorithm: Some(self.assertion_algorithm.unwrap_or_default().into()),
                dpop_bound: Some(metadata.dpop_bound_access_tokens),
                ..ClientTokensChange::default()
            }),
            front_channel_logout_uri: Some(metadata.frontchannel_logout_uri.unwrap_or_default()),
            back_channel_logout_uri: Some(metadata.backchannel_logout_uri.unwrap_or_default()),
            back_channel_logout_session_required: Some(metadata.backchannel_logout_session_required),
            require_pushed_authorization_requests: Some(metadata.require_pushed_authorization_requests),
            ..UpdateClient::default()
        }
    }

    /// True if the client already matches this metadata.
    pub(crate) fn is_of(&self, client: &Client) -> bool {
        let as_created = self.create(client.id.as_str());
        let tokens = as_created.tokens.clone().unwrap_or_default();
        let grant_types: Vec<i32> = client.tokens.grant_types.iter().map(|one| i32::from(*one)).collect();
        client.auth_method == self.method
            && client.name == as_created.name
            && client.redirect_uris == as_created.redirect_uris
            && client.post_logout_redirect_uris == as_created.post_logout_redirect_uris
            && client.scopes == as_created.scopes
            && client.signing_algorithm == self.algorithm
            && client.back_channel_logout_uri == as_created.back_channel_logout_uri
            && client.requests.front_channel_logout_uri == as_created.front_channel_logout_uri
            && client.requests.must_be_pushed == as_created.require_pushed_authorization_requests
            && client.requests.back_channel_logout_session_required
                == as_created.back_channel_logout_session_required
            && client.tokens.jwks == tokens.jwks
            && client.tokens.dpop_bound == tokens.dpop_bound
            && client.tokens.assertion_algorithm == self.assertion_algorithm
            && grant_types == tokens.grant_types
    }
}

/// The client as registration metadata (RFC 7591 §3.2.1).
pub(crate) fn to_metadata(client: &Client) -> Value {
    let mut answer = json!({
        "client_id": client.id.as_str(),
        "client_id_issued_at": client.created_at.0 / 1_000,
        "client_name": client.name,
        "redirect_uris": client.redirect_uris,
        "post_logout_redirect_uris": client.post_logout_redirect_uris,
        "token_endpoint_auth_method": enum_name(&client.auth_method, WITH_SECRET),
        "grant_types": client.tokens.grant_types().iter().map(|one| enum_name(one, &GRANT_TYPES)).collect::<Vec<_>>(),
        "response_types": ["code"],
        "scope": client.scopes.join(" "),
        "subject_type": "public",
        "id_token_signed_response_alg": enum_name(&client.signing_algorithm, &ALGORITHMS),
        "backchannel_logout_session_required": client.requests.back_channel_logout_session_required,
        "require_pushed_authorization_requests": client.requests.must_be_pushed,
        "dpop_bound_access_tokens": client.tokens.dpop_bound,
    });
    let mut add = |name: &str, value: Value| {
        if let Some(members) = answer.as_object_mut() {
            members.insert(name.into(), value);
        }
    };
    for (name, uri) in [
        ("backchannel_logout_uri", &client.back_channel_logout_uri),
        ("frontchannel_logout_uri", &client.requests.front_channel_logout_uri),
    ] {
        if !uri.is_empty() {
            add(name, json!(uri));
        }
    }
    if let Some(algorithm) = &client.tokens.assertion_algorithm {
        add("token_endpoint_auth_signing_alg", json!(enum_name(algorithm, &ALGORITHMS)));
        add("jwks", serde_json::from_slice(&client.tokens.jwks).unwrap_or_default());
    }
    answer
}

/// True if the character changes the text direction: such a name could hide the host that is shown after it.
const fn turns_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The choice with this name; the first if there is no text.
fn parse_enum<T: Copy>(text: Option<&str>, choices: &[(&str, T)]) -> Option<T> {
    let found = choices.iter().find(|(word, _)| text.is_none_or(|text| text == *word));
    found.map(|(_, value)| *value)
}

fn enum_name<T: PartialEq>(value: &T, choices: &[(&'static str, T)]) -> &'static str {
    choices.iter().find(|(_, choice)| choice == value).map(|(word, _)| *word).unwrap_or_default()
}
