//! `/connections/end`: the user withdraws the consent to a client, and everything issued to that client is revoked.

use std::sync::Arc;

use axum::{
    Form,
    extract::{State, rejection::FormRejection},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use conclave_proto::command::v1::{RevokeConsent, command::Body};
use serde::Deserialize;

use conclave_auth::AuthError;
use conclave_http::{Fault, RequestId};

use super::site::{Site, fault_of, see_other};

pub(super) const ACTION: &str = "/connections/end";

#[derive(Deserialize)]
pub(super) struct RevokeConsentForm {
    csrf: String,
    client_id: String,
}

pub(super) async fn end(
    State(site): State<Arc<Site>>,
    id: RequestId,
    headers: HeaderMap,
    form: Result<Form<RevokeConsentForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        let detail = "The form arrived incomplete. Go back, reload the page and try again.";
        let fault = Fault::new(StatusCode::BAD_REQUEST, "bad_form", "The form is incomplete", detail);
        return site.formed(&headers, Err(fault), &id);
    };
    let result = ended(&site, &headers, &form).await;
    site.formed(&headers, result, &id)
}

async fn ended(site: &Site, headers: &HeaderMap, form: &RevokeConsentForm) -> Result<Response, Fault> {
    let browser = site.browser(headers)?;
    site.check_csrf(&browser, ACTION, &form.csrf)?;
    let Some(signed_in) = site.visitor(&browser).await?.signed_in else { return Ok(see_other("/login")) };
    let user = signed_in.user.id;
    let write_key = site.write_key(headers, &[b"disconnect", user.bytes(), form.client_id.as_bytes()]);
    let command = RevokeConsent { user_id: user.to_vec(), client_id: form.client_id.clone() };
    let written = site.auth.cluster().propose(write_key.request(), Body::RevokeConsent(command)).await;
    written.map_err(|error| fault_of(&AuthError::from(error)))?;
    Ok(see_other("/"))
}
