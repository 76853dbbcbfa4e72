//! Finds dangling citations: of a document, a heading or a decision that does not exist.

use std::{
    collections::BTreeSet,
    path::{Component, Path, PathBuf},
};

use crate::files::SourceFile;

/// The files, directories and headings of the repository, to resolve citations.
#[derive(Debug, Default)]
pub struct DocumentIndex {
    paths: BTreeSet<PathBuf>,
    headings: BTreeSet<(PathBuf, String)>,
}

impl DocumentIndex {
    /// The Markdown files among these.
    pub fn of(files: &[SourceFile]) -> Self {
        let documents = files.iter().filter(|file| is_markdown(&file.path));
        let mut found = Self::default();
        for file in documents {
            found.paths.insert(file.path.clone());
            let headings = file.text.lines().filter(|line| line.starts_with('#'));
            found.headings.extend(headings.map(|line| (file.path.clone(), anchor(line))));
        }
        found
    }

    /// Returns every dangling citation in this file, as `path:line: citation`.
    pub fn dangling(&self, file: &SourceFile) -> Vec<String> {
        let lines = file.text.lines().enumerate();
        let places = lines.flat_map(|(number, line)| {
            let wrong = self.wrong_in(&file.path, prose_of(&file.path, line)).into_iter();
            wrong.map(move |citation| format!("{}:{}: {citation}", file.path.display(), number + 1))
        });
        places.collect()
    }

    fn wrong_in(&self, file: &Path, line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split(is_between).filter(|word| !word.is_empty()).collect();
        let documents = words.iter().filter(|word| cites_document(word) && !self.has(file, word));
        let decisions = words.windows(2).filter_map(|pair| match pair {
            [before, number] if is_decision(before, number) => Some(*number),
            _ => None,
        });
        let unknown = decisions.filter(|number| !self.has_decision(number.trim_end_matches('.')));
        documents.copied().chain(unknown).map(str::to_owned).collect()
    }

    /// True for a path from the root of the repository or from the file that cites it.
    fn has(&self, file: &Path, citation: &str) -> bool {
        let (path, heading) = citation.split_once('#').unwrap_or((citation, ""));
        let beside = file.parent().unwrap_or(Path::new("")).join(path);
        [normal(Path::new(path)), normal(&beside)].into_iter().any(|path| {
            self.paths.contains(&path)
                && (heading.is_empty() || self.headings.contains(&(path, heading.to_owned())))
        })
    }

    fn has_decision(&self, number: &str) -> bool {
        let of = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            path.parent().is_some_and(|parent| parent.ends_with("decisions")) && name.starts_with(number)
        };
        self.paths.iter().any(of)
    }
}

/// The part of a line that is searched: in Rust only the comment, because literals contain file names, too.
fn prose_of<'a>(file: &Path, line: &'a str) -> &'a str {
    let is_rust = file.extension().is_some_and(|extension| extension == "rs");
    if is_rust { line.split_once("//").map_or("", |(_, comment)| comment) } else { line }
}

fn is_between(c: char) -> bool {
    !(c.is_alphanumeric() || matches!(c, '.' | '/' | '-' | '_' | '#' | ':'))
}

/// True for the name of a Markdown file, with or without a heading; false for addresses and patterns.
fn cites_document(word: &str) -> bool {
    let (path, _) = word.split_once('#').unwrap_or((word, ""));
    is_markdown(Path::new(path)) && path.len() > ".md".len() && !word.contains(':') && !word.contains("NNNN")
}

fn is_decision(before: &str, number: &str) -> bool {
    let number = number.trim_end_matches('.');
    matches!(before, "decision" | "Decision" | "decisions" | "Decisions")
        && number.len() == 4
        && number.chars().all(|c| c.is_ascii_digit())
}

fn is_markdown(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "md")
}

/// The anchor of a heading, as GitHub makes it: lower case, hyphens for spaces, no other punctuation.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            part => out.push(part),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.into(), text: text.into() }
    }

    #[test]
    fn documents_headings_and_decisions_that_do_not_exist_are_found() {
        let files = [
            file("docs/logs.md", "# Logs\n## One line each\n"),
            file("docs/decisions/0007-serve-leases.md", "# 0007\n"),
        ];
        let documents = DocumentIndex::of(&files);
        let dangling = |path: &str, text: &str| documents.dangling(&file(path, text));
        assert!(
            dangling("node/src/a.rs", "// docs/logs.md, decision 0007 (docs/logs.md#one-line-each)")
                .is_empty()
        );
        assert!(
            dangling("docs/a.md", "[logs](logs.md) and [it](decisions/0007-serve-leases.md).").is_empty()
        );
        assert!(dangling("docs/decisions/a.md", "[logs](../logs.md), https://example.com/x.md").is_empty());
        assert_eq!(dangling("a.rs", "\n// see design.md §5"), ["a.rs:2: design.md"]);
        assert!(dangling("a.rs", "let name = \"design.md\";").is_empty());
        assert_eq!(dangling("a.rs", "// docs/logs.md#two"), ["a.rs:1: docs/logs.md#two"]);
        assert_eq!(dangling("a.rs", "// decision 0008."), ["a.rs:1: 0008."]);
    }
}
