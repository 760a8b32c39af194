//! What `check-config` prints: the values in force and where each came from. No key is in it, only where it was found.

use serde_json::json;
use toml::Value;

use super::reference::{as_table, push_line};
use super::settings::SECTIONS;
use super::{Loaded, ProjectSettings};

/// The effective configuration as a TOML file with the sources as comments.
pub fn report_toml(loaded: &Loaded) -> String {
    let values = as_table(&loaded.config);
    let mut text = String::new();
    for section in SECTIONS.iter().filter(|section| section.name != "projects.<id>") {
        push_line(&mut text, &format!("[{}]", section.name));
        for field in section.fields {
            let value = values
                .get(section.name)
                .and_then(|section| section.get(field.name));
            let source = loaded.provenance.of(&format!("{}.{}", section.name, field.name));
            match value {
                Some(value) => push_line(&mut text, &format!("{} = {value}  # {source}", field.name)),
                None => push_line(&mut text, &format!("# {}: not set", field.name)),
            }
        }
        text.push('\n');
    }
    for project in &loaded.projects {
        push_project(&mut text, project, loaded);
    }
    match &loaded.default_project {
        Some(id) => push_line(
            &mut text,
            &format!("# events that name no project belong to `{id}`"),
        ),
        None => push_line(
            &mut text,
            "# events must name their project: there is no default one",
        ),
    }
    text
}

/// The effective configuration as one JSON object: `config`, `sources`, `projects`, `default_project`.
pub fn report_json(loaded: &Loaded) -> serde_json::Value {
    let mut values = as_table(&loaded.config);
    values.remove("projects");
    let sources: serde_json::Map<_, _> = SECTIONS
        .iter()
        .filter(|section| section.name != "projects.<id>")
        .flat_map(|section| {
            section
                .fields
                .iter()
                .map(move |field| format!("{}.{}", section.name, field.name))
        })
        .map(|key| {
            let source = loaded.provenance.of(&key).to_string();
            (key, source.into())
        })
        .collect();
    let projects: Vec<_> = loaded
        .projects
        .iter()
        .map(|project| {
            json!({
                "id": project.id.as_str(),
                "api_key": { "fingerprint": project.api_key.fingerprint(), "source": key_source(project, loaded) },
                "api_key_file": project.api_key_file,
                "base_url": project.base_url.as_str(),
                "max_in_flight": project.max_in_flight.get(),
                "rate": project.rate,
                "ambiguity": project.ambiguity,
                "order": project.order,
            })
        })
        .collect();
    json!({
        "config": values,
        "sources": sources,
        "projects": projects,
        "default_project": loaded.default_project.as_ref().map(|id| id.as_str()),
    })
}

fn push_project(text: &mut String, project: &ProjectSettings, loaded: &Loaded) {
    let id = project.id.as_str();
    push_line(text, &format!("[projects.{id}]"));
    let key = format!(
        "{}, fingerprint {}",
        key_source(project, loaded),
        project.api_key.fingerprint()
    );
    match &project.api_key_file {
        Some(file) => {
            let file = Value::String(file.display().to_string());
            push_line(text, &format!("api_key_file = {file}  # {key}"));
        }
        None => push_line(text, &format!("# API key: {key}")),
    }
    let given = as_table(&loaded.config)
        .get("projects")
        .and_then(|projects| projects.get(id)?.as_table().cloned())
        .unwrap_or_default();
    for (name, value, otherwise) in [
        (
            "base_url",
            Value::try_from(project.base_url.as_str()),
            "upstream.url",
        ),
        (
            "max_in_flight",
            Value::try_from(project.max_in_flight),
            "delivery.max_in_flight",
        ),
        ("rate", Value::try_from(project.rate), "delivery.rate"),
        (
            "ambiguity",
            Value::try_from(project.ambiguity),
            "delivery.ambiguity",
        ),
        ("order", Value::try_from(project.order), "delivery.order"),
    ] {
        let source = match given.contains_key(name) {
            true => loaded.provenance.of(&format!("projects.{id}.{name}")).to_string(),
            false => format!("as `{otherwise}`"),
        };
        match value {
            Ok(value) => push_line(text, &format!("{name} = {value}  # {source}")),
            // What is none has no form in TOML.
            Err(_) => push_line(text, &format!("# {name}: not set")),
        }
    }
    text.push('\n');
}

fn key_source(project: &ProjectSettings, loaded: &Loaded) -> String {
    loaded
        .provenance
        .of(&format!("projects.{}.api_key_file", project.id))
        .to_string()
}
