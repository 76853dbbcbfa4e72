//! The check in cases other than a user on one host: programs, whole domains, Envoy over gRPC, applications that want
//! proof; and a browser in a redirect loop.

use std::{path::Path, process, sync::Arc};

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use conclave_auth::{machine_client::app_password_hash, policy::document::Document};
use conclave_crypto::{
    handle::{HandleKind, HandleSecret},
    jwk::Alg,
    jwt::{Expect, VerifyingKey},
};
use conclave_forward_auth::{ASSERTION_TYP, IDENTITY_HEADERS, grpc};
use conclave_http::{Edge, EdgeConfig, edge::REQUEST_TIMEOUT};
use conclave_node::{boot, testing::TestNode};
use conclave_proto::{
    command::v1::{
        CheckRules, CreateAppPassword, CreateApplication, Hosts, RevokeAppPassword, SetPolicy,
        UpdateApplication, UpdateUser, Uris, command::Body as Command,
    },
    envoy::auth::v3::{
        self as envoy, authorization_client::AuthorizationClient, check_response::HttpResponse,
    },
};
use conclave_web::Pages;
use http::{Request, StatusCode};

use super::{
    forward_auth::{Check, cookie_of},
    site::{Browser, PASSWORD, Page, Site},
};

fn app(site: &Site) -> Vec<u8> {
    site.node.cluster().view().application_by_slug("app").unwrap().id.to_vec()
}

async fn policy(site: &Site, text: &str) {
    let document = Document::from_toml(text).unwrap().to_row(&site.node.cluster().view()).unwrap();
    let command = SetPolicy { application_id: app(site), policy: Some(document), ..Default::default() };
    site.node.propose(Command::SetPolicy(command)).await.unwrap();
}

async fn rules(site: &Site, check: CheckRules) {
    let command = UpdateApplication { application_id: app(site), check: Some(check), ..Default::default() };
    site.node.propose(Command::UpdateApplication(command)).await.unwrap();
}

/// An app password of ada, as the command prints it.
async fn app_password(site: &Site, only: Vec<u8>, ttl_ms: u64) -> (Vec<u8>, String) {
    let id = site.node.bytes::<16>();
    let secret = HandleSecret::new(site.node.bytes());
    let auth = site.node.auth();
    let command = CreateAppPassword {
        app_password_id: id.to_vec(),
        user_id: site.node.cluster().view().user_by_name("ada").unwrap().id.to_vec(),
        application_id: only,
        name: "phone".into(),
        secret_hash: app_password_hash(&auth.cluster_keys().app_password, &secret).to_vec(),
        ttl_ms,
        secret_id: auth.cluster_keys().secret_check.to_vec(),
    };
    let made = site.node.propose(Command::CreateAppPassword(command)).await.unwrap();
    (id.to_vec(), auth.issue(HandleKind::AppPassword, id, secret, 0, made.index))
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A check caused by a program.
fn program(authorization: &str) -> Check {
    let check = Check::of("traefik").set("accept", "*/*");
    if authorization.is_empty() { check } else { check.set("authorization", authorization) }
}

fn challenges(page: &Page) -> Vec<String> {
    page.headers.get_all("www-authenticate").iter().map(|v| v.to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_program_comes_in_with_an_app_password_where_the_application_takes_them() {
    let site = Site::open().await;
    let (id, password) = app_password(&site, Vec::new(), 0).await;
    let good = basic("Ada", &password);
    // Not before the application enables it: then the header is not ours, and no response requests it.
    let page = program(&good).send(&site, "").await;
    assert!(page.status != StatusCode::OK && challenges(&page).is_empty());

    rules(&site, CheckRules { basic: true, ..Default::default() }).await;
    let page = program(&good).send(&site, "").await;
    assert_eq!((page.status, &page.headers["remote-user"] == "ada"), (StatusCode::OK, true), "{}", page.text);
    for name in IDENTITY_HEADERS {
        assert_eq!(page.headers.get_all(name).iter().count(), 1, "{name}");
    }
    for bad in [
        basic("bob", &password),
        basic("ada", PASSWORD),
        basic("ada", &password[1..]),
        basic("ada", ""),
        "Basic nonsense!".into(),
        "Basic ".into(),
        String::new(),
    ] {
        let page = program(&bad).send(&site, "").await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{bad}");
        assert_eq!(challenges(&page), ["Basic realm=\"app\", charset=\"UTF-8\""], "{bad}");
        assert!(page.headers.get("location").is_none());
    }
    let twice = program(&good).add("authorization", &good).send(&site, "").await;
    assert_eq!(twice.status, StatusCode::UNAUTHORIZED);
    // Also by an e-mail address of the user, once it is verified.
    site.raise_level().await;
    for (verified, status) in [(false, StatusCode::UNAUTHORIZED), (true, StatusCode::OK)] {
        super::names::address(&site, "ada", "ada@example.org", verified).await;
        let page = program(&basic("Ada@example.org", &password)).send(&site, "").await;
        assert_eq!(page.status, status, "{verified}");
    }
    // A browser is redirected to the sign-in, and never opens its own password dialog.
    for (name, value) in
        [("accept", "text/html"), ("sec-fetch-mode", "cors"), ("x-requested-with", "XMLHttpRequest")]
    {
        let page = program("").set(name, value).send(&site, "").await;
        assert!(challenges(&page).is_empty(), "{name}");
    }

    // Credentials of another application, and expired ones, are not accepted here.
    let (_, over) = app_password(&site, Vec::new(), 1_000).await;
    site.node.clock().advance(std::time::Duration::from_secs(2));
    assert_eq!(program(&basic("ada", &over)).send(&site, "").await.status, StatusCode::UNAUTHORIZED);
    let revoke = RevokeAppPassword { app_password_id: id };
    site.node.propose(Command::RevokeAppPassword(revoke)).await.unwrap();
    assert_eq!(program(&good).send(&site, "").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn where_nobody_is_asked_a_program_may_bring_what_is_not_ours() {
    let site = Site::open().await;
    rules(&site, CheckRules { basic: true, bearer: true, ..Default::default() }).await;
    policy(&site, "[[row]]\neffect = \"allow\"\ngroup = \"staff\"\n[[public]]\npath = \"/hooks/*\"\n").await;
    for its_own in ["Bearer of-the-application", &basic("hook", "of-the-application"), "Basic nonsense!"] {
        let hook = program(its_own).set("x-forwarded-uri", "/hooks/build").send(&site, "").await;
        assert_eq!(hook.status, StatusCode::OK, "{its_own}: {}", hook.text);
        assert!(hook.headers["remote-user"].is_empty(), "{its_own}");
        let page = program(its_own).send(&site, "").await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{its_own}");
        assert!(challenges(&page)[0].contains("invalid_token"), "{its_own}");
    }
}

#[tokio::test]
async fn an_app_password_of_one_application_opens_no_other() {
    let site = Site::open().await;
    rules(&site, CheckRules { basic: true, ..Default::default() }).await;
    let other = site.node.bytes::<16>().to_vec();
    let command = conclave_proto::command::v1::CreateApplication {
        application_id: other.clone(),
        slug: "other".into(),
        name: "Other".into(),
        hosts: vec!["other.test".into()],
        access: Some(conclave_proto::command::v1::Access { everyone: true, group_ids: Vec::new() }),
        check: Some(CheckRules { basic: true, ..Default::default() }),
        ..Default::default()
    };
    site.node.propose(Command::CreateApplication(command)).await.unwrap();
    let (_, password) = app_password(&site, other, 0).await;
    let with = basic("ada", &password);
    assert_eq!(program(&with).send(&site, "").await.status, StatusCode::UNAUTHORIZED);
    let there = program(&with).set("x-forwarded-host", "other.test");
    assert_eq!(there.send(&site, "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_access_token_opens_the_application_that_it_is_for_while_its_session_lives() {
    let site = Site::open().await;
    let resources = Uris { uris: vec!["https://app.test".into(), "https://else.test".into()] };
    site.change("web", |client| client.resources = Some(resources)).await;
    let token = async |resource: &str| {
        let code = site.code("web", &[("resource", resource), ("scope", "openid offline_access")]).await;
        site.redeem("web", &code).await.json()["access_token"].as_str().unwrap().to_owned()
    };
    let (ours, elsewhere) = (token("https://app.test").await, token("https://else.test").await);
    let bearer = |token: &str| program(&format!("Bearer {token}"));
    assert_ne!(
        bearer(&ours).send(&site, "").await.status,
        StatusCode::OK,
        "not before the application says so"
    );

    rules(&site, CheckRules { bearer: true, ..Default::default() }).await;
    let page = bearer(&ours).send(&site, "").await;
    assert_eq!((page.status, &page.headers["remote-user"] == "ada"), (StatusCode::OK, true), "{}", page.text);
    for bad in [elsewhere.as_str(), &ours[1..], "x", ""] {
        let page = bearer(bad).send(&site, "").await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{bad}");
        assert_eq!(challenges(&page), ["Bearer realm=\"app\", error=\"invalid_token\""]);
    }
    assert_eq!(challenges(&program("").send(&site, "").await), ["Bearer realm=\"app\""]);
    // The session ends, though the grant may outlive it.
    let session = site.node.cluster().view().sessions_after(None).map(|s| s.id).collect::<Vec<_>>();
    for id in session {
        let command = conclave_proto::command::v1::RevokeSession { session_id: id.to_vec() };
        site.node.propose(Command::RevokeSession(command)).await.unwrap();
    }
    assert_eq!(bearer(&ours).send(&site, "").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_assertion_is_for_one_request_and_verified_with_the_published_keys() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let page = Check::of("traefik").send(&site, &cookie).await;
    assert_eq!(page.headers["x-conclave-assertion"], "", "off unless the application wants it");
    rules(&site, CheckRules { assertion: true, ..Default::default() }).await;
    let page = Check::of("traefik").set("x-forwarded-method", "DELETE").send(&site, &cookie).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    let token = page.headers["x-conclave-assertion"].to_str().unwrap();
    assert_eq!(page.headers["x-authentik-jwt"], token);

    let jwks = site.get(&mut Browser::default(), "/oidc/jwks").await.json();
    let kid = conclave_crypto::jwt::unverified_kid(token).unwrap().unwrap();
    let jwk = jwks["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid.as_str()).unwrap();
    let key = VerifyingKey::from_jwk(jwk).unwrap();
    let json = key.verify(token, Expect { typ: Some(ASSERTION_TYP), algs: &[Alg::Es256] }).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(claims["iss"], "http://127.0.0.1:9000");
    assert_eq!(claims["aud"], "https://app.test");
    assert_eq!((&claims["htm"], &claims["htu"]), (&"DELETE".into(), &"https://app.test/page".into()));
    assert_eq!((&claims["preferred_username"], &claims["groups"][0]), (&"ada".into(), &"staff".into()));
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
    // The example of the manual accepts the assertion, and refuses everything else.
    let example = |method: &str, url: &str, token: &str| {
        let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/forward-auth.md");
        let manual = std::fs::read_to_string(manual).unwrap();
        let (_, code) = manual.split_once("```js\n").unwrap();
        let code = code.split_once("```").unwrap().0;
        let issuer = "http://127.0.0.1:9000";
        let script = tempfile::Builder::new().suffix(".cjs").tempfile().unwrap();
        std::fs::write(script.path(), code).unwrap();
        let ran = process::Command::new("node")
            .arg(script.path())
            .args([&jwks.to_string(), issuer, token, method, url])
            .output();
        let ran = ran.unwrap_or_else(|e| panic!("node cannot be started ({e}); `make test` installs it"));
        (ran.status.success(), String::from_utf8_lossy(&ran.stdout).trim().to_owned())
    };
    let url = "https://app.test/page?q=1";
    assert_eq!(example("DELETE", url, token), (true, "ada".into()));
    let mut forged = token.to_owned();
    forged.replace_range(token.len() - 8..token.len() - 4, "AAAA");
    for (method, url, token) in [
        ("GET", url, token),
        ("DELETE", "https://app.test/other", token),
        ("DELETE", "https://other.test/page", token),
        ("DELETE", url, forged.as_str()),
    ] {
        assert!(!example(method, url, token).0, "{method} {url}");
    }
    // The assertion grants no access: it is not a token of the provider.
    assert_eq!(site.userinfo(token).await.status, StatusCode::UNAUTHORIZED);
    rules(&site, CheckRules { bearer: true, ..Default::default() }).await;
    let page = program(&format!("Bearer {token}")).send(&site, "").await;
    assert_eq!(page.status, StatusCode::UNAUTHORIZED);
}

/// A site with `*.corp.test` for staff, `open.corp.test` for every user and one sign-in for the whole domain.
async fn domain() -> Site {
    let node = TestNode::start_with(|settings| {
        settings.app_domains = vec!["corp.test".into(), "lab.corp.test".into(), "else.test".into()];
    })
    .await;
    let site = Site::of(node);
    site.seed().await;
    let command = UpdateApplication {
        application_id: app(&site),
        hosts: Some(Hosts {
            hosts: vec!["app.test".into(), "*.corp.test".into(), "wiki.else.test".into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    site.node.propose(Command::UpdateApplication(command)).await.unwrap();
    let command = conclave_proto::command::v1::CreateApplication {
        application_id: site.node.bytes::<16>().to_vec(),
        slug: "closed".into(),
        name: "Closed".into(),
        hosts: vec!["closed.corp.test".into()],
        ..Default::default()
    };
    site.node.propose(Command::CreateApplication(command)).await.unwrap();
    site
}

fn at(host: &str) -> Check {
    Check::of("traefik").set("x-forwarded-host", host)
}

/// Signs ada in at this host and returns the cookie as a browser would send it, and its `Domain`.
async fn sign_in_at(site: &Site, host: &str) -> (String, String) {
    let denied = at(host).send(site, "").await;
    let origin = format!("https://{host}");
    let (mut on_app, mut at_home) = (Browser::default(), Browser::default());
    let start = denied.location();
    let page = site.get(&mut on_app, start.strip_prefix(&origin).unwrap()).await;
    let page = site.sign_in_at(&mut at_home, &page.location(), "ada", PASSWORD).await;
    let callback = page.location();
    let page = site.get(&mut on_app, callback.strip_prefix(&origin).unwrap()).await;
    let set = page.headers["set-cookie"].to_str().unwrap().to_owned();
    let domain = set.split("; ").find_map(|part| part.strip_prefix("Domain=")).unwrap_or_default();
    (set.split(';').next().unwrap().to_owned(), domain.to_owned())
}

#[tokio::test]
async fn one_sign_in_does_for_a_whole_domain_and_each_host_is_judged_by_its_own_rule() {
    let site = domain().await;
    let (cookie, domain) = sign_in_at(&site, "wiki.corp.test").await;
    assert!(cookie.starts_with("__Secure-conclave_app_domain="), "{cookie}");
    assert_eq!(domain, "corp.test");
    for host in [
        "wiki.corp.test",
        "files.corp.test",
        "a.b.corp.test",
        "WIKI.Corp.Test",
        "wiki.corp.test:443",
        "wiki.corp.test.",
    ] {
        assert_eq!(at(host).send(&site, &cookie).await.status, StatusCode::OK, "{host}");
    }
    let closed = at("closed.corp.test").send(&site, &cookie).await;
    assert_eq!(closed.status, StatusCode::FORBIDDEN, "signed in, and the rule of that host says no");
    assert_eq!(closed.shown("account"), "ada");
    // On other hosts that text is not accepted.
    for host in ["app.test", "wiki.else.test"] {
        assert_eq!(at(host).send(&site, &cookie).await.status, StatusCode::FOUND, "{host}");
    }
    // Hosts that only resemble one of these have no application.
    for host in [
        "corp.test",
        "evilcorp.test",
        "corp.test.evil.test",
        "wiki.corp.test.evil.test",
        ".corp.test",
        "wiki..corp.test",
        "xn--corp-0qa.test",
        "wiki.corp.test:0",
        "wiki_corp.test",
    ] {
        let page = at(host).send(&site, &cookie).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{host}");
        assert!(
            page.headers.get("remote-user").is_none() && page.headers.get("location").is_none(),
            "{host}"
        );
    }
    // International names are compared as `xn--`.
    assert_eq!(at("wiki.xn--crp-jna.test").send(&site, &cookie).await.status, StatusCode::FORBIDDEN);

    // The second of the parent domains, and the longest where one is below another.
    assert_eq!(sign_in_at(&site, "wiki.else.test").await.1, "else.test");
    assert_eq!(sign_in_at(&site, "x.lab.corp.test").await.1, "lab.corp.test");
    let (host_only, domain) = sign_in_at(&site, "app.test").await;
    assert!(host_only.starts_with("__Host-conclave_app=") && domain.is_empty());

    // Signing out on one host signs out on all.
    let out =
        Request::get("/.conclave/sign-out").header("host", "wiki.corp.test").body(Body::empty()).unwrap();
    let out = site.send("192.0.2.1", out).await;
    let cleared: Vec<_> = out.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap()).collect();
    assert!(cleared.iter().any(|c| c.contains("conclave_app_domain=;") && c.contains("Domain=corp.test")));
    for id in site.node.cluster().view().sessions_after(None).map(|s| s.id).collect::<Vec<_>>() {
        let command = conclave_proto::command::v1::RevokeSession { session_id: id.to_vec() };
        site.node.propose(Command::RevokeSession(command)).await.unwrap();
    }
    for host in ["wiki.corp.test", "files.corp.test"] {
        assert_eq!(at(host).send(&site, &cookie).await.status, StatusCode::FOUND, "{host}");
    }
}

#[tokio::test]
async fn a_browser_that_goes_in_circles_is_told_why_at_the_third_turn() {
    let site = Site::open().await;
    let mut at_home = Browser::default();
    site.sign_in_at(&mut at_home, "/login", "ada", PASSWORD).await;
    // The application's host loses its cookies on the way: each check begins anew.
    let turn = async |at_home: &mut Browser, path: &str| {
        let denied = Check::of("traefik").set("x-forwarded-uri", path).send(&site, "").await;
        let start = denied.location();
        let page = site.get(&mut Browser::default(), start.strip_prefix("https://app.test").unwrap()).await;
        site.get(at_home, &page.location()).await
    };
    for _ in 0..2 {
        assert_eq!(turn(&mut at_home, "/page").await.status, StatusCode::SEE_OTHER);
    }
    let explained = turn(&mut at_home, "/page").await;
    assert_eq!(explained.status, StatusCode::BAD_REQUEST);
    assert_eq!(explained.shown("error-code"), "sign_in_loop");
    for cause in ["cookies", "http", "clock", "cookie_domain", "conclave doctor forward-auth", "app.test"] {
        assert!(explained.text.contains(cause), "{cause}: {}", explained.text);
    }
    // A user's retry begins a new count, as do another page, another browser, and time.
    assert_eq!(turn(&mut at_home, "/page").await.status, StatusCode::SEE_OTHER);
    for path in ["/a", "/b", "/c", "/d"] {
        assert_eq!(turn(&mut at_home, path).await.status, StatusCode::SEE_OTHER, "{path}");
    }
    for _ in 0..4 {
        assert_eq!(turn(&mut at_home, "/slow").await.status, StatusCode::SEE_OTHER);
        site.node.clock().advance(std::time::Duration::from_secs(10));
    }
}

/// Envoy's check for `GET https://app.test/page?q=1`, with these headers of the client.
fn question(headers: &[(&str, &str)]) -> envoy::CheckRequest {
    let headers = headers.iter().chain(&[(":authority", "app.test"), ("accept", "text/html")]);
    let headers = headers.map(|(name, value)| envoy::HeaderValue {
        key: (*name).into(),
        value: String::new(),
        raw_value: value.as_bytes().to_vec(),
    });
    let http = envoy::HttpRequest {
        method: "GET".into(),
        path: "/page?q=1".into(),
        host: "app.test".into(),
        scheme: "https".into(),
        header_map: Some(envoy::HeaderMap { headers: headers.collect() }),
        ..Default::default()
    };
    let request = envoy::attribute_context::Request { http: Some(http) };
    envoy::CheckRequest { attributes: Some(envoy::AttributeContext { request: Some(request) }) }
}

/// The service on a separate listener, for peers on this machine if they are trusted.
async fn envoy_at(site: &Site, trusted: &str) -> AuthorizationClient<tonic::transport::Channel> {
    let edge = Edge::new(EdgeConfig {
        entropy: Arc::clone(&site.node.runtime().entropy),
        trusted_proxies: vec![trusted.parse().unwrap()],
        max_body_bytes: 64 * 1024,
        request_timeout: REQUEST_TIMEOUT,
        error_page: Arc::new(|fault, _| fault.detail.clone()),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let slice = boot::slices(site.node.auth(), Pages::new(None)).fast_path;
    tokio::spawn(grpc::serve(listener, slice, edge, std::future::pending()));
    AuthorizationClient::new(tonic::transport::Endpoint::from_shared(url).unwrap().connect_lazy())
}

fn option<'a>(headers: &'a [envoy::HeaderValueOption], name: &str) -> Option<&'a str> {
    let found = headers.iter().filter_map(|option| option.header.as_ref()).find(|header| header.key == name);
    found.map(|header| header.value.as_str())
}

#[tokio::test]
async fn envoy_is_answered_over_grpc_with_everything_to_set_and_to_remove() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let mut envoy = envoy_at(&site, "127.0.0.1").await;
    let cookies = format!("theme=dark; {cookie}; conclave_session=x");
    let spoofed = [
        ("cookie", cookies.as_str()),
        ("remote_user", "root"),
        ("X.authentik.Username", "root"),
        ("x_authentik-meta.jwks", "http://evil.test"),
        ("authorization", "Bearer of the application"),
    ];
    let answer = envoy.check(question(&spoofed)).await.unwrap().into_inner();
    assert_eq!(answer.status.unwrap().code, 0);
    let Some(HttpResponse::OkResponse(ok)) = answer.http_response else { panic!("denied") };
    for name in IDENTITY_HEADERS {
        assert!(option(&ok.headers, name).is_some(), "{name} is always set");
    }
    assert_eq!(option(&ok.headers, "remote-user"), Some("ada"));
    assert_eq!(option(&ok.headers, "cookie"), Some("theme=dark"), "our cookies stay here");
    let removed: Vec<&str> = ok.headers_to_remove.iter().map(String::as_str).collect();
    for name in [
        "remote_user",
        "remote.user",
        "x.authentik.username",
        "x_authentik-meta.jwks",
        "x_conclave_assertion",
    ] {
        assert!(removed.contains(&name), "{name} is not removed: {removed:?}");
    }
    assert!(!removed.contains(&"authorization") && !removed.contains(&"cookie"));
    let overwrite = envoy::header_value_option::AppendAction::OverwriteIfExistsOrAdd;
    assert!(ok.headers.iter().all(|header| header.append_action() == overwrite));

    // Without a session: a redirect to the sign-in, as for a page of the application.
    let answer = envoy.check(question(&[])).await.unwrap().into_inner();
    assert_eq!(answer.status.unwrap().code, 16);
    let Some(HttpResponse::DeniedResponse(denied)) = answer.http_response else { panic!("let in") };
    assert_eq!(denied.status.unwrap().code, 302);
    assert!(
        option(&denied.headers, "location").unwrap().starts_with("https://app.test/.conclave/start?ticket=")
    );
    // Doubled cookies, malformed messages, and peers that are not configured proxies.
    let doubled = [("cookie", cookie.as_str()), ("cookie", cookie.as_str())];
    let mut broken = question(&[("cookie", &cookie)]);
    broken.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap().path =
        "/a/../b".into();
    for question in [question(&doubled), broken] {
        let answer = envoy.check(question).await.unwrap().into_inner();
        assert_eq!(answer.status.unwrap().code, 7);
        assert!(matches!(answer.http_response, Some(HttpResponse::DeniedResponse(_))));
    }
    assert!(envoy.check(envoy::CheckRequest::default()).await.is_err());
    let mut stranger = envoy_at(&site, "10.0.0.1").await;
    let refused = stranger.check(question(&[("cookie", &cookie)])).await;
    assert!(refused.is_err(), "an untrusted peer keeps no connection: {refused:?}");

    // A program's credentials are ours and are removed.
    rules(&site, CheckRules { basic: true, ..Default::default() }).await;
    let (_, password) = app_password(&site, Vec::new(), 0).await;
    let with = basic("ada", &password);
    let answer = envoy.check(question(&[("authorization", &with)])).await.unwrap().into_inner();
    let Some(HttpResponse::OkResponse(ok)) = answer.http_response else { panic!("denied") };
    assert!(ok.headers_to_remove.iter().any(|name| name == "authorization"));
}

#[tokio::test]
async fn envoy_is_told_names_of_every_script_and_to_remove_what_looks_like_an_extra_header() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let ada = site.node.cluster().view().user_by_name("ada").unwrap().id.to_vec();
    let name = "Ada Müller 阿達";
    let command = UpdateUser { user_id: ada, display_name: Some(name.into()), ..Default::default() };
    site.node.propose(Command::UpdateUser(command)).await.unwrap();
    let text = "[[row]]\neffect = \"allow\"\ngroup = \"staff\"\n[[header]]\nname = \"x-full-name\"\nexpression = \"user.name\"\n";
    policy(&site, text).await;
    let mut envoy = envoy_at(&site, "127.0.0.1").await;
    let spoofed = [("cookie", cookie.as_str()), ("x_full.name", "root")];
    let answer = envoy.check(question(&spoofed)).await.unwrap().into_inner();
    let Some(HttpResponse::OkResponse(ok)) = answer.http_response else { panic!("denied") };
    for header in ["remote-name", "x-authentik-name", "x-full-name"] {
        assert_eq!(option(&ok.headers, header), Some(name), "{header}");
    }
    for look_alike in ["x_full.name", "x_full_name", "x.full.name"] {
        assert!(ok.headers_to_remove.iter().any(|removed| removed == look_alike), "{look_alike}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_was_just_made_elsewhere_is_not_unknown_at_a_node_that_lags() {
    let sites: Vec<Site> = TestNode::start_cluster(3).await.into_iter().map(Site::of).collect();
    let leads = |site: &&Site| site.node.cluster().leader_id() == Some(site.node.cluster().node_id());
    let elsewhere = sites.iter().find(leads).unwrap();
    let stuck = sites.iter().find(|site| !leads(site)).unwrap();
    stuck.node.cluster().hold_back(true);
    let command = CreateApplication {
        application_id: elsewhere.node.bytes::<16>().to_vec(),
        slug: "new".into(),
        name: "New".into(),
        hosts: vec!["new.test".into()],
        ..Default::default()
    };
    // Acknowledged once the other node's lease has expired.
    elsewhere.node.propose(Command::CreateApplication(command)).await.unwrap();
    let at = async |site: &Site, host: &str| {
        Check::of("traefik").set("x-forwarded-host", host).send(site, "").await.status
    };
    assert_eq!(at(elsewhere, "new.test").await, StatusCode::FOUND);
    assert_eq!(at(stuck, "new.test").await, StatusCode::SERVICE_UNAVAILABLE, "it cannot tell, and says so");
    // Requests for hosts without an application are not denied on stale state either.
    for host in ["a.test", "b.test", "a.test", "a.test", "a.test"] {
        assert_eq!(at(stuck, host).await, StatusCode::SERVICE_UNAVAILABLE);
    }
    stuck.node.clock().advance(std::time::Duration::from_secs(1));
    let (found, ()) = tokio::join!(at(stuck, "new.test"), async { stuck.node.cluster().hold_back(false) });
    assert_eq!(found, StatusCode::FOUND, "it waits a moment");
    assert_eq!(at(elsewhere, "nobodys.test").await, StatusCode::FORBIDDEN);
}
