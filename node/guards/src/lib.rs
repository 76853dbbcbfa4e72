//! **Checks of the source itself.** [`rooms`] compares the paths that product code uses with the table of the
//! architecture page. [`prose`] counts sentences that outside readers stumble over, and compares the counts with a
//! budget that may only fall. [`citations`] finds citations of documents and decisions that do not exist.
//!
//! They read the files as text: no build, no dependency. `make prose` prints the counts; `make verify` fails if one has
//! risen.

pub mod citations;
pub mod code;
pub mod files;
pub mod paths;
pub mod prose;
pub mod rooms;
