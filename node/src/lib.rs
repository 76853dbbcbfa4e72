pub mod cluster;
pub mod store;
