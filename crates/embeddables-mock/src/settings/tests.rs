//! Which settings are good, and what they make true.

use serde_json::json;

use super::*;

fn rules(settings: Value) -> Rules {
    Rules::new(serde_json::from_value(settings).expect("settings")).expect("good settings")
}

#[track_caller]
fn check(configured: Value, sent: Value, expected: bool) {
    let rules = rules(json!({
        "entries": [{ "project": "pr_1", "embeddable": "flow_1", "key": "k", "value": configured }]
    }));
    assert_eq!(
        rules.entry_exists("pr_1", "flow_1", "k", &sent),
        expected,
        "{configured} and {sent}"
    );
}

#[test]
fn entries_match_by_the_value_of_their_json() {
    check(json!("a@b.co"), json!("a@b.co"), true);
    check(json!("a@b.co"), json!("\"a@b.co\""), false);
    check(json!("a@b.co"), json!("A@b.co"), false);
    check(json!(42), json!(42.0), true);
    check(json!(42), json!("42"), false);
    check(json!(true), json!(true), true);
    check(json!(true), json!("true"), false);
    check(
        json!(9_007_199_254_740_993_u64),
        json!(9_007_199_254_740_993_u64),
        true,
    );
    check(
        json!(9_007_199_254_740_993_u64),
        json!(9_007_199_254_740_992_u64),
        false,
    );
    check(json!("\"a\""), json!("\"a\""), true);
}

#[test]
fn an_entry_belongs_to_its_project_embeddable_and_key() {
    let rules = rules(json!({
        "entries": [{ "project": "pr_1", "embeddable": "flow_1", "key": "k", "value": 1 }]
    }));
    assert!(rules.entry_exists("pr_1", "flow_1", "k", &json!(1)));
    assert!(!rules.entry_exists("pr_2", "flow_1", "k", &json!(1)));
    assert!(!rules.entry_exists("pr_1", "flow_2", "k", &json!(1)));
    assert!(!rules.entry_exists("pr_1", "flow_1", "l", &json!(1)));
}

#[test]
fn everyone_exists_by_default_but_not_by_a_double_escaped_value() {
    let rules = rules(json!({}));
    assert!(rules.entry_exists("pr_1", "flow_1", "email", &json!("a@b.co")));
    assert!(rules.entry_exists("pr_1", "flow_1", "email", &json!("\"half quoted")));
    assert!(!rules.entry_exists("pr_1", "flow_1", "email", &json!("\"a@b.co\"")));
}

#[test]
fn nobody_exists_when_told_so() {
    assert!(!rules(json!({ "any_entry": false })).entry_exists("pr_1", "flow_1", "email", &json!("a@b.co")));
}

#[test]
fn any_well_formed_key_is_good_until_one_is_configured() {
    let open = rules(json!({}));
    assert!(open.key_is_good("pr_1", "rk_a"));
    for bad in ["", "rk_", "sk_a", "RK_a", "rk_a b", "rk_é"] {
        assert!(!open.key_is_good("pr_1", bad), "{bad}");
    }
    let closed = rules(json!({ "keys": { "pr_1": ["rk_a", "rk_b"] } }));
    assert!(closed.key_is_good("pr_1", "rk_b"));
    assert!(!closed.key_is_good("pr_1", "rk_c"));
    assert!(!closed.key_is_good("pr_2", "rk_a"));
}

#[test]
fn settings_that_could_never_work_are_refused() {
    for bad in [
        json!({ "keys": { "a b": ["rk_a"] } }),
        json!({ "keys": { "pr_1": ["sk_a"] } }),
        json!({ "latency_ms": MAX_WAIT_MS + 1 }),
        json!({ "entries": [{ "project": "pr_1", "embeddable": "f", "key": "k", "value": null }] }),
    ] {
        let settings = serde_json::from_value(bad.clone()).expect("the right shape");
        assert!(Rules::new(settings).is_err(), "{bad}");
    }
}

#[track_caller]
fn check_refused(settings: Value, expected: &str) {
    let error = serde_json::from_value(settings)
        .map_err(|error| error.to_string())
        .and_then(|settings| Rules::new(settings).map_err(|error| error.to_string()))
        .expect_err("settings that make no sense");
    assert!(error.contains(expected), "{error}");
}

#[test]
fn a_rate_that_makes_no_sense_is_refused() {
    check_refused(json!({ "admit_per_second": 0 }), "nonzero");
    check_refused(json!({ "admit_per_second": -1 }), "nonzero");
    check_refused(json!({ "admit_per_second": 1, "admit_burst": 0 }), "nonzero");
    check_refused(json!({ "admit_burst": 1 }), "admit_burst needs admit_per_second");
    check_refused(
        json!({ "retry_after": "1" }),
        "retry_after needs admit_per_second",
    );
    check_refused(json!({ "admit_per_second": 1, "retry_after": "a\nb" }), "header");
}

#[test]
fn without_a_rate_everything_is_admitted() {
    let (open, now) = (rules(json!({})), Instant::now());
    assert!((0..10_000).all(|_| open.admit("pr_1", now).is_ok()));
}

#[test]
fn each_project_has_the_rate_for_itself() {
    let rules = rules(json!({ "admit_per_second": 30, "retry_after": 7 }));
    let now = Instant::now();
    let admitted = |project| (0..100).filter(|_| rules.admit(project, now).is_ok()).count();
    assert_eq!((admitted("pr_1"), admitted("pr_2"), admitted("pr_1")), (3, 3, 0));
    let refused = rules.admit("pr_1", now).expect_err("one too many");
    assert_eq!(refused.retry_after, Some(HeaderValue::from_static("7")));
}

#[test]
fn the_documented_defaults_are_the_real_ones() {
    let empty: Settings = serde_json::from_value(json!({})).expect("settings");
    assert_eq!(empty, Settings::default());
    assert!(empty.keys.is_empty() && empty.entries.is_empty() && empty.any_entry.is_none());
    assert!(empty.latency_ms == 0 && empty.record_requests);
    assert!(empty.admit_per_second.is_none() && empty.admit_burst.is_none() && empty.retry_after.is_none());
}
