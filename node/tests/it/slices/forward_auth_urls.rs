//! Addresses as clients send them: every spelling of a host is one origin, every path passes where no rule reads it,
//! and a method that a header puts in doubt decides nothing.

use conclave_auth::policy::document::Document;
use conclave_node::testing::TestNode;
use conclave_proto::command::v1::{
    CheckRules, Hosts, SetPolicy, UpdateApplication, Uris, command::Body as Command,
};
use http::{HeaderName, HeaderValue, StatusCode};

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

async fn update(site: &Site, change: impl FnOnce(&mut UpdateApplication)) {
    let mut command = UpdateApplication { application_id: app(site), ..Default::default() };
    change(&mut command);
    site.node.propose(Command::UpdateApplication(command)).await.unwrap();
}

/// A check whose raw path is these bytes.
async fn check_raw(site: &Site, dialect: &str, path: &[u8], cookie: &str) -> Page {
    let (name, value) = match dialect {
        "nginx" => ("x-original-url", [b"https://app.test", path].concat()),
        _ => ("x-forwarded-uri", path.to_vec()),
    };
    let mut request = Check::of(dialect).request(cookie);
    request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_bytes(&value).unwrap());
    site.send("10.0.0.1", request).await
}

/// Signs ada in from the address to which the check redirects a visitor, and returns the final address.
async fn sign_in_from(site: &Site, start: &str) -> String {
    let path = |location: String| {
        let url = url::Url::parse(&location).unwrap();
        format!("{}?{}", url.path(), url.query().unwrap())
    };
    let (mut on_app, mut at_home) = (Browser::default(), Browser::default());
    let page = site.get(&mut on_app, start).await;
    let page = site.sign_in_at(&mut at_home, &page.location(), "ada", PASSWORD).await;
    site.get(&mut on_app, &path(page.location())).await.location()
}

/// Paths of message brokers, package registries, code forges and object stores.
const EVERYDAY: [&str; 8] = [
    "/api/queues/%2F/orders",
    "/@team%2fwidget",
    "/files/a%5Cb",
    "/100%",
    "//double//slash",
    "/a;v=1/b?c=%",
    "/search?q=a\\b",
    "/page?next=/../x",
];

#[tokio::test]
async fn a_path_with_two_readings_passes_where_no_rule_looks_at_it_and_is_come_back_to() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    for dialect in ["traefik", "nginx"] {
        for path in EVERYDAY {
            let page = check_raw(&site, dialect, path.as_bytes(), &cookie).await;
            assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text);
            let denied = check_raw(&site, dialect, path.as_bytes(), "").await;
            let start = denied.location();
            let back = sign_in_from(&site, start.strip_prefix("https://app.test").unwrap()).await;
            assert_eq!(back, format!("https://app.test{path}"));
        }
        // Raw bytes outside ASCII come back as a browser sends them after a redirect.
        for (raw, encoded) in
            [("/page?q=ä".as_bytes(), "/page?q=%C3%A4"), (b"/p\xe4ge", "/p%E4ge"), (b"/a\\b", "/a%5Cb")]
        {
            assert_eq!(check_raw(&site, dialect, raw, &cookie).await.status, StatusCode::OK);
            let start = check_raw(&site, dialect, raw, "").await.location();
            let back = sign_in_from(&site, start.strip_prefix("https://app.test").unwrap()).await;
            assert_eq!(back, format!("https://app.test{encoded}"));
        }
    }
}

#[tokio::test]
async fn a_path_with_two_readings_is_denied_where_a_rule_looks_at_it() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    policy(
        &site,
        "[[row]]\neffect = \"deny\"\nrequest = { path = [\"/admin/*\"] }\n[[row]]\neffect = \"allow\"\ngroup = \"staff\"\n\
         [[public]]\npath = [\"/public/*\"]\n",
    )
    .await;
    for path in
        ["/api/queues/%2F/orders", "/100%", "/a%5Cb", "//double", "/a\\b", "/%61dmin/x", "/x%2f..%2fadmin/y"]
    {
        let page = check_raw(&site, "caddy", path.as_bytes(), &cookie).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{path}");
    }
    for path in [
        "/public%2fa",
        "/public/..%2fadmin",
        "/public\\a",
        "//public/a",
        "/public/%",
        "/public/%zz",
        "/public/\u{e4}%2f",
    ] {
        let page = check_raw(&site, "caddy", path.as_bytes(), "").await;
        assert_eq!(page.status, StatusCode::FOUND, "{path} is not public");
    }
    assert_eq!(
        check_raw(&site, "caddy", "/public/\u{e4}?x=%2f\\".as_bytes(), "").await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_header_that_asks_for_another_method_puts_the_method_in_doubt() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    policy(
        &site,
        "[[row]]\neffect = \"deny\"\nrequest = { method = [\"DELETE\"] }\n[[row]]\neffect = \"allow\"\ngroup = \"staff\"\n\
         [[public]]\npath = [\"/public/*\"]\n[[public]]\npath = [\"/hooks/*\"]\nmethod = [\"POST\"]\n",
    )
    .await;
    let public = |method: &str, path: &str| {
        Check::of("traefik").set("x-forwarded-uri", path).set("x-forwarded-method", method)
    };
    assert_eq!(public("GET", "/public/a").send(&site, "").await.status, StatusCode::OK);
    assert_eq!(public("POST", "/hooks/a").send(&site, "").await.status, StatusCode::OK);
    assert_eq!(public("GET", "/page").send(&site, &cookie).await.status, StatusCode::OK);
    for name in [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
        "x_http_method_override",
        "x.http.method",
        "x-method_override",
    ] {
        for (method, path) in [("GET", "/public/a"), ("POST", "/hooks/a")] {
            let page = public(method, path).add(name, "DELETE").send(&site, "").await;
            assert!(matches!(page.status.as_u16(), 302 | 401), "{name}: {}", page.status);
        }
        let page = public("GET", "/page").add(name, "DELETE").send(&site, &cookie).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN, "{name}");
    }
    // If no rule reads the method, the header is the application's concern.
    policy(&site, "[[row]]\neffect = \"allow\"\ngroup = \"staff\"\n").await;
    let page = public("GET", "/page").add("x-http-method-override", "PATCH").send(&site, &cookie).await;
    assert_eq!(page.status, StatusCode::OK);
}

#[tokio::test]
async fn every_spelling_of_a_host_is_one_origin() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    update(&site, |command| {
        command.check = Some(CheckRules { bearer: true, assertion: true, ..Default::default() });
        command.hosts = Some(Hosts {
            hosts: vec!["app.test".into(), "xn--bcher-kva.test".into()],
            address_hosts: vec!["[2001:db8::7]".into()],
        });
    })
    .await;
    let resources = Uris { uris: vec!["https://app.test".into(), "https://app.test:443/".into()] };
    site.change("web", |client| client.resources = Some(resources)).await;
    let audience = |assertion: &str| {
        use base64::Engine as _;
        let body = assertion.split('.').nth(1).unwrap();
        let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(body).unwrap();
        serde_json::from_slice::<serde_json::Value>(&json).unwrap()["aud"].as_str().unwrap().to_owned()
    };
    for host in ["app.test", "app.test:443", "APP.Test", "app.test.", "App.test.:443"] {
        let page = Check::of("traefik").set("x-forwarded-host", host).send(&site, &cookie).await;
        assert_eq!(page.status, StatusCode::OK, "{host}: {}", page.text);
        let assertion = page.headers["x-conclave-assertion"].to_str().unwrap();
        assert_eq!(audience(assertion), "https://app.test", "{host}");
        let denied = Check::of("traefik").set("x-forwarded-host", host).send(&site, "").await;
        assert!(denied.location().starts_with("https://app.test/.conclave/start?"), "{}", denied.location());
    }
    for resource in ["https://app.test", "https://app.test:443/"] {
        let code = site.code("web", &[("resource", resource)]).await;
        let token = site.redeem("web", &code).await.json()["access_token"].as_str().unwrap().to_owned();
        for host in ["app.test", "app.test:443"] {
            let check = Check::of("traefik").set("accept", "*/*").set("x-forwarded-host", host);
            let page = check.set("authorization", &format!("Bearer {token}")).send(&site, "").await;
            assert_eq!(page.status, StatusCode::OK, "{resource} at {host}");
        }
    }
    for (host, origin) in [
        ("[2001:DB8:0::7]", "https://[2001:db8::7]"),
        ("[2001:db8::7]:443", "https://[2001:db8::7]"),
        ("[2001:db8::7]:8443", "https://[2001:db8::7]:8443"),
        ("xn--bcher-kva.test", "https://xn--bcher-kva.test"),
    ] {
        let denied = Check::of("traefik").set("x-forwarded-host", host).send(&site, "").await;
        let start = denied.location();
        let start = start.strip_prefix(origin).unwrap_or_else(|| panic!("{start} is not at {origin}"));
        assert_eq!(sign_in_from(&site, start).await, format!("{origin}/page?q=1"));
    }
    let mut request = Check::of("traefik").request("");
    request
        .headers_mut()
        .insert("x-forwarded-host", HeaderValue::from_bytes("bücher.test".as_bytes()).unwrap());
    let denied = site.send("10.0.0.1", request).await;
    assert!(denied.location().starts_with("https://xn--bcher-kva.test/"), "{}", denied.location());
}

#[tokio::test]
async fn the_way_back_of_an_nginx_that_was_set_up_for_authentik_is_exact() {
    let site = Site::open().await;
    for (rd, back) in [
        (
            "https://app.test/d/abc?orgId=1&from=now-6h&to=now",
            "https://app.test/d/abc?orgId=1&from=now-6h&to=now",
        ),
        ("https://app.test/?q=a%26b&x=1", "https://app.test/?q=a%26b&x=1"),
        ("https://app.test/?q=a+b", "https://app.test/?q=a+b"),
        (
            "https://app.test/?q=%C3%A4&rd=https://evil.test/",
            "https://app.test/?q=%C3%A4&rd=https://evil.test/",
        ),
        ("https%3A%2F%2Fapp.test%2F%3Fq%3Da%2526b%26x%3D1&other=1", "https://app.test/?q=a%26b&x=1"),
        ("https%3A%2F%2Fapp.test%3A443%2F%3Fq%3Da+b", "https://app.test/?q=a+b"),
    ] {
        let start = format!("/outpost.goauthentik.io/start?rd={rd}");
        assert_eq!(sign_in_from(&site, &start).await, back, "{rd}");
    }
    for elsewhere in
        ["https://evil.test/?x=https://app.test/", "https%3A%2F%2Fevil.test%2F", "/page", "javascript:x", ""]
    {
        let page =
            site.get(&mut Browser::default(), &format!("/outpost.goauthentik.io/start?rd={elsewhere}")).await;
        assert!(page.headers.get("location").is_none() && page.status.is_client_error(), "{elsewhere}");
    }
}

#[tokio::test]
async fn a_registered_host_at_another_port_is_told_where_it_is_registered() {
    crate::cluster::logs::listen();
    let node = TestNode::start_with(|settings| {
        settings.public_url = serde_json::from_value("https://login.test".into()).unwrap();
    })
    .await;
    let site = Site::of(node);
    site.seed().await;
    let at = |host: &str| Check::of("traefik").set("x-forwarded-host", host);
    let page = at("app.test:8443").send(&site, "").await;
    assert_eq!(
        (page.status, page.shown("error-code").as_str()),
        (StatusCode::FORBIDDEN, "unknown_application")
    );
    let detail = page.shown("error-detail").replace("&#x2f;", "/");
    assert!(detail.contains("https://app.test/") && detail.contains("https://app.test:8443/"), "{detail}");
    crate::cluster::logs::heard(&[&page.shown("request-id"), "launch URL", "https://app.test:8443"]).await;
    assert_eq!(at("app.test:443").send(&site, "").await.status, StatusCode::FOUND);
    let unknown = at("else.test").send(&site, "").await;
    crate::cluster::logs::heard(&[&unknown.shown("request-id"), "else.test"]).await;
    update(&site, |command| command.launch_url = Some("https://app.test:8443/start".into())).await;
    assert_eq!(at("app.test:8443").send(&site, "").await.status, StatusCode::FOUND);
}
