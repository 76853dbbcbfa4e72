//! Users from the Atmosphere network: a DID identifies a user, a handle is their present name.

use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{
    Reason, State,
    ids::{GroupId, UserId},
};

use crate::world::*;

pub(crate) const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";
pub(crate) const OTHER: &str = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa";

pub(crate) fn world(rule: pb::UpstreamRule) -> World {
    let mut world = World::seeded();
    world.ok(create_group(2));
    world.ok(create_group(3));
    let upstream = pb::Upstream {
        name: "atmosphere".into(),
        display_name: "Atmosphere".into(),
        atmosphere: true,
        rule: Some(rule),
        ..Default::default()
    };
    world.ok(Body::CreateUpstream(pb::CreateUpstream { upstream: Some(upstream) }));
    world
}

pub(crate) fn listed(dids: &[&str], handles: &[&str]) -> pb::UpstreamRule {
    pb::UpstreamRule {
        admission: pb::UpstreamAdmission::Listed.into(),
        dids: dids.iter().map(ToString::to_string).collect(),
        handles: handles.iter().map(ToString::to_string).collect(),
        group_ids: vec![group(1)],
        ..Default::default()
    }
}

/// A sign-in of this DID, which becomes user `user_number` if it is new.
fn comes(world: &World, number: u8, did: &str, handle: &str, user_number: u8) -> pb::SignInUpstream {
    pb::SignInUpstream {
        upstream: "atmosphere".into(),
        subject: did.into(),
        label: handle.into(),
        verified_handle: handle.into(),
        ..sign_in(number, 1, Some(user_number), 1, world.now)
    }
}

fn groups_of(state: &State, n: u8) -> Vec<GroupId> {
    let user = state.user(UserId::parse(&user(n)).unwrap()).expect("the person");
    user.groups.iter().copied().collect()
}

fn group_id(n: u8) -> GroupId {
    GroupId::parse(&group(n)).unwrap()
}

#[test]
fn who_is_listed_by_did_or_by_verified_handle_comes_in() {
    let mut world = world(listed(&[DID], &["*.corp.test", "ada.test"]));
    let mut number = 30;
    let mut come = |world: &mut World, did: &str, handle: &str| {
        number += 1;
        let command = comes(world, number, did, handle, number);
        let reply = world.run(Body::SignInUpstream(command)).body.unwrap();
        !matches!(reply, pb::reply::Body::Refused(_))
    };
    assert!(come(&mut world, DID, ""), "by DID, without a handle");
    for (n, handle, comes_in) in [
        (1, "x.corp.test", true),
        (2, "corp.test", false),
        (3, "evilcorp.test", false),
        (4, "ada.test", true),
        (5, "x.ada.test", false),
        (6, "", false),
    ] {
        let did = format!("did:plc:{n}");
        assert_eq!(come(&mut world, &did, handle), comes_in, "{handle}");
    }
    // An existing user stays, even if the lists change later and the handle belongs to another DID.
    world.ok(Body::UpdateUpstream(pb::UpdateUpstream {
        name: "atmosphere".into(),
        rule: Some(listed(&[], &[])),
        ..Default::default()
    }));
    assert!(come(&mut world, DID, "") && come(&mut world, "did:plc:4", ""));
    assert!(!come(&mut world, "did:plc:7", "ada.test"), "a handle identifies no user");
}

#[test]
fn an_unlisted_rule_brings_in_nobody_and_a_bad_one_is_refused() {
    let mut world = world(listed(&[], &[]));
    assert_eq!(
        world.refused(Body::SignInUpstream(comes(&world, 30, DID, "ada.test", 40))),
        Reason::NotAdmitted
    );
    for bad in [
        listed(&["did:key:z6Mk"], &[]),
        listed(&[], &["*"]),
        listed(&[], &["a*.corp.test"]),
        pb::UpstreamRule {
            admission: pb::UpstreamAdmission::Domains.into(),
            domains: vec!["a.test".into()],
            ..Default::default()
        },
    ] {
        let command = pb::UpdateUpstream { name: "atmosphere".into(), rule: Some(bad), ..Default::default() };
        assert_eq!(world.refused(Body::UpdateUpstream(command)), Reason::Malformed);
    }
    // Other providers do not accept the Atmosphere fields.
    world.ok(create_provider("corp", true, &[]));
    let command =
        pb::UpdateUpstream { name: "corp".into(), rule: Some(listed(&[DID], &[])), ..Default::default() };
    assert_eq!(world.refused(Body::UpdateUpstream(command)), Reason::Malformed);
    let command =
        pb::SignInUpstream { verified_handle: "ada.test".into(), ..sign_in(31, 1, Some(41), 1, world.now) };
    assert_eq!(world.refused(Body::SignInUpstream(command)), Reason::Malformed);
    let command = pb::SignInUpstream { subject: "sub-1".into(), ..comes(&world, 32, DID, "", 42) };
    assert_eq!(world.refused(Body::SignInUpstream(command)), Reason::Malformed, "no DID");
}

#[test]
fn the_first_token_makes_one_administrator_and_is_spent() {
    let rule = pb::UpstreamRule {
        first_token_hash: hash(7),
        first_group_id: group(2),
        mapped: vec![pb::MappedGroups { who: "*.corp.test".into(), group_ids: vec![group(3)] }],
        ..listed(&[], &[])
    };
    let mut world = world(rule);
    let shows = |world: &World, n: u8, did: &str, token: Vec<u8>| {
        Body::SignInUpstream(pb::SignInUpstream {
            first_token_hash: token,
            ..comes(world, n, did, "a.corp.test", n)
        })
    };
    assert_eq!(world.refused(shows(&world, 30, DID, hash(8))), Reason::NotAdmitted, "another token");
    assert_eq!(world.refused(shows(&world, 31, DID, vec![])), Reason::NotAdmitted);
    world.ok(shows(&world, 32, DID, hash(7)));
    assert_eq!(world.refused(shows(&world, 33, OTHER, hash(7))), Reason::NotAdmitted, "it is spent");
    assert_eq!(groups_of(&world.state, 32), [group_id(1), group_id(2), group_id(3)]);
    assert!(world.state.upstream("atmosphere").unwrap().rule.listed.first.is_none());
}

#[test]
fn a_person_is_a_did_and_the_handle_is_what_it_is_called_for_now() {
    let mut world = world(listed(&[DID], &["ada.test"]));
    world.ok(Body::SignInUpstream(comes(&world, 30, DID, "ada.test", 40)));
    let handle = |world: &World| {
        let identity = world.state.identity("atmosphere", DID).unwrap();
        (identity.label.clone(), identity.handle.as_ref().map(|(handle, at)| (handle.to_string(), at.0)))
    };
    assert_eq!(handle(&world), ("ada.test".into(), Some(("ada.test".into(), world.now))));
    world.now += MINUTE;
    world.ok(Body::SignInUpstream(comes(&world, 31, DID, "Countess.test", 41)));
    assert_eq!(handle(&world), ("countess.test".into(), Some(("countess.test".into(), world.now))));
    // Another DID took the old handle: it is a different user, who is admitted by that handle, and is not the first
    // one.
    world.ok(Body::SignInUpstream(comes(&world, 32, OTHER, "ada.test", 42)));
    let owner = |did| world.state.identity("atmosphere", did).unwrap().user;
    assert_ne!(owner(DID), owner(OTHER));
    // No longer verified: no handle.
    world.ok(Body::SignInUpstream(comes(&world, 33, DID, "", 43)));
    assert_eq!(handle(&world), (DID.into(), None));
}

#[test]
fn a_group_that_is_deleted_is_gone_from_every_mapping() {
    let rule = pb::UpstreamRule {
        first_token_hash: hash(7),
        first_group_id: group(2),
        mapped: vec![pb::MappedGroups { who: DID.into(), group_ids: vec![group(2), group(3)] }],
        ..listed(&[DID], &[])
    };
    let mut world = world(rule.clone());
    world.ok(Body::DeleteGroup(pb::DeleteGroup { group_id: group(2) }));
    let command = comes(&world, 30, DID, "", 40);
    world.ok(Body::SignInUpstream(pb::SignInUpstream { first_token_hash: hash(7), ..command }));
    assert_eq!(groups_of(&world.state, 40), [group_id(1), group_id(3)]);
    let command = pb::UpdateUpstream { name: "atmosphere".into(), rule: Some(rule), ..Default::default() };
    assert_eq!(world.refused(Body::UpdateUpstream(command)), Reason::GroupUnknown);
}

fn invite(n: u8, who: &str, groups: &[u8], ttl_ms: u64) -> Body {
    Body::InviteIdentity(pb::InviteIdentity {
        upstream: "atmosphere".into(),
        invitation_id: id(26, n),
        who: who.into(),
        group_ids: groups.iter().map(|n| group(*n)).collect(),
        ttl_ms,
    })
}

pub(crate) fn sign_in_by_handle(world: &World, number: u8, did: &str, handle: &str, user_number: u8) -> Body {
    let sign_in = comes(world, number, did, handle, user_number);
    Body::SignInByHandle(pb::SignInByHandle { sign_in: Some(sign_in) })
}

#[test]
fn an_invitation_lets_one_person_in_once_and_goes_with_what_it_is_of() {
    let mut world = world(listed(&[], &[]));
    for (n, who) in [(1, "*.corp.test"), (2, "did:key:z6Mk"), (3, "")] {
        assert_eq!(world.refused(invite(n, who, &[], MINUTE)), Reason::Malformed, "{who}");
    }
    assert_eq!(world.refused(invite(4, DID, &[], 0)), Reason::Malformed);
    assert_eq!(world.refused(invite(4, DID, &[9], MINUTE)), Reason::GroupUnknown);
    world.ok(invite(5, "Ada.test", &[2], MINUTE));
    // By the handle: the first DID that has it is admitted.
    assert_eq!(
        world.refused(sign_in_by_handle(&world, 30, DID, "", 40)),
        Reason::NotAdmitted,
        "not verified"
    );
    world.ok(sign_in_by_handle(&world, 31, DID, "ada.test", 41));
    assert_eq!(groups_of(&world.state, 41), [group_id(1), group_id(2)]);
    assert_eq!(
        world.refused(sign_in_by_handle(&world, 32, OTHER, "ada.test", 42)),
        Reason::NotAdmitted,
        "used"
    );
    let identity = world.state.identity("atmosphere", DID).unwrap();
    assert_eq!(identity.let_in, None, "who was invited is here by their DID");
    // Revoked, expired, or for a group that was deleted.
    world.ok(invite(6, OTHER, &[], MINUTE));
    let revoke = |n| pb::RevokeInvitation { upstream: "atmosphere".into(), invitation_id: id(26, n) };
    world.ok(Body::RevokeInvitation(revoke(6)));
    assert_eq!(world.refused(Body::RevokeInvitation(revoke(6))), Reason::InvitationUnknown);
    assert_eq!(world.refused(sign_in_by_handle(&world, 33, OTHER, "", 43)), Reason::NotAdmitted);
    world.ok(invite(7, OTHER, &[3], MINUTE));
    world.now += 2 * MINUTE;
    assert_eq!(world.refused(sign_in_by_handle(&world, 34, OTHER, "", 44)), Reason::NotAdmitted);
    world.ok(Body::Sweep(pb::Sweep { limit: 1_000 }));
    assert_eq!(world.state.invitations_at("atmosphere").count(), 0);
    world.ok(invite(8, OTHER, &[3], MINUTE));
    world.ok(Body::DeleteGroup(pb::DeleteGroup { group_id: group(3) }));
    world.ok(sign_in_by_handle(&world, 35, OTHER, "", 45));
    assert_eq!(groups_of(&world.state, 45), [group_id(1)]);
    world.ok(invite(9, "did:plc:z", &[], MINUTE));
    world.ok(Body::DeleteUpstream(pb::DeleteUpstream { name: "atmosphere".into() }));
    assert_eq!(world.state.invitations_at("atmosphere").count(), 0);
    assert!(!world.state.has_expired_rows(conclave_state::Stamp(world.now + MINUTE / 2)));
}

pub(crate) fn found(finding: pb::check_handle::Finding, handle: &str) -> Body {
    Body::CheckHandle(pb::CheckHandle {
        upstream: "atmosphere".into(),
        subject: DID.into(),
        finding: finding.into(),
        handle: handle.into(),
        patience_ms: 10 * MINUTE,
    })
}

/// True if the session with this number is valid now.
fn is_live(world: &World, n: u8) -> bool {
    let id = conclave_state::ids::SessionId::parse(&session(n)).unwrap();
    world.state.live_session(id, conclave_state::Stamp(world.now)).is_some()
}

#[test]
fn who_came_by_a_handle_is_let_in_for_as_long_as_it_is_theirs() {
    use pb::check_handle::Finding;
    let mut world = world(listed(&[], &["*.corp.test"]));
    world.ok(sign_in_by_handle(&world, 30, DID, "ada.corp.test", 40));
    let doubt = |world: &World| world.state.identity("atmosphere", DID).unwrap().doubt();
    assert_eq!(doubt(&world), None);
    // For a while the only effect is that applications do not get the name.
    world.ok(found(Finding::Unconfirmed, "ada.corp.test"));
    assert!(is_live(&world, 30) && !doubt(&world).unwrap().held_out);
    assert_eq!(world.state.identity("atmosphere", DID).unwrap().handle, None);
    world.ok(found(Finding::Verified, "ada.corp.test"));
    assert_eq!(doubt(&world), None);
    world.ok(found(Finding::Unconfirmed, "ada.corp.test"));
    world.now += 11 * MINUTE;
    world.ok(sign_in_by_handle(&world, 31, DID, "", 41));
    assert!(is_live(&world, 31), "as long as it was not checked");
    world.ok(found(Finding::Unconfirmed, "ada.corp.test"));
    assert!(!is_live(&world, 30) && !is_live(&world, 31), "for too long");
    assert_eq!(world.refused(sign_in_by_handle(&world, 32, DID, "", 42)), Reason::HandleUnconfirmed);
    assert_eq!(world.refused(sign_in_by_handle(&world, 33, DID, "ada.test", 43)), Reason::HandleUnconfirmed);
    // Another listed handle is accepted too, and is the relevant one from then on.
    world.ok(sign_in_by_handle(&world, 34, DID, "countess.corp.test", 44));
    assert_eq!(doubt(&world), None);
    assert_eq!(world.refused(found(Finding::Elsewhere, "ada.corp.test")), Reason::CredentialChanged);
    assert!(is_live(&world, 34));
    // A handle of another DID: at once.
    world.ok(found(Finding::Elsewhere, "countess.corp.test"));
    assert!(!is_live(&world, 34) && doubt(&world).unwrap().elsewhere);
    // An operator who lists the DID overrides the check.
    let rule = Some(listed(&[DID], &[]));
    world.ok(Body::UpdateUpstream(pb::UpdateUpstream {
        name: "atmosphere".into(),
        rule,
        ..Default::default()
    }));
    world.ok(sign_in_by_handle(&world, 35, DID, "", 45));
    assert_eq!(world.refused(found(Finding::Unconfirmed, "countess.corp.test")), Reason::IdentityUnknown);
    // A user who is admitted by their DID is never checked, and neither are identities of other providers.
    assert_eq!(groups_of(&world.state, 40), [group_id(1)]);
}

#[test]
fn a_name_that_is_not_listed_does_not_keep_anybody_and_a_restore_keeps_them_out() {
    use pb::check_handle::Finding;
    let mut world = world(pb::UpstreamRule { first_token_hash: hash(7), ..listed(&[], &["*.corp.test"]) });
    world.ok(sign_in_by_handle(&world, 30, DID, "ada.corp.test", 40));
    let then = world.state.clone();
    world.ok(found(Finding::Verified, "ada.elsewhere.test"));
    assert!(is_live(&world, 30));
    world.now += 11 * MINUTE;
    world.ok(found(Finding::Verified, "ada.elsewhere.test"));
    assert!(!is_live(&world, 30));
    let command = comes(&world, 31, OTHER, "", 41);
    world.ok(Body::SignInUpstream(pb::SignInUpstream { first_token_hash: hash(7), ..command }));
    let terms = conclave_state::restore::MergeOptions {
        index: world.index + 1,
        at: conclave_state::Stamp(world.now),
        target: conclave_state::restore::RestoreTarget::Live,
        former_epoch: None,
        last_node_id: 0,
        keep_sessions: false,
        enable_returning: true,
        reset_log_time: false,
    };
    let restored = conclave_state::restore::restored(&then, &world.state, &terms);
    assert!(restored.identity("atmosphere", DID).unwrap().is_held_out());
    assert!(restored.upstream("atmosphere").unwrap().rule.listed.first.is_none(), "it was used since");
}
