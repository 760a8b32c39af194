//! What the lanes show of themselves, and how others speak to them: a view each and a line of commands.
//!
//! # Invariants
//! 1. A lane is changed by its own loop alone; everybody else sends a [`Command`] and reads the [`LaneView`].
//! 2. A command is answered once what it changed is on disk.

use std::collections::BTreeMap;

use embeddables_core::ProjectId;
use embeddables_queue::UnixMillis;
use tokio::sync::{mpsc, oneshot, watch};

/// Commands that wait for one lane at most.
const COMMANDS: usize = 64;

/// What a lane does with its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Condition {
    /// Sends.
    #[default]
    Open,
    /// Upstream asked for time.
    Paused,
    /// Sends nothing before the next probe.
    Held,
    /// Held, with a probe under way.
    Probing,
    /// Sends nothing for a moment: attempts failed in a row.
    BreakerOpen,
    /// One event finds out whether upstream is back.
    BreakerHalfOpen,
}

impl Condition {
    /// Every condition.
    pub const ALL: [Self; 6] = [
        Self::Open,
        Self::Paused,
        Self::Held,
        Self::Probing,
        Self::BreakerOpen,
        Self::BreakerHalfOpen,
    ];

    /// Stable word, for labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Paused => "paused",
            Self::Held => "held",
            Self::Probing => "probing",
            Self::BreakerOpen => "breaker_open",
            Self::BreakerHalfOpen => "breaker_half_open",
        }
    }
}

/// Why a lane is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HoldReason {
    /// Upstream does not accept the project's key (401).
    KeyRejected,
    /// Something on the way, or upstream itself, refuses project or route.
    Config,
    /// Upstream rejects every event, and none has ever been delivered with this configuration.
    MassRejection,
    /// An operator holds it.
    Operator,
}

impl HoldReason {
    /// Every reason.
    pub const ALL: [Self; 4] = [
        Self::KeyRejected,
        Self::Config,
        Self::MassRejection,
        Self::Operator,
    ];

    /// Stable code, as `EventStatus.reason` and the label `reason` have it; listed in `docs/errors.md`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyRejected => "KEY_REJECTED",
            Self::Config => "CONFIG",
            Self::MassRejection => "MASS_REJECTION",
            Self::Operator => "OPERATOR",
        }
    }
}

/// Why and since when a lane is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldView {
    /// The reason.
    pub reason: HoldReason,
    /// The same for a person, with what to do about it.
    pub message: String,
    /// Wall time at which it began.
    pub since: UnixMillis,
}

/// A lane as others see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneView {
    /// What it does.
    pub condition: Condition,
    /// Set while `condition` is held or probing.
    pub hold: Option<HoldView>,
    /// Wall time at which it goes on or probes, where that is known.
    pub next_try: Option<UnixMillis>,
    /// Attempts under way.
    pub in_flight: usize,
    /// Attempts that may be under way at once now.
    pub concurrency_limit: usize,
}

/// What a lane can be told.
#[derive(Debug)]
pub enum Command {
    /// Hold it until resumed; `note` is the operator's, for those who look.
    Hold {
        /// A few words.
        note: String,
        /// Told once that is on disk.
        reply: oneshot::Sender<LaneView>,
    },
    /// Lift whatever holds, pauses or breaks it.
    Resume {
        /// Told once that is on disk.
        reply: oneshot::Sender<LaneView>,
    },
    /// Do not linger for more events.
    Hurry,
}

/// The lane's own end.
#[derive(Debug)]
pub struct LanePost {
    /// Shows the lane.
    pub view: watch::Sender<LaneView>,
    /// Commands for it.
    pub commands: mpsc::Receiver<Command>,
}

/// Others' end of one lane.
#[derive(Clone, Debug)]
struct LaneLine {
    view: watch::Receiver<LaneView>,
    commands: mpsc::Sender<Command>,
}

/// Every lane of the sidecar, by project. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Board {
    lanes: std::sync::Arc<BTreeMap<ProjectId, LaneLine>>,
}

/// The lane does not run: deliveries are switched off, or the sidecar ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lane does not run")]
pub struct NotRunning;

impl Board {
    /// A board for these projects, and each lane's own end of it.
    pub fn new(projects: impl IntoIterator<Item = ProjectId>) -> (Self, BTreeMap<ProjectId, LanePost>) {
        let mut lanes = BTreeMap::new();
        let mut posts = BTreeMap::new();
        for project in projects {
            let (show, view) = watch::channel(LaneView::default());
            let (commands, queue) = mpsc::channel(COMMANDS);
            lanes.insert(project.clone(), LaneLine { view, commands });
            posts.insert(
                project,
                LanePost {
                    view: show,
                    commands: queue,
                },
            );
        }
        let board = Self {
            lanes: std::sync::Arc::new(lanes),
        };
        (board, posts)
    }

    /// Projects in order of their id.
    pub fn projects(&self) -> impl Iterator<Item = &ProjectId> {
        self.lanes.keys()
    }

    /// The lane of a project as it is now; `None` where there is none.
    pub fn view(&self, project: &ProjectId) -> Option<LaneView> {
        self.lanes.get(project).map(|lane| lane.view.borrow().clone())
    }

    /// Holds a lane.
    ///
    /// # Errors
    /// Where it does not run; nothing has changed then.
    pub async fn hold(&self, project: &ProjectId, note: String) -> Result<LaneView, NotRunning> {
        self.ask(project, |reply| Command::Hold { note, reply }).await
    }

    /// Lifts whatever keeps a lane from sending.
    ///
    /// # Errors
    /// Where it does not run; nothing has changed then.
    pub async fn resume(&self, project: &ProjectId) -> Result<LaneView, NotRunning> {
        self.ask(project, |reply| Command::Resume { reply }).await
    }

    /// Has a lane look for due events at once. A full line of commands means that it is about to.
    pub fn hurry(&self, project: &ProjectId) {
        if let Some(lane) = self.lanes.get(project)
            && lane.commands.try_send(Command::Hurry).is_err()
        {
            tracing::debug!(%project, "the lane takes no command now");
        }
    }

    async fn ask(
        &self,
        project: &ProjectId,
        command: impl FnOnce(oneshot::Sender<LaneView>) -> Command,
    ) -> Result<LaneView, NotRunning> {
        let lane = self.lanes.get(project).ok_or(NotRunning)?;
        let (reply, answer) = oneshot::channel();
        lane.commands.send(command(reply)).await.map_err(|_| NotRunning)?;
        answer.await.map_err(|_| NotRunning)
    }
}
