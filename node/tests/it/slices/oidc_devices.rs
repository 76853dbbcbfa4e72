//! Device authorization (RFC 8628) through the real router.

use std::time::Duration;

use conclave_node::testing::TestNode;
use conclave_proto::command::v1::{ClientTokensChange, GrantType, GrantTypes};
use http::{Request, StatusCode};
use serde_json::{Value, json};

use super::site::{Browser, PASSWORD, Page, SECRET, Site};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

pub(super) async fn start(site: &Site) -> Value {
    for client in ["web", "asks"] {
        let types = [GrantType::AuthorizationCode, GrantType::RefreshToken, GrantType::DeviceCode];
        let grant_types = Some(GrantTypes { grant_types: types.map(i32::from).to_vec() });
        site.change(client, |c| c.tokens = Some(ClientTokensChange { grant_types, ..Default::default() }))
            .await;
    }

    let page =
        site.client_post("/oidc/device_authorization", Some("web"), &[("scope", "openid email")]).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    page.json()
}

pub(super) async fn poll(site: &Site, client: &str, code: &str) -> Page {
    site.token(Some((client, SECRET)), &[("grant_type", GRANT), ("device_code", code)]).await
}

/// Opens the URL from the device, signs in and returns the page that asks for consent.
pub(super) async fn asked(site: &Site, browser: &mut Browser, started: &Value, username: &str) -> Page {
    let url = started["verification_uri_complete"].as_str().unwrap();
    let page = site.sign_in_at(browser, url, username, PASSWORD).await;
    let page = site.get(browser, &page.location()).await;
    let (csrf, code) = (page.field("csrf"), page.field("user_code"));
    assert_eq!(code, started["user_code"].as_str().unwrap(), "the code is filled in");
    site.post(browser, "/device", &[("csrf", &csrf), ("user_code", &code)]).await
}

pub(super) async fn answer(site: &Site, browser: &mut Browser, page: &Page, decision: &str) -> Page {
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let form = [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("decision", decision)];
    site.post(browser, "/device/answer", &form).await
}

#[tokio::test]
async fn a_device_waits_is_allowed_and_fetches_once() {
    let site = Site::open().await;
    let started = start(&site).await;
    assert_eq!((&started["interval"], &started["expires_in"]), (&json!(5), &json!(600)));
    assert_eq!(started["verification_uri"], "http://127.0.0.1:9000/device");
    let code = started["device_code"].as_str().unwrap();
    assert_eq!(poll(&site, "web", code).await.json()["error"], "authorization_pending");
    assert_eq!(poll(&site, "web", code).await.json()["error"], "slow_down");
    assert_eq!(poll(&site, "asks", code).await.json()["error"], "slow_down");

    let mut browser = Browser::default();
    let page = asked(&site, &mut browser, &started, "ada").await;
    assert_eq!(
        (page.shown("application").as_str(), page.shown("user-code")),
        ("Client web", started["user_code"].as_str().unwrap().to_owned())
    );
    assert!(page.text.contains("data-scope=\"email\"") && !page.text.contains("id=\"destination\""));
    let done = answer(&site, &mut browser, &page, "allow").await;
    assert!(done.text.contains("data-outcome=\"allowed\""), "{}", done.text);
    assert_eq!(
        answer(&site, &mut browser, &page, "deny").await.status,
        StatusCode::CONFLICT,
        "answered once"
    );

    site.node.clock().advance(Duration::from_mins(1));
    assert_eq!(poll(&site, "asks", code).await.json()["error"], "invalid_grant", "another client");
    site.node.clock().advance(Duration::from_mins(1));
    let tokens = poll(&site, "web", code).await.json();
    let info = site.userinfo(tokens["access_token"].as_str().unwrap()).await.json();
    assert!(info["sub"].is_string() && tokens["id_token"].is_string());
    assert_eq!(site.refresh(tokens["refresh_token"].as_str().unwrap()).await.status, StatusCode::OK);
    site.node.clock().advance(Duration::from_mins(1));
    assert_eq!(poll(&site, "web", code).await.json()["error"], "expired_token", "a second fetch");
}

#[tokio::test]
async fn a_device_hears_of_a_no_and_of_its_time_running_out() {
    let site = Site::open().await;
    let started = start(&site).await;
    let mut browser = Browser::default();
    let page = asked(&site, &mut browser, &started, "ada").await;
    let done = answer(&site, &mut browser, &page, "deny").await;
    assert!(done.text.contains("data-outcome=\"denied\""));
    let code = started["device_code"].as_str().unwrap();
    assert_eq!(poll(&site, "web", code).await.json()["error"], "access_denied");

    let late = start(&site).await;
    site.node.clock().advance(Duration::from_mins(10));
    assert_eq!(
        poll(&site, "web", late["device_code"].as_str().unwrap()).await.json()["error"],
        "expired_token"
    );
    for bad in ["x", &code[1..], &format!("{}A", &code[..code.len() - 1])] {
        assert_eq!(poll(&site, "web", bad).await.json()["error"], "invalid_grant", "{bad}");
    }
}

#[tokio::test]
async fn a_page_shown_to_one_person_is_not_answered_in_the_session_of_the_next() {
    let site = Site::open().await;
    let started = start(&site).await;
    let mut browser = Browser::default();
    let page = asked(&site, &mut browser, &started, "ada").await;
    site.sign_in_at(&mut browser, &Site::authorize_url("web", &[("prompt", "login")]), "bob", PASSWORD).await;
    assert_eq!(answer(&site, &mut browser, &page, "allow").await.shown("error-code"), "other_browser");
    let mut stranger = Browser::default();
    assert_eq!(answer(&site, &mut stranger, &page, "allow").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn codes_cannot_be_guessed_without_end() {
    let site = Site::open().await;
    let started = start(&site).await;
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/", "ada", PASSWORD).await;
    let page = site.get(&mut browser, "/device").await;
    let csrf = page.field("csrf");
    let guess = async |browser: &mut Browser, code: &str| {
        site.post(browser, "/device", &[("csrf", &csrf), ("user_code", code)]).await
    };
    for _ in 0..50 {
        let page = guess(&mut browser, "BBBB-BBBB").await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        assert!(page.text.contains("That code is wrong or has expired"));
    }
    let right = started["user_code"].as_str().unwrap();
    let page = guess(&mut browser, right).await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS, "not even the right one");
    assert!(page.headers.contains_key("retry-after"));
    // Passwords are counted separately.
    assert!(site.sign_in_at(&mut Browser::default(), "/", "bob", PASSWORD).await.status.is_redirection());
}

#[tokio::test]
async fn a_device_may_ask_be_answered_and_fetch_at_three_nodes() {
    let nodes = TestNode::start_cluster(3).await;
    let mut sites: Vec<Site> = nodes.into_iter().map(Site::of).collect();
    let leader = sites.iter().position(|site| site.node.cluster().is_leader()).unwrap();
    sites.swap(0, leader);
    sites[0].seed().await;
    let started = start(&sites[1]).await;
    let code = started["device_code"].as_str().unwrap();
    let mut browser = Browser::default();
    let page = asked(&sites[2], &mut browser, &started, "ada").await;
    answer(&sites[0], &mut browser, &page, "allow").await;
    // 32 at once, over all nodes; each is a separate request.
    let fetch = (0..32).map(|n| {
        let site = &sites[n % 3];
        async move { poll(site, "web", code).await.status }
    });
    let won = futures_util::future::join_all(fetch).await;
    assert_eq!(won.iter().filter(|status| **status == StatusCode::OK).count(), 1, "{won:?}");
}

#[tokio::test]
async fn a_page_that_asks_for_the_code_needs_a_person() {
    let site = Site::open().await;
    let request = Request::get("/device?user_code=bcdf%20ghjk").body(axum::body::Body::empty()).unwrap();
    let page = site.send("192.0.2.1", request).await;
    assert!(page.location().starts_with("/login?ticket="), "{}", page.location());
}
