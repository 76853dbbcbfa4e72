//! The verdict, and its reason.

use crate::{
    compile::{Compiled, Policy, Requests, Test},
    expression::EvaluationFault,
    facts::{Facts, Lookup},
    spec::{MatchMode, RowEffect},
};

/// The decision of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyVerdict {
    /// True if the user is admitted.
    pub allowed: bool,
    /// The row that decided, from 0; none if no row did.
    pub row: Option<usize>,
    /// The reason.
    pub reason: Reason,
}

/// The reason of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The row matched, and its effect applied.
    Matched,
    /// No row matched, and the default is to deny.
    NoRow,
    /// Under `all`, this allow row did not match.
    RowFailed,
    /// Every allow row matched, under `all`.
    AllMatched,
    /// Something could not be evaluated, and doubt denies.
    Fault(EvaluationFault),
    /// The account is disabled.
    Disabled,
}

/// An explanation of a verdict, for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerdictExplanation {
    /// One sentence.
    pub text: String,
    /// The names that the deciding row reads, and their values.
    pub saw: Vec<(String, String)>,
}

impl PolicyVerdict {
    const fn no(row: Option<usize>, reason: Reason) -> Self {
        Self { allowed: false, row, reason }
    }

    /// The verdict of a policy that did not compile on this node, for every request.
    pub const UNCOMPILED: Self = Self::no(None, Reason::Fault(EvaluationFault::Uncompiled));
}

impl Policy {
    /// Decides. Rows about users, groups, networks, hours, locations, factors and requests allocate nothing.
    pub fn decide(&self, facts: &Facts<'_>) -> PolicyVerdict {
        if facts.person.is_disabled() {
            return PolicyVerdict::no(None, Reason::Disabled);
        }
        // The allow row that decides, unless a later row vetoes.
        let mut allowed_by = None;
        for (index, row) in self.rows.iter().enumerate() {
            let matches = match row.matches(facts) {
                Ok(matches) => matches,
                Err(fault) => return PolicyVerdict::no(Some(index), Reason::Fault(fault)),
            };
            match (self.mode, row.effect, matches) {
                (_, RowEffect::Deny, true) => return PolicyVerdict::no(Some(index), Reason::Matched),
                (MatchMode::FirstMatch, RowEffect::Allow, true) => {
                    return PolicyVerdict { allowed: true, row: Some(index), reason: Reason::Matched };
                }
                (MatchMode::All, RowEffect::Allow, false) => {
                    return PolicyVerdict::no(Some(index), Reason::RowFailed);
                }
                (MatchMode::Any | MatchMode::All, RowEffect::Allow, true) => {
                    allowed_by = allowed_by.or(Some(index))
                }
                (_, RowEffect::Deny, false)
                | (MatchMode::FirstMatch | MatchMode::Any, RowEffect::Allow, false) => {}
            }
        }
        let reason = if self.mode == MatchMode::All { Reason::AllMatched } else { Reason::Matched };
        match allowed_by {
            Some(row) => PolicyVerdict { allowed: true, row: Some(row), reason },
            None => PolicyVerdict::no(None, Reason::NoRow),
        }
    }

    /// Explains why `verdict` was given on these facts.
    pub fn explain(&self, verdict: &PolicyVerdict, facts: &Facts<'_>) -> VerdictExplanation {
        let number = verdict.row.map_or(0, |row| row + 1);
        let row = verdict.row.and_then(|row| self.rows.get(row));
        let says =
            row.map_or("denies", |row| if row.effect == RowEffect::Allow { "allows" } else { "denies" });
        let text = match verdict.reason {
            Reason::Matched => format!("row {number} matches and {says}"),
            Reason::NoRow => "no row matches, and the default is to deny".to_owned(),
            Reason::RowFailed => format!("row {number} does not match, and all must"),
            Reason::AllMatched => "every row that allows matches".to_owned(),
            Reason::Fault(fault) if row.is_some() => {
                format!("row {number} cannot be decided, so it is denied: {fault}")
            }
            Reason::Fault(fault) => format!("the policy cannot be decided, so it is denied: {fault}"),
            Reason::Disabled => "the account is disabled".to_owned(),
        };
        let mut saw: Vec<(String, String)> = Vec::new();
        for (name, value) in row.into_iter().flat_map(Compiled::tests).flat_map(|test| test.saw(facts)) {
            if !saw.iter().any(|(known, _)| *known == name) {
                saw.push((name, value));
            }
        }
        VerdictExplanation { text, saw }
    }
}

impl Compiled {
    fn matches(&self, facts: &Facts<'_>) -> Result<bool, EvaluationFault> {
        for test in &self.when {
            if !test.holds(facts)? {
                return Ok(false);
            }
        }
        for test in &self.unless {
            if test.holds(facts)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Test {
    fn holds(&self, facts: &Facts<'_>) -> Result<bool, EvaluationFault> {
        Ok(match self {
            Self::Everyone => true,
            Self::User(ids) => ids.contains(&facts.person.id()),
            Self::Group(ids) => ids.iter().any(|id| facts.person.is_in(id)),
            Self::Network(networks) => {
                let address = facts.address.ok_or(EvaluationFault::Unknown("the client's address"))?;
                networks.iter().any(|network| network.contains(address))
            }
            Self::Time(hours) => hours.contains(facts.now_ms).ok_or(EvaluationFault::Unknown("the time"))?,
            Self::Country(countries) => match facts.place.country {
                Lookup::Known(country) => countries.iter().any(|known| known == country),
                Lookup::Absent => false,
                Lookup::Unavailable => return Err(EvaluationFault::Unknown("the country")),
            },
            Self::Asn(numbers) => match facts.place.asn {
                Lookup::Known(asn) => numbers.contains(&asn),
                Lookup::Absent => false,
                Lookup::Unavailable => return Err(EvaluationFault::Unknown("the network's number")),
            },
            Self::MfaWithin(limit_ms) => {
                let sign_in = facts.sign_in.ok_or(EvaluationFault::Unknown("the session"))?;
                let fresh = |at_ms: u64| *limit_ms == 0 || facts.now_ms.saturating_sub(at_ms) <= *limit_ms;
                sign_in.mfa_at_ms.is_some_and(fresh)
            }
            Self::Request(requests) => requests.hold(facts)?,
            Self::Expression(expression) => expression.holds(facts)?,
        })
    }

    /// The names that the condition reads, and their values.
    fn saw(&self, facts: &Facts<'_>) -> Vec<(String, String)> {
        let one = |name: &str, value: String| vec![(name.to_owned(), value)];
        let lookup = |known: Option<String>, unavailable: bool| {
            known.unwrap_or_else(|| if unavailable { "(no database)" } else { "(no entry)" }.to_owned())
        };
        match self {
            Self::Everyone => Vec::new(),
            Self::User(_) => one("user.username", facts.person.username().to_owned()),
            Self::Group(_) => one("user.groups", facts.person.group_names().join(", ")),
            Self::Network(_) => {
                let address = facts.address.map_or_else(|| "(unknown)".into(), |address| address.to_string());
                one("request.address", address)
            }
            Self::Time(_) => one("now", (facts.now_ms / 1_000).to_string()),
            Self::Country(_) => {
                let known =
                    if let Lookup::Known(c) = facts.place.country { Some(c.to_owned()) } else { None };
                one("geo.country", lookup(known, facts.place.country == Lookup::Unavailable))
            }
            Self::Asn(_) => {
                let known = if let Lookup::Known(n) = facts.place.asn { Some(n.to_string()) } else { None };
                one("geo.asn", lookup(known, facts.place.asn == Lookup::Unavailable))
            }
            Self::MfaWithin(_) => {
                let at = facts.sign_in.and_then(|sign_in| sign_in.mfa_at_ms);
                let age = |at: u64| (facts.now_ms.saturating_sub(at) / 1_000).to_string();
                one("session.mfa_age", at.map_or_else(|| "(no second factor)".into(), age))
            }
            Self::Request(_) => {
                let Some(request) = facts.request else {
                    return one("request.path", "(not a single request)".into());
                };
                let path = request.path.map_or("(ambiguous)", |path| path.as_str());
                vec![
                    ("request.method".to_owned(), request.method.unwrap_or("(unknown)").to_owned()),
                    ("request.path".to_owned(), path.to_owned()),
                ]
            }
            Self::Expression(expression) => expression.saw(facts),
        }
    }
}

impl Requests {
    fn hold(&self, facts: &Facts<'_>) -> Result<bool, EvaluationFault> {
        let request = facts.request.ok_or(EvaluationFault::Unknown("the request"))?;
        if !self.methods.is_empty() {
            let method = request.method.ok_or(EvaluationFault::Unknown("the method"))?;
            if !self.methods.iter().any(|known| known == method) {
                return Ok(false);
            }
        }
        if self.paths.is_empty() {
            return Ok(true);
        }
        let path = request.path.ok_or(EvaluationFault::Unknown("the path"))?;
        Ok(self.paths.iter().any(|pattern| pattern.matches(path)))
    }
}
