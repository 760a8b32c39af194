//! `Retry-After`: seconds, a date, one that is past, garbage, a year. The lane pauses, from a second to an hour.

use std::time::{Duration, SystemTime};

use e2e::event::TestEvent;
use e2e::stage::Stage;
use e2e::wait;
use embeddables_mock::{FaultScript, Settings, Step};
use embeddables_proto::events::v1::State;
use jiff::Timestamp;

/// What an answer asks for, and the pause that must come of it.
struct Case {
    project: &'static str,
    status: u16,
    retry_after: String,
    pause: Pause,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pause {
    /// At least that long, and not much longer.
    Of(Duration),
    /// Until then, and not much longer.
    Until(Timestamp),
    /// None that upstream asked for: the event's own retry is enough.
    None,
    /// Cut to an hour.
    Hour,
}

/// Whole second so far from now: a date in HTTP has no fraction.
fn from_now(seconds: i64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + seconds).expect("a time in range")
}

/// A date as HTTP writes it.
fn date(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn cases() -> Vec<Case> {
    let soon = from_now(6);
    let seconds = |number| Pause::Of(Duration::from_secs(number));
    let case = |project, status, retry_after: &str, pause| Case {
        project,
        status,
        retry_after: retry_after.to_owned(),
        pause,
    };
    vec![
        case("seconds", 429, "2", seconds(2)),
        case("seconds_503", 503, "2", seconds(2)),
        case("spaces", 429, "  2  ", seconds(2)),
        case("zero", 429, "0", seconds(1)),
        case("date", 429, &date(soon), Pause::Until(soon)),
        case("date_503", 503, &date(soon), Pause::Until(soon)),
        case("past", 429, &date(from_now(-86_400)), seconds(1)),
        case("epoch", 503, "Thu, 01 Jan 1970 00:00:00 GMT", seconds(1)),
        case("word", 429, "soon", Pause::None),
        case("negative", 429, "-5", Pause::None),
        case("fraction", 503, "1.5", Pause::None),
        case("unit", 429, "2s", Pause::None),
        case("year", 429, "31536000", Pause::Hour),
        case("year_503", 503, "31536000", Pause::Hour),
        case("year_date", 429, &date(from_now(31_536_000)), Pause::Hour),
        case("digits", 429, "99999999999999999999999999", Pause::Hour),
    ]
}

fn event(case: &Case, index: usize) -> TestEvent {
    TestEvent::new(format!("{}-{index}", case.project)).in_project(case.project)
}

#[tokio::test]
async fn a_lane_pauses_for_as_long_as_upstream_asks_within_a_second_and_an_hour() {
    let cases = cases();
    let stage =
        Stage::with(|settings| settings.with_projects(cases.iter().map(|case| (case.project, "")))).await;
    stage.upstream.configure(Settings::default());
    for case in &cases {
        let step = Step::status(case.status).with_retry_after(&*case.retry_after);
        let script = FaultScript::once([step]).for_project(case.project);
        stage.upstream.push(script);
    }
    for case in &cases {
        stage.publish(&event(case, 0)).await;
    }
    // Another event of the lane, which nobody has refused, waits as long.
    for case in &cases {
        wait::until(
            format!("the first request of {}", case.project),
            wait::SOON,
            async || (!stage.upstream.tries_of(case.project).is_empty()).then_some(()),
        )
        .await;
        stage.publish(&event(case, 1)).await;
    }
    for case in cases.iter().filter(|case| case.pause != Pause::Hour) {
        check_sent_after(&stage, case).await;
    }
    for case in cases.iter().filter(|case| case.pause == Pause::Hour) {
        check_waits_an_hour(&stage, case).await;
    }
    stage.balance_books().await;
}

async fn check_sent_after(stage: &Stage, case: &Case) {
    let what = format!("{} {:?}", case.status, case.retry_after);
    stage
        .await_delivered([&event(case, 0), &event(case, 1)], wait::SOON)
        .await;
    let tries = stage.upstream.tries_of(case.project);
    assert_eq!(tries[0].status, Some(case.status), "{what}");
    let (gap, next) = (tries[1].since(&tries[0]), tries[1].time);
    let slack = Duration::from_secs(8);
    match case.pause {
        Pause::Of(pause) => assert!(gap >= pause && gap < pause + slack, "{what}: paused for {gap:?}"),
        Pause::Until(time) => assert!(
            next >= time && next < time + slack,
            "{what}: sent again at {next}"
        ),
        Pause::None | Pause::Hour => {}
    }
}

async fn check_waits_an_hour(stage: &Stage, case: &Case) {
    let what = format!("{} {:?}", case.status, case.retry_after);
    let waiting = stage.await_state(&event(case, 0), State::Waiting).await;
    let next = waiting
        .next_attempt_time
        .unwrap_or_else(|| panic!("{what}: {waiting:?}"));
    let next = SystemTime::try_from(next).expect("a time in range");
    let left = next.duration_since(SystemTime::now()).unwrap_or_default();
    let (least, most) = (Duration::from_secs(3_500), Duration::from_secs(3_610));
    assert!(left > least && left < most, "{what}: next try in {left:?}");
    assert_eq!(stage.upstream.tries_of(case.project).len(), 1, "{what}");
}
