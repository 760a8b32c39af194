//! What a sidecar is started with: its environment, and nothing of the tests' own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Project that the tests publish to.
pub const PROJECT: &str = "pr_e2e";

/// Key that the mock accepts for [`PROJECT`].
pub const API_KEY: &str = "rk_test_e2e_0123456789";

/// Environment and files of one sidecar; survives its restarts.
#[derive(Clone, Debug)]
pub struct Settings {
    environment: BTreeMap<OsString, OsString>,
    directory: PathBuf,
}

impl Settings {
    /// Nothing set, in `directory`.
    pub fn bare(directory: &Path) -> Self {
        Self {
            environment: BTreeMap::new(),
            directory: directory.to_owned(),
        }
    }

    /// Settings of a sidecar that keeps its queue, socket and log below `directory` and delivers to `upstream_url`.
    ///
    /// Waiting times are short, so that retries happen within a test.
    pub fn new(directory: &Path, upstream_url: &str) -> Self {
        Self::bare(directory)
            .raw("EMBEDDABLES_API_KEY", API_KEY)
            .raw("EMBEDDABLES_PROJECT_ID", PROJECT)
            .raw("EMBEDDABLES_API_URL", upstream_url)
            .set("LISTEN__GRPC", "127.0.0.1:0")
            .set("LISTEN__GRPC_UNIX", directory.join("grpc.sock"))
            .set("LISTEN__HTTP", "127.0.0.1:0")
            .set("LISTEN__OPS", "127.0.0.1:0")
            .set("LISTEN__ADMIN", "127.0.0.1:0")
            .set("QUEUE__DIR", directory.join("queue"))
            .set("DELIVERY__RETRY_MIN", "20ms")
            .set("DELIVERY__RETRY_MAX", "200ms")
            .set("DELIVERY__PROBE_MIN", "100ms")
            .set("DELIVERY__PROBE_MAX", "1s")
            .set("DELIVERY__ATTEMPT_TIMEOUT", "10s")
            .set("LOG__FORMAT", "text")
    }

    /// Sets `EMBEDDABLES_SIDECAR__<key>`.
    #[must_use]
    pub fn set(self, key: &str, value: impl Into<OsString>) -> Self {
        self.raw(&format!("EMBEDDABLES_SIDECAR__{key}"), value)
    }

    /// Sets an environment variable by its whole name.
    #[must_use]
    pub fn raw(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Takes an environment variable away, by its whole name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.environment.remove(&OsString::from(name));
        self
    }

    /// Serves these projects instead of the default one, each with a key of its own and these lines of configuration.
    ///
    /// The mock takes all of their keys once it is configured with [`embeddables_mock::Settings::default`].
    ///
    /// # Panics
    /// Where the files cannot be written.
    #[must_use]
    pub fn with_projects<'p>(self, projects: impl IntoIterator<Item = (&'p str, &'p str)>) -> Self {
        let mut text = String::new();
        for (project, lines) in projects {
            let key_file = self.directory.join(format!("key-{project}"));
            std::fs::write(&key_file, format!("rk_test_{project}\n")).expect("a key can be written");
            text += &format!(
                "[projects.{project}]\napi_key_file = {:?}\n{lines}\n",
                key_file.display().to_string()
            );
        }
        let file = self.directory.join("projects.toml");
        std::fs::write(&file, text).expect("a configuration can be written");
        self.without("EMBEDDABLES_API_KEY")
            .without("EMBEDDABLES_PROJECT_ID")
            .raw("EMBEDDABLES_SIDECAR_CONFIG", file)
    }

    /// Has a held lane send no probe within a test.
    #[must_use]
    pub fn without_probes(self) -> Self {
        self.set("DELIVERY__PROBE_MIN", "1h")
            .set("DELIVERY__PROBE_MAX", "1h")
    }

    /// Has a failed event not tried again within a test, but by a chance of one in some hundreds: waits are drawn by lot.
    #[must_use]
    pub fn without_retries(self) -> Self {
        self.set("DELIVERY__RETRY_MIN", "6h")
            .set("DELIVERY__RETRY_MAX", "6h")
    }

    /// Takes the key of the default project from a file.
    #[must_use]
    pub fn with_key_file(self, file: &Path) -> Self {
        self.without("EMBEDDABLES_API_KEY")
            .raw("EMBEDDABLES_API_KEY_FILE", file)
    }

    /// Folder of everything that the sidecar writes.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Folder of its queue.
    pub fn queue_directory(&self) -> PathBuf {
        let key = OsString::from("EMBEDDABLES_SIDECAR__QUEUE__DIR");
        self.environment
            .get(&key)
            .expect("the queue's folder is set")
            .into()
    }

    /// File that all its lives log to.
    pub fn log_file(&self) -> PathBuf {
        self.directory.join("sidecar.log")
    }

    pub(crate) fn ready_file(&self) -> PathBuf {
        self.directory.join("ready.json")
    }

    pub(crate) fn environment(&self) -> &BTreeMap<OsString, OsString> {
        &self.environment
    }
}
