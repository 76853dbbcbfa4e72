//! Forms as browsers send them: the response to a POST is never a page, and no page is a dead end.

use std::time::Duration;

use conclave_proto::command::v1::{
    DeleteApplication, DeleteClient, RemoveGroupMember, command::Body as Command,
};
use http::StatusCode;

use super::{
    forward_auth::{Check, cookie_of},
    site::{Browser, PASSWORD, Page, REDIRECT_URI, Site},
};

fn policy(page: &Page) -> &str {
    page.headers["content-security-policy"].to_str().unwrap()
}

fn code_of(address: &str) -> String {
    let url = url::Url::parse(address).unwrap();
    url.query_pairs().find(|(name, _)| name == "code").map(|(_, code)| code.into_owned()).unwrap()
}

/// The page that follows a form; the response to the POST itself is a redirect on this site without a code.
async fn after(site: &Site, browser: &mut Browser, answer: Page) -> Page {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    let location = answer.location();
    assert!(location.starts_with('/') && !location.contains("code="), "{location}");
    site.walk(browser, &location).await
}

#[tokio::test]
async fn a_code_leaves_by_a_page_of_its_own_and_not_in_the_forms_chain() {
    let site = Site::open().await;
    for (mode, client) in [("query", "web"), ("form_post", "web"), ("query", "asks")] {
        let mut browser = Browser::default();
        let url = Site::authorize_url(client, &[("response_mode", mode)]);
        let form = site.walk(&mut browser, &url).await;
        assert!(policy(&form).ends_with("form-action 'self'"), "{}", policy(&form));
        let answer = site.send_login(&mut browser, &url, "ada", PASSWORD).await;
        let mut page = after(&site, &mut browser, answer).await;
        if client == "asks" {
            assert!(policy(&page).ends_with("form-action 'self'"), "{}", policy(&page));
            let form = [
                ("ticket", page.field("ticket")),
                ("csrf", page.field("csrf")),
                ("decision", "allow".into()),
            ];
            let form: Vec<(&str, &str)> = form.iter().map(|(n, v)| (*n, v.as_str())).collect();
            let answer = site.submit(&mut browser, "/consent", &form).await;
            page = after(&site, &mut browser, answer).await;
        }
        assert_eq!(page.headers["cache-control"], "no-store");
        let code = if mode == "form_post" {
            assert!(!policy(&page).contains("form-action"), "{}", policy(&page));
            page.field("code")
        } else {
            let next = page.refresh().unwrap();
            assert!(next.starts_with(REDIRECT_URI) && page.link("continue") == next, "{next}");
            code_of(&next)
        };
        assert_eq!(site.redeem(client, &code).await.status, StatusCode::OK, "{client} {mode}");
    }
}

#[tokio::test]
async fn the_page_that_leads_on_is_of_its_browser_and_its_time() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let answer = site.send_login(&mut browser, &Site::authorize_url("web", &[]), "ada", PASSWORD).await;
    let location = answer.location();
    assert!(site.visit(&mut browser, &location).await.refresh().is_some());
    let stranger = site.visit(&mut Browser::default(), &location).await;
    assert_eq!((stranger.status, stranger.location().as_str()), (StatusCode::SEE_OTHER, "/"));
    site.node.clock().advance(Duration::from_mins(15));
    assert_eq!(site.visit(&mut browser, &location).await.location(), "/");
    assert_eq!(site.visit(&mut browser, "/continue?to=x").await.location(), "/");
}

#[tokio::test]
async fn an_app_of_the_device_is_opened_straight_from_the_form() {
    let site = Site::open().await;
    site.change("spa", |client| {
        let uris = vec!["com.example.app:/cb".to_owned()];
        client.redirect_uris = Some(conclave_proto::command::v1::Uris { uris });
    })
    .await;
    let mut browser = Browser::default();
    let url = Site::authorize_url("spa", &[("redirect_uri", "com.example.app:/cb")]);
    let form = site.walk(&mut browser, &url).await;
    assert!(policy(&form).ends_with("form-action 'self' com.example.app:"), "{}", policy(&form));
    let answer = site.send_login(&mut browser, &url, "ada", PASSWORD).await;
    assert!(answer.location().starts_with("com.example.app:/cb?code="), "{}", answer.location());
}

#[tokio::test]
async fn what_was_wrong_is_said_on_a_page_that_can_be_reloaded() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let url = Site::authorize_url("web", &[]);
    let answer = site.send_login(&mut browser, &url, "ada", "wrong").await;
    let location = answer.location();
    for _ in 0..2 {
        let page = site.visit(&mut browser, &location).await;
        assert_eq!(
            (page.status, page.shown("error").as_str()),
            (StatusCode::OK, "The username or password is wrong.")
        );
        assert!(page.text.contains("value=\"ada\"") && page.shown("application") == "Client web");
    }
    for _ in 0..9 {
        site.send_login(&mut browser, &url, "ada", "wrong").await;
    }
    let answer = site.send_login(&mut browser, &url, "ada", "wrong").await;
    let page = after(&site, &mut browser, answer).await;
    assert_eq!(page.shown("error"), "Too many attempts. Try again in about 15 minutes.");
}

#[tokio::test]
async fn a_form_that_was_left_open_is_answered_by_a_fresh_one() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let url = Site::authorize_url("web", &[]);
    let page = site.walk(&mut browser, &url).await;
    let form = [("ticket", page.field("ticket")), ("csrf", page.field("csrf"))];
    site.node.clock().advance(Duration::from_hours(3));
    let mut fields: Vec<(&str, &str)> = form.iter().map(|(n, v)| (*n, v.as_str())).collect();
    fields.extend([("username", "ada"), ("password", PASSWORD)]);
    let answer = site.submit(&mut browser, "/login", &fields).await;
    let page = after(&site, &mut browser, answer).await;
    assert_eq!(page.shown("error"), "This page was open for too long. Please try again.");
    assert!(page.text.contains("value=\"ada\"") && page.shown("application") == "Client web");
    // A reload of the old address: the fresh form, also in a browser that has lost its cookies.
    for browser in [&mut browser, &mut Browser::default()] {
        let old = format!("/login?ticket={}", form[0].1);
        let answer = site.send_login(browser, &old, "ada", PASSWORD).await;
        assert!(code_of(&after(&site, browser, answer).await.refresh().unwrap()).len() > 20);
    }
    // Its request is checked anew: no browser is redirected to a client that was removed.
    site.change("web", |client| client.disabled = Some(true)).await;
    let page = site.walk(&mut Browser::default(), &format!("/login?ticket={}", form[0].1)).await;
    assert_eq!(
        (page.status, page.shown("error-code").as_str()),
        (StatusCode::NOT_FOUND, "unknown_application")
    );
    assert_eq!(page.link("back"), "/");
}

#[tokio::test]
async fn the_sign_in_of_the_site_itself_is_never_too_old() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let page = site.walk(&mut browser, "/login").await;
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    site.node.clock().advance(Duration::from_hours(30));
    let form = [("ticket", ticket.as_str()), ("csrf", &csrf), ("username", "ada"), ("password", PASSWORD)];
    assert_eq!(site.submit(&mut browser, "/login", &form).await.location(), "/");
    assert_eq!(site.visit(&mut browser, "/").await.shown("account"), "ada");
}

#[tokio::test]
async fn a_consent_page_that_was_left_open_is_asked_again() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let answer = site.send_login(&mut browser, &Site::authorize_url("asks", &[]), "ada", PASSWORD).await;
    let page = after(&site, &mut browser, answer).await;
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    site.node.clock().advance(Duration::from_hours(1));
    let form = [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("decision", "allow")];
    let answer = site.submit(&mut browser, "/consent", &form).await;
    let page = after(&site, &mut browser, answer).await;
    assert!(page.shown("note").contains("open for too long") && page.text.contains("consent-form"));
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let form = [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("decision", "allow")];
    let answer = site.submit(&mut browser, "/consent", &form).await;
    assert!(after(&site, &mut browser, answer).await.refresh().is_some());
}

#[tokio::test]
async fn another_account_is_one_click_away_and_leads_to_the_same_place() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let answer =
        site.send_login(&mut browser, &Site::authorize_url("staff-only", &[]), "bob", PASSWORD).await;
    let page = after(&site, &mut browser, answer).await;
    assert_eq!((page.status, page.shown("account").as_str()), (StatusCode::FORBIDDEN, "bob"));
    let switch = page.link("sign-out");
    let form = site.walk(&mut browser, &switch).await;
    assert_eq!(form.shown("application"), "Client staff-only");
    let answer = site.send_login(&mut browser, &switch, "ada", PASSWORD).await;
    let next = after(&site, &mut browser, answer).await.refresh().unwrap();
    assert_eq!(site.redeem("staff-only", &code_of(&next)).await.status, StatusCode::OK);
    assert_eq!(site.visit(&mut browser, "/").await.shown("account"), "ada");
}

#[tokio::test]
async fn a_browser_is_never_shown_json() {
    let site = Site::open().await;
    for path in ["/nope", "/atmosphere", "/oidc/token", "/oidc/par", "/device/answer", "/upstream/unlink"] {
        let page = site.visit(&mut Browser::default(), path).await;
        assert!(page.status.is_client_error(), "{path}: {}", page.status);
        let kind = page.headers["content-type"].to_str().unwrap();
        assert!(
            kind.starts_with("text/html") && page.text.contains("id=\"back\""),
            "{path}: {kind} {}",
            page.text
        );
    }
    let page = site.get(&mut Browser::default(), "/nope").await;
    assert_eq!(
        (page.headers["content-type"].to_str().unwrap(), page.json()["code"].as_str()),
        ("application/problem+json", Some("not_found"))
    );
}

#[tokio::test]
async fn a_form_without_its_cookies_says_so_and_leads_back_to_a_fresh_one() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let page = site.walk(&mut browser, &Site::authorize_url("web", &[])).await;
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let form = [("ticket", ticket.as_str()), ("csrf", &csrf), ("username", "ada"), ("password", PASSWORD)];
    let mut without = Browser::default();
    let answer = site.submit(&mut without, "/login", &form).await;
    let page = after(&site, &mut without, answer).await;
    assert!(page.shown("error").contains("cookies") && page.shown("application") == "Client web");
    assert!(!without.cookies.contains_key("conclave_session"));
    // A program, and a client that only resembles a browser, is refused.
    let page = site.post(&mut Browser::default(), "/login", &form).await;
    assert_eq!((page.status, page.shown("error-code").as_str()), (StatusCode::FORBIDDEN, "csrf"));
}

#[tokio::test]
async fn bounds_of_the_rules_are_told_to_the_client_before_anybody_is_asked() {
    let site = Site::open().await;
    let long = "n".repeat(513);
    let state = "s".repeat(2_049);
    for (more, says) in [
        (("nonce", long.as_str()), "nonce is longer than 512 bytes"),
        (("nonce", "a\u{1}b"), "nonce has a control character"),
        (("state", state.as_str()), "state is longer than 2048 bytes"),
    ] {
        let page = site.get(&mut Browser::default(), &Site::authorize_url("web", &[more])).await;
        assert!(page.location().starts_with(REDIRECT_URI), "{}", page.location());
        assert_eq!(page.parameter("error").as_deref(), Some("invalid_request"));
        assert_eq!(page.parameter("error_description").as_deref(), Some(says));
        assert_eq!(page.parameter("state").is_some(), more.0 != "state");
    }
    let most = "n".repeat(512);
    let page = site
        .sign_in_at(
            &mut Browser::default(),
            &Site::authorize_url("web", &[("nonce", &most)]),
            "ada",
            PASSWORD,
        )
        .await;
    assert!(page.parameter("code").is_some());
}

/// The size of the status line and the headers of a response, in bytes.
fn head_bytes(page: &Page) -> usize {
    let headers = page.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    "HTTP/1.1 303 See Other\r\n".len() + headers.sum::<usize>() + "\r\n".len()
}

/// The default limit of proxies for a response's head.
const PROXY_BUFFER: usize = 4096;

#[tokio::test]
async fn a_long_state_never_makes_a_head_that_proxies_refuse() {
    let site = Site::open().await;
    for bytes in [100, 900, 1_300, 2_000] {
        let state = "s".repeat(bytes);
        let mut browser = Browser::default();
        let url = Site::authorize_url("asks", &[("state", &state)]);
        let wrong = site.send_login(&mut browser, &url, "ada", "wrong").await;
        assert!(head_bytes(&wrong) < PROXY_BUFFER, "{bytes}: {}", head_bytes(&wrong));
        // If short enough, it is a page under its own address, and otherwise the page itself.
        let form = match wrong.status {
            StatusCode::SEE_OTHER => after(&site, &mut browser, wrong).await,
            status => {
                assert_eq!((status, bytes), (StatusCode::UNAUTHORIZED, bytes.max(900)));
                wrong
            }
        };
        assert_eq!(form.shown("error"), "The username or password is wrong.");
        assert!(form.text.contains("value=\"ada\""), "{}", form.text);
        let (ticket, csrf) = (form.field("ticket"), form.field("csrf"));
        let fields =
            [("ticket", ticket.as_str()), ("csrf", &csrf), ("username", "ada"), ("password", PASSWORD)];
        let right = site.submit(&mut browser, "/login", &fields).await;
        assert!(head_bytes(&right) < PROXY_BUFFER, "{bytes}: {}", head_bytes(&right));
        let consent = match right.status {
            StatusCode::SEE_OTHER => after(&site, &mut browser, right).await,
            _ => right,
        };
        assert!(
            consent.status == StatusCode::OK && consent.text.contains("consent-form"),
            "{}",
            consent.text
        );
        let (ticket, csrf) = (consent.field("ticket"), consent.field("csrf"));
        let fields = [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("decision", "allow")];
        let mut done = site.submit(&mut browser, "/consent", &fields).await;
        assert!(head_bytes(&done) < PROXY_BUFFER, "{bytes}: {}", head_bytes(&done));
        if done.status == StatusCode::SEE_OTHER {
            done = after(&site, &mut browser, done).await;
        }
        assert!(done.refresh().is_some_and(|next| next.contains(&state)), "{}", done.text);
    }
}

#[tokio::test]
async fn what_is_sent_round_by_get_goes_by_a_page_when_it_is_long() {
    let site = Site::open().await;
    let state = "s".repeat(2_000);
    let url = Site::authorize_url("web", &[("state", &state)]);
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(url.split_once('?').unwrap().1.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let mut browser = Browser::default();
    let page = site.submit(&mut browser, "/oidc/authorize", &pairs).await;
    assert!(head_bytes(&page) < PROXY_BUFFER, "{}", head_bytes(&page));
    let form = site.walk(&mut browser, &page.refresh().unwrap()).await;
    assert_eq!(form.shown("application"), "Client web");
    // The logout of a client: requested by a form, then with a ticket.
    let bye = [
        ("client_id", "web"),
        ("post_logout_redirect_uri", "https://rp.test/bye"),
        ("state", state.as_str()),
    ];
    site.sign_in_at(&mut browser, "/", "ada", PASSWORD).await;
    let posted = site.submit(&mut browser, "/oidc/logout", &bye).await;
    assert!(head_bytes(&posted) < PROXY_BUFFER, "{}", head_bytes(&posted));
    let next =
        posted.refresh().unwrap_or_else(|| panic!("{} {:?} {}", posted.status, posted.headers, posted.text));
    let asked = site.visit(&mut browser, &next).await;
    assert!(head_bytes(&asked) < PROXY_BUFFER, "{}", head_bytes(&asked));
    // By a page or by a redirect, as long as the head is short.
    let next = asked.refresh().unwrap_or_else(|| asked.location());
    let page = site.visit(&mut browser, &next).await;
    assert!(
        page.status == StatusCode::OK && head_bytes(&page) < PROXY_BUFFER,
        "{} {}",
        page.status,
        page.text
    );
    assert!(page.shown("account") == "ada" && !page.field("ticket").is_empty(), "{}", page.text);
}

#[tokio::test]
async fn another_account_leads_to_a_page_of_an_application_only_while_it_is_one() {
    let site = Site::open().await;
    let (ada, group_id) =
        (site.node.cluster().view().user_by_name("ada").unwrap().id, site.node.group("staff").await.to_vec());
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let leave = RemoveGroupMember { group_id, user_id: ada.to_vec() };
    site.node.propose(Command::RemoveGroupMember(leave)).await.unwrap();
    let page = Check::of("traefik").send(&site, &cookie).await;
    assert_eq!(page.status, StatusCode::FORBIDDEN);
    let switch = page.link("sign-out");

    // While the application exists the link leads to its page, however old the link is.
    site.node.clock().advance(Duration::from_hours(3));
    let mut browser = Browser::default();
    let answer = site.send_login(&mut browser, &switch, "bob", PASSWORD).await;
    let page = after(&site, &mut browser, answer).await;
    assert_eq!(page.refresh().as_deref(), Some("https://app.test/page?q=1"));

    // A form that was shown before the application was deleted, and the link afterwards.
    let mut browser = Browser::default();
    let form = site.walk(&mut browser, &switch).await;
    assert_eq!(form.shown("application"), "The App");
    let application_id = site.node.cluster().view().application_by_slug("app").unwrap().id.to_vec();
    let client = DeleteClient { client_id: "staff-only".into() };
    site.node.propose(Command::DeleteClient(client)).await.unwrap();
    site.node.propose(Command::DeleteApplication(DeleteApplication { application_id })).await.unwrap();
    let (ticket, csrf) = (form.field("ticket"), form.field("csrf"));
    let fields = [("ticket", ticket.as_str()), ("csrf", &csrf), ("username", "ada"), ("password", PASSWORD)];
    let answer = site.submit(&mut browser, "/login", &fields).await;
    let sent = after(&site, &mut browser, answer).await;
    let shown = site.walk(&mut Browser::default(), &switch).await;
    for page in [&sent, &shown] {
        assert_eq!((page.status, page.refresh()), (StatusCode::NOT_FOUND, None), "{}", page.text);
        assert_eq!(page.shown("error-code"), "unknown_application");
    }
}
