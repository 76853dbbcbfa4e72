//! Relying parties by other authors: openid-client (npm) and Authlib (PyPI), each against the front of a real cluster,
//! which sends every request to the next node. `make test` installs them beside `tests/relying_parties/`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use axum::{
    Router,
    http::header,
    response::{Html, IntoResponse as _},
    routing::get,
};
use serde_json::{Value, json};

use super::{chromium::Chromium, world::Demo};

/// The longest wait for the output of an application in a browser.
const LIMIT: Duration = Duration::from_secs(30);

const REDIRECT_URI: &str = "http://127.0.0.1:1/callback";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/relying_parties")
}

/// Runs a program to its end, and reads its last line as JSON.
fn run(command: &mut Command) -> Value {
    let output =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; `make test` installs it"));
    let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{out}\n{said}");
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}\n{said}"))
}

fn create_client(demo: &Demo, id: &str, options: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conclave"));
    command.args(["client", "create", "--id", id, "-o", "json"]).args(options);
    command.env("CONCLAVE_API", &demo.cluster.nodes[0].api).env("CONCLAVE_TOKEN", &demo.cluster.admin.token);
    run(&mut command)
}

const PEOPLE: &[&str] = &[
    "--redirect-uri",
    REDIRECT_URI,
    "--consent",
    "implicit",
    "--scope",
    "openid",
    "--scope",
    "profile",
    "--scope",
    "email",
    "--scope",
    "offline_access",
];

/// The configuration for the parties.
fn told(demo: &Demo) -> Value {
    let key = run(Command::new("node").arg(folder().join("key.mjs")));
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), key["jwks"].to_string()).unwrap();
    let keys = keys.path().display().to_string();
    let with =
        |more: &[&str]| [PEOPLE, more].concat().iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let made = |id: &str, options: Vec<String>| {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        create_client(demo, id, &options)["client_secret"].clone()
    };
    let basic = made("basic", with(&[]));
    let post = made("post", with(&["--auth-method", "client_secret_post"]));
    made(
        "bound",
        with(&[
            "--auth-method",
            "private_key_jwt",
            "--jwks-file",
            &keys,
            "--assertion-algorithm",
            "ES256",
            "--dpop-bound",
            "true",
        ]),
    );
    let machine =
        ["--auth-method", "client_secret_post", "--grant-type", "client_credentials", "--scope", "reports"];
    let machine = made("machine", machine.map(str::to_owned).to_vec());
    let device = "urn:ietf:params:oauth:grant-type:device_code";
    made("device", with(&["--auth-method", "none", "--grant-type", device]));
    json!({
        "issuer": demo.cluster.issuer,
        "username": demo.cluster.admin.username,
        "password": demo.cluster.admin.password,
        "redirectUri": REDIRECT_URI,
        "clients": {
            "basic": { "id": "basic", "secret": basic },
            "post": { "id": "post", "secret": post },
            "bound": { "id": "bound", "jwk": key["jwk"] },
            "machine": { "id": "machine", "secret": machine },
            "device": { "id": "device" },
        },
    })
}

#[tokio::test]
async fn relying_parties_of_others_are_served_by_every_node() {
    let demo = Demo::start(&[]);
    demo.all_ready().await;
    let told = told(&demo).to_string();

    let seen = run(Command::new("node").arg(folder().join("openid_client.mjs")).arg(&told));
    assert_eq!(seen, json!(["codeRefreshIntrospectRevoke", "boundToAKey", "machine", "pushed", "device"]));

    let seen =
        run(Command::new(folder().join("venv/bin/python")).arg(folder().join("authlib_rp.py")).arg(&told));
    assert_eq!(seen, json!(["client_secret_basic", "client_secret_post"]));
}

#[tokio::test]
async fn the_end_of_a_session_at_another_node_reaches_a_client_that_verifies_it_itself() {
    let demo = Demo::start_with(&[], &[("CONCLAVE_OUTBOUND__ALLOW", "127.0.0.1")]);
    demo.all_ready().await;
    let port = demo.own_port(0);
    let uri = format!("http://127.0.0.1:{port}/logout");
    let options = [PEOPLE, &["--backchannel-logout-uri", &uri]].concat();
    let made = create_client(&demo, "told", &options);
    let told = json!({
        "issuer": demo.cluster.issuer,
        "username": demo.cluster.admin.username,
        "password": demo.cluster.admin.password,
        "redirectUri": REDIRECT_URI,
        "port": port,
        "client": { "id": "told", "secret": made["client_secret"] },
        "end": [env!("CARGO_BIN_EXE_conclave"), "session", "revoke", "--user", demo.cluster.admin.username],
        "env": { "CONCLAVE_API": demo.cluster.nodes[2].api, "CONCLAVE_TOKEN": demo.cluster.admin.token },
    });
    let seen = run(Command::new("node").arg(folder().join("back_channel.mjs")).arg(told.to_string()));
    assert_eq!(seen, json!({ "toldAgain": true, "sameSession": true }));
}

/// Serves the application that runs in the browser; returns its origin.
async fn serve_application(issuer: &str) -> String {
    let read =
        |path: &str| std::fs::read_to_string(folder().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let script =
        |text: String| get(async move || ([(header::CONTENT_TYPE, "text/javascript")], text).into_response());
    let page = read("spa.html");
    let page = get(async move || Html(page));
    let settings = json!({ "issuer": issuer, "client": "spa" });
    let router = Router::new()
        .route("/", page.clone())
        .route("/bye", page)
        .route("/spa.js", script(read("spa.js")))
        .route(
            "/oidc-client-ts.js",
            script(read("node_modules/oidc-client-ts/dist/browser/oidc-client-ts.min.js")),
        )
        .route("/settings.json", get(async move || axum::Json(settings)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    origin
}

/// The text of the element once it has one.
async fn said(chromium: &Chromium, css: &str) -> String {
    let deadline = Instant::now() + LIMIT;
    loop {
        let text = chromium.text(css).await;
        if !text.is_empty() && text != "…" {
            return text;
        }
        assert!(Instant::now() < deadline, "{css} says nothing");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_in_chromium_signs_in_renews_and_signs_out_over_every_node() {
    let demo = Demo::start(&[]);
    demo.all_ready().await;
    let origin = serve_application(&demo.cluster.issuer).await;
    let (home, bye) = (format!("{origin}/"), format!("{origin}/bye"));
    let scopes = ["openid", "profile", "offline_access"].iter().flat_map(|scope| ["--scope", scope]);
    let options = ["--auth-method", "none", "--redirect-uri", &home, "--post-logout-redirect-uri", &bye];
    create_client(&demo, "spa", &options.into_iter().chain(scopes).collect::<Vec<_>>());

    let chromium = Chromium::start_with(demo.own_port(90), &json!({})).await;
    chromium.open(&home).await;
    assert_eq!(said(&chromium, "#status").await, "nobody");
    chromium.click("#sign-in").await;
    chromium.fill("#username", &demo.cluster.admin.username).await;
    chromium.fill("#password", &demo.cluster.admin.password).await;
    chromium.click("#submit").await;
    assert_eq!(said(&chromium, "#status").await, "signed in");
    assert_eq!(said(&chromium, "#userinfo").await, demo.cluster.admin.username);

    chromium.click("#renew").await;
    assert_eq!(said(&chromium, "#renewed").await, "other tokens, 200, true");

    chromium.click("#sign-out").await;
    // The application has proved that the session is its own, so there is no confirmation page.
    let deadline = Instant::now() + LIMIT;
    while !chromium.url().await.starts_with(&bye) {
        assert!(Instant::now() < deadline, "the browser does not come back");
    }
    assert_eq!(said(&chromium, "#status").await, "signed out");
    chromium.open(&demo.cluster.front).await;
    chromium.element("#login-form").await;
}
