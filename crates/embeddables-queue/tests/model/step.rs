//! The steps of a run, and how they are drawn.

use proptest::prelude::*;

use crate::naive::Bounds;

pub(crate) const IDS: u8 = 12;
pub(crate) const LANES: u8 = 2;

/// One call, or a kill.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Append {
        lane: u8,
        id: u8,
        content: u8,
        deadline: Option<i64>,
    },
    Claim {
        lane: u8,
        bounds: Bounds,
    },
    Expire {
        lane: u8,
        max: usize,
        wall: i64,
    },
    /// Of the open lease that this picks; a gate that names a head names another open lease.
    Settle {
        pick: usize,
        end: End,
        gate: GateKind,
    },
    Take {
        pick: usize,
        replay: bool,
    },
    State {
        lane: u8,
        ageing: bool,
    },
    Tick(u64),
    Kill,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Deliver,
    Wait(i64),
    GiveUp,
    Release,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum GateKind {
    Pass,
    Open,
    Lead,
    Follow(Option<usize>),
    Line(Option<usize>),
}

fn settle_step() -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        2 => Just(End::Deliver),
        6 => (0..60_i64).prop_map(End::Wait),
        1 => Just(End::GiveUp),
        1 => Just(End::Release)
    ];
    let gate = prop_oneof![
        3 => Just(GateKind::Pass),
        1 => Just(GateKind::Open),
        3 => Just(GateKind::Lead),
        4 => proptest::option::of(any::<usize>()).prop_map(GateKind::Follow),
        4 => proptest::option::of(any::<usize>()).prop_map(GateKind::Line),
    ];
    (any::<usize>(), end, gate).prop_map(|(pick, end, gate)| Step::Settle { pick, end, gate })
}

/// Any step.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let bounds = (
        1..5_usize,
        0..5_usize,
        prop_oneof![Just(0), 1..=100_u8],
        0..60_i64,
    );
    let bounds = bounds.prop_map(|(max, max_waiting, live_percent, now)| Bounds {
        max,
        max_waiting,
        live_percent,
        now,
    });
    let deadline = proptest::option::weighted(0.3, 0..60_i64);
    prop_oneof![
        6 => (0..LANES, 0..IDS, 0..2_u8, deadline)
            .prop_map(|(lane, id, content, deadline)| Step::Append { lane, id, content, deadline }),
        5 => (0..LANES, bounds).prop_map(|(lane, bounds)| Step::Claim { lane, bounds }),
        1 => (0..LANES, 1..4_usize, 0..60_i64).prop_map(|(lane, max, wall)| Step::Expire { lane, max, wall }),
        9 => settle_step(),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(pick, replay)| Step::Take { pick, replay }),
        1 => (0..LANES, any::<bool>()).prop_map(|(lane, ageing)| Step::State { lane, ageing }),
        2 => (1..1_000_u64).prop_map(Step::Tick),
        1 => Just(Step::Kill),
    ]
}
