//! The format of the file, `major.minor`, kept twice.
//!
//! # Invariants
//! 1. Another minor opens, also a newer one; a newer major does not, and nothing is written then.
//! 2. The two copies disagree only by damage; the checksummed one in `meta` wins, unless it is the damaged one.
//! 3. Where a log lies beside the main file, both copies are read with it: a checkpoint that ended halfway leaves old pages beside
//!    new ones, and such a main file alone says nothing.

use std::fmt;
use std::path::Path;

use rusqlite::Connection;

use super::{connection, rows, volume};

/// Format of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Format {
    pub(super) major: u32,
    pub(super) minor: u32,
}

/// `user_version` is major × this + minor.
const MINORS: u32 = 1_000;

impl Format {
    /// What this release writes.
    pub(super) const CURRENT: Self = Self { major: 1, minor: 1 };

    /// Whether this release can open it.
    pub(super) fn is_supported(self) -> bool {
        self.major <= Self::CURRENT.major
    }

    /// Writes both copies.
    pub(super) fn write(self, connection: &Connection) -> rusqlite::Result<()> {
        rows::write_meta(connection, "format", self.to_string().as_bytes())?;
        connection.execute_batch(&format!("PRAGMA user_version = {}", self.number()))
    }

    fn number(self) -> u32 {
        self.major * MINORS + self.minor
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let (major, minor) = std::str::from_utf8(text).ok()?.split_once('.')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// What the two copies say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// They agree, or one was flipped and the other tells.
    Is {
        /// The format.
        format: Format,
        /// Whether one copy is wrong and has to be written anew.
        repair: bool,
    },
    /// Neither can be read.
    Unreadable,
}

/// Reads both copies through a connection.
pub(super) fn read(connection: &Connection) -> Found {
    let meta = rows::meta(connection, "format")
        .ok()
        .flatten()
        .and_then(|text| Format::parse(&text));
    let version: Option<u32> = connection
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .ok();
    let version = version.filter(|number| *number >= MINORS).map(|number| Format {
        major: number / MINORS,
        minor: number % MINORS,
    });
    match (meta, version) {
        (Some(format), other) => Found::Is {
            format,
            repair: other != Some(format),
        },
        (None, Some(format)) => Found::Is { format, repair: true },
        (None, None) => Found::Unreadable,
    }
}

/// Reads both copies of a file that nobody has open. Neither it nor its log is written; the log's index is made anew where there
/// is a log.
pub(super) fn peek(path: &Path) -> Found {
    let opened = if volume::has_bytes(&volume::log_of(path)) {
        connection::open_reader(path)
    } else {
        connection::open_immutable(path)
    };
    match opened {
        Ok(connection) => read(&connection),
        Err(_) => Found::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection::add_schema(&connection).unwrap();
        Format::CURRENT.write(&connection).unwrap();
        connection
    }

    #[track_caller]
    fn check(change: &str, format: Format, repair: bool) {
        let connection = store();
        connection.execute_batch(change).unwrap();
        assert_eq!(
            read(&connection),
            Found::Is { format, repair },
            "after {change:?}"
        );
    }

    #[test]
    fn a_flipped_copy_is_damage_and_the_other_one_tells() {
        check("", Format::CURRENT, false);
        check("PRAGMA user_version = 66536", Format::CURRENT, true);
        check("PRAGMA user_version = 0", Format::CURRENT, true);
        check(
            "UPDATE meta SET value = x'392e30' WHERE name = 'format'",
            Format::CURRENT,
            true,
        );
        check("DELETE FROM meta", Format::CURRENT, true);
    }

    #[test]
    fn a_newer_format_is_told_when_both_copies_say_so_or_the_other_is_gone() {
        let connection = store();
        let newer = Format { major: 2, minor: 7 };
        newer.write(&connection).unwrap();
        assert_eq!(
            read(&connection),
            Found::Is {
                format: newer,
                repair: false
            }
        );
        assert!(!newer.is_supported());
        connection.execute_batch("DELETE FROM meta").unwrap();
        assert_eq!(
            read(&connection),
            Found::Is {
                format: newer,
                repair: true
            }
        );
        assert!(Format { major: 1, minor: 9 }.is_supported());
    }
}
