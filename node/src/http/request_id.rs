//! A name for each request, in its log lines, its error pages and its response.

use std::convert::Infallible;
use std::fmt;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderName, HeaderValue};

use crate::crypto::hex;
use crate::runtime::Entropy;

/// Response header that carries it.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// 32 hex digits, made here for each request; one sent by the client is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    pub fn new(entropy: &dyn Entropy) -> Self {
        Self(hex::encode(&entropy.bytes::<16>()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Outside the [`Edge`](super::Edge) there is no id, and the extractor gives an empty one.
impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self(String::new())))
    }
}
