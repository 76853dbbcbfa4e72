//! Checks that account servers of the Atmosphere can read this cluster's client metadata: the documents that they
//! request, and the faults that they refuse (atproto OAuth).

use http::header;
use serde_json::Value;
use url::Url;

use super::{
    findings::Finding,
    walk::{Browser, Hop},
};

const DOCUMENT: &str = "/oauth-client-metadata.json";

/// Every fault of the cluster at this public address, as an account server sees it.
pub(super) async fn cluster(url: &Url) -> Vec<Finding> {
    let mut found = Vec::new();
    let is_name = url.domain().is_some_and(|name| name.contains('.'));
    if url.scheme() != "https" || url.port().is_some() || !is_name {
        let what = format!("{url} is not https, has a port, or has no DNS name");
        found.push(Finding::new("atmosphere_address", what));
    }
    let Ok(at) = url.join(DOCUMENT) else { return found };
    let document = match asked(&at).await {
        Ok(document) => document,
        Err(finding) => {
            found.push(finding);
            return found;
        }
    };
    let text = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    if text("client_id") != at.as_str() {
        let what = format!("the document at {at} is of the client {:?}", text("client_id"));
        found.push(Finding::new("atmosphere_other_client", what));
    }
    match Url::parse(&text("jwks_uri")) {
        Ok(keys) => match asked(&keys).await {
            Ok(keys) if keys.get("keys").and_then(Value::as_array).is_some_and(|keys| !keys.is_empty()) => {}
            Ok(_) => found.push(Finding::new("atmosphere_no_keys", format!("there is no key at {keys}"))),
            Err(finding) => found.push(finding),
        },
        Err(_) => {
            found.push(Finding::new("atmosphere_no_keys", format!("the document at {at} names no keys")))
        }
    }
    found
}

/// Requests a document as account servers do: 200 at once, of a JSON type.
async fn asked(url: &Url) -> Result<Value, Finding> {
    let hop: Hop = match Browser::new().get(url, &[("accept", "application/json")]).await {
        Ok(hop) => hop,
        Err(error) => return Err(Finding::new("unreachable", format!("{url}: {error}"))),
    };
    if hop.status() != 200 {
        let to = hop.next.as_ref().map(|next| format!(" to {next}")).unwrap_or_default();
        return Err(Finding::new("atmosphere_status", format!("{url} answers {}{to}", hop.status())));
    }
    let kind = hop.answer.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let document = serde_json::from_slice(&hop.answer.body).ok().filter(|_| hop.answer.is_json());
    document.ok_or_else(|| {
        Finding::new(
            "atmosphere_status",
            format!("{url} is not a JSON document but {}", kind.unwrap_or("of no type")),
        )
    })
}
