//! The key with which this cluster authenticates to account servers: a key that all of them must have seen, whatever
//! happens to the keys.

use std::time::Duration;

use conclave_crypto::jwt;
use conclave_proto::command::v1::{
    ActivateSigningKey, RetireSigningKey, UpstreamAdmission, UpstreamRule, command::Body,
};
use conclave_state::client::SigningAlgorithm;
use http::StatusCode;
use serde_json::Value;

use super::{
    atmosphere::{add, public, settings},
    atmosphere_network::{Network, did},
    site::{Browser, Site},
};

/// The time for which a key is published before it is used: longer than the ten minutes for which servers cache the
/// keys.
const KNOWN_FOR: Duration = Duration::from_mins(20);
const MOMENT: Duration = Duration::from_secs(1);
const ALMOST_KNOWN_FOR: Duration = KNOWN_FOR.checked_sub(MOMENT).unwrap();

fn kid(assertion: &str) -> String {
    jwt::unverified_kid(assertion).unwrap().unwrap()
}

struct World {
    site: Site,
    network: std::sync::Arc<Network>,
}

impl World {
    async fn start() -> Self {
        let network = Network::start().await;
        network.account(&did(0), "alice.test");
        let own = settings(&network);
        let node = conclave_node::testing::TestNode::start_with(|settings| {
            own(settings);
            public(settings);
        });
        let site = Site::of(node.await);
        site.seed().await;
        add(&site, UpstreamRule { admission: UpstreamAdmission::Any.into(), ..UpstreamRule::default() })
            .await;
        Self { site, network }
    }

    fn passes(&self, time: Duration) {
        self.site.node.clock().advance(time);
    }

    fn active(&self) -> String {
        self.site.node.cluster().view().active_key(SigningAlgorithm::Es256).unwrap().kid.to_string()
    }

    async fn published(&self) -> Vec<String> {
        let page = self.site.get(&mut Browser::default(), "/oauth-client-jwks.json").await;
        let kids = page.json()["keys"].as_array().unwrap().clone();
        kids.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    /// Activates another key at once, as an operator may: it is published at that moment.
    async fn rotates_at_once(&self) -> String {
        self.site.node.auth().publish_next_key(SigningAlgorithm::Es256).await.unwrap();
        let view = self.site.node.cluster().view();
        let kid = view.next_key(SigningAlgorithm::Es256).unwrap().kid.to_string();
        self.site
            .node
            .propose(Body::ActivateSigningKey(ActivateSigningKey { kid: kid.clone() }))
            .await
            .unwrap();
        assert_eq!(self.active(), kid);
        kid
    }

    /// Signs in and returns the id of the key that the login used, at its start and at its end.
    async fn signs_in(&self) -> String {
        let mut browser = Browser::default();
        let page = self.site.signs_in_as(&mut browser, &self.network, "alice.test").await;
        assert_eq!((page.status, page.location().as_str()), (StatusCode::SEE_OTHER, "/"), "{}", page.text);
        let pushed = kid(&self.network.last_pushed()["client_assertion"]);
        assert_eq!(kid(&self.network.told.lock().unwrap()["client_assertion"]), pushed, "one key, one login");
        let published = self.published().await;
        assert!(published.contains(&pushed), "{pushed} proves something and is not in {published:?}");
        pushed
    }
}

#[tokio::test]
async fn no_key_proves_anything_before_every_server_must_have_seen_it() {
    let world = World::start().await;
    let first = world.active();
    assert_eq!(world.signs_in().await, first, "no server can have seen another");
    world.passes(KNOWN_FOR);

    let second = world.rotates_at_once().await;
    assert_eq!(world.signs_in().await, first);
    world.passes(ALMOST_KNOWN_FOR);
    assert_eq!(world.signs_in().await, first);
    world.passes(MOMENT);
    assert_eq!(world.signs_in().await, second);

    // Twice in a row: neither of the new keys is known yet.
    let third = world.rotates_at_once().await;
    world.passes(MOMENT);
    let fourth = world.rotates_at_once().await;
    assert_eq!(world.signs_in().await, second);
    world.passes(ALMOST_KNOWN_FOR);
    assert_eq!(world.signs_in().await, third);
    world.passes(MOMENT);
    assert_eq!(world.signs_in().await, fourth);
    // Every key that was used is still published.
    let published = world.published().await;
    assert!([&first, &second, &third, &fourth].iter().all(|kid| published.contains(kid)), "{published:?}");
}

#[tokio::test]
async fn a_login_ends_with_the_key_that_it_began_with() {
    let world = World::start().await;
    let first = world.active();
    world.passes(KNOWN_FOR);
    let second = world.rotates_at_once().await;
    // The login starts seconds before the second key is known, and ends seconds after.
    world.passes(ALMOST_KNOWN_FOR);
    let mut browser = Browser::default();
    let away = world.site.start_login_as(&mut browser, "alice.test").await;
    world.passes(MOMENT * 2);
    let page = world.site.open_callback(&mut browser, &world.network.allows(&away.location())).await;
    assert_eq!(page.location(), "/", "{}", page.text);
    assert_eq!(kid(&world.network.told.lock().unwrap()["client_assertion"]), first);
    assert_eq!(world.signs_in().await, second);
}

#[tokio::test]
async fn a_key_that_is_taken_back_proves_nothing_more_however_young_the_other_is() {
    let world = World::start().await;
    let first = world.active();
    world.passes(KNOWN_FOR);
    let second = world.rotates_at_once().await;
    let command = RetireSigningKey { kid: first.clone() };
    world.site.node.propose(Body::RetireSigningKey(command)).await.unwrap();
    assert_eq!(world.signs_in().await, second);
    let keys: Value = world.site.get(&mut Browser::default(), "/oauth-client-jwks.json").await.json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1, "{keys}");
}
