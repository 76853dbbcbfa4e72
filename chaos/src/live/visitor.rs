//! A browser and what it does, each step at a node of its choice.

use std::collections::BTreeMap;

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use super::cluster::{CLIENT_ID, REDIRECT_URI};
use crate::history::Seen;

/// A code verifier (RFC 7636 §4.1). Nothing here is secret.
const VERIFIER: &str = "chaos-chaos-chaos-chaos-chaos-chaos-chaos-chaos";

/// Cookies, kept by hand: they go to every node, as behind one name.
#[derive(Clone)]
pub struct Visitor {
    http: reqwest::Client,
    cookies: BTreeMap<String, String>,
}

struct Page {
    status: u16,
    location: String,
    text: String,
}

impl Visitor {
    pub const fn new(http: reqwest::Client) -> Self {
        Self { http, cookies: BTreeMap::new() }
    }

    /// The whole sign-in, step by step at these nodes.
    pub async fn sign_in(&mut self, nodes: [&str; 2], user: &str, password: &str) -> anyhow::Result<()> {
        let [first, second] = nodes;
        let page = self.send(self.http.get(format!("{first}/login"))).await?;
        let (ticket, csrf) = (field(&page.text, "ticket")?, field(&page.text, "csrf")?);
        let form = [("ticket", ticket), ("csrf", csrf), ("username", user), ("password", password)];
        let page = self.send(self.http.post(format!("{second}/login")).form(&form)).await?;
        anyhow::ensure!(page.status == 303, "the sign-in of {user} ended in {}", page.status);
        Ok(())
    }

    /// The home page: only who is signed in sees it.
    pub async fn check(&self, node: &str) -> Seen {
        match self.clone().send(self.http.get(format!("{node}/"))).await {
            Ok(page) if page.status == 200 => Seen::Accepted,
            Ok(page) if page.location.contains("/login") => Seen::Denied,
            _ => Seen::Unavailable,
        }
    }

    /// An authorization code for this session.
    pub async fn code(&mut self, node: &str) -> anyhow::Result<String> {
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
        let page = self.send(self.http.get(format!("{node}/oidc/authorize")).query(&query)).await?;
        let code = page.location.split(['?', '&']).find_map(|part| part.strip_prefix("code="));
        Ok(code.with_context(|| format!("{} and no code: {}", page.status, page.location))?.to_owned())
    }

    /// Redeems a code. Some: the refresh token. None: certainly refused.
    pub async fn redeem(&self, node: &str, code: &str) -> anyhow::Result<Option<String>> {
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
    pub async fn refresh(&self, node: &str, token: &str) -> anyhow::Result<Option<String>> {
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

    async fn send(&mut self, request: reqwest::RequestBuilder) -> anyhow::Result<Page> {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = if cookies.is_empty() { request } else { request.header("cookie", cookies.join("; ")) };
        let reply = request.send().await?;
        for cookie in reply.headers().get_all("set-cookie") {
            let pair = cookie.to_str().ok().and_then(|text| text.split(';').next()?.split_once('='));
            if let Some((name, value)) = pair {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        let location = reply.headers().get("location").and_then(|value| value.to_str().ok());
        let (status, location) = (reply.status().as_u16(), location.unwrap_or_default().to_owned());
        Ok(Page { status, location, text: reply.text().await? })
    }
}

fn field<'a>(page: &'a str, name: &str) -> anyhow::Result<&'a str> {
    let rest = page.split_once(&format!("name=\"{name}\" value=\"")).map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split('"').next()).with_context(|| format!("the page has no field {name}"))
}
