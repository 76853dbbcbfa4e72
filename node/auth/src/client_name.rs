//! The display name of a client: the name that an operator gave it, or the one that it gave itself. The name in a
//! client metadata document was not reviewed by an operator, so the document's host stands beside it.

use conclave_state::client::Client;
use url::Url;

/// The client's name for a page. Never empty.
pub fn shown_name(client: &Client) -> String {
    let name = if client.name.is_empty() { client.id.as_str() } else { &client.name };
    let host = client.is_described().then(|| Url::parse(client.id.as_str()).ok()).flatten();
    match host.as_ref().and_then(Url::host_str) {
        Some(host) => format!("{name} ({host})"),
        None => name.to_owned(),
    }
}
