//! `conclave group …`

use conclave_client::{Client, Error, all_pages, v1};
use serde_json::{Value, json};

use super::{failure::Failure, output::Output, users};

const FIELDS: &[&str] = &["id", "name", "description", "member_count"];
const COLUMNS: &[&str] = &["name", "member_count", "description", "id"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a group
    #[command(
        after_help = "Examples:\n  conclave group create staff --description 'Everybody on the payroll'"
    )]
    Create {
        /// ASCII, without '|' and ','
        name: String,
        /// What the group is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// List groups
    #[command(after_help = "Examples:\n  conclave group list\n  conclave group list -o json")]
    List,
    /// Show a group and its members
    #[command(after_help = "Examples:\n  conclave group show staff")]
    Show {
        /// Name or id
        group: String,
    },
    /// Give a group another name
    #[command(after_help = "\
Examples:
  conclave group rename staff crew
  conclave group rename Staff staff --force

The group stays the same: members, access rules, policy rows and rules of providers follow. Applications that give rights by
Remote-Groups or the claim groups see another group from the next check on: change the name there first, or give both names rights
for the moment. The group admins keeps its name, and no other group takes it.")]
    Rename {
        /// Name or id
        group: String,
        /// ASCII, without '|' and ','
        name: String,
        /// Rename although the expression of a policy or of a client's claim names the group
        #[arg(long)]
        force: bool,
    },
    /// Delete a group; access rules that name it admit fewer
    #[command(after_help = "Examples:\n  conclave group delete staff")]
    Delete {
        /// Name or id
        group: String,
    },
    /// Put users into a group
    #[command(after_help = "Examples:\n  conclave group add staff ada bob")]
    Add(Members),
    /// Take users out of a group
    #[command(after_help = "Examples:\n  conclave group remove staff ada")]
    Remove(Members),
}

#[derive(Debug, clap::Args)]
pub struct Members {
    /// Name or id of the group
    group: String,
    /// Usernames or ids
    #[arg(required = true)]
    users: Vec<String>,
}

pub async fn run(client: &Client, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Create { name, description } => {
            let order = v1::CreateGroupRequest { name, description: description.unwrap_or_default() };
            let group = client.groups().create(order).await?;
            Ok(Output::One { fields: FIELDS, value: value(&group) })
        }
        Command::List => list(client).await,
        Command::Show { group } => show(client, &group).await,
        Command::Rename { group, name, force } => {
            let renamed = client.groups().rename(v1::RenameGroupRequest { group, name, force }).await?;
            users::warn(&format!(
                "applications that give rights by names of groups now see {}; `conclave policy` and access rules follow",
                renamed.name
            ));
            Ok(Output::One { fields: FIELDS, value: value(&renamed) })
        }
        Command::Delete { group } => {
            client.groups().delete(v1::DeleteGroupRequest { group: group.clone() }).await?;
            Ok(Output::done(format!("group {group} is deleted"), json!({ "deleted": group })))
        }
        Command::Add(members) => change(client, members, true).await,
        Command::Remove(members) => change(client, members, false).await,
    }
}

async fn list(client: &Client) -> Result<Output, Failure> {
    let mut groups = all_pages(async |page| {
        let answer = client.groups().list(v1::ListGroupsRequest { page: Some(page) }).await?;
        Ok((answer.groups, answer.next_page_token))
    })
    .await?;
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    for same in users::alike(groups.iter().map(|group| group.name.as_str())) {
        users::warn(&format!(
            "the groups {} differ in case only, and applications may take one for another; rename or delete all but one",
            same.join(", ")
        ));
    }
    Ok(Output::Many { columns: COLUMNS, rows: groups.iter().map(value).collect() })
}

async fn show(client: &Client, name: &str) -> Result<Output, Failure> {
    let groups = all_pages(async |page| {
        let answer = client.groups().list(v1::ListGroupsRequest { page: Some(page) }).await?;
        Ok((answer.groups, answer.next_page_token))
    })
    .await?;
    let exact = groups.iter().find(|group| group.name == name || group.id == name);
    let mut alike = groups.iter().filter(|group| group.name.eq_ignore_ascii_case(name));
    let group = exact.or_else(|| alike.next().filter(|_| alike.next().is_none())).cloned();
    let group = group.ok_or_else(|| Failure::from(Error::NotFound(format!("there is no group {name}"))))?;
    let users = users::all(client).await?;
    let members = users.iter().filter(|user| user.groups.contains(&group.name));
    let members: Vec<&str> = members.map(|user| user.username.as_str()).collect();
    let value = super::output::with(value(&group), "members", members);
    Ok(Output::One { fields: &["id", "name", "description", "member_count", "members"], value })
}

async fn change(client: &Client, members: Members, joins: bool) -> Result<Output, Failure> {
    let Members { group, users } = members;
    // All or nothing as far as names go: a mistyped one is found before anything is changed.
    for user in &users {
        client.users().get(v1::GetUserRequest { user: user.clone() }).await?;
    }
    for user in &users {
        let order = v1::MemberRequest { group: group.clone(), user: user.clone() };
        if joins {
            client.groups().add_member(order).await?;
        } else {
            client.groups().remove_member(order).await?;
        }
    }
    if !joins && group == users::ADMINS {
        users::warn_without_administrator(client).await?;
    }
    let (verb, key) = if joins { ("now in", "added") } else { ("no longer in", "removed") };
    let text = format!("{} {verb} {group}", users.join(", "));
    Ok(Output::done(text, json!({ "group": group, key: users })))
}

fn value(group: &v1::Group) -> Value {
    json!({
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "member_count": group.member_count,
    })
}
