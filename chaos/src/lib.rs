//! **Chaos**: random histories with the faults that a replicated log sees, and an oracle that knows what was promised.
//!
//! | module | owns |
//! |---|---|
//! | [`sim`] | one seed = one history: who proposes, applies, crashes and restarts when; in one thread, in its own time |
//! | [`invariants`] | what was promised, one file each |
//! | [`live`] | real processes, real faults, and a judge who knows only what was acknowledged |
//! | [`model`] | the serve leases in every order of events, within bounds |
//! | [`teeth`] | every known bug shown to its checker |
//! | [`oracle`] | shows every step to every invariant |
//! | [`report`] | what a run found, as a table or JSON, with the command that shows it again |
//!
//! `sim` and `model` stand on the rules and the leases alone: no sockets, no disk, no clock, no threads. The same seed gives the same
//! history for ever, so a seed that found something is kept as a test.

pub mod invariants;
pub mod live;
pub mod model;
pub mod oracle;
pub mod report;
pub mod sim;
pub mod teeth;
