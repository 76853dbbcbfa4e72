//! Compiles a policy from its written form to one that can decide. A policy that cannot be decided is refused here,
//! with the row and the reason.

use crate::{
    expression::{Expression, ExpressionError},
    header,
    limits::{MAX_CONDITIONS, MAX_COST, MAX_HEADERS, MAX_PUBLIC, MAX_ROWS, MAX_VALUES},
    network::Cidr,
    path::{CanonicalPath, PathPattern},
    spec::{Condition, Id, MatchMode, Protected, Row, RowEffect, Spec},
    window::Hours,
};

/// A compiled policy.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) mode: MatchMode,
    pub(crate) rows: Vec<Compiled>,
    public: Vec<Requests>,
    headers: Vec<(String, Expression)>,
    reads_place: bool,
    reads_path: bool,
}

/// A compiled row.
#[derive(Clone, Debug)]
pub(crate) struct Compiled {
    pub(crate) effect: RowEffect,
    pub(crate) when: Vec<Test>,
    pub(crate) unless: Vec<Test>,
}

/// A compiled condition.
#[derive(Clone, Debug)]
pub(crate) enum Test {
    Everyone,
    User(Vec<Id>),
    Group(Vec<Id>),
    Network(Vec<Cidr>),
    Time(Hours),
    Country(Vec<String>),
    Asn(Vec<u32>),
    MfaWithin(u64),
    Request(Requests),
    Expression(Expression),
}

/// Methods and paths.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    pub(crate) methods: Vec<String>,
    pub(crate) paths: Vec<PathPattern>,
}

/// The part of a policy that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The whole policy.
    Whole,
    /// A row, counted from 1.
    Row(usize),
    /// A rule for paths that need no sign-in, counted from 1.
    Public(usize),
    /// An extra header, counted from 1.
    Header(usize),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole => f.write_str("the policy"),
            Self::Row(number) => write!(f, "row {number}"),
            Self::Public(number) => write!(f, "public rule {number}"),
            Self::Header(number) => write!(f, "header {number}"),
        }
    }
}

/// The reason for which a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{part}: {why}")]
pub struct CompileError {
    /// The part that is wrong.
    pub part: Part,
    /// The reason, for the operator.
    pub why: String,
}

impl Policy {
    /// Compiles a policy.
    ///
    /// # Errors
    /// [`CompileError`] naming the row and the reason.
    pub fn compile(spec: &Spec) -> Result<Self, CompileError> {
        let at = |part| move |why: String| CompileError { part, why };
        let whole = at(Part::Whole);
        for (what, count, most) in [
            ("rows", spec.rows.len(), MAX_ROWS),
            ("public rules", spec.public.len(), MAX_PUBLIC),
            ("extra headers", spec.headers.len(), MAX_HEADERS),
        ] {
            if count > most {
                return Err(whole(format!("it has {count} {what}; the maximum is {most}")));
            }
        }
        let numbered = |index: usize| index + 1;
        let rows = spec.rows.iter().enumerate();
        let rows: Vec<Compiled> = rows
            .map(|(i, row)| Compiled::of(row).map_err(at(Part::Row(numbered(i)))))
            .collect::<Result<_, _>>()?;
        let public = spec.public.iter().enumerate();
        let public = public
            .map(|(i, rule)| opening(rule).map_err(at(Part::Public(numbered(i)))))
            .collect::<Result<_, _>>()?;
        let mut headers: Vec<(String, Expression)> = Vec::with_capacity(spec.headers.len());
        for (i, header) in spec.headers.iter().enumerate() {
            let at = at(Part::Header(numbered(i)));
            if let Some(why) = header::refusal(&header.name) {
                return Err(at(why));
            }
            if headers.iter().any(|(name, _)| *name == header.name) {
                return Err(at(format!("{} is named more than once", header.name)));
            }
            headers.push((
                header.name.clone(),
                Expression::text(&header.expression).map_err(|e| at(e.to_string()))?,
            ));
        }
        let expressions =
            || rows.iter().flat_map(Compiled::expressions).chain(headers.iter().map(|(_, e)| e));
        let cost: u64 = expressions().map(Expression::cost).sum();
        if cost > MAX_COST {
            let why = format!("its expressions could take {cost} steps together; the maximum is {MAX_COST}");
            return Err(whole(why));
        }
        let asks = |test: &Test| matches!(test, Test::Country(_) | Test::Asn(_));
        let reads_place =
            expressions().any(Expression::reads_place) || rows.iter().any(|row| row.tests().any(asks));
        let by_request = |test: &Test| matches!(test, Test::Request(_));
        let reads_path =
            expressions().any(Expression::reads_path) || rows.iter().any(|row| row.tests().any(by_request));
        Ok(Self { mode: spec.mode, rows, public, headers, reads_place, reads_path })
    }

    /// True if it reads the location of the address: only then is a database queried.
    pub const fn reads_place(&self) -> bool {
        self.reads_place
    }

    /// True if rows or extra headers read the path of the request: only then does the caller parse it for them.
    pub const fn reads_path(&self) -> bool {
        self.reads_path
    }

    /// True if any request needs no sign-in.
    pub const fn has_public(&self) -> bool {
        !self.public.is_empty()
    }

    /// True if this request needs no sign-in. A request whose path is ambiguous always needs one.
    pub fn is_public(&self, method: &str, path: Option<&CanonicalPath>) -> bool {
        path.is_some_and(|path| self.public.iter().any(|rule| rule.matches(method, path)))
    }

    /// The extra headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &Expression)> {
        self.headers.iter().map(|(name, expression)| (name.as_str(), expression))
    }
}

impl Compiled {
    fn of(row: &Row) -> Result<Self, String> {
        if row.when.is_empty() {
            return Err("it has no condition; write everyone = true to match every user".into());
        }
        if row.when.len() + row.unless.len() > MAX_CONDITIONS {
            return Err(format!("it has more than {MAX_CONDITIONS} conditions"));
        }
        let tests = |conditions: &[Condition]| conditions.iter().map(Test::of).collect::<Result<_, _>>();
        Ok(Self { effect: row.effect, when: tests(&row.when)?, unless: tests(&row.unless)? })
    }

    pub(crate) fn tests(&self) -> impl Iterator<Item = &Test> {
        self.when.iter().chain(&self.unless)
    }

    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.tests().filter_map(|test| if let Test::Expression(e) = test { Some(e) } else { None })
    }
}

impl Test {
    fn of(condition: &Condition) -> Result<Self, String> {
        Ok(match condition {
            Condition::Everyone => Self::Everyone,
            Condition::User(ids) => Self::User(some("users", ids)?),
            Condition::Group(ids) => Self::Group(some("groups", ids)?),
            Condition::Network(networks) => {
                let parse = |text: &String| {
                    text.parse()
                        .map_err(|_| format!("{text:?} is not a network; write for example 10.0.0.0/8"))
                };
                Self::Network(some("networks", networks)?.iter().map(parse).collect::<Result<_, _>>()?)
            }
            Condition::Time(window) => Self::Time(Hours::compile(window)?),
            Condition::Country(countries) => {
                let is_code = |c: &&String| c.len() == 2 && c.bytes().all(|b| b.is_ascii_uppercase());
                if let Some(odd) = countries.iter().find(|c| !is_code(c)) {
                    return Err(format!("{odd:?} is not a country; write its two letters, such as DE"));
                }
                Self::Country(some("countries", countries)?)
            }
            Condition::Asn(numbers) => Self::Asn(some("network numbers", numbers)?),
            Condition::MfaWithin(ms) => Self::MfaWithin(*ms),
            Condition::Request(requests) => {
                if requests.methods.is_empty() && requests.paths.is_empty() {
                    return Err("a condition about requests must name a method or a path".into());
                }
                Self::Request(Requests::of(requests)?)
            }
            Condition::Expression(text) => Self::Expression(
                Expression::condition(text).map_err(|error: ExpressionError| error.to_string())?,
            ),
        })
    }
}

impl Requests {
    fn of(requests: &Protected) -> Result<Self, String> {
        for values in [requests.methods.len(), requests.paths.len()] {
            if values > MAX_VALUES {
                return Err(format!("it names more than {MAX_VALUES} methods or paths"));
            }
        }
        let is_method = |method: &&String| {
            !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-')
        };
        if let Some(odd) = requests.methods.iter().find(|method| !is_method(method)) {
            return Err(format!("{odd:?} is not a method; write for example GET"));
        }
        let paths = requests.paths.iter().map(|path| PathPattern::parse(path)).collect::<Result<_, _>>()?;
        Ok(Self { methods: requests.methods.clone(), paths })
    }

    fn matches(&self, method: &str, path: &CanonicalPath) -> bool {
        let method_fits = self.methods.is_empty() || self.methods.iter().any(|known| known == method);
        method_fits && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.matches(path)))
    }
}

/// Compiles a rule that opens paths. It must name a path; without methods it opens GET and HEAD only.
fn opening(rule: &Protected) -> Result<Requests, String> {
    if rule.paths.is_empty() {
        return Err("it names no path".into());
    }
    let mut requests = Requests::of(rule)?;
    if requests.methods.is_empty() {
        requests.methods = ["GET", "HEAD"].map(str::to_owned).to_vec();
    }
    Ok(requests)
}

fn some<T: Clone>(what: &str, values: &[T]) -> Result<Vec<T>, String> {
    match values.len() {
        0 => Err(format!("a condition about {what} must name at least one")),
        count if count > MAX_VALUES => Err(format!("a condition may name at most {MAX_VALUES} {what}")),
        _ => Ok(values.to_vec()),
    }
}
