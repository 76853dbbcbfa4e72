//! The defaults of ordinary relying parties and resource servers work, and a refusal says how to fix the request.

use conclave_crypto::jwk::Alg;
use conclave_proto::command::v1::{ClaimRule, ClaimRules, ClientTokensChange, SigningAlgorithm, Uris};
use http::StatusCode;
use serde_json::json;

use super::{
    oidc_assertions::{asserted, assertion, client_key, signing_client},
    oidc_tokens::{ISSUER, claims, register},
    site::{Browser, SECRET, Site, basic, redemption},
};

const UNKNOWN_TOKEN: [(&str, &str); 1] = [("token", "x")];

#[tokio::test]
async fn a_secret_is_taken_by_header_or_body_unless_the_client_is_strict() {
    let site = Site::open().await;
    site.raise_level().await;
    let in_body = |id: &'static str, secret: &'static str| {
        [("token", "x"), ("client_id", id), ("client_secret", secret)]
    };
    let call = async |headers: &[(&str, String)], form: &[(&str, &str)]| {
        site.call("/oidc/introspect", headers, form).await
    };
    for id in ["web", "post"] {
        assert_eq!(call(&[basic(id, SECRET)], &UNKNOWN_TOKEN).await.status, StatusCode::OK, "{id} header");
        assert_eq!(call(&[], &in_body(id, SECRET)).await.status, StatusCode::OK, "{id} body");
        let both = call(&[basic(id, SECRET)], &in_body(id, SECRET)).await;
        assert_eq!(both.status, StatusCode::OK, "{id} the same in both");
        let two = call(&[basic(id, SECRET)], &in_body(id, "another")).await;
        assert_eq!(two.json()["error"], "invalid_request", "{id} two secrets");
        let wrong = call(&[], &in_body(id, "wrong")).await;
        assert_eq!(wrong.json()["error"], "invalid_client");
        assert!(!wrong.text.contains("strict"), "{}", wrong.text);
        site.change(id, |client| client.strict_authentication = Some(true)).await;
    }
    let wrong_place = call(&[], &in_body("web", SECRET)).await;
    assert_eq!(wrong_place.status, StatusCode::UNAUTHORIZED);
    assert!(wrong_place.text.contains("client_secret_basic"), "{}", wrong_place.text);
    let wrong_place = call(&[basic("post", SECRET)], &UNKNOWN_TOKEN).await;
    assert_eq!(wrong_place.status, StatusCode::UNAUTHORIZED);
    assert!(wrong_place.text.contains("client_secret_post"), "{}", wrong_place.text);
    let wrong = call(&[], &in_body("web", "wrong")).await;
    assert!(!wrong.text.contains("the secret is right"), "only for the right secret: {}", wrong.text);
}

#[tokio::test]
async fn a_public_client_may_send_a_secret_which_counts_for_nothing() {
    let site = Site::open().await;
    for secret in ["", "built-in"] {
        let code = site.code("spa", &[]).await;
        let page = site.call("/oidc/token", &[basic("spa", secret)], &redemption(&code)).await;
        assert_eq!(page.status, StatusCode::OK, "{secret:?} in the header: {}", page.text);
        let code = site.code("spa", &[]).await;
        let own = [("client_id", "spa"), ("client_secret", secret)];
        let page = site.call("/oidc/token", &[], &[&redemption(&code)[..], &own].concat()).await;
        assert_eq!(page.status, StatusCode::OK, "{secret:?} in the body: {}", page.text);
    }
    let page = site.call("/oidc/introspect", &[basic("spa", "built-in")], &UNKNOWN_TOKEN).await;
    assert_eq!(page.json()["error"], "invalid_client", "it has proved nothing");
}

#[tokio::test]
async fn an_assertion_may_name_its_own_endpoint_alone_in_a_list_and_have_broken_times() {
    let site = Site::open().await;
    let key = client_key(Alg::Es256);
    register(&site, signing_client("signs", &[&key], SigningAlgorithm::Es256)).await;
    let jwt_bearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    for (n, path) in ["/oidc/introspect", "/oidc/revoke"].into_iter().enumerate() {
        let mut claims = assertion("signs", &format!("own-{n}"));
        claims["aud"] = json!(format!("{ISSUER}{path}"));
        let signed = key.sign("JWT", &claims).unwrap();
        let form = [("token", "x"), ("client_assertion_type", jwt_bearer), ("client_assertion", &*signed)];
        assert_eq!(site.call(path, &[], &form).await.status, StatusCode::OK, "{path}");
    }
    let mut claims = assertion("signs", "list");
    claims["aud"] = json!([ISSUER]);
    let seconds = claims["iat"].as_f64().unwrap();
    claims["iat"] = json!(seconds + 0.25);
    claims["exp"] = json!(seconds + 60.75);
    let page = asserted(&site, &key.sign("JWT", &claims).unwrap(), &[]).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    let mut claims = assertion("signs", "foreign");
    claims["aud"] = json!(format!("{ISSUER}/oidc/revoke"));
    let page = asserted(&site, &key.sign("JWT", &claims).unwrap(), &[]).await;
    assert_eq!(page.json()["error"], "invalid_client", "made for another endpoint");
}

#[tokio::test]
async fn a_client_is_let_off_pkce_and_nonce_by_an_explicit_word_and_else_told_what_is_missing() {
    let site = Site::open().await;
    site.raise_level().await;
    let bare = [("code_challenge", ""), ("code_challenge_method", ""), ("nonce", "")];
    let why = async |client: &str| {
        let page = site.get(&mut Browser::default(), &Site::authorize_url(client, &bare)).await;
        page.parameter("error_description").unwrap_or_default()
    };
    assert!(why("web").await.contains("PKCE with S256 is required"));
    site.change("web", |client| client.pkce_optional = Some(true)).await;
    assert!(why("web").await.contains("or a nonce"), "{}", why("web").await);
    site.change("web", |client| client.pkce_without_nonce = Some(true)).await;
    let code = site.code("web", &bare).await;
    let mut form = redemption(&code).to_vec();
    form.pop();
    assert_eq!(site.token(Some(("web", SECRET)), &form).await.status, StatusCode::OK);
    assert!(why("spa").await.contains("PKCE with S256 is required"));
}

#[tokio::test]
async fn a_code_comes_in_the_fragment_where_that_is_asked_for_and_errors_where_their_client_looks() {
    let site = Site::open().await;
    let get = async |more: &[(&str, &str)]| {
        site.get(&mut Browser::default(), &Site::authorize_url("web", more)).await.location()
    };
    let error = get(&[("response_mode", "fragment"), ("prompt", "none")]).await;
    assert!(error.contains("#error=login_required"), "{error}");
    for (response_type, place) in [("id_token", '#'), ("code id_token", '#'), ("token", '#'), ("none", '&')] {
        let error = get(&[("response_type", response_type)]).await;
        assert!(error.contains(&format!("{place}error=unsupported_response_type")), "{error}");
    }
    let error = get(&[("response_type", "id_token"), ("response_mode", "query")]).await;
    assert!(error.contains("&error=") && !error.contains('#'), "as asked for: {error}");
}

#[tokio::test]
async fn applications_of_other_origins_may_send_any_header_and_read_every_answer() {
    use axum::body::Body;
    use http::{Request, header};

    let site = Site::open().await;
    let anywhere = |page: &super::site::Page| {
        page.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_some_and(|origin| origin == "*")
    };
    for path in
        ["/oidc/token", "/oidc/register", "/oidc/register/x", "/.well-known/oauth-authorization-server"]
    {
        let request = Request::options(path)
            .header(header::ORIGIN, "https://spa.example.org")
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET")
            .header(header::ACCESS_CONTROL_REQUEST_HEADERS, "mcp-protocol-version")
            .body(Body::empty())
            .unwrap();
        let page = site.send("192.0.2.1", request).await;
        let allowed = page.headers[header::ACCESS_CONTROL_ALLOW_HEADERS].to_str().unwrap();
        assert!(allowed.split(", ").any(|name| name == "*"), "{path}: {allowed}");
        assert!(allowed.contains("authorization") && anywhere(&page), "{path}");
        assert!(!page.headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS), "{path}");
    }
    let request = Request::delete("/oidc/token").body(Body::empty()).unwrap();
    let page = site.send("192.0.2.1", request).await;
    assert_eq!(page.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(anywhere(&page), "a refusal that no handler makes");
    let request = Request::post("/oidc/token").body(Body::from(vec![b'a'; 65 * 1024])).unwrap();
    let page = site.send("192.0.2.1", request).await;
    assert_eq!(page.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(anywhere(&page), "a refusal that no route sees");
}

#[tokio::test]
async fn errors_reach_a_client_that_misreads_iss_without_it() {
    let site = Site::open().await;
    site.raise_level().await;
    let wrong_hint = ("id_token_hint", "not-a-token");
    let mistakes = [("scope", "unknown"), ("prompt", "none"), wrong_hint];
    let issuer = async |more: (&str, &str)| {
        let page = site.get(&mut Browser::default(), &Site::authorize_url("web", &[more])).await;
        assert!(page.parameter("error").is_some(), "{}", page.location());
        page.parameter("iss")
    };
    for mistake in mistakes {
        assert_eq!(issuer(mistake).await.as_deref(), Some(ISSUER), "{mistake:?}");
    }
    site.change("web", |client| client.omit_error_issuer = Some(true)).await;
    for mistake in mistakes {
        assert_eq!(issuer(mistake).await, None, "{mistake:?}");
    }
    let page = site
        .sign_in_at(&mut Browser::default(), &Site::authorize_url("web", &[]), "ada", super::site::PASSWORD)
        .await;
    assert_eq!(page.parameter("iss").as_deref(), Some(ISSUER), "a code still comes with it");
}

#[tokio::test]
async fn a_signed_access_token_says_groups_and_own_claims_where_granted_within_a_bound() {
    let site = Site::open().await;
    let own = |expression: &str| ClientTokensChange {
        claims: Some(ClaimRules {
            claims: vec![
                ClaimRule {
                    name: "realm_access".into(),
                    scope: "profile".into(),
                    expression: expression.into(),
                },
                // The name of a claim that the cluster itself reads in tokens.
                ClaimRule { name: "exchanged".into(), expression: "'no'".into(), ..ClaimRule::default() },
            ],
        }),
        ..ClientTokensChange::default()
    };
    site.change("web", |client| client.tokens = Some(own("{\"roles\": user.groups}"))).await;
    let token = async |scope: &str| {
        let code = site.code("web", &[("scope", scope)]).await;
        site.redeem("web", &code).await.json()["access_token"].as_str().unwrap().to_owned()
    };
    let with_all = token("openid profile groups").await;
    let said = claims(&with_all);
    assert_eq!((&said["groups"], &said["realm_access"]), (&json!(["staff"]), &json!({ "roles": ["staff"] })));
    assert!(said.get("name").is_none(), "no more than that: {said}");
    assert_eq!(site.userinfo(&with_all).await.status, StatusCode::OK);
    let said = claims(&token("openid").await);
    assert!(said.get("groups").is_none() && said.get("realm_access").is_none(), "{said}");

    // Too long for an access token, which omits them: introspection has them.
    let long = format!("'{}' + '{}'", "x".repeat(1_000), "y".repeat(1_000));
    site.change("web", |client| client.tokens = Some(own(&format!("[{long}, user.id]")))).await;
    let long = token("openid profile groups").await;
    assert!(claims(&long).get("groups").is_none(), "{}", claims(&long));
    let facts = site.call("/oidc/introspect", &[basic("web", SECRET)], &[("token", &long)]).await.json();
    assert_eq!(facts["groups"], json!(["staff"]), "{facts}");
    assert!(facts["realm_access"].to_string().len() > 2_000, "{facts}");
}

#[tokio::test]
async fn userinfo_says_in_its_body_too_what_is_wrong() {
    let site = Site::open().await;
    let page = site.userinfo("not-a-token").await;
    assert_eq!(
        (page.status, page.json()["error"].clone()),
        (StatusCode::UNAUTHORIZED, json!("invalid_token"))
    );
    assert!(page.headers[http::header::WWW_AUTHENTICATE].to_str().unwrap().contains("invalid_token"));
}

#[tokio::test]
async fn introspection_names_the_person_and_what_the_scopes_give_away() {
    let site = Site::open().await;
    let introspected = async |scope: &str| {
        let code = site.code("web", &[("scope", scope)]).await;
        let token = site.redeem("web", &code).await.json()["access_token"].as_str().unwrap().to_owned();
        site.call("/oidc/introspect", &[basic("web", SECRET)], &[("token", &token)]).await.json()
    };
    let facts = introspected("openid groups").await;
    assert_eq!((&facts["active"], &facts["username"]), (&json!(true), &json!("ada")), "{facts}");
    assert!(facts["groups"] == json!(["staff"]) && facts.get("name").is_none(), "{facts}");
    assert!(introspected("openid").await.get("groups").is_none());
}

#[tokio::test]
async fn a_token_is_for_the_default_resources_where_the_application_names_none() {
    let site = Site::open().await;
    site.raise_level().await;
    let resource = || Some(Uris { uris: vec!["https://api.rp.test".into()] });
    site.change("web", |client| {
        client.resources = resource();
        client.default_resources = resource();
    })
    .await;
    let code = site.code("web", &[]).await;
    let token = site.redeem("web", &code).await.json()["access_token"].as_str().unwrap().to_owned();
    let aud = claims(&token)["aud"].to_string();
    assert!(aud.contains("https://api.rp.test"), "{aud}");
}
