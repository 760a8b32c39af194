//! TLS and HTTP/2: a private authority, and what a peer proves that it did not read.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Upstream, checked, endpoint, valid_event};
use embeddables_client::{Client, ClientConfig};
use embeddables_core::{Attempt, Fate};
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What the server does to the first request of a connection.
#[derive(Clone, Copy)]
enum Answer {
    Ok,
    Reset(h2::Reason),
    GoAwayUnread,
    GoAwayRead,
}

/// A certificate for `localhost` that is its own authority, in PEM, and TLS with it.
fn tls() -> (Vec<u8>, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    (made.cert.pem().into_bytes(), TlsAcceptor::from(Arc::new(config)))
}

async fn start(acceptor: TlsAcceptor, answer: Answer) -> Upstream {
    Upstream::start(move |stream, requests| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            serve(stream, answer, move |request| {
                requests.lock().unwrap().push(request)
            })
            .await;
        }
    })
    .await
}

async fn serve(stream: TlsStream<tokio::net::TcpStream>, answer: Answer, log: impl Fn(String)) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    if matches!(answer, Answer::GoAwayUnread) {
        // Names stream 0 as the last one read, whatever the client has sent by then.
        connection.abrupt_shutdown(h2::Reason::NO_ERROR);
    }
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        log(format!("{} {}", request.method(), request.uri()));
        match answer {
            Answer::Ok => {
                let head = http::Response::builder().status(200).body(()).unwrap();
                respond
                    .send_response(head, false)
                    .unwrap()
                    .send_data(Bytes::from_static(b"{}"), true)
                    .unwrap();
            }
            Answer::Reset(reason) => respond.send_reset(reason),
            Answer::GoAwayRead | Answer::GoAwayUnread => connection.abrupt_shutdown(h2::Reason::NO_ERROR),
        }
    }
}

async fn send_to(answer: Answer) -> (Attempt, Upstream) {
    let (ca_pem, acceptor) = tls();
    let upstream = start(acceptor, answer).await;
    let config = ClientConfig {
        ca_pem: Some(ca_pem),
        attempt_timeout: Duration::from_secs(20),
        ..ClientConfig::default()
    };
    let base = format!("https://localhost:{}", upstream.address.port());
    let attempt = Client::new(config)
        .unwrap()
        .send(&endpoint(&base), &valid_event())
        .await;
    (checked(attempt), upstream)
}

#[tokio::test]
async fn a_private_authority_is_trusted_and_http2_used_where_it_is_offered() {
    let (attempt, upstream) = send_to(Answer::Ok).await;
    assert_eq!(
        (attempt.fate, attempt.http_status),
        (Fate::Accepted, Some(200)),
        "{attempt:?}"
    );
    assert_eq!(upstream.request_count(), 1);
}

#[tokio::test]
async fn an_unknown_authority_is_a_tls_failure_and_not_sent() {
    let (_, acceptor) = tls();
    let upstream = start(acceptor, Answer::Ok).await;
    let base = format!("https://localhost:{}", upstream.address.port());
    let attempt = Client::new(ClientConfig::default())
        .unwrap()
        .send(&endpoint(&base), &valid_event())
        .await;
    assert_eq!(
        (attempt.fate, attempt.http_status),
        (Fate::NotSent, None),
        "{attempt:?}"
    );
    assert!(attempt.detail.starts_with("TLS failure"), "{}", attempt.detail);
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test]
async fn a_refused_stream_is_proven_unread() {
    let (attempt, upstream) = send_to(Answer::Reset(h2::Reason::REFUSED_STREAM)).await;
    assert_eq!(
        (attempt.fate, attempt.verdict.as_str()),
        (Fate::NotSent, "unavailable"),
        "{attempt:?}"
    );
    assert_eq!(upstream.request_count(), 1, "sent again in secret");
}

#[tokio::test]
async fn any_other_reset_is_ambiguous() {
    for reason in [
        h2::Reason::CANCEL,
        h2::Reason::INTERNAL_ERROR,
        h2::Reason::NO_ERROR,
        h2::Reason::ENHANCE_YOUR_CALM,
    ] {
        let (attempt, upstream) = send_to(Answer::Reset(reason)).await;
        assert_eq!(
            (attempt.fate, attempt.verdict.as_str()),
            (Fate::Ambiguous, "unavailable"),
            "{attempt:?}"
        );
        assert_eq!(upstream.request_count(), 1, "sent again in secret");
    }
}

#[tokio::test]
async fn a_goaway_below_the_stream_is_proven_unread() {
    let (attempt, _) = send_to(Answer::GoAwayUnread).await;
    assert_eq!(
        (attempt.fate, attempt.verdict.as_str()),
        (Fate::NotSent, "unavailable"),
        "{attempt:?}"
    );
}

#[tokio::test]
async fn a_goaway_at_the_stream_is_ambiguous() {
    let (attempt, upstream) = send_to(Answer::GoAwayRead).await;
    assert_eq!(
        (attempt.fate, attempt.verdict.as_str()),
        (Fate::Ambiguous, "unavailable"),
        "{attempt:?}"
    );
    assert_eq!(upstream.request_count(), 1, "sent again in secret");
}

/// Holds back all answers until so many requests are there, over connections of 100 streams each.
async fn start_crowded(acceptor: TlsAcceptor, crowd: usize) -> Upstream {
    let arrived = Arc::new(tokio::sync::Barrier::new(crowd));
    Upstream::start(move |stream, requests| {
        let (acceptor, arrived) = (acceptor.clone(), Arc::clone(&arrived));
        async move {
            let peer = stream.peer_addr().unwrap().to_string();
            let stream = acceptor.accept(stream).await.unwrap();
            let mut builder = h2::server::Builder::new();
            let handshake = builder.max_concurrent_streams(100).handshake::<_, Bytes>(stream);
            let mut connection = handshake.await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                requests.lock().unwrap().push(peer.clone());
                let arrived = Arc::clone(&arrived);
                tokio::spawn(async move {
                    arrived.wait().await;
                    let head = http::Response::builder().status(200).body(()).unwrap();
                    respond.send_response(head, true).unwrap();
                });
            }
        }
    })
    .await
}

#[tokio::test]
async fn requests_beyond_the_streams_of_a_connection_take_another() {
    let (ca_pem, acceptor) = tls();
    let upstream = start_crowded(acceptor, 256).await;
    let client = Client::new(ClientConfig {
        ca_pem: Some(ca_pem),
        ..ClientConfig::default()
    })
    .unwrap();
    let endpoint = Arc::new(endpoint(&format!(
        "https://localhost:{}",
        upstream.address.port()
    )));
    let mut attempts = tokio::task::JoinSet::new();
    for _ in 0..256 {
        let (client, endpoint) = (client.clone(), Arc::clone(&endpoint));
        attempts.spawn(async move { client.send(&endpoint, &valid_event()).await });
    }
    let attempts = attempts.join_all().await;
    assert!(attempts.iter().all(|attempt| attempt.http_status == Some(200)));
    let mut peers = upstream.requests.lock().unwrap().clone();
    assert_eq!(peers.len(), 256);
    peers.sort_unstable();
    peers.dedup();
    assert_eq!(peers.len(), 3, "{peers:?}");
    let connections = *upstream.connections.lock().unwrap();
    assert_eq!(connections, peers.len(), "none was opened in vain");
}
