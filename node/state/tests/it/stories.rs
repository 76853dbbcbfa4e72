//! One test for each rule, named after it.

use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{
    Class, Halt, Reason, ReplyBody, Stamp,
    ids::{GrantId, SessionId},
    key::KeyStage,
    snapshot::{Loader, chunks, digest, rows},
};

use crate::world::*;

fn live(world: &World, n: u8) -> bool {
    world.state.live_session(SessionId::parse(&session(n)).unwrap(), Stamp(world.now)).is_some()
}

fn granted(world: &World, n: u8) -> bool {
    world.state.live_grant(GrantId::parse(&grant(n)).unwrap(), Stamp(world.now)).is_some()
}

#[test]
fn a_login_is_one_entry_and_its_ticket_is_spent() {
    let mut world = World::seeded();
    let start = world.start(1, 1, Some(("web", &["openid"])));
    let reply = world.ok(Body::StartSession(start.clone()));
    let ReplyBody::SessionStarted(started) = reply else { panic!("{reply:?}") };
    assert_eq!((started.grant_id, started.index), (grant(1), world.index));
    let again = pb::StartSession { session_id: session(2), ..start };
    assert_eq!(world.refused(Body::StartSession(again)), Reason::TicketSpent);
}

#[test]
fn an_expired_ticket_opens_nothing() {
    let mut world = World::seeded();
    let start = world.start(1, 1, None);
    world.now += 10 * MINUTE;
    assert_eq!(world.refused(Body::StartSession(start)), Reason::TicketExpired);
}

#[test]
fn a_password_changed_during_the_login_is_not_accepted() {
    let mut world = World::seeded();
    let start = world.start(1, 1, None);
    let phc = "$argon2id$v=19$m=19456,t=2,p=1$bmV3$bmV3".into();
    world.ok(Body::SetPassword(pb::SetPassword { user_id: user(1), password_phc: phc, keep_sessions: true }));
    assert_eq!(world.refused(Body::StartSession(start)), Reason::CredentialChanged);
}

#[test]
fn a_code_is_redeemed_once_and_reuse_takes_everything_back() {
    let mut world = World::seeded();
    world.signed_in(1, &["openid"]);
    assert!(granted(&world, 1));
    assert_eq!(world.refused(redeem(1, "web")), Reason::CodeAlreadyUsed);
    assert!(!granted(&world, 1));
    assert_eq!(world.refused(rotate(1, 1)), Reason::RefreshUnknown);
}

#[test]
fn a_code_is_bound_to_client_uri_verifier_and_time() {
    let mut world = World::seeded();
    let start = world.start(1, 1, Some(("web", &["openid"])));
    world.ok(Body::StartSession(start));
    let Body::RedeemCode(good) = redeem(1, "web") else { unreachable!() };
    let wrong = [
        (pb::RedeemCode { client_id: "app".into(), ..good.clone() }, Reason::CodeMismatch),
        (
            pb::RedeemCode { redirect_uri: "https://rp.test/other".into(), ..good.clone() },
            Reason::CodeMismatch,
        ),
        (pb::RedeemCode { code_challenge: hash(1), ..good.clone() }, Reason::CodeMismatch),
        (pb::RedeemCode { secret_hash: hash(1), ..good.clone() }, Reason::GrantUnknown),
    ];
    for (command, reason) in wrong {
        assert_eq!(world.refused(Body::RedeemCode(command)), reason);
    }
    let before = world.now;
    world.now += MINUTE;
    assert_eq!(world.refused(Body::RedeemCode(good.clone())), Reason::GrantUnknown);
    world.now = before;
    // Log time never runs back: an older stamp does not make the code valid again.
    assert_eq!(world.refused(Body::RedeemCode(good)), Reason::GrantUnknown);
}

#[test]
fn a_refused_redemption_leaves_the_code_good_for_its_owner() {
    let mut world = World::seeded();
    let start = world.start(1, 1, Some(("web", &["openid"])));
    world.ok(Body::StartSession(start));
    assert_eq!(world.refused(redeem(1, "app")), Reason::CodeMismatch);
    world.ok(redeem(1, "web"));
}

#[test]
fn a_lost_refresh_answer_is_given_again_and_reuse_ends_the_line() {
    let mut world = World::seeded();
    world.signed_in(1, &["openid"]);
    let ReplyBody::RefreshRotated(first) = world.ok(rotate(1, 1)) else { panic!() };
    world.now += WINDOW;
    let ReplyBody::RefreshRotated(retry) = world.ok(rotate(1, 1)) else { panic!() };
    assert_eq!((first.generation, first.index), (retry.generation, retry.index));
    world.now += 1;
    assert_eq!(world.refused(rotate(1, 1)), Reason::RefreshReused);
    assert_eq!(world.refused(rotate(1, 2)), Reason::RefreshUnknown);
    assert!(!granted(&world, 1));
}

#[test]
fn a_session_takes_its_grants_along_unless_they_are_offline() {
    let mut world = World::seeded();
    world.signed_in(1, &["openid"]);
    world.signed_in(2, &["openid", "offline_access"]);
    for n in [1, 2] {
        world.ok(Body::RevokeSession(pb::RevokeSession { session_id: session(n) }));
        assert!(!live(&world, n));
    }
    assert!(!granted(&world, 1));
    world.ok(rotate(2, 1));
    world.ok(Body::RevokeUserSessions(pb::RevokeUserSessions { user_id: user(1), ..Default::default() }));
    assert!(!granted(&world, 2));
}

#[test]
fn disabling_a_user_ends_every_session_grant_and_later_login() {
    let mut world = World::seeded();
    world.signed_in(1, &["openid", "offline_access"]);
    world.ok(Body::UpdateUser(pb::UpdateUser {
        user_id: user(1),
        disabled: Some(true),
        ..Default::default()
    }));
    assert!(!live(&world, 1) && !granted(&world, 1));
    let start = world.start(2, 1, None);
    assert_eq!(world.refused(Body::StartSession(start)), Reason::UserDisabled);
    // Re-enabling does not restore anything old.
    world.ok(Body::UpdateUser(pb::UpdateUser {
        user_id: user(1),
        disabled: Some(false),
        ..Default::default()
    }));
    assert!(!live(&world, 1) && !granted(&world, 1));
}

#[test]
fn losing_the_group_closes_codes_and_refreshes_of_the_application() {
    let mut world = World::seeded();
    let start = world.start(1, 1, Some(("app", &["openid"])));
    world.ok(Body::StartSession(start));
    world.ok(Body::RemoveGroupMember(pb::RemoveGroupMember { group_id: group(1), user_id: user(1) }));
    assert_eq!(world.refused(redeem(1, "app")), Reason::AccessDenied);
    let start = world.start(2, 2, Some(("app", &["openid"])));
    assert_eq!(world.refused(Body::StartSession(start)), Reason::AccessDenied);
    assert!(!live(&world, 2), "a refused command leaves nothing behind");
}

#[test]
fn deleting_a_group_never_opens_an_application() {
    let mut world = World::seeded();
    world.ok(Body::DeleteGroup(pb::DeleteGroup { group_id: group(1) }));
    let start = world.start(1, 1, Some(("app", &["openid"])));
    assert_eq!(world.refused(Body::StartSession(start)), Reason::AccessDenied);
}

#[test]
fn a_client_made_anew_inherits_no_grants() {
    let mut world = World::seeded();
    world.signed_in(1, &["openid"]);
    world.ok(Body::DeleteClient(pb::DeleteClient { client_id: "web".into() }));
    world.ok(create_client("web", &[]));
    assert_eq!(world.refused(rotate(1, 1)), Reason::RefreshUnknown);
}

#[test]
fn raising_the_epoch_kills_what_was_signed_in_and_granted() {
    let mut world = World::seeded();
    world.signed_in(1, &["openid", "offline_access"]);
    world.ok(Body::RaiseRevocationEpoch(pb::RaiseRevocationEpoch {}));
    assert!(!live(&world, 1) && !granted(&world, 1));
    world.signed_in(2, &["openid"]);
    assert!(live(&world, 2) && granted(&world, 2));
}

#[test]
fn attempts_are_reserved_up_to_the_limit_and_a_login_clears_them() {
    let mut world = World::seeded();
    let reserve =
        || Body::ReserveAttempt(pb::ReserveAttempt { user_id: user(1), limit: 3, window_ms: MINUTE });
    for _ in 0..3 {
        world.ok(reserve());
    }
    assert_eq!(world.refused(reserve()), Reason::AttemptsExhausted);
    world.now += MINUTE;
    world.ok(reserve());
    let start = world.start(1, 1, None);
    world.ok(Body::StartSession(start));
    for _ in 0..3 {
        world.ok(reserve());
    }
}

#[test]
fn two_leaders_making_the_first_key_leave_one() {
    let mut world = World::new();
    let key = |kid: &str, only_if_absent| {
        Body::AddSigningKey(pb::AddSigningKey {
            kid: kid.into(),
            algorithm: pb::SigningAlgorithm::Es256.into(),
            public_jwk: b"{}".to_vec(),
            sealed_private_key: b"sealed".to_vec(),
            only_if_absent,
            ..Default::default()
        })
    };
    world.ok(key("a", true));
    assert_eq!(world.refused(key("b", true)), Reason::KeyExists);
    world.ok(key("c", false));
    let active = world.state.active_key(pb::SigningAlgorithm::Es256).unwrap();
    assert_eq!(&*active.kid, "c");
    assert_eq!(
        world.refused(Body::RetireSigningKey(pb::RetireSigningKey { kid: "c".into() })),
        Reason::LastKey
    );
    world.ok(Body::RetireSigningKey(pb::RetireSigningKey { kid: "a".into() }));
}

#[test]
fn the_next_key_is_published_first_and_signs_from_one_entry_on() {
    let es256 = pb::SigningAlgorithm::Es256;
    let mut world = World::new();
    let key = |kid: &str, next| {
        Body::AddSigningKey(pb::AddSigningKey {
            kid: kid.into(),
            algorithm: es256.into(),
            public_jwk: b"{}".to_vec(),
            sealed_private_key: b"sealed".to_vec(),
            next,
            ..Default::default()
        })
    };
    let activate = |kid: &str| Body::ActivateSigningKey(pb::ActivateSigningKey { kid: kid.into() });
    assert_eq!(world.refused(key("a", true)), Reason::KeyUnknown, "nothing that it could follow");
    world.ok(key("a", false));
    world.ok(key("b", true));
    assert_eq!(world.refused(key("c", true)), Reason::KeyExists, "one at a time");
    assert_eq!(&*world.state.active_key(es256).unwrap().kid, "a");
    assert_eq!(world.state.keys().count(), 2, "published");

    assert_eq!(world.refused(activate("z")), Reason::KeyUnknown);
    world.now += MINUTE;
    world.ok(activate("b"));
    assert_eq!(&*world.state.active_key(es256).unwrap().kid, "b");
    assert!(world.state.next_key(es256).is_none());
    world.ok(activate("b"));
    assert_eq!(world.refused(activate("a")), Reason::KeyUnknown, "a retired key does not come back");
    let retired = world.state.key("a").unwrap();
    assert!(matches!(retired.stage, KeyStage::Retired { at, .. } if at > retired.created_at));
}

#[test]
fn the_end_of_a_session_waits_in_the_outbox_until_acknowledged() {
    let mut world = World::seeded();
    world.signed_in(1, &["openid"]);
    world.ok(Body::RevokeSession(pb::RevokeSession { session_id: session(1) }));
    let sequences: Vec<u64> = world.state.outbox().map(|item| item.sequence).collect();
    assert_eq!(sequences.len(), 1);
    world.ok(Body::AcknowledgeOutbox(pb::AcknowledgeOutbox { sequence_numbers: sequences }));
    assert_eq!(world.state.outbox().count(), 0);
}

#[test]
fn lease_terms_change_within_bounds_and_only_when_leases_of_the_former_are_over() {
    let mut world = World::seeded();
    let terms = |length_ms| Body::SetLeaseTerms(pb::SetLeaseTerms { length_ms, margin_permille: 100 });
    assert_eq!(world.state.lease_terms().length_ms, 2_000);
    assert_eq!(world.refused(terms(999)), Reason::Malformed);
    assert_eq!(world.refused(terms(10_001)), Reason::Malformed);
    world.ok(terms(10_000));
    assert_eq!(world.refused(terms(1_000)), Reason::TooSoon);
    world.now += MINUTE + 1;
    world.ok(terms(1_000));
    assert_eq!(world.state.lease_terms().length_ms, 1_000);
    assert_eq!(world.state.longest_lease_terms().length_ms, 10_000, "one of the former may still be held");
    world.now += MINUTE + 1;
    world.ok(terms(1_000));
    assert_eq!(world.state.longest_lease_terms().length_ms, 1_000, "none can be held any more");
}

#[test]
fn a_node_number_is_given_once_also_after_its_member_has_left() {
    let mut world = World::seeded();
    let mut reserve = |above| match world.ok(Body::ReserveNodeId(pb::ReserveNodeId { above })) {
        ReplyBody::NodeIdReserved(reserved) => reserved.node_id,
        other => panic!("{other:?}"),
    };
    assert_eq!((reserve(3), reserve(3), reserve(0), reserve(9)), (4, 5, 6, 10));
}

#[test]
fn a_revocation_has_its_class_also_when_it_is_answered_from_memory() {
    let mut world = World::seeded();
    world.signed_in(1, &["openid"]);
    let revoke = Body::RevokeSession(pb::RevokeSession { session_id: session(1) });
    let bytes = encode(world.now, &[9; 16], revoke);
    for _ in 0..2 {
        assert_eq!(world.raw(&bytes).unwrap().class, Class::Revocation);
    }
    let sweep = encode(world.now, &[8; 16], Body::Sweep(pb::Sweep { limit: 1 }));
    assert_eq!(world.raw(&sweep).unwrap().class, Class::Plain);
}

#[test]
fn reuse_revokes_though_redemption_grants() {
    let mut world = World::seeded();
    world.signed_in(1, &["openid", "offline_access"]);
    let mut class = |id: u8, body| world.raw(&encode(1_000_001, &[id; 16], body)).unwrap().class;
    assert_eq!(class(1, rotate(1, 1)), Class::Plain);
    assert_eq!(class(2, rotate(1, 2)), Class::Plain);
    for _ in 0..2 {
        assert_eq!(class(3, rotate(1, 1)), Class::Revocation, "also when it is answered from memory");
    }
    let mut world = World::seeded();
    world.signed_in(1, &["openid"]);
    for _ in 0..2 {
        let again = world.raw(&encode(world.now, &[4; 16], redeem(1, "web"))).unwrap();
        assert_eq!(again.class, Class::Revocation);
    }
}

#[test]
fn a_sweep_removes_what_is_over_and_nothing_else() {
    let mut world = World::seeded();
    world.signed_in(1, &["openid"]);
    world.ok(Body::Sweep(pb::Sweep { limit: 100 }));
    assert!(live(&world, 1));
    world.now += 100_000 * MINUTE;
    assert!(world.state.has_expired_rows(Stamp(world.now)));
    world.ok(Body::Sweep(pb::Sweep { limit: 100 }));
    assert!(!world.state.has_expired_rows(Stamp(world.now)));
    assert_eq!(world.state.sessions_after(None).count(), 0);
}

#[test]
fn an_unknown_command_halts_and_is_never_skipped() {
    let mut world = World::new();
    // A command whose body is an unknown variant (field 4000), as a newer leader would write it.
    let future = [0x82, 0xfa, 0x01, 0x00];
    for command in [Vec::new(), future.to_vec()] {
        let entry = prost::Message::encode_to_vec(&pb::LogEntry { at_ms: 1, command });
        assert!(matches!(world.raw(&entry), Err(Halt::UnknownCommand { .. })));
    }
    let raise = encode(1, &[1; 16], Body::RaiseLevel(pb::RaiseLevel { level: 1_000 }));
    assert!(matches!(world.raw(&raise), Err(Halt::LevelTooNew { level: 1_000, .. })));
}

#[test]
fn a_malformed_command_is_refused_and_changes_nothing() {
    let mut world = World::seeded();
    let before = conclave_state::snapshot::digest_of_tables(&world.state);
    let entry = encode(world.now, b"short", create_user(9, &[]));
    let reply = world.raw(&entry).unwrap().reply;
    assert!(matches!(reply.body, Some(ReplyBody::Refused(r)) if r.reason() == Reason::Malformed));
    assert_eq!(before, conclave_state::snapshot::digest_of_tables(&world.state));
}

#[test]
fn every_table_survives_a_snapshot() {
    let mut world = World::seeded();
    world.signed_in(1, &["openid"]);
    world.ok(Body::OpenAppSession(pb::OpenAppSession {
        app_session_id: id(8, 1),
        session_id: session(1),
        secret_hash: hash(3),
        host: "APP1.test".into(),
        ticket_id: ticket(99),
        ticket_expires_at_ms: world.now + MINUTE,
        domain: String::new(),
    }));
    world.ok(Body::CreateApiToken(pb::CreateApiToken {
        token_id: id(9, 1),
        name: "ci".into(),
        secret_hash: hash(2),
        role: pb::ApiRole::Admin.into(),
        ttl_ms: MINUTE,
    }));
    world.ok(Body::ReserveAttempt(pb::ReserveAttempt { user_id: user(2), limit: 3, window_ms: MINUTE }));
    world.ok(Body::AddSigningKey(pb::AddSigningKey {
        kid: "k".into(),
        algorithm: pb::SigningAlgorithm::Eddsa.into(),
        only_if_absent: true,
        ..Default::default()
    }));
    world.signed_in(2, &["openid"]);
    world.ok(Body::RevokeSession(pb::RevokeSession { session_id: session(2) }));
    world.ok(Body::RevokeAccessToken(pb::RevokeAccessToken {
        token_id: id(10, 1),
        expires_at_ms: world.now + MINUTE,
    }));

    world.ok(Body::CreateAppPassword(pb::CreateAppPassword {
        secret_id: Vec::new(),
        app_password_id: id(12, 1),
        user_id: user(1),
        application_id: application(1),
        name: "phone".into(),
        secret_hash: hash(4),
        ttl_ms: MINUTE,
    }));
    world.ok(create_provider("corp", true, &[1]));
    let signed_in = sign_in(30, 1, Some(40), 1, world.now);
    world.ok(Body::SignInUpstream(signed_in));

    let network = pb::Upstream {
        name: "atmosphere".into(),
        display_name: "Atmosphere".into(),
        atmosphere: true,
        ..Default::default()
    };
    world.ok(Body::CreateUpstream(pb::CreateUpstream { upstream: Some(network) }));
    world.ok(Body::InviteIdentity(pb::InviteIdentity {
        upstream: "atmosphere".into(),
        invitation_id: id(26, 1),
        who: "ada.test".into(),
        group_ids: vec![group(1)],
        ttl_ms: MINUTE,
    }));

    world.ok(set_picture(40, 1));

    let restore_id = id(13, 1);
    world
        .ok(Body::BeginRestore(pb::BeginRestore { restore_id: restore_id.clone(), source: "a file".into() }));
    let (table, row) = rows(&World::seeded().state).nth(1).unwrap();
    assert!(row.len() < 128, "a length of one byte");
    let mut staged = vec![u8::try_from(row.len()).unwrap()];
    staged.extend(row);
    world.ok(Body::StageRows(pb::StageRows { restore_id, sequence: 0, table, rows: staged }));

    let tables: std::collections::BTreeSet<u32> = rows(&world.state).map(|(table, _)| table).collect();
    assert_eq!(
        tables,
        (1..=16).chain([20, 60, 120, 121, 200, 201, 260, 261]).collect(),
        "each table has a row in this test"
    );
    let mut loader = Loader::default();
    for (table, chunk) in chunks(&world.state) {
        loader.chunk(table, &chunk).unwrap();
    }
    assert_eq!(digest(&loader.finish()), digest(&world.state));
}

#[test]
fn a_damaged_chunk_is_refused_by_name() {
    let mut world = World::seeded();
    world.ok(create_user(3, &[]));
    for (table, chunk) in chunks(&world.state) {
        let cut = &chunk[..chunk.len() - 1];
        assert!(Loader::default().chunk(table, cut).is_err(), "table {table}");
    }
    assert!(Loader::default().chunk(4_000, &[1, 0]).is_err());
}
