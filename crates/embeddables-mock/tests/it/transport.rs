//! TLS with ALPN, many requests at once, and the end.

use std::num::NonZeroU32;

use embeddables_mock::{
    FaultScript, Mock, MockConfig, ResetPoint, Settings, Step, TlsIdentity, self_signed_tls,
};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{
    BOTH, Client, EVENTS, Protocol, connect_tls, event_request, good_event, send_event, start, until,
};

/// A mock with TLS, and the authority to trust.
async fn start_tls() -> (Mock, String) {
    let tls = self_signed_tls().expect("a certificate");
    let config = MockConfig {
        tls: Some(tls.identity),
        ..MockConfig::default()
    };
    (Mock::start(config).await.expect("a mock"), tls.ca_pem)
}

async fn check_alpn(offered: &[&[u8]], chosen: Option<&[u8]>, protocol: Protocol) {
    let (mock, ca_pem) = start_tls().await;
    assert!(mock.url().starts_with("https://127.0.0.1:"));
    let stream = connect_tls(mock.addr(), &ca_pem, offered)
        .await
        .expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
    let mut client = Client::over(stream, protocol).await;
    let reply = client
        .send(event_request(mock.addr(), EVENTS, &good_event()))
        .await
        .expect("an answer");
    assert_eq!(reply.status, 200);
    mock.shutdown().await;
}

#[tokio::test]
async fn tls_speaks_what_the_client_offers_and_prefers_http2() {
    check_alpn(&[b"http/1.1", b"h2"], Some(b"h2"), Protocol::Http2).await;
    check_alpn(&[b"http/1.1"], Some(b"http/1.1"), Protocol::Http1).await;
    check_alpn(&[], None, Protocol::Http1).await;
}

#[tokio::test]
async fn a_reset_goes_through_tls() {
    let (mock, ca_pem) = start_tls().await;
    mock.push_faults(FaultScript::once([Step::reset(ResetPoint::Before)]))
        .expect("a good step");
    let stream = connect_tls(mock.addr(), &ca_pem, &[b"http/1.1"])
        .await
        .expect("a handshake");
    let mut client = Client::over(stream, Protocol::Http1).await;
    client
        .send(event_request(mock.addr(), EVENTS, &good_event()))
        .await
        .expect_err("no answer");
    assert_eq!(mock.counts().unanswered, 1);
    mock.shutdown().await;
}

#[tokio::test]
async fn a_failed_handshake_leaves_the_listener_alive() {
    let (mock, ca_pem) = start_tls().await;
    let other = self_signed_tls().expect("a certificate");
    connect_tls(mock.addr(), &other.ca_pem, &[])
        .await
        .expect_err("an unknown authority");
    drop(TcpStream::connect(mock.addr()).await.expect("a connection"));
    connect_tls(mock.addr(), &ca_pem, &[]).await.expect("a handshake");
    mock.shutdown().await;
}

#[tokio::test]
async fn a_certificate_or_key_that_is_no_good_is_refused_at_start() {
    let good = self_signed_tls().expect("a certificate").identity;
    let other = self_signed_tls().expect("a certificate").identity;
    for tls in [
        TlsIdentity {
            cert_pem: String::new(),
            ..good.clone()
        },
        TlsIdentity {
            key_pem: "no key".into(),
            ..good.clone()
        },
        TlsIdentity {
            key_pem: other.key_pem,
            ..good
        },
    ] {
        let error = Mock::start(MockConfig {
            tls: Some(tls),
            ..MockConfig::default()
        })
        .await
        .expect_err("refused");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
    }
}

/// How many requests a new HTTP/2 connection may carry at once, as the mock announces it.
async fn announced_streams(mock: &Mock) -> usize {
    let stream = TcpStream::connect(mock.addr()).await.expect("a connection");
    let (mut sender, connection) = h2::client::handshake(stream).await.expect("a handshake");
    let driver = tokio::spawn(connection);
    let url = format!("{}/_mock/counts", mock.url());
    let request = hyper::Request::get(url).body(()).expect("a request");
    let (answer, _stream) = sender.send_request(request, true).expect("sent");
    // The settings come before the first answer.
    assert_eq!(answer.await.expect("an answer").status(), 200);
    let streams = sender.current_max_send_streams();
    driver.abort();
    streams
}

#[tokio::test]
async fn new_connections_carry_as_many_requests_at_once_as_configured() {
    let mock = start().await;
    assert_eq!(announced_streams(&mock).await, 1_000);
    let settings = Settings {
        max_streams: NonZeroU32::new(100).expect("not zero"),
        ..Settings::default()
    };
    mock.configure(settings).expect("good settings");
    assert_eq!(announced_streams(&mock).await, 100);
    mock.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_are_all_counted() {
    for protocol in BOTH {
        let mock = start().await;
        let addr = mock.addr();
        let mut senders = JoinSet::new();
        for sender in 0..8 {
            let mut client = Client::connect(&mock, protocol).await;
            senders.spawn(async move {
                for number in 0..100 {
                    let mut body = good_event();
                    body["custom_event_props"] = format!("{{\"n\":{}}}", sender * 100 + number).into();
                    let reply = client
                        .send(event_request(addr, EVENTS, &body))
                        .await
                        .expect("an answer");
                    assert_eq!(reply.status, 200);
                }
            });
        }
        senders.join_all().await;
        let counts = mock.counts();
        assert_eq!(
            (counts.requests, counts.created, counts.distinct_created),
            (800, 800, 800)
        );
        assert_eq!((counts.in_flight, counts.connections), (0, 8));
        assert!((1..=8).contains(&counts.max_in_flight));
        let numbers: Vec<u64> = mock.requests().iter().map(|request| request.number).collect();
        assert_eq!(numbers, (1..=800).collect::<Vec<_>>());
        mock.shutdown().await;
    }
}

#[tokio::test]
async fn after_a_shutdown_nobody_listens() {
    for protocol in BOTH {
        let mock = start().await;
        let addr = mock.addr();
        let idle = Client::connect(&mock, protocol).await;
        send_event(&mock, protocol).await.expect("an answer");
        mock.shutdown().await;
        TcpStream::connect(addr).await.expect_err("nobody listens");
        drop(idle);
    }
}

#[tokio::test]
async fn connections_are_counted_while_they_are_open() {
    let mock = start().await;
    let client = Client::connect(&mock, Protocol::Http1).await;
    until(&mock, |counts| counts.open_connections == 1).await;
    drop(client);
    let counts = until(&mock, |counts| counts.open_connections == 0).await;
    assert_eq!(counts.connections, 1);
    mock.shutdown().await;
}
