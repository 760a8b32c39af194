//! The Embeddables sidecar: one local gRPC call, and the event is delivered or somebody is told why not.
