//! The directory of a store: its files, its lock, and the volume that it lies on.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::Durability;

/// Names of the files of a store.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) dir: PathBuf,
}

impl Paths {
    /// The store itself.
    pub(super) fn db(&self) -> PathBuf {
        self.dir.join("queue.db")
    }

    /// Its write-ahead log.
    pub(super) fn wal(&self) -> PathBuf {
        log_of(&self.db())
    }

    /// The log's index in shared memory.
    pub(super) fn shm(&self) -> PathBuf {
        self.dir.join("queue.db-shm")
    }

    /// Held for as long as the store is open.
    pub(super) fn lock(&self) -> PathBuf {
        self.dir.join("queue.lock")
    }

    /// Number of the newest commit, beside the store.
    pub(super) fn mark(&self) -> PathBuf {
        self.dir.join("queue.mark")
    }

    /// Room kept for settling when the disk is full.
    pub(super) fn reserve(&self) -> PathBuf {
        self.dir.join("queue.reserve")
    }

    /// Present while the log must not be written to, because a write to it failed.
    pub(super) fn suspect(&self) -> PathBuf {
        self.dir.join("queue.suspect")
    }

    /// A copy in the making: worth nothing.
    pub(super) fn rebuild_tmp(&self) -> PathBuf {
        self.dir.join("queue.db.rebuild-tmp")
    }

    /// A finished, synced copy: the truth, not yet in its place.
    pub(super) fn rebuilt(&self) -> PathBuf {
        self.dir.join("queue.db.rebuilt")
    }

    /// Where a damaged file is kept.
    pub(super) fn damaged(&self, unix_seconds: u64) -> PathBuf {
        self.dir.join(format!("queue.db.damaged-{unix_seconds}"))
    }
}

/// Name of the write-ahead log of a file.
pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Whether a file is there and not empty.
pub(super) fn has_bytes(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
}

/// Makes the directory, with its parents, for the owner only.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    if !dir.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mode = std::fs::metadata(dir)?.permissions().mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Opens a file for reading and writing, made with mode 0600 where it is missing.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Takes the lock; `None` where another process has it.
pub(super) fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = open_private(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Tells one directory from a copy of it: the lock file's inode and time of birth, which no copy shares.
pub(super) fn identity(lock: &File) -> io::Result<String> {
    let metadata = lock.metadata()?;
    let born = metadata
        .created()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |duration| duration.as_nanos());
    Ok(format!("{}.{born}", metadata.ino()))
}

/// Syncs a directory, so that the names in it are durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Removes a file that may be missing.
pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Durabilities that the volume can keep, weakest first: one of memory keeps nothing.
pub(super) fn durabilities(dir: &Path) -> io::Result<Vec<Durability>> {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    let kind = u64::try_from(rustix::fs::statfs(dir)?.f_type).unwrap_or(0);
    Ok(if matches!(kind, TMPFS_MAGIC | RAMFS_MAGIC) {
        vec![Durability::Memory]
    } else {
        vec![Durability::Memory, Durability::Buffered, Durability::Fsynced]
    })
}

/// Size of the volume and what is free for us, in bytes.
pub(super) fn room(dir: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok((
        stat.f_blocks.saturating_mul(stat.f_frsize),
        stat.f_bavail.saturating_mul(stat.f_frsize),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_until_the_first_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("queue.lock");
        let held = lock(&path).unwrap();
        assert!(held.is_some());
        assert!(lock(&path).unwrap().is_none());
        drop(held);
        assert!(lock(&path).unwrap().is_some());
    }

    #[test]
    fn directory_and_files_are_the_owners_only() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        make_dir(&inner).unwrap();
        open_private(&inner.join("file")).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&inner), 0o700);
        assert_eq!(mode(&inner.join("file")), 0o600);
    }
}
