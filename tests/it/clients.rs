//! Clients in other languages, generated from `proto/` when the test runs, publish and read back.
//!
//! What they are made of lies below cargo's target folder and is made once; versions are pinned beside their sources.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use e2e::event::TestEvent;
use e2e::random::Seeded;
use e2e::stage::Stage;
use e2e::{gate, wait};
use embeddables_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use prost_types::compiler::{CodeGeneratorRequest, CodeGeneratorResponse};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Installing and compiling, on a cold and busy machine.
const BUILD_BOUND: Duration = Duration::from_secs(600);

const RUN_BOUND: Duration = Duration::from_secs(120);

const FILES: [&str; 2] = [
    "embeddables/events/v1/event.proto",
    "embeddables/events/v1/events_service.proto",
];

/// Package that the Go code is generated as.
const GO_PACKAGE: &str = "e2eclient/eventsv1";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_publishes_and_reads_back() {
    if !gate::has_program("python3", "--version") {
        return gate::skip("no python3");
    }
    let folder = build_folder("python");
    let python = install_python(&folder).await;
    let generated = folder.join("generated");
    generate_python(&python, &generated).await;
    let mut command = Command::new(python);
    command
        .arg(sources("python").join("client.py"))
        .env("PYTHONPATH", generated);
    check_client(command, "unix:", "INVALID_ARGUMENT").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_go_client_publishes_and_reads_back() {
    if !gate::has_program("go", "version") {
        return gate::skip("no go");
    }
    let folder = build_folder("go");
    let client = build_go(&folder).await;
    check_client(Command::new(client), "unix://", "InvalidArgument").await;
}

/// Runs the client over TCP and over the Unix socket, and compares what it saw with what the upstream got.
async fn check_client(mut command: Command, unix_scheme: &str, invalid_argument: &str) {
    let stage = Stage::new().await;
    let mut seeded = Seeded::new();
    let unix = format!("{unix_scheme}{}", stage.sidecar.ready("grpc_unix"));
    for (way, address) in [("tcp", stage.sidecar.ready("grpc")), ("unix", &unix)] {
        let event = |index: usize| TestEvent::random(format!("{way}-{index}"), &mut seeded.source);
        let events: Vec<TestEvent> = (0..10).map(event).collect();
        let input = json!({ "address": address, "events": events.iter().map(given).collect::<Vec<_>>() });
        let seen: Value =
            serde_json::from_str(&run(&mut command, &input.to_string(), RUN_BOUND).await).expect("JSON");
        let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
        assert_eq!(seen["published"], json!(ids[..5]), "{way}: {seen}");
        assert_eq!(seen["duplicate"], true, "{way}: {seen}");
        let mut streamed: Vec<&str> = seen["streamed"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        streamed.sort_unstable();
        assert_eq!(streamed, ids[5..], "{way}: {seen}");
        let refusal = json!({
            "code": invalid_argument, "reason": "INVALID_EVENT", "fields": ["event.embeddable_id", "event.name"],
            "reasons": ["EMBEDDABLE_ID_MISSING", "NAME_NOT_SNAKE_CASE"],
        });
        assert_eq!(seen["refusal"], refusal, "{way}: {seen}");
        assert!(
            ids.iter().all(|id| seen["states"][id] == "STATE_DELIVERED"),
            "{way}: {seen}"
        );
        stage.await_delivered(&events, wait::SOON).await;
    }
    assert_eq!(stage.drain(wait::SOON).await.delivered, 20.0);
}

fn given(event: &TestEvent) -> Value {
    json!({
        "id": event.id, "embeddable_id": "flow_e2e", "name": event.name, "email": event.email, "props": event.props,
        "unix_millis": event.unix_millis,
    })
}

fn sources(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(language)
}

/// Where a client is built: kept between runs, since installing takes longest.
fn build_folder(language: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("clients")
        .join(language);
    fs::create_dir_all(&folder).expect("a folder below the target folder");
    folder
}

/// Makes a virtual environment with the pinned packages; gives its interpreter.
async fn install_python(folder: &Path) -> PathBuf {
    let (venv, done) = (folder.join("venv"), folder.join("installed.txt"));
    let python = venv.join("bin/python");
    let requirements = sources("python").join("requirements.txt");
    let wanted = fs::read_to_string(&requirements).expect("the requirements");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    run(
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv),
        "",
        BUILD_BOUND,
    )
    .await;
    let mut install = Command::new(&python);
    install
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--requirement"])
        .arg(requirements);
    run(&mut install, "", BUILD_BOUND).await;
    fs::write(done, wanted).expect("a file below the target folder");
    python
}

async fn generate_python(python: &Path, generated: &Path) {
    fs::create_dir_all(generated).expect("a folder below the target folder");
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    let out = |option: &str| format!("--{option}={}", generated.display());
    let mut protoc = Command::new(python);
    protoc
        .args(["-m", "grpc_tools.protoc", "-I"])
        .arg(proto)
        .args([out("python_out"), out("grpc_python_out")]);
    run(protoc.args(FILES), "", BUILD_BOUND).await;
}

/// Copies the module, generates its code with the pinned plugins and compiles it; gives the program.
async fn build_go(folder: &Path) -> PathBuf {
    for file in ["go.mod", "go.sum", "main.go"] {
        fs::copy(sources("go").join(file), folder.join(file)).expect("a file below the target folder");
    }
    let bin = folder.join("bin");
    // The pinned tools of go.mod: protoc-gen-go and protoc-gen-go-grpc.
    run(
        go(folder).args(["install", "tool"]).env("GOBIN", &bin),
        "",
        BUILD_BOUND,
    )
    .await;
    for plugin in ["protoc-gen-go", "protoc-gen-go-grpc"] {
        generate_go(folder, &bin.join(plugin)).await;
    }
    let client = bin.join("client");
    run(
        go(folder).args(["build", "-o"]).arg(&client).arg("."),
        "",
        BUILD_BOUND,
    )
    .await;
    client
}

fn go(folder: &Path) -> Command {
    let mut command = Command::new("go");
    // No other toolchain is fetched, and no module whose checksum is not in go.sum is used.
    command
        .current_dir(folder)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-mod=readonly -buildvcs=false");
    command
}

/// Asks a protoc plugin for its files as protoc does: no protoc is needed, the descriptors are those of `embeddables-proto`.
async fn generate_go(folder: &Path, plugin: &Path) {
    let descriptors = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("a descriptor set");
    let packages: Vec<String> = FILES.iter().map(|file| format!("M{file}={GO_PACKAGE}")).collect();
    let request = CodeGeneratorRequest {
        file_to_generate: FILES.map(str::to_owned).to_vec(),
        parameter: Some(format!("module=e2eclient,{}", packages.join(","))),
        proto_file: descriptors.file,
        ..CodeGeneratorRequest::default()
    };
    let answer = run_bytes(&mut Command::new(plugin), &request.encode_to_vec(), BUILD_BOUND).await;
    let answer = CodeGeneratorResponse::decode(answer.as_slice()).expect("a plugin's answer");
    assert_eq!(answer.error, None, "{}", plugin.display());
    for file in answer.file {
        let path = folder.join(file.name.expect("a generated file has a name"));
        fs::create_dir_all(path.parent().expect("a package's folder"))
            .expect("a folder below the target folder");
        fs::write(path, file.content.expect("a generated file has a content"))
            .expect("a file below the target folder");
    }
}

/// Runs a program to its end with this text on stdin; gives its stdout.
async fn run(command: &mut Command, stdin: &str, bound: Duration) -> String {
    String::from_utf8(run_bytes(command, stdin.as_bytes(), bound).await).expect("UTF-8")
}

async fn run_bytes(command: &mut Command, stdin: &[u8], bound: Duration) -> Vec<u8> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let mut input = child.stdin.take().expect("a pipe");
    let writing = async {
        // A program that ends early says why on stderr.
        let _unread = input.write_all(stdin).await;
        drop(input);
    };
    let both = async { tokio::join!(writing, child.wait_with_output()).1 };
    let output = wait::within(format!("{command:?}"), bound, both)
        .await
        .expect("a child can be waited for");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{stderr}",
        output.status
    );
    output.stdout
}
