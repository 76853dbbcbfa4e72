//! `conclave group …`

use conclave_client::{AdminClient, Error, all_pages, v1};
use serde_json::{Value, json};

use super::{failure::Failure, output::Output, users};

const FIELDS: &[&str] = &["id", "name", "description", "member_count"];
const COLUMNS: &[&str] = &["name", "member_count", "description", "id"];

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a group
    #[command(
        after_help = "Examples:\n  conclave group create staff --description 'Everybody on the payroll'"
    )]
    Create {
        /// ASCII, without '|' and ','
        name: String,
        /// The purpose of the group
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
    /// Rename a group
    #[command(after_help = "\
Examples:
  conclave group rename staff crew
  conclave group rename Staff staff --force

Only the name changes: members, access rules, policy rows and rules of providers still apply to the group. Applications that grant
rights by Remote-Groups or the claim groups see another group from the next check on: change the name there first, or grant rights to
both names for a while. The group admins cannot be renamed, and no other group can get its name.")]
    Rename {
        /// Name or id
        group: String,
        /// ASCII, without '|' and ','
        name: String,
        /// Rename even if the expression of a policy or of a client's claim names the group
        #[arg(long)]
        force: bool,
    },
    /// Delete a group; access rules that name it then admit fewer users
    #[command(after_help = "Examples:\n  conclave group delete staff")]
    Delete {
        /// Name or id
        group: String,
    },
    /// Add users to a group: all of them, or none if one cannot be added
    #[command(after_help = "Examples:\n  conclave group add staff ada bob")]
    Add(Members),
    /// Remove users from a group: all of them, or none if one cannot be removed
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

pub(super) async fn run(client: &AdminClient, command: Command) -> Result<Output, Failure> {
    match command {
        Command::Create { name, description } => {
            let request = v1::CreateGroupRequest { name, description: description.unwrap_or_default() };
            let group = client.groups().create(request).await?;
            Ok(Output::One { fields: FIELDS, value: value(&group) })
        }
        Command::List => list(client).await,
        Command::Show { group } => show(client, &group).await,
        Command::Rename { group, name, force } => {
            let renamed = client.groups().rename(v1::RenameGroupRequest { group, name, force }).await?;
            users::warn(&format!(
                "applications that grant rights by group name now see {}; policies and access rules still apply",
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

async fn list(client: &AdminClient) -> Result<Output, Failure> {
    let mut groups = all_pages(async |page| {
        let answer = client.groups().list(v1::ListGroupsRequest { page: Some(page) }).await?;
        Ok((answer.groups, answer.next_page_token))
    })
    .await?;
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    for same in users::alike(groups.iter().map(|group| group.name.as_str())) {
        users::warn(&format!(
            "the groups {} differ only in case, and applications may confuse them; rename or delete all but one",
            same.join(", ")
        ));
    }
    Ok(Output::Many { columns: COLUMNS, rows: groups.iter().map(value).collect() })
}

/// The group with this name or id. A name in another case matches if there is only one such group.
async fn find(client: &AdminClient, name: &str) -> Result<v1::Group, Failure> {
    let groups = all_pages(async |page| {
        let answer = client.groups().list(v1::ListGroupsRequest { page: Some(page) }).await?;
        Ok((answer.groups, answer.next_page_token))
    })
    .await?;
    let exact = groups.iter().find(|group| group.name == name || group.id == name);
    let mut alike = groups.iter().filter(|group| group.name.eq_ignore_ascii_case(name));
    let group = exact.or_else(|| alike.next().filter(|_| alike.next().is_none())).cloned();
    group.ok_or_else(|| Failure::from(Error::NotFound(format!("there is no group {name}"))))
}

async fn show(client: &AdminClient, name: &str) -> Result<Output, Failure> {
    let group = find(client, name).await?;
    let users = users::all(client).await?;
    let members = users.iter().filter(|user| user.groups.contains(&group.name));
    let members: Vec<&str> = members.map(|user| user.username.as_str()).collect();
    let value = super::output::with(value(&group), "members", members);
    Ok(Output::One { fields: &["id", "name", "description", "member_count", "members"], value })
}

/// A user whose membership is to change.
struct Wanted {
    /// The name as the operator typed it.
    user: String,
    /// True if the user was a member before.
    was_member: bool,
}

async fn change(client: &AdminClient, members: Members, joins: bool) -> Result<Output, Failure> {
    let Members { group, users } = members;
    let known = find(client, &group).await?;
    // A mistyped name is detected before anything is changed.
    let mut wanted = Vec::new();
    for user in &users {
        let found = client.users().get(v1::GetUserRequest { user: user.clone() }).await?;
        wanted.push(Wanted { user: user.clone(), was_member: found.groups.contains(&known.name) });
    }
    let change_one = async |user: &str, joins: bool| {
        let request = v1::MemberRequest { group: known.id.clone(), user: user.to_owned() };
        if joins {
            client.groups().add_member(request).await.map(drop)
        } else {
            client.groups().remove_member(request).await.map(drop)
        }
    };
    change_all(&wanted, joins, change_one).await?;
    if !joins && known.name == users::ADMINS {
        users::warn_without_administrator(client).await?;
    }
    let (verb, key) = if joins { ("now in", "added") } else { ("no longer in", "removed") };
    let text = format!("{} {verb} {group}", users.join(", "));
    Ok(Output::done(text, json!({ "group": group, key: users })))
}

/// Changes all of them. If one change fails, the changes of this call are undone, and the failure names those that
/// could not be undone. Each change is a command of its own: other clients see some of them before all are made.
async fn change_all(
    wanted: &[Wanted],
    joins: bool,
    change_one: impl AsyncFn(&str, bool) -> Result<(), Error>,
) -> Result<(), Failure> {
    for (done, next) in wanted.iter().enumerate() {
        let Err(error) = change_one(&next.user, joins).await else { continue };
        // A change with an unknown outcome may have been made as well.
        let attempted = if matches!(error, Error::OutcomeUnknown { .. }) { done + 1 } else { done };
        let changed = wanted.iter().take(attempted).filter(|it| it.was_member != joins);
        let mut left = Vec::new();
        for it in changed {
            if let Err(why) = change_one(&it.user, !joins).await {
                left.push(format!("{} ({why})", it.user));
            }
        }
        let verb = if joins { "added" } else { "removed" };
        return Err(Failure::from(error).reworded(|why| {
            if left.is_empty() {
                format!("{}: {why}; no user was {verb}", next.user)
            } else {
                format!("{}: {why}; {verb} all the same, and not put back: {}", next.user, left.join(", "))
            }
        }));
    }
    Ok(())
}

fn value(group: &v1::Group) -> Value {
    json!({
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "member_count": group.member_count,
    })
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeSet};

    use super::*;

    /// A group, and the commands that it refuses: a user, and true for adding.
    struct Fake {
        members: RefCell<BTreeSet<String>>,
        refuses: Vec<(&'static str, bool)>,
    }

    impl Fake {
        fn new(members: &[&str], refuses: &[(&'static str, bool)]) -> Self {
            let members = RefCell::new(members.iter().map(ToString::to_string).collect());
            Self { members, refuses: refuses.to_vec() }
        }

        async fn change(&self, users: &[&str], joins: bool) -> Result<(), Failure> {
            let wanted: Vec<Wanted> = users
                .iter()
                .map(|user| Wanted {
                    user: (*user).to_owned(),
                    was_member: self.members.borrow().contains(*user),
                })
                .collect();
            change_all(&wanted, joins, async |user, joins| self.change_one(user, joins)).await
        }

        fn change_one(&self, user: &str, joins: bool) -> Result<(), Error> {
            if self.refuses.contains(&(user, joins)) {
                return Err(Error::InvalidArgument("refused".into()));
            }
            let mut members = self.members.borrow_mut();
            let _ = if joins { members.insert(user.to_owned()) } else { members.remove(user) };
            Ok(())
        }

        fn members(&self) -> Vec<String> {
            self.members.borrow().iter().cloned().collect()
        }
    }

    #[tokio::test]
    async fn one_that_fails_puts_back_those_before_it_and_no_other() {
        let group = Fake::new(&["ada"], &[("carl", true)]);
        let failure = group.change(&["ada", "bob", "carl", "dora"], true).await.unwrap_err();
        assert_eq!(group.members(), ["ada"], "ada was a member before");
        assert_eq!(failure.exit_code(), 4);
        assert!(format!("{failure:?}").contains("no user was added"), "{failure:?}");

        let group = Fake::new(&["ada", "carl"], &[("carl", false)]);
        group.change(&["ada", "bob", "carl"], false).await.unwrap_err();
        assert_eq!(group.members(), ["ada", "carl"], "bob was no member before");
        group.change(&["ada", "bob"], false).await.unwrap();
        assert_eq!(group.members(), ["carl"]);
    }

    #[tokio::test]
    async fn those_that_cannot_be_put_back_are_named() {
        let group = Fake::new(&[], &[("carl", true), ("ada", false)]);
        let failure = format!("{:?}", group.change(&["ada", "bob", "carl"], true).await.unwrap_err());
        assert_eq!(group.members(), ["ada"]);
        assert!(
            failure.contains("carl: ") && failure.contains("not put back: ada (") && !failure.contains("bob")
        );
    }
}
