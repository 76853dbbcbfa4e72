//! **The worst day** (design.md §8): a saved state takes the place of what a cluster holds, or founds it anew.
//!
//! | file | owns |
//! |---|---|
//! | `report` | what a restore would change, for the person who decides |
//! | `running` | a restore through the log of a cluster that runs |
//! | `archived` | what an archive holds, put together |
//! | `drill` | the same, tried out: in a scratch directory, with somebody who signs in |
//! | `drills` | drills on schedule |
//! | `offline` | a restore into a data directory that no process uses: from a file, or from what a lost cluster left |
//!
//! It reads and writes no snapshot bytes itself (`store`), knows nothing of Raft (`cluster`), and decides nothing about
//! rows (`conclave_state::restore`): it puts them together in the one order that loses nothing.

pub mod archived;
pub mod drill;
pub mod drills;
pub mod offline;
pub mod report;
pub mod running;
