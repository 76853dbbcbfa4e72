//! One trace across nodes: W3C trace context (`traceparent`) in gRPC metadata, and in sealed values that another node
//! opens.
//!
//! Only nodes of the cluster exchange it, over mutual TLS or under their seal; a `traceparent` from outside is ignored.

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Writes the current span into the metadata of an outgoing call. Without a collector it writes nothing.
pub fn inject(metadata: &mut MetadataMap) {
    let context = Span::current().context();
    TraceContextPropagator::new().inject_context(&context, &mut Outgoing(metadata));
}

/// Makes the caller's span the parent of `span`. Does nothing if the caller sent none. Call it before `span` is
/// entered.
pub fn adopt(span: &Span, metadata: &MetadataMap) {
    let context = TraceContextPropagator::new().extract(&Incoming(metadata));
    // Fails only if no traces are collected; then there is nothing to adopt.
    span.set_parent(context).ok();
}

/// The current span as text for a sealed value: ids and flags, `LENGTH` bytes. Empty without a collector.
pub fn sealed() -> String {
    let mut text = String::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut Text(&mut text));
    text
}

/// Makes the span from [`sealed`] the parent of `span`, which also links to the current span. Ignores any other text.
/// Call it before `span` is entered.
pub fn resume(span: &Span, sealed: &str) {
    if sealed.len() != LENGTH {
        return;
    }
    let context = TraceContextPropagator::new().extract(&Text(&mut sealed.to_owned()));
    if context.span().span_context().is_valid() {
        span.set_parent(context).ok();
        span.follows_from(Span::current());
    }
}

/// Length of a `traceparent` of version 00 (W3C Trace Context §3.2).
const LENGTH: usize = 55;
const TRACEPARENT: &str = "traceparent";

/// Carries the one header on its own.
struct Text<'a>(&'a mut String);

impl Injector for Text<'_> {
    fn set(&mut self, key: &str, value: String) {
        if key == TRACEPARENT && value.len() == LENGTH {
            *self.0 = value;
        }
    }
}

impl Extractor for Text<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0.as_str())
    }

    fn keys(&self) -> Vec<&str> {
        Vec::new()
    }
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
