pub mod admin;
pub mod auth;
pub mod boot;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod crypto;
pub mod demo;
pub mod health;
pub mod http;
pub mod protocol;
pub mod runtime;
pub mod serve;
pub mod store;
pub mod telemetry;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod web;
