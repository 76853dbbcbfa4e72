//! **Policies**: the decision whether a user may open an application, as a pure function. A [`Spec`] is the written
//! form; [`Policy::compile`] refuses, naming the row, what cannot be decided within bounds; [`Policy::decide`] takes
//! [`Facts`] and returns a [`PolicyVerdict`]. Equal policies and equal facts give the same verdict on every node: no
//! clock, no randomness, no file and no network is used here.
//!
//! ```text
//! deny by default. A row has conditions: all of `when` must hold and none of `unless`.
//! first_match   the first row whose conditions hold decides
//! any           at least one allow row holds, and no deny row does
//! all           every allow row holds (and there is one), and no deny row does
//! ```
//!
//! `any` and `all` are those of authentik's engine, whose `negate` is `unless` here, with two differences: a policy
//! without rows admits no user, and a deny row is a veto, so that an additional deny row never admits more users.
//!
//! **Doubt denies.** An unknown fact that a row reads (an address, a country without a database) is an
//! [`EvaluationFault`], not a "no": the whole decision denies, whether the row was meant to allow or to deny.
//!
//! **Bounds.** Expressions are CEL by its own grammar (crate `cel`), checked, typed and evaluated here: no loop except
//! the macros over lists of bounded size, no regular expressions, no time, no floats. Their worst case is computed when
//! the policy is compiled ([`limits`]).
//!
//! | module | owns |
//! |---|---|
//! | `spec` | the written form |
//! | `compile` | the compiled form, or the row that is wrong and the reason |
//! | `decide` | the verdict; [`Policy::explain`] gives its reason on request |
//! | `facts` | the facts that a policy may read |
//! | `expression` | CEL: types, worst-case cost, evaluation |
//! | `network`, `window`, `path`, `header` | networks, hours, canonical paths, extra headers |
//! | `limits` | every bound, with its reason |
#![warn(missing_docs)]

mod compile;
mod decide;
mod expression;
mod facts;
mod header;
pub mod limits;
mod network;
mod path;
mod spec;
mod window;

pub use compile::{CompileError, Part, Policy};
pub use decide::{PolicyVerdict, Reason, VerdictExplanation};
pub use expression::{ClaimValue, EvaluationFault, Expression, ExpressionError};
pub use facts::{AddressFacts, Facts, Lookup, PolicyUser, Request, SignIn};
pub use header::{NAMES_THAT_ARE_OURS, refusal as header_name_refusal};
pub use network::{Cidr, NotACidr};
pub use path::{CanonicalPath, PathPattern};
pub use spec::{Condition, HeaderRule, Id, MatchMode, Protected, Row, RowEffect, Spec, TimeWindow};
