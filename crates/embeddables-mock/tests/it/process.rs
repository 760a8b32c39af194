//! The binary as a process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use embeddables_mock::self_signed_tls;
use serde_json::Value;

use crate::support::{Client, EVENTS, Protocol, connect_tls, event_request, good_event};

/// Starts the binary on a free port; gives it and the address it printed.
fn spawn(arguments: &[&Path]) -> (Child, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_embeddables-mock"))
        .args(["--listen", "127.0.0.1:0"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("started");
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    stdout.read_line(&mut line).expect("a line");
    (child, line.trim_end().parse().expect("an address"))
}

fn stop(mut child: Child, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .expect("kill runs");
    assert!(sent.success());
    assert_eq!(child.wait().expect("an end").code(), Some(0), "{signal}");
}

#[tokio::test]
async fn the_binary_serves_until_it_is_told_to_stop() {
    let directory = tempfile::tempdir().expect("a directory");
    let ready_file = directory.path().join("ready.json");
    for signal in ["-TERM", "-INT"] {
        let (child, addr) = spawn(&[Path::new("--ready-file"), &ready_file]);
        let stream = tokio::net::TcpStream::connect(addr).await.expect("a connection");
        let mut client = Client::over(stream, Protocol::Http2).await;
        let reply = client
            .send(event_request(addr, EVENTS, &good_event()))
            .await
            .expect("an answer");
        assert_eq!(reply.status, 200);
        let pid = child.id();
        stop(child, signal);
        let ready: Value = serde_json::from_slice(&fs::read(&ready_file).expect("ready file")).expect("JSON");
        assert_eq!(ready["mock"], addr.to_string());
        assert_eq!(ready["pid"], pid);
        assert_eq!(ready["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(
            fs::read_dir(directory.path()).expect("a directory").count(),
            1,
            "no other file is left"
        );
    }
}

#[tokio::test]
async fn the_binary_serves_tls_from_files() {
    let directory = tempfile::tempdir().expect("a directory");
    let (cert, key) = (
        directory.path().join("cert.pem"),
        directory.path().join("key.pem"),
    );
    let tls = self_signed_tls().expect("a certificate");
    fs::write(&cert, tls.identity.cert_pem).expect("written");
    fs::write(&key, tls.identity.key_pem).expect("written");
    let (child, addr) = spawn(&[Path::new("--tls-cert"), &cert, Path::new("--tls-key"), &key]);
    connect_tls(addr, &tls.ca_pem, &[b"h2"])
        .await
        .expect("a handshake");
    stop(child, "-TERM");
}

fn check_exit(arguments: &[&str], code: i32) {
    let output = Command::new(env!("CARGO_BIN_EXE_embeddables-mock"))
        .args(arguments)
        .output()
        .expect("an end");
    assert_eq!(output.status.code(), Some(code), "{arguments:?}");
    assert!(
        output.stdout.is_empty() && !output.stderr.is_empty(),
        "{arguments:?}"
    );
}

#[test]
fn what_cannot_work_ends_with_its_exit_code() {
    check_exit(&["--listen", "nonsense"], 2);
    check_exit(&["--tls-cert", "a.pem"], 2);
    check_exit(
        &[
            "--tls-cert",
            "/nonexistent/a.pem",
            "--tls-key",
            "/nonexistent/b.pem",
        ],
        78,
    );
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    check_exit(
        &["--listen", &taken.local_addr().expect("an address").to_string()],
        1,
    );
}
