//! Policies: the version in force, the guard against locking users out, and decisions that were made by an older
//! version.

use conclave_proto::command::v1::{self as pb, command::Body, policy_condition::Kind};
use conclave_state::{Class, Reason, ReplyBody, ids::ApplicationId};

use crate::world::*;

fn row(effect: pb::PolicyEffect, kind: Kind) -> pb::PolicyRow {
    let when = vec![pb::PolicyCondition { kind: Some(kind) }];
    pb::PolicyRow { effect: effect.into(), when, unless: Vec::new() }
}

pub(crate) fn allow(kind: Kind) -> pb::PolicyRow {
    row(pb::PolicyEffect::Allow, kind)
}

pub(crate) fn deny(kind: Kind) -> pb::PolicyRow {
    row(pb::PolicyEffect::Deny, kind)
}

pub(crate) fn in_group(n: u8) -> Kind {
    Kind::Groups(pb::PolicyIds { ids: vec![group(n)] })
}

pub(crate) fn is_user(n: u8) -> Kind {
    Kind::Users(pb::PolicyIds { ids: vec![user(n)] })
}

pub(crate) fn policy(rows: Vec<pb::PolicyRow>) -> pb::Policy {
    pb::Policy { mode: pb::PolicyMode::FirstMatch.into(), rows, ..Default::default() }
}

/// A policy with each kind of condition, about this user and this group.
pub(crate) fn all_kinds(u: u8, g: u8) -> pb::Policy {
    let texts = |text: &str| pb::PolicyTexts { texts: vec![text.into()] };
    let requests = || pb::PolicyRequests { methods: vec!["GET".into()], paths: vec!["/a/*".into()] };
    let kinds = [
        is_user(u),
        in_group(g),
        Kind::Networks(texts("10.0.0.0/8")),
        Kind::Window(pb::PolicyWindow {
            days: 31,
            from_minute: 480,
            to_minute: 1080,
            zone: "Europe/Berlin".into(),
        }),
        Kind::Countries(texts("DE")),
        Kind::Asns(pb::PolicyNumbers { numbers: vec![64_512] }),
        Kind::MfaWithinMs(MINUTE),
        Kind::Requests(requests()),
        Kind::Expression("user.email_verified".into()),
        Kind::Everyone(true),
    ];
    let mut rows: Vec<pb::PolicyRow> = kinds.into_iter().map(allow).collect();
    rows[0].unless = vec![pb::PolicyCondition { kind: Some(in_group(g)) }];
    pb::Policy {
        public: vec![requests()],
        headers: vec![pb::PolicyHeader { name: "x-role".into(), expression: "'x'".into() }],
        ..policy(rows)
    }
}

pub(crate) fn set_policy(a: u8, policy: pb::Policy, candidate: bool) -> Body {
    Body::SetPolicy(pb::SetPolicy {
        application_id: application(a),
        policy: Some(policy),
        candidate,
        force: false,
    })
}

pub(crate) fn promote(a: u8, version: u64) -> Body {
    Body::PromoteCandidate(pb::PromoteCandidate { application_id: application(a), version, force: false })
}

fn forced(body: Body) -> Body {
    match body {
        Body::SetPolicy(command) => Body::SetPolicy(pb::SetPolicy { force: true, ..command }),
        Body::PromoteCandidate(command) => {
            Body::PromoteCandidate(pb::PromoteCandidate { force: true, ..command })
        }
        other => other,
    }
}

fn app(n: u8) -> ApplicationId {
    ApplicationId::parse(&application(n)).unwrap()
}

/// User 1 is in `admins` (group 9) and group 1, user 2 in no group; application 1 is for group 1.
fn world() -> World {
    let mut world = World::seeded();
    world.ok(Body::CreateGroup(pb::CreateGroup {
        group_id: group(9),
        name: "admins".into(),
        ..Default::default()
    }));
    world.ok(Body::AddGroupMember(pb::AddGroupMember { user_id: user(1), group_id: group(9) }));
    world
}

#[test]
fn a_candidate_decides_nothing_until_it_is_promoted_as_it_was_watched() {
    let mut world = world();
    let everyone = policy(vec![allow(Kind::Everyone(true))]);
    assert_eq!(world.refused(promote(1, 1)), Reason::PolicyUnknown);
    world.ok(set_policy(1, everyone.clone(), true));
    let watched = world.state.candidate_policy(app(1)).unwrap().version;
    assert_eq!(world.state.active_policy(app(1)), None);
    world.ok(set_policy(1, policy(vec![allow(in_group(1))]), true));
    assert_eq!(world.refused(promote(1, watched)), Reason::CandidateChanged);
    let watched = world.state.candidate_policy(app(1)).unwrap().version;
    world.ok(promote(1, watched));
    let active = world.state.active_policy(app(1)).unwrap();
    assert!(active.version > watched && active.policy.rows == policy(vec![allow(in_group(1))]).rows);
    assert_eq!(world.state.candidate_policy(app(1)), None);
    let remove =
        |candidate| Body::RemovePolicy(pb::RemovePolicy { application_id: application(1), candidate });
    assert_eq!(world.refused(remove(true)), Reason::PolicyUnknown);
    world.ok(remove(false));
    assert!(world.state.policies_of(app(1)).is_none());
}

#[test]
fn nobody_locks_everybody_or_every_administrator_out_by_mistake() {
    let mut world = world();
    let set = |rows| set_policy(1, policy(rows), false);
    let cel = || Kind::Expression("true".into());
    world.ok(create_group(7));
    for rows in [
        vec![],
        vec![deny(Kind::Everyone(true))],
        vec![allow(in_group(7))], // the group has no members
        vec![deny(Kind::Everyone(true)), allow(Kind::Everyone(true))],
        vec![allow(is_user(2))],               // admits a user, but no administrator
        vec![allow(cel())],                    // perhaps
        vec![deny(cel()), allow(in_group(9))], // perhaps not
        vec![deny(in_group(1)), allow(Kind::Everyone(true))],
    ] {
        assert_eq!(world.refused(set(rows.clone())), Reason::LocksOut, "{rows:?}");
    }
    for rows in [
        vec![allow(in_group(9))],
        vec![deny(is_user(2)), allow(Kind::Everyone(true))],
        vec![allow(in_group(9)), deny(cel())],
    ] {
        world.ok(set(rows));
    }
    // A candidate may be anything; it is checked when it is put in force.
    world.ok(set_policy(1, policy(vec![allow(is_user(2))]), true));
    let version = world.state.candidate_policy(app(1)).unwrap().version;
    assert_eq!(world.refused(promote(1, version)), Reason::LocksOut);
    world.ok(forced(promote(1, version)));
    // No user could open it before, so no user is locked out now.
    world.ok(set(vec![allow(cel())]));
}

#[test]
fn modes_are_looked_at_as_they_decide() {
    let mut world = world();
    let of = |mode: pb::PolicyMode, rows| pb::Policy { mode: mode.into(), ..policy(rows) };
    let cel = || Kind::Expression("true".into());
    let refused = [
        of(pb::PolicyMode::Any, vec![allow(in_group(9)), deny(cel())]),
        of(pb::PolicyMode::Any, vec![deny(is_user(2))]),
        of(pb::PolicyMode::All, vec![allow(in_group(9)), allow(cel())]),
        of(pb::PolicyMode::All, vec![allow(in_group(9)), allow(is_user(2))]),
    ];
    for policy in refused {
        assert_eq!(world.refused(set_policy(1, policy.clone(), false)), Reason::LocksOut, "{policy:?}");
    }
    for policy in [
        of(pb::PolicyMode::Any, vec![allow(cel()), allow(in_group(9)), deny(is_user(2))]),
        of(pb::PolicyMode::All, vec![allow(in_group(9)), allow(in_group(1)), deny(is_user(2))]),
    ] {
        world.ok(set_policy(1, policy, false));
    }
    assert_eq!(world.refused(set_policy(1, pb::Policy::default(), false)), Reason::Malformed);
}

#[test]
fn a_group_that_a_policy_names_stays() {
    let mut world = world();
    world.ok(create_group(7));
    world.ok(set_policy(1, policy(vec![deny(in_group(7)), allow(in_group(9))]), true));
    let delete = Body::DeleteGroup(pb::DeleteGroup { group_id: group(7) });
    assert_eq!(world.refused(delete.clone()), Reason::GroupInUse);
    world.ok(Body::RemovePolicy(pb::RemovePolicy { application_id: application(1), candidate: true }));
    world.ok(delete);
    assert_eq!(world.refused(set_policy(1, policy(vec![deny(in_group(7))]), true)), Reason::GroupUnknown);
    assert_eq!(world.refused(set_policy(1, policy(vec![allow(is_user(99))]), true)), Reason::UserUnknown);
}

#[test]
fn a_code_is_issued_by_the_word_of_the_version_in_force_and_of_no_other() {
    let mut world = world();
    let start = world.start(1, 1, None);
    world.ok(Body::StartSession(start));
    let code = |n: u8, version| {
        let command =
            pb::IssueCode { session_id: session(1), policy_version: version, ..issue(n, "app", &["openid"]) };
        Body::IssueCode(command)
    };
    world.ok(code(1, 0));
    world.ok(set_policy(1, policy(vec![allow(in_group(9))]), false));
    let first = world.state.active_policy(app(1)).unwrap().version;
    assert_eq!(world.refused(code(2, 0)), Reason::AccessDenied);
    world.ok(code(2, first));
    world.ok(set_policy(1, policy(vec![allow(in_group(9)), deny(Kind::Everyone(true))]), false));
    assert_eq!(world.refused(code(3, first)), Reason::AccessDenied, "decided by what held before");
}

#[test]
fn what_tightens_is_acknowledged_when_every_node_knows() {
    let mut world = world();
    let mut class = |body: Body| {
        let bytes = encode(world.now, &world.index.to_be_bytes().repeat(2), body);
        let applied = world.raw(&bytes).unwrap();
        assert!(!matches!(applied.reply.body, Some(ReplyBody::Refused(_))), "{:?}", applied.reply);
        applied.class
    };
    let admins = || policy(vec![allow(in_group(9))]);
    assert_eq!(class(set_policy(1, admins(), false)), Class::Revocation);
    assert_eq!(class(set_policy(1, admins(), true)), Class::Plain);
    let remove =
        |candidate| Body::RemovePolicy(pb::RemovePolicy { application_id: application(1), candidate });
    assert_eq!(class(remove(true)), Class::Plain);
    assert_eq!(class(remove(false)), Class::Revocation);
    // A policy may deny a group, and another application's wildcard may have matched a host.
    let member = pb::AddGroupMember { user_id: user(2), group_id: group(9) };
    assert_eq!(class(Body::AddGroupMember(member)), Class::Revocation);
    assert_eq!(class(create_application(2, &[9])), Class::Revocation);
}
