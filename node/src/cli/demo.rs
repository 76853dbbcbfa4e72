//! `conclave demo`: its arguments. `main` runs it.

use std::path::PathBuf;

use crate::demo::MAX_NODES;

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conclave demo
      three nodes and a front on http://127.0.0.1:9090, with an admin, an OIDC client and a protected application
  conclave demo --nodes 5 --base-port 19000 --data /tmp/demo
  conclave demo --base-port 0 --json
      takes free ports, prints one line of JSON once everything is ready, and runs until it is stopped")]
pub struct DemoArgs {
    /// The number of nodes, at most 9
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_NODES))]
    pub nodes: u64,
    /// The base that ports are counted from; the front is at this one + 90. 0 chooses a hundred free ports
    #[arg(long, default_value_t = 9000, value_name = "PORT")]
    pub base_port: u16,
    /// The directory of the nodes' data; kept if given, otherwise temporary
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The password of the demo's admin; generated if not given. Every user of this machine can see it: use it only for
    /// a demo
    #[arg(long, value_name = "PASSWORD")]
    pub admin_password: Option<String>,
    /// Print exactly one line on standard output, as JSON, once ready
    #[arg(long)]
    pub json: bool,
    /// Restart a node that has ended, without asking
    #[arg(long)]
    pub restart: bool,
}
