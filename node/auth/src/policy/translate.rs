//! Translates the replicated row into the compiler's input. A condition that this version does not know makes the whole
//! policy undecidable.

use conclave_policy::{Condition, HeaderRule, Id, MatchMode, Protected, Row, RowEffect, Spec, TimeWindow};
use conclave_proto::command::v1::{self as pb, policy_condition::Kind};

pub(super) fn spec(policy: &pb::Policy) -> Result<Spec, String> {
    let mode = match policy.mode() {
        pb::PolicyMode::FirstMatch => MatchMode::FirstMatch,
        pb::PolicyMode::Any => MatchMode::Any,
        pb::PolicyMode::All => MatchMode::All,
        pb::PolicyMode::Unspecified => {
            return Err("the policy has a mode that this version does not know".into());
        }
    };
    let header = |header: &pb::PolicyHeader| HeaderRule {
        name: header.name.clone(),
        expression: header.expression.clone(),
    };
    Ok(Spec {
        mode,
        rows: policy.rows.iter().map(row).collect::<Result<_, _>>()?,
        public: policy.public.iter().map(requests).collect(),
        headers: policy.headers.iter().map(header).collect(),
    })
}

fn row(row: &pb::PolicyRow) -> Result<Row, String> {
    let effect = match row.effect() {
        pb::PolicyEffect::Allow => RowEffect::Allow,
        pb::PolicyEffect::Deny => RowEffect::Deny,
        pb::PolicyEffect::Unspecified => {
            return Err("a row has an effect that this version does not know".into());
        }
    };
    let all = |conditions: &[pb::PolicyCondition]| conditions.iter().map(condition).collect::<Result<_, _>>();
    Ok(Row { effect, when: all(&row.when)?, unless: all(&row.unless)? })
}

fn condition(condition: &pb::PolicyCondition) -> Result<Condition, String> {
    let unknown = || "a row has a condition that this version does not know".to_owned();
    Ok(match condition.kind.as_ref().ok_or_else(unknown)? {
        Kind::Everyone(_) => Condition::Everyone,
        Kind::Users(users) => Condition::User(ids(users)?),
        Kind::Groups(groups) => Condition::Group(ids(groups)?),
        Kind::Networks(networks) => Condition::Network(networks.texts.clone()),
        Kind::Window(window) => {
            let small =
                |number: u32| u16::try_from(number).map_err(|_| "a time window is out of bounds".to_owned());
            Condition::Time(TimeWindow {
                days: u8::try_from(window.days).map_err(|_| "a time window has no such day".to_owned())?,
                from_minute: small(window.from_minute)?,
                to_minute: small(window.to_minute)?,
                zone: window.zone.clone(),
            })
        }
        Kind::Countries(countries) => Condition::Country(countries.texts.clone()),
        Kind::Asns(asns) => Condition::Asn(asns.numbers.clone()),
        Kind::MfaWithinMs(ms) => Condition::MfaWithin(*ms),
        Kind::Requests(request) => Condition::Request(requests(request)),
        Kind::Expression(text) => Condition::Expression(text.clone()),
    })
}

fn ids(ids: &pb::PolicyIds) -> Result<Vec<Id>, String> {
    let id = |bytes: &Vec<u8>| Id::try_from(bytes.as_slice()).map_err(|_| "an id has 16 bytes".to_owned());
    ids.ids.iter().map(id).collect()
}

fn requests(requests: &pb::PolicyRequests) -> Protected {
    Protected { methods: requests.methods.clone(), paths: requests.paths.clone() }
}
