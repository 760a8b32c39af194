//! The two channels into the writer, and how what lies in them becomes a group.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::Receiver;

use super::command::{AppendCall, Control, Group};

/// Where calls come in.
pub(super) struct Intake {
    /// Drives the channels and their time-outs; nothing else runs on it.
    pub(super) runtime: Runtime,
    pub(super) controls: Receiver<Control>,
    pub(super) appends: Receiver<AppendCall>,
    /// Most records gathered into one group, of appends and of the rest each.
    pub(super) max_batch: usize,
    /// How long a group of appends alone waits to be filled.
    pub(super) linger: Duration,
}

/// What waiting brought.
pub(super) enum Gathered {
    /// Calls.
    Group(Box<Group>),
    /// None within the time given.
    Idle,
    /// None, and there will be no more: every handle is gone.
    Closed,
}

impl Intake {
    /// Waits for a call, takes it and what else is there. Without `patience` it waits for as long as it takes.
    pub(super) fn gather(&mut self, patience: Option<Duration>) -> Gathered {
        let mut group = Group::default();
        if !self.drain(&mut group) {
            let waited = match patience {
                None => self
                    .runtime
                    .block_on(next(&mut self.controls, &mut self.appends, &mut group)),
                Some(patience) => {
                    let Self {
                        runtime,
                        controls,
                        appends,
                        ..
                    } = self;
                    let waited = runtime.block_on(async {
                        tokio::time::timeout(patience, next(controls, appends, &mut group)).await
                    });
                    match waited {
                        Ok(open) => open,
                        Err(_elapsed) => return Gathered::Idle,
                    }
                }
            };
            if !waited {
                return Gathered::Closed;
            }
            self.drain(&mut group);
        }
        if !self.linger.is_zero() && group.only_appends() {
            self.wait_for_more(&mut group);
        }
        Gathered::Group(Box::new(group))
    }

    /// Refuses new calls and returns what had been handed over.
    pub(super) fn close(&mut self) -> Group {
        self.controls.close();
        self.appends.close();
        let mut group = Group::default();
        while let Ok(control) = self.controls.try_recv() {
            group.push(control);
        }
        while let Ok(call) = self.appends.try_recv() {
            group.push_append(call);
        }
        group
    }

    /// Takes what is there, up to the bounds; returns whether there was anything.
    fn drain(&mut self, group: &mut Group) -> bool {
        while group.control_count < self.max_batch
            && let Ok(control) = self.controls.try_recv()
        {
            group.push(control);
        }
        while group.append_count < self.max_batch
            && let Ok(call) = self.appends.try_recv()
        {
            group.push_append(call);
        }
        group.call_count > 0
    }

    fn wait_for_more(&mut self, group: &mut Group) {
        let Self {
            runtime,
            controls,
            appends,
            linger,
            max_batch,
        } = self;
        let filled = async {
            while group.append_count < *max_batch && group.only_appends() {
                if !next(controls, appends, group).await {
                    break;
                }
            }
        };
        // Running out of time is the usual end of a linger.
        if runtime
            .block_on(async { tokio::time::timeout(*linger, filled).await })
            .is_err()
        {
            tracing::trace!("linger ran out");
        }
    }
}

/// The next call of either channel, controls first; `false` once both are closed and empty.
async fn next(
    controls: &mut Receiver<Control>,
    appends: &mut Receiver<AppendCall>,
    group: &mut Group,
) -> bool {
    poll_fn(|context| {
        let control = controls.poll_recv(context);
        if let Poll::Ready(Some(control)) = control {
            group.push(control);
            return Poll::Ready(true);
        }
        match appends.poll_recv(context) {
            Poll::Ready(Some(call)) => {
                group.push_append(call);
                Poll::Ready(true)
            }
            Poll::Ready(None) if control.is_ready() => Poll::Ready(false),
            _ => Poll::Pending,
        }
    })
    .await
}
