//! The OpenID Provider: the responses that a relying party gets, and the requests that are refused.

use std::time::Duration;

use axum::body::Body;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_node::testing::TestNode;
use conclave_proto::command::v1::{
    ClientAuthMethod, ConsentMode, CreateClient, RemoveGroupMember, SigningAlgorithm, UpdateClient,
    UpdateUser, command::Body as Command,
};
use http::{Request, StatusCode};
use serde_json::{Value, json};

use super::site::{Browser, PASSWORD, REDIRECT_URI, SECRET, Site, VERIFIER, redemption};

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

#[tokio::test]
async fn the_code_flow_gives_verified_tokens_and_userinfo() {
    let site = Site::open().await;
    let page =
        site.sign_in_at(&mut Browser::default(), &Site::authorize_url("web", &[]), "ada", PASSWORD).await;
    assert!(page.location().starts_with(&format!("{REDIRECT_URI}&code=")), "{}", page.location());
    assert_eq!(page.parameter("state").unwrap(), "s t");
    assert_eq!(page.parameter("iss").unwrap(), "http://127.0.0.1:9000");
    let tokens = site.redeem("web", &page.parameter("code").unwrap()).await;
    assert_eq!(
        (tokens.status, tokens.headers["cache-control"].to_str().unwrap()),
        (StatusCode::OK, "no-store")
    );
    let tokens = tokens.json();
    assert_eq!((&tokens["token_type"], &tokens["expires_in"]), (&json!("Bearer"), &json!(600)));
    let id = claims(tokens["id_token"].as_str().unwrap());
    assert_eq!((&id["aud"], &id["nonce"], &id["groups"]), (&json!("web"), &json!("n"), &json!(["staff"])));
    assert_eq!(id["exp"].as_u64().unwrap() - id["iat"].as_u64().unwrap(), 600);
    let info = site.userinfo(tokens["access_token"].as_str().unwrap()).await.json();
    assert_eq!((&info["sub"], &info["preferred_username"]), (&id["sub"], &json!("ada")));
}

#[tokio::test]
async fn discovery_says_what_is_true_and_jwks_has_every_key() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let document = site.get(&mut browser, "/.well-known/openid-configuration").await.json();
    assert_eq!(document["issuer"], "http://127.0.0.1:9000");
    assert_eq!(document["request_uri_parameter_supported"], false);
    assert_eq!(document["code_challenge_methods_supported"], json!(["S256"]));
    for endpoint in
        ["authorization_endpoint", "token_endpoint", "userinfo_endpoint", "jwks_uri", "end_session_endpoint"]
    {
        let url = document[endpoint].as_str().unwrap();
        let page = site.get(&mut browser, url).await;
        assert_ne!(page.status, StatusCode::NOT_FOUND, "{endpoint}");
    }
    let keys = site.get(&mut browser, "/oidc/jwks").await.json();
    let mut algorithms: Vec<_> =
        keys["keys"].as_array().unwrap().iter().map(|k| k["alg"].as_str().unwrap().to_owned()).collect();
    algorithms.sort();
    assert_eq!(algorithms, ["ES256", "EdDSA", "RS256"]);
    assert!(
        keys["keys"].as_array().unwrap().iter().all(|key| key.get("d").is_none()),
        "a private key is published"
    );
}

#[tokio::test]
async fn nothing_is_sent_to_a_redirect_uri_that_is_not_registered_to_the_letter() {
    let site = Site::open().await;
    for uri in [
        "",
        "https://rp.test/cb",
        "https://rp.test/cb?kept=1&x",
        "https://rp.test/cb?kept=1#f",
        "https://rp.test/CB?kept=1",
        "https://rp.test:443/cb?kept=1",
        "https://rp.test/cb/?kept=1",
        "https://rp.test/x/../cb?kept=1",
        "https://evil@rp.test/cb?kept=1",
        "https://rp.test\\@evil.test/cb?kept=1",
        "http://rp.test/cb?kept=1",
        "javascript:alert(1)",
        "//rp.test/cb?kept=1",
        " https://rp.test/cb?kept=1",
    ] {
        let page =
            site.get(&mut Browser::default(), &Site::authorize_url("web", &[("redirect_uri", uri)])).await;
        assert_eq!(
            (page.status, page.shown("error-code").as_str()),
            (StatusCode::BAD_REQUEST, "redirect_uri_mismatch"),
            "{uri}"
        );
        assert!(!page.headers.contains_key("location"));
    }
    for client in ["", "nobody", "web\u{0}"] {
        let page =
            site.get(&mut Browser::default(), &Site::authorize_url("web", &[("client_id", client)])).await;
        assert_eq!(
            (page.status, page.shown("error-code").as_str()),
            (StatusCode::BAD_REQUEST, "unknown_client")
        );
    }
    let twice = format!("{}&client_id=web", Site::authorize_url("web", &[]));
    assert_eq!(site.get(&mut Browser::default(), &twice).await.shown("error-code"), "bad_request");
}

#[tokio::test]
async fn mistakes_are_told_to_the_client_by_their_names() {
    let site = Site::open().await;
    for (parameter, value, error) in [
        ("response_type", "none", "unsupported_response_type"),
        ("response_type", "", "invalid_request"),
        ("response_mode", "web_message", "invalid_request"),
        ("code_challenge", "", "invalid_request"),
        ("code_challenge", "short", "invalid_request"),
        ("code_challenge_method", "plain", "invalid_request"),
        ("code_challenge_method", "", "invalid_request"),
        ("scope", "unknown", "invalid_scope"),
        ("scope", "", "invalid_scope"),
        ("request", "x", "request_not_supported"),
        ("request_uri", "urn:x", "request_uri_not_supported"),
        ("prompt", "none login", "invalid_request"),
        ("prompt", "dance", "invalid_request"),
        ("max_age", "soon", "invalid_request"),
        ("prompt", "none", "login_required"),
    ] {
        let page =
            site.get(&mut Browser::default(), &Site::authorize_url("web", &[(parameter, value)])).await;
        assert!(page.location().starts_with(REDIRECT_URI), "{parameter}={value}");
        assert_eq!(page.parameter("error").as_deref(), Some(error), "{parameter}={value}");
        assert_eq!(page.parameter("state").as_deref(), Some("s t"));
        assert_eq!(page.parameter("iss").as_deref(), Some("http://127.0.0.1:9000"));
    }
    let tolerated =
        Site::authorize_url("web", &[("display", "touch"), ("ui_locales", "de"), ("whatever", "1")]);
    assert!(site.get(&mut Browser::default(), &tolerated).await.location().starts_with("/login?"));
}

#[tokio::test]
async fn prompt_and_max_age_ask_again_and_none_never_asks() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/", "ada", PASSWORD).await;
    let auth_time = async |browser: &mut Browser, more: &[(&str, &str)]| {
        let page = site.get(browser, &Site::authorize_url("web", more)).await;
        let code = page.parameter("code").unwrap_or_else(|| panic!("{}", page.location()));
        claims(site.redeem("web", &code).await.json()["id_token"].as_str().unwrap())["auth_time"]
            .as_u64()
            .unwrap()
    };
    let first = auth_time(&mut browser, &[("prompt", "none")]).await;
    site.node.clock().advance(Duration::from_secs(100));
    assert_eq!(auth_time(&mut browser, &[("max_age", "10000")]).await, first);
    assert_eq!(auth_time(&mut browser, &[("prompt", "none"), ("max_age", "10000")]).await, first);
    let old =
        site.get(&mut browser, &Site::authorize_url("web", &[("prompt", "none"), ("max_age", "10")])).await;
    assert_eq!(old.parameter("error").as_deref(), Some("login_required"));
    for more in [[("prompt", "login")], [("max_age", "1")]] {
        let page = site.sign_in_at(&mut browser, &Site::authorize_url("web", &more), "ada", PASSWORD).await;
        let code = page.parameter("code").expect("a login that asks again comes home");
        let id = claims(site.redeem("web", &code).await.json()["id_token"].as_str().unwrap());
        assert!(id["auth_time"].as_u64().unwrap() >= first + 100);
        site.node.clock().advance(Duration::from_secs(100));
    }
}

#[tokio::test]
async fn authorization_by_post_works_from_another_site() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/", "ada", PASSWORD).await;
    let (path, query) =
        Site::authorize_url("web", &[]).split_once('?').map(|(p, q)| (p.to_owned(), q.to_owned())).unwrap();
    // A cross-site POST carries no cookie; the browser sends it with the GET that follows.
    let request = Request::post(&path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(query))
        .unwrap();
    let page = site.send("192.0.2.1", request).await;
    let page = site.get(&mut browser, &page.location()).await;
    assert!(page.parameter("code").is_some());
}

#[tokio::test]
async fn consent_is_asked_bound_to_what_was_shown_and_good_once() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let page = site.sign_in_at(&mut browser, &Site::authorize_url("asks", &[]), "ada", PASSWORD).await;
    assert_eq!((page.status, page.shown("application").as_str()), (StatusCode::OK, "Client asks"));
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let answer = |decision| [("ticket", ticket.clone()), ("csrf", csrf.clone()), ("decision", decision)];
    let form = answer("allow".to_owned());
    let form: Vec<(&str, &str)> = form.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let denied = answer("deny".to_owned());
    let denied: Vec<(&str, &str)> = denied.iter().map(|(n, v)| (*n, v.as_str())).collect();
    assert_eq!(
        site.post(&mut browser, "/consent", &denied).await.parameter("error").as_deref(),
        Some("access_denied")
    );
    // A second click gets the first response, and another code once the first one was redeemed.
    let mut twin = Browser { cookies: browser.cookies.clone() };
    let first = site.post(&mut browser, "/consent", &form).await;
    assert_eq!(site.post(&mut twin, "/consent", &form).await.location(), first.location());
    let code = first.parameter("code").unwrap();
    assert_eq!(site.redeem("asks", &code).await.status, StatusCode::OK);
    let again = site.post(&mut browser, "/consent", &form).await.parameter("code").unwrap();
    assert_ne!(again, code);
    assert_eq!(site.redeem("asks", &again).await.status, StatusCode::OK);
    // Later the user is asked anew.
    site.node.clock().advance(Duration::from_mins(3));
    let page = site.post(&mut browser, "/consent", &form).await;
    assert!(page.text.contains("id=\"consent-form\""), "{}", page.text);
    let silent = site.get(&mut browser, &Site::authorize_url("asks", &[("prompt", "none")])).await;
    assert_eq!(silent.parameter("error").as_deref(), Some("consent_required"));
}

#[tokio::test]
async fn a_consent_page_shown_to_one_person_is_not_answered_by_the_next() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let page = site.sign_in_at(&mut browser, &Site::authorize_url("asks", &[]), "ada", PASSWORD).await;
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    site.sign_in_at(&mut browser, &Site::authorize_url("web", &[("prompt", "login")]), "bob", PASSWORD).await;
    let form = [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("decision", "allow")];
    let page = site.post(&mut browser, "/consent", &form).await;
    assert_eq!(page.status, StatusCode::OK, "bob is asked himself");
    assert!(page.text.contains("id=\"consent-form\"") && page.text.contains("bob"));
}

#[tokio::test]
async fn an_id_token_hint_names_who_must_be_signed_in() {
    let site = Site::open().await;
    let hint = site.redeem("web", &site.code("web", &[]).await).await.json()["id_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/", "bob", PASSWORD).await;
    let url = |hint: &str| Site::authorize_url("web", &[("prompt", "none"), ("id_token_hint", hint)]);
    assert_eq!(
        site.get(&mut browser, &url(&hint)).await.parameter("error").as_deref(),
        Some("login_required")
    );
    assert_eq!(
        site.get(&mut browser, &url("garbage")).await.parameter("error").as_deref(),
        Some("invalid_request")
    );
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/", "ada", PASSWORD).await;
    assert!(site.get(&mut browser, &url(&hint)).await.parameter("code").is_some());
}

#[tokio::test]
async fn a_login_form_sent_again_goes_on_to_the_client_with_a_code() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let page = site.get(&mut browser, &Site::authorize_url("web", &[])).await;
    let page = site.get(&mut browser, &page.location()).await;
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let form =
        [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("username", "ada"), ("password", PASSWORD)];
    for _ in 0..2 {
        let page = site.post(&mut browser, "/login", &form).await;
        let code = page.parameter("code").unwrap_or_else(|| panic!("{}", page.location()));
        assert_eq!(site.redeem("web", &code).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn another_clients_second_use_of_a_code_ends_nothing() {
    let site = Site::open().await;
    let code = site.code("web", &[]).await;
    let access = site.redeem("web", &code).await.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(site.redeem("asks", &code).await.json()["error"], "invalid_grant");
    assert_eq!(site.userinfo(&access).await.status, StatusCode::OK);
}

#[tokio::test]
async fn who_may_not_open_the_application_is_told_in_a_page() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let page = site.sign_in_at(&mut browser, &Site::authorize_url("staff-only", &[]), "bob", PASSWORD).await;
    assert_eq!((page.status, page.shown("account").as_str()), (StatusCode::FORBIDDEN, "bob"));
    let silent = site.get(&mut browser, &Site::authorize_url("staff-only", &[("prompt", "none")])).await;
    assert_eq!(silent.parameter("error").as_deref(), Some("access_denied"));
}

#[tokio::test]
async fn a_code_is_redeemed_once_by_its_own_client_uri_and_verifier() {
    let site = Site::open().await;
    let code = site.code("web", &[]).await;
    let invalid_grant = |page: super::site::Page, why: &str| {
        assert_eq!(
            (page.status, page.json()["error"].clone()),
            (StatusCode::BAD_REQUEST, json!("invalid_grant")),
            "{why}"
        );
    };
    invalid_grant(site.redeem("asks", &code).await, "another client");
    let mut form = redemption(&code);
    form[2].1 = "https://rp.test/other";
    invalid_grant(site.token(Some(("web", SECRET)), &form).await, "another URI");
    let mut form = redemption(&code);
    form[3].1 = "eBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    invalid_grant(site.token(Some(("web", SECRET)), &form).await, "another verifier");
    let mut form = redemption(&code);
    form[3].1 = "short";
    invalid_grant(site.token(Some(("web", SECRET)), &form).await, "a short verifier");
    for bad in ["x", &code[1..], &code.replace(&code[30..31], if &code[30..31] == "A" { "B" } else { "A" })] {
        invalid_grant(site.redeem("web", bad).await, "a damaged code");
    }
    let tokens = site.redeem("web", &code).await.json();
    invalid_grant(site.redeem("web", &code).await, "a second use");
    // The second use also revokes the tokens of the first.
    assert_eq!(
        site.userinfo(tokens["access_token"].as_str().unwrap()).await.status,
        StatusCode::UNAUTHORIZED
    );
    invalid_grant(site.refresh(tokens["refresh_token"].as_str().unwrap()).await, "its refresh token");

    let late = site.code("web", &[]).await;
    site.node.clock().advance(Duration::from_mins(1));
    invalid_grant(site.redeem("web", &late).await, "too late");
}

#[tokio::test]
async fn of_many_parallel_redemptions_one_succeeds_and_a_named_retry_gets_its_answer() {
    let site = Site::open().await;
    let code = site.code("web", &[]).await;
    let many = futures_util::future::join_all((0..32).map(|_| site.redeem("web", &code))).await;
    assert_eq!(many.iter().filter(|page| page.status == StatusCode::OK).count(), 1);

    let code = site.code("web", &[]).await;
    let retry =
        async || site.token_with(Some(("web", SECRET)), &redemption(&code), Some("one try")).await.json();
    let (first, second) = (retry().await, retry().await);
    // ECDSA signatures are random; the signed claims and the refresh token are equal.
    for token in ["access_token", "id_token"] {
        let of = |answer: &Value| {
            let mut claims = claims(answer[token].as_str().unwrap());
            claims.as_object_mut().unwrap().remove("at_hash");
            claims
        };
        assert_eq!(of(&first), of(&second), "the retry of a lost answer gets the same {token}");
    }
    assert_eq!(first["refresh_token"], second["refresh_token"]);
    // That key with another body is another request.
    let mut other = redemption(&code).to_vec();
    other.push(("x", "y"));
    assert_eq!(
        site.token_with(Some(("web", SECRET)), &other, Some("one try")).await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn refresh_rotates_repeats_a_lost_answer_and_ends_on_reuse() {
    let site = Site::open().await;
    let tokens = site.redeem("web", &site.code("web", &[]).await).await.json();
    let first = tokens["refresh_token"].as_str().unwrap().to_owned();
    let second = site.refresh(&first).await.json()["refresh_token"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    let again = site.refresh(&first).await.json()["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(second, again, "the retry of a lost answer gets the same successor");
    let wider = [
        ("grant_type", "refresh_token"),
        ("refresh_token", second.as_str()),
        ("scope", "openid offline_access"),
    ];
    assert_eq!(site.token(Some(("web", SECRET)), &wider).await.json()["error"], "invalid_scope");
    // An invalid request uses nothing up: long after, the token is still valid, and this is not a reuse.
    site.node.clock().advance(Duration::from_secs(31));
    let third = site.refresh(&second).await.json()["refresh_token"].as_str().unwrap().to_owned();
    site.node.clock().advance(Duration::from_secs(31));
    assert_eq!(site.refresh(&second).await.json()["error"], "invalid_grant");
    assert_eq!(site.refresh(&third).await.json()["error"], "invalid_grant", "reuse ends the whole line");
    assert_eq!(
        site.userinfo(tokens["access_token"].as_str().unwrap()).await.status,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_client_proves_itself_by_its_own_method_and_only_one() {
    let site = Site::open().await;
    let refused = |page: super::site::Page| {
        assert_eq!(
            (page.status, page.json()["error"].clone()),
            (StatusCode::UNAUTHORIZED, json!("invalid_client"))
        );
    };
    let code = site.code("post", &[]).await;
    let form = redemption(&code);
    site.raise_level().await;
    site.change("post", |client| client.strict_authentication = Some(true)).await;
    refused(site.token(Some(("post", SECRET)), &form).await);
    refused(site.token(Some(("web", "wrong")), &form).await);
    refused(site.token(Some(("nobody", SECRET)), &form).await);
    refused(site.token(None, &form).await);
    let with = |more: &[(&'static str, &'static str)]| [form.to_vec(), more.to_vec()].concat();
    refused(site.token(None, &with(&[("client_id", "post")])).await);
    refused(site.token(None, &with(&[("client_id", "web")])).await);
    refused(
        site.token(Some(("post", SECRET)), &with(&[("client_id", "post"), ("client_secret", SECRET)])).await,
    );
    let basic = site.token(Some(("web", "wrong")), &form).await;
    assert!(basic.headers["www-authenticate"].to_str().unwrap().starts_with("Basic"));
    let good = site.token(None, &with(&[("client_id", "post"), ("client_secret", SECRET)])).await;
    assert_eq!(good.status, StatusCode::OK, "{}", good.text);
    let code = site.code("spa", &[]).await;
    let public = [redemption(&code).to_vec(), vec![("client_id", "spa")]].concat();
    assert_eq!(site.token(None, &public).await.status, StatusCode::OK);
    for grant in [("grant_type", "password"), ("grant_type", "implicit")] {
        assert_eq!(
            site.token(Some(("web", SECRET)), &[grant]).await.json()["error"],
            "unsupported_grant_type"
        );
    }
}

#[tokio::test]
async fn what_is_revoked_is_refused_by_every_grant_and_endpoint() {
    let site = Site::open().await;
    let ada = site.node.cluster().view().user_by_name("ada").unwrap().id;
    let staff = site.node.group("staff").await;
    let commands = [
        (
            "staff-only",
            Command::RemoveGroupMember(RemoveGroupMember { group_id: staff.to_vec(), user_id: ada.to_vec() }),
        ),
        (
            "web",
            Command::UpdateClient(UpdateClient {
                client_id: "web".into(),
                disabled: Some(true),
                ..Default::default()
            }),
        ),
        (
            "post",
            Command::UpdateUser(UpdateUser {
                user_id: ada.to_vec(),
                disabled: Some(true),
                ..Default::default()
            }),
        ),
    ];
    for (client, command) in commands {
        let basic = (client != "post").then_some((client, SECRET));
        let in_body: &[(&str, &str)] =
            if client == "post" { &[("client_id", "post"), ("client_secret", SECRET)] } else { &[] };
        let (code, unused) = (site.code(client, &[]).await, site.code(client, &[]).await);
        let tokens = site.token(basic, &[&redemption(&code)[..], in_body].concat()).await.json();
        let access = tokens["access_token"].as_str().unwrap();
        assert_eq!(site.userinfo(access).await.status, StatusCode::OK);
        site.node.propose(command).await.unwrap();
        assert_eq!(site.userinfo(access).await.status, StatusCode::UNAUTHORIZED, "{client}: userinfo");
        let refresh =
            [("grant_type", "refresh_token"), ("refresh_token", tokens["refresh_token"].as_str().unwrap())];
        assert!(
            site.token(basic, &[&refresh[..], in_body].concat()).await.json()["error"].is_string(),
            "{client}: refresh"
        );
        let redeemed = site.token(basic, &[&redemption(&unused)[..], in_body].concat()).await;
        assert!(redeemed.json()["error"].is_string(), "{client}: an unused code");
    }
}

#[tokio::test]
async fn userinfo_takes_access_tokens_of_this_cluster_and_nothing_else() {
    let site = Site::open().await;
    let tokens = site.redeem("web", &site.code("web", &[]).await).await.json();
    let access = tokens["access_token"].as_str().unwrap().to_owned();
    let parts: Vec<&str> = access.split('.').collect();
    let none = URL_SAFE_NO_PAD.encode(br#"{"alg":"none","typ":"at+jwt"}"#);
    let mut other = claims(&access);
    other["sub"] = json!("somebody else");
    let forged = URL_SAFE_NO_PAD.encode(other.to_string());
    for bad in [
        tokens["id_token"].as_str().unwrap(),
        tokens["refresh_token"].as_str().unwrap(),
        &format!("{none}.{}.", parts[1]),
        &format!("{}.{forged}.{}", parts[0], parts[2]),
        &access[..access.len() - 2],
        "",
        "x",
        "..",
        "a.b.c",
    ] {
        assert_ne!(site.userinfo(bad).await.status, StatusCode::OK, "{bad}");
    }
    let body = Request::post("/oidc/userinfo").body(Body::from(format!("access_token={access}"))).unwrap();
    assert_eq!(site.send("192.0.2.1", body).await.status, StatusCode::OK);
    site.node.clock().advance(Duration::from_mins(10));
    assert_eq!(site.userinfo(&access).await.status, StatusCode::UNAUTHORIZED, "it has expired");
    assert!(VERIFIER.len() >= 43);
}

#[tokio::test]
async fn a_browser_application_of_another_origin_may_call_token_and_userinfo() {
    let site = Site::open().await;
    for path in [
        "/oidc/token",
        "/oidc/userinfo",
        "/oidc/introspect",
        "/oidc/revoke",
        "/oidc/jwks",
        "/.well-known/openid-configuration",
    ] {
        let request =
            Request::options(path).header("origin", "https://spa.test").body(Body::empty()).unwrap();
        let page = site.send("192.0.2.1", request).await;
        assert_eq!(page.status, StatusCode::NO_CONTENT, "{path}");
        assert_eq!(page.headers["access-control-allow-origin"], "*");
        assert!(page.headers["access-control-allow-headers"].to_str().unwrap().contains("authorization"));
        assert!(!page.headers.contains_key("access-control-allow-credentials"));
    }
}

#[tokio::test]
async fn logout_from_a_relying_party_asks_and_returns_to_registered_places_only() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let page = site.sign_in_at(&mut browser, &Site::authorize_url("web", &[]), "ada", PASSWORD).await;
    let tokens = site.redeem("web", &page.parameter("code").unwrap()).await.json();

    let url = |more: &[(&str, &str)]| format!("/oidc/logout?{}", super::site::encoded(more));
    let bye = ("post_logout_redirect_uri", "https://rp.test/bye");
    let page = site.get(&mut browser, &url(&[bye])).await;
    assert_eq!(page.shown("error-code"), "unknown_client");
    let unread = site.get(&mut browser, &url(&[("id_token_hint", "x.y.z"), bye])).await;
    assert_eq!(unread.location(), "/logout", "the person is asked");
    assert_eq!(site.get(&mut browser, "/").await.shown("account"), "ada");
    site.node.clock().advance(Duration::from_hours(1));
    let good =
        url(&[("client_id", "web"), ("post_logout_redirect_uri", "https://rp.test/bye"), ("state", "z")]);
    let page = site.get(&mut browser, &good).await;
    let page = site.get(&mut browser, &page.location()).await;
    let form = [("ticket", page.field("ticket")), ("csrf", page.field("csrf"))];
    let form: Vec<(&str, &str)> = form.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let page = site.post(&mut browser, "/logout", &form).await;
    assert_eq!(page.location(), "https://rp.test/bye?state=z");
    assert_eq!(site.get(&mut browser, "/").await.location(), "/login");
    assert_eq!(
        site.refresh(tokens["refresh_token"].as_str().unwrap()).await.json()["error"],
        "invalid_grant"
    );
}

#[tokio::test]
async fn an_operator_ends_a_session_and_if_told_what_outlives_it() {
    let site = Site::open().await;
    let operator = conclave_client::AdminClient::builder()
        .endpoints([site.node.api_url()])
        .token(site.node.operator_token())
        .build()
        .unwrap();
    let mut browser = Browser::default();
    let offline = Site::authorize_url("web", &[("scope", "openid offline_access")]);
    let page = site.sign_in_at(&mut browser, &offline, "ada", PASSWORD).await;
    let mut refresh_tokens = Vec::new();
    for code in [page.parameter("code"), site.get(&mut browser, &offline).await.parameter("code")] {
        let tokens = site.redeem("web", &code.unwrap()).await.json();
        refresh_tokens.push(tokens["refresh_token"].as_str().unwrap().to_owned());
    }
    let session = site.node.cluster().view().sessions_after(None).next().unwrap().id.to_string();
    let revoke = async |with_grants| {
        let command = conclave_client::v1::RevokeSessionRequest { session_id: session.clone(), with_grants };
        operator.sessions().revoke(command).await.unwrap();
    };

    revoke(false).await;
    assert_eq!(site.get(&mut browser, "/").await.location(), "/login");
    for token in &mut refresh_tokens {
        let next = site.refresh(token).await;
        assert_eq!(next.status, StatusCode::OK, "what was granted for the person's absence stays");
        next.json()["refresh_token"].as_str().unwrap().clone_into(token);
    }
    revoke(true).await;
    for token in &refresh_tokens {
        assert_eq!(site.refresh(token).await.json()["error"], "invalid_grant");
    }
    revoke(true).await;
}

/// A follower learns of a commit with the next message of its leader, so right after the acknowledgement it is behind.
#[tokio::test]
async fn a_client_that_was_registered_a_moment_ago_elsewhere_may_send_people_to_sign_out() {
    let mut nodes = TestNode::start_cluster(3).await;
    let leader = nodes.iter().position(|node| node.cluster().is_leader()).unwrap();
    let leader = nodes.swap_remove(leader);
    let follower = Site::of(nodes.swap_remove(0));
    for n in 0..20 {
        let client_id = format!("new-{n}");
        let command = CreateClient {
            client_id: client_id.clone(),
            name: "New".into(),
            auth_method: ClientAuthMethod::None.into(),
            redirect_uris: vec![REDIRECT_URI.into()],
            post_logout_redirect_uris: vec!["https://rp.test/bye".into()],
            scopes: vec!["openid".into()],
            signing_algorithm: SigningAlgorithm::Es256.into(),
            consent: ConsentMode::Implicit.into(),
            ..Default::default()
        };
        leader.propose(Command::CreateClient(command)).await.unwrap();
        let query = [("client_id", client_id.as_str()), ("post_logout_redirect_uri", "https://rp.test/bye")];
        let url = format!("/oidc/logout?{}", super::site::encoded(&query));
        let page = follower.get(&mut Browser::default(), &url).await;
        assert!(page.location().starts_with("/logout?ticket="), "{client_id}: {}", page.location());
    }
    let unknown = "/oidc/logout?client_id=nobody&post_logout_redirect_uri=https%3A%2F%2Frp.test%2Fbye";
    let page = follower.get(&mut Browser::default(), unknown).await;
    assert_eq!(page.shown("error-code"), "unknown_client");
}
