//! Other providers: the users that they admit, the accounts of those users, and what ends with a provider.

use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{
    Reason, ReplyBody,
    ids::{SessionId, UserId},
};

use crate::world::*;

fn user_id(n: u8) -> UserId {
    UserId::parse(&user(n)).expect("16 bytes")
}

fn world() -> World {
    let mut world = World::seeded();
    world.ok(create_provider("corp", false, &[]));
    world
}

fn upstream(change: impl FnOnce(&mut pb::UpdateUpstream)) -> Body {
    let mut command = pb::UpdateUpstream { name: "corp".into(), ..Default::default() };
    change(&mut command);
    Body::UpdateUpstream(command)
}

impl World {
    fn admits(&mut self, rule: pb::UpstreamRule) {
        let command = upstream(|command| command.rule = Some(rule));
        self.ok(command);
    }

    /// User 1 signs in with the password as session `n` and links `sub`.
    fn linked(&mut self, n: u8, sub: u8) {
        let start = self.start(n, 1, None);
        self.ok(Body::StartSession(start));
        let ends = self.now + MINUTE;
        self.ok(link(100 + n, n, sub, ends));
    }

    fn is_live(&self, n: u8) -> bool {
        let id = SessionId::parse(&session(n)).expect("16 bytes");
        self.state.live_session(id, self.state.meta().clock).is_some()
    }

    fn comes(&self, number: u8, sub: u8, new: Option<u8>) -> Body {
        Body::SignInUpstream(sign_in(number, sub, new, 1, self.now))
    }
}

#[test]
fn a_linked_identity_signs_its_person_in_once_for_each_ticket() {
    let mut world = world();
    assert_eq!(world.refused(world.comes(30, 1, None)), Reason::IdentityUnknown);
    world.linked(1, 1);
    assert!(matches!(world.ok(world.comes(30, 1, None)), ReplyBody::SessionStarted(_)));
    assert_eq!(world.refused(world.comes(30, 1, None)), Reason::TicketSpent);
    let (session, owner) = {
        let id = SessionId::parse(&session(30)).unwrap();
        let (session, owner) = world.state.live_session(id, world.state.meta().clock).unwrap();
        (session.clone(), owner.clone())
    };
    assert_eq!((owner.id, &*session.upstream), (user_id(1), "corp"));
    // Access for the session was decided for another user than the identity's.
    let mut command = sign_in(31, 1, None, 2, world.now);
    assert_eq!(world.refused(Body::SignInUpstream(command.clone())), Reason::CredentialChanged);
    // A provider whose clock is ahead cannot make an authentication later than now.
    command = sign_in(32, 1, None, 1, world.now);
    command.authenticated_at_ms = world.now + 60 * MINUTE;
    world.ok(Body::SignInUpstream(command));
    let id = SessionId::parse(&crate::world::session(32)).unwrap();
    assert_eq!(world.state.live_session(id, world.state.meta().clock).unwrap().0.auth_time.0, world.now);
}

#[test]
fn an_identity_belongs_to_one_person_and_a_person_has_one_at_a_provider() {
    let mut world = world();
    world.linked(1, 1);
    let (other, ends) = (world.start(2, 2, None), world.now + MINUTE);
    world.ok(Body::StartSession(other));
    assert_eq!(world.refused(link(50, 2, 1, ends)), Reason::IdentityTaken);
    assert_eq!(world.refused(link(51, 1, 2, ends)), Reason::AlreadyExists);
    world.ok(link(52, 1, 1, ends));
    assert_eq!(world.refused(link(52, 2, 2, ends)), Reason::TicketSpent);
}

#[test]
fn linking_and_unlinking_need_a_session_in_which_somebody_just_proved_who_they_are() {
    let mut world = world();
    let start = world.start(1, 1, None);
    world.ok(Body::StartSession(start));
    world.now += 10 * MINUTE;
    let ends = world.now + MINUTE;
    assert_eq!(world.refused(link(50, 1, 1, ends)), Reason::SessionTooOld);
    assert_eq!(world.refused(link(50, 9, 1, ends)), Reason::SessionUnknown);
    world.linked(2, 1);
    let unlink = |s: u8, u: u8| {
        Body::UnlinkIdentity(pb::UnlinkIdentity {
            upstream: "corp".into(),
            user_id: user(u),
            session_id: session(s),
            max_age_ms: 10 * MINUTE,
        })
    };
    assert_eq!(world.refused(unlink(1, 1)), Reason::SessionTooOld);
    assert_eq!(world.refused(unlink(2, 2)), Reason::IdentityUnknown);
    world.ok(world.comes(30, 1, None));
    world.ok(unlink(2, 1));
    assert!(!world.is_live(30), "the sessions of the identity have ended");
    assert!(world.is_live(2));
    assert_eq!(world.refused(world.comes(31, 1, None)), Reason::IdentityUnknown);
}

#[test]
fn somebody_new_comes_in_only_as_the_rule_says_and_with_its_groups_only() {
    let mut world = world();
    assert_eq!(world.refused(world.comes(30, 1, Some(40))), Reason::NotAdmitted);
    assert!(world.state.user(user_id(40)).is_none());
    let domains = |domain: &str| pb::UpstreamRule {
        admission: pb::UpstreamAdmission::Domains.into(),
        domains: vec![domain.into()],
        group_ids: vec![group(1)],
        ..Default::default()
    };
    for other in ["other.test", "p.test", "sub.corp.test"] {
        world.admits(domains(other));
        assert_eq!(world.refused(world.comes(30, 1, Some(40))), Reason::NotAdmitted, "{other}");
    }
    world.admits(domains("corp.test"));
    let mut unverified = sign_in(30, 1, Some(40), 1, world.now);
    if let Some(new) = &mut unverified.new_user {
        new.email_verified = false;
    }
    assert_eq!(world.refused(Body::SignInUpstream(unverified)), Reason::NotAdmitted);
    world.ok(world.comes(30, 1, Some(40)));
    let made = world.state.user(user_id(40)).unwrap();
    assert_eq!(made.groups.iter().map(|g| g.to_vec()).collect::<Vec<_>>(), [group(1)]);
    assert!(world.state.password(user_id(40)).is_none(), "no password comes with it");
    // Known from here on, whatever the rule is later; and two simultaneous first logins create one user.
    world.admits(rule(false, &[]));
    let back = Body::SignInUpstream(sign_in(31, 1, None, 40, world.now));
    world.ok(back);
    world.ok(world.comes(32, 1, Some(41)));
    assert!(world.state.user(user_id(41)).is_none());
}

#[test]
fn the_only_way_to_sign_in_is_kept_unless_an_operator_takes_it() {
    let mut world = world();
    world.admits(rule(true, &[]));
    world.ok(world.comes(30, 1, Some(40)));
    let unlink = |session_id: Vec<u8>| {
        Body::UnlinkIdentity(pb::UnlinkIdentity {
            upstream: "corp".into(),
            user_id: user(40),
            session_id,
            max_age_ms: 10 * MINUTE,
        })
    };
    assert_eq!(world.refused(unlink(session(30))), Reason::LastSignIn);
    world.ok(unlink(Vec::new()));
    assert!(!world.is_live(30));
}

#[test]
fn a_provider_that_is_disabled_or_deleted_takes_its_sessions_along() {
    let mut world = world();
    world.linked(1, 1);
    world.ok(world.comes(30, 1, None));
    let off = upstream(|command| command.disabled = Some(true));
    world.ok(off);
    assert!(world.is_live(1) && !world.is_live(30));
    assert_eq!(world.refused(world.comes(31, 1, None)), Reason::UpstreamDisabled);
    let on = upstream(|command| command.disabled = Some(false));
    world.ok(on);
    world.ok(world.comes(32, 1, None));
    world.ok(Body::DeleteUpstream(pb::DeleteUpstream { name: "corp".into() }));
    assert!(!world.is_live(32));
    // A new provider of the same name knows no user.
    world.ok(create_provider("corp", false, &[]));
    assert_eq!(world.refused(world.comes(33, 1, None)), Reason::IdentityUnknown);
}

#[test]
fn a_disabled_or_deleted_person_does_not_come_in_by_a_provider() {
    let mut world = world();
    world.linked(1, 1);
    let disabled = |off| pb::UpdateUser { user_id: user(1), disabled: Some(off), ..Default::default() };
    world.ok(Body::UpdateUser(disabled(true)));
    assert_eq!(world.refused(world.comes(30, 1, None)), Reason::UserDisabled);
    world.ok(Body::DeleteUser(pb::DeleteUser { user_id: user(1) }));
    assert_eq!(world.refused(world.comes(30, 1, None)), Reason::IdentityUnknown);
    assert_eq!(world.state.identities_at("corp").count(), 0);
}

#[test]
fn what_a_subject_belongs_to_never_changes() {
    let mut world = world();
    let other = pb::UpstreamClaims { subject: "id".into(), ..Default::default() };
    let command = upstream(|command| command.claims = Some(other));
    assert_eq!(world.refused(command), Reason::Malformed);
    assert_eq!(world.refused(create_provider("corp", true, &[])), Reason::UpstreamNameTaken);
    for (issuer, token) in [("", ""), ("", "https://t.test"), ("https://i.test", "https://t.test")] {
        let upstream =
            pb::Upstream { issuer: issuer.into(), token_endpoint: token.into(), ..provider("other") };
        let command = Body::CreateUpstream(pb::CreateUpstream { upstream: Some(upstream) });
        assert_eq!(world.refused(command), Reason::Malformed);
    }
}
