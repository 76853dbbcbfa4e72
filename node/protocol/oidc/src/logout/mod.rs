//! **Logout**: the endpoint for relying parties, and the notices to the clients of a session.

pub(crate) mod backchannel;
pub(crate) mod endpoint;
