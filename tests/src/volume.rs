//! A small volume of its own, for tests that fill it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::gate;

/// A mounted tmpfs. Unmounted when dropped.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
    _directory: TempDir,
}

impl Volume {
    /// Mounts a tmpfs of this size; `None`, loudly, where that is not allowed.
    ///
    /// # Panics
    /// In CI, where it must be.
    #[track_caller]
    pub fn mount(size_bytes: u64) -> Option<Self> {
        if !gate::is_root() {
            gate::skip("mounting a small volume needs root");
            return None;
        }
        let directory = crate::stage::directory();
        let path = directory.path().join("volume");
        std::fs::create_dir(&path).expect("a folder to mount on");
        let options = format!("size={size_bytes},mode=0700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "e2e"])
            .arg(&path)
            .output();
        if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
            gate::skip(&format!("a tmpfs could not be mounted: {mounted:?}"));
            return None;
        }
        Some(Self {
            path,
            _directory: directory,
        })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes all the space that is left, with a file that the test owns.
    ///
    /// # Panics
    /// Where the file cannot be made.
    pub fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let path = self.path.join("ballast");
        let mut file = std::fs::File::create(&path).expect("a file on the volume");
        let block = [0; 4096];
        while file.write_all(&block).is_ok() {}
        path
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a sidecar that a failing test left behind is gone in a moment.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.path).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} could not be unmounted", self.path.display());
        }
    }
}
