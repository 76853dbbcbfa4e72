//! Clients that a metadata document describes, redirect URIs of native applications, and each client's share of the
//! memory of proofs.

use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::Reason;

use crate::world::{MINUTE, World, create_client, issue, proof, session};

fn described(id: &str) -> Body {
    let Body::CreateClient(command) = create_client(id, &[]) else { unreachable!() };
    Body::CreateClient(pb::CreateClient { of_document: true, ..command })
}

fn seen_again(id: &str) -> Body {
    Body::UpdateClient(pb::UpdateClient { client_id: id.into(), of_document: true, ..Default::default() })
}

#[test]
fn a_document_speaks_for_its_own_client_and_no_other() {
    let mut world = World::seeded();
    world.ok(described("https://app.test/client.json"));
    let seen = world.state.client("https://app.test/client.json").unwrap().document_seen_at.unwrap();
    assert_eq!(seen.0, world.now);
    world.now += MINUTE;
    world.ok(seen_again("https://app.test/client.json"));
    let seen = world.state.client("https://app.test/client.json").unwrap().document_seen_at.unwrap();
    assert_eq!(seen.0, world.now);
    assert_eq!(world.refused(seen_again("web")), Reason::Malformed, "an operator registered it");
    assert!(world.state.client("web").unwrap().document_seen_at.is_none());
}

#[test]
fn a_client_that_proves_itself_otherwise_takes_the_place_of_the_one_before_unless_that_was_disabled() {
    const ID: &str = "https://app.test/client.json";
    let mut world = World::seeded();
    let by = |method: pb::ClientAuthMethod, id: &str| {
        let Body::CreateClient(command) = described(id) else { unreachable!() };
        let secret_hash =
            if method == pb::ClientAuthMethod::None { vec![] } else { command.secret_hash.clone() };
        pb::CreateClient { auth_method: method.into(), secret_hash, ..command }
    };
    let change = |id: &str, change: pb::UpdateClient| {
        Body::UpdateClient(pb::UpdateClient { client_id: id.into(), ..change })
    };
    let (secret, none) = (pb::ClientAuthMethod::SecretBasic, pb::ClientAuthMethod::None);
    world.ok(Body::CreateClient(by(secret, ID)));
    let consent = Some(pb::ConsentMode::Always.into());
    world.ok(change(ID, pb::UpdateClient { consent, ..Default::default() }));
    let start = world.start(1, 1, None);
    world.ok(Body::StartSession(start));
    world.ok(Body::IssueCode(pb::IssueCode { session_id: session(1), ..issue(1, ID, &["openid"]) }));
    let granted = |world: &World| {
        world.state.grants_of_session(conclave_state::ids::SessionId::parse(&session(1)).unwrap()).count()
    };
    assert_eq!(world.refused(Body::CreateClient(by(secret, ID))), Reason::ClientIdTaken, "as it was");
    let registered = pb::CreateClient { of_document: false, ..by(none, ID) };
    assert_eq!(world.refused(Body::CreateClient(registered)), Reason::ClientIdTaken);
    assert_eq!(world.refused(Body::CreateClient(by(none, "web"))), Reason::ClientIdTaken, "an operator's");
    assert_eq!(granted(&world), 1);

    world.ok(Body::CreateClient(by(none, ID)));
    let client = world.state.client(ID).unwrap();
    assert_eq!(
        (client.auth_method, client.consent),
        (none, pb::ConsentMode::Always),
        "an operator's word stays"
    );
    assert_eq!(granted(&world), 0, "what was let in with the old ended");

    world.ok(change(ID, pb::UpdateClient { disabled: Some(true), ..Default::default() }));
    assert_eq!(world.refused(Body::CreateClient(by(secret, ID))), Reason::ClientIdTaken);
    assert!(world.state.client(ID).unwrap().disabled);
}

#[test]
fn a_code_goes_to_whichever_port_a_native_application_listens_on() {
    let mut world = World::seeded();
    let Body::CreateClient(command) = create_client("cli", &[]) else { unreachable!() };
    for (id, auth_method, secret_hash) in [
        ("cli", pb::ClientAuthMethod::None, vec![]),
        ("server", pb::ClientAuthMethod::SecretBasic, command.secret_hash.clone()),
    ] {
        world.ok(Body::CreateClient(pb::CreateClient {
            client_id: id.into(),
            auth_method: auth_method.into(),
            secret_hash,
            redirect_uris: vec!["http://127.0.0.1/cb".into()],
            ..command.clone()
        }));
    }
    let start = world.start(1, 1, None);
    world.ok(Body::StartSession(start));
    let mut to = |n, client: &str, uri: &str| {
        let command = issue(n, client, &["openid"]);
        let command = pb::IssueCode { redirect_uri: uri.into(), session_id: session(1), ..command };
        world.run(Body::IssueCode(command)).body.map(|body| !matches!(body, pb::reply::Body::Refused(_)))
    };
    assert_eq!(to(1, "cli", "http://127.0.0.1:51000/cb"), Some(true));
    assert_eq!(to(2, "cli", "http://127.0.0.1:51000/other"), Some(false));
    assert_eq!(to(3, "server", "http://127.0.0.1:51000/cb"), Some(false), "it is not a native application");
    assert_eq!(to(4, "server", "http://127.0.0.1/cb"), Some(true));
}

#[test]
fn one_clients_proofs_do_not_use_up_the_others_memory() {
    const SHARE: u128 = 125_000;
    let mut world = World::seeded();
    let until = world.now + MINUTE;
    let of = |n: u128, client: &str| pb::SpentProof {
        proof_id: n.to_be_bytes().to_vec(),
        client_id: client.into(),
        ..proof(0, until)
    };
    let spend = |proofs| Body::SpendProofs(pb::SpendProofs { proofs });
    for n in (0..SHARE).step_by(4) {
        world.ok(spend((n..n + 4).map(|n| of(n, "web")).collect()));
    }
    assert_eq!(world.refused(spend(vec![of(SHARE, "web")])), Reason::TooManyRemembered);
    world.ok(spend(vec![of(SHARE, "app")]));
    // The share is free again once they are forgotten.
    world.now = until;
    let later = |n| pb::SpentProof { expires_at_ms: until + MINUTE, ..of(n, "web") };
    world.ok(spend(vec![later(SHARE + 1)]));
}

#[test]
fn of_ten_thousand_described_clients_an_unused_one_makes_room() {
    let mut world = World::seeded();
    let name = |n: u32| format!("https://app.test/{n}");
    let start = world.start(1, 1, None);
    world.ok(Body::StartSession(start));
    for n in 0..10_000 {
        world.now += 1;
        world.ok(described(&name(n)));
    }
    // The first is in use: the second has been unused for the longest time.
    let command = issue(1, &name(0), &["openid"]);
    world.ok(Body::IssueCode(pb::IssueCode { session_id: session(1), ..command }));
    world.ok(described(&name(10_000)));
    let known = |n| world.state.client(&name(n)).is_some();
    assert_eq!([known(0), known(1), known(2), known(10_000)], [true, false, true, true]);
}
