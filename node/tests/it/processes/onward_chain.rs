//! A relying party whose addresses redirect to another origin at once, in Chromium, which checks every redirect after a
//! form against the page's `form-action`.

use std::net::SocketAddr;

use axum::{
    Router,
    http::Uri,
    response::{Html, Redirect},
    routing::any,
};

use super::{chromium::Chromium, world::Demo};

/// The relying party: every request to its first origin is redirected to its second, where a page shows the first path.
struct RelyingParty {
    /// `http://127.0.0.1:port`.
    first: String,
}

impl RelyingParty {
    async fn start() -> Self {
        let second = serve(
            Router::new().fallback(any(async |uri: Uri| Html(format!("<h1 id=home>{}</h1>", uri.path())))),
        )
        .await;
        let on = async move |uri: Uri| {
            Redirect::to(&format!("http://localhost:{}/home{}", second.port(), uri.path()))
        };
        let first = serve(Router::new().fallback(any(on))).await;
        Self { first: format!("http://{first}") }
    }
}

async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn authorize(demo: &Demo, client: &str, redirect_uri: &str, more: &[(&str, &str)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("response_type", "code"),
            ("client_id", client),
            ("redirect_uri", redirect_uri),
            ("scope", "openid"),
            ("state", "s"),
            ("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"),
            ("code_challenge_method", "S256"),
        ])
        .extend_pairs(more)
        .finish();
    format!("{}/oidc/authorize?{query}", demo.cluster.front)
}

async fn sign_in(demo: &Demo, chromium: &Chromium) {
    chromium.fill("#username", &demo.cluster.admin.username).await;
    chromium.fill("#password", &demo.cluster.admin.password).await;
    chromium.click("#submit").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_ends_where_the_application_goes() {
    let demo = Demo::start(&[]);
    let party = RelyingParty::start().await;
    let (callback, bye) = (format!("{}/cb", party.first), format!("{}/bye", party.first));
    for (client, consent) in [("chain", "implicit"), ("chain-asks", "always")] {
        let command = ["client", "create", "--id", client, "--redirect-uri", &callback, "--consent", consent];
        demo.conclave(&[&command[..], &["--post-logout-redirect-uri", &bye]].concat());
    }
    let chromium = Chromium::start(demo.own_port(90)).await;

    // Sign-in, first with a wrong password: the page with the error can be reloaded, and Back never meets the response
    // to a form.
    chromium.open(&authorize(&demo, "chain", &callback, &[])).await;
    chromium.fill("#username", "admin").await;
    chromium.fill("#password", "not the password").await;
    chromium.click("#submit").await;
    assert!(chromium.text("#error").await.contains("wrong"));
    chromium.reload().await;
    assert!(chromium.text("#error").await.contains("wrong"));
    sign_in(&demo, &chromium).await;
    assert_eq!(chromium.text("#home").await, "/home/cb");
    // Back leads to the sign-in, which finds the session, and redirects again.
    chromium.back().await;
    assert_eq!(chromium.text("#home").await, "/home/cb");

    // Consent, with a session and right after a sign-in.
    for more in [&[][..], &[("prompt", "login")]] {
        chromium.open(&authorize(&demo, "chain-asks", &callback, more)).await;
        if !more.is_empty() {
            sign_in(&demo, &chromium).await;
        }
        chromium.element("#consent-form").await;
        chromium.reload().await;
        chromium.click("#consent-form #submit").await;
        assert_eq!(chromium.text("#home").await, "/home/cb", "{more:?}");
    }

    // Form post; without JavaScript the button is clicked.
    let more = [("prompt", "login"), ("response_mode", "form_post")];
    chromium.open(&authorize(&demo, "chain", &callback, &more)).await;
    sign_in(&demo, &chromium).await;
    chromium.click("#form-post #continue").await;
    assert_eq!(chromium.text("#home").await, "/home/cb");

    // Forward-auth: the form's chain continues to the application's own host and beyond.
    let app = format!("http://app.localhost:{}/deep", demo.cluster.front.rsplit(':').next().unwrap());
    chromium.open(&format!("{}/logout", demo.cluster.front)).await;
    chromium.click("#submit").await;
    chromium.element("#signed-out").await;
    chromium.reload().await;
    chromium.element("#signed-out").await;
    chromium.open(&app).await;
    sign_in(&demo, &chromium).await;
    assert_eq!(chromium.text("#hello").await, "Hello, admin");

    // Logout that the user confirms.
    let query = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("client_id", "chain"), ("post_logout_redirect_uri", &bye)])
        .finish();
    chromium.open(&format!("{}/oidc/logout?{query}", demo.cluster.front)).await;
    chromium.click("#logout-form #submit").await;
    assert_eq!(chromium.text("#home").await, "/home/bye");
}
