//! Tests of the doctor against proxies with one injected fault each.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderMap, Response},
};

use super::{examine, findings::Finding};

const NOW_MS: u64 = 1_800_000_000_000;
const DATE: &str = "Fri, 15 Jan 2027 08:00:00 GMT";

type Answer = Response<Body>;
/// The response of a faulty server; `None` for requests that it answers correctly.
type Fault = fn(&str, &str, &HeaderMap) -> Option<Answer>;

fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
    let built = Response::builder().status(status).header("date", DATE);
    let built = headers.iter().fold(built, |built, (name, value)| built.header(*name, *value));
    built.body(Body::from(body.to_owned())).unwrap()
}

fn page(code: &str) -> String {
    format!("<dd id=\"error-code\">{code}</dd>")
}

/// An application, its proxy and the sign-in, all at one address, without faults.
fn sound(origin: &str, path: &str, headers: &HeaderMap) -> Answer {
    match path {
        "/" if headers.contains_key("x-requested-with") => answer(401, &[], ""),
        "/" => answer(302, &[("location", &format!("{origin}/.conclave/start?ticket=t"))], ""),
        "/.conclave/start" => {
            let cookie = "conclave_app_browser=x; Path=/; HttpOnly; SameSite=Lax";
            answer(303, &[("location", &format!("{origin}/login?ticket=t")), ("set-cookie", cookie)], "")
        }
        "/login" => answer(200, &[], "sign in"),
        "/.well-known/openid-configuration" => answer(200, &[], &format!("{{\"issuer\":\"{origin}\"}}")),
        _ => answer(404, &[], ""),
    }
}

async fn found(fault: Fault) -> Vec<Finding> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin: Arc<str> = format!("http://{}", listener.local_addr().unwrap()).into();
    let url = format!("{origin}/").parse().unwrap();
    let router = axum::Router::new().fallback(async move |uri: axum::http::Uri, headers: HeaderMap| {
        fault(&origin, uri.path(), &headers).unwrap_or_else(|| sound(&origin, uri.path(), &headers))
    });
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let found = examine::application(&url, NOW_MS).await;
    serving.abort();
    found
}

#[tokio::test]
async fn each_fault_is_named_and_a_sound_one_has_none() {
    let faults: [(&str, Fault); 17] = [
        ("", |_, _, _| None),
        ("not_protected", |_, path, _| (path == "/").then(|| answer(200, &[], "the application"))),
        ("unknown_host", |_, path, _| (path == "/").then(|| answer(403, &[], &page("unknown_application")))),
        ("bad_check", |_, path, _| (path == "/").then(|| answer(403, &[], &page("bad_check")))),
        ("check_failed", |_, path, _| (path == "/").then(|| answer(500, &[], ""))),
        ("loop", |origin, path, _| {
            (path == "/login").then(|| answer(303, &[("location", &format!("{origin}/"))], ""))
        }),
        ("loop", |_, path, _| (path == "/login").then(|| answer(400, &[], &page("sign_in_loop")))),
        ("own_path", |_, path, _| (path == "/.conclave/start").then(|| answer(404, &[], ""))),
        ("cookie_dropped", |origin, path, _| {
            let location = format!("{origin}/login?ticket=t");
            (path == "/.conclave/start").then(|| answer(303, &[("location", &location)], ""))
        }),
        ("cookie_secure", |origin, path, _| {
            let location = format!("{origin}/login?ticket=t");
            let cookie = "__Host-conclave_app_browser=x; Path=/; Secure";
            (path == "/.conclave/start")
                .then(|| answer(303, &[("location", &location), ("set-cookie", cookie)], ""))
        }),
        ("cookie_domain", |origin, path, _| {
            let location = format!("{origin}/login?ticket=t");
            let cookie = "conclave_app_browser=x; Path=/; Domain=example.org";
            (path == "/.conclave/start")
                .then(|| answer(303, &[("location", &location), ("set-cookie", cookie)], ""))
        }),
        ("issuer", |_, path, _| {
            (path == "/.well-known/openid-configuration")
                .then(|| answer(200, &[], "{\"issuer\":\"https://id.example.org\"}"))
        }),
        ("not_conclave", |_, path, _| {
            (path == "/.well-known/openid-configuration").then(|| answer(404, &[], ""))
        }),
        ("clock", |origin, path, _| {
            let location = format!("{origin}/.conclave/start?ticket=t");
            let mut late = answer(302, &[("location", &location)], "");
            late.headers_mut().insert("date", "Fri, 15 Jan 2027 08:02:00 GMT".parse().unwrap());
            (path == "/").then_some(late)
        }),
        ("forged_header", |_, path, headers| {
            (path == "/" && headers.contains_key("x-forwarded-uri")).then(|| answer(200, &[], "public"))
        }),
        ("check_exposed", |_, path, _| (path == "/auth/nginx").then(|| answer(403, &[], &page("bad_check")))),
        ("xhr_redirected", |origin, path, _| {
            let location = format!("{origin}/.conclave/start?ticket=t");
            (path == "/").then(|| answer(302, &[("location", &location)], ""))
        }),
    ];
    for (code, fault) in faults {
        let found = found(fault).await;
        let codes: Vec<&str> = found.iter().map(|finding| finding.code).collect();
        if code.is_empty() {
            assert!(codes.is_empty(), "{found:?}");
        } else {
            assert!(codes.contains(&code), "{code} is not among {found:?}");
            assert!(
                found.iter().all(|finding| !finding.change.is_empty() && !finding.what.contains("ticket="))
            );
        }
    }
}

#[tokio::test]
async fn other_schemes_other_hosts_and_nobody_at_all() {
    let scheme = found(|_, path, _| {
        let location = "https://127.0.0.1:1/.conclave/start?ticket=t";
        (path == "/").then(|| answer(302, &[("location", location)], ""))
    });
    let codes: Vec<&str> = scheme.await.iter().map(|finding| finding.code).collect();
    assert!(codes.contains(&"scheme") && codes.contains(&"unreachable"), "{codes:?}");
    let host = found(|_, path, _| {
        let location = "http://localhost:1/.conclave/start?ticket=t";
        (path == "/").then(|| answer(302, &[("location", location)], ""))
    });
    assert!(host.await.iter().any(|finding| finding.code == "other_host"));
    let nobody = examine::application(&"http://127.0.0.1:1/".parse().unwrap(), NOW_MS).await;
    assert_eq!(nobody.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["unreachable"]);
}

#[tokio::test]
async fn who_the_cluster_is_on_the_atmosphere_is_looked_at_as_account_servers_do() {
    use axum::{Json, Router, http::StatusCode, response::Redirect, routing::get};
    use serde_json::json;

    let keys = json!({"keys": [{"kty": "EC"}]});
    for (fault, wanted) in [
        ("", vec![]),
        ("client", vec!["atmosphere_other_client"]),
        ("keys", vec!["atmosphere_no_keys"]),
        ("redirect", vec!["atmosphere_status"]),
        ("page", vec!["atmosphere_status"]),
        ("gone", vec!["atmosphere_status"]),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let client_id = if fault == "client" { "https://other.example.org/x" } else { &origin };
        let client_id = client_id.replace(&origin, &format!("{origin}/oauth-client-metadata.json"));
        let document = json!({"client_id": client_id, "jwks_uri": format!("{origin}/keys")});
        let served = if fault == "keys" { json!({"keys": []}) } else { keys.clone() };
        let router = Router::new().route("/keys", get(async move || Json(served)));
        let router = match fault {
            "redirect" => router.route("/oauth-client-metadata.json", get(async || Redirect::to("/login"))),
            "page" => router.route("/oauth-client-metadata.json", get(async || "sign in first")),
            "gone" => router.route("/oauth-client-metadata.json", get(async || StatusCode::NOT_FOUND)),
            _ => router.route("/oauth-client-metadata.json", get(async move || Json(document))),
        };
        tokio::spawn(async move { axum::serve(listener, router).await });
        let found = super::atmosphere::cluster(&origin.parse().unwrap()).await;
        let codes: Vec<&str> = found.iter().map(|finding| finding.code).collect();
        // No address of this machine is one that account servers accept.
        assert_eq!(codes, [vec!["atmosphere_address"], wanted].concat(), "{fault}: {found:?}");
    }
}
