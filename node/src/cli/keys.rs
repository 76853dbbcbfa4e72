//! `conclave key …`

use conclave_client::{AdminClient, all_pages, v1};
use serde_json::{Value, json};

use super::{failure::Failure, output::Output};

const COLUMNS: &[&str] = &["algorithm", "stage", "kid", "created_at_ms", "active_since_ms", "retired_at_ms"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List the published keys: the current one, the next one, and earlier ones
    #[command(after_help = "Examples:\n  conclave key list\n  conclave key list -o json")]
    List,
    /// Publish the next key of an algorithm early
    #[command(after_help = "\
Examples:
  conclave key rotate ES256
      published now, signs after tokens.signing_key_notice
  conclave key rotate ES256 --now
      the old one may have leaked: then also `conclave key retire KID`")]
    Rotate {
        /// RS256, PS256, ES256 or EdDSA
        #[arg(value_parser = ["RS256", "PS256", "ES256", "EdDSA"])]
        algorithm: String,
        /// Sign with it at once
        #[arg(long)]
        now: bool,
    },
    /// Withdraw a key that is not the current one: everything it signed is refused from then on
    #[command(after_help = "Examples:\n  conclave key retire 8tvnbA…")]
    Retire {
        /// Its id, as `conclave key list` shows it
        kid: String,
    },
}

pub(super) async fn run(client: &AdminClient, command: Command) -> Result<Output, Failure> {
    match command {
        Command::List => {
            let keys = all_pages(async |page| {
                let answer = client.keys().list(v1::ListKeysRequest { page: Some(page) }).await?;
                Ok((answer.keys, answer.next_page_token))
            })
            .await?;
            Ok(Output::Many { columns: COLUMNS, rows: keys.iter().map(value).collect() })
        }
        Command::Rotate { algorithm, now } => {
            let key = client.keys().rotate(v1::RotateKeyRequest { algorithm, now }).await?;
            Ok(Output::One { fields: COLUMNS, value: value(&key) })
        }
        Command::Retire { kid } => {
            client.keys().retire(v1::RetireKeyRequest { kid: kid.clone() }).await?;
            Ok(Output::done(format!("key {kid} is not published any more"), json!({ "retired": kid })))
        }
    }
}

fn value(key: &v1::SigningKey) -> Value {
    json!({
        "kid": key.kid,
        "algorithm": key.algorithm,
        "stage": key.stage,
        "created_at_ms": key.created_at_ms,
        "active_since_ms": key.active_since_ms,
        "retired_at_ms": key.retired_at_ms,
    })
}
