//! **Disaster recovery** (docs/design/restore.md): a saved state replaces that of a cluster, or founds it anew.
//!
//! | file | owns |
//! |---|---|
//! | `report` | the changes that a restore would make, for the operator who decides |
//! | `running` | a restore through the log of a running cluster |
//! | `archived` | a cluster reconstructed from its archive |
//! | `drill` | a restore into a scratch directory, with a user who signs in |
//! | `drills` | drills on schedule |
//! | `offline` | a restore into a data directory that no process uses: from a file, or from the remains of a lost cluster |
//!
//! This room reads and writes no snapshot bytes itself (`store`), knows nothing of Raft (`cluster`), and decides
//! nothing about rows (`conclave_state::restore`). It runs their steps in an order in which a crash loses nothing.

pub mod archived;
pub mod drill;
pub mod drills;
pub mod offline;
pub mod report;
pub mod running;
