//! Translates fields of the API's messages into command-line options, and shows the settings that the operator of an
//! application needs for its client.

use conclave_client::v1;
use serde_json::{Value, json};

use super::{failure::Failure, output::with};

/// The options for fields of the API; if one name begins with another, the longer one is first.
const OPTIONS: &[(&str, &str)] = &[
    ("token_endpoint_auth_signing_alg", "--assertion-algorithm"),
    ("backchannel_logout_session_required", "--backchannel-logout-session-required"),
    ("require_pushed_authorization_requests", "--require-par"),
    ("userinfo_signed_response_alg", "--userinfo-algorithm"),
    ("post_logout_redirect_uris", "--post-logout-redirect-uri"),
    ("dpop_bound_access_tokens", "--dpop-bound"),
    ("frontchannel_logout_uri", "--frontchannel-logout-uri"),
    ("backchannel_logout_uri", "--backchannel-logout-uri"),
    ("strict_authentication", "--strict-auth"),
    ("access_token_format", "--access-token-format"),
    ("pkce_without_nonce", "--pkce-optional without-nonce"),
    ("signing_algorithm", "--signing-algorithm"),
    ("default_resources", "--default-resource"),
    ("omit_error_issuer", "--omit-error-iss"),
    ("allowed_schemes", "--allow-scheme"),
    ("redirect_uris", "--redirect-uri"),
    ("client_secret", "--secret-stdin"),
    ("pkce_optional", "--pkce-optional"),
    ("subject_type", "--subject-type"),
    ("grant_types", "--grant-type"),
    ("auth_method", "--auth-method"),
    ("application", "--app"),
    ("allow_http", "--allow-http"),
    ("audiences", "--audience"),
    ("resources", "--resource"),
    ("client_id", "--id"),
    ("consent", "--consent"),
    ("claims", "--claim"),
    ("scopes", "--scope"),
    ("sector", "--sector"),
    ("jwks", "--jwks-file"),
];
/// Words that are fields as well as values or plain English. They are options only before the colon of a message about
/// the field.
const ONLY_AS_SUBJECT: &[&str] =
    &["application", "consent", "claims", "scopes", "sector", "resources", "client_id", "audiences"];

/// The failure of a client command, with the options in place of the API's fields.
pub(super) fn in_options(failure: Failure) -> Failure {
    failure.reworded(|text| {
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        for word in &mut words {
            let bare = word.trim_end_matches([':', ',', ';', '.']);
            let rest = word.get(bare.len()..).unwrap_or_default();
            let is_subject = rest.starts_with(':');
            let option = OPTIONS.iter().find(|(field, _)| *field == bare);
            if let Some((field, option)) = option
                && (is_subject || !ONLY_AS_SUBJECT.contains(field))
            {
                *word = format!("{option}{rest}");
            }
        }
        words.join(" ")
    })
}

/// Adds the settings that the application needs to the client's own.
pub(super) fn with_settings(value: Value, client: &v1::Client, issuer: &str) -> Value {
    let value = with(value, "issuer", json!(issuer));
    let value = with(value, "discovery_url", json!(format!("{issuer}/.well-known/openid-configuration")));
    with_needs(value, client)
}

/// Adds the requirements on the client's requests.
pub(super) fn with_needs(value: Value, client: &v1::Client) -> Value {
    let value = with(value, "secret_taken_in", json!(secret_place(client)));
    with(value, "pkce", json!(pkce(client)))
}

/// The places where the application may send its secret.
fn secret_place(client: &v1::Client) -> &'static str {
    match client.auth_method.as_str() {
        "client_secret_basic" if client.strict_authentication => "header",
        "client_secret_post" if client.strict_authentication => "body",
        "client_secret_basic" | "client_secret_post" => "header or body",
        _ => "",
    }
}

/// The PKCE requirement on an authorization request.
fn pkce(client: &v1::Client) -> &'static str {
    if !client.grant_types.iter().any(|grant| grant == "authorization_code") {
        ""
    } else if client.pkce_without_nonce {
        "S256 if the application can; not required"
    } else if client.pkce_optional {
        "S256, or a nonce"
    } else {
        "S256 required"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_api_are_named_by_their_options() {
        for (said, shown) in [
            (
                "private_key_jwt needs jwks and token_endpoint_auth_signing_alg",
                "private_key_jwt needs --jwks-file and --assertion-algorithm",
            ),
            ("redirect_uris: \"x\" is relative", "--redirect-uri: \"x\" is relative"),
            ("sector: the redirect URIs differ", "--sector: the redirect URIs differ"),
            ("the client has no claims of its own", "the client has no claims of its own"),
            ("use client_secret_post, jwks.", "use client_secret_post, --jwks-file."),
        ] {
            assert_eq!(in_options(Failure::other(said)), Failure::other(shown));
        }
    }

    #[test]
    fn what_an_application_needs_follows_from_its_client() {
        let client = v1::Client {
            auth_method: "client_secret_basic".into(),
            grant_types: vec!["authorization_code".into()],
            pkce_optional: true,
            ..v1::Client::default()
        };
        let settings = with_settings(json!({}), &client, "https://id.example.org");
        let expected = json!({
            "issuer": "https://id.example.org",
            "discovery_url": "https://id.example.org/.well-known/openid-configuration",
            "secret_taken_in": "header or body",
            "pkce": "S256, or a nonce",
        });
        assert_eq!(settings, expected);
        let strict = v1::Client { strict_authentication: true, pkce_optional: false, ..client };
        assert_eq!((secret_place(&strict), pkce(&strict)), ("header", "S256 required"));
    }
}
