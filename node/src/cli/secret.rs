//! `conclave secret …`: needs no cluster.

use std::path::PathBuf;

use serde_json::json;

use crate::{config::write_new_secret, crypto::secret::ClusterSecret, runtime::Runtime};

use super::{
    failure::Failure,
    output::{Format, Output},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a cluster secret: whoever holds it can join the cluster and read its snapshots
    #[command(after_help = "\
Examples:
  conclave secret new --out cluster.secret
      readable by its owner alone; a file that exists is left alone
  CONCLAVE_CLUSTER__SECRET=$(conclave secret new) conclave serve")]
    New {
        /// Write it to this new file instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// How to print the result
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Format,
    },
}

pub fn run(command: &Command) -> Result<(Output, Format), Failure> {
    let Command::New { out, output } = command;
    let secret = ClusterSecret::generate(&*Runtime::system().entropy);
    let Some(path) = out else {
        let text = secret.to_text().to_string();
        return Ok((Output::done(text.clone(), json!({ "secret": text })), *output));
    };
    let shown = path.display().to_string();
    write_new_secret(path, &secret)
        .map_err(|error| Failure::other(format!("cannot write the cluster secret to {shown}: {error}")))?;
    Ok((Output::done(format!("the cluster secret is in {shown}"), json!({ "file": shown })), *output))
}
