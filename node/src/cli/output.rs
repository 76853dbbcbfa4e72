//! Results: tables for users, JSON for programs. A command returns JSON values and the order of their fields. Both
//! forms are made from these values, so neither contains more than the other.

use std::{io::Write as _, process::ExitCode};

use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::failure::Failure;

/// The output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns, for users
    #[default]
    Table,
    /// snake_case fields, listings as arrays, for programs
    Json,
}

impl Format {
    /// The format that this command line requests, even if the command fails before its arguments are parsed.
    pub fn asked(arguments: impl Iterator<Item = String>) -> Self {
        let arguments: Vec<String> = arguments.collect();
        let follows = |pair: &[String]| match pair {
            [name, value] => matches!(name.as_str(), "-o" | "--output") && value == "json",
            _ => false,
        };
        let joined = |argument: &String| matches!(argument.as_str(), "-ojson" | "-o=json" | "--output=json");
        let is_json = arguments.windows(2).any(follows) || arguments.iter().any(joined);
        if is_json { Self::Json } else { Self::Table }
    }
}

/// The gap between columns.
const GAP: &str = "  ";
/// Columns are not cut below this width: the rest would be useless.
const NARROWEST: usize = 8;
/// The text of an empty cell.
const NOTHING: &str = "-";

/// The digits of a digest in a table: enough to see that two differ.
const DIGEST_SHOWN: usize = 12;

/// The result of a command.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Output {
    /// One object; its fields in this order.
    One { fields: &'static [&'static str], value: Value },
    /// A listing, an array in JSON; these columns of it in a table.
    Many { columns: &'static [&'static str], rows: Vec<Value> },
    /// An object that contains a listing.
    Nested {
        fields: &'static [&'static str],
        value: Value,
        list: &'static str,
        columns: &'static [&'static str],
    },
    /// An object with two listings.
    Two { value: Value, lists: [(&'static str, &'static [&'static str]); 2] },
    /// An object that contains a listing, below warnings that are more important than both.
    Warned {
        warnings: Vec<String>,
        fields: &'static [&'static str],
        value: Value,
        list: &'static str,
        columns: &'static [&'static str],
    },
    /// A completed action: a sentence for users, an object for programs.
    Done { text: String, value: Value },
}

impl Output {
    pub(super) fn done(text: impl Into<String>, value: Value) -> Self {
        Self::Done { text: text.into(), value }
    }
}

/// Adds a field to an object.
pub(super) fn with(value: Value, field: &str, content: impl Into<Value>) -> Value {
    match value {
        Value::Object(mut map) => {
            map.insert(field.to_owned(), content.into());
            Value::Object(map)
        }
        other => other,
    }
}

/// Prints to standard output. A reader that has closed it is not a failure.
pub(super) fn print(output: &Output, format: Format) -> ExitCode {
    let width = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
    let written = writeln!(std::io::stdout(), "{}", render_within(output, format, width));
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Failure::other(format!("cannot write the result: {error}")).report(format)
        }
        _ => ExitCode::SUCCESS,
    }
}

/// The whole result at its full width.
#[cfg(test)]
pub(super) fn render(output: &Output, format: Format) -> String {
    render_within(output, format, None)
}

/// The result for a terminal of `width` columns. Long cells of tables are cut and end with "…"; long values continue on
/// the next line.
fn render_within(output: &Output, format: Format, width: Option<usize>) -> String {
    let object = |fields: &[&str], value: &Value| object(fields, value, width);
    let table = |columns: &[&str], rows: &[Value]| table(columns, rows, width);
    match (format, output) {
        (Format::Json, Output::Many { rows, .. }) => json(&Value::Array(rows.clone())),
        (
            Format::Json,
            Output::One { value, .. }
            | Output::Nested { value, .. }
            | Output::Two { value, .. }
            | Output::Warned { value, .. }
            | Output::Done { value, .. },
        ) => json(value),
        (Format::Table, Output::One { fields, value }) => object(fields, value),
        (Format::Table, Output::Many { columns, rows }) => table(columns, rows),
        (Format::Table, Output::Nested { fields, value, list, columns }) => {
            format!("{}\n\n{}", object(fields, value), table(columns, rows(value, list)))
        }
        (Format::Table, Output::Warned { warnings, fields, value, list, columns }) => {
            let plain = |line: &String| cell("warning", Some(&Value::String(line.clone())));
            let lines: Vec<String> = warnings.iter().map(plain).collect();
            let gap = if lines.is_empty() { "" } else { "\n\n" };
            let (head, body) = (object(fields, value), table(columns, rows(value, list)));
            format!("{}{gap}{head}\n\n{body}", lines.join("\n"))
        }
        (Format::Table, Output::Two { value, lists }) => {
            lists.map(|(list, columns)| table(columns, rows(value, list))).join("\n\n")
        }
        (Format::Table, Output::Done { text, .. }) => text.clone(),
    }
}

fn rows<'a>(value: &'a Value, list: &str) -> &'a [Value] {
    value.get(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
}

fn json(value: &Value) -> String {
    format!("{value:#}")
}

/// Formats one line for each field, with aligned values.
fn object(fields: &[&str], value: &Value, width: Option<usize>) -> String {
    let titles = fields.iter().map(|field| title(field).chars().count()).max().unwrap_or_default();
    let indent = titles + GAP.len();
    let room = width.map(|width| width.saturating_sub(indent).max(NARROWEST));
    let lines = fields.iter().flat_map(|field| {
        let parts = folded(&cell(field, value.get(field)), room);
        let name = std::iter::once(title(field)).chain(std::iter::repeat(String::new()));
        name.zip(parts).map(|(name, part)| vec![name, part]).collect::<Vec<_>>()
    });
    aligned(&lines.collect::<Vec<_>>())
}

/// Splits a value into parts that fit, after a space or comma if there is one.
fn folded(text: &str, room: Option<usize>) -> Vec<String> {
    let Some(room) = room else { return vec![text.to_owned()] };
    let (mut parts, mut part) = (Vec::new(), String::new());
    for word in text.split_inclusive(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if part.chars().count() + word.len() > room && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
        }
        while word.len() > room {
            parts.push(word.drain(..room).collect());
        }
        part.extend(word);
    }
    parts.push(part);
    parts.into_iter().map(|part| part.trim_end().to_owned()).collect()
}

fn table(columns: &[&str], rows: &[Value], width: Option<usize>) -> String {
    let header = columns.iter().map(|column| title(column).to_uppercase()).collect();
    let cells = |row: &Value| columns.iter().map(|column| cell(column, row.get(column))).collect();
    let mut lines: Vec<Vec<String>> = std::iter::once(header).chain(rows.iter().map(cells)).collect();
    if let Some(width) = width {
        fit(&mut lines, width);
    }
    aligned(&lines)
}

/// Cuts the cells of the widest columns until the table fits into `width`, or each column is at its narrowest.
fn fit(lines: &mut [Vec<String>], width: usize) {
    let mut widths = widths(lines);
    let gaps = GAP.len() * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > NARROWEST) else { break };
        *widest -= 1;
    }
    for line in lines {
        for (cell, width) in line.iter_mut().zip(&widths) {
            if cell.chars().count() > *width {
                *cell = cell.chars().take(width.saturating_sub(1)).chain(['…']).collect();
            }
        }
    }
}

fn widths(lines: &[Vec<String>]) -> Vec<usize> {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max()
    };
    (0..columns).map(|column| width(column).unwrap_or_default()).collect()
}

fn aligned(lines: &[Vec<String>]) -> String {
    let widths = widths(lines);
    let line = |cells: &Vec<String>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join(GAP).trim_end().to_owned()
    };
    lines.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The title of a field. `created_at_ms` is shown as a time, so its title is "created at".
fn title(field: &str) -> String {
    field.trim_end_matches("_ms").trim_end_matches("_bytes").replace('_', " ")
}

fn cell(field: &str, value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(Value::Number(number)) if field.ends_with("_at_ms") || field.ends_with("_time_ms") => {
            number.as_u64().map(moment).unwrap_or_default()
        }
        Some(Value::Number(number)) if field.ends_with("_since_ms") => {
            number.as_u64().map(moment).unwrap_or_default()
        }
        Some(Value::Number(number)) if field == "at_ms" => number.as_u64().map(moment).unwrap_or_default(),
        Some(Value::Number(number)) if field.ends_with("_ms") => {
            number.as_u64().map_or_else(|| format!("{number} ms"), length)
        }
        Some(Value::Number(number)) if field.ends_with("_bytes") => {
            number.as_u64().map(size).unwrap_or_default()
        }
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) if field == "digest" => text.chars().take(DIGEST_SHOWN).collect(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(values)) => {
            values.iter().map(|value| cell(field, Some(value))).collect::<Vec<_>>().join(", ")
        }
        Some(Value::Object(map)) => {
            let pairs = map.iter().map(|(name, value)| format!("{name}={}", cell(name, Some(value))));
            pairs.collect::<Vec<_>>().join(", ")
        }
    };
    // A name or user agent must not control the terminal.
    let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.is_empty() { NOTHING.to_owned() } else { text }
}

/// Formats a length of time in the largest unit that gives at least one.
fn length(ms: u64) -> String {
    let tenths = |unit_ms: u64, unit: &str| {
        let tenths = ms.saturating_mul(10) / unit_ms;
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    };
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => tenths(1_000, "s"),
        60_000..3_600_000 => tenths(60_000, "min"),
        3_600_000..86_400_000 => tenths(3_600_000, "h"),
        _ => tenths(86_400_000, "d"),
    }
}

/// Formats a size in MiB, or in KiB if it is less than one MiB.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes} B"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        _ => format!("{} MiB", bytes / 1_048_576),
    }
}

/// Formats a time as UTC to the second; 0 means never.
fn moment(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1_000).ok().filter(|seconds| *seconds != 0);
    let time = seconds.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_are_aligned_and_json_holds_the_same() {
        let rows = vec![
            json!({"username": "ada", "groups": ["a", "b"], "disabled": false, "created_at_ms": 1_800_000_000_000_u64}),
            json!({"username": "bartholomäus", "groups": [], "disabled": true, "created_at_ms": 0}),
        ];
        let output = Output::Many { columns: &["username", "groups", "disabled", "created_at_ms"], rows };
        assert_eq!(
            render(&output, Format::Table),
            "USERNAME      GROUPS  DISABLED  CREATED AT\n\
             ada           a, b    no        2027-01-15T08:00:00Z\n\
             bartholomäus  -       yes       -"
        );
        let parsed: Value = serde_json::from_str(&render(&output, Format::Json)).unwrap();
        assert_eq!(parsed[1]["username"], "bartholomäus");
    }

    #[test]
    fn tables_show_units_and_json_numbers() {
        let value =
            json!({"lease_left_ms": 1_902, "disk_free_bytes": 74_584_543_232_u64, "active_since_ms": 0});
        let output = Output::One { fields: &["lease_left_ms", "disk_free_bytes", "active_since_ms"], value };
        let shown = render(&output, Format::Table);
        assert_eq!(shown, "lease left    1.9 s\ndisk free     71129 MiB\nactive since  -");
        assert!(render(&output, Format::Json).contains("74584543232"));
    }

    #[test]
    fn nothing_is_wider_than_the_terminal() {
        let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0 Safari/537.36";
        let row = json!({"username": "ada", "user_agent": agent, "id": "0123456789abcdef0123456789abcdef"});
        let fields: &'static [&'static str] = &["username", "user_agent", "id"];
        for width in [200, 100, 80, 40] {
            let many = Output::Many { columns: fields, rows: vec![row.clone()] };
            let one = Output::One { fields, value: row.clone() };
            for shown in [many, one].map(|output| render_within(&output, Format::Table, Some(width))) {
                assert!(shown.lines().all(|line| line.chars().count() <= width), "{width}: {shown}");
                assert!(shown.contains("ada"), "{shown}");
            }
        }
        let one = Output::One { fields, value: row.clone() };
        let shown = render_within(&one, Format::Table, Some(40)).replace('\n', " ");
        let words: Vec<&str> = shown.split_whitespace().collect();
        assert!(words.join(" ").contains("AppleWebKit/537.36 (KHTML, like Gecko)"), "{shown}");
        assert!(
            render(&one, Format::Table).lines().nth(1).is_some_and(|line| line.ends_with("Safari/537.36"))
        );
    }

    #[test]
    fn an_empty_listing_is_an_empty_array_and_a_header() {
        let output = Output::Many { columns: &["id"], rows: vec![] };
        assert_eq!(
            (render(&output, Format::Json).as_str(), render(&output, Format::Table).as_str()),
            ("[]", "ID")
        );
    }

    #[test]
    fn what_steers_a_terminal_is_not_printed() {
        let value = json!({"user_agent": "x\u{1b}[2Jy\nz"});
        let output = Output::One { fields: &["user_agent"], value };
        assert_eq!(render(&output, Format::Table), "user agent  x?[2Jy?z");
    }
}
