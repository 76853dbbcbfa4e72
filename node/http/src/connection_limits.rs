//! Limits per address on a listener: the number of connections, and the time to wait for a request. One client must not
//! be able to exhaust the node.
//!
//! There are two kinds of peers. **Trusted proxies** are the configured proxies and this machine itself: one address
//! carries the requests of many clients. It may use every connection, and may keep a connection idle for longer than
//! proxies do. The proxy limits the clients behind it; it receives the whole request head before it connects here. All
//! others are **untrusted peers**: each has a limited share, and is soon disconnected.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::cidr::{Cidr, customer_of};

/// Maximum number of connections of one untrusted peer (a /64 for IPv6), an eighth of all. A browser opens six to a
/// host, so a whole company behind one address fits; an attacker needs eight networks to fill a node.
const MAX_CONNECTIONS_OF_AN_UNTRUSTED_PEER: usize = 512;

/// Time for an untrusted peer to send a request's head, idle keep-alive included; then it is disconnected. Browsers
/// simply reconnect.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(15);

/// Time for a trusted proxy to send a request's head. It exceeds the 60 s for which nginx keeps idle connections to a
/// backend, so that the proxy closes first and no request meets a closing connection.
const PROXY_HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);

/// The connections per peer, and their limits.
#[derive(Debug)]
pub(super) struct ConnectionLimits {
    pub(super) trusted_proxies: Vec<Cidr>,
    pub(super) most: usize,
    pub(super) header_read_timeout: Duration,
    by_untrusted_peer: Arc<Mutex<BTreeMap<IpAddr, Count>>>,
}

/// Connections of one network. There are at most as many rows as connections.
#[derive(Debug, Default)]
struct Count {
    held: usize,
    /// True if the limit was logged: once until the last connection has ended, whatever is tried.
    logged: bool,
}

/// An admitted connection; its share is released when this is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    /// Time to wait for a request's head.
    pub header_read_timeout: Duration,
    _share: Option<Share>,
}

#[derive(Debug)]
struct Share {
    of: IpAddr,
    by_untrusted_peer: Arc<Mutex<BTreeMap<IpAddr, Count>>>,
}

impl ConnectionLimits {
    /// Trusts `proxies` and loopback: a proxy on this machine, or the machine's owner.
    pub(crate) fn new(proxies: &[Cidr]) -> Self {
        let loopback = [(Ipv4Addr::LOCALHOST.into(), 8), (Ipv6Addr::LOCALHOST.into(), 128)]
            .map(|(network, prefix)| Cidr::new(network, prefix));
        Self {
            trusted_proxies: proxies.iter().copied().chain(loopback).collect(),
            most: MAX_CONNECTIONS_OF_AN_UNTRUSTED_PEER,
            header_read_timeout: HEADER_READ_TIMEOUT,
            by_untrusted_peer: Arc::default(),
        }
    }

    /// A permit for a connection from `peer`, unless its share is used up.
    pub(crate) fn admit(&self, peer: IpAddr) -> Option<ConnectionPermit> {
        if self.trusted_proxies.iter().any(|network| network.contains(peer)) {
            return Some(ConnectionPermit { header_read_timeout: PROXY_HEADER_READ_TIMEOUT, _share: None });
        }
        let of = customer_of(peer);
        let mut by_peer = self.by_untrusted_peer.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_peer.entry(of).or_default();
        if count.held >= self.most {
            if !std::mem::replace(&mut count.logged, true) {
                tracing::warn!(
                    client.address = %of,
                    "{of} has {} connections, and further ones are closed; if it is your proxy, list it in http.trusted_proxies",
                    self.most
                );
            }
            return None;
        }
        count.held += 1;
        let share = Share { of, by_untrusted_peer: Arc::clone(&self.by_untrusted_peer) };
        Some(ConnectionPermit { header_read_timeout: self.header_read_timeout, _share: Some(share) })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut by_peer = self.by_untrusted_peer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = by_peer.get_mut(&self.of) else { return };
        count.held = count.held.saturating_sub(1);
        if count.held == 0 {
            by_peer.remove(&self.of);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_untrusted_peer_has_a_share_and_others_have_theirs() {
        let limits = ConnectionLimits::new(&[]);
        let mut held: Vec<_> = (0..MAX_CONNECTIONS_OF_AN_UNTRUSTED_PEER)
            .map(|_| limits.admit(ip("192.0.2.1")).unwrap())
            .collect();
        assert!(limits.admit(ip("192.0.2.1")).is_none());
        assert!(limits.admit(ip("::ffff:192.0.2.1")).is_none(), "in IPv6 clothes it is the same");
        assert!(limits.admit(ip("192.0.2.2")).is_some());
        held.pop();
        assert!(limits.admit(ip("192.0.2.1")).is_some());
        drop(held);
        assert!(limits.by_untrusted_peer.lock().unwrap().is_empty(), "who is gone is forgotten");
    }

    #[test]
    fn a_64_counts_as_one_peer() {
        let limits = ConnectionLimits::new(&[]);
        let held: Vec<_> = (0..MAX_CONNECTIONS_OF_AN_UNTRUSTED_PEER)
            .map(|n| limits.admit(ip(&format!("2001:db8::{n:x}"))).unwrap())
            .collect();
        assert!(limits.admit(ip("2001:db8::ffff")).is_none());
        assert!(limits.admit(ip("2001:db8:0:1::1")).is_some());
        drop(held);
    }

    #[test]
    fn proxies_and_the_machine_itself_may_have_every_place_and_be_idle_longer_than_they_are() {
        let limits = ConnectionLimits::new(&["10.0.0.0/24".parse().unwrap()]);
        for proxy in ["10.0.0.7", "::ffff:10.0.0.7", "127.0.0.1", "127.0.0.9", "::1"] {
            let held: Vec<_> = (0..=MAX_CONNECTIONS_OF_AN_UNTRUSTED_PEER)
                .map(|_| limits.admit(ip(proxy)).unwrap())
                .collect();
            assert!(
                held[0].header_read_timeout > Duration::from_mins(1),
                "nginx keeps idle connections for a minute"
            );
        }
        let untrusted = limits.admit(ip("10.0.1.7")).unwrap();
        assert!(untrusted.header_read_timeout < Duration::from_secs(20));
    }
}
