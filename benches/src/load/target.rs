//! The demo's line of JSON, and users to sign in as.

use std::path::Path;

use anyhow::Context as _;
use conclave_client::{AdminClient, Error, v1};
use serde::Deserialize;

/// A running cluster.
#[derive(Deserialize)]
pub(crate) struct LoadTarget {
    pub front: String,
    pub nodes: Vec<TargetNode>,
    pub admin: Admin,
    pub client: Relying,
    pub app: App,
}

#[derive(Deserialize)]
pub(crate) struct TargetNode {
    id: u64,
    pub http: String,
    api: String,
}

#[derive(Clone, Deserialize)]
pub(crate) struct Admin {
    pub username: String,
    pub password: String,
    token: String,
}

#[derive(Deserialize)]
pub(crate) struct Relying {
    pub client_id: String,
    pub client_secret: String,
    pub redirect_uri: String,
}

#[derive(Deserialize)]
pub(crate) struct App {
    pub url: String,
}

/// A machine client: it has no users.
pub(crate) struct MachineClient {
    pub client_id: String,
    pub client_secret: String,
}

/// A user who signs in.
pub(crate) struct TestUser {
    pub username: String,
    pub password: String,
}

impl LoadTarget {
    /// Reads the line; keeps only `node`, if it is given.
    pub(crate) fn read(file: &Path, node: Option<u64>) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut target: Self =
            serde_json::from_str(&text).context("not the line of `conclave demo --json`")?;
        target.nodes.retain(|known| node.is_none_or(|wanted| known.id == wanted));
        anyhow::ensure!(!target.nodes.is_empty(), "the demo has no such node");
        Ok(target)
    }

    fn api(&self) -> anyhow::Result<AdminClient> {
        let endpoints = self.nodes.iter().map(|node| node.api.clone());
        Ok(AdminClient::builder().endpoints(endpoints).token(&self.admin.token).build()?)
    }

    /// Creates a client that gets tokens for itself.
    pub(crate) async fn machine(&self) -> anyhow::Result<MachineClient> {
        let request = v1::CreateClientRequest {
            name: "load".into(),
            auth_method: "client_secret_basic".into(),
            grant_types: vec!["client_credentials".into()],
            ..Default::default()
        };
        let made = self.api()?.clients().create(request).await?;
        let client_id = made.client.context("no client in the answer")?.client_id;
        Ok(MachineClient { client_id, client_secret: made.client_secret })
    }

    /// `count` users, created if missing: a single account would be throttled.
    pub(crate) async fn people(&self, count: usize) -> anyhow::Result<Vec<TestUser>> {
        let api = self.api()?;
        let mut people = Vec::new();
        for number in 0..count.max(1) {
            let (username, password) = (format!("load{number}"), format!("load password {number}"));
            let request = v1::CreateUserRequest {
                username: username.clone(),
                password: password.clone(),
                ..Default::default()
            };
            match api.users().create(request).await {
                Ok(_) | Err(Error::Refused(_)) => people.push(TestUser { username, password }),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(people)
    }
}
