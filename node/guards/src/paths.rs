//! Resolves the paths that a file uses to modules of its crate.

use std::path::Path;

use crate::{
    code::{without_comments_and_literals, without_tests},
    files::SourceFile,
};

/// The module of a file below `src`: `auth/pages/mod.rs` is `["auth", "pages"]`, `lib.rs` is empty.
pub fn module_of(path: &Path) -> Vec<String> {
    let mut module: Vec<String> = path
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if module.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

/// Every path of this file that stays within the workspace, from `use` items and inline. A path of another crate begins
/// with the name of that crate without `conclave_`; a path of the file's own crate begins with `root`, which is empty
/// for the crate of the process.
pub fn used_by(file: &SourceFile, root: &[String]) -> Vec<Vec<String>> {
    let module = module_of(&file.path);
    let code = without_tests(&without_comments_and_literals(&file.text));
    let (items, rest) = split_uses(&code);
    let written = items.iter().flat_map(|item| expand(item)).chain(inline(&rest));
    written.filter_map(|path| resolve(root, &module, path)).collect()
}

/// The trees of all `use` items, and the code without them.
fn split_uses(code: &str) -> (Vec<String>, String) {
    let (mut items, mut rest) = (Vec::new(), String::with_capacity(code.len()));
    let mut left = code;
    while let Some(at) = find_word(left, "use") {
        let (before, item) = left.split_at(at);
        rest.push_str(before);
        let (tree, after) = item.split_once(';').unwrap_or((item, ""));
        items.push(tree.trim_start_matches("use").trim().to_owned());
        left = after;
    }
    rest.push_str(left);
    (items, rest)
}

fn find_word(text: &str, word: &str) -> Option<usize> {
    text.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = text.get(..*at).and_then(|t| t.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|t| t.chars().next());
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '#'))
            && after.is_some_and(char::is_whitespace)
    })
}

/// `a::{b, c::{d as e}}` as `a::b`, `a::c::d`.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let tree: String = tree.chars().filter(|c| *c != '\n').collect();
    let mut paths = Vec::new();
    expand_below(&[], &tree, &mut paths);
    paths
}

fn expand_below(prefix: &[String], tree: &str, paths: &mut Vec<Vec<String>>) {
    for branch in split_at_commas(tree) {
        let (head, below) = match branch.split_once('{') {
            Some((head, below)) => (head, below.trim_end().strip_suffix('}')),
            None => (branch, None),
        };
        let head = head.split(" as ").next().unwrap_or_default();
        let segments =
            head.split("::").map(str::trim).filter(|segment| !segment.is_empty()).map(str::to_owned);
        let path: Vec<String> = prefix.iter().cloned().chain(segments).collect();
        match below {
            Some(below) => expand_below(&path, below, paths),
            None if path.len() > prefix.len() => paths.push(path),
            None => {}
        }
    }
}

/// The parts between commas that are not inside inner braces.
fn split_at_commas(tree: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0_usize, 0);
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.extend(tree.get(from..at));
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(tree.get(from..));
    parts
}

/// Paths in code outside `use` items.
fn inline(code: &str) -> Vec<Vec<String>> {
    let compact =
        code.split_whitespace().collect::<Vec<_>>().join(" ").replace(" ::", "::").replace(":: ", "::");
    let words = compact.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':')));
    let paths = words.map(|word| word.split("::").map(str::to_owned).collect::<Vec<_>>());
    paths.filter(|path| path.len() > 1).collect()
}

fn resolve(root: &[String], module: &[String], path: Vec<String>) -> Option<Vec<String>> {
    let mut segments = path.into_iter().peekable();
    let mut base = match segments.next()?.as_str() {
        "crate" => root.to_vec(),
        "self" => module.to_vec(),
        "super" => module.get(..module.len().saturating_sub(1))?.to_vec(),
        other => vec![other.strip_prefix("conclave_")?.to_owned()],
    };
    while segments.next_if(|segment| segment == "super").is_some() {
        base.pop();
    }
    base.extend(segments);
    Some(base)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(path: &str, text: &str) -> Vec<String> {
        let file = SourceFile { path: path.into(), text: text.into() };
        used_by(&file, &[]).into_iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn a_path_of_another_crate_begins_with_its_name() {
        let text = "use conclave_http::Fault; use crate::keys; fn f() { super::hex::encode() }";
        let file = SourceFile { path: "crypto/mac.rs".into(), text: text.into() };
        let used: Vec<String> =
            used_by(&file, &["crypto".to_owned()]).into_iter().map(|path| path.join("::")).collect();
        assert_eq!(used, ["http::Fault", "crypto::keys", "crypto::hex::encode"]);
    }

    #[test]
    fn trees_inline_paths_and_parents_are_resolved() {
        let text = "use crate::{auth::{self, Auth as A}, http::Fault};\nuse std::fmt;\nuse super::super::super::web;\n\
                    // crate::store::x\nfn f() -> crate::cluster::Cluster { self::inner::g(); super::site::Site }\n\
                    #[cfg(test)] mod tests { use crate::demo::x; }";
        assert_eq!(
            used("auth/pages/home.rs", text),
            [
                "auth::self",
                "auth::Auth",
                "http::Fault",
                "web",
                "cluster::Cluster",
                "auth::pages::home::inner::g",
                "auth::pages::site::Site"
            ]
        );
    }
}
