//! Telling callers what became of their calls. A caller that went away is not told; its work stands.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::command::Group;
use super::commit::{Answers, Failure, Scope};
use super::trouble::Trouble;
use crate::{AppendError, BoxError, ClaimError, SettleError};

/// One cause for several callers.
#[derive(Clone, Debug)]
struct Cause(Arc<Trouble>);

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// Answers the calls of a committed group. What was beyond the scope is refused for want of room.
pub(super) fn committed(group: Group, answers: Answers, scope: Scope) {
    for call in group.settles {
        tell(call.reply, Ok(()));
    }
    for (call, taken) in group.takes.into_iter().zip(answers.takes) {
        tell(call.reply, Ok(taken));
    }
    if scope == Scope::All {
        for (call, results) in group.appends.into_iter().zip(answers.appends) {
            tell(call.reply, Ok(results));
        }
    } else {
        for call in group.appends {
            tell(call.reply, Err(AppendError::DiskFull));
        }
    }
    let claims = group.claims.into_iter().map(|call| call.reply);
    let claims = claims.chain(group.expired.into_iter().map(|call| call.reply));
    if scope == Scope::SettlementsOnly {
        for reply in claims {
            tell(
                reply,
                Err(ClaimError::Write("no space left on the queue's volume".into())),
            );
        }
    } else {
        for (reply, claimed) in claims.zip(answers.claims.into_iter().chain(answers.expired)) {
            tell(reply, Ok(claimed));
        }
    }
    for (call, is_known) in group.lane_states.into_iter().zip(answers.lane_states) {
        let answer = if is_known {
            Ok(())
        } else {
            Err(SettleError::Write("no such lane".into()))
        };
        tell(call.reply, answer);
    }
    for reply in group.pings {
        tell(reply, ());
    }
}

/// Answers the calls of a group of which nothing was acknowledged.
pub(super) fn failed(group: Group, failure: Failure, disk_full: bool) {
    let cause = Cause(Arc::new(failure.trouble));
    let boxed = || -> BoxError { Box::new(cause.clone()) };
    for call in group.settles {
        tell(call.reply, Err(SettleError::Write(boxed())));
    }
    for call in group.takes {
        tell(call.reply, Err(SettleError::Write(boxed())));
    }
    for call in group.appends {
        let error = match (disk_full, failure.committing) {
            (true, _) => AppendError::DiskFull,
            (false, true) => AppendError::DurabilityUnknown(boxed()),
            (false, false) => AppendError::Write(boxed()),
        };
        tell(call.reply, Err(error));
    }
    for call in group.claims {
        tell(call.reply, Err(ClaimError::Write(boxed())));
    }
    for call in group.expired {
        tell(call.reply, Err(ClaimError::Write(boxed())));
    }
    for call in group.lane_states {
        tell(call.reply, Err(SettleError::Write(boxed())));
    }
    for reply in group.pings {
        tell(reply, ());
    }
}

/// Answers one caller, if it still waits.
pub(super) fn tell<T>(reply: oneshot::Sender<T>, answer: T) {
    if reply.send(answer).is_err() {
        tracing::trace!("a caller went away before its answer");
    }
}
