//! Translates CEL's tree into the typed form: every name is resolved, every type is checked, and the worst case is
//! added up.

use std::collections::BTreeMap;

use cel::common::ast::{
    CallExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, MapEntryExpr, SelectExpr,
};

use super::{
    ExpressionError,
    node::{Arithmetic, Comparison, Each, Node, TextTest, Type, Variable},
};
use crate::limits::{BYTES_PER_STEP, ITEMS_PER_STEP, MAX_COST, MAX_LIST, MAX_NODES, MAX_TEXT_BYTES};

/// Longest text of an integer.
const MAX_INT_BYTES: usize = 20;
/// Longest text that a concatenation may give.
const MAX_MADE_BYTES: usize = 4 * MAX_TEXT_BYTES;

/// The typed form of an expression, or of a part of it.
pub(super) struct Lowered {
    pub(super) node: Node,
    pub(super) kind: Type,
    pub(super) cost: u64,
    pub(super) reads: Vec<Variable>,
}

pub(super) fn lower(tree: &IdedExpr) -> Result<Lowered, ExpressionError> {
    let mut lowering = Lowering { scopes: Vec::new(), reads: Vec::new(), nodes: 0 };
    let Part { node, kind, cost } = lowering.part(tree)?;
    Ok(Lowered { node, kind, cost, reads: lowering.reads })
}

struct Part {
    node: Node,
    kind: Type,
    cost: u64,
}

struct Lowering<'t> {
    /// Variables of macros, outermost first.
    scopes: Vec<(&'t str, Type)>,
    reads: Vec<Variable>,
    nodes: usize,
}

fn wrong<T>(why: impl Into<String>) -> Result<T, ExpressionError> {
    Err(ExpressionError::Type(why.into()))
}

const fn bytes(max: usize) -> u64 {
    max as u64 / BYTES_PER_STEP
}

fn text_steps(kind: &Type) -> u64 {
    if let Type::Text(max) = kind { bytes(*max) } else { 0 }
}

impl<'t> Lowering<'t> {
    fn part(&mut self, tree: &'t IdedExpr) -> Result<Part, ExpressionError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(ExpressionError::TooLarge(format!("it has more than {MAX_NODES} parts")));
        }
        let part = self.untested(tree)?;
        // This is checked at every part, so that no sum of parts can overflow.
        if part.cost > MAX_COST {
            let why = format!("it could take {} steps; the maximum is {MAX_COST}", part.cost);
            return Err(ExpressionError::TooLarge(why));
        }
        Ok(part)
    }

    fn untested(&mut self, tree: &'t IdedExpr) -> Result<Part, ExpressionError> {
        match &tree.expr {
            Expr::Literal(literal) => literal_part(literal),
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => self.select(select),
            Expr::List(list) if list.optional_indices.is_empty() => self.list(&list.elements),
            Expr::Map(map) => self.map(&map.entries),
            Expr::Call(call) => self.call(call),
            Expr::List(_) | Expr::Struct(_) | Expr::Comprehension(_) | Expr::Unspecified => {
                wrong("structures and optional parts are not available in expressions")
            }
        }
    }

    fn name(&mut self, name: &str) -> Result<Part, ExpressionError> {
        if let Some(place) = self.scopes.iter().rposition(|(known, _)| *known == name) {
            let kind = self.scopes.get(place).map_or(Type::Bool, |(_, kind)| kind.clone());
            return Ok(Part { node: Node::Local(place), cost: 1 + text_steps(&kind), kind });
        }
        let room = |name| Ok(Part { node: Node::Bool(false), kind: Type::Room(name), cost: 0 });
        match name {
            "user" => room("user"),
            "session" => room("session"),
            "request" => room("request"),
            "geo" => room("geo"),
            "now" => Ok(self.read(Variable::Now)),
            other => wrong(format!("there is no {other}; there are user, session, request, geo and now")),
        }
    }

    fn read(&mut self, variable: Variable) -> Part {
        self.note(&variable);
        let kind = kind_of(&variable);
        let cost = 1 + if matches!(kind, Type::List(..)) { MAX_LIST as u64 / ITEMS_PER_STEP } else { 0 };
        Part { node: Node::Read(variable), kind, cost }
    }

    fn note(&mut self, variable: &Variable) {
        if !self.reads.contains(variable) {
            self.reads.push(variable.clone());
        }
    }

    fn select(&mut self, select: &'t SelectExpr) -> Result<Part, ExpressionError> {
        match self.part(&select.operand)?.kind {
            Type::Room("user") if select.field == "attributes" => {
                Ok(Part { node: Node::Bool(false), kind: Type::Attributes, cost: 0 })
            }
            Type::Room("user") if select.field == "atproto" => {
                Ok(Part { node: Node::Bool(false), kind: Type::Room("user.atproto"), cost: 0 })
            }
            Type::Attributes => Ok(self.read(Variable::Attribute(select.field.clone()))),
            Type::Room(room) => match fact(room, &select.field) {
                Some(variable) => Ok(self.read(variable)),
                None => wrong(format!("there is no {room}.{}", select.field)),
            },
            other => wrong(format!("{other} has no field {}", select.field)),
        }
    }

    fn list(&mut self, elements: &'t [IdedExpr]) -> Result<Part, ExpressionError> {
        let parts: Vec<Part> = elements.iter().map(|element| self.part(element)).collect::<Result<_, _>>()?;
        let Some(first) = parts.first() else { return wrong("an empty list has no type") };
        let mut of = first.kind.clone();
        for part in &parts {
            if !of.is_like(&part.kind) {
                return wrong(format!(
                    "all elements of a list must have the same type: bool, int or string; not {of} and {}",
                    part.kind
                ));
            }
            if let (Type::Text(max), Type::Text(other)) = (&mut of, &part.kind) {
                *max = (*max).max(*other);
            }
        }
        let cost = 1 + parts.iter().map(|part| part.cost).sum::<u64>();
        let kind = Type::List(Box::new(of), parts.len());
        Ok(Part { node: Node::List(parts.into_iter().map(|part| part.node).collect()), kind, cost })
    }

    /// A map literal. Only a claim can be a map, or have one as a value.
    fn map(&mut self, entries: &'t [IdedEntryExpr]) -> Result<Part, ExpressionError> {
        let (mut parts, mut cost) = (BTreeMap::new(), 1);
        for entry in entries {
            let EntryExpr::MapEntry(MapEntryExpr { key, value, optional: false }) = &entry.expr else {
                return wrong("optional parts are not available in expressions");
            };
            let Expr::Literal(LiteralValue::String(key)) = &key.expr else {
                return wrong("the keys of a map must be string literals: {\"roles\": user.groups}");
            };
            let value = self.part(value)?;
            if !value.kind.is_value() {
                return wrong(format!("{} cannot be a value; name one of its fields", value.kind));
            }
            cost += 1 + value.cost;
            if parts.insert(key.inner().to_owned(), value.node).is_some() {
                return wrong(format!("the key {:?} occurs twice", key.inner()));
            }
        }
        Ok(Part { node: Node::Map(parts), kind: Type::Map, cost })
    }

    fn call(&mut self, call: &'t CallExpr) -> Result<Part, ExpressionError> {
        let name = call.func_name.as_str();
        match (call.target.as_deref(), call.args.as_slice()) {
            (None, [of]) if name == "has" => self.has(of),
            (Some(target), [variable, body]) => match each(name) {
                Some(how) => self.each(how, target, variable, body),
                None => wrong(format!("there is no function {name} with two arguments")),
            },
            (Some(target), [other]) => self.method(name, target, other),
            (Some(target), []) => self.one(name, target),
            (None, [of]) => self.one(name, of),
            (None, [left, right]) => self.two(name, left, right),
            (None, [condition, yes, no]) if name == "_?_:_" => self.choose(condition, yes, no),
            _ => wrong(format!("there is no function {name} with these arguments")),
        }
    }

    fn has(&mut self, of: &'t IdedExpr) -> Result<Part, ExpressionError> {
        match self.part(of)?.node {
            Node::Read(variable) => Ok(Part { node: Node::Has(variable), kind: Type::Bool, cost: 1 }),
            _ => wrong("has() takes a name such as user.attributes.team"),
        }
    }

    fn each(
        &mut self,
        how: Each,
        list: &'t IdedExpr,
        variable: &'t IdedExpr,
        body: &'t IdedExpr,
    ) -> Result<Part, ExpressionError> {
        let list = self.part(list)?;
        let Type::List(of, most) = list.kind.clone() else {
            return wrong(format!("all, exists, exists_one and filter are for lists, not for {}", list.kind));
        };
        let Expr::Ident(name) = &variable.expr else { return wrong("a macro's variable is a plain name") };
        self.scopes.push((name, *of));
        let body = self.part(body);
        self.scopes.pop();
        let body = of_type(body?, &Type::Bool)?;
        let kind = if how == Each::Filter { list.kind } else { Type::Bool };
        let cost = 1 + list.cost + (most as u64).saturating_mul(body.cost.saturating_add(1));
        Ok(Part { node: Node::Each(how, Box::new((list.node, body.node))), kind, cost })
    }

    fn method(
        &mut self,
        name: &str,
        target: &'t IdedExpr,
        other: &'t IdedExpr,
    ) -> Result<Part, ExpressionError> {
        let test = match name {
            "startsWith" => TextTest::StartsWith,
            "endsWith" => TextTest::EndsWith,
            "contains" => TextTest::Contains,
            "join" => return self.join(target, other),
            "matches" => {
                return wrong(
                    "regular expressions are not available in policies; use startsWith, endsWith, contains",
                );
            }
            _ => return wrong(format!("there is no function {name} with one argument")),
        };
        let (target, other) = (self.text(target)?, self.text(other)?);
        let cost = 1 + target.cost + other.cost + text_steps(&target.kind);
        Ok(Part { node: Node::TextTest(test, Box::new((target.node, other.node))), kind: Type::Bool, cost })
    }

    fn text(&mut self, tree: &'t IdedExpr) -> Result<Part, ExpressionError> {
        let part = self.part(tree)?;
        of_type(part, &Type::Text(0))
    }

    fn join(&mut self, list: &'t IdedExpr, between: &'t IdedExpr) -> Result<Part, ExpressionError> {
        let (list, between) = (self.part(list)?, self.text(between)?);
        let Type::List(of, most) = &list.kind else { return wrong("join is for lists of string") };
        if !matches!(**of, Type::Text(_)) {
            return wrong("join is for lists of string");
        }
        let cost = 1 + list.cost + between.cost + *most as u64 + bytes(MAX_TEXT_BYTES);
        let node = Node::Join(Box::new((list.node, between.node)));
        Ok(Part { node, kind: Type::Text(MAX_TEXT_BYTES), cost })
    }

    fn one(&mut self, name: &str, of: &'t IdedExpr) -> Result<Part, ExpressionError> {
        let part = self.part(of)?;
        let cost = 1 + part.cost + text_steps(&part.kind);
        let with = |node: fn(Box<Node>) -> Node, kind, part: Part| {
            Ok(Part { node: node(Box::new(part.node)), kind, cost })
        };
        match (name, &part.kind) {
            ("!_", Type::Bool) => with(Node::Not, Type::Bool, part),
            ("-_", Type::Int) => {
                let node = Node::Compute(Arithmetic::Subtract, Box::new((Node::Int(0), part.node)));
                Ok(Part { node, kind: Type::Int, cost: cost + 1 })
            }
            ("size", Type::Text(_) | Type::List(..)) => with(Node::Size, Type::Int, part),
            ("lowerAscii", Type::Text(max)) => {
                let max = *max;
                with(Node::Lower, Type::Text(max), part)
            }
            ("string", Type::Text(_)) => Ok(part),
            ("string", Type::Int) => with(Node::IntToText, Type::Text(MAX_INT_BYTES), part),
            (name, kind) => wrong(format!("there is no {name} for {kind}")),
        }
    }

    fn choose(
        &mut self,
        condition: &'t IdedExpr,
        yes: &'t IdedExpr,
        no: &'t IdedExpr,
    ) -> Result<Part, ExpressionError> {
        let (condition, yes, no) = (self.part(condition)?, self.part(yes)?, self.part(no)?);
        let condition = of_type(condition, &Type::Bool)?;
        if !yes.kind.is_like(&no.kind) {
            return wrong(format!(
                "both branches must have the same type: bool, int or string; not {} and {}",
                yes.kind, no.kind
            ));
        }
        let kind = match (&yes.kind, &no.kind) {
            (Type::Text(one), Type::Text(other)) => Type::Text(*one.max(other)),
            (kind, _) => kind.clone(),
        };
        let cost = 1 + condition.cost + yes.cost.max(no.cost);
        Ok(Part { node: Node::Choose(Box::new((condition.node, yes.node, no.node))), kind, cost })
    }

    fn two(&mut self, name: &str, left: &'t IdedExpr, right: &'t IdedExpr) -> Result<Part, ExpressionError> {
        let left = self.part(left)?;
        if name == "_[_]" && left.kind == Type::Attributes {
            return self.attribute(right);
        }
        let right = self.part(right)?;
        if name == "@in" && right.kind == Type::Attributes {
            return match left.node {
                Node::Text(attribute) => {
                    let variable = Variable::Attribute(attribute);
                    self.note(&variable);
                    Ok(Part { node: Node::Has(variable), kind: Type::Bool, cost: 1 })
                }
                _ => wrong("the name of an attribute must be a string literal"),
            };
        }
        let cost = 1 + left.cost.saturating_add(right.cost);
        let kinds = (left.kind, right.kind);
        let nodes = Box::new((left.node, right.node));
        let part = |node: Node, kind, more: u64| Ok(Part { node, kind, cost: cost.saturating_add(more) });
        match (name, &kinds) {
            ("_&&_", (Type::Bool, Type::Bool)) => part(Node::And(nodes), Type::Bool, 0),
            ("_||_", (Type::Bool, Type::Bool)) => part(Node::Or(nodes), Type::Bool, 0),
            ("_+_", (Type::Text(one), Type::Text(other))) => {
                let made = one + other;
                if made > MAX_MADE_BYTES {
                    return Err(ExpressionError::TooLarge(format!("it could make a text of {made} bytes")));
                }
                part(Node::Concat(nodes), Type::Text(made), bytes(made))
            }
            ("@in", (one, Type::List(of, most))) if one.is_like(of) => {
                let steps = (*most as u64).saturating_mul(1 + text_steps(one));
                part(Node::In(nodes), Type::Bool, steps.saturating_add(1))
            }
            ("_[_]", (Type::List(of, _), Type::Int)) => part(Node::Index(nodes), (**of).clone(), 0),
            (name, (one, other)) => {
                if let (Some(how), true) = (comparison(name), one.is_like(other)) {
                    return part(Node::Compare(how, nodes), Type::Bool, text_steps(one));
                }
                match (arithmetic(name), one, other) {
                    (Some(how), Type::Int, Type::Int) => part(Node::Compute(how, nodes), Type::Int, 0),
                    _ => {
                        wrong(format!("there is no {} for {one} and {other}", name.trim_matches(['_', '@'])))
                    }
                }
            }
        }
    }

    fn attribute(&mut self, name: &'t IdedExpr) -> Result<Part, ExpressionError> {
        match self.part(name)?.node {
            Node::Text(name) => Ok(self.read(Variable::Attribute(name))),
            _ => wrong("the name of an attribute must be a string literal: user.attributes[\"team\"]"),
        }
    }
}

fn of_type(part: Part, wanted: &Type) -> Result<Part, ExpressionError> {
    if part.kind.is_like(wanted) {
        return Ok(part);
    }
    wrong(format!("expected {wanted}, found {}", part.kind))
}

fn literal_part(literal: &LiteralValue) -> Result<Part, ExpressionError> {
    let (node, kind) = match literal {
        LiteralValue::Boolean(value) => (Node::Bool(*value.inner()), Type::Bool),
        LiteralValue::Int(value) => (Node::Int(*value.inner()), Type::Int),
        LiteralValue::String(value) => {
            (Node::Text(value.inner().to_owned()), Type::Text(value.inner().len()))
        }
        LiteralValue::Bytes(_) | LiteralValue::Double(_) | LiteralValue::Null | LiteralValue::UInt(_) => {
            return wrong("literals are bool, int and string; others are not available in policies");
        }
    };
    Ok(Part { node, kind, cost: 1 })
}

fn fact(room: &str, field: &str) -> Option<Variable> {
    Some(match (room, field) {
        ("user", "id") => Variable::UserId,
        ("user", "username") => Variable::Username,
        ("user", "name") => Variable::UserName,
        ("user", "email") => Variable::Email,
        ("user", "email_verified") => Variable::EmailVerified,
        ("user", "groups") => Variable::Groups,
        ("user.atproto", "did") => Variable::AtprotoDid,
        ("user.atproto", "handle") => Variable::AtprotoHandle,
        ("session", "age") => Variable::SessionAge,
        ("session", "mfa_age") => Variable::MfaAge,
        ("session", "amr") => Variable::Amr,
        ("request", "method") => Variable::Method,
        ("request", "host") => Variable::Host,
        ("request", "path") => Variable::Path,
        ("request", "address") => Variable::Address,
        ("geo", "country") => Variable::Country,
        ("geo", "asn") => Variable::Asn,
        _ => return None,
    })
}

fn kind_of(variable: &Variable) -> Type {
    match variable {
        Variable::EmailVerified => Type::Bool,
        Variable::SessionAge | Variable::MfaAge | Variable::Asn | Variable::Now => Type::Int,
        Variable::Groups | Variable::Amr => Type::List(Box::new(Type::Text(variable.max_bytes())), MAX_LIST),
        Variable::UserId
        | Variable::Username
        | Variable::UserName
        | Variable::Email
        | Variable::AtprotoDid
        | Variable::AtprotoHandle
        | Variable::Attribute(_)
        | Variable::Method
        | Variable::Host
        | Variable::Path
        | Variable::Address
        | Variable::Country => Type::Text(variable.max_bytes()),
    }
}

fn each(name: &str) -> Option<Each> {
    Some(match name {
        "all" => Each::All,
        "exists" => Each::Exists,
        "exists_one" | "existsOne" => Each::ExistsOne,
        "filter" => Each::Filter,
        _ => return None,
    })
}

fn comparison(name: &str) -> Option<Comparison> {
    Some(match name {
        "_==_" => Comparison::Equal,
        "_!=_" => Comparison::NotEqual,
        "_<_" => Comparison::Less,
        "_<=_" => Comparison::LessOrEqual,
        "_>_" => Comparison::Greater,
        "_>=_" => Comparison::GreaterOrEqual,
        _ => return None,
    })
}

fn arithmetic(name: &str) -> Option<Arithmetic> {
    Some(match name {
        "_+_" => Arithmetic::Add,
        "_-_" => Arithmetic::Subtract,
        "_*_" => Arithmetic::Multiply,
        "_/_" => Arithmetic::Divide,
        "_%_" => Arithmetic::Remainder,
        _ => return None,
    })
}
