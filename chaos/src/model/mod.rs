//! The model of the serve leases: every order of events within bounds, over the very code the node runs.
//!
//! Three nodes, a small Raft (elections that ignore every lease, partial replication, restarts that lose what is in
//! memory), the lease core of `conclave-lease`, clocks of differing speed. What must hold: once a revocation is
//! acknowledged, no node that is covered by a lease still lives in a state without it.
//!
//! | file | owns |
//! |---|---|
//! | `world` | what a state of the world is, and what must hold in it |
//! | `steps` | everything that can happen next |
//! | `search` | breadth first over all of it, each state once |
//! | `bugs` | the known ways to get it wrong, in the core and around it |
//!
//! Abstractions: a message exchange between Raft's nodes is one step (a late append is refused by its term and changes
//! nothing); renewals, quorum rounds, grants and farewells are separate steps with any delay or loss between them; time
//! moves in ticks, each node's clocks by its own rate, and a node's two clocks may part: one stands still in suspend,
//! the other may be slewed. Lease terms are constant.

mod bugs;
mod search;
mod steps;
mod world;

pub use bugs::Bug;
pub use search::{Outcome, search};
pub use world::{BOUNDS, Bounds, WIDE_BOUNDS};
