//! `check-config` and `config-reference`.

use super::failure::Failure;
use super::printer::Printer;
use super::{Global, OutputFormat};
use crate::config::{self, LoadOptions};

/// Checks the configuration as `serve` would, and prints what is in force.
pub(super) fn check_config(global: &Global, printer: &mut Printer) -> Result<u8, Failure> {
    let options = LoadOptions {
        file: global.config.clone(),
        ..LoadOptions::default()
    };
    let loaded = config::load(&options, std::env::vars_os())?;
    match global.output {
        OutputFormat::Text => printer.text(&config::report_toml(&loaded))?,
        OutputFormat::Json => printer.line(config::report_json(&loaded).to_string())?,
    }
    Ok(0)
}

/// Prints every key.
pub(super) fn config_reference(global: &Global, printer: &mut Printer) -> Result<u8, Failure> {
    match global.output {
        OutputFormat::Text => printer.text(&config::reference_toml())?,
        OutputFormat::Json => {
            for key in config::reference_json() {
                printer.line(key.to_string())?;
            }
        }
    }
    Ok(0)
}
