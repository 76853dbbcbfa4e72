//! Signing in again in a browser that has a session, and the end of a lock-out.

use conclave_proto::command::v1::{self as pb, command::Body, sign_in_again::SignIn};
use conclave_state::{
    Class, Reason, ReplyBody, Stamp,
    ids::{AppSessionId, GrantId, SecretHash, SessionId, UserId},
    session::Session,
};

use crate::world::*;

/// A sign-in whose browser presented session `shown` by the secret that hashes to `secret`.
pub(crate) fn again(shown: u8, secret: u8, sign_in: SignIn) -> Body {
    Body::SignInAgain(pb::SignInAgain {
        shown_session_id: session(shown),
        shown_secret_hash: hash(secret),
        sign_in: Some(sign_in),
    })
}

fn row(world: &World, n: u8) -> Option<&Session> {
    let id = SessionId::parse(&session(n)).unwrap();
    world.state.live_session(id, Stamp(world.now)).map(|(session, _)| &**session)
}

fn granted(world: &World, n: u8) -> bool {
    world.state.live_grant(GrantId::parse(&grant(n)).unwrap(), Stamp(world.now)).is_some()
}

fn secret(n: u8) -> SecretHash {
    SecretHash::parse(&hash(n)).unwrap()
}

/// Session 1 of user 1 with a redeemed grant of `web` and an app session; the cookie's secret hashes to 9.
fn seeded() -> World {
    let mut world = World::seeded();
    world.signed_in(1, &["openid"]);
    world.ok(Body::OpenAppSession(pb::OpenAppSession {
        app_session_id: id(9, 1),
        session_id: session(1),
        secret_hash: hash(3),
        host: "app1.test".into(),
        ticket_id: ticket(50),
        ticket_expires_at_ms: world.now + MINUTE,
        domain: String::new(),
    }));
    world.now += MINUTE;
    world
}

fn start(world: &World, n: u8, u: u8, secret: u8) -> pb::StartSession {
    let code = Some(("web", &["openid"][..]));
    pb::StartSession { secret_hash: hash(secret), ..world.start(n, u, code) }
}

#[test]
fn the_same_user_keeps_the_session_with_a_new_secret_and_new_proofs() {
    let mut world = seeded();
    let before = row(&world, 1).unwrap().clone();
    let command = pb::StartSession { amr: vec!["pwd".into(), "otp".into()], ..start(&world, 2, 1, 10) };
    let ReplyBody::SessionStarted(started) = world.ok(again(1, 9, SignIn::Start(command))) else { panic!() };
    assert_eq!((started.session_id, started.grant_id), (session(1), grant(2)));
    let after = row(&world, 1).unwrap().clone();
    assert_eq!(after.secret_hash, secret(10));
    assert!(
        !after.secret_hash.matches(&before.secret_hash),
        "the cookie that was planted before opens nothing"
    );
    assert_eq!(after.auth_time.0, world.now);
    assert_eq!(after.amr, ["pwd", "otp"]);
    assert_eq!(after.expires_at.0, before.expires_at.0 + MINUTE);
    assert_eq!((after.clients, after.epoch), (before.clients, before.epoch));
    assert!(granted(&world, 1) && granted(&world, 2) && row(&world, 2).is_none());
    assert!(world.state.app_session(AppSessionId::parse(&id(9, 1)).unwrap()).is_some());
    assert_eq!(world.state.outbox().count(), 0, "no application hears of a logout");
}

#[test]
fn the_expiry_of_a_strengthened_session_is_the_new_one() {
    let mut world = seeded();
    let expires_at = row(&world, 1).unwrap().expires_at.0;
    let command = start(&world, 2, 1, 10);
    world.ok(again(1, 9, SignIn::Start(command)));
    world.now = expires_at;
    world.ok(Body::Sweep(pb::Sweep { limit: 100 }));
    assert!(row(&world, 1).is_some(), "the row left at the time of the session before");
    world.now += MINUTE;
    assert!(row(&world, 1).is_none());
}

#[test]
fn another_users_sign_in_ends_the_session_and_its_clients_hear_of_it() {
    let mut world = seeded();
    let command = pb::StartSession { code: None, ..start(&world, 2, 2, 10) };
    world.ok(again(1, 9, SignIn::Start(command)));
    assert!(row(&world, 1).is_none() && !granted(&world, 1));
    assert_eq!(row(&world, 2).unwrap().user, UserId::parse(&user(2)).unwrap());
    assert_eq!(world.state.outbox().count(), 1);
}

#[test]
fn a_form_that_left_before_the_renewal_is_of_the_same_browser_and_an_older_one_is_not() {
    let mut world = seeded();
    for (n, shown, made) in [(2, 9, 10), (3, 9, 11)] {
        let command = start(&world, n, 1, made);
        let ReplyBody::SessionStarted(started) = world.ok(again(1, shown, SignIn::Start(command))) else {
            panic!()
        };
        assert_eq!(started.session_id, session(1), "shown by {shown}");
    }
    // By now 9 is two renewals old, and 4 never belonged to this session.
    for (n, shown) in [(4, 9), (5, 4)] {
        let command = start(&world, n, 1, 12);
        let ReplyBody::SessionStarted(started) = world.ok(again(1, shown, SignIn::Start(command))) else {
            panic!()
        };
        assert_eq!(started.session_id, session(n));
        assert_eq!(
            row(&world, 1).unwrap().secret_hash,
            secret(11),
            "a session that was not proven is left alone"
        );
    }
}

#[test]
fn a_session_that_is_over_is_not_brought_back() {
    let mut world = seeded();
    world.ok(Body::RevokeSession(pb::RevokeSession { session_id: session(1) }));
    let command = start(&world, 2, 1, 10);
    world.ok(again(1, 9, SignIn::Start(command)));
    assert!(row(&world, 1).is_none() && row(&world, 2).is_some());
}

#[test]
fn an_older_proof_of_a_provider_renews_the_secret_and_leaves_the_newer_proof() {
    let mut world = seeded();
    world.ok(create_provider("corp", true, &[]));
    let until = world.now + MINUTE;
    world.ok(link(60, 1, 1, until));
    let proved_at = row(&world, 1).unwrap().auth_time;
    let command = sign_in(2, 1, None, 1, world.now);
    let command = pb::SignInUpstream { authenticated_at_ms: proved_at.0 - 1, ..command };
    let ReplyBody::SessionStarted(started) = world.ok(again(1, 9, SignIn::Upstream(command.clone()))) else {
        panic!()
    };
    assert_eq!(started.session_id, session(1));
    let after = row(&world, 1).unwrap();
    assert_eq!((after.auth_time, &after.amr[..], &*after.upstream), (proved_at, &["pwd".to_owned()][..], ""));
    assert_eq!(after.secret_hash.bytes().to_vec(), command.session.unwrap().secret_hash);
}

#[test]
fn a_renewal_waits_for_every_node_and_a_first_sign_in_does_not() {
    let world = seeded();
    let command = start(&world, 2, 1, 10);
    assert_eq!(conclave_state::class::class(&Body::StartSession(command.clone())), Class::Plain);
    assert_eq!(conclave_state::class::class(&again(1, 9, SignIn::Start(command))), Class::Revocation);
}

#[test]
fn a_sign_in_clears_the_counts_that_it_was_counted_at_from_the_level_on() {
    let mut world = seeded();
    let counted = |n: u8| UserId::parse(&user(n)).unwrap();
    let reserve =
        |n: u8| Body::ReserveAttempt(pb::ReserveAttempt { user_id: user(n), limit: 9, window_ms: MINUTE });
    let start = |world: &World, n: u8| {
        let counts = [8, 9].map(user).to_vec();
        Body::StartSession(pb::StartSession { cleared_count_ids: counts, ..start(world, n, 1, n) })
    };
    for n in [1, 8, 9, 7] {
        world.ok(reserve(n));
    }
    let command = start(&world, 5);
    world.ok(command);
    let left = |world: &World| {
        [1, 7, 8, 9].map(|n| world.state.throttle(counted(n), world.state.meta().clock).is_some())
    };
    assert_eq!(left(&world), [false, true, true, true], "below the level the field means nothing");
    world.ok(Body::RaiseLevel(pb::RaiseLevel { level: conclave_state::level::CLEARED_COUNTS }));
    let command = start(&world, 6);
    world.ok(command);
    assert_eq!(left(&world), [false, true, false, false]);
}

#[test]
fn unlocking_forgets_the_attempts_of_a_user() {
    let mut world = seeded();
    let reserve =
        || Body::ReserveAttempt(pb::ReserveAttempt { user_id: user(1), limit: 1, window_ms: MINUTE });
    world.ok(reserve());
    assert_eq!(world.refused(reserve()), Reason::AttemptsExhausted);
    let id = UserId::parse(&user(1)).unwrap();
    assert_eq!(world.state.user(id).unwrap().unlock_version, 0);
    world.ok(Body::UnlockUser(pb::UnlockUser { user_id: user(1) }));
    assert_eq!(world.state.user(id).unwrap().unlock_version, world.index);
    world.ok(reserve());
    assert_eq!(world.refused(Body::UnlockUser(pb::UnlockUser { user_id: user(9) })), Reason::UserUnknown);
}
