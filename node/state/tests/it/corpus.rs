//! Frozen bytes. What a release wrote into the log must mean the same for ever (design.md P9): each folder of `tests/corpus/`
//! holds the entries and the snapshot of one release, and the digest they gave. They are only added to.
//!
//! `CONCLAVE_FREEZE=NNNN_name cargo test -p conclave-state frozen` writes a new folder from the history below; existing ones are
//! never written again.

use std::{fs, path::PathBuf};

use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{
    Entry, State, apply,
    snapshot::{Loader, chunks, digest},
};

use crate::world::*;

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// One of everything that commands of level 1 do.
fn history() -> Vec<Vec<u8>> {
    let mut world = World::furnished();
    let code = |n, u| world.start(n, u, Some(("web", &["openid", "offline_access"])));
    let start = pb::StartSession { credential_version: 2, ..code(1, 1) };
    let bodies = [
        create_group(1),
        create_user(1, &[1]),
        create_user(2, &[]),
        create_application(1, &[1]),
        create_client("web", &[]),
        create_client("app", &application(1)),
        Body::StartSession(start),
        redeem(1, "web"),
        rotate(1, 1),
        rotate(1, 1),
        Body::ReserveAttempt(pb::ReserveAttempt { user_id: user(2), limit: 3, window_ms: MINUTE }),
        Body::OpenAppSession(pb::OpenAppSession {
            app_session_id: id(8, 1),
            session_id: session(1),
            secret_hash: hash(3),
            host: "app1.test".into(),
            ticket_id: ticket(99),
            ticket_expires_at_ms: 1_000_000 + MINUTE,
        }),
        Body::AddSigningKey(pb::AddSigningKey {
            kid: "k".into(),
            algorithm: pb::SigningAlgorithm::Eddsa.into(),
            public_jwk: b"{}".to_vec(),
            sealed_private_key: b"sealed".to_vec(),
            only_if_absent: true,
            ..Default::default()
        }),
        Body::CreateApiToken(pb::CreateApiToken {
            token_id: id(9, 1),
            name: "ci".into(),
            secret_hash: hash(2),
            role: pb::ApiRole::Admin.into(),
            ttl_ms: MINUTE,
        }),
        Body::UpdateUser(pb::UpdateUser { user_id: user(2), disabled: Some(true), ..Default::default() }),
        Body::RevokeSession(pb::RevokeSession { session_id: session(1) }),
        Body::AcknowledgeOutbox(pb::AcknowledgeOutbox { sequence_numbers: vec![1] }),
        Body::RaiseRevocationEpoch(pb::RaiseRevocationEpoch {}),
        Body::Sweep(pb::Sweep { limit: 10 }),
    ];
    world.now = 1_000_000;
    let numbered = bodies.into_iter().enumerate();
    numbered.map(|(n, body)| encode(1_000_000 + n as u64, &(n as u128 + 1).to_be_bytes(), body)).collect()
}

fn replay(entries: &[Vec<u8>]) -> State {
    entries.iter().enumerate().fold(State::default(), |state, (n, bytes)| {
        apply(&state, &Entry { index: n as u64 + 1, bytes }).expect("an entry of an earlier release").state
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
