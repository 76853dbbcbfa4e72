//! `conclave app-password …`

use std::time::Duration;

use conclave_client::{AdminClient, all_pages, v1};
use serde_json::{Value, json};

use super::{
    failure::Failure,
    output::{Output, with},
    tokens::duration,
};

const NEW_FIELDS: &[&str] = &["id", "username", "application", "name", "expires_at_ms", "password"];
const COLUMNS: &[&str] = &["username", "name", "application", "created_at_ms", "expires_at_ms", "id"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create an app password; it is shown once
    #[command(after_help = "\
Examples:
  conclave app-password create ada --name phone --app calendar
  conclave app-password create ada --name backup --ttl 30d -o json
      opens every application that accepts app passwords (conclave app update calendar --basic on)")]
    Create {
        /// The user; username or id
        user: String,
        /// A label for display: the program that uses it
        #[arg(long)]
        name: String,
        /// The only application that accepts it, slug or id [default: every application that accepts app passwords]
        #[arg(long, value_name = "APPLICATION")]
        app: Option<String>,
        /// The lifetime, such as 12h or 30d [default: for ever]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        ttl: Option<Duration>,
    },
    /// List app passwords
    #[command(
        after_help = "Examples:\n  conclave app-password list\n  conclave app-password list --user ada -o json"
    )]
    List {
        /// Only app passwords of this user; username or id
        #[arg(long)]
        user: Option<String>,
    },
    /// Revoke an app password
    #[command(after_help = "Examples:\n  conclave app-password revoke 0f8e…")]
    Revoke {
        /// Its id, as `conclave app-password list` shows it
        id: String,
    },
}

pub(super) async fn run(client: &AdminClient, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Create { user, name, app, ttl } => {
            let ttl_ms = ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
            let request =
                v1::CreateAppPasswordRequest { user, application: app.unwrap_or_default(), name, ttl_ms };
            let answer = client.app_passwords().create(request).await?;
            let value = with(value(&answer.app_password.unwrap_or_default()), "password", answer.secret);
            Ok(Output::One { fields: NEW_FIELDS, value })
        }
        Command::List { user } => list(client, &user.unwrap_or_default()).await,
        Command::Revoke { id } => {
            client.app_passwords().revoke(v1::RevokeAppPasswordRequest { id: id.clone() }).await?;
            Ok(Output::done(format!("app password {id} is revoked"), json!({ "revoked": id })))
        }
    }
}

async fn list(client: &AdminClient, user: &str) -> Result<Output, Failure> {
    let rows = all_pages(async |page| {
        let request = v1::ListAppPasswordsRequest { page: Some(page), user: user.to_owned() };
        let answer = client.app_passwords().list(request).await?;
        Ok((answer.app_passwords, answer.next_page_token))
    })
    .await?;
    Ok(Output::Many { columns: COLUMNS, rows: rows.iter().map(value).collect() })
}

fn value(row: &v1::AppPassword) -> Value {
    json!({
        "id": row.id,
        "username": row.username,
        "application": if row.application.is_empty() { Value::Null } else { row.application.clone().into() },
        "name": row.name,
        "created_at_ms": row.created_at_ms,
        "expires_at_ms": if row.expires_at_ms == 0 { Value::Null } else { row.expires_at_ms.into() },
    })
}
