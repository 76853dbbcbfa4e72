//! The token side of the provider: client credentials, introspection, revocation, exchange, formats, subjects, secrets.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_crypto::{
    jwk::Alg,
    jwt::{Expect, VerifyingKey},
};
use conclave_node::testing::TestNode;
use conclave_proto::command::v1::{
    self as pb, AccessTokenFormat, ClientAuthMethod, ClientTokens, ClientTokensChange, ConsentMode,
    CreateClient, GrantType, GrantTypes, SigningAlgorithm, UpdateClient, command::Body as Command,
};
use http::StatusCode;
use serde_json::{Value, json};

use super::site::{Browser, PASSWORD, Page, REDIRECT_URI, SECRET, Site, basic, digest, redemption};

pub(super) const ISSUER: &str = "http://127.0.0.1:9000";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

pub(super) fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// A client that authenticates with `SECRET` in HTTP Basic, with these settings.
pub(super) fn client(id: &str, tokens: ClientTokens) -> CreateClient {
    CreateClient {
        client_id: id.into(),
        name: id.into(),
        auth_method: ClientAuthMethod::SecretBasic.into(),
        secret_hash: digest(SECRET.as_bytes()),
        redirect_uris: vec![REDIRECT_URI.into()],
        scopes: ["openid", "profile", "email", "read", "write"].map(str::to_owned).to_vec(),
        signing_algorithm: SigningAlgorithm::Es256.into(),
        consent: ConsentMode::Implicit.into(),
        tokens: Some(tokens),
        ..Default::default()
    }
}

pub(super) fn with_grants(grant_types: &[GrantType]) -> ClientTokens {
    ClientTokens { grant_types: grant_types.iter().map(|t| i32::from(*t)).collect(), ..Default::default() }
}

pub(super) async fn register(site: &Site, command: CreateClient) {
    site.node.propose(Command::CreateClient(command)).await.unwrap();
}

async fn change(site: &Site, change: UpdateClient) {
    site.node.propose(Command::UpdateClient(change)).await.unwrap();
}

pub(super) async fn own_token(site: &Site, id: &str, more: &[(&str, &str)]) -> Page {
    let form = [&[("grant_type", "client_credentials")], more].concat();
    site.token(Some((id, SECRET)), &form).await
}

async fn introspect(site: &Site, id: &str, token: &str) -> Value {
    let page = site.call("/oidc/introspect", &[basic(id, SECRET)], &[("token", token)]).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    page.json()
}

async fn revoke(site: &Site, id: &str, token: &str) -> Page {
    site.call("/oidc/revoke", &[basic(id, SECRET)], &[("token", token)]).await
}

fn inactive() -> Value {
    json!({"active": false})
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value}"))
}

#[tokio::test]
async fn a_client_gets_a_token_of_its_own_and_nothing_about_people() {
    let site = Site::open().await;
    register(&site, client("job", with_grants(&[GrantType::ClientCredentials]))).await;
    let answer = own_token(&site, "job", &[("scope", "read")]).await.json();
    assert_eq!((&answer["scope"], &answer["token_type"]), (&json!("read"), &json!("Bearer")));
    assert!(answer.get("refresh_token").is_none() && answer.get("id_token").is_none());
    let token = text(&answer["access_token"]);
    let said = claims(token);
    assert_eq!(
        (&said["sub"], &said["client_id"], &said["aud"]),
        (&json!("job"), &json!("job"), &json!(ISSUER))
    );
    assert!(said["jti"].is_string() && said.get("sid").is_none());
    assert_eq!(own_token(&site, "job", &[]).await.json()["scope"], "profile email read write");

    for scope in ["admin", "read admin", "openid", "offline_access"] {
        let page = own_token(&site, "job", &[("scope", scope)]).await;
        assert_eq!(page.json()["error"], "invalid_scope", "{scope}");
    }
    assert_eq!(own_token(&site, "web", &[]).await.json()["error"], "unauthorized_client");
    assert_eq!(site.token(Some(("job", "wrong")), &[("grant_type", "client_credentials")]).await.status, 401);
    assert_eq!(site.userinfo(token).await.status, StatusCode::UNAUTHORIZED, "the token has no user");
    // The client may not use the code flow.
    let page = site.get(&mut Browser::default(), &Site::authorize_url("job", &[])).await;
    assert_eq!(page.parameter("error").as_deref(), Some("unauthorized_client"));
}

#[tokio::test]
async fn what_a_client_got_for_itself_ends_with_it_and_does_not_come_back() {
    let site = Site::open().await;
    register(&site, client("job", with_grants(&[GrantType::ClientCredentials]))).await;
    let token = text(&own_token(&site, "job", &[]).await.json()["access_token"]).to_owned();
    assert_eq!(introspect(&site, "job", &token).await["active"], true);
    for disabled in [true, false] {
        let command =
            UpdateClient { client_id: "job".into(), disabled: Some(disabled), ..Default::default() };
        change(&site, command).await;
    }
    assert_eq!(introspect(&site, "job", &token).await, inactive());

    let token = text(&own_token(&site, "job", &[]).await.json()["access_token"]).to_owned();
    assert_eq!(introspect(&site, "job", &token).await["active"], true);
    site.node.propose(Command::DeleteClient(pb::DeleteClient { client_id: "job".into() })).await.unwrap();
    register(&site, client("job", with_grants(&[GrantType::ClientCredentials]))).await;
    assert_eq!(introspect(&site, "job", &token).await, inactive(), "another client of that name");
}

#[tokio::test]
async fn introspection_tells_a_client_about_its_own_tokens_and_those_for_it_alone() {
    let site = Site::open().await;
    let tokens = site.redeem("web", &site.code("web", &[]).await).await.json();
    let (access, refresh) = (text(&tokens["access_token"]), text(&tokens["refresh_token"]));
    let told = introspect(&site, "web", access).await;
    let said = claims(access);
    for name in ["sub", "client_id", "scope", "exp", "iat", "jti", "aud", "iss", "sid"] {
        assert_eq!(told[name], said[name], "{name}");
    }
    assert_eq!((&told["active"], &told["token_type"]), (&json!(true), &json!("Bearer")));
    let told = introspect(&site, "web", refresh).await;
    assert_eq!((&told["active"], &told["sub"]), (&json!(true), &said["sub"]));
    for token in [access, refresh, "", "x", "a.b.c", text(&tokens["id_token"])] {
        let form = [("token", token)];
        let page = site.call("/oidc/introspect", &[basic("asks", SECRET)], &form).await;
        let expected = if token.is_empty() { "invalid_request" } else { "" };
        match expected {
            "" => assert_eq!(page.json(), inactive(), "{token}"),
            error => assert_eq!(page.json()["error"], error),
        }
    }
    assert_eq!(introspect(&site, "web", text(&tokens["id_token"])).await, inactive(), "no access token");

    // Only for clients that can authenticate.
    for (headers, form) in [
        (vec![], vec![("token", access)]),
        (vec![], vec![("token", access), ("client_id", "spa")]),
        (vec![], vec![("token", access), ("client_id", "web")]),
        (vec![basic("web", "wrong")], vec![("token", access)]),
        (vec![("authorization", format!("Bearer {access}"))], vec![("token", access)]),
    ] {
        let page = site.call("/oidc/introspect", &headers, &form).await;
        assert_eq!(
            (page.status, &page.json()["error"]),
            (StatusCode::UNAUTHORIZED, &json!("invalid_client"))
        );
    }
    site.node.clock().advance(Duration::from_mins(10));
    assert_eq!(introspect(&site, "web", access).await, inactive(), "over");
}

#[tokio::test]
async fn introspection_sees_every_end_at_once() {
    let site = Site::open().await;
    let ada = site.node.cluster().view().user_by_name("ada").unwrap().id;
    let tokens = site.redeem("web", &site.code("web", &[]).await).await.json();
    let (access, refresh) = (text(&tokens["access_token"]), text(&tokens["refresh_token"]));
    let disabled = |disabled| {
        Command::UpdateUser(pb::UpdateUser {
            user_id: ada.to_vec(),
            disabled: Some(disabled),
            ..Default::default()
        })
    };
    assert_eq!(introspect(&site, "web", refresh).await["active"], true);
    site.node.propose(disabled(true)).await.unwrap();
    for token in [access, refresh] {
        assert_eq!(introspect(&site, "web", token).await, inactive());
    }
    site.node.propose(disabled(false)).await.unwrap();
    assert_eq!(introspect(&site, "web", access).await, inactive(), "ended is ended");
}

#[tokio::test]
async fn introspection_as_a_jwt_is_signed_for_its_caller() {
    let site = Site::open().await;
    let tokens = site.redeem("web", &site.code("web", &[]).await).await.json();
    let jwt = "application/token-introspection+jwt";
    let headers = [basic("web", SECRET), ("accept", jwt.to_owned())];
    let page = site.call("/oidc/introspect", &headers, &[("token", text(&tokens["access_token"]))]).await;
    assert_eq!(page.headers["content-type"], jwt);
    let said = verified(&site, &page.text, "token-introspection+jwt").await;
    assert_eq!((&said["iss"], &said["aud"]), (&json!(ISSUER), &json!("web")));
    assert_eq!(said["token_introspection"]["active"], true);
    assert!(said.get("sub").is_none() && said.get("exp").is_none(), "it must not pass for a token");
}

/// The claims of a JWT that a published key of this cluster signed.
async fn verified(site: &Site, token: &str, typ: &str) -> Value {
    let keys = site.get(&mut Browser::default(), "/oidc/jwks").await.json();
    let expect = Expect { typ: Some(typ), algs: &Alg::ALL };
    let mut claims = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|jwk| VerifyingKey::from_jwk(jwk).unwrap().verify(token, expect).ok());
    serde_json::from_slice(&claims.next().expect("a published key verifies it")).unwrap()
}

#[tokio::test]
async fn a_client_gives_back_what_it_has_and_nothing_of_others() {
    let site = Site::open().await;
    let tokens = site.redeem("web", &site.code("web", &[]).await).await.json();
    let (access, refresh) = (text(&tokens["access_token"]), text(&tokens["refresh_token"]));
    for token in [access, refresh] {
        let page = revoke(&site, "asks", token).await;
        assert_eq!(
            (page.status, &page.json()["error"]),
            (StatusCode::BAD_REQUEST, &json!("unauthorized_client"))
        );
    }
    assert_eq!(site.userinfo(access).await.status, StatusCode::OK);
    for unknown in ["x", "a.b.c", text(&tokens["id_token"])] {
        assert_eq!(revoke(&site, "web", unknown).await.status, StatusCode::OK, "{unknown}");
    }
    assert_eq!(site.call("/oidc/revoke", &[basic("web", "wrong")], &[("token", access)]).await.status, 401);

    // The access token alone.
    for _ in 0..2 {
        assert_eq!(revoke(&site, "web", access).await.status, StatusCode::OK);
    }
    assert_eq!(site.userinfo(access).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(introspect(&site, "web", access).await, inactive());
    let next = site.refresh(refresh).await.json();
    assert_eq!(site.userinfo(text(&next["access_token"])).await.status, StatusCode::OK);

    // The refresh token, also by its older generation, and all tokens of its grant.
    assert_eq!(revoke(&site, "web", refresh).await.status, StatusCode::OK);
    assert_eq!(site.userinfo(text(&next["access_token"])).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(site.refresh(text(&next["refresh_token"])).await.json()["error"], "invalid_grant");
    assert_eq!(revoke(&site, "web", refresh).await.status, StatusCode::OK);

    // A public client as well.
    let code = site.code("spa", &[]).await;
    let form = [&redemption(&code)[..], &[("client_id", "spa")]].concat();
    let tokens = site.token(None, &form).await.json();
    let access = text(&tokens["access_token"]);
    let page = site.call("/oidc/revoke", &[], &[("client_id", "spa"), ("token", access)]).await;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(site.userinfo(access).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_opaque_token_says_nothing_and_is_good_on_every_node() {
    let mut nodes = TestNode::start_cluster(3).await;
    let first = Site::of(nodes.remove(0));
    first.node.create_user("ada", PASSWORD, &[]).await;
    let leader = [&first.node].into_iter().chain(&nodes).find(|node| node.cluster().is_leader()).unwrap();
    leader.auth().clone().ensure_signing_keys(None).await;
    let tokens = ClientTokens { access_token_format: AccessTokenFormat::Opaque.into(), ..Default::default() };
    register(&first, client("opaque", tokens)).await;
    let tokens = first.redeem("opaque", &first.code("opaque", &[]).await).await.json();
    let access = text(&tokens["access_token"]).to_owned();
    assert!(!access.contains('.'));
    let inside = URL_SAFE_NO_PAD.decode(&access).unwrap();
    assert!(!inside.windows(6).any(|w| w == b"opaque"), "it is sealed");
    let others: Vec<Site> = nodes.into_iter().map(Site::of).collect();
    for site in &others {
        assert_eq!(site.userinfo(&access).await.status, StatusCode::OK);
        assert_eq!(introspect(site, "opaque", &access).await["active"], true);
        let altered = format!("{}A{}", &access[..40], &access[41..]);
        if altered != access {
            assert_eq!(site.userinfo(&altered).await.status, StatusCode::UNAUTHORIZED);
        }
    }
    // Once revoked on one node, it is refused by each at once.
    assert_eq!(revoke(&others[0], "opaque", &access).await.status, StatusCode::OK);
    for site in others.iter().chain([&first]) {
        assert_eq!(site.userinfo(&access).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(introspect(site, "opaque", &access).await, inactive());
    }
}

#[tokio::test]
async fn what_a_key_signed_is_refused_on_every_node_once_the_key_is_removed() {
    use conclave_proto::command::v1::{ActivateSigningKey, AddSigningKey, RetireSigningKey};
    let mut nodes = TestNode::start_cluster(3).await;
    let leads = nodes.iter().position(|node| node.cluster().is_leader()).unwrap();
    let (leader, stuck) = (Site::of(nodes.remove(leads)), Site::of(nodes.remove(0)));
    leader.node.auth().clone().ensure_signing_keys(None).await;
    leader.node.create_user("ada", PASSWORD, &[]).await;
    register(&leader, client("jwt", ClientTokens::default())).await;
    let tokens = leader.redeem("jwt", &leader.code("jwt", &[]).await).await.json();
    let access = text(&tokens["access_token"]).to_owned();
    assert_eq!(stuck.userinfo(&access).await.status, StatusCode::OK);

    let kid = conclave_crypto::jwt::unverified_kid(&access).unwrap().unwrap();
    let old = leader.node.cluster().view().key(&kid).unwrap().clone();
    let next = AddSigningKey {
        kid: "next".into(),
        algorithm: old.algorithm.into(),
        public_jwk: old.public_jwk.clone(),
        sealed_private_key: old.sealed_private_key.clone(),
        next: true,
        ..Default::default()
    };
    leader.node.propose(Command::AddSigningKey(next)).await.unwrap();
    let activate = ActivateSigningKey { kid: "next".into() };
    leader.node.propose(Command::ActivateSigningKey(activate)).await.unwrap();
    assert_eq!(
        stuck.userinfo(&access).await.status,
        StatusCode::OK,
        "retired keys are good for what they signed"
    );

    stuck.node.cluster().hold_back(true);
    let retire = RetireSigningKey { kid };
    leader.node.propose(Command::RetireSigningKey(retire)).await.unwrap();
    assert_eq!(leader.userinfo(&access).await.status, StatusCode::UNAUTHORIZED);
    // Acknowledged: a check that starts now on the lagging node must not pass, even if the node catches up during it.
    // The node catches up right after the check has begun.
    let (page, ()) = tokio::join!(stuck.userinfo(&access), async { stuck.node.cluster().hold_back(false) });
    assert_ne!(page.status, StatusCode::OK);
}

#[tokio::test]
async fn pairwise_subjects_differ_by_sector_and_stay() {
    let site = Site::open().await;
    let pairwise = |sector: &str| ClientTokens { pairwise_sector: sector.into(), ..Default::default() };
    for (id, sector) in [("a1", "a.test"), ("a2", "a.test"), ("b", "b.test")] {
        register(&site, client(id, pairwise(sector))).await;
    }
    let mut subjects = Vec::new();
    for id in ["a1", "a2", "b", "web"] {
        let tokens = site.redeem(id, &site.code(id, &[]).await).await.json();
        let sub = claims(text(&tokens["id_token"]))["sub"].clone();
        let access = text(&tokens["access_token"]);
        assert_eq!(claims(access)["sub"], sub);
        assert_eq!(site.userinfo(access).await.json()["sub"], sub);
        assert_eq!(introspect(&site, id, access).await["sub"], sub);
        // The client's own hint is accepted.
        let mut browser = Browser::default();
        site.sign_in_at(&mut browser, "/", "ada", PASSWORD).await;
        let hint = [("prompt", "none"), ("id_token_hint", text(&tokens["id_token"]))];
        let page = site.get(&mut browser, &Site::authorize_url(id, &hint)).await;
        assert!(page.parameter("code").is_some(), "{id}: {}", page.location());
        subjects.push(sub);
    }
    assert_eq!(subjects[0], subjects[1]);
    assert_ne!(subjects[0], subjects[2]);
    let ada = site.node.cluster().view().user_by_name("ada").unwrap().id.to_string();
    assert_eq!(subjects[3], ada);
    assert!(!subjects.contains(&json!(null)) && subjects[0] != json!(ada) && subjects[2] != json!(ada));
}

#[tokio::test]
async fn userinfo_is_signed_for_a_client_that_wants_it() {
    let site = Site::open().await;
    let tokens = ClientTokens { userinfo_algorithm: SigningAlgorithm::Eddsa.into(), ..Default::default() };
    register(&site, client("signed", tokens)).await;
    let tokens = site.redeem("signed", &site.code("signed", &[]).await).await.json();
    let page = site.userinfo(text(&tokens["access_token"])).await;
    assert_eq!(page.headers["content-type"], "application/jwt");
    let said = verified(&site, &page.text, "JWT").await;
    assert_eq!((&said["iss"], &said["aud"]), (&json!(ISSUER), &json!("signed")));
    assert_eq!(said["sub"], claims(text(&tokens["id_token"]))["sub"]);
    assert_eq!(site.userinfo(&page.text).await.status, StatusCode::UNAUTHORIZED, "it is not an access token");
}

#[tokio::test]
async fn each_client_gets_its_tokens_in_its_own_algorithm() {
    let site = Site::open().await;
    site.node.auth().provide_signing_key(SigningAlgorithm::Ps256).await.unwrap();
    site.node.auth().provide_signing_key(SigningAlgorithm::Ps256).await.unwrap();
    for (name, algorithm) in [
        ("RS256", SigningAlgorithm::Rs256),
        ("PS256", SigningAlgorithm::Ps256),
        ("ES256", SigningAlgorithm::Es256),
        ("EdDSA", SigningAlgorithm::Eddsa),
    ] {
        let command =
            CreateClient { signing_algorithm: algorithm.into(), ..client(name, ClientTokens::default()) };
        register(&site, command).await;
        let tokens = site.redeem(name, &site.code(name, &[]).await).await.json();
        let id_token = text(&tokens["id_token"]);
        let header = URL_SAFE_NO_PAD.decode(id_token.split('.').next().unwrap()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&header).unwrap()["alg"], name);
        assert_eq!(verified(&site, id_token, "JWT").await["aud"], name);
        assert_eq!(verified(&site, text(&tokens["access_token"]), "at+jwt").await["client_id"], name);
    }
    let keys = site.get(&mut Browser::default(), "/oidc/jwks").await.json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 4, "one for each, however often it was asked for");
}

#[tokio::test]
async fn two_secrets_are_good_for_a_while_after_a_rotation() {
    let site = Site::open().await;
    let mut command = client("job", with_grants(&[GrantType::ClientCredentials]));
    command.secret_hash = digest(b"old");
    register(&site, command).await;
    let with = async |secret: &str| {
        site.token(Some(("job", secret)), &[("grant_type", "client_credentials")]).await.status
    };
    assert_eq!((with("old").await, with(SECRET).await), (StatusCode::OK, StatusCode::UNAUTHORIZED));
    change(
        &site,
        UpdateClient {
            client_id: "job".into(),
            secret_hash: Some(digest(SECRET.as_bytes())),
            keep_previous_secret_ms: 60_000,
            ..Default::default()
        },
    )
    .await;
    assert_eq!((with("old").await, with(SECRET).await), (StatusCode::OK, StatusCode::OK));
    site.node.clock().advance(Duration::from_mins(1));
    assert_eq!((with("old").await, with(SECRET).await), (StatusCode::UNAUTHORIZED, StatusCode::OK));
}

async fn exchange(site: &Site, id: &str, token: &str, more: &[(&str, &str)]) -> Page {
    let form = [("grant_type", EXCHANGE), ("subject_token", token), ("subject_token_type", ACCESS_TOKEN)];
    site.token(Some((id, SECRET)), &[&form[..], more].concat()).await
}

#[tokio::test]
async fn a_token_is_exchanged_for_no_more_and_ends_with_the_first() {
    let site = Site::open().await;
    let both = [GrantType::AuthorizationCode, GrantType::RefreshToken, GrantType::TokenExchange];
    register(&site, client("front", with_grants(&both))).await;
    let mut back = client("back", with_grants(&[GrantType::TokenExchange]));
    back.tokens.as_mut().unwrap().audiences = vec!["https://back.test".into()];
    back.scopes = ["openid", "read"].map(str::to_owned).to_vec();
    register(&site, back).await;
    let code = site.code("front", &[("scope", "openid profile read write")]).await;
    let tokens = site.redeem("front", &code).await.json();
    let first = text(&tokens["access_token"]);

    // The client `back` may not exchange it, because it is not in the audience.
    assert_eq!(exchange(&site, "back", first, &[]).await.json()["error"], "invalid_request");
    assert_eq!(exchange(&site, "web", first, &[]).await.json()["error"], "unauthorized_client");
    let narrowed = [("scope", "read"), ("audience", "https://back.test")];
    let page = exchange(&site, "front", first, &narrowed).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    let handed = page.json();
    assert_eq!((&handed["issued_token_type"], &handed["scope"]), (&json!(ACCESS_TOKEN), &json!("read")));
    let second = text(&handed["access_token"]);
    let said = claims(second);
    assert_eq!(
        (&said["aud"], &said["act"], &said["sub"]),
        (&json!("https://back.test"), &json!({"sub": "front"}), &claims(first)["sub"])
    );
    assert!(said["exp"].as_u64() <= claims(first)["exp"].as_u64());
    assert_eq!(introspect(&site, "back", second).await["active"], true, "it is for the back");
    assert_eq!(site.userinfo(second).await.status, StatusCode::UNAUTHORIZED, "and not for userinfo");

    let third = exchange(&site, "back", second, &[]).await.json();
    let third = text(&third["access_token"]).to_owned();
    assert_eq!(claims(&third)["act"], json!({"sub": "back", "act": {"sub": "front"}}));
    assert_eq!(claims(&third)["client_id"], "back");

    for (token, more, error) in [
        (first, vec![("scope", "email")], "invalid_scope"),
        (second, vec![("scope", "write")], "invalid_scope"),
        (first, vec![("audience", "nobody")], "invalid_target"),
        (first, vec![("resource", "https://back.test")], "invalid_target"),
        (first, vec![("actor_token", "x")], "invalid_request"),
        (first, vec![("requested_token_type", "urn:ietf:params:oauth:token-type:jwt")], "invalid_request"),
        (text(&tokens["id_token"]), vec![], "invalid_request"),
        (text(&tokens["refresh_token"]), vec![], "invalid_request"),
        ("x", vec![], "invalid_request"),
    ] {
        assert_eq!(exchange(&site, "front", token, &more).await.json()["error"], error, "{more:?}");
    }
    assert_eq!(introspect(&site, "back", &third).await["active"], true);
    assert_eq!(revoke(&site, "front", first).await.status, StatusCode::OK);
    for token in [second, third.as_str()] {
        assert_eq!(introspect(&site, "back", token).await, inactive(), "its first is gone");
    }
}

#[tokio::test]
async fn a_client_that_may_no_longer_exchange_loses_what_it_exchanged() {
    let site = Site::open().await;
    let both = [GrantType::AuthorizationCode, GrantType::TokenExchange];
    register(&site, client("front", with_grants(&both))).await;
    register(&site, client("back", with_grants(&[GrantType::TokenExchange]))).await;
    let tokens = site.redeem("front", &site.code("front", &[]).await).await.json();
    assert!(tokens.get("refresh_token").is_none(), "it may not refresh");
    let handed =
        exchange(&site, "front", text(&tokens["access_token"]), &[("audience", "back")]).await.json();
    let own = exchange(&site, "back", text(&handed["access_token"]), &[]).await.json();
    let own = text(&own["access_token"]);
    assert_eq!(introspect(&site, "back", own).await["active"], true);
    let none = GrantTypes { grant_types: vec![GrantType::ClientCredentials.into()] };
    change(
        &site,
        UpdateClient {
            client_id: "back".into(),
            tokens: Some(ClientTokensChange { grant_types: Some(none), ..Default::default() }),
            ..Default::default()
        },
    )
    .await;
    assert_eq!(introspect(&site, "back", own).await, inactive());
}

#[tokio::test]
async fn discovery_names_the_token_side_and_every_endpoint_is_there() {
    let site = Site::open().await;
    let document = site.get(&mut Browser::default(), "/.well-known/openid-configuration").await.json();
    for endpoint in ["introspection_endpoint", "revocation_endpoint"] {
        let path = text(&document[endpoint]).strip_prefix(ISSUER).unwrap();
        let page = site.call(path, &[], &[("token", "x")]).await;
        assert_eq!(page.json()["error"], "invalid_client", "{endpoint}");
    }
    for grant_type in document["grant_types_supported"].as_array().unwrap() {
        let page = site.token(Some(("web", SECRET)), &[("grant_type", text(grant_type))]).await;
        assert_ne!(page.json()["error"], "unsupported_grant_type", "{grant_type}");
    }
    let all = json!(["RS256", "PS256", "ES256", "EdDSA"]);
    for list in [
        "id_token_signing_alg_values_supported",
        "userinfo_signing_alg_values_supported",
        "token_endpoint_auth_signing_alg_values_supported",
        "introspection_signing_alg_values_supported",
        "dpop_signing_alg_values_supported",
    ] {
        assert_eq!(document[list], all, "{list}");
    }
    assert_eq!(document["subject_types_supported"], json!(["public", "pairwise"]));
}
