//! Why a command did not do what was asked, for the person who asked.

use std::fmt;
use std::io;

use crate::config::ConfigError;

/// Ends a command with a message on standard error and an exit code.
#[derive(Debug)]
pub(super) struct Failure {
    exit_code: u8,
    message: String,
}

impl Failure {
    /// Exit code of a failure that is none of the others.
    pub(super) const FAILED: u8 = 1;
    const USAGE: u8 = 2;

    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            exit_code: Self::FAILED,
            message: message.into(),
        }
    }

    pub(super) fn with_exit_code(exit_code: u8, message: impl Into<String>) -> Self {
        Self {
            exit_code,
            message: message.into(),
        }
    }

    /// The command line is wrong.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::with_exit_code(Self::USAGE, message)
    }

    pub(super) fn runtime(error: io::Error) -> Self {
        Self::new(format!("cannot start threads: {error}"))
    }

    pub(super) fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::with_exit_code(error.exit_code(), error.to_string())
    }
}

/// An error with all its sources on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        // Some errors repeat what they wrap.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = error.source();
    }
    text
}
