//! The commands of the binary, as a person or a script uses them.

use std::process::Output;

use e2e::event::TestEvent;
use e2e::settings::Settings;
use e2e::stage::Stage;
use e2e::{sidecar, stage, wait};
use serde_json::{Value, json};

/// Runs a client command against the stage's sidecar.
async fn run(stage: &Stage, arguments: &[&str]) -> Output {
    let settings =
        Settings::bare(stage.directory()).raw("EMBEDDABLES_SIDECAR_ADDRESS", stage.sidecar.ready("grpc"));
    sidecar::run(&settings, arguments).await
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).expect("UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// An event as a line of NDJSON.
fn line(event: &TestEvent) -> Value {
    json!({
        "event_id": event.id, "embeddable_id": "flow_e2e", "name": event.name, "props": event.props,
        "identifier": {"key": "email", "value": event.email}, "timestamp": event.to_upstream_body()["timestamp"],
    })
}

#[tokio::test]
async fn publish_sends_a_file_and_get_tells_what_became_of_each() {
    let stage = Stage::new().await;
    let events = [TestEvent::new("file-1"), TestEvent::new("file-2")];
    let file = stage.directory().join("events.ndjson");
    let text: String = events.iter().map(|event| format!("{}\n", line(event))).collect();
    std::fs::write(&file, text).expect("a file");
    let file = file.to_str().expect("UTF-8");
    let output = run(&stage, &["publish", "--file", file, "--output", "json"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(lines(&output).len(), 2, "{output:?}");
    stage.await_delivered(&events, wait::SOON).await;
    stage.drain(wait::SOON).await;

    let output = run(&stage, &["get", "file-1", "--output", "json"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = lines(&output);
    assert!(shown[0].to_string().contains("STATE_DELIVERED"), "{shown:?}");
    let unknown = run(&stage, &["get", "never-seen"]).await;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
}

#[tokio::test]
async fn an_event_that_is_refused_ends_publish_and_validate_with_one() {
    let stage = Stage::new().await;
    let file = stage.directory().join("events.ndjson");
    let mut bad = line(&TestEvent::new("bad-1"));
    bad["name"] = json!("Not Snake");
    std::fs::write(&file, format!("{}\n{bad}\n", line(&TestEvent::new("good-1")))).expect("a file");
    let file = file.to_str().expect("UTF-8");
    let validated = run(&stage, &["validate", "--file", file]).await;
    assert_eq!(validated.status.code(), Some(1), "{validated:?}");
    assert_eq!(stage.balance_books().await.accepted, 0.0);
    let published = run(&stage, &["publish", "--file", file]).await;
    assert_eq!(published.status.code(), Some(1), "{published:?}");
    let shown =
        String::from_utf8_lossy(&published.stdout).into_owned() + &String::from_utf8_lossy(&published.stderr);
    assert!(shown.contains("NAME_NOT_SNAKE_CASE"), "{shown}");
    assert_eq!(stage.drain(wait::SOON).await.accepted, 1.0);
}

#[tokio::test]
async fn health_tells_by_its_exit_code() {
    let mut stage = Stage::new().await;
    let well = run(&stage, &["health"]).await;
    assert_eq!(well.status.code(), Some(0), "{well:?}");
    let unix = format!("unix:{}", stage.sidecar.ready("grpc_unix"));
    let well = run(&stage, &["health", "--address", &unix]).await;
    assert_eq!(well.status.code(), Some(0), "{well:?}");
    let address = stage.sidecar.ready("grpc").to_owned();
    stage.sidecar.kill_nine().await;
    let ill = run(&stage, &["health", "--address", &address]).await;
    assert_eq!(ill.status.code(), Some(1), "{ill:?}");
}

#[tokio::test]
async fn what_cannot_be_understood_is_a_usage_error() {
    let directory = stage::directory();
    let bare = Settings::bare(directory.path());
    for arguments in [["no-such-command"], ["--no-such-option"]] {
        let output = sidecar::run(&bare, &arguments).await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
}

#[tokio::test]
async fn the_demo_shows_every_fate_and_the_mock_agrees() {
    let directory = stage::directory();
    let output = sidecar::run(&Settings::bare(directory.path()), &["dev", "--demo"]).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let fates = ["delivered", "refused", "waiting", "dead_lettered"];
    let events: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|words| words.len() == 3 && fates.contains(&words[1]))
        .collect();
    let with = |fate: &str| events.iter().filter(|words| words[1] == fate).count();
    assert!(with("delivered") > 0 && with("refused") > 0, "{text}");
    assert!(with("waiting") + with("dead_lettered") > 0, "{text}");
    let received = text
        .lines()
        .last()
        .and_then(|line| line.strip_prefix("mock received "));
    let received: usize = received
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("{text}"));
    // Each event that was not refused came at least once.
    assert!(received >= events.len() - with("refused"), "{text}");
}

#[tokio::test]
async fn completions_and_the_man_page_are_printed() {
    let directory = stage::directory();
    let bare = Settings::bare(directory.path());
    for arguments in [["completions", "bash"].as_slice(), &["man"]] {
        let output = sidecar::run(&bare, arguments).await;
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stdout.len() > 500, "{arguments:?}");
    }
}
