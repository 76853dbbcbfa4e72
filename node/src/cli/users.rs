//! `conclave user …`

use std::{collections::BTreeMap, io::Write as _};

use conclave_client::{AdminClient, Error, all_pages, v1};
use serde_json::{Value, json};

use super::{failure::Failure, output::Output, password, sessions};

/// The group of the option `--admin`.
pub(super) const ADMINS: &str = "admins";

const FIELDS: &[&str] = &[
    "id",
    "username",
    "display_name",
    "email",
    "email_verified",
    "groups",
    "attributes",
    "disabled",
    "has_password",
    "created_at_ms",
    "updated_at_ms",
    "not_told",
];
const COLUMNS: &[&str] = &["username", "display_name", "email", "groups", "disabled", "id"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a user
    #[command(after_help = "\
Examples:
  conclave user create ada --display-name 'Ada Lovelace' --email ada@example.org --group staff
      asks for the password on the terminal
  pass show ada | conclave user create ada --password-stdin --admin
  conclave user create bot --no-password -o json")]
    Create(Create),
    /// List users
    #[command(
        after_help = "Examples:\n  conclave user list\n  conclave user list --group staff\n  conclave user list -o json"
    )]
    List {
        /// Only members of this group
        #[arg(long, value_name = "GROUP")]
        group: Option<String>,
    },
    /// Show a user
    #[command(after_help = "Examples:\n  conclave user show ada")]
    Show {
        /// Username or id
        user: String,
    },
    /// Change a user; options that are not given stay unchanged
    #[command(after_help = "\
Examples:
  conclave user update ada --email ada@example.org --email-verified true
  conclave user update ada --attribute team=engine --attribute floor=2")]
    Update(Update),
    /// Change the username of a user
    #[command(after_help = "\
Examples:
  conclave user rename ada ada.lovelace
  conclave user rename ada lovelace --force

Only the username changes: `sub`, groups, password, sessions, app passwords and linked identities remain. Applications that identify
users by Remote-User, preferred_username or a claim made of user.username see another user from the next check on: rename the account
there as well. The user signs in with the new name, and programs send it with their app passwords. New users from providers cannot
get the former name. An administrator may give it to another user, who then gets everything that applications keep under it.")]
    Rename {
        /// Username or id
        user: String,
        /// a-z, 0-9, '-', '_', '.', '@', '+'
        username: String,
        /// Rename even if the expression of a policy or of a client's claim names the current username
        #[arg(long)]
        force: bool,
    },
    /// Sign a user out everywhere and refuse further sign-ins
    #[command(after_help = "Examples:\n  conclave user disable ada")]
    Disable {
        /// Username or id
        user: String,
    },
    /// Enable a disabled user
    #[command(after_help = "Examples:\n  conclave user enable ada")]
    Enable {
        /// Username or id
        user: String,
    },
    /// End a lock-out: reset the user's counted sign-in attempts
    #[command(after_help = "Examples:\n  conclave user unlock ada")]
    Unlock {
        /// Username or id
        user: String,
    },
    /// Delete a user, with all sessions and grants
    #[command(after_help = "Examples:\n  conclave user delete ada")]
    Delete {
        /// Username or id
        user: String,
    },
    /// Set a user's password, sign the user out everywhere, and revoke the user's app passwords
    #[command(after_help = "\
Examples:
  conclave user password ada
  pass show ada | conclave user password ada --password-stdin --keep-sessions")]
    Password {
        /// Username or id
        user: String,
        /// Read the password from the first line of standard input
        #[arg(long)]
        password_stdin: bool,
        /// Keep the user's sessions
        #[arg(long)]
        keep_sessions: bool,
        /// Keep the user's app passwords: an attacker who knew the old password may have made some
        #[arg(long)]
        keep_app_passwords: bool,
    },
}

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "one switch each on the command line")]
pub struct Create {
    /// a-z, 0-9, '-', '_', '.', '@', '+'
    username: String,
    /// The name for display
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// E-mail address
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// The address is verified to be the user's
    #[arg(long)]
    email_verified: bool,
    /// An attribute; may be given several times
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// A group, by name or id; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    /// Add the user to the group `admins`, which is created if it is missing
    #[arg(long)]
    admin: bool,
    /// Read the password from the first line of standard input
    #[arg(long, conflicts_with = "no_password")]
    password_stdin: bool,
    /// Set no password
    #[arg(long)]
    no_password: bool,
}

#[derive(Debug, clap::Args)]
pub struct Update {
    /// Username or id
    user: String,
    /// The name that pages and applications show
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    /// E-mail address; a new one is unverified
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// The address is verified to be the user's
    #[arg(long, value_name = "true|false")]
    email_verified: Option<bool>,
    /// An attribute; may be given several times; all given attributes together replace the earlier ones
    #[arg(long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, String)>,
    /// Remove all attributes
    #[arg(long, conflicts_with = "attributes")]
    clear_attributes: bool,
}

pub(super) async fn run(client: &AdminClient, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Create(create) => make(client, create).await,
        Command::List { group } => list(client, group.as_deref()).await,
        Command::Show { user } => Ok(one(&client.users().get(v1::GetUserRequest { user }).await?)),
        Command::Update(update) => Ok(one(&client.users().update(changes(update)).await?)),
        Command::Rename { user, username, force } => rename(client, user, username, force).await,
        Command::Disable { user } => able(client, user, true).await,
        Command::Enable { user } => able(client, user, false).await,
        Command::Delete { user } => {
            let was_admin = is_admin(&client.users().get(v1::GetUserRequest { user: user.clone() }).await?);
            let not_told =
                client.users().delete(v1::DeleteUserRequest { user: user.clone() }).await?.not_told;
            if was_admin {
                warn_without_administrator(client).await?;
            }
            let said = json!({ "deleted": user, "not_told": not_told });
            Ok(Output::done(format!("user {user} is deleted{}", sessions::but_not_told(&not_told)), said))
        }
        Command::Unlock { user } => {
            client.users().unlock(v1::UnlockUserRequest { user: user.clone() }).await?;
            Ok(Output::done(format!("user {user} may try to sign in again"), json!({ "unlocked": user })))
        }
        Command::Password { user, password_stdin, keep_sessions, keep_app_passwords } => {
            let password = if password_stdin { password::from_stdin()? } else { password::from_terminal()? };
            let request =
                v1::SetPasswordRequest { user: user.clone(), password, keep_sessions, keep_app_passwords };
            let not_told = client.users().set_password(request).await?.not_told;
            let said = json!({ "password_set": user, "not_told": not_told });
            let text = format!("user {user} has a new password{}", sessions::but_not_told(&not_told));
            Ok(Output::done(text, said))
        }
    }
}

async fn make(client: &AdminClient, create: Create) -> Result<Output, Failure> {
    let password = match (create.no_password, create.password_stdin) {
        (true, _) => String::new(),
        (false, true) => password::from_stdin()?,
        (false, false) => password::from_terminal()?,
    };
    let mut groups = create.groups;
    if create.admin {
        ensure_admins(client).await?;
        groups.push(ADMINS.to_owned());
    }
    let request = v1::CreateUserRequest {
        username: create.username,
        display_name: create.display_name.unwrap_or_default(),
        email: create.email.unwrap_or_default(),
        email_verified: create.email_verified,
        attributes: create.attributes.into_iter().collect(),
        groups,
        password,
    };
    Ok(one(&client.users().create(request).await?))
}

async fn ensure_admins(client: &AdminClient) -> Result<(), Error> {
    let group = v1::CreateGroupRequest { name: ADMINS.to_owned(), description: "Administrators".to_owned() };
    match client.groups().create(group).await {
        Ok(_) | Err(Error::Refused(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// All users, by name.
pub(super) async fn all(client: &AdminClient) -> Result<Vec<v1::User>, Failure> {
    let mut users = all_pages(async |page| {
        let answer = client.users().list(v1::ListUsersRequest { page: Some(page) }).await?;
        Ok((answer.users, answer.next_page_token))
    })
    .await?;
    users.sort_by(|a, b| a.username.cmp(&b.username));
    Ok(users)
}

async fn list(client: &AdminClient, group: Option<&str>) -> Result<Output, Failure> {
    let mut users = all(client).await?;
    for same in alike(users.iter().map(|user| user.email.as_str())) {
        warn(&format!(
            "{} users have the e-mail address {}, so none of them can sign in with it; give each user a separate one",
            same.len(),
            same.first().unwrap_or(&"")
        ));
    }
    users.retain(|user| group.is_none_or(|group| user.groups.iter().any(|name| name == group)));
    Ok(Output::Many { columns: COLUMNS, rows: users.iter().map(value).collect() })
}

async fn rename(
    client: &AdminClient,
    user: String,
    username: String,
    force: bool,
) -> Result<Output, Failure> {
    let before = client.users().get(v1::GetUserRequest { user }).await?;
    let request = v1::RenameUserRequest { user: before.id, username, force };
    let user = client.users().rename(request).await?;
    if user.username != before.username {
        warn(&format!(
            "applications that know users by their username now see {} in place of {}; `sub` stays",
            user.username, before.username
        ));
    }
    Ok(one(&user))
}

/// Prints a warning for operators beside the result.
pub(super) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr(), "warning: {text}");
}

/// Groups of names that are equal without regard to case. They exist only if an earlier version made them.
pub(super) fn alike<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Vec<&'a str>> {
    let mut by_folded: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in names.filter(|name| !name.is_empty()) {
        by_folded.entry(name.to_lowercase()).or_default().push(name);
    }
    by_folded.into_values().filter(|names| names.len() > 1).collect()
}

async fn able(client: &AdminClient, user: String, disabled: bool) -> Result<Output, Failure> {
    let request =
        v1::UpdateUserRequest { user, disabled: Some(disabled), ..v1::UpdateUserRequest::default() };
    let user = client.users().update(request).await?;
    if disabled && !user.not_told.is_empty() {
        let told = sessions::but_not_told(&user.not_told);
        let _ = writeln!(std::io::stderr(), "{} is disabled{told}", user.username);
    }
    if disabled && is_admin(&user) {
        warn_without_administrator(client).await?;
    }
    Ok(one(&user))
}

fn is_admin(user: &v1::User) -> bool {
    user.groups.iter().any(|group| group == ADMINS)
}

/// Warns on standard error when no enabled administrator is left, with the remedy.
pub(super) async fn warn_without_administrator(client: &AdminClient) -> Result<(), Failure> {
    let is_left = all(client).await?.iter().any(|user| is_admin(user) && !user.disabled);
    if !is_left {
        let _ = writeln!(
            std::io::stderr(),
            "warning: no enabled user is in the group {ADMINS} any more; add one with: conclave group add {ADMINS} NAME"
        );
    }
    Ok(())
}

fn changes(update: Update) -> v1::UpdateUserRequest {
    let replaces = update.clear_attributes || !update.attributes.is_empty();
    v1::UpdateUserRequest {
        user: update.user,
        display_name: update.display_name,
        email: update.email,
        email_verified: update.email_verified,
        disabled: None,
        attributes: replaces.then(|| v1::AttributeMap { entries: update.attributes.into_iter().collect() }),
    }
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn one(user: &v1::User) -> Output {
    Output::One { fields: FIELDS, value: value(user) }
}

fn value(user: &v1::User) -> Value {
    json!({
        "id": user.id,
        "username": user.username,
        "display_name": user.display_name,
        "email": user.email,
        "email_verified": user.email_verified,
        "groups": user.groups,
        "attributes": user.attributes,
        "disabled": user.disabled,
        "has_password": user.has_password,
        "created_at_ms": user.created_at_ms,
        "not_told": user.not_told,
        "updated_at_ms": user.updated_at_ms,
    })
}
