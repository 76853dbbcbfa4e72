//! Parses text into CEL's own tree. The parser is recursive, so deeply nested input is refused first by a scan of the
//! bytes.

use cel::{Env, common::ast::IdedExpr};

use super::ExpressionError;
use crate::limits::{MAX_DEPTH, MAX_EXPRESSION_BYTES};

pub(super) fn parse(text: &str) -> Result<IdedExpr, ExpressionError> {
    if text.len() > MAX_EXPRESSION_BYTES {
        return Err(ExpressionError::TooLarge(format!("it has more than {MAX_EXPRESSION_BYTES} bytes")));
    }
    shallow(text)?;
    // Macros are not expanded here: the typing step tells them from functions by their target.
    Env::default()
        .with_optional_support(false)
        .parser()
        .parse(text)
        .map_err(|errors| ExpressionError::Syntax(first(&errors)))
}

fn first(errors: &cel::ParseErrors) -> String {
    errors.errors.first().map_or_else(
        || "it is not CEL".to_owned(),
        |error| format!("line {} column {}: {}", error.pos.0, error.pos.1, error.msg),
    )
}

/// Refuses too many open brackets, consecutive signs and branches: grammars recurse over them. Quoted text is counted
/// too, so at most too much is refused.
fn shallow(text: &str) -> Result<(), ExpressionError> {
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
            return Err(ExpressionError::TooLarge(format!("it is nested more than {MAX_DEPTH} deep")));
        }
    }
    Ok(())
}
