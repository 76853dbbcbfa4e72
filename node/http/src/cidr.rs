//! Networks, and which one an address belongs to when it is counted.

use std::net::IpAddr;

pub use conclave_policy::{Cidr, NotACidr};

/// The network that one customer has: an IPv4 address, and of IPv6 a whole /64. What is counted by address counts
/// these.
pub fn customer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        IpAddr::V4(v4) => IpAddr::V4(v4),
    }
}
