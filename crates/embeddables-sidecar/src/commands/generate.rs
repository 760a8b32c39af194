//! Completion scripts and the manual page, made from the command line's own definition.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;
use super::failure::Failure;
use super::printer::Printer;

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Shell to complete for
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Prints a completion script.
pub(super) fn completions(args: &CompletionsArgs, printer: &mut Printer) -> Result<u8, Failure> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut Cli::command(),
        "embeddables-sidecar",
        &mut script,
    );
    printer.text(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// Prints the manual page: the program, then each of its commands.
pub(super) fn man(printer: &mut Printer) -> Result<u8, Failure> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    render(&command, &mut page)
        .map_err(|error| Failure::new(format!("cannot write the manual page: {error}")))?;
    printer.text(&String::from_utf8_lossy(&page))?;
    Ok(0)
}

fn render(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    let man = Man::new(command.clone());
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    for subcommand in command
        .get_subcommands()
        .filter(|subcommand| subcommand.get_name() != "help")
    {
        let title = format!(".SH \"COMMAND {}\"\n", subcommand.get_name().to_uppercase());
        page.extend_from_slice(title.as_bytes());
        page.extend_from_slice(format!("{}\n", about(subcommand)).as_bytes());
        Man::new(subcommand.clone()).render_options_section(page)?;
    }
    page.extend_from_slice(
        b".SH \"EXIT STATUS\"\n0 done; 1 failed, or an event was refused; 2 the command line is wrong; ",
    );
    page.extend_from_slice(
        b"78 the configuration is wrong, the store is newer, or its directory is in use.\n",
    );
    man.render_version_section(page)
}

fn about(command: &clap::Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::printer::tests::to_memory;
    use super::*;

    #[test]
    fn every_shell_has_a_script_and_the_page_names_every_command() {
        for shell in [
            Shell::Bash,
            Shell::Zsh,
            Shell::Fish,
            Shell::PowerShell,
            Shell::Elvish,
        ] {
            let (mut printer, memory) = to_memory();
            completions(&CompletionsArgs { shell }, &mut printer).unwrap();
            assert!(
                String::from_utf8_lossy(&memory.lock().unwrap()).contains("check-config"),
                "{shell}"
            );
        }
        let (mut printer, memory) = to_memory();
        man(&mut printer).unwrap();
        let page = String::from_utf8_lossy(&memory.lock().unwrap()).into_owned();
        for command in Cli::command().get_subcommands() {
            assert!(
                page.contains(&command.get_name().to_uppercase()),
                "{}",
                command.get_name()
            );
        }
    }
}
