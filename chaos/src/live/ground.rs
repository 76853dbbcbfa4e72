//! Where nodes run: on ports of loopback, or each in a network namespace of its own, joined pair by pair, so that any direction of
//! any pair can be cut without a word: packets are then sent to a hardware address that nobody has.

use std::process::Command;

use anyhow::Context as _;

pub const NODES: u64 = 3;
/// Their numbers.
pub const fn nodes() -> std::ops::RangeInclusive<u64> {
    1..=NODES
}

/// A locally administered address that no interface bears.
const NOBODY: &str = "02:00:00:00:00:66";
/// The harness, in each pair with a node.
const HARNESS: u64 = 0;

/// Where nodes run.
pub enum Ground {
    Loopback { base_port: u16 },
    Spaces,
}

/// Addresses of one node.
pub struct Addresses {
    pub http: String,
    pub api: String,
    pub cluster: String,
}

impl Ground {
    pub fn prepare(spaces: bool) -> anyhow::Result<Self> {
        if !spaces {
            return Ok(Self::Loopback { base_port: 24_000 });
        }
        let ground = Self::Spaces;
        ground.clear();
        for node in 1..=NODES {
            ip(&["netns", "add", &name(node)]).context("network namespaces need root and iproute2")?;
            ip(&["-n", &name(node), "link", "set", "lo", "up"])?;
            ip(&["-n", &name(node), "addr", "add", &format!("{}/32", address(node)), "dev", "lo"])?;
        }
        for one in 0..=NODES {
            for other in one + 1..=NODES {
                join(one, other)?;
            }
        }
        Ok(ground)
    }

    pub fn addresses(&self, node: u64) -> Addresses {
        let of = |http: String, api: String, cluster: String| Addresses { http, api, cluster };
        match self {
            Self::Loopback { base_port } => {
                let at = |offset: u64| format!("127.0.0.1:{}", u64::from(*base_port) + offset + node);
                of(at(0), at(10), at(20))
            }
            Self::Spaces => {
                let at = |port: u16| format!("{}:{port}", address(node));
                of(at(9000), at(9200), at(9300))
            }
        }
    }

    /// A command that runs where this node runs.
    pub fn command(&self, node: u64, program: &std::path::Path) -> Command {
        match self {
            Self::Loopback { .. } => Command::new(program),
            Self::Spaces => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &name(node)]).arg(program);
                command
            }
        }
    }

    /// Nothing that `from` sends reaches `to` any more, and nobody is told.
    pub fn cut(&self, from: u64, to: u64) -> anyhow::Result<()> {
        self.must_be_spaces()?;
        neighbour(from, to, &["replace"], &["lladdr", NOBODY, "nud", "permanent"])
    }

    pub fn heal(&self, from: u64, to: u64) -> anyhow::Result<()> {
        self.must_be_spaces()?;
        neighbour(from, to, &["replace"], &["lladdr", &hardware(to, from), "nud", "permanent"])
    }

    fn must_be_spaces(&self) -> anyhow::Result<()> {
        anyhow::ensure!(matches!(self, Self::Spaces), "nodes on loopback cannot be cut apart");
        Ok(())
    }

    fn clear(&self) {
        if let Self::Spaces = self {
            for node in 1..=NODES {
                // Left behind by an earlier run, or not there.
                let _ = Command::new("ip").args(["netns", "del", &name(node)]).output();
                let _ = Command::new("ip").args(["link", "del", &interface(HARNESS, node)]).output();
            }
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.clear();
    }
}

fn name(node: u64) -> String {
    format!("conclave-chaos-{node}")
}

fn address(node: u64) -> String {
    format!("10.77.0.{}", node + 1)
}

/// The end that `of` has of its link to `to`.
fn interface(of: u64, to: u64) -> String {
    format!("cvc{of}t{to}")
}

/// A hardware address for each end, so that both sides know it without asking.
fn hardware(of: u64, to: u64) -> String {
    format!("02:00:00:00:{of:02x}:{to:02x}")
}

fn join(one: u64, other: u64) -> anyhow::Result<()> {
    let (near, far) = (interface(one, other), interface(other, one));
    ip(&["link", "add", &near, "type", "veth", "peer", "name", &far])?;
    for (of, to) in [(one, other), (other, one)] {
        let link = interface(of, to);
        if of != HARNESS {
            ip(&["link", "set", &link, "netns", &name(of)])?;
        }
        inside(of, &["link", "set", &link, "address", &hardware(of, to), "up"])?;
    }
    for (of, to) in [(one, other), (other, one)] {
        let link = interface(of, to);
        if of == HARNESS {
            inside(of, &["addr", "add", &format!("{}/32", address(HARNESS)), "dev", &link])?;
        }
        inside(of, &["route", "add", &format!("{}/32", address(to)), "dev", &link, "src", &address(of)])?;
        neighbour(of, to, &["replace"], &["lladdr", &hardware(to, of), "nud", "permanent"])?;
    }
    Ok(())
}

fn neighbour(of: u64, to: u64, verb: &[&str], rest: &[&str]) -> anyhow::Result<()> {
    let (to_address, link) = (address(to), interface(of, to));
    let words = [&["neigh"], verb, &[&to_address, "dev", &link], rest].concat();
    inside(of, &words)
}

fn inside(of: u64, words: &[&str]) -> anyhow::Result<()> {
    if of == HARNESS {
        return ip(words);
    }
    ip(&[&["-n", &name(of)], words].concat())
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(words).output().context("iproute2 is not installed")?;
    let text = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "ip {}: {text}", words.join(" "));
    Ok(())
}
