//! The slices through the real router, on one node with a clock that moves only when told.

pub mod atmosphere;
mod atmosphere_crowds;
mod atmosphere_doors;
pub mod atmosphere_network;
mod atmosphere_profile;
mod client_documents;
mod conformance;
mod forward_auth;
mod forward_auth_others;
mod garbled;
mod login;
mod mtls;
mod oidc;
mod oidc_assertions;
mod oidc_claims;
mod oidc_devices;
mod oidc_dpop;
mod oidc_logout;
mod oidc_registration;
mod oidc_requests;
mod oidc_tokens;
mod policies;
mod recovery;
mod single_use;
pub mod site;
mod upstream;
mod upstream_provider;
