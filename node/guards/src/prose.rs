//! Counts the patterns that make the prose hard to read for outsiders, and compares the counts with a budget that may
//! only fall.
//!
//! The rules are those of the guide in CONTRIBUTING: docs start with a noun or a verb, name the actor, and stand alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::files::SourceFile;

/// Question words at the beginning of a sentence, which hide its subject.
const QUESTION_WORDS: [&str; 10] =
    ["What", "Who", "Whom", "Whose", "Where", "Whether", "Which", "When", "How", "Why"];
/// Pronouns that hide the actor.
const HIDDEN_ACTORS: [&str; 4] = ["nobody", "somebody", "whoever", "whom"];
/// Longest line of prose, in characters.
const MAX_LINE: usize = 120;

/// One count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProseCount {
    /// The name in the budget.
    pub name: &'static str,
    /// The number of occurrences.
    pub found: u64,
    /// Every place, `path:line: text`.
    pub examples: Vec<String>,
}

/// Places of each count that `make prose` shows.
pub const EXAMPLES: usize = 3;

/// A sentence of a doc comment.
#[derive(Debug, PartialEq, Eq)]
struct Sentence {
    place: String,
    text: String,
}

/// All counts over these files, and the total number of doc sentences.
pub fn counts(files: &[SourceFile]) -> (u64, Vec<ProseCount>) {
    let sentences: Vec<Sentence> = files.iter().flat_map(sentences_of).collect();
    let of = |name, is_found: &dyn Fn(&str) -> bool| {
        let found: Vec<&Sentence> = sentences.iter().filter(|sentence| is_found(&sentence.text)).collect();
        let examples = found.iter().map(|it| format!("{}: {}", it.place, it.text)).collect();
        ProseCount { name, found: size(found.len()), examples }
    };
    let counts = vec![
        of("question-word", &opens_with_question_word),
        of("hidden-actor", &hides_its_actor),
        of("the-same", &|text| text.starts_with("The same")),
        of("is-no", &says_is_no),
        long_lines(files),
        repeated_types(files),
    ];
    (size(sentences.len()), counts)
}

fn size(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty())
}

fn opens_with_question_word(text: &str) -> bool {
    words(text).next().is_some_and(|first| QUESTION_WORDS.contains(&first))
}

fn hides_its_actor(text: &str) -> bool {
    words(text).any(|word| HIDDEN_ACTORS.contains(&word.to_lowercase().as_str()))
}

/// True if "is" and "no" follow each other, except in "there is no y", which is plain English.
fn says_is_no(text: &str) -> bool {
    let words: Vec<String> = words(text).map(str::to_lowercase).collect();
    words.windows(3).any(|three| match three {
        [before, is, no] => before != "there" && is == "is" && no == "no",
        _ => false,
    })
}

/// The sentences of all doc comments of a file, without code blocks, tables and headings.
fn sentences_of(file: &SourceFile) -> Vec<Sentence> {
    let (mut sentences, mut paragraph, mut begun, mut in_code) = (Vec::new(), String::new(), 0, false);
    let mut end = |paragraph: &mut String, line: usize| {
        let place = format!("{}:{line}", file.path.display());
        let parts = split(paragraph).into_iter();
        sentences.extend(parts.map(|text| Sentence { place: place.clone(), text }));
        paragraph.clear();
    };
    for (number, line) in file.text.lines().enumerate() {
        let Some(text) = doc_text(line) else {
            in_code = false;
            end(&mut paragraph, begun);
            continue;
        };
        if text.starts_with("```") {
            in_code = !in_code;
        }
        let ends = text.is_empty() || text.starts_with(['|', '#', '`']) || is_item(text);
        if in_code || ends {
            end(&mut paragraph, begun);
        }
        if !in_code && !text.starts_with(['|', '#']) && !text.starts_with("```") && !text.is_empty() {
            if paragraph.is_empty() {
                begun = number + 1;
            } else {
                paragraph.push(' ');
            }
            paragraph.push_str(text.trim_start_matches(['-', '*', '>', ' ']));
        }
    }
    end(&mut paragraph, begun);
    sentences
}

fn is_item(text: &str) -> bool {
    text.starts_with("- ")
        || text.starts_with("* ")
        || text.split_once(". ").is_some_and(|(n, _)| n.parse::<u8>().is_ok())
}

fn doc_text(line: &str) -> Option<&str> {
    let line = line.trim_start();
    line.strip_prefix("///").or_else(|| line.strip_prefix("//!")).map(str::trim)
}

/// Splits after a full stop, question mark or exclamation mark that a space and a capital letter follow.
fn split(paragraph: &str) -> Vec<String> {
    let (mut sentences, mut sentence) = (Vec::new(), String::new());
    let mut rest = paragraph.chars().peekable();
    while let Some(c) = rest.next() {
        sentence.push(c);
        if matches!(c, '.' | '?' | '!') && rest.peek() == Some(&' ') {
            let next = rest.clone().nth(1);
            if next.is_none_or(|next| next.is_uppercase() || matches!(next, '`' | '[' | '*')) {
                sentences.push(std::mem::take(&mut sentence));
                rest.next();
            }
        }
    }
    sentences.push(sentence);
    sentences.into_iter().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect()
}

fn long_lines(files: &[SourceFile]) -> ProseCount {
    let long = |line: &str| {
        let line = line.trim_start();
        line.starts_with("//")
            && !line.contains('|')
            && !line.contains("://")
            && line.chars().count() > MAX_LINE
    };
    let mut found = Vec::new();
    for file in files {
        let lines = file.text.lines().enumerate().filter(|(_, line)| long(line));
        found.extend(lines.map(|(number, _)| format!("{}:{}", file.path.display(), number + 1)));
    }
    ProseCount { name: "long-line", found: size(found.len()), examples: found }
}

/// Public types that exist more than once outside the command line, tests and generated code.
fn repeated_types(files: &[SourceFile]) -> ProseCount {
    let mut places: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.is_test() && !is_cli(file)) {
        for name in file.text.lines().filter_map(public_type) {
            places.entry(name).or_default().insert(file.path.display().to_string());
        }
    }
    let repeated: Vec<_> = places.into_iter().filter(|(_, places)| places.len() > 1).collect();
    let examples = repeated
        .iter()
        .map(|(name, places)| format!("{name}: {}", places.iter().cloned().collect::<Vec<_>>().join(", ")))
        .collect();
    ProseCount { name: "repeated-type", found: size(repeated.len()), examples }
}

fn is_cli(file: &SourceFile) -> bool {
    file.path.components().any(|part| part.as_os_str() == "cli")
}

fn public_type(line: &str) -> Option<&str> {
    let declared = line.trim_start().strip_prefix("pub ")?;
    let kinds = ["struct ", "enum ", "trait ", "type "];
    let name = kinds.iter().find_map(|kind| declared.strip_prefix(kind))?;
    let end = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
    name.get(..end).filter(|name| !name.is_empty())
}

/// The counts that may not be exceeded, `name number` in each line.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Budget(BTreeMap<String, u64>);

impl Budget {
    /// Reads the file. Lines that begin with `#` are comments.
    ///
    /// # Errors
    /// The line that is not a name and a number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let pairs = lines.map(|line| {
            let (name, number) = line.split_once(' ').ok_or_else(|| line.to_owned())?;
            Ok((name.to_owned(), number.trim().parse::<u64>().map_err(|_| line.to_owned())?))
        });
        pairs.collect::<Result<_, String>>().map(Self)
    }

    /// The counts as a budget.
    pub fn text(counts: &[ProseCount]) -> String {
        let mut text = String::from(
            "# Counts that may only fall; `make prose` shows where they come from. After a fall: make prose-budget\n",
        );
        for count in counts {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{} {}", count.name, count.found);
        }
        text
    }

    /// Returns a line for each count that exceeds the budget, and for each number of the budget that is too high by
    /// now.
    pub fn compare(&self, counts: &[ProseCount]) -> Vec<String> {
        let one = |count: &ProseCount| {
            let allowed = self.0.get(count.name).copied().unwrap_or_default();
            let how = match count.found.cmp(&allowed) {
                std::cmp::Ordering::Equal => return None,
                std::cmp::Ordering::Greater => "above the budget: mend the new ones",
                std::cmp::Ordering::Less => "below the budget: lower it with make prose-budget",
            };
            Some(format!("{}: {} found, {allowed} in the budget: {how}", count.name, count.found))
        };
        counts.iter().filter_map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile { path: path.into(), text: text.into() }
    }

    fn found(text: &str) -> BTreeMap<&'static str, u64> {
        let (_, counts) = counts(&[file("a.rs", text)]);
        counts.into_iter().map(|count| (count.name, count.found)).collect()
    }

    #[test]
    fn sentences_are_found_across_lines_and_not_in_code_or_tables() {
        let text = "//! Reads a file. Version 1.2 of it\n//! is known. What a file is.\n//!\n//! ```\n//! What is code.\n//! ```\n//! | What | table |\n/// - Whether an item.\nfn f() {}\n// What a plain comment is.\n";
        let (sentences, _) = counts(&[file("a.rs", text)]);
        assert_eq!(sentences, 4);
        assert_eq!(found(text)["question-word"], 2);
    }

    #[test]
    fn each_pattern_is_counted() {
        let text = "/// The same with a lock. Whoever asks is no client. There is no file; nobody reads it.\nfn f() {}\n";
        let counts = found(text);
        assert_eq!((counts["the-same"], counts["is-no"], counts["hidden-actor"]), (1, 1, 2));
        let long = format!("// {}\nfn f() {{}}\n", "word ".repeat(30));
        assert_eq!(found(&long)["long-line"], 1);
    }

    #[test]
    fn a_public_type_exists_once_outside_the_command_line_and_tests() {
        let files = [
            file("a.rs", "pub struct Asked { x: u8 }"),
            file("b.rs", "pub enum Asked<T> {}"),
            file("src/cli/c.rs", "pub struct Once;"),
            file("d.rs", "pub struct Once;"),
            file("tests.rs", "pub struct Once;"),
        ];
        let (_, counts) = counts(&files);
        let repeated = counts.iter().find(|count| count.name == "repeated-type").unwrap();
        assert_eq!(
            (repeated.found, repeated.examples.as_slice()),
            (1, &["Asked: a.rs, b.rs".to_owned()][..])
        );
    }

    #[test]
    fn a_budget_may_only_fall() {
        let count = |found| [ProseCount { name: "is-no", found, examples: Vec::new() }];
        let budget = Budget::parse("# comment\nis-no 3\n").unwrap();
        assert!(budget.compare(&count(3)).is_empty());
        assert!(budget.compare(&count(4))[0].contains("above"));
        assert!(budget.compare(&count(2))[0].contains("below"));
        assert!(Budget::parse("is-no three").is_err());
        assert_eq!(Budget::parse(&Budget::text(&count(7))).unwrap().compare(&count(7)), Vec::<String>::new());
    }
}
