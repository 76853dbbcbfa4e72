//! **Chaos**: random histories with the faults that a replicated log sees, and an oracle that knows the promises.
//!
//! | module | owns |
//! |---|---|
//! | [`sim`] | one seed = three whole nodes with their consensus, store and leases, over a simulated network, disk and clock |
//! | [`rules`] | one seed = one log: replicas of the rules that propose, apply, crash and restart, in one thread |
//! | [`history`] | operations and observations from outside, with times, and the rules for judging them |
//! | [`invariants`] | the promises, one file each |
//! | [`live`] | real processes, real faults, and a judge who knows only what was acknowledged |
//! | [`model`] | the serve leases in every order of events, within bounds |
//! | [`mutation_tests`] | mutation tests: every known bug, run against its checker |
//! | [`promise`] | the promises, by name |
//! | [`oracle`] | passes every step to every invariant |
//! | [`report`] | the results of a run, as a table or JSON, with the command that reproduces them |
//!
//! `rules` and `model` use only the rules and the leases: no sockets, no disk, no clock, no threads. `sim` runs the
//! production code with simulated time and seeded randomness. A seed always gives the same history, so a seed
//! that found something is kept as a test.

pub mod history;
pub mod invariants;
pub mod live;
pub mod model;
pub mod mutation_tests;
pub mod oracle;
pub mod promise;
mod random;
pub mod report;
pub mod rules;
pub mod sim;
