//! **Authorization**: the endpoint that a relying party sends a browser to, pushed requests, and the reading of both.

pub(crate) mod endpoint;
pub(crate) mod hint;
pub(crate) mod par;
pub(crate) mod read;
pub(crate) mod request;
pub(crate) mod request_object;
pub(crate) mod requested_claims;
