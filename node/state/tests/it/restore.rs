//! An older state replaces the newest one, and what was revoked between them stays revoked.

use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{
    Reason, ReplyBody, Stamp, State,
    ids::{AppPasswordId, RestoreId, TokenId, UserId},
    restore::{
        MAX_PIECE_BYTES, MergeOptions, PieceHash, RestoreTarget, changes, replay, restorable_subset, restored,
    },
    snapshot::{chunks_of, digest, digest_of_tables},
};

use crate::{laws::through_a_snapshot, world::*};

pub(crate) fn founding(newest: &State) -> MergeOptions {
    MergeOptions {
        index: newest.index() + 1,
        at: Stamp(newest.meta().clock.0 + 5),
        target: RestoreTarget::NewCluster,
        former_epoch: Some(1),
        last_node_id: 0,
        keep_sessions: false,
        enable_returning: false,
        reset_log_time: false,
    }
}

fn token(n: u8) -> Body {
    Body::CreateApiToken(pb::CreateApiToken {
        token_id: id(9, n),
        name: format!("token{n}"),
        secret_hash: hash(2),
        role: pb::ApiRole::Admin.into(),
        ttl_ms: MINUTE,
    })
}

fn app_password(n: u8) -> Body {
    Body::CreateAppPassword(pb::CreateAppPassword {
        secret_id: Vec::new(),
        app_password_id: id(12, n),
        user_id: user(1),
        application_id: vec![],
        name: format!("phone{n}"),
        secret_hash: hash(4),
        ttl_ms: MINUTE,
    })
}

fn key(kid: &str) -> Body {
    Body::AddSigningKey(pb::AddSigningKey {
        kid: kid.into(),
        algorithm: pb::SigningAlgorithm::Eddsa.into(),
        ..Default::default()
    })
}

fn password(u: u8, text: &str) -> Body {
    Body::SetPassword(pb::SetPassword {
        user_id: user(u),
        password_phc: format!("$argon2id$v=19$m=19456,t=2,p=1${text}$aGFzaGhhc2g"),
        ..Default::default()
    })
}

/// An older state, and a later one in which everything that can be revoked was revoked.
fn a_day() -> (State, World) {
    let mut world = World::seeded();
    for n in [3, 4] {
        world.ok(create_user(n, &[1]));
    }
    world.signed_in(1, &["openid", "offline_access"]);
    for n in [1, 2] {
        world.ok(token(n));
        world.ok(app_password(n));
    }
    world.ok(key("old"));
    world.ok(create_provider("corp", true, &[1]));
    let older = world.state.clone();

    world.ok(password(1, "bmV3"));
    world.ok(Body::UpdateUser(pb::UpdateUser {
        user_id: user(2),
        disabled: Some(true),
        ..Default::default()
    }));
    world.ok(Body::DeleteUser(pb::DeleteUser { user_id: user(3) }));
    world.ok(create_user(5, &[]));
    world.ok(Body::RevokeApiToken(pb::RevokeApiToken { token_id: id(9, 2) }));
    world.ok(Body::RevokeAppPassword(pb::RevokeAppPassword { app_password_id: id(12, 2) }));
    world.ok(key("new"));
    world.ok(Body::UpdateClient(pb::UpdateClient {
        client_id: "web".into(),
        secret_hash: Some(hash(77)),
        ..Default::default()
    }));
    world.ok(Body::DeleteClient(pb::DeleteClient { client_id: "app".into() }));
    world.ok(Body::UpdateUpstream(pb::UpdateUpstream {
        name: "corp".into(),
        sealed_secret: Some(b"sealed anew".to_vec()),
        ..Default::default()
    }));
    world.ok(Body::DeleteGroup(pb::DeleteGroup { group_id: group(1) }));
    (older, world)
}

#[test]
fn what_was_revoked_since_stays_revoked() {
    let (older, world) = a_day();
    let newest = &world.state;
    let next = restored(&older, newest, &founding(newest));
    let person = |n| UserId::parse(&user(n)).unwrap();

    assert_eq!(next.sessions_after(None).count(), 0, "no user stays signed in");
    assert_eq!(next.meta().revocation_epoch, newest.meta().revocation_epoch + 1);
    assert_eq!(next.meta().former_epochs, [1]);
    assert_eq!(next.password(person(1)), newest.password(person(1)), "the old password does not come back");
    assert!(next.user(person(2)).unwrap().disabled);
    assert!(next.user(person(3)).unwrap().disabled, "a deleted user comes back disabled");
    assert!(!next.user(person(4)).unwrap().disabled);
    assert!(next.user(person(5)).is_none(), "a user created since is removed");
    assert!(next.tokens_after(None).map(|row| row.id).eq([TokenId::parse(&id(9, 1)).unwrap()]));
    let left: Vec<_> = next.app_passwords_after(None).map(|row| row.id).collect();
    assert_eq!(left, [AppPasswordId::parse(&id(12, 1)).unwrap()]);
    assert!(
        next.live_app_password(left[0], world.state.meta().clock).is_some(),
        "and is valid in the new epoch"
    );
    let web = next.client("web").unwrap();
    assert_eq!(web.secret_hash, newest.client("web").unwrap().secret_hash, "nor does the old secret");
    assert!(next.client("app").unwrap().disabled);
    assert_eq!(next.upstream("corp").unwrap().sealed_secret, b"sealed anew");
    assert!(next.keys().all(|key| !key.is_active()), "keys of a founding sign nothing more");
    assert!(next.key("old").is_some() && next.key("new").is_some(), "and verify what they signed");
    assert_eq!(next.user(person(1)).unwrap().groups.len(), 1, "groups are the former ones");
    assert_eq!(digest(&through_a_snapshot(&next)), digest(&next));

    let keeping = MergeOptions { enable_returning: true, ..founding(newest) };
    assert!(!restored(&older, newest, &keeping).user(person(3)).unwrap().disabled);
    let running = MergeOptions { target: RestoreTarget::Live, ..founding(newest) };
    assert!(restored(&older, newest, &running).key("new").unwrap().is_active());
    let kept = restored(newest, newest, &MergeOptions { keep_sessions: true, ..founding(newest) });
    assert_eq!(kept.meta().revocation_epoch, newest.meta().revocation_epoch);
}

#[test]
fn an_app_password_that_was_hashed_anew_since_stays_so() {
    let mut world = World::seeded();
    world.ok(app_password(1));
    let older = world.state.clone();
    world.ok(Body::RehashAppPassword(pb::RehashAppPassword {
        app_password_id: id(12, 1),
        before: hash(4),
        secret_hash: hash(5),
        secret_id: vec![7; 16],
    }));
    let next = restored(&older, &world.state, &founding(&world.state));
    let row = next.app_passwords_after(None).next().unwrap();
    assert_eq!((row.secret_hash.bytes().to_vec(), row.secret_id), (hash(5), Some([7; 16])));
}

#[test]
fn what_a_client_proves_itself_by_is_what_it_is_now() {
    let mut world = World::seeded();
    let registered = |name: &str, registration: u8| {
        let Body::CreateClient(command) = create_client("keyed", &[]) else { unreachable!() };
        let tokens = pb::ClientTokens { certificate_name: name.into(), ..Default::default() };
        Body::CreateClient(pb::CreateClient {
            auth_method: pb::ClientAuthMethod::TlsClientAuth.into(),
            secret_hash: Vec::new(),
            tokens: Some(tokens),
            registration_token_hash: hash(registration),
            ..command
        })
    };
    let keys = |jwks: &str| {
        let tokens = pb::ClientTokensChange { jwks: Some(jwks.into()), ..Default::default() };
        Body::UpdateClient(pb::UpdateClient {
            client_id: "keyed".into(),
            tokens: Some(tokens),
            ..Default::default()
        })
    };
    world.ok(registered("san_dns=old.test", 1));
    world.ok(keys("leaked"));
    let older = world.state.clone();
    world.ok(Body::DeleteClient(pb::DeleteClient { client_id: "keyed".into() }));
    world.ok(registered("san_dns=new.test", 2));
    world.ok(keys("made since"));
    for target in [RestoreTarget::Live, RestoreTarget::NewCluster] {
        let next = restored(&older, &world.state, &MergeOptions { target, ..founding(&world.state) });
        let (was, is) = (world.state.client("keyed").unwrap(), next.client("keyed").unwrap());
        assert_eq!((&is.tokens, &is.requests), (&was.tokens, &was.requests));
    }
}

#[test]
fn a_consent_that_was_taken_back_and_given_for_less_stays_less() {
    let mut world = World::seeded();
    let client = pb::UpdateClient {
        client_id: "web".into(),
        consent: Some(pb::ConsentMode::Once.into()),
        ..Default::default()
    };
    world.ok(Body::UpdateClient(client));
    world.signed_in(1, &["openid"]);
    let allow = |n: u8, scopes: &[&str]| {
        Body::IssueCode(pb::IssueCode {
            session_id: session(1),
            remember_consent: true,
            ..issue(n, "web", scopes)
        })
    };
    world.ok(allow(2, &["openid", "offline_access"]));
    let older = world.state.clone();
    world.ok(Body::RevokeConsent(pb::RevokeConsent { user_id: user(1), client_id: "web".into() }));
    world.ok(allow(3, &["openid"]));
    let next = restored(&older, &world.state, &founding(&world.state));
    let person = UserId::parse(&user(1)).unwrap();
    let scopes: Vec<_> = next.consents_of(person).flat_map(|consent| consent.scopes.clone()).collect();
    assert_eq!(scopes, ["openid"]);
}

#[test]
fn a_provider_that_is_elsewhere_since_comes_back_disabled() {
    let mut world = World::seeded();
    world.ok(create_provider("corp", true, &[1]));
    let older = world.state.clone();
    world.ok(Body::DeleteUpstream(pb::DeleteUpstream { name: "corp".into() }));
    let moved = pb::Upstream {
        issuer: "https://elsewhere.test".into(),
        rule: Some(rule(true, &[1])),
        ..provider("corp")
    };
    world.ok(Body::CreateUpstream(pb::CreateUpstream { upstream: Some(moved) }));
    let next = restored(&older, &world.state, &founding(&world.state));
    assert!(
        next.upstream("corp").unwrap().disabled,
        "its present secret would be sent to its former endpoints"
    );
}

#[test]
fn people_are_told_what_changes() {
    let (older, world) = a_day();
    let next = restored(&older, &world.state, &founding(&world.state));
    let (list, count) = changes(&world.state, &next, 100);
    assert_eq!(list.len(), count);
    let said =
        |kind: &str, name: &str| list.iter().find(|c| c.kind == kind && c.name == name).map(|c| c.what);
    assert_eq!(said("user", "user3"), Some("is restored, disabled"));
    assert_eq!(said("user", "user5"), Some("is removed: created later"));
    assert_eq!(said("user", "user1"), Some("is in the former groups again"));
    assert_eq!(said("group", "group1"), Some("is restored"));
    assert_eq!(said("client", "app"), Some("is restored"));
    assert_eq!(changes(&world.state, &next, 1), (list[..1].to_vec(), count));
}

#[test]
fn a_journal_revokes_what_its_objects_are_still_there_for() {
    let mut world = World::seeded();
    world.ok(create_user(3, &[]));
    let older = world.state.clone();
    let first = world.index + 1;
    let entries = [
        Body::UpdateUser(pb::UpdateUser { user_id: user(2), disabled: Some(true), ..Default::default() }),
        Body::DeleteUser(pb::DeleteUser { user_id: user(9) }),
        password(1, "bmV3"),
    ];
    let entries: Vec<Vec<u8>> =
        (0..).zip(entries).map(|(n, body)| encode(world.now, &[n; 16], body)).collect();
    let mut numbered: Vec<(u64, &[u8])> =
        entries.iter().enumerate().map(|(n, e)| (first + n as u64, e.as_slice())).collect();
    numbered.push((first + 9, b"of a later version"));
    numbered.insert(0, (1, b"long seen"));
    let (after, counts) = replay(&older, numbered);
    assert_eq!((counts.applied, counts.without_object, counts.not_understood), (2, 1, 1));
    assert!(after.user(UserId::parse(&user(2)).unwrap()).unwrap().disabled);
    let one = UserId::parse(&user(1)).unwrap();
    assert_ne!(after.password(one), older.password(one));
}

#[test]
fn whoever_becomes_an_administrator_again_is_named() {
    let mut world = World::seeded();
    let Body::CreateGroup(group_nine) = create_group(9) else { unreachable!() };
    world.ok(Body::CreateGroup(pb::CreateGroup { name: "admins".into(), ..group_nine }));
    let who = || (group(9), user(1));
    let (group_id, user_id) = who();
    world.ok(Body::AddGroupMember(pb::AddGroupMember { group_id, user_id }));
    let older = world.state.clone();
    let (group_id, user_id) = who();
    world.ok(Body::RemoveGroupMember(pb::RemoveGroupMember { group_id, user_id }));
    let next = restored(&older, &world.state, &founding(&world.state));
    let (list, _) = changes(&world.state, &next, 10);
    let told = list.iter().find(|change| change.name == "user1").map(|change| change.what);
    assert_eq!(told, Some("is an administrator again"));
}

/// The commands that transfer `older` in pieces of at most `bytes`.
fn brought(older: &State, restore: &[u8], bytes: usize) -> (Vec<Body>, Body) {
    let mut pieces = Vec::new();
    let mut hash = PieceHash::start();
    for (table, chunk) in chunks_of(&restorable_subset(older), bytes) {
        for rows in chunk.chunks(bytes) {
            hash = hash.with(table, rows);
            let sequence = pieces.len() as u64;
            let rows = rows.to_vec();
            let restore_id = restore.to_vec();
            pieces.push(Body::StageRows(pb::StageRows { restore_id, sequence, table, rows }));
        }
    }
    let commit = pb::CommitRestore {
        restore_id: restore.to_vec(),
        pieces: pieces.len() as u64,
        hash: hash.to_vec(),
        enable_returning: false,
    };
    (pieces, Body::CommitRestore(commit))
}

fn begin(restore: &[u8]) -> Body {
    Body::BeginRestore(pb::BeginRestore { restore_id: restore.to_vec(), source: "a file".into() })
}

#[test]
fn a_running_cluster_is_restored_in_one_step() {
    for bytes in [7, 300, MAX_PIECE_BYTES] {
        let (older, mut world) = a_day();
        let restore = id(13, 1);
        let (pieces, commit) = brought(&older, &restore, bytes);
        world.ok(begin(&restore));
        for piece in pieces {
            world.ok(piece);
            // A node that joins in the middle gets the pieces transferred so far, which have no effect yet.
            world.state = through_a_snapshot(&world.state);
            assert!(world.state.user(UserId::parse(&user(3)).unwrap()).is_none());
        }
        let before = world.state.clone();
        world.ok(commit);
        let options = MergeOptions { index: world.index, target: RestoreTarget::Live, ..founding(&before) };
        let expected = restored(&older, &before, &options);
        assert_eq!(
            world.state.user(UserId::parse(&user(3)).unwrap()),
            expected.user(UserId::parse(&user(3)).unwrap())
        );
        assert!(world.state.restore_on_its_way().is_none());
        assert_eq!(world.state.sessions_after(None).count(), 0);
        assert_eq!(world.state.meta().revocation_epoch, before.meta().revocation_epoch + 1);
        assert_eq!(changes(&expected, &world.state, 10), (vec![], 0), "pieces of {bytes} bytes");
        assert_eq!(digest(&through_a_snapshot(&world.state)), digest(&world.state));
    }
}

#[test]
fn what_is_not_whole_is_never_put_in_force() {
    let (older, mut world) = a_day();
    let restore = id(13, 1);
    let (pieces, commit) = brought(&older, &restore, 300);
    let Body::CommitRestore(as_sent) = commit.clone() else { unreachable!() };
    assert_eq!(world.refused(commit.clone()), Reason::RestoreUnknown, "not begun");
    world.ok(begin(&restore));
    let untouched = |world: &World| world.state.user(UserId::parse(&user(5)).unwrap()).is_some();

    assert_eq!(world.refused(pieces[1].clone()), Reason::RestoreUnknown, "out of order");
    for piece in &pieces[..pieces.len() - 1] {
        world.ok(piece.clone());
    }
    assert_eq!(world.refused(commit.clone()), Reason::RestoreUnknown, "one is missing");
    world.ok(pieces.last().unwrap().clone());
    let hash = PieceHash::start().to_vec();
    let other = Body::CommitRestore(pb::CommitRestore { hash, ..as_sent });
    assert_eq!(world.refused(other), Reason::RestoreUnknown, "other bytes than were sent");
    assert!(untouched(&world));

    world.ok(begin(&id(13, 2)));
    assert_eq!(world.refused(commit.clone()), Reason::RestoreUnknown, "another was begun since");
    world.ok(Body::AbortRestore(pb::AbortRestore { restore_id: id(13, 1) }));
    assert!(world.state.restore_on_its_way().is_some(), "only the one that is named is given up");
    let tables = digest_of_tables(&world.state);
    world.now += 3_600_001;
    match world.ok(Body::Sweep(pb::Sweep { limit: 500 })) {
        ReplyBody::Swept(swept) => assert!(swept.removed > 0),
        other => panic!("{other:?}"),
    }
    assert!(world.state.restore_on_its_way().is_none(), "what was left behind leaves with its time");
    assert_ne!(tables, digest_of_tables(&world.state));
    assert!(untouched(&world));
    assert!(RestoreId::parse(&restore).is_ok());
}

#[test]
fn a_restore_inside_a_restore_is_refused() {
    let mut world = World::seeded();
    let restore = id(13, 1);
    world.ok(begin(&restore));
    for table in [200, 201] {
        let piece = pb::StageRows { restore_id: restore.clone(), sequence: 0, table, rows: vec![0] };
        assert_eq!(world.refused(Body::StageRows(piece)), Reason::Malformed);
    }
}

#[test]
fn a_client_that_was_deleted_since_has_no_tokens_from_before() {
    let (older, world) = a_day();
    let next = restored(&older, &world.state, &founding(&world.state));
    let client = next.client("app").expect("it comes back");
    assert!(client.disabled);
    assert!(client.own_tokens_since > older.index(), "its own earlier tokens have ended");
}
