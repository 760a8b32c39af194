//! What the mock takes for true: keys, entries, latency. The body of `PUT /_mock/config`.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::route::is_project_id;

/// Longest latency or hang in milliseconds: one hour.
pub(crate) const MAX_WAIT_MS: u64 = 3_600_000;
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
}

/// Settings that were checked, with an index over their entries.
#[derive(Debug)]
pub(crate) struct Rules {
    settings: Settings,
    entries: HashSet<String>,
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
        Ok(Self { settings, entries })
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
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(settings: Value) -> Rules {
        Rules::new(serde_json::from_value(settings).expect("settings")).expect("good settings")
    }

    #[track_caller]
    fn check(configured: Value, sent: Value, expected: bool) {
        let rules = rules(json!({
            "entries": [{ "project": "pr_1", "embeddable": "flow_1", "key": "k", "value": configured }]
        }));
        assert_eq!(
            rules.entry_exists("pr_1", "flow_1", "k", &sent),
            expected,
            "{configured} and {sent}"
        );
    }

    #[test]
    fn entries_match_by_the_value_of_their_json() {
        check(json!("a@b.co"), json!("a@b.co"), true);
        check(json!("a@b.co"), json!("\"a@b.co\""), false);
        check(json!("a@b.co"), json!("A@b.co"), false);
        check(json!(42), json!(42.0), true);
        check(json!(42), json!("42"), false);
        check(json!(true), json!(true), true);
        check(json!(true), json!("true"), false);
        check(
            json!(9_007_199_254_740_993_u64),
            json!(9_007_199_254_740_993_u64),
            true,
        );
        check(
            json!(9_007_199_254_740_993_u64),
            json!(9_007_199_254_740_992_u64),
            false,
        );
        check(json!("\"a\""), json!("\"a\""), true);
    }

    #[test]
    fn an_entry_belongs_to_its_project_embeddable_and_key() {
        let rules = rules(json!({
            "entries": [{ "project": "pr_1", "embeddable": "flow_1", "key": "k", "value": 1 }]
        }));
        assert!(rules.entry_exists("pr_1", "flow_1", "k", &json!(1)));
        assert!(!rules.entry_exists("pr_2", "flow_1", "k", &json!(1)));
        assert!(!rules.entry_exists("pr_1", "flow_2", "k", &json!(1)));
        assert!(!rules.entry_exists("pr_1", "flow_1", "l", &json!(1)));
    }

    #[test]
    fn everyone_exists_by_default_but_not_by_a_double_escaped_value() {
        let rules = rules(json!({}));
        assert!(rules.entry_exists("pr_1", "flow_1", "email", &json!("a@b.co")));
        assert!(rules.entry_exists("pr_1", "flow_1", "email", &json!("\"half quoted")));
        assert!(!rules.entry_exists("pr_1", "flow_1", "email", &json!("\"a@b.co\"")));
    }

    #[test]
    fn nobody_exists_when_told_so() {
        assert!(!rules(json!({ "any_entry": false })).entry_exists(
            "pr_1",
            "flow_1",
            "email",
            &json!("a@b.co")
        ));
    }

    #[test]
    fn any_well_formed_key_is_good_until_one_is_configured() {
        let open = rules(json!({}));
        assert!(open.key_is_good("pr_1", "rk_a"));
        for bad in ["", "rk_", "sk_a", "RK_a", "rk_a b", "rk_é"] {
            assert!(!open.key_is_good("pr_1", bad), "{bad}");
        }
        let closed = rules(json!({ "keys": { "pr_1": ["rk_a", "rk_b"] } }));
        assert!(closed.key_is_good("pr_1", "rk_b"));
        assert!(!closed.key_is_good("pr_1", "rk_c"));
        assert!(!closed.key_is_good("pr_2", "rk_a"));
    }

    #[test]
    fn settings_that_could_never_work_are_refused() {
        for bad in [
            json!({ "keys": { "a b": ["rk_a"] } }),
            json!({ "keys": { "pr_1": ["sk_a"] } }),
            json!({ "latency_ms": MAX_WAIT_MS + 1 }),
            json!({ "entries": [{ "project": "pr_1", "embeddable": "f", "key": "k", "value": null }] }),
        ] {
            let settings = serde_json::from_value(bad.clone()).expect("the right shape");
            assert!(Rules::new(settings).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_documented_defaults_are_the_real_ones() {
        let empty: Settings = serde_json::from_value(json!({})).expect("settings");
        assert_eq!(empty, Settings::default());
        assert!(empty.keys.is_empty() && empty.entries.is_empty() && empty.any_entry.is_none());
        assert!(empty.latency_ms == 0 && empty.record_requests);
    }
}
