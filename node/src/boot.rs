//! The composition root: the only file that names every slice. It binds, starts, connects the parts, waits and stops.
//! It makes no decisions.

use std::{
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{Router, extract::Request, response::Response};
use http::StatusCode;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{health::Health, listeners::Listeners, metrics};
use conclave_admin as admin;
use conclave_archive::Archive;
use conclave_auth::Auth;
use conclave_base::runtime::Runtime;
use conclave_cluster::{BootstrapPeer, CheckMode, Cluster, ClusterOptions, Plane, StartError};
use conclave_config::{self, Config, ConfigError};
use conclave_crypto::{
    keys::ClusterKeys,
    password::{Cost, PasswordPool},
};
use conclave_dr::drills::Drills;
use conclave_forward_auth::{self, ForwardAuth};
use conclave_http::{
    BoundListener, Dispatcher, Edge, EdgeConfig, Fault, HttpError, HttpListener, RequestId,
    edge::REQUEST_TIMEOUT, server,
};
use conclave_store::DataDir;
use conclave_web::Pages;
use conclave_web::pages::Site;

/// The reason why a node does not start, or ended by itself. It is reported to the operator.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Cluster(#[from] StartError),
    #[error("{0}")]
    Machine(String),
    /// Raft has stopped: a broken disk, an entry of a newer version, or a cluster that knows another node with this
    /// number.
    #[error("this node has stopped: {0}")]
    Stopped(String),
}

/// Runs a node until `stop` is cancelled or it cannot continue.
///
/// # Errors
/// [`BootError`].
pub async fn run(config: Config, runtime: Runtime, stop: CancellationToken) -> Result<(), BootError> {
    let started = runtime.clock.monotonic();
    let listeners = Listeners::bind(&config, &runtime).await?;
    let envoy_listener = match &config.envoy.listen {
        Some(listen) => Some(BoundListener::bind("envoy.listen", listen.0).await?),
        None => None,
    };
    let api = server::bind("api.listen", config.api.listen.0).await?;
    let metrics_listener = match &config.telemetry.metrics_listen {
        Some(listen) => Some(HttpListener::bind("telemetry.metrics_listen", listen.0).await?),
        None => None,
    };
    let plane = server::bind("cluster.listen", config.cluster.listen.0).await?;
    let secret = conclave_config::load_secret(&config, &*runtime.entropy)?;
    let hints = config.cluster.peers.iter().map(|peer| peer.address.clone()).collect();
    let config = numbered_by_its_data(config)?;
    let keys = Arc::new(ClusterKeys::ring(&secret));
    let public_url =
        config.http.public_url().ok_or_else(|| BootError::Machine("http.public_url is not set".into()))?;

    let drain_delay = config.http.drain_delay;
    let health = Health::default();
    let pages = Pages::new(config.http.template_dir.as_deref());
    let edge = edge(&config, &runtime, pages.clone());
    let site: Arc<OnceLock<Router>> = Arc::default();
    let fast_path: Arc<OnceLock<ForwardAuth>> = Arc::default();
    let router = edge.around(
        health
            .routes()
            .merge(pages.assets().routes())
            .fallback_service(late(Arc::clone(&site), edge.clone())),
    );
    let dispatcher = Dispatcher::new(edge.clone(), router, fast_path.clone());
    // When a node is stopped, it first transfers the lead, and only then closes its listeners.
    let close = CancellationToken::new();
    let (failed, failure) = oneshot::channel();
    let serving = tokio::spawn(listeners.serve_when_ready(health.clone(), dispatcher, close.clone(), failed));

    let options =
        ClusterOptions { hints, ..cluster_options(&config, plane, Arc::clone(&keys), runtime.clone())? };
    // Runs beside everything up to the first leader, since the search for primes takes most of a first start.
    let early = options.may_found().then(|| conclave_auth::keys::EarlyRsa::start(&runtime));
    let founding = Cluster::start(options);
    let cluster = tokio::select! {
        cluster = founding => cluster?,
        () = stop.cancelled() => return Ok(()),
    };
    health.attach(cluster.clone());
    // From here on everything is judged by the time of the cluster.
    let runtime = Runtime { clock: cluster.clock(), ..runtime };
    let archive = Archive::start(archive_options(&config, Arc::clone(&keys), &runtime), cluster.clone());
    let auth = auth(&config, public_url, cluster.clone(), keys, &runtime)?;
    // Checked before any request is served: secrets that cannot be opened here would lead to wrong responses.
    auth.check_secrets().map_err(|error| BootError::Machine(error.to_string()))?;
    let slices = slices(&auth, pages);
    // Set once, here.
    let _ = site.set(slices.router);
    let _ = fast_path.set(slices.fast_path.clone());
    let envoy_close = close.clone();
    let envoy = envoy_listener.map(BoundListener::listen).transpose()?.map(|listener| {
        let stop = async move { envoy_close.cancelled().await };
        tokio::spawn(conclave_forward_auth::grpc::serve(listener, slices.fast_path, edge, stop))
    });
    let api_close = close.clone();
    let api = api.into_std().map_err(|e| BootError::Machine(e.to_string()))?;
    let api_stop = async move { api_close.cancelled().await };
    let admin_api = tokio::spawn(admin::serve(api, auth.clone(), archive.clone(), api_stop));
    if let Some(listener) = metrics_listener {
        tokio::spawn(listener.serve(metrics::routes(cluster.clone(), runtime.clone()), close.clone()));
    }
    tokio::spawn(drills(&config, &cluster, &runtime));
    spawn_background_tasks(&auth, early);
    tokio::spawn(slices.reverifier.run());
    tokio::spawn(announce(health.clone(), runtime.clone(), started, config));

    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        reason = cluster.stopped() => Err(BootError::Stopped(reason)),
        Ok(error) = failure => Err(BootError::Http(error)),
    };
    health.stop();
    if ended.is_ok() {
        ship_tail(archive.as_ref()).await;
        cluster.transfer_leadership().await;
        // Load balancers poll every second or so: they must see that this node stops before it refuses connections.
        tokio::time::sleep(drain_delay).await;
    }
    close.cancel();
    // The server logs the connections it had to close.
    let _ = serving.await;
    // The API drains within the same limit as the pages.
    let _ = tokio::time::timeout(server::DRAIN_LIMIT, admin_api).await;
    if let Some(envoy) = envoy {
        let _ = tokio::time::timeout(server::DRAIN_LIMIT, envoy).await;
    }
    if ended.is_ok() && cluster.is_leader() {
        // No other node took over: the last writes would otherwise wait for this node's next start.
        ship_tail(archive.as_ref()).await;
    }
    if let Some(archive) = &archive {
        archive.stop();
    }
    if ended.is_ok() {
        cluster.shutdown().await;
    }
    tracing::info!("stopped");
    ended
}

/// Spawns the background tasks.
fn spawn_background_tasks(auth: &Auth, early: Option<conclave_auth::keys::EarlyRsa>) {
    tokio::spawn(auth.clone().ensure_signing_keys(early));
    tokio::spawn(auth.clone().keep_rotating_keys());
    tokio::spawn(auth.clone().keep_to_the_secret());
    tokio::spawn(auth.policies().keep_places_fresh());
    let outbound = auth.upstreams().outbound.clone();
    tokio::spawn(conclave_oidc::Announcer::new(auth.clone(), outbound).run());
}

/// Takes the node id from the data directory of a node that joined or was restored. Such a node finds its peers in its
/// log, whatever the configuration contains.
fn numbered_by_its_data(mut config: Config) -> Result<Config, StartError> {
    let found = DataDir::peek(&config.node.data_dir)?;
    let Some(identity) = found.filter(|identity| identity.joined && identity.cluster.is_some()) else {
        return Ok(config);
    };
    if config.node.id != identity.node_id {
        tracing::info!(
            configured = config.node.id,
            "this node uses the id {} that it got when it joined; it is in the data directory",
            identity.node_id
        );
    }
    config.cluster.advertise = Some(config.cluster.address_of(config.node.id));
    config.node.id = identity.node_id;
    config.cluster.joined = true;
    config.cluster.peers.clear();
    Ok(config)
}

async fn ship_tail(archive: Option<&Archive>) {
    if let Some(archive) = archive {
        archive.ship_tail().await;
    }
}

/// Runs scheduled drills if there is an archive, until this node ends.
fn drills(config: &Config, cluster: &Cluster, runtime: &Runtime) -> impl Future<Output = ()> + use<> {
    let every = config.archive.drill_every;
    let held = config.archive.target.is_some() && !every.is_zero();
    let (cluster, runtime, config) = (cluster.clone(), runtime.clone(), config.source.clone());
    let drills = Drills { cluster, every, config, runtime };
    async move {
        if held {
            drills.keep().await;
        }
    }
}

fn archive_options(
    config: &Config,
    keys: Arc<ClusterKeys>,
    runtime: &Runtime,
) -> conclave_archive::ArchiveOptions {
    conclave_archive::ArchiveOptions {
        settings: config.archive.clone(),
        longest_session: config.login.session_ttl.max(config.tokens.refresh_ttl),
        keys,
        runtime: runtime.clone(),
    }
}

fn cluster_options(
    config: &Config,
    plane: tokio::net::TcpListener,
    keys: Arc<ClusterKeys>,
    runtime: Runtime,
) -> Result<ClusterOptions, BootError> {
    Ok(ClusterOptions {
        settings: config.shared(),
        hints: Vec::new(),
        pace: conclave_cluster::ElectionPace::default(),
        node: config.node.id,
        data_dir: config.node.data_dir.clone(),
        plane: Plane::Tcp(plane.into_std().map_err(|e| BootError::Machine(e.to_string()))?),
        advertise: config.cluster.address_of(config.node.id),
        api_url: config.api.url(),
        peers: config
            .cluster
            .peers
            .iter()
            .map(|peer| BootstrapPeer { node: peer.id, addr: peer.address.clone() })
            .collect(),
        joined: config.cluster.joined,
        checks: match config.cluster.checks {
            conclave_config::ChecksConfig::Lease => CheckMode::Lease,
            conclave_config::ChecksConfig::Quorum => CheckMode::Quorum,
        },
        public_url: config.http.public_url().map(|url| url.to_string()).unwrap_or_default(),
        keys,
        runtime,
    })
}

fn auth(
    config: &Config,
    public_url: conclave_config::PublicUrl,
    cluster: Cluster,
    keys: Arc<ClusterKeys>,
    runtime: &Runtime,
) -> Result<Auth, BootError> {
    let threads: NonZeroUsize = config.login.argon2_threads.unwrap_or_else(PasswordPool::default_threads);
    let passwords =
        PasswordPool::start(threads, Cost::OWASP).map_err(|e| BootError::Machine(e.to_string()))?;
    let settings = conclave_auth::Settings {
        public_url,
        login: config.login.clone(),
        authorization: config.authorization.clone(),
        tokens: config.tokens.clone(),
        cookie_domain: config.http.cookie_domain.clone(),
        app_domains: config.http.app_domains.clone(),
        outbound: config.outbound.clone(),
        atmosphere: config.atmosphere.clone(),
        policy: config.policy.clone(),
        mtls: config.http.mtls(),
    };
    Ok(Auth::new(cluster, keys, passwords, settings, runtime.clone()))
}

/// The parts that answer requests once a node has a cluster.
pub struct Slices {
    pub router: Router,
    /// The fast path, which is tried before the router.
    pub fast_path: ForwardAuth,
    /// The task that verifies handles again. It must be run.
    pub reverifier: conclave_atproto::Reverifier,
}

/// Composes every slice, by name. A protocol is deleted by deleting its line.
pub fn slices(auth: &Auth, pages: Pages) -> Slices {
    let site = Arc::new(Site::new(auth.clone(), pages));
    let tokens = conclave_oidc::access_tokens(auth.clone(), Arc::clone(&site));
    let fast_path = ForwardAuth::new(auth.clone(), Arc::clone(&site), tokens);
    let (atmosphere, reverifier) = conclave_atproto::routes(auth, Arc::clone(&site));
    let router = Router::new()
        .merge(conclave_web::pages::routes(Arc::clone(&site)))
        .merge(conclave_oidc::routes(auth.clone(), Arc::clone(&site)))
        .merge(atmosphere)
        .merge(conclave_forward_auth::routes(fast_path.clone()))
        .fallback(async |id: RequestId| Fault::not_found().problem(&id));
    Slices { router, fast_path, reverifier }
}

fn edge(config: &Config, runtime: &Runtime, pages: Pages) -> Edge {
    Edge::new(EdgeConfig {
        entropy: Arc::clone(&runtime.entropy),
        trusted_proxies: config.http.trusted_proxies.clone(),
        max_body_bytes: config.http.max_body_bytes,
        request_timeout: REQUEST_TIMEOUT,
        error_page: Arc::new(move |fault, id| pages.fault(fault, id)),
    })
}

/// The slices' routes once they exist. Until then, a clear error response, so that no client waits on a node that
/// starts.
fn late(
    site: Arc<OnceLock<Router>>,
    edge: Edge,
) -> impl tower::Service<Request, Response = Response, Error = std::convert::Infallible, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    tower::service_fn(move |request: Request| {
        let (router, edge) = (site.get().cloned(), edge.clone());
        async move {
            if let Some(router) = router {
                return router.oneshot(request).await;
            }
            let id = request.extensions().get::<RequestId>().cloned();
            let page = conclave_http::fault::wants_page(request.headers());
            let detail = "This node is starting, or waits for the other members of its cluster. Try again in a moment.";
            let fault = Fault::new(StatusCode::SERVICE_UNAVAILABLE, "starting", "One moment, please", detail);
            let answer = id.map(|id| edge.answer(&fault, &id, page));
            let mut answer = answer.unwrap_or_default();
            *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            answer.headers_mut().insert(http::header::RETRY_AFTER, http::HeaderValue::from_static("1"));
            Ok(answer)
        }
    })
}

/// Logs one line when the node can serve, with the time since the process began.
async fn announce(health: Health, runtime: Runtime, started: Duration, config: Config) {
    health.until_ready().await;
    let took = runtime.clock.monotonic().saturating_sub(started);
    tracing::info!(
        node.id = config.node.id,
        http.listen = %config.http.listen.0,
        api.listen = %config.api.listen.0,
        cluster.listen = %config.cluster.listen.0,
        ready_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "ready in {} ms",
        took.as_millis()
    );
}
