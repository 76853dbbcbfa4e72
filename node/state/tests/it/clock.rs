//! Log time: bounded steps, and setting it back after wrong clocks had moved it ahead.

use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{
    Class, Reason, ReplyBody, Stamp, State, class_of, level,
    restore::{MergeOptions, RestoreTarget, restored},
    stamp::MAX_STEP_MS,
};

use crate::{
    atmosphere::{self, DID, OTHER},
    names::rename,
    world::*,
};

const DAY: u64 = 24 * 60 * MINUTE;

/// The seeded world at the level at which log time is bounded.
fn bounded() -> World {
    let mut world = World::seeded();
    world.ok(Body::RaiseLevel(pb::RaiseLevel { level: level::BOUNDED_LOG_TIME }));
    world
}

fn set(from_ms: u64, to_ms: u64) -> Body {
    Body::SetClock(pb::SetClock { from_ms, to_ms })
}

fn log_time(world: &World) -> u64 {
    world.state.meta().clock.0
}

fn live(world: &World, n: u8) -> bool {
    let id = conclave_state::ids::SessionId::parse(&session(n)).unwrap();
    world.state.live_session(id, world.state.meta().clock).is_some()
}

#[test]
fn an_entry_moves_log_time_by_a_bounded_step() {
    let mut world = bounded();
    world.signed_in(1, &["openid"]);
    let before = log_time(&world);
    world.now += 10 * DAY;
    world.ok(create_group(5));
    assert_eq!(log_time(&world), before + MAX_STEP_MS);
    assert!(live(&world, 1), "a session of ten hours outlives one entry with a wrong stamp");
}

#[test]
fn below_the_level_an_entry_means_what_it_always_meant() {
    let mut world = World::seeded();
    world.now += 10 * DAY;
    world.ok(create_group(5));
    assert_eq!(log_time(&world), world.now);
    assert_eq!(world.refused(set(world.now, world.now + 1)), Reason::Malformed);
}

#[test]
fn a_first_entry_may_carry_any_time() {
    let mut world = World::new();
    world.now = 0;
    world.ok(Body::RaiseLevel(pb::RaiseLevel { level: level::BOUNDED_LOG_TIME }));
    world.now = 1_800_000_000_000;
    world.ok(create_group(1));
    assert_eq!(log_time(&world), world.now);
}

#[test]
fn log_time_is_set_forward_at_once_and_the_same_command_later_moves_nothing_back() {
    let mut world = bounded();
    let from = world.now;
    world.now += 3 * 365 * DAY;
    world.ok(set(from, world.now));
    assert_eq!(log_time(&world), world.now);
    world.ok(set(from, from + DAY));
    assert_eq!(log_time(&world), world.now, "another node was faster");
}

#[test]
fn setting_log_time_back_ends_what_was_made_while_it_was_ahead_and_keeps_the_rest() {
    let mut world = bounded();
    let truth = world.now;
    world.signed_in(1, &["openid", "offline_access"]);
    world.ok(set(truth, truth + 10 * DAY));
    world.now = truth + 10 * DAY;
    world.signed_in(2, &["openid", "offline_access"]);
    world.ok(Body::CreateApiToken(pb::CreateApiToken {
        token_id: id(9, 1),
        name: "made-ahead".into(),
        secret_hash: hash(1),
        role: pb::ApiRole::Admin.into(),
        ttl_ms: MINUTE,
    }));
    // The clocks are correct again; log time is not.
    world.now = truth + MINUTE;
    assert!(!live(&world, 1), "expired, as long as log time is ahead");
    let ReplyBody::ClockSet(done) = world.ok(set(truth + 10 * DAY, world.now)) else {
        panic!("another reply")
    };
    assert_eq!(log_time(&world), world.now);
    assert_eq!((done.ended_sessions, done.ended_grants, done.ended_credentials), (1, 1, 1));
    assert!(live(&world, 1) && !live(&world, 2));
    assert!(world.state.grant(conclave_state::ids::GrantId::parse(&grant(1)).unwrap()).is_some());
    world.signed_in(3, &["openid"]);
    assert!(live(&world, 3), "users sign in again");
}

#[test]
fn log_time_is_set_back_only_from_where_the_operator_saw_it() {
    let mut world = bounded();
    let truth = world.now;
    world.ok(set(truth, truth + 10 * DAY));
    assert_eq!(world.refused(set(truth + 9 * DAY, truth)), Reason::TooSoon);
    assert_eq!(log_time(&world), truth + 10 * DAY);
}

#[test]
fn a_request_answered_while_log_time_was_ahead_is_still_answered_from_memory_and_then_forgotten() {
    let mut world = bounded();
    let truth = world.now;
    world.ok(set(truth, truth + DAY));
    world.now = truth + DAY;
    let entry = |now| encode(now, &[7; 16], create_group(9));
    world.raw(&entry(world.now)).unwrap();
    world.now = truth;
    world.ok(set(truth + DAY, truth));
    let again = world.raw(&entry(world.now)).unwrap().reply;
    assert!(matches!(again.body, Some(ReplyBody::Done(_))), "{again:?}");
    world.now += 10 * MINUTE;
    world.ok(create_group(10));
    let again = world.raw(&entry(world.now)).unwrap().reply;
    assert!(matches!(again.body, Some(ReplyBody::Refused(_))), "forgotten after its time: {again:?}");
}

#[test]
fn setting_log_time_back_is_a_revocation_and_forward_is_not() {
    let class = |from, to| class_of(&encode(1, &[1; 16], set(from, to)));
    assert_eq!(class(10, 5), Some(Class::Revocation));
    assert_eq!(class(5, 10), Some(Class::Plain));
    assert_eq!(Stamp(5).plus_ms(5), Stamp(10));
}

#[test]
fn a_restore_into_a_running_cluster_keeps_its_log_time_and_a_founding_one_can_set_it_anew() {
    let mut healthy = bounded();
    let truth = healthy.now;
    let mut poisoned = bounded();
    poisoned.ok(set(truth, truth + 10 * DAY));
    poisoned.now = truth + 10 * DAY;
    poisoned.signed_in(1, &["openid"]);
    healthy.now += MINUTE;
    healthy.ok(create_group(7));
    let options = crate::restore::founding(&healthy.state);
    let at = Stamp(healthy.now);
    let running = MergeOptions { target: RestoreTarget::Live, at, ..options };
    assert_eq!(restored(&poisoned.state, &healthy.state, &running).meta().clock, at);
    let kept = MergeOptions { at, ..options };
    let ahead = restored(&poisoned.state, &poisoned.state, &kept);
    assert_eq!(ahead.meta().clock, Stamp(truth + 10 * DAY), "without the option, no time is discarded");
    let anew = restored(&poisoned.state, &poisoned.state, &MergeOptions { reset_log_time: true, ..kept });
    assert_eq!(anew.meta().clock, at);
    let mut world = World::new();
    (world.state, world.index, world.now) = (anew, 50, at.0);
    world.signed_in(2, &["openid"]);
    assert!(live(&world, 2), "users sign in again");
}

const DOCUMENT: &str = "https://app.test/client.json";
const MAX_OVERLAP_MS: u64 = 90 * DAY;

fn another_secret(client: &str, n: u8, keep_previous_secret_ms: u64) -> Body {
    Body::UpdateClient(pb::UpdateClient {
        client_id: client.into(),
        secret_hash: Some(hash(n)),
        keep_previous_secret_ms,
        ..Default::default()
    })
}

fn unconfirmed() -> Body {
    atmosphere::found(pb::check_handle::Finding::Unconfirmed, "ada.corp.test")
}

/// A world whose log time is 200 days ahead, with times that affect decisions written before and since; and the true
/// time.
fn with_times_ahead() -> (World, u64) {
    let mut world = atmosphere::world(atmosphere::listed(&[], &["*.corp.test"]));
    world.ok(Body::RaiseLevel(pb::RaiseLevel { level: level::SUPPORTED }));
    let truth = world.now;
    world.ok(atmosphere::sign_in_by_handle(&world, 30, DID, "ada.corp.test", 40));
    world.ok(another_secret("app", 11, MAX_OVERLAP_MS));
    world.ok(rename(2, "bob"));
    world.ok(set(truth, truth + 200 * DAY));
    world.now = truth + 200 * DAY;
    world.ok(atmosphere::sign_in_by_handle(&world, 31, OTHER, "bob.corp.test", 41));
    world.ok(unconfirmed());
    world.ok(another_secret("web", 12, DAY));
    let Body::CreateClient(command) = create_client(DOCUMENT, &[]) else { unreachable!() };
    world.ok(Body::CreateClient(pb::CreateClient { of_document: true, ..command }));
    world.ok(rename(1, "ada"));
    (world, truth)
}

/// Asserts that every time of [`with_times_ahead`] is possible at `to`, and that those from before are unchanged.
fn assert_no_time_is_ahead(state: &State, truth: u64, to: Stamp) {
    let identity = |did| state.identity("atmosphere", did).unwrap();
    assert_eq!(identity(OTHER).linked_at, to);
    assert_eq!(identity(OTHER).handle.as_ref().unwrap().1, to);
    assert_eq!(identity(OTHER).looked_at(), to);
    assert_eq!(identity(DID).linked_at, Stamp(truth));
    assert_eq!(identity(DID).doubt().unwrap().since, to);
    let until = |client| state.client(client).unwrap().previous_secret.unwrap().until;
    assert_eq!(until("web"), to.plus_ms(MAX_OVERLAP_MS));
    assert_eq!(until("app"), Stamp(truth + MAX_OVERLAP_MS));
    assert_eq!(state.client(DOCUMENT).unwrap().document_seen_at, Some(to));
    let former: Vec<_> = state.former_names().map(|former| (&*former.username, former.since)).collect();
    assert_eq!(former, [("user1", to), ("user2", Stamp(truth))]);
}

#[test]
fn setting_log_time_back_leaves_no_time_ahead_that_decides() {
    let (mut world, truth) = with_times_ahead();
    world.now = truth + MINUTE;
    world.ok(set(truth + 200 * DAY, world.now));
    assert_no_time_is_ahead(&world.state, truth, Stamp(world.now));
    // A handle that is unconfirmed for long enough holds its user out.
    assert!(!world.state.identity("atmosphere", DID).unwrap().is_held_out());
    world.now += 11 * MINUTE;
    world.ok(unconfirmed());
    assert!(world.state.identity("atmosphere", DID).unwrap().is_held_out());
    // The row of a former name is found by its new time.
    world.ok(rename(1, "user1"));
    assert_eq!(
        world.state.former_names().map(|former| &*former.username).collect::<Vec<_>>(),
        ["ada", "user2"]
    );
}

#[test]
fn a_restore_that_sets_log_time_anew_leaves_no_time_ahead_that_decides() {
    let (world, truth) = with_times_ahead();
    let to = Stamp(truth + MINUTE);
    let options = MergeOptions { at: to, reset_log_time: true, ..crate::restore::founding(&world.state) };
    assert_no_time_is_ahead(&restored(&world.state, &world.state, &options), truth, to);
}
