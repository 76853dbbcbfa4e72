//! The demo's line of JSON, and people to sign in as.

use std::path::Path;

use anyhow::Context as _;
use conclave_client::{Client, Error, v1};
use serde::Deserialize;

/// A cluster that runs.
#[derive(Deserialize)]
pub struct Target {
    pub front: String,
    pub nodes: Vec<Node>,
    pub admin: Admin,
    pub client: Relying,
    pub app: App,
}

#[derive(Deserialize)]
pub struct Node {
    id: u64,
    pub http: String,
    api: String,
}

#[derive(Clone, Deserialize)]
pub struct Admin {
    pub username: String,
    pub password: String,
    token: String,
}

#[derive(Deserialize)]
pub struct Relying {
    pub client_id: String,
    pub client_secret: String,
    pub redirect_uri: String,
}

#[derive(Deserialize)]
pub struct App {
    pub url: String,
}

/// Who signs in.
pub struct Person {
    pub username: String,
    pub password: String,
}

impl Target {
    /// Reads the line; keeps only `node`, if one is named.
    pub fn read(file: &Path, node: Option<u64>) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut target: Self =
            serde_json::from_str(&text).context("not the line of `conclave demo --json`")?;
        target.nodes.retain(|known| node.is_none_or(|wanted| known.id == wanted));
        anyhow::ensure!(!target.nodes.is_empty(), "the demo has no such node");
        Ok(target)
    }

    /// So many people, made when missing: one account would be throttled, as it should.
    pub async fn people(&self, count: usize) -> anyhow::Result<Vec<Person>> {
        let endpoints = self.nodes.iter().map(|node| node.api.clone());
        let api = Client::builder().endpoints(endpoints).token(&self.admin.token).build()?;
        let mut people = Vec::new();
        for number in 0..count.max(1) {
            let (username, password) = (format!("load{number}"), format!("load password {number}"));
            let order = v1::CreateUserRequest {
                username: username.clone(),
                password: password.clone(),
                ..Default::default()
            };
            match api.users().create(order).await {
                Ok(_) | Err(Error::Refused(_)) => people.push(Person { username, password }),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(people)
    }
}
