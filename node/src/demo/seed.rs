//! Seeds a demo through the admin API: an admin, an OIDC client, and an application with a group that may open it. In a
//! directory that was seeded before, it uses the existing objects and sets fresh secrets.
//!
//! It ends when every node has applied the new objects: the first click may go to any node.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::body::{Body, to_bytes};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_client::{
    AdminClient, Error,
    v1::{
        AccessRule, CreateApplicationRequest, CreateClientRequest, CreateGroupRequest, CreateTokenRequest,
        CreateUserRequest, GetStatusRequest, HostList, MemberRequest, RotateClientSecretRequest,
        SetPasswordRequest, UpdateApplicationRequest,
    },
};
use conclave_state::level::SUPPORTED;

use conclave_auth::operator;
use conclave_base::runtime::Runtime;
use conclave_crypto::keys::ClusterKeys;

use super::{
    DemoOptions, front,
    layout::{APP_HOST, Layout},
};

const ADMIN: &str = "admin";
const ADMINS: &str = "admins";
const CLIENT_ID: &str = "demo-client";
const SLUG: &str = "demo-app";
const SCOPES: [&str; 5] = ["openid", "profile", "email", "groups", "offline_access"];

/// The time for which a call is retried: the nodes have just elected a leader, and may elect another one.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// The time a node may take to apply what the leader has; it takes milliseconds unless the node was stopped.
const APPLIED_LIMIT: Duration = Duration::from_secs(10);
/// The interval at which a node is polled for its index.
const APPLIED_POLL: Duration = Duration::from_millis(5);
/// The largest readiness response that is read; it has about a hundred bytes.
const MAX_ANSWER_BYTES: usize = 4 * 1024;

/// The seeded objects, with their secrets.
pub(super) struct DemoSeed {
    pub leader: u64,
    pub username: String,
    pub password: String,
    pub token: String,
    pub client_id: String,
    pub client_secret: String,
    pub redirect_uri: String,
}

/// Seeds the cluster.
///
/// # Errors
/// The refusal of the API, or the node that does not keep up.
pub(super) async fn seed(
    options: &DemoOptions,
    layout: &Layout,
    runtime: &Runtime,
) -> anyhow::Result<DemoSeed> {
    let api = connect(layout, runtime)?;
    let password = options.admin_password.clone().unwrap_or_else(|| random_text(runtime));
    group(&api).await?;
    admin(&api, &password).await?;
    levelled(&api).await?;
    application(&api, layout).await?;
    let redirect_uri = format!("{}/callback", layout.front_url());
    let client_secret = client(&api, &redirect_uri).await?;
    let request = CreateTokenRequest { name: "demo".into(), role: "admin".into(), ttl_ms: 0 };
    let token = api.tokens().create(request).await?.secret;
    // The node that answers has applied all of the above: the client requires at least the index that it has seen.
    let status = api.cluster().status(GetStatusRequest {}).await?;
    let least = status.nodes.iter().map(|node| node.applied_index).max().unwrap_or_default();
    applied_everywhere(layout, least).await?;
    Ok(DemoSeed {
        leader: status.leader_id,
        username: ADMIN.into(),
        password,
        token,
        client_id: CLIENT_ID.into(),
        client_secret,
        redirect_uri,
    })
}

/// Connects as the operator: the demo holds the cluster secret.
fn connect(layout: &Layout, runtime: &Runtime) -> anyhow::Result<AdminClient> {
    let (keys, runtime) = (Arc::new(ClusterKeys::derive(&layout.secret)), runtime.clone());
    let client = AdminClient::builder()
        .endpoints(layout.ids().map(|node| format!("http://{}", layout.api_addr(node))))
        .token_source(move || operator::make(&keys.operator, runtime.clock.now_ms(), &*runtime.entropy))
        .deadline(CALL_LIMIT)
        .build()?;
    Ok(client)
}

/// 18 random bytes: easy to copy, and not guessable.
fn random_text(runtime: &Runtime) -> String {
    URL_SAFE_NO_PAD.encode(runtime.entropy.bytes::<18>())
}

/// The result of creating an object.
enum Made<T> {
    New(T),
    /// Refused, most likely because it exists. The following change of the existing object shows it, and reports this
    /// error if it does not exist.
    There(Error),
}

fn made<T>(result: Result<T, Error>) -> Result<Made<T>, Error> {
    match result {
        Ok(made) => Ok(Made::New(made)),
        Err(refused @ Error::Refused(_)) => Ok(Made::There(refused)),
        Err(error) => Err(error),
    }
}

async fn group(api: &AdminClient) -> anyhow::Result<()> {
    let request =
        CreateGroupRequest { name: ADMINS.into(), description: "May open the demo application".into() };
    // If the group was refused for another reason and does not exist, creating the admin fails, who is to be a member.
    made(api.groups().create(request).await)?;
    Ok(())
}

async fn admin(api: &AdminClient, password: &str) -> anyhow::Result<()> {
    let request = CreateUserRequest {
        username: ADMIN.into(),
        display_name: "Ada Admin".into(),
        email: "admin@example.test".into(),
        email_verified: true,
        groups: vec![ADMINS.into()],
        password: password.into(),
        ..Default::default()
    };
    if let Made::There(refused) = made(api.users().create(request).await)? {
        let request = SetPasswordRequest {
            user: ADMIN.into(),
            password: password.into(),
            keep_sessions: true,
            keep_app_passwords: true,
        };
        api.users().set_password(request).await.with_context(|| refused.to_string())?;
        let member = MemberRequest { group: ADMINS.into(), user: ADMIN.into() };
        api.groups().add_member(member).await.with_context(|| refused.to_string())?;
    }
    Ok(())
}

/// Waits until the leader has raised the feature level of a new cluster, a second after its start: the settings of the
/// demo application are valid only from there on.
async fn levelled(api: &AdminClient) -> anyhow::Result<()> {
    let waiting = async {
        while api.cluster().status(GetStatusRequest {}).await?.feature_level < SUPPORTED {
            tokio::time::sleep(APPLIED_POLL).await;
        }
        Ok::<_, Error>(())
    };
    let waited = tokio::time::timeout(APPLIED_LIMIT, waiting).await;
    Ok(waited.context("the feature level of the new cluster is not raised")??)
}

async fn application(api: &AdminClient, layout: &Layout) -> anyhow::Result<()> {
    let request = CreateApplicationRequest {
        slug: SLUG.into(),
        name: "Demo application".into(),
        launch_url: layout.app_url(),
        hosts: vec![APP_HOST.into()],
        everyone: false,
        groups: vec![ADMINS.into()],
        // The demo application shows every header; others choose one profile.
        header_profile: "all".into(),
        ..Default::default()
    };
    if let Made::There(refused) = made(api.applications().create(request).await)? {
        let request = UpdateApplicationRequest {
            application: SLUG.into(),
            launch_url: Some(layout.app_url()),
            hosts: Some(HostList { hosts: vec![APP_HOST.into()] }),
            access: Some(AccessRule { everyone: false, groups: vec![ADMINS.into()] }),
            ..Default::default()
        };
        api.applications().update(request).await.with_context(|| refused.to_string())?;
    }
    Ok(())
}

async fn client(api: &AdminClient, redirect_uri: &str) -> anyhow::Result<String> {
    let request = CreateClientRequest {
        client_id: CLIENT_ID.into(),
        name: "Demo client".into(),
        auth_method: "client_secret_basic".into(),
        redirect_uris: vec![redirect_uri.into()],
        post_logout_redirect_uris: vec![redirect_uri.into()],
        scopes: SCOPES.map(str::to_owned).to_vec(),
        signing_algorithm: "RS256".into(),
        consent: "implicit".into(),
        ..Default::default()
    };
    match made(api.clients().create(request).await)? {
        Made::New(created) => Ok(created.client_secret),
        Made::There(refused) => {
            let request = RotateClientSecretRequest { client_id: CLIENT_ID.into(), ..Default::default() };
            let rotated = api.clients().rotate_secret(request).await.with_context(|| refused.to_string())?;
            Ok(rotated.client_secret)
        }
    }
}

/// Waits until every node has applied the log up to `least`.
async fn applied_everywhere(layout: &Layout, least: u64) -> anyhow::Result<()> {
    for node in layout.ids() {
        let waiting = async {
            while applied(layout, node).await.is_none_or(|index| index < least) {
                tokio::time::sleep(APPLIED_POLL).await;
            }
        };
        tokio::time::timeout(APPLIED_LIMIT, waiting).await.with_context(|| {
            format!("node {node} does not keep up; its log is {}", layout.log_file(node).display())
        })?;
    }
    Ok(())
}

/// The index that a node has applied, if it is ready.
async fn applied(layout: &Layout, node: u64) -> Option<u64> {
    let url = format!("http://{}/healthz/ready", layout.http_addr(node));
    let request = hyper::Request::get(url).body(Body::empty()).ok()?;
    let reply = front::client().request(request).await.ok()?;
    let bytes = to_bytes(Body::new(reply.into_body()), MAX_ANSWER_BYTES).await.ok()?;
    serde_json::from_slice::<serde_json::Value>(&bytes).ok()?.get("applied_index")?.as_u64()
}
