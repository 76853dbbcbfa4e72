//! The rooms of the node use each other as the table of the architecture page says, and no other way.

#![cfg(test)]

use std::{fs, path::Path};

use conclave_guards::{files, rooms::Rooms};

#[test]
fn every_arrow_is_in_the_table_and_every_room_has_a_row() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../src");
    let page = fs::read_to_string(source.join("lib.rs")).unwrap();
    let rooms = Rooms::of_page(&page);
    assert!(rooms.names().count() > 15, "the table is there");
    let files = files::rust_files(&source).unwrap();
    assert_eq!(rooms.forbidden(&files), []);
    assert_eq!(rooms.unused(&files), Vec::<String>::new(), "arrows that no code needs any more");
    for line in page.lines().filter_map(|line| line.strip_prefix("pub mod ").or(line.strip_prefix("mod "))) {
        let room = line.trim_end_matches(';');
        let has_row = rooms.names().any(|name| name == room || name.starts_with(&format!("{room}::")));
        assert!(has_row || room == "testing", "{room} has no row");
    }
}
