//! The ports of a demo: a hundred in a row, counted from one base.

use std::net::{Ipv4Addr, TcpListener};

use conclave_base::runtime::Entropy;

/// The number of ports from the base on that a demo may use.
pub const IN_A_ROW: u16 = 100;
/// The lowest base that is tried, above the ports of well-known services.
const LOWEST: u16 = 10_000;
/// The number of bases that are tried. The highest port of the last one is below 32,768, where the ports begin that
/// Linux gives to outgoing connections.
const BASES: u16 = 227;
/// The port that marks a base as taken.
const MARK: u16 = IN_A_ROW - 1;

/// A hundred ports.
#[derive(Debug)]
pub struct Ports {
    base: u16,
    /// Keeps the marking port bound, so that no other demo chooses this base.
    _mark: Option<TcpListener>,
}

impl Ports {
    /// The ports from this base on. Ports in use are found when they are bound.
    ///
    /// # Errors
    /// Fails if a hundred ports do not fit above the base.
    pub fn from(base: u16) -> anyhow::Result<Self> {
        anyhow::ensure!(
            base <= u16::MAX - IN_A_ROW,
            "--base-port must leave room for a hundred ports above it"
        );
        Ok(Self { base, _mark: None })
    }

    /// A hundred ports that are free now. They stay reserved against other demos as long as the value lives.
    ///
    /// # Errors
    /// Fails if there are none.
    pub fn free(entropy: &dyn Entropy) -> anyhow::Result<Self> {
        let first = u16::from_be_bytes(entropy.bytes()) % BASES;
        let mut bases = (0..BASES).map(|n| LOWEST + (first + n) % BASES * IN_A_ROW);
        bases.find_map(Self::reserve).ok_or_else(|| {
            anyhow::anyhow!(
                "there are no hundred free ports in a row from {LOWEST} on; choose some with --base-port"
            )
        })
    }

    /// The ports from this base on, reserved; `None` if one of them is in use.
    pub fn reserve(base: u16) -> Option<Self> {
        let mark = bind(base.checked_add(MARK)?)?;
        (0..MARK).all(|offset| bind(base + offset).is_some()).then_some(Self { base, _mark: Some(mark) })
    }

    /// The lowest of the ports.
    pub const fn base(&self) -> u16 {
        self.base
    }
}

fn bind(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use conclave_base::runtime::testing::SeededEntropy;

    #[test]
    fn two_demos_get_different_ports_and_a_port_in_use_is_left_out() {
        // Equal seeds begin their search at one base.
        let entropy = || SeededEntropy::new(3);
        let one = Ports::free(&*entropy()).unwrap();
        let other = Ports::free(&*entropy()).unwrap();
        assert_ne!(one.base(), other.base());
        assert!(Ports::reserve(one.base()).is_none());
        let base = one.base();
        drop(one);
        let used = bind(base + 21).unwrap();
        assert!(Ports::reserve(base).is_none());
        drop(used);
        assert!(Ports::reserve(base).is_some());
        assert!(Ports::from(u16::MAX - 10).is_err());
    }
}
