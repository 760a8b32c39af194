//! `embeddables-mock`: the mock as a process. Prints the address it listens on as one line on stdout, logs
//! on stderr, ends with 0 on SIGTERM or SIGINT.
//!
//! Exit codes: 1 the address cannot be bound or a file not written, 2 usage, 78 certificate or key no good.

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, process};

use clap::Parser;
use embeddables_mock::{Mock, MockConfig, TlsIdentity};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code for a configuration that can never work.
const EXIT_CONFIG: u8 = 78;

/// Mock of the Embeddables events API with faults on demand.
#[derive(Debug, Parser)]
#[command(name = "embeddables-mock", version)]
struct Arguments {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8480", value_parser = resolve)]
    listen: SocketAddr,
    /// PEM file with the certificate chain; turns TLS on (ALPN h2 and http/1.1).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM file with the private key of the certificate.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// File that is written, in one step, once the mock listens: {"mock":"host:port","version":…,"pid":…}.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

fn resolve(text: &str) -> Result<SocketAddr, String> {
    let mut addresses = text.to_socket_addrs().map_err(|error| error.to_string())?;
    addresses
        .next()
        .ok_or_else(|| "the name has no address".to_owned())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, "failed to start the runtime", &error),
    };
    runtime.block_on(run(arguments))
}

async fn run(arguments: Arguments) -> ExitCode {
    let tls = match read_identity(&arguments) {
        Ok(tls) => tls,
        Err(error) => return fail(EXIT_CONFIG, "failed to read certificate or key", &error),
    };
    let mock = match Mock::start(MockConfig {
        listen: arguments.listen,
        tls,
    })
    .await
    {
        Ok(mock) => mock,
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            return fail(EXIT_CONFIG, "certificate or key is no good", &error);
        }
        Err(error) => return fail(1, &format!("failed to listen on {}", arguments.listen), &error),
    };
    let result = announce_until_signal(&mock, arguments.ready_file.as_deref()).await;
    mock.shutdown().await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(
            1,
            "failed to say where the mock listens, or to wait for a signal",
            &error,
        ),
    }
}

fn read_identity(arguments: &Arguments) -> io::Result<Option<TlsIdentity>> {
    let (Some(cert), Some(key)) = (&arguments.tls_cert, &arguments.tls_key) else {
        return Ok(None);
    };
    Ok(Some(TlsIdentity {
        cert_pem: fs::read_to_string(cert)?,
        key_pem: fs::read_to_string(key)?,
    }))
}

/// Prints the address, then writes the ready file.
fn announce(mock: &Mock, ready_file: Option<&Path>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", mock.addr())?;
    stdout.flush()?;
    let Some(path) = ready_file else { return Ok(()) };
    let ready = json!({
        "mock": mock.addr().to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "pid": process::id(),
    });
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", process::id()));
    fs::write(&temporary, format!("{ready}\n"))?;
    fs::rename(&temporary, path)
}

/// Whoever has read the address may end the mock at once: the signals are caught before it is told.
async fn announce_until_signal(mock: &Mock, ready_file: Option<&Path>) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    announce(mock, ready_file)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn fail(code: u8, what: &str, error: &io::Error) -> ExitCode {
    tracing::error!(%error, "{what}");
    ExitCode::from(code)
}
