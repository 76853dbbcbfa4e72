//! Properties that hold for every history of commands.

use std::collections::BTreeMap;

use conclave_proto::command::v1::{self as pb, command::Body, policy_condition::Kind};
use conclave_state::{
    IndexedEntry, ReplyBody, State, apply,
    restore::{MergeOptions, RestoreTarget, restored},
    snapshot::{Loader, chunks, digest, digest_of_tables},
};
use proptest::prelude::*;

use crate::{policy::*, world::*};

/// One entry of a random history: its command, the time that passes before it, and whether it repeats the request id of
/// the one before.
#[derive(Clone, Debug)]
struct Step {
    body: Body,
    later_ms: u64,
}

fn scopes() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![Just(vec!["openid"]), Just(vec!["openid", "offline_access"])]
}

fn with_devices() -> pb::GrantTypes {
    let types = [pb::GrantType::AuthorizationCode, pb::GrantType::RefreshToken, pb::GrantType::DeviceCode];
    pb::GrantTypes { grant_types: types.map(i32::from).to_vec() }
}

/// Commands that end the access of one user or of all, including app passwords.
fn end_of_access() -> impl Strategy<Value = Body> {
    let n = 0_u8..4;
    prop_oneof![
        1 => n.clone().prop_map(|u| Body::DeleteUser(pb::DeleteUser { user_id: user(u) })),
        1 => n.clone().prop_map(|u| Body::RevokeUserSessions(pb::RevokeUserSessions { user_id: user(u), ..Default::default() })),
        1 => n.clone().prop_map(|s| Body::RevokeSession(pb::RevokeSession { session_id: session(s) })),
        1 => n.clone().prop_map(|u| Body::ResetPassword(pb::ResetPassword {
            user_id: user(u), password_phc: "$argon2id$v=19$m=19456,t=2,p=1$bmV3$bmV3".into(), keep_sessions: u == 0,
        })),
        1 => n.clone().prop_map(|u| Body::RevokeUserAccess(pb::RevokeUserAccess { user_id: user(u) })),
        1 => Just(Body::RaiseRevocationEpoch(pb::RaiseRevocationEpoch {})),
        2 => (n.clone(), n.clone(), 0_u64..2).prop_map(|(p, u, ttl)| Body::CreateAppPassword(pb::CreateAppPassword {
            secret_id: Vec::new(),
            app_password_id: id(12, p), user_id: user(u), application_id: vec![], name: "p".into(), secret_hash: hash(p),
            ttl_ms: ttl * MINUTE,
        })),
    ]
}

/// A sign-in in a browser that has a session, and the end of a lock-out.
fn again_or_unlocked() -> impl Strategy<Value = Body> {
    let n = 0_u8..4;
    prop_oneof![
        3 => (n.clone(), n.clone(), 9_u8..12, 0_u64..40).prop_map(|(shown, s, secret, version)| {
            let Body::StartSession(start) = start(s, s % 2, &["openid"], version) else { unreachable!() };
            let start = pb::StartSession { secret_hash: hash(secret + 1), ..start };
            crate::sessions::again(shown, secret, pb::sign_in_again::SignIn::Start(start))
        }),
        1 => n.prop_map(|u| Body::UnlockUser(pb::UnlockUser { user_id: user(u) })),
    ]
}

#[expect(clippy::too_many_lines, reason = "one line for each command")]
fn body() -> impl Strategy<Value = Body> {
    let n = 0_u8..4;
    prop_oneof![
        2 => (n.clone(), prop::collection::vec(0_u8..4, 0..3)).prop_map(|(u, g)| create_user(u, &g)),
        2 => n.clone().prop_map(create_group),
        2 => (n.clone(), prop::collection::vec(0_u8..4, 0..3)).prop_map(|(a, g)| create_application(a, &g)),
        2 => prop_oneof![Just(create_client("web", &[])), Just(create_client("app", &application(1)))],
        4 => (n.clone(), n.clone(), scopes(), 0_u64..40).prop_map(|(s, u, scopes, version)| start(s, u, &scopes, version)),
        4 => again_or_unlocked(),
        4 => n.clone().prop_map(|g| redeem(g, "web")),
        4 => (n.clone(), 0_u64..4).prop_map(|(f, generation)| rotate(f, generation)),
        1 => (n.clone(), any::<bool>()).prop_map(|(u, off)| Body::UpdateUser(pb::UpdateUser { user_id: user(u), disabled: Some(off), ..Default::default() })),
        1 => n.clone().prop_map(|g| Body::DeleteGroup(pb::DeleteGroup { group_id: group(g) })),
        1 => (n.clone(), n.clone()).prop_map(|(g, u)| Body::AddGroupMember(pb::AddGroupMember { group_id: group(g), user_id: user(u) })),
        1 => n.clone().prop_map(|u| Body::SetPassword(pb::SetPassword {
            user_id: user(u), password_phc: "$argon2id$v=19$m=19456,t=2,p=1$bmV3$bmV3".into(), keep_sessions: u == 0,
        })),
        7 => end_of_access(),
        1 => (n.clone(), n.clone()).prop_map(|(g, u)| Body::RemoveGroupMember(pb::RemoveGroupMember { group_id: group(g), user_id: user(u) })),
        1 => n.clone().prop_map(|g| Body::IssueCode(pb::IssueCode { session_id: session(1), ..issue(g, "web", &["openid"]) })),
        1 => n.clone().prop_map(|g| Body::RevokeGrant(pb::RevokeGrant { grant_id: grant(g) })),
        1 => n.clone().prop_map(|k| Body::AddSigningKey(pb::AddSigningKey {
            kid: format!("k{k}"), algorithm: pb::SigningAlgorithm::Es256.into(), only_if_absent: k == 0, ..Default::default() })),
        1 => n.clone().prop_map(|k| Body::RetireSigningKey(pb::RetireSigningKey { kid: format!("k{k}") })),
        1 => n.clone().prop_map(|t| Body::CreateApiToken(pb::CreateApiToken {
            token_id: id(9, t), name: "t".into(), secret_hash: hash(2), role: pb::ApiRole::Admin.into(), ttl_ms: MINUTE,
        })),
        1 => n.clone().prop_map(|t| Body::RevokeApiToken(pb::RevokeApiToken { token_id: id(9, t) })),
        1 => (n.clone(), 0_u64..3).prop_map(|(t, life)| Body::RevokeAccessToken(pb::RevokeAccessToken {
            token_id: id(10, t), expires_at_ms: 1_000_000 + life * 20 * MINUTE,
        })),
        2 => (n.clone(), 0_u64..3).prop_map(|(p, life)| Body::SpendProofs(pb::SpendProofs {
            proofs: vec![proof(p, 1_000_000 + life * 20 * MINUTE)],
        })),
        1 => (n.clone(), any::<bool>()).prop_map(|(k, bound)| Body::UpdateClient(pb::UpdateClient {
            client_id: "web".into(), secret_hash: Some(hash(k)), keep_previous_secret_ms: u64::from(k) * MINUTE,
            tokens: Some(pb::ClientTokensChange {
                dpop_bound: Some(bound), grant_types: Some(with_devices()), ..Default::default()
            }),
            ..Default::default()
        })),
        1 => Just(Body::AcknowledgeOutbox(pb::AcknowledgeOutbox { sequence_numbers: vec![1, 2] })),
        1 => n.clone().prop_map(|a| Body::UpdateApplication(pb::UpdateApplication {
            application_id: application(a), access: Some(pb::Access { everyone: true, group_ids: vec![] }), ..Default::default()
        })),
        1 => n.clone().prop_map(|a| Body::DeleteApplication(pb::DeleteApplication { application_id: application(a) })),
        1 => any::<bool>().prop_map(|off| Body::UpdateClient(pb::UpdateClient { client_id: "web".into(), disabled: Some(off), ..Default::default() })),
        1 => Just(Body::DeleteClient(pb::DeleteClient { client_id: "web".into() })),
        1 => n.clone().prop_map(|u| Body::ReserveAttempt(pb::ReserveAttempt { user_id: user(u), limit: 2, window_ms: MINUTE })),
        1 => Just(Body::RaiseRevocationEpoch(pb::RaiseRevocationEpoch {})),
        1 => (0_u64..20).prop_map(|above| Body::ReserveNodeId(pb::ReserveNodeId { above })),
        1 => (900_u32..11_000, 40_u32..510).prop_map(|(length_ms, margin_permille)| {
            Body::SetLeaseTerms(pb::SetLeaseTerms { length_ms, margin_permille })
        }),
        1 => n.clone().prop_map(|r| Body::PushRequest(pb::PushRequest {
            pushed_request_id: id(20, r), client_id: "web".into(), secret_hash: hash(4), parameters: vec![r], ttl_ms: MINUTE,
        })),
        1 => (n.clone(), n.clone()).prop_map(|(g, r)| Body::IssueCode(pb::IssueCode {
            session_id: session(1), pushed_request_id: id(20, r), pushed_until_ms: 1_000_000 + 60 * MINUTE,
            remember_consent: true, ..issue(g, "web", &["openid"])
        })),
        2 => (n.clone(), n.clone()).prop_map(|(d, code)| Body::StartDevice(pb::StartDevice {
            device_id: id(21, d), client_id: "web".into(), scopes: vec!["openid".into()], secret_hash: hash(5),
            user_code_hash: hash(code), ttl_ms: MINUTE, ..Default::default()
        })),
        2 => (n.clone(), n.clone(), any::<bool>()).prop_map(|(d, t, allow)| Body::AnswerDevice(pb::AnswerDevice {
            device_id: id(21, d), session_id: session(1), allow, ticket_id: ticket(150 + t),
            ticket_expires_at_ms: 1_000_000 + 60 * MINUTE, ..Default::default() })),
        2 => n.clone().prop_map(|d| Body::RedeemDevice(pb::RedeemDevice {
            device_id: id(21, d), secret_hash: hash(5), client_id: "web".into(), grant_id: grant(10 + d),
            family_id: family(10 + d), refresh_ttl_ms: 60 * MINUTE, access_ttl_ms: 10 * MINUTE, ..Default::default()
        })),
        1 => n.clone().prop_map(|u| Body::RevokeConsent(pb::RevokeConsent { user_id: user(u), client_id: "web".into() })),
        1 => (n.clone(), any::<bool>()).prop_map(|(g, any)| Body::CreateUpstream(pb::CreateUpstream { upstream: Some(pb::Upstream {
            rule: Some(rule(any, &[g])), ..provider("corp")
        }) })),
        1 => any::<bool>().prop_map(|off| Body::UpdateUpstream(pb::UpdateUpstream {
            name: "corp".into(), disabled: Some(off), ..Default::default()
        })),
        1 => Just(Body::DeleteUpstream(pb::DeleteUpstream { name: "corp".into() })),
        2 => (n.clone(), n.clone(), n.clone()).prop_map(|(t, s, sub)| link(150 + t, s, sub, 1_000_000 + 60 * MINUTE)),
        1 => (n.clone(), any::<bool>()).prop_map(|(u, own)| Body::UnlinkIdentity(pb::UnlinkIdentity {
            upstream: "corp".into(), user_id: user(u), session_id: if own { session(1) } else { vec![] }, max_age_ms: 10 * MINUTE,
        })),
        3 => (n.clone(), n.clone(), any::<bool>()).prop_map(|(s, sub, new)| {
            Body::SignInUpstream(sign_in(30 + s, sub, if new { Some(40 + sub) } else { None }, 1, 1_000_000))
        }),
        5 => about_policies(),
        5 => about_handles(),
        6 => crate::names::about_names(),
        1 => n.clone().prop_map(|r| Body::BeginRestore(pb::BeginRestore { restore_id: id(13, r), source: "a file".into() })),
        1 => n.clone().prop_map(|r| Body::StageRows(pb::StageRows {
            restore_id: id(13, r), sequence: 0, table: 2, rows: vec![40, r],
        })),
        1 => n.clone().prop_map(|r| Body::AbortRestore(pb::AbortRestore { restore_id: id(13, r) })),
        1 => (1_u32..20).prop_map(|limit| Body::Sweep(pb::Sweep { limit })),
        1 => n.prop_map(|s| Body::OpenAppSession(pb::OpenAppSession {
            app_session_id: id(8, s), session_id: session(s), secret_hash: hash(3), host: "app1.test".into(),
            ticket_id: ticket(100 + s), ticket_expires_at_ms: 1_000_000 + 60 * MINUTE,
            domain: String::new(),
        })),
    ]
}

fn about_handles() -> impl Strategy<Value = Body> {
    let n = 0_u8..4;
    let did = |n: u8| format!("did:plc:{n}");
    prop_oneof![
        2 => n.clone().prop_map(|g| Body::CreateUpstream(pb::CreateUpstream { upstream: Some(pb::Upstream {
            name: "atmosphere".into(), display_name: "Atmosphere".into(), atmosphere: true,
            rule: Some(pb::UpstreamRule {
                admission: pb::UpstreamAdmission::Listed.into(), handles: vec!["*.corp.test".into()], group_ids: vec![group(g)],
                ..Default::default()
            }), ..Default::default()
        }) })),
        1 => Just(Body::DeleteUpstream(pb::DeleteUpstream { name: "atmosphere".into() })),
        2 => (n.clone(), n.clone(), n.clone()).prop_map(move |(i, who, g)| Body::InviteIdentity(pb::InviteIdentity {
            upstream: "atmosphere".into(), invitation_id: id(26, i), who: did(who), group_ids: vec![group(g)], ttl_ms: MINUTE,
        })),
        1 => n.clone().prop_map(|i| Body::RevokeInvitation(pb::RevokeInvitation {
            upstream: "atmosphere".into(), invitation_id: id(26, i),
        })),
        4 => (n.clone(), n.clone(), any::<bool>()).prop_map(move |(s, who, by_handle)| {
            let handle = if by_handle { format!("h{who}.corp.test") } else { String::new() };
            Body::SignInByHandle(pb::SignInByHandle { sign_in: Some(pb::SignInUpstream {
                upstream: "atmosphere".into(), subject: did(who), label: handle.clone(), verified_handle: handle,
                ..sign_in(60 + s, who, Some(70 + who), 1, 1_000_000)
            }) })
        }),
        2 => (n.clone(), n.clone()).prop_map(|(who, picture)| set_picture(70 + who, picture)),
        1 => n.clone().prop_map(|who| Body::SetPicture(pb::SetPicture { user_id: user(70 + who), ..Default::default() })),
        4 => (n, 0_i32..4).prop_map(move |(who, finding)| Body::CheckHandle(pb::CheckHandle {
            upstream: "atmosphere".into(), subject: did(who), finding, handle: format!("h{who}.corp.test"), patience_ms: MINUTE,
        })),
    ]
}

fn about_policies() -> impl Strategy<Value = Body> {
    let n = 0_u8..4;
    prop_oneof![
        3 => (n.clone(), n.clone(), any::<bool>()).prop_map(|(a, g, candidate)| {
            set_policy(a, policy(vec![allow(in_group(g)), deny(Kind::Everyone(true))]), candidate)
        }),
        1 => (n.clone(), any::<bool>()).prop_map(|(a, candidate)| {
            Body::RemovePolicy(pb::RemovePolicy { application_id: application(a), candidate })
        }),
        1 => (n, 0_u64..40).prop_map(|(a, version)| promote(a, version)),
    ]
}

fn start(s: u8, u: u8, scopes: &[&str], version: u64) -> Body {
    Body::StartSession(pb::StartSession {
        session_id: session(s),
        user_id: user(u),
        secret_hash: hash(9),
        ticket_id: ticket(s),
        ticket_expires_at_ms: 1_000_000 + 60 * MINUTE,
        amr: vec!["pwd".into()],
        ttl_ms: 20 * MINUTE,
        credential_version: version,
        code: Some(issue(s, "web", scopes)),
        ..Default::default()
    })
}

fn history() -> impl Strategy<Value = Vec<Step>> {
    // A seeded start, so that most random commands refer to something that exists.
    let step = (body(), prop_oneof![Just(0), Just(1_000), Just(40_000), Just(15 * MINUTE)])
        .prop_map(|(body, later_ms)| Step { body, later_ms });
    prop::collection::vec(step, 1..80).prop_map(|random| {
        let first =
            [create_group(1), create_user(1, &[1]), create_client("web", &[]), start(1, 1, &["openid"], 2)];
        let first = first.into_iter().map(|body| Step { body, later_ms: 1 });
        first.chain(random).collect()
    })
}

fn entries(history: &[Step]) -> Vec<Vec<u8>> {
    let mut now = 1_000_000;
    let encode_one = |(n, step): (usize, &Step)| {
        now += step.later_ms;
        encode(now, &(n as u128 + 1).to_be_bytes(), step.body.clone())
    };
    history.iter().enumerate().map(encode_one).collect()
}

fn step(state: &State, index: usize, bytes: &[u8]) -> (State, Option<ReplyBody>) {
    let applied = apply(state, &IndexedEntry { index: index as u64 + 1, bytes }).expect("known commands");
    (applied.state, applied.reply.body)
}

fn replay(entries: &[Vec<u8>]) -> Vec<State> {
    entries.iter().enumerate().fold(vec![State::default()], |mut states, (index, bytes)| {
        let (next, _) = step(states.last().unwrap(), index, bytes);
        states.push(next);
        states
    })
}

pub(crate) fn through_a_snapshot(state: &State) -> State {
    let mut loader = Loader::default();
    for (table, chunk) in chunks(state) {
        loader.chunk(table, &chunk).unwrap();
    }
    loader.finish()
}

/// Histories that redeem once and then use refresh tokens of every generation, in time, as a retry and too late.
fn refresh_history() -> impl Strategy<Value = Vec<Step>> {
    let body = prop_oneof![
        12 => (1_u64..5).prop_map(|generation| rotate(1, generation)),
        1 => Just(redeem(1, "web")),
        1 => Just(Body::RevokeGrant(pb::RevokeGrant { grant_id: grant(9) })),
    ];
    let step = (body, prop_oneof![6 => Just(0), 4 => Just(1_000), 1 => Just(31_000)]);
    let step = step.prop_map(|(body, later_ms)| Step { body, later_ms });
    prop::collection::vec(step, 2..24).prop_map(|random| {
        let start = start(1, 1, &["openid"], 2);
        let first = [create_group(1), create_user(1, &[1]), create_client("web", &[]), start];
        // A rotation and its immediate retry: the minimum of every history.
        let first = first.into_iter().chain([redeem(1, "web"), rotate(1, 1), rotate(1, 1)]);
        first.map(|body| Step { body, later_ms: 1 }).chain(random).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn two_replicas_fed_the_same_entries_are_equal(history in history()) {
        let entries = entries(&history);
        let (a, b) = (replay(&entries), replay(&entries));
        for (a, b) in a.iter().zip(&b) {
            prop_assert_eq!(digest(a), digest(b));
        }
    }

    #[test]
    fn a_snapshot_at_any_prefix_restores_and_goes_on_alike(history in history(), cut in any::<prop::sample::Index>()) {
        let entries = entries(&history);
        let states = replay(&entries);
        let cut = cut.index(states.len());
        let mut restored = through_a_snapshot(&states[cut]);
        prop_assert_eq!(digest(&restored), digest(&states[cut]));
        // Derived indexes are rebuilt; otherwise the following entries would give different results.
        for (index, bytes) in entries.iter().enumerate().skip(cut) {
            restored = step(&restored, index, bytes).0;
            prop_assert_eq!(digest(&restored), digest(&states[index + 1]));
        }
    }

    #[test]
    fn a_restore_brings_nothing_back_that_was_revoked(history in history(), cut in any::<prop::sample::Index>()) {
        let entries = entries(&history);
        let states = replay(&entries);
        let (older, newest) = (&states[cut.index(states.len())], states.last().unwrap());
        for target in [RestoreTarget::NewCluster, RestoreTarget::Live] {
            let terms = MergeOptions { index: newest.index() + 1, at: newest.meta().clock, target, reset_log_time: false, former_epoch: None, last_node_id: 9, keep_sessions: false, enable_returning: false };
            let next = restored(older, newest, &terms);
            prop_assert_eq!(next.sessions_after(None).count(), 0);
            prop_assert!(next.tokens_after(None).all(|row| newest.tokens_after(None).any(|known| known.id == row.id)));
            for person in next.users_after(None) {
                match newest.user(person.id) {
                    Some(known) => {
                        prop_assert!(person.disabled || !known.disabled);
                        prop_assert_eq!(next.password(person.id), newest.password(person.id));
                    }
                    None => prop_assert!(person.disabled),
                }
            }
            // Derived indexes are rebuilt: both states continue alike.
            let (mut as_it_is, mut as_loaded) = (next.clone(), through_a_snapshot(&next));
            for (n, bytes) in entries.iter().enumerate() {
                // The same commands under other request ids.
                let index = usize::try_from(next.index()).unwrap() + n;
                as_it_is = step(&as_it_is, index, bytes).0;
                as_loaded = step(&as_loaded, index, bytes).0;
                prop_assert_eq!(digest(&as_it_is), digest(&as_loaded));
            }
        }
    }

    #[test]
    fn a_replayed_request_changes_nothing_and_gets_its_first_reply(history in history(), which in any::<prop::sample::Index>()) {
        let entries = entries(&history);
        let states = replay(&entries);
        let which = which.index(entries.len());
        let (after, first) = step(&states[which], which, &entries[which]);
        let (again, second) = step(&after, which + 1, &entries[which]);
        prop_assert_eq!(first, second);
        prop_assert_eq!(digest_of_tables(&after), digest_of_tables(&again));
    }

    #[test]
    fn a_refresh_family_has_at_most_one_live_child(history in refresh_history()) {
        let entries = entries(&history);
        let mut state = State::default();
        // (family, presented generation) -> the successor it was given, within the lifetime of one family row.
        let mut successors: BTreeMap<(Vec<u8>, u64), (u64, u64)> = BTreeMap::new();
        for (index, bytes) in entries.iter().enumerate() {
            let (next, reply) = step(&state, index, bytes);
            match (&history[index].body, reply) {
                (Body::RotateRefresh(command), Some(ReplyBody::RefreshRotated(rotated))) => {
                    prop_assert_eq!(rotated.generation, command.generation + 1, "a successor is the next generation");
                    let child = (rotated.generation, rotated.index);
                    let first = *successors.entry((command.family_id.clone(), command.generation)).or_insert(child);
                    prop_assert_eq!(first, child, "the same parent was given another child");
                }
                (Body::RedeemCode(command), Some(ReplyBody::CodeRedeemed(_))) => {
                    successors.retain(|(family, _), _| *family != command.family_id);
                }
                _ => {}
            }
            state = next;
        }
        prop_assert!(!successors.is_empty(), "nothing was rotated, so nothing was shown");
    }
}
