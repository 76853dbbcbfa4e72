//! Networks, and the grouping of addresses for limits.

use std::net::IpAddr;

pub use conclave_policy::{Cidr, NotACidr};

/// The network of one customer: an IPv4 address, or a whole /64 of IPv6. Limits by address count these.
pub fn customer_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        IpAddr::V4(v4) => IpAddr::V4(v4),
    }
}
