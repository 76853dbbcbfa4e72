//! OIDC clients. Their secrets are derived from the write that makes them, and shown only in its response; the state
//! keeps a hash. Redirect URIs pass the one parser before they enter a command.

use conclave_proto::{
    admin::v1::{self as pb, client_service_server::ClientService},
    command::v1::{
        ClientTokensChange, CreateClient, DeleteClient, RevokeConsent, Scopes, UpdateClient, Uris,
        command::Body,
    },
};
use conclave_state::{
    State,
    client::{Client, ClientAuthMethod, ConsentMode, Exceptions, SigningAlgorithm},
    consent::Consent,
    user::User,
};
use tonic::{Request, Response, Status};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use conclave_auth::redirect_uri::{RedirectExceptions, RedirectUri};
use conclave_crypto::{hex, mac};

use super::{Api, client_exceptions, client_tokens, errors, names, request::Writing};

/// The scopes of a client for which none are named.
const DEFAULT_SCOPES: [&str; 3] = ["openid", "profile", "email"];

const AUTH_METHODS: [(&str, ClientAuthMethod); 6] = [
    ("client_secret_basic", ClientAuthMethod::SecretBasic),
    ("client_secret_post", ClientAuthMethod::SecretPost),
    ("private_key_jwt", ClientAuthMethod::PrivateKeyJwt),
    ("tls_client_auth", ClientAuthMethod::TlsClientAuth),
    ("self_signed_tls_client_auth", ClientAuthMethod::SelfSignedTlsClientAuth),
    ("none", ClientAuthMethod::None),
];
pub(super) const ALGORITHMS: [(&str, SigningAlgorithm); 4] = [
    ("RS256", SigningAlgorithm::Rs256),
    ("PS256", SigningAlgorithm::Ps256),
    ("ES256", SigningAlgorithm::Es256),
    ("EdDSA", SigningAlgorithm::Eddsa),
];
const CONSENT_MODES: [(&str, ConsentMode); 3] =
    [("implicit", ConsentMode::Implicit), ("once", ConsentMode::Once), ("always", ConsentMode::Always)];

#[tonic::async_trait]
impl ClientService for Api {
    async fn create_client(
        &self,
        request: Request<pb::CreateClientRequest>,
    ) -> Result<Response<pb::CreateClientResponse>, Status> {
        let mut request = request;
        let brought = std::mem::take(&mut request.get_mut().client_secret);
        let (mut writing, message) = self.write(request, "CreateClient").await?;
        let mut body = writing.new_client(message).await?;
        let client_id = body.client_id.clone();
        let mut client_secret = String::new();
        if !body.secret_hash.is_empty() {
            (client_secret, body.secret_hash) = writing.secret_or(brought)?;
        } else if !brought.is_empty() {
            return Err(errors::invalid(
                "client_secret: a client with this authentication method has no secret",
            ));
        }
        let committed = writing.propose(Body::CreateClient(body)).await?;
        let client = find_proto(&committed.state, &client_id)?;
        let client = writing.with_warnings(client, true).await;
        let issuer = self.auth.settings().public_url.issuer().to_owned();
        writing.reply(&committed, pb::CreateClientResponse { client: Some(client), client_secret, issuer })
    }

    async fn get_client(
        &self,
        request: Request<pb::GetClientRequest>,
    ) -> Result<Response<pb::Client>, Status> {
        let (reading, wanted) = self.read(request).await?;
        reading.reply(find_proto(&reading.state, &wanted.client_id)?)
    }

    async fn list_clients(
        &self,
        request: Request<pb::ListClientsRequest>,
    ) -> Result<Response<pb::ListClientsResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let listing = self.listing("clients", wanted.page)?;
        let after = listing.after(|bytes| String::from_utf8(bytes.to_vec()).ok())?;
        let rows = reading.state.clients_after(after.as_deref());
        let rows = rows.map(|client| (client.id.as_str().into(), to_proto(&reading.state, client)));
        let (clients, next_page_token) = listing.page(rows);
        reading.reply(pb::ListClientsResponse { clients, next_page_token })
    }

    async fn update_client(
        &self,
        request: Request<pb::UpdateClientRequest>,
    ) -> Result<Response<pb::Client>, Status> {
        let (mut writing, message) = self.write(request, "UpdateClient").await?;
        let client_id = message.client_id.clone();
        let (changes, new_client_secret) = writing.changes(message).await?;
        let says_where = changes.back_channel_logout_uri.is_some();
        let userinfo = changes.tokens.as_ref().map(ClientTokensChange::userinfo_algorithm);
        writing.provide_keys([changes.signing_algorithm(), userinfo.unwrap_or_default()]).await?;
        let committed = writing.propose(Body::UpdateClient(changes)).await?;
        let client = writing.with_warnings(find_proto(&committed.state, &client_id)?, says_where).await;
        writing.reply(&committed, pb::Client { new_client_secret, ..client })
    }

    async fn rotate_client_secret(
        &self,
        request: Request<pb::RotateClientSecretRequest>,
    ) -> Result<Response<pb::RotateClientSecretResponse>, Status> {
        let mut request = request;
        let brought = std::mem::take(&mut request.get_mut().client_secret);
        let (writing, message) = self.write(request, "RotateClientSecret").await?;
        let (client_secret, hash) = writing.secret_or(brought)?;
        let body = UpdateClient {
            client_id: message.client_id,
            secret_hash: Some(hash),
            keep_previous_secret_ms: message.keep_previous_ms,
            ..UpdateClient::default()
        };
        let committed = writing.propose(Body::UpdateClient(body)).await?;
        writing.reply(&committed, pb::RotateClientSecretResponse { client_secret })
    }

    async fn delete_client(
        &self,
        request: Request<pb::DeleteClientRequest>,
    ) -> Result<Response<pb::DeleteClientResponse>, Status> {
        let (writing, message) = self.write(request, "DeleteClient").await?;
        let body = Body::DeleteClient(DeleteClient { client_id: message.client_id });
        let committed = writing.propose(body).await?;
        writing.reply(&committed, pb::DeleteClientResponse {})
    }

    async fn list_consents(
        &self,
        request: Request<pb::ListConsentsRequest>,
    ) -> Result<Response<pb::ListConsentsResponse>, Status> {
        let (reading, wanted) = self.read(request).await?;
        let user = names::user(&reading.state, &wanted.user);
        let user = user.and_then(|id| reading.state.user(id));
        let user = user.ok_or_else(|| errors::not_found("user", &wanted.user))?;
        let rows = reading.state.consents_of(user.id);
        let consents = rows.map(|consent| consent_message(user, consent)).collect();
        reading.reply(pb::ListConsentsResponse { consents })
    }

    async fn revoke_consent(
        &self,
        request: Request<pb::RevokeConsentRequest>,
    ) -> Result<Response<pb::RevokeConsentResponse>, Status> {
        let (mut writing, message) = self.write(request, "RevokeConsent").await?;
        let user_id = writing.user(&message.user).await?.to_vec();
        let body = Body::RevokeConsent(RevokeConsent { user_id, client_id: message.client_id });
        let committed = writing.propose(body).await?;
        writing.reply(&committed, pb::RevokeConsentResponse {})
    }
}

fn consent_message(user: &User, consent: &Consent) -> pb::Consent {
    pb::Consent {
        username: user.username.to_string(),
        user_id: user.id.to_string(),
        client_id: consent.client.to_string(),
        scopes: consent.scopes.clone(),
        granted_at_ms: consent.granted_at.0,
        claims: consent.claims.clone(),
        resources: consent.resources.clone(),
    }
}

impl Writing {
    /// Adds a warning for the operator if the client's logout address cannot be reached from this node. It is tried
    /// only with `says_where`.
    async fn with_warnings(&self, mut client: pb::Client, says_where: bool) -> pb::Client {
        if !says_where || client.backchannel_logout_uri.is_empty() {
            return client;
        }
        let outbound = self.api.auth.upstreams().outbound.for_administrators();
        if let Err(error) = outbound.reach(&client.backchannel_logout_uri).await {
            client.warnings.push(format!(
                "{} cannot be reached from this node, so the application gets no logout notices: {error}",
                client.backchannel_logout_uri
            ));
        }
        client
    }

    /// The secret of this write, 256 bits as text, and its hash, which the state keeps. The hash is made of the text
    /// that the client presents.
    pub(super) fn secret(&self) -> (String, Vec<u8>) {
        let text = URL_SAFE_NO_PAD.encode(self.write_key.secret("client").expose());
        let hash = mac::sha256(text.as_bytes()).to_vec();
        (text, hash)
    }

    /// The secret that the application has already, or otherwise one of this write.
    fn secret_or(&self, brought: String) -> Result<(String, Vec<u8>), Status> {
        if brought.is_empty() {
            return Ok(self.secret());
        }
        client_exceptions::check_secret(&brought)?;
        let hash = mac::sha256(brought.as_bytes()).to_vec();
        Ok((brought, hash))
    }

    /// Makes a PS256 key when a client first needs one. The state must have the key before the client.
    async fn provide_keys(&self, algorithms: [SigningAlgorithm; 2]) -> Result<(), Status> {
        for algorithm in algorithms.into_iter().filter(|a| *a == SigningAlgorithm::Ps256) {
            let provided = self.api.auth.provide_signing_key(algorithm).await;
            provided.map_err(|error| errors::signing_key(&error))?;
        }
        Ok(())
    }

    async fn new_client(&mut self, message: pb::CreateClientRequest) -> Result<CreateClient, Status> {
        let auth_method = parse_enum("auth_method", &message.auth_method, &AUTH_METHODS)?;
        client_exceptions::check_level(&self.state, client_exceptions::are_wanted(&message))?;
        let allowed = RedirectExceptions { http: message.allow_http, schemes: &message.allowed_schemes };
        let signing_algorithm = parse_enum("signing_algorithm", &message.signing_algorithm, &ALGORITHMS)?;
        let tokens = client_tokens::of_new(&message)?;
        if auth_method == ClientAuthMethod::SelfSignedTlsClientAuth {
            client_tokens::check_certificates(&tokens.jwks)?;
        }
        self.provide_keys([signing_algorithm, tokens.userinfo_algorithm()]).await?;
        let application_id = match message.application.as_str() {
            "" => Vec::new(),
            name => self.application(name).await?.to_vec(),
        };
        let client_id =
            if message.client_id.is_empty() { hex::encode(&self.id("client")) } else { message.client_id };
        let scopes = if message.scopes.is_empty() {
            DEFAULT_SCOPES.map(str::to_owned).to_vec()
        } else {
            message.scopes
        };
        Ok(CreateClient {
            client_id,
            name: message.name,
            auth_method: auth_method.into(),
            secret_hash: if has_secret(auth_method) { self.secret().1 } else { Vec::new() },
            redirect_uris: uris("redirect_uris", message.redirect_uris, allowed)?,
            post_logout_redirect_uris: uris(
                "post_logout_redirect_uris",
                message.post_logout_redirect_uris,
                allowed,
            )?,
            scopes,
            signing_algorithm: signing_algorithm.into(),
            consent: parse_enum("consent", &message.consent, &CONSENT_MODES)?.into(),
            application_id,
            tokens: Some(tokens),
            back_channel_logout_uri: logout_uri(
                "backchannel_logout_uri",
                message.backchannel_logout_uri,
                allowed,
            )?,
            back_channel_logout_session_required: message.backchannel_logout_session_required,
            require_pushed_authorization_requests: message.require_pushed_authorization_requests,
            pkce_optional: message.pkce_optional,
            front_channel_logout_uri: logout_uri(
                "frontchannel_logout_uri",
                message.frontchannel_logout_uri,
                allowed,
            )?,
            resources: resources(message.resources)?,
            strict_authentication: message.strict_authentication,
            pkce_without_nonce: message.pkce_without_nonce,
            allow_http: message.allow_http,
            default_resources: resources(message.default_resources)?,
            omit_error_issuer: message.omit_error_issuer,
            allowed_schemes: message.allowed_schemes,
            registration_token_hash: Vec::new(),
            of_document: false,
        })
    }
}

impl Writing {
    /// The changes, and the secret of a client that needs one from now on.
    async fn changes(&mut self, message: pb::UpdateClientRequest) -> Result<(UpdateClient, String), Status> {
        client_exceptions::check_level(&self.state, client_exceptions::are_changed(&message))?;
        let before = self.state.client(&message.client_id).cloned();
        let application_id = match message.application.as_deref() {
            None => None,
            Some("") => Some(Vec::new()),
            Some(name) => Some(self.application(name).await?.to_vec()),
        };
        let auth_method = match message.auth_method.as_deref() {
            None => None,
            Some("") => return Err(errors::invalid("auth_method: is empty")),
            Some(text) => Some(parse_enum("auth_method", text, &AUTH_METHODS)?),
        };
        let has_none = before.as_ref().is_some_and(|client| client.secret_hash.is_none());
        let needs_secret = has_none && auth_method.is_some_and(has_secret);
        let made = needs_secret.then(|| self.secret());
        let (secret, secret_hash) = made.map_or((String::new(), None), |(text, hash)| (text, Some(hash)));
        let body = UpdateClient { application_id, secret_hash, ..changes(message, before.as_deref())? };
        Ok((UpdateClient { auth_method: auth_method.map(i32::from), ..body }, secret))
    }
}

const fn has_secret(method: ClientAuthMethod) -> bool {
    matches!(method, ClientAuthMethod::SecretBasic | ClientAuthMethod::SecretPost)
}

/// Checks the unchanged addresses: none may depend on a permission that is withdrawn.
fn check_kept(
    message: &pb::UpdateClientRequest,
    before: Option<&Client>,
    allowed: RedirectExceptions<'_>,
) -> Result<(), Status> {
    let Some(client) = before else { return Ok(()) };
    let kept = [
        ("redirect_uris", &client.redirect_uris, message.redirect_uris.is_none()),
        (
            "post_logout_redirect_uris",
            &client.post_logout_redirect_uris,
            message.post_logout_redirect_uris.is_none(),
        ),
    ];
    for (field, list, _) in kept.into_iter().filter(|(_, _, is_kept)| *is_kept) {
        uris(field, list.clone(), allowed)?;
    }
    Ok(())
}

/// The changes in the form of the rules; `before` is the client before the change.
fn changes(message: pb::UpdateClientRequest, before: Option<&Client>) -> Result<UpdateClient, Status> {
    let known: Option<&Exceptions> = before.map(|client| &client.requests.exceptions);
    let known_schemes = known.map(|known| known.allowed_schemes.as_slice()).unwrap_or_default();
    let given = message.allowed_schemes.as_ref().map(|list| list.scopes.clone());
    let schemes = given.clone().unwrap_or_else(|| known_schemes.to_vec());
    let http = message.allow_http.unwrap_or_else(|| known.is_some_and(|known| known.allow_http));
    let allowed = RedirectExceptions { http, schemes: &schemes };
    let tokens = client_tokens::changes(&message, before)?;
    if message.allow_http.is_some() || message.allowed_schemes.is_some() {
        check_kept(&message, before, allowed)?;
    }
    let list = |field, list: Option<pb::UriList>| {
        list.map(|list| uris(field, list.uris, allowed).map(|uris| Uris { uris })).transpose()
    };
    let logout = |field, uri: Option<String>| uri.map(|uri| logout_uri(field, uri, allowed)).transpose();
    let algorithm = |text: String| parse_enum("signing_algorithm", &text, &ALGORITHMS).map(i32::from);
    let consent = |text: String| parse_enum("consent", &text, &CONSENT_MODES).map(i32::from);
    Ok(UpdateClient {
        client_id: message.client_id,
        name: message.name,
        redirect_uris: list("redirect_uris", message.redirect_uris)?,
        post_logout_redirect_uris: list("post_logout_redirect_uris", message.post_logout_redirect_uris)?,
        scopes: message.scopes.map(|list| Scopes { scopes: list.scopes }),
        signing_algorithm: message.signing_algorithm.map(algorithm).transpose()?,
        consent: message.consent.map(consent).transpose()?,
        disabled: message.disabled,
        back_channel_logout_uri: logout("backchannel_logout_uri", message.backchannel_logout_uri)?,
        front_channel_logout_uri: logout("frontchannel_logout_uri", message.frontchannel_logout_uri)?,
        back_channel_logout_session_required: message.backchannel_logout_session_required,
        require_pushed_authorization_requests: message.require_pushed_authorization_requests,
        pkce_optional: message.pkce_optional,
        resources: message
            .resources
            .map(|list| resources(list.uris).map(|uris| Uris { uris }))
            .transpose()?,
        tokens: Some(tokens),
        strict_authentication: message.strict_authentication,
        pkce_without_nonce: message.pkce_without_nonce,
        allow_http: message.allow_http,
        omit_error_issuer: message.omit_error_issuer,
        allowed_schemes: given.map(|scopes| Scopes { scopes }),
        default_resources: message
            .default_resources
            .map(|list| resources(list.uris).map(|uris| Uris { uris }))
            .transpose()?,
        ..UpdateClient::default()
    })
}

/// Checks an address that this cluster posts to, or that browsers load; empty means none. The policy of
/// `http::outbound` is applied only when the address is used.
fn logout_uri(field: &str, uri: String, allowed: RedirectExceptions<'_>) -> Result<String, Status> {
    if !uri.is_empty() {
        let parsed = RedirectUri::parse_allowed(&uri, RedirectExceptions { schemes: &[], ..allowed });
        if !is_private_http(&uri) {
            parsed.map_err(|error| errors::redirect_uri(field, &uri, &error))?;
        }
        if !uri.starts_with("http") {
            return Err(errors::invalid(format!("{field}: {uri:?} is not an https address")));
        }
    }
    Ok(uri)
}

/// True for plain http to an address that is private as written. Outside the private network, http would reveal the
/// token to others.
fn is_private_http(uri: &str) -> bool {
    let Ok(url) = url::Url::parse(uri) else { return false };
    let is_plain = url.scheme() == "http" && url.fragment().is_none() && url.username().is_empty();
    is_plain
        && match url.host() {
            Some(url::Host::Ipv4(ip)) => ip.is_private() || ip.is_loopback(),
            Some(url::Host::Ipv6(ip)) => ip.is_unique_local() || ip.is_loopback(),
            Some(url::Host::Domain(_)) | None => false,
        }
}

/// Checks for absolute URIs without a fragment (RFC 8707 §2). `urn:` and similar schemes are as valid as https.
fn resources(resources: Vec<String>) -> Result<Vec<String>, Status> {
    for resource in &resources {
        let is_sound = !resource.contains('#')
            && resource.bytes().all(|byte| byte.is_ascii_graphic())
            && url::Url::parse(resource).is_ok();
        if !is_sound {
            return Err(errors::invalid(format!(
                "resources: {resource:?} is not an absolute URI without a fragment"
            )));
        }
    }
    Ok(resources)
}

fn uris(field: &str, uris: Vec<String>, allowed: RedirectExceptions<'_>) -> Result<Vec<String>, Status> {
    for uri in &uris {
        RedirectUri::parse_allowed(uri, allowed).map_err(|error| errors::redirect_uri(field, uri, &error))?;
    }
    Ok(uris)
}

/// Parses one of a few words; empty text means the first.
pub(super) fn parse_enum<T: Copy>(field: &str, text: &str, choices: &[(&str, T)]) -> Result<T, Status> {
    let found = choices.iter().find(|(word, _)| text.is_empty() || *word == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        errors::invalid(format!("{field}: {text:?} is not one of {}", words.join(", ")))
    })
}

pub(super) fn enum_name<T: PartialEq>(value: &T, choices: &[(&str, T)]) -> String {
    choices.iter().find(|(_, choice)| choice == value).map(|(word, _)| (*word).to_owned()).unwrap_or_default()
}

fn find_proto(state: &State, client_id: &str) -> Result<pb::Client, Status> {
    let found = state.client(client_id).map(|client| to_proto(state, client));
    found.ok_or_else(|| errors::not_found("client", client_id))
}

fn to_proto(state: &State, client: &Client) -> pb::Client {
    let application = client.application.map(|id| match state.application(id) {
        Some(application) => application.slug.to_string(),
        None => id.to_string(),
    });
    let proto = pb::Client {
        client_id: client.id.to_string(),
        name: client.name.clone(),
        auth_method: enum_name(&client.auth_method, &AUTH_METHODS),
        redirect_uris: client.redirect_uris.clone(),
        post_logout_redirect_uris: client.post_logout_redirect_uris.clone(),
        scopes: client.scopes.clone(),
        signing_algorithm: enum_name(&client.signing_algorithm, &ALGORITHMS),
        consent: enum_name(&client.consent, &CONSENT_MODES),
        application: application.unwrap_or_default(),
        disabled: client.disabled,
        backchannel_logout_uri: client.back_channel_logout_uri.clone(),
        backchannel_logout_session_required: client.requests.back_channel_logout_session_required,
        require_pushed_authorization_requests: client.requests.must_be_pushed,
        pkce_optional: client.requests.pkce_optional,
        resources: client.requests.resources.clone(),
        frontchannel_logout_uri: client.requests.front_channel_logout_uri.clone(),
        self_registered: client.is_self_registered(),
        strict_authentication: client.requests.exceptions.strict_authentication,
        pkce_without_nonce: client.requests.exceptions.pkce_without_nonce,
        allow_http: client.requests.exceptions.allow_http,
        allowed_schemes: client.requests.exceptions.allowed_schemes.clone(),
        default_resources: client.requests.exceptions.default_resources.clone(),
        omit_error_issuer: client.requests.exceptions.omit_error_issuer,
        ..pb::Client::default()
    };
    let proto = client_tokens::fill_proto(client, proto);
    pb::Client { warnings: client_exceptions::warnings(&proto), ..proto }
}
