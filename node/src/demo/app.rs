//! The demo's application: it trusts the identity headers and shows them, as many applications do.

use std::fmt::Write as _;

use axum::{
    Router,
    http::{HeaderMap, Uri},
    response::Html,
};

pub(super) fn router() -> Router {
    Router::new().fallback(show)
}

async fn show(uri: Uri, headers: HeaderMap) -> Html<String> {
    let mut rows = String::new();
    for name in conclave_forward_auth::IDENTITY_HEADERS {
        let value = headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let value = escaped(&value.unwrap_or_default());
        // Writing to a String cannot fail.
        let _ = write!(rows, "<tr><th>{name}</th><td>{value}</td></tr>");
    }
    let user = headers.get("remote-user").and_then(|value| value.to_str().ok()).unwrap_or_default();
    Html(format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Demo application</title>\
         <style>body{{font:16px/1.6 system-ui;max-width:46rem;margin:3rem auto;padding:0 1rem}}:root{{color-scheme:light dark}}\
         th{{text-align:left;font-weight:500;padding-right:1.5rem}}td{{font-family:ui-monospace,monospace}}</style>\
         <h1 id=hello>Hello, {}</h1><p>You asked for <code id=path>{}</code>. This page is an application that knows nothing of \
         passwords: the proxy asked the cluster, and these headers came with your request.</p><table>{rows}</table>\
         <p><a id=sign-out href=\"/.conclave/sign-out\">Sign out</a></p>",
        escaped(user),
        escaped(&uri.to_string()),
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
