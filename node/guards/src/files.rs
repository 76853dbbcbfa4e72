//! Finds the Rust files of the workspace.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Directories without source of this workspace: build output, dependencies of tests, generated code, patched crates.
const SKIPPED: [&str; 6] = ["target", "node_modules", "venv", "gen", "vendor", ".git"];

/// A source file.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Path below the directory that was searched.
    pub path: PathBuf,
    /// Its whole text.
    pub text: String,
}

/// All `.rs` files below `root`, sorted by path.
///
/// # Errors
/// A directory or file that cannot be read.
pub fn rust_files(root: &Path) -> io::Result<Vec<SourceFile>> {
    files_with(root, &["rs"])
}

/// All files below `root` that may cite a document, sorted by path.
///
/// # Errors
/// Fails if a directory or file cannot be read.
pub fn citing_files(root: &Path) -> io::Result<Vec<SourceFile>> {
    files_with(root, &["rs", "md", "toml", "proto", "sh", "conf", "yaml", "yml"])
}

fn files_with(root: &Path, extensions: &[&str]) -> io::Result<Vec<SourceFile>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|of| extensions.iter().any(|extension| of == *extension)) {
                let text = fs::read_to_string(&path)?;
                found.push(SourceFile { path: path.strip_prefix(root).unwrap_or(&path).to_owned(), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

impl SourceFile {
    /// True for files that hold only tests and their helpers.
    pub fn is_test(&self) -> bool {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let in_tests =
            self.path.components().any(|part| part.as_os_str() == "tests" || part.as_os_str() == "testing");
        in_tests || name == "tests.rs" || name.ends_with("_tests.rs")
    }
}
