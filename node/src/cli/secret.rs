//! `conclave secret …`: making a secret needs no cluster; the other commands contact one.

use std::path::{Path, PathBuf};

use conclave_client::v1;
use serde_json::{Value, json};

use conclave_base::runtime::Runtime;
use conclave_config::write_new_secret;
use conclave_crypto::secret::ClusterSecret;

use super::{
    connection::ApiArgs,
    failure::Failure,
    output::{Format, Output},
};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a cluster secret: its holder can join the cluster and read its snapshots
    #[command(after_help = "\
Examples:
  conclave secret new --out cluster.secret
      readable only by its owner; an existing file is not changed
  CONCLAVE_CLUSTER__SECRET=$(conclave secret new) conclave serve")]
    New {
        /// Write it to this new file instead of printing it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// The output format
        #[arg(short, long, value_name = "FORMAT", value_enum, default_value_t)]
        output: Format,
    },
    /// Show the secrets of each node, and if an old one can be dropped
    #[command(after_help = "Examples:\n  conclave secret status\n  conclave secret status -o json")]
    Status {
        #[command(flatten)]
        api: ApiArgs,
    },
    /// Sign all users out everywhere, and revoke every code, refresh token and app password: for a secret that leaked
    #[command(after_help = "Examples:\n  conclave secret end-everything --yes")]
    EndEverything {
        /// Confirm; without it nothing is done
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        api: ApiArgs,
    },
}

/// The fields of a status before its nodes.
const FIELDS: &[&str] = &[
    "safe_to_drop",
    "reasons",
    "secret_id",
    "changed_at_ms",
    "sealed_under_other_key",
    "sealed_and_lost",
    "app_passwords_under_other_key",
    "app_passwords",
    "retired",
];
const COLUMNS: &[&str] = &["id", "reachable", "makes_with", "accepts", "snapshot_under_other_key"];

pub(super) async fn run(command: Command) -> Result<(Output, Format), Failure> {
    match command {
        Command::New { out, output } => made(out.as_deref(), output),
        Command::Status { api } => {
            let status = api.connect()?.secrets().status(v1::GetSecretStatusRequest {}).await?;
            let output =
                Output::Nested { fields: FIELDS, value: value(&status), list: "nodes", columns: COLUMNS };
            Ok((output, api.output))
        }
        Command::EndEverything { yes: false, .. } => {
            Err(Failure::usage("this signs all users out and revokes every app password; confirm with --yes"))
        }
        Command::EndEverything { yes: true, api } => {
            let ended = api.connect()?.secrets().end_everything(v1::EndEverythingRequest {}).await?;
            let epoch = ended.revocation_epoch;
            let text = format!("all users are signed out; the revocation epoch is {epoch}");
            Ok((Output::done(text, json!({ "revocation_epoch": epoch })), api.output))
        }
    }
}

fn value(status: &v1::SecretStatus) -> Value {
    let node = |node: &v1::SecretOfNode| {
        json!({
            "id": node.id,
            "reachable": node.reachable,
            "makes_with": node.makes_with,
            "accepts": node.accepts,
            "snapshot_under_other_key": node.snapshot_under_other_key,
        })
    };
    json!({
        "safe_to_drop": status.safe_to_drop,
        "reasons": status.reasons,
        "secret_id": status.secret_id,
        "changed_at_ms": status.changed_at_ms,
        "sealed_under_other_key": status.sealed_under_other_key,
        "sealed_and_lost": status.sealed_and_lost,
        "app_passwords_under_other_key": status.app_passwords_under_other_key,
        "app_passwords": status.app_passwords,
        "retired": status.retired,
        "nodes": status.nodes.iter().map(node).collect::<Vec<_>>(),
    })
}

fn made(out: Option<&Path>, output: Format) -> Result<(Output, Format), Failure> {
    let secret = ClusterSecret::generate(&*Runtime::system().entropy);
    let Some(path) = out else {
        let text = secret.to_text().to_string();
        return Ok((Output::done(text.clone(), json!({ "secret": text })), output));
    };
    let shown = path.display().to_string();
    write_new_secret(path, &secret)
        .map_err(|error| Failure::other(format!("cannot write the cluster secret to {shown}: {error}")))?;
    Ok((Output::done(format!("the cluster secret is in {shown}"), json!({ "file": shown })), output))
}
