//! What a demo is furnished with, through the admin API as anybody would do it: an admin, an OIDC client, an application with a
//! group that may open it. Done again on the same directory, it finds what is there and sets fresh secrets.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use conclave_proto::admin::v1::{
    AccessRule, CreateApplicationRequest, CreateClientRequest, CreateGroupRequest, CreateTokenRequest,
    CreateUserRequest, GetStatusRequest, HostList, MemberRequest, RotateClientSecretRequest,
    SetPasswordRequest, UpdateApplicationRequest, application_service_client::ApplicationServiceClient,
    client_service_client::ClientServiceClient, cluster_service_client::ClusterServiceClient,
    group_service_client::GroupServiceClient, token_service_client::TokenServiceClient,
    user_service_client::UserServiceClient,
};
use tonic::{
    Code, Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use crate::{auth::operator, crypto::keys::ClusterKeys, runtime::Runtime};

use super::{
    DemoOptions,
    layout::{APP_HOST, Layout},
};

const ADMIN: &str = "admin";
const ADMINS: &str = "admins";
const CLIENT_ID: &str = "demo-client";
const SLUG: &str = "demo-app";
const SCOPES: [&str; 5] = ["openid", "profile", "email", "groups", "offline_access"];

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

/// Shows the operator's assertion with each call.
#[derive(Clone)]
struct Bearer(AsciiMetadataValue);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

type Api = InterceptedService<Channel, Bearer>;

/// Furnishes the cluster.
///
/// # Errors
/// What the API refused.
pub async fn furnish(options: &DemoOptions, layout: &Layout, runtime: &Runtime) -> anyhow::Result<Furnished> {
    let keys = ClusterKeys::derive(&layout.secret);
    let assertion = operator::make(&keys.operator, runtime.clock.now_ms(), &*runtime.entropy);
    let bearer = Bearer(format!("Bearer {assertion}").parse()?);
    let channel = Endpoint::from_shared(format!("http://{}", layout.api_addr(1)))?.connect().await?;
    let api = InterceptedService::new(channel, bearer);

    let password = options.admin_password.clone().unwrap_or_else(|| random_text(runtime));
    group(&api).await?;
    admin(&api, &password).await?;
    application(&api, layout).await?;
    let redirect_uri = format!("{}/callback", layout.front_url());
    let client_secret = client(&api, &redirect_uri).await?;
    let token = TokenServiceClient::new(api.clone())
        .create_token(CreateTokenRequest { name: "demo".into(), role: "admin".into(), ttl_ms: 0 })
        .await?
        .into_inner()
        .secret;
    let status = ClusterServiceClient::new(api).get_status(GetStatusRequest {}).await?.into_inner();
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

/// 18 random bytes: easily copied, not guessed.
fn random_text(runtime: &Runtime) -> String {
    URL_SAFE_NO_PAD.encode(runtime.entropy.bytes::<18>())
}

/// What is there already is as good as made.
fn unless_there<T>(result: Result<T, Status>) -> anyhow::Result<Option<T>> {
    match result {
        Ok(made) => Ok(Some(made)),
        Err(status) if status.code() == Code::AlreadyExists => Ok(None),
        Err(status) => Err(status.into()),
    }
}

async fn group(api: &Api) -> anyhow::Result<()> {
    let order =
        CreateGroupRequest { name: ADMINS.into(), description: "May open the demo application".into() };
    unless_there(GroupServiceClient::new(api.clone()).create_group(order).await)?;
    Ok(())
}

async fn admin(api: &Api, password: &str) -> anyhow::Result<()> {
    let mut users = UserServiceClient::new(api.clone());
    let order = CreateUserRequest {
        username: ADMIN.into(),
        display_name: "Ada Admin".into(),
        email: "admin@example.test".into(),
        email_verified: true,
        groups: vec![ADMINS.into()],
        password: password.into(),
        ..Default::default()
    };
    if unless_there(users.create_user(order).await)?.is_none() {
        let order = SetPasswordRequest { user: ADMIN.into(), password: password.into(), keep_sessions: true };
        users.set_password(order).await?;
        let member = MemberRequest { group: ADMINS.into(), user: ADMIN.into() };
        GroupServiceClient::new(api.clone()).add_member(member).await?;
    }
    Ok(())
}

async fn application(api: &Api, layout: &Layout) -> anyhow::Result<()> {
    let mut applications = ApplicationServiceClient::new(api.clone());
    let order = CreateApplicationRequest {
        slug: SLUG.into(),
        name: "Demo application".into(),
        launch_url: layout.app_url(),
        hosts: vec![APP_HOST.into()],
        everyone: false,
        groups: vec![ADMINS.into()],
    };
    if unless_there(applications.create_application(order).await)?.is_none() {
        let order = UpdateApplicationRequest {
            application: SLUG.into(),
            launch_url: Some(layout.app_url()),
            hosts: Some(HostList { hosts: vec![APP_HOST.into()] }),
            access: Some(AccessRule { everyone: false, groups: vec![ADMINS.into()] }),
            ..Default::default()
        };
        applications.update_application(order).await?;
    }
    Ok(())
}

async fn client(api: &Api, redirect_uri: &str) -> anyhow::Result<String> {
    let mut clients = ClientServiceClient::new(api.clone());
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
    if let Some(made) = unless_there(clients.create_client(order).await)? {
        return Ok(made.into_inner().client_secret);
    }
    let rotated =
        clients.rotate_client_secret(RotateClientSecretRequest { client_id: CLIENT_ID.into() }).await?;
    Ok(rotated.into_inner().client_secret)
}
