//! The login flow: the pages that a user sees, and the attempts of an attacker.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};

use super::site::{Browser, PASSWORD, Site};

#[tokio::test]
async fn a_person_signs_in_sees_home_and_signs_out() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let page = site.sign_in_at(&mut browser, "/", "ADA ", PASSWORD).await;
    assert_eq!((page.status, page.location().as_str()), (StatusCode::SEE_OTHER, "/"));
    let home = site.get(&mut browser, "/").await;
    assert_eq!(home.shown("account"), "ada");

    let kept = Browser { cookies: browser.cookies.clone() };
    let confirm = site.get(&mut browser, "/logout").await;
    assert_eq!(confirm.shown("account"), "ada");
    let bye = site.post(&mut browser, "/logout", &[("csrf", &confirm.field("csrf"))]).await;
    assert!(bye.text.contains("id=\"signed-out\""));
    assert!(!browser.cookies.contains_key("conclave_session"));
    // A kept cookie is worthless.
    let mut thief = kept;
    assert_eq!(site.get(&mut thief, "/").await.location(), "/login");
}

#[tokio::test]
async fn a_new_session_replaces_the_one_that_the_browser_had() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/", "ada", PASSWORD).await;
    let first = Browser { cookies: browser.cookies.clone() };
    let again = Site::authorize_url("web", &[("prompt", "login")]);
    site.sign_in_at(&mut browser, &again, "bob", PASSWORD).await;
    assert_eq!(site.get(&mut browser, "/").await.shown("account"), "bob");
    let mut first = first;
    assert_eq!(site.get(&mut first, "/").await.location(), "/login", "the first session is over");
}

#[tokio::test]
async fn wrong_password_unknown_user_and_no_password_look_alike() {
    let site = Site::open().await;
    site.node.create_user("passwordless", "", &[]).await;
    let mut texts = Vec::new();
    for (username, password) in
        [("ada", "wrong"), ("nobody", PASSWORD), ("passwordless", PASSWORD), ("", ""), ("ada", "")]
    {
        let page = site.sign_in_at(&mut Browser::default(), "/login", username, password).await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{username}");
        assert!(!page.headers.contains_key("set-cookie") || !page.text.contains("conclave_session"));
        texts.push(page.shown("error"));
    }
    assert!(texts.windows(2).all(|pair| pair[0] == pair[1]), "{texts:?}");
}

#[tokio::test]
async fn an_account_takes_ten_attempts_in_a_window_whatever_the_browser() {
    let site = Site::open().await;
    for attempt in 1..=10 {
        let page = site.sign_in_at(&mut Browser::default(), "/login", "ada", "wrong").await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "attempt {attempt}");
    }
    let page = site.sign_in_at(&mut Browser::default(), "/login", "ada", PASSWORD).await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS, "the right password is not even looked at");
    assert!(page.headers.contains_key("retry-after"));
    // An account that does not exist behaves alike.
    for _ in 1..=10 {
        site.sign_in_at(&mut Browser::default(), "/login", "ghost", "wrong").await;
    }
    let ghost = site.sign_in_at(&mut Browser::default(), "/login", "ghost", "wrong").await;
    assert_eq!((ghost.status, ghost.shown("error")), (page.status, page.shown("error")));
    // Another account is not affected, and the lock-out ends with time.
    let bob = site.sign_in_at(&mut Browser::default(), "/login", "bob", PASSWORD).await;
    assert_eq!(bob.status, StatusCode::SEE_OTHER);
    site.node.clock().advance(Duration::from_mins(15));
    let page = site.sign_in_at(&mut Browser::default(), "/login", "ada", PASSWORD).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
}

/// Removes the session cookie and keeps the cookie of the known browser.
fn signed_out(browser: &Browser) -> Browser {
    let mut cookies = browser.cookies.clone();
    cookies.remove("conclave_session");
    Browser { cookies }
}

#[tokio::test]
async fn strangers_do_not_lock_the_owner_out_of_a_browser_that_has_signed_in_before() {
    let site = Site::open().await;
    let (mut adas, mut bobs) = (Browser::default(), Browser::default());
    site.sign_in_at(&mut adas, "/", "ada", PASSWORD).await;
    site.sign_in_at(&mut bobs, "/", "bob", PASSWORD).await;
    for _ in 1..=10 {
        site.sign_in_at(&mut Browser::default(), "/login", "ada", "wrong").await;
    }
    // Locked for unknown browsers, for a browser known for another user, and for invented and altered device cookies.
    let mark = &adas.cookies["conclave_device"];
    let mut altered = Browser::default();
    altered.cookies.insert("conclave_device".into(), format!("{}A{}", &mark[..5], &mark[6..]));
    for mut other in [Browser::default(), signed_out(&bobs), altered] {
        let page = site.sign_in_at(&mut other, "/login", "ada", PASSWORD).await;
        assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
    }
    let page = site.sign_in_at(&mut signed_out(&adas), "/login", "ada", PASSWORD).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "the owner is locked out by strangers");
}

#[tokio::test]
async fn a_known_browser_has_the_limit_of_any_account_and_opens_nothing_by_itself() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/", "ada", PASSWORD).await;
    // An attacker with the device cookie has no session, and ten guesses.
    let thief = signed_out(&browser);
    assert_eq!(site.get(&mut signed_out(&thief), "/").await.location(), "/login");
    for attempt in 1..=10 {
        let page = site.sign_in_at(&mut signed_out(&thief), "/login", "ada", "wrong").await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED, "attempt {attempt}");
    }
    let page = site.sign_in_at(&mut signed_out(&thief), "/login", "ada", PASSWORD).await;
    assert_eq!(page.status, StatusCode::TOO_MANY_REQUESTS);
    // They were not counted against the account: its owner signs in from elsewhere.
    let page = site.sign_in_at(&mut Browser::default(), "/login", "ada", PASSWORD).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_form_from_elsewhere_or_another_browser_is_refused() {
    let site = Site::open().await;
    let mut victim = Browser::default();
    let page = site.get(&mut victim, "/login").await;
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let form = [("ticket", ticket.as_str()), ("csrf", &csrf), ("username", "ada"), ("password", PASSWORD)];
    // Login CSRF: the attacker's form and ticket in the victim's browser, or in one without cookies.
    for mut other in [Browser::default(), {
        let mut b = Browser::default();
        site.get(&mut b, "/login").await;
        b
    }] {
        let page = site.post(&mut other, "/login", &form).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.text);
        assert!(!other.cookies.contains_key("conclave_session"));
    }
    let mut wrong = form;
    wrong[1].1 = "AAAA";
    assert_eq!(site.post(&mut victim, "/login", &wrong).await.shown("error-code"), "csrf");
    assert_eq!(site.post(&mut victim, "/login", &form).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_ticket_is_good_once_in_time_and_whole() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let page = site.get(&mut browser, "/login").await;
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let form = [("ticket", ticket.as_str()), ("csrf", &csrf), ("username", "ada"), ("password", PASSWORD)];
    assert_eq!(site.post(&mut browser, "/login", &form).await.status, StatusCode::SEE_OTHER);
    // That form again: the user is signed in already and simply continues.
    assert_eq!(site.post(&mut browser, "/login", &form).await.location(), "/");
    // From a browser that has lost the first response: that response again. Once it is no longer remembered, a fresh
    // form.
    browser.cookies.remove("conclave_session");
    let mut late = Browser { cookies: browser.cookies.clone() };
    assert_eq!(site.post(&mut browser, "/login", &form).await.location(), "/");
    site.node.clock().advance(Duration::from_mins(3));
    let page = site.post(&mut late, "/login", &form).await;
    assert_eq!(page.status, StatusCode::CONFLICT);
    assert!(page.text.contains("value=\"ada\""), "what was typed is kept: {}", page.text);
    assert!(page.shown("error").contains("sent before"));

    for damaged in [
        "x",
        &ticket[1..],
        &format!("{ticket}A"),
        &ticket.replace(&ticket[40..41], if &ticket[40..41] == "A" { "B" } else { "A" }),
    ] {
        let page = site.get(&mut Browser::default(), &format!("/login?ticket={damaged}")).await;
        assert_eq!((page.status, page.shown("error-code").as_str()), (StatusCode::BAD_REQUEST, "bad_ticket"));
    }
}

#[tokio::test]
async fn the_retry_of_a_lost_answer_makes_the_same_session() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let page = site.get(&mut browser, "/login").await;
    let body = super::site::encoded(&[
        ("ticket", &page.field("ticket")),
        ("csrf", &page.field("csrf")),
        ("username", "ada"),
        ("password", PASSWORD),
    ]);
    let mut cookies = Vec::new();
    for _ in 0..2 {
        let request = Request::post("/login")
            .header("cookie", browser.header())
            .header("content-type", "application/x-www-form-urlencoded")
            .header("idempotency-key", "the load balancer's id of this request")
            .body(Body::from(body.clone()))
            .unwrap();
        let page = site.send("192.0.2.1", request).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER);
        cookies.push(page.headers.get_all("set-cookie").iter().cloned().collect::<Vec<_>>());
    }
    assert_eq!(cookies[0], cookies[1]);
    assert_eq!(site.node.cluster().view().sessions_after(None).count(), 1);
}

#[tokio::test]
async fn bad_cookies_are_refused_or_ignored_and_never_let_anybody_in() {
    let site = Site::open().await;
    let mut signed_in = Browser::default();
    site.sign_in_at(&mut signed_in, "/", "ada", PASSWORD).await;
    let good = signed_in.cookies["conclave_session"].clone();
    let flipped = good.replace(&good[60..61], if &good[60..61] == "A" { "B" } else { "A" });
    for bad in ["", "x", &good[1..], &flipped, &format!("{good}A"), &"A".repeat(120)] {
        let mut browser = Browser::default();
        browser.cookies.insert("conclave_session".into(), bad.to_owned());
        assert_eq!(site.get(&mut browser, "/").await.location(), "/login", "{bad}");
    }
    let doubled =
        Request::get("/").header("cookie", format!("conclave_session={good}; conclave_session={good}"));
    let page = site.send("192.0.2.1", doubled.body(Body::empty()).unwrap()).await;
    assert_eq!(page.shown("error-code"), "bad_cookie");
}

#[tokio::test]
async fn a_huge_body_is_refused_clearly_and_the_node_goes_on() {
    let site = Site::open().await;
    let huge = Request::post("/login")
        .header("accept", "text/html")
        .body(Body::from(vec![b'a'; 65 * 1024]))
        .unwrap();
    let page = site.send("192.0.2.1", huge).await;
    assert_eq!(page.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(page.text.contains("65536 bytes"), "{}", page.text);
    let page = site.sign_in_at(&mut Browser::default(), "/", "ada", PASSWORD).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn pages_carry_the_fence_and_allow_only_their_own_way_home() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let page = site.get(&mut browser, &Site::authorize_url("web", &[])).await;
    let page = site.get(&mut browser, &page.location()).await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("script") && !policy.contains("unsafe")
    );
    assert!(policy.ends_with("form-action 'self'") && policy.contains("frame-ancestors 'none'"));
    assert_eq!(page.headers["cache-control"], "no-store");
    assert!(!page.text.contains("<script") && !page.text.contains(" style="));
}
