//! Random calls with restarts: both backends must do what a naive model of the interface does, and exactly the same.
//!
//! A failing run prints its seed and the shrunken calls; `PROPTEST_CASES` sets how many runs there are.

#![allow(clippy::unwrap_used, reason = "helpers of tests: the panic is the failure")]

mod check;
mod naive;
mod run;
mod step;
mod stores;

use proptest::prelude::*;

use run::Run;
use step::{Step, step};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_calls_and_kills_agree_with_the_model(steps in proptest::collection::vec(step(), 1..120)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new();
            for step in steps {
                run.take_step(step).await;
            }
            run.check().await;
            run.take_step(Step::Kill).await;
            run.check().await;
        });
    }
}
