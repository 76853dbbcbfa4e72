//! The protocols, a slice each. A slice parses requests, says what it wants from `auth`, and writes answers. Slices
//! never import each other.

pub mod atproto;
pub mod forward_auth;
pub mod oidc;
