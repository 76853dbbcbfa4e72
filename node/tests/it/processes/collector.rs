//! A collector of OTLP traces over gRPC that keeps every span of the nodes.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// The longest wait for a span: nodes send their spans several times a second.
const LIMIT: Duration = Duration::from_secs(30);
/// Longest batch: no batch may be dropped for its length, because all of them are searched.
const MAX_BATCH_BYTES: usize = 256 << 20;

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Kept {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

pub(super) struct Collector {
    pub endpoint: String,
    kept: Kept,
}

/// A span, and the node that sent it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub node: String,
    pub name: String,
    pub span: Span,
}

impl Seen {
    pub(super) fn attribute(&self, name: &str) -> Option<String> {
        value(&self.span.attributes, name)
    }
}

fn value(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        _ => None,
    }
}

impl Collector {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let kept = Kept::default();
        let service = TraceServiceServer::new(kept.clone()).max_decoding_message_size(MAX_BATCH_BYTES);
        let serving = Server::builder().add_service(service);
        tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { endpoint, kept }
    }

    /// Every span so far.
    pub(super) fn spans(&self) -> Vec<Seen> {
        let kept = self.kept.0.lock().unwrap();
        let resources = kept.iter().flat_map(|batch| &batch.resource_spans);
        let spans = resources.flat_map(|resource| {
            let attributes =
                resource.resource.as_ref().map(|of| of.attributes.as_slice()).unwrap_or_default();
            let node = value(attributes, "service.instance.id").unwrap_or_default();
            let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            spans.map(move |span| Seen { node: node.clone(), name: span.name.clone(), span: span.clone() })
        });
        spans.collect()
    }

    /// The first span for which `is_it` holds, once it has arrived.
    pub(super) async fn has(&self, is_it: impl Fn(&Seen) -> bool) -> Seen {
        let looking = async {
            loop {
                if let Some(found) = self.spans().into_iter().find(|span| is_it(span)) {
                    return found;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, looking).await.expect("the span comes in time")
    }

    /// All data as it was sent: it contains texts unchanged.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.kept.0.lock().unwrap().iter().flat_map(prost::Message::encode_to_vec).collect()
    }
}
