//! The protocols, one slice each. A slice parses requests, calls `auth`, and writes responses. Slices never import each
//! other.

pub mod atproto;
pub mod forward_auth;
pub mod oidc;
