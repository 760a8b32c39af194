//! Which step meets which request, and which scripts are refused.

use serde_json::{Value, json};

use super::*;
use crate::faults::Truncate;
use crate::settings::MAX_WAIT_MS;

fn script(value: Value) -> FaultScript {
    serde_json::from_value(value).expect("a script")
}

/// Pushes scripts, then takes a step for each project; `0` stands for no step.
#[track_caller]
fn check(scripts: &[Value], projects: &[&str], expected: &[u16]) {
    let plan = FaultPlan::default();
    for one in scripts {
        plan.push(script(one.clone())).expect("a good script");
    }
    let found: Vec<u16> = projects
        .iter()
        .map(|project| {
            plan.take(Some(project))
                .and_then(|step| step.status)
                .unwrap_or_default()
        })
        .collect();
    assert_eq!(found, expected, "{scripts:?}");
}

#[test]
fn steps_are_taken_in_order_and_once() {
    check(
        &[json!({ "steps": [{ "status": 500 }, { "status": 503 }] })],
        &["a", "b", "a"],
        &[500, 503, 0],
    );
}

#[test]
fn times_is_the_number_of_rounds_and_zero_is_for_ever() {
    let steps = json!([{ "status": 500 }, { "status": 503 }]);
    check(
        &[json!({ "times": 2, "steps": steps })],
        &["a"; 5],
        &[500, 503, 500, 503, 0],
    );
    check(
        &[json!({ "times": null, "steps": steps })],
        &["a"; 3],
        &[500, 503, 0],
    );
    check(
        &[json!({ "times": 0, "steps": steps })],
        &["a"; 5],
        &[500, 503, 500, 503, 500],
    );
}

#[test]
fn a_script_meets_its_project_only_and_the_oldest_goes_first() {
    check(
        &[
            json!({ "project": "a", "steps": [{ "status": 500 }] }),
            json!({ "steps": [{ "status": 503 }] }),
        ],
        &["b", "a", "a"],
        &[503, 500, 0],
    );
    check(
        &[
            json!({ "steps": [{ "status": 500 }] }),
            json!({ "project": "a", "steps": [{ "status": 503 }] }),
        ],
        &["a", "b", "a"],
        &[500, 0, 503],
    );
}

#[test]
fn an_empty_script_ends_the_ones_before_it() {
    let endless = json!({ "times": 0, "steps": [{ "status": 500 }] });
    check(&[endless.clone(), json!({ "steps": [] })], &["a"], &[0]);
    check(
        &[endless.clone(), json!({ "project": "a", "steps": [] })],
        &["a"],
        &[500],
    );
    let of_a = json!({ "project": "a", "times": 0, "steps": [{ "status": 503 }] });
    check(
        &[of_a, endless, json!({ "project": "a", "steps": [] })],
        &["a"],
        &[500],
    );
}

#[test]
fn the_steps_left_are_known_unless_there_is_no_end() {
    let plan = FaultPlan::default();
    assert_eq!(plan.steps_left(), Some(0));
    plan.push(script(
        json!({ "times": 3, "steps": [{ "status": 500 }, { "status": 503 }] }),
    ))
    .expect("good");
    plan.take(None);
    assert_eq!(plan.steps_left(), Some(5));
    plan.push(FaultScript::forever([Step::status(500)]))
        .expect("good");
    assert_eq!(plan.steps_left(), None);
    plan.clear();
    assert_eq!(plan.steps_left(), Some(0));
}

#[track_caller]
fn check_refused(step: Value, expected: &str) {
    let error = FaultPlan::default()
        .push(script(json!({ "steps": [{ "status": 500 }, step] })))
        .expect_err("a step that cannot be carried out")
        .to_string();
    assert!(error.contains("steps[1]") && error.contains(expected), "{error}");
}

#[test]
fn a_step_that_cannot_be_carried_out_is_refused() {
    check_refused(json!({}), "empty");
    check_refused(json!({ "status": 199 }), "200 to 999");
    check_refused(json!({ "status": 1000 }), "200 to 999");
    check_refused(json!({ "hang_ms": 1, "status": 500 }), "alone");
    check_refused(json!({ "hang_ms": 1, "latency_ms": 1 }), "alone");
    check_refused(json!({ "reset": "after", "status": 500 }), "reset");
    check_refused(json!({ "reset": "after", "truncate": 1 }), "reset");
    check_refused(json!({ "retry_after": 1 }), "retry_after");
    check_refused(json!({ "hang_ms": MAX_WAIT_MS + 1 }), "hour");
    check_refused(json!({ "status": 503, "retry_after": "a\nb" }), "header");
    check_refused(json!({ "redirect": "a\r\nb" }), "header");
}

#[test]
fn an_unknown_field_or_value_is_refused() {
    for bad in [
        json!({ "step": [] }),
        json!({ "steps": [{ "statuss": 500 }] }),
        json!({ "steps": [{ "reset": "during" }] }),
        json!({ "steps": [{ "retry_after": [] }] }),
        json!({ "steps": [], "forever": true }),
    ] {
        assert!(
            serde_json::from_value::<FaultScript>(bad.clone()).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn a_cut_always_leaves_something_out() {
    assert_eq!(Truncate::Half(true).kept_bytes(10), Some(5));
    assert_eq!(Truncate::Half(false).kept_bytes(10), None);
    assert_eq!(Truncate::Bytes(3).kept_bytes(10), Some(3));
    assert_eq!(Truncate::Bytes(10).kept_bytes(10), Some(9));
    assert_eq!(Truncate::Bytes(0).kept_bytes(0), Some(0));
}
