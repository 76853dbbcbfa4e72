//! The ground that every crate of the node stands on: time and randomness ([`runtime`]), the form of typed text
//! ([`text`]) and the trace context that travels between nodes ([`propagation`]).
//!
//! This crate knows no user, no log and no request.

pub mod propagation;
pub mod runtime;
pub mod text;
