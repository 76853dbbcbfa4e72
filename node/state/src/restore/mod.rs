//! **Another version takes the place of this one** (design.md §8): an older state becomes the newest, and what was
//! taken away between the two stays away. A cluster that is founded from a snapshot does it once; a running one by
//! commands, which bring the older state piece by piece and put it in force in one step.
//!
//! | file | owns |
//! |---|---|
//! | `merge` | what comes of an older and of the newest state |
//! | `changes` | what that changes, for people |
//! | `journal` | revocations of which nothing but their log entries is left |
//! | `staging` | the older state on its way into a running cluster |

mod changes;
mod journal;
mod merge;
pub(crate) mod staging;

pub use changes::{Change, changes};
pub use journal::{Replayed, replay};
pub use merge::{Place, Terms, essence, restored};
pub use staging::{MAX_PIECE_BYTES, PieceHash, Staging};

pub(crate) use staging::{abort, begin, commit, stage};
