//! What renames of users and groups have in common.

use conclave_state::{State, level};
use tonic::Status;

use super::{errors, request::Writing};

/// A member of an older version does not know the command, and would stop.
pub(super) fn check_level(state: &State) -> Result<(), Status> {
    if state.meta().level >= level::NAMES {
        return Ok(());
    }
    Err(errors::outdated_member())
}

/// The operator's line: applications from now on see another name.
pub(super) fn log(kind: &str, id: &str, asked: &str, name: &str, writing: &Writing) {
    let (caller, request) = (writing.caller(), writing.derivation.request());
    tracing::info!(
        target: "conclave::audit",
        { kind = %kind, object.id = %id, object.name = %name, api.caller = %caller, request.id = %request },
        "the {kind} asked for as {asked} is now called {name}, renamed by {caller}"
    );
}
