//! `conclave serve`: its arguments. `main` runs it.

use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  conclave serve
      one node on 127.0.0.1, data in ./conclave-data
  conclave serve --config /etc/conclave/conclave.toml
  CONCLAVE_NODE__ID=2 CONCLAVE_HTTP__LISTEN=0.0.0.0:9000 conclave serve --config conclave.toml
      every setting can be set in the environment: CONCLAVE_SECTION__KEY overrides section.key")]
pub struct ServeArgs {
    /// TOML file with the settings [default: $CONCLAVE_CONFIG, else /etc/conclave/conclave.toml if it exists, else
    /// none]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// End when the parent process ends, for clusters that another process manages
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}
