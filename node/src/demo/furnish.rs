//! What a demo is furnished with, through the admin API as anybody would do it: an admin, an OIDC client, an
//! application with a group that may open it. Done again on the same directory, it finds what is there and sets fresh
//! secrets.
//!
//! It ends when every node has applied what was made: the first click may go to any of them.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use axum::body::{Body, to_bytes};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_client::{
    Client, Error,
    v1::{
        AccessRule, CreateApplicationRequest, CreateClientRequest, CreateGroupRequest, CreateTokenRequest,
        CreateUserRequest, GetStatusRequest, HostList, MemberRequest, RotateClientSecretRequest,
        SetPasswordRequest, UpdateApplicationRequest,
    },
};
use conclave_state::level::SUPPORTED;

use crate::auth::operator;
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

/// How long a call is tried again: the nodes have just elected a leader, and may elect another one.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// How long a node may take to apply what the leader has; it is milliseconds unless it was stopped.
const APPLIED_LIMIT: Duration = Duration::from_secs(10);
/// How often a node is asked how far it is.
const APPLIED_POLL: Duration = Duration::from_millis(5);
/// A readiness answer has about a hundred bytes.
const MAX_ANSWER_BYTES: usize = 4 * 1024;

/// What was made, with its secrets.
pub struct Furnished {
    pub leader: u64,
    pub username: String,
    pub password: String,
    pub token: String,
    pub client_id: String,
    pub client_secret: String,
    pub redirect_uri: String,
}

/// Furnishes the cluster.
///
/// # Errors
/// What the API refused, or which node does not keep up.
pub async fn furnish(options: &DemoOptions, layout: &Layout, runtime: &Runtime) -> anyhow::Result<Furnished> {
    let api = connect(layout, runtime)?;
    let password = options.admin_password.clone().unwrap_or_else(|| random_text(runtime));
    group(&api).await?;
    admin(&api, &password).await?;
    levelled(&api).await?;
    application(&api, layout).await?;
    let redirect_uri = format!("{}/callback", layout.front_url());
    let client_secret = client(&api, &redirect_uri).await?;
    let order = CreateTokenRequest { name: "demo".into(), role: "admin".into(), ttl_ms: 0 };
    let token = api.tokens().create(order).await?.secret;
    // Whoever answers has applied all of the above: the client asks for at least the index that it has seen.
    let status = api.cluster().status(GetStatusRequest {}).await?;
    let least = status.nodes.iter().map(|node| node.applied_index).max().unwrap_or_default();
    applied_everywhere(layout, least).await?;
    Ok(Furnished {
        leader: status.leader_id,
        username: ADMIN.into(),
        password,
        token,
        client_id: CLIENT_ID.into(),
        client_secret,
        redirect_uri,
    })
}

/// As the operator: the demo holds the cluster secret.
fn connect(layout: &Layout, runtime: &Runtime) -> anyhow::Result<Client> {
    let (keys, runtime) = (Arc::new(ClusterKeys::derive(&layout.secret)), runtime.clone());
    let client = Client::builder()
        .endpoints(layout.ids().map(|node| format!("http://{}", layout.api_addr(node))))
        .token_source(move || operator::make(&keys.operator, runtime.clock.now_ms(), &*runtime.entropy))
        .deadline(CALL_LIMIT)
        .build()?;
    Ok(client)
}

/// 18 random bytes: easily copied, not guessed.
fn random_text(runtime: &Runtime) -> String {
    URL_SAFE_NO_PAD.encode(runtime.entropy.bytes::<18>())
}

/// What making something came to.
enum Made<T> {
    New(T),
    /// Refused, most likely because it is there. What is done to the existing one tells, and carries these words if it
    /// is not.
    There(Error),
}

fn made<T>(result: Result<T, Error>) -> Result<Made<T>, Error> {
    match result {
        Ok(made) => Ok(Made::New(made)),
        Err(refused @ Error::Refused(_)) => Ok(Made::There(refused)),
        Err(error) => Err(error),
    }
}

async fn group(api: &Client) -> anyhow::Result<()> {
    let order =
        CreateGroupRequest { name: ADMINS.into(), description: "May open the demo application".into() };
    // A group that was refused and is not there fails the admin, who is to be in it.
    made(api.groups().create(order).await)?;
    Ok(())
}

async fn admin(api: &Client, password: &str) -> anyhow::Result<()> {
    let order = CreateUserRequest {
        username: ADMIN.into(),
        display_name: "Ada Admin".into(),
        email: "admin@example.test".into(),
        email_verified: true,
        groups: vec![ADMINS.into()],
        password: password.into(),
        ..Default::default()
    };
    if let Made::There(refused) = made(api.users().create(order).await)? {
        let order = SetPasswordRequest {
            user: ADMIN.into(),
            password: password.into(),
            keep_sessions: true,
            keep_app_passwords: true,
        };
        api.users().set_password(order).await.with_context(|| refused.to_string())?;
        let member = MemberRequest { group: ADMINS.into(), user: ADMIN.into() };
        api.groups().add_member(member).await.with_context(|| refused.to_string())?;
    }
    Ok(())
}

/// Waits until the leader has raised the feature level of a new cluster, a second after its start: the choices of the
/// demo application count from there on.
async fn levelled(api: &Client) -> anyhow::Result<()> {
    let waiting = async {
        while api.cluster().status(GetStatusRequest {}).await?.feature_level < SUPPORTED {
            tokio::time::sleep(APPLIED_POLL).await;
        }
        Ok::<_, Error>(())
    };
    let waited = tokio::time::timeout(APPLIED_LIMIT, waiting).await;
    Ok(waited.context("the feature level of the new cluster is not raised")??)
}

async fn application(api: &Client, layout: &Layout) -> anyhow::Result<()> {
    let order = CreateApplicationRequest {
        slug: SLUG.into(),
        name: "Demo application".into(),
        launch_url: layout.app_url(),
        hosts: vec![APP_HOST.into()],
        everyone: false,
        groups: vec![ADMINS.into()],
        // The demo application shows what there is; others choose one.
        header_profile: "all".into(),
        ..Default::default()
    };
    if let Made::There(refused) = made(api.applications().create(order).await)? {
        let order = UpdateApplicationRequest {
            application: SLUG.into(),
            launch_url: Some(layout.app_url()),
            hosts: Some(HostList { hosts: vec![APP_HOST.into()] }),
            access: Some(AccessRule { everyone: false, groups: vec![ADMINS.into()] }),
            ..Default::default()
        };
        api.applications().update(order).await.with_context(|| refused.to_string())?;
    }
    Ok(())
}

async fn client(api: &Client, redirect_uri: &str) -> anyhow::Result<String> {
    let order = CreateClientRequest {
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
    match made(api.clients().create(order).await)? {
        Made::New(created) => Ok(created.client_secret),
        Made::There(refused) => {
            let order = RotateClientSecretRequest { client_id: CLIENT_ID.into(), ..Default::default() };
            let rotated = api.clients().rotate_secret(order).await.with_context(|| refused.to_string())?;
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

/// The index up to which a node shows the log, if it is ready.
async fn applied(layout: &Layout, node: u64) -> Option<u64> {
    let url = format!("http://{}/healthz/ready", layout.http_addr(node));
    let request = hyper::Request::get(url).body(Body::empty()).ok()?;
    let reply = front::client().request(request).await.ok()?;
    let bytes = to_bytes(Body::new(reply.into_body()), MAX_ANSWER_BYTES).await.ok()?;
    serde_json::from_slice::<serde_json::Value>(&bytes).ok()?.get("applied_index")?.as_u64()
}
