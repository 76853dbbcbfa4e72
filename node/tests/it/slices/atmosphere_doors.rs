//! Admission from the Atmosphere and its continuation: invitations, repeated verification of handles, the view of a
//! second node; and the headers that applications receive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use conclave_node::testing::{TestNode, wait_until};
use conclave_proto::command::v1::{
    InviteIdentity, UpdateUpstream, UpstreamAdmission, UpstreamRule, command::Body,
};
use conclave_state::Reason;
use http::StatusCode;

use super::{
    atmosphere::{NAME, add, anybody, code_of, listed, settings, site},
    atmosphere_network::{Network, did},
    forward_auth::Check,
    site::{Browser, Page, Site},
};

const DAY: Duration = Duration::from_hours(24);

impl Site {
    /// The check's response for the user who is signed in at home in this browser.
    async fn told(&self, at_home: &mut Browser) -> Page {
        let denied = Check::of("traefik").send(self, "").await;
        let start = denied.location();
        let start = start.strip_prefix("https://app.test").expect("the application's host").to_owned();
        let mut on_app = Browser::default();
        let mut page = self.get(&mut on_app, &start).await;
        while !page.location().starts_with("https://app.test") {
            page = self.get(at_home, &page.location()).await;
        }
        let callback = page.location().strip_prefix("https://app.test").unwrap().to_owned();
        self.get(&mut on_app, &callback).await;
        let cookie = on_app.cookies.get("__Host-conclave_app").expect("an application's cookie");
        Check::of("traefik").send(self, &format!("__Host-conclave_app={cookie}")).await
    }

    async fn invites(&self, number: u8, who: &str) -> Result<(), Reason> {
        let command = InviteIdentity {
            upstream: NAME.into(),
            invitation_id: vec![number; 16],
            who: who.into(),
            group_ids: vec![self.node.group("invited").await.to_vec()],
            ttl_ms: u64::try_from(DAY.as_millis()).unwrap(),
        };
        match self.node.propose(Body::InviteIdentity(command)).await {
            Ok(_) => Ok(()),
            Err(conclave_cluster::ProposeError::Refused(refusal)) => Err(refusal.reason),
            Err(other) => panic!("{other}"),
        }
    }

    fn identity(&self, did: &str) -> Option<Arc<conclave_state::upstream::LinkedIdentity>> {
        self.node.cluster().view().identity(NAME, did).cloned()
    }
}

#[tokio::test]
async fn applications_are_told_the_did_and_the_handle_while_it_is_verified_and_nothing_of_others() {
    let (site, network) = anybody().await;
    let staff = site.node.group("staff").await;
    let rule = UpstreamRule {
        group_ids: vec![staff.to_vec()],
        admission: UpstreamAdmission::Any.into(),
        ..UpstreamRule::default()
    };
    let command = UpdateUpstream { name: NAME.into(), rule: Some(rule), ..UpdateUpstream::default() };
    site.node.propose(Body::UpdateUpstream(command)).await.unwrap();
    let mut browser = Browser::default();
    site.signs_in_as(&mut browser, &network, "alice.test").await;
    let told = site.told(&mut browser).await;
    assert_eq!(told.status, StatusCode::OK, "{}", told.text);
    assert_eq!(told.headers["x-conclave-atproto-did"], did(0).as_str());
    assert_eq!(told.headers["x-conclave-atproto-handle"], "alice.test");
    // A handle that now resolves to another DID is not sent.
    network.says(|script| drop(script.txt.remove("_atproto.alice.test")));
    let mut browser = Browser::default();
    site.signs_in_as(&mut browser, &network, &did(0)).await;
    let told = site.told(&mut browser).await;
    assert_eq!(told.headers["x-conclave-atproto-did"], did(0).as_str());
    assert_eq!(told.headers["x-conclave-atproto-handle"], "");
    // For a user without a DID both are written, empty: a client's own copy is overwritten.
    let cookie =
        super::forward_auth::cookie_of(&site, "ada").await.unwrap_or_else(|page| panic!("{}", page.text));
    let told = Check::of("traefik").send(&site, &cookie).await;
    assert_eq!(told.status, StatusCode::OK, "{}", told.text);
    assert_eq!(
        (&told.headers["x-conclave-atproto-did"], &told.headers["x-conclave-atproto-handle"]),
        (&"".parse().unwrap(), &"".parse().unwrap())
    );
    let spoofed =
        Check::of("traefik").set("x_conclave_atproto_did", "did:plc:root").send(&site, &cookie).await;
    assert_ne!(spoofed.status, StatusCode::OK, "a look-alike is refused");
}

#[tokio::test]
async fn an_invitation_lets_in_whom_the_rule_would_not_once_on_whichever_node_it_is_used_first() {
    let network = Network::start().await;
    let nodes = TestNode::start_cluster_with(3, settings(&network)).await;
    let sites: Vec<Site> = nodes.into_iter().map(Site::of).collect();
    let leader = sites.iter().find(|site| site.node.cluster().is_leader()).unwrap();
    leader.node.auth().clone().ensure_signing_keys(None).await;
    add(leader, listed(&[], &[])).await;
    for site in &sites {
        wait_until(|| site.node.cluster().view().upstream(NAME).is_some()).await;
    }
    network.account(&did(0), "alice.test");
    let page = sites[0].signs_in_as(&mut Browser::default(), &network, "alice.test").await;
    assert_eq!(code_of(&page), "not_allowed");
    assert_eq!(leader.invites(1, "*.test").await, Err(Reason::Malformed));
    leader.invites(2, "alice.test").await.unwrap();
    // One user on two machines, each through a different node, at one moment; then another user to whom the handle was
    // transferred.
    for round in 0..6_u8 {
        let (own, handle) = (did(1 + 2 * round), format!("h{round}.test"));
        leader.invites(10 + round, if round % 2 == 0 { &handle } else { &own }).await.unwrap();
        network.account(&own, &handle);
        let mut arriving = Vec::new();
        for site in &sites[..2] {
            let mut browser = Browser::default();
            let away = site.start_login_as(&mut browser, &handle).await;
            arriving.push((browser, network.allows_as(&away.location(), &own)));
        }
        let (mut left, mut right) = (arriving.remove(0), arriving.remove(0));
        let (a, b) = tokio::join!(async { sites[1].open_callback(&mut left.0, &left.1).await }, async {
            sites[2].open_callback(&mut right.0, &right.1).await
        });
        assert!([&a, &b].iter().any(|page| page.status == StatusCode::SEE_OTHER), "{} {}", a.text, b.text);
        let view = leader.node.cluster().confirmed_view().await.unwrap();
        assert_eq!(view.users_after(None).count(), usize::from(round) + 1, "one person");
        assert_eq!(view.invitations_at(NAME).count(), 1, "the other one is still open");
        let heir = did(2 + 2 * round);
        network.account(&heir, &handle);
        let page = sites[0].signs_in_as(&mut Browser::default(), &network, &handle).await;
        assert_eq!(code_of(&page), "not_allowed", "it was used");
    }
    // The invited user is admitted, into the group.
    let page = sites[2].signs_in_as(&mut Browser::default(), &network, "alice.test").await;
    assert_eq!(code_of(&page), "atproto_subject_mismatch", "the account of another signs in");
    network.says(|script| script.signs_in = did(0));
    let mut browser = Browser::default();
    let page = sites[2].signs_in_as(&mut browser, &network, "alice.test").await;
    assert_eq!(page.location(), "/", "{}", page.text);
    let view = leader.node.cluster().confirmed_view().await.unwrap();
    let alice = view.identity(NAME, &did(0)).unwrap();
    assert_eq!(alice.let_in, None, "who was invited stays, whatever becomes of the handle");
    assert_eq!(view.user(alice.user).unwrap().groups.len(), 1);
    assert!(view.invitation_of(NAME, &did(0), "alice.test", leader.node.auth().now(&view)).is_none());
}

#[tokio::test]
async fn who_was_let_in_by_a_handle_is_signed_out_when_it_is_not_theirs_any_more() {
    let (site, network) = site(listed(&[], &["*.corp.test"])).await;
    network.account(&did(0), "alice.corp.test");
    network.account(&did(1), "bob.corp.test");
    let (mut alice, mut bob) = (Browser::default(), Browser::default());
    site.signs_in_as(&mut bob, &network, "bob.corp.test").await;
    network.says(|script| script.signs_in = did(0));
    site.signs_in_as(&mut alice, &network, "alice.corp.test").await;
    assert_eq!(
        site.identity(&did(0)).unwrap().let_in.as_ref().unwrap().handle.to_string(),
        "alice.corp.test"
    );
    assert_eq!(site.reverifier.round().await, 0, "nothing is due on the first day");
    site.node.clock().advance(DAY);
    let before = site.identity(&did(0)).unwrap().looked_at();
    assert_eq!(site.reverifier.round().await, 2);
    assert!(site.identity(&did(0)).unwrap().looked_at() > before);
    assert_eq!(site.reverifier.round().await, 0, "each once a day");

    // The handle no longer resolves: it is not sent, and a week later the user is held out.
    network.says(|script| drop(script.txt.remove("_atproto.alice.corp.test")));
    site.node.clock().advance(DAY);
    site.reverifier.round().await;
    let mut again = Browser::default();
    site.signs_in_as(&mut again, &network, &did(0)).await;
    assert!(site.at_home(&mut again).await.is_some(), "for now");
    let identity = site.identity(&did(0)).unwrap();
    assert!(identity.handle.is_none() && identity.doubt().is_some_and(|doubt| !doubt.held_out));
    assert_eq!(site.reverifier.round().await, 0, "not at once again");
    site.node.clock().advance(Duration::from_mins(10));
    assert_eq!(site.reverifier.round().await, 1, "but soon");
    for _ in 0..8 {
        site.node.clock().advance(DAY);
        site.reverifier.round().await;
    }
    assert!(site.identity(&did(0)).unwrap().is_held_out());
    assert!(site.identity(&did(1)).unwrap().doubt().is_none(), "the other is as before");
    let mut again = Browser::default();
    let page = site.signs_in_as(&mut again, &network, &did(0)).await;
    assert_eq!((code_of(&page).as_str(), page.status), ("handle_unconfirmed", StatusCode::FORBIDDEN));
    assert!(site.at_home(&mut again).await.is_none());
    // The handle is restored, and the user is admitted again: by signing in, or by the next verification.
    network.account(&did(0), "alice.corp.test");
    let mut again = Browser::default();
    site.signs_in_as(&mut again, &network, &did(0)).await;
    assert!(site.at_home(&mut again).await.is_some());

    // The handle resolves to another DID: sessions end at once, and the DID that has the handle now is another user.
    network.says(|script| {
        script.txt.insert("_atproto.alice.corp.test".into(), vec![format!("did={}", did(2))]);
    });
    site.node.clock().advance(DAY);
    site.reverifier.round().await;
    assert!(site.at_home(&mut again).await.is_none(), "signed out");
    assert!(site.identity(&did(0)).unwrap().doubt().unwrap().elsewhere);
    network.account(&did(0), "alice.corp.test");
    site.node.clock().advance(DAY);
    site.reverifier.round().await;
    assert!(!site.identity(&did(0)).unwrap().is_held_out(), "looked at again, it is confirmed");
}

/// Three nodes, the first of which (in the order of their numbers) has a different nameserver.
async fn divided(here: &Arc<Network>, elsewhere: &Arc<Network>) -> Vec<Site> {
    let started = AtomicUsize::new(0);
    let own = settings(here);
    let nodes = TestNode::start_cluster_with(3, |settings| {
        own(settings);
        if started.fetch_add(1, Ordering::SeqCst) > 0 {
            settings.atmosphere.nameservers = vec![elsewhere.nameserver];
        }
    });
    let sites: Vec<Site> = nodes.await.into_iter().map(Site::of).collect();
    let leader = sites.iter().find(|site| site.node.cluster().is_leader()).unwrap();
    leader.node.auth().clone().ensure_signing_keys(None).await;
    add(leader, listed(&[], &["*.corp.test"])).await;
    for site in &sites {
        wait_until(|| site.node.cluster().view().upstream(NAME).is_some()).await;
    }
    sites
}

#[tokio::test]
async fn a_handle_that_a_second_node_does_not_see_lets_nobody_in() {
    let (here, elsewhere) = (Network::start().await, Network::start().await);
    let sites = divided(&here, &elsewhere).await;
    here.account(&did(0), "ceo.corp.test");
    // The DNS is forged for the first node only.
    for records in [vec![], vec![format!("did={}", did(1))]] {
        elsewhere.says(|script| drop(script.txt.insert("_atproto.ceo.corp.test".into(), records)));
        let mut browser = Browser::default();
        let page = sites[0].signs_in_as(&mut browser, &here, "ceo.corp.test").await;
        assert_eq!(
            (code_of(&page).as_str(), page.status),
            ("atproto_handle_disputed", StatusCode::FORBIDDEN)
        );
        assert!(sites[0].at_home(&mut browser).await.is_none());
    }
    assert!(sites[0].identity(&did(0)).is_none());
    let record = vec![format!("did={}", did(0))];
    elsewhere.says(|script| drop(script.txt.insert("_atproto.ceo.corp.test".into(), record)));
    let mut browser = Browser::default();
    let page = sites[0].signs_in_as(&mut browser, &here, "ceo.corp.test").await;
    assert_eq!(page.location(), "/", "{}", page.text);
}

#[tokio::test]
async fn who_was_let_in_by_a_handle_does_not_keep_it_confirmed_where_one_node_alone_sees_it() {
    let (here, elsewhere) = (Network::start().await, Network::start().await);
    let sites = divided(&here, &elsewhere).await;
    here.account(&did(0), "ceo.corp.test");
    elsewhere.account(&did(0), "ceo.corp.test");
    let mut browser = Browser::default();
    let page = sites[0].signs_in_as(&mut browser, &here, "ceo.corp.test").await;
    assert_eq!(page.location(), "/", "{}", page.text);
    let known = sites[0].identity(&did(0)).unwrap();
    assert!(known.handle.is_some() && known.let_in.is_some());
    // The record is removed; were it forged for the first node only, each sign-in there would confirm the handle, and
    // its verification would never be due.
    elsewhere.says(|script| drop(script.txt.insert("_atproto.ceo.corp.test".into(), vec![])));
    let mut browser = Browser::default();
    let page = sites[0].signs_in_as(&mut browser, &here, "ceo.corp.test").await;
    assert_eq!(page.location(), "/", "no user is locked out by it: {}", page.text);
    let known = sites[0].identity(&did(0)).unwrap();
    assert_eq!((known.handle.as_ref(), known.looked_at()), (None, known.linked_at));
}

#[tokio::test]
async fn no_node_answers_for_the_network_without_a_sign_in_that_is_on_its_way() {
    use conclave_cluster::{RemoteView, VerificationReason};
    let network = Network::start().await;
    let sites = divided(&network, &network).await;
    network.account(&did(0), "alice.test");
    let before = network.asked.load(Ordering::SeqCst);
    let state = conclave_state::ids::TicketId::new([7; 16]);
    for reason in [VerificationReason::Again, VerificationReason::SignIn { state, index: 1 }] {
        assert_eq!(sites[0].node.cluster().resolve_on_peer(&did(0), reason).await, RemoteView::Unknown);
    }
    assert_eq!(network.asked.load(Ordering::SeqCst), before, "no request was sent");
}

#[tokio::test]
async fn an_account_that_moved_is_the_same_person_and_one_that_moves_meanwhile_starts_again() {
    let (site, old) = anybody().await;
    let new = Network::start().await;
    let moves_to = |url: &str| {
        let endpoint = serde_json::json!([{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": url}]);
        old.says(|script| {
            drop(script.documents.get_mut(&did(0)).unwrap().insert("service".into(), endpoint))
        });
    };
    let mut before = Browser::default();
    site.signs_in_as(&mut before, &old, "alice.test").await;
    let person = site.identity(&did(0)).unwrap().user;
    // The account moves while the user is at the old server, which still vouches for it.
    let mut browser = Browser::default();
    let away = site.start_login_as(&mut browser, "alice.test").await;
    let query = old.allows_as(&away.location(), &did(0));
    moves_to(&new.url);
    let page = site.open_callback(&mut browser, &query).await;
    assert_eq!((code_of(&page).as_str(), page.status), ("atproto_subject_mismatch", StatusCode::FORBIDDEN));
    assert!(site.at_home(&mut browser).await.is_none());
    // Then the user is redirected to the new server, and is the known user.
    let away = site.start_login_as(&mut browser, "alice.test").await;
    let page = site.open_callback(&mut browser, &new.allows_as(&away.location(), &did(0))).await;
    assert_eq!(page.location(), "/", "{}", page.text);
    assert_eq!(site.identity(&did(0)).unwrap().user, person);
    assert_eq!(site.at_home(&mut browser).await, site.at_home(&mut before).await);
    // The old server cannot sign in this account any more, even if the user names it.
    let mut browser = Browser::default();
    let away = site.start_login_as(&mut browser, &old.url).await;
    let page = site.open_callback(&mut browser, &old.allows_as(&away.location(), &did(0))).await;
    assert_eq!(code_of(&page), "atproto_subject_mismatch");
}
