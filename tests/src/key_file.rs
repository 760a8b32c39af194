//! Key files as they are changed in practice: rewritten, replaced, and mounted by Kubernetes.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// How a file's content is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Written again in place, as an editor or `echo >` does.
    Rewrite,
    /// Another file is renamed to its name, as careful programs do.
    Replace,
    /// It is a symlink through the folder's `..data`, which is swapped, as kubelet does for a mounted secret.
    SwapFolder,
}

/// A key file in a folder of its own.
#[derive(Debug)]
pub struct KeyFile {
    folder: PathBuf,
    change: Change,
    versions: u32,
}

impl KeyFile {
    /// Makes `folder` and a key file in it that will change in this way.
    ///
    /// # Panics
    /// Where that cannot be written.
    pub fn new(folder: &Path, change: Change, content: &str) -> Self {
        std::fs::create_dir(folder).expect("a new folder");
        let mut file = Self {
            folder: folder.to_owned(),
            change,
            versions: 0,
        };
        if change == Change::SwapFolder {
            symlink("..data/api-key", file.path()).expect("a symlink");
        }
        file.write(content);
        file
    }

    /// Where the sidecar finds it.
    pub fn path(&self) -> PathBuf {
        self.folder.join("api-key")
    }

    /// Changes its content.
    ///
    /// # Panics
    /// Where that cannot be written.
    pub fn write(&mut self, content: &str) {
        self.versions += 1;
        match self.change {
            Change::Rewrite => std::fs::write(self.path(), content).expect("the file can be written"),
            Change::Replace => {
                let new = self.folder.join("api-key.new");
                std::fs::write(&new, content).expect("the file can be written");
                std::fs::rename(&new, self.path()).expect("the file can be renamed");
            }
            Change::SwapFolder => self.swap(content),
        }
    }

    /// As kubelet's atomic writer: a new folder, a new symlink renamed over `..data`, the old folder removed.
    fn swap(&self, content: &str) {
        let version = |number: u32| format!("..2026_01_01_00_00_{number:02}.000000001");
        let new = version(self.versions);
        std::fs::create_dir(self.folder.join(&new)).expect("a new folder");
        std::fs::write(self.folder.join(&new).join("api-key"), content).expect("the file can be written");
        let link = self.folder.join("..data_tmp");
        symlink(&new, &link).expect("a symlink");
        std::fs::rename(&link, self.folder.join("..data")).expect("the symlink can be renamed");
        let old = self.folder.join(version(self.versions - 1));
        if old.is_dir() {
            std::fs::remove_dir_all(old).expect("the old folder can be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_change_shows_the_new_content_under_the_same_path() {
        let directory = crate::stage::directory();
        for change in [Change::Rewrite, Change::Replace, Change::SwapFolder] {
            let mut file = KeyFile::new(&directory.path().join(format!("{change:?}")), change, "one");
            for content in ["two", "three"] {
                file.write(content);
                assert_eq!(std::fs::read_to_string(file.path()).expect("a file"), content);
            }
        }
    }
}
