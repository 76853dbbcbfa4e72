//! Frozen bytes. The log entries of a release must keep their meaning for ever (docs/design/README.md, P9): each folder
//! of `tests/corpus/` holds the entries and the snapshot of one release, and the digest that they gave. Folders are
//! only added.
//!
//! `CONCLAVE_FREEZE=NNNN_name cargo test -p conclave-state frozen` writes a new folder from the history below; existing
//! ones are never written again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use conclave_proto::command::v1::{self as pb, command::Body, policy_condition::Kind, sign_in_again::SignIn};
use conclave_state::{
    IndexedEntry, State, apply,
    restore::PieceHash,
    snapshot::{Loader, chunks, chunks_of, digest},
};

use prost::Message as _;

use crate::{policy::*, sessions::again, world::*};

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// The commands that no earlier folder contains, and the rows that remain of them.
fn history() -> Vec<Vec<u8>> {
    let mut tape = Tape { world: World::seeded(), entries: Vec::new() };
    // The seeding itself, as entries of this log.
    for body in [
        create_group(1),
        create_user(1, &[1]),
        create_user(2, &[]),
        create_application(1, &[1]),
        create_client("web", &[]),
        create_client("app", &application(1)),
    ] {
        tape.entries.push(tape.encoded(body));
    }
    people_and_groups(&mut tape);
    clients_and_applications(&mut tape);
    sessions_and_grants(&mut tape);
    requests_and_devices(&mut tape);
    upstreams(&mut tape);
    atmosphere(&mut tape);
    policies(&mut tape);
    keys_and_system(&mut tape);
    access_ended(&mut tape);
    secrets(&mut tape);
    restores(&mut tape);
    signed_in_again(&mut tape);
    log_time(&mut tape);
    names(&mut tape);
    tape.entries
}

/// A log that is written while it is applied: refused commands are not recorded.
struct Tape {
    world: World,
    entries: Vec<Vec<u8>>,
}

impl Tape {
    fn encoded(&self, body: Body) -> Vec<u8> {
        encode(self.world.now, &(1_000 + self.entries.len() as u128).to_be_bytes(), body)
    }

    #[track_caller]
    fn push(&mut self, body: Body) {
        let bytes = self.encoded(body);
        let reply = self.world.raw(&bytes).expect("a command of this version").reply;
        assert!(!matches!(reply.body, Some(conclave_state::ReplyBody::Refused(_))), "{reply:?}");
        self.entries.push(bytes);
    }
}

fn people_and_groups(tape: &mut Tape) {
    tape.push(create_group(2));
    tape.push(create_group(3));
    let member = |u, g| (user(u), group(g));
    let (user_id, group_id) = member(2, 2);
    tape.push(Body::AddGroupMember(pb::AddGroupMember { user_id, group_id }));
    let (user_id, group_id) = member(1, 2);
    tape.push(Body::AddGroupMember(pb::AddGroupMember {
        user_id: user_id.clone(),
        group_id: group_id.clone(),
    }));
    tape.push(Body::RemoveGroupMember(pb::RemoveGroupMember { user_id, group_id }));
    tape.push(Body::DeleteGroup(pb::DeleteGroup { group_id: group(3) }));
    tape.push(create_user(3, &[]));
    tape.push(Body::SetPassword(pb::SetPassword {
        user_id: user(1),
        password_phc: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g".into(),
        ..Default::default()
    }));
    tape.push(Body::DeleteUser(pb::DeleteUser { user_id: user(3) }));
}

fn clients_and_applications(tape: &mut Tape) {
    tape.push(create_application(2, &[]));
    tape.push(create_application(3, &[]));
    tape.push(Body::UpdateApplication(pb::UpdateApplication {
        application_id: application(2),
        serve_known_for_ms: Some(MINUTE),
        ..Default::default()
    }));
    tape.push(Body::DeleteApplication(pb::DeleteApplication { application_id: application(3) }));
    let types = [pb::GrantType::AuthorizationCode, pb::GrantType::RefreshToken, pb::GrantType::DeviceCode];
    let grant_types = Some(pb::GrantTypes { grant_types: types.map(i32::from).to_vec() });
    tape.push(Body::UpdateClient(pb::UpdateClient {
        client_id: "web".into(),
        consent: Some(pb::ConsentMode::Once.into()),
        pkce_optional: Some(true),
        tokens: Some(pb::ClientTokensChange { grant_types, ..Default::default() }),
        ..Default::default()
    }));
    tape.push(create_client("gone", &[]));
    tape.push(Body::DeleteClient(pb::DeleteClient { client_id: "gone".into() }));
}

fn sessions_and_grants(tape: &mut Tape) {
    for n in [1, 2] {
        let start = tape.world.start(n, 1, Some(("web", &["openid", "offline_access"])));
        let code = start.code.clone().map(|code| pb::IssueCode { dpop_jkt: hash(n), ..code });
        tape.push(Body::StartSession(pb::StartSession { code, ..start }));
    }
    let until = tape.world.now + MINUTE;
    let Body::RedeemCode(command) = redeem(1, "web") else { unreachable!() };
    let redeemed = pb::RedeemCode { dpop_jkt: hash(1), proofs: vec![proof(1, until)], ..command };
    tape.push(Body::RedeemCode(redeemed));
    tape.push(Body::IssueCode(pb::IssueCode { session_id: session(1), ..issue(3, "app", &["openid"]) }));
    tape.push(Body::RevokeGrant(pb::RevokeGrant { grant_id: grant(3) }));
    tape.push(Body::SpendProofs(pb::SpendProofs { proofs: vec![proof(2, until)] }));
    tape.push(Body::RevokeAccessToken(pb::RevokeAccessToken { token_id: id(12, 1), expires_at_ms: until }));
    let start = tape.world.start(4, 2, None);
    tape.push(Body::StartSession(start));
    tape.push(Body::RevokeUserSessions(pb::RevokeUserSessions { user_id: user(2), ..Default::default() }));
}

fn requests_and_devices(tape: &mut Tape) {
    let pushed = |n, client_id: &str| {
        Body::PushRequest(pb::PushRequest {
            pushed_request_id: id(20, n),
            client_id: client_id.into(),
            secret_hash: hash(4),
            parameters: b"client_id=web".to_vec(),
            ttl_ms: MINUTE,
        })
    };
    tape.push(pushed(1, "web"));
    for n in [1, 2] {
        tape.push(Body::StartDevice(pb::StartDevice {
            device_id: id(21, n),
            client_id: "web".into(),
            scopes: vec!["openid".into()],
            secret_hash: hash(5),
            user_code_hash: hash(20 + n),
            ttl_ms: 10 * MINUTE,
            ..Default::default()
        }));
    }
    tape.push(Body::AnswerDevice(pb::AnswerDevice {
        device_id: id(21, 1),
        session_id: session(1),
        allow: true,
        ticket_id: ticket(50),
        ticket_expires_at_ms: tape.world.now + 10 * MINUTE,
        ..Default::default()
    }));
    tape.push(Body::RedeemDevice(pb::RedeemDevice {
        device_id: id(21, 1),
        secret_hash: hash(5),
        client_id: "web".into(),
        grant_id: grant(101),
        family_id: family(101),
        refresh_ttl_ms: 6_000 * MINUTE,
        access_ttl_ms: 10 * MINUTE,
        ..Default::default()
    }));
    tape.push(Body::RevokeConsent(pb::RevokeConsent { user_id: user(1), client_id: "web".into() }));
}

fn upstreams(tape: &mut Tape) {
    let upstream = |name: &str| pb::Upstream {
        name: name.into(),
        display_name: "Elsewhere".into(),
        issuer: "https://elsewhere.test".into(),
        client_id: "conclave".into(),
        sealed_secret: b"sealed".to_vec(),
        scopes: vec!["openid".into()],
        rule: Some(pb::UpstreamRule {
            admission: pb::UpstreamAdmission::Any.into(),
            group_ids: vec![group(1)],
            ..Default::default()
        }),
        ..Default::default()
    };
    for name in ["elsewhere", "gone"] {
        tape.push(Body::CreateUpstream(pb::CreateUpstream { upstream: Some(upstream(name)) }));
    }
    tape.push(Body::UpdateUpstream(pb::UpdateUpstream {
        name: "elsewhere".into(),
        display_name: Some("Somewhere".into()),
        ..Default::default()
    }));
    tape.push(Body::DeleteUpstream(pb::DeleteUpstream { name: "gone".into() }));
    tape.push(Body::LinkIdentity(pb::LinkIdentity {
        upstream: "elsewhere".into(),
        subject: "ada".into(),
        label: "ada@elsewhere.test".into(),
        session_id: session(1),
        max_age_ms: MINUTE,
        ticket_id: ticket(60),
        ticket_expires_at_ms: tape.world.now + 10 * MINUTE,
        ..Default::default()
    }));
    for (n, subject) in [(8, "ada"), (9, "new")] {
        let Body::CreateUser(person) = create_user(n, &[]) else { unreachable!() };
        tape.push(Body::SignInUpstream(pb::SignInUpstream {
            session: Some(tape.world.start(n, n, None)),
            upstream: "elsewhere".into(),
            subject: subject.into(),
            label: subject.into(),
            new_user: Some(pb::CreateUser { password_phc: String::new(), ..person }),
            ..Default::default()
        }));
    }
    tape.push(Body::UnlinkIdentity(pb::UnlinkIdentity {
        upstream: "elsewhere".into(),
        user_id: user(1),
        ..Default::default()
    }));
}

fn atmosphere(tape: &mut Tape) {
    let rule = pb::UpstreamRule {
        admission: pb::UpstreamAdmission::Listed.into(),
        handles: vec!["*.corp.test".into()],
        ..Default::default()
    };
    let upstream = pb::Upstream {
        name: "atmosphere".into(),
        display_name: "Atmosphere".into(),
        atmosphere: true,
        rule: Some(rule),
        ..Default::default()
    };
    tape.push(Body::CreateUpstream(pb::CreateUpstream { upstream: Some(upstream) }));
    for (n, who) in [(1, "did:plc:a"), (2, "bob.test"), (3, "cy.test")] {
        tape.push(Body::InviteIdentity(pb::InviteIdentity {
            upstream: "atmosphere".into(),
            invitation_id: id(26, n),
            who: who.into(),
            group_ids: vec![group(1)],
            ttl_ms: 10 * MINUTE,
        }));
    }
    let invitation_id = id(26, 3);
    tape.push(Body::RevokeInvitation(pb::RevokeInvitation { upstream: "atmosphere".into(), invitation_id }));
    for (n, did, handle) in
        [(12, "did:plc:a", ""), (13, "did:plc:b", "b.corp.test"), (14, "did:plc:c", "c.corp.test")]
    {
        let Body::CreateUser(person) = create_user(n, &[]) else { unreachable!() };
        let sign_in = pb::SignInUpstream {
            session: Some(tape.world.start(n, n, None)),
            upstream: "atmosphere".into(),
            subject: did.into(),
            label: handle.into(),
            verified_handle: handle.into(),
            new_user: Some(pb::CreateUser { password_phc: String::new(), ..person }),
            ..Default::default()
        };
        tape.push(Body::SignInByHandle(pb::SignInByHandle { sign_in: Some(sign_in) }));
    }
    for (did, handle, finding) in [
        ("did:plc:b", "b.corp.test", pb::check_handle::Finding::Verified),
        ("did:plc:b", "b.corp.test", pb::check_handle::Finding::Unconfirmed),
        ("did:plc:c", "c.corp.test", pb::check_handle::Finding::Elsewhere),
    ] {
        tape.push(Body::CheckHandle(pb::CheckHandle {
            upstream: "atmosphere".into(),
            subject: did.into(),
            finding: finding.into(),
            handle: handle.into(),
            patience_ms: MINUTE,
        }));
    }
    for (n, picture) in [(12, 1), (13, 1), (14, 2), (14, 3)] {
        tape.push(set_picture(n, picture));
    }
    tape.push(Body::SetPicture(pb::SetPicture { user_id: user(13), ..Default::default() }));
}

fn policies(tape: &mut Tape) {
    let everyone = || policy(vec![allow(Kind::Everyone(true))]);
    for n in [10, 11] {
        tape.push(create_application(n, &[]));
        tape.push(set_policy(n, all_kinds(1, 1), false));
        tape.push(set_policy(n, everyone(), true));
    }
    // Three entries ago.
    tape.push(promote(10, tape.world.index - 3));
    tape.push(set_policy(10, everyone(), true));
    tape.push(Body::RemovePolicy(pb::RemovePolicy { application_id: application(11), candidate: false }));
}

fn keys_and_system(tape: &mut Tape) {
    for (kid, next) in [("first", false), ("second", true)] {
        tape.push(Body::AddSigningKey(pb::AddSigningKey {
            kid: kid.into(),
            algorithm: pb::SigningAlgorithm::Es256.into(),
            public_jwk: b"{}".to_vec(),
            sealed_private_key: b"sealed".to_vec(),
            next,
            ..Default::default()
        }));
    }
    tape.push(Body::ActivateSigningKey(pb::ActivateSigningKey { kid: "second".into() }));
    tape.push(Body::RetireSigningKey(pb::RetireSigningKey { kid: "first".into() }));
    for n in [1, 2] {
        tape.push(Body::CreateApiToken(pb::CreateApiToken {
            token_id: id(9, n),
            name: format!("ci{n}"),
            secret_hash: hash(n),
            role: pb::ApiRole::Admin.into(),
            ttl_ms: MINUTE,
        }));
    }
    tape.push(Body::RevokeApiToken(pb::RevokeApiToken { token_id: id(9, 1) }));
    app_passwords(tape);
    tape.push(Body::SetLeaseTerms(pb::SetLeaseTerms { length_ms: 3_000, margin_permille: 100 }));
    tape.push(Body::ReserveNodeId(pb::ReserveNodeId::default()));
    tape.push(Body::RaiseLevel(pb::RaiseLevel { level: 1 }));
}

/// Sets log time forward and back again, with nothing made in between.
fn log_time(tape: &mut Tape) {
    tape.push(Body::RaiseLevel(pb::RaiseLevel { level: conclave_state::level::BOUNDED_LOG_TIME }));
    let now = tape.world.state.meta().clock.0;
    tape.push(Body::SetClock(pb::SetClock { from_ms: now, to_ms: now + 7_200_000 }));
    tape.push(Body::SetClock(pb::SetClock { from_ms: now + 7_200_000, to_ms: now }));
}

/// At the level of names: a renamed user and group, a removed user, and a newcomer whose address another user has.
fn names(tape: &mut Tape) {
    tape.push(Body::RaiseLevel(pb::RaiseLevel { level: conclave_state::level::NAMES }));
    let named = |n: u8, username: &str, email: &str| {
        let Body::CreateUser(person) = create_user(n, &[]) else { unreachable!() };
        pb::CreateUser { username: username.into(), email: email.into(), email_verified: true, ..person }
    };
    for (n, username) in [(40, "grace"), (41, "leaving")] {
        tape.push(Body::CreateUser(named(n, username, &format!("{username}@names.test"))));
    }
    tape.push(Body::DeleteUser(pb::DeleteUser { user_id: user(41) }));
    tape.push(crate::names::rename(40, "hopper"));
    tape.push(create_group(40));
    tape.push(crate::names::rename_group(40, "Navy"));
    tape.push(create_provider("corp", true, &[]));
    let sign_in = pb::SignInUpstream {
        session: Some(tape.world.start(42, 42, None)),
        upstream: "corp".into(),
        subject: "names".into(),
        new_user: Some(pb::CreateUser {
            password_phc: String::new(),
            ..named(42, "late", "GRACE@names.test")
        }),
        ..Default::default()
    };
    tape.push(Body::SignInUpstream(sign_in));
}

fn app_passwords(tape: &mut Tape) {
    tape.push(Body::UpdateApplication(pb::UpdateApplication {
        application_id: application(2),
        hosts: Some(pb::Hosts {
            hosts: vec!["*.app2.test".into(), "app2.test".into()],
            ..Default::default()
        }),
        check: Some(pb::CheckRules { bearer: true, basic: true, assertion: true }),
        ..Default::default()
    }));
    tape.push(Body::UpdateApplication(pb::UpdateApplication {
        application_id: application(2),
        hosts: Some(pb::Hosts {
            hosts: vec!["*.app2.test".into(), "app2.test".into()],
            address_hosts: vec!["[2001:db8::7]".into()],
        }),
        identity_headers: Some(pb::IdentityHeaders {
            profile: pb::HeaderProfile::Remote.into(),
            text: pb::HeaderText::Percent.into(),
        }),
        ..Default::default()
    }));
    for (n, application_id) in [(1, Vec::new()), (2, application(2))] {
        tape.push(Body::CreateAppPassword(pb::CreateAppPassword {
            secret_id: Vec::new(),
            app_password_id: id(10, n),
            user_id: user(1),
            application_id,
            name: format!("phone{n}"),
            secret_hash: hash(n),
            ttl_ms: if n == 1 { 0 } else { MINUTE },
        }));
    }
    tape.push(Body::RevokeAppPassword(pb::RevokeAppPassword { app_password_id: id(10, 1) }));
}

/// Ends all access; everything made afterwards belongs to the next revocation epoch.
fn access_ended(tape: &mut Tape) {
    tape.push(Body::ResetPassword(pb::ResetPassword {
        user_id: user(1),
        password_phc: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$bmV3bmV3".into(),
        keep_sessions: true,
    }));
    tape.push(Body::RevokeUserAccess(pb::RevokeUserAccess { user_id: user(2) }));
    tape.push(Body::RaiseRevocationEpoch(pb::RaiseRevocationEpoch {}));
    tape.push(Body::CreateAppPassword(pb::CreateAppPassword {
        secret_id: Vec::new(),
        app_password_id: id(10, 3),
        user_id: user(2),
        application_id: Vec::new(),
        name: "phone3".into(),
        secret_hash: hash(3),
        ttl_ms: 0,
    }));
}

/// The cluster changes from one secret to the next.
fn secrets(tape: &mut Tape) {
    for (before, secret_id, sealed) in [(&b""[..], 1, &b"kept"[..]), (b"kept", 2, b"kept anew")] {
        tape.push(Body::ChangeSecret(pb::ChangeSecret {
            before: before.to_vec(),
            secret_id: id(24, secret_id),
            sealed: sealed.to_vec(),
        }));
    }
    let rows =
        [pb::resealed::Row::SigningKey("second".into()), pb::resealed::Row::Upstream("elsewhere".into())];
    let values = rows.map(|row| pb::Resealed {
        row: Some(row),
        before: b"sealed".to_vec(),
        sealed: b"sealed anew".to_vec(),
    });
    tape.push(Body::Reseal(pb::Reseal { values: values.to_vec() }));
    tape.push(Body::CreateAppPassword(pb::CreateAppPassword {
        app_password_id: id(10, 4),
        user_id: user(2),
        name: "phone4".into(),
        secret_hash: hash(4),
        secret_id: id(24, 1),
        ..Default::default()
    }));
    tape.push(Body::RehashAppPassword(pb::RehashAppPassword {
        app_password_id: id(10, 4),
        before: hash(4),
        secret_hash: hash(5),
        secret_id: id(24, 2),
    }));
}

fn replay(entries: &[Vec<u8>]) -> State {
    entries.iter().enumerate().fold(State::default(), |state, (n, bytes)| {
        apply(&state, &IndexedEntry { index: n as u64 + 1, bytes })
            .expect("an entry of an earlier release")
            .state
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn unhex(line: &str) -> Vec<u8> {
    (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn frozen_entries_and_snapshots_of_every_release_mean_what_they_meant() {
    if let Some(name) = std::env::var_os("CONCLAVE_FREEZE") {
        freeze(&name.to_string_lossy());
    }
    let mut folders: Vec<PathBuf> =
        fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(!folders.is_empty());
    for folder in folders {
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        let frozen = read("digest").trim().to_owned();
        let entries: Vec<Vec<u8>> = read("log").lines().map(unhex).collect();
        assert_eq!(
            hex(&digest(&replay(&entries))),
            frozen,
            "{}: the log means something else now",
            folder.display()
        );
        let mut loader = Loader::default();
        for line in read("snapshot").lines() {
            let (table, chunk) = line.split_once(' ').unwrap();
            loader.chunk(table.parse().unwrap(), &unhex(chunk)).unwrap();
        }
        assert_eq!(
            hex(&digest(&loader.finish())),
            frozen,
            "{}: the snapshot loads differently",
            folder.display()
        );
    }
}

/// One restore that is aborted, one that is committed, and one that is in progress at the end.
fn restores(tape: &mut Tape) {
    let older = World::seeded().state;
    // One row in each piece.
    let pieces: Vec<(u32, Vec<u8>)> = chunks_of(&older, 1).filter(|(table, _)| *table <= 6).collect();
    for (number, last) in [(1, 2), (2, pieces.len()), (3, 3)] {
        let restore_id = id(13, number);
        tape.push(Body::BeginRestore(pb::BeginRestore {
            restore_id: restore_id.clone(),
            source: "a file".into(),
        }));
        let mut hash = PieceHash::start();
        for (sequence, (table, rows)) in pieces.iter().take(last).enumerate() {
            hash = hash.with(*table, rows);
            tape.push(Body::StageRows(pb::StageRows {
                restore_id: restore_id.clone(),
                sequence: sequence as u64,
                table: *table,
                rows: rows.clone(),
            }));
        }
        let pieces = last as u64;
        match number {
            1 => tape.push(Body::AbortRestore(pb::AbortRestore { restore_id })),
            2 => tape.push(Body::CommitRestore(pb::CommitRestore {
                restore_id,
                pieces,
                hash: hash.to_vec(),
                enable_returning: true,
            })),
            _ => {}
        }
    }
}

/// The session of the second user is strengthened, then ended by the first user's sign-in; a lock-out ends.
fn signed_in_again(tape: &mut Tape) {
    let first = tape.world.start(30, 2, None);
    tape.push(Body::StartSession(first));
    for (n, u, shown, made) in [(31, 2, 9, 10), (32, 2, 9, 11), (33, 1, 11, 12)] {
        let start = pb::StartSession { secret_hash: hash(made), ..tape.world.start(n, u, None) };
        tape.push(again(30, shown, SignIn::Start(start)));
    }
    tape.push(Body::UnlockUser(pb::UnlockUser { user_id: user(2) }));
    let last = tape.world.start(34, 2, None);
    tape.push(Body::StartSession(last));
    let start = pb::StartSession { secret_hash: hash(13), ..tape.world.start(35, 2, None) };
    tape.push(again(34, 9, SignIn::Start(start)));
}

/// The number of the command in this entry.
fn number(entry: &[u8]) -> u64 {
    let log_entry = pb::LogEntry::decode(entry).unwrap();
    let body = pb::Command::decode(log_entry.command.as_slice()).unwrap().body.unwrap();
    let mut bytes = Vec::new();
    body.encode(&mut bytes);
    prost::encoding::decode_varint(&mut bytes.as_slice()).unwrap() >> 3
}

#[test]
fn every_command_is_in_a_frozen_log() {
    let envelope = include_str!("../../../../proto/conclave/command/v1/envelope.proto");
    let (_, oneof) = envelope.split_once("oneof body {").unwrap();
    let numbered = oneof.lines().take_while(|line| !line.trim_start().starts_with('}'));
    let commands: BTreeMap<u64, &str> = numbered
        .filter_map(|line| {
            let (name, number) = line.split_once(" = ")?;
            Some((number.trim().strip_suffix(';')?.parse().ok()?, name.trim()))
        })
        .collect();
    assert!(commands.len() > 40, "{commands:?}");
    let mut frozen = BTreeSet::new();
    for folder in fs::read_dir(corpus()).unwrap() {
        let log = fs::read_to_string(folder.unwrap().path().join("log")).unwrap();
        frozen.extend(log.lines().map(|line| number(&unhex(line))));
    }
    let missing: Vec<_> = commands.iter().filter(|(number, _)| !frozen.contains(number)).collect();
    assert!(missing.is_empty(), "add them to the history above and freeze it under a new name: {missing:?}");
}

fn freeze(name: &str) {
    let folder = corpus().join(name);
    fs::create_dir(&folder).expect("a name that is not taken: frozen bytes are never written again");
    let entries = history();
    let state = replay(&entries);
    let lines = |rows: Vec<String>| rows.join("\n") + "\n";
    fs::write(folder.join("log"), lines(entries.iter().map(|entry| hex(entry)).collect())).unwrap();
    let snapshot = chunks(&state).map(|(table, chunk)| format!("{table} {}", hex(&chunk))).collect();
    fs::write(folder.join("snapshot"), lines(snapshot)).unwrap();
    fs::write(folder.join("digest"), lines(vec![hex(&digest(&state))])).unwrap();
}
