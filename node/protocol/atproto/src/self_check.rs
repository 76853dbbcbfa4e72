//! Checks that account servers can read this cluster's document: it fetches the document at the public address, as they
//! do, before the first user notices a problem. The result is one log line; nothing is blocked.

use serde_json::Value;

use super::{client::ClientIdentity, error::AtmosphereError, net::Net};

/// The problem with the document at the public address, as a text for the operator; `None` if it equals this node's
/// own.
pub(crate) async fn wrong_with(net: &Net, client: &ClientIdentity, own: &Value) -> Option<String> {
    let seen = match net.json(&client.id).await {
        Ok(Some(seen)) => seen,
        Ok(None) => return Some("there is no document; let the proxy pass this path to the nodes".into()),
        Err(AtmosphereError::Blocked(why)) => {
            return Some(format!(
                "from here it leads to an address that is not public ({why}); account servers must reach it"
            ));
        }
        Err(error) => return Some(error.to_string()),
    };
    if seen == *own {
        return None;
    }
    let theirs = seen.get("client_id").and_then(Value::as_str).unwrap_or_default();
    Some(if theirs == client.id {
        "it is not the document that this node has; are all nodes of one version and one configuration?"
            .into()
    } else {
        format!("it is of the client {theirs:?}; http.public_url is not the address of that node")
    })
}

#[cfg(test)]
mod tests {
    use axum::{Json, Router, routing::get};
    use serde_json::json;

    use super::*;
    use conclave_http::outbound::Outbound;

    #[tokio::test]
    async fn what_is_wrong_with_the_public_document_is_said_in_one_line() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let good = json!({"client_id": format!("{origin}/good")});
        let served = good.clone();
        let router = Router::new()
            .route("/good", get(async move || Json(served)))
            .route("/other", get(async || Json(json!({"client_id": "https://elsewhere.example.com/x"}))))
            .route("/page", get(async || "<html>"));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let net = Net::new(Outbound::new(vec!["127.0.0.1".parse().unwrap()]), true);
        let closed = Net::new(Outbound::new(Vec::new()), false);
        let at = |path: &str| ClientIdentity {
            id: format!("{origin}{path}"),
            redirect_uri: String::new(),
            is_confidential: true,
        };
        assert_eq!(wrong_with(&net, &at("/good"), &good).await, None);
        for (net, path, word) in [
            (&net, "/other", "elsewhere.example.com"),
            (&net, "/page", "JSON"),
            (&net, "/none", "no document"),
            (&closed, "/good", "not public"),
        ] {
            let said = wrong_with(net, &at(path), &good).await.unwrap_or_else(|| panic!("{path}"));
            assert!(said.contains(word) && !said.contains('\n'), "{path}: {said}");
        }
        assert!(
            wrong_with(&net, &at("/good"), &json!({"client_id": format!("{origin}/good"), "x": 1}))
                .await
                .is_some()
        );
    }
}
