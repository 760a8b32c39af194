//! Which fault meets which request.
//!
//! # Invariants
//! 1. A step is consumed by exactly one request, and only by one of the script's project.
//! 2. Of several scripts that match, the oldest that is not used up is served first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::faults::{FaultError, FaultScript, MAX_SCRIPTS, MAX_STEPS, Step};

/// The scripts that are not used up.
#[derive(Debug, Default)]
pub(crate) struct FaultPlan {
    scripts: Mutex<VecDeque<Running>>,
    /// Whether there is any script: spares the lock on the way of a request in normal times.
    armed: AtomicBool,
}

#[derive(Debug)]
struct Running {
    project: Option<String>,
    steps: Vec<Arc<Step>>,
    next: usize,
    /// Rounds after this one; `None` without end.
    further_rounds: Option<u64>,
}

impl Running {
    fn new(script: FaultScript) -> Self {
        let further_rounds = match script.times {
            None => Some(0),
            Some(0) => None,
            Some(times) => Some(times - 1),
        };
        let steps = script.steps.into_iter().map(Arc::new).collect();
        Self {
            project: script.project,
            steps,
            next: 0,
            further_rounds,
        }
    }

    fn matches(&self, project: Option<&str>) -> bool {
        self.project
            .as_deref()
            .is_none_or(|wanted| Some(wanted) == project)
    }

    /// The next step, and whether it was the last.
    fn take(&mut self) -> (Arc<Step>, bool) {
        let step = Arc::clone(&self.steps[self.next]);
        self.next += 1;
        if self.next < self.steps.len() {
            return (step, false);
        }
        self.next = 0;
        let is_last = self.further_rounds == Some(0);
        self.further_rounds = self.further_rounds.map(|rounds| rounds.saturating_sub(1));
        (step, is_last)
    }

    fn steps_left(&self) -> Option<u64> {
        let in_round = self.steps.len() as u64;
        Some(
            self.further_rounds?
                .saturating_mul(in_round)
                .saturating_add(in_round - self.next as u64),
        )
    }
}

impl FaultPlan {
    /// Adds a script behind the others; one without steps ends those of its project.
    pub(crate) fn push(&self, script: FaultScript) -> Result<(), FaultError> {
        for (index, step) in script.steps.iter().enumerate() {
            if let Some(objection) = step.objection() {
                return Err(FaultError::Step { index, objection });
            }
        }
        let mut scripts = self.lock();
        if script.steps.is_empty() {
            scripts.retain(|running| script.project.is_some() && running.project != script.project);
        } else if scripts.len() >= MAX_SCRIPTS || script.steps.len() > MAX_STEPS {
            return Err(FaultError::TooMany);
        } else {
            scripts.push_back(Running::new(script));
        }
        self.armed.store(!scripts.is_empty(), Ordering::Release);
        Ok(())
    }

    /// Forgets every script.
    pub(crate) fn clear(&self) {
        let mut scripts = self.lock();
        scripts.clear();
        self.armed.store(false, Ordering::Release);
    }

    /// Takes the step meant for the next request of `project`.
    pub(crate) fn take(&self, project: Option<&str>) -> Option<Arc<Step>> {
        if !self.armed.load(Ordering::Acquire) {
            return None;
        }
        let mut scripts = self.lock();
        let index = scripts.iter().position(|running| running.matches(project))?;
        let (step, is_last) = scripts[index].take();
        if is_last {
            scripts.remove(index);
        }
        self.armed.store(!scripts.is_empty(), Ordering::Release);
        Some(step)
    }

    /// How many steps wait; `None` if a script has no end.
    pub(crate) fn steps_left(&self) -> Option<u64> {
        self.lock().iter().try_fold(0_u64, |sum, running| {
            Some(sum.saturating_add(running.steps_left()?))
        })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Running>> {
        // Each change is complete before the next call that could panic.
        self.scripts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
