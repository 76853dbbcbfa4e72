//! The rules behind the forward-auth check: hosts and wildcards, app sessions of a whole domain, app passwords.

use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{
    Class, Reason, Stamp,
    application::{HeaderProfile, HeaderText, IdentityHeaders},
    ids::{AppPasswordId, AppSessionId, SessionId},
    snapshot::{Loader, chunks},
};

use crate::world::*;

fn hosts(n: u8, hosts: &[&str]) -> Body {
    Body::UpdateApplication(pb::UpdateApplication {
        application_id: application(n),
        hosts: Some(pb::Hosts {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            ..Default::default()
        }),
        ..Default::default()
    })
}

#[test]
fn a_host_belongs_to_its_name_or_to_the_longest_wildcard_above_it() {
    let mut world = World::seeded();
    world.ok(create_application(2, &[]));
    world.ok(create_application(3, &[]));
    world.ok(hosts(1, &["*.example.org", "www.example.net"]));
    world.ok(hosts(2, &["*.lab.example.org", "Wiki.Example.org"]));
    world.ok(hosts(3, &["xn--bcher-kva.example"]));
    let owner = |host: &str| world.state.application_by_host(host).map(|found| found.slug.to_string());
    for (host, slug) in [
        ("a.example.org", "app1"),
        ("a.b.example.org", "app1"),
        ("wiki.example.org", "app2"),
        ("lab.example.org", "app1"),
        ("x.lab.example.org", "app2"),
        ("x.y.lab.example.org", "app2"),
        ("www.example.net", "app1"),
        ("xn--bcher-kva.example", "app3"),
    ] {
        assert_eq!(owner(host).as_deref(), Some(slug), "{host}");
    }
    for host in [
        "example.org",
        "evilexample.org",
        "example.org.evil.test",
        "a.example.org.",
        ".example.org",
        "a..example.org",
        "*.example.com",
        "example.net",
        "",
        ".",
        "bücher.example",
    ] {
        assert_eq!(owner(host), None, "{host}");
    }
    for bad in [
        "*",
        "*.org",
        "*.*.example.org",
        "a.*.example.org",
        "*example.org",
        "*..org",
        "*.a..b",
        "bücher.example",
    ] {
        assert_eq!(world.refused(hosts(3, &[bad])), Reason::Malformed, "{bad}");
    }
    assert_eq!(world.refused(hosts(3, &["*.example.org"])), Reason::HostTaken);
}

#[test]
fn an_arm_of_a_domain_counts_below_it_and_nowhere_else() {
    let mut world = World::seeded();
    world.ok(hosts(1, &["*.example.org", "app1.test"]));
    world.signed_in(1, &["openid"]);
    let app_session = |world: &World, n: u8, host: &str, domain: &str| {
        Body::OpenAppSession(pb::OpenAppSession {
            app_session_id: id(8, n),
            session_id: session(1),
            secret_hash: hash(3),
            host: host.into(),
            ticket_id: ticket(n + 90),
            ticket_expires_at_ms: world.now + MINUTE,
            domain: domain.into(),
        })
    };
    let command = app_session(&world, 1, "Wiki.example.org", "example.org");
    world.ok(command);
    let command = app_session(&world, 2, "wiki.example.org", "");
    world.ok(command);
    let found = |n: u8| world.state.app_session(AppSessionId::new(id(8, n).try_into().unwrap())).unwrap();
    for host in ["wiki.example.org", "other.example.org", "a.b.example.org", "example.org"] {
        assert!(found(1).counts_on(host), "{host}");
        assert_eq!(found(2).counts_on(host), host == "wiki.example.org");
    }
    for host in ["evilexample.org", "example.org.evil.test", "app1.test", "org", "", "wiki.example.org."] {
        assert!(!found(1).counts_on(host), "{host}");
    }
    for (host, domain) in [
        ("wiki.example.org", "org"),
        ("wiki.example.org", "iki.example.org"),
        ("wiki.example.org", "example.net"),
        ("wiki.example.org", ".example.org"),
        ("app1.test", "example.org"),
    ] {
        let command = app_session(&world, 3, host, domain);
        assert_eq!(world.refused(command), Reason::Malformed, "{host} {domain}");
    }
}

fn create(n: u8, user_id: Vec<u8>, application_id: Vec<u8>, ttl_ms: u64) -> Body {
    Body::CreateAppPassword(pb::CreateAppPassword {
        secret_id: Vec::new(),
        app_password_id: id(12, n),
        user_id,
        application_id,
        name: "phone".into(),
        secret_hash: hash(n),
        ttl_ms,
    })
}

fn live(world: &World, n: u8) -> bool {
    let id = AppPasswordId::new(id(12, n).try_into().unwrap());
    world.state.live_app_password(id, Stamp(world.now)).is_some()
}

#[test]
fn an_app_password_ends_with_its_person_its_application_its_time_or_by_a_word() {
    let mut world = World::seeded();
    world.ok(create_application(2, &[]));
    for (n, user_id, application_id, ttl) in [
        (1, user(1), vec![], 0),
        (2, user(1), application(2), 0),
        (3, user(1), vec![], MINUTE),
        (4, user(1), vec![], 0),
        (5, user(2), vec![], 0),
    ] {
        world.ok(create(n, user_id, application_id, ttl));
    }
    assert_eq!(world.refused(create(1, user(1), vec![], 0)), Reason::AlreadyExists);
    assert_eq!(world.refused(create(9, user(77), vec![], 0)), Reason::UserUnknown);
    assert_eq!(world.refused(create(9, user(1), application(77), 0)), Reason::ApplicationUnknown);
    assert!((1..=5).all(|n| live(&world, n)));

    let revoke = Body::RevokeAppPassword(pb::RevokeAppPassword { app_password_id: id(12, 1) });
    assert_eq!(conclave_state::class::class(&revoke), Class::Revocation);
    world.ok(revoke.clone());
    assert_eq!(world.refused(revoke), Reason::TokenUnknown);
    world.ok(Body::DeleteApplication(pb::DeleteApplication { application_id: application(2) }));
    world.now += 2 * MINUTE;
    assert_eq!([1, 2, 3, 4, 5].map(|n| live(&world, n)), [false, false, false, true, true]);
    let disable = pb::UpdateUser { user_id: user(2), disabled: Some(true), ..Default::default() };
    world.ok(Body::UpdateUser(disable));
    world.ok(Body::DeleteUser(pb::DeleteUser { user_id: user(1) }));
    assert!((1..=5).all(|n| !live(&world, n)));
}

#[test]
fn nobody_has_more_app_passwords_than_a_house_has_programs() {
    let mut world = World::seeded();
    for n in 1..=64 {
        world.ok(create(n, user(1), vec![], 0));
    }
    assert_eq!(world.refused(create(65, user(1), vec![], 0)), Reason::Malformed);
    world.ok(create(66, user(2), vec![], 0));
}

#[test]
fn what_ends_a_persons_access_by_another_hand_ends_the_passwords_of_programs() {
    let phc = "$argon2id$v=19$m=19456,t=2,p=1$bmV3$bmV3";
    let of = |u| (user(u), phc.to_owned(), true);
    let (user_id, password_phc, keep_sessions) = of(1);
    let set = Body::SetPassword(pb::SetPassword { user_id, password_phc, keep_sessions: !keep_sessions });
    let (user_id, password_phc, keep_sessions) = of(1);
    let reset = Body::ResetPassword(pb::ResetPassword { user_id, password_phc, keep_sessions });
    let sign_out =
        Body::RevokeUserSessions(pb::RevokeUserSessions { user_id: user(1), ..Default::default() });
    let everything = Body::RevokeUserAccess(pb::RevokeUserAccess { user_id: user(1) });
    for (command, lives, session_lives) in
        [(set, true, false), (reset, false, true), (sign_out, true, false), (everything, false, false)]
    {
        let mut world = World::seeded();
        world.signed_in(1, &["openid"]);
        world.ok(create(1, user(1), vec![], 0));
        world.ok(create(2, user(2), vec![], 0));
        assert_eq!(conclave_state::class::class(&command), Class::Revocation);
        world.ok(command.clone());
        assert_eq!((live(&world, 1), live(&world, 2)), (lives, true), "{command:?}");
        let session = SessionId::new(session(1).try_into().unwrap());
        assert_eq!(
            world.state.live_session(session, Stamp(world.now)).is_some(),
            session_lives,
            "{command:?}"
        );
    }
    let mut world = World::seeded();
    let nobody = Body::RevokeUserAccess(pb::RevokeUserAccess { user_id: user(77) });
    assert_eq!(world.refused(nobody), Reason::UserUnknown);
    let nobody = pb::ResetPassword { user_id: user(77), password_phc: phc.into(), keep_sessions: false };
    assert_eq!(world.refused(Body::ResetPassword(nobody)), Reason::UserUnknown);
}

#[test]
fn app_passwords_of_an_earlier_revocation_epoch_are_dead_and_take_no_place() {
    let mut world = World::seeded();
    for n in 1..=64 {
        world.ok(create(n, user(1), vec![], 0));
    }
    world.ok(Body::RaiseRevocationEpoch(pb::RaiseRevocationEpoch {}));
    assert!((1..=64).all(|n| !live(&world, n)));
    world.ok(create(65, user(1), vec![], 0));
    assert!(live(&world, 65) && !live(&world, 64));
    assert_eq!(world.state.app_passwords_after(None).count(), 1, "the dead leave when there is a new one");
    let mut loader = Loader::default();
    for (table, chunk) in chunks(&world.state) {
        loader.chunk(table, &chunk).unwrap();
    }
    world.state = loader.finish();
    assert!(live(&world, 65), "a snapshot keeps the epoch");
    world.ok(Body::RaiseRevocationEpoch(pb::RaiseRevocationEpoch {}));
    assert!(!live(&world, 65));
}

fn identity_headers(n: u8, profile: pb::HeaderProfile, text: pb::HeaderText) -> Body {
    Body::UpdateApplication(pb::UpdateApplication {
        application_id: application(n),
        identity_headers: Some(pb::IdentityHeaders { profile: profile.into(), text: text.into() }),
        ..Default::default()
    })
}

#[test]
fn an_application_keeps_the_headers_that_a_command_does_not_name() {
    let mut world = World::seeded();
    let chosen = |world: &World| world.state.application_by_slug("app1").unwrap().identity_headers;
    assert_eq!(chosen(&world), IdentityHeaders::default(), "an entry from before there was a choice");
    assert_eq!(chosen(&world).profile, HeaderProfile::All);
    world.ok(identity_headers(1, pb::HeaderProfile::Remote, pb::HeaderText::Unspecified));
    world.ok(identity_headers(1, pb::HeaderProfile::Unspecified, pb::HeaderText::Percent));
    let both = IdentityHeaders { profile: HeaderProfile::Remote, text: HeaderText::Percent };
    assert_eq!(chosen(&world), both);
    world.ok(hosts(1, &["other.test"]));
    assert_eq!(chosen(&world), both);
    world.ok(identity_headers(1, pb::HeaderProfile::All, pb::HeaderText::Raw));
    assert_eq!(chosen(&world), IdentityHeaders::default());
    let unknown = pb::IdentityHeaders { profile: 99, text: 0 };
    let command = pb::UpdateApplication {
        application_id: application(1),
        identity_headers: Some(unknown),
        ..Default::default()
    };
    assert_eq!(world.refused(Body::UpdateApplication(command)), Reason::Malformed);
}

#[test]
fn a_host_may_be_an_ipv6_address_in_its_one_form() {
    let mut world = World::seeded();
    let addresses = |addresses: &[&str]| {
        let address_hosts = addresses.iter().map(|host| (*host).to_owned()).collect();
        Body::UpdateApplication(pb::UpdateApplication {
            application_id: application(1),
            hosts: Some(pb::Hosts { hosts: vec!["app1.test".into()], address_hosts }),
            ..Default::default()
        })
    };
    world.ok(addresses(&["[2001:db8::7]", "[::1]"]));
    let owner = |host: &str| world.state.application_by_host(host).map(|found| found.slug.to_string());
    assert_eq!(owner("[2001:db8::7]").as_deref(), Some("app1"));
    assert_eq!(owner("app1.test").as_deref(), Some("app1"));
    for bad in
        ["[2001:DB8::7]", "2001:db8::7", "[2001:db8:0::7]", "[::1]:443", "[app1.test]", "[]", "app2.test"]
    {
        assert_eq!(world.refused(addresses(&[bad])), Reason::Malformed, "{bad}");
    }
    // As a name it is still refused, as entries of earlier versions had it.
    assert_eq!(world.refused(hosts(1, &["[2001:db8::7]"])), Reason::Malformed);
}
