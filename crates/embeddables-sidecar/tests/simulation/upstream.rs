//! The simulated upstream: answers by the plan, and tells the oracle of every request.
//!
//! A request that is carried out is so at its begin: what is cut after that has happened all the same.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use embeddables_client::ApiKey;
use embeddables_core::{Attempt, Fate, Receipt, Verdict};
use embeddables_sidecar::deliver::{Deliver, Parcel};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use crate::oracle::{Answered, Oracle};
use crate::plan::{Plan, Trouble};
use crate::planted::Planted;

/// Time after which a request without an answer is given up.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Keys before and after a rotation.
pub(crate) const KEYS: [&str; 2] = ["rk_first", "rk_second"];

/// Upstream of all projects.
pub(crate) struct Upstream {
    plan: Arc<Plan>,
    begin: Instant,
    oracle: Arc<Oracle>,
    planted: Option<Planted>,
    state: Mutex<State>,
}

struct State {
    random: SmallRng,
    /// Admitted lately, by lane.
    admitted: Vec<VecDeque<Instant>>,
}

impl State {
    /// Whether a throttled upstream takes another request in this second; it counts as one of them then.
    fn admit(&mut self, lane: usize, per_second: u32) -> bool {
        let now = Instant::now();
        let admitted = &mut self.admitted[lane];
        admitted.retain(|time| now - *time < Duration::from_secs(1));
        let is_admitted = admitted.len() < usize::try_from(per_second).expect("few");
        if is_admitted {
            admitted.push_back(now);
        }
        is_admitted
    }
}

/// What becomes of one request.
struct Answer {
    after: Duration,
    attempt: Attempt,
    created: bool,
}

impl Upstream {
    pub(crate) fn new(
        seed: u64,
        plan: Arc<Plan>,
        oracle: Arc<Oracle>,
        planted: Option<Planted>,
    ) -> Arc<Self> {
        Arc::new(Self {
            begin: Instant::now(),
            state: Mutex::new(State {
                random: SmallRng::seed_from_u64(seed ^ 0x5eed),
                admitted: vec![VecDeque::new(); plan.lanes.len()],
            }),
            plan,
            oracle,
            planted,
        })
    }

    /// The way upstream of one lane, in one life of the sidecar.
    pub(crate) fn service(self: &Arc<Self>, lane: usize, life: u32) -> Deliver {
        let upstream = Arc::clone(self);
        BoxCloneSyncService::new(service_fn(move |parcel: Parcel| {
            let upstream = Arc::clone(&upstream);
            async move { Ok::<_, Infallible>(upstream.serve(lane, life, &parcel).await) }
        }))
    }

    async fn serve(&self, lane: usize, life: u32, parcel: &Parcel) -> Attempt {
        let key = match self.planted {
            // The lane is not told of the new key, which is used all the same.
            Some(Planted::OldKeyHolds) => self.key_in_force(lane),
            _ => KEYS
                .iter()
                .position(|key| is_key(parcel.endpoint.api_key(), key))
                .expect("a key of the plan"),
        };
        let id = parcel.event.event_id().as_str().to_owned();
        let others = self.oracle.in_flight(lane);
        let mut answer = self.answer(lane, key, &id);
        let request = self
            .oracle
            .requested(lane, life, &id, key, &parcel.event, answer.created);
        tokio::time::sleep(answer.after).await;
        if self.planted == Some(Planted::PermitLeaked) && answer.after == ATTEMPT_TIMEOUT {
            std::future::pending::<()>().await;
        }
        if self.planted == Some(Planted::RetryAfterIgnoredUnderLoad) && others > 0 {
            self.oracle.answered(request, &Answered::of(&answer.attempt));
            if let Verdict::Unavailable { retry_after } = &mut answer.attempt.verdict {
                *retry_after = None;
            }
            return answer.attempt;
        }
        self.oracle.answered(request, &Answered::of(&answer.attempt));
        answer.attempt
    }

    /// Key in the key file now, whether upstream takes it or not.
    fn key_in_force(&self, lane: usize) -> usize {
        let rotated = self.plan.lanes[lane].rotation;
        usize::from(rotated.is_some_and(|(_, file)| self.begin.elapsed() >= file))
    }

    fn answer(&self, lane: usize, key: usize, id: &str) -> Answer {
        let at = self.begin.elapsed();
        let plan = &self.plan.lanes[lane];
        let mut state = self.state.lock().expect("the upstream");
        let mut after = Duration::from_millis(state.random.random_range(2..80));
        let coin = state.random.random_bool(0.5);
        if let Some(Trouble::Slow { most }) = plan.trouble(at) {
            after = most.mul_f64(state.random.random_range(0.0..=1.0));
        }
        let (fails, how) = (state.random.random_bool(0.5), state.random.random_range(0..3));
        let simple = |http_status, verdict| Answer {
            after,
            attempt: attempt(Some(http_status), Fate::of_status(http_status), verdict),
            created: false,
        };
        let again = |retry_after| Verdict::Unavailable { retry_after };
        match plan.trouble(at) {
            Some(Trouble::Refused) => {
                return Answer {
                    after: Duration::from_millis(1),
                    attempt: attempt(None, Fate::NotSent, again(None)),
                    created: false,
                };
            }
            Some(Trouble::Overloaded { retry_after }) => return simple(503, again(retry_after)),
            Some(Trouble::Hangs) => {
                return Answer {
                    after: ATTEMPT_TIMEOUT,
                    attempt: attempt(None, Fate::Ambiguous, again(None)),
                    created: coin && self.would_create(lane, key, id, at),
                };
            }
            Some(Trouble::Gateway) => {
                return Answer {
                    created: coin && self.would_create(lane, key, id, at),
                    ..simple(502, again(None))
                };
            }
            Some(Trouble::Forbidden) => return simple(403, Verdict::Refused),
            Some(Trouble::Flaky) if fails => {
                return match how {
                    0 => simple(503, again(None)),
                    1 => Answer {
                        created: coin && self.would_create(lane, key, id, at),
                        ..simple(500, again(None))
                    },
                    _ => Answer {
                        attempt: attempt(None, Fate::NotSent, again(None)),
                        ..simple(503, again(None))
                    },
                };
            }
            Some(Trouble::Flaky | Trouble::Slow { .. }) => {}
            Some(Trouble::Throttled {
                per_second,
                retry_after,
            }) => {
                let is_admitted = state.admit(lane, per_second);
                if !is_admitted {
                    return simple(429, again(retry_after));
                }
            }
            None => {}
        }
        if key != self.oracle.key_upstream(lane) {
            return simple(401, Verdict::KeyRejected);
        }
        let event = self.oracle.event(lane, id);
        if event.bad {
            return simple(400, Verdict::Invalid);
        }
        if !self.would_create(lane, key, id, at) {
            return simple(404, Verdict::EntryNotFound);
        }
        Answer {
            created: true,
            ..simple(200, Verdict::Delivered(receipt(id)))
        }
    }

    /// Whether the request is good and its user known.
    fn would_create(&self, lane: usize, key: usize, id: &str, at: Duration) -> bool {
        let event = self.oracle.event(lane, id);
        let appears = self.plan.lanes[lane].users[event.user].appears;
        key == self.oracle.key_upstream(lane) && !event.bad && appears.is_some_and(|appears| appears <= at)
    }
}

/// What upstream gives back of an event that it has created.
pub(crate) fn receipt(id: &str) -> Receipt {
    Receipt {
        entry_id: Some(format!("entry-of-{id}")),
        ..Receipt::default()
    }
}

fn attempt(http_status: Option<u16>, fate: Fate, verdict: Verdict) -> Attempt {
    Attempt {
        fate,
        verdict,
        http_status,
        detail: "simulated".to_owned(),
        excerpt: None,
    }
}

fn is_key(key: &ApiKey, text: &str) -> bool {
    ApiKey::parse(text).is_ok_and(|parsed| parsed == *key)
}
