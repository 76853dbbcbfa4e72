//! The request side of the OpenID Provider: transport, contents and response modes of authorization requests.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_crypto::{jwk::Alg, jwt::JwtSigningKey};
use conclave_node::testing::{START_MS, TestNode};
use conclave_proto::command::v1::{
    Attribute, Attributes, ClientTokensChange, ConsentMode, UpdateUser, Uris, command::Body as Command,
};
use http::StatusCode;
use serde_json::{Value, json};

use super::site::{Browser, PASSWORD, Page, REDIRECT_URI, SECRET, Site, challenge, digest, redemption};

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// A field of a form that posts itself.
fn posted(page: &Page, name: &str) -> Option<String> {
    page.text.contains(&format!("name=\"{name}\"")).then(|| page.field(name))
}

fn policy(page: &Page) -> String {
    page.headers["content-security-policy"].to_str().unwrap().to_owned()
}

async fn tokens(site: &Site, client: &str, code: &str) -> Value {
    let page = site.redeem(client, code).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    page.json()
}

async fn id_token(site: &Site, code: &str) -> Value {
    claims(tokens(site, "web", code).await["id_token"].as_str().unwrap())
}

#[tokio::test]
async fn form_post_answers_in_a_form_whose_client_may_go_on_anywhere() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let url = Site::authorize_url("web", &[("response_mode", "form_post")]);
    let page = site.sign_in_at(&mut browser, &url, "ada", PASSWORD).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    assert!(
        page.text
            .contains(r#"id="form-post" method="post" action="https:&#x2f;&#x2f;rp.test&#x2f;cb?kept=1""#),
        "{}",
        page.text
    );
    assert_eq!((posted(&page, "state").as_deref(), posted(&page, "error")), (Some("s t"), None));
    assert!(posted(&page, "iss").unwrap().contains("127.0.0.1"));
    assert!(page.text.contains(r#"<button id="continue" type="submit">"#), "it works without JavaScript");

    // The policy names the script of the page, and no other script may run.
    let script = page.text.split("<script>").nth(1).unwrap().split("</script>").next().unwrap();
    let hash = base64::engine::general_purpose::STANDARD.encode(digest(script.as_bytes()));
    let policy = policy(&page);
    assert!(policy.contains(&format!("script-src 'sha256-{hash}';")), "{policy}");
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("form-action"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"));
    let code = posted(&page, "code").unwrap();
    assert_eq!(site.redeem("web", &code).await.status, StatusCode::OK);

    // With an existing session, with a refused consent, and with errors: the response mode is the one requested.
    let again = site.get(&mut browser, &url).await;
    assert!(posted(&again, "code").is_some());
    for (more, error) in [
        (("scope", "unknown"), "invalid_scope"),
        (("max_age", "soon"), "invalid_request"),
        (("response_type", "token"), "unsupported_response_type"),
        (("request", "x"), "request_not_supported"),
        (("id_token_hint", "x"), "invalid_request"),
    ] {
        let url = Site::authorize_url("web", &[("response_mode", "form_post"), more]);
        let page = site.get(&mut browser, &url).await;
        assert_eq!(posted(&page, "error").as_deref(), Some(error), "{more:?}");
        assert_eq!(posted(&page, "state").as_deref(), Some("s t"));
    }
    let silent = Site::authorize_url("web", &[("response_mode", "form_post"), ("prompt", "none")]);
    let page = site.get(&mut Browser::default(), &silent).await;
    assert_eq!(posted(&page, "error").as_deref(), Some("login_required"));
}

pub(super) async fn push(site: &Site, basic: Option<&str>, more: &[(&str, &str)]) -> Page {
    let url = Site::authorize_url("web", more);
    let query = url.split_once('?').unwrap().1;
    let pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes())
        .map(|(n, v)| (n.into_owned(), v.into_owned()))
        .collect();
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    site.client_post("/oidc/par", basic, &pairs).await
}

pub(super) fn named(client: &str, request_uri: &str) -> String {
    format!(
        "/oidc/authorize?{}",
        super::site::encoded(&[("client_id", client), ("request_uri", request_uri)])
    )
}

#[tokio::test]
async fn a_pushed_request_is_taken_once_by_its_own_client_within_its_minute() {
    let site = Site::open().await;
    let page = push(&site, Some("web"), &[("state", "pushed")]).await;
    assert_eq!(
        (page.status, page.headers["cache-control"].to_str().unwrap()),
        (StatusCode::CREATED, "no-store")
    );
    assert_eq!(page.json()["expires_in"], 60);
    let uri = page.json()["request_uri"].as_str().unwrap().to_owned();
    assert!(uri.starts_with("urn:ietf:params:oauth:request_uri:"));

    // Another client, a damaged name, no client at all: a page here, and the request stays valid.
    let damaged = format!("{}A", &uri[..uri.len() - 1]);
    for url in [named("spa", &uri), named("", &uri), named("web", &damaged), named("web", &uri[..60])] {
        let page = site.get(&mut Browser::default(), &url).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{url}");
        assert!(!page.headers.contains_key("location"));
    }
    // Parameters that the browser adds are ignored.
    let mut browser = Browser::default();
    let url = format!("{}&redirect_uri=https%3A%2F%2Fevil.test&state=theirs", named("web", &uri));
    assert!(site.get(&mut browser, &url).await.location().starts_with("/login"), "may be loaded again");
    let page = site.sign_in_at(&mut browser, &url, "ada", PASSWORD).await;
    assert!(page.location().starts_with(REDIRECT_URI));
    assert_eq!(page.parameter("state").as_deref(), Some("pushed"));
    assert_eq!(site.redeem("web", &page.parameter("code").unwrap()).await.status, StatusCode::OK);
    let page = site.get(&mut browser, &named("web", &uri)).await;
    assert_eq!(
        (page.status, page.shown("error-code").as_str()),
        (StatusCode::BAD_REQUEST, "unknown_request_uri")
    );

    let late = push(&site, Some("web"), &[]).await.json()["request_uri"].as_str().unwrap().to_owned();
    site.node.clock().advance(Duration::from_mins(1));
    let page = site.get(&mut browser, &named("web", &late)).await;
    assert_eq!(page.shown("error-code"), "unknown_request_uri");
}

#[tokio::test]
async fn two_logins_that_began_with_one_pushed_request_give_one_code() {
    let site = Site::open().await;
    let uri = push(&site, Some("web"), &[]).await.json()["request_uri"].as_str().unwrap().to_owned();
    let mut browsers = [Browser::default(), Browser::default()];
    let mut forms = Vec::new();
    for browser in &mut browsers {
        let page = site.get(browser, &named("web", &uri)).await;
        let page = site.get(browser, &page.location()).await;
        forms.push((page.field("ticket"), page.field("csrf")));
    }
    let mut codes = 0;
    for (browser, (ticket, csrf)) in browsers.iter_mut().zip(&forms) {
        let form = [("ticket", ticket.as_str()), ("csrf", csrf), ("username", "ada"), ("password", PASSWORD)];
        let page = site.post(browser, "/login", &form).await;
        codes += usize::from(page.headers.contains_key("location") && page.parameter("code").is_some());
    }
    assert_eq!(codes, 1);
}

/// Asserts that the form's final page reports that the pushed request has ended.
async fn over(site: &Site, browser: &mut Browser, answer: &Page) {
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    let page = site.walk(browser, &answer.location()).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST, "{}", page.text);
    assert_eq!(page.shown("error-code"), "unknown_request_uri");
    assert_eq!(page.link("back"), "https://rp.test");
}

async fn sign_in(site: &Site, browser: &mut Browser, form: &Page, password: &str) -> Page {
    let (ticket, csrf) = (form.field("ticket"), form.field("csrf"));
    let fields = [("ticket", ticket.as_str()), ("csrf", &csrf), ("username", "ada"), ("password", password)];
    site.submit(browser, "/login", &fields).await
}

#[tokio::test]
async fn a_pushed_request_that_is_over_is_said_to_be_and_not_asked_for_again() {
    let site = Site::open().await;
    let pushed = async |client: &str| {
        let page = push(&site, Some(client), &[("client_id", client)]).await;
        named(client, page.json()["request_uri"].as_str().unwrap())
    };
    let (fresh, late) = (Duration::from_mins(14), Duration::from_mins(3));

    // A form that was left open longer than the request's minute and the time of a sign-in.
    let mut browser = Browser::default();
    let form = site.walk(&mut browser, &pushed("web").await).await;
    site.node.clock().advance(fresh + late);
    let answer = sign_in(&site, &mut browser, &form, PASSWORD).await;
    over(&site, &mut browser, &answer).await;

    // A form that is fresh because of a mistyped password, for a request that has expired.
    let form = site.walk(&mut browser, &pushed("web").await).await;
    site.node.clock().advance(fresh);
    let answer = sign_in(&site, &mut browser, &form, "mistyped").await;
    let form = site.walk(&mut browser, &answer.location()).await;
    assert_eq!(form.shown("error"), "The username or password is wrong.");
    site.node.clock().advance(late);
    let answer = sign_in(&site, &mut browser, &form, PASSWORD).await;
    over(&site, &mut browser, &answer).await;

    // A request that became a code in another browser.
    let url = pushed("web").await;
    let mut other = Browser::default();
    let forms = [site.walk(&mut browser, &url).await, site.walk(&mut other, &url).await];
    let answer = sign_in(&site, &mut browser, &forms[0], PASSWORD).await;
    assert!(site.walk(&mut browser, &answer.location()).await.refresh().unwrap().contains("code="));
    let answer = sign_in(&site, &mut other, &forms[1], PASSWORD).await;
    over(&site, &mut other, &answer).await;
}

#[tokio::test]
async fn consent_to_a_pushed_request_that_is_over_is_not_asked_for_again() {
    let site = Site::open().await;
    let allow = async |browser: &mut Browser, page: &Page| {
        let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
        let fields = [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("decision", "allow")];
        site.submit(browser, "/consent", &fields).await
    };
    for minutes_at_consent in [1, 8] {
        let mut browser = Browser::default();
        let page = push(&site, Some("asks"), &[("client_id", "asks")]).await;
        let url = named("asks", page.json()["request_uri"].as_str().unwrap());
        let form = site.walk(&mut browser, &url).await;
        site.node.clock().advance(Duration::from_mins(10));
        let answer = sign_in(&site, &mut browser, &form, PASSWORD).await;
        let page = site.walk(&mut browser, &answer.location()).await;
        assert!(page.text.contains("consent-form"), "{}", page.text);
        site.node.clock().advance(Duration::from_mins(minutes_at_consent));
        let mut answer = allow(&mut browser, &page).await;
        if minutes_at_consent == 1 {
            assert!(site.walk(&mut browser, &answer.location()).await.refresh().unwrap().contains("code="));
            // Back, and that form once more, when the first response is no longer remembered.
            site.node.clock().advance(Duration::from_mins(3));
            answer = allow(&mut browser, &page).await;
        }
        over(&site, &mut browser, &answer).await;
    }
}

#[tokio::test]
async fn a_push_is_checked_like_the_request_itself_and_needs_the_client() {
    let site = Site::open().await;
    for (more, error) in [
        (("redirect_uri", "https://evil.test/"), "invalid_request"),
        (("scope", "unknown"), "invalid_scope"),
        (("response_type", "token"), "unsupported_response_type"),
        (("code_challenge", ""), "invalid_request"),
        (("request_uri", "urn:x"), "invalid_request"),
        (("client_id", "spa"), "invalid_request"),
        (("id_token_hint", "x"), "invalid_request"),
        (("resource", "https://api.test"), "invalid_target"),
    ] {
        let page = push(&site, Some("web"), &[more]).await;
        assert_eq!(
            (page.status, page.json()["error"].clone()),
            (StatusCode::BAD_REQUEST, json!(error)),
            "{more:?}"
        );
    }
    let stranger = push(&site, None, &[]).await;
    assert_eq!(
        (stranger.status, stranger.json()["error"].clone()),
        (StatusCode::UNAUTHORIZED, json!("invalid_client"))
    );
    let public = push(&site, None, &[("client_id", "spa")]).await;
    assert_eq!(public.status, StatusCode::CREATED, "{}", public.text);

    // A client that must push its requests gets an error at its own address.
    site.change("web", |c| c.require_pushed_authorization_requests = Some(true)).await;
    let mut browser = Browser::default();
    let direct = site.get(&mut browser, &Site::authorize_url("web", &[])).await;
    assert_eq!(direct.parameter("error").as_deref(), Some("invalid_request"));
    let uri = push(&site, Some("web"), &[]).await.json()["request_uri"].as_str().unwrap().to_owned();
    assert!(site.get(&mut browser, &named("web", &uri)).await.location().starts_with("/login"));
}

#[tokio::test]
async fn a_request_pushed_at_one_node_is_brought_to_another_and_used_once() {
    let nodes = TestNode::start_cluster(3).await;
    let mut sites: Vec<Site> = nodes.into_iter().map(Site::of).collect();
    let leader = sites.iter().position(|site| site.node.cluster().is_leader()).unwrap();
    sites.swap(0, leader);
    sites[0].seed().await;
    for round in 0..5 {
        let uri = push(&sites[0], Some("web"), &[]).await;
        let uri = uri.json()["request_uri"].as_str().unwrap().to_owned();
        let mut browsers: Vec<Browser> = (0..3).map(|_| Browser::default()).collect();
        let mut forms = Vec::new();
        for (site, browser) in sites.iter().zip(&mut browsers) {
            let page = site.get(browser, &named("web", &uri)).await;
            assert!(page.status.is_redirection(), "round {round}: {}", page.text);
            let page = site.get(browser, &page.location()).await;
            forms.push((page.field("ticket"), page.field("csrf")));
        }
        let posts = sites.iter().zip(browsers.iter_mut()).zip(&forms).map(
            |((site, browser), (ticket, csrf))| async move {
                let form = [
                    ("ticket", ticket.as_str()),
                    ("csrf", csrf),
                    ("username", "ada"),
                    ("password", PASSWORD),
                ];
                let page = site.post(browser, "/login", &form).await;
                page.headers.contains_key("location") && page.parameter("code").is_some()
            },
        );
        let won = futures_util::future::join_all(posts).await;
        assert_eq!(won.iter().filter(|won| **won).count(), 1, "round {round}");
    }
}

#[tokio::test]
async fn claims_asked_for_by_name_are_given_where_they_were_asked_for() {
    let site = Site::open().await;
    let ada = site.node.cluster().view().user_by_name("ada").unwrap().id;
    let attribute = |name: &str, value: &str| Attribute { name: name.into(), value: value.into() };
    site.node
        .propose(Command::UpdateUser(UpdateUser {
            user_id: ada.to_vec(),
            email: Some("ada@example.org".into()),
            attributes: Some(Attributes {
                entries: vec![
                    attribute("given_name", "Ada"),
                    attribute("phone_number", "+44 20 1234"),
                    attribute("locality", "London"),
                    attribute("country", "GB"),
                ],
            }),
            ..UpdateUser::default()
        }))
        .await
        .unwrap();
    let asked = r#"{"userinfo":{"given_name":{"essential":true},"phone_number":null,"odd":null},"id_token":{"email":null,"acr":{"values":["2","1"]}}}"#;
    let code = site.code("web", &[("scope", "openid"), ("claims", asked)]).await;
    let answer = tokens(&site, "web", &code).await;
    let id = claims(answer["id_token"].as_str().unwrap());
    assert_eq!(
        (&id["email"], &id["acr"], &id["given_name"]),
        (&json!("ada@example.org"), &json!("1"), &Value::Null)
    );
    let info = site.userinfo(answer["access_token"].as_str().unwrap()).await.json();
    assert_eq!((&info["given_name"], &info["phone_number"]), (&json!("Ada"), &json!("+44 20 1234")));
    assert_eq!((&info["email"], &info["odd"], &info["name"]), (&Value::Null, &Value::Null, &Value::Null));

    // The standard scopes, and acr_values.
    let all = [openid_scopes(), "address phone".to_owned()].join(" ");
    site.change("web", |c| {
        let scopes = all.split(' ').map(str::to_owned).collect();
        c.scopes = Some(conclave_proto::command::v1::Scopes { scopes });
    })
    .await;
    let code = site.code("web", &[("scope", &all), ("acr_values", "9 1")]).await;
    let id = id_token(&site, &code).await;
    assert_eq!(id["address"], json!({ "locality": "London", "country": "GB" }));
    assert_eq!((&id["phone_number_verified"], &id["acr"]), (&json!(false), &json!("1")));
    assert!(id["updated_at"].is_number() && id["email_verified"].is_boolean());

    for (claims, error) in [
        ("x", "invalid_request"),
        (r#"{"userinfo":[]}"#, "invalid_request"),
        (r#"{"id_token":{"acr":{"essential":true,"value":"7"}}}"#, "unmet_authentication_requirements"),
    ] {
        let page =
            site.get(&mut Browser::default(), &Site::authorize_url("web", &[("claims", claims)])).await;
        assert_eq!(page.parameter("error").as_deref(), Some(error), "{claims}");
    }
}

fn openid_scopes() -> String {
    "openid profile email groups".to_owned()
}

#[tokio::test]
async fn the_person_that_was_asked_for_must_be_the_one_who_signs_in() {
    let site = Site::open().await;
    let sub = id_token(&site, &site.code("web", &[]).await).await["sub"].as_str().unwrap().to_owned();
    let asked = format!(r#"{{"id_token":{{"sub":{{"value":"{sub}"}}}}}}"#);
    let url = Site::authorize_url("web", &[("claims", &asked)]);
    let page = site.sign_in_at(&mut Browser::default(), &url, "bob", PASSWORD).await;
    assert_eq!((page.parameter("error").as_deref(), page.parameter("code")), (Some("login_required"), None));
    let page = site.sign_in_at(&mut Browser::default(), &url, "ada", PASSWORD).await;
    assert!(page.parameter("code").is_some());
}

#[tokio::test]
async fn resources_of_the_client_become_the_audience() {
    let site = Site::open().await;
    site.change("web", |c| {
        c.resources = Some(Uris { uris: vec!["https://api.test".into(), "urn:other".into()] });
    })
    .await;
    let twice =
        format!("{}&resource=urn%3Aother", Site::authorize_url("web", &[("resource", "https://api.test")]));
    let page = site.sign_in_at(&mut Browser::default(), &twice, "ada", PASSWORD).await;
    let answer = tokens(&site, "web", &page.parameter("code").unwrap()).await;
    let access = answer["access_token"].as_str().unwrap();
    assert_eq!(claims(access)["aud"], json!(["https://api.test", "urn:other", "http://127.0.0.1:9000"]));
    assert_eq!(site.userinfo(access).await.status, StatusCode::OK);
    let refreshed = site.refresh(answer["refresh_token"].as_str().unwrap()).await.json();
    assert_eq!(claims(refreshed["access_token"].as_str().unwrap())["aud"][0], "https://api.test");

    // Without openid the token is for the resource alone, and is not accepted here.
    let code = site.code("web", &[("scope", "profile"), ("resource", "urn:other")]).await;
    let access = tokens(&site, "web", &code).await["access_token"].as_str().unwrap().to_owned();
    assert_eq!(claims(&access)["aud"], "urn:other");
    assert_eq!(site.userinfo(&access).await.status, StatusCode::UNAUTHORIZED);

    for wrong in ["https://api.test/", "https://evil.test", "x"] {
        let page =
            site.get(&mut Browser::default(), &Site::authorize_url("web", &[("resource", wrong)])).await;
        assert_eq!(page.parameter("error").as_deref(), Some("invalid_target"), "{wrong}");
    }
    assert_eq!(
        claims(tokens(&site, "web", &site.code("web", &[]).await).await["access_token"].as_str().unwrap())["aud"],
        "http://127.0.0.1:9000"
    );
}

#[tokio::test]
async fn a_token_is_for_those_of_the_granted_resources_that_are_asked_for() {
    let site = Site::open().await;
    site.change("web", |c| {
        let known = ["https://a.test", "https://b.test", "https://c.test"];
        c.resources = Some(Uris { uris: known.map(str::to_owned).to_vec() });
    })
    .await;
    let url = Site::authorize_url("web", &[("resource", "https://a.test"), ("scope", "profile")]);
    let url = format!("{url}&resource=https%3A%2F%2Fb.test");
    let page = site.sign_in_at(&mut Browser::default(), &url, "ada", PASSWORD).await;
    let code = page.parameter("code").unwrap();
    let basic = Some(("web", SECRET));
    let redeem = async |resource: &str| {
        let form = [redemption(&code).to_vec(), vec![("resource", resource)]].concat();
        site.token(basic, &form).await.json()
    };
    assert_eq!(redeem("https://c.test").await["error"], "invalid_target", "the client's, but not granted");
    let answer = redeem("https://b.test").await;
    assert_eq!(claims(answer["access_token"].as_str().unwrap())["aud"], "https://b.test", "{answer}");

    let token = answer["refresh_token"].as_str().unwrap().to_owned();
    let refresh = async |more: &[(&str, &str)]| {
        let form = [("grant_type", "refresh_token"), ("refresh_token", token.as_str())];
        site.token(basic, &[&form[..], more].concat()).await.json()
    };
    assert_eq!(refresh(&[("resource", "https://c.test")]).await["error"], "invalid_target");
    // The invalid request used nothing up.
    site.node.clock().advance(Duration::from_mins(5));
    let one = refresh(&[("resource", "https://a.test")]).await;
    assert_eq!(claims(one["access_token"].as_str().unwrap())["aud"], "https://a.test", "{one}");
    let both = refresh(&[]).await;
    let aud = claims(both["access_token"].as_str().unwrap())["aud"].clone();
    assert_eq!(aud, json!(["https://a.test", "https://b.test"]));
}

#[tokio::test]
async fn pkce_may_be_left_out_by_a_client_that_is_allowed_to_and_sends_a_nonce() {
    let site = Site::open().await;
    let bare = [("code_challenge", ""), ("code_challenge_method", "")];
    let error = async |client: &str, more: &[(&str, &str)]| {
        let page = site.get(&mut Browser::default(), &Site::authorize_url(client, more)).await;
        page.parameter("error")
    };
    assert_eq!(error("web", &bare).await.as_deref(), Some("invalid_request"));
    for client in ["web", "spa"] {
        site.change(client, |c| c.pkce_optional = Some(true)).await;
    }
    assert_eq!(error("spa", &bare).await.as_deref(), Some("invalid_request"), "a public client never");
    assert_eq!(error("web", &[bare[0]]).await.as_deref(), Some("invalid_request"), "half a challenge");
    let no_nonce = [bare[0], bare[1], ("nonce", "")];
    assert_eq!(error("web", &no_nonce).await.as_deref(), Some("invalid_request"));

    let code = site.code("web", &bare).await;
    let mut form = redemption(&code).to_vec();
    let with_verifier = site.token(Some(("web", SECRET)), &form).await;
    assert_eq!(with_verifier.json()["error"], "invalid_grant", "a verifier for a code without a challenge");
    form.pop();
    assert_eq!(site.token(Some(("web", SECRET)), &form).await.status, StatusCode::OK);
    let code = site.code("web", &[]).await;
    let mut form = redemption(&code).to_vec();
    form.pop();
    assert_eq!(
        site.token(Some(("web", SECRET)), &form).await.json()["error"],
        "invalid_grant",
        "a downgrade"
    );
    assert!(!challenge().is_empty());
}

#[tokio::test]
async fn a_client_that_asks_once_is_remembered_until_more_is_asked_or_it_is_taken_back() {
    let site = Site::open().await;
    site.change("asks", |c| c.consent = Some(ConsentMode::Once.into())).await;
    let mut browser = Browser::default();
    let url = |scope: &str| Site::authorize_url("asks", &[("scope", scope)]);
    let page = site.sign_in_at(&mut browser, &url("openid email"), "ada", PASSWORD).await;
    let allow = async |browser: &mut Browser, page: &Page| {
        assert!(page.text.contains("id=\"consent-form\""), "{}: {}", page.status, page.text);
        let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
        let form = [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("decision", "allow")];
        site.post(browser, "/consent", &form).await.parameter("code").expect("a code")
    };
    let code = allow(&mut browser, &page).await;
    let granted = tokens(&site, "asks", &code).await;
    for scope in ["openid email", "openid"] {
        let silent = site.get(&mut browser, &url(scope)).await;
        assert!(silent.parameter("code").is_some(), "{scope}");
    }
    let more = site.get(&mut browser, &url("openid email profile")).await;
    allow(&mut browser, &more).await;
    let asked = Site::authorize_url("asks", &[("scope", "openid"), ("prompt", "consent")]);
    assert!(site.get(&mut browser, &asked).await.text.contains("id=\"consent-form\""));
    // Another user is asked.
    let mut other = Browser::default();
    let page = site.sign_in_at(&mut other, &url("openid"), "bob", PASSWORD).await;
    assert!(page.text.contains("id=\"consent-form\""));

    // Listed on the home page, and revoked there with all tokens.
    let home = site.get(&mut browser, "/").await;
    assert!(home.text.contains("Client asks"));
    let form = home.text.split("id=\"disconnect-asks\"").nth(1).unwrap();
    let csrf = form.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let forged = site.post(&mut browser, "/connections/end", &[("csrf", "x"), ("client_id", "asks")]).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
    site.post(&mut browser, "/connections/end", &[("csrf", csrf), ("client_id", "asks")]).await;
    assert!(!site.get(&mut browser, "/").await.text.contains("id=\"disconnect-asks\""));
    assert_eq!(
        site.userinfo(granted["access_token"].as_str().unwrap()).await.status,
        StatusCode::UNAUTHORIZED
    );
    assert!(site.get(&mut browser, &url("openid")).await.text.contains("id=\"consent-form\""));
}

#[tokio::test]
async fn an_operator_sees_and_takes_back_what_a_person_allowed() {
    let site = Site::open().await;
    site.change("asks", |c| c.consent = Some(ConsentMode::Once.into())).await;
    let mut browser = Browser::default();
    let page = site.sign_in_at(&mut browser, &Site::authorize_url("asks", &[]), "ada", PASSWORD).await;
    let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
    let form = [("ticket", ticket.as_str()), ("csrf", csrf.as_str()), ("decision", "allow")];
    site.post(&mut browser, "/consent", &form).await;
    let operator = conclave_client::AdminClient::builder()
        .endpoints([site.node.api_url()])
        .token(site.node.operator_token())
        .build()
        .unwrap();
    let list = async || {
        let command = conclave_client::v1::ListConsentsRequest { user: "ada".into() };
        operator.clients().list_consents(command).await.unwrap().consents
    };
    let consents = list().await;
    assert_eq!((consents.len(), consents[0].client_id.as_str()), (1, "asks"));
    assert!(consents[0].scopes.contains(&"email".to_owned()));
    let command = conclave_client::v1::RevokeConsentRequest { user: "ada".into(), client_id: "asks".into() };
    operator.clients().revoke_consent(command).await.unwrap();
    assert!(list().await.is_empty());
}

#[tokio::test]
async fn metadata_of_both_standards_says_what_there_is() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let document = site.get(&mut browser, "/.well-known/openid-configuration").await.json();
    let oauth = site.get(&mut browser, "/.well-known/oauth-authorization-server").await.json();
    assert_eq!(document, oauth);
    assert_eq!(document["response_modes_supported"], json!(["query", "fragment", "form_post"]));
    assert_eq!(
        (&document["request_parameter_supported"], &document["request_uri_parameter_supported"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(
        (&document["claims_parameter_supported"], &document["backchannel_logout_supported"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(document["require_pushed_authorization_requests"], false);
    for endpoint in ["pushed_authorization_request_endpoint", "device_authorization_endpoint"] {
        let path = document[endpoint].as_str().unwrap().strip_prefix("http://127.0.0.1:9000").unwrap();
        let page = site.client_post(path, None, &[]).await;
        assert_eq!(page.json()["error"], "invalid_client", "{endpoint}");
    }
}

fn client_key(seed: u64) -> JwtSigningKey {
    let entropy = conclave_base::runtime::testing::SeededEntropy::new(seed);
    let pkcs8 = JwtSigningKey::generate_pkcs8(Alg::EdDsa, &*entropy).unwrap();
    JwtSigningKey::from_pkcs8(Alg::EdDsa, &pkcs8).unwrap()
}

#[tokio::test]
async fn a_signed_request_is_the_whole_request_and_must_be_the_clients_own() {
    let site = Site::open().await;
    let (key, foreign) = (client_key(7), client_key(8));
    let jwks = json!({ "keys": [key.public_jwk()] }).to_string().into_bytes();
    site.change("web", |c| c.tokens = Some(ClientTokensChange { jwks: Some(jwks), ..Default::default() }))
        .await;
    let now = START_MS / 1_000;
    let good = json!({
        "iss": "web", "aud": "http://127.0.0.1:9000", "exp": now + 60, "iat": now, "client_id": "web",
        "response_type": "code", "redirect_uri": REDIRECT_URI, "scope": "openid", "state": "signed", "max_age": 600,
        "claims": { "id_token": { "acr": null } },
        "code_challenge": challenge(), "code_challenge_method": "S256",
    });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let url = |object: &str| {
        let pairs =
            [("client_id", "web"), ("request", object), ("state", "theirs"), ("scope", "openid email")];
        format!("/oidc/authorize?{}", super::site::encoded(&pairs))
    };
    let signed = key.sign("oauth-authz-req+jwt", &good).unwrap();
    let page = site.sign_in_at(&mut Browser::default(), &url(&signed), "ada", PASSWORD).await;
    assert_eq!(page.parameter("state").as_deref(), Some("signed"), "{}", page.text);
    let answer = tokens(&site, "web", &page.parameter("code").unwrap()).await;
    assert_eq!(
        (&answer["scope"], &claims(answer["id_token"].as_str().unwrap())["acr"]),
        (&json!("openid"), &json!("1"))
    );

    let mut wrong = vec![
        foreign.sign("JWT", &good).unwrap(),
        format!("{}x", &signed[..signed.len() - 1]),
        "x.y.z".into(),
    ];
    for (name, value) in [
        ("iss", json!("spa")),
        ("client_id", json!("spa")),
        ("aud", json!("https://other.test")),
        ("exp", json!(now - 31)),
        ("exp", json!(now + 7_200)),
        ("iat", json!(now - 3_700)),
        ("sub", json!("web")),
        ("request_uri", json!("urn:x")),
    ] {
        wrong.push(key.sign("JWT", &with(name, value)).unwrap());
    }
    for object in &wrong {
        let page = site.get(&mut Browser::default(), &url(object)).await;
        assert_eq!(
            (page.status, page.shown("error-code").as_str()),
            (StatusCode::BAD_REQUEST, "bad_request_object"),
            "{object}"
        );
        let pushed = site.client_post("/oidc/par", Some("web"), &[("request", object)]).await;
        assert_eq!(pushed.json()["error"], "invalid_request_object");
    }
    // An error inside a valid object is sent to the client.
    let bad_scope = key.sign("JWT", &with("scope", json!("unknown"))).unwrap();
    let page = site.get(&mut Browser::default(), &url(&bad_scope)).await;
    assert_eq!(page.parameter("error").as_deref(), Some("invalid_scope"));

    // A pushed object is opened when it is pushed, and its expiry is checked only then.
    let pushed =
        site.client_post("/oidc/par", Some("web"), &[("request", &signed), ("state", "theirs")]).await;
    let uri = pushed.json()["request_uri"].as_str().unwrap_or_else(|| panic!("{}", pushed.text)).to_owned();
    let page = site.sign_in_at(&mut Browser::default(), &named("web", &uri), "ada", PASSWORD).await;
    assert_eq!(page.parameter("state").as_deref(), Some("signed"));
}

#[tokio::test]
async fn a_request_that_no_browser_can_carry_is_said_to_be_too_long() {
    let site = Site::open().await;
    let long = "x".repeat(2_000);
    // Each is within its bounds, but not all together: a control character takes six bytes in the ticket.
    let controls = "\u{1}".repeat(1_000);
    let asked = [("state", long.as_str()), ("login_hint", &controls)];
    let page = site.get(&mut Browser::default(), &Site::authorize_url("web", &asked)).await;
    assert_eq!((page.status, page.shown("error-code")), (StatusCode::BAD_REQUEST, "request_too_long".into()));
    // A ticket that is too long for a Location, but not for a form, stays in the page.
    let page = site.get(&mut Browser::default(), &Site::authorize_url("web", &asked[..1])).await;
    assert_eq!((page.status, page.field("ticket").is_empty()), (StatusCode::OK, false));
}
