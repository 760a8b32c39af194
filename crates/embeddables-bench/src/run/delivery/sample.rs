//! Looks at the mock's counts as time goes by.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::run::mock::{Mock, MockCounts};

/// Counts and when they were read.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// When the answer came.
    pub(crate) at: Instant,
    /// What it said.
    pub(crate) counts: MockCounts,
}

impl Sample {
    /// Reads the counts now.
    pub(crate) async fn take(mock: &Mock) -> anyhow::Result<Self> {
        let counts = mock.counts().await?;
        let at = Instant::now();
        Ok(Self { at, counts })
    }

    /// Seconds from an earlier sample to this one.
    pub(crate) fn seconds_since(&self, earlier: &Self) -> f64 {
        (self.at - earlier.at).as_secs_f64()
    }

    /// Events created a second since an earlier sample.
    pub(crate) fn created_per_second(&self, earlier: &Self) -> f64 {
        (self.counts.created - earlier.counts.created) as f64 / self.seconds_since(earlier)
    }
}

/// Does some work and reads the counts every so often meanwhile.
pub(crate) async fn watch<T>(
    mock: &Mock,
    every: Duration,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, Vec<Sample>)> {
    let mut samples = Vec::new();
    let mut work = pin!(work);
    loop {
        let look = async {
            let sample = Sample::take(mock).await;
            sleep(every).await;
            sample
        };
        tokio::select! {
            done = &mut work => return Ok((done?, samples)),
            sample = look => samples.push(sample?),
        }
    }
}

/// Reads the counts every so often until they are as wanted; the last ones where that takes too long.
pub(crate) async fn until(
    mock: &Mock,
    every: Duration,
    longest: Duration,
    wanted: impl Fn(&MockCounts) -> bool,
) -> anyhow::Result<Sample> {
    let start = Instant::now();
    loop {
        let sample = Sample::take(mock).await?;
        if wanted(&sample.counts) || sample.at - start > longest {
            return Ok(sample);
        }
        sleep(every).await;
    }
}
