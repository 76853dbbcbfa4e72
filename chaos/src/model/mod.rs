//! The model of the serve leases: every order of events within bounds, over the very code that the node runs.
//!
//! Three nodes, a small Raft (elections that ignore every lease, partial replication, restarts that lose everything in
//! memory), the lease core of `conclave-lease`, clocks of differing speed. The invariant: once a revocation is
//! acknowledged, no node that is covered by a lease is still at a state without it.
//!
//! | file | owns |
//! |---|---|
//! | `world` | a state of the world, and its invariant |
//! | `steps` | everything that can happen next |
//! | `search` | breadth first over all of it, each state once |
//! | `bugs` | the known ways to get it wrong, in the core and around it |
//!
//! Abstractions: a message exchange between Raft's nodes is one step (a late append is refused by its term and changes
//! nothing); renewals, quorum rounds, grants and releases are separate steps with any delay or loss between them; time
//! moves in ticks, each node's clocks by their own rate, and a node's two clocks may diverge: one stops while the
//! machine is suspended, the other may be slewed. Lease terms are constant.

mod bugs;
mod search;
mod steps;
mod world;

pub use bugs::ModelBug;
pub use search::{SearchOutcome, search};
pub use world::{BOUNDS, Bounds, WIDE_BOUNDS};
