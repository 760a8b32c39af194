//! What the mock takes for true: keys, entries, latency, rate. The body of `PUT /_mock/config`.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;
use std::time::Duration;

use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

use crate::admission::Admission;
use crate::faults::RetryAfter;
use crate::route::is_project_id;

/// Longest latency or hang in milliseconds: one hour.
pub(crate) const MAX_WAIT_MS: u64 = 3_600_000;
/// Most requests at once on one HTTP/2 connection unless told otherwise.
const MAX_STREAMS: NonZeroU32 = NonZeroU32::new(1_000).unwrap();
/// Prefix of every key of the API.
const KEY_PREFIX: &str = "rk_";

/// How the mock answers when no fault is in the way. Replaced as a whole: what is absent has its default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The keys of each project. Default: none, and then any key of the form `rk_…` is good for any project.
    /// As soon as one project has an entry here, a project without one answers 401.
    pub keys: BTreeMap<String, Vec<String>>,
    /// The users that exist. Default: none.
    pub entries: Vec<Entry>,
    /// Whether every user exists. Default: `true` if `entries` is empty, else `false`. A double-escaped
    /// identifier value matches no one even then, as it would not in the real API.
    pub any_entry: Option<bool>,
    /// Base latency of each answer in milliseconds, at most 3,600,000. Default: `0`.
    pub latency_ms: u64,
    /// Requests with a good key that are admitted a second, for each project; those beyond are answered 429. Above 0.
    /// Default: none, all are.
    pub admit_per_second: Option<NonZeroU32>,
    /// Requests that a project that was silent may send at once. Above 0; goes with `admit_per_second` only. Default: a
    /// tenth of it, and at least 1.
    pub admit_burst: Option<NonZeroU32>,
    /// `Retry-After` of those 429, verbatim; goes with `admit_per_second` only. Default: none.
    pub retry_after: Option<RetryAfter>,
    /// Most requests at once on one HTTP/2 connection, of those opened from now on. Above 0. Default: `1000`.
    pub max_streams: NonZeroU32,
    /// Whether requests are kept for `GET /_mock/requests`. Default: `true`; `false` for load runs, in which
    /// they are counted only.
    pub record_requests: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keys: BTreeMap::new(),
            entries: Vec::new(),
            any_entry: None,
            latency_ms: 0,
            admit_per_second: None,
            admit_burst: None,
            retry_after: None,
            max_streams: MAX_STREAMS,
            record_requests: true,
        }
    }
}

/// A user of an Embeddable, as events find one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Project id.
    pub project: String,
    /// Id of the Embeddable.
    pub embeddable: String,
    /// Key of the user's data, e.g. `email`.
    pub key: String,
    /// The value itself, not stringified: a string, number or boolean. Numbers are equal by value: `42` is
    /// `42.0`.
    pub value: Value,
}

/// Why settings were refused. The old ones stay in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A project id that no path could carry.
    #[error("`{project}` is not a project id: expected 1 to 128 of A-Z a-z 0-9 _ -")]
    ProjectId {
        /// The id as given.
        project: String,
    },
    /// A key that the API could not have issued.
    #[error("a key of project `{project}` is not `rk_` followed by visible ASCII characters")]
    Key {
        /// The project whose key it is.
        project: String,
    },
    /// An entry whose value no identifier can have.
    #[error("the value of entries[{index}] is not a string, number or boolean")]
    EntryValue {
        /// Place of the entry in the list, from 0.
        index: usize,
    },
    /// A latency longer than an hour.
    #[error("latency_ms is {latency_ms}, more than {MAX_WAIT_MS}")]
    Latency {
        /// The latency as given.
        latency_ms: u64,
    },
    /// What only says how requests are refused, where none is.
    #[error("{field} needs admit_per_second")]
    NoRate {
        /// The field that was given.
        field: &'static str,
    },
    /// A `Retry-After` that no header may hold.
    #[error("retry_after has a character that no header may hold")]
    RetryAfter,
}

/// Settings that were checked, with an index over their entries.
#[derive(Debug)]
pub(crate) struct Rules {
    settings: Settings,
    entries: HashSet<String>,
    throttle: Option<Throttle>,
}

/// The limit on the requests of each project. New settings are a new one, with full buckets.
#[derive(Debug)]
struct Throttle {
    admission: Admission,
    retry_after: Option<HeaderValue>,
}

/// A request is one too many; `Retry-After` as configured.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Throttled {
    /// Value of `Retry-After`.
    pub(crate) retry_after: Option<HeaderValue>,
}

impl Throttle {
    /// The limit that settings ask for, if they do.
    fn new(settings: &Settings) -> Result<Option<Self>, SettingsError> {
        let Some(per_second) = settings.admit_per_second else {
            let fields = [
                ("admit_burst", settings.admit_burst.is_some()),
                ("retry_after", settings.retry_after.is_some()),
            ];
            return match fields.into_iter().find(|(_, is_given)| *is_given) {
                Some((field, _)) => Err(SettingsError::NoRate { field }),
                None => Ok(None),
            };
        };
        let retry_after = settings.retry_after.as_ref().map(RetryAfter::header);
        Ok(Some(Self {
            admission: Admission::new(per_second, settings.admit_burst),
            retry_after: retry_after.transpose().map_err(|_| SettingsError::RetryAfter)?,
        }))
    }
}

impl Rules {
    /// Checks settings and indexes them.
    pub(crate) fn new(settings: Settings) -> Result<Self, SettingsError> {
        let projects = settings
            .keys
            .keys()
            .chain(settings.entries.iter().map(|entry| &entry.project));
        for project in projects {
            if !is_project_id(project) {
                return Err(SettingsError::ProjectId {
                    project: project.clone(),
                });
            }
        }
        for (project, keys) in &settings.keys {
            if !keys.iter().all(|key| is_key(key)) {
                return Err(SettingsError::Key {
                    project: project.clone(),
                });
            }
        }
        if settings.latency_ms > MAX_WAIT_MS {
            return Err(SettingsError::Latency {
                latency_ms: settings.latency_ms,
            });
        }
        let throttle = Throttle::new(&settings)?;
        let mut entries = HashSet::with_capacity(settings.entries.len());
        for (index, entry) in settings.entries.iter().enumerate() {
            if !matches!(entry.value, Value::String(_) | Value::Number(_) | Value::Bool(_)) {
                return Err(SettingsError::EntryValue { index });
            }
            entries.insert(index_key(
                &entry.project,
                &entry.embeddable,
                &entry.key,
                &entry.value,
            ));
        }
        Ok(Self {
            settings,
            entries,
            throttle,
        })
    }

    /// The settings as they were given.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Base latency of each answer.
    pub(crate) fn latency(&self) -> Duration {
        Duration::from_millis(self.settings.latency_ms)
    }

    /// Whether `key` opens `project`.
    pub(crate) fn key_is_good(&self, project: &str, key: &str) -> bool {
        let keys = &self.settings.keys;
        is_key(key)
            && (keys.is_empty()
                || keys
                    .get(project)
                    .is_some_and(|known| known.iter().any(|one| one == key)))
    }

    /// Admits one more request of a project, or not.
    pub(crate) fn admit(&self, project: &str, now: Instant) -> Result<(), Throttled> {
        match &self.throttle {
            Some(throttle) if !throttle.admission.admits(project, now) => Err(Throttled {
                retry_after: throttle.retry_after.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether a user of the Embeddable has `value` under `key`.
    pub(crate) fn entry_exists(&self, project: &str, embeddable: &str, key: &str, value: &Value) -> bool {
        let any_entry = self
            .settings
            .any_entry
            .unwrap_or(self.settings.entries.is_empty());
        (any_entry && !is_double_escaped(value))
            || self.entries.contains(&index_key(project, embeddable, key, value))
    }

    /// The users of one project.
    pub(crate) fn entries_of<'a>(&'a self, project: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.settings
            .entries
            .iter()
            .filter(move |entry| entry.project == project)
    }
}

/// Whether `text` has the form of a key: `rk_` and at least one more visible ASCII character.
fn is_key(text: &str) -> bool {
    text.strip_prefix(KEY_PREFIX)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()))
}

/// Whether a value is a string that holds a JSON string literal: the pitfall the documentation names.
fn is_double_escaped(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| text.starts_with('"') && serde_json::from_str::<String>(text).is_ok())
}

/// One text for each distinct entry. A NUL cannot occur in an id; the scalar comes last.
fn index_key(project: &str, embeddable: &str, key: &str, value: &Value) -> String {
    format!(
        "{project}\0{embeddable}\0{}:{key}\0{}",
        key.len(),
        scalar_text(value)
    )
}

/// A text that is the same for equal scalars only: numbers are equal by value.
pub(crate) fn scalar_text(value: &Value) -> String {
    match value.as_f64() {
        // Whole numbers of any notation come to the same text; those that fit 64 bits stay exact.
        Some(number) if value.as_i64().is_none() && value.as_u64().is_none() && number.fract() == 0.0 => {
            format!("{number:.0}")
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests;
