//! The rooms of the node use each other only as the table of the architecture page allows.

#![cfg(test)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use conclave_guards::{
    files::{self, SourceFile},
    rooms::{Rooms, Sources},
};

/// This crate: it is not part of the node.
const GUARDS: &str = "guards";

fn node() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The crate of the process, and every crate below `node/`.
fn crates() -> Vec<Sources> {
    let below = |name: &str, source: &Path| {
        let of = files::rust_files(source).unwrap().into_iter();
        let files = of.map(|file| SourceFile { path: Path::new(name).join(&file.path), ..file }).collect();
        Sources { name: name.to_owned(), files }
    };
    let mut crates = vec![below("", &node().join("src"))];
    let below_node = fs::read_dir(node()).unwrap().chain(fs::read_dir(node().join("protocol")).unwrap());
    for entry in below_node {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.join("Cargo.toml").exists() && name != GUARDS {
            crates.push(below(&name, &path.join("src")));
        }
    }
    crates
}

#[test]
fn every_arrow_is_in_the_table_and_every_room_has_a_row() {
    let page = fs::read_to_string(node().join("src/lib.rs")).unwrap();
    let rooms = Rooms::of_page(&page);
    assert!(rooms.names().count() > 15, "the table is there");
    let crates = crates();
    assert_eq!(rooms.forbidden(&crates), []);
    assert_eq!(rooms.unused(&crates), Vec::<String>::new(), "arrows that no code needs any more");
    let modules = page.lines().filter_map(|line| line.strip_prefix("pub mod ").or(line.strip_prefix("mod ")));
    let names = crates.iter().map(|of| of.name.as_str()).filter(|name| !name.is_empty());
    for room in modules.map(|line| line.trim_end_matches(';')).chain(names) {
        let has_row = rooms.names().any(|name| name == room);
        assert!(has_row || room == "testing", "{room} has no row");
    }
}
