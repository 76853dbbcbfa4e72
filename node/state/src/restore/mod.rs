//! **Another version replaces this state** (docs/design/restore.md): an older state becomes the newest, and what was
//! revoked between the two stays revoked. A cluster that is founded from a snapshot does this once. A running cluster
//! does it by commands, which transfer the older state piece by piece and put it in force in one step.
//!
//! | file | owns |
//! |---|---|
//! | `merge` | the state that results from an older and the newest state |
//! | `changes` | the differences, for the operator |
//! | `journal` | revocations of which only the log entries are left |
//! | `staging` | the transfer of the older state into a running cluster |

mod changes;
mod journal;
mod merge;
pub(crate) mod staging;

pub use changes::{RowChange, changes};
pub use journal::{ReplayCounts, replay};
pub use merge::{MergeOptions, RestoreTarget, restorable_subset, restored};
pub use staging::{MAX_PIECE_BYTES, PieceHash, Staging};

pub(crate) use staging::{abort, begin, commit, stage};
