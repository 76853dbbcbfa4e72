//! `conclave client …`

use std::time::Duration;

use std::io::Write as _;

use conclave_client::{AdminClient, all_pages, v1};
use serde_json::{Value, json};

use super::{
    client_requests::{Pkce, RequestArgs},
    client_tokens::{TokenArgs, overlap},
    client_words::{in_options, with_needs, with_settings},
    failure::Failure,
    output::{Output, with},
    password,
};

const FIELDS: &[&str] = &[
    "client_id",
    "name",
    "auth_method",
    "secret_taken_in",
    "pkce",
    "redirect_uris",
    "post_logout_redirect_uris",
    "scopes",
    "signing_algorithm",
    "consent",
    "application",
    "disabled",
    "backchannel_logout_uri",
    "frontchannel_logout_uri",
    "backchannel_logout_session_required",
    "require_pushed_authorization_requests",
    "pkce_optional",
    "pkce_without_nonce",
    "strict_authentication",
    "allow_http",
    "allowed_schemes",
    "omit_error_issuer",
    "resources",
    "default_resources",
    "self_registered",
    "grant_types",
    "token_endpoint_auth_signing_alg",
    "dpop_bound_access_tokens",
    "userinfo_signed_response_alg",
    "subject_type",
    "sector",
    "access_token_format",
    "audiences",
    "claims",
    "tls_client_auth",
    "previous_secret_expires_at_ms",
];
/// The fields of a client, with those that are shown once.
const NEW_FIELDS: &[&str] = &[
    "client_id",
    "client_secret",
    "issuer",
    "discovery_url",
    "secret_taken_in",
    "pkce",
    "name",
    "auth_method",
    "redirect_uris",
    "post_logout_redirect_uris",
    "scopes",
    "signing_algorithm",
    "consent",
    "application",
    "backchannel_logout_uri",
    "frontchannel_logout_uri",
    "require_pushed_authorization_requests",
    "pkce_optional",
    "pkce_without_nonce",
    "strict_authentication",
    "allow_http",
    "allowed_schemes",
    "omit_error_issuer",
    "resources",
    "default_resources",
    "grant_types",
    "token_endpoint_auth_signing_alg",
    "dpop_bound_access_tokens",
    "userinfo_signed_response_alg",
    "subject_type",
    "sector",
    "access_token_format",
    "audiences",
    "claims",
    "tls_client_auth",
];
const CONSENT_COLUMNS: &[&str] = &["client_id", "scopes", "claims", "resources", "granted_at_ms"];
const COLUMNS: &[&str] = &["client_id", "name", "auth_method", "application", "disabled", "redirect_uris"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a client; its secret is shown once
    #[command(after_help = "\
Examples:
  conclave client create --id shop --redirect-uri https://shop.example.org/callback
  conclave client create --id spa --auth-method none --redirect-uri https://spa.example.org/ --consent always
  conclave client create --app wiki --redirect-uri https://wiki.example.org/cb -o json | jq -r .client_secret
  conclave client create --id nightly --grant-type client_credentials --scope reports
  conclave client create --id bank --auth-method private_key_jwt --jwks-file keys.json --assertion-algorithm ES256 --dpop-bound true --redirect-uri https://bank.example.org/cb")]
    Create(Box<Create>),
    /// List clients
    #[command(after_help = "Examples:\n  conclave client list\n  conclave client list -o json")]
    List,
    /// Show a client
    #[command(after_help = "Examples:\n  conclave client show shop")]
    Show {
        /// The client's id
        client_id: String,
    },
    /// Change a client; options that are not given stay unchanged
    #[command(after_help = "\
Examples:
  conclave client update shop --redirect-uri https://shop.example.org/cb --redirect-uri https://shop.example.net/cb
      the given addresses together replace the earlier ones
  conclave client update shop --disabled true")]
    Update(Box<Update>),
    /// Create a new secret, shown once; the old one ends at once, or after --keep-old-for
    #[command(after_help = "\
Examples:
  conclave client rotate-secret shop -o json | jq -r .client_secret
  conclave client rotate-secret shop --keep-old-for 24h")]
    RotateSecret {
        /// The client's id
        client_id: String,
        /// The time for which the old secret stays valid, such as 90s, 12h or 30d [default: not at all]
        #[arg(long, value_name = "DURATION", value_parser = overlap)]
        keep_old_for: Option<Duration>,
        /// Use the secret that the application has already, read from standard input: 16 to 512 visible characters
        #[arg(long)]
        secret_stdin: bool,
    },
    /// List the consents of a user to clients that ask once
    #[command(after_help = "Examples:\n  conclave client consents ada")]
    Consents {
        /// Username or id
        user: String,
    },
    /// Revoke a user's consent to a client, with everything the client was granted
    #[command(after_help = "Examples:\n  conclave client revoke-consent shop --user ada")]
    RevokeConsent {
        /// The client's id
        client_id: String,
        /// Username or id of the user who consented
        #[arg(long)]
        user: String,
    },
    /// Delete a client, with everything it was granted
    #[command(after_help = "Examples:\n  conclave client delete shop")]
    Delete {
        /// The client's id
        client_id: String,
    },
}

#[derive(Debug, clap::Args)]
pub struct Create {
    /// The client_id; generated if not given
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The name for the consent page
    #[arg(long)]
    name: Option<String>,
    /// Authentication method: client_secret_basic, client_secret_post, private_key_jwt, tls_client_auth,
    /// self_signed_tls_client_auth or none
    #[arg(long, value_name = "METHOD", default_value = "client_secret_basic")]
    auth_method: String,
    /// Subject identifier type: public, or pairwise (a subject that differs for each host)
    #[arg(long, value_name = "TYPE")]
    subject_type: Option<String>,
    /// The host that pairwise subjects are made for [default: the host of the redirect URIs]
    #[arg(long, value_name = "HOST")]
    sector: Option<String>,
    /// Use the secret that the application has already, read from standard input: 16 to 512 visible characters
    #[arg(long)]
    secret_stdin: bool,
    /// The application whose access rule applies; without it, every user may sign in
    #[arg(long, value_name = "SLUG")]
    app: Option<String>,
    #[command(flatten)]
    shape: Shape,
}

#[derive(Debug, clap::Args)]
pub struct Update {
    /// The client's id
    client_id: String,
    /// The name that the consent page shows
    #[arg(long)]
    name: Option<String>,
    /// Refuse the client everywhere
    #[arg(long, value_name = "true|false")]
    disabled: Option<bool>,
    /// The new authentication method; a secret that it requires is shown once
    #[arg(long, value_name = "METHOD")]
    auth_method: Option<String>,
    /// The application whose access rule applies from now on; empty = none: every user may sign in
    #[arg(long, value_name = "SLUG")]
    app: Option<String>,
    /// The new subject identifier type: public or pairwise; the client sees every user as new
    #[arg(long, value_name = "TYPE")]
    subject_type: Option<String>,
    /// The new host that pairwise subjects are made for; the client sees every user as new
    #[arg(long, value_name = "HOST")]
    sector: Option<String>,
    #[command(flatten)]
    emptied: Emptied,
    #[command(flatten)]
    shape: Shape,
}

/// The switches that empty a list.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "one switch each on the command line")]
pub(super) struct Emptied {
    /// Remove all redirect URIs
    #[arg(long, conflicts_with = "redirect_uris")]
    no_redirect_uri: bool,
    /// Remove all addresses after logout
    #[arg(long, conflicts_with = "post_logout_redirect_uris")]
    no_post_logout_redirect_uri: bool,
    /// Remove all schemes of its own
    #[arg(long, conflicts_with = "allowed_schemes")]
    no_allow_scheme: bool,
    /// Remove all resources; with --no-default-resource if there are default ones
    #[arg(long, conflicts_with = "resources")]
    no_resource: bool,
    /// Remove all default resources
    #[arg(long, conflicts_with = "default_resources")]
    no_default_resource: bool,
    /// Remove all names as a resource server except its client_id
    #[arg(long, conflicts_with = "audiences")]
    no_audience: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Shape {
    /// A URI that codes may be sent to, exactly; may be given several times
    #[arg(long = "redirect-uri", value_name = "URI")]
    redirect_uris: Vec<String>,
    /// A URI that users may be sent to after logout, exactly; may be given several times
    #[arg(long = "post-logout-redirect-uri", value_name = "URI")]
    post_logout_redirect_uris: Vec<String>,
    /// A scope that it may request; may be given several times [default for a new client: openid profile email]
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// The algorithm that its tokens are signed with: RS256, PS256, ES256 or EdDSA [default for a new client: RS256]
    #[arg(long, value_name = "ALG")]
    signing_algorithm: Option<String>,
    /// The consent mode: implicit, once or always [default for a new client: implicit]
    #[arg(long, value_name = "MODE")]
    consent: Option<String>,
    #[command(flatten)]
    requests: RequestArgs,
    #[command(flatten)]
    tokens: TokenArgs,
}

pub(super) async fn run(client: &AdminClient, command: Command) -> Result<Output, Failure> {
    performed(client, command).await.map_err(in_options)
}

async fn performed(client: &AdminClient, command: Command) -> Result<Output, Failure> {
    let clients = client.clients();
    match command {
        Command::Create(create) => {
            let has_usual_scopes = create.shape.scopes.is_empty();
            let answer = clients.create(create_request(*create)?).await?;
            let client = answer.client.unwrap_or_default();
            warn(&client);
            if has_usual_scopes && client.grant_types.iter().any(|grant| grant == "authorization_code") {
                note_scopes(&client);
            }
            let settings = with_settings(value(&client), &client, &answer.issuer);
            let value = with(settings, "client_secret", secret(answer.client_secret));
            Ok(Output::One { fields: NEW_FIELDS, value })
        }
        Command::List => list(client).await,
        Command::Show { client_id } => {
            let client = clients.get(v1::GetClientRequest { client_id }).await?;
            warn(&client);
            Ok(one(&client))
        }
        Command::Update(update) => {
            let client = clients.update(changes(*update)?).await?;
            warn(&client);
            if client.new_client_secret.is_empty() {
                return Ok(one(&client));
            }
            let value = with_needs(value(&client), &client);
            let value = with(value, "client_secret", secret(client.new_client_secret));
            Ok(Output::One { fields: NEW_FIELDS, value })
        }
        Command::RotateSecret { client_id, keep_old_for, secret_stdin } => {
            let kept = keep_old_for.map_or(0, |kept| u64::try_from(kept.as_millis()).unwrap_or(u64::MAX));
            let request = v1::RotateClientSecretRequest {
                client_id: client_id.clone(),
                keep_previous_ms: kept,
                client_secret: if secret_stdin { password::from_stdin()? } else { String::new() },
            };
            let answer = clients.rotate_secret(request).await?;
            let value = json!({ "client_id": client_id, "client_secret": answer.client_secret });
            Ok(Output::One { fields: &["client_id", "client_secret"], value })
        }
        Command::Consents { user } => {
            let answer = clients.list_consents(v1::ListConsentsRequest { user }).await?;
            Ok(Output::Many { columns: CONSENT_COLUMNS, rows: answer.consents.iter().map(consent).collect() })
        }
        Command::RevokeConsent { client_id, user } => {
            let request = v1::RevokeConsentRequest { user: user.clone(), client_id: client_id.clone() };
            clients.revoke_consent(request).await?;
            let value = json!({ "revoked": client_id, "user": user });
            Ok(Output::done(format!("client {client_id} no longer has the consent of {user}"), value))
        }
        Command::Delete { client_id } => {
            clients.delete(v1::DeleteClientRequest { client_id: client_id.clone() }).await?;
            Ok(Output::done(format!("client {client_id} is deleted"), json!({ "deleted": client_id })))
        }
    }
}

/// Printed on standard error, so that the output for programs does not change.
fn warn(client: &v1::Client) {
    for warning in &client.warnings {
        let _ = writeln!(std::io::stderr(), "warning: {warning}");
    }
}

/// Names the scopes that applications often request, and that a client has only if they are given.
fn note_scopes(client: &v1::Client) {
    let _ = writeln!(
        std::io::stderr(),
        "note: the application may ask for the scopes {}; other scopes, such as groups or offline_access, are left out unless --scope names all of them",
        client.scopes.join(", ")
    );
}

/// The secret as JSON; a public client has none.
fn secret(text: String) -> Value {
    if text.is_empty() { Value::Null } else { Value::String(text) }
}

fn create_request(create: Create) -> Result<v1::CreateClientRequest, Failure> {
    let jwks = create.shape.tokens.jwks()?.unwrap_or_default();
    // Decision 0064: a client that can authenticate may send a nonce in place of PKCE unless the operator forbids it.
    let grant_types = &create.shape.tokens.grant_types;
    let uses_codes = grant_types.is_empty() || grant_types.iter().any(|one| one == "authorization_code");
    let may_use_nonce = uses_codes && create.auth_method != "none";
    let requests = create.shape.requests;
    Ok(v1::CreateClientRequest {
        client_id: create.id.unwrap_or_default(),
        name: create.name.unwrap_or_default(),
        auth_method: create.auth_method,
        redirect_uris: create.shape.redirect_uris,
        post_logout_redirect_uris: create.shape.post_logout_redirect_uris,
        scopes: create.shape.scopes,
        signing_algorithm: create.shape.signing_algorithm.unwrap_or_default(),
        consent: create.shape.consent.unwrap_or_default(),
        application: create.app.unwrap_or_default(),
        backchannel_logout_uri: requests.backchannel_logout_uri.unwrap_or_default(),
        frontchannel_logout_uri: requests.frontchannel_logout_uri.unwrap_or_default(),
        backchannel_logout_session_required: requests.backchannel_logout_session_required.unwrap_or_default(),
        require_pushed_authorization_requests: requests.require_par.unwrap_or_default(),
        pkce_optional: requests.pkce_optional.map_or(may_use_nonce, Pkce::is_optional),
        pkce_without_nonce: requests.pkce_optional.is_some_and(Pkce::is_without_nonce),
        strict_authentication: requests.strict_auth.unwrap_or_default(),
        allow_http: requests.allow_http.unwrap_or_default(),
        omit_error_issuer: requests.omit_error_iss.unwrap_or_default(),
        allowed_schemes: requests.allowed_schemes,
        default_resources: requests.default_resources,
        client_secret: if create.secret_stdin { password::from_stdin()? } else { String::new() },
        resources: requests.resources,
        grant_types: create.shape.tokens.grant_types,
        jwks,
        token_endpoint_auth_signing_alg: create.shape.tokens.assertion_algorithm.unwrap_or_default(),
        dpop_bound_access_tokens: create.shape.tokens.dpop_bound.unwrap_or_default(),
        userinfo_signed_response_alg: create.shape.tokens.userinfo_algorithm.unwrap_or_default(),
        subject_type: create.subject_type.unwrap_or_default(),
        sector: create.sector.unwrap_or_default(),
        access_token_format: create.shape.tokens.access_token_format.unwrap_or_default(),
        tls_client_auth: create.shape.tokens.tls_client_auth.unwrap_or_default(),
        claims: create.shape.tokens.claims,
        audiences: create.shape.tokens.audiences,
    })
}

fn changes(update: Update) -> Result<v1::UpdateClientRequest, Failure> {
    let uris = |uris: Vec<String>, is_emptied: bool| {
        (is_emptied || !uris.is_empty()).then_some(v1::UriList { uris })
    };
    let emptied = update.emptied;
    let scopes = update.shape.scopes;
    let jwks = update.shape.tokens.jwks()?;
    let requests = update.shape.requests;
    let (grant_types, audiences) = (update.shape.tokens.grant_types, update.shape.tokens.audiences);
    let schemes = requests.allowed_schemes;
    let (claims, no_claims) = (update.shape.tokens.claims, update.shape.tokens.no_claims);
    Ok(v1::UpdateClientRequest {
        client_id: update.client_id,
        name: update.name,
        redirect_uris: uris(update.shape.redirect_uris, emptied.no_redirect_uri),
        post_logout_redirect_uris: uris(
            update.shape.post_logout_redirect_uris,
            emptied.no_post_logout_redirect_uri,
        ),
        scopes: (!scopes.is_empty()).then_some(v1::ScopeList { scopes }),
        signing_algorithm: update.shape.signing_algorithm,
        consent: update.shape.consent,
        disabled: update.disabled,
        backchannel_logout_uri: requests.backchannel_logout_uri,
        frontchannel_logout_uri: requests.frontchannel_logout_uri,
        backchannel_logout_session_required: requests.backchannel_logout_session_required,
        require_pushed_authorization_requests: requests.require_par,
        pkce_optional: requests.pkce_optional.map(Pkce::is_optional),
        pkce_without_nonce: requests.pkce_optional.map(Pkce::is_without_nonce),
        strict_authentication: requests.strict_auth,
        allow_http: requests.allow_http,
        omit_error_issuer: requests.omit_error_iss,
        subject_type: update.subject_type,
        sector: update.sector,
        allowed_schemes: (emptied.no_allow_scheme || !schemes.is_empty())
            .then_some(v1::ScopeList { scopes: schemes }),
        default_resources: uris(requests.default_resources, emptied.no_default_resource),
        auth_method: update.auth_method,
        application: update.app,
        resources: uris(requests.resources, emptied.no_resource),
        grant_types: (!grant_types.is_empty()).then_some(v1::GrantTypeList { grant_types }),
        jwks,
        token_endpoint_auth_signing_alg: update.shape.tokens.assertion_algorithm,
        dpop_bound_access_tokens: update.shape.tokens.dpop_bound,
        userinfo_signed_response_alg: update.shape.tokens.userinfo_algorithm,
        access_token_format: update.shape.tokens.access_token_format,
        tls_client_auth: update.shape.tokens.tls_client_auth,
        claims: (no_claims || !claims.is_empty()).then_some(v1::ClaimRuleList { claims }),
        audiences: (emptied.no_audience || !audiences.is_empty()).then_some(v1::AudienceList { audiences }),
    })
}

async fn list(client: &AdminClient) -> Result<Output, Failure> {
    let clients = all_pages(async |page| {
        let answer = client.clients().list(v1::ListClientsRequest { page: Some(page) }).await?;
        Ok((answer.clients, answer.next_page_token))
    })
    .await?;
    Ok(Output::Many { columns: COLUMNS, rows: clients.iter().map(value).collect() })
}

fn consent(consent: &v1::Consent) -> Value {
    json!({
        "client_id": consent.client_id,
        "username": consent.username,
        "scopes": consent.scopes,
        "claims": consent.claims,
        "resources": consent.resources,
        "granted_at_ms": consent.granted_at_ms,
    })
}

fn one(client: &v1::Client) -> Output {
    Output::One { fields: FIELDS, value: with_needs(value(client), client) }
}

fn value(client: &v1::Client) -> Value {
    json!({
        "client_id": client.client_id,
        "name": client.name,
        "auth_method": client.auth_method,
        "redirect_uris": client.redirect_uris,
        "post_logout_redirect_uris": client.post_logout_redirect_uris,
        "scopes": client.scopes,
        "signing_algorithm": client.signing_algorithm,
        "consent": client.consent,
        "application": client.application,
        "disabled": client.disabled,
        "backchannel_logout_uri": client.backchannel_logout_uri,
        "frontchannel_logout_uri": client.frontchannel_logout_uri,
        "backchannel_logout_session_required": client.backchannel_logout_session_required,
        "require_pushed_authorization_requests": client.require_pushed_authorization_requests,
        "pkce_optional": client.pkce_optional,
        "pkce_without_nonce": client.pkce_without_nonce,
        "strict_authentication": client.strict_authentication,
        "allow_http": client.allow_http,
        "allowed_schemes": client.allowed_schemes,
        "default_resources": client.default_resources,
        "omit_error_issuer": client.omit_error_issuer,
        "resources": client.resources,
        "self_registered": client.self_registered,
        "grant_types": client.grant_types,
        "jwks": client.jwks,
        "token_endpoint_auth_signing_alg": client.token_endpoint_auth_signing_alg,
        "dpop_bound_access_tokens": client.dpop_bound_access_tokens,
        "userinfo_signed_response_alg": client.userinfo_signed_response_alg,
        "subject_type": client.subject_type,
        "sector": client.sector,
        "access_token_format": client.access_token_format,
        "audiences": client.audiences,
        "claims": client.claims.iter().map(|rule| json!({
            "name": rule.name, "scope": rule.scope, "expression": rule.expression,
        })).collect::<Vec<_>>(),
        "tls_client_auth": client.tls_client_auth,
        "previous_secret_expires_at_ms": client.previous_secret_expires_at_ms,
    })
}
