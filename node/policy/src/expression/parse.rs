//! From text to CEL's own tree. Parsers recurse: what would make one recurse deeply is refused by a look at the bytes
//! first.

use cel::{Env, common::ast::IdedExpr};

use super::Refused;
use crate::limits::{MAX_DEPTH, MAX_EXPRESSION_BYTES};

pub(super) fn parse(text: &str) -> Result<IdedExpr, Refused> {
    if text.len() > MAX_EXPRESSION_BYTES {
        return Err(Refused::TooLarge(format!("it has more than {MAX_EXPRESSION_BYTES} bytes")));
    }
    shallow(text)?;
    // Without macros: they are told from functions where expressions are typed, by what they are called on.
    Env::default()
        .with_optional_support(false)
        .parser()
        .parse(text)
        .map_err(|errors| Refused::Syntax(first(&errors)))
}

fn first(errors: &cel::ParseErrors) -> String {
    errors.errors.first().map_or_else(
        || "it is not CEL".to_owned(),
        |error| format!("line {} column {}: {}", error.pos.0, error.pos.1, error.msg),
    )
}

/// Brackets that are open at once, signs in a row and branches: what grammars recurse over. Text in quotes counts too,
/// which refuses at most too much.
fn shallow(text: &str) -> Result<(), Refused> {
    let (mut open, mut signs, mut branches) = (0_usize, 0_usize, 0_usize);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => open += 1,
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            b'?' => branches += 1,
            _ => {}
        }
        signs = match byte {
            b'!' | b'-' => signs + 1,
            b' ' | b'\t' | b'\n' | b'\r' => signs,
            _ => 0,
        };
        if open > MAX_DEPTH || signs > MAX_DEPTH || branches > MAX_DEPTH {
            return Err(Refused::TooLarge(format!("it is nested more than {MAX_DEPTH} deep")));
        }
    }
    Ok(())
}
