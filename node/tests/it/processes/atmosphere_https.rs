//! The cluster as a client on the internet at the real account server: its document and keys are read over https, it
//! authenticates by a key, and its keys change while the server caches them for ten minutes.

use std::{sync::Arc, time::Duration};

use conclave_auth::Settings;
use conclave_base::runtime::Runtime;
use conclave_config::{Config, Environment};
use conclave_http::{HttpListener, ServerTls, TlsFiles};
use conclave_node::testing::wait_until;
use conclave_proto::command::v1::{ActivateSigningKey, command::Body};
use conclave_state::{State, client::SigningAlgorithm, key::KeyStage};
use http::StatusCode;
use tokio_util::sync::CancellationToken;

use super::atmosphere::{Servers, World, anybody};
use crate::slices::{
    atmosphere::code_of,
    mtls::{Authority, params, pem},
    site::{Browser, Page},
};

/// Account servers refuse clients whose redirect URI is below `.test` or `.localhost`.
const HOST: &str = "sso.conclave.internal";
const ALICE: &str = "alice.test";
const HOUR: Duration = Duration::from_hours(1);
const MINUTE: Duration = Duration::from_mins(1);
/// The time for which the server caches the document and the keys.
const KEPT: Duration = Duration::from_mins(10);
/// The time for which a key is published before the client uses it.
const KNOWN_FOR: Duration = Duration::from_mins(20);

fn known_as_public(settings: &mut Settings) {
    let url = format!("https://{HOST}");
    let config = Config::from_sources(None, &Environment::of([("CONCLAVE_HTTP__PUBLIC_URL", url.as_str())]));
    settings.public_url = config.unwrap().http.public_url().unwrap();
    settings.tokens.signing_key_ttl = HOUR * 96;
    settings.tokens.signing_key_notice = HOUR * 24;
}

/// The cluster on the internet, and the token that stops its listeners.
struct Public {
    world: World,
    stop: CancellationToken,
}

impl Drop for Public {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Public {
    /// Each node behind a separate TLS listener; the servers trust the certificate authority and connect to the nodes
    /// in turn.
    async fn start() -> Self {
        let (authority, dir) = (Authority::new(), tempfile::tempdir().unwrap());
        let own = authority.issue(&params(HOST));
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let certificate = write("front.pem", pem("CERTIFICATE", &own.der));
        let key = write("front.key", pem("PRIVATE KEY", &own.key.serialize_der()));
        let ca = write("ca.pem", authority.pem());
        let files = TlsFiles { certificate: &certificate, key: &key, clients: None };
        let (mut doors, mut ports) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let tls = ServerTls::load(&files, Arc::clone(&Runtime::system().clock)).unwrap();
            let door = HttpListener::bind("http.tls.listen", "127.0.0.1:0".parse().unwrap()).await.unwrap();
            ports.push(door.local_addr().unwrap().port().to_string());
            doors.push(door.with_tls(tls));
        }
        let fronts = format!("{HOST}={}", ports.join(","));
        let settings = [("CLIENT_FRONTS", fronts.as_str()), ("NODE_EXTRA_CA_CERTS", ca.to_str().unwrap())];
        let mut world = World::start_with(Servers::start(&settings), known_as_public).await;
        let stop = CancellationToken::new();
        for (door, site) in doors.into_iter().zip(&world.nodes) {
            tokio::spawn(door.serve(site.front(), stop.clone()));
        }
        world.takes(anybody()).await;
        world.account(ALICE);
        Self { world, stop }
    }

    fn view(&self) -> Arc<State> {
        self.world.leader().node.cluster().view()
    }

    fn active(&self) -> String {
        self.view().active_key(SigningAlgorithm::Es256).unwrap().kid.to_string()
    }

    fn key_count(&self) -> usize {
        self.view().keys().filter(|key| key.algorithm == SigningAlgorithm::Es256).count()
    }

    fn came_in(page: &Page, when: &str) {
        assert_eq!(page.status, StatusCode::SEE_OTHER, "{when}: {} {}", code_of(page), page.text);
        assert_eq!(page.location(), "/", "{when}");
    }

    async fn signs_in(&self, when: &str) {
        let mut browser = Browser::default();
        let page = self.world.signs_in(&mut browser, ALICE, ALICE, "accept").await;
        Self::came_in(&page, when);
        assert_eq!(self.world.who(&mut browser).await.as_deref(), Some(ALICE), "{when}");
    }

    /// The leader takes the step of the schedule that is due `after`; one login has begun a minute before. That login
    /// completes, and so does the next one, on nodes that have seen the step.
    async fn steps(&mut self, after: Duration, when: &str, is_done: impl Fn(&State) -> bool) {
        self.world.passes(after.saturating_sub(MINUTE));
        let mut browser = Browser::default();
        let away = self.world.nodes[0].start_login_as(&mut browser, ALICE).await;
        assert_eq!(away.status, StatusCode::SEE_OTHER, "{when}: {} {}", code_of(&away), away.text);
        let query = self.world.at_their_server(&away.location(), ALICE, "accept").await;
        assert!(!is_done(&self.view()), "{when}: not before it is due");
        self.world.passes(MINUTE * 2);
        let rotating = tokio::spawn(self.world.leader().node.auth().clone().keep_rotating_keys());
        for site in &self.world.nodes {
            wait_until(|| is_done(&site.node.cluster().view())).await;
        }
        rotating.abort();
        let page = self.world.nodes[1].open_callback(&mut browser, &query).await;
        Self::came_in(&page, when);
        self.signs_in(when).await;
    }
}

fn es256(state: &State, is_wanted: fn(&KeyStage) -> bool) -> bool {
    state.keys().any(|key| key.algorithm == SigningAlgorithm::Es256 && is_wanted(&key.stage))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_the_internet_signs_people_in_at_a_real_server_through_every_change_of_its_keys() {
    let mut public = Public::start().await;
    let first = public.active();
    let tokens = public.world.nodes[0].node.auth().settings().tokens.clone();
    // From here on the server caches the keys of this moment.
    public.signs_in("the first key").await;

    let due = tokens.signing_key_ttl.saturating_sub(tokens.signing_key_notice);
    public.steps(due, "published", |state| es256(state, |stage| *stage == KeyStage::Next)).await;
    assert_eq!((public.active(), public.key_count()), (first.clone(), 2));

    let is_retired = |state: &State| es256(state, |stage| matches!(stage, KeyStage::Retired { .. }));
    public.steps(tokens.signing_key_notice, "activated", is_retired).await;
    let second = public.active();
    assert_ne!(second, first);
    public.world.passes(KEPT.saturating_sub(MINUTE));
    assert_eq!(public.key_count(), 2, "as long as anybody keeps what it signed");
    public.signs_in("ten minutes later").await;

    let kept = (tokens.access_ttl + HOUR * 24).saturating_sub(KEPT);
    public
        .steps(kept, "retired", |state| !es256(state, |stage| matches!(stage, KeyStage::Retired { .. })))
        .await;
    assert_eq!((public.active(), public.key_count()), (second.clone(), 1));

    // An operator activates a key at once that the server, which has just fetched the keys, cannot know.
    public.world.leader().node.auth().publish_next_key(SigningAlgorithm::Es256).await.unwrap();
    let third = public.view().next_key(SigningAlgorithm::Es256).unwrap().kid.to_string();
    let command = Body::ActivateSigningKey(ActivateSigningKey { kid: third.clone() });
    public.world.leader().node.propose(command).await.unwrap();
    for site in &public.world.nodes {
        wait_until(|| {
            site.node.cluster().view().active_key(SigningAlgorithm::Es256).unwrap().kid.as_ref() == third
        })
        .await;
    }
    public.signs_in("before the server can know the key").await;
    public.world.passes(KNOWN_FOR + MINUTE);
    public.signs_in("when it must know it").await;
    let people = public.view().identities_at("atmosphere").count();
    assert_eq!(people, 1, "one person throughout");
}
