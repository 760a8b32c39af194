//! The projects with their keys, from the configuration and the four variables that work without any file.
//!
//! # Invariants
//! 1. No text made here holds a key, not even a malformed one.
//! 2. A key comes from a file or from the environment; the environment is the stronger.
//! 3. Where two variables contradict each other nothing is guessed: it is a problem.

use std::fs::File;
use std::io::Read as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use embeddables_client::{ApiKey, BaseUrl};
use embeddables_core::ProjectId;
use secrecy::{ExposeSecret as _, SecretString};

use super::error::Problem;
use super::provenance::Source;
use super::settings::{Config, DeliveryConfig, ProjectConfig};
use super::sources::Environment;
use super::units::Rate;
use super::validate::{Checker, check_base_url};
use super::values::{Ambiguity, Order};

const KEY_VARIABLE: &str = "EMBEDDABLES_API_KEY";
const KEY_FILE_VARIABLE: &str = "EMBEDDABLES_API_KEY_FILE";
const PROJECT_VARIABLE: &str = "EMBEDDABLES_PROJECT_ID";
/// Largest key file taken; a key is some dozens of bytes.
const LARGEST_KEY_FILE_BYTES: u64 = 4 << 10;

/// A project that can be served: its key is there and well-formed.
#[derive(Clone, Debug)]
pub struct ProjectSettings {
    /// Its id.
    pub id: ProjectId,
    /// Its API key.
    pub api_key: ApiKey,
    /// The file that the key came from, to be looked at again when it changes; none for a key from the environment.
    pub api_key_file: Option<PathBuf>,
    /// Base address of the events API.
    pub base_url: BaseUrl,
    /// Most requests in flight.
    pub max_in_flight: NonZeroU32,
    /// Most requests in a time.
    pub rate: Option<Rate>,
    /// What becomes of an event after an ambiguous attempt.
    pub ambiguity: Ambiguity,
    /// Order of its events.
    pub order: Order,
}

impl ProjectSettings {
    /// A project with every other setting as configured for it, or else for all.
    pub fn new(
        id: ProjectId,
        (api_key, api_key_file): (ApiKey, Option<PathBuf>),
        base_url: BaseUrl,
        config: &Config,
    ) -> Self {
        let (all, own) = (&config.delivery, config.projects.get(id.as_str()));
        Self {
            max_in_flight: own.and_then(|own| own.max_in_flight).unwrap_or(all.max_in_flight),
            rate: own.and_then(|own| own.rate).or(all.rate),
            ambiguity: own.and_then(|own| own.ambiguity).unwrap_or(all.ambiguity),
            order: own.and_then(|own| own.order).unwrap_or(all.order),
            id,
            api_key,
            api_key_file,
            base_url,
        }
    }

    /// `delivery.live_percent` as it holds for this project: 0 where events keep their order, since a newly accepted one must
    /// not go first there.
    pub fn live_percent(&self, delivery: &DeliveryConfig) -> u8 {
        match self.order {
            Order::None => delivery.live_percent,
            Order::Identifier => 0,
        }
    }
}

/// The projects, and the one that an event belongs to that names none.
#[derive(Debug, Default)]
pub(super) struct Projects {
    pub(super) settings: Vec<ProjectSettings>,
    pub(super) default: Option<ProjectId>,
    /// Where each key came from, by the full name of the key that would set it.
    pub(super) key_sources: Vec<(String, Source)>,
}

/// Where a key is to be found.
enum KeyPlace {
    /// In this variable's value.
    Variable(SecretString),
    /// In this file, named by this source.
    File(PathBuf, Source),
}

/// Puts projects together and reads their keys. Problems go to `checker`.
pub(super) fn resolve(config: &Config, environment: &Environment, checker: &mut Checker<'_>) -> Projects {
    let problems_before = checker.problems.len();
    let named = named_project(environment, checker);
    let place = key_place(environment, checker);
    let mut given = config.projects.clone();
    let target = match (&place, &named) {
        (Some(_), Some(named)) => Some(named.as_str().to_owned()),
        (Some(_), None) => target_of_lonely_key(config, environment, checker),
        (None, _) => None,
    };
    if let Some(target) = &target {
        given.entry(target.clone()).or_default();
    }
    if let Some(named) = &named
        && !given.contains_key(named.as_str())
    {
        let message = format!(
            "names `{named}`, which has no key: set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}, or `projects.{named}.api_key_file`"
        );
        checker
            .problems
            .push(Problem::new(PROJECT_VARIABLE, None, message));
    } else if given.is_empty() && checker.problems.len() == problems_before {
        checker.problems.push(Problem::new("", None, no_project()));
    }
    let mut place = place;
    let mut projects = Projects::default();
    for (id, project) in &given {
        let place = if target.as_deref() == Some(id) {
            place.take()
        } else {
            None
        };
        settle_project(id, project, place, config, checker, &mut projects);
    }
    projects.default = named.or_else(|| match projects.settings.as_slice() {
        [only] if given.len() == 1 => Some(only.id.clone()),
        _ => None,
    });
    projects
}

/// What to set where nothing is: said in full, since it is the first thing that a newcomer meets.
fn no_project() -> String {
    format!(
        "no project is configured: set {KEY_VARIABLE} (or {KEY_FILE_VARIABLE}) and {PROJECT_VARIABLE}, or add a section \
         `[projects.<id>]` with `api_key_file` to the configuration; to try it out without a key, run `embeddables-sidecar dev`"
    )
}

fn named_project(environment: &Environment, checker: &mut Checker<'_>) -> Option<ProjectId> {
    let text = variable(environment, PROJECT_VARIABLE, checker)?;
    match ProjectId::parse(text) {
        Ok(id) => Some(id),
        Err(error) => {
            checker.problems.push(Problem::new(
                PROJECT_VARIABLE,
                None,
                format!("is not a project id: {error}"),
            ));
            None
        }
    }
}

fn key_place(environment: &Environment, checker: &mut Checker<'_>) -> Option<KeyPlace> {
    let key = variable(environment, KEY_VARIABLE, checker);
    let file = variable(environment, KEY_FILE_VARIABLE, checker);
    match (key, file) {
        (Some(_), Some(_)) => {
            let message = format!("is set, and {KEY_FILE_VARIABLE} too: unset one of them");
            checker.problems.push(Problem::new(KEY_VARIABLE, None, message));
            None
        }
        (Some(key), None) => Some(KeyPlace::Variable(SecretString::from(key))),
        (None, Some(file)) => Some(KeyPlace::File(
            file.into(),
            Source::Env(KEY_FILE_VARIABLE.to_owned()),
        )),
        (None, None) => None,
    }
}

/// The project of a key from the environment that comes without [`PROJECT_VARIABLE`]: the only one there is.
fn target_of_lonely_key(
    config: &Config,
    environment: &Environment,
    checker: &mut Checker<'_>,
) -> Option<String> {
    if environment.is_set(PROJECT_VARIABLE) {
        // Set but malformed: that has been said.
        return None;
    }
    let mut ids = config.projects.keys();
    match (ids.next(), ids.next()) {
        (Some(only), None) => Some(only.clone()),
        _ => {
            let name = if environment.is_set(KEY_VARIABLE) {
                KEY_VARIABLE
            } else {
                KEY_FILE_VARIABLE
            };
            let message = format!("is set, but nothing says for which project: set {PROJECT_VARIABLE} too");
            checker.problems.push(Problem::new(name, None, message));
            None
        }
    }
}

fn variable<'a>(environment: &'a Environment, name: &str, checker: &mut Checker<'_>) -> Option<&'a str> {
    environment.get(name).unwrap_or_else(|problem| {
        checker.problems.push(problem);
        None
    })
}

/// Checks one project, reads its key and takes it in if it is whole.
fn settle_project(
    id: &str,
    project: &ProjectConfig,
    place: Option<KeyPlace>,
    config: &Config,
    checker: &mut Checker<'_>,
    projects: &mut Projects,
) {
    let field = |name: &str| format!("projects.{id}.{name}");
    let parsed_id = ProjectId::parse(id);
    if let Err(error) = &parsed_id {
        checker.problem(&format!("projects.{id}"), format!("is not a project id: {error}"));
    }
    let base_url = match &project.base_url {
        Some(url) => check_base_url(&field("base_url"), url, config.upstream.allow_plaintext, checker),
        // Its problems have been noted with `upstream.url`.
        None => BaseUrl::parse_with(&config.upstream.url, config.upstream.allow_plaintext).ok(),
    };
    let key_field = field("api_key_file");
    let place = place.or_else(|| {
        let source = checker.provenance.of(&key_field).clone();
        project
            .api_key_file
            .clone()
            .map(|path| KeyPlace::File(path, source))
    });
    let Some(place) = place else {
        let message = format!(
            "is missing: name the file that holds the API key, or set {KEY_VARIABLE} and {PROJECT_VARIABLE}"
        );
        checker.problem(&key_field, message);
        return;
    };
    let Some((api_key, api_key_file, source)) = read_key(place, &key_field, checker) else {
        return;
    };
    if let (Ok(id), Some(base_url)) = (parsed_id, base_url) {
        let settings = ProjectSettings::new(id, (api_key, api_key_file), base_url, config);
        projects.settings.push(settings);
        projects.key_sources.push((key_field, source));
    }
}

/// Reads a key from its place; notes what is wrong with it, without showing it.
fn read_key(
    place: KeyPlace,
    key_field: &str,
    checker: &mut Checker<'_>,
) -> Option<(ApiKey, Option<PathBuf>, Source)> {
    let (text, file, source) = match place {
        KeyPlace::Variable(text) => (Ok(text), None, Source::Env(KEY_VARIABLE.to_owned())),
        KeyPlace::File(path, source) => (read_key_file(&path), Some(path), source),
    };
    let name = match &source {
        Source::Env(name) if !name.starts_with(super::sources::PREFIX) => name.clone(),
        _ => key_field.to_owned(),
    };
    let result = text.and_then(|text| parse_key(text.expose_secret()));
    match result {
        Ok(key) => Some((key, file, source)),
        Err(message) => {
            let message = match &file {
                Some(path) if path.is_file() => {
                    format!("the API key in `{}` cannot be used: {message}", path.display())
                }
                Some(_) => message,
                None => format!("cannot be used: {message}"),
            };
            let source = (name == key_field).then_some(source);
            checker.problems.push(Problem::new(name, source, message));
            None
        }
    }
}

/// Reads the key in a file, as at the start.
///
/// # Errors
/// With a sentence that does not show what is in the file.
pub fn load_key(path: &Path) -> Result<ApiKey, String> {
    read_key_file(path).and_then(|text| parse_key(text.expose_secret()))
}

/// Reads a key. The client forgives a line break at its end; here the one that belongs to a file is gone already.
fn parse_key(text: &str) -> Result<ApiKey, String> {
    if text.contains(['\r', '\n']) {
        return Err("it holds a line break: it must be one key and nothing else".to_owned());
    }
    ApiKey::parse(text).map_err(|error| error.to_string())
}

/// Reads a key file; one newline at its end is no part of the key.
fn read_key_file(path: &Path) -> Result<SecretString, String> {
    let cannot_read = |error: std::io::Error| format!("`{}` cannot be read: {error}", path.display());
    let mut text = secrecy::zeroize::Zeroizing::new(String::new());
    let file = File::open(path).map_err(cannot_read)?;
    let length = file
        .take(LARGEST_KEY_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(cannot_read)?;
    if length as u64 > LARGEST_KEY_FILE_BYTES {
        return Err("it is larger than 4 KiB".to_owned());
    }
    let line = text
        .strip_suffix('\n')
        .map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err("the file is empty".to_owned());
    }
    Ok(SecretString::from(line))
}
