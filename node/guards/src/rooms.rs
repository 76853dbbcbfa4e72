//! The rooms of the node's crate and the arrows between them: the table of the architecture page
//! (`node/src/lib.rs`) is the rule.

use std::collections::{BTreeMap, BTreeSet};

use crate::{files::SourceFile, paths};

/// The rooms that each room may use. A slice of `protocol` is a room of its own, named `protocol::oidc`.
#[derive(Debug, PartialEq, Eq)]
pub struct Rooms(BTreeMap<String, BTreeSet<String>>);

/// An arrow that the table does not allow.
#[derive(Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// The file, below `src`.
    pub file: String,
    /// The path that it uses.
    pub path: String,
    /// The rooms at both ends.
    pub arrow: String,
}

impl Rooms {
    /// Reads the table whose heading is `| room | owns | uses |`. Names stand between backquotes; links' brackets are
    /// left out.
    pub fn of_page(page: &str) -> Self {
        let lines = page.lines().map(|line| line.trim_start_matches("//!").trim());
        let rows = lines.skip_while(|line| *line != "| room | owns | uses |").skip(2);
        let rows = rows.take_while(|line| line.starts_with('|'));
        Self(rows.flat_map(row).collect())
    }

    /// The names of all rooms.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Every arrow of these files that the table does not have, and every file in a room that it does not have.
    pub fn forbidden(&self, files: &[SourceFile]) -> Vec<Forbidden> {
        let product = files.iter().filter(|file| !file.is_test());
        product.flat_map(|file| self.forbidden_of(file)).collect()
    }

    fn forbidden_of(&self, file: &SourceFile) -> Vec<Forbidden> {
        let own = room_of(&paths::module_of(&file.path));
        let arrows = paths::used_by(file).into_iter().filter_map(|path| {
            let other = room_of(&path);
            let is_fine = own.is_empty() || other.is_empty() || other == own || self.allows(&own, &other);
            (!is_fine).then(|| Forbidden {
                file: file.path.display().to_string(),
                path: path.join("::"),
                arrow: format!("{own} -> {other}"),
            })
        });
        arrows.collect()
    }

    fn allows(&self, from: &str, to: &str) -> bool {
        self.0.get(from).is_some_and(|uses| uses.contains(to))
    }

    /// Arrows of the table that no file of these has: the table says no more than is so.
    pub fn unused(&self, files: &[SourceFile]) -> Vec<String> {
        let product = files.iter().filter(|file| !file.is_test());
        let used: BTreeSet<(String, String)> = product
            .flat_map(|file| {
                let own = room_of(&paths::module_of(&file.path));
                paths::used_by(file).into_iter().map(move |path| (own.clone(), room_of(&path)))
            })
            .collect();
        let named =
            self.0.iter().flat_map(|(from, uses)| uses.iter().map(move |to| (from.clone(), to.clone())));
        named.filter(|arrow| !used.contains(arrow)).map(|(from, to)| format!("{from} -> {to}")).collect()
    }
}

/// Rooms named in one row share its arrows.
fn row(line: &str) -> Vec<(String, BTreeSet<String>)> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
    let [rooms, _, uses] = cells.as_slice() else { return Vec::new() };
    let uses: BTreeSet<String> = quoted(uses).collect();
    quoted(rooms).map(|room| (room, uses.clone())).collect()
}

fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The room of a module; empty for the root of the crate, which lists the rooms and uses none.
fn room_of(module: &[String]) -> String {
    match module {
        [] => String::new(),
        [protocol, slice, ..] if protocol == "protocol" => format!("protocol::{slice}"),
        [room, ..] => room.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "//! | room | owns | uses |\n//! |---|---|---|\n//! | [`auth`] | who | `http` |\n//! | [`http`], `web` | leaves | |\n//!\n";

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.into(), text: text.into() }
    }

    #[test]
    fn an_arrow_is_allowed_only_by_its_row() {
        let rooms = Rooms::of_page(PAGE);
        assert_eq!(rooms.names().collect::<Vec<_>>(), ["auth", "http", "web"]);
        let files = [
            file("auth/mod.rs", "use crate::http::Fault;"),
            file("http/mod.rs", "use crate::auth::Auth; fn f() { crate::web::g() }"),
            file("http/tests.rs", "use crate::auth::Auth;"),
        ];
        let arrows: Vec<String> = rooms.forbidden(&files).into_iter().map(|found| found.arrow).collect();
        assert_eq!(arrows, ["http -> auth", "http -> web"]);
        assert!(rooms.unused(&files).is_empty());
        assert_eq!(rooms.unused(&files[1..]), ["auth -> http"]);
    }

    #[test]
    fn slices_are_rooms_of_their_own() {
        let rooms = Rooms::of_page(PAGE);
        let found = rooms.forbidden(&[file("protocol/oidc/mod.rs", "use crate::protocol::atproto::x;")]);
        assert_eq!(
            found.first().map(|found| found.arrow.as_str()),
            Some("protocol::oidc -> protocol::atproto")
        );
    }
}
