//! One call, and the handling of everything that may fail in it.
//!
//! An attempt ends in a response, or in one of two other ways that are carefully distinguished: it certainly changed
//! nothing (no connection, or the server returned `UNAVAILABLE`), or its outcome is unknown. Both are retried under the
//! same request id; only the error after the deadline differs.

use std::{
    error::Error as _,
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message;
use tokio::time::{Instant, sleep, timeout};
use tonic::{
    Code, ConnectError, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{Ascii, MetadataMap, MetadataValue},
};
use tonic_prost::ProstCodec;

use crate::{
    AdminClient, Error,
    builder::{TokenSource, bearer},
    doubt::Doubt,
    routing::{Routing, Target},
};

/// Time limit of one attempt: a node itself holds a write for three seconds, a revocation may wait for another 2.2
/// (docs/design/consensus.md, docs/design/serve-leases.md), and an attempt that hangs must not use up all the time.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(6);
/// Most attempts of a call, whatever its deadline.
const MAX_ATTEMPTS: u32 = 64;
/// The first pause; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause, even if a server requests a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

const REQUEST_ID: &str = "x-conclave-request-id";
const INDEX: &str = "x-conclave-index";
const LEADER: &str = "x-conclave-leader";
const RETRY_AFTER: &str = "retry-after-ms";

/// The part that clones of a client share.
pub(crate) struct Inner {
    pub routing: Routing,
    pub token: Option<TokenSource>,
    pub deadline: Duration,
    /// The consistency token of this client: no later response may be older. The highest log index, and its text as the
    /// cluster returned it.
    pub seen: Mutex<Option<(u64, MetadataValue<Ascii>)>>,
}

impl Inner {
    fn seen(&self) -> MutexGuard<'_, Option<(u64, MetadataValue<Ascii>)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An RPC of the API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rpc {
    pub path: &'static str,
    pub writes: bool,
}

/// The ways in which an attempt ends without success.
enum Failure {
    /// The cluster has answered; a retry would change nothing.
    Answered(Status),
    /// The request certainly had no effect.
    NotTaken(Status),
    /// The request may have had an effect.
    Lost(Status),
}

impl AdminClient {
    pub(crate) async fn call<Q, A>(&self, rpc: Rpc, message: Q) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let request_id = request_id()?;
        let deadline = Instant::now() + self.inner.deadline;
        let mut doubt = Doubt::default();
        let mut last = String::from("no attempt was made");
        for attempt in 0..MAX_ATTEMPTS {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(target) = self.inner.routing.target(rpc.writes).filter(|_| !left.is_zero()) else {
                break;
            };
            if rpc.writes && !doubt.allows_another(left, ATTEMPT_LIMIT) {
                break;
            }
            let begun = Instant::now();
            let status = match self.attempt(rpc, &target, &request_id, message.clone(), left).await {
                Ok(answer) => return Ok(answer),
                Err(Failure::Answered(status)) => return Err(self.answered(&status)),
                Err(Failure::NotTaken(status)) => {
                    // Without a connection nothing was sent, and no deadline can make that uncertain.
                    if status.source().is_none() {
                        doubt.refused(begun.elapsed());
                    }
                    status
                }
                Err(Failure::Lost(status)) => {
                    doubt.lost();
                    status
                }
            };
            self.inner.routing.failed(&target.url);
            self.note_leader(status.metadata());
            last = format!("{}: {}", target.url, status.message());
            let pause = self.pause(attempt, &status).min(deadline.saturating_duration_since(Instant::now()));
            sleep(pause).await;
        }
        if doubt.maybe_done() && rpc.writes {
            Err(Error::OutcomeUnknown { request_id, last })
        } else {
            Err(Error::Unavailable(last))
        }
    }

    async fn attempt<Q, A>(
        &self,
        rpc: Rpc,
        target: &Target,
        request_id: &str,
        message: Q,
        left: Duration,
    ) -> Result<A, Failure>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut request = Request::new(message);
        self.fill(request.metadata_mut(), rpc, request_id);
        let mut grpc = Grpc::new(target.channel.clone());
        let calling = async {
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            grpc.unary(request, PathAndQuery::from_static(rpc.path), ProstCodec::<Q, A>::default()).await
        };
        match timeout(left.min(ATTEMPT_LIMIT), calling).await {
            Ok(Ok(response)) => {
                self.note(response.metadata());
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(classify(status)),
            Err(_) => Err(Failure::Lost(Status::deadline_exceeded("no answer in time"))),
        }
    }

    pub(crate) fn fill(&self, metadata: &mut MetadataMap, rpc: Rpc, request_id: &str) {
        if let Some(value) = self.inner.token.as_ref().and_then(|token| bearer(&token())) {
            metadata.insert("authorization", value);
        }
        if let Ok(value) = MetadataValue::try_from(request_id)
            && rpc.writes
        {
            metadata.insert(REQUEST_ID, value);
        }
        if let Some((_, text)) = &*self.inner.seen() {
            metadata.insert(INDEX, text.clone());
        }
    }

    fn note(&self, metadata: &MetadataMap) {
        if let Some((index, text)) = numbered(metadata) {
            let mut seen = self.inner.seen();
            if seen.as_ref().is_none_or(|(highest, _)| *highest < index) {
                *seen = Some((index, text));
            }
        }
        self.note_leader(metadata);
    }

    fn note_leader(&self, metadata: &MetadataMap) {
        if let Some(url) = metadata.get(LEADER).and_then(|value| value.to_str().ok()) {
            self.inner.routing.leader_is(url);
        }
    }

    fn answered(&self, status: &Status) -> Error {
        if status.code() == Code::OutOfRange {
            // The cluster has been restored from a state before this client's token, or is another cluster: start anew.
            *self.inner.seen() = None;
        }
        self.note_leader(status.metadata());
        Error::from(status)
    }

    /// The pause before the next attempt. None while there are endpoints that were not tried yet; then growing, or as
    /// long as the server requests.
    fn pause(&self, attempt: u32, status: &Status) -> Duration {
        let rounds = attempt / u32::try_from(self.inner.routing.len()).unwrap_or(1).max(1);
        let asked = number(status.metadata(), RETRY_AFTER).map(Duration::from_millis);
        let fresh = asked.is_none() && (attempt as usize).saturating_add(1) < self.inner.routing.len();
        if fresh {
            return Duration::ZERO;
        }
        let grown = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(rounds).unwrap_or(u32::MAX));
        asked.unwrap_or(grown).min(LONGEST_PAUSE)
    }
}

/// Classifies a failure. A status that did not come from the server is a transport failure, and only the lack of a
/// connection proves that nothing was sent.
fn classify(status: Status) -> Failure {
    let came_from_here = status.source().is_some();
    match status.code() {
        _ if came_from_here && never_connected(&status) => Failure::NotTaken(status),
        _ if came_from_here => Failure::Lost(status),
        Code::Unavailable => Failure::NotTaken(status),
        Code::DeadlineExceeded | Code::Cancelled => Failure::Lost(status),
        _ => Failure::Answered(status),
    }
}

pub(crate) fn never_connected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Parses the consistency token `INDEX.TAG`: it is compared by the number, and sent back unchanged.
fn numbered(metadata: &MetadataMap) -> Option<(u64, MetadataValue<Ascii>)> {
    let text = metadata.get(INDEX)?;
    let (number, _) = text.to_str().ok()?.split_once('.')?;
    Some((number.parse().ok()?, text.clone()))
}

fn number(metadata: &MetadataMap, key: &'static str) -> Option<u64> {
    metadata.get(key)?.to_str().ok()?.parse().ok()
}

/// A new request id of 32 hex digits, unique to one write.
pub(crate) fn request_id() -> Result<String, Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Other { code: Code::Internal, message: error.to_string() })?;
    Ok(bytes.iter().fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
