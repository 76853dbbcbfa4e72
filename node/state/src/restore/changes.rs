//! The changes that a restore makes, for the operator who has to decide on it: every row that is added, removed or
//! different from the newest state.

use std::sync::Arc;

use imbl::{OrdMap, ordmap::DiffItem};

use crate::{policy::guard::ADMINS, state::State, user::User};

/// One row that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// The kind of row: `user`, `group`, ….
    pub kind: &'static str,
    /// Display name of the row.
    pub name: String,
    /// The change.
    pub what: &'static str,
}

/// Every difference in operator-made rows between the newest state and the one that replaces it. At most `limit`,
/// ordered by kind; the second value is their full number.
#[must_use]
pub fn changes(newest: &State, next: &State, limit: usize) -> (Vec<RowChange>, usize) {
    let mut found = Found { list: Vec::new(), count: 0, limit };
    found.users(newest, next);
    found.rows("group", &newest.groups, &next.groups, |row| row.name.to_string());
    found.rows("application", &newest.applications, &next.applications, |row| row.slug.to_string());
    let named = |state: &State, id| {
        state.applications.get(&id).map_or_else(|| "an application".to_owned(), |row| row.slug.to_string())
    };
    found.rows("policy", &newest.policies, &next.policies, |row| {
        let state = if next.applications.contains_key(&row.application) { next } else { newest };
        named(state, row.application)
    });
    found.rows("client", &newest.clients, &next.clients, |row| row.id.as_str().to_owned());
    found.rows("upstream", &newest.upstreams, &next.upstreams, |row| row.name.to_string());
    found.rows("identity", &newest.identities, &next.identities, |row| {
        format!("{} at {}", row.subject, row.upstream)
    });
    found.rows("token", &newest.tokens, &next.tokens, |row| row.name.clone());
    found.rows("app password", &newest.app_passwords, &next.app_passwords, |row| row.name.clone());
    (found.list, found.count)
}

struct Found {
    list: Vec<RowChange>,
    count: usize,
    limit: usize,
}

impl Found {
    fn push(&mut self, kind: &'static str, name: impl FnOnce() -> String, what: &'static str) {
        self.count += 1;
        if self.list.len() < self.limit {
            self.list.push(RowChange { kind, name: name(), what });
        }
    }

    fn rows<K: Ord + Clone, R: PartialEq>(
        &mut self,
        kind: &'static str,
        before: &OrdMap<K, Arc<R>>,
        after: &OrdMap<K, Arc<R>>,
        name: impl Fn(&R) -> String,
    ) {
        for item in before.diff(after) {
            match item {
                DiffItem::Add(_, row) => self.push(kind, || name(row), "is restored"),
                DiffItem::Remove(_, row) => self.push(kind, || name(row), "is removed: created later"),
                DiffItem::Update { new: (_, row), .. } => {
                    self.push(kind, || name(row), "is reset to the older state")
                }
            }
        }
    }

    fn users(&mut self, newest: &State, next: &State) {
        for item in newest.users.diff(&next.users) {
            let (row, what) = match item {
                DiffItem::Add(_, user) if user.disabled => (user, "is restored, disabled"),
                DiffItem::Add(_, user) => (user, "is restored"),
                DiffItem::Remove(_, user) => (user, "is removed: created later"),
                DiffItem::Update { old: (_, before), new: (_, after) } => {
                    let admins = |state: &State, user: &User| {
                        state.group_by_name(ADMINS).is_some_and(|group| user.groups.contains(&group.id))
                    };
                    let again = admins(next, after) && !admins(newest, before);
                    (after, if again { "is an administrator again" } else { becomes(before, after) })
                }
            };
            self.push("user", || row.username.to_string(), what);
        }
    }
}

fn becomes(before: &User, after: &User) -> &'static str {
    if before.groups == after.groups {
        "is reset to the older state"
    } else {
        "is in the former groups again"
    }
}
