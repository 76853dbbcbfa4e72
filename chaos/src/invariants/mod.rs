//! What was promised. An invariant sees every applied entry on every replica, in the order of the simulation, and
//! remembers what it needs; it never asks the simulator how it works.

mod codes;
mod digests;
mod families;
mod replays;
mod sessions;
mod users;

use std::fmt::Write as _;

use conclave_state::State;

use crate::oracle::Step;

/// One promise.
pub trait Invariant {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// An entry was applied.
    ///
    /// # Errors
    /// What is broken, in words.
    fn applied(&mut self, step: &Step<'_>) -> Result<(), String>;

    /// A state that came from a snapshot.
    ///
    /// # Errors
    /// What is broken, in words.
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

/// An id for people.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
