//! Configuration: defaults, then a TOML file, then the environment, each stronger than the one before.
//!
//! # Invariants
//! 1. A key that is not known is an error that names the nearest known one; nothing is ignored.
//! 2. All problems are reported at once, each with its full key and where the value came from. Exit code: 78.
//! 3. No API key is ever shown, neither in an error nor in `Debug` nor by `check-config`.
//! 4. Nothing is opened but the configuration file, key files and the file of a private authority: configuration is checked
//!    before the store is.
//! 5. The environment is handed in: nothing here reads the process's own.
//!
//! Absent: reloading.

mod error;
mod projects;
mod provenance;
mod reference;
mod report;
mod section;
mod settings;
mod sources;
pub mod units;
mod validate;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use embeddables_core::ProjectId;

pub use error::{ConfigError, EXIT_CONFIGURATION, Problem};
pub use projects::{ProjectSettings, load_key};
pub use provenance::{Provenance, Source};
pub use reference::{reference_json, reference_toml};
pub use report::{report_json, report_toml};
pub use section::{Field, Section};
pub use settings::{
    Config, DeliveryConfig, GrpcConfig, HttpConfig, ListenConfig, LogConfig, ProjectConfig, QueueConfig,
    SECTIONS, ShutdownConfig, UpstreamConfig, ValidationConfig,
};
pub use units::Rate;
pub use values::{
    AcceptedStatus, Ambiguity, Backend, DoubleEncoding, Durability, ListenAddress, LogFormat, Order,
    ProxyUrl, Volume,
};

use projects::Projects;
use sources::{Environment, Gathered};
use validate::Checker;

/// Longest path of a Unix socket: `sun_path` less its closing zero.
pub const LONGEST_UNIX_PATH_BYTES: usize = 107;
/// Longest `queue.linger` and `delivery.linger`: a caller, or an event, waits that long.
const MOST_LINGER: Duration = Duration::from_secs(1);
/// Names the configuration file where no argument does.
const FILE_VARIABLE: &str = "EMBEDDABLES_SIDECAR_CONFIG";

/// What [`load`] needs to know from the command line.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The file of `--config`; without, `EMBEDDABLES_SIDECAR_CONFIG` names one, else there is none.
    pub file: Option<PathBuf>,
    /// What is done about projects and their keys.
    pub projects: ProjectUse,
}

/// What is done about projects and their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProjectUse {
    /// Their keys are read, and at least one project must be there.
    #[default]
    Required,
    /// They are left alone, and so are the variables that set them: the command brings its own.
    Ignored,
}

/// A configuration that was read and checked.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// All keys.
    pub config: Config,
    /// The projects with their keys, by id. At least one with [`ProjectUse::Required`], else none.
    pub projects: Vec<ProjectSettings>,
    /// Project of an event that names none: `EMBEDDABLES_PROJECT_ID`, else the only one there is.
    pub default_project: Option<ProjectId>,
    /// Where each value came from.
    pub provenance: Provenance,
}

/// Reads and checks the configuration.
///
/// # Errors
/// With everything that is wrong with it; the process should end with [`ConfigError::exit_code`].
pub fn load(
    options: &LoadOptions,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    let is_ignored = |name: &OsString| {
        options.projects == ProjectUse::Ignored
            && name.to_str().is_some_and(|name| {
                name.starts_with("EMBEDDABLES_API_") || name.starts_with("EMBEDDABLES_PROJECT_")
            })
    };
    let environment = Environment::new(environment.into_iter().filter(|(name, _)| !is_ignored(name)));
    let mut gathered = Gathered::default();
    match (&options.file, environment.get(FILE_VARIABLE)) {
        (Some(file), _) => gathered.read_file(file),
        (None, Ok(Some(file))) => gathered.read_file(file.as_ref()),
        (None, Ok(None)) => {}
        (None, Err(problem)) => gathered.problems.push(problem),
    }
    gathered.read_environment(&environment);
    let config = gathered.to_config();
    let mut checker = Checker {
        provenance: &gathered.provenance,
        problems: gathered.problems,
    };
    validate::validate(&config, &mut checker);
    let projects = match options.projects {
        ProjectUse::Required => projects::resolve(&config, &environment, &mut checker),
        ProjectUse::Ignored => Projects::default(),
    };
    if !checker.problems.is_empty() {
        return Err(ConfigError {
            problems: checker.problems,
        });
    }
    let mut provenance = gathered.provenance;
    for (key, source) in projects.key_sources {
        provenance.set(key, source);
    }
    Ok(Loaded {
        config,
        projects: projects.settings,
        default_project: projects.default,
        provenance,
    })
}

#[cfg(test)]
mod tests;
