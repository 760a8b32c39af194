//! What a machine cannot do is skipped loudly, and fails in CI.

use std::process::Command;

/// Whether the run is CI's, where nothing may be skipped.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Says that the calling test is skipped, and why.
///
/// # Panics
/// In CI: there a test that cannot run is a failure.
#[track_caller]
pub fn skip(reason: &str) {
    assert!(!is_ci(), "cannot run in CI: {reason}");
    let place = std::panic::Location::caller();
    eprintln!("SKIPPED {}:{}: {reason}", place.file(), place.line());
}

/// Whether the program can be started at all.
pub fn has_program(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Whether the tests run as root, who may mount.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
