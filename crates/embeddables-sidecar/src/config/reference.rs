//! What `config-reference` prints: every key with its documentation and default, from [`SECTIONS`] and [`Config::default`].

use std::fmt::Write as _;

use serde_json::json;
use toml::{Table, Value};

use super::section::{Field, Section};
use super::settings::{Config, SECTIONS};
use super::sources::variable_of;

/// A project id for examples.
const EXAMPLE_PROJECT: &str = "pr_WU28KvQa9qZ4BOuW";

const HEAD: &str = "\
# Configuration of embeddables-sidecar: every key with its default.
#
# Sources, weakest first: these defaults; a TOML file (`--config FILE` or EMBEDDABLES_SIDECAR_CONFIG); variables named
# EMBEDDABLES_SIDECAR__SECTION__KEY, for example EMBEDDABLES_SIDECAR__QUEUE__MAX_BYTES=2GiB. Lists are written with commas
# there. A key that is not known is an error.
#
# Four variables work alone, without any file: EMBEDDABLES_API_KEY or EMBEDDABLES_API_KEY_FILE, with
# EMBEDDABLES_PROJECT_ID, make a project, which is also the one of events that name none; EMBEDDABLES_API_URL is
# `upstream.url`.
#
# Durations carry a unit: \"500ms\", \"30s\", \"5m\", \"2h\", \"7d\". Sizes too, \"64MiB\", or are a number of bytes. Rates
# are a number in a time: \"200/s\", \"600/m\", \"30/h\".
# `check-config` shows which value is in force, and where it came from.
";

/// The reference as a TOML file with comments, which is itself a configuration that changes nothing.
pub fn reference_toml() -> String {
    let defaults = defaults();
    let mut text = HEAD.to_owned();
    for section in &SECTIONS {
        text.push('\n');
        push_comment(&mut text, section.about);
        match section.name {
            "projects.<id>" => push_line(&mut text, &format!("#[projects.{EXAMPLE_PROJECT}]")),
            name => push_line(&mut text, &format!("[{name}]")),
        }
        for field in section.fields {
            push_comment(&mut text, field.doc);
            let name = field.name;
            match default_of(&defaults, section, field) {
                Some(value) => push_line(&mut text, &format!("{name} = {value}")),
                None => push_line(
                    &mut text,
                    &format!("#{name} = {}", field.example().unwrap_or_default()),
                ),
            }
        }
    }
    text
}

/// The reference as JSON, an object for each key: `key`, `env`, `default` (null for none) and `doc`.
pub fn reference_json() -> Vec<serde_json::Value> {
    let defaults = defaults();
    let mut keys = Vec::new();
    for section in &SECTIONS {
        for field in section.fields {
            keys.push(json!({
                "key": format!("{}.{}", section.name, field.name),
                "env": variable_of(section.name, field.name),
                "default": default_of(&defaults, section, field),
                "doc": field.doc_lines().collect::<Vec<_>>().join(" "),
            }));
        }
    }
    keys
}

fn defaults() -> Table {
    as_table(&Config::default())
}

/// The configuration as TOML values. Infallible in practice: every type of ours serializes.
pub(super) fn as_table(config: &Config) -> Table {
    Table::try_from(config).unwrap_or_default()
}

fn default_of<'a>(defaults: &'a Table, section: &Section, field: &Field) -> Option<&'a Value> {
    defaults.get(section.name)?.get(field.name)
}

fn push_comment(text: &mut String, comment: &str) {
    for line in comment.lines() {
        push_line(text, &format!("# {}", line.trim()));
    }
}

pub(super) fn push_line(text: &mut String, line: &str) {
    // Writing into a `String` cannot fail.
    writeln!(text, "{line}").unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_reads_back_to_the_defaults() {
        let config: Config = toml::from_str(&reference_toml()).expect("the reference is a configuration");
        assert_eq!(config, Config::default());
    }

    #[test]
    fn the_examples_of_the_reference_can_be_used() {
        // What stands behind a `#` without a space is an example.
        let with_examples: String = reference_toml()
            .lines()
            .map(|line| {
                line.strip_prefix('#')
                    .filter(|rest| rest.starts_with(|first: char| first.is_alphabetic() || first == '['))
                    .unwrap_or(line)
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let config: Config = toml::from_str(&with_examples).expect("the examples are a configuration");
        assert!(config.listen.grpc_unix.is_some() && config.queue.durability.is_some());
        let project = &config.projects[EXAMPLE_PROJECT];
        assert!(project.max_in_flight.is_some() && project.rate.is_some() && project.order.is_some());
    }

    #[test]
    fn every_key_is_in_the_reference_with_its_variable() {
        let keys = reference_json();
        let count: usize = SECTIONS.iter().map(|section| section.fields.len()).sum();
        assert_eq!(keys.len(), count);
        let max_bytes = keys.iter().find(|key| key["key"] == "queue.max_bytes").unwrap();
        assert_eq!(max_bytes["env"], "EMBEDDABLES_SIDECAR__QUEUE__MAX_BYTES");
        assert_eq!(max_bytes["default"], "1GiB");
    }
}
