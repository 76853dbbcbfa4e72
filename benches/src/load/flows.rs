//! Three flows, step by step, as a browser and a relying party run them: a login, a forward-auth cookie, an access
//! token.

use anyhow::Context as _;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use futures_util::future::join_all;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, body::Bytes};
use sha2::{Digest as _, Sha256};

use super::{
    browser::{HttpClient, LoadBrowser, LoadedPage, encoded, http, path_of},
    measure::{Load, Measurement},
    raw::Shot,
    target::{LoadTarget, TestUser},
};

/// A code verifier (RFC 7636 §4.1): 43 characters. Nothing here is secret.
const VERIFIER: &str = "load-load-load-load-load-load-load-load-load";

/// Complete sign-ins, each in a new browser over kept connections.
pub(crate) async fn logins(load: Load, target: &LoadTarget, people: &[TestUser]) -> Measurement {
    let workers = (0..load.workers).map(|worker| async move {
        let http = http();
        let nodes = target.nodes.iter().cycle().skip(worker);
        let mut turns = people.iter().cycle().skip(worker * people.len() / load.workers).zip(nodes);
        Measurement::of(load, async || match turns.next() {
            Some((person, node)) => login(&http, &node.http, person).await,
            None => Ok(()),
        })
        .await
    });
    let mut all = Measurement::default();
    for outcome in join_all(workers).await {
        all.add(outcome);
    }
    all
}

async fn login(http: &HttpClient, node: &str, person: &TestUser) -> anyhow::Result<()> {
    let mut browser = LoadBrowser::new(http.clone(), node);
    let page = browser.get("/login", &[]).await?;
    let page = fill_in(&mut browser, &page, &person.username, &person.password).await?;
    anyhow::ensure!(page.status == 303, "the sign-in of {} ended in {}", person.username, page.status);
    Ok(())
}

async fn fill_in(
    browser: &mut LoadBrowser,
    page: &LoadedPage,
    username: &str,
    password: &str,
) -> anyhow::Result<LoadedPage> {
    let (ticket, csrf) = (page.field("ticket")?, page.field("csrf")?);
    let form = [("ticket", ticket), ("csrf", csrf), ("username", username), ("password", password)];
    browser.post("/login", &[], &form).await
}

/// Signs the admin in for this path, and returns the page that follows the form.
async fn sign_in_for(
    target: &LoadTarget,
    browser: &mut LoadBrowser,
    path: &str,
) -> anyhow::Result<LoadedPage> {
    let mut page = browser.get(path, &[]).await?;
    while let Ok(next) = page.location() {
        page = browser.get(&path_of(next)?, &[]).await?;
    }
    fill_in(browser, &page, &target.admin.username, &target.admin.password).await
}

/// The check that a proxy sends for a signed-in visitor.
pub(crate) struct Check {
    node: String,
    headers: Vec<(&'static str, String)>,
}

const CHECK_PATH: &str = "/auth/traefik";

impl Check {
    fn headers(&self) -> Vec<(&str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// This check to each of these `http://host:port`.
    pub(crate) fn shots(&self, nodes: &[String]) -> anyhow::Result<Vec<Shot>> {
        nodes.iter().map(|node| Shot::get(&format!("{node}{CHECK_PATH}"), &self.headers())).collect()
    }

    /// The response of a node to it, without the headers that differ in each response.
    pub(crate) async fn answer(&self) -> anyhow::Result<(HeaderMap, Bytes)> {
        let mut request = Request::get(format!("{}{CHECK_PATH}", self.node));
        for (name, value) in self.headers() {
            request = request.header(name, value);
        }
        let (mut parts, body) = http().request(request.body(Full::default())?).await?.into_parts();
        anyhow::ensure!(parts.status == 200, "the check returned {}", parts.status);
        for own in ["date", "content-length"] {
            parts.headers.remove(own);
        }
        Ok((parts.headers, body.collect().await?.to_bytes()))
    }
}

/// Signs the admin in at the demo's application, for checks.
pub(crate) async fn checks(target: &LoadTarget) -> anyhow::Result<Check> {
    let app = url::Url::parse(&target.app.url)?;
    let host = app.host_str().context("the application has a host")?;
    let authority = app.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut check = Check {
        node: target.nodes.first().context("a node")?.http.clone(),
        headers: vec![
            ("x-forwarded-method", "GET".into()),
            ("x-forwarded-proto", app.scheme().to_owned()),
            ("x-forwarded-host", authority.clone()),
            ("x-forwarded-uri", "/page?q=1".into()),
            ("x-forwarded-for", "203.0.113.9".into()),
            ("accept", "text/html".into()),
        ],
    };
    let (mut at_app, mut at_home) =
        (LoadBrowser::new(http(), &check.node), LoadBrowser::new(http(), &check.node));
    let denied = at_app.get(CHECK_PATH, &check.headers()).await?;
    let start = at_app.get(&path_of(denied.location()?)?, &[("host", &authority)]).await?;
    let signed_in = sign_in_for(target, &mut at_home, &path_of(start.location()?)?).await?;
    at_app.get(&path_of(signed_in.location()?)?, &[("host", &authority)]).await?;
    check.headers.push(("cookie", at_app.cookie_header()));
    Ok(check)
}

/// Userinfo with an access token of the demo's client, at each node.
pub(crate) async fn userinfos(target: &LoadTarget) -> anyhow::Result<Vec<Shot>> {
    let tokens = tokens(target).await?;
    let bearer = format!("Bearer {}", tokens.access);
    let shot = |http: &str| Shot::get(&format!("{http}/oidc/userinfo"), &[("authorization", &bearer)]);
    target.nodes.iter().map(|node| shot(&node.http)).collect()
}

/// The tokens issued for a code.
pub(crate) struct TokenPair {
    pub access: String,
    pub refresh: String,
}

/// Signs the admin in at the demo's client and redeems the code.
pub(crate) async fn tokens(target: &LoadTarget) -> anyhow::Result<TokenPair> {
    let node = target.nodes.first().context("a node")?;
    let mut browser = LoadBrowser::new(http(), &node.http);
    let code = code(target, &mut browser).await?;
    let relying = &target.client;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", relying.redirect_uri.as_str()),
        ("code_verifier", VERIFIER),
    ];
    let reply = LoadBrowser::new(http(), &node.http)
        .post("/oidc/token", &[("authorization", &basic(&relying.client_id, &relying.client_secret))], &form)
        .await?;
    given(&reply)
}

pub(crate) fn given(reply: &LoadedPage) -> anyhow::Result<TokenPair> {
    let json: serde_json::Value = serde_json::from_str(&reply.text)?;
    let token = |name: &str| {
        let token = json.get(name).and_then(|token| token.as_str());
        token.map(str::to_owned).with_context(|| format!("no {name}: {}", reply.text))
    };
    Ok(TokenPair { access: token("access_token")?, refresh: token("refresh_token").unwrap_or_default() })
}

pub(crate) fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

async fn code(target: &LoadTarget, browser: &mut LoadBrowser) -> anyhow::Result<String> {
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER));
    let query = encoded(&[
        ("response_type", "code"),
        ("client_id", &target.client.client_id),
        ("redirect_uri", &target.client.redirect_uri),
        ("scope", "openid profile email groups offline_access"),
        ("state", "state"),
        ("nonce", "nonce"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    let page = sign_in_for(target, browser, &format!("/oidc/authorize?{query}")).await?;
    let url = url::Url::parse(&target.front)?.join(page.location()?)?;
    let code = url.query_pairs().find(|(name, _)| name == "code").map(|(_, code)| code.into_owned());
    code.with_context(|| format!("no code in {url}"))
}
