//! The cluster room from outside: real nodes in this process, with real sled, real mTLS and loopback.

mod door;
mod failover;
mod founding;
mod gate;
mod halt;
mod harness;
mod lag;
mod leases;
pub(crate) mod logs;
mod membership;
mod pace;
mod queue;
mod refused;
mod snapshots;
mod truth;
