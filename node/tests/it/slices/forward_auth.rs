//! The check, in every dialect: it admits only the requests that it must admit.

use axum::body::Body;
use conclave_forward_auth::IDENTITY_HEADERS;
use conclave_proto::command::v1::{UpdateApplication, command::Body as Command};
use http::{HeaderValue, Request, StatusCode};

use super::site::{Browser, PASSWORD, Page, Site};

/// A check as the proxy at 10.0.0.1 sends it for `https://app.test/page?q=1`, changed by `with`.
pub(super) struct Check {
    pub method: &'static str,
    pub path: &'static str,
    pub headers: Vec<(String, String)>,
}

impl Check {
    pub(super) fn of(dialect: &str) -> Self {
        let (path, pairs): (_, &[(&str, &str)]) = match dialect {
            "nginx" => (
                "/auth/nginx",
                &[("x-original-url", "https://app.test/page?q=1"), ("x-original-method", "GET")],
            ),
            "caddy" => ("/auth/caddy", FORWARDED),
            "haproxy" => ("/auth/haproxy", FORWARDED),
            "envoy" => ("/auth/envoy/page?q=1", &[("x-forwarded-proto", "https"), ("host", "app.test")]),
            _ => ("/auth/traefik", FORWARDED),
        };
        let headers = pairs.iter().chain(&[("x-forwarded-for", "203.0.113.9"), ("accept", "text/html")]);
        Self {
            method: "GET",
            path,
            headers: headers.map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        }
    }

    pub(super) fn set(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn add(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn at(self, path: &'static str) -> Self {
        Self { path, ..self }
    }

    fn by(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }

    pub(super) async fn send(self, site: &Site, cookie: &str) -> Page {
        self.send_from(site, "10.0.0.1", cookie).await
    }

    async fn send_from(self, site: &Site, peer: &str, cookie: &str) -> Page {
        site.send(peer, self.request(cookie)).await
    }

    pub(super) fn request(&self, cookie: &str) -> Request<Body> {
        let mut request = Request::builder().method(self.method).uri(self.path);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if !cookie.is_empty() {
            request = request.header("cookie", HeaderValue::from_bytes(cookie.as_bytes()).unwrap());
        }
        request.body(Body::empty()).unwrap()
    }
}

const FORWARDED: &[(&str, &str)] = &[
    ("x-forwarded-method", "GET"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "app.test"),
    ("x-forwarded-uri", "/page?q=1"),
];

/// Signs `user` in through the whole round trip and returns the cookie of the application's host.
pub(super) async fn cookie_of(site: &Site, user: &str) -> Result<String, Page> {
    let denied = Check::of("traefik").send(site, "").await;
    assert_eq!(denied.status, StatusCode::FOUND);
    let start = denied.location();
    let start =
        start.strip_prefix("https://app.test").expect("the round trip starts on the application's host");
    let (mut on_app, mut at_home) = (Browser::default(), Browser::default());
    let page = site.get(&mut on_app, start).await;
    let page = site.sign_in_at(&mut at_home, &page.location(), user, PASSWORD).await;
    if page.status != StatusCode::SEE_OTHER {
        return Err(page);
    }
    let callback = page.location();
    let callback = callback.strip_prefix("https://app.test").unwrap();
    // Another browser cannot use the ticket.
    let stolen = site.get(&mut Browser::default(), callback).await;
    assert_eq!(stolen.shown("error-code"), "other_browser");
    let page = site.get(&mut on_app, callback).await;
    assert_eq!(page.location(), "https://app.test/page?q=1", "back to the exact URL");
    // A second use sets no second cookie.
    let again = site.get(&mut on_app, callback).await;
    assert!(again.headers.get("set-cookie").is_none() && again.location() == "https://app.test/page?q=1");
    let cookie = on_app.cookies.get("__Host-conclave_app").expect("a __Host- cookie on an https application");
    Ok(format!("__Host-conclave_app={cookie}"))
}

#[tokio::test]
async fn the_round_trip_lets_a_member_through_with_every_identity_header() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    for dialect in ["traefik", "caddy", "nginx", "haproxy", "envoy"] {
        let page = Check::of(dialect).send(&site, &cookie).await;
        assert_eq!(page.status, StatusCode::OK, "{dialect}: {}", page.text);
        for name in IDENTITY_HEADERS {
            assert_eq!(
                page.headers.get_all(name).iter().count(),
                1,
                "{dialect}: {name} is written once, also when empty"
            );
        }
        assert_eq!(page.headers["remote-user"], "ada");
        assert_eq!(page.headers["x-authentik-groups"], "staff");
        assert_eq!(page.headers["remote-email"], "");
    }
    // The cookie is valid for that host only.
    let elsewhere = Check::of("traefik").set("x-forwarded-host", "other.test").send(&site, &cookie).await;
    assert_eq!(elsewhere.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn who_is_not_in_the_group_gets_a_page_that_says_so() {
    let site = Site::open().await;
    let page = cookie_of(&site, "bob").await.expect_err("bob is not in staff");
    assert_eq!((page.status, page.shown("application").as_str()), (StatusCode::FORBIDDEN, "The App"));
}

#[tokio::test]
async fn leaving_the_group_or_signing_out_counts_at_the_next_check() {
    use conclave_proto::command::v1::{RemoveGroupMember, RevokeUserSessions, command::Body as Command};
    let site = Site::open().await;
    let ada = site.node.cluster().view().user_by_name("ada").unwrap().id;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let group_id = site.node.group("staff").await.to_vec();
    site.node
        .propose(Command::RemoveGroupMember(RemoveGroupMember { group_id, user_id: ada.to_vec() }))
        .await
        .unwrap();
    assert_eq!(Check::of("caddy").send(&site, &cookie).await.status, StatusCode::FORBIDDEN);
    site.node
        .propose(Command::RevokeUserSessions(RevokeUserSessions {
            user_id: ada.to_vec(),
            ..Default::default()
        }))
        .await
        .unwrap();
    assert_eq!(Check::of("caddy").send(&site, &cookie).await.status, StatusCode::FOUND);
}

#[tokio::test]
async fn each_proxy_is_answered_in_words_it_understands() {
    let site = Site::open().await;
    let login = |page: &Page| page.location().starts_with("https://app.test/.conclave/start?ticket=");
    let navigation = Check::of("traefik").send(&site, "").await;
    assert!(navigation.status == StatusCode::FOUND && login(&navigation));
    let nginx = Check::of("nginx").send(&site, "").await;
    assert!(nginx.status == StatusCode::UNAUTHORIZED && login(&nginx), "nginx makes a 500 of a 302");
    // Programs, sockets and writes receive 401, never a redirect.
    for (name, value) in [
        ("sec-fetch-mode", "cors"),
        ("accept", "application/json"),
        ("x-requested-with", "XMLHttpRequest"),
        ("upgrade", "websocket"),
        ("x-forwarded-method", "POST"),
    ] {
        let page = Check::of("caddy").set(name, value).send(&site, "").await;
        assert!(page.status == StatusCode::UNAUTHORIZED && login(&page), "{name}: {value}");
        // nginx would follow a `Location` for any client.
        let name = if name == "x-forwarded-method" { "x-original-method" } else { name };
        let page = Check::of("nginx").set(name, value).send(&site, "").await;
        assert_eq!((page.status, page.headers.get("location")), (StatusCode::UNAUTHORIZED, None));
    }
}

#[tokio::test]
async fn envoy_asks_at_the_original_path_with_the_original_method() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let envoy = || Check::of("envoy");
    for (method, path) in
        [("POST", "/auth/envoy/"), ("DELETE", "/auth/envoy/a/b?c=d"), ("GET", "/auth/envoy")]
    {
        assert_eq!(envoy().by(method).at(path).send(&site, &cookie).await.status, StatusCode::OK, "{path}");
    }
    // Back to the path behind the route; forged headers of a client about another path are not read.
    let page =
        envoy().add("x-forwarded-host", "other.test").add("x-forwarded-uri", "/x").send(&site, "").await;
    let page =
        site.get(&mut Browser::default(), page.location().strip_prefix("https://app.test").unwrap()).await;
    let page = site.sign_in_at(&mut Browser::default(), &page.location(), "ada", PASSWORD).await;
    assert!(page.location().starts_with("https://app.test/.conclave/callback?"), "{}", page.location());
    let posted = envoy().by("POST").send(&site, "").await;
    assert_eq!(posted.status, StatusCode::UNAUTHORIZED, "a write is never sent away");
    for check in [
        envoy().at("/auth/envoy/a/../b"),
        envoy().add("host", "other.test"),
        envoy().without("x-forwarded-proto"),
        envoy().set("host", "user@app.test"),
    ] {
        assert_eq!(check.send(&site, &cookie).await.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn proxies_set_up_for_authentik_are_answered_under_its_paths() {
    const BELOW: &str = "https://app.test/outpost.goauthentik.io/start?ticket=";
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    for (dialect, path) in [
        ("traefik", "/outpost.goauthentik.io/auth/traefik"),
        ("caddy", "/outpost.goauthentik.io/auth/caddy"),
        ("nginx", "/outpost.goauthentik.io/auth/nginx"),
        ("envoy", "/outpost.goauthentik.io/auth/envoy/page?q=1"),
    ] {
        let check = || Check::of(dialect).at(path).without("x-original-method");
        let page = check().send(&site, &cookie).await;
        assert_eq!((page.status, &page.headers["x-authentik-username"] == "ada"), (StatusCode::OK, true));
        let page = check().send(&site, "").await;
        assert!(page.location().starts_with(BELOW), "{dialect}: {}", page.location());
    }
    // nginx snippets for authentik name the page in the query instead.
    let start = |rd: &str| format!("/outpost.goauthentik.io/start?rd={rd}");
    let (mut on_app, mut at_home) = (Browser::default(), Browser::default());
    let page = site.get(&mut on_app, &start("https://app.test/page?q=1")).await;
    let page = site.sign_in_at(&mut at_home, &page.location(), "ada", PASSWORD).await;
    let callback = page.location();
    let callback = callback.strip_prefix("https://app.test").unwrap();
    assert!(callback.starts_with("/outpost.goauthentik.io/callback?ticket="), "{callback}");
    assert_eq!(site.get(&mut on_app, callback).await.location(), "https://app.test/page?q=1");
    for elsewhere in ["https://evil.test/", "//app.test/", "app.test/", "https://app.test/../x", ""] {
        let page = site.get(&mut Browser::default(), &start(elsewhere)).await;
        assert!(page.headers.get("location").is_none() && page.status.is_client_error(), "{elsewhere}");
    }
    let page = site.get(&mut on_app, "/outpost.goauthentik.io/sign_out").await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn only_configured_proxies_are_answered() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    for peer in ["192.0.2.1", "127.0.0.1", "10.0.0.2"] {
        let page = Check::of("traefik").send_from(&site, peer, &cookie).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{peer}");
    }
}

#[tokio::test]
async fn metadata_that_is_not_exactly_one_reading_is_refused_even_with_a_good_cookie() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let uri = |uri: &str| Check::of("traefik").set("x-forwarded-uri", uri);
    let host = |host: &str| Check::of("traefik").set("x-forwarded-host", host);
    let refused = vec![
        Check::of("traefik").add("x-forwarded-uri", "/public"),
        Check::of("traefik").add("x-forwarded-host", "app.test"),
        Check::of("traefik").add("x_forwarded_host", "app.test"),
        Check::of("traefik").add("x.forwarded.uri", "/"),
        Check::of("traefik").add("remote_user", "root"),
        Check::of("traefik").without("x-forwarded-host"),
        Check::of("traefik").without("x-forwarded-uri"),
        Check::of("traefik").without("x-forwarded-method"),
        Check::of("traefik").set("x-forwarded-proto", "gopher"),
        Check::of("traefik").set("x-forwarded-for", "garbage"),
        Check::of("nginx").without("x-original-url"),
        Check::of("nginx").set("x-original-url", "app.test/page"),
        Check::of("nginx").set("x-original-url", "https://app.test"),
        uri("page"),
        uri("/a/../b"),
        uri("/a/%2e%2e/b"),
        uri("/a/%2E./b"),
        uri("/a#b"),
        uri("/a b"),
        uri(""),
        host("app.test,evil.test"),
        host("user@app.test"),
        host("app.test:99999"),
        host("app.test/x"),
        host(""),
        host("app test"),
    ];
    for check in refused {
        let said = format!("{:?}", check.headers);
        let page = check.send(&site, &cookie).await;
        assert!(matches!(page.status.as_u16(), 400 | 403), "{} for {said}", page.status);
        assert!(page.headers.get("remote-user").is_none());
    }
    // The other dialect's header names are not read.
    let page = Check::of("traefik").add("x-original-url", "https://evil.test/").send(&site, &cookie).await;
    assert_eq!(page.status, StatusCode::OK);
}

#[tokio::test]
async fn no_cookie_but_the_true_one_lets_anybody_in() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let (name, value) = cookie.split_once('=').unwrap();
    let mut fakes: Vec<String> = ["", "x", "AAAA"].map(|fake| format!("{name}={fake}")).to_vec();
    for at in 0..value.len() {
        let mut bytes = value.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        fakes.push(format!("{name}={}", String::from_utf8(bytes).unwrap()));
    }
    fakes.push(format!("conclave_app={value}"));
    fakes.push(format!("__Host-conclave_session={value}"));
    for fake in fakes {
        assert_eq!(Check::of("caddy").send(&site, &fake).await.status, StatusCode::FOUND, "{fake}");
    }
    let doubled = format!("{cookie}; {cookie}");
    assert_eq!(Check::of("caddy").send(&site, &doubled).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_node_that_is_cut_off_refuses_unless_the_application_would_rather_be_open() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let open_for = |ms| {
        let application_id = site.node.cluster().view().application_by_slug("app").unwrap().id.to_vec();
        Command::UpdateApplication(UpdateApplication {
            application_id,
            serve_known_for_ms: Some(ms),
            ..Default::default()
        })
    };
    site.node.propose(open_for(25 * 3_600_000)).await.unwrap_err();
    site.node.propose(open_for(60_000)).await.unwrap();
    assert_eq!(Check::of("traefik").send(&site, &cookie).await.status, StatusCode::OK);

    // The rest of the cluster is lost, and a lease later this node may not decide alone.
    site.node.cluster().halt().await;
    let began = std::time::Instant::now();
    while site.node.cluster().serving_view(0).await.is_ok() {
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "the lease never ends");
    }
    let page = Check::of("traefik").send(&site, &cookie).await;
    assert_eq!((page.status, &page.headers["remote-user"] == "ada"), (StatusCode::OK, true));
    let stranger = Check::of("traefik").send(&site, "__Host-conclave_app=made-up").await;
    assert_ne!(stranger.status, StatusCode::OK);
    // Other applications, and this one before the setting, require a refusal rather than an old decision.
    assert!(site.node.cluster().known_view(std::time::Duration::from_millis(1)).is_none());
}

#[tokio::test]
async fn the_short_way_says_what_the_long_way_says_and_forgets_with_the_state() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let without_id = |page: &Page| {
        let mut headers = page.headers.clone();
        let id = headers.remove("x-request-id").expect("each answer has an id");
        assert_eq!(id.len(), 32);
        let mut named: Vec<_> = headers.iter().map(|(n, v)| (n.to_string(), v.clone())).collect();
        named.retain(|(name, _)| name != "location" && name != "content-length");
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named
    };
    for dialect in ["traefik", "caddy", "haproxy", "nginx", "envoy"] {
        for (cookie, status) in [(cookie.as_str(), 200), ("__Host-conclave_app=nonsense", 302)] {
            let check = Check::of(dialect);
            let short = site.send_short("10.0.0.1", &check.request(cookie)).await.expect("decided at once");
            let long = site.send_long("10.0.0.1", check.request(cookie)).await;
            let status = if dialect == "nginx" && status == 302 { 401 } else { status };
            assert_eq!((short.status.as_u16(), long.status), (status, short.status), "{dialect}");
            assert_eq!(without_id(&short), without_id(&long), "{dialect}");
        }
    }
    // Once the state has another version, no response uses the earlier one.
    let state = site.node.cluster().view();
    let user = state.user_by_name("ada").unwrap();
    let command = conclave_proto::command::v1::UpdateUser {
        user_id: user.id.to_vec(),
        display_name: Some("Countess".into()),
        ..Default::default()
    };
    site.node.propose(Command::UpdateUser(command)).await.unwrap();
    let page = Check::of("traefik").send(&site, &cookie).await;
    assert_eq!(page.headers["remote-name"], "Countess");
    // Checks that have to wait, and requests of untrusted peers, go through the router.
    assert!(site.send_short("192.0.2.1", &Check::of("traefik").request(&cookie)).await.is_none());
    site.node.cluster().halt().await;
    let began = std::time::Instant::now();
    while site.node.cluster().covered_view().is_some() {
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "the lease never ends");
    }
    assert!(site.send_short("10.0.0.1", &Check::of("traefik").request(&cookie)).await.is_none());
}
