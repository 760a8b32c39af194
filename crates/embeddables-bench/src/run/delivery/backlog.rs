//! A sidecar that has accepted events with deliveries switched off, and is then started again to deliver them.

use super::Context;
use super::reading::require;
use super::stage::{Setup, Stage};
use crate::run::generator::Load;

/// Events a call while the backlog is accepted.
const BATCH: u32 = 100;
/// Longest time to accept it, in seconds.
const LONGEST_SECONDS: f64 = 600.0;

/// A sidecar that has just become ready, with so much to deliver.
#[derive(Debug)]
pub(super) struct Backlog {
    /// It and its upstream.
    pub(super) stage: Stage,
    /// Events that were accepted, all of the first project.
    pub(super) accepted: u64,
    /// Where the load failed.
    pub(super) faults: Vec<String>,
}

impl Backlog {
    /// Accepts the events, in whole batches, and starts the sidecar again, delivering.
    pub(super) async fn queue(context: &Context<'_>, setup: Setup, events: u64) -> anyhow::Result<Self> {
        let setup = Setup {
            delivers: false,
            ..setup
        };
        let stage = Stage::start(context.places, setup).await?;
        let load = Load {
            batch: Some(BATCH),
            seconds: LONGEST_SECONDS,
            calls: Some(events.div_ceil(u64::from(BATCH))),
            projects: 1,
            ..Load::default()
        };
        let load = stage.publish(context.places, &load).await?;
        let mut faults = Vec::new();
        require(&mut faults, load.is_clean(), || {
            format!("the backlog was not accepted: {load:?}")
        });
        Ok(Self {
            stage: stage.restart_delivering(context.places).await?,
            accepted: load.count + load.warm_up,
            faults,
        })
    }
}
