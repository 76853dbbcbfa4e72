//! Names of users and groups: equality, lookup, renames, and the names that a newcomer may have.

use conclave_proto::command::v1::{self as pb, command::Body, policy_condition::Kind};
use conclave_state::{
    Class, Reason, State,
    ids::{GroupId, UserId},
    level,
    restore::{changes, restored},
};
use proptest::prelude::*;

use crate::{laws::through_a_snapshot, policy::*, restore::founding, world::*};

fn levelled() -> World {
    let mut world = World::seeded();
    world.ok(raise());
    world
}

pub(crate) fn raise() -> Body {
    Body::RaiseLevel(pb::RaiseLevel { level: level::NAMES })
}

fn named(n: u8, username: &str, email: &str) -> Body {
    let Body::CreateUser(command) = create_user(n, &[]) else { unreachable!() };
    let (username, email, email_verified) = (username.into(), email.into(), !email.is_empty());
    Body::CreateUser(pb::CreateUser { username, email, email_verified, ..command })
}

fn group_named(n: u8, name: &str) -> Body {
    Body::CreateGroup(pb::CreateGroup { group_id: group(n), name: name.into(), ..Default::default() })
}

fn address(n: u8, email: &str, verified: bool) -> Body {
    Body::UpdateUser(pb::UpdateUser {
        user_id: user(n),
        email: Some(email.into()),
        email_verified: Some(verified),
        ..Default::default()
    })
}

pub(crate) fn rename(n: u8, username: &str) -> Body {
    Body::RenameUser(pb::RenameUser { user_id: user(n), username: username.into(), force: false })
}

pub(crate) fn rename_group(n: u8, name: &str) -> Body {
    Body::RenameGroup(pb::RenameGroup { group_id: group(n), name: name.into(), force: false })
}

fn delete(n: u8) -> Body {
    Body::DeleteUser(pb::DeleteUser { user_id: user(n) })
}

/// A newcomer of the provider, with this username and address.
fn newcomer(world: &World, n: u8, username: &str, email: &str) -> Body {
    let mut command = sign_in(n, n, Some(n), 1, world.now);
    if let Some(new) = &mut command.new_user {
        (new.username, new.email, new.email_verified) = (username.into(), email.into(), !email.is_empty());
    }
    Body::SignInUpstream(command)
}

fn means(state: &State, typed: &str) -> Option<u8> {
    state.user_by_sign_in_name(typed).map(|user| user.id.bytes()[15])
}

#[test]
fn names_of_groups_are_unique_without_regard_to_case_from_the_level_on() {
    let mut world = World::seeded();
    for (n, name) in [(11, "staff"), (12, "Staff"), (13, "Admins")] {
        world.ok(group_named(n, name));
    }
    world.ok(raise());
    // Earlier duplicates stay, each under its exact name; a third spelling matches neither.
    let id = |n| GroupId::parse(&group(n)).unwrap();
    let found = |world: &World, name: &str| world.state.group_named(name).map(|group| group.id);
    assert_eq!((found(&world, "Staff"), found(&world, "STAFF")), (Some(id(12)), None));
    world.ok(Body::AddGroupMember(pb::AddGroupMember { group_id: group(12), user_id: user(1) }));
    assert_eq!(world.refused(group_named(14, "STAFF")), Reason::GroupNameTaken);
    assert_eq!(world.refused(group_named(14, "ADMINS")), Reason::GroupNameTaken);
    world.ok(Body::DeleteGroup(pb::DeleteGroup { group_id: group(13) }));
    assert_eq!(
        world.refused(group_named(14, "Admins")),
        Reason::GroupNameTaken,
        "no application may take it for admins"
    );
    world.ok(group_named(14, "admins"));
    world.ok(Body::DeleteGroup(pb::DeleteGroup { group_id: group(11) }));
    assert_eq!(found(&world, "STAFF"), Some(id(12)));
    assert_eq!(world.refused(group_named(15, "staff")), Reason::GroupNameTaken);
}

#[test]
fn before_the_level_names_are_as_they_were() {
    let mut world = World::seeded();
    world.ok(group_named(11, "GROUP1"));
    world.ok(named(11, "user1@example.test", "USER2@example.test"));
    world.ok(address(1, "user2@example.test", true));
    assert_eq!(means(&world.state, "user2@example.test"), None);
    for body in [rename(1, "ada"), rename_group(1, "staff")] {
        assert_eq!(world.refused(body), Reason::Malformed);
    }
    world.ok(delete(11));
    assert_eq!(world.state.former_names().count(), 0);
    // From the level on existing duplicates stay and work, and no new duplicate is accepted.
    world.ok(raise());
    world.ok(address(1, "User2@example.test", true));
    assert_eq!(means(&world.state, "user2@example.test"), None, "two users have it");
    world.ok(address(2, "other@example.test", false));
    assert_eq!(means(&world.state, "user2@example.test"), Some(1));
}

#[test]
fn an_address_leads_to_the_one_user_who_has_it_verified() {
    let mut world = levelled();
    assert_eq!(means(&world.state, "user1@example.test"), None, "it was not verified");
    world.ok(address(1, "Ada@Example.test", true));
    for (typed, user) in [
        ("ada@example.test", Some(1)),
        (" ADA@EXAMPLE.TEST ", Some(1)),
        ("user1", Some(1)),
        ("ada", None),
        ("ada@example.test.", None),
        ("@example.test", None),
        ("", None),
    ] {
        assert_eq!(means(&world.state, typed), user, "{typed:?}");
    }
    assert_eq!(world.refused(address(2, "aDA@example.test", true)), Reason::AddressTaken);
    assert_eq!(world.refused(named(11, "bob", "ada@example.TEST")), Reason::AddressTaken);
    // An address that changed identifies no user, and is free for another.
    world.ok(address(1, "ada@new.test", false));
    assert_eq!((means(&world.state, "ada@example.test"), means(&world.state, "ada@new.test")), (None, None));
    world.ok(address(2, "ada@example.test", true));
    assert_eq!(means(&world.state, "ada@example.test"), Some(2));
    world.ok(delete(2));
    assert_eq!(means(&world.state, "ada@example.test"), None);
    assert_eq!(means(&through_a_snapshot(&world.state), "ada@example.test"), None);
}

#[test]
fn a_username_that_is_an_address_of_another_wins_and_is_not_given_again() {
    let mut world = World::seeded();
    world.ok(address(1, "ada@example.test", true));
    world.ok(named(11, "ada@example.test", ""));
    world.ok(raise());
    assert_eq!(means(&world.state, "ADA@example.test"), Some(11));
    // No new ones: neither a username that is another user's address, nor an address that is another user's username.
    assert_eq!(world.refused(named(12, "user2@example.test", "")), Reason::UsernameTaken);
    assert_eq!(world.refused(rename(11, "user2@example.test")), Reason::UsernameTaken);
    assert_eq!(world.refused(address(2, "Ada@example.test", false)), Reason::AddressTaken);
    world.ok(address(11, "ada@EXAMPLE.test2", true));
    // A user's own address is a valid username.
    world.ok(rename(2, "user2@example.test"));
    assert_eq!(means(&world.state, "user2@example.test"), Some(2));
}

#[test]
fn a_renamed_user_keeps_everything_but_the_name() {
    let mut world = levelled();
    let start = world.start(1, 1, Some(("web", &["openid", "offline_access"])));
    world.ok(Body::StartSession(start));
    let id = UserId::parse(&user(1)).unwrap();
    let before = world.state.user(id).unwrap().clone();
    let sessions = |world: &World| world.state.sessions_of(id).count();
    world.ok(rename(1, "Ada"));
    let after = world.state.user(id).unwrap().clone();
    assert_eq!(&*after.username, "ada");
    assert_eq!(
        (&after.groups, &after.email, after.created_at),
        (&before.groups, &before.email, before.created_at)
    );
    assert_eq!(sessions(&world), 1);
    assert!(world.state.password(id).is_some());
    assert_eq!((means(&world.state, "user1"), means(&world.state, "ada")), (None, Some(1)));
    // Taken, malformed, unknown, and unchanged.
    assert_eq!(world.refused(rename(1, "USER2")), Reason::UsernameTaken);
    assert_eq!(world.refused(rename(1, "a b")), Reason::Malformed);
    assert_eq!(world.refused(rename(99, "new")), Reason::UserUnknown);
    world.ok(rename(1, "ADA"));
    // The former name is remembered until a user has it again.
    let former =
        |world: &World| world.state.former_names().map(|row| row.username.to_string()).collect::<Vec<_>>();
    assert_eq!(former(&world), ["user1"]);
    world.ok(rename(1, "user1"));
    assert_eq!(former(&world), ["ada"]);
}

#[test]
fn a_renamed_group_keeps_its_members_and_whatever_refers_to_it() {
    let mut world = levelled();
    world.ok(set_policy(1, policy(vec![allow(in_group(1))]), false));
    world.ok(rename_group(1, "Staff"));
    let id = GroupId::parse(&group(1)).unwrap();
    assert_eq!(&*world.state.group(id).unwrap().name, "Staff");
    assert_eq!(world.state.members_of(id).count(), 1);
    assert!(world.state.group_by_name("group1").is_none());
    world.ok(rename_group(1, "staff"));
    world.ok(group_named(12, "group1"));
    assert_eq!(world.refused(rename_group(12, "STAFF")), Reason::GroupNameTaken);
    assert_eq!(world.refused(rename_group(12, "a|b")), Reason::Malformed);
    assert_eq!(world.refused(rename_group(99, "new")), Reason::GroupUnknown);
    // The administrators' group is recognised by its name.
    assert_eq!(world.refused(rename_group(12, "admins")), Reason::Malformed);
    assert_eq!(world.refused(rename_group(12, "Admins")), Reason::GroupNameTaken);
    world.ok(group_named(13, "admins"));
    assert_eq!(world.refused(rename_group(13, "bosses")), Reason::Malformed);
}

#[test]
fn a_name_in_an_expression_holds_a_rename_up_unless_it_is_forced() {
    let mut world = levelled();
    let expression =
        |text: &str| policy(vec![allow(Kind::Everyone(true)), allow(Kind::Expression(text.into()))]);
    world.ok(set_policy(1, expression("'group1' in user.groups || user.username == \"user1\""), false));
    assert_eq!(world.refused(rename_group(1, "staff")), Reason::NameInUse);
    assert_eq!(world.refused(rename(1, "ada")), Reason::NameInUse);
    world.ok(rename(2, "bob"));
    let (user_id, group_id) = (user(1), group(1));
    world.ok(Body::RenameUser(pb::RenameUser { user_id, username: "ada".into(), force: true }));
    world.ok(Body::RenameGroup(pb::RenameGroup { group_id, name: "staff".into(), force: true }));
    // Headers, candidates and claims of clients are searched too.
    world.ok(set_policy(1, expression("true"), false));
    let header =
        pb::PolicyHeader { name: "x-team".into(), expression: "'staff' in user.groups ? 'a' : 'b'".into() };
    world.ok(set_policy(1, pb::Policy { headers: vec![header], ..expression("true") }, true));
    assert_eq!(world.refused(rename_group(1, "crew")), Reason::NameInUse);
    world.ok(Body::RemovePolicy(pb::RemovePolicy { application_id: application(1), candidate: true }));
    let rule = pb::ClaimRule {
        name: "role".into(),
        expression: "'staff' in user.groups".into(),
        ..Default::default()
    };
    world.ok(Body::UpdateClient(pb::UpdateClient {
        client_id: "web".into(),
        tokens: Some(pb::ClientTokensChange {
            claims: Some(pb::ClaimRules { claims: vec![rule] }),
            ..Default::default()
        }),
        ..Default::default()
    }));
    assert_eq!(world.refused(rename_group(1, "crew")), Reason::NameInUse);
}

#[test]
fn a_newcomer_gets_no_name_that_means_somebody() {
    let mut world = levelled();
    world.ok(create_provider("corp", true, &[]));
    world.ok(named(11, "boss", "boss@corp.test"));
    world.ok(named(12, "gone", "gone@corp.test"));
    world.ok(delete(12));
    world.ok(rename(2, "bob"));
    for taken in
        ["admin", "Administrator", "ad.min", "root", "conclave", "boss", "boss@corp.test", "gone", "user2"]
    {
        let command = newcomer(&world, 20, taken, "");
        assert_eq!(world.refused(command), Reason::UsernameTaken, "{taken}");
    }
    let command = newcomer(&world, 20, "admin-1f2e3d", "gone@corp.test");
    world.ok(command);
    // Administrators may still use these names.
    world.ok(named(13, "admin", ""));
    world.ok(named(14, "gone", ""));
    world.ok(delete(14));
    assert!(!world.state.is_free_for_newcomer("gone"));
}

#[test]
fn a_newcomer_brings_no_address_that_another_user_has() {
    let mut world = levelled();
    world.ok(create_provider("corp", true, &[]));
    world.ok(address(1, "ada@example.test", true));
    world.ok(named(11, "eve@example.test", ""));
    for (n, email) in [(20, "ADA@example.test"), (21, "eve@example.test")] {
        let command = newcomer(&world, n, &format!("new{n}"), email);
        world.ok(command);
        let made = world.state.user(UserId::parse(&user(n)).unwrap()).unwrap();
        assert_eq!((made.email.as_str(), made.email_verified), ("", false), "{email}");
    }
    assert_eq!(means(&world.state, "ada@example.test"), Some(1));
    let command = newcomer(&world, 22, "new22", "own@example.test");
    world.ok(command);
    assert_eq!(means(&world.state, "own@example.test"), Some(22));
}

#[test]
fn a_restore_frees_no_name() {
    let mut world = levelled();
    world.ok(named(11, "early", ""));
    let older = world.state.clone();
    world.ok(delete(11));
    world.ok(named(12, "late", ""));
    world.ok(named(13, "later", ""));
    world.ok(delete(13));
    world.ok(rename(2, "bob"));
    let next = restored(&older, &world.state, &founding(&world.state));
    let (next, again) = (through_a_snapshot(&next), next);
    for state in [&next, &again] {
        for taken in ["early", "late", "later", "user2", "bob"] {
            assert!(!state.is_free_for_newcomer(taken), "{taken}");
        }
        assert_eq!(means(state, "early"), Some(11));
        assert_eq!(means(state, "user2"), Some(2));
        let mut former: Vec<&str> = state.former_names().map(|row| &*row.username).collect();
        former.sort_unstable();
        assert_eq!(former, ["bob", "late", "later"]);
    }
    assert!(changes(&world.state, &next, 9).1 > 0);
}

#[test]
fn renames_wait_for_every_node() {
    for body in [rename(1, "ada"), rename_group(1, "staff")] {
        let mut world = levelled();
        let applied = world.raw(&encode(world.now, &[7; 16], body)).unwrap();
        assert_eq!(applied.class, Class::Revocation);
    }
}

/// Names and addresses that collide with each other.
pub(crate) fn about_names() -> impl Strategy<Value = Body> {
    let n = 0_u8..4;
    let name = prop_oneof![
        Just("ada"),
        Just("Bob"),
        Just("user1"),
        Just("ada@example.test"),
        Just("admins"),
        Just("ADMINS"),
        Just("Group2"),
    ];
    prop_oneof![
        2 => Just(raise()),
        3 => (n.clone(), name.clone()).prop_map(|(u, name)| rename(u, name)),
        3 => (n.clone(), name.clone()).prop_map(|(g, name)| rename_group(g, name)),
        2 => (n.clone(), name.clone()).prop_map(|(g, name)| group_named(g, name)),
        2 => (n.clone(), name.clone()).prop_map(|(u, name)| named(u, name, "")),
        2 => (n, name, any::<bool>()).prop_map(|(u, name, verified)| address(u, &format!("{name}@example.test"), verified)),
    ]
}

proptest! {
    #[test]
    fn from_the_level_on_no_name_comes_to_mean_two(bodies in prop::collection::vec(about_names(), 1..40)) {
        let mut world = levelled();
        world.ok(create_user(3, &[1]));
        for body in bodies {
            world.run(body);
            let state = through_a_snapshot(&world.state);
            for user in state.users_after(None) {
                prop_assert_eq!(state.user_by_name(&user.username).map(|found| found.id), Some(user.id));
                prop_assert!(state.former_names().all(|former| former.username != user.username));
                let alike = |other: &&std::sync::Arc<conclave_state::user::User>| {
                    other.id != user.id && !user.email.is_empty()
                        && (other.email.eq_ignore_ascii_case(&user.email) || other.username.eq_ignore_ascii_case(&user.email))
                };
                prop_assert!(!state.users_after(None).any(|other| alike(&other)));
                if user.email_verified {
                    let found = world.state.user_by_sign_in_name(&user.email.to_ascii_uppercase());
                    prop_assert_eq!(found.map(|found| found.id), Some(user.id));
                }
            }
            let mut names: Vec<String> = state.groups_after(None).map(|group| group.name.to_ascii_lowercase()).collect();
            let count = names.len();
            names.sort();
            names.dedup();
            prop_assert_eq!(names.len(), count);
        }
    }
}
