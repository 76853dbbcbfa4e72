//! One trace across nodes: W3C trace context (`traceparent`) in gRPC metadata.
//!
//! Only nodes of the cluster exchange it, over mutual TLS; a `traceparent` from outside is not taken up.

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Writes the current span into the metadata of an outgoing call. Without a collector this writes nothing.
pub fn inject(metadata: &mut MetadataMap) {
    let context = Span::current().context();
    TraceContextPropagator::new().inject_context(&context, &mut Outgoing(metadata));
}

/// Makes the caller's span the parent of `span`. Does nothing when the caller sent none. Call it before `span` is
/// entered.
pub fn adopt(span: &Span, metadata: &MetadataMap) {
    let context = TraceContextPropagator::new().extract(&Incoming(metadata));
    // Fails only where no traces are collected; then there is nothing to adopt.
    span.set_parent(context).ok();
}

struct Outgoing<'a>(&'a mut MetadataMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        let key = MetadataKey::from_bytes(key.as_bytes());
        if let (Ok(key), Ok(value)) = (key, MetadataValue::try_from(value)) {
            self.0.insert(key, value);
        }
    }
}

struct Incoming<'a>(&'a MetadataMap);

impl Extractor for Incoming<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
}
