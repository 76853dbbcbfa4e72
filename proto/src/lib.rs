//! The wire: messages of the log, of snapshots, of the cluster plane and of the admin API, and no logic.
//!
//! The Rust below `gen/` is generated from the `.proto` files and checked in, so that building needs no protoc; the
//! test `generated_code_is_current` regenerates it with protox and fails when it differs (`CONCLAVE_REGENERATE=1 cargo
//! test -p conclave-proto` writes it anew).
//!
//! Rules: field numbers are never reused; commands and rows are only added to (docs/design/rules.md).

/// Commands to the rules, as stored in the log.
pub mod command {
    pub mod v1 {
        include!("gen/conclave.command.v1.rs");
    }
}

/// Rows, as stored in snapshots.
pub mod state {
    pub mod v1 {
        include!("gen/conclave.state.v1.rs");
    }
}

/// Messages between nodes.
#[cfg(feature = "grpc")]
pub mod cluster {
    pub mod v1 {
        include!("gen/conclave.cluster.v1.rs");
    }
}

/// The part of Envoy's authorization request that is answered here.
#[cfg(feature = "grpc")]
pub mod envoy {
    pub mod auth {
        pub mod v3 {
            include!("gen/envoy.service.auth.v3.rs");
        }
    }
}

/// The public admin API.
#[cfg(feature = "grpc")]
pub mod admin {
    pub mod v1 {
        include!("gen/conclave.admin.v1.rs");
    }
    /// For gRPC reflection: the encoded `FileDescriptorSet` of the admin API.
    pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/admin.descriptor.bin");
}
