//! Cookies that other programs set lock no user out: only our cookies are judged, wherever cookies are read.

use axum::body::Body;
use http::{HeaderValue, Request, StatusCode};

use super::{
    forward_auth::{Check, cookie_of},
    site::{Browser, PASSWORD, Page, Site},
};

/// Cookies of other programs as seen in the field: text outside ASCII in two encodings, broken pairs, and more bytes
/// than a browser usually keeps for a host.
fn foreign() -> Vec<Vec<u8>> {
    vec![
        "nick=Jürgen".as_bytes().to_vec(),
        b"nick=J\xfcrgen".to_vec(),
        b"=; ;; \xff\xfe; x".to_vec(),
        format!("a={}", "x".repeat(20 * 1024)).into_bytes(),
    ]
}

/// Our cookie among those of other programs: before them, behind them, and in a separate header line.
fn mixtures(ours: &str) -> Vec<Vec<HeaderValue>> {
    let value = |bytes: Vec<u8>| HeaderValue::from_bytes(&bytes).unwrap();
    let join = |a: &[u8], b: &[u8]| value([a, b"; ", b].concat());
    let of = |other: Vec<u8>| {
        let apart = vec![value(other.clone()), value(ours.as_bytes().to_vec())];
        [vec![join(&other, ours.as_bytes())], vec![join(ours.as_bytes(), &other)], apart]
    };
    foreign().into_iter().flat_map(of).collect()
}

async fn send(site: &Site, mut request: Request<Body>, from: &str, lines: &[HeaderValue]) -> Page {
    request.headers_mut().remove("cookie");
    for line in lines {
        request.headers_mut().append("cookie", line.clone());
    }
    site.send(from, request).await
}

#[tokio::test]
async fn a_check_passes_over_the_cookies_of_others() {
    let site = Site::open().await;
    let cookie = cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    for dialect in ["traefik", "caddy", "nginx", "haproxy", "envoy"] {
        for lines in mixtures(&cookie) {
            let page = send(&site, Check::of(dialect).request(""), "10.0.0.1", &lines).await;
            assert_eq!(page.status, StatusCode::OK, "{dialect}: {lines:?}");
        }
    }
    // Doubt about our own cookie still denies.
    for ours in ["__Host-conclave_app=J\u{fc}rgen", &format!("__Host-conclave_app={}", "x".repeat(5 * 1024))]
    {
        let page = Check::of("caddy").send(&site, ours).await;
        assert_eq!(page.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn every_page_that_reads_cookies_passes_over_those_of_others() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/login", "ada", PASSWORD).await;
    let paths = ["/", "/login", "/logout", "/device", &Site::authorize_url("web", &[])];
    for path in paths {
        let before = site.get(&mut browser, path).await.status;
        for lines in mixtures(&browser.header()) {
            let request = Request::get(path).header("accept", "text/html").body(Body::empty()).unwrap();
            let page = send(&site, request, "192.0.2.1", &lines).await;
            assert_eq!(page.status, before, "{path}: {}", page.text);
        }
    }
}
