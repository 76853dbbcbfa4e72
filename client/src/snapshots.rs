//! Saving and restoring snapshots: the streaming calls of the API. They are not retried automatically once bytes have
//! been sent; the caller does that, after checking the result of the first attempt.

use std::future::Future;

use conclave_proto::admin::v1 as pb;
use tokio_stream::Stream;
use tonic::{
    Extensions, Request, Status, Streaming, client::Grpc, codegen::http::uri::PathAndQuery,
    metadata::MetadataMap, transport::Channel,
};
use tonic_prost::ProstCodec;

use crate::{AdminClient, Error, call::Rpc, v1};

/// Every RPC of this service.
#[cfg(test)]
pub(crate) const RPCS: &[&str] = &["SnapshotService/SaveSnapshot", "SnapshotService/RestoreSnapshot"];

const SAVE: Rpc = Rpc { path: "/conclave.admin.v1.SnapshotService/SaveSnapshot", writes: false };
const RESTORE: Rpc = Rpc { path: "/conclave.admin.v1.SnapshotService/RestoreSnapshot", writes: true };

/// Snapshots of the whole cluster.
#[derive(Clone, Debug)]
pub struct Snapshots(AdminClient);

impl AdminClient {
    /// Snapshots of the whole cluster.
    pub fn snapshots(&self) -> Snapshots {
        Snapshots(self.clone())
    }
}

/// A snapshot that is being received.
#[derive(Debug)]
pub struct SnapshotDownload {
    /// Its description.
    pub description: v1::SnapshotDescription,
    parts: Streaming<pb::SavedPart>,
}

impl SnapshotDownload {
    /// The next bytes of the file; none at its end.
    ///
    /// # Errors
    /// [`Error`]; the file is incomplete then.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        match self.parts.message().await.map_err(|e| Error::from(&e))?.map(|message| message.part) {
            None => Ok(None),
            Some(Some(pb::saved_part::Part::Data(bytes))) => Ok(Some(bytes)),
            Some(_) => Err(Error::from(&Status::internal("the node sent a message without bytes"))),
        }
    }
}

/// A restore in progress.
#[derive(Debug)]
pub struct Restoring(Streaming<pb::RestoreProgress>);

impl Restoring {
    /// The next step; none after the last.
    ///
    /// # Errors
    /// [`Error`]. The cluster is then unchanged, unless the commit itself was in progress: check its sessions.
    pub async fn next(&mut self) -> Result<Option<pb::restore_progress::Step>, Error> {
        Ok(self.0.message().await.map_err(|e| Error::from(&e))?.and_then(|message| message.step))
    }
}

impl Snapshots {
    /// Takes a snapshot at any node.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn save(&self, request: v1::SaveSnapshotRequest) -> Result<SnapshotDownload, Error> {
        self.at_some_node(SAVE, |mut grpc, path, metadata| async move {
            grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
            let codec = ProstCodec::<v1::SaveSnapshotRequest, pb::SavedPart>::default();
            let mut parts = grpc.server_streaming(with(metadata, request), path, codec).await?.into_inner();
            match parts.message().await?.and_then(|message| message.part) {
                Some(pb::saved_part::Part::Description(description)) => {
                    Ok(SnapshotDownload { description, parts })
                }
                _ => Err(Status::internal("the node did not describe the snapshot")),
            }
        })
        .await
    }

    /// Restores through any node. `parts` makes the stream to send: the request first, then the bytes. It is called
    /// again for another node if the one before could not be reached.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn restore<S>(&self, parts: impl Fn() -> S) -> Result<Restoring, Error>
    where
        S: Stream<Item = v1::RestorePart> + Send + 'static,
    {
        self.at_some_node(RESTORE, |mut grpc, path, metadata| {
            let parts = parts();
            async move {
                grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
                let codec = ProstCodec::<v1::RestorePart, pb::RestoreProgress>::default();
                Ok(Restoring(grpc.streaming(with(metadata, parts), path, codec).await?.into_inner()))
            }
        })
        .await
    }

    /// Calls the first node that can be reached: each is tried once.
    async fn at_some_node<T, F>(
        &self,
        rpc: Rpc,
        call: impl Fn(Grpc<Channel>, PathAndQuery, MetadataMap) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let routing = &self.0.inner.routing;
        let mut last = String::from("no attempt was made");
        for _ in 0..routing.len().max(1) {
            let Some(target) = routing.target(rpc.writes) else { break };
            let request_id = crate::call::request_id()?;
            let mut metadata = MetadataMap::new();
            self.0.fill(&mut metadata, rpc, &request_id);
            let path = PathAndQuery::from_static(rpc.path);
            match call(Grpc::new(target.channel.clone()), path, metadata).await {
                Ok(answer) => return Ok(answer),
                Err(status) if crate::call::never_connected(&status) => {
                    last = format!("{}: {}", target.url, status.message());
                    routing.failed(&target.url);
                }
                Err(status) => return Err(Error::from(&status)),
            }
        }
        Err(Error::Unavailable(last))
    }
}

fn with<M>(metadata: MetadataMap, message: M) -> Request<M> {
    Request::from_parts(metadata, Extensions::default(), message)
}
