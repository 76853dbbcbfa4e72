//! The client that sends a request without a browser: its document is brought up to date, and its proof is spent.

use std::sync::Arc;

use conclave_state::client::Client;

use crate::{
    Oidc,
    authorization::request::{NoWayBack, Parameters},
    clients::{assertion, authentication, document},
    error::TokenError,
    head::RequestHead,
};

/// The client id that the request claims. Without a secret it is in the form.
fn claimed_client(form: &Parameters) -> Option<String> {
    let named = form.get("client_id").map(str::to_owned);
    named.or_else(|| form.get("client_assertion").and_then(assertion::unverified_client))
}

/// Authenticates the client; its assertion is spent.
pub(crate) async fn authenticated(
    oidc: &Oidc,
    headers: &RequestHead,
    form: &Parameters,
) -> Result<Arc<Client>, TokenError> {
    if let Some(client_id) = claimed_client(form) {
        let known = document::bring_up_to_date(oidc, headers.caller, &client_id).await;
        known.map_err(|mistake| match mistake {
            NoWayBack::Document(why) => TokenError::InvalidRequest(why),
            _ => TokenError::Unavailable,
        })?;
    }
    let (known, _) = authentication::authenticate_now(oidc, headers, form).await?;
    known.used_up(oidc, None).await
}
