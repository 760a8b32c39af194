//! Where the programs are, and where processes may write.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use super::{RunConfig, disk};

/// Programs and the directory for queues.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// This program: null server and load generator.
    pub(crate) bench: PathBuf,
    /// The sidecar's binary.
    pub(crate) sidecar: PathBuf,
    /// The mock's binary.
    pub(crate) mock: PathBuf,
    /// Directory on disk, for queues.
    pub(crate) work_dir: PathBuf,
    /// Directory of the results.
    pub(crate) output_dir: PathBuf,
}

impl Places {
    /// Finds everything and makes the directories.
    pub(crate) fn of(config: &RunConfig) -> anyhow::Result<Self> {
        let bench = std::env::current_exe().context("cannot tell where this program is")?;
        let programs = bench.parent().context("this program is in no directory")?;
        let target = programs.parent().unwrap_or(programs);
        let output_dir = config.output_dir.clone().unwrap_or_else(|| target.join("bench"));
        let work_dir = config.work_dir.clone().unwrap_or_else(|| output_dir.clone());
        let absolute = |program: &Option<PathBuf>, name: &str| {
            std::path::absolute(program.clone().unwrap_or_else(|| programs.join(name)))
        };
        let places = Self {
            sidecar: absolute(&config.sidecar, "embeddables-sidecar")?,
            mock: absolute(&config.mock, "embeddables-mock")?,
            work_dir: made(&work_dir)?,
            output_dir: made(&output_dir)?,
            bench,
        };
        for program in [&places.sidecar, &places.mock] {
            ensure!(
                program.is_file(),
                "{} is missing: cargo build --release -p embeddables-sidecar -p embeddables-mock -p embeddables-bench",
                program.display()
            );
        }
        disk::ensure_on_disk(&places.work_dir)?;
        Ok(places)
    }

    /// A directory on disk for one measurement, removed when it is dropped.
    pub(crate) fn fresh_dir(&self) -> anyhow::Result<TempDir> {
        tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&self.work_dir)
            .with_context(|| format!("cannot write into {}", self.work_dir.display()))
    }
}

fn made(dir: &Path) -> anyhow::Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    // Processes run elsewhere: relative paths would not be found there.
    Ok(dir.canonicalize()?)
}
