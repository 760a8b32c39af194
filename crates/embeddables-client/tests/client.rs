//! What the client does and does not do on its own: redirects, retries, connections, configuration.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::time::Duration;

use common::{CREATED, KEY, Upstream, answer, check, client, endpoint, send, valid_event};
use embeddables_client::{Client, ClientConfig, ConfigError, KeyVerdict};
use embeddables_core::{Fate, Verdict};

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
    assert_eq!(config.http2_connections, 4);
    assert_eq!((config.ca_pem, config.proxy), (None, None));
    assert!(config.user_agent.starts_with("embeddables-client/"));
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
