//! Upstream over TLS with a private authority: HTTP/2 where offered, HTTP/1.1 where not.

use e2e::event::TestEvent;
use e2e::settings::Settings;
use e2e::sidecar::Sidecar;
use e2e::stage::{self, Stage};
use e2e::upstream::Upstream;
use e2e::{calls, wait};
use embeddables_proto::events::v1::{AttemptOutcome, State};

async fn check_delivered_over(upstream: Upstream, version: &str) {
    let files = stage::directory();
    let ca_file = upstream.write_ca_file(files.path());
    let stage = Stage::on(upstream, |settings| settings.set("UPSTREAM__CA_FILE", ca_file)).await;
    let events: Vec<_> = (0..50)
        .map(|index| TestEvent::new(format!("tls-{index}")))
        .collect();
    let protos = events.iter().map(TestEvent::to_proto).collect();
    calls::publish_batch(&stage.client(), protos)
        .await
        .expect("a batch of good events");
    stage.await_delivered(&events, wait::SOON).await;
    for request in stage.upstream.requests() {
        assert_eq!(request.version, version, "{request:?}");
    }
    assert_eq!(stage.drain(wait::SOON).await.delivered, 50.0);
}

#[tokio::test]
async fn http2_is_spoken_where_it_is_offered() {
    check_delivered_over(Upstream::start_tls().await, "HTTP/2.0").await;
}

#[tokio::test]
async fn http1_is_spoken_where_nothing_else_is_offered() {
    check_delivered_over(Upstream::start_tls_http1().await, "HTTP/1.1").await;
}

#[tokio::test]
async fn an_upstream_that_cannot_be_trusted_gets_nothing_and_events_wait_until_it_can() {
    let upstream = Upstream::start_tls().await;
    let mut stage = Stage::on(upstream, |settings| settings).await;
    let event = TestEvent::new("untrusted-1");
    calls::publish(&stage.client(), event.to_proto())
        .await
        .expect("a valid event");
    let status = calls::await_state(&stage.client(), &event.id, State::Waiting, wait::SOON).await;
    assert_eq!(
        status.attempts[0].outcome(),
        AttemptOutcome::NotSent,
        "{status:?}"
    );
    assert_eq!(stage.upstream.request_count(), 0);

    stage.sidecar.kill_nine().await;
    let ca_file = stage.upstream.write_ca_file(stage.directory());
    stage.settings = stage.settings.clone().set("UPSTREAM__CA_FILE", ca_file);
    stage.restart().await;
    stage.await_delivered([&event], wait::SOON).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn a_base_url_with_a_path_prefix_works() {
    let upstream = Upstream::start().await;
    let directory = stage::directory();
    for (index, suffix) in ["/", "/v1", "/v1/"].into_iter().enumerate() {
        let settings = Settings::new(directory.path(), &format!("{}{suffix}", upstream.url()));
        let mut sidecar = Sidecar::start(&settings).await;
        let event = TestEvent::new(format!("prefix-{index}"));
        calls::publish(&calls::client(&sidecar), event.to_proto())
            .await
            .expect("a valid event");
        calls::await_state(&calls::client(&sidecar), &event.id, State::Delivered, wait::SOON).await;
        let requests = upstream.requests();
        let path = &requests.last().expect("a delivered event was a request").path;
        let prefix = suffix.trim_end_matches('/');
        assert_eq!(
            *path,
            format!("{prefix}/projects/{}/events", e2e::settings::PROJECT),
            "{suffix}"
        );
        sidecar.kill_nine().await;
    }
}
