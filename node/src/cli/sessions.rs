//! `conclave session …`

use conclave_client::{AdminClient, all_pages, v1};
use serde_json::{Value, json};

use super::{failure::Failure, output::Output};

const COLUMNS: &[&str] = &["username", "auth_time_ms", "expires_at_ms", "amr", "address", "user_agent", "id"];

const NOTICE_COLUMNS: &[&str] = &["client_id", "username", "waiting_since_ms", "attempts", "last_error"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// List live sessions
    #[command(after_help = "Examples:\n  conclave session list\n  conclave session list --user ada -o json")]
    List {
        /// Only sessions of this user; username or id
        #[arg(long)]
        user: Option<String>,
    },
    /// List the sign-out notices that applications have not accepted yet
    ///
    /// Each notice is sent again until the application accepts it, for an hour. The leader knows how often it tried,
    /// and why it failed.
    #[command(after_help = "Examples:\n  conclave session notices\n  conclave session notices -o json")]
    Notices,
    /// Revoke a session, or all sessions and grants of a user
    ///
    /// The user is signed out of that browser everywhere, and access and refresh tokens of that sign-in end. Grants of
    /// offline_access remain: refresh tokens that applications keep for when the user is away. --with-grants revokes
    /// those too, and --user always does.
    #[command(after_help = "\
Examples:
  conclave session revoke 0f8e…
  conclave session revoke 0f8e… --with-grants
  conclave session revoke --user ada
  conclave session revoke --user ada --app-passwords")]
    Revoke {
        /// The session's id
        #[arg(required_unless_present = "user", conflicts_with = "user")]
        id: Option<String>,
        /// Revoke every session and grant of this user; username or id
        #[arg(long)]
        user: Option<String>,
        /// Also revoke the grants for when the user is away (offline refresh tokens)
        #[arg(long, conflicts_with = "user")]
        with_grants: bool,
        /// Also revoke the user's app passwords, with which programs work without a session
        #[arg(long, requires = "user")]
        app_passwords: bool,
    },
}

pub(super) async fn run(client: &AdminClient, command: Command) -> Result<Output, Failure> {
    match command {
        Command::List { user } => list(client, &user.unwrap_or_default()).await,
        Command::Notices => notices(client).await,
        Command::Revoke { user: Some(user), app_passwords, .. } => {
            let request = v1::RevokeUserSessionsRequest { user: user.clone(), app_passwords };
            let answer = client.sessions().revoke_of_user(request).await?;
            let (left, not_told) = (answer.app_passwords_left, answer.not_told);
            let said = json!({ "revoked_user": user, "app_passwords_left": left, "not_told": not_told });
            let text = signed_out(&user, app_passwords, left) + &but_not_told(&not_told);
            Ok(Output::done(text, said))
        }
        Command::Revoke { id, user: None, with_grants, .. } => {
            let session_id = id.unwrap_or_default();
            let request = v1::RevokeSessionRequest { session_id: session_id.clone(), with_grants };
            let not_told = client.sessions().revoke(request).await?.not_told;
            let also = if with_grants { ", and everything granted in it" } else { "" };
            let said = json!({ "revoked": session_id, "with_grants": with_grants, "not_told": not_told });
            Ok(Output::done(
                format!("session {session_id} is revoked{also}{}", but_not_told(&not_told)),
                said,
            ))
        }
    }
}

/// The applications that a sign-out notice has not reached yet, as the end of a sentence.
pub(super) fn but_not_told(not_told: &[String]) -> String {
    if not_told.is_empty() {
        return String::new();
    }
    format!(
        "; applications that have not accepted the notice yet: {} (conclave session notices shows why)",
        not_told.join(", ")
    )
}

async fn notices(client: &AdminClient) -> Result<Output, Failure> {
    let notices = all_pages(async |page| {
        let answer = client.sessions().notices(v1::ListNoticesRequest { page: Some(page) }).await?;
        Ok((answer.notices, answer.next_page_token))
    })
    .await?;
    let row = |notice: &v1::Notice| {
        json!({
            "sequence": notice.sequence,
            "client_id": notice.client_id,
            "session_id": notice.session_id,
            "username": notice.username,
            "waiting_since_ms": notice.waiting_since_ms,
            "attempts": notice.attempts,
            "last_error": notice.last_error,
        })
    };
    Ok(Output::Many { columns: NOTICE_COLUMNS, rows: notices.iter().map(row).collect() })
}

/// A sentence about what ended, and what did not.
fn signed_out(user: &str, app_passwords: bool, left: u32) -> String {
    match (app_passwords, left) {
        (true, _) => format!("{user} is signed out everywhere, and the app passwords are revoked"),
        (false, 0) => format!("{user} is signed out everywhere"),
        (false, left) => format!(
            "{user} is signed out everywhere; remaining app passwords: {left} (--app-passwords revokes them too)"
        ),
    }
}

async fn list(client: &AdminClient, user: &str) -> Result<Output, Failure> {
    let sessions = all_pages(async |page| {
        let request = v1::ListSessionsRequest { user: user.to_owned(), page: Some(page) };
        let answer = client.sessions().list(request).await?;
        Ok((answer.sessions, answer.next_page_token))
    })
    .await?;
    Ok(Output::Many { columns: COLUMNS, rows: sessions.iter().map(value).collect() })
}

fn value(session: &v1::Session) -> Value {
    json!({
        "id": session.id,
        "username": session.username,
        "user_id": session.user_id,
        "auth_time_ms": session.auth_time_ms,
        "expires_at_ms": session.expires_at_ms,
        "amr": session.amr,
        "user_agent": session.user_agent,
        "address": session.address,
    })
}
