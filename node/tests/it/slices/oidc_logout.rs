//! Logout: started by relying parties, and announced to relying parties.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::post};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_http::Outbound;
use conclave_node::testing::TestNode;
use conclave_oidc::Announcer;
use conclave_proto::{
    admin::v1::{self as pb, session_service_client::SessionServiceClient},
    command::v1::{
        ClientAuthMethod, ConsentMode, CreateClient, RevokeSession, SigningAlgorithm, UpdateUser,
        command::Body as Command,
    },
};
use http::StatusCode;
use serde_json::{Value, json};

use super::site::{Browser, PASSWORD, Site, encoded};
use crate::admin::{by_operator, channel};

fn part(token: &str, which: usize) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(which).unwrap()).unwrap()).unwrap()
}

/// A relying party's logout endpoint: the tokens that it received, and the status that it returns.
#[derive(Clone)]
struct Endpoint {
    url: String,
    sent: Arc<Mutex<Vec<String>>>,
    status: Arc<Mutex<StatusCode>>,
}

impl Endpoint {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/out", listener.local_addr().unwrap());
        let status = Arc::new(Mutex::new(StatusCode::OK));
        let endpoint = Self { url, sent: Arc::default(), status };
        let take = async |State(endpoint): State<Self>, body: Bytes| {
            let (name, token) = url::form_urlencoded::parse(&body).next().unwrap();
            assert_eq!(name, "logout_token");
            endpoint.sent.lock().unwrap().push(token.into_owned());
            *endpoint.status.lock().unwrap()
        };
        let router = Router::new().route("/out", post(take)).with_state(endpoint.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        endpoint
    }

    fn answers(&self, status: StatusCode) {
        *self.status.lock().unwrap() = status;
    }

    fn taken(&self) -> Vec<String> {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }
}

fn announcer(node: &TestNode) -> Announcer {
    Announcer::new(node.auth().clone(), Outbound::new(vec!["127.0.0.0/8".parse().unwrap()]))
}

async fn signed_in_at(site: &Site, clients: &[&str]) -> (Browser, Value) {
    let mut browser = Browser::default();
    let mut id = Value::Null;
    site.sign_in_at(&mut browser, "/", "ada", PASSWORD).await;
    for client in clients {
        let page = site.get(&mut browser, &Site::authorize_url(client, &[])).await;
        let tokens = site.redeem(client, &page.parameter("code").unwrap()).await.json();
        id = tokens["id_token"].clone();
    }
    (browser, id)
}

#[tokio::test]
async fn every_client_of_a_session_is_told_of_its_end_until_it_has_taken_it() {
    let site = Site::open().await;
    let endpoint = Endpoint::start().await;
    for client in ["web", "staff-only"] {
        site.change(client, |c| c.back_channel_logout_uri = Some(endpoint.url.clone())).await;
    }
    let (mut browser, id) = signed_in_at(&site, &["web", "staff-only", "web"]).await;
    let id = part(id.as_str().unwrap(), 1);
    let mut announcer = announcer(&site.node);
    assert_eq!(announcer.round().await, 0, "nothing has ended");

    // The first time, no endpoint accepts it.
    endpoint.answers(StatusCode::SERVICE_UNAVAILABLE);
    let page = site.get(&mut browser, "/logout").await;
    site.post(&mut browser, "/logout", &[("csrf", &page.field("csrf"))]).await;
    assert_eq!(announcer.round().await, 0);
    let first = endpoint.taken();
    assert_eq!(first.len(), 2);
    assert_eq!(announcer.round().await, 0);
    assert!(endpoint.taken().is_empty(), "not again at once");
    site.node.clock().advance(Duration::from_secs(1));
    endpoint.answers(StatusCode::NO_CONTENT);
    assert_eq!(announcer.round().await, 2);
    let second = endpoint.taken();
    assert_eq!(announcer.round().await, 0);
    assert!(endpoint.taken().is_empty() && site.node.cluster().view().outbox().next().is_none());

    // The checks of a relying party (§2.4 and §2.6).
    let keys = site.get(&mut browser, "/oidc/jwks").await.json();
    let mut audiences = Vec::new();
    for (token, retried) in first.iter().zip(&second) {
        let (header, claims) = (part(token, 0), part(token, 1));
        assert_eq!(header["typ"], "logout+jwt");
        assert!(keys["keys"].as_array().unwrap().iter().any(|key| key["kid"] == header["kid"]));
        assert_eq!((&claims["iss"], &claims["sub"], &claims["sid"]), (&id["iss"], &id["sub"], &id["sid"]));
        assert_eq!(claims["events"], json!({ "http://schemas.openid.net/event/backchannel-logout": {} }));
        assert!(claims.get("nonce").is_none() && claims["iat"].is_u64());
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 120);
        assert_eq!(claims["jti"], part(retried, 1)["jti"], "the same notice");
        audiences.push(claims["aud"].as_str().unwrap().to_owned());
    }
    audiences.sort();
    assert_eq!(audiences, ["staff-only", "web"]);
    assert_ne!(part(&first[0], 1)["jti"], part(&first[1], 1)["jti"]);
}

#[tokio::test]
async fn a_disabled_person_is_signed_out_everywhere_and_a_dead_client_is_given_up() {
    let site = Site::open().await;
    let endpoint = Endpoint::start().await;
    site.change("web", |c| c.back_channel_logout_uri = Some(endpoint.url.clone())).await;
    signed_in_at(&site, &["web"]).await;
    signed_in_at(&site, &["web"]).await;
    let ada = site.node.cluster().view().user_by_name("ada").unwrap().id;
    let command = UpdateUser { user_id: ada.to_vec(), disabled: Some(true), ..UpdateUser::default() };
    site.node.propose(Command::UpdateUser(command)).await.unwrap();
    let mut announcer = announcer(&site.node);
    endpoint.answers(StatusCode::BAD_REQUEST);
    assert_eq!(announcer.round().await, 0);
    assert_eq!(endpoint.taken().len(), 2, "both sessions");
    site.node.clock().advance(Duration::from_mins(61));
    assert_eq!(announcer.round().await, 2, "given up");
    assert!(endpoint.taken().is_empty());
}

#[tokio::test]
async fn a_private_address_is_called_where_an_administrator_wrote_it_and_nowhere_else() {
    let site = Site::open().await;
    let endpoint = Endpoint::start().await;
    site.change("web", |c| c.back_channel_logout_uri = Some(endpoint.url.clone())).await;
    // That address, registered by a client that registered itself.
    let command = CreateClient {
        client_id: "stranger".into(),
        auth_method: ClientAuthMethod::None.into(),
        redirect_uris: vec![super::site::REDIRECT_URI.into()],
        scopes: vec!["openid".into()],
        signing_algorithm: SigningAlgorithm::Es256.into(),
        consent: ConsentMode::Implicit.into(),
        back_channel_logout_uri: endpoint.url.clone(),
        registration_token_hash: vec![7; 32],
        ..CreateClient::default()
    };
    site.node.propose(Command::CreateClient(command)).await.unwrap();
    let mut browser = Browser::default();
    for client in ["web", "stranger"] {
        let mut page = site.get(&mut browser, &Site::authorize_url(client, &[("scope", "openid")])).await;
        if page.location().starts_with("/login") {
            let url = Site::authorize_url(client, &[("scope", "openid")]);
            page = site.sign_in_at(&mut browser, &url, "ada", PASSWORD).await;
        }
        assert!(page.parameter("code").is_some(), "{client}");
    }
    let session = site.node.cluster().view().sessions_after(None).next().unwrap().id;
    site.node.propose(Command::RevokeSession(RevokeSession { session_id: session.to_vec() })).await.unwrap();
    let mut closed = Announcer::new(site.node.auth().clone(), Outbound::new(Vec::new()));
    assert_eq!((closed.round().await, endpoint.taken().len()), (1, 1));
    let view = site.node.cluster().view();
    assert_eq!(view.outbox_len(), 1, "it waits for an operator to allow it");
    // Pending notices are listed with their client, attempts and last error, and named where a session is ended.
    let mut sessions = SessionServiceClient::new(channel(&site.node));
    let notices = sessions.list_notices(by_operator(&site.node, pb::ListNoticesRequest { page: None })).await;
    let notices = notices.unwrap().into_inner().notices;
    let [notice] = &notices[..] else { panic!("{notices:?}") };
    assert_eq!(
        (notice.client_id.as_str(), notice.username.as_str(), notice.attempts),
        ("stranger", "ada", 1)
    );
    assert!(notice.last_error.contains("not a public address"), "{}", notice.last_error);
    let command = pb::RevokeSessionRequest { session_id: session.to_string(), with_grants: false };
    let said = sessions.revoke_session(by_operator(&site.node, command)).await.unwrap().into_inner();
    assert_eq!(said.not_told, ["stranger"]);
    let command = pb::RevokeUserSessionsRequest { user: "ada".into(), app_passwords: false };
    let said = sessions.revoke_user_sessions(by_operator(&site.node, command)).await.unwrap().into_inner();
    assert_eq!(said.not_told, ["stranger"]);
}

#[tokio::test]
async fn the_next_leader_tells_what_the_last_one_did_not() {
    let nodes = TestNode::start_cluster(3).await;
    let mut sites: Vec<Site> = nodes.into_iter().map(Site::of).collect();
    let leader = sites.iter().position(|site| site.node.cluster().is_leader()).unwrap();
    sites.swap(0, leader);
    sites[0].seed().await;
    let endpoint = Endpoint::start().await;
    sites[0].change("web", |c| c.back_channel_logout_uri = Some(endpoint.url.clone())).await;
    let (mut browser, _) = signed_in_at(&sites[0], &["web"]).await;
    let page = sites[0].get(&mut browser, "/logout").await;
    sites[0].post(&mut browser, "/logout", &[("csrf", &page.field("csrf"))]).await;
    let mut announcers: Vec<Announcer> = sites.iter().map(|site| announcer(&site.node)).collect();
    assert_eq!(announcers[1].round().await + announcers[2].round().await, 0, "followers send no notices");
    assert!(endpoint.taken().is_empty());

    sites[0].node.cluster().transfer_leadership().await;
    conclave_node::testing::wait_until(|| sites[1..].iter().any(|site| site.node.cluster().is_leader()))
        .await;
    let next = sites.iter().position(|site| site.node.cluster().is_leader()).unwrap();
    assert_eq!(announcers[next].round().await, 1);
    assert_eq!(endpoint.taken().len(), 1);
}

#[tokio::test]
async fn an_id_token_of_this_very_session_signs_out_without_a_question() {
    let site = Site::open().await;
    let url = |hint: &str| {
        let back =
            [("id_token_hint", hint), ("post_logout_redirect_uri", "https://rp.test/bye"), ("state", "z")];
        format!("/oidc/logout?{}", encoded(&back))
    };
    // A hint of another session, even of this user: the user is asked.
    let (_, foreign) = signed_in_at(&site, &["web"]).await;
    let (mut browser, own) = signed_in_at(&site, &["web"]).await;
    let (foreign, own) = (foreign.as_str().unwrap(), own.as_str().unwrap());
    let page = site.get(&mut browser, &url(foreign)).await;
    assert!(page.location().starts_with("/logout?ticket="), "{}", page.location());
    let asked = site.get(&mut browser, &page.location()).await;
    assert!(asked.text.contains("id=\"logout-form\""));

    // Without its cookies this browser does not belong to the session.
    let page = site.get(&mut Browser::default(), &url(own)).await;
    assert!(page.location().starts_with("/logout?ticket="));

    site.node.clock().advance(Duration::from_hours(1));
    let page = site.get(&mut browser, &url(own)).await;
    assert_eq!(page.location(), "https://rp.test/bye?state=z");
    assert_eq!(site.get(&mut browser, "/").await.location(), "/login", "an expired hint does");
    let tampered = format!("{}x", &own[..own.len() - 1]);
    assert_eq!(
        site.get(&mut browser, &url(&tampered)).await.location(),
        "/logout",
        "the person is asked, and stays here"
    );

    // No browser is redirected to a client that an operator disabled.
    site.change("web", |client| client.disabled = Some(true)).await;
    assert_eq!(site.get(&mut browser, &url(own)).await.shown("error-code"), "unknown_client");
    site.change("web", |client| client.disabled = Some(false)).await;

    // By POST from another site: the browser is redirected to bring its cookies.
    let (mut browser, own) = signed_in_at(&site, &["web"]).await;
    let page = site.client_post("/oidc/logout", None, &[("id_token_hint", own.as_str().unwrap())]).await;
    let page = site.get(&mut browser, &page.location()).await;
    assert!(page.text.contains("id=\"signed-out\""), "{}", page.text);
    assert_eq!(site.get(&mut browser, "/").await.location(), "/login");
}

#[tokio::test]
async fn the_browser_loads_the_pages_of_clients_that_want_it_and_goes_on() {
    let site = Site::open().await;
    for (client, uri) in [("web", "https://rp.test/front?x=1"), ("staff-only", "https://other.test/front")] {
        site.change(client, |c| c.front_channel_logout_uri = Some(uri.into())).await;
    }
    let (mut browser, id) = signed_in_at(&site, &["web", "staff-only"]).await;
    let hint = id.as_str().unwrap();
    let sid = part(hint, 1)["sid"].as_str().unwrap().to_owned();
    let back = [("id_token_hint", hint), ("post_logout_redirect_uri", "https://rp.test/bye"), ("state", "z")];
    let page = site.get(&mut browser, &format!("/oidc/logout?{}", encoded(&back))).await;
    assert_eq!(page.status, StatusCode::OK);
    let text = page.text.replace("&#x2f;", "/").replace("&amp;", "&");
    assert!(
        text.contains(&format!(
            "src=\"https://rp.test/front?x=1&iss=http%3A%2F%2F127.0.0.1%3A9000&sid={sid}\""
        )),
        "{text}"
    );
    assert!(text.contains("src=\"https://other.test/front?iss="));
    assert!(text.contains("http-equiv=\"refresh\" content=\"3;url=https://rp.test/bye?state=z\""), "{text}");
    assert!(text.contains("id=\"continue\" href=\"https://rp.test/bye?state=z\""));
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.ends_with("frame-src https://other.test https://rp.test") && !policy.contains("script-src"),
        "{policy}"
    );
    assert_eq!(site.get(&mut browser, "/").await.location(), "/login");
}

#[tokio::test]
async fn a_valid_hint_signs_out_whatever_else_is_wrong() {
    let site = Site::open().await;
    for (more, code) in [
        (vec![("post_logout_redirect_uri", "https://rp.test/bye/")], "post_logout_redirect_uri_mismatch"),
        (vec![("client_id", "spa"), ("post_logout_redirect_uri", "https://rp.test/bye")], "client_mismatch"),
    ] {
        let (mut browser, own) = signed_in_at(&site, &["web"]).await;
        let mut query = vec![("id_token_hint", own.as_str().unwrap())];
        query.extend(more.iter().copied());
        let page = site.get(&mut browser, &format!("/oidc/logout?{}", encoded(&query))).await;
        assert_eq!(
            (page.shown("error-code").as_str(), page.shown("error-title").as_str()),
            (code, "You are signed out")
        );
        if code == "post_logout_redirect_uri_mismatch" {
            assert!(
                page.shown("error-detail").replace("&#x2f;", "/").contains("https://rp.test/bye/"),
                "{}",
                page.text
            );
        }
        assert_eq!(page.link("back"), "/login");
        assert!(!browser.cookies.contains_key("conclave_session"));
        assert_eq!(site.node.cluster().view().sessions_after(None).count(), 0);
    }
    // The session's id is accepted as well, if the client that received it sends it.
    let (mut browser, own) = signed_in_at(&site, &["web"]).await;
    let sid = part(own.as_str().unwrap(), 1)["sid"].as_str().unwrap().to_owned();
    let other = "0".repeat(sid.len());
    for (hint, goes) in [(&other, "/logout?ticket="), (&sid, "https://rp.test/bye")] {
        let query = [
            ("logout_hint", hint.as_str()),
            ("client_id", "web"),
            ("post_logout_redirect_uri", "https://rp.test/bye"),
        ];
        let page = site.get(&mut browser, &format!("/oidc/logout?{}", encoded(&query))).await;
        assert!(page.location().starts_with(goes), "{}", page.location());
    }
}

#[tokio::test]
async fn an_id_token_of_a_user_in_many_groups_is_its_own_hint() {
    let site = Site::open().await;
    for n in 0..140 {
        site.node.group(&format!("department-with-a-long-name-{n:04}-{}", "x".repeat(12))).await;
    }
    let groups: Vec<String> =
        (0..140).map(|n| format!("department-with-a-long-name-{n:04}-{}", "x".repeat(12))).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    site.node.create_user("many", PASSWORD, &groups).await;
    for by_post in [false, true] {
        let mut browser = Browser::default();
        let page = site.sign_in_at(&mut browser, &Site::authorize_url("web", &[]), "many", PASSWORD).await;
        let tokens = site.redeem("web", &page.parameter("code").unwrap()).await.json();
        let own = tokens["id_token"].as_str().unwrap();
        assert!(own.len() > 8 * 1024, "{}", own.len());
        let form = [("id_token_hint", own), ("post_logout_redirect_uri", "https://rp.test/bye")];
        let page = if by_post {
            // From another site, so without cookies: redirected by a short address.
            let page = site.client_post("/oidc/logout", None, &form).await;
            assert!(page.location().len() < 1_000, "{}", page.location());
            site.get(&mut browser, &page.location()).await
        } else {
            site.get(&mut browser, &format!("/oidc/logout?{}", encoded(&form))).await
        };
        assert_eq!(page.location(), "https://rp.test/bye");
        assert_eq!(site.get(&mut browser, "/").await.location(), "/login");
        let again = site.get(&mut browser, &Site::authorize_url("web", &[("id_token_hint", own)])).await;
        assert!(again.location().starts_with("/login?ticket="), "{}", again.location());
    }
}

#[tokio::test]
async fn a_refreshed_token_names_no_session_that_is_over() {
    let site = Site::open().await;
    let mut browser = Browser::default();
    let url = Site::authorize_url("web", &[("scope", "openid offline_access")]);
    let page = site.sign_in_at(&mut browser, &url, "ada", PASSWORD).await;
    let mut tokens = site.redeem("web", &page.parameter("code").unwrap()).await.json();
    for alive in [true, false] {
        if !alive {
            let hint = [("id_token_hint", tokens["id_token"].as_str().unwrap())];
            site.get(&mut browser, &format!("/oidc/logout?{}", encoded(&hint))).await;
        }
        tokens = site.refresh(tokens["refresh_token"].as_str().unwrap()).await.json();
        let sid = part(tokens["id_token"].as_str().unwrap(), 1)["sid"].clone();
        assert_eq!(sid.is_string(), alive);
        let access = tokens["access_token"].as_str().unwrap();
        assert_eq!(site.userinfo(access).await.status, StatusCode::OK, "it outlives the session");
    }
}
