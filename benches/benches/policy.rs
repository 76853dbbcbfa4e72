//! The evaluator alone: a decision by a group row, by a row with an expression, and by the slowest policies that
//! compile.

#![expect(clippy::expect_used, reason = "a bench that cannot set itself up has failed")]

use std::{hint::black_box, net::Ipv4Addr};

use conclave_policy::{
    AddressFacts, CanonicalPath, Condition, Facts, Id, Lookup, MatchMode, Policy, PolicyUser, Request, Row,
    RowEffect, SignIn, Spec,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const NOW_MS: u64 = 1_800_000_000_000;

struct Ada {
    groups: Vec<(Id, String)>,
}

impl PolicyUser for Ada {
    fn is_disabled(&self) -> bool {
        false
    }
    fn id(&self) -> Id {
        [1; 16]
    }
    fn is_in(&self, group: &Id) -> bool {
        self.groups.iter().any(|(known, _)| known == group)
    }
    fn username(&self) -> &'static str {
        "ada"
    }
    fn display_name(&self) -> &'static str {
        "Ada"
    }
    fn email(&self) -> &'static str {
        "ada@example.org"
    }
    fn email_verified(&self) -> bool {
        true
    }
    fn group_names(&self) -> Vec<&str> {
        self.groups.iter().map(|(_, name)| name.as_str()).collect()
    }
    fn atproto_did(&self) -> Option<&str> {
        None
    }
    fn atproto_handle(&self) -> Option<&str> {
        None
    }
    fn attribute(&self, name: &str) -> Option<&str> {
        (name == "team").then_some("engine")
    }
}

fn in_groups(count: u8) -> Ada {
    Ada { groups: (0..count).map(|n| ([n; 16], format!("group-{n:03}"))).collect() }
}

fn policy(condition: Condition) -> Policy {
    let row = |effect, when| Row { effect, when: vec![when], unless: Vec::new() };
    let rows = vec![row(RowEffect::Deny, Condition::User(vec![[9; 16]])), row(RowEffect::Allow, condition)];
    Policy::compile(&Spec { mode: MatchMode::FirstMatch, rows, ..Spec::default() }).expect("a good policy")
}

fn decisions(c: &mut Criterion) {
    let (few, many) = (in_groups(5), in_groups(u8::MAX));
    let path = CanonicalPath::parse("/docs/a");
    let facts = |person| Facts {
        person,
        address: Some(Ipv4Addr::new(10, 1, 2, 3).into()),
        request: Some(Request { method: Some("GET"), host: "wiki.test", path: path.as_ref() }),
        sign_in: Some(SignIn { at_ms: NOW_MS - 60_000, mfa_at_ms: None, methods: &[] }),
        place: AddressFacts { country: Lookup::Known("DE"), asn: Lookup::Absent },
        now_ms: NOW_MS,
    };
    let expression = |text: &str| policy(Condition::Expression(text.into()));
    let cases = [
        ("group", policy(Condition::Group(vec![[4; 16]])), &few),
        (
            "expression",
            expression(
                "'group-004' in user.groups && request.path.startsWith('/docs/') && session.age < 3600",
            ),
            &few,
        ),
        ("worst/nested_macros", expression("user.groups.all(a, user.groups.all(b, true))"), &many),
        ("worst/joins", expression("!user.groups.exists(a, user.groups.join(a) == a)"), &many),
    ];
    let mut group = c.benchmark_group("policy");
    group.throughput(Throughput::Elements(1));
    for (name, policy, person) in &cases {
        let facts = facts(*person);
        assert!(policy.decide(&facts).allowed, "{name}");
        group.bench_function(*name, |b| b.iter(|| black_box(policy.decide(black_box(&facts)))));
    }
    group.finish();
}

criterion_group!(policies, decisions);
criterion_main!(policies);
