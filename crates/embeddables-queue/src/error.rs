//! Why a call failed as a whole: one enum an operation, one variant per thing that the caller does differently.

use std::path::PathBuf;

/// Why nothing of an `append` was acknowledged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Durability asked for is not on offer; nothing was written.
    #[error("durability not on offer")]
    DurabilityNotOnOffer,
    /// The volume has no room; nothing was written. Deliveries go on and free some.
    #[error("no space left on the queue's volume")]
    DiskFull,
    /// Too much waits for the disk already; nothing was written.
    #[error("the disk does not keep up")]
    Busy,
    /// The disk refused before anything could have been kept.
    #[error("the queue's volume refuses writes")]
    Write(#[source] BoxError),
    /// The commit failed at its sync: it may come back after a crash, or never. A repeat with the same id is safe.
    #[error("the disk failed to sync: the record may or may not be kept")]
    DurabilityUnknown(#[source] BoxError),
    /// The queue was closed.
    #[error("queue closed")]
    Closed,
}

/// Why no lease was given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The lease could not be made durable, so nothing may be sent.
    #[error("the lease could not be written")]
    Write(#[source] BoxError),
    /// The queue was closed.
    #[error("queue closed")]
    Closed,
}

/// Why settlements were not written; the leases are still open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettleError {
    /// Nothing was written; the same call can be repeated.
    #[error("the settlement could not be written")]
    Write(#[source] BoxError),
    /// The queue was closed.
    #[error("queue closed")]
    Closed,
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store could not be read.
    #[error("the store could not be read")]
    Read(#[source] BoxError),
    /// The queue was closed.
    #[error("queue closed")]
    Closed,
}

/// Why a store was not opened. Nothing was changed unless the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory cannot be made, read or written.
    #[error("cannot use the queue directory `{}`", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error("the queue directory `{}` is in use by another process", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A newer release wrote it.
    #[error("the store in `{}` has format {found}, this release reads up to {supported}", .path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format, `major.minor`.
        found: String,
        /// Newest format that this release opens.
        supported: String,
    },
    /// Durability asked for is more than the volume keeps.
    #[error("the volume of `{}` cannot keep the configured durability", .path.display())]
    Durability {
        /// The directory.
        path: PathBuf,
    },
    /// Anything else that kept the store from opening.
    #[error("cannot open the store in `{}`", .path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: BoxError,
    },
}

/// Cause whose type is the backend's own.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
