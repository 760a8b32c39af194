//! The binary `embeddables-sidecar`.
fn main() {}
