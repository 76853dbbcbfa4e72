pub mod auth;
pub mod cluster;
pub mod config;
pub mod crypto;
pub mod http;
pub mod runtime;
pub mod store;
pub mod telemetry;
