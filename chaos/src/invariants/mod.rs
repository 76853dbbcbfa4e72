//! The promises. An invariant sees every applied entry on every replica, in the order of the simulation, and remembers
//! what it needs; it knows nothing of the simulator's internals.

mod codes;
mod digests;
mod families;
mod replays;
mod sessions;
mod users;

use std::fmt::Write as _;

use conclave_state::State;

use crate::oracle::AppliedStep;

/// One promise.
pub trait Invariant {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Checks an entry that was applied.
    ///
    /// # Errors
    /// A description of the violation.
    fn applied(&mut self, step: &AppliedStep<'_>) -> Result<(), String>;

    /// Checks a state that was loaded from a snapshot.
    ///
    /// # Errors
    /// A description of the violation.
    fn holds(&mut self, _state: &State) -> Result<(), String> {
        Ok(())
    }
}

/// Every promise.
#[must_use]
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::<digests::Digests>::default(),
        Box::<replays::Replays>::default(),
        Box::<codes::Codes>::default(),
        Box::<families::Families>::default(),
        Box::<sessions::Sessions>::default(),
        Box::<users::Users>::default(),
    ]
}

/// An id in hexadecimal, for reports.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
