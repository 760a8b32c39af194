//! What goes wrong with storage, sorted by what has to be done about it.

use rusqlite::ffi;

use crate::BoxError;

/// Why a piece of work on the store failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// SQLite said so.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// What was read contradicts itself.
    #[error("the store contradicts itself: {what}")]
    Damaged {
        /// What was noticed.
        what: &'static str,
    },
    /// A step on files failed.
    #[error("{step}")]
    File {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// An earlier failure still stands: nothing is written until the store was copied to a new file.
    #[error("the store refuses writes until it was copied after a failed write")]
    Suspect,
}

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Make room; the write did not happen.
    MakeRoom,
    /// Copy everything to a new file before another write.
    Rebuild,
    /// Copy what can be read and set the damaged file aside.
    Salvage,
    /// Nothing is known to be wrong with the file; the call failed.
    Fail,
}

impl Trouble {
    /// Names a failed step on files.
    pub(super) fn file(step: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { step, source }
    }

    /// As the interface carries it.
    pub(super) fn boxed(self) -> BoxError {
        Box::new(self)
    }

    /// Extended result code, where SQLite gave one.
    pub(super) fn code(&self) -> Option<i32> {
        match self {
            Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) => Some(error.extended_code),
            _ => None,
        }
    }

    /// What has to be done; `room_left` says whether the volume has any.
    pub(super) fn remedy(&self, room_left: impl FnOnce() -> bool) -> Remedy {
        let Some(code) = self.code() else {
            return match self {
                Self::Damaged { .. } => Remedy::Salvage,
                Self::Sqlite(error) if is_unreadable_value(error) => Remedy::Salvage,
                _ => Remedy::Fail,
            };
        };
        match code & 0xff {
            ffi::SQLITE_FULL => Remedy::MakeRoom,
            ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => Remedy::Salvage,
            // A file system that has turned read-only, or lost our files: nothing more may go to this log.
            ffi::SQLITE_READONLY | ffi::SQLITE_CANTOPEN => Remedy::Rebuild,
            ffi::SQLITE_IOERR if is_failed_sync(code) => Remedy::Rebuild,
            ffi::SQLITE_IOERR if !room_left() => Remedy::MakeRoom,
            ffi::SQLITE_IOERR => Remedy::Rebuild,
            _ => Remedy::Fail,
        }
    }
}

impl Trouble {
    /// Whether a sync failed.
    pub(super) fn is_failed_sync(&self) -> bool {
        self.code().is_some_and(is_failed_sync)
    }

    /// Whether the file cannot be read as a whole.
    pub(super) fn is_unreadable(&self) -> bool {
        match self.code() {
            Some(ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS) => true,
            _ => self.remedy(|| true) == Remedy::Salvage,
        }
    }
}

/// Whether a sync failed: then the pages may count as clean and never reach the disk.
fn is_failed_sync(code: i32) -> bool {
    matches!(code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC)
}

/// Whether a column held another type than the schema says: only damage does that.
pub(super) fn is_unreadable_value(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    matches!(
        error,
        E::FromSqlConversionFailure(..)
            | E::IntegralValueOutOfRange(..)
            | E::InvalidColumnType(..)
            | E::Utf8Error(..)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: i32, room_left: bool, expected: Remedy) {
        let trouble = Trouble::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        assert_eq!(
            trouble.remedy(|| room_left),
            expected,
            "code {code}, room left: {room_left}"
        );
    }

    #[test]
    fn each_failure_has_its_remedy() {
        check(ffi::SQLITE_FULL, true, Remedy::MakeRoom);
        check(ffi::SQLITE_IOERR_WRITE, true, Remedy::Rebuild);
        check(ffi::SQLITE_IOERR_WRITE, false, Remedy::MakeRoom);
        check(ffi::SQLITE_IOERR_SHMSIZE, false, Remedy::MakeRoom);
        check(ffi::SQLITE_IOERR_FSYNC, true, Remedy::Rebuild);
        check(ffi::SQLITE_IOERR_FSYNC, false, Remedy::Rebuild);
        check(ffi::SQLITE_READONLY_DBMOVED, true, Remedy::Rebuild);
        check(ffi::SQLITE_CORRUPT_INDEX, true, Remedy::Salvage);
        check(ffi::SQLITE_NOTADB, true, Remedy::Salvage);
        check(ffi::SQLITE_BUSY, true, Remedy::Fail);
        assert_eq!(Trouble::Damaged { what: "x" }.remedy(|| true), Remedy::Salvage);
    }
}
