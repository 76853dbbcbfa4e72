//! The size and contents of the check's responses: one profile of headers, bounded heads, refusals with a reason.

use conclave_forward_auth::{IDENTITY_HEADERS, MAX_HEAD_BYTES};
use conclave_proto::command::v1::{
    Access, AddGroupMember, CheckRules, CreateGroup, HeaderProfile, HeaderText, IdentityHeaders,
    UpdateApplication, UpdateUser, command::Body as Command,
};
use http::StatusCode;

use super::{
    forward_auth::{Check, cookie_of},
    site::{Browser, PASSWORD, Page, Site},
};

/// The default limit of proxies for the head of a response.
const DEFAULT_PROXY_BUFFER: usize = 4 * 1024;

/// The size of a response's head as HTTP/1.1 writes it, its status line and date included, in bytes.
fn head_bytes(page: &Page) -> usize {
    let lines = page.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    lines.sum::<usize>()
        + "HTTP/1.1 503 Service Unavailable\r\n\r\n".len()
        + "date: Sun, 29 Nov 2026 09:51:37 GMT\r\n".len()
}

async fn update(site: &Site, change: impl FnOnce(&mut UpdateApplication)) {
    let id = site.node.cluster().view().application_by_slug("app").unwrap().id;
    let mut command = UpdateApplication { application_id: id.to_vec(), ..Default::default() };
    change(&mut command);
    site.node.propose(Command::UpdateApplication(command)).await.unwrap();
}

async fn choose(site: &Site, profile: HeaderProfile, text: HeaderText) {
    let headers = IdentityHeaders { profile: profile.into(), text: text.into() };
    update(site, |command| command.identity_headers = Some(headers)).await;
}

/// Adds ada to as many groups as a user can be in, each with the longest name; the last one is in the application's
/// rule.
async fn join_every_group(site: &Site) -> String {
    let user_id = site.node.cluster().view().user_by_name("ada").unwrap().id.to_vec();
    let mut last = (Vec::new(), String::new());
    for n in 1..256 {
        let group_id = site.node.bytes::<16>().to_vec();
        let name = format!("{n:03}-{}", "g".repeat(60));
        let group = CreateGroup { group_id: group_id.clone(), name: name.clone(), ..Default::default() };
        site.node.propose(Command::CreateGroup(group)).await.unwrap();
        let member = AddGroupMember { group_id: group_id.clone(), user_id: user_id.clone() };
        site.node.propose(Command::AddGroupMember(member)).await.unwrap();
        last = (group_id, name);
    }
    let (group_id, name) = last;
    let staff = site.node.group("staff").await.to_vec();
    update(site, |command| {
        command.access = Some(Access { everyone: false, group_ids: vec![staff, group_id] })
    })
    .await;
    name
}

#[tokio::test]
async fn an_application_is_told_in_the_profile_that_it_chose_and_every_name_is_written_once() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let families = ["x-authentik-", "remote-", "x-auth-request-"];
    let chosen = async |site: &Site| {
        let page = Check::of("traefik").send(site, &cookie).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        for name in IDENTITY_HEADERS {
            assert_eq!(page.headers.get_all(name).iter().count(), 1, "{name}");
        }
        let says = |family: &&str| {
            let mut names = IDENTITY_HEADERS.iter().filter(|name| name.starts_with(family));
            names.any(|name| !page.headers[*name].is_empty())
        };
        families.into_iter().filter(says).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&site).await, families, "an application from before there was a choice");
    for (profile, names) in [
        (HeaderProfile::Authentik, &families[..1]),
        (HeaderProfile::Remote, &families[1..2]),
        (HeaderProfile::AuthRequest, &families[2..]),
        (HeaderProfile::All, &families[..]),
    ] {
        choose(&site, profile, HeaderText::Unspecified).await;
        assert_eq!(chosen(&site).await, names, "{profile:?}");
    }
}

#[tokio::test]
async fn names_outside_ascii_are_written_as_the_application_wants_them() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let command = UpdateUser {
        user_id: site.node.cluster().view().user_by_name("ada").unwrap().id.to_vec(),
        display_name: Some("Zoë Дима".into()),
        ..Default::default()
    };
    site.node.propose(Command::UpdateUser(command)).await.unwrap();
    for (text, written) in [
        (HeaderText::Unspecified, "Zoë Дима".as_bytes()),
        (HeaderText::Percent, b"Zo%C3%AB %D0%94%D0%B8%D0%BC%D0%B0"),
        (HeaderText::Omit, b""),
        (HeaderText::Raw, "Zoë Дима".as_bytes()),
    ] {
        choose(&site, HeaderProfile::Unspecified, text).await;
        let page = Check::of("traefik").send(&site, &cookie).await;
        for name in ["x-authentik-name", "remote-name"] {
            assert_eq!(page.headers[name].as_bytes(), written, "{name}: {text:?}");
        }
        assert_eq!(page.headers["remote-user"], "ada");
    }
}

#[tokio::test]
async fn the_longest_answer_stays_within_its_bound_and_says_what_it_left_out() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    assert_eq!(Check::of("caddy").send(&site, &cookie).await.headers["x-conclave-groups-omitted"], "");
    let needed = join_every_group(&site).await;
    for profile in
        [HeaderProfile::All, HeaderProfile::Authentik, HeaderProfile::Remote, HeaderProfile::AuthRequest]
    {
        for assertion in [false, true] {
            choose(&site, profile, HeaderText::Unspecified).await;
            update(&site, |command| command.check = Some(CheckRules { assertion, ..Default::default() }))
                .await;
            let page = Check::of("traefik").send(&site, &cookie).await;
            assert_eq!(page.status, StatusCode::OK, "{}", page.text);
            let bytes = head_bytes(&page);
            assert!(bytes <= MAX_HEAD_BYTES, "{profile:?}, assertion {assertion}: {bytes} bytes");
            let text = |name: &str| page.headers[name].to_str().unwrap().to_owned();
            let groups = [
                text("x-authentik-groups").replace('|', ","),
                text("remote-groups"),
                text("x-auth-request-groups"),
            ];
            let told = groups.into_iter().find(|groups| !groups.is_empty()).unwrap();
            let told: Vec<&str> = told.split(',').collect();
            assert!(
                told.contains(&"staff") && told.contains(&needed.as_str()),
                "the groups of its own rule come first"
            );
            let all_whole = told.iter().all(|name| *name == "staff" || name.len() == 64);
            let omitted: usize = text("x-conclave-groups-omitted").parse().unwrap();
            assert!(
                all_whole && omitted + told.len() == 256,
                "{} of 256 told, {omitted} omitted",
                told.len()
            );
        }
    }
}

/// Opens a page without a session, signs in, and returns the final address; every head on the way fits into a default
/// buffer.
async fn return_to(site: &Site, dialect: &str, path: &str) -> String {
    let small = |page: &Page| {
        assert!(head_bytes(page) <= DEFAULT_PROXY_BUFFER, "{} bytes: {:?}", head_bytes(page), page.headers);
    };
    let check = match dialect {
        "nginx" => Check::of(dialect).set("x-original-url", &format!("https://app.test{path}")),
        _ => Check::of(dialect).set("x-forwarded-uri", path),
    };
    let denied = check.send(site, "").await;
    assert!(matches!(denied.status.as_u16(), 302 | 401), "{}: {}", denied.status, denied.text);
    small(&denied);
    let (mut on_app, mut at_home) = (Browser::default(), Browser::default());
    let start = site.get(&mut on_app, denied.location().strip_prefix("https://app.test").unwrap()).await;
    small(&start);
    let signed_in = site.sign_in_at(&mut at_home, &start.location(), "ada", PASSWORD).await;
    small(&signed_in);
    let home = site.get(&mut on_app, signed_in.location().strip_prefix("https://app.test").unwrap()).await;
    small(&home);
    home.location()
}

#[tokio::test]
async fn a_long_address_never_makes_a_long_head_and_never_a_refusal() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    for dialect in ["traefik", "nginx"] {
        let short = format!("/page?q={}", "y".repeat(1000));
        assert_eq!(return_to(&site, dialect, &short).await, format!("https://app.test{short}"));
        let quoted = format!("/page?q={}", "\"".repeat(500));
        assert_eq!(return_to(&site, dialect, &quoted).await, format!("https://app.test{quoted}"));
        for length in [1_100, 3_000, 5_500, 6_000, 8_200, 40_000] {
            let long = format!("/report?q={}", "y".repeat(length));
            assert_eq!(return_to(&site, dialect, &long).await, "https://app.test/report", "{length}");
        }
        let long = format!("/{}", "y".repeat(6_000));
        assert_eq!(return_to(&site, dialect, &long).await, "https://app.test/");
    }
    // A signed-in user is judged by the path, which is short.
    let long = format!("/report?q={}", "y".repeat(40_000));
    let page = Check::of("traefik").set("x-forwarded-uri", &long).send(&site, &cookie).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
}

#[tokio::test]
async fn a_long_state_of_a_client_travels_in_the_page_and_not_in_a_location() {
    let site = Site::open().await;
    let state = "s".repeat(2_000);
    let url = Site::authorize_url("web", &[("state", &state)]);
    let mut browser = Browser::default();
    let page = site.get(&mut browser, &url).await;
    assert!(head_bytes(&page) <= DEFAULT_PROXY_BUFFER, "{} bytes", head_bytes(&page));
    let page = site.sign_in_at(&mut browser, &url, "ada", PASSWORD).await;
    assert_eq!(page.parameter("state").as_deref(), Some(state.as_str()));
    assert!(page.parameter("code").is_some());
}

#[tokio::test]
async fn nginx_is_given_the_page_of_a_refusal_whole() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let page = |cookie: String| async {
        let c = cookie;
        Check::of("nginx").at("/auth/nginx/page").send(&site, &c).await
    };
    let stranger = page(String::new()).await;
    assert_eq!(stranger.status, StatusCode::FOUND);
    assert!(stranger.location().starts_with("https://app.test/.conclave/start?ticket="));
    // The user was admitted meanwhile: not by this response, which the visitor would see.
    let admitted = page(cookie.clone()).await;
    assert_eq!(
        (admitted.status, admitted.shown("error-code").as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "try_again")
    );
    assert!(admitted.headers.get("remote-user").is_none() && admitted.headers.contains_key("retry-after"));
    update(&site, |command| command.access = Some(Access::default())).await;
    let denied = page(cookie).await;
    assert_eq!(denied.status, StatusCode::FORBIDDEN);
    assert!(!denied.shown("decision-id").is_empty() && denied.shown("request-id").len() == 32);
    let unavailable = site.get(&mut Browser::default(), "/.conclave/unavailable").await;
    assert_eq!(
        (unavailable.status, unavailable.shown("error-code").as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    );
}

#[tokio::test]
async fn a_frame_is_shown_the_way_to_the_top_and_a_prefetch_is_led_nowhere() {
    let site = Site::open().await;
    for dialect in ["traefik", "nginx"] {
        for destination in ["iframe", "frame", "embed", "object"] {
            let check =
                Check::of(dialect).add("sec-fetch-mode", "navigate").add("sec-fetch-dest", destination);
            let page = check.send(&site, "").await;
            assert_eq!(
                (page.status, page.headers.get("location")),
                (StatusCode::UNAUTHORIZED, None),
                "{destination}"
            );
            assert!(
                page.text.contains("target=\"_top\"")
                    && page.text.contains("https://app.test/.conclave/start?ticket=")
            );
            let policy = page.headers["content-security-policy"].to_str().unwrap();
            assert!(!policy.contains("frame-ancestors") && policy.contains("form-action 'none'"), "{policy}");
            assert!(page.headers.get("x-frame-options").is_none());
        }
        for (name, value) in [("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch")] {
            let page =
                Check::of(dialect).add("sec-fetch-mode", "navigate").add(name, value).send(&site, "").await;
            assert_eq!(page.status, StatusCode::UNAUTHORIZED, "{name}");
        }
        let document = Check::of(dialect).add("sec-fetch-mode", "navigate").add("sec-fetch-dest", "document");
        let page = document.send(&site, "").await;
        assert!(page.headers.contains_key("location") && page.headers.contains_key("x-frame-options"));
    }
}

#[tokio::test]
async fn a_program_that_takes_anything_is_told_401_and_where_the_sign_in_is() {
    let site = Site::open().await;
    for check in [Check::of("traefik").set("accept", "*/*"), Check::of("traefik").without("accept")] {
        let page = check.send(&site, "").await;
        assert_eq!(page.status, StatusCode::UNAUTHORIZED);
        assert!(page.location().starts_with("https://app.test/.conclave/start?ticket="));
    }
    let browser = Check::of("traefik").set("accept", "*/*").add("sec-fetch-mode", "navigate");
    assert_eq!(browser.send(&site, "").await.status, StatusCode::FOUND);
}

#[tokio::test]
async fn tabs_of_one_page_that_were_opened_together_all_arrive() {
    let site = Site::open().await;
    let (mut on_app, mut at_home) = (Browser::default(), Browser::default());
    site.sign_in_at(&mut at_home, "/login", "ada", PASSWORD).await;
    let mut tabs = Vec::new();
    for _ in 0..4 {
        let start = Check::of("traefik").send(&site, "").await.location();
        tabs.push(start.strip_prefix("https://app.test").unwrap().to_owned());
    }
    for start in tabs {
        site.node.clock().advance(std::time::Duration::from_millis(50));
        let login = site.get(&mut on_app, &start).await.location();
        let callback = site.get(&mut at_home, &login).await;
        assert_eq!(callback.status, StatusCode::SEE_OTHER, "{}", callback.text);
        let page = site.get(&mut on_app, callback.location().strip_prefix("https://app.test").unwrap()).await;
        assert_eq!(page.location(), "https://app.test/page?q=1");
    }
    // A new session begins a new count.
    for _ in 0..4 {
        let mut at_home = Browser { cookies: at_home.cookies.clone() };
        at_home.cookies.retain(|name, _| !name.contains("session"));
        let start = Check::of("traefik").send(&site, "").await.location();
        let login = site.get(&mut on_app, start.strip_prefix("https://app.test").unwrap()).await.location();
        let page = site.sign_in_at(&mut at_home, &login, "ada", PASSWORD).await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.text);
    }
}

#[tokio::test]
async fn each_refusal_of_the_check_is_in_the_log_under_the_request_id_of_its_page() {
    crate::cluster::logs::listen();
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let check = || Check::of("traefik");
    let refused = [
        (check().set("x-forwarded-host", "else.test").send(&site, &cookie).await, "unknown_application"),
        (check().send(&site, &format!("{cookie}; {cookie}")).await, "bad_cookie"),
        (check().set("x-forwarded-uri", "/a/../b").send(&site, &cookie).await, "dot segment"),
    ];
    for (page, reason) in refused {
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{reason}");
        crate::cluster::logs::heard(&[&page.shown("request-id"), reason]).await;
    }
    update(&site, |command| command.access = Some(Access::default())).await;
    let page = check().send(&site, &cookie).await;
    crate::cluster::logs::heard(&[&page.shown("request-id"), &page.shown("decision-id"), "ada"]).await;
}
