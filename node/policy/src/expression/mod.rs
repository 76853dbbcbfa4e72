//! CEL expressions, in a typed form whose worst case is known before it is evaluated.
//!
//! The grammar is CEL's, parsed by crate `cel`. The evaluation is our own, because an interpreter without a budget
//! cannot be part of the path that every request takes. Supported: `bool`, `int`, `string`, lists of them, `&& || ! ==
//! != < <= > >= + - * / % ?: in []`, `has`, `all`, `exists`, `exists_one`, `filter`, `size`, `startsWith`, `endsWith`,
//! `contains`, `lowerAscii`, `join`, `string`; and, for claims, maps whose keys are literals. Everything else is
//! refused when an expression is compiled: floats, bytes, `matches`, `map`, timestamps, other names.
//!
//! In one point it is stricter than CEL: an error on the left of `&&` and `||` is not ignored when the right side
//! decides.
//!
//! | name | type | |
//! |---|---|---|
//! | `user.id`, `user.username`, `user.name`, `user.email` | string | |
//! | `user.email_verified` | bool | |
//! | `user.groups` | list of string | names |
//! | `user.attributes.x`, `user.attributes["x"]` | string | a missing attribute is a fault; test with `has(user.attributes.x)` |
//! | `user.atproto.did`, `user.atproto.handle` | string | on the Atmosphere; missing or not verified is a fault; test with `has` |
//! | `session.age`, `session.mfa_age` | int | seconds since sign-in, since the second factor (a fault without one; test with `has`) |
//! | `session.amr` | list of string | RFC 8176 |
//! | `request.method`, `request.host`, `request.path`, `request.address` | string | the path is canonical |
//! | `geo.country`, `geo.asn` | string, int | no database entry is a fault; test with `has` |
//! | `now` | int | Unix seconds |

use std::collections::BTreeMap;

mod eval;
mod lower;
mod node;
mod parse;

use eval::Machine;
use node::{Node, Type, Variable};

use crate::{facts::Facts, limits::MAX_HEADER_VALUE_BYTES};

/// An expression that can be evaluated.
#[derive(Clone, Debug)]
pub struct Expression {
    root: Node,
    cost: u64,
    reads: Vec<Variable>,
}

/// The reason for which an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It is not valid CEL.
    #[error("the expression cannot be read: {0}")]
    Syntax(String),
    /// An unknown name, function or type, or types that do not match.
    #[error("{0}")]
    Type(String),
    /// Its worst case takes too long.
    #[error("the expression is too large: {0}")]
    TooLarge(String),
}

/// The reason for which an evaluation gave no value. Every fault denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvaluationFault {
    /// This fact about the request is unknown.
    #[error("{0} is not known here")]
    Unknown(&'static str),
    /// The user has no such attribute.
    #[error("the user has no such attribute")]
    NoAttribute,
    /// An index outside a list.
    #[error("an index is outside its list")]
    OutOfRange,
    /// A number too large, or a division by zero.
    #[error("a number cannot be computed")]
    Arithmetic,
    /// A fact is longer than policies accept.
    #[error("{0} is too long for a policy")]
    TooLong(&'static str),
    /// The evaluation took more steps than the computed worst case: a defect, which denies like every doubt.
    #[error("the expression takes too many steps")]
    Overrun,
    /// The expression did not compile on this node.
    #[error("the policy does not compile on this version")]
    Uncompiled,
    /// The value of an extra header contains characters that a header cannot contain.
    #[error("a header's value has control characters or is too long")]
    HeaderValue,
}

/// The value of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimValue {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text.
    Text(String),
    /// A list of values.
    List(Vec<Self>),
    /// Values by name.
    Map(BTreeMap<String, Self>),
}

impl Expression {
    /// Compiles an expression of type bool.
    ///
    /// # Errors
    /// [`ExpressionError`].
    pub fn condition(text: &str) -> Result<Self, ExpressionError> {
        let (expression, kind) = Self::compile(text)?;
        match kind {
            Type::Bool => Ok(expression),
            other => Err(ExpressionError::Type(format!("a condition must be of type bool; this is {other}"))),
        }
    }

    /// Compiles an expression of type string.
    ///
    /// # Errors
    /// [`ExpressionError`].
    pub fn text(text: &str) -> Result<Self, ExpressionError> {
        let (expression, kind) = Self::compile(text)?;
        match kind {
            Type::Text(_) => Ok(expression),
            other => Err(ExpressionError::Type(format!(
                "a header's value must be of type string; this is {other}"
            ))),
        }
    }

    /// Compiles an expression of any type, for a claim.
    ///
    /// # Errors
    /// [`ExpressionError`], also if it reads facts that are unknown when a token is made: the request and the location of
    /// its address.
    pub fn claim(text: &str) -> Result<Self, ExpressionError> {
        let (expression, kind) = Self::compile(text)?;
        if !kind.is_value() {
            return Err(ExpressionError::Type(format!("{kind} cannot be a claim; name one of its fields")));
        }
        match expression.reads.iter().find(|variable| !variable.is_of_the_person()) {
            Some(variable) => Err(ExpressionError::Type(format!(
                "a claim can only use facts about the user and the sign-in, not {variable}"
            ))),
            None => Ok(expression),
        }
    }

    /// The value, in the form of a claim.
    ///
    /// # Errors
    /// [`EvaluationFault`].
    pub fn claim_value(&self, facts: &Facts<'_>) -> Result<ClaimValue, EvaluationFault> {
        Ok(Machine::new(facts, self.cost).eval(&self.root)?.into_claim())
    }

    fn compile(text: &str) -> Result<(Self, Type), ExpressionError> {
        let tree = parse::parse(text)?;
        let lowered = lower::lower(&tree)?;
        Ok((Self { root: lowered.node, cost: lowered.cost, reads: lowered.reads }, lowered.kind))
    }

    /// Steps of the worst case.
    pub const fn cost(&self) -> u64 {
        self.cost
    }

    /// True if it reads the location of the address.
    pub fn reads_place(&self) -> bool {
        self.reads.iter().any(|v| matches!(v, Variable::Country | Variable::Asn))
    }

    /// True if it reads the path of the request.
    pub fn reads_path(&self) -> bool {
        self.reads.iter().any(|v| matches!(v, Variable::Path))
    }

    /// True if the condition holds.
    ///
    /// # Errors
    /// [`EvaluationFault`].
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, EvaluationFault> {
        Machine::new(facts, self.cost).eval(&self.root)?.into_bool()
    }

    /// The text, as a valid header value.
    ///
    /// # Errors
    /// [`EvaluationFault`].
    pub fn header_value(&self, facts: &Facts<'_>) -> Result<String, EvaluationFault> {
        let value = Machine::new(facts, self.cost).eval(&self.root)?.into_text()?.into_owned();
        if value.len() > MAX_HEADER_VALUE_BYTES || value.chars().any(char::is_control) {
            return Err(EvaluationFault::HeaderValue);
        }
        Ok(value)
    }

    /// Steps that this evaluation took: never more than [`Expression::cost`].
    pub fn steps(&self, facts: &Facts<'_>) -> u64 {
        let mut machine = Machine::new(facts, self.cost);
        // The value is dropped: the steps of an evaluation that ends in a fault are counted too.
        drop(machine.eval(&self.root));
        machine.taken()
    }

    /// The names that it reads, with their present values, for the operator.
    pub fn saw(&self, facts: &Facts<'_>) -> Vec<(String, String)> {
        let shown = |variable: &Variable| {
            let value = Machine::new(facts, u64::MAX).variable(variable).map(|value| value.to_string());
            (variable.to_string(), value.unwrap_or_else(|fault| format!("({fault})")))
        };
        self.reads.iter().map(shown).collect()
    }
}
