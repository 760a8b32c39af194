//! The binary `embeddables-sidecar`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    embeddables_sidecar::commands::run()
}
