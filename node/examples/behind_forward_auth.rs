//! A small application behind forward-auth: it knows nothing of passwords, and trusts the identity headers that its
//! proxy sets after a check with Conclave.
//!
//! ```sh
//! cargo run -p conclave-node --example behind_forward_auth -- 127.0.0.1:9096
//! ```
//!
//! Set the proxy's file from `deploy/proxies` so that the application's host leads to this address, and create the
//! application: `conclave app create example --host HOST --group staff`. The application must be reachable through the
//! proxy alone: any program that reaches it directly can write the headers itself.

use std::net::SocketAddr;

use axum::{Router, http::HeaderMap, response::Html, routing::get};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Some(listen) = std::env::args().nth(1) else {
        anyhow::bail!("usage: behind_forward_auth LISTEN");
    };
    let listener = tokio::net::TcpListener::bind(listen.parse::<SocketAddr>()?).await?;
    println!("listening on http://{}/", listener.local_addr()?);
    axum::serve(listener, Router::new().route("/", get(hello))).await?;
    Ok(())
}

/// Greets the user. A request without the headers did not come through the proxy.
async fn hello(headers: HeaderMap) -> Html<String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(escaped);
    let Some(user) = header("remote-user") else {
        return Html("<p id=hello>You did not come through the proxy.</p>".into());
    };
    let groups = header("remote-groups").unwrap_or_default();
    Html(format!("<p id=hello>Hello, {user}. Your groups: {groups}.</p>"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
