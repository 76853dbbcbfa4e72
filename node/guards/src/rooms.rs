//! The rooms of the node and the arrows between them: the table of the architecture page (`node/src/lib.rs`) is the
//! rule. A room is a crate below `node/`, or a module of the crate of the process.

use std::collections::{BTreeMap, BTreeSet};

use crate::{files::SourceFile, paths};

/// The rooms that each room may use.
#[derive(Debug, PartialEq, Eq)]
pub struct Rooms(BTreeMap<String, BTreeSet<String>>);

/// The files of a crate, and its name without `conclave-`: empty for the crate of the process.
#[derive(Debug)]
pub struct Sources {
    /// The first part of the path of every file, unless it is empty.
    pub name: String,
    /// The files, by their path below `src`, prefixed with `name`.
    pub files: Vec<SourceFile>,
}

impl Sources {
    /// The arrows of product code, with the file of each: from room, to room, path.
    fn arrows(&self) -> Vec<(&SourceFile, String, String, String)> {
        let root: Vec<String> = Some(self.name.clone()).filter(|name| !name.is_empty()).into_iter().collect();
        let product = self.files.iter().filter(|file| !file.is_test());
        let arrows = product.flat_map(|file| {
            let own = room_of(&paths::module_of(&file.path));
            let used = paths::used_by(file, &root).into_iter();
            used.map(move |path| (file, own.clone(), room_of(&path), path.join("::")))
        });
        arrows.filter(|(_, own, other, _)| !own.is_empty() && !other.is_empty() && own != other).collect()
    }
}

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
    /// Reads the table whose heading is `| room | owns | uses |`. Names are between backquotes; the brackets of links
    /// are left out.
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

    /// Every arrow of these crates that the table does not have.
    pub fn forbidden(&self, crates: &[Sources]) -> Vec<Forbidden> {
        let arrows = crates.iter().flat_map(Sources::arrows);
        let forbidden = arrows.filter(|(_, from, to, _)| !self.allows(from, to));
        forbidden
            .map(|(file, from, to, path)| Forbidden {
                file: file.path.display().to_string(),
                path,
                arrow: format!("{from} -> {to}"),
            })
            .collect()
    }

    fn allows(&self, from: &str, to: &str) -> bool {
        self.0.get(from).is_some_and(|uses| uses.contains(to))
    }

    /// Arrows of the table that none of these crates has.
    pub fn unused(&self, crates: &[Sources]) -> Vec<String> {
        let arrows = crates.iter().flat_map(Sources::arrows);
        let used: BTreeSet<(String, String)> = arrows.map(|(_, from, to, _)| (from, to)).collect();
        let named =
            self.0.iter().flat_map(|(from, uses)| uses.iter().map(move |to| (from.clone(), to.clone())));
        named.filter(|arrow| !used.contains(arrow)).map(|(from, to)| format!("{from} -> {to}")).collect()
    }
}

/// Reads a row. Rooms named in one row share its arrows.
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

    fn sources(name: &str, files: Vec<SourceFile>) -> Sources {
        Sources { name: name.into(), files }
    }

    #[test]
    fn an_arrow_is_allowed_only_by_its_row() {
        let rooms = Rooms::of_page(PAGE);
        assert_eq!(rooms.names().collect::<Vec<_>>(), ["auth", "http", "web"]);
        let auth = || sources("", vec![file("auth/mod.rs", "use crate::x; use conclave_http::Fault;")]);
        let http = || {
            let code = "use conclave_auth::Auth; fn f() { conclave_web::g(); crate::h() }";
            sources(
                "http",
                vec![file("http/lib.rs", code), file("http/tests.rs", "use conclave_auth::Auth;")],
            )
        };
        let arrows: Vec<String> =
            rooms.forbidden(&[auth(), http()]).into_iter().map(|found| found.arrow).collect();
        assert_eq!(arrows, ["auth -> x", "http -> auth", "http -> web"]);
        assert!(rooms.unused(&[auth(), http()]).is_empty());
        assert_eq!(rooms.unused(&[http()]), ["auth -> http"]);
    }
}
