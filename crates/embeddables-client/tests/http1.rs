//! HTTP/1.1 at the level of bytes: what is proven, what is ambiguous, what is bounded.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{KEY, Upstream, answer, checked, client, endpoint, read_request, send, valid_event};
use embeddables_client::{BODY_MAX_BYTES, Client, ClientConfig, ConfigError, KeyVerdict};
use embeddables_core::{Attempt, Fate, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CREATED: &str =
    r#"{"entry_id":"en_1","contact_id":"co_1","group_id":"gr_1","embeddable_version_number":"3"}"#;

#[track_caller]
fn check(attempt: &Attempt, fate: Fate, verdict: &str, status: Option<u16>) {
    assert_eq!(
        (attempt.fate, attempt.verdict.as_str(), attempt.http_status),
        (fate, verdict, status),
        "{attempt:?}"
    );
}

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
    let upstream = Upstream::answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", true).await;
    let attempt = send(&upstream.url().replace("http:", "https:")).await;
    check(&attempt, Fate::NotSent, "unavailable", None);
    assert!(attempt.detail.starts_with("TLS failure"), "{}", attempt.detail);
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_is_ambiguous() {
    let after_request = Upstream::start(|mut stream, requests| async move {
        requests.lock().unwrap().extend(read_request(&mut stream).await);
        reset(stream);
    })
    .await;
    let in_status_line = Upstream::start(|mut stream, requests| async move {
        requests.lock().unwrap().extend(read_request(&mut stream).await);
        stream.write_all(b"HTTP/1.1 200 O").await.unwrap();
    })
    .await;
    let in_headers = Upstream::start(|mut stream, requests| async move {
        requests.lock().unwrap().extend(read_request(&mut stream).await);
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
        requests.lock().unwrap().extend(read_request(&mut stream).await);
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
async fn a_redirect_is_not_followed() {
    let other = Upstream::answering(answer("200 OK", "", CREATED), false).await;
    for status in [
        "301 Moved",
        "302 Found",
        "303 See Other",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let location = format!("location: {}/projects/pr_1/events\r\n", other.url());
        let upstream = Upstream::answering(answer(status, &location, ""), false).await;
        let attempt = send(&upstream.url()).await;
        check(
            &attempt,
            Fate::Rejected,
            "refused",
            Some(status[..3].parse().unwrap()),
        );
        assert_eq!(upstream.request_count(), 1);
    }
    assert_eq!(other.request_count(), 0, "followed");
}

#[tokio::test]
async fn nothing_is_retried_behind_the_callers_back() {
    for status in [
        "408 Request Timeout",
        "429 Too Many Requests",
        "500 Oops",
        "502 Bad Gateway",
        "503 Busy",
        "504 Late",
    ] {
        let upstream = Upstream::answering(answer(status, "retry-after: 7\r\n", "{}"), false).await;
        let attempt = send(&upstream.url()).await;
        let is_pause = status.starts_with("429") || status.starts_with("503");
        let retry_after = is_pause.then_some(Duration::from_secs(7));
        assert_eq!(attempt.verdict, Verdict::Unavailable { retry_after }, "{status}");
        assert_eq!(upstream.request_count(), 1, "{status}");
    }
}

#[tokio::test]
async fn connections_are_used_again_after_any_small_answer() {
    let bodies = [
        ("200 OK", CREATED),
        ("401 No", "{}"),
        ("503 Busy", "<html>busy</html>"),
        ("404 None", "{}"),
    ];
    for (status, body) in bodies {
        let upstream = Upstream::answering(answer(status, "", body), false).await;
        let client = client(Duration::from_secs(20));
        for _ in 0..5 {
            client.send(&endpoint(&upstream.url()), &valid_event()).await;
        }
        assert_eq!(upstream.request_count(), 5);
        assert_eq!(*upstream.connections.lock().unwrap(), 1, "{status}");
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

#[tokio::test]
async fn upstreams_words_are_kept_without_what_they_echo() {
    let body = r#"{"error":"bad","got":{"value":"\"canary@test.com\"","props":"{\"diagnosis\":\"Canary-Illness\"}"},"key":"rk_c4n4ry_key"}"#;
    let upstream = Upstream::answering(answer("400 Bad Request", "", body), false).await;
    let attempt = send(&upstream.url()).await;
    check(&attempt, Fate::Rejected, "invalid", Some(400));
    let excerpt = attempt.excerpt.unwrap();
    assert!(excerpt.starts_with(r#"{"error":"bad","got":"#), "{excerpt}");
    assert_eq!(excerpt.matches("[redacted]").count(), 3, "{excerpt}");
}

#[tokio::test]
async fn an_event_of_another_project_is_not_sent() {
    let upstream = Upstream::answering(answer("200 OK", "", CREATED), false).await;
    let mut parts = valid_event().into_parts();
    parts.project_id = embeddables_core::ProjectId::parse("pr_2").unwrap();
    let other = embeddables_core::ValidEvent::from_stored(parts);
    let attempt = client(Duration::from_secs(20))
        .send(&endpoint(&upstream.url()), &other)
        .await;
    check(&attempt, Fate::NotSent, "refused", None);
    assert_eq!(upstream.request_count(), 0);
}

#[tokio::test]
async fn a_key_is_checked_without_creating_an_event() {
    let cases = [
        ("200 OK", KeyVerdict::Accepted),
        ("401 No", KeyVerdict::Rejected),
        ("503 Busy", KeyVerdict::Unclear),
    ];
    for (status, verdict) in cases {
        let upstream = Upstream::answering(answer(status, "", "[]"), false).await;
        let check = client(Duration::from_secs(20))
            .check_key(&endpoint(&upstream.url()))
            .await;
        assert_eq!(check.verdict, verdict, "{check:?}");
        let request = upstream.requests.lock().unwrap()[0].clone();
        assert!(
            request.starts_with("GET /projects/pr_1/entries?limit=1 HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains(&format!("x-api-key: {KEY}\r\n")), "{request}");
    }
}

#[tokio::test]
async fn a_proxy_is_used_only_where_it_is_configured() {
    let proxy = Upstream::answering(answer("200 OK", "", CREATED), false).await;
    let config = ClientConfig {
        proxy: Some(proxy.url()),
        ..ClientConfig::default()
    };
    let attempt = Client::new(config)
        .unwrap()
        .send(&endpoint("http://localhost:9"), &valid_event())
        .await;
    check(&attempt, Fate::Accepted, "delivered", Some(200));
    let request = proxy.requests.lock().unwrap()[0].clone();
    assert!(
        request.starts_with("POST http://localhost:9/projects/pr_1/events HTTP/1.1\r\n"),
        "{request}"
    );
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let refused = |config| Client::new(config).expect_err("made");
    let base = ClientConfig::default;
    assert!(matches!(
        refused(ClientConfig {
            attempt_timeout: Duration::ZERO,
            ..base()
        }),
        ConfigError::ZeroTimeout
    ));
    assert!(matches!(
        refused(ClientConfig {
            connect_timeout: Duration::ZERO,
            ..base()
        }),
        ConfigError::ZeroTimeout
    ));
    assert!(matches!(
        refused(ClientConfig {
            ca_pem: Some(b"no".to_vec()),
            ..base()
        }),
        ConfigError::CaBundle
    ));
    assert!(matches!(
        refused(ClientConfig {
            user_agent: "a\nb".to_owned(),
            ..base()
        }),
        ConfigError::UserAgent
    ));
    let proxy = ClientConfig {
        proxy: Some("http://user:c4n4ry@:x".to_owned()),
        ..base()
    };
    assert!(!format!("{proxy:?}").contains("c4n4ry"));
    assert!(!format!("{:?}", refused(proxy)).contains("c4n4ry"));
}

#[test]
fn the_documented_defaults_are_the_real_ones() {
    let config = ClientConfig::default();
    assert_eq!(config.connect_timeout, Duration::from_secs(5));
    assert_eq!(config.attempt_timeout, Duration::from_secs(30));
    assert_eq!(config.pool_idle_timeout, Duration::from_secs(60));
    assert_eq!(config.pool_max_idle, 64);
    assert_eq!((config.ca_pem, config.proxy), (None, None));
    assert!(config.user_agent.starts_with("embeddables-client/"));
}
