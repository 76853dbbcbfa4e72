//! CEL expressions, in a form that is typed and whose worst case is known before it is ever evaluated.
//!
//! The grammar is CEL's, parsed by crate `cel`; evaluation is ours, since an interpreter without a budget cannot sit on
//! a path that every request takes. What is there: `bool`, `int`, `string`, lists of them, `&& || ! == != < <= > >= + -
//! * / % ?: in []`, `has`, `all`, `exists`, `exists_one`, `filter`, `size`, `startsWith`, `endsWith`, `contains`,
//! `lowerAscii`, `join`, `string`; and for claims maps whose keys are written out. What is not there is refused when an
//! expression is compiled: floats, bytes, `matches`, `map`, timestamps, other names.
//!
//! In one thing it is stricter than CEL: an error on the left of `&&` and `||` is not forgotten when the right side
//! decides.
//!
//! | name | type | |
//! |---|---|---|
//! | `user.id`, `user.username`, `user.name`, `user.email` | string | |
//! | `user.email_verified` | bool | |
//! | `user.groups` | list of string | names |
//! | `user.attributes.x`, `user.attributes["x"]` | string | no such attribute: a fault; `has(user.attributes.x)` asks |
//! | `user.atproto.did`, `user.atproto.handle` | string | on the Atmosphere; not there, or not verified: a fault; `has` asks |
//! | `session.age`, `session.mfa_age` | int | seconds since sign-in, since the second factor (a fault without one; `has` asks) |
//! | `session.amr` | list of string | RFC 8176 |
//! | `request.method`, `request.host`, `request.path`, `request.address` | string | the path is canonical |
//! | `geo.country`, `geo.asn` | string, int | no entry: a fault; `has` asks |
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

/// Why an expression is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no CEL.
    #[error("the expression cannot be read: {0}")]
    Syntax(String),
    /// A name, function or type that is not there, or types that do not fit.
    #[error("{0}")]
    Type(String),
    /// It could take too long.
    #[error("the expression is too large: {0}")]
    TooLarge(String),
}

/// Why no value came out. Every fault denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Nobody knows this about the request.
    #[error("{0} is not known here")]
    Unknown(&'static str),
    /// The user has no such attribute.
    #[error("the user has no such attribute")]
    NoAttribute,
    /// An index outside of a list.
    #[error("an index is outside of its list")]
    OutOfRange,
    /// A number too large, or a division by zero.
    #[error("a number cannot be computed")]
    Arithmetic,
    /// A fact is larger than policies look at.
    #[error("{0} is too long for a policy")]
    TooLong(&'static str),
    /// More steps than the worst case: a defect, and denied like every doubt.
    #[error("the expression takes too many steps")]
    Overrun,
    /// The expression did not compile on this node.
    #[error("the policy does not compile on this version")]
    Uncompiled,
    /// What an extra header would say cannot stand in one.
    #[error("a header's value has control characters or is too long")]
    HeaderValue,
}

/// What a claim says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimValue {
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text.
    Text(String),
    /// Several of these.
    List(Vec<Self>),
    /// These by name.
    Map(BTreeMap<String, Self>),
}

impl Expression {
    /// An expression of type bool.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn condition(text: &str) -> Result<Self, Refused> {
        let (expression, kind) = Self::compile(text)?;
        match kind {
            Type::Bool => Ok(expression),
            other => Err(Refused::Type(format!("a condition is of type bool, and this is {other}"))),
        }
    }

    /// An expression of type string.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn text(text: &str) -> Result<Self, Refused> {
        let (expression, kind) = Self::compile(text)?;
        match kind {
            Type::Text(_) => Ok(expression),
            other => Err(Refused::Type(format!("a header's value is of type string, and this is {other}"))),
        }
    }

    /// An expression of any type, for a claim.
    ///
    /// # Errors
    /// [`Refused`], also where it asks for what is not known when a token is made: the request and where it comes from.
    pub fn claim(text: &str) -> Result<Self, Refused> {
        let (expression, kind) = Self::compile(text)?;
        if !kind.is_value() {
            return Err(Refused::Type(format!("{kind} cannot be a claim; name one of its fields")));
        }
        match expression.reads.iter().find(|variable| !variable.is_of_the_person()) {
            Some(variable) => Err(Refused::Type(format!(
                "a claim is about a person and how they signed in; {variable} is not"
            ))),
            None => Ok(expression),
        }
    }

    /// The value, as a claim has it.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn claim_value(&self, facts: &Facts<'_>) -> Result<ClaimValue, Fault> {
        Ok(Machine::new(facts, self.cost).eval(&self.root)?.into_claim())
    }

    fn compile(text: &str) -> Result<(Self, Type), Refused> {
        let tree = parse::parse(text)?;
        let lowered = lower::lower(&tree)?;
        Ok((Self { root: lowered.node, cost: lowered.cost, reads: lowered.reads }, lowered.kind))
    }

    /// Steps of the worst case.
    pub const fn cost(&self) -> u64 {
        self.cost
    }

    /// Whether it looks at where the address is.
    pub fn reads_place(&self) -> bool {
        self.reads.iter().any(|v| matches!(v, Variable::Country | Variable::Asn))
    }

    /// Whether it asks for the path of the request.
    pub fn reads_path(&self) -> bool {
        self.reads.iter().any(|v| matches!(v, Variable::Path))
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn holds(&self, facts: &Facts<'_>) -> Result<bool, Fault> {
        Machine::new(facts, self.cost).eval(&self.root)?.into_bool()
    }

    /// The text, as it may stand in a header.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn header_value(&self, facts: &Facts<'_>) -> Result<String, Fault> {
        let value = Machine::new(facts, self.cost).eval(&self.root)?.into_text()?.into_owned();
        if value.len() > MAX_HEADER_VALUE_BYTES || value.chars().any(char::is_control) {
            return Err(Fault::HeaderValue);
        }
        Ok(value)
    }

    /// Steps that this evaluation took: never more than [`Expression::cost`].
    pub fn steps(&self, facts: &Facts<'_>) -> u64 {
        let mut machine = Machine::new(facts, self.cost);
        // The value is not asked for: what an evaluation that ends in a fault took counts as well.
        drop(machine.eval(&self.root));
        machine.taken()
    }

    /// The names it reads, with their values now, for people.
    pub fn saw(&self, facts: &Facts<'_>) -> Vec<(String, String)> {
        let shown = |variable: &Variable| {
            let value = Machine::new(facts, u64::MAX).variable(variable).map(|value| value.to_string());
            (variable.to_string(), value.unwrap_or_else(|fault| format!("({fault})")))
        };
        self.reads.iter().map(shown).collect()
    }
}
