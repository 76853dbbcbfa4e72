//! Clients whose `client_id` is the URL of a document that describes them (Client ID Metadata Documents).

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use conclave_crypto::jwk::Alg;
use conclave_node::testing::TestNode;
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::{
    oidc_assertions::{assertion, client_key},
    oidc_tokens::{client, register},
    site::{Browser, PASSWORD, Page, Site, redemption},
};

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// A native application's address, with a port that its document does not name.
const NATIVE: &str = "http://127.0.0.1:51234/cb";
/// A server's address: compared exactly.
const SERVER: &str = "https://far.test/cb";

/// The response at the client's address.
struct Document {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
    /// Set for a redirect.
    location: Option<String>,
}

/// The web server of a client.
struct Publisher {
    url: String,
    document: Mutex<Document>,
    keys: Mutex<Value>,
    asked: AtomicUsize,
    server: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl Publisher {
    async fn start() -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/client.json", listener.local_addr().unwrap());
        let document = Document {
            status: StatusCode::OK,
            content_type: "application/json",
            body: Vec::new(),
            location: None,
        };
        let publisher = Arc::new(Self {
            url,
            document: Mutex::new(document),
            keys: Mutex::default(),
            asked: AtomicUsize::new(0),
            server: Mutex::new(None),
        });
        publisher.says(|_| {});
        let router = Router::new()
            .route("/client.json", get(answer))
            .route("/keys", get(keys))
            .route("/slow/{n}", get(never))
            .with_state(Arc::clone(&publisher));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        *publisher.server.lock().unwrap() = Some(serving);
        publisher
    }

    /// Sets the valid document with this change.
    fn says(&self, change: impl FnOnce(&mut Value)) {
        let mut metadata = json!({
            "client_id": self.url,
            "client_name": "Far away",
            "redirect_uris": ["http://127.0.0.1/cb", "https://far.test/cb"],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
            "scope": "openid email admin offline_access",
        });
        change(&mut metadata);
        self.document.lock().unwrap().body = metadata.to_string().into_bytes();
    }

    fn answers(&self, change: impl FnOnce(&mut Document)) {
        change(&mut self.document.lock().unwrap());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    async fn stop(&self) {
        let server = self.server.lock().unwrap().take().unwrap();
        server.abort();
        let _ = server.await;
    }

    fn authorize(&self, more: &[(&str, &str)]) -> String {
        let own = [("scope", "openid email"), ("redirect_uri", NATIVE)];
        Site::authorize_url(&self.url, &[&own[..], more].concat())
    }
}

async fn answer(State(publisher): State<Arc<Publisher>>) -> impl IntoResponse {
    publisher.asked.fetch_add(1, Ordering::SeqCst);
    let document = publisher.document.lock().unwrap();
    let mut headers = vec![(header::CONTENT_TYPE, document.content_type.to_owned())];
    headers.extend(document.location.clone().map(|to| (header::LOCATION, to)));
    let headers: http::HeaderMap =
        headers.into_iter().map(|(name, value)| (name, value.parse().unwrap())).collect();
    (document.status, headers, document.body.clone())
}

/// Accepts the request and never responds.
async fn never(State(publisher): State<Arc<Publisher>>) -> StatusCode {
    publisher.asked.fetch_add(1, Ordering::SeqCst);
    std::future::pending().await
}

async fn keys(State(publisher): State<Arc<Publisher>>) -> impl IntoResponse {
    axum::Json(publisher.keys.lock().unwrap().clone())
}

fn takes_documents(settings: &mut conclave_auth::Settings) {
    settings.authorization.client_documents = vec!["127.0.0.1".into()];
    settings.outbound.allow = vec!["127.0.0.1".parse().unwrap()];
}

async fn site_and_publisher() -> (Site, Arc<Publisher>) {
    let site = Site::of(TestNode::start_with(takes_documents).await);
    site.seed().await;
    (site, Publisher::start().await)
}

/// Consents on the consent page and returns the code.
async fn allow(site: &Site, browser: &mut Browser, page: &Page) -> String {
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let form = [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("decision", "allow")];
    let page = site.post(browser, "/consent", &form).await;
    page.parameter("code").unwrap_or_else(|| panic!("{} {}", page.status, page.text))
}

async fn redeem(site: &Site, publisher: &Publisher, code: &str, more: &[(&str, &str)]) -> Page {
    redeem_at(site, publisher, NATIVE, code, more).await
}

async fn redeem_at(
    site: &Site,
    publisher: &Publisher,
    address: &str,
    code: &str,
    more: &[(&str, &str)],
) -> Page {
    let form: Vec<(&str, &str)> =
        redemption(code).into_iter().filter(|(name, _)| *name != "redirect_uri").collect();
    let own = [("redirect_uri", address), ("client_id", publisher.url.as_str())];
    site.token(None, &[&form[..], &own, more].concat()).await
}

#[tokio::test]
async fn a_document_is_a_registration_and_people_see_whose() {
    let (site, publisher) = site_and_publisher().await;
    let metadata = site.get(&mut Browser::default(), "/.well-known/openid-configuration").await.json();
    assert_eq!(metadata["client_id_metadata_document_supported"], true);

    let mut browser = Browser::default();
    let page = site.sign_in_at(&mut browser, &publisher.authorize(&[]), "ada", PASSWORD).await;
    assert_eq!(page.shown("application"), "Far away (127.0.0.1)", "the name is not verified");
    assert_eq!(page.shown("destination").replace("&#x2f;", "/"), "http://127.0.0.1:51234");
    let code = allow(&site, &mut browser, &page).await;
    let tokens = redeem(&site, &publisher, &code, &[]).await;
    assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.text);
    let tokens = tokens.json();
    assert_eq!(tokens["scope"], "openid email", "no scope but the standard ones");
    assert_eq!(site.userinfo(tokens["access_token"].as_str().unwrap()).await.status, StatusCode::OK);
    // The document is cached: the next user causes no request, and this user is not asked for consent again.
    let page = site.get(&mut browser, &publisher.authorize(&[])).await;
    assert!(page.parameter("code").is_some(), "{}", page.text);
    assert_eq!(publisher.asked(), 1);
}

#[tokio::test]
async fn documents_are_taken_only_where_the_configuration_says_and_never_against_an_operators_word() {
    let site = Site::open().await;
    let publisher = Publisher::start().await;
    let metadata = site.get(&mut Browser::default(), "/.well-known/openid-configuration").await.json();
    assert_eq!(metadata["client_id_metadata_document_supported"], false);
    let page = site.get(&mut Browser::default(), &publisher.authorize(&[])).await;
    assert_eq!(page.shown("error-code"), "unknown_client");

    // An allowed host name, at an address to which no connection is allowed.
    let named = |settings: &mut conclave_auth::Settings| {
        settings.authorization.client_documents = vec!["127.0.0.1".into()];
    };
    let closed = Site::of(TestNode::start_with(named).await);
    let page = closed.get(&mut Browser::default(), &publisher.authorize(&[])).await;
    assert_eq!((page.status, page.shown("error-code")), (StatusCode::BAD_REQUEST, "client_document".into()));

    let (site, _) = site_and_publisher().await;
    let operators = conclave_proto::command::v1::CreateClient {
        name: "Ours".into(),
        ..client(&publisher.url, conclave_proto::command::v1::ClientTokens::default())
    };
    register(&site, operators).await;
    let page = site.get(&mut Browser::default(), &publisher.authorize(&[])).await;
    assert_eq!(page.shown("error-code"), "redirect_uri_mismatch", "what the operator registered counts");
    assert_eq!(publisher.asked(), 0);
}

type Change = Box<dyn Fn(&Publisher)>;

#[tokio::test]
async fn a_document_that_is_not_good_in_every_way_makes_no_client_and_no_redirect() {
    let private = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "d": "AA"}]});
    let metadata = |name: &'static str, value: Value| -> Change {
        Box::new(move |publisher| publisher.says(|metadata| metadata[name] = value.clone()))
    };
    let by_key = move |publisher: &Publisher| {
        publisher.says(|metadata| {
            metadata["token_endpoint_auth_method"] = json!("private_key_jwt");
            metadata["jwks"] = private.clone();
        });
    };
    let changes: Vec<(&str, Change)> = vec![
        ("another's", metadata("client_id", json!("https://other.test/client.json"))),
        ("nobody's", metadata("client_id", Value::Null)),
        ("a secret", metadata("client_secret", json!("s"))),
        ("a method with a secret", metadata("token_endpoint_auth_method", json!("client_secret_post"))),
        ("no key", metadata("token_endpoint_auth_method", json!("private_key_jwt"))),
        ("a private key", Box::new(by_key)),
        ("no address", metadata("redirect_uris", json!([]))),
        ("a script for an address", metadata("redirect_uris", json!(["javascript:alert(1)"]))),
        ("an implicit response", metadata("response_types", json!(["token"]))),
        ("too long", Box::new(|p| p.says(|metadata| metadata["more"] = json!("x".repeat(10 * 1024))))),
        ("too long a name", metadata("client_name", json!("x".repeat(1_000)))),
        ("no JSON", Box::new(|p| p.answers(|document| document.body = b"<html>".to_vec()))),
        ("no JSON by its type", Box::new(|p| p.answers(|document| document.content_type = "text/html"))),
        ("gone", Box::new(|p| p.answers(|document| document.status = StatusCode::NOT_FOUND))),
        ("broken", Box::new(|p| p.answers(|document| document.status = StatusCode::BAD_GATEWAY))),
        (
            "elsewhere",
            Box::new(|p| {
                let to = p.url.clone();
                p.answers(|document| {
                    document.status = StatusCode::FOUND;
                    document.location = Some(to);
                });
            }),
        ),
    ];
    for (what, change) in changes {
        let (site, publisher) = site_and_publisher().await;
        change(&publisher);
        let page = site.get(&mut Browser::default(), &publisher.authorize(&[])).await;
        let seen = (page.status, page.shown("error-code"));
        assert_eq!(seen, (StatusCode::BAD_REQUEST, "client_document".into()), "{what}");
        assert!(page.headers.get(header::LOCATION).is_none(), "{what}");
        assert!(site.node.cluster().view().client(&publisher.url).is_none(), "{what}");
        // A repeated request right afterwards does not fetch the document again.
        let page = site.get(&mut Browser::default(), &publisher.authorize(&[])).await;
        assert_eq!((page.shown("error-code"), publisher.asked()), ("client_document".into(), 1), "{what}");
    }
}

#[tokio::test]
async fn what_changes_in_the_document_changes_here_and_what_is_gone_ends() {
    let (site, publisher) = site_and_publisher().await;
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, &publisher.authorize(&[]), "ada", PASSWORD).await;
    let after = async |minutes: u64, browser: &mut Browser| {
        site.node.clock().advance(Duration::from_mins(minutes));
        site.get(browser, &publisher.authorize(&[])).await
    };
    publisher.says(|metadata| metadata["redirect_uris"] = json!(["https://far.test/cb"]));
    assert_eq!(after(9, &mut browser).await.shown("application"), "Far away (127.0.0.1)", "for ten minutes");
    assert_eq!(after(2, &mut browser).await.shown("error-code"), "redirect_uri_mismatch");
    publisher.says(|metadata| metadata["client_name"] = json!("Renamed"));
    assert_eq!(after(11, &mut browser).await.shown("application"), "Renamed (127.0.0.1)");

    // While the document cannot be fetched, the cached one is used for a day, and no longer; once available, it is used
    // at once, or after the pause between two failures.
    publisher.answers(|document| document.status = StatusCode::SERVICE_UNAVAILABLE);
    let known = after(60, &mut browser).await;
    assert_eq!(known.shown("application"), "Renamed (127.0.0.1)");
    let mut elsewhere = Browser::default();
    assert_eq!(after(24 * 60, &mut elsewhere).await.shown("error-code"), "client_document");
    publisher.answers(|document| document.status = StatusCode::OK);
    assert_eq!(after(1, &mut elsewhere).await.status, StatusCode::SEE_OTHER);
    // A withdrawn document differs from one that cannot be fetched.
    publisher.answers(|document| document.status = StatusCode::GONE);
    assert_eq!(after(11, &mut elsewhere).await.shown("error-code"), "client_document");
}

#[tokio::test]
async fn one_that_proves_itself_by_a_key_pushes_and_redeems_and_another_key_does_not() {
    let (site, publisher) = site_and_publisher().await;
    let key = client_key(Alg::Es256);
    *publisher.keys.lock().unwrap() = json!({"keys": [key.public_jwk()]});
    let keys_at = publisher.url.replace("client.json", "keys");
    publisher.says(|metadata| {
        metadata["token_endpoint_auth_method"] = json!("private_key_jwt");
        metadata["jwks_uri"] = json!(keys_at);
    });
    let asserted = |key: &conclave_crypto::jwt::JwtSigningKey, jti: &str| {
        key.sign("JWT", &assertion(&publisher.url, jti)).unwrap()
    };
    let push = async |assertion: &str| {
        let url = publisher.authorize(&[
            ("redirect_uri", SERVER),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion),
        ]);
        let (_, query) = url.split_once('?').unwrap();
        let form: Vec<(String, String)> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let form: Vec<(&str, &str)> = form.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        site.call("/oidc/par", &[], &form).await
    };
    let stranger = client_key_of_a_stranger();
    assert_eq!(push(&asserted(&stranger, "1")).await.json()["error"], "invalid_client");
    let pushed = push(&asserted(&key, "2")).await;
    assert_eq!(pushed.status, StatusCode::CREATED, "{}", pushed.text);
    let request_uri = pushed.json()["request_uri"].as_str().unwrap().to_owned();
    let url = format!(
        "/oidc/authorize?{}",
        super::site::encoded(&[("client_id", &publisher.url), ("request_uri", &request_uri)])
    );
    let mut browser = Browser::default();
    let page = site.sign_in_at(&mut browser, &url, "ada", PASSWORD).await;
    let code = allow(&site, &mut browser, &page).await;
    let proof = asserted(&key, "3");
    let more = [("client_assertion_type", ASSERTION_TYPE), ("client_assertion", proof.as_str())];
    let tokens = redeem_at(&site, &publisher, SERVER, &code, &more).await;
    assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.text);

    // Once its document names no key, it is another client, and the old client's grants are revoked.
    let access = tokens.json()["access_token"].as_str().unwrap().to_owned();
    publisher.says(|_| {});
    site.node.clock().advance(Duration::from_mins(4));
    assert_eq!(site.userinfo(&access).await.status, StatusCode::OK);
    site.node.clock().advance(Duration::from_mins(7));
    let page = site.get(&mut browser, &publisher.authorize(&[])).await;
    assert_eq!(page.shown("application"), "Far away (127.0.0.1)", "asked anew: {}", page.text);
    assert_eq!(site.userinfo(&access).await.status, StatusCode::UNAUTHORIZED);
}

fn client_key_of_a_stranger() -> conclave_crypto::jwt::JwtSigningKey {
    use conclave_crypto::jwt::JwtSigningKey;
    let entropy = conclave_base::runtime::testing::SeededEntropy::new(78);
    JwtSigningKey::from_pkcs8(Alg::Es256, &JwtSigningKey::generate_pkcs8(Alg::Es256, &*entropy).unwrap())
        .unwrap()
}

#[tokio::test]
async fn strangers_bring_so_many_clients_from_an_address_and_no_more() {
    let (site, publisher) = site_and_publisher().await;
    let mut seen = Vec::new();
    for n in 0..60 {
        let url = Site::authorize_url(&format!("{}{n}", publisher.url), &[]);
        seen.push(site.get(&mut Browser::default(), &url).await.text);
    }
    assert!(seen[0].contains("there is no document at its address"), "{}", seen[0]);
    assert!(seen[59].contains("too many unknown applications"), "{}", seen[59]);
    // A known client does not count toward the limit.
    let (site, publisher) = site_and_publisher().await;
    for _ in 0..60 {
        let page = site.get(&mut Browser::default(), &publisher.authorize(&[])).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
    }
    assert_eq!(publisher.asked(), 1);
}

#[tokio::test]
async fn what_an_operator_disabled_no_document_brings_back() {
    let (site, publisher) = site_and_publisher().await;
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, &publisher.authorize(&[]), "ada", PASSWORD).await;
    site.change(&publisher.url, |client| client.disabled = Some(true)).await;
    let key = client_key(Alg::Es256);
    publisher.says(|metadata| {
        metadata["token_endpoint_auth_method"] = json!("private_key_jwt");
        metadata["jwks"] = json!({"keys": [key.public_jwk()]});
    });
    site.node.clock().advance(Duration::from_mins(11));
    let page = site.get(&mut browser, &publisher.authorize(&[("redirect_uri", SERVER)])).await;
    assert_eq!(page.shown("error-code"), "client_disabled", "{}", page.text);
    assert!(site.node.cluster().view().client(&publisher.url).unwrap().disabled);
    assert_eq!(publisher.asked(), 1, "the document is not fetched");
}

#[tokio::test]
async fn slow_hosts_of_others_do_not_keep_out_who_is_known() {
    let (site, publisher) = site_and_publisher().await;
    let known = publisher.authorize(&[]);
    assert_eq!(site.get(&mut Browser::default(), &known).await.status, StatusCode::SEE_OTHER);
    site.node.clock().advance(Duration::from_mins(11));
    let before = publisher.asked();
    let slow = (0..8).map(|n| {
        let url = Site::authorize_url(&publisher.url.replace("client.json", &format!("slow/{n}")), &[]);
        let site = &site;
        async move { site.get(&mut Browser::default(), &url).await }
    });
    let meanwhile = async {
        while publisher.asked() < before + 8 {
            tokio::task::yield_now().await;
        }
        let stranger = Site::authorize_url(&format!("{}x", publisher.url), &[]);
        let stranger = site.get(&mut Browser::default(), &stranger).await;
        (site.get(&mut Browser::default(), &known).await, stranger)
    };
    let (page, stranger) = tokio::select! {
        _ = futures_util::future::join_all(slow) => panic!("there was no answer to wait for"),
        pages = meanwhile => pages,
    };
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.text);
    assert_eq!(stranger.status, StatusCode::SERVICE_UNAVAILABLE, "{}", stranger.text);
}

#[tokio::test]
async fn what_one_node_saw_the_others_know() {
    let mut nodes = TestNode::start_cluster_with(3, takes_documents).await;
    let leads = nodes.iter().position(|node| node.cluster().is_leader()).unwrap();
    let third = Site::of(nodes.remove(leads));
    let (first, second) = (Site::of(nodes.remove(0)), Site::of(nodes.remove(0)));
    third.node.auth().clone().ensure_signing_keys(None).await;
    third.node.create_user("ada", PASSWORD, &[]).await;
    let publisher = Publisher::start().await;
    let mut browser = Browser::default();
    let page = first.sign_in_at(&mut browser, &publisher.authorize(&[]), "ada", PASSWORD).await;
    let code = allow(&second, &mut browser, &page).await;
    publisher.stop().await;
    let tokens = redeem(&third, &publisher, &code, &[]).await;
    assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.text);
}
