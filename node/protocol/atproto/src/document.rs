//! DID documents: the handle that a DID claims, and its personal data server.

use serde_json::Value;

use super::{
    did::Did,
    error::AtmosphereError,
    identifier::{AtprotoHandle, server},
};

/// The content of a DID's own document, the only source of these facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DidDocument {
    /// The first handle that it claims. Confirmed only if the handle claims the DID as well.
    pub handle: Option<AtprotoHandle>,
    /// The origin of its personal data server.
    pub pds: String,
}

/// Parses the document of this DID.
///
/// # Errors
/// [`AtmosphereError::ProviderInvalid`] with a description for the log.
pub(crate) fn read(document: &Value, did: &Did, dev: bool) -> Result<DidDocument, AtmosphereError> {
    let wrong = |why| Err(AtmosphereError::ProviderInvalid(why));
    if document.get("id").and_then(Value::as_str) != Some(did.as_str()) {
        return wrong("the DID document is of another DID");
    }
    let Some(pds) = pds(document) else { return wrong("the DID document names no personal data server") };
    Ok(DidDocument { handle: handle(document, dev), pds })
}

fn handle(document: &Value, dev: bool) -> Option<AtprotoHandle> {
    let names = document.get("alsoKnownAs")?.as_array()?;
    // The first valid one; later ones are not claims.
    let claimed = names.iter().filter_map(|name| name.as_str()?.strip_prefix("at://"));
    claimed.into_iter().find_map(|name| AtprotoHandle::parse(name, dev).ok())
}

/// The first service of that kind is used, even if its address is invalid; others are not tried.
fn pds(document: &Value) -> Option<String> {
    let services = document.get("service")?.as_array()?;
    let is_pds = |service: &&Value| {
        let text = |name: &str| service.get(name).and_then(Value::as_str).unwrap_or_default();
        text("id").ends_with("#atproto_pds") && text("type") == "AtprotoPersonalDataServer"
    };
    server(services.iter().find(is_pds)?.get("serviceEndpoint")?.as_str()?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DID: &str = "did:plc:ewvi7nxzyoun6zhxrhs64oiz";

    fn document() -> Value {
        json!({
            "@context": "https://www.w3.org/ns/did/v1",
            "id": DID,
            "alsoKnownAs": ["https://elsewhere.example.com", "at://Alice.example.com", "at://bob.example.com"],
            "service": [
                {"id": "#other", "type": "Other", "serviceEndpoint": {"uri": "x"}},
                {"id": format!("{DID}#atproto_pds"), "type": "AtprotoPersonalDataServer", "serviceEndpoint": "https://pds.example.com/"},
            ],
            "unknown": {"deep": [1, 2]},
        })
    }

    fn with(name: &str, value: Value) -> Result<DidDocument, AtmosphereError> {
        let mut document = document();
        document[name] = value;
        read(&document, &Did::parse(DID, false).unwrap(), false)
    }

    #[test]
    fn a_document_names_one_handle_and_one_server() {
        let described = with("unknown", json!(1)).unwrap();
        assert_eq!(described.pds, "https://pds.example.com", "a slash at the end is no path");
        assert_eq!(described.handle.unwrap().as_str(), "alice.example.com", "the first");
    }

    #[test]
    fn another_persons_document_and_one_without_a_server_are_none() {
        assert!(with("id", json!("did:plc:aaaaaaaaaaaaaaaaaaaaaaaa")).is_err());
        assert!(with("id", json!(null)).is_err());
        for endpoint in [
            json!("https://pds.example.com/path"),
            json!("javascript:x"),
            json!({"uri": "https://pds.example.com"}),
            json!(1),
        ] {
            let service = json!([{"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": endpoint}]);
            assert!(with("service", service).is_err(), "{endpoint}");
        }
        assert!(with("service", json!([])).is_err());
        for names in [
            json!(null),
            json!([]),
            json!(["at://"]),
            json!(["at://alice.local"]),
            json!("at://alice.example.com"),
        ] {
            assert_eq!(with("alsoKnownAs", names.clone()).unwrap().handle, None, "{names}");
        }
    }
}
