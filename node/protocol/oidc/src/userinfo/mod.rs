//! **Tokens in use**: userinfo, introspection, revocation, and the access token that a request presents.

pub(crate) mod access;
pub(crate) mod bearer;
pub(crate) mod claims;
pub(crate) mod endpoint;
pub(crate) mod introspect;
pub(crate) mod revoke;
