//! Removes everything that is not product code from Rust source: comments, the contents of literals, items under
//! `#[cfg(test)]`.

/// The source without comments and with empty string and character literals.
pub fn without_comments_and_literals(source: &str) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        at = match (c, next) {
            ('/', Some('/')) => end_of_line(&chars, at),
            ('/', Some('*')) => end_of_comment(&chars, at),
            ('"', _) => {
                out.push_str("\"\"");
                end_of_string(&chars, at + 1)
            }
            ('r', Some('"' | '#')) if !follows_identifier(&out) => match end_of_raw_string(&chars, at) {
                Some(end) => {
                    out.push_str("\"\"");
                    end
                }
                None => keep(&mut out, c, at),
            },
            ('\'', _) => match end_of_char(&chars, at) {
                Some(end) => {
                    out.push_str("' '");
                    end
                }
                None => keep(&mut out, c, at),
            },
            _ => keep(&mut out, c, at),
        };
    }
    out
}

fn keep(out: &mut String, c: char, at: usize) -> usize {
    out.push(c);
    at + 1
}

/// True if the source ends in an identifier. An `r` at the end of a name does not begin a raw string; the `b` of
/// `br"…"` may stand before it.
fn follows_identifier(out: &str) -> bool {
    let mut before = out.chars().rev();
    match before.next() {
        Some('b') => before.next().is_some_and(is_word),
        Some(c) => is_word(c),
        None => false,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn end_of_line(chars: &[char], from: usize) -> usize {
    let rest = chars.get(from..).unwrap_or_default();
    rest.iter().position(|c| *c == '\n').map_or(chars.len(), |length| from + length)
}

/// The end of a block comment. Block comments nest.
fn end_of_comment(chars: &[char], from: usize) -> usize {
    let (mut depth, mut at) = (0_usize, from);
    while at < chars.len() {
        match (chars.get(at), chars.get(at + 1)) {
            (Some('/'), Some('*')) => {
                depth += 1;
                at += 2;
            }
            (Some('*'), Some('/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn end_of_string(chars: &[char], from: usize) -> usize {
    let mut at = from;
    loop {
        match chars.get(at) {
            Some('\\') => at += 2,
            Some('"') => return at + 1,
            Some(_) => at += 1,
            None => return chars.len(),
        }
    }
}

/// The end of `r"…"` or `r#"…"#`; none if this is not one, such as the raw identifier `r#type`.
fn end_of_raw_string(chars: &[char], from: usize) -> Option<usize> {
    let hashes = chars.get(from + 1..)?.iter().take_while(|c| **c == '#').count();
    let open = from + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let mut at = open + 1;
    while at < chars.len() {
        let closes = chars.get(at) == Some(&'"')
            && chars.get(at + 1..=at + hashes).is_some_and(|rest| rest.iter().all(|c| *c == '#'));
        if closes {
            return Some(at + 1 + hashes);
        }
        at += 1;
    }
    Some(at)
}

/// The end of a character literal; none for a lifetime.
fn end_of_char(chars: &[char], from: usize) -> Option<usize> {
    if chars.get(from + 1) == Some(&'\\') {
        let rest = chars.get(from + 3..)?;
        return rest.iter().position(|c| *c == '\'').map(|length| from + 3 + length + 1);
    }
    (chars.get(from + 2) == Some(&'\'')).then_some(from + 3)
}

/// The code without items under `#[cfg(test)]` and `#[cfg(any(test, …))]`.
pub fn without_tests(code: &str) -> String {
    let mut rest = code;
    let mut out = String::with_capacity(code.len());
    while let Some(found) = ["#[cfg(test)]", "#[cfg(any(test"].iter().filter_map(|mark| rest.find(mark)).min()
    {
        let (before, item) = rest.split_at(found);
        out.push_str(before);
        rest = after_item(item);
    }
    out.push_str(rest);
    out
}

/// The text after the item that begins here: after its block, or after its semicolon if that comes first.
fn after_item(item: &str) -> &str {
    let mut depth = 0_usize;
    for (at, c) in item.char_indices().skip_while(|(_, c)| *c != ']').skip(1) {
        match c {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return item.get(at + 1..).unwrap_or_default();
                }
            }
            ';' if depth == 0 => return item.get(at + 1..).unwrap_or_default(),
            _ => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_hold_no_code() {
        let source = "a // crate::x\n/* crate::y /* nested */ */ b \"crate::z \\\" c\" r#\"crate::w\"# 'x' '\\n' &'a T";
        assert_eq!(without_comments_and_literals(source), "a \n b \"\" \"\" ' ' ' ' &'a T");
    }

    #[test]
    fn raw_identifiers_and_names_that_end_in_r_are_code() {
        assert_eq!(without_comments_and_literals("r#type for\"x\" br\"y\""), "r#type for\"\" b\"\"");
    }

    #[test]
    fn items_of_tests_are_left_out() {
        let code = "use a; #[cfg(test)]\nmod tests { fn f() { { } } } fn g() {} #[cfg(any(test, feature = \"\"))] pub mod t; use b;";
        assert_eq!(without_tests(code), "use a;  fn g() {}  use b;");
    }
}
