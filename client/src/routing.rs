//! Selects the node for a call. Reads stay with one endpoint until it fails; writes go to the leader, once a node has
//! named it, until it fails. A hint that failed is ignored for a while: the address may be one that only nodes can
//! reach.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::BuildError;

const HTTPS: &str = "https://";
/// Time limit for establishing a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// The interval of keep-alive pings on an idle connection with an open call, and their timeout.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// The time for which a leader that did not answer is ignored.
const SHUN: Duration = Duration::from_secs(5);
/// Most connections kept: configured endpoints and former leaders.
const MAX_CHANNELS: usize = 32;

/// The routing table.
pub(crate) struct Routing {
    endpoints: Vec<String>,
    authorities: Option<Certificate>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    channels: BTreeMap<String, Channel>,
    /// The endpoint in use; counts up for ever.
    turn: usize,
    leader: Option<String>,
    shunned: Option<(String, Instant)>,
}

/// A node to call.
#[derive(Clone)]
pub(crate) struct Target {
    pub url: String,
    pub channel: Channel,
}

impl Routing {
    /// Requires at least one endpoint, all of them valid.
    pub(crate) fn new(endpoints: Vec<String>, authorities: Option<Certificate>) -> Self {
        Self { endpoints, authorities, table: Mutex::default() }
    }

    /// The certificate authorities that https endpoints are verified against.
    pub(crate) const fn authorities(&self) -> Option<&Certificate> {
        self.authorities.as_ref()
    }

    /// The number of configured endpoints.
    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// The node to call now. None only if an endpoint is not a valid address, which was checked before.
    pub(crate) fn target(&self, writes: bool) -> Option<Target> {
        let mut table = self.table();
        let leader = table.leader.clone().filter(|_| writes);
        let url = match leader {
            Some(leader) => leader,
            None => self.endpoint_in_turn(&table)?.to_owned(),
        };
        let channel = table.channel(&url, self.authorities())?;
        Some(Target { url, channel })
    }

    /// Records the leader that a response names. A client with an https endpoint never sends its token to a plain http
    /// address from a response.
    pub(crate) fn leader_is(&self, url: &str) {
        let is_secure = self.endpoints.iter().any(|endpoint| endpoint.starts_with(HTTPS));
        if is_secure && !url.starts_with(HTTPS) {
            return;
        }
        let mut table = self.table();
        let shunned =
            table.shunned.as_ref().is_some_and(|(who, until)| who == url && Instant::now() < *until);
        if !shunned && endpoint(url, self.authorities()).is_ok() {
            table.leader = Some(url.to_owned());
        }
    }

    /// Records that this node did not answer.
    pub(crate) fn failed(&self, url: &str) {
        let mut table = self.table();
        if table.leader.as_deref() == Some(url) {
            table.leader = None;
            table.shunned = Some((url.to_owned(), Instant::now() + SHUN));
        }
        if self.endpoint_in_turn(&table) == Some(url) {
            table.turn = table.turn.wrapping_add(1);
        }
    }

    fn endpoint_in_turn(&self, table: &Table) -> Option<&str> {
        let turn = table.turn.checked_rem(self.endpoints.len())?;
        self.endpoints.get(turn).map(String::as_str)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn channel(&mut self, url: &str, authorities: Option<&Certificate>) -> Option<Channel> {
        if let Some(channel) = self.channels.get(url) {
            return Some(channel.clone());
        }
        if self.channels.len() >= MAX_CHANNELS {
            self.channels.clear();
        }
        let channel = endpoint(url, authorities).ok()?.connect_lazy();
        self.channels.insert(url.to_owned(), channel.clone());
        Some(channel)
    }
}

/// The endpoint of a node at this URL: `http://host:port`, or `https://host`, whose certificate one of `authorities`
/// must have signed.
///
/// # Errors
/// [`BuildError::BadEndpoint`] for any other text, [`BuildError::NoAuthorities`] for https without authorities.
pub(crate) fn endpoint(url: &str, authorities: Option<&Certificate>) -> Result<Endpoint, BuildError> {
    let bad = || BuildError::BadEndpoint(url.to_owned());
    let is_secure = url.starts_with(HTTPS);
    if !is_secure && !url.starts_with("http://") {
        return Err(bad());
    }
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| bad())?;
    endpoint.uri().host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_LIMIT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    if !is_secure {
        return Ok(endpoint);
    }
    let authorities = authorities.ok_or_else(|| BuildError::NoAuthorities(url.to_owned()))?;
    // An empty set of authorities would only fail later, as a certificate that no authority has signed.
    if !String::from_utf8_lossy(authorities.as_ref()).contains("-----BEGIN CERTIFICATE-----") {
        return Err(BuildError::BadAuthorities);
    }
    let tls = ClientTlsConfig::new().ca_certificate(authorities.clone());
    endpoint.tls_config(tls).map_err(|_| BuildError::BadAuthorities)
}
