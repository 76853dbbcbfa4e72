//! `/picture/…`: a user's picture, for clients that know its name. The name does not reveal the user.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use http::StatusCode;

use conclave_auth::picture;
use conclave_http::{Fault, RequestId};

use super::site::Site;

/// A picture never changes under its name; a browser may cache it for a day.
const CACHE: &str = "public, max-age=86400, immutable";

pub(super) async fn show(State(site): State<Arc<Site>>, id: RequestId, Path(name): Path<String>) -> Response {
    let view = site.auth.cluster().view();
    let Some(picture) = picture::named(&name).and_then(|id| view.picture(id)) else {
        let fault = Fault::new(StatusCode::NOT_FOUND, "not_found", "Not found", "There is no such picture.");
        return site.fault(&fault, &id);
    };
    let headers = [(header::CONTENT_TYPE, "image/jpeg"), (header::CACHE_CONTROL, CACHE)];
    (headers, picture.jpeg.clone()).into_response()
}
