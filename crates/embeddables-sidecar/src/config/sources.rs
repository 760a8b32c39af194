//! Gathers what the sources say, weakest first: the TOML file, then the environment.
//!
//! # Invariants
//! 1. A key that is not in [`SECTIONS`] is a problem that names the nearest known one; nothing is ignored.
//! 2. A value of the wrong type is a problem of its own; all of them are found in one go.
//! 3. The process's environment is not read here: it is handed in.
//!
//! Written on `toml` alone rather than on figment: figment stops at the first error, and the table of keys that
//! suggestions and the reference need decides already what is known. Each value is tried alone against [`Config`], so that
//! serde stays the only judge of types.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize as _;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::error::Problem;
use super::provenance::{Provenance, Source};
use super::settings::{Config, SECTIONS};

/// Start of every variable that sets a key: `EMBEDDABLES_SIDECAR__SECTION__KEY`.
pub(super) const PREFIX: &str = "EMBEDDABLES_SIDECAR__";
/// Largest file taken; a configuration is a few KiB.
const LARGEST_FILE_BYTES: u64 = 4 << 20;

/// A key's full path: section and key, or `projects`, id and key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(Vec<String>);

impl KeyPath {
    pub(super) fn new(segments: &[&str]) -> Self {
        Self(segments.iter().map(|&segment| segment.to_owned()).collect())
    }

    fn segments(&self) -> Vec<&str> {
        self.0.iter().map(String::as_str).collect()
    }

    fn is_known(&self) -> bool {
        let (section, field) = match self.segments().as_slice() {
            ["projects", _, field] => ("projects.<id>", (*field).to_owned()),
            [section, field] => (*section, (*field).to_owned()),
            _ => return false,
        };
        SECTIONS
            .iter()
            .any(|known| known.name == section && known.fields.iter().any(|known| known.name == field))
    }

    /// A configuration that holds nothing but this key.
    fn alone(&self, value: Value) -> Table {
        let mut table = Table::new();
        insert(&mut table, &self.0, value);
        table
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.join("."))
    }
}

/// The environment as handed in: names and values.
pub(super) struct Environment(BTreeMap<String, OsString>);

impl Environment {
    pub(super) fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        // A name that is not UTF-8 cannot be one of ours.
        Self(
            variables
                .into_iter()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .collect(),
        )
    }

    /// A variable's value; unset is `None`, empty or not UTF-8 is a problem.
    pub(super) fn get(&self, name: &str) -> Result<Option<&str>, Problem> {
        self.0
            .get(name)
            .map(|value| read_variable(name, value))
            .transpose()
    }

    /// Whether a variable is there, whatever it holds.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

fn read_variable<'a>(name: &str, value: &'a OsString) -> Result<&'a str, Problem> {
    match value.to_str() {
        Some("") => Err(Problem::new(
            name,
            None,
            "is set but empty: give it a value or unset it",
        )),
        Some(text) => Ok(text),
        None => Err(Problem::new(name, None, "is not valid UTF-8")),
    }
}

/// What the sources said, the strongest last, and what was wrong with it.
#[derive(Default)]
pub(super) struct Gathered {
    table: Table,
    pub(super) provenance: Provenance,
    pub(super) problems: Vec<Problem>,
}

impl Gathered {
    /// Takes what a file says.
    pub(super) fn read_file(&mut self, path: &Path) {
        let source = Source::File {
            path: path.to_owned(),
            line: None,
        };
        match read_text(path) {
            Ok(text) => self.read_toml(path, &text),
            Err(error) => {
                self.problems
                    .push(Problem::new("", Some(source), format!("cannot be read: {error}")))
            }
        }
    }

    fn read_toml(&mut self, path: &Path, text: &str) {
        let file = |line| Source::File {
            path: path.to_owned(),
            line,
        };
        let (table, lines) = match (text.parse::<Table>(), DeTable::parse(text)) {
            (Ok(table), Ok(spanned)) => (table, spanned),
            // The parser's own display quotes the line, and a key might stand in it.
            (Err(error), _) | (_, Err(error)) => {
                let line = error.span().map(|span| line_of(text, span.start));
                self.problems
                    .push(Problem::new("", Some(file(line)), error.message()));
                return;
            }
        };
        // A project without any key of its own is one all the same: the environment may complete it.
        for id in table
            .get("projects")
            .and_then(Value::as_table)
            .into_iter()
            .flat_map(Table::keys)
        {
            insert(
                &mut self.table,
                &["projects".to_owned(), id.clone()],
                Value::Table(Table::new()),
            );
        }
        for (path, value) in leaves(table) {
            let line = line_of_key(lines.get_ref(), &path.0).map(|offset| line_of(text, offset));
            self.take(path, &[value], file(line));
        }
    }

    /// Takes what `EMBEDDABLES_SIDECAR__…` says, and `EMBEDDABLES_API_URL` before it: the longer name is the more exact.
    pub(super) fn read_environment(&mut self, environment: &Environment) {
        match environment.get("EMBEDDABLES_API_URL") {
            Ok(None) => {}
            Ok(Some(url)) => {
                let source = Source::Env("EMBEDDABLES_API_URL".to_owned());
                self.take(
                    KeyPath::new(&["upstream", "url"]),
                    &[Value::String(url.to_owned())],
                    source,
                );
            }
            Err(problem) => self.problems.push(problem),
        }
        for (name, value) in &environment.0 {
            if let Some(path) = path_of_variable(name) {
                match read_variable(name, value) {
                    Ok(text) => self.take(path, &readings(text), Source::Env(name.clone())),
                    Err(problem) => self.problems.push(problem),
                }
            } else if let Some(meant) = misspelt_variable(name) {
                let message =
                    format!("sets nothing: between section and key stand two underscores, `{meant}`");
                self.problems.push(Problem::new(name, None, message));
            }
        }
    }

    /// Takes one value in the first reading that its type allows.
    fn take(&mut self, path: KeyPath, readings: &[Value], source: Source) {
        let key = path.to_string();
        if !path.is_known() {
            self.problems
                .push(Problem::new(key, Some(source), unknown(&path)));
            return;
        }
        let mut message = String::new();
        for reading in readings {
            match Config::deserialize(path.alone(reading.clone())) {
                Ok(_) => {
                    insert(&mut self.table, &path.0, reading.clone());
                    self.provenance.set(key, source);
                    return;
                }
                // What the text says is wrong helps more than that a text is wrong.
                Err(error) if message.is_empty() || message.starts_with("invalid type") => {
                    message = error.message().to_owned();
                }
                Err(_) => {}
            }
        }
        self.problems.push(Problem::new(key, Some(source), message));
    }

    /// The typed configuration of everything that was taken.
    pub(super) fn to_config(&self) -> Config {
        // Every value was tried alone before it was taken, and no type spans two of them.
        Config::deserialize(self.table.clone()).unwrap_or_default()
    }
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let length = fs::File::open(path)?
        .take(LARGEST_FILE_BYTES + 1)
        .read_to_string(&mut text)?;
    if length as u64 > LARGEST_FILE_BYTES {
        return Err(std::io::Error::other("larger than 4 MiB"));
    }
    Ok(text)
}

/// Ways to read a variable's text: as it is, else as the number, truth value or list that it spells in TOML.
fn readings(text: &str) -> Vec<Value> {
    let mut readings = vec![Value::String(text.to_owned())];
    if let Ok(value) = text.trim().parse::<Value>()
        && matches!(
            value,
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Array(_)
        )
    {
        readings.push(value);
    }
    readings
}

/// The keys of a file with their values: two levels deep, three below `projects`.
fn leaves(table: Table) -> Vec<(KeyPath, Value)> {
    let mut leaves = Vec::new();
    for (section, value) in table {
        match value {
            Value::Table(fields) => {
                for (field, value) in fields {
                    match value {
                        Value::Table(inner) if section == "projects" => leaves.extend(
                            inner
                                .into_iter()
                                .map(|(name, value)| (KeyPath::new(&[&section, &field, &name]), value)),
                        ),
                        value => leaves.push((KeyPath::new(&[&section, &field]), value)),
                    }
                }
            }
            value => leaves.push((KeyPath::new(&[&section]), value)),
        }
    }
    leaves
}

fn insert(table: &mut Table, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => {
            table.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = table
                .entry(first.clone())
                .or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// The key that a variable sets: all in lower case but a project's id, which may itself hold two underscores.
fn path_of_variable(name: &str) -> Option<KeyPath> {
    let rest = name.strip_prefix(PREFIX)?;
    if let Some((section, rest)) = rest.split_once("__")
        && section.eq_ignore_ascii_case("projects")
        && let Some((id, field)) = rest.rsplit_once("__")
    {
        return Some(KeyPath::new(&["projects", id, &field.to_ascii_lowercase()]));
    }
    Some(KeyPath(rest.split("__").map(str::to_ascii_lowercase).collect()))
}

/// The variable that was meant by a name with one underscore too few, such as `EMBEDDABLES_SIDECAR_QUEUE_DIR`. Names that
/// resemble no key are none of ours: Kubernetes sets `EMBEDDABLES_SIDECAR_SERVICE_HOST` for a service of that name.
fn misspelt_variable(name: &str) -> Option<String> {
    let flat = |text: &str| text.replace("__", "_").to_ascii_uppercase();
    let given = flat(name);
    SECTIONS
        .iter()
        .flat_map(|section| {
            section
                .fields
                .iter()
                .map(move |field| variable_of(section.name, field.name))
        })
        .find(|known| flat(known) == given)
}

/// The variable that sets a key.
pub(super) fn variable_of(section: &str, field: &str) -> String {
    let section = match section {
        "projects.<id>" => "PROJECTS__<id>".to_owned(),
        section => section.to_ascii_uppercase(),
    };
    format!("{PREFIX}{section}__{}", field.to_ascii_uppercase())
}

/// Why an unknown key is refused: with what was probably meant.
fn unknown(path: &KeyPath) -> String {
    let segments = path.segments();
    if segments
        .last()
        .is_some_and(|last| matches!(*last, "api_key" | "key" | "apikey"))
    {
        return "unknown key; an API key never stands in the configuration: put it into a file and name that as \
                `projects.<id>.api_key_file`, or set EMBEDDABLES_API_KEY"
            .to_owned();
    }
    if let [section] = segments.as_slice()
        && SECTIONS
            .iter()
            .any(|known| known.name.split('.').next() == Some(section))
    {
        return format!("is a section with keys of its own: write `[{section}]`");
    }
    match nearest(&segments) {
        Some(nearest) => format!("unknown key; the nearest known one is `{nearest}`"),
        None => "unknown key".to_owned(),
    }
}

/// The known key most like a given one, in its spelling or because its last part is the same in another section.
fn nearest(given: &[&str]) -> Option<String> {
    let id = match given {
        ["projects", id, ..] => id,
        _ => "<id>",
    };
    let given_last = given.last()?;
    let given_key = given.join(".");
    let score = |known: &str| {
        let known_last = known.rsplit('.').next().unwrap_or(known);
        let whole = strsim::normalized_damerau_levenshtein(known, &given_key);
        // A little less than the whole: of two keys with the same last part, the one in the nearer section wins.
        let last = strsim::normalized_damerau_levenshtein(known_last, given_last) * 0.9;
        whole.max(last) + whole / 100.0
    };
    SECTIONS
        .iter()
        .flat_map(|section| {
            let section_name = section.name.replace("<id>", id);
            section
                .fields
                .iter()
                .map(move |field| format!("{section_name}.{}", field.name))
        })
        .max_by(|left, right| score(left).total_cmp(&score(right)))
}

/// Byte offset of a key in the file.
fn line_of_key(table: &DeTable<'_>, path: &[String]) -> Option<usize> {
    let (first, rest) = path.split_first()?;
    let (key, value) = table.iter().find(|(key, _)| key.get_ref().as_ref() == first)?;
    match (rest, value.get_ref()) {
        ([], _) => Some(key.span().start),
        (rest, DeValue::Table(inner)) => line_of_key(inner, rest),
        _ => None,
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
