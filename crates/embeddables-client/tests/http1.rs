//! HTTP/1.1 at the level of bytes: what is proven, what is ambiguous, what is bounded.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{
    CREATED, KEY, Upstream, answer, check, checked, client, endpoint, log_request, read_request, send,
    valid_event,
};
use embeddables_client::BODY_MAX_BYTES;
use embeddables_core::{Fate, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Ends the connection with a reset instead of an orderly end.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

#[tokio::test]
async fn an_event_is_sent_as_documented_and_its_receipt_kept() {
    let upstream = Upstream::answering(
        answer("200 OK", "content-type: application/json\r\n", CREATED),
        false,
    )
    .await;
    let attempt = send(&format!("{}/v1/", upstream.url())).await;
    check(&attempt, Fate::Accepted, "delivered", Some(200));
    let Verdict::Delivered(receipt) = attempt.verdict else {
        panic!("not delivered")
    };
    assert_eq!(receipt.entry_id.as_deref(), Some("en_1"));
    assert!(!receipt.unparsed);
    assert_eq!(attempt.excerpt, None);
    let request = upstream.requests.lock().unwrap()[0].clone();
    assert!(
        request.starts_with("POST /v1/projects/pr_1/events HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains(&format!("x-api-key: {KEY}\r\n")), "{request}");
    assert!(
        request.contains("content-type: application/json\r\n"),
        "{request}"
    );
    assert!(
        request.ends_with(r#""identifiers":[{"key":"email","value":"\"canary@test.com\""}]}"#),
        "{request}"
    );
}

#[tokio::test]
async fn a_refused_connection_is_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let attempt = send(&url).await;
    check(&attempt, Fate::NotSent, "unavailable", None);
    assert_eq!(attempt.detail, "no connection: connection refused");
}

#[tokio::test]
async fn an_unknown_host_is_not_sent() {
    let attempt = send("https://nowhere.invalid").await;
    check(&attempt, Fate::NotSent, "unavailable", None);
}

#[tokio::test]
async fn plaintext_behind_https_is_a_tls_failure_and_not_sent() {
    let upstream = Upstream::start(|mut stream, _| async move {
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        // Open until the client gives up, so that it reads the answer and not a reset.
        read_request(&mut stream).await;
    })
    .await;
    let attempt = send(&upstream.url().replace("http:", "https:")).await;
    check(&attempt, Fate::NotSent, "unavailable", None);
    assert!(attempt.detail.starts_with("TLS failure"), "{}", attempt.detail);
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_is_ambiguous() {
    let after_request = Upstream::start(|mut stream, requests| async move {
        log_request(&mut stream, &requests).await;
        reset(stream);
    })
    .await;
    let in_status_line = Upstream::start(|mut stream, requests| async move {
        log_request(&mut stream, &requests).await;
        stream.write_all(b"HTTP/1.1 200 O").await.unwrap();
    })
    .await;
    let in_headers = Upstream::start(|mut stream, requests| async move {
        log_request(&mut stream, &requests).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await.unwrap();
    })
    .await;
    for upstream in [after_request, in_status_line, in_headers] {
        let attempt = send(&upstream.url()).await;
        check(&attempt, Fate::Ambiguous, "unavailable", None);
        assert_eq!(upstream.request_count(), 1, "sent again in secret");
    }
}

#[tokio::test]
async fn a_connection_lost_within_the_request_is_ambiguous() {
    let upstream = Upstream::start(|mut stream, _| async move {
        let mut first_bytes = [0; 10];
        stream.read_exact(&mut first_bytes).await.unwrap();
        reset(stream);
    })
    .await;
    check(&send(&upstream.url()).await, Fate::Ambiguous, "unavailable", None);
    assert_eq!(*upstream.connections.lock().unwrap(), 1, "sent again in secret");
}

#[tokio::test]
async fn garbage_in_place_of_http_is_ambiguous() {
    let upstream = Upstream::answering("SSH-2.0-x\r\n", true).await;
    check(&send(&upstream.url()).await, Fate::Ambiguous, "unavailable", None);
    assert_eq!(upstream.request_count(), 1);
}

#[tokio::test]
async fn silence_ends_with_the_attempts_time_and_is_ambiguous() {
    let upstream = Upstream::start(|mut stream, _| async move {
        read_request(&mut stream).await;
        read_request(&mut stream).await;
    })
    .await;
    let attempt = client(Duration::from_millis(300))
        .send(&endpoint(&upstream.url()), &valid_event())
        .await;
    check(&attempt, Fate::Ambiguous, "unavailable", None);
    assert_eq!(attempt.detail, "timed out after 300ms awaiting the answer");
}

#[tokio::test]
async fn the_status_line_decides_whatever_the_body_does() {
    let garbage = Upstream::answering(answer("200 OK", "", "<html>"), false).await;
    let truncated = Upstream::answering(
        format!("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{CREATED}"),
        true,
    )
    .await;
    let cut_chunk = Upstream::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\n{\"e",
        true,
    )
    .await;
    for (upstream, unparsed) in [(garbage, true), (truncated, false), (cut_chunk, true)] {
        let attempt = send(&upstream.url()).await;
        check(&attempt, Fate::Accepted, "delivered", Some(200));
        let Verdict::Delivered(receipt) = attempt.verdict else {
            panic!("not delivered")
        };
        assert_eq!(receipt.unparsed, unparsed);
        assert_eq!(upstream.request_count(), 1);
    }
}

#[tokio::test]
async fn a_dripping_body_ends_with_the_attempts_time() {
    let upstream = Upstream::start(|mut stream, _| async move {
        read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
            .await
            .unwrap();
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        while stream.write_all(b" ").await.is_ok() {
            tick.tick().await;
        }
    })
    .await;
    let started = tokio::time::Instant::now();
    let attempt = client(Duration::from_millis(500))
        .send(&endpoint(&upstream.url()), &valid_event())
        .await;
    check(&attempt, Fate::Accepted, "delivered", Some(200));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn at_most_64_kib_of_a_body_are_taken() {
    let huge = Upstream::start(|mut stream, requests| async move {
        log_request(&mut stream, &requests).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"entry_id\":\"e\"")
            .await
            .unwrap();
        let mut sent_bytes = 0usize;
        while stream.write_all(&[b' '; 65_536]).await.is_ok() {
            sent_bytes += 65_536;
            assert!(sent_bytes < 512 * 1024 * 1024, "read without a bound");
        }
    })
    .await;
    let attempt = send(&huge.url()).await;
    check(&attempt, Fate::Accepted, "delivered", Some(200));

    let edge = |bytes: usize| format!("{{\"entry_id\":\"e\"{}}}", " ".repeat(bytes - 16));
    for (bytes, unparsed) in [(BODY_MAX_BYTES, false), (BODY_MAX_BYTES + 1, true)] {
        let upstream = Upstream::answering(answer("200 OK", "", &edge(bytes)), false).await;
        let Verdict::Delivered(receipt) = send(&upstream.url()).await.verdict else {
            panic!("not delivered")
        };
        assert_eq!(receipt.unparsed, unparsed, "{bytes}");
    }
}

#[tokio::test]
async fn a_stale_connection_costs_no_second_request() {
    // Each connection serves one request as if it would live on, then ends.
    let upstream = Upstream::answering(answer("200 OK", "", CREATED), true).await;
    let client = client(Duration::from_secs(20));
    let mut delivered = 0;
    for _ in 0..20 {
        let attempt = checked(client.send(&endpoint(&upstream.url()), &valid_event()).await);
        delivered += usize::from(attempt.fate == Fate::Accepted);
        assert!(
            matches!(attempt.fate, Fate::Accepted | Fate::Ambiguous),
            "{attempt:?}"
        );
    }
    assert!(delivered >= 1);
    assert_eq!(
        upstream.request_count(),
        delivered,
        "as many requests as answers: none was sent twice"
    );
}
