//! Outbound requests: the one client for URLs that others chose (a client's logout endpoint, a provider's documents).
//!
//! The name is resolved here, each address is checked, and the connection is made to the checked address, so that a
//! name cannot resolve differently for the check and for the connection. Public addresses are contacted by https;
//! others only if the configuration names them. Redirects are not followed, bodies are bounded, and no request takes
//! longer than `LIMIT`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::cidr::Cidr;

/// Time limit of a request, from the name lookup to the last byte of the response. Callers retry later if a peer is
/// slower.
const LIMIT: Duration = Duration::from_secs(5);
/// Time limit of a connection test, for which an operator waits.
const REACH_LIMIT: Duration = Duration::from_secs(2);
/// Maximum length of a response: the key sets of the largest providers have a third of it.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Maximum length of a picture; its server has a similar limit.
const MAX_PICTURE_BYTES: usize = 1024 * 1024;
/// Networks that are not publicly routed: RFC 1918, RFC 6598, RFC 4193, and this machine.
const PRIVATE: [&str; 7] =
    ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "127.0.0.0/8", "::1/128"];
/// Certificate authority bundles of operating systems: Debian and Alpine, Fedora, SUSE, BSD.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The reason why a request was not made, or got no response. In the latter case it is unknown if the peer acted on it.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    #[error("the address is not an http or https URL")]
    Url,
    #[error("{0} cannot be resolved")]
    Resolve(String),
    #[error("{0} is not a public address; add it to outbound.allow to permit it")]
    Forbidden(String),
    #[error("http without TLS is for addresses in outbound.allow only; use https")]
    Insecure,
    #[error("this machine has no trusted certificate authorities; install its ca-certificates package")]
    NoAuthorities,
    #[error("cannot connect: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("the request cannot be built")]
    Request(#[from] http::Error),
    #[error("the response is too long or was cut off")]
    Answer,
    #[error("no answer within {} s", LIMIT.as_secs())]
    TooSlow,
}

/// A peer's complete response.
#[derive(Clone, Debug)]
pub struct OutboundResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl OutboundResponse {
    /// True if its content type is JSON (RFC 8259 §11, RFC 6839 §3.1).
    pub fn is_json(&self) -> bool {
        let told = self.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let kind = told.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
    }
}

/// Makes requests. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbound {
    tls: Option<Arc<ClientConfig>>,
    allowed: Arc<[Cidr]>,
}

impl Outbound {
    /// Trusts the operating system's certificate authorities; `allowed` are the private networks that may be contacted.
    pub fn new(allowed: Vec<Cidr>) -> Self {
        Self { tls: trusted(), allowed: allowed.into() }
    }

    /// A client for addresses that users or clients chose: public ones only, whatever the configuration allows.
    #[must_use]
    pub fn for_untrusted_servers(&self) -> Self {
        Self { tls: self.tls.clone(), allowed: Arc::new([]) }
    }

    /// A client for addresses that an administrator configured: private networks and this machine as well, with or
    /// without TLS. Link-local addresses are excluded, since clouds serve a machine's credentials there.
    #[must_use]
    pub fn for_administrators(&self) -> Self {
        let private = PRIVATE.iter().filter_map(|network| network.parse().ok());
        let allowed: Vec<Cidr> = self.allowed.iter().copied().chain(private).collect();
        Self { tls: self.tls.clone(), allowed: allowed.into() }
    }

    /// Tests if a connection to the address can be made from here now. Sends nothing.
    ///
    /// # Errors
    /// [`OutboundError`] with the reason.
    pub async fn reach(&self, url: &str) -> Result<(), OutboundError> {
        let url = Url::parse(url).map_err(|_| OutboundError::Url)?;
        let reaching = async {
            let addr = self.judged(&url, url.scheme() == "https").await?;
            TcpStream::connect(addr).await.map(drop).map_err(OutboundError::from)
        };
        timeout(REACH_LIMIT, reaching).await.unwrap_or(Err(OutboundError::TooSlow))
    }

    /// Posts a form; returns the status of the response.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn post_form(&self, url: &str, form: &[(&str, &str)]) -> Result<StatusCode, OutboundError> {
        self.post(url, form, None).await.map(|answer| answer.status)
    }

    /// Posts a form with these credentials; requests JSON and returns the response.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn post(
        &self,
        url: &str,
        form: &[(&str, &str)],
        authorization: Option<&str>,
    ) -> Result<OutboundResponse, OutboundError> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.within_limit(
            url,
            OutboundRequest { form: Some(body), authorization, ..OutboundRequest::default() },
        )
        .await
    }

    /// Posts a form with a DPoP proof (RFC 9449).
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn post_with_proof(
        &self,
        url: &str,
        form: &[(&str, &str)],
        proof: &str,
    ) -> Result<OutboundResponse, OutboundError> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let headers = &[("dpop", proof)];
        self.within_limit(url, OutboundRequest { form: Some(body), headers, ..OutboundRequest::default() })
            .await
    }

    /// Gets a document with these credentials; requests JSON.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn get(
        &self,
        url: &str,
        authorization: Option<&str>,
    ) -> Result<OutboundResponse, OutboundError> {
        self.within_limit(url, OutboundRequest { authorization, ..OutboundRequest::default() }).await
    }

    /// Gets a page with these headers, for example as a browser would.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn page(&self, url: &str, headers: &[(&str, &str)]) -> Result<OutboundResponse, OutboundError> {
        self.within_limit(url, OutboundRequest { headers, ..OutboundRequest::default() }).await
    }

    /// Gets a picture of any type, up to one mebibyte.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn picture(&self, url: &str) -> Result<OutboundResponse, OutboundError> {
        let asked = OutboundRequest {
            headers: &[("accept", "image/*")],
            most: MAX_PICTURE_BYTES,
            ..OutboundRequest::default()
        };
        self.within_limit(url, asked).await
    }

    /// Posts a form like a page does, with these headers.
    ///
    /// # Errors
    /// [`OutboundError`].
    pub async fn submit(
        &self,
        url: &str,
        form: &[(&str, &str)],
        headers: &[(&str, &str)],
    ) -> Result<OutboundResponse, OutboundError> {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.within_limit(url, OutboundRequest { form: Some(body), headers, ..OutboundRequest::default() })
            .await
    }

    async fn within_limit(
        &self,
        url: &str,
        asked: OutboundRequest<'_>,
    ) -> Result<OutboundResponse, OutboundError> {
        let url = Url::parse(url).map_err(|_| OutboundError::Url)?;
        timeout(LIMIT, self.ask(&url, asked)).await.unwrap_or(Err(OutboundError::TooSlow))
    }

    async fn ask(&self, url: &Url, asked: OutboundRequest<'_>) -> Result<OutboundResponse, OutboundError> {
        let is_secure = match url.scheme() {
            "https" => true,
            "http" => false,
            _ => return Err(OutboundError::Url),
        };
        let addr = self.judged(url, is_secure).await?;
        let most = asked.most;
        let request = request(url, asked)?;
        let stream = TcpStream::connect(addr).await?;
        if !is_secure {
            return exchange(stream, request, most).await;
        }
        let tls = self.tls.clone().ok_or(OutboundError::NoAuthorities)?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|_| OutboundError::Url)?;
        exchange(TlsConnector::from(tls).connect(name, stream).await?, request, most).await
    }

    /// The first address of the name that may be contacted.
    async fn judged(&self, url: &Url, is_secure: bool) -> Result<SocketAddr, OutboundError> {
        let port = url.port_or_known_default().ok_or(OutboundError::Url)?;
        let found: Vec<SocketAddr> = match url.host().ok_or(OutboundError::Url)? {
            Host::Ipv4(ip) => vec![(ip, port).into()],
            Host::Ipv6(ip) => vec![(ip, port).into()],
            // Names of this machine by definition (RFC 6761 §6.3); not every resolver knows that.
            Host::Domain(name) if name.ends_with(".localhost") => vec![(Ipv4Addr::LOCALHOST, port).into()],
            Host::Domain(name) => {
                let resolved = lookup_host((name, port)).await;
                resolved.map_err(|_| OutboundError::Resolve(name.to_owned()))?.collect()
            }
        };
        let is_allowed = |ip: IpAddr| self.allowed.iter().any(|network| network.contains(ip));
        if let Some(addr) = found.iter().find(|addr| is_allowed(addr.ip())) {
            return Ok(*addr);
        }
        let public = found.iter().find(|addr| is_public(addr.ip()));
        match public {
            Some(addr) if is_secure => Ok(*addr),
            Some(_) => Err(OutboundError::Insecure),
            None => Err(OutboundError::Forbidden(url.host_str().unwrap_or_default().to_owned())),
        }
    }
}

/// TLS that trusts the operating system's certificate authorities; `None` on a machine without them.
pub fn trusted() -> Option<Arc<ClientConfig>> {
    let bundle = authorities_file()?;
    let roots = Some(authorities(bundle)).filter(|roots| !roots.is_empty())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    Some(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// The PEM file of certificate authorities that this machine trusts; `None` on a machine without them.
pub fn authorities_file() -> Option<&'static Path> {
    BUNDLES.iter().map(Path::new).find(|path| path.exists())
}

fn authorities(bundle: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(bundle).into_iter().flatten();
    let (_, ignored) = roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    if ignored > 0 {
        tracing::debug!(bundle = %bundle.display(), ignored, "some certificate authorities cannot be read");
    }
    roots
}

/// A request to a peer.
struct OutboundRequest<'a> {
    /// The form to post; without one the request is a GET.
    form: Option<String>,
    authorization: Option<&'a str>,
    /// Further headers, which replace the default ones.
    headers: &'a [(&'a str, &'a str)],
    /// Maximum length of the response in bytes.
    most: usize,
}

impl Default for OutboundRequest<'_> {
    fn default() -> Self {
        Self { form: None, authorization: None, headers: &[], most: MAX_ANSWER_BYTES }
    }
}

fn request(url: &Url, asked: OutboundRequest<'_>) -> Result<Request<Full<Bytes>>, OutboundError> {
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let target = url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()));
    let mut request = match asked.form {
        Some(_) => Request::post(target)
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        None => Request::get(target),
    }
    .header(header::HOST, host)
    .header(header::ACCEPT, HeaderValue::from_static("application/json"))
    .header(header::CONNECTION, HeaderValue::from_static("close"))
    .header(header::USER_AGENT, HeaderValue::from_static("conclave"));
    if let Some(authorization) = asked.authorization {
        let mut value = HeaderValue::try_from(authorization).map_err(http::Error::from)?;
        value.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, value);
    }
    let mut request = request.body(Full::new(Bytes::from(asked.form.unwrap_or_default())))?;
    for (name, value) in asked.headers {
        let name = HeaderName::try_from(*name).map_err(http::Error::from)?;
        request.headers_mut().insert(name, HeaderValue::try_from(*value).map_err(http::Error::from)?);
    }
    Ok(request)
}

/// The connection is driven here, together with the exchange, so that nothing of it outlives the caller.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<OutboundResponse, OutboundError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answering = async {
        let response = sender.send_request(request).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, most).collect().await.map_err(|_| OutboundError::Answer)?;
        Ok(OutboundResponse { status: parts.status, headers: parts.headers, body: body.to_bytes() })
    };
    match select(pin!(answering), pin!(connection)).await {
        Either::Left((answer, _)) => answer,
        // The connection may end after the response was read.
        Either::Right((_, answering)) => answering.await,
    }
}

/// True for a public internet address: not loopback, link-local, private, shared, reserved or multicast, in any
/// notation.
fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let reserved = matches!(
        (a, b, c),
        // "This network", shared (RFC 6598), protocol assignments, 6to4 relays, benchmarks, and everything from
        // multicast on.
        (0 | 224.., _, _) | (100, 64..=127, _) | (192, 0, 0) | (192, 88, 99) | (198, 18 | 19, _)
    );
    !(reserved
        || ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_documentation()
        || ip.is_unspecified())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.segments();
    // Global unicast is 2000::/3. Excluded are Teredo and other special uses, documentation, and 6to4 (an embedded IPv4
    // address).
    let is_special = first == 0x2001 && second < 0x0200;
    let is_documentation = (first == 0x2001 && second == 0x0db8) || (first == 0x3fff && second < 0x1000);
    first & 0xe000 == 0x2000 && !is_special && !is_documentation && first != 0x2002
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    #[test]
    fn only_public_addresses_are_public_however_they_are_written() {
        for public in ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "::ffff:1.1.1.1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for other in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::7f00:1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
        ] {
            assert!(!is_public(other.parse().unwrap()), "{other}");
        }
    }

    #[tokio::test]
    async fn a_private_address_is_reached_only_where_the_configuration_says() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut read = vec![0; 4096];
            let length = stream.read(&mut read).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&read[..length]).into_owned()
        });
        let closed = Outbound::new(Vec::new());
        for url in [format!("http://127.0.0.1:{port}/"), format!("https://localhost:{port}/")] {
            let refused = closed.post_form(&url, &[]).await;
            assert!(matches!(refused, Err(OutboundError::Forbidden(_))), "{url}: {refused:?}");
        }
        let insecure = closed.post_form("http://1.1.1.1/", &[]).await;
        assert!(matches!(insecure, Err(OutboundError::Insecure)));
        assert!(matches!(closed.post_form("file:///etc/passwd", &[]).await, Err(OutboundError::Url)));

        let open = Outbound::new(vec!["127.0.0.0/8".parse().unwrap()]);
        let url = format!("http://127.0.0.1:{port}/out?x=1");
        assert_eq!(open.post_form(&url, &[("a", "b c")]).await.unwrap(), StatusCode::NO_CONTENT);
        let seen = peer.await.unwrap();
        assert!(seen.starts_with("POST /out?x=1 HTTP/1.1\r\n") && seen.ends_with("a=b+c"), "{seen}");
    }
}
