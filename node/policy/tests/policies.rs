//! Policies from the outside: each kind of row, the modes, and the properties that hold for all of them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot set itself up has failed"
)]

use std::{net::IpAddr, time::Instant};

use conclave_policy::{
    AddressFacts, CanonicalPath, Condition, EvaluationFault, Expression, ExpressionError, Facts, HeaderRule,
    Id, Lookup, MatchMode, Part, Policy, PolicyUser, Protected, Reason, Request, Row, RowEffect, SignIn,
    Spec, TimeWindow, limits,
};
use proptest::prelude::*;

const NOW_MS: u64 = 1_767_603_600_000; // Monday, 2026-01-05 09:00 UTC

const fn id(n: u8) -> Id {
    [n; 16]
}

/// Ada is user 1, in `staff` (group 1) and `admins` (group 2).
struct Ada {
    disabled: bool,
    groups: Vec<(Id, String)>,
    handle: Option<String>,
}

impl PolicyUser for Ada {
    fn is_disabled(&self) -> bool {
        self.disabled
    }
    fn id(&self) -> Id {
        id(1)
    }
    fn is_in(&self, group: &Id) -> bool {
        self.groups.iter().any(|(known, _)| known == group)
    }
    fn username(&self) -> &'static str {
        "ada"
    }
    fn display_name(&self) -> &'static str {
        "Ada L"
    }
    fn email(&self) -> &'static str {
        "ada@Example.org"
    }
    fn email_verified(&self) -> bool {
        true
    }
    fn group_names(&self) -> Vec<&str> {
        self.groups.iter().map(|(_, name)| name.as_str()).collect()
    }
    fn atproto_did(&self) -> Option<&str> {
        Some("did:plc:ewvi7nxzyoun6zhxrhs64oiz")
    }
    fn atproto_handle(&self) -> Option<&str> {
        self.handle.as_deref()
    }
    fn attribute(&self, name: &str) -> Option<&str> {
        (name == "team").then_some("engine")
    }
}

fn ada() -> Ada {
    Ada {
        disabled: false,
        groups: vec![(id(1), "staff".into()), (id(2), "admins".into())],
        handle: Some("ada.corp.test".into()),
    }
}

/// The circumstances of her request: from 10.1.2.3 in Germany, five minutes after she used her second factor, `GET
/// /docs/a`.
struct World {
    ada: Ada,
    path: Option<CanonicalPath>,
    methods: Vec<String>,
    address: Option<IpAddr>,
    country: Lookup<&'static str>,
    asn: Lookup<u32>,
    mfa_at_ms: Option<u64>,
    with_request: bool,
}

impl World {
    fn new() -> Self {
        Self {
            ada: ada(),
            path: CanonicalPath::parse("/docs/a?x=1"),
            methods: vec!["pwd".into(), "otp".into()],
            address: Some("10.1.2.3".parse().unwrap()),
            country: Lookup::Known("DE"),
            asn: Lookup::Known(64_512),
            mfa_at_ms: Some(NOW_MS - 300_000),
            with_request: true,
        }
    }

    fn facts(&self) -> Facts<'_> {
        let request = Request { method: Some("GET"), host: "wiki.test", path: self.path.as_ref() };
        Facts {
            person: &self.ada,
            address: self.address,
            request: self.with_request.then_some(request),
            sign_in: Some(SignIn {
                at_ms: NOW_MS - 600_000,
                mfa_at_ms: self.mfa_at_ms,
                methods: &self.methods,
            }),
            place: AddressFacts { country: self.country, asn: self.asn },
            now_ms: NOW_MS,
        }
    }
}

fn row(effect: RowEffect, when: Condition) -> Row {
    Row { effect, when: vec![when], unless: Vec::new() }
}

fn allow(when: Condition) -> Row {
    row(RowEffect::Allow, when)
}

fn deny(when: Condition) -> Row {
    row(RowEffect::Deny, when)
}

fn policy(mode: MatchMode, rows: Vec<Row>) -> Policy {
    Policy::compile(&Spec { mode, rows, ..Spec::default() }).unwrap()
}

fn admits(rows: Vec<Row>) -> bool {
    policy(MatchMode::FirstMatch, rows).decide(&World::new().facts()).allowed
}

fn cel(text: &str) -> Condition {
    Condition::Expression(text.into())
}

fn requests(methods: &[&str], paths: &[&str]) -> Protected {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    Protected { methods: owned(methods), paths: owned(paths) }
}

fn window(days: u8, from_minute: u16, to_minute: u16) -> Condition {
    Condition::Time(TimeWindow { days, from_minute, to_minute, zone: "Europe/Berlin".into() })
}

#[test]
fn each_kind_of_row_is_told_from_what_it_is_not() {
    let network = |n: &str| Condition::Network(vec![n.into()]);
    let country = |c: &str| Condition::Country(vec![c.into()]);
    for (condition, holds) in [
        (Condition::Everyone, true),
        (Condition::User(vec![id(1)]), true),
        (Condition::User(vec![id(2)]), false),
        (Condition::Group(vec![id(9), id(2)]), true),
        (Condition::Group(vec![id(9)]), false),
        (network("10.0.0.0/8"), true),
        (network("192.0.2.0/24"), false),
        (window(0b1, 9 * 60, 11 * 60), true), // Monday 10:00 in Berlin
        (window(0b1, 8 * 60, 10 * 60), false),
        (window(0b10, 9 * 60, 11 * 60), false),
        (country("DE"), true),
        (country("FR"), false),
        (Condition::Asn(vec![1, 64_512]), true),
        (Condition::Asn(vec![1]), false),
        (Condition::MfaWithin(0), true),
        (Condition::MfaWithin(300_000), true),
        (Condition::MfaWithin(299_999), false),
        (Condition::Request(requests(&["GET"], &["/docs/*"])), true),
        (Condition::Request(requests(&["POST"], &["/docs/*"])), false),
        (Condition::Request(requests(&[], &["/admin/*"])), false),
        (cel("'staff' in user.groups && request.path.startsWith('/docs/')"), true),
        (cel("user.attributes.team == 'sales'"), false),
    ] {
        assert_eq!(admits(vec![allow(condition.clone())]), holds, "{condition:?}");
        let denied = vec![deny(condition.clone()), allow(Condition::Everyone)];
        assert_eq!(admits(denied), !holds, "deny {condition:?}");
        let except = Row { unless: vec![condition.clone()], ..allow(Condition::Everyone) };
        assert_eq!(admits(vec![except]), !holds, "unless {condition:?}");
        let both =
            Row { effect: RowEffect::Allow, when: vec![Condition::Everyone, condition], unless: vec![] };
        assert_eq!(admits(vec![both]), holds);
    }
}

#[test]
fn what_nobody_knows_denies_whatever_the_row_was_to_say() {
    let mut dark = World::new();
    dark.address = None;
    dark.path = None;
    dark.country = Lookup::Unavailable;
    dark.asn = Lookup::Unavailable;
    let asking = [
        Condition::Network(vec!["10.0.0.0/8".into()]),
        Condition::Country(vec!["DE".into()]),
        Condition::Asn(vec![1]),
        Condition::Request(requests(&[], &["/docs/*"])),
        cel("request.path == '/'"),
        cel("geo.country == 'DE' || true"),
        cel("has(geo.country)"),
        cel("user.attributes.nothing == 'x'"),
        cel("1 / (size(user.groups) - 2) == 1"),
        cel("user.groups[7] == 'x'"),
    ];
    for condition in asking {
        for rows in [
            vec![allow(condition.clone()), allow(Condition::Everyone)],
            vec![deny(condition.clone()), allow(Condition::Everyone)],
            vec![
                Row { unless: vec![condition.clone()], ..allow(Condition::Everyone) },
                allow(Condition::Everyone),
            ],
        ] {
            for mode in [MatchMode::FirstMatch, MatchMode::Any, MatchMode::All] {
                let verdict = policy(mode, rows.clone()).decide(&dark.facts());
                assert!(
                    !verdict.allowed && matches!(verdict.reason, Reason::Fault(_)),
                    "{condition:?}: {verdict:?}"
                );
            }
        }
    }
    // An address that the database does not have is not in Germany; that is not a fault.
    let mut private = World::new();
    private.country = Lookup::Absent;
    let germany = || Condition::Country(vec!["DE".into()]);
    assert!(
        policy(MatchMode::FirstMatch, vec![deny(germany()), allow(Condition::Everyone)])
            .decide(&private.facts())
            .allowed
    );
    // A method that the proxy does not forward must not be treated as different from the row's method.
    let silent = World::new();
    let facts = silent.facts();
    let request = facts.request.map(|request| Request { method: None, ..request });
    let facts = Facts { request, ..facts };
    for condition in [Condition::Request(requests(&["POST"], &[])), cel("request.method == 'POST'")] {
        let verdict =
            policy(MatchMode::FirstMatch, vec![deny(condition), allow(Condition::Everyone)]).decide(&facts);
        assert_eq!(verdict.reason, Reason::Fault(EvaluationFault::Unknown("the method")));
    }
    // A request of an OIDC client has no path.
    let mut oidc = World::new();
    oidc.with_request = false;
    let verdict = policy(MatchMode::FirstMatch, vec![deny(Condition::Request(requests(&[], &["/admin/*"])))])
        .decide(&oidc.facts());
    assert_eq!(verdict.reason, Reason::Fault(EvaluationFault::Unknown("the request")));
    // A policy is not evaluated for a disabled account.
    let mut off = World::new();
    off.ada.disabled = true;
    assert_eq!(
        policy(MatchMode::Any, vec![allow(Condition::Everyone)]).decide(&off.facts()).reason,
        Reason::Disabled
    );
}

#[test]
fn the_modes_are_three_sentences() {
    let yes = || allow(Condition::Everyone);
    let no = || allow(Condition::User(vec![id(7)]));
    let veto = || deny(Condition::Everyone);
    let idle = || deny(Condition::User(vec![id(7)]));
    for (mode, rows, allowed) in [
        (MatchMode::FirstMatch, vec![], false),
        (MatchMode::FirstMatch, vec![yes(), veto()], true),
        (MatchMode::FirstMatch, vec![veto(), yes()], false),
        (MatchMode::FirstMatch, vec![no(), idle(), yes()], true),
        (MatchMode::Any, vec![], false),
        (MatchMode::Any, vec![no(), yes()], true),
        (MatchMode::Any, vec![yes(), veto()], false),
        (MatchMode::Any, vec![idle()], false),
        (MatchMode::Any, vec![no(), idle()], false),
        (MatchMode::All, vec![], false),
        (MatchMode::All, vec![yes(), no()], false),
        (MatchMode::All, vec![yes(), yes(), idle()], true),
        (MatchMode::All, vec![yes(), veto()], false),
        (MatchMode::All, vec![idle()], false),
    ] {
        let verdict = policy(mode, rows.clone()).decide(&World::new().facts());
        assert_eq!(verdict.allowed, allowed, "{mode:?} {rows:?}: {verdict:?}");
    }
}

#[test]
fn why_names_the_row_and_what_it_saw() {
    let policy = policy(
        MatchMode::FirstMatch,
        vec![
            deny(Condition::User(vec![id(7)])),
            allow(cel("user.attributes.team == 'engine' && session.mfa_age < 600")),
        ],
    );
    let world = World::new();
    let verdict = policy.decide(&world.facts());
    let why = policy.explain(&verdict, &world.facts());
    assert_eq!(why.text, "row 2 matches and allows");
    let saw: Vec<(&str, &str)> =
        why.saw.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(saw, [("user.attributes.team", "\"engine\""), ("session.mfa_age", "300")]);
}

#[test]
fn what_is_wrong_is_refused_with_its_row() {
    let refused = |rows: Vec<Row>| Policy::compile(&Spec { rows, ..Spec::default() }).unwrap_err();
    let everyone = || allow(Condition::Everyone);
    let bad = [
        Condition::Group(vec![]),
        Condition::Network(vec!["10.0.0.0/33".into()]),
        Condition::Country(vec!["Germany".into()]),
        window(0, 0, 10),
        Condition::Request(requests(&[], &[])),
        Condition::Request(requests(&["get"], &[])),
        Condition::Request(requests(&[], &["/a/../*"])),
        cel("1 +"),
        cel("user.username"),
        cel("user.shoe_size == 42"),
        cel("user"),
        cel("request.path.matches('(a+)+$')"),
        cel("now == 1.5"),
        cel("timestamp('2026-01-01T00:00:00Z') < now"),
        cel("user.groups.map(g, g + g).size() > 1"),
        cel("user.username == 1"),
        cel("{'a': 1}['a'] == 1"),
        cel("user.groups.exists(g, g == 'a', true)"),
        cel("elsewhere"),
    ];
    for condition in bad {
        let error = refused(vec![everyone(), allow(condition.clone())]);
        assert_eq!(error.part, Part::Row(2), "{condition:?}: {error}");
    }
    assert!(
        refused(vec![Row { effect: RowEffect::Allow, when: vec![], unless: vec![] }])
            .to_string()
            .starts_with("row 1: ")
    );
    assert_eq!(refused(vec![everyone(); limits::MAX_ROWS + 1]).part, Part::Whole);
    let header =
        |name: &str, expression: &str| HeaderRule { name: name.into(), expression: expression.into() };
    for headers in [
        vec![header("cookie", "'x'")],
        vec![header("x-role", "1")],
        vec![header("x-role", "'a'"), header("x-role", "'b'")],
    ] {
        let error = Policy::compile(&Spec { headers, ..Spec::default() }).unwrap_err();
        assert!(matches!(error.part, Part::Header(_)), "{error}");
    }
    let error =
        Policy::compile(&Spec { public: vec![requests(&["GET"], &[])], ..Spec::default() }).unwrap_err();
    assert_eq!(error.part, Part::Public(1));
}

#[test]
fn extra_headers_say_what_can_stand_in_one() {
    let world = World::new();
    let value = |text: &str| Expression::text(text).unwrap().header_value(&world.facts());
    assert_eq!(value("user.username + '@corp'").unwrap(), "ada@corp");
    assert_eq!(value("user.groups.filter(g, g.startsWith('ad')).join(',')").unwrap(), "admins");
    assert_eq!(value("'admins' in user.groups ? 'Admin' : 'Viewer'").unwrap(), "Admin");
    assert_eq!(value("user.email.lowerAscii() + string(size(user.groups))").unwrap(), "ada@example.org2");
    assert_eq!(value("'a\\r\\nset-cookie: x'"), Err(EvaluationFault::HeaderValue));
    assert_eq!(value("has(user.attributes.x) ? user.attributes.x : ''").unwrap(), "");
}

#[test]
fn paths_without_sign_in_are_those_and_no_others() {
    let spec = Spec { public: vec![requests(&[], &["/public/*", "/health"])], ..Spec::default() };
    let policy = Policy::compile(&spec).unwrap();
    let open = |method: &str, target: &str| policy.is_public(method, CanonicalPath::parse(target).as_ref());
    assert!(open("GET", "/public/a") && open("HEAD", "/health") && open("GET", "/%70ublic/a?x=/../"));
    for target in [
        "/public",
        "/private",
        "/public/../admin",
        "/public/%2e%2e/admin",
        "//public/a",
        "/public//a",
        "/public/..;/admin",
        "/public/#x",
        "/x?/public/a",
        "/Public/a",
        "/public%2fa",
    ] {
        assert!(!open("GET", target), "{target}");
    }
    assert!(
        !open("POST", "/public/a") && !open("UNTOLD", "/public/a"),
        "only what reads, unless the rule says otherwise"
    );
}

/// The result of the `cel` crate's own interpreter, over the same facts.
fn oracle(text: &str, world: &World) -> Option<bool> {
    use cel::{Context, Program, Value};
    let program = Program::compile(text).ok()?;
    let mut context = Context::default();
    let map = |pairs: Vec<(&str, Value)>| {
        let pairs: std::collections::HashMap<String, Value> =
            pairs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        Value::from(pairs)
    };
    let list = |items: Vec<&str>| Value::from(items.into_iter().map(Value::from).collect::<Vec<_>>());
    let attributes = map(vec![("team", "engine".into())]);
    let user = map(vec![
        ("username", "ada".into()),
        ("email_verified", true.into()),
        ("groups", list(world.ada.group_names())),
        ("attributes", attributes),
    ]);
    context.add_variable_from_value("user", user);
    context.add_variable_from_value(
        "session",
        map(vec![("age", Value::Int(600)), ("amr", list(vec!["pwd", "otp"]))]),
    );
    context
        .add_variable_from_value("request", map(vec![("path", "/docs/a".into()), ("method", "GET".into())]));
    context.add_variable_from_value("now", Value::Int(i64::try_from(NOW_MS / 1_000).unwrap()));
    match program.execute(&context) {
        Ok(Value::Bool(value)) => Some(value),
        _ => None,
    }
}

fn number() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (-3_i64..5).prop_map(|n| n.to_string()),
        Just("session.age".to_owned()),
        Just("size(user.groups)".to_owned()),
        Just("user.username.size()".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        (inner.clone(), prop_oneof![Just("+"), Just("-"), Just("*"), Just("/"), Just("%")], inner)
            .prop_map(|(a, op, b)| format!("({a} {op} {b})"))
    })
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop_oneof![Just("''"), Just("'staff'"), Just("'a'"), Just("'/docs/'"), Just("'GET'")]
            .prop_map(str::to_owned),
        Just("user.username".to_owned()),
        Just("request.path".to_owned()),
        Just("user.attributes.team".to_owned()),
        Just("user.attributes['team']".to_owned()),
        (0_usize..3).prop_map(|n| format!("user.groups[{n}]")),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    let compare = || prop_oneof![Just("=="), Just("!="), Just("<"), Just("<="), Just(">"), Just(">=")];
    let leaf = prop_oneof![
        Just("true".to_owned()),
        Just("user.email_verified".to_owned()),
        Just("has(user.attributes.team)".to_owned()),
        Just("has(user.attributes.nothing)".to_owned()),
        Just("'team' in user.attributes".to_owned()),
        (number(), compare(), number()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (text(), compare(), text()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (text(), prop_oneof![Just("startsWith"), Just("endsWith"), Just("contains")], text())
            .prop_map(|(a, f, b)| format!("{a}.{f}({b})")),
        text().prop_map(|a| format!("{a} in user.groups")),
        (text(), text(), text()).prop_map(|(a, b, c)| format!("{a} in [{b}, {c}]")),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (prop_oneof![Just("all"), Just("exists"), Just("exists_one")], inner.clone())
                .prop_map(|(m, a)| format!("user.groups.{m}(g, g == 'staff' && {a})")),
            inner.prop_map(|a| format!("size(session.amr.filter(m, m != 'otp' || {a})) > 1")),
        ]
    })
}

/// True if several such expressions fit into one policy.
fn small(text: &str) -> bool {
    Expression::condition(text).is_ok_and(|expression| expression.cost() < limits::MAX_COST / 32)
}

fn any_row() -> impl Strategy<Value = Row> {
    let condition = prop_oneof![
        Just(Condition::Everyone),
        (0_u8..3).prop_map(|n| Condition::User(vec![id(n)])),
        (0_u8..4).prop_map(|n| Condition::Group(vec![id(n)])),
        Just(Condition::Network(vec!["10.0.0.0/8".into()])),
        Just(Condition::Country(vec!["FR".into()])),
        Just(Condition::MfaWithin(1)),
        condition().prop_filter("small", |text| small(text)).prop_map(Condition::Expression),
    ];
    let effect = prop_oneof![Just(RowEffect::Allow), Just(RowEffect::Deny)];
    (effect, prop::collection::vec(condition.clone(), 1..3), prop::collection::vec(condition, 0..2))
        .prop_map(|(effect, when, unless)| Row { effect, when, unless })
}

fn any_mode() -> impl Strategy<Value = MatchMode> {
    prop_oneof![Just(MatchMode::FirstMatch), Just(MatchMode::Any), Just(MatchMode::All)]
}

/// True if a row matches, found by a policy of that row alone. None if that cannot be decided.
fn matches(row: &Row, world: &World) -> Option<bool> {
    let alone = policy(MatchMode::FirstMatch, vec![Row { effect: RowEffect::Allow, ..row.clone() }]);
    let verdict = alone.decide(&world.facts());
    (!matches!(verdict.reason, Reason::Fault(_))).then_some(verdict.allowed)
}

/// A naive implementation of the three modes.
fn naive(mode: MatchMode, rows: &[Row], world: &World) -> bool {
    let matched: Vec<(RowEffect, Option<bool>)> =
        rows.iter().map(|row| (row.effect, matches(row, world))).collect();
    let decided = |until: usize| matched[..until].iter().all(|(_, m)| m.is_some());
    match mode {
        MatchMode::FirstMatch => matched
            .iter()
            .position(|(_, m)| *m != Some(false))
            .is_some_and(|at| matched[at] == (RowEffect::Allow, Some(true)) && decided(at)),
        MatchMode::Any | MatchMode::All => {
            let vetoed = matched.iter().any(|(effect, m)| *effect == RowEffect::Deny && *m == Some(true));
            let mut allows = matched
                .iter()
                .filter(|(effect, _)| *effect == RowEffect::Allow)
                .map(|(_, m)| *m == Some(true))
                .peekable();
            let some = allows.peek().is_some();
            let enough =
                if mode == MatchMode::Any { allows.any(|yes| yes) } else { some && allows.all(|yes| yes) };
            decided(matched.len()) && !vetoed && enough
        }
    }
}

proptest! {
    #[test]
    fn a_value_is_the_one_that_cel_itself_gives(text in condition()) {
        let world = World::new();
        let ours = match Expression::condition(&text) {
            Ok(expression) => expression,
            Err(ExpressionError::TooLarge(_)) => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(format!("{text}: {error}"))),
        };
        if let Ok(value) = ours.holds(&world.facts()) {
            prop_assert_eq!(Some(value), oracle(&text, &world), "{}", text);
        }
        prop_assert!(ours.steps(&world.facts()) <= ours.cost());
    }

    #[test]
    fn the_modes_agree_with_the_naive_reading(mode in any_mode(), rows in prop::collection::vec(any_row(), 0..6)) {
        let world = World::new();
        let policy = policy(mode, rows.clone());
        let verdict = policy.decide(&world.facts());
        prop_assert_eq!(verdict.allowed, naive(mode, &rows, &world), "{:?}", verdict);
        prop_assert_eq!(verdict, policy.decide(&world.facts()), "the same facts, the same verdict");
        if rows.iter().all(|row| row.effect == RowEffect::Deny) {
            prop_assert!(!verdict.allowed, "denied by default");
        }
    }

    #[test]
    fn one_more_row_that_denies_never_admits_more(
        mode in any_mode(), rows in prop::collection::vec(any_row(), 0..6), first in any_row(),
    ) {
        let world = World::new();
        let before = policy(mode, rows.clone()).decide(&world.facts());
        let first = Row { effect: RowEffect::Deny, ..first };
        let after = policy(mode, std::iter::once(first).chain(rows).collect()).decide(&world.facts());
        prop_assert!(before.allowed || !after.allowed);
    }

    #[test]
    fn nothing_that_can_be_typed_breaks_the_compiler(text in "[a-z0-9.()\\[\\]{}!?:&|<>=+*/%'\" -]{0,200}") {
        drop(Expression::condition(&text));
    }
}

#[test]
fn hostile_expressions_are_refused_at_once() {
    let deep = |open: &str, close: &str, n: usize| format!("{}true{}", open.repeat(n), close.repeat(n));
    let nested =
        |depth: usize| (0..depth).fold("true".to_owned(), |body, n| format!("user.groups.all(g{n}, {body})"));
    let long_list = format!("1 in [{}]", vec!["1"; 900].join(","));
    let hostile = [
        deep("(", ")", 1_000),
        deep("[", "]", 900),
        format!("{}true", "!".repeat(2_000)),
        format!("{}1 == 1", "-".repeat(2_000)),
        vec!["true"; 380].join("?true:"),
        vec!["true"; 300].join("||") + &" && true".repeat(100),
        format!("user{}", ".a".repeat(1_000)),
        nested(3),
        nested(8),
        long_list,
        "request.path".to_owned() + &" + request.path".repeat(100) + " == ''",
        "user.groups.all(a, user.groups.all(b, user.groups.all(c, a + b == c)))".into(),
        "'".repeat(2_000),
        "x".repeat(1 << 20),
    ];
    for text in hostile {
        let began = Instant::now();
        let shown: String = text.chars().take(60).collect();
        assert!(Expression::condition(&text).is_err(), "{shown}");
        assert!(began.elapsed().as_millis() < 2_000, "{shown}: {:?}", began.elapsed());
    }
}

#[test]
fn the_worst_that_compiles_is_bounded_in_steps_and_in_time() {
    let mut world = World::new();
    world.ada.groups =
        (0..limits::MAX_LIST).map(|n| (id(1), format!("group-{n:03}-{}", "x".repeat(40)))).collect();
    let worst = [
        "user.groups.all(a, user.groups.all(b, true))",
        "user.groups.all(a, a.contains('nowhere') || a in user.groups)",
        "user.groups.filter(a, a.endsWith('x')).all(a, !a.startsWith('q'))",
        "user.groups.join('-').contains('zzz')",
        "user.groups.exists(a, user.groups.join(a) == a)",
    ];
    let mut compiled = 0;
    for text in worst {
        let Ok(expression) = Expression::condition(text) else { continue };
        compiled += 1;
        let began = Instant::now();
        let steps = expression.steps(&world.facts());
        assert!(steps <= expression.cost() && expression.cost() <= limits::MAX_COST, "{text}: {steps}");
        assert!(began.elapsed().as_millis() < 500, "{text}: {:?}", began.elapsed());
    }
    assert!(compiled >= 2, "there is something to look at");
    // A list that is longer than the computed bound is a fault, not more work.
    world.ada.groups.push((id(1), "one more".into()));
    assert_eq!(
        Expression::condition("'a' in user.groups").unwrap().holds(&world.facts()),
        Err(EvaluationFault::TooLong("the list of groups"))
    );
}

#[test]
fn a_claim_is_about_a_person_and_of_any_type() {
    use conclave_policy::Expression;
    for good in [
        "user.groups",
        "now",
        "user.email_verified",
        "session.amr",
        "user.attributes.x + '!'",
        "size(user.groups)",
    ] {
        assert!(Expression::claim(good).is_ok(), "{good}");
    }
    for bad in
        ["request.path", "request.address == ''", "geo.country", "has(geo.asn)", "user.password", "", "1.5"]
    {
        assert!(Expression::claim(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_claim_may_be_a_map_whose_keys_are_written_out() {
    use std::collections::BTreeMap;

    use conclave_policy::{ClaimValue, Expression};
    let world = World::new();
    let text =
        r#"{"roles": user.groups, "of": {"staff": user.groups.exists(g, g == 'staff'), "nobody": {}}}"#;
    let expression = Expression::claim(text).unwrap();
    let ClaimValue::Map(map) = expression.claim_value(&world.facts()).unwrap() else { panic!("{text}") };
    assert!(matches!(&map["roles"], ClaimValue::List(groups) if !groups.is_empty()), "{map:?}");
    let ClaimValue::Map(of) = &map["of"] else { panic!("{map:?}") };
    assert!(matches!(of["staff"], ClaimValue::Bool(_)));
    assert_eq!(of["nobody"], ClaimValue::Map(BTreeMap::new()));
    assert!(expression.steps(&world.facts()) <= expression.cost());

    for bad in [
        "{user.name: 1}",
        "{1: 'a'}",
        "{'a': 1, 'a': 2}",
        "{'a': user}",
        "{'a': user.attributes}",
        "{'a': request.path}",
        "{'a': 1}['a']",
        "{'a': 1} == {'a': 1}",
        "'a' in {'a': 1}",
        "size({'a': 1})",
        "[{'a': 1}, {'a': 2}]",
        "user",
        "user.attributes",
    ] {
        assert!(Expression::claim(bad).is_err(), "{bad}");
    }
    assert!(Expression::condition("{'a': true}").is_err() && Expression::text("{'a': 'b'}").is_err());
}

#[test]
fn asking_whether_a_list_is_there_costs_what_it_is_said_to_cost() {
    let mut world = World::new();
    // Longer than a policy reads: reading it would be a fault.
    world.ada.groups = (0..=limits::MAX_LIST).map(|n| (id(1), format!("g{n}"))).collect();
    let groups = Expression::condition("has(user.groups)").unwrap();
    assert_eq!(groups.holds(&world.facts()), Ok(true), "it is not gathered");
    let methods = Expression::condition("has(session.amr)").unwrap();
    assert_eq!(methods.holds(&world.facts()), Ok(true));
    let nobody = Facts { sign_in: None, ..world.facts() };
    assert_eq!(methods.holds(&nobody), Err(EvaluationFault::Unknown("the session")));
}

#[test]
fn a_did_and_a_handle_are_asked_for_by_name_and_a_handle_that_is_not_verified_lets_nobody_in() {
    let mut world = World::new();
    let holds = |world: &World, text: &str| Expression::condition(text).unwrap().holds(&world.facts());
    for text in [
        "user.atproto.did == 'did:plc:ewvi7nxzyoun6zhxrhs64oiz'",
        "user.atproto.handle.endsWith('.corp.test')",
        "has(user.atproto.handle) && has(user.atproto.did)",
    ] {
        assert_eq!(holds(&world, text), Ok(true), "{text}");
    }
    world.ada.handle = None;
    assert_eq!(holds(&world, "has(user.atproto.handle)"), Ok(false));
    assert_eq!(
        holds(&world, "user.atproto.handle.endsWith('')"),
        Err(EvaluationFault::Unknown("the handle"))
    );
    for bad in ["user.atproto == ''", "user.atproto.pds == ''", "has(user.atproto)", "atproto.did == ''"] {
        assert!(Expression::condition(bad).is_err(), "{bad}");
    }
}
