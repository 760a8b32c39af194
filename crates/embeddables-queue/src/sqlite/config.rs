//! What a store is opened with, and what opening it found.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{MonotonicClock, RunningClock};
use crate::{Durability, LaneName};

/// How to open a store.
#[derive(Clone, Debug)]
pub struct SqliteConfig {
    /// Directory of the store; made where it is missing, with mode 0700.
    pub dir: PathBuf,
    /// The closed set of lanes. Lanes in the store that are not among them keep their records and take no part.
    pub lanes: Vec<LaneName>,
    /// Most bytes of records and dead letters, each with [`RECORD_OVERHEAD_BYTES`](crate::RECORD_OVERHEAD_BYTES). Default: 1 GiB.
    pub max_bytes: u64,
    /// Most bytes of one lane's records and dead letters, counted like `max_bytes`. Default: no bound but `max_bytes`.
    pub lane_share_bytes: u64,
    /// Bytes of one lane's dead letters from which on it takes nothing new. Default: no bound but `max_bytes`.
    pub dead_letter_share_bytes: u64,
    /// Most records of one commit that gathers calls; a larger single call is still one commit. Default: 512.
    pub max_batch: NonZeroUsize,
    /// How long a commit that is not full waits for more appends. Default: zero, commits at once.
    pub linger: Duration,
    /// How long the id of a settled record is remembered, in running time. Default: 24 h.
    pub dedupe_window: Duration,
    /// How many outcomes are remembered at most. Default: 1,000,000.
    pub dedupe_ids: u64,
    /// Strongest durability to keep, also by leases and settlements. Default: the strongest that the volume offers.
    pub durability: Option<Durability>,
    /// Source of running time. Default: the machine's monotonic clock.
    pub clock: Arc<dyn RunningClock>,
    /// Hears how long each commit took that wrote something, from its begin to its being on disk. Default: nobody.
    pub on_commit: Option<CommitObserver>,
}

impl SqliteConfig {
    /// A configuration with every default.
    pub fn new(dir: impl Into<PathBuf>, lanes: Vec<LaneName>) -> Self {
        const MAX_BATCH: NonZeroUsize = NonZeroUsize::new(512).expect("512 is not zero");
        Self {
            dir: dir.into(),
            lanes,
            max_bytes: 1 << 30,
            lane_share_bytes: u64::MAX,
            dead_letter_share_bytes: u64::MAX,
            max_batch: MAX_BATCH,
            linger: Duration::ZERO,
            dedupe_window: Duration::from_hours(24),
            dedupe_ids: 1_000_000,
            durability: None,
            clock: Arc::new(MonotonicClock::start()),
            on_commit: None,
        }
    }
}

/// Hears how long a commit took. Called by the thread that writes: it must be quick.
#[derive(Clone)]
pub struct CommitObserver(Arc<dyn Fn(Duration) + Send + Sync>);

impl CommitObserver {
    /// Calls a function after each commit.
    pub fn new(observe: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    pub(super) fn observe(&self, elapsed: Duration) {
        (self.0)(elapsed);
    }
}

impl fmt::Debug for CommitObserver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CommitObserver")
    }
}

/// What opening a store found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenReport {
    /// Whether the store was made now.
    pub created: bool,
    /// Format of the store, `major.minor`.
    pub format: String,
    /// Durabilities on offer, weakest first.
    pub durabilities: Vec<Durability>,
    /// Records that were leased when an earlier process ended.
    pub interrupted: u64,
    /// The store ends below its mark: commits may be missing.
    pub possible_loss: Option<PossibleLoss>,
    /// An earlier process had failed to sync, so that everything was copied to a new file.
    pub rebuilt: bool,
    /// The file was damaged: what could be read was kept.
    pub salvaged: Option<Salvaged>,
    /// The directory is a copy of another one, which may still be in use: all its records count as interrupted.
    pub copied: bool,
}

/// Commits that may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PossibleLoss {
    /// Newest commit that is in the store.
    pub store_commit: u64,
    /// Newest commit that was there when the mark was written.
    pub mark_commit: u64,
}

/// What became of a damaged file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// Where the damaged file is kept.
    pub set_aside: PathBuf,
    /// Rows that were copied.
    pub rows_kept: u64,
    /// Records and dead letters that are missing by the books, or were found damaged; counted as quarantined.
    pub quarantined: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_defaults_are_the_real_ones() {
        let config = SqliteConfig::new("somewhere", Vec::new());
        assert_eq!(config.max_bytes, 1024 * 1024 * 1024);
        assert_eq!(
            (config.lane_share_bytes, config.dead_letter_share_bytes),
            (u64::MAX, u64::MAX)
        );
        assert_eq!(config.max_batch.get(), 512);
        assert_eq!(config.linger, Duration::ZERO);
        assert_eq!(config.dedupe_window, Duration::from_secs(86_400));
        assert_eq!(config.dedupe_ids, 1_000_000);
        assert_eq!(config.durability, None);
    }
}
