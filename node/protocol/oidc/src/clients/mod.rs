//! **Clients**: how a client proves itself, and how it is described.

pub(crate) mod assertion;
pub(crate) mod authentication;
pub(crate) mod caller;
pub(crate) mod certificate;
pub(crate) mod document;
pub(crate) mod metadata;
pub(crate) mod registration;
