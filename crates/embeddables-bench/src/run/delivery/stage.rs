//! The processes of a measurement: a mock, and a sidecar with projects that are configured in a file, a key each.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::child::Child;
use crate::event::project_name;
use crate::load::{Address, LoadReport};
use crate::run::generator::Load;
use crate::run::mock::{ANY_PORT, Mock, Wire};
use crate::run::places::Places;
use crate::run::sidecar;

/// Dead letters that the sidecar counts.
const DEAD_LETTERS: &str = "embeddables_settle_dead_lettered_events_total";
/// Deliveries that the sidecar counts.
const DELIVERED: &str = "embeddables_settle_delivered_events_total";
/// Begin of the names under which the sidecar sets damaged files of its queue aside.
const DAMAGED_FILES: &[u8] = b"queue.db.damaged-";
/// How often its count is looked at.
const SETTLED_POLL: Duration = Duration::from_millis(20);

/// What the processes start with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// Projects, each with a key of its own that the mock knows.
    pub(crate) projects: u32,
    /// How the sidecar speaks to the mock.
    pub(crate) wire: Wire,
    /// Further settings of the mock.
    pub(crate) upstream: Value,
    /// Whether the sidecar delivers from the start.
    pub(crate) delivers: bool,
    /// Whether the key files hold keys that the mock refuses.
    pub(crate) keys_are_wrong: bool,
    /// Where the mock listens.
    pub(crate) mock_address: String,
}

/// How a sidecar ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By SIGTERM: in order.
    Asked,
    /// By SIGKILL.
    Killed,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            projects: 1,
            wire: Wire::default(),
            upstream: json!({}),
            delivers: true,
            keys_are_wrong: false,
            mock_address: ANY_PORT.to_owned(),
        }
    }
}

/// A sidecar with its upstream. Dropped, its processes are killed and its files removed.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The sidecar.
    pub(crate) sidecar: Child,
    /// The upstream.
    pub(crate) mock: Mock,
    wire: Wire,
    /// What the upstream was set to.
    settings: Value,
    work: TempDir,
}

/// The right key of a project.
pub(crate) fn key(project: u32) -> String {
    format!("rk_benchmark_{project:03}")
}

impl Stage {
    /// Starts both.
    pub(crate) async fn start(places: &Places, setup: Setup) -> anyhow::Result<Self> {
        let work = places.fresh_dir()?;
        let keys: serde_json::Map<String, Value> = (0..setup.projects)
            .map(|project| (project_name(project), json!([key(project)])))
            .collect();
        let mut settings = setup.upstream;
        settings["keys"] = keys.into();
        let (address, wire) = (&setup.mock_address, setup.wire);
        let mock = Mock::start_at(places, work.path(), address, wire, settings.clone()).await?;
        for project in 0..setup.projects {
            let key = key(project);
            let key = if setup.keys_are_wrong {
                key + "_revoked"
            } else {
                key
            };
            write_key(work.path(), project, &key)?;
        }
        let config = config_file(work.path());
        fs::write(&config, projects_toml(work.path(), setup.projects))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let sidecar = start_sidecar(places, work.path(), &mock, setup.delivers).await?;
        Ok(Self {
            sidecar,
            mock,
            wire,
            settings,
            work,
        })
    }

    /// Ends the sidecar and starts it again on the same queue, delivering.
    pub(crate) async fn restart_delivering(self, places: &Places) -> anyhow::Result<Self> {
        self.restart(places, End::Asked, true).await
    }

    /// Ends the sidecar one way or the other and starts it again on the same queue.
    pub(crate) async fn restart(self, places: &Places, end: End, delivers: bool) -> anyhow::Result<Self> {
        let mut sidecar = self.sidecar;
        match end {
            End::Asked => sidecar.stop().await?,
            End::Killed => sidecar.kill().await?,
        }
        let sidecar = start_sidecar(places, self.work.path(), &self.mock, delivers).await?;
        Ok(Self { sidecar, ..self })
    }

    /// Kills the upstream: its connections are cut, and nobody listens on its port any more.
    pub(crate) async fn lose_upstream(&mut self) -> anyhow::Result<()> {
        self.mock.child.kill().await
    }

    /// Starts another upstream, which has seen nothing yet, where the lost one listened.
    pub(crate) async fn regain_upstream(&mut self, places: &Places) -> anyhow::Result<()> {
        let address = self.mock.child.ready.mock.clone();
        let address = address.context("the mock does not say where it listens")?;
        let (work, settings) = (self.work.path(), self.settings.clone());
        self.mock = Mock::start_at(places, work, &address, self.wire, settings).await?;
        Ok(())
    }

    /// Where the sidecar takes events.
    pub(crate) fn address(&self) -> anyhow::Result<Address> {
        let address = self.sidecar.ready.grpc.clone();
        let address = address.context("the sidecar does not listen on TCP")?;
        Ok(Address::Tcp(address))
    }

    /// Publishes events to the sidecar.
    pub(crate) async fn publish(&self, places: &Places, load: &Load) -> anyhow::Result<LoadReport> {
        load.run(places, &self.address()?).await
    }

    /// Replaces a project's key file in one step by one with the right key.
    pub(crate) fn mend_key(&self, project: u32) -> anyhow::Result<()> {
        write_key(self.work.path(), project, &key(project))
    }

    /// Events that the sidecar has given up.
    pub(crate) async fn dead_letters(&self) -> anyhow::Result<f64> {
        self.sidecar.metric(DEAD_LETTERS).await
    }

    /// Events that the sidecar itself counts as delivered.
    pub(crate) async fn settled(&self) -> anyhow::Result<f64> {
        self.sidecar.metric(DELIVERED).await
    }

    /// Waits until the sidecar itself counts so many events as delivered; gives the count, also where that takes too long.
    pub(crate) async fn until_settled(&self, wanted: u64, longest: Duration) -> anyhow::Result<f64> {
        let start = Instant::now();
        loop {
            let settled = self.settled().await?;
            if settled >= wanted as f64 || start.elapsed() > longest {
                return Ok(settled);
            }
            sleep(SETTLED_POLL).await;
        }
    }

    /// Bytes of the files of the queue.
    pub(crate) fn queue_bytes(&self) -> anyhow::Result<u64> {
        let dir = sidecar::queue_dir(self.work.path());
        let files = fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let sizes = files.map(|file| Ok(file?.metadata()?.len()));
        sizes.sum()
    }

    /// Whether a start took the queue for damaged: then its file was set aside.
    pub(crate) fn was_salvaged(&self) -> anyhow::Result<bool> {
        holds_damaged_file(&sidecar::queue_dir(self.work.path()))
    }

    /// Ends both.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.sidecar.stop().await?;
        self.mock.child.stop().await
    }
}

async fn start_sidecar(places: &Places, work: &Path, mock: &Mock, delivers: bool) -> anyhow::Result<Child> {
    let mut environment = sidecar::environment(work, delivers, Some(mock));
    // What hangs, or waits for a key, would hold up the end of each measurement.
    environment.push(("EMBEDDABLES_SIDECAR__SHUTDOWN__DRAIN_TIMEOUT", "1s".to_owned()));
    let config = config_file(work);
    let config = config.to_str().context("a path that is not UTF-8")?;
    let arguments = ["serve", "--config", config];
    Child::start("sidecar", &places.sidecar, &arguments, &environment, work).await
}

fn holds_damaged_file(queue_dir: &Path) -> anyhow::Result<bool> {
    let files = fs::read_dir(queue_dir).with_context(|| format!("cannot read {}", queue_dir.display()))?;
    for file in files {
        if file?.file_name().as_encoded_bytes().starts_with(DAMAGED_FILES) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn config_file(work: &Path) -> PathBuf {
    work.join("sidecar.toml")
}

fn key_file(work: &Path, project: u32) -> PathBuf {
    work.join(format!("{}.key", project_name(project)))
}

/// The configuration of the projects.
fn projects_toml(work: &Path, projects: u32) -> String {
    let mut text = String::new();
    for project in 0..projects {
        // A JSON string of a path is a TOML string too.
        let key_file = json!(key_file(work, project));
        let name = project_name(project);
        text.push_str(&format!("[projects.{name}]\napi_key_file = {key_file}\n\n"));
    }
    text
}

fn write_key(work: &Path, project: u32, key: &str) -> anyhow::Result<()> {
    let path = key_file(work, project);
    let temporary = path.with_extension("key.tmp");
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(format!("{key}\n").as_bytes()))
        .and_then(|()| fs::rename(&temporary, &path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn each_project_has_a_section_with_a_key_file() {
        let text = projects_toml(Path::new("/a b"), 2);
        let expected = concat!(
            "[projects.pr_benchmark_000]\napi_key_file = \"/a b/pr_benchmark_000.key\"\n\n",
            "[projects.pr_benchmark_001]\napi_key_file = \"/a b/pr_benchmark_001.key\"\n\n",
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_queue_that_was_salvaged_is_told_by_the_file_set_aside() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, expected) in [("queue.db", false), ("queue.db.damaged-1795816302", true)] {
            fs::write(dir.path().join(name), "").expect("written");
            let holds = holds_damaged_file(dir.path()).expect("a directory");
            assert_eq!(holds, expected, "with {name}");
        }
    }

    #[test]
    fn a_key_is_replaced_in_one_step_and_only_the_owner_can_read_it() {
        let dir = tempfile::tempdir().expect("a directory");
        for wrong_or_right in ["rk_a", "rk_b"] {
            write_key(dir.path(), 7, wrong_or_right).expect("written");
            let path = key_file(dir.path(), 7);
            let text = fs::read_to_string(&path).expect("a key");
            assert_eq!(text, format!("{wrong_or_right}\n"));
            let mode = fs::metadata(&path).expect("metadata").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 1);
    }
}
