//! Watches key files: a lane whose file holds another key goes on with that one.
//!
//! Looked at by polling: it sees what every file system does, also the swap of a symbolic link by which Kubernetes renews a
//! mounted secret, and a key is renewed rarely.
//!
//! # Invariants
//! 1. A file that is missing, or does not hold a key, changes nothing: the old key stays in force, and that is logged once.
//! 2. What is in a file is never logged.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use embeddables_client::Endpoint;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::config;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// What tells one content of a file from another without reading it.
type Stamp = [i64; 6];

/// A key file and the lane that uses it.
#[derive(Debug)]
pub(super) struct KeyFile {
    path: PathBuf,
    endpoint: watch::Sender<Arc<Endpoint>>,
    seen: Option<Stamp>,
}

impl KeyFile {
    /// Watches a file whose present key is in force.
    pub(super) fn new(path: PathBuf, endpoint: watch::Sender<Arc<Endpoint>>) -> Self {
        Self {
            seen: None,
            path,
            endpoint,
        }
    }

    /// Puts another key into force, if there is one.
    fn look(&mut self) {
        let stamp = stamp(&self.path);
        if stamp.is_some() && stamp == self.seen {
            return;
        }
        let first_failure = self.seen.is_some() || stamp.is_some();
        self.seen = stamp;
        let old = Arc::clone(&self.endpoint.borrow());
        match config::load_key(&self.path) {
            Ok(key) if key.fingerprint() == old.api_key().fingerprint() => {}
            Ok(key) => {
                self.endpoint.send_replace(Arc::new(old.with_api_key(key)));
            }
            Err(problem) if first_failure => {
                let (project, path) = (old.project_id().as_str(), self.path.display().to_string());
                tracing::error!(
                    project,
                    path,
                    problem,
                    "the key file cannot be used: the former key stays in force"
                );
            }
            Err(_) => {}
        }
    }
}

/// Follows symbolic links: what counts is the file that is read.
fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some([
        metadata.dev().cast_signed(),
        metadata.ino().cast_signed(),
        metadata.size().cast_signed(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime_nsec(),
    ])
}

/// Watches files until dropped.
pub(super) async fn watch(mut files: Vec<KeyFile>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !files.is_empty() {
        ticks.tick().await;
        let looked = tokio::task::spawn_blocking(move || {
            files.iter_mut().for_each(KeyFile::look);
            files
        });
        files = match looked.await {
            Ok(files) => files,
            Err(error) => {
                tracing::error!(%error, "key files are not watched any more");
                return;
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use embeddables_client::{ApiKey, BaseUrl};
    use embeddables_core::ProjectId;

    use super::*;

    fn watched(path: &Path) -> (KeyFile, watch::Receiver<Arc<Endpoint>>) {
        let endpoint = Endpoint::new(
            BaseUrl::parse("http://127.0.0.1:1").unwrap(),
            ProjectId::parse("pr_1").unwrap(),
            ApiKey::parse("rk_old").unwrap(),
        );
        let (sender, receiver) = watch::channel(Arc::new(endpoint));
        (KeyFile::new(path.to_owned(), sender), receiver)
    }

    fn key(receiver: &watch::Receiver<Arc<Endpoint>>) -> String {
        receiver.borrow().api_key().fingerprint()
    }

    fn fingerprint(key: &str) -> String {
        ApiKey::parse(key).unwrap().fingerprint()
    }

    #[test]
    fn another_key_comes_into_force_and_what_is_none_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "rk_old\n").unwrap();
        let (mut file, receiver) = watched(&path);
        file.look();
        assert!(!receiver.has_changed().unwrap(), "the same key");
        std::fs::write(&path, "rk_renewed\n").unwrap();
        file.look();
        assert_eq!(key(&receiver), fingerprint("rk_renewed"));
        for broken in ["", "no key", "rk_a\nrk_b"] {
            std::fs::write(&path, broken).unwrap();
            file.look();
            assert_eq!(key(&receiver), fingerprint("rk_renewed"), "{broken:?}");
        }
        std::fs::remove_file(&path).unwrap();
        file.look();
        std::fs::write(&path, "rk_third").unwrap();
        file.look();
        assert_eq!(key(&receiver), fingerprint("rk_third"));
    }

    #[test]
    fn the_swap_of_a_symbolic_link_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        for (version, key) in [("v1", "rk_old"), ("v2", "rk_new")] {
            std::fs::create_dir(dir.path().join(version)).unwrap();
            std::fs::write(dir.path().join(version).join("key"), key).unwrap();
        }
        let data = dir.path().join("..data");
        std::os::unix::fs::symlink("v1", &data).unwrap();
        std::os::unix::fs::symlink("..data/key", dir.path().join("key")).unwrap();
        let (mut file, receiver) = watched(&dir.path().join("key"));
        file.look();
        let next = dir.path().join("..data_tmp");
        std::os::unix::fs::symlink("v2", &next).unwrap();
        std::fs::rename(&next, &data).unwrap();
        file.look();
        assert_eq!(key(&receiver), fingerprint("rk_new"));
    }
}
