//! Each check of a request, in order, without a network.

use super::*;
use crate::settings::Settings;

const BODY: &str = r#"{"embeddable_id":"flow_1","timestamp":"2022-01-01T00:00:00.000Z",
    "custom_event_name":"a","custom_event_props":"{}","identifiers":[{"key":"email","value":"\"a@b.co\""}]}"#;

struct Case {
    method: Method,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    body: Option<&'static str>,
}

impl Default for Case {
    fn default() -> Self {
        let headers = vec![("x-api-key", "rk_a"), ("content-type", "application/json")];
        Self {
            method: Method::POST,
            path: "/projects/pr_1/events",
            headers,
            body: Some(BODY),
        }
    }
}

#[track_caller]
fn check(settings: Value, case: Case, status: u16, code: &str) -> Value {
    let settings: Settings = serde_json::from_value(settings).expect("settings");
    let rules = Rules::new(settings).expect("good settings");
    let mut headers = HeaderMap::new();
    for (name, value) in case.headers {
        headers.append(name, HeaderValue::from_static(value));
    }
    let (path, query) = case.path.split_once('?').unwrap_or((case.path, ""));
    let call = Call {
        method: &case.method,
        route: Route::of(path),
        query,
        headers: &headers,
        body: case.body.map(str::as_bytes),
        now: Instant::now(),
    };
    let outcome = carry_out(&rules, call);
    let body: Value = serde_json::from_slice(&outcome.answer.body).expect("a JSON answer");
    assert_eq!(outcome.answer.status, status, "{body}");
    assert_eq!(body.get("code").and_then(Value::as_str).unwrap_or(""), code);
    assert_eq!(outcome.created, code.is_empty() && case.method == Method::POST);
    body
}

#[test]
fn a_created_event_has_the_documented_fields() {
    let body = check(json!({}), Case::default(), 200, "");
    let fields: Vec<_> = body
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    let mut documented = [
        "group_id",
        "project_id",
        "embeddable_id",
        "embeddable_version_number",
        "contact_id",
        "entry_id",
        "timestamp",
        "event_type",
        "custom_event_name",
        "custom_event_props",
    ];
    documented.sort_unstable();
    assert_eq!(fields, documented);
    assert_eq!(body["event_type"], "custom_event:triggered");
    assert_eq!(
        body,
        check(json!({}), Case::default(), 200, ""),
        "ids are derived"
    );
}

#[test]
fn a_missing_wrong_foreign_or_double_key_is_401() {
    let json = ("content-type", "application/json");
    for headers in [
        vec![json],
        vec![json, ("x-api-key", "sk_a")],
        vec![json, ("x-api-key", "rk_")],
        vec![json, ("x-api-key", "rk_a"), ("x-api-key", "rk_a")],
    ] {
        check(
            json!({}),
            Case {
                headers,
                ..Case::default()
            },
            401,
            "UNAUTHORIZED",
        );
    }
    check(
        json!({ "keys": { "pr_1": ["rk_b"] } }),
        Case::default(),
        401,
        "UNAUTHORIZED",
    );
    check(
        json!({ "keys": { "pr_2": ["rk_a"] } }),
        Case::default(),
        401,
        "UNAUTHORIZED",
    );
    check(
        json!({ "keys": { "pr_1": ["rk_b", "rk_a"] } }),
        Case::default(),
        200,
        "",
    );
}

#[test]
fn one_request_too_many_is_429_after_the_key_and_before_all_else() {
    let rules = json!({ "admit_per_second": 1, "retry_after": "2", "keys": { "pr_1": ["rk_a"] } });
    let rules = Rules::new(serde_json::from_value(rules).expect("settings")).expect("good settings");
    let now = Instant::now();
    let send = |key, body: &'static str| {
        let headers = [("x-api-key", key), ("content-type", "application/json")];
        let headers =
            headers.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        carry_out(
            &rules,
            Call {
                method: &Method::POST,
                route: Route::of("/projects/pr_1/events"),
                query: "",
                headers: &headers.into_iter().collect(),
                body: Some(body.as_bytes()),
                now,
            },
        )
    };
    let status = |key, body| send(key, body).answer.status.as_u16();
    assert_eq!(status("rk_b", BODY), 401);
    assert_eq!(
        status("rk_a", "{}"),
        400,
        "a wrong key takes nothing, a wrong body does"
    );
    assert_eq!(status("rk_a", "{}"), 429);
    assert_eq!(status("rk_b", BODY), 401);
    let refused = send("rk_a", BODY);
    assert!(!refused.created);
    assert!(
        refused
            .answer
            .body
            .starts_with(b"{\"code\":\"TOO_MANY_REQUESTS\"")
    );
    let retry_after = (RETRY_AFTER, HeaderValue::from_static("2"));
    assert_eq!(refused.answer.headers, [retry_after]);
}

#[test]
fn the_content_type_is_json() {
    let key = ("x-api-key", "rk_a");
    for (content_type, status, code) in [
        ("application/json; charset=UTF-8", 200, ""),
        ("text/json", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("application/json; charset=latin1", 415, "UNSUPPORTED_MEDIA_TYPE"),
    ] {
        let case = Case {
            headers: vec![key, ("content-type", content_type)],
            ..Case::default()
        };
        check(json!({}), case, status, code);
    }
    check(
        json!({}),
        Case {
            headers: vec![key],
            ..Case::default()
        },
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    );
}

#[test]
fn wrong_path_method_size_and_body_have_their_answers() {
    check(
        json!({}),
        Case {
            path: "/projects/pr_1/event",
            ..Case::default()
        },
        404,
        "NOT_FOUND",
    );
    check(
        json!({}),
        Case {
            method: Method::PUT,
            ..Case::default()
        },
        405,
        "METHOD_NOT_ALLOWED",
    );
    check(
        json!({}),
        Case {
            body: None,
            ..Case::default()
        },
        413,
        "BODY_TOO_LARGE",
    );
    let body = check(
        json!({}),
        Case {
            body: Some("{}"),
            ..Case::default()
        },
        400,
        "INVALID_EVENT",
    );
    assert_eq!(body["reasons"].as_array().expect("reasons").len(), 5);
}

#[test]
fn an_unknown_user_is_404_with_the_documented_code() {
    check(
        json!({ "any_entry": false }),
        Case::default(),
        404,
        "ENTRY_NOT_FOUND",
    );
    let entry = json!({ "project": "pr_1", "embeddable": "flow_1", "key": "email", "value": "a@b.co" });
    check(json!({ "entries": [entry] }), Case::default(), 200, "");
}

#[test]
fn a_key_can_be_checked_by_listing_entries() {
    let list = |path| Case {
        method: Method::GET,
        path,
        ..Case::default()
    };
    let entry = json!({ "project": "pr_1", "embeddable": "flow_1", "key": "email", "value": "a@b.co" });
    let settings = json!({ "entries": [entry, entry] });
    let body = check(settings.clone(), list("/projects/pr_1/entries?limit=1"), 200, "");
    assert_eq!(body.as_array().map(Vec::len), Some(1));
    check(
        settings,
        list("/projects/pr_1/entries?limit=x"),
        400,
        "INVALID_LIMIT",
    );
    check(json!({}), list("/v1/projects/pr_1/entries-page-views"), 200, "");
    check(
        json!({ "keys": { "pr_1": [] } }),
        list("/projects/pr_1/entries"),
        401,
        "UNAUTHORIZED",
    );
    let post = Case {
        path: "/projects/pr_1/entries",
        ..Case::default()
    };
    check(json!({}), post, 405, "METHOD_NOT_ALLOWED");
}
