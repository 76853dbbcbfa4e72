//! **Chaos**: random histories with the faults that a replicated log sees, and an oracle that knows what was promised.
//!
//! | module | owns |
//! |---|---|
//! | [`sim`] | one seed = three whole nodes with their consensus, store and leases, over a simulated network, disk and clock |
//! | [`rules`] | one seed = one log: replicas of the rules that propose, apply, crash and restart, in one thread |
//! | [`history`] | what the outside did and saw, with times, and what must hold of it |
//! | [`invariants`] | what was promised, one file each |
//! | [`live`] | real processes, real faults, and a judge who knows only what was acknowledged |
//! | [`model`] | the serve leases in every order of events, within bounds |
//! | [`teeth`] | every known bug shown to its checker |
//! | [`promise`] | what was promised, by name |
//! | [`oracle`] | shows every step to every invariant |
//! | [`report`] | what a run found, as a table or JSON, with the command that shows it again |
//!
//! `rules` and `model` stand on the rules and the leases alone: no sockets, no disk, no clock, no threads. `sim` runs
//! what production runs, on time and chance of its own. The same seed gives the same history again, so a seed that
//! found something is kept as a test.

pub mod history;
pub mod invariants;
pub mod live;
pub mod model;
pub mod oracle;
pub mod promise;
mod random;
pub mod report;
pub mod rules;
pub mod sim;
pub mod teeth;
