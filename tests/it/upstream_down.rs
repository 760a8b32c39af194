//! An upstream that cannot be reached: nothing was sent, so nothing is ambiguous, and everything goes once it is back.

use std::net::TcpListener;

use e2e::event::TestEvent;
use e2e::settings::Settings;
use e2e::stage::{self, Stage};
use e2e::upstream::Upstream;
use e2e::{rest, wait};
use embeddables_mock::TlsIdentity;
use embeddables_proto::events::v1::{Attempt, AttemptOutcome, EventStatus, State};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// An address that nobody listens at.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").to_string()
}

/// Asserts that an event waits and that none of its attempts can have reached anybody.
#[track_caller]
fn check_not_sent(what: &str, status: &EventStatus) {
    assert_eq!(status.reason, "UPSTREAM_UNAVAILABLE", "{what}: {status:?}");
    let mut outcomes = status.attempts.iter().map(Attempt::outcome);
    assert!(
        outcomes.all(|outcome| outcome == AttemptOutcome::NotSent),
        "{what}: {status:?}"
    );
    assert!(!status.possible_duplicate, "{what}: {status:?}");
    assert!(status.next_attempt_time.is_some(), "{what}: {status:?}");
}

/// Publishes to an upstream at `url`, sees the event wait, and gives the stage once `url` is the mock's again.
async fn check_unreachable(what: &str, change: impl FnOnce(Settings) -> Settings) {
    let mut good = None;
    let mut stage = Stage::with(|settings| {
        good = Some(settings.clone());
        change(settings.set("DELIVERY__CONNECT_TIMEOUT", "500ms"))
    })
    .await;
    let event = TestEvent::new("unreachable-1");
    stage.publish(&event).await;
    let status = stage.await_state(&event, State::Waiting).await;
    check_not_sent(what, &status);
    assert_eq!(
        rest::get(stage.sidecar.ready("ops"), "/readyz").await.status,
        200,
        "{what}"
    );
    stage.balance_books().await;
    // Time-outs before a connection is there are not ambiguous either, also not after a kill.
    stage.sidecar.kill_nine().await;
    stage.settings = good.expect("the settings were asked for");
    stage.restart().await;
    stage.await_delivered([&event], wait::SOON).await;
    stage.drain(wait::SOON).await;
}

#[tokio::test]
async fn an_upstream_that_refuses_connections_is_waited_for() {
    let url = format!("http://{}", nobody());
    check_unreachable("refused", |settings| settings.raw("EMBEDDABLES_API_URL", url)).await;
}

#[tokio::test]
async fn an_upstream_whose_name_is_unknown_is_waited_for() {
    check_unreachable("unknown name", |settings| {
        settings.raw("EMBEDDABLES_API_URL", "https://events.invalid")
    })
    .await;
}

#[tokio::test]
async fn an_upstream_that_never_accepts_is_waited_for() {
    // Nobody takes what the kernel has completed: with TLS on top, the handshake is never answered.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("https://{}", silent.local_addr().expect("an address"));
    check_unreachable("silent", |settings| settings.raw("EMBEDDABLES_API_URL", url)).await;
}

/// A certificate for this machine that was good last year, and the authority that vouches for it.
fn expired() -> (String, TlsIdentity) {
    let mut authority = CertificateParams::new(Vec::new()).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("a key");
    let issuer = CertifiedIssuer::self_signed(authority, authority_key).expect("an authority");
    let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
    leaf.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let certificate = leaf.signed_by(&key, &issuer).expect("a certificate");
    let identity = TlsIdentity {
        cert_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    };
    (issuer.pem(), identity)
}

#[tokio::test]
async fn an_upstream_whose_certificate_has_expired_gets_nothing() {
    let (authority, identity) = expired();
    let folder = stage::directory();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority).expect("a file");
    let upstream = Upstream::start_with(identity).await;
    let stage = Stage::on(upstream, |settings| settings.set("UPSTREAM__CA_FILE", ca_file)).await;
    let event = TestEvent::new("expired-1");
    stage.publish(&event).await;
    let status = stage.await_state(&event, State::Waiting).await;
    check_not_sent("expired", &status);
    assert_eq!(
        stage.upstream.request_count(),
        0,
        "no request, and no key, leaves"
    );
    stage.balance_books().await;
}

#[tokio::test]
async fn a_backlog_of_an_outage_drains_by_itself_once_upstream_is_back() {
    // The port is known before anybody listens there.
    let front = nobody();
    let stage = Stage::with(|settings| settings.raw("EMBEDDABLES_API_URL", format!("http://{front}"))).await;
    let events: Vec<_> = (0..200)
        .map(|index| TestEvent::new(format!("outage-{index}")))
        .collect();
    stage.publish_all(&events).await;
    let first = stage.await_state(&events[0], State::Waiting).await;
    check_not_sent("outage", &first);
    let _upstream_is_back = e2e::fuse::Fuse::listen(&front, &stage.upstream.address()).await;
    stage.await_delivered(&events, wait::SOON).await;
    let books = stage.drain(wait::SOON).await;
    assert_eq!((books.delivered, books.dead_lettered), (200.0, 0.0), "{books:?}");
    assert_eq!(stage.upstream.request_count(), 200, "nothing went twice");
}
