//! The client's address and scheme, through trusted proxies only.
//!
//! Only a peer within `http.trusted_proxies` may name another client. Its `X-Forwarded-For` is read from the right:
//! each trusted hop is skipped, and the first other hop is the client; everything left of it is unverified. An
//! unreadable value refuses the request: if it were skipped, a client could choose its own address by sending garbage.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderName, StatusCode};

use super::cidr::Cidr;
use super::fault::Fault;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Marks a request on a connection with TLS that the node itself ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverTls;

/// Maximum number of hops in `X-Forwarded-For`: longer chains are forged.
const MAX_HOPS: usize = 32;

/// The scheme that the client used to the outermost trusted proxy, or to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// The client of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// The client's address, IPv4 in plain form.
    pub ip: IpAddr,
    pub scheme: Scheme,
    /// True if the connection came from a configured proxy, whose `X-Forwarded-*` headers are trusted.
    pub via_trusted_proxy: bool,
}

impl ClientInfo {
    pub(super) fn resolve(
        headers: &HeaderMap,
        extensions: &Extensions,
        trusted: &[Cidr],
    ) -> Result<Self, Fault> {
        // Without a peer address (a request made in a test) no peer is trusted.
        let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Self::of_proxy(headers, peer, trusted).unwrap_or_else(|| {
            let is_secure = extensions.get::<OverTls>().is_some();
            let scheme = if is_secure { Scheme::Https } else { Scheme::Http };
            Ok(Self { ip: peer.to_canonical(), scheme, via_trusted_proxy: false })
        })
    }

    /// The client that a trusted proxy names. `None` if the peer is not a trusted proxy.
    pub(super) fn of_proxy(
        headers: &HeaderMap,
        peer: IpAddr,
        trusted: &[Cidr],
    ) -> Option<Result<Self, Fault>> {
        let is_trusted = |ip: IpAddr| trusted.iter().any(|network| network.contains(ip));
        let peer = peer.to_canonical();
        is_trusted(peer).then(|| Self::spoken_for(headers, peer, is_trusted))
    }

    fn spoken_for(
        headers: &HeaderMap,
        peer: IpAddr,
        is_trusted: impl Fn(IpAddr) -> bool,
    ) -> Result<Self, Fault> {
        let client = client(headers, is_trusted).map_err(|Unreadable| bad(&FORWARDED_FOR))?;
        let scheme = scheme(headers).ok_or_else(|| bad(&FORWARDED_PROTO))?;
        Ok(Self { ip: client.unwrap_or(peer), scheme, via_trusted_proxy: true })
    }
}

fn bad(header: &HeaderName) -> Fault {
    let detail = format!("The proxy in front of this server sent an {header} header that cannot be read.");
    Fault::new(StatusCode::BAD_REQUEST, "bad_forwarded_header", "Bad request", detail)
}

struct Unreadable;

/// Of all addresses in all `X-Forwarded-For` lines, the rightmost that is not a trusted hop; the first if all are
/// trusted; `None` if there are none.
///
/// # Errors
/// Fails if one of them is not an address, or there are too many.
fn client(headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> Result<Option<IpAddr>, Unreadable> {
    let (mut client, mut hops) = (None, 0);
    for line in headers.get_all(FORWARDED_FOR) {
        for hop in line.to_str().map_err(|_| Unreadable)?.split(',') {
            let hop = address(hop.trim()).ok_or(Unreadable)?;
            hops += 1;
            if hops > MAX_HOPS {
                return Err(Unreadable);
            }
            if client.is_none() || !is_trusted(hop) {
                client = Some(hop);
            }
        }
    }
    Ok(client)
}

/// Parses an address as proxies write it: bare, in brackets, or with a port.
fn address(hop: &str) -> Option<IpAddr> {
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || hop.parse().ok().map(|address: SocketAddr| address.ip());
    hop.parse().ok().or_else(with_port).or_else(bracketed).map(|ip: IpAddr| ip.to_canonical())
}

/// The single value of `X-Forwarded-Proto`; plain http if there is none. Traefik sends `ws` and `wss` for upgrades.
fn scheme(headers: &HeaderMap) -> Option<Scheme> {
    let mut lines = headers.get_all(FORWARDED_PROTO).iter();
    let Some(line) = lines.next() else { return Some(Scheme::Http) };
    match (line.as_bytes(), lines.next()) {
        (b"https" | b"wss", None) => Some(Scheme::Https),
        (b"http" | b"ws", None) => Some(Scheme::Http),
        _ => None,
    }
}

/// Fails outside the [`Edge`](super::Edge), where the client is unknown.
impl<S: Sync> FromRequestParts<S> for ClientInfo {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, StatusCode> {
        parts.extensions.get().copied().ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::extract::ConnectInfo;
    use http::{Extensions, HeaderMap};

    use super::{Cidr, ClientInfo, FORWARDED_FOR, FORWARDED_PROTO, Scheme};

    fn resolve(peer: &str, forwarded_for: &[&str], proto: &[&str]) -> Result<ClientInfo, u16> {
        let trusted: Vec<Cidr> = ["10.0.0.0/8", "fd00::/8"].iter().map(|n| n.parse().unwrap()).collect();
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(format!("{peer}:40000").parse::<SocketAddr>().unwrap()));
        let mut headers = HeaderMap::new();
        for line in forwarded_for {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        for line in proto {
            headers.append(FORWARDED_PROTO, line.parse().unwrap());
        }
        ClientInfo::resolve(&headers, &extensions, &trusted).map_err(|fault| fault.status.as_u16())
    }

    fn ip(peer: &str, forwarded_for: &[&str]) -> String {
        resolve(peer, forwarded_for, &[]).unwrap().ip.to_string()
    }

    #[test]
    fn an_untrusted_peer_speaks_only_for_itself() {
        assert_eq!(ip("192.0.2.9", &["203.0.113.1"]), "192.0.2.9");
        let info = resolve("192.0.2.9", &["nonsense"], &["https"]).unwrap();
        assert_eq!((info.scheme, info.via_trusted_proxy), (Scheme::Http, false));
        assert_eq!(ip("[::ffff:192.0.2.9]", &[]), "192.0.2.9");
    }

    #[test]
    fn a_trusted_proxy_names_the_rightmost_hop_that_is_not_one() {
        assert_eq!(ip("10.0.0.1", &["203.0.113.1"]), "203.0.113.1");
        assert_eq!(ip("10.0.0.1", &["1.1.1.1, 203.0.113.1, 10.0.0.2"]), "203.0.113.1");
        assert_eq!(ip("10.0.0.1", &["1.1.1.1", "203.0.113.1", "10.0.0.2"]), "203.0.113.1");
        assert_eq!(ip("[fd00::1]", &["[2001:db8::5]:443"]), "2001:db8::5");
        assert_eq!(ip("10.0.0.1", &["203.0.113.1:5000"]), "203.0.113.1");
        assert_eq!(ip("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "all trusted: the first of them");
        assert_eq!(ip("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn the_scheme_is_the_proxys_word() {
        let scheme = |proto: &[&str]| resolve("10.0.0.1", &[], proto).map(|info| info.scheme);
        assert_eq!(scheme(&["https"]), Ok(Scheme::Https));
        assert_eq!(scheme(&["wss"]), Ok(Scheme::Https));
        assert_eq!(scheme(&["http"]), Ok(Scheme::Http));
        assert_eq!(scheme(&[]), Ok(Scheme::Http));
    }

    #[test]
    fn a_forwarded_header_that_cannot_be_read_refuses_the_request() {
        for garbage in ["unknown", "", "203.0.113.1,", "example.org", "203.0.113.1 10.0.0.1"] {
            assert_eq!(resolve("10.0.0.1", &[garbage], &[]), Err(400), "{garbage:?}");
        }
        assert_eq!(resolve("10.0.0.1", &[&["1.1.1.1"; 33].join(",")], &[]), Err(400));
        for garbage in [&["https,http"][..], &["https", "http"], &["HTTPS"], &[""]] {
            assert_eq!(resolve("10.0.0.1", &[], garbage), Err(400), "{garbage:?}");
        }
    }
}
