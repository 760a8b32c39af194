//! The binary starts. Its being tested here makes `cargo test --workspace` build it, which the end-to-end tests rely on.

use std::process::Command;

#[test]
fn it_tells_its_version() {
    let output = Command::new(env!("CARGO_BIN_EXE_embeddables-sidecar"))
        .arg("--version")
        .output()
        .expect("the binary starts");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        concat!("embeddables-sidecar ", env!("CARGO_PKG_VERSION"))
    );
}
