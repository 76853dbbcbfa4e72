//! The authorization server of an account: found through the account's own server, and checked against the requirements
//! of atproto.

use serde_json::Value;

use super::{error::AtmosphereError, identifier::server, net::Net};

/// An authorization server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// An origin; responses must carry it as `iss`.
    pub issuer: String,
    pub authorization: String,
    pub token: String,
    pub pushed: String,
    pub revocation: Option<String>,
}

/// The issuer that this account's server names: exactly one (RFC 9728).
///
/// # Errors
/// [`AtmosphereError`]
pub(crate) async fn issuer_of(net: &Net, pds: &str) -> Result<String, AtmosphereError> {
    let url = format!("{pds}/.well-known/oauth-protected-resource");
    let document = net
        .json(&url)
        .await?
        .ok_or(AtmosphereError::ProviderInvalid("the server is not a protected resource"))?;
    let named = document.get("authorization_servers").and_then(Value::as_array).map(Vec::as_slice);
    match named {
        Some([Value::String(issuer)]) => server(issuer)
            .filter(|origin| origin == issuer.trim_end_matches('/'))
            .ok_or(AtmosphereError::ProviderInvalid("the authorization server's name is not an origin")),
        _ => {
            Err(AtmosphereError::ProviderInvalid("the server does not name exactly one authorization server"))
        }
    }
}

/// The authorization server's metadata (RFC 8414), checked.
///
/// # Errors
/// [`AtmosphereError`]
pub(crate) async fn described(net: &Net, issuer: &str) -> Result<Server, AtmosphereError> {
    let url = format!("{issuer}/.well-known/oauth-authorization-server");
    let document = net
        .json(&url)
        .await?
        .ok_or(AtmosphereError::ProviderInvalid("the server is not an authorization server"))?;
    read(&document, issuer, net.dev)
}

/// The authorization server behind an origin: the one that it names as an account's server, or the origin itself.
///
/// # Errors
/// [`AtmosphereError`]
pub(crate) async fn behind(net: &Net, origin: &str) -> Result<Server, AtmosphereError> {
    match issuer_of(net, origin).await {
        Ok(issuer) => described(net, &issuer).await,
        Err(AtmosphereError::ProviderInvalid(_)) => described(net, origin).await,
        Err(error) => Err(error),
    }
}

fn read(document: &Value, issuer: &str, dev: bool) -> Result<Server, AtmosphereError> {
    let wrong = |why| Err(AtmosphereError::ProviderInvalid(why));
    let text = |name: &str| document.get(name).and_then(Value::as_str);
    let says = |name: &str| document.get(name).and_then(Value::as_bool) == Some(true);
    let has = |name: &str, wanted: &str| {
        let list = document.get(name).and_then(Value::as_array);
        list.is_some_and(|list| list.iter().any(|one| one.as_str() == Some(wanted)))
    };
    if text("issuer") != Some(issuer) {
        return wrong("the authorization server names another issuer");
    }
    let endpoint = |name: &str| text(name).filter(|url| is_endpoint(url, dev)).map(str::to_owned);
    let (Some(authorization), Some(token), Some(pushed)) = (
        endpoint("authorization_endpoint"),
        endpoint("token_endpoint"),
        endpoint("pushed_authorization_request_endpoint"),
    ) else {
        return wrong("an endpoint of the authorization server is missing or not an https address");
    };
    let promises = [
        (says("require_pushed_authorization_requests"), "it does not require pushed requests"),
        (says("authorization_response_iss_parameter_supported"), "its responses do not name the issuer"),
        (says("client_id_metadata_document_supported"), "it does not support client metadata documents"),
        (has("code_challenge_methods_supported", "S256"), "it does not support S256"),
        (has("dpop_signing_alg_values_supported", "ES256"), "it does not support ES256 for DPoP"),
        (
            has("token_endpoint_auth_signing_alg_values_supported", "ES256"),
            "it does not support ES256 for clients",
        ),
        (
            has("token_endpoint_auth_methods_supported", "private_key_jwt"),
            "it does not support private_key_jwt",
        ),
        (has("token_endpoint_auth_methods_supported", "none"), "it does not support public clients"),
        (has("scopes_supported", "atproto"), "it does not support the scope atproto"),
    ];
    if let Some((_, why)) = promises.into_iter().find(|(kept, _)| !kept) {
        return wrong(why);
    }
    let revocation = endpoint("revocation_endpoint");
    Ok(Server { issuer: issuer.to_owned(), authorization, token, pushed, revocation })
}

/// True for the URL of an endpoint for a browser or this cluster. The outbound client decides if the address may be
/// contacted.
fn is_endpoint(text: &str, dev: bool) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    let is_web = url.scheme() == "https" || (dev && url.scheme() == "http");
    is_web
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.fragment().is_none()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://as.example.com";

    fn document() -> Value {
        json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://as.example.com/authorize",
            "token_endpoint": "https://as.example.com/token",
            "pushed_authorization_request_endpoint": "https://as.example.com/par",
            "require_pushed_authorization_requests": true,
            "authorization_response_iss_parameter_supported": true,
            "client_id_metadata_document_supported": true,
            "code_challenge_methods_supported": ["S256"],
            "dpop_signing_alg_values_supported": ["RS256", "ES256"],
            "token_endpoint_auth_signing_alg_values_supported": ["ES256"],
            "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
            "scopes_supported": ["atproto", "transition:generic"],
        })
    }

    #[test]
    fn a_server_that_keeps_every_promise_is_taken_and_no_other() {
        assert!(read(&document(), ISSUER, false).is_ok());
        let members: Vec<String> = document().as_object().unwrap().keys().cloned().collect();
        for name in members {
            for other in [
                json!(null),
                json!(false),
                json!([]),
                json!("javascript:alert(1)"),
                json!("/relative"),
                json!("http://as.example.com/x"),
            ] {
                let mut document = document();
                document[&name] = other.clone();
                assert!(read(&document, ISSUER, false).is_err(), "{name}: {other}");
            }
        }
        let mut mixed = document();
        let many: Vec<String> =
            (0..500).map(|n| format!("ALG{}", n * 7919 % 500)).chain(["ES256".into()]).collect();
        mixed["dpop_signing_alg_values_supported"] = json!(many);
        assert!(read(&mixed, ISSUER, false).is_ok());
        assert!(read(&document(), "https://other.example.com", false).is_err());
    }
}
