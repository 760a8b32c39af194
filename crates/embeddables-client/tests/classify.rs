//! The table of answers, row by row, and for every status and body.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, SystemTime};

use embeddables_client::{RETRY_AFTER_MAX, RETRY_AFTER_MIN, classify};
use embeddables_core::{Fate, Receipt, Verdict};
use http::HeaderMap;
use http::header::RETRY_AFTER;
use proptest::prelude::*;

const JSON: &[u8] = br#"{"message":"no"}"#;
const HTML: &[u8] = b"<html>no</html>";

fn of(status: u16, body: &[u8]) -> Verdict {
    classify(status, &HeaderMap::new(), body, SystemTime::UNIX_EPOCH)
}

fn retry_after(status: u16, value: &[u8]) -> Option<u64> {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let mut headers = HeaderMap::new();
    headers.insert(RETRY_AFTER, http::HeaderValue::from_bytes(value).unwrap());
    match classify(status, &headers, b"", now) {
        Verdict::Unavailable { retry_after } => retry_after.map(|pause| pause.as_secs()),
        other => panic!("{other:?}"),
    }
}

const AGAIN: Verdict = Verdict::Unavailable { retry_after: None };

#[test]
fn each_row_of_the_table_holds() {
    for status in [200, 201, 202, 204, 299] {
        assert!(
            matches!(
                of(status, HTML),
                Verdict::Delivered(Receipt { unparsed: true, .. })
            ),
            "{status}"
        );
    }
    for body in [JSON, HTML, b""] {
        assert_eq!(of(401, body), Verdict::KeyRejected);
        for status in [300, 301, 302, 303, 304, 307, 308, 399, 402, 403, 407, 421] {
            assert_eq!(of(status, body), Verdict::Refused, "{status}");
        }
        assert_eq!(of(404, body), Verdict::Refused);
        for status in [
            100, 101, 199, 408, 425, 429, 500, 501, 502, 503, 504, 505, 520, 599, 600, 999,
        ] {
            assert_eq!(of(status, body), AGAIN, "{status}");
        }
    }
    for status in [
        400, 405, 406, 409, 410, 411, 412, 413, 414, 415, 416, 417, 422, 423, 424, 426, 428, 431, 451,
    ] {
        assert_eq!(of(status, JSON), Verdict::Invalid, "{status}");
        assert_eq!(of(status, HTML), Verdict::Refused, "{status}");
        assert_eq!(of(status, b""), Verdict::Refused, "{status}");
    }
    for status in [418, 419, 420, 427, 430, 499] {
        assert_eq!(of(status, JSON), AGAIN, "{status}");
        assert_eq!(of(status, HTML), Verdict::Refused, "{status}");
    }
}

#[test]
fn the_code_is_found_where_apis_put_it() {
    let found = [
        r#"{"code":"ENTRY_NOT_FOUND"}"#,
        r#"{"error":"ENTRY_NOT_FOUND"}"#,
        r#"{"error":"ENTRY_NOT_FOUND: no entry"}"#,
        r#"{"error":{"code":"ENTRY_NOT_FOUND","message":"x"}}"#,
        r#"{"error":{"message":"ENTRY_NOT_FOUND"}}"#,
        r#"{"message":"Error (ENTRY_NOT_FOUND) at x"}"#,
        " {\"code\" : \"ENTRY_NOT_FOUND\"} ",
    ];
    for body in found {
        assert_eq!(of(404, body.as_bytes()), Verdict::EntryNotFound, "{body}");
        assert_eq!(
            of(400, body.as_bytes()),
            Verdict::Invalid,
            "only a 404 asks for it"
        );
    }
    let not_found = [
        r#"{"code":"NOT_FOUND"}"#,
        r#"{"code":"MY_ENTRY_NOT_FOUND"}"#,
        r#"{"message":"MY_ENTRY_NOT_FOUND"}"#,
        r#"{"other":"ENTRY_NOT_FOUND"}"#,
        r#"{"code":["ENTRY_NOT_FOUND"]}"#,
        r#"{"code":"ENTRY_NOT_FOUND""#,
        "ENTRY_NOT_FOUND",
        "<html>ENTRY_NOT_FOUND</html>",
    ];
    for body in not_found {
        assert_eq!(of(404, body.as_bytes()), Verdict::Refused, "{body}");
    }
}

#[test]
fn receipts_are_read_as_upstream_writes_them() {
    let body =
        r#"{"entry_id":"en_1","contact_id":"co_1","group_id":null,"embeddable_version_number":7,"x":[1]}"#;
    let expected = Receipt {
        entry_id: Some("en_1".to_owned()),
        contact_id: Some("co_1".to_owned()),
        group_id: None,
        embeddable_version_number: Some("7".to_owned()),
        unparsed: false,
    };
    assert_eq!(of(200, body.as_bytes()), Verdict::Delivered(expected));
    assert_eq!(of(200, b"{}"), Verdict::Delivered(Receipt::default()));
    let long = format!(
        r#"{{"entry_id":"{}","contact_id":"{}"}}"#,
        "e".repeat(256),
        "c".repeat(257)
    );
    let Verdict::Delivered(receipt) = of(200, long.as_bytes()) else {
        panic!("not delivered")
    };
    assert_eq!(receipt.entry_id.map(|id| id.len()), Some(256));
    assert_eq!(receipt.contact_id, None);
    for body in [&b""[..], b"ok", b"[]", b"\"x\"", b"{", b"{\"entry_id\":\"\xff\"}"] {
        assert_eq!(
            of(200, body),
            Verdict::Delivered(Receipt {
                unparsed: true,
                ..Receipt::default()
            })
        );
    }
}

#[test]
fn retry_after_is_clamped_and_read_for_429_and_503_only() {
    for status in [429, 503] {
        for (value, seconds) in [
            (&b"30"[..], 30),
            (b"0", 1),
            (b"1", 1),
            (b"3600", 3600),
            (b"3601", 3600),
            (b" 5 ", 5),
            (b"99999999999999999999999999", 3600),
            (b"Sun, 09 Sep 2001 01:47:40 GMT", 60),
            (b"Sunday, 09-Sep-01 01:47:40 GMT", 60),
            (b"Sun, 09 Sep 2001 01:46:39 GMT", 1),
            (b"Thu, 01 Jan 1970 00:00:00 GMT", 1),
            (b"Mon, 09 Sep 2002 01:46:40 GMT", 3600),
        ] {
            assert_eq!(
                retry_after(status, value),
                Some(seconds),
                "{:?}",
                String::from_utf8_lossy(value)
            );
        }
        for garbage in [
            &b""[..],
            b"soon",
            b"-5",
            b"1.5",
            b"+5",
            b"5s",
            b"\xff",
            b"Sun, 99 Sep 2001 01:46:40 GMT",
        ] {
            assert_eq!(
                retry_after(status, garbage),
                None,
                "{:?}",
                String::from_utf8_lossy(garbage)
            );
        }
    }
    for status in [408, 425, 500, 502, 504] {
        assert_eq!(retry_after(status, b"30"), None, "{status}");
    }
}

#[test]
fn fates_follow_the_status() {
    for (fate, statuses) in [
        (Fate::Accepted, &[200, 204, 299][..]),
        (
            Fate::Ambiguous,
            &[101, 408, 500, 502, 504, 506, 520, 522, 530, 599, 600],
        ),
        (
            Fate::Rejected,
            &[300, 302, 400, 401, 404, 425, 429, 499, 501, 503, 505],
        ),
    ] {
        for status in statuses {
            assert_eq!(Fate::of_status(*status), fate, "{status}");
        }
    }
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        Just(br#"{"code":"ENTRY_NOT_FOUND"}"#.to_vec()),
        "[{}\\[\\]\":,a-zA-Z_0-9 ]{0,40}".prop_map(String::into_bytes),
        any::<String>().prop_map(|text| serde_json::json!({ "message": text }).to_string().into_bytes()),
        Just(vec![b'['; 64 * 1024]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn every_answer_has_the_verdict_of_its_row(status in 100u16..1000, body in any_body(), header in prop::collection::vec(any::<u8>(), 0..40)) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = http::HeaderValue::from_bytes(&header) {
            headers.insert(RETRY_AFTER, value);
        }
        let json: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
        let verdict = classify(status, &headers, &body, SystemTime::now());
        let expected = match status {
            200..300 => "delivered",
            401 => "key_rejected",
            404 if json.as_ref().is_some_and(|json| json["code"] == "ENTRY_NOT_FOUND") => "entry_not_found",
            300..400 | 402..405 | 407 | 421 => "refused",
            408 | 425 | 429 => "unavailable",
            400..500 if json.is_none() => "refused",
            400..418 | 422..425 | 426 | 428 | 431 | 451 => "invalid",
            _ => "unavailable",
        };
        if status != 404 || json.is_none() || expected == "entry_not_found" {
            prop_assert_eq!(verdict.as_str(), expected);
        }
        if let Verdict::Unavailable { retry_after: Some(pause) } = verdict {
            prop_assert!(status == 429 || status == 503);
            prop_assert!((RETRY_AFTER_MIN..=RETRY_AFTER_MAX).contains(&pause));
        }
        prop_assert_eq!(Fate::of_status(status) == Fate::Accepted, (200..300).contains(&status));
    }
}
