//! The disk under the queue: what one sync costs there, and whether there is a disk at all.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tokio::time::Instant;

/// Syncs that are timed.
const SYNCS: usize = 200;
/// Bytes appended before each.
const APPEND_BYTES: usize = 4_096;
/// File system type of a tmpfs.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Time of an append of 4 KiB with its `fdatasync`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct SyncCost {
    /// Half took no longer, in microseconds.
    pub(crate) p50_us: f64,
    /// All but a hundredth took no longer, in microseconds.
    pub(crate) p99_us: f64,
}

/// Refuses a directory in memory: there a sync costs nothing, and the figures would be of another product.
pub(crate) fn ensure_on_disk(dir: &Path) -> anyhow::Result<()> {
    let volume = rustix::fs::statfs(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    let is_tmpfs = u64::try_from(volume.f_type).is_ok_and(|kind| kind == TMPFS_MAGIC);
    ensure!(
        !is_tmpfs,
        "{} is on a tmpfs, where syncs cost nothing: set --work-dir",
        dir.display()
    );
    Ok(())
}

/// Refuses a directory without room for so many bytes.
pub(crate) fn ensure_room(dir: &Path, bytes: u64) -> anyhow::Result<()> {
    let volume = rustix::fs::statvfs(dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    let free_bytes = volume.f_bavail.saturating_mul(volume.f_frsize);
    ensure!(
        free_bytes >= bytes,
        "{} has {:.1} GB free, and {:.1} GB are needed: set --work-dir or a smaller --scale",
        dir.display(),
        free_bytes as f64 / 1e9,
        bytes as f64 / 1e9
    );
    Ok(())
}

/// Times appends with their syncs.
pub(crate) fn sync_cost(dir: &Path) -> anyhow::Result<SyncCost> {
    let path = dir.join("sync-cost");
    let mut file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut micros = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let start = Instant::now();
        file.write_all(&[0x5a; APPEND_BYTES])?;
        file.sync_data()?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    std::fs::remove_file(&path)?;
    micros.sort_by(f64::total_cmp);
    Ok(SyncCost {
        p50_us: micros[SYNCS / 2],
        p99_us: micros[SYNCS * 99 / 100],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_what_is_needed() {
        let dir = tempfile::tempdir().expect("a directory");
        ensure_room(dir.path(), 1).expect("room for a byte");
        let error = ensure_room(dir.path(), 1 << 60).expect_err("an exbibyte");
        assert!(
            error.to_string().contains("1152921504.6 GB are needed"),
            "{error}"
        );
    }

    #[test]
    fn a_sync_takes_time_and_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let cost = sync_cost(dir.path()).expect("timed");
        assert!(cost.p50_us > 0.0 && cost.p99_us >= cost.p50_us);
        assert_eq!(std::fs::read_dir(dir.path()).expect("read").count(), 0);
    }
}
