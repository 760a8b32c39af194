//! `lanes`, `dead-letters`, `watch` and `flush`, as an operator or a script uses them: results on stdout, exit codes that tell.

use std::process::Output;

use e2e::event::TestEvent;
use e2e::settings::{PROJECT, Settings};
use e2e::stage::Stage;
use e2e::{sidecar, wait};
use embeddables_mock::{FaultScript, Step};
use embeddables_proto::events::v1::State;
use serde_json::Value;

/// Runs a command against the listener of the stage's sidecar that the ready file names so.
async fn run_at(stage: &Stage, listener: &str, arguments: &[&str]) -> Output {
    let settings = Settings::bare(stage.directory());
    let address = ["--address", stage.sidecar.ready(listener)];
    sidecar::run(&settings, &[arguments, &address].concat()).await
}

/// Runs a command and gives its lines of JSON; its exit code must be that.
async fn json(stage: &Stage, listener: &str, arguments: &[&str], code: i32) -> Vec<Value> {
    let output = run_at(stage, listener, &[arguments, &["--output", "json"]].concat()).await;
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Runs a command and gives what it prints for a person; its exit code must be that.
async fn text(stage: &Stage, listener: &str, arguments: &[&str], code: i32) -> String {
    let output = run_at(stage, listener, arguments).await;
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A count in JSON: a number, or, as protobuf's mapping has whole numbers of 64 bits, a string.
fn count(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

async fn publish(stage: &Stage, id: &str, step: Option<Step>, state: State) {
    stage.upstream.push(FaultScript::once(step));
    let event = TestEvent::new(id);
    stage.publish(&event).await;
    stage.await_state(&event, state).await;
}

#[tokio::test]
async fn lanes_are_listed_held_and_resumed() {
    let stage = Stage::new().await;
    let shown = text(&stage, "admin", &["lanes"], 0).await;
    assert!(shown.starts_with(&format!("{PROJECT} open")), "{shown}");
    let hold = ["lanes", "hold", PROJECT, "--note", "maintenance"];
    let held = json(&stage, "admin", &hold, 0).await;
    assert_eq!(held[0]["hold"]["reason"], "OPERATOR", "{held:?}");
    let event = TestEvent::new("behind-the-hold");
    stage.publish(&event).await;
    stage.await_reason(&event, State::Held, "OPERATOR").await;
    let shown = text(&stage, "admin", &["lanes", "list"], 0).await;
    assert!(
        shown.contains("held OPERATOR") && shown.contains("maintenance"),
        "{shown}"
    );
    text(&stage, "admin", &["lanes", "resume", PROJECT], 0).await;
    stage.await_delivered([&event], wait::SOON).await;
    let listed = json(&stage, "admin", &["lanes", "list"], 0).await;
    assert_eq!(listed[0]["project_id"], PROJECT, "{listed:?}");
    assert!(listed[0]["hold"].is_null(), "{listed:?}");
    let unknown = run_at(&stage, "admin", &["lanes", "hold", "pr_unknown"]).await;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(
        said.contains("PROJECT_NOT_CONFIGURED") || said.contains("pr_unknown"),
        "{said}"
    );
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_replayed() {
    let stage = Stage::new().await;
    publish(&stage, "good", None, State::Delivered).await;
    let words = Step::status(422).with_body(r#"{"message": "no such plan"}"#);
    for id in ["dead-1", "dead-2", "dead-3"] {
        publish(&stage, id, Some(words.clone()), State::DeadLettered).await;
    }
    let listed = text(&stage, "admin", &["dead-letters", "list"], 0).await;
    assert_eq!(listed.lines().count(), 3, "{listed}");
    assert!(
        listed.contains("dead-1") && listed.contains("UPSTREAM_REJECTED"),
        "{listed}"
    );
    let none = text(
        &stage,
        "admin",
        &["dead-letters", "list", "--reason", "MAX_AGE"],
        0,
    )
    .await;
    assert_eq!(none, "");
    let shown = text(&stage, "admin", &["dead-letters", "get", "dead-1"], 0).await;
    assert!(shown.contains("422") && shown.contains("no such plan"), "{shown}");
    assert!(
        !shown.contains("dead-1@example.com"),
        "personal data is not shown unasked: {shown}"
    );
    let shown = text(
        &stage,
        "admin",
        &["dead-letters", "get", "dead-1", "--include-event"],
        0,
    )
    .await;
    assert!(shown.contains("dead-1@example.com"), "{shown}");
    text(&stage, "admin", &["dead-letters", "get", "good"], 1).await;
    let replayed = json(
        &stage,
        "admin",
        &["dead-letters", "replay", "dead-2", "never-seen"],
        1,
    )
    .await;
    assert_eq!(count(&replayed[0]["replayed_count"]), Some(1), "{replayed:?}");
    assert_eq!(replayed[0]["unknown_event_ids"][0], "never-seen", "{replayed:?}");
    text(&stage, "admin", &["dead-letters", "replay"], 2).await;
    let all = json(&stage, "admin", &["dead-letters", "replay", "--all"], 0).await;
    assert_eq!(count(&all[0]["replayed_count"]), Some(2), "{all:?}");
    let books = stage.drain(wait::SOON).await;
    assert_eq!((books.accepted, books.delivered), (4.0, 4.0), "{books:?}");
    assert_eq!(
        json(&stage, "admin", &["dead-letters", "list"], 0).await,
        Vec::<Value>::new()
    );
}

#[tokio::test]
async fn outcomes_are_watched_and_gone_on_with_by_their_cursor() {
    let stage = Stage::new().await;
    publish(&stage, "one", None, State::Delivered).await;
    publish(&stage, "two", Some(Step::status(422)), State::DeadLettered).await;
    publish(&stage, "three", None, State::Delivered).await;
    let watch = ["watch", "--earliest", "--count", "2"];
    let seen = json(&stage, "grpc", &watch, 0).await;
    let ids: Vec<_> = seen.iter().map(|one| &one["status"]["event_id"]).collect();
    assert_eq!(ids, ["one", "two"], "{seen:?}");
    assert_eq!(seen[1]["status"]["state"], "STATE_DEAD_LETTERED", "{seen:?}");
    let cursor = seen[1]["cursor"].as_str().expect("an outcome has a cursor");
    let rest = text(&stage, "grpc", &["watch", "--cursor", cursor, "--count", "1"], 0).await;
    assert!(rest.contains("three delivered"), "{rest}");
    text(&stage, "grpc", &["watch", "--cursor", "none", "--count", "1"], 1).await;
}

#[tokio::test]
async fn flush_tells_by_its_exit_code_whether_some_is_left() {
    let stage = Stage::with(|settings| settings.without_probes()).await;
    publish(&stage, "flushed", None, State::Delivered).await;
    let done = json(&stage, "grpc", &["flush", "--timeout", "10s"], 0).await;
    assert_eq!(done.len(), 1, "{done:?}");
    publish(&stage, "held", Some(Step::status(401)), State::Held).await;
    let left = json(&stage, "grpc", &["flush", "--timeout", "600ms"], 1).await;
    assert_eq!(count(&left[0]["held_count"]), Some(1), "{left:?}");
    let left = text(
        &stage,
        "grpc",
        &["flush", "--project", PROJECT, "--timeout", "600ms"],
        1,
    )
    .await;
    assert!(left.contains("held 1"), "{left}");
}

#[tokio::test]
async fn an_admin_listener_on_a_unix_socket_serves_operators_too() {
    let stage = Stage::with(|settings| {
        let socket = settings.directory().join("admin.sock");
        settings.set("LISTEN__ADMIN_UNIX", socket)
    })
    .await;
    let address = format!("unix:{}", stage.directory().join("admin.sock").display());
    let arguments = ["lanes", "list", "--address", &address];
    let output = sidecar::run(&Settings::bare(stage.directory()), &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = stage.directory().join("admin.sock").metadata().expect("a socket");
    let mode = metadata.permissions().mode() & 0o777;
    assert_eq!(mode & 0o007, 0, "the socket is not for everybody: {mode:o}");
}
