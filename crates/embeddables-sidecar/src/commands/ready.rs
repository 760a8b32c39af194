//! The ready file: appears whole, and only once everything that it names answers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::failure::Failure;
use crate::server::Addresses;

/// Contents of the file: where the process listens. Null where it does not.
#[derive(Debug, Default, Serialize)]
pub(super) struct Ready {
    grpc: Option<String>,
    grpc_unix: Option<PathBuf>,
    http: Option<String>,
    ops: Option<String>,
    admin: Option<String>,
    admin_page: Option<String>,
    mock: Option<String>,
    version: &'static str,
    pid: u32,
}

impl Ready {
    /// Of a sidecar, and of the mock beside it where there is one.
    pub(super) fn new(addresses: &Addresses, mock: Option<std::net::SocketAddr>) -> Self {
        let text = |address: std::net::SocketAddr| address.to_string();
        Self {
            grpc: addresses.grpc.map(text),
            grpc_unix: addresses.grpc_unix.clone(),
            http: addresses.http.map(text),
            ops: addresses.ops.map(text),
            admin: addresses.admin.map(text),
            mock: mock.map(text),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            ..Self::default()
        }
    }

    /// It as one line of JSON.
    pub(super) fn to_json(&self) -> Result<String, Failure> {
        serde_json::to_string(self).map_err(|error| Failure::new(format!("cannot write JSON: {error}")))
    }

    /// Writes it beside its place and renames it in: nobody reads half of it.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: io::Error| {
            Failure::new(format!(
                "the ready file `{}` cannot be written: {error}",
                path.display()
            ))
        };
        let mut text = self.to_json()?;
        text.push('\n');
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.tmp", self.pid));
        let temporary = path.with_file_name(name);
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, path))
            .map_err(failed)
    }
}

/// Removes the file of an earlier process: until this one is ready there is none.
pub(super) fn remove_stale(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::new(format!(
            "the ready file `{}` of an earlier start cannot be removed: {error}",
            path.display()
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_every_key_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        fs::write(&path, "old").unwrap();
        remove_stale(&path).unwrap();
        remove_stale(&path).expect("nothing to remove is no failure");
        let addresses = Addresses {
            grpc: Some(([127, 0, 0, 1], 8471).into()),
            ..Addresses::default()
        };
        Ready::new(&addresses, Some(([127, 0, 0, 1], 8480).into()))
            .write(&path)
            .unwrap();
        let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "admin",
                "admin_page",
                "grpc",
                "grpc_unix",
                "http",
                "mock",
                "ops",
                "pid",
                "version"
            ]
        );
        assert_eq!(value["grpc"], "127.0.0.1:8471");
        assert_eq!(value["mock"], "127.0.0.1:8480");
        assert!(value["admin"].is_null() && value["http"].is_null());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
