//! What listens beside the events API: health, reflection, probes, the ready file.

use e2e::event::TestEvent;
use e2e::metrics::Scrape;
use e2e::stage::Stage;
use e2e::{calls, raw, rest, wait};
use embeddables_proto::events::v1::{Durability, GetServerInfoRequest};

/// `HealthCheckResponse` with the status SERVING.
const SERVING: &[u8] = b"\x08\x01";

/// `ServerReflectionRequest` with `list_services`.
const LIST_SERVICES: &[u8] = b"\x3a\x00";

#[tokio::test]
async fn grpc_health_is_serving() {
    let stage = Stage::new().await;
    let service = "embeddables.events.v1.EventsService";
    let named = [
        [b"\x0a", [u8::try_from(service.len()).expect("short")].as_slice()].concat(),
        service.into(),
    ]
    .concat();
    for request in [Vec::new(), named] {
        let answer = raw::call_service(
            stage.sidecar.ready("grpc"),
            "grpc.health.v1.Health/Check",
            request,
        )
        .await;
        assert_eq!(answer.expect("a known service"), SERVING);
    }
}

#[tokio::test]
async fn reflection_tells_the_service_in_both_versions() {
    let stage = Stage::new().await;
    for version in ["v1", "v1alpha"] {
        let method = format!("grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let answer = raw::call_service(stage.sidecar.ready("grpc"), &method, LIST_SERVICES)
            .await
            .expect("reflection");
        let text = String::from_utf8_lossy(&answer);
        assert!(
            text.contains("embeddables.events.v1.EventsService"),
            "{version}: {text}"
        );
    }
}

#[tokio::test]
async fn the_probes_answer_and_ops_serves_nothing_else() {
    let stage = Stage::new().await;
    let ops = stage.sidecar.ready("ops");
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(rest::get(ops, path).await.status, 200, "{path}");
    }
    for path in ["/", "/debug", "/projects/pr_e2e/events"] {
        assert_eq!(rest::get(ops, path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn readiness_does_not_follow_the_upstream() {
    let stage = Stage::new().await;
    stage.upstream.go_down();
    calls::publish(&stage.client(), TestEvent::new("down-1").to_proto())
        .await
        .expect("a valid event");
    wait::until("a refusal upstream", wait::SOON, async || {
        (stage.upstream.request_count() > 0).then_some(())
    })
    .await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(
            rest::get(stage.sidecar.ready("ops"), path).await.status,
            200,
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_ready_file_tells_every_address_version_and_pid() {
    let stage = Stage::new().await;
    for name in ["grpc", "grpc_unix", "http", "ops", "admin", "version"] {
        assert!(!stage.sidecar.ready(name).is_empty(), "{name}");
    }
    assert_eq!(
        stage.sidecar.ready_pid(),
        i64::from(stage.sidecar.pid().as_raw_pid())
    );
}

#[tokio::test]
async fn server_info_tells_limits_and_durability() {
    let stage = Stage::new().await;
    let info = stage
        .client()
        .get_server_info(GetServerInfoRequest {})
        .await
        .expect("no arguments")
        .into_inner();
    assert_eq!(info.version, stage.sidecar.ready("version"));
    assert_eq!(info.default_project_id, e2e::settings::PROJECT);
    assert!(
        info.durabilities()
            .any(|durability| durability == info.default_durability()),
        "{info:?}"
    );
    assert_ne!(info.default_durability(), Durability::Unspecified, "{info:?}");
    let limits = info.limits.expect("limits");
    assert_eq!(
        (
            limits.batch_event_count,
            limits.props_size_bytes,
            limits.props_depth
        ),
        (10_000, 262_144, 64)
    );
    assert_eq!(limits.dedupe_window.expect("a window").seconds, 24 * 60 * 60);
}

#[tokio::test]
async fn a_stale_socket_of_a_killed_life_is_taken_over() {
    let mut stage = Stage::new().await;
    let client = calls::unix(stage.sidecar.ready("grpc_unix"));
    stage.sidecar.kill_nine().await;
    stage.restart().await;
    // The same client connects again by itself.
    let event = TestEvent::new("socket-1");
    wait::until("a call over the new socket", wait::SOON, async || {
        calls::publish(&client, event.to_proto()).await.ok()
    })
    .await;
    stage.await_delivered([&event], wait::SOON).await;
}

#[tokio::test]
async fn the_metrics_of_the_contract_are_there_after_one_event() {
    let stage = Stage::new().await;
    let event = TestEvent::new("metrics-1");
    calls::publish(&stage.client(), event.to_proto())
        .await
        .expect("a valid event");
    stage.await_delivered([&event], wait::SOON).await;
    stage.drain(wait::SOON).await;
    let scrape = Scrape::of(&stage.sidecar).await;
    let names = [
        "embeddables_ingest_accepted_events_total",
        "embeddables_settle_delivered_events_total",
        "embeddables_settle_discarded_events_total",
        "embeddables_queue_quarantined_events_total",
        "embeddables_deliver_attempts_total",
        "embeddables_lanes",
        "embeddables_queue_events",
        "embeddables_queue_bytes",
        "embeddables_queue_fsync_seconds_count",
        "embeddables_deliver_attempt_seconds_count",
        "embeddables_events_lost_total",
    ];
    for name in names {
        assert!(
            scrape.samples.iter().any(|sample| sample.name == name),
            "no {name} in:\n{}",
            scrape.text
        );
    }
    for sample in &scrape.samples {
        assert!(sample.name.starts_with("embeddables_"), "{sample:?}");
        let ids = sample.labels.values().any(|value| value.contains(&event.id));
        assert!(!ids, "an id is a label: {sample:?}");
    }
}
