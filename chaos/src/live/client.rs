//! A browser and its actions, each step at a chosen node.

use std::collections::BTreeMap;

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use super::cluster::{APP_HOST, CLIENT_ID, REDIRECT_URI};
use crate::history::Seen;

/// Redirects between the check and the form.
const MAX_REDIRECTS: usize = 4;
/// A code verifier (RFC 7636 §4.1). Nothing here is secret.
const VERIFIER: &str = "chaos-chaos-chaos-chaos-chaos-chaos-chaos-chaos";

/// Cookies of one host, kept by hand: they are sent to every node, as if all had one name.
type Cookies = BTreeMap<String, String>;

/// A user who is signed in at the portal and at the application, or is about to be.
#[derive(Clone)]
pub(super) struct BrowserClient {
    http: reqwest::Client,
    user: String,
    home: Cookies,
    app: Cookies,
}

struct Page {
    status: u16,
    location: String,
    text: String,
    /// The user name that the check passes to the application.
    remote_user: String,
}

impl BrowserClient {
    pub(super) fn new(http: reqwest::Client, user: &str) -> Self {
        Self { http, user: user.to_owned(), home: Cookies::new(), app: Cookies::new() }
    }

    /// This user with another browser.
    pub(super) fn anew(&self) -> Self {
        Self::new(self.http.clone(), &self.user)
    }

    /// Signs in with the whole round trip of a user who opens the application, each step at another node: refused by
    /// the check, redirected from the application's host to the login, signed in there, and redirected back.
    pub(super) async fn sign_in(&mut self, nodes: [&str; 2], password: &str) -> anyhow::Result<()> {
        let [first, second] = nodes;
        let refused = send(&mut self.app, asks_for_a_check(&self.http, first)).await?;
        let start = self.http.get(at(second, &refused.location)?).header("host", APP_HOST);
        let to_login = send(&mut self.app, start).await?;
        let mut page = send(&mut self.home, self.http.get(at(first, &to_login.location)?)).await?;
        for _ in 0..MAX_REDIRECTS {
            if page.location.is_empty() {
                break;
            }
            page = send(&mut self.home, self.http.get(at(first, &page.location)?)).await?;
        }
        let (ticket, csrf) = (field(&page.text, "ticket")?, field(&page.text, "csrf")?);
        let form =
            [("ticket", ticket), ("csrf", csrf), ("username", self.user.as_str()), ("password", password)];
        let signed_in = send(&mut self.home, self.http.post(format!("{second}/login")).form(&form)).await?;
        anyhow::ensure!(
            signed_in.status == 303,
            "the sign-in of {} ended in {}",
            self.user,
            signed_in.status
        );
        let back = self.http.get(at(first, &signed_in.location)?).header("host", APP_HOST);
        let arrived = send(&mut self.app, back).await?;
        let home_again = arrived.location.contains(APP_HOST) && !self.app.is_empty();
        anyhow::ensure!(home_again, "the redirect of {} ended in {}", self.user, arrived.status);
        Ok(())
    }

    /// A forward-auth check: the request that a proxy sends before it passes a request on to the application.
    pub(super) async fn check(&self, node: &str) -> Seen {
        match send(&mut self.app.clone(), asks_for_a_check(&self.http, node)).await {
            Ok(page) if page.status == 200 && page.remote_user == self.user => Seen::Accepted,
            Ok(page) if page.location.contains("/.conclave/start") => Seen::Denied,
            _ => Seen::Unavailable,
        }
    }

    /// Requests the home page: only a signed-in user sees it.
    pub(super) async fn at_home(&self, node: &str) -> Seen {
        match send(&mut self.home.clone(), self.http.get(format!("{node}/"))).await {
            Ok(page) if page.status == 200 => Seen::Accepted,
            Ok(page) if page.location.contains("/login") => Seen::Denied,
            _ => Seen::Unavailable,
        }
    }

    /// An authorization code for this session.
    pub(super) async fn code(&mut self, node: &str) -> anyhow::Result<String> {
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
        let query = [
            ("response_type", "code"),
            ("client_id", CLIENT_ID),
            ("redirect_uri", REDIRECT_URI),
            ("scope", "openid offline_access"),
            ("state", "s"),
            ("nonce", "n"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let asked = self.http.get(format!("{node}/oidc/authorize")).query(&query);
        let page = send(&mut self.home, asked).await?;
        let code = page.location.split(['?', '&']).find_map(|part| part.strip_prefix("code="));
        Ok(code.with_context(|| format!("{} and no code: {}", page.status, page.location))?.to_owned())
    }

    /// Redeems a code. Some: the refresh token. None: certainly refused.
    pub(super) async fn redeem(&self, node: &str, code: &str) -> anyhow::Result<Option<String>> {
        let form = [
            ("grant_type", "authorization_code"),
            ("client_id", CLIENT_ID),
            ("redirect_uri", REDIRECT_URI),
            ("code", code),
            ("code_verifier", VERIFIER),
        ];
        self.token(node, &form).await
    }

    /// Rotates a refresh token.
    pub(super) async fn refresh(&self, node: &str, token: &str) -> anyhow::Result<Option<String>> {
        let form = [("grant_type", "refresh_token"), ("client_id", CLIENT_ID), ("refresh_token", token)];
        self.token(node, &form).await
    }

    async fn token(&self, node: &str, form: &[(&str, &str)]) -> anyhow::Result<Option<String>> {
        let reply = self.http.post(format!("{node}/oidc/token")).form(form).send().await?;
        let (status, text) = (reply.status().as_u16(), reply.text().await?);
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        match status {
            200 => Ok(Some(
                answer
                    .get("refresh_token")
                    .and_then(|token| token.as_str())
                    .context("no refresh token")?
                    .to_owned(),
            )),
            400 if answer.get("error") == Some(&"invalid_grant".into()) => Ok(None),
            _ => anyhow::bail!("{status}: {text}"),
        }
    }
}

/// A check request as it is sent by a proxy on this machine, which the nodes are configured to trust.
fn asks_for_a_check(http: &reqwest::Client, node: &str) -> reqwest::RequestBuilder {
    http.get(format!("{node}/auth/traefik"))
        .header("x-forwarded-method", "GET")
        .header("x-forwarded-proto", "http")
        .header("x-forwarded-host", APP_HOST)
        .header("x-forwarded-uri", "/page?q=1")
        .header("x-forwarded-for", "203.0.113.9")
        .header("accept", "text/html")
}

async fn send(cookies: &mut Cookies, request: reqwest::RequestBuilder) -> anyhow::Result<Page> {
    let line: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let request = if line.is_empty() { request } else { request.header("cookie", line.join("; ")) };
    let reply = request.send().await?;
    for cookie in reply.headers().get_all("set-cookie") {
        let pair = cookie.to_str().ok().and_then(|text| text.split(';').next()?.split_once('='));
        if let Some((name, value)) = pair {
            cookies.insert(name.to_owned(), value.to_owned());
        }
    }
    let header = |name: &str| {
        reply.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (status, location, remote_user) =
        (reply.status().as_u16(), header("location"), header("remote-user"));
    Ok(Page { status, location, remote_user, text: reply.text().await? })
}

/// The path and query of a redirect target, at this node.
fn at(node: &str, location: &str) -> anyhow::Result<reqwest::Url> {
    let mut url = reqwest::Url::parse(node)?;
    let target = url.join(location).with_context(|| format!("{location:?} leads nowhere"))?;
    url.set_path(target.path());
    url.set_query(target.query());
    Ok(url)
}

fn field<'a>(page: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let rest = page.split_once(&format!("name=\"{name}\" value=\"")).map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split('"').next()).with_context(|| format!("the page has no field {name}"))
}
