//! What is wrong with the configuration: all of it at once, each with its key and where the value came from.

use std::fmt;

use super::provenance::Source;

/// Exit code of every configuration error (`EX_CONFIG` of `sysexits.h`).
pub const EXIT_CONFIGURATION: u8 = 78;

/// One thing wrong with the configuration. Never holds an API key.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Full key such as `queue.max_bytes`, or the variable's name; empty where it is about no key.
    pub key: String,
    /// Where the value came from, where that is known.
    pub source: Option<Source>,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl Problem {
    /// A problem with a key's value.
    pub(super) fn new(key: impl Into<String>, source: Option<Source>, message: impl AsRef<str>) -> Self {
        Self {
            key: key.into(),
            source,
            message: redact(message.as_ref()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.is_empty(), &self.source) {
            (true, None) => formatter.write_str(&self.message),
            (true, Some(source)) => write!(formatter, "{source}: {}", self.message),
            (false, None | Some(Source::Default)) => write!(formatter, "`{}`: {}", self.key, self.message),
            (false, Some(source)) => write!(formatter, "`{}` ({source}): {}", self.key, self.message),
        }
    }
}

/// The configuration cannot be used; nothing was opened or started.
#[derive(Clone, Debug, thiserror::Error)]
pub struct ConfigError {
    /// All that was found, at least one.
    pub problems: Vec<Problem>,
}

impl ConfigError {
    /// The process's exit code: always [`EXIT_CONFIGURATION`].
    pub fn exit_code(&self) -> u8 {
        EXIT_CONFIGURATION
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [problem] => write!(formatter, "configuration: {problem}"),
            problems => {
                write!(formatter, "configuration: {} problems", problems.len())?;
                problems
                    .iter()
                    .try_for_each(|problem| write!(formatter, "\n  {problem}"))
            }
        }
    }
}

/// Takes every word that starts like an API key out of a text: parsers quote what they could not read, and somebody may
/// have put the key where something else belongs.
fn redact(text: &str) -> String {
    let is_key_part = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let mut safe = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("rk_") {
        let (before, key) = rest.split_at(start);
        safe.push_str(before);
        safe.push_str("rk_");
        rest = &key["rk_".len()..];
        if !before.ends_with(is_key_part) {
            safe.push('…');
            rest = rest.trim_start_matches(is_key_part);
        }
    }
    safe.push_str(rest);
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_looks_like_a_key_is_taken_out() {
        assert_eq!(redact("a \"rk_live-Canary_1\" b rk_x"), "a \"rk_…\" b rk_…");
        assert_eq!(redact("network_data and rk_work_dir"), "network_data and rk_…");
        assert_eq!(redact("rk_"), "rk_…");
    }
}
