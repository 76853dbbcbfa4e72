//! The admin API over its own listener, against real clusters in this process.

mod failover;
mod matrix;
mod resources;
mod restoring;
mod retry;
mod surface;

use conclave_node::testing::TestNode;
use conclave_proto::admin::v1 as pb;
use tonic::{
    Code, Request, Response, Status,
    metadata::{AsciiMetadataKey, MetadataValue},
    transport::{Channel, Endpoint},
};

pub(crate) fn channel(node: &TestNode) -> Channel {
    Endpoint::from_shared(node.api_url().to_owned()).unwrap().connect_lazy()
}

/// A request with a bearer token and further metadata.
pub(crate) fn with<M>(message: M, token: &str, metadata: &[(&'static str, &str)]) -> Request<M> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {token}");
    for (key, value) in [("authorization", bearer.as_str())].iter().chain(metadata) {
        request
            .metadata_mut()
            .insert(AsciiMetadataKey::from_static(key), MetadataValue::try_from(*value).unwrap());
    }
    request
}

/// A request with the operator's token, which is fresh.
pub(crate) fn by_operator<M>(node: &TestNode, message: M) -> Request<M> {
    with(message, &node.operator_token(), &[])
}

pub(crate) fn header<T>(response: &Response<T>, key: &str) -> Option<String> {
    response.metadata().get(key).map(|value| value.to_str().unwrap().to_owned())
}

pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.unwrap_err();
    (status.code(), status.message().to_owned())
}

pub(crate) fn page(size: u32, token: &str) -> Option<pb::Page> {
    Some(pb::Page { size, token: token.into() })
}
