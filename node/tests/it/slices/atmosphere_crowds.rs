//! Many concurrent sign-ins from the Atmosphere: two candidates for the first administrator, and a thousand users with
//! a dead server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use conclave_auth::{
    AuthError,
    complete::LoginOrigin,
    ticket::{LoginStep, LoginTarget},
    upstream::{UpstreamError, UpstreamIdentity, UpstreamLogin},
    write_key::WriteKey,
};
use conclave_node::testing::{TestNode, wait_until};
use conclave_proto::command::v1::{UpdateUpstream, UpstreamAdmission, UpstreamRule, command::Body};
use conclave_state::Reason;
use futures_util::future::join_all;
use serde_json::json;
use tokio::net::TcpListener;

use super::{
    atmosphere::{NAME, add, code_of, listed, settings},
    atmosphere_network::{Network, did},
    site::{Browser, PASSWORD, Site, digest},
};

const RACES: u32 = 1_000;
const STARTS: usize = 1_000;

fn nth(n: u32, who: char) -> String {
    let digits: String =
        (0..5_u32).map(|at| char::from(b'a' + u8::try_from(n / 26_u32.pow(at) % 26).unwrap())).collect();
    format!("did:plc:{who}{digits:z<23}")
}

/// Signs in as this DID with the first token; true if it succeeded.
async fn comes_first(node: &TestNode, did: String, token: &[u8]) -> bool {
    let auth = node.auth();
    let ticket = auth.ticket(LoginStep::Login { fresh: false }, LoginTarget::Home, Some("browser"));
    let login = UpstreamLogin::of_verified_callback(ticket, NAME);
    let identity =
        UpstreamIdentity { subject: did, first_token_hash: digest(token), ..UpstreamIdentity::default() };
    let write_key = WriteKey::fresh(&auth.cluster_keys().request, &*node.runtime().entropy);
    let origin = LoginOrigin { user_agent: String::new(), address: String::new() };
    match auth.complete_upstream_login(&login, &identity, &write_key, None, origin).await {
        Ok(_) => true,
        Err(UpstreamError::NotListed) => false,
        Err(UpstreamError::Failed(AuthError::Refused(refusal))) if refusal.reason == Reason::NotAdmitted => {
            false
        }
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn of_two_who_come_with_the_first_token_to_two_nodes_one_is_administrator_each_time() {
    let nodes = TestNode::start_cluster(3).await;
    let leads = nodes.iter().position(|node| node.cluster().is_leader()).unwrap();
    nodes[leads].auth().clone().ensure_signing_keys(None).await;
    let admins = nodes[leads].group("admins").await;
    let upstream = conclave_proto::command::v1::Upstream {
        name: NAME.into(),
        display_name: "Atmosphere".into(),
        atmosphere: true,
        rule: Some(listed(&[], &[])),
        ..Default::default()
    };
    let command = conclave_proto::command::v1::CreateUpstream { upstream: Some(upstream) };
    nodes[leads].propose(Body::CreateUpstream(command)).await.unwrap();
    for race in 0..RACES {
        let token = race.to_be_bytes();
        let rule = UpstreamRule {
            first_token_hash: digest(&token),
            first_group_id: admins.to_vec(),
            ..listed(&[], &[])
        };
        let command = UpdateUpstream { name: NAME.into(), rule: Some(rule), ..UpdateUpstream::default() };
        let index = nodes[leads].propose(Body::UpdateUpstream(command)).await.unwrap().index;
        for node in &nodes {
            wait_until(|| node.cluster().view().index() >= index).await;
        }
        // Each pair of nodes in turn, including the leader.
        let (one, other) = (&nodes[race as usize % 3], &nodes[(race as usize + 1) % 3]);
        let (a, b) = tokio::join!(
            comes_first(one, nth(race, 'a'), &token),
            comes_first(other, nth(race, 'b'), &token)
        );
        assert!(a != b, "race {race}: {a} {b}");
    }
    let view = nodes[leads].cluster().confirmed_view().await.unwrap();
    let people = view.users_after(None).filter(|user| user.groups.contains(&admins)).count();
    assert_eq!(people, usize::try_from(RACES).unwrap(), "one of each two");
}

/// Resident memory of this process, MiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() / 1_024
}

#[tokio::test]
async fn a_thousand_starts_at_a_dead_host_hold_a_few_sockets_and_nobody_else_up() {
    let network = Network::start().await;
    // Accepts connections and sends nothing.
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://127.0.0.1:{}", dead.local_addr().unwrap().port());
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, highest) = (Arc::clone(&open), Arc::clone(&most));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = dead.accept().await.unwrap();
            highest.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                // Until the node closes the connection.
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
                counted.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    network.account(&did(0), "alice.test");
    network.account(&did(1), "bob.test");
    let service =
        json!([{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": origin}]);
    network.says(|script| drop(script.documents.get_mut(&did(0)).unwrap().insert("service".into(), service)));
    let own = settings(&network);
    let site = Site::of(
        TestNode::start_with(|settings| {
            own(settings);
            settings.login.throttle.address_failures = 1_000_000.try_into().unwrap();
        })
        .await,
    );
    site.seed().await;
    add(&site, UpstreamRule { admission: UpstreamAdmission::Any.into(), ..UpstreamRule::default() }).await;
    // The users name the server, so the dead host itself is contacted first.
    let before = resident();
    let begun = Instant::now();
    let starting = join_all((0..STARTS).map(|_| {
        let (site, origin) = (&site, &origin);
        async move {
            let mut browser = Browser::default();
            code_of(&site.start_login_as(&mut browser, origin).await)
        }
    }));
    let others = async {
        wait_until(|| open.load(Ordering::SeqCst) > 0).await;
        let mut took = Vec::new();
        for _ in 0..10 {
            let begun = Instant::now();
            let mut ada = Browser::default();
            site.sign_in_at(&mut ada, "/", "ada", PASSWORD).await;
            assert_eq!(site.at_home(&mut ada).await.as_deref(), Some("ada"));
            took.push(begun.elapsed());
        }
        let mut bob = Browser::default();
        site.signs_in_as(&mut bob, &network, "bob.test").await;
        assert_eq!(
            site.at_home(&mut bob).await.as_deref(),
            Some("bob.test"),
            "another server is as near as ever"
        );
        took.sort();
        took
    };
    let (codes, took) = tokio::join!(starting, others);
    let busy = codes.iter().filter(|code| *code == "temporarily_unavailable").count();
    let slow = codes.iter().filter(|code| *code == "atproto_provider_unreachable").count();
    let most = most.load(Ordering::SeqCst);
    println!(
        "{STARTS} starts: {slow} waited for the dead host, {busy} were told to try again, at most {most} sockets, {} MiB more, {:.1?} in all; \
         password sign-in beside them: median {:.0?}, longest {:.0?}",
        resident().saturating_sub(before),
        begun.elapsed(),
        took[took.len() / 2],
        took[took.len() - 1],
    );
    assert_eq!(busy + slow, STARTS, "{codes:?}");
    assert!((1..=8).contains(&most), "{most} sockets");
    assert!(took[took.len() - 1] < Duration::from_secs(4), "no user waits for the dead host: {took:?}");
    wait_until(|| open.load(Ordering::SeqCst) == 0).await;
}
