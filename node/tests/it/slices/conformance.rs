//! The requirements of the OpenID Foundation's plans for providers (Basic, Form Post, Config, RP-Initiated and
//! Back-Channel Logout), each walked through as a relying party would, with the response by query and by posted form.
//! The tests have the names of the plans' modules; docs/conformance.md lists them.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_crypto::jwk::Alg;
use conclave_node::testing::START_MS;
use conclave_proto::command::v1::{Attribute, Attributes, Scopes, UpdateUser, command::Body as Command};
use http::{Request, StatusCode};
use serde_json::{Value, json};

use super::site::{Browser, PASSWORD, Page, REDIRECT_URI, SECRET, Site, basic, encoded, redemption};

const ISSUER: &str = "http://127.0.0.1:9000";
const BYE: &str = "https://rp.test/bye";

/// The response mode: the plans are run once for each.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Query,
    FormPost,
}

/// A relying party under test conditions: without PKCE and with a nonce, as the Basic plan sends its requests.
struct Plan {
    site: Site,
    mode: Mode,
}

/// The result of one flow.
struct Flow {
    answer: BTreeMap<String, String>,
    tokens: Value,
    id: Value,
}

impl Plan {
    async fn each() -> [Self; 2] {
        [Self::of(Mode::Query).await, Self::of(Mode::FormPost).await]
    }

    async fn of(mode: Mode) -> Self {
        let site = Site::open().await;
        let attributes = [
            ("given_name", "Ada"),
            ("family_name", "Lovelace"),
            ("street_address", "12 St James's Square"),
            ("locality", "London"),
            ("phone_number", "+44 20 7946 0000"),
        ];
        let user_id = site.node.cluster().view().user_by_name("ada").unwrap().id.to_vec();
        let attributes =
            attributes.map(|(name, value)| Attribute { name: name.into(), value: value.into() }).to_vec();
        let command = UpdateUser {
            user_id,
            display_name: Some("Ada Lovelace".into()),
            email: Some("ada@example.test".into()),
            email_verified: Some(true),
            attributes: Some(Attributes { entries: attributes }),
            ..UpdateUser::default()
        };
        site.node.propose(Command::UpdateUser(command)).await.unwrap();
        site.change("web", |c| {
            c.pkce_optional = Some(true);
            let scopes = ["openid", "profile", "email", "address", "phone", "offline_access"];
            c.scopes = Some(Scopes { scopes: scopes.map(str::to_owned).to_vec() });
        })
        .await;
        Self { site, mode }
    }

    fn url(&self, more: &[(&str, &str)]) -> String {
        let mut all = vec![("scope", "openid"), ("code_challenge", ""), ("code_challenge_method", "")];
        if self.mode == Mode::FormPost {
            all.push(("response_mode", "form_post"));
        }
        all.retain(|(name, _)| more.iter().all(|(other, _)| other != name));
        all.extend(more);
        Site::authorize_url("web", &all)
    }

    /// The parameters of the response to the relying party; none if a page is shown instead.
    fn answer(&self, page: &Page) -> Option<BTreeMap<String, String>> {
        let names = ["code", "state", "iss", "error", "error_description"];
        let one = |name: &str| match self.mode {
            Mode::Query => page.parameter(name),
            Mode::FormPost => {
                page.text.contains(&format!("name=\"{name}\"")).then(|| unescaped(&page.field(name)))
            }
        };
        let here = match self.mode {
            Mode::Query => page.headers.contains_key("location") && page.location().starts_with(REDIRECT_URI),
            Mode::FormPost => page.text.contains("id=\"form-post\""),
        };
        here.then(|| names.iter().filter_map(|name| Some(((*name).to_owned(), one(name)?))).collect())
    }

    /// Opens the request in this browser, and signs in if required.
    async fn open(&self, browser: &mut Browser, more: &[(&str, &str)]) -> Page {
        let page = self.site.get(browser, &self.url(more)).await;
        if self.answer(&page).is_some() || !page.status.is_redirection() {
            return page;
        }
        self.site.sign_in_at(browser, &page.location(), "ada", PASSWORD).await
    }

    async fn flow(&self, browser: &mut Browser, more: &[(&str, &str)]) -> Flow {
        let page = self.open(browser, more).await;
        let answer = self.answer(&page).unwrap_or_else(|| panic!("{:?} {more:?}: {}", self.mode, page.text));
        let code = answer.get("code").unwrap_or_else(|| panic!("{more:?}: {answer:?}"));
        let tokens = self.redeem(code).await;
        assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.text);
        let tokens = tokens.json();
        let id = claims(tokens["id_token"].as_str().unwrap());
        Flow { answer, tokens, id }
    }

    async fn redeem(&self, code: &str) -> Page {
        let form = [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", REDIRECT_URI)];
        self.site.token(Some(("web", SECRET)), &form).await
    }

    async fn userinfo(&self, flow: &Flow) -> Value {
        self.site.userinfo(flow.tokens["access_token"].as_str().unwrap()).await.json()
    }

    fn later(&self, seconds: u64) {
        self.site.node.clock().advance(Duration::from_secs(seconds));
    }
}

fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

/// A value as a browser decodes it from a page.
fn unescaped(text: &str) -> String {
    text.replace("&#x2f;", "/").replace("&amp;", "&")
}

/// The numeric dates of tokens are in seconds.
const NOW: u64 = START_MS / 1_000;

#[tokio::test]
async fn oidcc_server() {
    for plan in Plan::each().await {
        let flow = plan.flow(&mut Browser::default(), &[]).await;
        assert_eq!((flow.answer["state"].as_str(), flow.answer["iss"].as_str()), ("s t", ISSUER));
        assert_eq!(
            (&flow.id["iss"], &flow.id["aud"], &flow.id["nonce"]),
            (&json!(ISSUER), &json!("web"), &json!("n"))
        );
        assert_eq!((flow.id["iat"].as_u64(), flow.id["exp"].as_u64() > Some(NOW)), (Some(NOW), true));
        assert_eq!(flow.tokens["token_type"].as_str().unwrap().to_lowercase(), "bearer");
        assert!(flow.tokens["expires_in"].is_u64() && flow.id["sub"].as_str().unwrap().len() <= 255);
        assert_eq!(plan.userinfo(&flow).await["sub"], flow.id["sub"]);
    }
}

#[tokio::test]
async fn oidcc_response_type_missing() {
    for plan in Plan::each().await {
        let page = plan.open(&mut Browser::default(), &[("response_type", "")]).await;
        assert_eq!(plan.answer(&page).unwrap()["error"], "invalid_request");
    }
}

#[tokio::test]
async fn oidcc_userinfo_get_post_header_and_post_body() {
    let plan = Plan::of(Mode::Query).await;
    let flow = plan.flow(&mut Browser::default(), &[]).await;
    let token = flow.tokens["access_token"].as_str().unwrap();
    let bearer = format!("Bearer {token}");
    for (method, header, body) in [
        ("GET", Some(&bearer), String::new()),
        ("POST", Some(&bearer), String::new()),
        ("POST", None, encoded(&[("access_token", token)])),
    ] {
        let mut request = Request::builder().method(method).uri("/oidc/userinfo");
        if let Some(bearer) = header {
            request = request.header("authorization", bearer);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        let said = body.is_empty();
        let page = plan.site.send("192.0.2.1", request.body(body.into()).unwrap()).await;
        assert_eq!(page.status, StatusCode::OK, "{method}, in the header: {said}");
        assert!(page.headers["content-type"].to_str().unwrap().starts_with("application/json"));
        assert_eq!(page.json()["sub"], flow.id["sub"]);
    }
}

#[tokio::test]
async fn oidcc_ensure_request_without_nonce_succeeds_for_code_flow() {
    // Without a nonce, PKCE binds the code (RFC 9700 §2.1.1).
    for plan in Plan::each().await {
        let challenge = super::site::challenge();
        let more = [("nonce", ""), ("code_challenge", &*challenge), ("code_challenge_method", "S256")];
        let page = plan.open(&mut Browser::default(), &more).await;
        let code = &plan.answer(&page).unwrap()["code"];
        let tokens = plan.site.token(Some(("web", SECRET)), &redemption(code)).await.json();
        assert!(claims(tokens["id_token"].as_str().unwrap()).get("nonce").is_none());
    }
}

#[tokio::test]
async fn oidcc_scope_profile_email_address_phone_and_all() {
    let profile = ["name", "given_name", "family_name", "preferred_username", "updated_at"];
    let plan = Plan::of(Mode::Query).await;
    for (scope, expected) in [
        ("openid profile", &profile[..]),
        ("openid email", &["email", "email_verified"]),
        ("openid address", &["address"]),
        ("openid phone", &["phone_number"]),
        // oidcc-ensure-other-scope-order-succeeds
        ("phone address email profile openid", &["name", "email", "address", "phone_number"]),
    ] {
        let flow = plan.flow(&mut Browser::default(), &[("scope", scope)]).await;
        let info = plan.userinfo(&flow).await;
        for claim in expected {
            assert!(!info[claim].is_null(), "{claim} of {scope}: {info}");
        }
        let types = |name: &str, is: fn(&Value) -> bool| info.get(name).is_none_or(is);
        assert!(types("email_verified", Value::is_boolean) && types("updated_at", Value::is_u64));
        assert!(types("address", |address| address["locality"] == "London"), "{info}");
    }
    let bare = plan.flow(&mut Browser::default(), &[]).await;
    assert!(plan.userinfo(&bare).await.get("email").is_none(), "nothing that was not asked for");
}

#[tokio::test]
async fn oidcc_display_locales_unknown_parameters_and_login_hint_do_not_disturb() {
    for plan in Plan::each().await {
        for (name, value) in [
            ("display", "page"),
            ("display", "popup"),
            ("ui_locales", "se"),
            ("claims_locales", "se"),
            ("extra", "foobar"),
            ("login_hint", "buffy@example.test"),
            ("acr_values", "urn:mace:incommon:iap:silver"),
        ] {
            plan.flow(&mut Browser::default(), &[(name, value)]).await;
        }
    }
}

#[tokio::test]
async fn oidcc_prompt_login() {
    for plan in Plan::each().await {
        let mut browser = Browser::default();
        let first = plan.flow(&mut browser, &[]).await;
        plan.later(2);
        let page = plan.site.get(&mut browser, &plan.url(&[("prompt", "login")])).await;
        assert!(page.location().starts_with("/login?"), "the person is asked again");
        let again = plan.flow(&mut browser, &[("prompt", "login")]).await;
        let auth_time = |flow: &Flow| flow.id["auth_time"].as_u64().unwrap();
        assert!(auth_time(&again) > auth_time(&first), "and it counts as a new login");
        assert_eq!(again.id["sub"], first.id["sub"]);
    }
}

#[tokio::test]
async fn oidcc_prompt_none_not_logged_in_and_logged_in() {
    for plan in Plan::each().await {
        let page = plan.open(&mut Browser::default(), &[("prompt", "none")]).await;
        let answer = plan.answer(&page).unwrap();
        assert_eq!((answer["error"].as_str(), answer["state"].as_str()), ("login_required", "s t"));
        assert_eq!(answer["iss"], ISSUER);
        let mut browser = Browser::default();
        let first = plan.flow(&mut browser, &[]).await;
        plan.later(2);
        let page = plan.site.get(&mut browser, &plan.url(&[("prompt", "none")])).await;
        assert!(plan.answer(&page).unwrap().contains_key("code"), "without a page");
        let silent = plan.flow(&mut browser, &[("prompt", "none")]).await;
        assert_eq!((&silent.id["sub"], &silent.id["auth_time"]), (&first.id["sub"], &first.id["auth_time"]));
    }
}

#[tokio::test]
async fn oidcc_max_age_1_and_10000() {
    for plan in Plan::each().await {
        let mut browser = Browser::default();
        let first = plan.flow(&mut browser, &[]).await;
        plan.later(2);
        let calm = plan.flow(&mut browser, &[("max_age", "10000")]).await;
        assert_eq!((&calm.id["auth_time"], &calm.id["sub"]), (&first.id["auth_time"], &first.id["sub"]));
        let page = plan.site.get(&mut browser, &plan.url(&[("max_age", "1")])).await;
        assert!(page.location().starts_with("/login?"));
        let strict = plan.flow(&mut browser, &[("max_age", "1")]).await;
        assert!(strict.id["auth_time"].as_u64() > first.id["auth_time"].as_u64());
    }
}

#[tokio::test]
async fn oidcc_id_token_hint() {
    for plan in Plan::each().await {
        let mut browser = Browser::default();
        let first = plan.flow(&mut browser, &[]).await;
        let hint = first.tokens["id_token"].as_str().unwrap();
        plan.later(2);
        let silent = plan.flow(&mut browser, &[("prompt", "none"), ("id_token_hint", hint)]).await;
        assert_eq!((&silent.id["sub"], &silent.id["auth_time"]), (&first.id["sub"], &first.id["auth_time"]));
    }
}

#[tokio::test]
async fn oidcc_ensure_registered_redirect_uri() {
    for plan in Plan::each().await {
        let page =
            plan.open(&mut Browser::default(), &[("redirect_uri", "https://rp.test/cb?kept=1&more")]).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        assert!(!page.headers.contains_key("location") && plan.answer(&page).is_none());
        assert_eq!(page.shown("error-code"), "redirect_uri_mismatch");
    }
}

#[tokio::test]
async fn oidcc_codereuse_and_codereuse_30seconds() {
    for (plan, wait) in Plan::each().await.into_iter().zip([0, 31]) {
        let page = plan.open(&mut Browser::default(), &[]).await;
        let code = plan.answer(&page).unwrap()["code"].clone();
        let tokens = plan.redeem(&code).await.json();
        plan.later(wait);
        assert_eq!(plan.redeem(&code).await.json()["error"], "invalid_grant");
        let token = tokens["access_token"].as_str().unwrap();
        assert_eq!(
            plan.site.userinfo(token).await.status,
            StatusCode::UNAUTHORIZED,
            "what the code gave is taken back"
        );
    }
}

#[tokio::test]
async fn oidcc_server_client_secret_post() {
    let plan = Plan::of(Mode::Query).await;
    let code = plan.site.code("post", &[]).await;
    let own = [("client_id", "post"), ("client_secret", SECRET)];
    let page = plan.site.token(None, &[&redemption(&code)[..], &own].concat()).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    plan.site.raise_level().await;
    plan.site.change("post", |client| client.strict_authentication = Some(true)).await;
    let wrong = plan.site.call("/oidc/token", &[basic("post", SECRET)], &redemption(&code)).await;
    assert_eq!(
        wrong.json()["error"],
        "invalid_client",
        "a strict client, by the method it is registered for alone"
    );
}

#[tokio::test]
async fn oidcc_unsigned_request_object_and_request_uri_are_refused_by_name() {
    for plan in Plan::each().await {
        let unsigned =
            format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode("{}"));
        for (name, value, error) in [
            ("request", unsigned.as_str(), "request_not_supported"),
            ("request_uri", "https://rp.test/request.jwt", "request_uri_not_supported"),
        ] {
            let page = plan.open(&mut Browser::default(), &[(name, value)]).await;
            assert_eq!(plan.answer(&page).unwrap()["error"], error);
        }
    }
}

#[tokio::test]
async fn oidcc_claims_essential() {
    for plan in Plan::each().await {
        let wanted = r#"{"userinfo":{"name":{"essential":true}},"id_token":{"acr":{"values":["1"]}}}"#;
        let flow = plan.flow(&mut Browser::default(), &[("claims", wanted)]).await;
        assert_eq!(plan.userinfo(&flow).await["name"], "Ada Lovelace");
        assert!(!flow.id["acr"].is_null());
    }
}

#[tokio::test]
async fn oidcc_refresh_token() {
    for plan in Plan::each().await {
        let flow = plan.flow(&mut Browser::default(), &[("scope", "openid offline_access")]).await;
        let refresh = flow.tokens["refresh_token"].as_str().unwrap();
        let foreign = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
        let page = plan.site.token(Some(("staff-only", SECRET)), &foreign).await;
        assert_eq!(page.json()["error"], "invalid_grant", "bound to its client");
        plan.later(2);
        let next = plan.site.refresh(refresh).await.json();
        let id = claims(next["id_token"].as_str().unwrap());
        assert_eq!(
            (&id["sub"], &id["auth_time"], &id["aud"]),
            (&flow.id["sub"], &flow.id["auth_time"], &flow.id["aud"])
        );
        assert!(id["iat"].as_u64() > flow.id["iat"].as_u64());
        let token = next["access_token"].as_str().unwrap();
        assert_eq!(plan.site.userinfo(token).await.status, StatusCode::OK);
        // Without offline_access the refresh token lasts for the session only (OIDC Core §11).
        let mut browser = Browser::default();
        let bare = plan.flow(&mut browser, &[]).await;
        let hint = [("id_token_hint", bare.tokens["id_token"].as_str().unwrap())];
        log_out(&plan, &mut browser, &hint).await;
        let ended = plan.site.refresh(bare.tokens["refresh_token"].as_str().unwrap()).await;
        assert_eq!(ended.json()["error"], "invalid_grant");
        let kept = plan.site.refresh(next["refresh_token"].as_str().unwrap()).await;
        assert_eq!(kept.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn oidcc_ensure_request_with_valid_pkce_succeeds_and_authorization_by_post() {
    let plan = Plan::of(Mode::Query).await;
    let code = plan.site.code("web", &[]).await;
    assert_eq!(plan.site.redeem("web", &code).await.status, StatusCode::OK);
    let url = plan.url(&[]);
    let request = Request::post("/oidc/authorize")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(url.split_once('?').unwrap().1.to_owned().into())
        .unwrap();
    let page = plan.site.send("192.0.2.1", request).await;
    assert!(page.status.is_redirection(), "{}", page.text);
    let page = plan.site.sign_in_at(&mut Browser::default(), &page.location(), "ada", PASSWORD).await;
    assert!(plan.answer(&page).unwrap().contains_key("code"));
}

#[tokio::test]
async fn oidcc_discovery_endpoint_verification() {
    let plan = Plan::of(Mode::Query).await;
    let page = plan.site.get(&mut Browser::default(), "/.well-known/openid-configuration").await;
    assert_eq!(page.headers["content-type"], "application/json");
    let document = page.json();
    assert_eq!(document["issuer"], ISSUER);
    let lists = |name: &str, value: &str| document[name].as_array().unwrap().contains(&json!(value));
    assert!(lists("response_types_supported", "code") && lists("subject_types_supported", "public"));
    assert!(lists("id_token_signing_alg_values_supported", "RS256") && lists("scopes_supported", "openid"));
    assert!(lists("token_endpoint_auth_methods_supported", "client_secret_basic"));
    assert!(lists("claims_supported", "sub") && lists("response_modes_supported", "form_post"));
    assert_eq!(document["claims_parameter_supported"], true);
    // Members with a default of true must be false in the document if the feature is absent.
    assert_eq!(document["request_uri_parameter_supported"], false);
    let keys = plan.site.get(&mut Browser::default(), "/oidc/jwks").await.json();
    for key in keys["keys"].as_array().unwrap() {
        assert!(key["kid"].is_string() && key["use"] == "sig" && key.get("d").is_none(), "{key}");
    }
    assert!(keys["keys"].as_array().unwrap().iter().any(|key| key["alg"] == "RS256"));
    assert_eq!(document["backchannel_logout_supported"], true);
    assert_eq!(document["backchannel_logout_session_supported"], true);
    assert!(document["end_session_endpoint"].as_str().unwrap().starts_with(ISSUER));
}

/// Requests logout, and confirms it if the page asks. Returns the last page, and the last address before it.
async fn log_out(plan: &Plan, browser: &mut Browser, query: &[(&str, &str)]) -> Page {
    let page = plan.site.get(browser, &format!("/oidc/logout?{}", encoded(query))).await;
    if !page.status.is_redirection() || !page.location().starts_with("/logout") {
        return page;
    }
    let page = plan.site.get(browser, &page.location()).await;
    let ticket = if page.text.contains("name=\"ticket\"") { page.field("ticket") } else { String::new() };
    plan.site.post(browser, "/logout", &[("csrf", &page.field("csrf")), ("ticket", &ticket)]).await
}

async fn signed_in(plan: &Plan) -> (Browser, String) {
    let mut browser = Browser::default();
    let flow = plan.flow(&mut browser, &[]).await;
    (browser, flow.tokens["id_token"].as_str().unwrap().to_owned())
}

async fn is_signed_out(plan: &Plan, browser: &mut Browser) -> bool {
    let page = plan.site.get(browser, &plan.url(&[("prompt", "none")])).await;
    plan.answer(&page).unwrap().get("error").is_some_and(|error| error == "login_required")
}

#[tokio::test]
async fn oidcc_rp_initiated_logout() {
    for plan in Plan::each().await {
        let (mut browser, id_token) = signed_in(&plan).await;
        let query = [("id_token_hint", &*id_token), ("post_logout_redirect_uri", BYE), ("state", "st1")];
        let page = log_out(&plan, &mut browser, &query).await;
        assert_eq!(page.location(), format!("{BYE}?state=st1"));
        assert!(is_signed_out(&plan, &mut browser).await);
        // An hour later the ID token has expired; as a hint it is still valid.
        let (mut browser, id_token) = signed_in(&plan).await;
        plan.later(3_700);
        let query = [("id_token_hint", &*id_token), ("post_logout_redirect_uri", BYE)];
        assert_eq!(
            log_out(&plan, &mut browser, &query).await.location(),
            BYE,
            "no state where none was sent"
        );
        assert!(is_signed_out(&plan, &mut browser).await);
    }
}

#[tokio::test]
async fn oidcc_rp_initiated_logout_bad_and_query_added_post_logout_redirect_uri() {
    let plan = Plan::of(Mode::Query).await;
    let (mut browser, id_token) = signed_in(&plan).await;
    for uri in ["https://rp.test/elsewhere", "https://rp.test/bye?foo=bar", "https://evil.test/"] {
        let page =
            log_out(&plan, &mut browser, &[("id_token_hint", &id_token), ("post_logout_redirect_uri", uri)])
                .await;
        assert!(!page.headers.contains_key("location"), "{uri}");
        assert_eq!(page.shown("error-code"), "post_logout_redirect_uri_mismatch");
    }
}

#[tokio::test]
async fn oidcc_rp_initiated_logout_modified_and_bad_id_token_hint() {
    let plan = Plan::of(Mode::Query).await;
    let (mut browser, id_token) = signed_in(&plan).await;
    let (head, signature) = id_token.rsplit_once('.').unwrap();
    let other = conclave_crypto::jwt::JwtSigningKey::from_pkcs8(
        Alg::EdDsa,
        &conclave_crypto::jwt::JwtSigningKey::generate_pkcs8(
            Alg::EdDsa,
            &*conclave_base::runtime::testing::SeededEntropy::new(9),
        )
        .unwrap(),
    )
    .unwrap();
    let foreign = other.sign("JWT", &claims(&id_token)).unwrap();
    let modified = format!("{head}.{}", signature.chars().rev().collect::<String>());
    for hint in [foreign.as_str(), &modified, "not a token"] {
        let page =
            log_out(&plan, &mut browser, &[("id_token_hint", hint), ("post_logout_redirect_uri", BYE)]).await;
        assert!(page.text.contains("id=\"signed-out\""), "the person is asked here, and stays here: {hint}");
        assert!(!page.text.contains(BYE));
        browser = signed_in(&plan).await.0;
    }
    assert!(!is_signed_out(&plan, &mut browser).await);
}

#[tokio::test]
async fn oidcc_rp_initiated_logout_without_hint_uri_or_any_parameter() {
    let plan = Plan::of(Mode::Query).await;
    for query in [&[][..], &[("state", "st1")], &[("client_id", "web"), ("state", "st1")]] {
        let (mut browser, _) = signed_in(&plan).await;
        let asked = plan.site.get(&mut browser, &format!("/oidc/logout?{}", encoded(query))).await;
        assert!(asked.status == StatusCode::OK || asked.location().starts_with("/logout"), "{query:?}");
        assert!(!is_signed_out(&plan, &mut browser).await, "the person is asked first");
        let page = log_out(&plan, &mut browser, query).await;
        assert!(
            page.status == StatusCode::OK || page.location().starts_with('/'),
            "no redirect to another site"
        );
        assert!(is_signed_out(&plan, &mut browser).await);
    }
    let (mut browser, id_token) = signed_in(&plan).await;
    let page = log_out(&plan, &mut browser, &[("id_token_hint", &id_token)]).await;
    assert!(!page.headers.contains_key("location") || page.location().starts_with('/'));
    assert!(is_signed_out(&plan, &mut browser).await, "with a hint alone too");
}
