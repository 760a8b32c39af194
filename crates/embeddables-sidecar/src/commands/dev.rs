//! `dev`: the sidecar and a mock of the events API in one process, without configuration or key.
//!
//! Nothing leaves the machine: real keys and addresses in the environment are not looked at. The queue lives in a temporary
//! directory that is removed at the end, unless `queue.dir` is configured.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use clap::Args;
use embeddables_client::{ApiKey, BaseUrl};
use embeddables_core::ProjectId;
use embeddables_mock::{Mock, MockConfig};
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::failure::{Failure, chain};
use super::printer::Printer;
use super::ready::{self, Ready};
use super::serve::{Signals, init_logging, start_failure, stop_on_signal};
use super::{Global, OutputFormat, demo};
use crate::config::{self, ListenAddress, LoadOptions, Loaded, ProjectSettings, ProjectUse, Source};
use crate::server::{Addresses, Sidecar};

/// The only project.
pub(super) const PROJECT: &str = "pr_dev";
/// Its key, which opens nothing but the mock.
pub(super) const API_KEY: &str = "rk_dev_opens_only_the_mock";
/// Where the mock listens if it can.
const MOCK_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8480);
/// Where the values come from that `dev` sets itself.
const SOURCE: Source = Source::Command("dev");

/// Arguments of `dev`.
#[derive(Debug, Args)]
pub(super) struct DevArgs {
    /// Publish a few events, show what becomes of each, and end
    #[arg(long)]
    demo: bool,
    /// Write where everything listens to this file (JSON), once it is ready
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Runs sidecar and mock until a signal, or until the demonstration is over.
pub(super) async fn dev(
    args: &DevArgs,
    global: &Global,
    delivery: &Handle,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let mut loaded = load(args, global)?;
    init_logging(&loaded.config.log)?;
    let mut signals = Signals::new()?;
    if let Some(path) = &args.ready_file {
        ready::remove_stale(path)?;
    }
    let mock = start_mock(args.demo).await?;
    add_project(&mut loaded, &mock)?;
    let notes = choose_ports(&mut loaded, args.demo);
    let directory = choose_directory(&mut loaded)?;
    let queue = loaded.config.queue.dir.clone();

    let running = Sidecar::start(loaded, delivery).await.map_err(start_failure)?;
    let addresses = running.addresses().clone();
    let ready = Ready::new(&addresses, Some(mock.addr()));
    if let Some(path) = &args.ready_file {
        ready.write(path)?;
    }
    let result = if args.demo {
        let result = tokio::select! {
            result = demo::demo(&addresses, &mock, global.output, printer) => result,
            name = signals.next() => Err(Failure::new(format!("interrupted by {name}"))),
        };
        running.shutdown().await;
        result
    } else {
        for note in notes {
            eprintln!("{note}");
        }
        match global.output {
            OutputFormat::Json => printer.line(ready.to_json()?)?,
            OutputFormat::Text => {
                printer.text(&banner(&addresses, &mock.url(), &queue, directory.is_some()))?
            }
        }
        printer.finish()?;
        stop_on_signal(running, signals).await
    };
    mock.shutdown().await;
    remove(directory);
    result
}

/// The configuration without projects. The demonstration is the same everywhere: it takes nothing but the way to log.
fn load(args: &DevArgs, global: &Global) -> Result<Loaded, Failure> {
    if !args.demo {
        let options = LoadOptions {
            file: global.config.clone(),
            projects: ProjectUse::Ignored,
        };
        return Ok(config::load(&options, std::env::vars_os())?);
    }
    if global.config.is_some() {
        return Err(Failure::usage(
            "`dev --demo` takes no --config: it is the same everywhere",
        ));
    }
    let is_log = |name: &OsString| name.to_string_lossy().starts_with("EMBEDDABLES_SIDECAR__LOG__");
    let options = LoadOptions {
        file: None,
        projects: ProjectUse::Ignored,
    };
    let mut loaded = config::load(&options, std::env::vars_os().filter(|(name, _)| is_log(name)))?;
    if *loaded.provenance.of("log.level") == Source::Default {
        // The demonstration explains itself; what it provokes would be logged as warnings.
        "error".clone_into(&mut loaded.config.log.level);
    }
    Ok(loaded)
}

async fn start_mock(is_demo: bool) -> Result<Mock, Failure> {
    let preferred = MockConfig {
        listen: MOCK_ADDRESS,
        ..MockConfig::default()
    };
    let mock = match is_demo {
        true => Mock::start(MockConfig::default()).await,
        false => match Mock::start(preferred).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                eprintln!("{MOCK_ADDRESS} is taken: the mock takes a free port");
                Mock::start(MockConfig::default()).await
            }
            result => result,
        },
    };
    mock.map_err(|error| Failure::new(format!("the mock cannot listen: {error}")))
}

/// Makes the one project, served by the mock.
fn add_project(loaded: &mut Loaded, mock: &Mock) -> Result<(), Failure> {
    let failed =
        |error: &dyn std::error::Error| Failure::new(format!("cannot set up `{PROJECT}`: {}", chain(error)));
    let id = ProjectId::parse(PROJECT).map_err(|error| failed(&error))?;
    loaded.config.upstream.url = mock.url();
    loaded.provenance.set("upstream.url", SOURCE);
    // A proxy would be asked for an address of this machine.
    loaded.config.upstream.proxy = None;
    let api_key = ApiKey::parse(API_KEY).map_err(|error| failed(&error))?;
    let base_url = BaseUrl::parse(&mock.url()).map_err(|error| failed(&error))?;
    loaded.projects = vec![ProjectSettings::new(
        id.clone(),
        (api_key, None),
        base_url,
        &loaded.config,
    )];
    loaded.default_project = Some(id);
    Ok(())
}

/// Takes free ports where the default ones are taken, and says so; for the demonstration always.
fn choose_ports(loaded: &mut Loaded, is_demo: bool) -> Vec<String> {
    let listen = &mut loaded.config.listen;
    let mut notes = Vec::new();
    for (key, address) in [
        ("listen.grpc", &mut listen.grpc),
        ("listen.http", &mut listen.http),
        ("listen.ops", &mut listen.ops),
        ("listen.admin", &mut listen.admin),
    ] {
        let ListenAddress::At(wanted) = *address else {
            continue;
        };
        // What somebody configured is taken as it is, or fails.
        if *loaded.provenance.of(key) != Source::Default {
            continue;
        }
        let is_taken = || TcpListener::bind(wanted).is_err_and(|error| error.kind() == ErrorKind::AddrInUse);
        if is_demo || is_taken() {
            *address = ListenAddress::At(SocketAddr::new(wanted.ip(), 0));
            loaded.provenance.set(key, SOURCE);
            notes.push(format!("{wanted} is taken: `{key}` takes a free port"));
        }
    }
    notes
}

/// A temporary directory for the queue, unless one is configured.
fn choose_directory(loaded: &mut Loaded) -> Result<Option<TempDir>, Failure> {
    if *loaded.provenance.of("queue.dir") != Source::Default {
        return Ok(None);
    }
    let directory = tempfile::Builder::new()
        .prefix("embeddables-dev-")
        .tempdir()
        .map_err(|error| Failure::new(format!("no temporary directory for the queue: {error}")))?;
    directory.path().clone_into(&mut loaded.config.queue.dir);
    loaded.provenance.set("queue.dir", SOURCE);
    Ok(Some(directory))
}

fn remove(directory: Option<TempDir>) {
    if let Some(directory) = directory {
        let path = directory.path().to_owned();
        if let Err(error) = directory.close() {
            tracing::warn!(%error, path = %path.display(), "the temporary directory could not be removed");
        }
    }
}

/// An address that a caller on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => address,
        IpAddr::V4(_) => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(_) => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port()),
    }
}

/// The way that this process was called, for commands that work when they are pasted.
fn program() -> String {
    let name = std::env::args_os()
        .next()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    match name.is_empty() || !name.bytes().all(is_plain) {
        true if name.is_empty() => "embeddables-sidecar".to_owned(),
        true => format!("'{}'", name.replace('\'', "'\\''")),
        false => name,
    }
}

/// Where everything listens, and what to try next.
fn banner(addresses: &Addresses, mock: &str, queue: &std::path::Path, is_temporary: bool) -> String {
    let program = program();
    let mut text = format!(
        "The sidecar is ready for project {PROJECT}. Events go to a mock: nothing leaves this machine.\n\n"
    );
    let mut push = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let grpc = addresses.grpc.map(reachable).map(|address| address.to_string());
    let unix = addresses
        .grpc_unix
        .as_ref()
        .map(|path| format!("unix:{}", path.display()));
    for address in grpc.iter().chain(&unix) {
        push(format!("  gRPC      {address}"));
    }
    if let Some(http) = addresses.http.map(reachable) {
        push(format!("  HTTP      http://{http}"));
    }
    if let Some(ops) = addresses.ops.map(reachable) {
        push(format!("  probes    http://{ops}/readyz, /livez, /metrics"));
    }
    if let Some(admin) = addresses.admin.map(reachable) {
        push(format!("  admin     {admin}"));
    }
    push(format!("  mock API  {mock}"));
    let fate = if is_temporary { " (removed at the end)" } else { "" };
    push(format!("  queue     {}{fate}\n", queue.display()));
    push("Try in another terminal:\n".to_owned());
    if let Some(address) = grpc.as_ref().or(unix.as_ref()) {
        push("  # Publish an event, and ask what became of it.".to_owned());
        push(format!(
            "  {program} publish --address {address} --event-id try-1 --embeddable flow_demo --name visit_completed --key email --value ada@example.com"
        ));
        push(format!("  {program} get try-1 --address {address}\n"));
    }
    if let Some(http) = addresses.http.map(reachable) {
        push("  # The same over HTTP, with the body that the events API takes.".to_owned());
        push(format!(
            "  curl -sS http://{http}/projects/{PROJECT}/events -H 'Content-Type: application/json' -H 'Idempotency-Key: try-2' -d '{HTTP_BODY}'\n"
        ));
    }
    if let Some(address) = &grpc {
        push("  # From any language: reflection is on.".to_owned());
        push(format!(
            "  grpcurl -plaintext -d '{GRPC_BODY}' {address} embeddables.events.v1.EventsService/PublishEvent\n"
        ));
    }
    push("  # What the mock received.".to_owned());
    push(format!("  curl -sS {mock}/_mock/counts\n"));
    push("Stop with Ctrl-C.".to_owned());
    text
}

const HTTP_BODY: &str = r#"{"embeddable_id":"flow_demo","timestamp":"2026-01-01T00:00:00.000Z","custom_event_name":"visit_completed","custom_event_props":"{}","identifiers":[{"key":"email","value":"\"ada@example.com\""}]}"#;
const GRPC_BODY: &str = r#"{"event":{"event_id":"try-3","embeddable_id":"flow_demo","name":"visit_completed","identifier":{"key":"email","string_value":"ada@example.com"}}}"#;

#[cfg(test)]
mod tests {
    use super::*;

    fn loaded(variables: &[(&str, &str)]) -> Loaded {
        let options = LoadOptions {
            file: None,
            projects: ProjectUse::Ignored,
        };
        config::load(
            &options,
            variables.iter().map(|(name, value)| (name.into(), value.into())),
        )
        .unwrap()
    }

    #[test]
    fn a_default_port_that_is_taken_gives_way_and_a_configured_one_does_not() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let mut by_default = loaded(&[]);
        by_default.config.listen.http = ListenAddress::At(address);
        let notes = choose_ports(&mut by_default, false);
        assert_eq!(by_default.config.listen.http.socket_address().unwrap().port(), 0);
        assert!(
            notes.iter().any(|note| note.contains(&address.to_string())),
            "{notes:?}"
        );

        let mut configured = loaded(&[("EMBEDDABLES_SIDECAR__LISTEN__HTTP", &address.to_string())]);
        choose_ports(&mut configured, true);
        assert_eq!(configured.config.listen.http.socket_address(), Some(address));
    }

    #[test]
    fn the_queue_is_temporary_unless_a_directory_is_configured() {
        let mut by_default = loaded(&[]);
        let directory = choose_directory(&mut by_default).unwrap().expect("temporary");
        assert_eq!(by_default.config.queue.dir, directory.path());
        let mut configured = loaded(&[("EMBEDDABLES_SIDECAR__QUEUE__DIR", "here")]);
        assert!(choose_directory(&mut configured).unwrap().is_none());
        assert_eq!(configured.config.queue.dir, PathBuf::from("here"));
    }

    #[test]
    fn the_banner_names_every_address_and_bodies_that_are_json() {
        let addresses = Addresses {
            grpc: Some(([0, 0, 0, 0], 1).into()),
            grpc_unix: Some("/run/s.sock".into()),
            http: Some(([127, 0, 0, 1], 2).into()),
            ops: Some(([127, 0, 0, 1], 3).into()),
            admin: Some(([127, 0, 0, 1], 5).into()),
            admin_unix: None,
        };
        let text = banner(&addresses, "http://127.0.0.1:4", "/tmp/q".as_ref(), true);
        for part in [
            "127.0.0.1:1",
            "unix:/run/s.sock",
            "127.0.0.1:2/projects/pr_dev",
            "127.0.0.1:3/readyz",
            "127.0.0.1:4/_mock/counts",
            "admin     127.0.0.1:5",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        for body in [HTTP_BODY, GRPC_BODY] {
            serde_json::from_str::<serde_json::Value>(body).expect("is JSON");
            assert!(!body.contains('\''), "the shell's quotes");
        }
    }
}
