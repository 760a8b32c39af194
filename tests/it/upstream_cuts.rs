//! The connection upstream is cut at every byte, in both directions: nothing is lost, and what may have gone twice is flagged.
//!
//! A run steps over a few bytes at a time from a random start, so that many runs meet them all; `E2E_CUT_STEP=1` meets them in
//! one.

use std::time::Duration;

use e2e::event::TestEvent;
use e2e::fuse::Fuse;
use e2e::proxy::{Cut, Direction};
use e2e::random::Seeded;
use e2e::settings::Settings;
use e2e::stage::{self, Stage};
use e2e::upstream::Upstream;
use e2e::wait;
use embeddables_proto::events::v1::{Attempt, AttemptOutcome, EventStatus, State};
use futures_util::future::join_all;
use rand::RngExt as _;

/// Lanes that are cut side by side, each through a fuse of its own.
const LANES: usize = 4;

/// Bytes from one cut to the next.
const DEFAULT_STEP: usize = 2;

/// More than a request or an answer has over plain HTTP.
const MOST_BYTES: usize = 1_500;

fn step() -> usize {
    let step = std::env::var("E2E_CUT_STEP").ok();
    step.map_or(DEFAULT_STEP, |text| {
        text.parse().expect("E2E_CUT_STEP is a whole number")
    })
}

/// One event whose first attempt is cut.
#[derive(Clone, Copy, Debug)]
struct Case {
    lane: usize,
    cut: Cut,
}

impl Case {
    fn event(&self) -> TestEvent {
        let Cut {
            direction,
            after_bytes,
            ..
        } = self.cut;
        TestEvent::new(format!("{direction:?}-{after_bytes}")).in_project(project(self.lane))
    }
}

fn project(lane: usize) -> String {
    format!("pr_lane{lane}")
}

/// What is cut where, dealt out to the lanes.
fn cases(direction: Direction, seeded: &mut Seeded) -> Vec<Case> {
    let step = step();
    let first = seeded.source.random_range(1..=step);
    let places = (first..MOST_BYTES).step_by(step).enumerate();
    places
        .map(|(index, after_bytes)| Case {
            lane: index % LANES,
            cut: Cut {
                direction,
                after_bytes,
                reset: seeded.source.random_bool(0.5),
            },
        })
        .collect()
}

/// A stage whose lanes reach the upstream each through a fuse of its own.
async fn fused_stage(upstream: Upstream, change: impl FnOnce(Settings) -> Settings) -> (Stage, Vec<Fuse>) {
    upstream.configure(embeddables_mock::Settings::default());
    let mut fuses = Vec::new();
    for _ in 0..LANES {
        fuses.push(Fuse::start(&upstream.address()).await);
    }
    let scheme = upstream.url().split("://").next().unwrap_or_default().to_owned();
    let lines: Vec<_> = fuses
        .iter()
        .enumerate()
        .map(|(lane, fuse)| {
            (
                project(lane),
                format!("base_url = \"{scheme}://{}\"", fuse.address()),
            )
        })
        .collect();
    let stage = Stage::on(upstream, |settings| {
        let settings = settings
            .with_projects(
                lines
                    .iter()
                    .map(|(project, line)| (project.as_str(), line.as_str())),
            )
            .set("DELIVERY__RETRY_MIN", "1ms")
            .set("DELIVERY__RETRY_MAX", "5ms");
        change(settings)
    })
    .await;
    (stage, fuses)
}

/// Delivers each case's event with its connection cut on the way; gives what is told of those that were cut.
async fn deliver_all(stage: &Stage, fuses: &[Fuse], cases: &[Case]) -> Vec<(Case, EventStatus)> {
    let lanes = fuses.iter().enumerate().map(async |(lane, fuse)| {
        let mut cut = Vec::new();
        for case in cases.iter().filter(|case| case.lane == lane) {
            fuse.arm(case.cut);
            stage.publish(&case.event()).await;
            let status = stage.await_state(&case.event(), State::Delivered).await;
            if fuse.disarm() {
                cut.push((*case, status));
            }
        }
        cut
    });
    join_all(lanes).await.into_iter().flatten().collect()
}

fn outcomes(status: &EventStatus) -> Vec<AttemptOutcome> {
    status.attempts.iter().map(Attempt::outcome).collect()
}

/// Whatever was cut: the upstream has it, more than once only where that is flagged.
#[track_caller]
fn check_honest(stage: &Stage, case: &Case, status: &EventStatus) -> usize {
    let copies = stage.upstream.look(|created| created[&case.event().id].len());
    assert!(
        copies == 1 || status.possible_duplicate,
        "{case:?}: {copies} copies, {status:?}"
    );
    let attempts = outcomes(status);
    assert!(
        !attempts.contains(&AttemptOutcome::Rejected),
        "{case:?}: {status:?}"
    );
    let may_have_created = attempts
        .iter()
        .filter(|outcome| **outcome != AttemptOutcome::NotSent);
    assert!(
        may_have_created.count() >= copies,
        "{case:?}: {copies} copies, {status:?}"
    );
    copies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_cut_at_any_byte_is_flagged_and_sent_again() {
    let mut seeded = Seeded::new();
    let (stage, fuses) = fused_stage(Upstream::start().await, |settings| settings).await;
    let cases = cases(Direction::ToServer, &mut seeded);
    let cut = deliver_all(&stage, &fuses, &cases).await;
    assert!(cut.len() * step() > 300, "only {} requests were cut", cut.len());
    for (case, status) in &cut {
        let copies = check_honest(&stage, case, status);
        let expected = [AttemptOutcome::Ambiguous, AttemptOutcome::Accepted];
        let is_whole = copies == 2;
        if !is_whole || status.attempt_count > 1 {
            assert_eq!(
                outcomes(status),
                expected,
                "a byte of it had left: {case:?}: {status:?}"
            );
        }
        assert!(
            status.possible_duplicate || status.attempt_count == 1,
            "{case:?}: {status:?}"
        );
    }
    stage.drain(wait::SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_cut_at_any_byte_is_flagged_unless_its_status_had_come() {
    let mut seeded = Seeded::new();
    let (stage, fuses) = fused_stage(Upstream::start().await, |settings| settings).await;
    let cases = cases(Direction::ToClient, &mut seeded);
    let cut = deliver_all(&stage, &fuses, &cases).await;
    assert!(cut.len() * step() > 200, "only {} answers were cut", cut.len());
    let mut kept = 0;
    for (case, status) in &cut {
        let copies = check_honest(&stage, case, status);
        match outcomes(status)[..] {
            [AttemptOutcome::Accepted] => kept += 1,
            [AttemptOutcome::Ambiguous, AttemptOutcome::Accepted] => {
                assert_eq!(copies, 2, "upstream had carried it out: {case:?}: {status:?}");
            }
            _ => panic!("{case:?}: {status:?}"),
        }
    }
    assert!(
        kept > 0,
        "the status decides: an answer cut within its body is delivered"
    );
    stage.drain(wait::SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_with_tls_and_http2_that_is_cut_anywhere_is_honest_too() {
    let mut seeded = Seeded::new();
    let folder = stage::directory();
    let upstream = Upstream::start_tls().await;
    let ca_file = upstream.write_ca_file(folder.path());
    let (stage, fuses) = fused_stage(upstream, |settings| {
        settings
            .set("UPSTREAM__CA_FILE", ca_file)
            .set("DELIVERY__ATTEMPT_TIMEOUT", "2s")
    })
    .await;
    for direction in [Direction::ToServer, Direction::ToClient] {
        let some = cases(direction, &mut seeded)
            .into_iter()
            .step_by(6)
            .collect::<Vec<_>>();
        let cut = wait::within(
            "the sweep",
            Duration::from_secs(60),
            deliver_all(&stage, &fuses, &some),
        )
        .await;
        assert!(cut.len() > 5, "only {} connections were cut", cut.len());
        for (case, status) in &cut {
            check_honest(&stage, case, status);
        }
    }
    stage.drain(wait::SOON).await;
}
