//! The environment of the nodes: ports of loopback, or a network namespace for each node, joined pair by pair, so that
//! any direction of any pair can be cut silently: packets are then sent to a hardware address that does not exist. A
//! node has a *place* in it, which another node may take after it is gone.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;

use conclave_base::runtime::SystemEntropy;
use conclave_node::demo::ports::Ports;

use super::relay::Relay;

/// Places of a cluster at its founding.
pub(super) const NODES: u64 = 3;
/// All places: enough to grow from three nodes to five.
pub(super) const PLACES: u64 = 5;
/// The places of the founding nodes.
pub(super) const fn nodes() -> std::ops::RangeInclusive<u64> {
    1..=NODES
}

/// A locally administered address that no interface has.
const NOBODY: &str = "02:00:00:00:00:66";
/// The number of the harness, in each pair with a node.
const HARNESS: u64 = 0;

/// The environment in which nodes run.
pub(super) enum LiveEnvironment {
    /// Ports of loopback, with a relay before each cluster plane if links are to be slow.
    Loopback { ports: Ports, relays: Vec<Relay> },
    /// A network namespace each, with a relay in it if links are to be slow.
    Spaces { relays: BTreeMap<u64, Child> },
}

/// Addresses of one node.
pub(super) struct Addresses {
    pub http: String,
    pub api: String,
    /// The address of its cluster plane for the other nodes.
    pub cluster: String,
    /// The address on which its cluster plane listens.
    pub listen: String,
}

/// The requirements of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EnvironmentKind {
    Plain,
    /// Links that can be slowed.
    Slowable,
    /// Links that can be cut in one direction.
    Spaces,
    /// Links that can be cut in one direction, or slowed.
    SlowableSpaces,
}

/// The port of a cluster plane in its namespace, and the address on which it listens itself if a relay is before it.
const CLUSTER_PORT: u16 = 9300;
const BEHIND_A_RELAY: &str = "127.0.0.1:9301";
impl LiveEnvironment {
    pub(super) fn prepare(kind: EnvironmentKind) -> anyhow::Result<Self> {
        if matches!(kind, EnvironmentKind::Plain | EnvironmentKind::Slowable) {
            let ports = Ports::free(&SystemEntropy)?;
            let base = ports.base();
            let mut environment = Self::Loopback { ports, relays: Vec::new() };
            if kind == EnvironmentKind::Slowable {
                let between = nodes().map(|node| {
                    let listen = environment.addresses(node).listen;
                    Relay::start(relayed(base, node), listen)
                });
                let started = between.collect();
                if let Self::Loopback { relays, .. } = &mut environment {
                    *relays = started;
                }
            }
            return Ok(environment);
        }
        let mut environment = Self::Spaces { relays: BTreeMap::new() };
        environment.clear();
        for node in 1..=PLACES {
            ip(&["netns", "add", &name(node)]).context("network namespaces need root and iproute2")?;
            ip(&["-n", &name(node), "link", "set", "lo", "up"])?;
            ip(&["-n", &name(node), "addr", "add", &format!("{}/32", address(node)), "dev", "lo"])?;
        }
        for one in 0..=PLACES {
            for other in one + 1..=PLACES {
                join(one, other)?;
            }
        }
        if kind == EnvironmentKind::SlowableSpaces {
            let own = std::env::current_exe()?;
            let start = |place: u64| {
                let mut command = environment.command(place, &own);
                command.args(["relay", &format!("{}:{CLUSTER_PORT}", address(place)), BEHIND_A_RELAY]);
                anyhow::Ok((place, command.stdin(Stdio::piped()).spawn()?))
            };
            let started = (1..=PLACES).map(start).collect::<anyhow::Result<_>>()?;
            // Assigned in place: an environment that is replaced clears the namespaces.
            if let Self::Spaces { relays } = &mut environment {
                *relays = started;
            }
        }
        Ok(environment)
    }

    pub(super) fn addresses(&self, node: u64) -> Addresses {
        match self {
            Self::Loopback { ports, relays } => {
                let at = |offset: u64| format!("127.0.0.1:{}", u64::from(ports.base()) + offset + node);
                let cluster = if relays.is_empty() { at(20) } else { relayed(ports.base(), node) };
                Addresses { http: at(0), api: at(10), cluster, listen: at(20) }
            }
            Self::Spaces { relays } => {
                let at = |port: u16| format!("{}:{port}", address(node));
                let cluster = at(CLUSTER_PORT);
                let listen = if relays.is_empty() { cluster.clone() } else { BEHIND_A_RELAY.to_owned() };
                Addresses { http: at(9000), api: at(9200), cluster, listen }
            }
        }
    }

    /// Delays everything sent to this node by this much, up to twice that.
    pub(super) fn slow(&self, node: u64, by: Duration) -> anyhow::Result<()> {
        match self {
            Self::Loopback { relays, .. } => {
                let place = usize::try_from(node.saturating_sub(1))?;
                relays.get(place).context("no relay before this node")?.slow(by);
            }
            Self::Spaces { relays } => {
                let relay = relays.get(&node).and_then(|child| child.stdin.as_ref());
                let mut said = relay.context("no relay before this node")?;
                writeln!(said, "{}", by.as_micros()).context("the relay has ended")?;
            }
        }
        Ok(())
    }

    /// A command that runs in the environment of this node.
    pub(super) fn command(&self, node: u64, program: &std::path::Path) -> Command {
        match self {
            Self::Loopback { .. } => Command::new(program),
            Self::Spaces { .. } => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &name(node)]).arg(program);
                command
            }
        }
    }

    /// Drops everything that `from` sends to `to`, without an error on either side.
    pub(super) fn cut(&self, from: u64, to: u64) -> anyhow::Result<()> {
        self.must_be_spaces()?;
        neighbour(from, to, &["replace"], &["lladdr", NOBODY, "nud", "permanent"])
    }

    pub(super) fn heal(&self, from: u64, to: u64) -> anyhow::Result<()> {
        self.must_be_spaces()?;
        neighbour(from, to, &["replace"], &["lladdr", &hardware(to, from), "nud", "permanent"])
    }

    fn must_be_spaces(&self) -> anyhow::Result<()> {
        anyhow::ensure!(matches!(self, Self::Spaces { .. }), "nodes on loopback cannot be partitioned");
        Ok(())
    }

    fn clear(&self) {
        if let Self::Spaces { .. } = self {
            for node in 1..=PLACES {
                // Left behind by an earlier run, or not there.
                let _ = Command::new("ip").args(["netns", "del", &name(node)]).output();
                let _ = Command::new("ip").args(["link", "del", &interface(HARNESS, node)]).output();
            }
        }
    }
}

impl Drop for LiveEnvironment {
    fn drop(&mut self) {
        if let Self::Spaces { relays } = self {
            for relay in relays.values_mut() {
                // The process may have ended already.
                let _ = relay.kill();
                let _ = relay.wait();
            }
        }
        self.clear();
    }
}

fn relayed(base_port: u16, node: u64) -> String {
    format!("127.0.0.1:{}", u64::from(base_port) + 30 + node)
}

fn name(node: u64) -> String {
    format!("conclave-chaos-{node}")
}

fn address(node: u64) -> String {
    format!("10.77.0.{}", node + 1)
}

/// The interface of node `of` on its link to `to`.
fn interface(of: u64, to: u64) -> String {
    format!("cvc{of}t{to}")
}

/// The hardware address of each end, so that both sides know it without ARP.
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
