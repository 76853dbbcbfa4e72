//! Evaluation: over facts, with a step budget that the compiler has proved sufficient.

use std::{borrow::Cow, cmp::Ordering, collections::BTreeMap, fmt, fmt::Write as _};

use super::ClaimValue;
use super::{
    EvaluationFault,
    node::{Arithmetic, Comparison, Each, Node, TextTest, Variable},
};
use crate::{
    facts::{Facts, Lookup},
    limits::{BYTES_PER_STEP, ITEMS_PER_STEP, MAX_LIST, MAX_NAME_BYTES, MAX_TEXT_BYTES},
};

/// The result of an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Bool(bool),
    Int(i64),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Map(BTreeMap<&'a str, Self>),
}

impl<'a> Value<'a> {
    pub(super) fn into_bool(self) -> Result<bool, EvaluationFault> {
        match self {
            Self::Bool(value) => Ok(value),
            _ => Err(EvaluationFault::Uncompiled),
        }
    }

    pub(super) fn into_claim(self) -> ClaimValue {
        match self {
            Self::Bool(value) => ClaimValue::Bool(value),
            Self::Int(value) => ClaimValue::Int(value),
            Self::Text(text) => ClaimValue::Text(text.into_owned()),
            Self::List(list) => ClaimValue::List(list.into_iter().map(Value::into_claim).collect()),
            Self::Map(map) => ClaimValue::Map(
                map.into_iter().map(|(key, value)| (key.to_owned(), value.into_claim())).collect(),
            ),
        }
    }

    fn into_int(self) -> Result<i64, EvaluationFault> {
        match self {
            Self::Int(value) => Ok(value),
            _ => Err(EvaluationFault::Uncompiled),
        }
    }

    pub(super) fn into_text(self) -> Result<Cow<'a, str>, EvaluationFault> {
        match self {
            Self::Text(value) => Ok(value),
            _ => Err(EvaluationFault::Uncompiled),
        }
    }

    fn into_list(self) -> Result<Vec<Self>, EvaluationFault> {
        match self {
            Self::List(values) => Ok(values),
            _ => Err(EvaluationFault::Uncompiled),
        }
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Text(value) => write!(f, "{value:?}"),
            Self::List(values) => {
                f.write_char('[')?;
                for (at, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if at == 0 { "" } else { ", " })?;
                }
                f.write_char(']')
            }
            Self::Map(values) => {
                f.write_char('{')?;
                for (at, (key, value)) in values.iter().enumerate() {
                    write!(f, "{}{key:?}: {value}", if at == 0 { "" } else { ", " })?;
                }
                f.write_char('}')
            }
        }
    }
}

/// One evaluation.
pub(super) struct Machine<'a> {
    facts: &'a Facts<'a>,
    budget: u64,
    left: u64,
    locals: Vec<Value<'a>>,
}

impl<'a> Machine<'a> {
    pub(super) const fn new(facts: &'a Facts<'a>, budget: u64) -> Self {
        Self { facts, budget, left: budget, locals: Vec::new() }
    }

    pub(super) const fn taken(&self) -> u64 {
        self.budget - self.left
    }

    fn pay(&mut self, steps: u64) -> Result<(), EvaluationFault> {
        self.left = self.left.checked_sub(steps).ok_or(EvaluationFault::Overrun)?;
        Ok(())
    }

    fn pay_bytes(&mut self, bytes: usize) -> Result<(), EvaluationFault> {
        self.pay(bytes as u64 / BYTES_PER_STEP)
    }

    pub(super) fn eval(&mut self, node: &'a Node) -> Result<Value<'a>, EvaluationFault> {
        self.pay(1)?;
        Ok(match node {
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) => Value::Int(*value),
            Node::Text(value) => Value::Text(Cow::Borrowed(value)),
            Node::List(items) => {
                Value::List(items.iter().map(|item| self.eval(item)).collect::<Result<_, _>>()?)
            }
            Node::Map(items) => {
                let mut map = BTreeMap::new();
                for (key, value) in items {
                    self.pay(1)?;
                    map.insert(key.as_str(), self.eval(value)?);
                }
                Value::Map(map)
            }
            Node::Read(variable) => {
                let value = self.variable(variable)?;
                if let Value::List(items) = &value {
                    self.pay(items.len() as u64 / ITEMS_PER_STEP)?;
                }
                value
            }
            Node::Has(variable) => Value::Bool(self.has(variable)?),
            Node::Local(place) => {
                let value = self.locals.get(*place).cloned().ok_or(EvaluationFault::Uncompiled)?;
                if let Value::Text(text) = &value {
                    self.pay_bytes(text.len())?;
                }
                value
            }
            Node::And(sides) => Value::Bool(self.bool(&sides.0)? && self.bool(&sides.1)?),
            Node::Or(sides) => Value::Bool(self.bool(&sides.0)? || self.bool(&sides.1)?),
            Node::Not(side) => Value::Bool(!self.bool(side)?),
            Node::Choose(parts) => {
                if self.bool(&parts.0)? {
                    self.eval(&parts.1)?
                } else {
                    self.eval(&parts.2)?
                }
            }
            Node::Compare(how, sides) => Value::Bool(self.compare(*how, sides)?),
            Node::Compute(how, sides) => {
                let (left, right) = (self.eval(&sides.0)?.into_int()?, self.eval(&sides.1)?.into_int()?);
                Value::Int(compute(*how, left, right).ok_or(EvaluationFault::Arithmetic)?)
            }
            Node::Concat(sides) => {
                let mut text = self.text(&sides.0)?.into_owned();
                text.push_str(&self.text(&sides.1)?);
                self.pay_bytes(text.len())?;
                Value::Text(Cow::Owned(text))
            }
            Node::TextTest(how, sides) => {
                let (text, part) = (self.text(&sides.0)?, self.text(&sides.1)?);
                self.pay_bytes(text.len())?;
                Value::Bool(match how {
                    TextTest::StartsWith => text.starts_with(&*part),
                    TextTest::EndsWith => text.ends_with(&*part),
                    TextTest::Contains => text.contains(&*part),
                })
            }
            Node::In(sides) => Value::Bool(self.is_in(&sides.0, &sides.1)?),
            Node::Index(sides) => {
                let (list, at) = (self.eval(&sides.0)?.into_list()?, self.eval(&sides.1)?.into_int()?);
                let at = usize::try_from(at).map_err(|_| EvaluationFault::OutOfRange)?;
                list.into_iter().nth(at).ok_or(EvaluationFault::OutOfRange)?
            }
            Node::Size(of) => {
                let value = self.eval(of)?;
                if let Value::Text(text) = &value {
                    self.pay_bytes(text.len())?;
                }
                Value::Int(size(&value)?)
            }
            Node::Lower(text) => {
                let text = self.text(text)?;
                self.pay_bytes(text.len())?;
                Value::Text(Cow::Owned(text.to_ascii_lowercase()))
            }
            Node::Join(sides) => self.join(&sides.0, &sides.1)?,
            Node::IntToText(number) => Value::Text(Cow::Owned(self.eval(number)?.into_int()?.to_string())),
            Node::Each(how, parts) => self.each(*how, &parts.0, &parts.1)?,
        })
    }

    fn bool(&mut self, node: &'a Node) -> Result<bool, EvaluationFault> {
        self.eval(node)?.into_bool()
    }

    fn text(&mut self, node: &'a Node) -> Result<Cow<'a, str>, EvaluationFault> {
        self.eval(node)?.into_text()
    }

    fn compare(&mut self, how: Comparison, sides: &'a (Node, Node)) -> Result<bool, EvaluationFault> {
        let (left, right) = (self.eval(&sides.0)?, self.eval(&sides.1)?);
        let order = self.order(&left, &right)?;
        Ok(match how {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
        })
    }

    fn order(&mut self, left: &Value<'_>, right: &Value<'_>) -> Result<Ordering, EvaluationFault> {
        match (left, right) {
            (Value::Bool(left), Value::Bool(right)) => Ok(left.cmp(right)),
            (Value::Int(left), Value::Int(right)) => Ok(left.cmp(right)),
            (Value::Text(left), Value::Text(right)) => {
                self.pay_bytes(left.len().min(right.len()))?;
                Ok(left.cmp(right))
            }
            _ => Err(EvaluationFault::Uncompiled),
        }
    }

    /// Tests membership. A list literal is not built.
    fn is_in(&mut self, wanted: &'a Node, list: &'a Node) -> Result<bool, EvaluationFault> {
        let wanted = self.eval(wanted)?;
        if let Node::List(items) = list {
            self.pay(1)?;
            // All items are evaluated, because a fault in a later item is a fault too.
            let mut found = false;
            for item in items {
                self.pay(1)?;
                let item = self.eval(item)?;
                found |= self.order(&wanted, &item)?.is_eq();
            }
            return Ok(found);
        }
        for item in self.eval(list)?.into_list()? {
            self.pay(1)?;
            if self.order(&wanted, &item)?.is_eq() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn join(&mut self, list: &'a Node, between: &'a Node) -> Result<Value<'a>, EvaluationFault> {
        let (list, between) = (self.eval(list)?.into_list()?, self.text(between)?);
        let mut out = String::new();
        for (at, item) in list.into_iter().enumerate() {
            self.pay(1)?;
            if at > 0 {
                out.push_str(&between);
            }
            out.push_str(&item.into_text()?);
            if out.len() > MAX_TEXT_BYTES {
                return Err(EvaluationFault::TooLong("a joined list"));
            }
        }
        self.pay_bytes(out.len())?;
        Ok(Value::Text(Cow::Owned(out)))
    }

    fn each(&mut self, how: Each, list: &'a Node, body: &'a Node) -> Result<Value<'a>, EvaluationFault> {
        let list = self.eval(list)?.into_list()?;
        let mut kept = Vec::new();
        let mut held = 0_usize;
        let size = list.len();
        for item in list {
            self.pay(1)?;
            self.locals.push(item);
            let holds = self.bool(body)?;
            let item = self.locals.pop().ok_or(EvaluationFault::Uncompiled)?;
            held += usize::from(holds);
            match how {
                Each::All if !holds => return Ok(Value::Bool(false)),
                Each::Exists if holds => return Ok(Value::Bool(true)),
                Each::Filter if holds => kept.push(item),
                Each::All | Each::Exists | Each::ExistsOne | Each::Filter => {}
            }
        }
        Ok(match how {
            Each::All => Value::Bool(held == size),
            Each::Exists => Value::Bool(false),
            Each::ExistsOne => Value::Bool(held == 1),
            Each::Filter => Value::List(kept),
        })
    }

    /// True if an optional fact is present.
    fn has(&self, variable: &Variable) -> Result<bool, EvaluationFault> {
        let facts = self.facts;
        let found = |is_known, is_available, name| {
            if is_available { Ok(is_known) } else { Err(EvaluationFault::Unknown(name)) }
        };
        match variable {
            Variable::Attribute(name) => Ok(facts.person.attribute(name).is_some()),
            Variable::AtprotoDid => Ok(facts.person.atproto_did().is_some()),
            Variable::AtprotoHandle => Ok(facts.person.atproto_handle().is_some()),
            Variable::MfaAge => {
                let sign_in = facts.sign_in.ok_or(EvaluationFault::Unknown("the session"))?;
                Ok(sign_in.mfa_at_ms.is_some())
            }
            Variable::Country => {
                let country = facts.place.country;
                found(matches!(country, Lookup::Known(_)), country != Lookup::Unavailable, "the country")
            }
            Variable::Asn => {
                let asn = facts.place.asn;
                found(matches!(asn, Lookup::Known(_)), asn != Lookup::Unavailable, "the network's number")
            }
            Variable::Email => Ok(!facts.person.email().is_empty()),
            // Always present, whatever its length. The list is not built, because this test is charged one step.
            Variable::Groups => Ok(true),
            Variable::Amr => facts.sign_in.map(|_| true).ok_or(EvaluationFault::Unknown("the session")),
            other => self.variable(other).map(|_| true),
        }
    }

    /// The value of a name.
    pub(super) fn variable(&self, variable: &Variable) -> Result<Value<'a>, EvaluationFault> {
        let facts = self.facts;
        let session = || facts.sign_in.ok_or(EvaluationFault::Unknown("the session"));
        let request = || facts.request.ok_or(EvaluationFault::Unknown("the request"));
        let text = |what, text| shown(what, text, variable.max_bytes());
        let age = |since_ms: u64| seconds(facts.now_ms.saturating_sub(since_ms));
        match variable {
            Variable::UserId => Ok(Value::Text(Cow::Owned(hex(&facts.person.id())))),
            Variable::Username => text("the username", facts.person.username()),
            Variable::UserName => text("the name", facts.person.display_name()),
            Variable::Email => text("the address", facts.person.email()),
            Variable::EmailVerified => Ok(Value::Bool(facts.person.email_verified())),
            Variable::Groups => list("the list of groups", facts.person.group_names().into_iter()),
            Variable::AtprotoDid => {
                text("the DID", facts.person.atproto_did().ok_or(EvaluationFault::Unknown("the DID"))?)
            }
            Variable::AtprotoHandle => text(
                "the handle",
                facts.person.atproto_handle().ok_or(EvaluationFault::Unknown("the handle"))?,
            ),
            Variable::Attribute(name) => {
                text("an attribute", facts.person.attribute(name).ok_or(EvaluationFault::NoAttribute)?)
            }
            Variable::SessionAge => Ok(age(session()?.at_ms)),
            Variable::MfaAge => {
                Ok(age(session()?.mfa_at_ms.ok_or(EvaluationFault::Unknown("the second factor"))?))
            }
            Variable::Amr => list("the list of methods", session()?.methods.iter().map(String::as_str)),
            Variable::Method => {
                text("the method", request()?.method.ok_or(EvaluationFault::Unknown("the method"))?)
            }
            Variable::Host => text("the host", request()?.host),
            Variable::Path => {
                text("the path", request()?.path.ok_or(EvaluationFault::Unknown("the path"))?.as_str())
            }
            Variable::Address => {
                let address = facts.address.ok_or(EvaluationFault::Unknown("the client's address"))?;
                Ok(Value::Text(Cow::Owned(address.to_canonical().to_string())))
            }
            Variable::Country => match facts.place.country {
                Lookup::Known(country) => text("the country", country),
                Lookup::Absent | Lookup::Unavailable => Err(EvaluationFault::Unknown("the country")),
            },
            Variable::Asn => match facts.place.asn {
                Lookup::Known(asn) => Ok(Value::Int(asn.into())),
                Lookup::Absent | Lookup::Unavailable => Err(EvaluationFault::Unknown("the network's number")),
            },
            Variable::Now => Ok(seconds(facts.now_ms)),
        }
    }
}

fn seconds<'a>(ms: u64) -> Value<'a> {
    Value::Int(i64::try_from(ms / 1_000).unwrap_or(i64::MAX))
}

fn shown<'a>(what: &'static str, text: &'a str, most: usize) -> Result<Value<'a>, EvaluationFault> {
    if text.len() > most {
        return Err(EvaluationFault::TooLong(what));
    }
    Ok(Value::Text(Cow::Borrowed(text)))
}

fn list<'a>(
    what: &'static str,
    items: impl ExactSizeIterator<Item = &'a str>,
) -> Result<Value<'a>, EvaluationFault> {
    if items.len() > MAX_LIST {
        return Err(EvaluationFault::TooLong(what));
    }
    items.map(|item| shown(what, item, MAX_NAME_BYTES)).collect::<Result<_, _>>().map(Value::List)
}

fn hex(id: &[u8]) -> String {
    id.iter().fold(String::with_capacity(id.len() * 2), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn size(value: &Value<'_>) -> Result<i64, EvaluationFault> {
    let size = match value {
        Value::Text(text) => text.chars().count(),
        Value::List(items) => items.len(),
        Value::Bool(_) | Value::Int(_) | Value::Map(_) => return Err(EvaluationFault::Uncompiled),
    };
    i64::try_from(size).map_err(|_| EvaluationFault::Arithmetic)
}

fn compute(how: Arithmetic, left: i64, right: i64) -> Option<i64> {
    match how {
        Arithmetic::Add => left.checked_add(right),
        Arithmetic::Subtract => left.checked_sub(right),
        Arithmetic::Multiply => left.checked_mul(right),
        Arithmetic::Divide => left.checked_div(right),
        Arithmetic::Remainder => left.checked_rem(right),
    }
}
