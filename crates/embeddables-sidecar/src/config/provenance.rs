//! Where each value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// A configuration file.
    File {
        /// Its path as given.
        path: PathBuf,
        /// Line of the key, from 1, where it is known.
        line: Option<usize>,
    },
    /// An environment variable of this name.
    Env(String),
    /// A command set it itself, for example `dev`.
    Command(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File {
                path,
                line: Some(line),
            } => write!(formatter, "file {}:{line}", path.display()),
            Self::File { path, line: None } => write!(formatter, "file {}", path.display()),
            Self::Env(name) => write!(formatter, "env {name}"),
            Self::Command(name) => write!(formatter, "command {name}"),
        }
    }
}

/// Sources of all keys by full name such as `queue.max_bytes`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance(BTreeMap<String, Source>);

impl Provenance {
    /// Where the value of a key came from.
    pub fn of(&self, key: &str) -> &Source {
        self.0.get(key).unwrap_or(&Source::Default)
    }

    /// Notes where the value of a key came from.
    pub fn set(&mut self, key: impl Into<String>, source: Source) {
        self.0.insert(key.into(), source);
    }
}
