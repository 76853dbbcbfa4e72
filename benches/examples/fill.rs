//! Fills the data directory of a stopped node with users and their sessions, for the figures of snapshots and restores.
//! The earlier contents stay, below `aside-…`.
//!
//! `cargo run --release -p conclave-benches --example fill -- --config node-1.toml --users 100000`

use std::path::PathBuf;

use clap::Parser;
use conclave_base::runtime::Runtime;
use conclave_cluster::offline_state::Survivor;
use conclave_config::{Config, find_secret};
use conclave_crypto::keys::ClusterKeys;
use conclave_dr::offline::{LogTime, Restore, restore};
use conclave_proto::command::v1::{Command, CreateUser, LogEntry, StartSession, command::Body};
use conclave_state::ids::UserId;
use conclave_store::DataDir;
use prost::Message as _;

/// The lifetime of a session, in ms.
const DAY_MS: u64 = 24 * 3_600_000;

#[derive(Parser)]
struct Arguments {
    /// The node's settings
    #[arg(long)]
    config: PathBuf,
    /// Number of users, each with one session
    #[arg(long)]
    users: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let config = Config::load(Some(&arguments.config))?;
    let secret = find_secret(&config)?.ok_or_else(|| anyhow::anyhow!("there is no cluster secret"))?;
    let (keys, runtime) = (ClusterKeys::ring(&secret), Runtime::system());
    let data = DataDir::open(&config.node.data_dir)?;
    let mut known = Survivor::read(&data, &keys)?.known;
    drop(data);
    let now = runtime.clock.now_ms();
    for n in 0..arguments.users {
        let id = |kind: u8| {
            let mut id = [kind; 16];
            id[8..].copy_from_slice(&n.to_be_bytes());
            id.to_vec()
        };
        let user = CreateUser {
            user_id: id(1),
            username: format!("person-{n:07}"),
            display_name: format!("Person Number {n}"),
            email: format!("person-{n:07}@example.test"),
            password_phc: "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
                .into(),
            ..CreateUser::default()
        };
        known.append(&entry(now, &id(2), Body::CreateUser(user)))?;
        let person = UserId::parse(&id(1))?;
        let version = known.state.password(person).map_or(0, |password| password.version);
        let session = StartSession {
            session_id: id(3),
            user_id: id(1),
            secret_hash: [id(4), id(5)].concat(),
            ticket_id: id(6),
            // Spent tickets do not belong to a cluster at rest: these expire at once.
            ticket_expires_at_ms: now + 1,
            amr: vec!["pwd".into()],
            ttl_ms: DAY_MS,
            credential_version: version,
            user_agent: "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0".into(),
            address: "203.0.113.7".into(),
            ..StartSession::default()
        };
        known.append(&entry(now, &id(7), Body::StartSession(session)))?;
    }
    let restoration = Restore {
        older: known.clone(),
        newest: known,
        data_dir: config.node.data_dir.clone(),
        cluster_addr: config.cluster.address_of(config.node.id),
        api_url: config.api.url(),
        keep_sessions: true,
        enable_returning: false,
        set_aside: true,
        dry_run: false,
        log_time: LogTime::Refuse,
    };
    let done = restore(restoration, &keys, &runtime)?;
    println!("{} people and {} sessions more", done.report.users, arguments.users);
    Ok(())
}

fn entry(at_ms: u64, request: &[u8], body: Body) -> Vec<u8> {
    let command = Command { request_id: request.to_vec(), body: Some(body) };
    LogEntry { at_ms, command: command.encode_to_vec() }.encode_to_vec()
}
