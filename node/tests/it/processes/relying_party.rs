//! An OpenID Connect relying party (the `openidconnect` crate), and a user at a browser, both sending each request to
//! the place that the caller selects: the nodes in turn, or the front.

use openidconnect::{
    AccessTokenHash, AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest, HttpResponse,
    IssuerUrl, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    RefreshToken, Scope, TokenResponse as _,
    core::{CoreAuthenticationFlow, CoreClient, CoreProviderMetadata, CoreUserInfoClaims},
};

use super::world::{Demo, browser, field, location};

/// The target of a request.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// Each request to the next node, by the test itself.
    EachToTheNextNode,
    /// Through the demo's front, which also rotates and skips dead nodes.
    Front,
    /// All to the node of this number, from 1.
    Node(usize),
}

impl Way {
    pub(super) fn of(self, demo: &Demo, url: &str) -> String {
        match self {
            Self::EachToTheNextNode => demo.at_next_node(url),
            Self::Front => url.to_owned(),
            Self::Node(number) => url.replace(&demo.cluster.front, &demo.cluster.nodes[number - 1].http),
        }
    }
}

/// The result of a login.
pub(super) struct SignedIn {
    pub browser: reqwest::Client,
    pub code: String,
    pub verifier: String,
    pub refresh_token: String,
    pub subject: String,
}

/// Discovery, authorize, password, code, token with a verified ID token, userinfo, refresh.
pub(super) async fn sign_in(demo: &Demo, way: Way) -> anyhow::Result<SignedIn> {
    let plain = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let http = |mut request: HttpRequest| {
        let plain = plain.clone();
        *request.uri_mut() = way.of(demo, &request.uri().to_string()).parse().unwrap();
        async move { send(&plain, request).await }
    };
    let client = &demo.cluster.client;
    let metadata =
        CoreProviderMetadata::discover_async(IssuerUrl::new(demo.cluster.issuer.clone())?, &http).await?;
    let relying_party = CoreClient::from_provider_metadata(
        metadata,
        ClientId::new(client.id.clone()),
        Some(ClientSecret::new(client.secret.clone())),
    )
    .set_redirect_uri(RedirectUrl::new(client.redirect_uri.clone())?);

    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let (url, state, nonce) = relying_party
        .authorize_url(CoreAuthenticationFlow::AuthorizationCode, CsrfToken::new_random, Nonce::new_random)
        .add_scopes(["profile", "email", "groups"].map(|scope| Scope::new(scope.into())))
        .set_pkce_challenge(challenge)
        .url();
    let person = browser();
    let code = password_login(demo, way, &person, url.as_str(), state.secret()).await?;

    let secret = verifier.secret().clone();
    let tokens = relying_party
        .exchange_code(AuthorizationCode::new(code.clone()))?
        .set_pkce_verifier(PkceCodeVerifier::new(secret.clone()))
        .request_async(&http)
        .await?;
    let id_token = tokens.id_token().ok_or_else(|| anyhow::anyhow!("no ID token"))?;
    let verifier_of_tokens = relying_party.id_token_verifier();
    let claims = id_token.claims(&verifier_of_tokens, &nonce)?;
    let expected = claims.access_token_hash().ok_or_else(|| anyhow::anyhow!("no at_hash"))?;
    let key = id_token.signing_key(&verifier_of_tokens)?;
    let actual = AccessTokenHash::from_token(tokens.access_token(), id_token.signing_alg()?, key)?;
    anyhow::ensure!(actual == *expected, "at_hash is not of this access token");
    let info: CoreUserInfoClaims = relying_party
        .user_info(tokens.access_token().clone(), Some(claims.subject().clone()))?
        .request_async(&http)
        .await?;
    anyhow::ensure!(
        info.email().is_some_and(|email| email.as_str() == "admin@example.test"),
        "userinfo: {info:?}"
    );
    let refresh = tokens.refresh_token().ok_or_else(|| anyhow::anyhow!("no refresh token"))?;
    let refreshed = relying_party.exchange_refresh_token(refresh)?.request_async(&http).await?;
    let next = refreshed.refresh_token().ok_or_else(|| anyhow::anyhow!("no successor"))?;
    anyhow::ensure!(next.secret() != refresh.secret(), "the refresh token was not rotated");
    Ok(SignedIn {
        browser: person,
        code,
        verifier: secret,
        refresh_token: next.secret().clone(),
        subject: claims.subject().to_string(),
    })
}

/// Uses a refresh token; returns its successor.
pub(super) async fn refresh(demo: &Demo, way: Way, token: &str) -> anyhow::Result<String> {
    let client = &demo.cluster.client;
    let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
    let reply = browser()
        .post(way.of(demo, &format!("{}/oidc/token", demo.cluster.front)))
        .basic_auth(&client.id, Some(&client.secret))
        .form(&form)
        .send()
        .await?;
    let text = reply.text().await?;
    let tokens: serde_json::Value = serde_json::from_str(&text)?;
    let next = tokens["refresh_token"].as_str().ok_or_else(|| anyhow::anyhow!("refused: {text}"))?;
    Ok(RefreshToken::new(next.to_owned()).secret().clone())
}

/// Redeems a code by hand; returns the status and the body.
pub(super) async fn redeem(
    demo: &Demo,
    way: Way,
    code: &str,
    verifier: &str,
) -> anyhow::Result<(u16, String)> {
    let client = &demo.cluster.client;
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", client.redirect_uri.as_str()),
        ("code_verifier", verifier),
    ];
    let reply = browser()
        .post(way.of(demo, &format!("{}/oidc/token", demo.cluster.front)))
        .basic_auth(&client.id, Some(&client.secret))
        .form(&form)
        .send()
        .await?;
    Ok((reply.status().as_u16(), reply.text().await?))
}

/// A user signs in with a password and returns with a code.
pub(super) async fn password_login(
    demo: &Demo,
    way: Way,
    person: &reqwest::Client,
    authorize: &str,
    state: &str,
) -> anyhow::Result<String> {
    let reply = person.get(way.of(demo, authorize)).send().await?;
    anyhow::ensure!(reply.status() == 303, "authorize: {}", reply.status());
    let login = format!("{}{}", demo.cluster.front, location(&reply));
    let reply = person.get(way.of(demo, &login)).send().await?;
    anyhow::ensure!(reply.status() == 200, "login page: {}", reply.status());
    let page = reply.text().await?;
    let admin = &demo.cluster.admin;
    let form = [
        ("ticket", field(&page, "ticket")),
        ("csrf", field(&page, "csrf")),
        ("username", admin.username.clone()),
        ("password", admin.password.clone()),
    ];
    let reply =
        person.post(way.of(demo, &format!("{}/login", demo.cluster.front))).form(&form).send().await?;
    anyhow::ensure!(reply.status() == 303, "password: {} {}", reply.status(), reply.text().await?);
    let back = url::Url::parse(&location(&reply))?;
    let parameter = |name: &str| back.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned());
    anyhow::ensure!(back.as_str().starts_with(&demo.cluster.client.redirect_uri), "sent to {back}");
    anyhow::ensure!(parameter("state").as_deref() == Some(state), "state is lost: {back}");
    anyhow::ensure!(parameter("iss").as_deref() == Some(&demo.cluster.issuer), "iss is missing: {back}");
    parameter("code").ok_or_else(|| anyhow::anyhow!("no code: {back}"))
}

async fn send(client: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    let reply = client.execute(request.try_into()?).await?;
    let mut response = openidconnect::http::Response::builder().status(reply.status());
    for (name, value) in reply.headers() {
        response = response.header(name, value);
    }
    let body = reply.bytes().await?.to_vec();
    Ok(response.body(body).unwrap())
}
