//! **Policies**: who may open an application, as a pure function. A [`Spec`] is what people write; [`Policy::compile`]
//! refuses what cannot be decided within bounds, naming the row; [`Policy::decide`] takes [`Facts`] and gives a
//! [`Verdict`]. The same policy and the same facts give the same verdict on every node: no clock, no chance, no file,
//! no network is asked here.
//!
//! ```text
//! deny by default. A row has conditions: all of `when` must hold and none of `unless`.
//! first_match   the first row whose conditions hold decides
//! any           at least one allow row holds, and no deny row does
//! all           every allow row holds (and there is one), and no deny row does
//! ```
//!
//! `any` and `all` are those of authentik's engine, whose `negate` is `unless` here, with two differences: a policy
//! without rows admits nobody there is no doubt about, and a deny row is a veto, so that adding one never admits more
//! people.
//!
//! **Doubt denies.** What a row asks for and nobody knows (an address, a country without a database) is a [`Fault`],
//! not a "no": the whole decision denies, whether the row was to allow or to deny.
//!
//! **Bounds.** Expressions are CEL by its own grammar (crate `cel`), checked and typed here and evaluated here: no loop
//! but the macros over lists of known size, no regular expressions, no time, no floats. Their worst case is computed
//! before anybody meets it ([`limits`]).
//!
//! | module | owns |
//! |---|---|
//! | `spec` | what people write |
//! | `compile` | from that to something that decides, or which row is wrong and why |
//! | `decide` | the verdict; [`Policy::explain`] says why, when somebody asks |
//! | `facts` | what a policy may know |
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
pub use decide::{Reason, Verdict, Why};
pub use expression::{ClaimValue, Expression, Fault, Refused};
pub use facts::{Facts, Lookup, Person, Place, Request, SignIn};
pub use header::{NAMES_THAT_ARE_OURS, refusal as header_name_refusal};
pub use network::{Cidr, NotACidr};
pub use path::{CanonicalPath, PathPattern};
pub use spec::{Condition, Effect, Header, Id, Mode, Protected, Row, Spec, Window};
