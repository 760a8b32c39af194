//! Generated code of `embeddables.events.v1` and `embeddables.admin.v1`, and their descriptor set. Nothing here is written by hand.
#![allow(missing_docs, reason = "generated: google.protobuf comments are not ours")]
#![allow(clippy::all, reason = "generated")]
#![allow(clippy::allow_attributes_without_reason, reason = "generated")]

/// Package `embeddables.admin`.
pub mod admin {
    /// Package `embeddables.admin.v1`.
    pub mod v1 {
        tonic::include_proto!("embeddables.admin.v1");
    }
}

/// Package `embeddables.events`.
pub mod events {
    /// Package `embeddables.events.v1`.
    pub mod v1 {
        tonic::include_proto!("embeddables.events.v1");
    }
}

/// Encoded `google.protobuf.FileDescriptorSet` of all packages here and of what they import: for reflection and for JSON.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor_set.binpb"));
