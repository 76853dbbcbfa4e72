//! **Tokens**: the token endpoint, its grants, and the tokens that they issue.

pub(crate) mod audience;
pub(crate) mod client_credentials;
pub(crate) mod device;
pub(crate) mod dpop;
pub(crate) mod endpoint;
pub(crate) mod exchange;
pub(crate) mod grants;
pub(crate) mod nonce;
pub(crate) mod polls;
pub(crate) mod request;
pub(crate) mod tokens;
