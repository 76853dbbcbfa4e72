//! The rules alone: two common commands, and the digest of ten thousand users.

#![expect(clippy::expect_used, reason = "a bench that cannot set itself up has failed")]

use std::{hint::black_box, time::Duration};

use conclave_crypto::{
    handle::{HandleContents, HandleKey, HandleKind, HandleSecret, LineageTag},
    keys::ClusterKeys,
};
use conclave_node::testing::TestNode;
use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{
    IndexedEntry, ReplyBody, Stamp, State, apply,
    ids::{SecretHash, SessionId},
    snapshot::digest,
};
use criterion::{Criterion, criterion_group, criterion_main};
use prost::Message as _;

const USERS: u64 = 10_000;
const NOW_MS: u64 = 1_800_000_000_000;
const MINUTE: u64 = 60_000;
const REDIRECT_URI: &str = "https://rp.test/cb";

fn id(kind: u8, number: u64) -> Vec<u8> {
    let mut id = vec![kind; 8];
    id.extend(number.to_be_bytes());
    id
}

fn entry(number: u64, body: Body) -> Vec<u8> {
    let command = pb::Command { request_id: id(0, number), body: Some(body) };
    pb::LogEntry { at_ms: NOW_MS, command: command.encode_to_vec() }.encode_to_vec()
}

/// A state with one more entry applied.
fn after(state: &State, body: Body) -> State {
    let index = state.index() + 1;
    let applied = apply(state, &IndexedEntry { index, bytes: &entry(index, body) }).expect("a known command");
    let refused = matches!(applied.reply.body, Some(ReplyBody::Refused(_)));
    assert!(!refused, "{:?}", applied.reply);
    applied.state
}

fn create_user(number: u64) -> Body {
    Body::CreateUser(pb::CreateUser {
        user_id: id(1, number),
        username: format!("user{number}"),
        display_name: format!("User Number {number}"),
        email: format!("user{number}@example.test"),
        password_phc: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2g".into(),
        ..Default::default()
    })
}

fn create_client() -> Body {
    Body::CreateClient(pb::CreateClient {
        client_id: "web".into(),
        name: "Web".into(),
        auth_method: pb::ClientAuthMethod::SecretBasic.into(),
        secret_hash: vec![1; 32],
        redirect_uris: vec![REDIRECT_URI.into()],
        scopes: vec!["openid".into()],
        signing_algorithm: pb::SigningAlgorithm::Rs256.into(),
        consent: pb::ConsentMode::Implicit.into(),
        ..Default::default()
    })
}

fn start_session(number: u64, version: u64) -> Body {
    let session_id = id(4, number);
    let code = pb::IssueCode {
        grant_id: id(5, number),
        session_id: session_id.clone(),
        client_id: "web".into(),
        redirect_uri: REDIRECT_URI.into(),
        scopes: vec!["openid".into()],
        code_challenge: vec![7; 32],
        secret_hash: vec![8; 32],
        code_ttl_ms: MINUTE,
        ..Default::default()
    };
    Body::StartSession(pb::StartSession {
        session_id,
        user_id: id(1, number),
        secret_hash: vec![9; 32],
        ticket_id: id(7, number),
        ticket_expires_at_ms: NOW_MS + 10 * MINUTE,
        amr: vec!["pwd".into()],
        ttl_ms: 600 * MINUTE,
        credential_version: version,
        code: Some(code),
        ..Default::default()
    })
}

fn redeem(number: u64) -> Body {
    Body::RedeemCode(pb::RedeemCode {
        grant_id: id(5, number),
        secret_hash: vec![8; 32],
        client_id: "web".into(),
        redirect_uri: REDIRECT_URI.into(),
        code_challenge: vec![7; 32],
        family_id: id(6, number),
        refresh_ttl_ms: 600 * MINUTE,
        access_ttl_ms: 10 * MINUTE,
        ..Default::default()
    })
}

fn rotate(number: u64) -> Body {
    Body::RotateRefresh(pb::RotateRefresh {
        family_id: id(6, number),
        client_id: "web".into(),
        generation: 1,
        retry_window_ms: MINUTE,
        access_ttl_ms: 10 * MINUTE,
        ..Default::default()
    })
}

/// Ten thousand users; one in ten is signed in and holds a refresh token.
fn world() -> State {
    let state = (0..USERS).map(create_user).fold(State::default(), |state, body| after(&state, body));
    let state = after(&state, create_client());
    (0..USERS).step_by(10).fold(state, |state, number| {
        let state = after(&state, start_session(number, version(&state, number)));
        after(&state, redeem(number))
    })
}

fn version(state: &State, number: u64) -> u64 {
    let user = conclave_state::ids::UserId::parse(&id(1, number)).expect("an id");
    state.password(user).expect("a password").version
}

fn rules(c: &mut Criterion) {
    let state = world();
    for (name, body) in
        [("start_session", start_session(1, version(&state, 1))), ("rotate_refresh", rotate(0))]
    {
        // One entry on one state each time: the measurement covers one apply and the drop of its result.
        let (index, bytes) = (state.index() + 1, entry(0, body));
        let apply_once = || apply(&state, &IndexedEntry { index, bytes: &bytes }).expect("a known command");
        assert!(!matches!(apply_once().reply.body, Some(ReplyBody::Refused(_))));
        c.bench_function(&format!("apply/{name}"), |b| b.iter(|| black_box(apply_once())));
    }
    c.bench_function("digest/10k_users", |b| b.iter(|| digest(black_box(&state))));
}

fn session_lookup(c: &mut Criterion) {
    let (state, key) = (world(), HandleKey::new(&ClusterKeys::derive(&TestNode::secret()).cookie_mac));
    let lineage = LineageTag::of(&[9; 16], 1);
    let session: [u8; 16] = id(4, 0).try_into().expect("16 bytes");
    let secret = HandleSecret::new([3; 32]);
    let handle =
        HandleContents { kind: HandleKind::Session, id: session, secret, generation: 0, lineage, index: 1 };
    let text = key.issue(&handle);
    c.bench_function("session/parse_and_lookup", |b| {
        b.iter(|| {
            let handle = key.parse(HandleKind::Session, lineage, black_box(&text)).expect("our handle");
            let found = state.live_session(SessionId::new(handle.id), Stamp(NOW_MS)).expect("a session");
            found.0.secret_hash.matches(&SecretHash::new(handle.secret_hash()))
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = rules, session_lookup
}
criterion_main!(benches);
