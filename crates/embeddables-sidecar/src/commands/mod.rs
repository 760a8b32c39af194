//! The command line. Results go to standard output, everything else to standard error.
//!
//! # Invariants
//! 1. Exit codes: 0 done; 1 failed, or an event was refused; 2 the command line is wrong; 78 the configuration is, the
//!    store is newer, or its directory is in use.
//! 2. A closed standard output ends no command early and never panics: what was asked for is still done.
//! 3. Commands that talk to a running sidecar need no configuration and no key, only `--address`.

mod address;
mod check_config;
mod dead_letters;
#[cfg(feature = "dev")]
mod demo;
#[cfg(feature = "dev")]
mod dev;
mod event_input;
mod event_line;
mod failure;
mod flush;
mod generate;
mod get;
mod health;
mod json;
mod lanes;
mod printer;
mod publish;
mod ready;
mod render;
mod serve;
mod status;
mod submit;
mod validate;
mod watch;

use std::env::VarError;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio::runtime::{Builder, Handle, Runtime};

use address::Address;
use failure::Failure;
use printer::Printer;

/// Delivers events to the Embeddables events API: one local gRPC call, and the event is on its way or somebody is told why
/// not.
#[derive(Debug, Parser)]
#[command(
    name = "embeddables-sidecar",
    bin_name = "embeddables-sidecar",
    version,
    max_term_width = 100
)]
#[command(subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Names the sidecar to talk to where no argument does.
const ADDRESS_VARIABLE: &str = "EMBEDDABLES_SIDECAR_ADDRESS";
/// Where `listen.grpc` and `listen.admin` are by default.
const CALLERS_ADDRESS: &str = "127.0.0.1:8471";
const OPERATORS_ADDRESS: &str = "127.0.0.1:8474";

/// Heading of the arguments of all commands in the help.
const GLOBAL: &str = "Options of all commands";

/// Arguments of all commands.
#[derive(Clone, Debug, Args)]
struct Global {
    /// Configuration file (TOML); for `serve`, `dev` and `check-config` [default: EMBEDDABLES_SIDECAR_CONFIG, else none]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sidecar to talk to: `host:port` or `unix:/path` [default: EMBEDDABLES_SIDECAR_ADDRESS, else 127.0.0.1:8471; for
    /// `lanes` and `dead-letters` 127.0.0.1:8474]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "ADDRESS")]
    address: Option<String>,
    /// Form of the results; `json` is one object a line
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "FORM")]
    #[arg(value_enum, default_value_t = OutputFormat::Text)]
    output: OutputFormat,
}

impl Global {
    /// The address for callers, read only by commands that use it: a bad variable does not keep `serve` from serving.
    fn address(&self) -> Result<Address, Failure> {
        let variable = || match std::env::var(ADDRESS_VARIABLE) {
            Err(VarError::NotPresent) => Ok(CALLERS_ADDRESS.to_owned()),
            other => other.map_err(|error| Failure::usage(format!("{ADDRESS_VARIABLE}: {error}"))),
        };
        let address = self.address.clone().map_or_else(variable, Ok)?;
        address.parse().map_err(Failure::usage)
    }

    /// The address for operators. The variable is the callers': it names another listener.
    fn admin_address(&self) -> Result<Address, Failure> {
        let address = self.address.as_deref().unwrap_or(OPERATORS_ADDRESS);
        address.parse().map_err(Failure::usage)
    }
}

/// Form of the results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// For people.
    Text,
    /// For scripts: one object a line, with the field names of the messages.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar until SIGTERM or SIGINT
    Serve(serve::ServeArgs),
    /// Run the sidecar with a mock of the events API, without any configuration or key
    #[cfg(feature = "dev")]
    Dev(dev::DevArgs),
    /// Publish one event, or one event a line (NDJSON) from a file or standard input
    Publish(publish::PublishArgs),
    /// Check events as publishing would, and show the requests that would be sent
    Validate(validate::ValidateArgs),
    /// Show what became of an event
    Get(get::GetArgs),
    /// Show outcomes as they happen: what was delivered, what was given up
    Watch(watch::WatchArgs),
    /// Wait until what was accepted before is settled; exit code 1 where some is left
    Flush(flush::FlushArgs),
    /// Show what each project's lane does; hold or resume one
    Lanes(lanes::LanesArgs),
    /// Show events that were given up, or replay them
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Check the configuration, and show each value in force and where it came from
    CheckConfig,
    /// Show every configuration key with its meaning and default
    ConfigReference,
    /// Ask the sidecar whether it serves; for exec probes
    Health(health::HealthArgs),
    /// Print a completion script for a shell
    Completions(generate::CompletionsArgs),
    /// Print the manual page
    Man,
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let mut printer = Printer::stdout();
    let result = execute(cli, &mut printer).and_then(|code| printer.finish().map(|()| code));
    match result {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("embeddables-sidecar: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn execute(cli: Cli, printer: &mut Printer) -> Result<u8, Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::Serve(args) => run_server(async |delivery| serve::serve(&args, &global, delivery).await),
        #[cfg(feature = "dev")]
        Command::Dev(args) => run_server(async |delivery| dev::dev(&args, &global, delivery, printer).await),
        Command::Publish(args) => client_runtime()?.block_on(publish::publish(&args, &global, printer)),
        Command::Validate(args) => client_runtime()?.block_on(validate::validate(&args, &global, printer)),
        Command::Get(args) => client_runtime()?.block_on(get::get(&args, &global, printer)),
        Command::Watch(args) => client_runtime()?.block_on(watch::watch(&args, &global, printer)),
        Command::Flush(args) => client_runtime()?.block_on(flush::flush(&args, &global, printer)),
        Command::Lanes(args) => client_runtime()?.block_on(lanes::lanes(&args, &global, printer)),
        Command::DeadLetters(args) => {
            client_runtime()?.block_on(dead_letters::dead_letters(&args, &global, printer))
        }
        Command::CheckConfig => check_config::check_config(&global, printer),
        Command::ConfigReference => check_config::config_reference(&global, printer),
        Command::Health(args) => client_runtime()?.block_on(health::health(&args, &global, printer)),
        Command::Completions(args) => generate::completions(&args, printer),
        Command::Man => generate::man(printer),
    }
}

/// Runs a server that accepts on one runtime and is given another to deliver on: however much there is to deliver, a caller
/// waits for its turn among threads, which the kernel shares out fairly, and not behind hundreds of requests upstream.
fn run_server(server: impl AsyncFnOnce(&Handle) -> Result<u8, Failure>) -> Result<u8, Failure> {
    let runtime = |name| {
        Builder::new_multi_thread()
            .thread_name(name)
            .enable_all()
            .build()
            .map_err(Failure::runtime)
    };
    let (accepting, delivering) = (runtime("accepting")?, runtime("delivering")?);
    let result = accepting.block_on(server(delivering.handle()));
    // What still runs was cut by a second signal: it must not keep the process.
    accepting.shutdown_background();
    delivering.shutdown_background();
    result
}

/// One thread is enough for a client.
fn client_runtime() -> Result<Runtime, Failure> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::runtime)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_arguments_may_follow_the_command() {
        let cli = Cli::try_parse_from([
            "x",
            "get",
            "id-1",
            "--output",
            "json",
            "--address",
            "unix:/run/s.sock",
        ])
        .unwrap();
        assert_eq!(cli.global.output, OutputFormat::Json);
        assert_eq!(cli.global.address().unwrap(), Address::Unix("/run/s.sock".into()));
        assert_eq!(
            cli.global.admin_address().unwrap(),
            Address::Unix("/run/s.sock".into())
        );
    }

    #[test]
    fn one_event_needs_its_parts_and_a_file_none_of_them() {
        let parse = |arguments: &[&str]| Cli::try_parse_from(arguments.iter().copied()).is_ok();
        assert!(parse(&["x", "publish", "--file", "-"]));
        assert!(parse(&[
            "x",
            "publish",
            "--embeddable",
            "f",
            "--name",
            "n",
            "--key",
            "k",
            "--value",
            "v"
        ]));
        assert!(!parse(&["x", "publish"]));
        assert!(!parse(&[
            "x",
            "publish",
            "--embeddable",
            "f",
            "--name",
            "n",
            "--key",
            "k"
        ]));
        assert!(!parse(&["x", "publish", "--file", "-", "--name", "n"]));
        assert!(!parse(&[
            "x",
            "publish",
            "--embeddable",
            "f",
            "--name",
            "n",
            "--key",
            "k",
            "--value",
            "v",
            "--value-json",
            "1"
        ]));
    }

    #[test]
    fn operators_are_on_another_port_than_callers() {
        let cli = Cli::try_parse_from(["x", "lanes"]).unwrap();
        assert_eq!(
            cli.global.admin_address().unwrap(),
            Address::Tcp("127.0.0.1:8474".to_owned())
        );
    }

    #[test]
    fn a_replay_is_of_ids_or_of_all() {
        let parse = |arguments: &[&str]| {
            let arguments = ["x", "dead-letters", "replay"].iter().chain(arguments);
            Cli::try_parse_from(arguments.copied()).is_ok()
        };
        assert!(parse(&["id-1", "id-2", "--project", "p"]));
        assert!(parse(&["--all", "--reason", "MAX_AGE"]));
        assert!(!parse(&[]));
        assert!(!parse(&["id-1", "--all"]));
        assert!(!parse(&["id-1", "--reason", "MAX_AGE"]));
    }
}
