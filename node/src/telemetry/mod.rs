pub mod propagate {
    pub fn inject(_m: &mut tonic::metadata::MetadataMap) {}
    pub fn continue_from(_s: &tracing::Span, _m: &tonic::metadata::MetadataMap) {}
}
