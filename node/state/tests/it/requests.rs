//! The steps before a grant, and their records: pushed requests, devices, consent, omitted PKCE, and the clients that
//! the end of a session concerns. One test for each rule.

use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{
    Class, Reason, ReplyBody, Stamp,
    class::class,
    ids::{DeviceId, GrantId, PushedRequestId, UserId},
    outbox::OutboxEffect,
    snapshot::{Loader, chunks, digest},
};

use crate::world::*;

fn push(n: u8, client_id: &str) -> Body {
    Body::PushRequest(pb::PushRequest {
        pushed_request_id: id(20, n),
        client_id: client_id.into(),
        secret_hash: hash(4),
        parameters: b"client_id=web".to_vec(),
        ttl_ms: MINUTE,
    })
}

fn start_device(n: u8, code: u8) -> Body {
    Body::StartDevice(pb::StartDevice {
        device_id: id(21, n),
        client_id: "web".into(),
        scopes: vec!["openid".into()],
        secret_hash: hash(5),
        user_code_hash: hash(code),
        ttl_ms: 10 * MINUTE,
        ..Default::default()
    })
}

/// A world whose clients may use device authorization.
fn with_devices() -> World {
    let mut world = World::seeded();
    for client_id in ["web", "app"] {
        let types =
            [pb::GrantType::AuthorizationCode, pb::GrantType::RefreshToken, pb::GrantType::DeviceCode];
        let grant_types = Some(pb::GrantTypes { grant_types: types.map(i32::from).to_vec() });
        world.ok(Body::UpdateClient(pb::UpdateClient {
            client_id: client_id.into(),
            tokens: Some(pb::ClientTokensChange { grant_types, ..Default::default() }),
            ..Default::default()
        }));
    }
    world
}

fn answer_device(world: &World, n: u8, t: u8, allow: bool) -> Body {
    Body::AnswerDevice(pb::AnswerDevice {
        device_id: id(21, n),
        session_id: session(1),
        allow,
        ticket_id: ticket(t),
        ticket_expires_at_ms: world.now + 10 * MINUTE,
        ..Default::default()
    })
}

fn redeem_device(n: u8, client_id: &str) -> pb::RedeemDevice {
    pb::RedeemDevice {
        device_id: id(21, n),
        secret_hash: hash(5),
        client_id: client_id.into(),
        grant_id: grant(100 + n),
        family_id: family(100 + n),
        refresh_ttl_ms: 6_000 * MINUTE,
        access_ttl_ms: 10 * MINUTE,
        ..Default::default()
    }
}

fn pushed_code(world: &World, n: u8) -> pb::IssueCode {
    pb::IssueCode {
        pushed_request_id: id(20, 1),
        pushed_until_ms: world.now + 16 * MINUTE,
        ..issue(n, "web", &["openid"])
    }
}

#[test]
fn a_pushed_request_becomes_one_code() {
    let mut world = World::seeded();
    world.ok(push(1, "web"));
    let find = |world: &World| {
        world.state.pushed_request(PushedRequestId::parse(&id(20, 1)).unwrap(), Stamp(world.now)).is_some()
    };
    assert!(find(&world));
    let start = pb::StartSession { code: Some(pushed_code(&world, 1)), ..world.start(1, 1, None) };
    world.ok(Body::StartSession(start));
    assert!(!find(&world), "used up with the login");
    let again = pb::IssueCode { session_id: session(1), ..pushed_code(&world, 2) };
    assert_eq!(world.refused(Body::IssueCode(again)), Reason::TicketSpent);
}

#[test]
fn a_pushed_request_ends_with_its_minute_but_a_login_that_began_may_take_longer() {
    let mut world = World::seeded();
    let start = world.start(1, 1, None);
    world.ok(Body::StartSession(start));
    world.ok(push(1, "web"));
    let code = pb::IssueCode { session_id: session(1), ..pushed_code(&world, 1) };
    world.now += 2 * MINUTE;
    assert!(
        world.state.pushed_request(PushedRequestId::parse(&id(20, 1)).unwrap(), Stamp(world.now)).is_none()
    );
    world.ok(Body::Sweep(pb::Sweep { limit: 100 }));
    world.ok(Body::IssueCode(code.clone()));
    let again = pb::IssueCode { grant_id: grant(2), ..code.clone() };
    assert_eq!(world.refused(Body::IssueCode(again)), Reason::TicketSpent);
    world.now += 16 * MINUTE;
    world.ok(Body::Sweep(pb::Sweep { limit: 100 }));
    let late = pb::IssueCode { grant_id: grant(3), ..code };
    assert_eq!(world.refused(Body::IssueCode(late)), Reason::TicketExpired, "what is forgotten is refused");
}

#[test]
fn pushed_requests_are_bounded_for_each_client_and_leave_with_their_time() {
    let mut world = World::seeded();
    let one = |n: u32| {
        let Body::PushRequest(command) = push(0, "web") else { unreachable!() };
        let id = [vec![20; 12], n.to_be_bytes().to_vec()].concat();
        Body::PushRequest(pb::PushRequest { pushed_request_id: id, ..command })
    };
    for n in 0..2_000 {
        world.ok(one(n));
    }
    assert_eq!(world.refused(one(2_000)), Reason::TooManyWaiting);
    world.ok(push(1, "app"));
    world.now += MINUTE;
    world.ok(Body::Sweep(pb::Sweep { limit: 1_000 }));
    world.ok(one(2_001));
    let long = pb::PushRequest { ttl_ms: 91_000, ..pb::PushRequest::default() };
    let long = pb::PushRequest { pushed_request_id: id(20, 9), client_id: "web".into(), ..long };
    assert_eq!(world.refused(Body::PushRequest(long)), Reason::Malformed);
}

#[test]
fn a_device_is_answered_once_and_fetches_once() {
    let mut world = with_devices();
    let start = world.start(1, 1, None);
    world.ok(Body::StartSession(start));
    world.ok(start_device(1, 50));
    assert_eq!(world.refused(start_device(2, 50)), Reason::UserCodeTaken);
    let fetch = Body::RedeemDevice(redeem_device(1, "web"));
    assert_eq!(world.refused(fetch.clone()), Reason::DevicePending);
    world.ok(answer_device(&world, 1, 60, true));
    assert_eq!(world.refused(answer_device(&world, 1, 61, false)), Reason::DeviceUnknown);
    // Another client, or a caller without the secret, gets nothing and ends nothing.
    assert_eq!(world.refused(Body::RedeemDevice(redeem_device(1, "app"))), Reason::DeviceUnknown);
    let guessed = pb::RedeemDevice { secret_hash: hash(6), ..redeem_device(1, "web") };
    assert_eq!(world.refused(Body::RedeemDevice(guessed)), Reason::DeviceUnknown);
    let ReplyBody::CodeRedeemed(tokens) = world.ok(fetch.clone()) else { panic!() };
    assert_eq!((tokens.user_id, tokens.session_id), (user(1), session(1)));
    assert_eq!(world.refused(fetch), Reason::DeviceUnknown);
    // It is a grant like any other, and ends with its session.
    let live = |world: &World| {
        world.state.live_grant(GrantId::parse(&grant(101)).unwrap(), Stamp(world.now)).is_some()
    };
    assert!(live(&world));
    world.ok(Body::RevokeSession(pb::RevokeSession { session_id: session(1) }));
    assert!(!live(&world));
}

#[test]
fn a_client_that_may_have_no_devices_gets_none() {
    let mut world = World::seeded();
    assert_eq!(world.refused(start_device(1, 50)), Reason::GrantTypeNotAllowed);
}

#[test]
fn a_device_gets_nothing_after_a_no_a_logout_or_its_time() {
    let mut world = with_devices();
    let start = world.start(1, 1, None);
    world.ok(Body::StartSession(start));
    for n in 1..4 {
        world.ok(start_device(n, 50 + n));
    }
    world.ok(answer_device(&world, 1, 60, false));
    assert_eq!(world.refused(Body::RedeemDevice(redeem_device(1, "web"))), Reason::DeviceDenied);
    world.ok(answer_device(&world, 2, 61, true));
    world.ok(Body::RevokeSession(pb::RevokeSession { session_id: session(1) }));
    assert_eq!(world.refused(Body::RedeemDevice(redeem_device(2, "web"))), Reason::DeviceDenied);
    assert_eq!(world.refused(answer_device(&world, 3, 62, true)), Reason::SessionUnknown);
    world.now += 10 * MINUTE;
    assert_eq!(world.refused(Body::RedeemDevice(redeem_device(3, "web"))), Reason::DeviceExpired);
    world.ok(Body::Sweep(pb::Sweep { limit: 100 }));
    let gone = DeviceId::parse(&id(21, 3)).unwrap();
    assert!(world.state.device_request(gone, Stamp(0)).is_none());
    assert_eq!(world.refused(Body::RedeemDevice(redeem_device(3, "web"))), Reason::DeviceUnknown);
}

#[test]
fn a_device_of_an_application_needs_somebody_who_may_open_it() {
    let mut world = with_devices();
    let start = pb::StartSession { session_id: session(1), ..world.start(1, 2, None) };
    world.ok(Body::StartSession(start));
    let Body::StartDevice(command) = start_device(1, 50) else { unreachable!() };
    world.ok(Body::StartDevice(pb::StartDevice { client_id: "app".into(), ..command }));
    assert_eq!(world.refused(answer_device(&world, 1, 60, true)), Reason::AccessDenied);
}

#[test]
fn consent_covers_what_was_allowed_grows_and_is_taken_back_with_its_grants() {
    let mut world = World::seeded();
    let start = world.start(1, 1, None);
    world.ok(Body::StartSession(start));
    let allow = |n: u8, scopes: &[&str], claims: &[&str]| {
        Body::IssueCode(pb::IssueCode {
            session_id: session(1),
            remember_consent: true,
            userinfo_claims: claims.iter().map(ToString::to_string).collect(),
            ..issue(n, "web", scopes)
        })
    };
    let person = UserId::parse(&user(1)).unwrap();
    let covers = |world: &World, scopes: &[&str], claims: &[&str]| {
        let list = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut rows = world.state.consents_of(person);
        rows.next().is_some_and(|consent| consent.covers(&list(scopes), &list(claims), &[]))
    };
    world.ok(allow(1, &["openid"], &[]));
    assert!(covers(&world, &["openid"], &[]) && !covers(&world, &["openid", "offline_access"], &[]));
    assert!(!covers(&world, &["openid"], &["email"]));
    world.ok(allow(2, &["offline_access"], &["email"]));
    assert!(covers(&world, &["openid", "offline_access"], &["email"]));
    let revoke = Body::RevokeConsent(pb::RevokeConsent { user_id: user(1), client_id: "web".into() });
    assert_eq!(class(&revoke), Class::Revocation);
    for _ in 0..2 {
        world.ok(revoke.clone());
        assert_eq!(world.state.consents_of(person).count(), 0);
        assert!(world.state.grant(GrantId::parse(&grant(1)).unwrap()).is_none());
        assert!(world.state.grant(GrantId::parse(&grant(2)).unwrap()).is_none());
    }
    world.ok(allow(3, &["openid"], &[]));
    world.ok(Body::DeleteClient(pb::DeleteClient { client_id: "web".into() }));
    world.ok(create_client("web", &[]));
    assert_eq!(
        world.state.consents_of(person).count(),
        0,
        "a later client of the same id starts with nothing"
    );
}

#[test]
fn pkce_is_left_out_only_where_client_and_nonce_allow_it_and_never_afterwards() {
    let mut world = World::seeded();
    let start = world.start(1, 1, None);
    world.ok(Body::StartSession(start));
    let bare = |n: u8, nonce: &str| {
        Body::IssueCode(pb::IssueCode {
            session_id: session(1),
            code_challenge: Vec::new(),
            nonce: nonce.into(),
            ..issue(n, "web", &["openid"])
        })
    };
    assert_eq!(world.refused(bare(1, "n")), Reason::Malformed);
    let optional =
        pb::UpdateClient { client_id: "web".into(), pkce_optional: Some(true), ..Default::default() };
    world.ok(Body::UpdateClient(optional));
    assert_eq!(world.refused(bare(1, "")), Reason::Malformed);
    world.ok(bare(1, "n"));
    let Body::RedeemCode(with_verifier) = redeem(1, "web") else { unreachable!() };
    let without = pb::RedeemCode { code_challenge: Vec::new(), ..with_verifier.clone() };
    assert_eq!(world.refused(Body::RedeemCode(with_verifier)), Reason::CodeMismatch);
    world.ok(Body::RedeemCode(without));
    // A code with a challenge is not redeemed without its verifier.
    world.ok(Body::IssueCode(pb::IssueCode { session_id: session(1), ..issue(2, "web", &["openid"]) }));
    let Body::RedeemCode(command) = redeem(2, "web") else { unreachable!() };
    let stripped = pb::RedeemCode { code_challenge: Vec::new(), ..command };
    assert_eq!(world.refused(Body::RedeemCode(stripped)), Reason::CodeMismatch);
}

#[test]
fn resources_are_those_of_the_client() {
    let mut world = World::seeded();
    let start = world.start(1, 1, None);
    world.ok(Body::StartSession(start));
    let asked = |n: u8| {
        Body::IssueCode(pb::IssueCode {
            session_id: session(1),
            resources: vec!["https://api.test".into()],
            ..issue(n, "web", &["openid"])
        })
    };
    assert_eq!(world.refused(asked(1)), Reason::Malformed);
    world.ok(Body::UpdateClient(pb::UpdateClient {
        client_id: "web".into(),
        resources: Some(pb::Uris { uris: vec!["https://api.test".into()] }),
        ..Default::default()
    }));
    world.ok(asked(1));
    assert_eq!(
        world.state.grant(GrantId::parse(&grant(1)).unwrap()).unwrap().resources,
        ["https://api.test"]
    );
}

#[test]
fn a_client_hears_of_the_end_of_a_session_though_its_grant_is_gone() {
    let mut world = World::seeded();
    world.signed_in(1, &["openid"]);
    world.ok(Body::RevokeGrant(pb::RevokeGrant { grant_id: grant(1) }));
    world.ok(Body::RevokeSession(pb::RevokeSession { session_id: session(1) }));
    let told: Vec<String> = world
        .state
        .outbox()
        .map(|item| {
            let OutboxEffect::BackChannelLogout { client, .. } = &item.effect;
            client.to_string()
        })
        .collect();
    assert_eq!(told, ["web"], "once, and no other client");
}

#[test]
fn what_waits_and_what_was_allowed_survives_a_snapshot() {
    let mut world = with_devices();
    let start = world.start(1, 1, None);
    world.ok(Body::StartSession(start));
    world.ok(push(1, "web"));
    for n in 1..4 {
        world.ok(start_device(n, 50 + n));
    }
    world.ok(answer_device(&world, 1, 60, true));
    world.ok(answer_device(&world, 2, 61, false));
    world.ok(Body::IssueCode(pb::IssueCode {
        session_id: session(1),
        remember_consent: true,
        id_token_claims: vec!["email".into()],
        ..issue(1, "web", &["openid"])
    }));
    let mut loader = Loader::default();
    for (table, chunk) in chunks(&world.state) {
        loader.chunk(table, &chunk).unwrap();
    }
    let restored = loader.finish();
    assert_eq!(digest(&restored), digest(&world.state));
    world.state = restored;
    world.ok(Body::RedeemDevice(redeem_device(1, "web")));
    assert_eq!(world.refused(start_device(4, 53)), Reason::UserCodeTaken, "the index of codes is rebuilt");
}
