//! **Discovery**: the discovery document and the key set.

pub(crate) mod acr;
pub(crate) mod discovery;
