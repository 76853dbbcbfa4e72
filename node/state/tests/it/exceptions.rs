//! Exceptions that an administrator explicitly allows one client, from feature level 2 on.

use conclave_proto::command::v1::{self as pb, ClientAuthMethod, command::Body};
use conclave_state::{
    Reason,
    level::EXCEPTIONS,
    snapshot::{Loader, chunks, digest},
};

use crate::world::*;

const API: &str = "https://api.test";

/// A change of the client `web` that names every property of level 2.
fn everything() -> pb::UpdateClient {
    let api = || Some(pb::Uris { uris: vec![API.into()] });
    pb::UpdateClient {
        strict_authentication: Some(true),
        pkce_without_nonce: Some(true),
        allow_http: Some(true),
        omit_error_issuer: Some(true),
        allowed_schemes: Some(pb::Scopes { scopes: vec!["oc".into()] }),
        resources: api(),
        default_resources: api(),
        auth_method: Some(ClientAuthMethod::SecretPost.into()),
        application_id: Some(application(1)),
        tokens: Some(pb::ClientTokensChange {
            pairwise_sector: Some("rp.test".into()),
            ..Default::default()
        }),
        ..web()
    }
}

fn web() -> pb::UpdateClient {
    pb::UpdateClient { client_id: "web".into(), ..Default::default() }
}

fn raised() -> World {
    let mut world = World::seeded();
    world.ok(Body::RaiseLevel(pb::RaiseLevel { level: EXCEPTIONS }));
    world
}

#[test]
fn below_their_level_exceptions_are_dropped_as_an_older_member_drops_them() {
    let (mut with, mut without) = (World::seeded(), World::seeded());
    with.ok(Body::UpdateClient(everything()));
    let resources = Some(pb::Uris { uris: vec![API.into()] });
    without.ok(Body::UpdateClient(pb::UpdateClient { resources, ..web() }));
    assert_eq!(with.state.client("web"), without.state.client("web"));
    let created = |world: &mut World, omit_error_issuer| {
        let Body::CreateClient(command) = create_client("new", &[]) else { unreachable!() };
        world.ok(Body::CreateClient(pb::CreateClient { omit_error_issuer, ..command }));
        world.state.client("new").cloned()
    };
    assert_eq!(created(&mut with, true), created(&mut without, false));
}

#[test]
fn exceptions_are_kept_and_come_back_from_a_snapshot() {
    let mut world = raised();
    world.ok(Body::UpdateClient(everything()));
    let client = world.state.client("web").unwrap().clone();
    let exceptions = &client.requests.exceptions;
    assert!(exceptions.strict_authentication && exceptions.pkce_without_nonce);
    assert!(exceptions.allow_http && exceptions.omit_error_issuer);
    assert_eq!(
        (exceptions.allowed_schemes.as_slice(), exceptions.default_resources.as_slice()),
        (&["oc".to_owned()][..], &[API.to_owned()][..])
    );
    assert_eq!(
        (client.auth_method, client.tokens.pairwise_sector.as_str()),
        (ClientAuthMethod::SecretPost, "rp.test")
    );
    assert!(client.secret_hash.is_some(), "the secret stays between header and body");
    assert!(client.application.is_some());
    let mut loader = Loader::default();
    for (table, chunk) in chunks(&world.state) {
        loader.chunk(table, &chunk).unwrap();
    }
    let restored = loader.finish();
    assert_eq!(digest(&restored), digest(&world.state));
    assert_eq!(restored.client("web").unwrap(), &client);

    let back = pb::UpdateClient {
        omit_error_issuer: Some(false),
        application_id: Some(Vec::new()),
        tokens: Some(pb::ClientTokensChange { pairwise_sector: Some(String::new()), ..Default::default() }),
        ..web()
    };
    world.ok(Body::UpdateClient(back));
    let client = world.state.client("web").unwrap();
    assert!(!client.requests.exceptions.omit_error_issuer && client.application.is_none());
    assert!(client.tokens.pairwise_sector.is_empty() && client.requests.exceptions.allow_http);
}

#[test]
fn exceptions_that_endanger_others_are_refused() {
    let mut world = raised();
    let public = || pb::UpdateClient { auth_method: Some(ClientAuthMethod::None.into()), ..web() };
    let schemes = |scheme: &str| pb::UpdateClient {
        allowed_schemes: Some(pb::Scopes { scopes: vec![scheme.into()] }),
        ..web()
    };
    for command in [
        pb::UpdateClient { pkce_without_nonce: Some(true), ..public() },
        pb::UpdateClient { allow_http: Some(true), ..public() },
        pb::UpdateClient { default_resources: Some(pb::Uris { uris: vec![API.into()] }), ..web() },
        schemes("javascript"),
        schemes("http"),
        schemes("Oc"),
        schemes("1c"),
    ] {
        assert_eq!(world.refused(Body::UpdateClient(command.clone())), Reason::Malformed, "{command:?}");
    }
    world.ok(Body::UpdateClient(public()));
    assert!(world.state.client("web").unwrap().secret_hash.is_none(), "a public client has none");
    let basic = pb::UpdateClient { auth_method: Some(ClientAuthMethod::SecretBasic.into()), ..web() };
    assert_eq!(world.refused(Body::UpdateClient(basic.clone())), Reason::Malformed, "it needs a secret");
    world.ok(Body::UpdateClient(pb::UpdateClient { secret_hash: Some(hash(3)), ..basic }));
    assert!(world.state.client("web").unwrap().secret_hash.is_some());
}
