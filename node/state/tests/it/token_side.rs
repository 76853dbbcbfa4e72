//! The token side of the rules: proofs that are accepted once, keys that codes and tokens are bound to, overlapping
//! secrets, early revocation of tokens, and the grant types of a client.

use conclave_proto::command::v1::{self as pb, command::Body};
use conclave_state::{
    Reason, ReplyBody, Stamp,
    ids::{AccessTokenId, SecretHash},
};

use crate::world::*;

fn update(change: pb::UpdateClient) -> Body {
    Body::UpdateClient(pb::UpdateClient { client_id: "web".into(), ..change })
}

fn change(tokens: pb::ClientTokensChange) -> Body {
    update(pb::UpdateClient { tokens: Some(tokens), ..Default::default() })
}

fn spend(proofs: Vec<pb::SpentProof>) -> Body {
    Body::SpendProofs(pb::SpendProofs { proofs })
}

fn redeem_with(n: u8, jkt: &[u8], proofs: Vec<pb::SpentProof>) -> Body {
    let Body::RedeemCode(command) = redeem(n, "web") else { unreachable!() };
    Body::RedeemCode(pb::RedeemCode { dpop_jkt: jkt.to_vec(), proofs, ..command })
}

fn rotate_with(n: u8, generation: u64, jkt: &[u8]) -> Body {
    let Body::RotateRefresh(command) = rotate(n, generation) else { unreachable!() };
    Body::RotateRefresh(pb::RotateRefresh { dpop_jkt: jkt.to_vec(), ..command })
}

/// Signs user 1 in with a code of `web` that is bound to this key.
fn start_bound(world: &mut World, n: u8, jkt: &[u8]) {
    let start = world.start(n, 1, Some(("web", &["openid"])));
    let code = pb::IssueCode { dpop_jkt: jkt.to_vec(), ..issue(n, "web", &["openid"]) };
    world.ok(Body::StartSession(pb::StartSession { code: Some(code), ..start }));
}

fn make_public(world: &mut World) {
    world.ok(Body::DeleteClient(pb::DeleteClient { client_id: "web".into() }));
    let Body::CreateClient(command) = create_client("web", &[]) else { unreachable!() };
    world.ok(Body::CreateClient(pb::CreateClient {
        auth_method: pb::ClientAuthMethod::None.into(),
        secret_hash: vec![],
        ..command
    }));
}

#[test]
fn a_proof_counts_once_until_its_age_alone_refuses_it() {
    let mut world = World::seeded();
    let until = world.now + MINUTE;
    world.ok(spend(vec![proof(1, until)]));
    assert_eq!(world.refused(spend(vec![proof(1, until)])), Reason::ProofReplayed);
    let assertion = pb::SpentProof { kind: pb::spent_proof::Kind::ClientAssertion.into(), ..proof(2, until) };
    world.ok(spend(vec![assertion.clone()]));
    assert_eq!(world.refused(spend(vec![assertion])), Reason::AssertionReplayed);

    // If one of two was used before, both are refused, and the other one stays unused.
    assert_eq!(world.refused(spend(vec![proof(3, until), proof(1, until)])), Reason::ProofReplayed);
    world.ok(spend(vec![proof(3, until)]));

    world.now = until;
    assert_eq!(world.refused(spend(vec![proof(1, until)])), Reason::ProofReplayed, "too old");
    // Forgotten without a sweep: each new one removes two.
    let before = conclave_state::snapshot::rows(&world.state).filter(|(table, _)| *table == 13).count();
    world.ok(spend(vec![proof(4, until + MINUTE)]));
    let after = conclave_state::snapshot::rows(&world.state).filter(|(table, _)| *table == 13).count();
    assert_eq!((before, after), (3, 2));
}

#[test]
fn a_proof_that_came_with_a_redemption_is_spent_with_it_and_only_with_it() {
    let mut world = World::seeded();
    let until = world.now + MINUTE;
    for n in [1, 2] {
        start_bound(&mut world, n, &[]);
    }
    let wrong = redeem(1, "app");
    let Body::RedeemCode(wrong) = wrong else { unreachable!() };
    let wrong = pb::RedeemCode { proofs: vec![proof(1, until)], ..wrong };
    assert_eq!(world.refused(Body::RedeemCode(wrong)), Reason::CodeMismatch);
    world.ok(redeem_with(1, &hash(5), vec![proof(1, until)]));
    assert_eq!(world.refused(redeem_with(2, &hash(5), vec![proof(1, until)])), Reason::ProofReplayed);
    world.ok(redeem_with(2, &hash(5), vec![proof(2, until)]));
}

#[test]
fn a_code_bound_to_a_key_is_redeemed_with_that_key_alone() {
    let mut world = World::seeded();
    start_bound(&mut world, 1, &hash(5));
    for other in [&[][..], &hash(6)] {
        assert_eq!(world.refused(redeem_with(1, other, vec![])), Reason::DpopKeyMismatch);
    }
    world.ok(redeem_with(1, &hash(5), vec![]));
}

#[test]
fn a_public_clients_refresh_tokens_are_bound_to_the_key_and_a_thief_ends_nothing() {
    let mut world = World::seeded();
    make_public(&mut world);
    start_bound(&mut world, 1, &[]);
    world.ok(redeem_with(1, &hash(5), vec![]));
    world.ok(rotate_with(1, 1, &hash(5)));
    world.now += WINDOW + 1;
    for other in [&[][..], &hash(6)] {
        // Generation 1 was used long ago: presented by its owner, it would end the family.
        assert_eq!(world.refused(rotate_with(1, 1, other)), Reason::DpopKeyMismatch);
    }
    world.ok(rotate_with(1, 2, &hash(5)));
}

#[test]
fn a_confidential_clients_refresh_tokens_follow_the_client_not_the_key() {
    let mut world = World::seeded();
    start_bound(&mut world, 1, &[]);
    world.ok(redeem_with(1, &hash(5), vec![]));
    world.ok(rotate_with(1, 1, &hash(6)));
    world.ok(change(pb::ClientTokensChange { dpop_bound: Some(true), ..Default::default() }));
    assert_eq!(world.refused(rotate_with(1, 2, &[])), Reason::DpopKeyMismatch, "some key there must be");
    world.ok(rotate_with(1, 2, &hash(6)));
}

#[test]
fn two_secrets_are_good_until_the_overlap_is_over() {
    let mut world = World::seeded();
    let is_good = |world: &World, n: u8| {
        let presented = SecretHash::parse(&hash(n)).unwrap();
        world.state.client("web").unwrap().secret_is(&presented, Stamp(world.now))
    };
    let rotate = |n, keep_previous_secret_ms| {
        update(pb::UpdateClient { secret_hash: Some(hash(n)), keep_previous_secret_ms, ..Default::default() })
    };
    world.ok(rotate(2, MINUTE));
    assert!(is_good(&world, 1) && is_good(&world, 2) && !is_good(&world, 3));
    world.now += MINUTE;
    assert!(!is_good(&world, 1) && is_good(&world, 2));
    world.ok(rotate(3, MINUTE));
    world.ok(rotate(4, 0));
    assert!(!is_good(&world, 3) && is_good(&world, 4), "at once");
    assert_eq!(world.refused(rotate(5, 100 * 24 * 60 * MINUTE)), Reason::Malformed);
}

#[test]
fn an_ended_access_token_is_remembered_until_its_own_end() {
    let mut world = World::seeded();
    let id = AccessTokenId::parse(&id(10, 1)).unwrap();
    let revoke = |expires_at_ms| {
        Body::RevokeAccessToken(pb::RevokeAccessToken { token_id: id.to_vec(), expires_at_ms })
    };
    let until = world.now + MINUTE;
    assert!(!world.state.is_access_revoked(id));
    world.ok(revoke(until));
    world.ok(revoke(until));
    assert!(world.state.is_access_revoked(id));
    assert_eq!(
        world.refused(Body::RevokeAccessToken(pb::RevokeAccessToken {
            token_id: crate::world::id(10, 2),
            expires_at_ms: until + 25 * 60 * MINUTE,
        })),
        Reason::Malformed
    );
    world.now = until;
    world.ok(Body::Sweep(pb::Sweep { limit: 10 }));
    assert!(!world.state.is_access_revoked(id));
}

#[test]
fn a_client_uses_only_the_grant_types_it_has() {
    let mut world = World::seeded();
    let only = |grant_types: &[pb::GrantType]| {
        let grant_types = grant_types.iter().map(|t| i32::from(*t)).collect();
        change(pb::ClientTokensChange {
            grant_types: Some(pb::GrantTypes { grant_types }),
            ..Default::default()
        })
    };
    start_bound(&mut world, 1, &[]);
    world.signed_in(2, &["openid"]);
    world.ok(only(&[pb::GrantType::ClientCredentials]));
    assert_eq!(world.refused(redeem(1, "web")), Reason::GrantTypeNotAllowed);
    assert_eq!(world.refused(rotate(2, 1)), Reason::GrantTypeNotAllowed);
    assert_eq!(world.refused(Body::IssueCode(issue(2, "web", &["openid"]))), Reason::GrantTypeNotAllowed);

    world.ok(only(&[pb::GrantType::AuthorizationCode]));
    let ReplyBody::CodeRedeemed(redeemed) = world.ok(redeem(1, "web")) else { panic!() };
    assert!(redeemed.family_id.is_empty(), "without refresh there is no family");

    make_public(&mut world);
    for alone in [pb::GrantType::ClientCredentials, pb::GrantType::TokenExchange] {
        assert_eq!(world.refused(only(&[alone])), Reason::Malformed, "anybody could");
    }
}

#[test]
fn what_a_client_got_for_itself_dies_when_it_is_disabled_made_anew_or_its_secret_stopped() {
    let mut world = World::seeded();
    let since = |world: &World| world.state.client("web").unwrap().own_tokens_since;
    assert_eq!(since(&world), 0, "it cannot get any");
    let grant_types = Some(pb::GrantTypes { grant_types: vec![pb::GrantType::ClientCredentials.into()] });
    world.ok(change(pb::ClientTokensChange { grant_types, ..Default::default() }));
    let disabled = |disabled| update(pb::UpdateClient { disabled: Some(disabled), ..Default::default() });
    world.ok(disabled(true));
    let at = world.index;
    world.ok(disabled(false));
    assert_eq!(since(&world), at);
    let secret = |keep_previous_secret_ms| {
        update(pb::UpdateClient { secret_hash: Some(hash(9)), keep_previous_secret_ms, ..Default::default() })
    };
    world.ok(secret(MINUTE));
    assert_eq!(since(&world), at, "with an overlap nothing stops");
    world.ok(secret(0));
    assert_eq!(since(&world), world.index);
}

#[test]
fn a_client_that_signs_its_assertions_has_keys_and_no_secret() {
    let mut world = World::seeded();
    let Body::CreateClient(command) = create_client("signs", &[]) else { unreachable!() };
    let tokens = pb::ClientTokens {
        jwks: br#"{"keys":[]}"#.to_vec(),
        assertion_algorithm: pb::SigningAlgorithm::Es256.into(),
        ..Default::default()
    };
    let good = pb::CreateClient {
        auth_method: pb::ClientAuthMethod::PrivateKeyJwt.into(),
        secret_hash: vec![],
        tokens: Some(tokens.clone()),
        ..command
    };
    for bad in [
        pb::CreateClient { secret_hash: hash(1), ..good.clone() },
        pb::CreateClient { tokens: None, ..good.clone() },
        pb::CreateClient {
            tokens: Some(pb::ClientTokens { jwks: vec![], ..tokens.clone() }),
            ..good.clone()
        },
        pb::CreateClient {
            tokens: Some(pb::ClientTokens { assertion_algorithm: 0, ..tokens }),
            ..good.clone()
        },
    ] {
        assert_eq!(world.refused(Body::CreateClient(bad)), Reason::Malformed);
    }
    world.ok(Body::CreateClient(good));
    assert!(!world.state.client("signs").unwrap().is_public());
}
