//! TXT records of the DNS: by the machine's nameservers, or by those that the configuration names.

use std::{future::Future, net::SocketAddr, pin::Pin, time::Duration};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    proto::rr::RData,
};

/// One question, and how often it is asked again: less than a person waits.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 1;
/// Most records of one name that are looked at.
const MAX_RECORDS: usize = 32;

/// Looks names up.
pub trait TxtLookup: Send + Sync {
    /// The texts at this name; none when there are none or nobody answers.
    fn lookup<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Vec<String>> + Send + 'a>>;
}

/// By DNS. Nothing is kept between two questions: an identity may change its handle at any time.
pub struct Dns(Option<TokioResolver>);

impl Dns {
    /// Without `nameservers`, those of the machine; where it names none, no handle is found by DNS.
    pub fn new(nameservers: &[SocketAddr]) -> Self {
        let mut options = ResolverOpts::default();
        options.timeout = TIMEOUT;
        options.attempts = ATTEMPTS;
        options.cache_size = 0;
        let provider = TokioRuntimeProvider::default();
        let builder = if nameservers.is_empty() {
            Resolver::builder(provider).ok()
        } else {
            let servers = nameservers.iter().copied().map(server).collect();
            Some(Resolver::builder_with_config(
                ResolverConfig::from_parts(None, Vec::new(), servers),
                provider,
            ))
        };
        let resolver = builder.and_then(|builder| builder.with_options(options).build().ok());
        if resolver.is_none() {
            tracing::warn!("this machine names no nameserver: handles are found by https alone");
        }
        Self(resolver)
    }
}

/// By UDP, and by TCP what is too long for it.
fn server(address: SocketAddr) -> NameServerConfig {
    let on_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

impl TxtLookup for Dns {
    fn lookup<'a>(&'a self, name: &'a str) -> Pin<Box<dyn Future<Output = Vec<String>> + Send + 'a>> {
        Box::pin(async move {
            let Some(resolver) = &self.0 else { return Vec::new() };
            let Ok(found) = resolver.txt_lookup(name).await else { return Vec::new() };
            let texts = found.answers().iter().filter_map(|record| match &record.data {
                RData::TXT(txt) => Some(txt.txt_data.concat()),
                _ => None,
            });
            texts.take(MAX_RECORDS).filter_map(|bytes| String::from_utf8(bytes).ok()).collect()
        })
    }
}
