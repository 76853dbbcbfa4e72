//! A new authentication by the user strengthens the session in place: no application is signed out by it.

use http::StatusCode;

use super::site::{Browser, PASSWORD, Page, Site};

/// Signs in for the client `web` and redeems the code.
async fn tokens(site: &Site, browser: &mut Browser, more: &[(&str, &str)]) -> serde_json::Value {
    let page = site.sign_in_at(browser, &Site::authorize_url("web", more), "ada", PASSWORD).await;
    let reply = site.redeem("web", &page.parameter("code").unwrap()).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    reply.json()
}

fn text(tokens: &serde_json::Value, name: &str) -> String {
    tokens[name].as_str().unwrap().to_owned()
}

async fn answers(site: &Site, tokens: &serde_json::Value) -> (StatusCode, StatusCode) {
    let userinfo = site.userinfo(&text(tokens, "access_token")).await.status;
    (userinfo, site.refresh(&text(tokens, "refresh_token")).await.status)
}

fn sessions(site: &Site) -> usize {
    site.node.cluster().view().sessions_after(None).count()
}

/// A login form of this browser, not yet sent.
async fn form(site: &Site, browser: &mut Browser, path: &str) -> Vec<(&'static str, String)> {
    let mut page = site.get(browser, path).await;
    while page.status.is_redirection() {
        let next = page.location();
        page = site.get(browser, &next).await;
    }
    vec![("ticket", page.field("ticket")), ("csrf", page.field("csrf"))]
}

async fn send(site: &Site, browser: &mut Browser, form: &[(&str, String)], username: &str) -> Page {
    let mut fields: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    fields.extend([("username", username), ("password", PASSWORD)]);
    site.post(browser, "/login", &fields).await
}

#[tokio::test]
async fn an_application_that_asks_for_a_new_proof_signs_nobody_out_of_the_others() {
    let site = Site::open().await;
    site.change("web", |command| command.back_channel_logout_uri = Some("https://rp.test/bcl".into())).await;
    let mut browser = Browser::default();
    let first = tokens(&site, &mut browser, &[]).await;
    for more in [&[("prompt", "login")][..], &[("max_age", "0")]] {
        let old = browser.cookies["conclave_session"].clone();
        site.node.clock().advance(std::time::Duration::from_secs(5));
        let again = tokens(&site, &mut browser, more).await;
        let sid =
            |tokens: &serde_json::Value| super::oidc_tokens::claims(&text(tokens, "id_token"))["sid"].clone();
        let auth_time = |tokens: &serde_json::Value| {
            super::oidc_tokens::claims(&text(tokens, "id_token"))["auth_time"].as_u64()
        };
        assert_eq!(sid(&first), sid(&again), "{more:?}");
        assert!(auth_time(&again) > auth_time(&first), "{more:?}");
        // Fixation stays impossible: the cookie from before the authentication is not accepted.
        assert_ne!(browser.cookies["conclave_session"], old);
        let mut thief = Browser::default();
        thief.cookies.insert("conclave_session".into(), old);
        assert_eq!(site.get(&mut thief, "/").await.location(), "/login");
    }
    let (userinfo, _) = answers(&site, &first).await;
    assert_eq!(userinfo, StatusCode::OK);
    assert_eq!((sessions(&site), site.node.cluster().view().outbox().count()), (1, 0));
    // Another user ends it, and its applications are notified.
    site.sign_in_at(&mut browser, &Site::authorize_url("web", &[("prompt", "login")]), "bob", PASSWORD).await;
    assert_eq!(answers(&site, &first).await, (StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST));
    assert_eq!(site.node.cluster().view().outbox().count(), 1);
}

#[tokio::test]
async fn two_tabs_that_both_show_the_form_are_one_session() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let one = form(&site, &mut browser, &Site::authorize_url("web", &[])).await;
    let two = form(&site, &mut browser, &Site::authorize_url("web", &[])).await;
    let first = send(&site, &mut browser, &one, "ada").await;
    let second = send(&site, &mut browser, &two, "ada").await;
    for page in [first, second] {
        assert_eq!(site.redeem("web", &page.parameter("code").unwrap()).await.status, StatusCode::OK);
    }
    assert_eq!(sessions(&site), 1);
}

#[tokio::test]
async fn a_form_that_was_on_its_way_with_the_old_cookie_joins_the_session() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    tokens(&site, &mut browser, &[]).await;
    let one = form(&site, &mut browser, &Site::authorize_url("web", &[("prompt", "login")])).await;
    let two = form(&site, &mut browser, &Site::authorize_url("web", &[("prompt", "login")])).await;
    // Both are sent before either response arrives.
    let mut twin = Browser { cookies: browser.cookies.clone() };
    let first = send(&site, &mut browser, &one, "ada").await;
    let second = send(&site, &mut twin, &two, "ada").await;
    for page in [first, second] {
        assert_eq!(site.redeem("web", &page.parameter("code").unwrap()).await.status, StatusCode::OK);
    }
    assert_eq!(sessions(&site), 1);
    // The last response has the valid cookie.
    assert_eq!(site.get(&mut twin, "/").await.shown("account"), "ada");
}

#[tokio::test]
async fn a_second_click_gets_the_first_answer() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let sent = form(&site, &mut browser, &Site::authorize_url("web", &[])).await;
    // The second click is sent before the first response arrives, with the cookies of that time.
    let mut twin = Browser { cookies: browser.cookies.clone() };
    let first = send(&site, &mut browser, &sent, "ada").await;
    let second = send(&site, &mut twin, &sent, "ada").await;
    assert_eq!((first.status, first.location()), (second.status, second.location()));
    assert_eq!(browser.cookies, twin.cookies);
    assert_eq!(sessions(&site), 1);
    // Once the code was redeemed, a further click gets another code: using the first one again would revoke its tokens.
    let redeemed = site.redeem("web", &first.parameter("code").unwrap()).await.json();
    let third = send(&site, &mut twin, &sent, "ada").await;
    assert_ne!(third.parameter("code"), first.parameter("code"));
    assert_eq!(site.redeem("web", &third.parameter("code").unwrap()).await.status, StatusCode::OK);
    assert_eq!(answers(&site, &redeemed).await, (StatusCode::OK, StatusCode::OK));
}
