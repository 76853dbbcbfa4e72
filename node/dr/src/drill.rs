//! A restore drill: a snapshot is restored into a scratch directory as in an emergency, a node is started on it, and a
//! user that was added for the drill signs in. Nothing leaves this machine, and nothing is kept.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    num::NonZeroUsize,
    path::Path,
    time::Duration,
};

use conclave_proto::command::v1::{
    AcknowledgeOutbox, Command, CreateUser, LogEntry, UpdateUpstream, command::Body,
};
use conclave_state::{State, ids::UserId, snapshot};
use http::StatusCode;
use prost::Message as _;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use conclave_base::runtime::Runtime;
use conclave_cluster::offline_state::{OfflineState, OfflineStateError, Survivor};
use conclave_config::{Config, ListenAddr, PublicUrl, write_new_secret};
use conclave_crypto::{
    hex,
    keys::ClusterKeys,
    password::{Cost, PasswordPool, PlaintextPassword},
    secret::SecretRing,
};
use conclave_http::{
    Outbound,
    outbound::{OutboundError, OutboundResponse},
};
use conclave_store::{DataDir, StoreError};

use super::offline::{LogTime, Restore, RestoreError, restore};

/// The time that the node may take until it is ready: a million users, on a slow machine.
const READY_LIMIT: Duration = Duration::from_mins(5);
const PAUSE: Duration = Duration::from_millis(20);
/// Outbox rows acknowledged by one entry.
const ACKNOWLEDGED_AT_ONCE: usize = 1_000;

/// The result of a drill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillOutcome {
    /// The index of the snapshot.
    pub index: u64,
    pub users: usize,
    /// The digest of the state as restored and read back from the scratch disk.
    pub digest: [u8; 32],
    pub restored_ms: u64,
    pub ready_ms: u64,
    pub signed_in_ms: u64,
}

/// The reason why the snapshot would not have been usable.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    #[error(transparent)]
    OfflineState(#[from] OfflineStateError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the scratch directory cannot be used: {0}")]
    Scratch(#[from] std::io::Error),
    #[error("the data read back differ from those written: digest {written} became {read}")]
    Digest { written: String, read: String },
    #[error("a password could not be hashed: {0}")]
    Password(String),
    #[error("the node on the restored data did not start: {0}")]
    Node(String),
    #[error("the node on the restored data was not ready in {} minutes", READY_LIMIT.as_secs() / 60)]
    NotReady,
    #[error("the node on the restored data does not answer: {0}")]
    Answer(#[from] OutboundError),
    #[error("the test user cannot sign in on the restored data: {0}")]
    SignIn(String),
}

/// Runs the drill. `serve` runs a node until it is stopped.
///
/// # Errors
/// [`DrillError`].
pub async fn drill<F>(
    mut known: OfflineState,
    secrets: &SecretRing,
    runtime: &Runtime,
    serve: impl FnOnce(Config, CancellationToken) -> F,
) -> Result<DrillOutcome, DrillError>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let scratch = tempfile::Builder::new().prefix("conclave-drill-").tempdir()?;
    let keys = ClusterKeys::ring(secrets);
    let (index, users) = (known.state.index(), known.state.users_after(None).count());
    let person = Person::new(runtime).await?;
    quieten(&mut known, runtime)?;
    known.append(&person.comes(runtime))?;

    let config = config(scratch.path(), secrets)?;
    let begun = runtime.clock.monotonic();
    let digest = restored(known, &config, &keys, runtime).await?;
    let restored_ms = millis(runtime, begun);

    let stop = CancellationToken::new();
    let url = config.http.public_url().map(|url| url.to_string()).unwrap_or_default();
    let mut node = tokio::spawn(serve(config, stop.clone()));
    let begun = runtime.clock.monotonic();
    let visiting = async {
        ready(&url).await?;
        let ready_ms = millis(runtime, begun);
        let begun = runtime.clock.monotonic();
        person.signs_in(&url).await?;
        Ok((ready_ms, millis(runtime, begun)))
    };
    let visited: Result<_, DrillError> = tokio::select! {
        visited = visiting => visited,
        ended = &mut node => {
            let why = ended.map_err(|e| e.to_string()).and_then(|result| result).err();
            return Err(DrillError::Node(why.unwrap_or_else(|| "it ended by itself".into())));
        }
    };
    stop.cancel();
    let _ = node.await;
    let (ready_ms, signed_in_ms) = visited?;
    Ok(DrillOutcome { index, users, digest, restored_ms, ready_ms, signed_in_ms })
}

/// Keeps the drill's node from contacting others: no upstream provider is contacted, and no announcement is sent.
pub fn quieten(known: &mut OfflineState, runtime: &Runtime) -> Result<(), OfflineStateError> {
    let providers: Vec<String> = known.state.upstreams().map(|upstream| upstream.name.to_string()).collect();
    for name in providers {
        let command = UpdateUpstream { name, disabled: Some(true), ..UpdateUpstream::default() };
        known.append(&entry(Body::UpdateUpstream(command), runtime))?;
    }
    let pending: Vec<u64> = known.state.outbox().map(|item| item.sequence).collect();
    for sequence_numbers in pending.chunks(ACKNOWLEDGED_AT_ONCE).map(<[u64]>::to_vec) {
        let command = Body::AcknowledgeOutbox(AcknowledgeOutbox { sequence_numbers });
        known.append(&entry(command, runtime))?;
    }
    Ok(())
}

fn entry(body: Body, runtime: &Runtime) -> Vec<u8> {
    let command = Command { request_id: runtime.entropy.bytes::<16>().to_vec(), body: Some(body) };
    LogEntry { at_ms: runtime.clock.now_ms(), command: command.encode_to_vec() }.encode_to_vec()
}

/// The configuration of a separate node on free ports of loopback.
fn config(scratch: &Path, secrets: &SecretRing) -> Result<Config, DrillError> {
    let free =
        || -> std::io::Result<SocketAddr> { TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr() };
    let secret_file = scratch.join("cluster.secret");
    write_new_secret(&secret_file, &secrets.current)?;
    let mut accept_secret_files = Vec::new();
    for (number, secret) in secrets.accepted.iter().enumerate() {
        let path = scratch.join(format!("accepted-{number}.secret"));
        write_new_secret(&path, secret)?;
        accept_secret_files.push(path);
    }
    let mut config = Config::default();
    config.node.data_dir = scratch.join("data");
    config.cluster.secret_file = Some(secret_file);
    config.cluster.accept_secret_files = accept_secret_files;
    config.cluster.listen = ListenAddr(free()?);
    config.api.listen = ListenAddr(free()?);
    config.http.listen = ListenAddr(free()?);
    config.http.public_url = PublicUrl::of_loopback(config.http.listen.0);
    config.http.drain_delay = Duration::ZERO;
    Ok(config)
}

/// Restores, and reads everything back from the disk.
async fn restored(
    known: OfflineState,
    config: &Config,
    keys: &ClusterKeys,
    runtime: &Runtime,
) -> Result<[u8; 32], DrillError> {
    let instructions = Restore {
        older: known.clone(),
        newest: known,
        data_dir: config.node.data_dir.clone(),
        cluster_addr: config.cluster.address_of(config.node.id),
        api_url: config.api.url(),
        keep_sessions: false,
        enable_returning: false,
        set_aside: false,
        dry_run: false,
        log_time: LogTime::Refuse,
    };
    let (keys, runtime, dir) = (keys.clone(), runtime.clone(), config.node.data_dir.clone());
    let work = tokio::task::spawn_blocking(move || {
        let written = restore(instructions, &keys, &runtime)?.digest;
        let read = digest_on_disk(&dir, &keys)?;
        if written != read {
            let (written, read) = (hex::encode(&written), hex::encode(&read));
            return Err(DrillError::Digest { written, read });
        }
        Ok(read)
    });
    work.await.map_err(|e| DrillError::Node(e.to_string()))?
}

fn digest_on_disk(dir: &Path, keys: &ClusterKeys) -> Result<[u8; 32], DrillError> {
    let state: State = Survivor::read(&DataDir::open(dir)?, keys)?.known.state;
    Ok(snapshot::digest(&state))
}

async fn ready(url: &str) -> Result<(), DrillError> {
    let deadline = Instant::now() + READY_LIMIT;
    let http = outbound();
    while Instant::now() < deadline {
        let answer = http.page(&format!("{url}/healthz/ready"), &[]).await;
        if answer.is_ok_and(|answer| answer.status.is_success()) {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
    Err(DrillError::NotReady)
}

/// Outbound requests to this machine only.
fn outbound() -> Outbound {
    Outbound::new("127.0.0.0/8".parse().into_iter().collect())
}

/// A user that is added for the drill only.
struct Person {
    username: String,
    password: String,
    phc: String,
}

impl Person {
    async fn new(runtime: &Runtime) -> Result<Self, DrillError> {
        let failed = |e: &dyn std::fmt::Display| DrillError::Password(e.to_string());
        let username = format!("drill-{}", hex::encode(&runtime.entropy.bytes::<8>()));
        let password = hex::encode(&runtime.entropy.bytes::<16>());
        let pool = PasswordPool::start(NonZeroUsize::MIN, Cost::OWASP)?;
        let hashing = PlaintextPassword::new(password.clone()).map_err(|e| failed(&e))?;
        let phc = pool.hash(hashing, runtime.entropy.bytes()).await.map_err(|e| failed(&e))?;
        Ok(Self { username, password, phc })
    }

    fn comes(&self, runtime: &Runtime) -> Vec<u8> {
        let command = CreateUser {
            user_id: UserId::new(runtime.entropy.bytes()).to_vec(),
            username: self.username.clone(),
            password_phc: self.phc.clone(),
            ..CreateUser::default()
        };
        entry(Body::CreateUser(command), runtime)
    }

    /// Signs in as a browser does: the form, the password, and the page after it.
    async fn signs_in(&self, url: &str) -> Result<(), DrillError> {
        let http = outbound();
        let failed =
            |what: &str, answer: &OutboundResponse| DrillError::SignIn(format!("{what}: {}", answer.status));
        let mut cookies = Vec::new();
        // The home page redirects a visitor who is not signed in to the form.
        let mut form = http.page(&format!("{url}/login"), &[("accept", "text/html")]).await?;
        keep(&mut cookies, &form);
        if let Some(path) = location(&form).filter(|path| path.starts_with('/')) {
            let cookie = cookies.join("; ");
            let headers = [("accept", "text/html"), ("cookie", cookie.as_str())];
            form = http.page(&format!("{url}{path}"), &headers).await?;
            keep(&mut cookies, &form);
        }
        let page = String::from_utf8_lossy(&form.body).into_owned();
        let (Some(ticket), Some(csrf)) = (hidden(&page, "ticket"), hidden(&page, "csrf")) else {
            return Err(failed("there is no form", &form));
        };
        let fields = [
            ("ticket", ticket),
            ("csrf", csrf),
            ("username", self.username.as_str()),
            ("password", self.password.as_str()),
        ];
        let cookie = cookies.join("; ");
        let answer = http.submit(&format!("{url}/login"), &fields, &[("cookie", &cookie)]).await?;
        if answer.status != StatusCode::SEE_OTHER {
            return Err(failed("the password was not accepted", &answer));
        }
        keep(&mut cookies, &answer);
        let cookie = cookies.join("; ");
        let home = http.page(&format!("{url}/"), &[("cookie", &cookie), ("accept", "text/html")]).await?;
        let known = String::from_utf8_lossy(&home.body).contains(&self.username);
        if known { Ok(()) } else { Err(failed("the session is not known", &home)) }
    }
}

fn location(answer: &OutboundResponse) -> Option<&str> {
    answer.headers.get(http::header::LOCATION)?.to_str().ok()
}

fn keep(cookies: &mut Vec<String>, answer: &OutboundResponse) {
    let set =
        answer.headers.get_all(http::header::SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
    cookies.extend(set.filter_map(|cookie| cookie.split(';').next()).map(str::to_owned));
}

/// The value of a hidden field of one of our own pages.
fn hidden<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    page.split_once(&format!("name=\"{name}\" value=\""))?.1.split('"').next()
}

fn millis(runtime: &Runtime, since: Duration) -> u64 {
    u64::try_from(runtime.clock.monotonic().saturating_sub(since).as_millis()).unwrap_or(u64::MAX)
}
