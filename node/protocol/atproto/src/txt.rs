//! DNS TXT records, from the machine's nameservers or from those in the configuration.

use std::{future::Future, net::SocketAddr, pin::Pin, time::Duration};

use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{op::ResponseCode, rr::RData},
};

/// Timeout of one query, and the number of repetitions: less than a user would wait.
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: usize = 1;
/// Maximum number of records of one name that are used.
const MAX_RECORDS: usize = 32;

/// Looks up TXT records.
pub(crate) trait TxtLookup: Send + Sync {
    /// The texts at this name; empty if the name does not exist or has none.
    ///
    /// # Errors
    /// [`NoAnswer`] if no nameserver confirmed that.
    fn lookup<'a>(&'a self, name: &'a str) -> Looking<'a>;
}

/// A lookup in progress.
pub(crate) type Looking<'a> = Pin<Box<dyn Future<Output = Result<Vec<String>, NoAnswer>> + Send + 'a>>;

/// No nameserver answered, or each refused: nothing is known about the name. For the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nameservers {servers} do not answer: {why}")]
pub(crate) struct NoAnswer {
    pub servers: String,
    pub why: String,
}

/// Lookups by DNS. Nothing is cached between two lookups: an identity may change its handle at any time.
pub(crate) struct Dns {
    resolver: Option<TokioResolver>,
    /// The nameservers, for the log.
    servers: String,
}

impl Dns {
    /// Uses `nameservers`, or those of the machine if there are none. If the machine has none either, no handle is
    /// found by DNS.
    pub(crate) fn new(nameservers: &[SocketAddr]) -> Self {
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
        let servers = if nameservers.is_empty() {
            "of this machine".to_owned()
        } else {
            nameservers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        Self { resolver, servers }
    }
}

/// Queries by UDP, and by TCP for responses that are too long for it.
fn server(address: SocketAddr) -> NameServerConfig {
    let on_port = |mut connection: ConnectionConfig| {
        connection.port = address.port();
        connection
    };
    let connections = vec![on_port(ConnectionConfig::udp()), on_port(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

impl TxtLookup for Dns {
    fn lookup<'a>(&'a self, name: &'a str) -> Looking<'a> {
        Box::pin(async move {
            // Without nameservers handles cannot be found by DNS, and https alone decides.
            let Some(resolver) = &self.resolver else { return Ok(Vec::new()) };
            let found = match resolver.txt_lookup(name).await {
                Ok(found) => found,
                Err(error) if is_answer(&error) => return Ok(Vec::new()),
                Err(error) => {
                    let silent = NoAnswer { servers: self.servers.clone(), why: error.to_string() };
                    tracing::warn!(
                        dns.servers = %silent.servers,
                        "{silent}; check atmosphere.nameservers, or the nameservers of this machine"
                    );
                    return Err(silent);
                }
            };
            let texts = found.answers().iter().filter_map(|record| match &record.data {
                RData::TXT(txt) => Some(txt.txt_data.concat()),
                _ => None,
            });
            Ok(texts.take(MAX_RECORDS).filter_map(|bytes| String::from_utf8(bytes).ok()).collect())
        })
    }
}

/// True if a nameserver confirmed that there is nothing: the name does not exist, or has no such record. SERVFAIL,
/// REFUSED and silence prove nothing about the name.
fn is_answer(error: &NetError) -> bool {
    matches!(
        error,
        NetError::Dns(DnsError::NoRecordsFound(none))
            if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::UdpSocket;

    use super::*;

    /// A nameserver that answers each query with this code and no record.
    async fn nameserver(code: u8) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let mut answer = buffer[..length].to_vec();
                // A response (RFC 1035 4.1.1), recursion available, with the code; the question alone.
                answer[2] |= 0x80;
                answer[3] = 0x80 | code;
                answer[6..12].fill(0);
                let end = 12 + answer[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
                answer.truncate(end);
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn a_name_service_that_is_down_is_not_taken_for_a_name_that_is_not_there() {
        for (code, is_answer) in [(0, true), (3, true), (2, false), (5, false)] {
            let dns = Dns::new(&[nameserver(code).await]);
            let found = dns.lookup("_atproto.alice.test.").await;
            assert_eq!(found.is_ok(), is_answer, "code {code}: {found:?}");
        }
        // No process listens there.
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let gone = socket.local_addr().unwrap();
        drop(socket);
        let silent = Dns::new(&[gone]).lookup("_atproto.alice.test.").await.unwrap_err();
        assert!(silent.to_string().contains(&gone.to_string()), "{silent}");
    }
}
