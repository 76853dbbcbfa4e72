//! A small relying party: an application that signs its users in with Conclave by OpenID Connect.
//!
//! ```sh
//! conclave client create --id example --redirect-uri http://127.0.0.1:9095/callback
//! cargo run -p conclave-node --example relying_party -- ISSUER example CLIENT_SECRET
//! ```
//!
//! Open <http://127.0.0.1:9095/>. The page shows the claims of the ID token. A fourth argument is another address to
//! listen on; its `/callback` must be registered.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::{Query, State},
    response::{Html, IntoResponse as _, Redirect, Response},
    routing::get,
};
use openidconnect::{
    AsyncHttpClient, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointMaybeSet, EndpointNotSet,
    EndpointSet, HttpRequest, HttpResponse, IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, Scope, TokenResponse as _,
    core::{CoreAuthenticationFlow, CoreClient, CoreProviderMetadata},
};

/// The client with the endpoints that discovery has found.
type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;
/// Maximum number of logins in progress. A real application keeps this data in a cookie of the browser.
const MAX_LOGINS: usize = 100;

struct App {
    client: Client,
    http: Http,
    /// By `state`: the values that the response is checked with.
    logins: Mutex<HashMap<String, (Nonce, PkceCodeVerifier)>>,
}

#[derive(serde::Deserialize)]
struct Callback {
    code: Option<String>,
    state: Option<String>,
    error: Option<String>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (issuer, id, secret, listen) = match arguments.as_slice() {
        [issuer, id, secret] => (issuer, id, secret, "127.0.0.1:9095"),
        [issuer, id, secret, listen] => (issuer, id, secret, listen.as_str()),
        _ => anyhow::bail!("usage: relying_party ISSUER CLIENT_ID CLIENT_SECRET [LISTEN]"),
    };
    let listener = tokio::net::TcpListener::bind(listen.parse::<SocketAddr>()?).await?;
    // Redirects are for browsers: a token endpoint that redirects is refused.
    let http = Http(reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?);
    let metadata = CoreProviderMetadata::discover_async(IssuerUrl::new(issuer.clone())?, &http)
        .await
        .with_context(|| format!("{issuer} has no discovery document"))?;
    let client = CoreClient::from_provider_metadata(
        metadata,
        ClientId::new(id.clone()),
        Some(ClientSecret::new(secret.clone())),
    )
    .set_redirect_uri(RedirectUrl::new(format!("http://{}/callback", listener.local_addr()?))?);
    let app = Arc::new(App { client, http, logins: Mutex::default() });
    let router = Router::new()
        .route("/", get(async || Html("<p><a id=sign-in href=/login>Sign in with Conclave</a></p>")))
        .route("/login", get(login))
        .route("/callback", get(callback))
        .with_state(app);
    println!("open http://{}/", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}

/// Redirects the browser to Conclave.
async fn login(State(app): State<Arc<App>>) -> Redirect {
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let code = CoreAuthenticationFlow::AuthorizationCode;
    let (url, state, nonce) = app
        .client
        .authorize_url(code, CsrfToken::new_random, Nonce::new_random)
        .add_scope(Scope::new("profile".into()))
        .add_scope(Scope::new("email".into()))
        .set_pkce_challenge(challenge)
        .url();
    let mut logins = app.logins.lock().unwrap_or_else(PoisonError::into_inner);
    if logins.len() >= MAX_LOGINS {
        logins.clear();
    }
    logins.insert(state.secret().clone(), (nonce, verifier));
    Redirect::to(url.as_str())
}

/// Exchanges the code, checks the ID token, and shows its claims.
async fn callback(State(app): State<Arc<App>>, Query(response): Query<Callback>) -> Response {
    match signed_in(&app, response).await {
        Ok(claims) => {
            Html(format!("<h1>Signed in</h1><pre id=claims>{}</pre>", escaped(&claims))).into_response()
        }
        Err(error) => {
            Html(format!("<h1>Not signed in</h1><p id=error>{}</p>", escaped(&format!("{error:#}"))))
                .into_response()
        }
    }
}

async fn signed_in(app: &App, response: Callback) -> anyhow::Result<String> {
    let state = response.state.context("the response has no state")?;
    let login = app.logins.lock().unwrap_or_else(PoisonError::into_inner).remove(&state);
    let (nonce, verifier) = login.context("this login was not started here, or is finished")?;
    if let Some(error) = response.error {
        anyhow::bail!("Conclave refused: {error}");
    }
    let code = AuthorizationCode::new(response.code.context("the response has no code")?);
    let exchange = app.client.exchange_code(code)?.set_pkce_verifier(verifier);
    let tokens = exchange.request_async(&app.http).await?;
    let id_token = tokens.id_token().context("there is no ID token")?;
    let claims = id_token.claims(&app.client.id_token_verifier(), &nonce)?;
    Ok(serde_json::to_string_pretty(claims)?)
}

/// Sends the requests of the OpenID Connect library.
struct Http(reqwest::Client);

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = reqwest::Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, reqwest::Error>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let response = self.0.execute(request.try_into()?).await?;
            let mut reply = HttpResponse::default();
            *reply.status_mut() = response.status();
            *reply.headers_mut() = response.headers().clone();
            *reply.body_mut() = response.bytes().await?.to_vec();
            Ok(reply)
        })
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
