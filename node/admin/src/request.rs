//! The parts that all calls share. A read names the version it must have seen. A write has a name, from which its ids
//! and secrets are derived. A response names its log index and, from a follower, the leader.

use std::sync::Arc;

use conclave_proto::command::v1::command::Body;
use conclave_state::{Stamp, State, ids::RequestId};
use prost::Message;
use tonic::{
    Code, Request, Response, Status,
    metadata::{MetadataMap, MetadataValue},
};

use conclave_auth::{consistency_token::InvalidToken, write_key::WriteKey};
use conclave_cluster::{CommittedWrite, ProposeError, ViewError};
use conclave_http::denial;

use super::{
    Api,
    auth::{MayRead, MayWrite},
    errors,
};

/// Metadata key: names a write, so that it happens once however often it is sent.
const REQUEST_ID: &str = "x-conclave-request-id";
/// Metadata key: the least index that a request must see, and the index that a response has seen.
const INDEX: &str = "x-conclave-index";
/// Metadata key: the leader's API, in a follower's response to a write.
const LEADER: &str = "x-conclave-leader";

/// A read: one version of the state.
pub(super) struct Reading {
    api: Api,
    pub state: Arc<State>,
    pub now: Stamp,
}

/// A write in progress.
pub(super) struct Writing {
    pub api: Api,
    /// The caller and the address, for the log line of a refusal.
    caller: String,
    address: String,
    /// The version in which names are looked up; the rules decide what changes.
    pub state: Arc<State>,
    pub write_key: WriteKey,
    /// True if the caller named the write, so that it may be a retry.
    pub named: bool,
    /// The error if the rules do not know an object that was not found here either.
    pub absent: Option<Status>,
}

impl Api {
    pub(crate) async fn read<M>(&self, request: Request<M>) -> Result<(Reading, M), Status> {
        let address = address_of(&request);
        let permit = self.may_read(request.metadata()).await;
        let permit = permit.inspect_err(|status| denied(status, &address, "-", "-"))?;
        let state = self.state_for_reading(&permit, request.metadata()).await?;
        Ok((Reading { api: self.clone(), now: self.auth.now(&state), state }, request.into_inner()))
    }

    /// Begins a write. Secrets must have been removed from the message: the rest of it is hashed into the write's name.
    pub(crate) async fn write<M: Message>(
        &self,
        request: Request<M>,
        method: &str,
    ) -> Result<(Writing, M), Status> {
        let address = address_of(&request);
        let permit = self.may_write(request.metadata()).await;
        let permit = permit.inspect_err(|status| denied(status, &address, "-", "-"))?;
        let request_id = request_id(request.metadata())?;
        let state = self.state_at(request.metadata()).await?;
        let (runtime, keys) = (self.auth.runtime(), self.auth.deriving_keys());
        // Another caller, method or message makes another write, whatever request id it has.
        let parts = [permit.caller.as_bytes(), method.as_bytes(), &request.get_ref().encode_to_vec()];
        let id = request_id.map(|id| id.to_string());
        let write_key = WriteKey::of_request(&keys.request, id.as_deref(), &parts, &*runtime.entropy);
        log_write(&permit, method, &write_key);
        let writing = Writing {
            api: self.clone(),
            state,
            caller: permit.caller,
            address,
            write_key,
            named: request_id.is_some(),
            absent: None,
        };
        Ok((writing, request.into_inner()))
    }

    async fn state_for_reading(
        &self,
        _permit: &MayRead,
        metadata: &MetadataMap,
    ) -> Result<Arc<State>, Status> {
        self.state_at(metadata).await
    }

    async fn state_at(&self, metadata: &MetadataMap) -> Result<Arc<State>, Status> {
        let Some(value) = metadata.get(INDEX) else { return Ok(self.auth.cluster().view()) };
        let index = match value.to_str().map(|text| self.auth.parse_consistency_token(text)) {
            Ok(Ok(index)) => index,
            Ok(Err(InvalidToken::Foreign)) => return Err(errors::view(&ViewError::FromTheFuture)),
            Ok(Err(InvalidToken::Malformed)) | Err(_) => {
                return Err(errors::invalid("x-conclave-index must be a value from an earlier response"));
            }
        };
        self.auth.cluster().view_at(index).await.map_err(|error| errors::view(&error))
    }

    fn mark(&self, metadata: &mut MetadataMap, index: u64) {
        if let Ok(value) = MetadataValue::try_from(self.auth.consistency_token(index)) {
            metadata.insert(INDEX, value);
        }
    }

    fn leader_hint(&self, metadata: &mut MetadataMap) {
        let cluster = self.auth.cluster();
        if cluster.is_leader() {
            return;
        }
        if let Some(url) = cluster.leader_api_url().and_then(|url| MetadataValue::try_from(url).ok()) {
            metadata.insert(LEADER, url);
        }
    }
}

impl Reading {
    pub(crate) fn reply<T>(&self, message: T) -> Result<Response<T>, Status> {
        let mut response = Response::new(message);
        self.api.mark(response.metadata_mut(), self.state.index());
        Ok(response)
    }
}

impl Writing {
    /// An id for the row called `label` in this write; a retry gets an equal id.
    pub(crate) fn id(&self, label: &str) -> [u8; 16] {
        self.write_key.id(label)
    }

    pub(crate) async fn propose(&self, body: Body) -> Result<CommittedWrite, Status> {
        let proposed = self.api.auth.cluster().propose(self.write_key.request(), body).await;
        proposed.map_err(|error| self.failed(error))
    }

    /// A further write of this call, with a name of its own that a retry repeats.
    pub(crate) async fn propose_then(&self, label: String, body: Body) -> Result<CommittedWrite, Status> {
        let request = self.write_key.then(&label).request();
        self.api.auth.cluster().propose(request, body).await.map_err(|error| self.failed(error))
    }

    pub(crate) fn reply<T>(&self, committed: &CommittedWrite, message: T) -> Result<Response<T>, Status> {
        let mut response = Response::new(message);
        self.api.mark(response.metadata_mut(), committed.index);
        self.api.leader_hint(response.metadata_mut());
        Ok(response)
    }

    fn failed(&self, error: ProposeError) -> Status {
        let mut status = errors::propose(error);
        if let Some(absent) = self.absent.as_ref().filter(|_| status.code() == Code::NotFound) {
            status = Status::new(absent.code(), absent.message());
        }
        denied(&status, &self.address, &self.caller, &self.write_key.request().to_string());
        self.api.leader_hint(status.metadata_mut());
        status
    }
}

fn address_of<M>(request: &Request<M>) -> String {
    request.remote_addr().map_or_else(|| "-".to_owned(), |peer| peer.ip().to_canonical().to_string())
}

/// The log line of a refused call.
pub(super) fn denied(status: &Status, address: &str, caller: &str, id: &str) {
    let reason = match status.code() {
        Code::Unauthenticated => "unauthenticated",
        Code::PermissionDenied => "permission_denied",
        Code::NotFound => "not_found",
        Code::InvalidArgument => "invalid_argument",
        Code::AlreadyExists => "already_exists",
        Code::Unavailable => "unavailable",
        Code::DeadlineExceeded => "outcome_unknown",
        _ => "refused",
    };
    denial::log("admin", reason, address, Some(caller), id, status.message());
}

fn request_id(metadata: &MetadataMap) -> Result<Option<RequestId>, Status> {
    let Some(value) = metadata.get(REQUEST_ID) else { return Ok(None) };
    let id = value.to_str().ok().and_then(RequestId::from_hex);
    id.map(Some).ok_or_else(|| errors::invalid("x-conclave-request-id must be 32 hex digits"))
}

/// The operator's trail: the caller, the command, and its name in the log.
fn log_write(permit: &MayWrite, method: &str, write_key: &WriteKey) {
    let caller = &permit.caller;
    let request = write_key.request();
    tracing::info!(
        { rpc.method = method, api.caller = %caller, request.id = %request },
        "admin write {method} asked for by {caller}"
    );
}
