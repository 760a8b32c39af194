//! A bad start ends with exit code 78 and a sentence that says how to mend it, before the store is touched.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use e2e::event::TestEvent;
use e2e::settings::Settings;
use e2e::sidecar::Sidecar;
use e2e::stage::Stage;
use e2e::{calls, stage, wait};

const EXIT_CONFIGURATION: i32 = 78;

/// Every file below a folder: its bytes and its time of change.
type Snapshot = BTreeMap<String, (Vec<u8>, SystemTime)>;

fn snapshot(folder: &Path) -> Snapshot {
    let files = folder.read_dir().expect("the queue's folder can be read");
    files
        .map(|file| {
            let path = file.expect("the queue's folder can be read").path();
            let changed = path
                .metadata()
                .and_then(|metadata| metadata.modified())
                .expect("a file has a time");
            (
                path.display().to_string(),
                (std::fs::read(&path).expect("a file can be read"), changed),
            )
        })
        .collect()
}

/// A stage whose sidecar has accepted an event, kept it, and ended.
async fn stopped_stage() -> Stage {
    let mut stage = Stage::with(|settings| settings.set("DELIVERY__ENABLED", "false")).await;
    calls::publish(&stage.client(), TestEvent::new("kept-1").to_proto())
        .await
        .expect("a valid event");
    stage.sidecar.kill_nine().await;
    stage
}

/// Starts with these settings: that must end with 78, say `words`, and leave the store as it was.
async fn check_refused(stage: &Stage, what: &str, settings: &Settings, words: &[&str]) {
    let queue = stage.settings.queue_directory();
    let before = snapshot(&queue);
    let log_before = std::fs::read_to_string(settings.log_file())
        .unwrap_or_default()
        .len();
    match Sidecar::try_start(settings).await {
        Ok(_) => panic!("{what}: it started"),
        Err(ended) => {
            let log = &ended.log[log_before..];
            assert_eq!(ended.status.code(), Some(EXIT_CONFIGURATION), "{what}: {log}");
            for word in words {
                assert!(log.contains(word), "{what}: no {word:?} in: {log}");
            }
            assert!(!log.contains("panicked"), "{what}: {log}");
        }
    }
    assert!(snapshot(&queue) == before, "{what}: the store was touched");
}

#[tokio::test]
async fn what_is_wrong_with_the_configuration_is_told_before_the_store_is_opened() {
    let mut stage = stopped_stage().await;
    let good = stage.settings.clone();
    let cases = [
        (
            "an unknown key",
            good.clone().set("QUEUE__MAX_BITES", "1"),
            vec!["queue.max_bites", "max_bytes"],
        ),
        (
            "an unknown section",
            good.clone().set("QUEUES__DIR", "x"),
            vec!["queues"],
        ),
        (
            "a malformed duration",
            good.clone().set("DELIVERY__RETRY_MIN", "5 parsecs"),
            vec!["delivery.retry_min"],
        ),
        (
            "probes that grow rarer the wrong way round",
            good.clone().set("DELIVERY__PROBE_MIN", "10m"),
            vec!["delivery.probe_min", "delivery.probe_max"],
        ),
        (
            "an unknown order",
            good.clone().set("DELIVERY__ORDER", "sideways"),
            vec!["delivery.order"],
        ),
        (
            "an unknown policy",
            good.clone().set("DELIVERY__AMBIGUITY", "drop"),
            vec!["delivery.ambiguity"],
        ),
        (
            "a rate without a time",
            good.clone().set("DELIVERY__RATE", "50"),
            vec!["delivery.rate"],
        ),
        (
            "a public address for operators",
            good.clone().set("LISTEN__ADMIN", "0.0.0.0:0"),
            vec!["listen.admin", "insecure_allow_remote"],
        ),
        (
            "a malformed size",
            good.clone().set("QUEUE__MAX_BYTES", "many"),
            vec!["queue.max_bytes"],
        ),
        (
            "a malformed address",
            good.clone().set("LISTEN__GRPC", "nowhere"),
            vec!["listen.grpc"],
        ),
        (
            "a public address",
            good.clone().set("LISTEN__GRPC", "0.0.0.0:0"),
            vec!["insecure_allow_remote"],
        ),
        (
            "no key",
            good.clone().without("EMBEDDABLES_API_KEY"),
            vec!["EMBEDDABLES_API_KEY"],
        ),
        (
            "a malformed key",
            good.clone().raw("EMBEDDABLES_API_KEY", "sk_secret_word"),
            vec!["rk_"],
        ),
        (
            "a key with a space",
            good.clone().raw("EMBEDDABLES_API_KEY", "rk_secret_word x"),
            vec!["EMBEDDABLES_API_KEY"],
        ),
        (
            "a malformed project",
            good.clone().raw("EMBEDDABLES_PROJECT_ID", ".."),
            vec!["EMBEDDABLES_PROJECT_ID"],
        ),
        (
            "a URL that is none",
            good.clone().raw("EMBEDDABLES_API_URL", "nowhere"),
            vec!["EMBEDDABLES_API_URL"],
        ),
        (
            "another scheme",
            good.clone().raw("EMBEDDABLES_API_URL", "ftp://a.example"),
            vec!["EMBEDDABLES_API_URL"],
        ),
        (
            "a plaintext URL",
            good.clone().raw("EMBEDDABLES_API_URL", "http://a.example"),
            vec!["allow_plaintext"],
        ),
        (
            "a missing file",
            good.clone().set("UPSTREAM__CA_FILE", "/nonexistent/ca.pem"),
            vec!["upstream.ca_file"],
        ),
        (
            "a missing config",
            good.clone()
                .raw("EMBEDDABLES_SIDECAR_CONFIG", "/nonexistent.toml"),
            vec!["/nonexistent.toml"],
        ),
    ];
    for (what, settings, words) in cases {
        check_refused(&stage, what, &settings, &words).await;
    }
    assert!(
        !stage.sidecar.log().contains("secret_word"),
        "a key that is refused is not shown"
    );
    // Mended, it goes on with what it had.
    stage.settings = good.set("DELIVERY__ENABLED", "true");
    stage.restart().await;
    stage
        .await_delivered([&TestEvent::new("kept-1")], wait::SOON)
        .await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn an_unknown_key_in_the_file_names_the_nearest_known_one() {
    let stage = stopped_stage().await;
    let file = stage.directory().join("sidecar.toml");
    std::fs::write(
        &file,
        "[queue]\nmax_byts = \"1GiB\"\n\n[delivry]\nmax_in_flight = 1\n",
    )
    .expect("a file");
    let settings = stage.settings.clone().raw("EMBEDDABLES_SIDECAR_CONFIG", file);
    // Both at once.
    check_refused(
        &stage,
        "unknown keys in the file",
        &settings,
        &["max_byts", "max_bytes", "delivry", "delivery"],
    )
    .await;
}

#[tokio::test]
async fn a_directory_in_use_is_left_alone() {
    let stage = Stage::new().await;
    let directory = stage::directory();
    let other = Settings::new(directory.path(), &stage.upstream.url())
        .set("QUEUE__DIR", stage.settings.queue_directory());
    match Sidecar::try_start(&other).await {
        Ok(_) => panic!("two sidecars on one directory"),
        Err(ended) => {
            assert_eq!(ended.status.code(), Some(EXIT_CONFIGURATION), "{}", ended.log);
            assert!(ended.log.contains("in use"), "{}", ended.log);
        }
    }
    let event = TestEvent::new("first-goes-on");
    calls::publish(&stage.client(), event.to_proto())
        .await
        .expect("a valid event");
    stage.await_delivered([&event], wait::SOON).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_store_of_a_newer_release_is_refused_and_not_written() {
    let stage = stopped_stage().await;
    let file = stage.settings.queue_directory().join("queue.db");
    {
        let store = rusqlite::Connection::open(&file).expect("the store is a database");
        // The format is kept twice: a single flipped copy would be damage, not a newer store.
        store
            .execute_batch("DELETE FROM meta WHERE name = 'format'; PRAGMA user_version = 2000;")
            .expect("a change");
    }
    check_refused(&stage, "a newer store", &stage.settings, &["2.0"]).await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_is_told() {
    let stage = stopped_stage().await;
    let file = stage.directory().join("a-file");
    std::fs::write(&file, "").expect("a file");
    let settings = stage.settings.clone().set("QUEUE__DIR", file.join("queue"));
    check_refused(&stage, "a directory below a file", &settings, &["a-file"]).await;
}

#[tokio::test]
async fn check_config_says_the_same_without_starting() {
    let stage = stopped_stage().await;
    let good = e2e::sidecar::run(&stage.settings, &["check-config"]).await;
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let shown = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(
        !shown.contains(e2e::settings::API_KEY),
        "the key is redacted: {shown}"
    );
    let bad = stage.settings.clone().set("QUEUE__MAX_BITES", "1");
    let bad = e2e::sidecar::run(&bad, &["check-config"]).await;
    assert_eq!(bad.status.code(), Some(EXIT_CONFIGURATION), "{bad:?}");
}
