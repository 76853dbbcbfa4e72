//! `conclave token …`

use std::time::Duration;

use conclave_client::{AdminClient, all_pages, v1};
use serde_json::{Value, json};

use conclave_config::parse_duration;

use super::{
    failure::Failure,
    output::{Output, with},
};

const NEW_FIELDS: &[&str] = &["id", "name", "role", "expires_at_ms", "token"];
const COLUMNS: &[&str] = &["name", "role", "created_at_ms", "expires_at_ms", "id"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a token; it is shown once
    #[command(after_help = "\
Examples:
  conclave token new --name monitoring
      reads only, does not expire
  conclave token new --name deploy --role admin --ttl 30d -o json | jq -r .token")]
    New {
        /// A label for display
        #[arg(long)]
        name: String,
        /// The role: reader, admin, or registrar (may only register clients at the provider)
        #[arg(long, default_value = "reader", value_parser = ["reader", "admin", "registrar"])]
        role: String,
        /// The lifetime, such as 90s, 12h or 30d [default: for ever]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        ttl: Option<Duration>,
    },
    /// List tokens
    #[command(after_help = "Examples:\n  conclave token list\n  conclave token list -o json")]
    List,
    /// Revoke a token
    #[command(after_help = "Examples:\n  conclave token revoke 0f8e…")]
    Revoke {
        /// The token's id, as `conclave token list` shows it
        id: String,
    },
}

pub(super) async fn run(client: &AdminClient, command: Command) -> Result<Output, Failure> {
    match command {
        Command::New { name, role, ttl } => {
            let ttl_ms = ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
            let answer = client.tokens().create(v1::CreateTokenRequest { name, role, ttl_ms }).await?;
            let value = with(value(&answer.token.unwrap_or_default()), "token", answer.secret);
            Ok(Output::One { fields: NEW_FIELDS, value })
        }
        Command::List => list(client).await,
        Command::Revoke { id } => {
            client.tokens().revoke(v1::RevokeTokenRequest { id: id.clone() }).await?;
            Ok(Output::done(format!("token {id} is revoked"), json!({ "revoked": id })))
        }
    }
}

async fn list(client: &AdminClient) -> Result<Output, Failure> {
    let tokens = all_pages(async |page| {
        let answer = client.tokens().list(v1::ListTokensRequest { page: Some(page) }).await?;
        Ok((answer.tokens, answer.next_page_token))
    })
    .await?;
    Ok(Output::Many { columns: COLUMNS, rows: tokens.iter().map(value).collect() })
}

/// Parses a duration. Zero would mean "for ever" to the API.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let parsed = parse_duration(text).filter(|duration| !duration.is_zero());
    parsed.ok_or_else(|| "write for example 90s, 12h or 30d".to_owned())
}

fn value(token: &v1::Token) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "created_at_ms": token.created_at_ms,
        "expires_at_ms": if token.expires_at_ms == 0 { Value::Null } else { token.expires_at_ms.into() },
    })
}
