use std::fs;

use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::Pages;
use crate::views::{
    AtmosphereView, ConnectedClient, ConsentView, ContinueView, DeviceDoneView, DeviceView, ErrorView,
    ForbiddenView, Form, FormPostView, HiddenField, HomeView, LinkedProvider, LoginView, LogoutView,
    PageLink, ProviderLink, RecoverView, ScopeLine, SignedOutView,
};

const HOSTILE: &str = "\"><script>alert('x')</script>";

fn form(text: &str) -> Form {
    let hidden = vec![HiddenField { name: text.into(), value: text.into() }];
    Form { action: text.into(), csrf: text.into(), hidden }
}

fn link(text: &str) -> PageLink {
    PageLink { url: text.into(), label: text.into() }
}

fn login(text: &str) -> LoginView {
    LoginView {
        form: form(text),
        application: Some(text.into()),
        username: text.into(),
        error: Some(text.into()),
        providers: vec![ProviderLink { name: text.into(), label: text.into(), url: text.into() }],
        back: Some(link(text)),
    }
}

/// Every page, with `text` in every field that takes one.
fn every_page(pages: &Pages, text: &str) -> Vec<String> {
    let scope = ScopeLine { name: text.into(), text: text.into() };
    let text = || text.to_owned();
    vec![
        pages.render(&login(&text())),
        pages.render(&ConsentView {
            form: form(&text()),
            application: text(),
            username: text(),
            scopes: vec![scope.clone()],
            destination: text(),
            user_code: text(),
            note: Some(text()),
        }),
        pages.render(&ContinueView { next: text() }),
        pages.render(&DeviceView {
            form: form(&text()),
            user_code: text(),
            username: text(),
            error: Some(text()),
        }),
        pages.render(&RecoverView { form: form(&text()), username: text(), error: Some(text()) }),
        pages.render(&DeviceDoneView { outcome: "allowed", title: text(), detail: text() }),
        pages.render(&LogoutView { form: form(&text()), username: text(), back: Some(link(&text())) }),
        pages.render(&SignedOutView {
            sign_in_url: text(),
            frames: vec![text()],
            next: Some(text()),
            back: Some(link(&text())),
        }),
        pages.render(&HomeView {
            form: form(&text()),
            username: text(),
            display_name: Some(text()),
            picture: None,
            initial: text(),
            applications: vec![link(&text())],
            connections: vec![ConnectedClient {
                client_id: text(),
                name: text(),
                scopes: vec![scope.clone()],
            }],
            disconnect: form(&text()),
            providers: [Some(text()), None]
                .map(|identity| LinkedProvider { name: text(), label: text(), identity, url: text() })
                .to_vec(),
            unlink: form(&text()),
        }),
        pages.render(&AtmosphereView {
            form: form(&text()),
            handle: text(),
            error: Some(text()),
            code: text(),
            linking: false,
        }),
        pages.render(&ForbiddenView {
            username: text(),
            application: text(),
            groups: vec![text(), text()],
            sign_out_url: Some(text()),
            decision_id: Some("1-0123456789abcdef".into()),
            request_id: text(),
            back: Some(link(&text())),
        }),
        pages.render(&ErrorView {
            title: text(),
            detail: text(),
            what_to_do: Some(text()),
            code: text(),
            request_id: text(),
            back: Some(link(&text())),
        }),
    ]
}

#[test]
fn every_page_escapes_everything_and_needs_no_script_and_no_inline_style() {
    for page in every_page(&Pages::new(None), HOSTILE) {
        assert!(page.starts_with("<!doctype html>") && page.contains("&lt;script&gt;"), "{page}");
        for forbidden in ["<script", "style=", " onclick", "<style", "javascript:"] {
            assert!(!page.contains(forbidden), "{forbidden} in {page}");
        }
    }
}

#[test]
fn empty_views_render_too() {
    let pages = Pages::new(None);
    for page in [
        pages.render(&LoginView::default()),
        pages.render(&ConsentView::default()),
        pages.render(&LogoutView::default()),
        pages.render(&SignedOutView::default()),
        pages.render(&FormPostView::default()),
        pages.render(&DeviceView::default()),
        pages.render(&DeviceDoneView::default()),
        pages.render(&HomeView::default()),
        pages.render(&ForbiddenView::default()),
        pages.render(&ErrorView::default()),
    ] {
        assert!(page.contains("</html>"), "{page}");
    }
}

#[test]
fn the_login_form_is_what_password_managers_and_tests_look_for() {
    let page = Pages::new(None).render(&LoginView { error: Some("Wrong.".into()), ..login("x") });
    for part in [
        r#"<form id="login-form" method="post""#,
        r#"id="csrf" name="csrf""#,
        r#"<label for="username">"#,
        r#"<label for="password">"#,
        r#"autocomplete="username""#,
        r#"autocomplete="current-password""#,
        r#"<button id="submit" type="submit">"#,
        r#"id="error" role="alert">Wrong.</p>"#,
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
}

#[test]
fn a_page_without_access_says_who_and_what() {
    let page = Pages::new(None).render(&ForbiddenView {
        username: "ada".into(),
        application: "Grafana".into(),
        request_id: "r1".into(),
        decision_id: Some("1-0123456789abcdef".into()),
        ..ForbiddenView::default()
    });
    assert!(page.contains(r#"<strong id="account">ada</strong>, which does not have access to <strong id="application">Grafana<"#));
    assert!(page.contains(r#"id="decision-id">1-0123456789abcdef<"#));
    assert!(page.contains(r#"id="error-code">forbidden<"#) && page.contains(r#"id="request-id">r1<"#));
}

#[test]
fn a_file_of_the_operator_wins_and_a_broken_one_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let replaced = |name: &str, source: &str| fs::write(dir.path().join(name), source).unwrap();
    replaced("login.html", "<p>Ours: {{ username }}</p>");
    replaced("logout.html", "{% if %}");
    replaced("home.html", "{{ no_such_thing }}");
    fs::write(dir.path().join("error.html"), [0xff, 0xfe]).unwrap();
    let pages = Pages::new(Some(dir.path()));
    assert_eq!(pages.render(&login("<ada>")), "<p>Ours: &lt;ada&gt;</p>");
    assert!(pages.render(&LogoutView::default()).contains("Sign out?"), "does not compile");
    assert!(pages.render(&HomeView::default()).contains("You are signed in as"), "fails when drawn");
    assert!(pages.render(&ErrorView::default()).contains("error-code"), "cannot be read");
}

async fn asset(pages: &Pages, url: &str) -> (String, String, String) {
    let request = Request::get(url).body(Body::empty()).unwrap();
    let (parts, body) = pages.assets().routes().oneshot(request).await.unwrap().into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let header = |name: &str| parts.headers[name].to_str().unwrap().to_owned();
    (header("content-type"), header("cache-control"), text)
}

#[tokio::test]
async fn assets_are_kept_for_ever_under_their_digest_and_no_longer_otherwise() {
    let pages = Pages::new(None);
    let css = pages.assets().urls().css.clone();
    let (_, digest) = css.split_once("?v=").unwrap();
    assert!(pages.render(&LoginView::default()).contains(digest));
    let (kind, cache, text) = asset(&pages, &css).await;
    assert_eq!((kind.as_str(), cache.contains("immutable")), ("text/css; charset=utf-8", true));
    assert!(text.contains("prefers-color-scheme: dark"));
    for other in ["/.conclave/assets/conclave.css", "/.conclave/assets/conclave.css?v=old"] {
        assert!(!asset(&pages, other).await.1.contains("immutable"), "{other}");
    }
    assert_eq!(asset(&pages, &pages.assets().urls().logo).await.0, "image/svg+xml");
}

#[tokio::test]
async fn a_stylesheet_of_the_operator_has_a_url_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("conclave.css"), "body { color: teal }").unwrap();
    let (built_in, own) = (Pages::new(None), Pages::new(Some(dir.path())));
    assert_ne!(own.assets().urls().css, built_in.assets().urls().css);
    assert_eq!(asset(&own, &own.assets().urls().css).await.2, "body { color: teal }");
}

/// Checks the contrast of the stylesheet's own colours (WCAG 2.1 §1.4.3), light and dark.
#[test]
fn text_stands_out_from_its_ground() {
    let css = include_str!("../assets/conclave.css");
    let (light, dark) = css.split_once("@media (prefers-color-scheme: dark)").unwrap();
    let pairs = [
        ("text", "ground"),
        ("text", "card"),
        ("text", "ground-far"),
        ("soft", "card"),
        ("accent", "card"),
        ("accent", "ground"),
        ("on-accent", "accent"),
        ("on-accent", "accent-strong"),
        ("alert", "alert-ground"),
        ("text", "field"),
    ];
    for (name, theme) in [("light", light), ("dark", dark)] {
        for (text, ground) in pairs {
            let ratio = contrast(colour(theme, text), colour(theme, ground));
            assert!(ratio >= 4.5, "{name}: {text} on {ground} has {ratio:.2}");
        }
        let edge = contrast(colour(theme, "field-edge"), colour(theme, "card"));
        assert!(edge >= 3.0, "{name}: the edge of a field has {edge:.2} (WCAG 1.4.11)");
    }
}

fn colour(theme: &str, name: &str) -> [f64; 3] {
    let (_, rest) = theme.split_once(&format!("--{name}: #")).unwrap();
    let channel = |at: usize| f64::from(u8::from_str_radix(&rest[at..at + 2], 16).unwrap()) / 255.0;
    [channel(0), channel(2), channel(4)]
}

fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
    let linear = |c: f64| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
    let luminance = |[r, g, b]: [f64; 3]| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}
