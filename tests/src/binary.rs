//! Finds the sidecar's binary beside the test executable, and has it built where it is absent or older than its source.
//! `E2E_SIDECAR` names another one instead, for example a release build.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

const PACKAGE: &str = "embeddables-sidecar";

/// Path of the sidecar's binary.
///
/// # Panics
/// Where it is absent and cannot be built.
pub(crate) fn sidecar() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("E2E_SIDECAR") {
            return path.into();
        }
        let path = profile_directory().join(PACKAGE);
        if !is_newer_than_source(&path) {
            build();
        }
        assert!(
            path.is_file(),
            "no binary `{}` even after building it",
            path.display()
        );
        path
    })
}

/// Root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests are a member of the workspace")
        .to_owned()
}

/// Where cargo puts the binaries of the profile that the tests were built with: `target/debug`.
fn profile_directory() -> PathBuf {
    // The test executable lies in `target/debug/deps`.
    let test = std::env::current_exe().expect("the test executable has a path");
    test.ancestors()
        .nth(2)
        .expect("the test executable lies two folders deep")
        .to_owned()
}

fn is_newer_than_source(binary: &Path) -> bool {
    let Ok(built) = binary.metadata().and_then(|metadata| metadata.modified()) else {
        return false;
    };
    ["crates", "proto"]
        .iter()
        .all(|folder| newest(&workspace().join(folder)).is_none_or(|changed| changed <= built))
}

/// Newest time of change of a source file below `folder`; benchmarks and tests are not part of the binary.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = folder.read_dir().ok()?.flatten();
    entries
        .filter_map(|entry| {
            let path = entry.path();
            match path.file_name()?.to_str()? {
                "embeddables-bench" | "tests" | "examples" | "benches" => None,
                _ if path.is_dir() => newest(&path),
                name if [".rs", ".proto", ".sql"].iter().any(|end| name.ends_with(end)) => {
                    path.metadata().ok()?.modified().ok()
                }
                _ => None,
            }
        })
        .max()
}

fn build() {
    let directory = profile_directory();
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    eprintln!("building {PACKAGE}: its binary is absent or older than its source");
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--package",
            PACKAGE,
            "--bin",
            PACKAGE,
            "--profile",
            profile,
            "--target-dir",
        ])
        .arg(
            directory
                .parent()
                .expect("the profile's folder lies in the target folder"),
        )
        .current_dir(workspace())
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "building {PACKAGE} failed");
}
