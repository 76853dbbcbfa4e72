//! Sign-in with Atmosphere, against a network that injects every fault it can.

use std::sync::{Arc, atomic::Ordering};

use conclave_config::{Config, Environment};
use conclave_crypto::{jwk::Alg, jwt};
use conclave_node::testing::{TestNode, wait_until};
use conclave_proto::command::v1::{
    CreateUpstream, MappedGroups, UpdateUpstream, UpdateUser, Upstream, UpstreamAdmission, UpstreamRule,
    command::Body,
};
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    atmosphere_network::{Network, did},
    site::{Browser, PASSWORD, Page, Site, digest},
};

pub(crate) const NAME: &str = "atmosphere";

/// A fault that is injected into the network.
type Change = Box<dyn FnOnce(&Network)>;

pub(crate) fn listed(dids: &[&str], handles: &[&str]) -> UpstreamRule {
    let admission = UpstreamAdmission::Listed;
    UpstreamRule {
        admission: admission.into(),
        dids: dids.iter().map(ToString::to_string).collect(),
        handles: handles.iter().map(ToString::to_string).collect(),
        ..UpstreamRule::default()
    }
}

pub(crate) fn settings(network: &Network) -> impl Fn(&mut conclave_auth::Settings) + use<> {
    let (url, nameserver) = (network.url.clone(), network.nameserver);
    move |settings| {
        settings.outbound.allow = vec!["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        settings.atmosphere.unsafe_dev = true;
        settings.atmosphere.plc_directories = vec![format!("{url}/plc")];
        settings.atmosphere.nameservers = vec![nameserver];
    }
}

/// A site that admits these users, and the network with an account for alice.
pub(crate) async fn site(rule: UpstreamRule) -> (Site, Arc<Network>) {
    let network = Network::start().await;
    network.account(&did(0), "alice.test");
    let site = Site::of(TestNode::start_with(settings(&network)).await);
    site.seed().await;
    add(&site, rule).await;
    (site, network)
}

pub(crate) async fn add(site: &Site, rule: UpstreamRule) {
    let upstream = Upstream {
        name: NAME.into(),
        display_name: "Atmosphere".into(),
        atmosphere: true,
        rule: Some(rule),
        ..Upstream::default()
    };
    site.node.propose(Body::CreateUpstream(CreateUpstream { upstream: Some(upstream) })).await.unwrap();
}

pub(crate) async fn anybody() -> (Site, Arc<Network>) {
    site(UpstreamRule { admission: UpstreamAdmission::Any.into(), ..UpstreamRule::default() }).await
}

impl Site {
    /// The page for the handle, in a login that begins at `path`.
    pub(crate) async fn atmosphere_page(&self, browser: &mut Browser, path: &str) -> Page {
        let mut page = self.get(browser, path).await;
        while page.status.is_redirection() {
            let next = page.location();
            page = self.get(browser, &next).await;
        }
        let start = page.text.split("id=\"upstream-atmosphere\" href=\"").nth(1).expect("the link");
        let start = start.split('"').next().unwrap().replace("&#x2f;", "/").replace("&amp;", "&");
        let page = self.get(browser, &start).await;
        let page = self.get(browser, &page.location()).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.text);
        page
    }

    pub(crate) async fn typed(&self, browser: &mut Browser, page: &Page, handle: &str) -> Page {
        let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
        self.post(browser, "/atproto/start", &[("ticket", &ticket), ("csrf", &csrf), ("handle", handle)])
            .await
    }

    /// Redirects to the user's server.
    pub(crate) async fn start_login_as(&self, browser: &mut Browser, handle: &str) -> Page {
        let page = self.atmosphere_page(browser, "/").await;
        self.typed(browser, &page, handle).await
    }

    pub(crate) async fn open_callback(&self, browser: &mut Browser, query: &str) -> Page {
        self.get(browser, &format!("/atproto/callback?{query}")).await
    }

    /// A whole sign-in: start, authorization and callback.
    pub(crate) async fn signs_in_as(&self, browser: &mut Browser, network: &Network, handle: &str) -> Page {
        let away = self.start_login_as(browser, handle).await;
        assert_eq!(away.status, StatusCode::SEE_OTHER, "{}", away.text);
        self.open_callback(browser, &network.allows(&away.location())).await
    }

    /// The account that the home page shows as signed in.
    pub(crate) async fn at_home(&self, browser: &mut Browser) -> Option<String> {
        let page = self.get(browser, "/").await;
        (page.status == StatusCode::OK).then(|| page.shown("account"))
    }

    fn atmosphere_people(&self) -> usize {
        self.node.cluster().view().identities_at(NAME).count()
    }
}

/// The error code of the page.
pub(crate) fn code_of(page: &Page) -> String {
    let of_form =
        page.text.split("data-code=\"").nth(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    of_form.unwrap_or_else(|| page.shown("error-code"))
}

/// Asserts that the attempt failed: no session, no user.
fn nobody(site: &Site, browser: &Browser, page: &Page, code: &str) {
    assert_eq!(code_of(page), code, "{} {}", page.status, page.text);
    assert!(!page.status.is_redirection() && !page.status.is_success(), "{}", page.status);
    assert!(!browser.cookies.keys().any(|name| name.contains("session")), "{:?}", browser.cookies.keys());
    assert_eq!(site.atmosphere_people(), 0);
}

#[tokio::test]
async fn people_sign_in_with_what_they_own_however_they_write_it() {
    for typed in ["alice.test", " @Alice.TEST ", "at://alice.test", "\u{202a}alice.test", &did(0)] {
        let (site, network) = anybody().await;
        let mut browser = Browser::default();
        let page = site.signs_in_as(&mut browser, &network, typed).await;
        assert_eq!(
            (page.status, page.location().as_str()),
            (StatusCode::SEE_OTHER, "/"),
            "{typed}: {}",
            page.text
        );
        assert_eq!(site.at_home(&mut browser).await.as_deref(), Some("alice.test"));
        let view = site.node.cluster().view();
        let identity = view.identity(NAME, &did(0)).unwrap();
        assert_eq!(
            identity.handle.as_ref().map(|(handle, _)| handle.to_string()).as_deref(),
            Some("alice.test")
        );
        // The token was used only for the sign-in and is revoked.
        assert_eq!(*network.revoked.lock().unwrap(), [format!("token of {}", did(0))]);
        let pushed = network.last_pushed();
        assert_eq!((pushed["scope"].as_str(), pushed["response_type"].as_str()), ("atproto", "code"));
        let one_spelling = if typed.starts_with("did:") { typed } else { "alice.test" };
        assert_eq!(pushed["login_hint"], one_spelling);
        assert!(!pushed.contains_key("client_assertion"), "on this machine the client is public");
        assert!(pushed["client_id"].starts_with("http://localhost?redirect_uri=http%3A%2F%2F127.0.0.1"));
    }
}

#[tokio::test]
async fn who_names_a_server_is_whoever_signs_in_there_and_has_it_in_their_document() {
    let (site, network) = anybody().await;
    let mut browser = Browser::default();
    let page = site.signs_in_as(&mut browser, &network, &network.url).await;
    assert_eq!(page.location(), "/", "{}", page.text);
    assert!(!network.last_pushed().contains_key("login_hint"));
    // A server that signs in a user whose account is on another server.
    let (site, network) = anybody().await;
    let elsewhere = json!([{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "http://localhost:1"}]);
    network
        .says(|script| drop(script.documents.get_mut(&did(0)).unwrap().insert("service".into(), elsewhere)));
    let mut browser = Browser::default();
    let page = site.signs_in_as(&mut browser, &network, &network.url).await;
    nobody(&site, &browser, &page, "atproto_provider_unreachable");
}

#[tokio::test]
async fn an_application_gets_its_code_with_the_login_and_the_claims_name_the_did() {
    let (site, network) = anybody().await;
    let mut browser = Browser::default();
    let page = site.atmosphere_page(&mut browser, &Site::authorize_url("web", &[])).await;
    let away = site.typed(&mut browser, &page, "alice.test").await;
    let page = site.open_callback(&mut browser, &network.allows(&away.location())).await;
    // A new user exists once the login is complete; then the application gets its code.
    let code = match page.parameter("code") {
        Some(code) => code,
        None => site.get(&mut browser, &page.location()).await.parameter("code").unwrap(),
    };
    let tokens = site.redeem("web", &code).await;
    assert_eq!(tokens.status, StatusCode::OK, "{}", tokens.text);
    let told = site.userinfo(tokens.json()["access_token"].as_str().unwrap()).await.json();
    assert_eq!((&told["atproto_did"], &told["atproto_handle"]), (&json!(did(0)), &json!("alice.test")));
    assert_eq!(told["preferred_username"], "alice.test");
    assert!(told.get("email").is_none(), "no address is believed");
    // A login that requires a new authentication cannot use the Atmosphere, so the page does not offer it.
    let again = site.get(&mut browser, &Site::authorize_url("web", &[("prompt", "login")])).await;
    let again = site.get(&mut browser, &again.location()).await;
    assert!(!again.text.contains("upstream-atmosphere"), "{}", again.text);
}

#[tokio::test]
async fn who_is_not_listed_does_not_come_in_and_who_is_here_stays() {
    let (site, network) = site(listed(&[], &["*.corp.test"])).await;
    let mut browser = Browser::default();
    let page = site.signs_in_as(&mut browser, &network, "alice.test").await;
    nobody(&site, &browser, &page, "not_allowed");
    // A document that claims a listed handle which resolves to another DID.
    network.says(|script| {
        let document = script.documents.get_mut(&did(0)).unwrap();
        document.insert("alsoKnownAs".into(), json!(["at://ceo.corp.test"]));
        script.txt.insert("_atproto.ceo.corp.test".into(), vec![format!("did={}", did(1))]);
    });
    let mut browser = Browser::default();
    let page = site.signs_in_as(&mut browser, &network, &did(0)).await;
    nobody(&site, &browser, &page, "not_allowed");

    network.account(&did(0), "alice.corp.test");
    let mut browser = Browser::default();
    site.signs_in_as(&mut browser, &network, "alice.corp.test").await;
    assert_eq!(site.at_home(&mut browser).await.as_deref(), Some("alice.corp.test"));
    let command = UpdateUpstream {
        name: NAME.into(),
        rule: Some(UpstreamRule { admission: UpstreamAdmission::None.into(), ..UpstreamRule::default() }),
        ..UpdateUpstream::default()
    };
    site.node.propose(Body::UpdateUpstream(command)).await.unwrap();
    let mut browser = Browser::default();
    site.signs_in_as(&mut browser, &network, &did(0)).await;
    assert!(site.at_home(&mut browser).await.is_some(), "who is here stays");
    network.account(&did(2), "new.corp.test");
    let mut browser = Browser::default();
    let page = site.signs_in_as(&mut browser, &network, "new.corp.test").await;
    assert_eq!(page.shown("error-code"), "signup_not_allowed");
    // A disabled user cannot sign in.
    let user = site.node.cluster().view().identity(NAME, &did(0)).unwrap().user;
    let command = UpdateUser { user_id: user.to_vec(), disabled: Some(true), ..UpdateUser::default() };
    site.node.propose(Body::UpdateUser(command)).await.unwrap();
    network.says(|script| script.signs_in = did(0));
    let page = site.signs_in_as(&mut Browser::default(), &network, &did(0)).await;
    assert_eq!(page.shown("error-code"), "account_disabled");
}

#[tokio::test]
async fn a_handle_that_is_not_confirmed_from_both_ends_is_nobodys() {
    let document = |name: &'static str, value: Value| {
        move |network: &Network| {
            network
                .says(|script| drop(script.documents.get_mut(&did(0)).unwrap().insert(name.into(), value)));
        }
    };
    let txt = |records: Vec<String>| {
        move |network: &Network| {
            network.says(|script| drop(script.txt.insert("_atproto.alice.test".into(), records)))
        }
    };
    let cases: Vec<(&str, Change, &str)> = vec![
        ("no claim", Box::new(document("alsoKnownAs", json!([]))), "atproto_handle_mismatch"),
        ("no member", Box::new(document("alsoKnownAs", Value::Null)), "atproto_handle_mismatch"),
        (
            "second claim",
            Box::new(document("alsoKnownAs", json!(["at://bob.test", "at://alice.test"]))),
            "atproto_handle_mismatch",
        ),
        ("another's document", Box::new(document("id", json!(did(1)))), "atproto_provider_invalid"),
        ("no server", Box::new(document("service", json!([]))), "atproto_provider_invalid"),
        (
            "a server that is a script",
            Box::new(document(
                "service",
                json!([{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "javascript:x"}]),
            )),
            "atproto_provider_invalid",
        ),
        ("no record", Box::new(txt(vec![])), "atproto_handle_not_found"),
        ("others' records", Box::new(txt(vec!["v=spf1".into()])), "atproto_handle_not_found"),
        (
            "two records",
            Box::new(txt(vec![format!("did={}", did(0)), format!("did={}", did(1))])),
            "atproto_handle_mismatch",
        ),
        ("a DID that is none", Box::new(txt(vec!["did=did:key:z6Mk".into()])), "atproto_did_unsupported"),
        ("a DID that nobody has", Box::new(txt(vec![format!("did={}", did(9))])), "atproto_did_not_found"),
    ];
    for (what, change, code) in cases {
        let (site, network) = anybody().await;
        change(&network);
        let mut browser = Browser::default();
        let page = site.start_login_as(&mut browser, "alice.test").await;
        assert_eq!(code_of(&page), code, "{what}: {}", page.text);
        nobody(&site, &browser, &page, code);
        assert!(page.text.contains("value=\"alice.test\""), "what was typed stays: {}", page.text);
    }
    let (site, _network) = anybody().await;
    for typed in
        ["alice", "did:web:127.0.0.1", "did:web:a.test:path", "alice.local", "https://u@a.test", "a.test/x"]
    {
        let mut browser = Browser::default();
        let page = site.start_login_as(&mut browser, typed).await;
        assert!(
            code_of(&page).starts_with("atproto_bad_identifier")
                || code_of(&page).starts_with("atproto_did_unsupported"),
            "{typed}"
        );
    }
}

#[tokio::test]
async fn a_server_that_breaks_a_promise_is_not_signed_in_at() {
    let metadata = |name: &'static str, value: Value| {
        move |network: &Network| network.says(|script| drop(script.metadata.insert(name.into(), value)))
    };
    let cases: Vec<(&str, Change, &str)> = vec![
        (
            "another issuer",
            Box::new(metadata("issuer", json!("http://localhost:1"))),
            "atproto_provider_invalid",
        ),
        (
            "no pushed requests",
            Box::new(metadata("pushed_authorization_request_endpoint", Value::Null)),
            "atproto_provider_invalid",
        ),
        (
            "a relative endpoint",
            Box::new(metadata("token_endpoint", json!("/token"))),
            "atproto_provider_invalid",
        ),
        (
            "a script for an endpoint",
            Box::new(metadata("authorization_endpoint", json!("javascript:alert(1)"))),
            "atproto_provider_invalid",
        ),
        (
            "no S256",
            Box::new(metadata("code_challenge_methods_supported", json!(["plain"]))),
            "atproto_provider_invalid",
        ),
        (
            "an endpoint inside",
            Box::new(metadata("pushed_authorization_request_endpoint", json!("https://169.254.169.254/par"))),
            "atproto_provider_blocked",
        ),
        (
            "an endpoint by number",
            Box::new(metadata("pushed_authorization_request_endpoint", json!("https://2130706433/par"))),
            "atproto_provider_unreachable",
        ),
        (
            "two authorization servers",
            Box::new(|network: &Network| {
                let two = json!([network.url, "http://localhost:1"]);
                network.says(|script| drop(script.resource.insert("authorization_servers".into(), two)));
            }),
            "atproto_provider_invalid",
        ),
        (
            "a server that cannot read who this is",
            Box::new(|network: &Network| {
                let said = json!({"error": "invalid_client_metadata", "error_description": "<b>x</b>"});
                network.says(|script| {
                    script.pushed_answer = Some((StatusCode::BAD_REQUEST, said.to_string()));
                })
            }),
            "atproto_metadata_unreachable",
        ),
        (
            "a nonce without end",
            Box::new(|network: &Network| network.says(|script| script.asks_for_nonce = 9)),
            "atproto_provider_invalid",
        ),
        (
            "no nonce",
            Box::new(|network: &Network| {
                network.says(|script| {
                    script.asks_for_nonce = 0;
                    script.has_no_nonce = true;
                })
            }),
            "atproto_provider_invalid",
        ),
        (
            "an error page",
            Box::new(|network: &Network| {
                network.says(|script| script.pushed_answer = Some((StatusCode::BAD_REQUEST, "<html>".into())))
            }),
            "atproto_provider_invalid",
        ),
        (
            "no name",
            Box::new(|network: &Network| {
                network.says(|script| script.pushed_answer = Some((StatusCode::CREATED, "{}".into())))
            }),
            "atproto_provider_invalid",
        ),
    ];
    for (what, change, code) in cases {
        let (site, network) = anybody().await;
        change(&network);
        let mut browser = Browser::default();
        let page = site.start_login_as(&mut browser, "alice.test").await;
        assert_eq!(code_of(&page), code, "{what}: {}", page.text);
        nobody(&site, &browser, &page, code);
    }
}

#[tokio::test]
async fn a_token_that_is_not_good_in_every_way_signs_nobody_in() {
    let token = |name: &'static str, value: Value| {
        move |network: &Network| network.says(|script| drop(script.token.insert(name.into(), value)))
    };
    let answer = |status: StatusCode, body: &'static str| {
        move |network: &Network| network.says(|script| script.token_answer = Some((status, body.into())))
    };
    let cases: Vec<(&str, Change, &str)> = vec![
        ("bearer", Box::new(token("token_type", json!("Bearer"))), "atproto_token_rejected"),
        ("no scope", Box::new(token("scope", Value::Null)), "atproto_token_rejected"),
        ("another scope", Box::new(token("scope", json!("transition:generic"))), "atproto_token_rejected"),
        ("nobody", Box::new(token("sub", Value::Null)), "atproto_token_rejected"),
        ("no DID", Box::new(token("sub", json!("alice.test"))), "atproto_token_rejected"),
        ("no token", Box::new(token("access_token", Value::Null)), "atproto_token_rejected"),
        ("another person", Box::new(token("sub", json!(did(1)))), "atproto_subject_mismatch"),
        ("an error page", Box::new(answer(StatusCode::BAD_REQUEST, "<html>")), "atproto_token_rejected"),
        (
            "an error with 200",
            Box::new(answer(StatusCode::OK, r#"{"error":"invalid_grant"}"#)),
            "atproto_token_rejected",
        ),
        (
            "moved meanwhile",
            Box::new(|network: &Network| {
                let moved = json!([{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": "http://127.0.0.1:1"}]);
                network.says(|script| {
                    drop(script.documents.get_mut(&did(0)).unwrap().insert("service".into(), moved))
                });
            }),
            "atproto_provider_unreachable",
        ),
        (
            "gone meanwhile",
            Box::new(|network: &Network| network.says(|script| drop(script.documents.remove(&did(0))))),
            "atproto_did_not_found",
        ),
    ];
    for (what, change, code) in cases {
        let (site, network) = anybody().await;
        network.account(&did(1), "bob.test");
        network.says(|script| script.signs_in = did(0));
        let mut browser = Browser::default();
        let away = site.start_login_as(&mut browser, "alice.test").await;
        let query = network.allows(&away.location());
        change(&network);
        let page = site.open_callback(&mut browser, &query).await;
        assert_eq!(code_of(&page), code, "{what}: {}", page.text);
        nobody(&site, &browser, &page, code);
    }
}

#[tokio::test]
async fn an_answer_counts_once_in_the_browser_that_asked_and_from_the_server_that_was_asked() {
    let (site, network) = anybody().await;
    let mut browser = Browser::default();
    let away = site.start_login_as(&mut browser, "alice.test").await;
    let (state, code) = network.answers(&away.location());
    let query = |pairs: &[(&str, &str)]| super::site::encoded(pairs);
    let iss = network.url.as_str();
    let good = query(&[("state", &state), ("iss", iss), ("code", &code)]);

    let mut other = Browser::default();
    site.get(&mut other, "/login").await;
    let page = site.open_callback(&mut other, &good).await;
    nobody(&site, &other, &page, "atproto_state_invalid");
    // That cookie in another browser.
    let stolen: Vec<(String, String)> = browser
        .cookies
        .iter()
        .filter(|(name, _)| name.contains("atproto"))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    other.cookies.extend(stolen);
    let page = site.open_callback(&mut other, &good).await;
    nobody(&site, &other, &page, "atproto_state_invalid");

    for (what, answer, code_said) in [
        ("no issuer", query(&[("state", &state), ("code", &code)]), "atproto_issuer_mismatch"),
        (
            "a slash",
            query(&[("state", &state), ("iss", &format!("{iss}/")), ("code", &code)]),
            "atproto_issuer_mismatch",
        ),
        (
            "mix-up",
            query(&[("state", &state), ("iss", "https://honest.example.com"), ("code", &code)]),
            "atproto_issuer_mismatch",
        ),
        ("twice", format!("{good}&code=x"), "atproto_state_invalid"),
        ("two states", format!("{good}&state=x"), "atproto_state_invalid"),
        (
            "another state",
            query(&[("state", "AAAAAAAAAAAAAAAAAAAAAA"), ("iss", iss), ("code", &code)]),
            "atproto_state_invalid",
        ),
        ("nothing", String::new(), "atproto_state_invalid"),
    ] {
        let mut same = Browser { cookies: browser.cookies.clone() };
        let page = site.open_callback(&mut same, &answer).await;
        assert_eq!(code_of(&page), code_said, "{what}");
        nobody(&site, &same, &page, code_said);
    }
    // A refusal is treated as a refusal, whatever its text.
    let mut same = Browser { cookies: browser.cookies.clone() };
    let no = query(&[
        ("state", &state),
        ("iss", iss),
        ("error", "access_denied"),
        ("error_description", "<script>alert(1)</script>"),
    ]);
    let page = site.open_callback(&mut same, &no).await;
    nobody(&site, &same, &page, "atproto_denied");
    assert!(!page.text.contains("alert(1)"));

    // Eight callbacks at once, and another one later: one session.
    let pages = join_all((0..8).map(|_| {
        let mut same = Browser { cookies: browser.cookies.clone() };
        let (site, good) = (&site, &good);
        async move { site.open_callback(&mut same, good).await }
    }))
    .await;
    assert_eq!(pages.iter().filter(|page| page.status == StatusCode::SEE_OTHER).count(), 1);
    assert_eq!(site.atmosphere_people(), 1);
    let mut same = Browser { cookies: browser.cookies.clone() };
    let written = site.node.cluster().view().index();
    let page = site.open_callback(&mut same, &good).await;
    assert_eq!(code_of(&page), "atproto_state_invalid", "{}", page.text);
    assert_eq!(site.node.cluster().view().index(), written, "the log does not grow by it");
    // The callback comes too late.
    site.node.clock().advance(std::time::Duration::from_hours(1));
    let page = site.open_callback(&mut browser, &good).await;
    assert_eq!(code_of(&page), "atproto_state_invalid");
}

#[tokio::test]
async fn no_address_inside_is_ever_connected_to() {
    // Private addresses may not be reached, and names for tests are not accepted: the default configuration.
    let network = Network::start().await;
    network.account(&did(0), "alice.example.com");
    let inside = |settings: &mut conclave_auth::Settings| {
        settings.atmosphere.nameservers = vec![network.nameserver];
        settings.atmosphere.plc_directories = vec![format!("{}/plc", network.url).replace("http", "https")];
    };
    let site = Site::of(TestNode::start_with(inside).await);
    site.seed().await;
    add(&site, UpstreamRule { admission: UpstreamAdmission::Any.into(), ..UpstreamRule::default() }).await;
    let port = network.url.rsplit(':').next().unwrap();
    for typed in [
        "alice.example.com".to_owned(),
        "alice.test".into(),
        did(0),
        "did:web:localhost".into(),
        format!("did:web:localhost%3A{port}"),
        format!("https://127.0.0.1:{port}"),
        format!("https://localhost:{port}"),
        format!("https://[::1]:{port}"),
        format!("https://[::ffff:127.0.0.1]:{port}"),
        format!("https://2130706433:{port}"),
        format!("https://0x7f000001:{port}"),
        format!("https://0177.0.0.1:{port}"),
        "https://169.254.169.254".into(),
        "https://10.0.0.1".into(),
        format!("http://localhost:{port}"),
    ] {
        let mut browser = Browser::default();
        let page = site.start_login_as(&mut browser, &typed).await;
        assert!(!page.status.is_redirection() && !page.status.is_success(), "{typed}: {}", page.text);
    }
    assert_eq!(network.asked.load(Ordering::SeqCst), 0, "no connection, no question");
}

#[tokio::test]
async fn people_who_share_an_address_do_not_pay_for_each_others_success() {
    let network = Network::start().await;
    network.account(&did(0), "alice.test");
    let usual = settings(&network);
    let few = move |settings: &mut conclave_auth::Settings| {
        usual(settings);
        settings.login.throttle.address_failures = 3.try_into().unwrap();
    };
    let site = Site::of(TestNode::start_with(few).await);
    site.seed().await;
    add(&site, UpstreamRule { admission: UpstreamAdmission::Any.into(), ..UpstreamRule::default() }).await;
    for n in 0..5 {
        let page = site.signs_in_as(&mut Browser::default(), &network, "alice.test").await;
        assert_eq!(page.location(), "/", "{n}: {}", page.text);
    }
    for n in 0..4 {
        let page = site.start_login_as(&mut Browser::default(), "alice.test").await;
        assert_eq!(page.status == StatusCode::TOO_MANY_REQUESTS, n == 3, "{n}: {}", page.text);
    }
}

#[tokio::test]
async fn what_may_be_reached_for_others_is_not_reached_for_whoever_types_its_name() {
    // An application has a private address, so the configuration lets this node connect there.
    let network = Network::start().await;
    network.account(&did(0), "alice.example.com");
    let inside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let port = inside.local_addr().unwrap().port();
    let directory = network.url.replace("localhost", "plc.localhost");
    let settings = |settings: &mut conclave_auth::Settings| {
        settings.outbound.allow = vec!["127.0.0.0/8".parse().unwrap()];
        settings.atmosphere.nameservers = vec![network.nameserver];
        settings.atmosphere.plc_directories = vec![format!("{directory}/plc")];
    };
    let site = Site::of(TestNode::start_with(settings).await);
    site.seed().await;
    add(&site, UpstreamRule { admission: UpstreamAdmission::Any.into(), ..UpstreamRule::default() }).await;
    for scheme in ["http", "https"] {
        let service = json!([{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer",
            "serviceEndpoint": format!("{scheme}://pds.localhost:{port}")}]);
        network.says(|script| {
            drop(script.documents.get_mut(&did(0)).unwrap().insert("service".into(), service));
        });
        let page = site.start_login_as(&mut Browser::default(), &did(0)).await;
        assert_eq!(code_of(&page), "atproto_provider_blocked", "{scheme}: {}", page.text);
    }
    let page = site.start_login_as(&mut Browser::default(), &format!("https://pds.localhost:{port}")).await;
    assert_eq!(code_of(&page), "atproto_provider_blocked", "{}", page.text);
    assert!(inside.accept().is_err(), "no connection was made");
}

#[tokio::test]
async fn the_first_comes_by_the_link_and_two_with_one_link_are_one_administrator() {
    let network = Network::start().await;
    let mut nodes = TestNode::start_cluster_with(3, settings(&network)).await;
    let leads = nodes.iter().position(|node| node.cluster().is_leader()).unwrap();
    let leader = Site::of(nodes.remove(leads));
    let others = [Site::of(nodes.remove(0)), Site::of(nodes.remove(0))];
    leader.node.auth().clone().ensure_signing_keys(None).await;
    let admins = leader.node.group("admins").await;
    let rule = UpstreamRule {
        first_token_hash: digest(b"first token"),
        first_group_id: admins.to_vec(),
        mapped: vec![MappedGroups {
            who: "*.corp.test".into(),
            group_ids: vec![leader.node.group("corp").await.to_vec()],
        }],
        ..listed(&[], &[])
    };
    add(&leader, rule).await;
    network.account(&did(0), "alice.corp.test");
    network.account(&did(1), "bob.corp.test");
    // Both logins are started before either callback arrives.
    let mut on_the_way = Vec::new();
    for (n, handle) in [(0, "alice.corp.test"), (1, "bob.corp.test")] {
        let mut browser = Browser::default();
        let site = &others[n];
        let page = site.get(&mut browser, "/atproto?first=first%20token").await;
        let (ticket, csrf) = (page.field("ticket"), page.field("csrf"));
        let form =
            [("ticket", ticket.as_str()), ("csrf", &csrf), ("handle", handle), ("first", "first token")];
        let away = site.post(&mut browser, "/atproto/start", &form).await;
        on_the_way.push((browser, network.allows(&away.location())));
    }
    let mut pages = Vec::new();
    for (n, (browser, query)) in on_the_way.iter_mut().enumerate() {
        network.says(|script| script.signs_in = did(u8::try_from(n).unwrap()));
        // At the node on which the login was not started.
        pages.push(others[1 - n].open_callback(browser, query).await);
    }
    assert_eq!(pages[0].location(), "/", "{}", pages[0].text);
    assert_eq!(pages[1].shown("error-code"), "not_allowed");
    let view = leader.node.cluster().view();
    let alice = view.user(view.identity(NAME, &did(0)).unwrap().user).unwrap().clone();
    assert_eq!(alice.groups.len(), 2, "administrators, and those that the handle is mapped to");
    assert!(view.identity(NAME, &did(1)).is_none());
}

#[tokio::test]
async fn people_link_their_account_and_take_it_back() {
    let (site, network) = anybody().await;
    let mut browser = Browser::default();
    site.sign_in_at(&mut browser, "/", "ada", PASSWORD).await;
    let home = site.get(&mut browser, "/").await;
    let link = home.text.split("id=\"link-atmosphere\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    let link = link.replace("&#x2f;", "/").replace("&amp;", "&");
    let page = site.get(&mut browser, &link).await;
    let page = site.get(&mut browser, &page.location()).await;
    assert!(page.text.contains("Link your Atmosphere account"));
    let away = site.typed(&mut browser, &page, "alice.test").await;
    let page = site.open_callback(&mut browser, &network.allows(&away.location())).await;
    assert_eq!(page.location(), "/", "{}", page.text);
    let mut elsewhere = Browser::default();
    site.signs_in_as(&mut elsewhere, &network, "alice.test").await;
    assert_eq!(site.at_home(&mut elsewhere).await.as_deref(), Some("ada"));
    assert_eq!(site.atmosphere_people(), 1);
}

#[tokio::test]
async fn a_login_begins_at_one_node_and_ends_at_another_after_the_leader_is_gone() {
    let network = Network::start().await;
    network.account(&did(0), "alice.test");
    let mut nodes = TestNode::start_cluster_with(3, settings(&network)).await;
    let leads = nodes.iter().position(|node| node.cluster().is_leader()).unwrap();
    let leader = Site::of(nodes.remove(leads));
    let (first, second) = (Site::of(nodes.remove(0)), Site::of(nodes.remove(0)));
    leader.node.auth().clone().ensure_signing_keys(None).await;
    add(&leader, UpstreamRule { admission: UpstreamAdmission::Any.into(), ..UpstreamRule::default() }).await;
    wait_until(|| first.node.cluster().view().upstream(NAME).is_some()).await;
    let mut browser = Browser::default();
    let away = first.start_login_as(&mut browser, "alice.test").await;
    let query = network.allows(&away.location());
    leader.node.cluster().shutdown().await;
    let page = second.open_callback(&mut browser, &query).await;
    assert_eq!(page.location(), "/", "{} {}", page.status, page.text);
    assert_eq!(first.at_home(&mut browser).await.as_deref(), Some("alice.test"));
}

#[tokio::test]
async fn a_server_that_is_down_is_named_as_what_it_is_and_nothing_else_suffers() {
    let (site, network) = anybody().await;
    let mut browser = Browser::default();
    let away = site.start_login_as(&mut browser, "alice.test").await;
    let query = network.allows(&away.location());
    network.stop().await;
    let page = site.open_callback(&mut browser, &query).await;
    nobody(&site, &browser, &page, "atproto_provider_unreachable");
    let mut other = Browser::default();
    let page = site.start_login_as(&mut other, &did(0)).await;
    nobody(&site, &other, &page, "atproto_provider_unreachable");
    let mut ada = Browser::default();
    site.sign_in_at(&mut ada, "/", "ada", PASSWORD).await;
    assert_eq!(site.at_home(&mut ada).await.as_deref(), Some("ada"));
}

pub(crate) fn public(settings: &mut conclave_auth::Settings) {
    let environment = Environment::of([("CONCLAVE_HTTP__PUBLIC_URL", "https://id.example.com")]);
    let config = Config::from_sources(None, &environment).unwrap();
    settings.public_url = config.http.public_url().unwrap();
}

#[tokio::test]
async fn a_cluster_on_the_internet_proves_itself_by_a_key_that_every_node_publishes() {
    let network = Network::start().await;
    network.account(&did(0), "alice.test");
    let own = settings(&network);
    let nodes = TestNode::start_cluster_with(3, |settings| {
        own(settings);
        public(settings);
    });
    let sites: Vec<Site> = nodes.await.into_iter().map(Site::of).collect();
    let leader = sites.iter().find(|site| site.node.cluster().is_leader()).unwrap();
    leader.node.auth().clone().ensure_signing_keys(None).await;
    add(leader, UpstreamRule { admission: UpstreamAdmission::Any.into(), ..UpstreamRule::default() }).await;
    for site in &sites {
        wait_until(|| site.node.cluster().view().upstream(NAME).is_some()).await;
    }
    let mut documents = Vec::new();
    for site in &sites {
        for path in [
            "/oauth-client-metadata.json",
            "/.well-known/atproto-client-metadata.json",
            "/oauth-client-jwks.json",
        ] {
            let page = site.get(&mut Browser::default(), path).await;
            assert_eq!(
                (page.status, page.headers["content-type"].to_str().unwrap()),
                (StatusCode::OK, "application/json")
            );
            documents.push(page.text);
        }
    }
    assert!(documents.chunks(3).all(|own| own == &documents[..3]), "the same bytes from every node");
    let document: Value = serde_json::from_str(&documents[0]).unwrap();
    assert_eq!(documents[0], documents[1]);
    assert_eq!(document["client_id"], "https://id.example.com/oauth-client-metadata.json");
    assert_eq!(document["redirect_uris"], json!(["https://id.example.com/atproto/callback"]));
    assert_eq!(
        (&document["scope"], &document["grant_types"]),
        (&json!("atproto"), &json!(["authorization_code"]))
    );
    assert_eq!(document["dpop_bound_access_tokens"], true);
    assert_eq!(document["jwks_uri"], "https://id.example.com/oauth-client-jwks.json");

    let mut browser = Browser::default();
    let away = sites[0].start_login_as(&mut browser, "alice.test").await;
    let pushed = network.last_pushed();
    let keys: Value = serde_json::from_str(&documents[2]).unwrap();
    let assertion = &pushed["client_assertion"];
    let kid = jwt::unverified_kid(assertion).unwrap().unwrap();
    let key = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["kid"] == kid.as_str())
        .expect("a published key");
    let key = jwt::VerifyingKey::from_jwk(key).unwrap();
    let claims = key.verify(assertion, jwt::Expect { typ: None, algs: &[Alg::Es256] }).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!((&claims["iss"], &claims["sub"]), (&document["client_id"], &document["client_id"]));
    assert_eq!(claims["aud"], network.url.as_str());
    let page = sites[1].open_callback(&mut browser, &network.allows(&away.location())).await;
    assert_eq!(page.location(), "/", "{}", page.text);
    assert_eq!(sites[2].at_home(&mut browser).await.as_deref(), Some("alice.test"));
    // Not offered on a loopback URL: there the client needs no document.
    let (site, _network) = anybody().await;
    let page = site.get(&mut Browser::default(), "/oauth-client-metadata.json").await;
    assert_eq!(page.status, StatusCode::NOT_FOUND);
}
