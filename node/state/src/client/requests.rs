//! What a client's authorization requests must and may be, and how it hears of logouts.

use conclave_proto::{command::v1 as pb, state::v1 as rows};

use super::{Client, wire};
use crate::{ids::SecretHash, reply::Refusal, text};

/// What a client's authorization requests must and may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Its logout tokens must carry `sid`; they always do.
    pub back_channel_logout_session_required: bool,
    /// Only pushed requests are taken (RFC 9126 §6).
    pub must_be_pushed: bool,
    /// PKCE may be left out where a nonce does its work (RFC 9700 §2.1.1). Means nothing for a public client.
    pub pkce_optional: bool,
    /// What it may name as `resource` (RFC 8707); exact strings.
    pub resources: Vec<String>,
    /// A page of the client that the browser loads when it signs out; empty = none.
    pub front_channel_logout_uri: String,
    /// For a client that registered itself: what the secret hashes to with which it changes its registration (RFC 7592).
    pub registration_token_hash: Option<SecretHash>,
}

impl Requests {
    pub(super) fn of(order: &pb::CreateClient) -> Result<Self, Refusal> {
        Ok(Self {
            back_channel_logout_session_required: order.back_channel_logout_session_required,
            must_be_pushed: order.require_pushed_authorization_requests,
            pkce_optional: order.pkce_optional,
            resources: wire::parse_uris("resources", &order.resources)?,
            front_channel_logout_uri: parse_front_uri(&order.front_channel_logout_uri)?,
            registration_token_hash: parse_hash(&order.registration_token_hash)?,
        })
    }

    pub(super) fn of_row(row: &rows::ClientRow) -> Result<Self, Refusal> {
        Ok(Self {
            back_channel_logout_session_required: row.back_channel_logout_session_required,
            must_be_pushed: row.require_pushed_authorization_requests,
            pkce_optional: row.pkce_optional,
            resources: row.resources.clone(),
            front_channel_logout_uri: row.front_channel_logout_uri.clone(),
            registration_token_hash: parse_hash(&row.registration_token_hash)?,
        })
    }
}

fn parse_front_uri(uri: &str) -> Result<String, Refusal> {
    text::line("front_channel_logout_uri", uri, text::MAX_URI_BYTES)
}

fn parse_hash(bytes: &[u8]) -> Result<Option<SecretHash>, Refusal> {
    if bytes.is_empty() { Ok(None) } else { SecretHash::parse(bytes).map(Some) }
}

pub(super) fn parse_logout_uri(uri: &str) -> Result<String, Refusal> {
    text::line("back_channel_logout_uri", uri, text::MAX_URI_BYTES)
}

/// What is given changes, the rest stays.
pub(super) fn change(client: &mut Client, order: &pb::UpdateClient) -> Result<(), Refusal> {
    if let Some(uri) = &order.back_channel_logout_uri {
        client.back_channel_logout_uri = parse_logout_uri(uri)?;
    }
    let requests = &mut client.requests;
    if let Some(required) = order.back_channel_logout_session_required {
        requests.back_channel_logout_session_required = required;
    }
    if let Some(required) = order.require_pushed_authorization_requests {
        requests.must_be_pushed = required;
    }
    if let Some(optional) = order.pkce_optional {
        requests.pkce_optional = optional;
    }
    if let Some(uri) = &order.front_channel_logout_uri {
        requests.front_channel_logout_uri = parse_front_uri(uri)?;
    }
    if let Some(resources) = &order.resources {
        requests.resources = wire::parse_uris("resources", &resources.uris)?;
    }
    Ok(())
}
