//! Dynamic registration (RFC 7591, 7592), and requirements of the configuration for every client.

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_config::Registration;
use conclave_crypto::jwk::Alg;
use conclave_node::testing::{ApiRole, TestNode};
use conclave_proto::command::v1::SigningAlgorithm;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use super::oidc_assertions::{assertion, client_key};
use super::site::{Browser, PASSWORD, Page, Site, VERIFIER, redemption};

async fn site(registration: Registration) -> Site {
    let node = TestNode::start_with(|settings| settings.authorization.registration = registration).await;
    let site = Site::of(node);
    site.seed().await;
    site
}

async fn call(site: &Site, method: &str, path: &str, token: Option<&str>, body: &Value) -> Page {
    let path = path.strip_prefix("http://127.0.0.1:9000").unwrap_or(path);
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    site.send("192.0.2.1", request.body(Body::from(body.to_string())).unwrap()).await
}

async fn register(site: &Site, token: Option<&str>, body: &Value) -> Page {
    call(site, "POST", "/oidc/register", token, body).await
}

fn metadata() -> Value {
    json!({
        "redirect_uris": [super::site::REDIRECT_URI],
        "client_name": "Self-made",
        "token_endpoint_auth_method": "client_secret_post",
        "scope": "openid email admin",
        "unknown_member": 1,
    })
}

#[tokio::test]
async fn registration_is_closed_until_it_is_opened() {
    let site = Site::open().await;
    assert_eq!(register(&site, None, &metadata()).await.status, StatusCode::NOT_FOUND);
    let document = site.get(&mut Browser::default(), "/.well-known/openid-configuration").await.json();
    assert!(document.get("registration_endpoint").is_none());
}

#[tokio::test]
async fn with_a_token_clients_register_use_change_and_end_themselves() {
    let site = site(Registration::Token).await;
    let document = site.get(&mut Browser::default(), "/.well-known/openid-configuration").await.json();
    assert_eq!(document["registration_endpoint"], "http://127.0.0.1:9000/oidc/register");
    let (_, reader) = site.node.api_token(ApiRole::Reader).await;
    let (_, registrar) = site.node.api_token(ApiRole::Registrar).await;
    for token in [None, Some("x"), Some(reader.as_str())] {
        assert_eq!(register(&site, token, &metadata()).await.status, StatusCode::UNAUTHORIZED);
    }
    let made = register(&site, Some(&registrar), &metadata()).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let made = made.json();
    assert_eq!((&made["scope"], &made["client_secret_expires_at"]), (&json!("openid email"), &json!(0)));
    let id = made["client_id"].as_str().unwrap();

    // The user is asked once; then it works like any client.
    let mut browser = Browser::default();
    let url = Site::authorize_url(id, &[("scope", "openid email")]);
    let page = site.sign_in_at(&mut browser, &url, "ada", PASSWORD).await;
    assert_eq!(page.shown("application"), "Self-made");
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let form = [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("decision", "allow")];
    let page = site.post(&mut browser, "/consent", &form).await;
    let code = page.parameter("code").unwrap_or_else(|| panic!("{} {}", page.status, page.text));
    let secret = made["client_secret"].as_str().unwrap();
    let form = [redemption(&code).to_vec(), vec![("client_id", id), ("client_secret", secret)]].concat();
    assert_eq!(site.token(None, &form).await.status, StatusCode::OK);
    assert!(VERIFIER.len() >= 43);

    // Its own registration, with its registration access token.
    let (uri, token) = (
        made["registration_client_uri"].as_str().unwrap(),
        made["registration_access_token"].as_str().unwrap(),
    );
    let read = call(&site, "GET", uri, Some(token), &Value::Null).await.json();
    assert_eq!((&read["client_name"], &read["client_secret"]), (&json!("Self-made"), &Value::Null));
    let other = register(&site, Some(&registrar), &metadata()).await.json();
    let other = other["registration_access_token"].as_str().unwrap();
    for (uri, token) in [
        (uri, Some(other)),
        (uri, Some(registrar.as_str())),
        (uri, None),
        ("/oidc/register/web", Some(token)),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let page = call(&site, method, uri, token, &metadata()).await;
            assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{method} {uri}");
        }
    }
    let mut changed = metadata();
    changed["client_id"] = json!(id);
    changed["client_name"] = json!("Renamed");
    changed["redirect_uris"] = json!(["https://rp.test/new"]);
    let page = call(&site, "PUT", uri, Some(token), &changed).await;
    assert_eq!((page.status, page.json()["client_name"].clone()), (StatusCode::OK, json!("Renamed")));
    changed["client_id"] = json!("web");
    let page = call(&site, "PUT", uri, Some(token), &changed).await;
    assert_eq!(page.json()["error"], "invalid_client_metadata");
    let page = site.get(&mut browser, &url).await;
    assert_eq!(page.shown("error-code"), "redirect_uri_mismatch", "the old address is gone");
    assert_eq!(call(&site, "DELETE", uri, Some(token), &Value::Null).await.status, StatusCode::NO_CONTENT);
    assert_eq!(call(&site, "GET", uri, Some(token), &Value::Null).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(site.get(&mut browser, &url).await.shown("error-code"), "unknown_client");
}

#[tokio::test]
async fn open_registration_refuses_what_it_cannot_keep_and_is_limited_by_address() {
    let site = site(Registration::Open).await;
    let with = |name: &str, value: Value| {
        let mut body = metadata();
        body[name] = value;
        body
    };
    for (body, error) in [
        (json!([]), "invalid_client_metadata"),
        (json!({}), "invalid_redirect_uri"),
        (with("redirect_uris", json!(["http://rp.test/cb"])), "invalid_redirect_uri"),
        (with("redirect_uris", json!(["javascript:alert(1)"])), "invalid_redirect_uri"),
        (with("redirect_uris", json!(["https://rp.test/cb#f"])), "invalid_redirect_uri"),
        (with("post_logout_redirect_uris", json!(["https://u@rp.test/"])), "invalid_redirect_uri"),
        (with("response_types", json!(["code", "id_token"])), "invalid_client_metadata"),
        (with("grant_types", json!(["implicit"])), "invalid_client_metadata"),
        (with("token_endpoint_auth_method", json!("client_secret_jwt")), "invalid_client_metadata"),
        (with("id_token_signed_response_alg", json!("none")), "invalid_client_metadata"),
        (with("backchannel_logout_uri", json!("ftp://rp.test/")), "invalid_client_metadata"),
        (with("id_token_encrypted_response_alg", json!("RSA-OAEP")), "invalid_client_metadata"),
        (with("tls_client_certificate_bound_access_tokens", json!(true)), "invalid_client_metadata"),
        (with("require_signed_request_object", json!(true)), "invalid_client_metadata"),
        (with("client_name", json!("Trusted \u{202e}tset.live")), "invalid_client_metadata"),
    ] {
        let page = register(&site, None, &body).await;
        assert_eq!(
            (page.status, page.json()["error"].clone()),
            (StatusCode::BAD_REQUEST, json!(error)),
            "{body}"
        );
    }
    let public = register(&site, None, &with("token_endpoint_auth_method", json!("none"))).await;
    assert!(public.json().get("client_secret").is_none(), "{}", public.text);
    let mut last = StatusCode::CREATED;
    for _ in 0..50 {
        last = register(&site, None, &metadata()).await.status;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_client_that_registers_for_bound_tokens_gets_no_others() {
    let site = site(Registration::Open).await;
    let mut body = metadata();
    body["token_endpoint_auth_method"] = json!("none");
    assert_eq!(register(&site, None, &body).await.json()["dpop_bound_access_tokens"], false);
    body["dpop_bound_access_tokens"] = json!(true);
    let made = register(&site, None, &body).await.json();
    assert_eq!(made["dpop_bound_access_tokens"], true);
    let (id, uri) = (made["client_id"].as_str().unwrap(), made["registration_client_uri"].as_str().unwrap());
    let form = [redemption("x").to_vec(), vec![("client_id", id)]].concat();
    let page = site.token(None, &form).await;
    assert_eq!(page.json()["error"], "invalid_grant", "no code");
    let mut browser = Browser::default();
    let url = Site::authorize_url(id, &[("scope", "openid")]);
    let page = site.sign_in_at(&mut browser, &url, "ada", PASSWORD).await;
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let form = [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("decision", "allow")];
    let code = site.post(&mut browser, "/consent", &form).await.parameter("code").unwrap();
    let form = [redemption(&code).to_vec(), vec![("client_id", id)]].concat();
    let page = site.token(None, &form).await;
    assert!(page.json()["error_description"].as_str().unwrap().contains("DPoP"), "{}", page.text);

    // A member that is left out in a change is reset to its default (RFC 7592 §2.2).
    body["client_id"] = json!(id);
    body.as_object_mut().unwrap().remove("dpop_bound_access_tokens");
    let token = made["registration_access_token"].as_str();
    assert_eq!(call(&site, "PUT", uri, token, &body).await.json()["dpop_bound_access_tokens"], false);
    assert_eq!(site.token(None, &form).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_cluster_may_take_pushed_requests_only() {
    let node = TestNode::start_with(|settings| settings.authorization.require_pushed = true).await;
    let site = Site::of(node);
    site.seed().await;
    let mut browser = Browser::default();
    let page = site.get(&mut browser, &Site::authorize_url("web", &[])).await;
    assert_eq!(page.parameter("error").as_deref(), Some("invalid_request"));
    let document = site.get(&mut browser, "/.well-known/openid-configuration").await.json();
    assert_eq!(document["require_pushed_authorization_requests"], true);
}

#[tokio::test]
async fn a_client_that_registers_for_an_algorithm_without_a_key_gets_one() {
    let site = site(Registration::Open).await;
    let alg_of = |token: &str| {
        let header = token.split('.').next().unwrap();
        let header = URL_SAFE_NO_PAD.decode(header).unwrap();
        serde_json::from_slice::<Value>(&header).unwrap()["alg"].clone()
    };
    assert!(site.node.cluster().view().active_key(SigningAlgorithm::Ps256).is_none());
    let wanted = json!({
        "redirect_uris": [super::site::REDIRECT_URI],
        "token_endpoint_auth_method": "none",
        "id_token_signed_response_alg": "PS256",
    });
    let made = register(&site, None, &wanted).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let id = made.json()["client_id"].as_str().unwrap().to_owned();
    let url = Site::authorize_url(&id, &[("scope", "openid")]);
    let mut browser = Browser::default();
    let page = site.sign_in_at(&mut browser, &url, "ada", PASSWORD).await;
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let form = [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("decision", "allow")];
    let code = site.post(&mut browser, "/consent", &form).await.parameter("code").unwrap();
    let form = [redemption(&code).to_vec(), vec![("client_id", id.as_str())]].concat();
    let tokens = site.token(None, &form).await;
    assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.text);
    assert_eq!(alg_of(tokens.json()["id_token"].as_str().unwrap()), "PS256");
}

#[tokio::test]
async fn a_client_may_register_by_its_key_which_is_given_and_not_fetched() {
    let site = site(Registration::Open).await;
    let key = client_key(Alg::Es256);
    let with = |name: &str, value: Value| {
        let mut body = metadata();
        body["token_endpoint_auth_method"] = json!("private_key_jwt");
        body[name] = value;
        body
    };
    for (name, value) in [
        ("client_name", json!("No key")),
        ("jwks_uri", json!("https://rp.test/keys")),
        ("jwks", json!({"keys": [{"kty": "oct", "k": "AA"}]})),
        ("jwks", json!({"keys": []})),
    ] {
        let page = register(&site, None, &with(name, value)).await;
        assert_eq!(page.json()["error"], "invalid_client_metadata", "{}", page.text);
    }
    let keys = json!({"keys": [key.public_jwk()]});
    let wrong = json!("RS256");
    let mut body = with("jwks", keys.clone());
    body["token_endpoint_auth_signing_alg"] = wrong;
    assert_eq!(register(&site, None, &body).await.json()["error"], "invalid_client_metadata");
    let made = register(&site, None, &with("jwks", keys.clone())).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let made = made.json();
    assert_eq!((&made["jwks"], made.get("client_secret")), (&keys, None));
    assert_eq!(made["token_endpoint_auth_signing_alg"], "ES256");

    let id = made["client_id"].as_str().unwrap();
    let asserted = key.sign("JWT", &assertion(id, "1")).unwrap();
    let form = [
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ("client_assertion", asserted.as_str()),
        ("token", "x"),
    ];
    assert_eq!(site.call("/oidc/introspect", &[], &form).await.json(), json!({"active": false}));
    assert_eq!(site.call("/oidc/introspect", &[], &form).await.status, StatusCode::UNAUTHORIZED, "once");
}
