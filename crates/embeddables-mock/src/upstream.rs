//! The documented API: what a request deserves when no fault is in the way. No I/O, no clock.
//!
//! Checks in order: path (404), method (405), key (401), rate (429), size (413), content type (415), body (400), entry
//! (404 with `ENTRY_NOT_FOUND`), created (200).

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::answer::Answer;
use crate::event_body::{self, EventBody};
use crate::route::Route;
use crate::settings::{Rules, Throttled, scalar_text};

/// Header that carries the key.
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// Largest body of a request in bytes: 8 MiB.
pub(crate) const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;

/// A request, complete.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    /// Method of the request.
    pub(crate) method: &'a Method,
    /// Endpoint that its path names.
    pub(crate) route: Route<'a>,
    /// Query without `?`.
    pub(crate) query: &'a str,
    /// Headers as they came.
    pub(crate) headers: &'a HeaderMap,
    /// The whole body; `None` if it was larger than [`MAX_BODY_BYTES`].
    pub(crate) body: Option<&'a [u8]>,
    /// When it is carried out.
    pub(crate) now: Instant,
}

/// The answer to a request, and whether it created an event.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// What to say.
    pub(crate) answer: Answer,
    /// Whether an event was created.
    pub(crate) created: bool,
}

/// Carries a request out.
pub(crate) fn carry_out(rules: &Rules, call: Call<'_>) -> Outcome {
    let result = match call.route {
        Route::Events { project } => create_event(rules, project, call),
        Route::Entries { project } => list_entries(rules, project, call),
        Route::PageViews { project } => {
            check_method(call, Method::GET)
                .and_then(|()| admit(rules, project, call))
                .map(|()| json!([]))
        }
        .map(|list| Outcome {
            answer: Answer::json(StatusCode::OK, &list),
            created: false,
        }),
        Route::Unknown => Err(Answer::error(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "no such endpoint",
        )),
    };
    result.unwrap_or_else(|answer| Outcome {
        answer,
        created: false,
    })
}

/// An event as the API tells it back.
#[derive(Serialize)]
struct CreatedEvent<'a> {
    group_id: String,
    project_id: &'a str,
    embeddable_id: &'a str,
    embeddable_version_number: u32,
    contact_id: String,
    entry_id: String,
    timestamp: &'a str,
    event_type: &'static str,
    custom_event_name: &'a str,
    custom_event_props: &'a str,
}

fn create_event(rules: &Rules, project: &str, call: Call<'_>) -> Result<Outcome, Answer> {
    check_method(call, Method::POST)?;
    admit(rules, project, call)?;
    let body = call.body.ok_or_else(|| {
        let message = format!("the body is larger than {MAX_BODY_BYTES} bytes");
        Answer::error(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", &message)
    })?;
    check_content_type(call.headers)?;
    let event = event_body::read(body).map_err(|reasons| {
        let message = "the event breaks the rules listed in reasons";
        Answer::json(
            StatusCode::BAD_REQUEST,
            &json!({ "code": "INVALID_EVENT", "message": message, "reasons": reasons }),
        )
    })?;
    if !rules.entry_exists(project, &event.embeddable_id, &event.key, &event.value) {
        let message = "no entry of that Embeddable matches the identifier";
        return Err(Answer::error(StatusCode::NOT_FOUND, "ENTRY_NOT_FOUND", message));
    }
    Ok(Outcome {
        answer: Answer::json(StatusCode::OK, &created(project, &event)),
        created: true,
    })
}

/// The created event; its ids are derived, so that the same user has the same ids in every run.
fn created<'a>(project: &'a str, event: &'a EventBody) -> CreatedEvent<'a> {
    let value = scalar_text(&event.value);
    CreatedEvent {
        group_id: derived_id("group", &[project]),
        project_id: project,
        embeddable_id: &event.embeddable_id,
        embeddable_version_number: 1,
        contact_id: derived_id("contact", &[project, &event.key, &value]),
        entry_id: derived_id("entry", &[project, &event.embeddable_id, &event.key, &value]),
        timestamp: &event.timestamp,
        event_type: "custom_event:triggered",
        custom_event_name: &event.name,
        custom_event_props: &event.props,
    }
}

/// The users of a project that are configured, at most as many as `limit` asks for (default 100).
fn list_entries(rules: &Rules, project: &str, call: Call<'_>) -> Result<Outcome, Answer> {
    check_method(call, Method::GET)?;
    admit(rules, project, call)?;
    let limit = call
        .query
        .split('&')
        .find_map(|pair| pair.strip_prefix("limit="))
        .unwrap_or("100");
    let limit: usize = limit.parse().map_err(|_| {
        Answer::error(
            StatusCode::BAD_REQUEST,
            "INVALID_LIMIT",
            "limit is not a whole number",
        )
    })?;
    let list: Vec<Value> = rules
        .entries_of(project)
        .take(limit)
        .map(|entry| {
            let value = scalar_text(&entry.value);
            json!({
                "entry_id": derived_id("entry", &[project, &entry.embeddable, &entry.key, &value]),
                "contact_id": derived_id("contact", &[project, &entry.key, &value]),
                "project_id": project,
                "embeddable_id": entry.embeddable,
            })
        })
        .collect();
    Ok(Outcome {
        answer: Answer::json(StatusCode::OK, &list),
        created: false,
    })
}

fn check_method(call: Call<'_>, allowed: Method) -> Result<(), Answer> {
    if call.method == allowed {
        return Ok(());
    }
    let allow = if allowed == Method::POST { "POST" } else { "GET" };
    let message = format!("the method must be {allow}");
    Err(
        Answer::error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", &message)
            .with_header(ALLOW, HeaderValue::from_static(allow)),
    )
}

/// Checks the key, then the rate: a request with a wrong key takes nothing of it.
fn admit(rules: &Rules, project: &str, call: Call<'_>) -> Result<(), Answer> {
    check_key(rules, project, call)?;
    rules
        .admit(project, call.now)
        .map_err(|Throttled { retry_after }| {
            let message = "more requests a second than are admitted for this project";
            let mut answer = Answer::error(StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS", message);
            answer
                .headers
                .extend(retry_after.map(|value| (RETRY_AFTER, value)));
            answer
        })
}

fn check_key(rules: &Rules, project: &str, call: Call<'_>) -> Result<(), Answer> {
    let mut given = call.headers.get_all(API_KEY).iter();
    let key = given.next().and_then(|value| value.to_str().ok());
    match key {
        Some(key) if given.next().is_none() && rules.key_is_good(project, key) => Ok(()),
        _ => {
            let message = "X-Api-Key is missing, wrong or revoked";
            Err(Answer::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message))
        }
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Answer> {
    let mut given = headers.get_all(CONTENT_TYPE).iter();
    let value = given
        .next()
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (media_type, parameters) = value.split_once(';').unwrap_or((value, ""));
    let parameters = parameters.trim().to_ascii_lowercase();
    let good = media_type.trim().eq_ignore_ascii_case("application/json")
        && matches!(parameters.as_str(), "" | "charset=utf-8" | "charset=\"utf-8\"")
        && given.next().is_none();
    if good {
        return Ok(());
    }
    let message = "Content-Type must be application/json";
    Err(Answer::error(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "UNSUPPORTED_MEDIA_TYPE",
        message,
    ))
}

/// An id made of its parts by FNV-1a (64 bits): the same in every run and on every machine.
fn derived_id(prefix: &str, parts: &[&str]) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{prefix}_{hash:016x}")
}

#[cfg(test)]
mod tests;
