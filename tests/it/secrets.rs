//! No key, identifier or property leaves by a log, a metric, an error or a file that others can read.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use e2e::event::{TestEvent, string_identifier};
use e2e::metrics::Scrape;
use e2e::settings::PROJECT;
use e2e::stage::Stage;
use e2e::watching::{Wanted, Watch};
use e2e::{admin, calls, rest, sidecar, wait};
use embeddables_mock::{ResetPoint, Settings, Step};
use embeddables_proto::admin::v1::ListDeadLettersRequest;
use embeddables_proto::events::v1::State;
use serde_json::json;

const KEY: &str = "rk_test_canarykey5f1e";
const IDENTIFIER: &str = "canaryperson@example.com";
const PROPERTY: &str = "canaryproperty9c0d";

fn canary(id: &str) -> TestEvent {
    TestEvent {
        email: IDENTIFIER.to_owned(),
        ..TestEvent::new(id)
    }
    .with("note", PROPERTY)
}

#[track_caller]
fn check_clean(what: &str, text: &str) {
    for secret in [KEY, IDENTIFIER, PROPERTY] {
        if let Some(place) = text.find(secret) {
            let start = text[..place].rfind('\n').map_or(0, |line| line + 1);
            panic!(
                "{what} shows {secret}: {}",
                text[start..].lines().next().unwrap_or_default()
            );
        }
    }
}

/// Sends events through every fate that leaves a trace in words.
async fn provoke(stage: &Stage) {
    let client = stage.client();
    let echo = json!({ "message": format!("no {IDENTIFIER} with {PROPERTY} for {KEY}") }).to_string();
    let steps = [
        (
            "rejected",
            Step::status(400).with_body(&echo),
            State::DeadLettered,
        ),
        ("throttled", Step::status(429).with_body(&echo), State::Delivered),
        ("refused", Step::status(403).with_body(&echo), State::Delivered),
        ("reset", Step::reset(ResetPoint::After), State::Delivered),
        (
            "redirected",
            Step::redirect(format!("http://127.0.0.1:9/{IDENTIFIER}?{PROPERTY}&{KEY}")),
            State::Delivered,
        ),
        ("garbled", Step::status(200).with_body(&echo), State::Delivered),
    ];
    for (id, step, state) in steps {
        stage.upstream.fail_next([step]);
        calls::publish(&client, canary(id).to_proto())
            .await
            .expect("a valid event");
        let status = calls::await_state(&client, id, state, wait::SOON).await;
        check_clean(&format!("the status of {id}"), &format!("{status:?}"));
    }
    // Refusals: what was meant goes to the caller, in the details alone.
    let mut event = canary("bad").to_proto();
    event.identifier = Some(string_identifier("email", &json!(IDENTIFIER).to_string()));
    let refused = calls::publish(&client, event).await.expect_err("encoded twice");
    check_clean("the message of a refusal", refused.message());
    let conflict = calls::publish(&client, canary("rejected").with("more", 1).to_proto())
        .await
        .expect_err("id reused");
    check_clean("a conflict", &format!("{conflict:?}"));
    let mut body = canary("http").to_upstream_body();
    body["custom_event_name"] = json!("Not Snake");
    let headers = [("x-api-key", KEY), ("authorization", KEY)];
    let path = format!("/projects/{PROJECT}/events");
    let problem = rest::post(stage.sidecar.ready("http"), &path, &headers, body.to_string()).await;
    check_clean("a problem", &problem.body);
}

#[tokio::test]
async fn canaries_in_key_identifier_and_properties_are_nowhere_to_be_seen() {
    let upstream = e2e::upstream::Upstream::start().await;
    upstream.configure(Settings {
        keys: [(PROJECT.to_owned(), vec![KEY.to_owned()])].into(),
        ..Settings::default()
    });
    let mut stage = Stage::on(upstream, |settings| {
        settings
            .raw("EMBEDDABLES_API_KEY", KEY)
            .set("LOG__LEVEL", "trace")
            .set("LOG__FORMAT", "json")
    })
    .await;
    provoke(&stage).await;
    stage.drain(wait::SOON).await;
    check_clean("a scrape", &Scrape::of(&stage.sidecar).await.text);
    check_operators(&stage).await;
    for path in ["/livez", "/readyz", "/nothing"] {
        check_clean(path, &rest::get(stage.sidecar.ready("ops"), path).await.body);
    }
    let shown = sidecar::run(&stage.settings, &["check-config"]).await;
    check_clean("check-config", &String::from_utf8_lossy(&shown.stdout));
    check_clean("check-config", &String::from_utf8_lossy(&shown.stderr));
    stage.sidecar.terminate();
    stage.sidecar.wait_for_end().await;
    let log = stage.sidecar.log();
    assert!(!log.is_empty(), "at level trace something is logged");
    check_clean("the log", &log);
    check_key_not_stored(&stage.settings.queue_directory());
}

/// What operators see unasked: lanes, dead letters, outcomes.
async fn check_operators(stage: &Stage) {
    let lanes = admin::lanes(&stage.sidecar).await;
    check_clean("the lanes", &format!("{lanes:?}"));
    let listed = admin::dead_letters(&stage.sidecar, ListDeadLettersRequest::default()).await;
    assert_eq!(admin::ids(&listed), ["rejected"]);
    check_clean("the list of dead letters", &format!("{listed:?}"));
    let letter = admin::dead_letter(&stage.sidecar, "rejected", false).await;
    check_clean("a dead letter", &format!("{letter:?}"));
    let watch = Watch::open(&stage.client(), Wanted::earliest()).await;
    let outcomes = watch.expect("the stream opens").take(6).await;
    check_clean("an outcome", &format!("{outcomes:?}"));
}

fn check_key_not_stored(queue: &Path) {
    for file in queue.read_dir().expect("the queue's folder can be read") {
        let path = file.expect("the queue's folder can be read").path();
        let bytes = std::fs::read(&path).expect("a file can be read");
        let found = bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes());
        assert!(!found, "{} holds the key", path.display());
    }
}

#[tokio::test]
async fn the_queues_files_are_for_their_owner_alone() {
    let stage = Stage::new().await;
    calls::publish(&stage.client(), canary("files").to_proto())
        .await
        .expect("a valid event");
    let queue = stage.settings.queue_directory();
    let mode = |path: &Path| path.metadata().expect("a file has a mode").permissions().mode() & 0o777;
    assert_eq!(mode(&queue), 0o700);
    for file in queue.read_dir().expect("the queue's folder can be read") {
        let path = file.expect("the queue's folder can be read").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    let socket = mode(Path::new(stage.sidecar.ready("grpc_unix")));
    assert_eq!(socket & 0o007, 0, "the socket is not for everybody: {socket:o}");
}
