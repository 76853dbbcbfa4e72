//! Every document, heading and decision that the source cites exists.

#![cfg(test)]

use std::path::Path;

use conclave_guards::{citations::DocumentIndex, files};

#[test]
fn every_cited_document_and_decision_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = files::citing_files(&root).unwrap();
    let documents = DocumentIndex::of(&files);
    let own = |file: &&files::SourceFile| !file.path.ends_with("guards/src/citations.rs");
    let dangling: Vec<String> = files.iter().filter(own).flat_map(|file| documents.dangling(file)).collect();
    assert_eq!(dangling, Vec::<String>::new());
}
