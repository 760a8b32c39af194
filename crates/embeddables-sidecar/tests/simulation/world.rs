//! Plays a plan: lives of the sidecar's lanes, callers, operators, keys, clocks and crashes, one after the other by time.

use std::sync::Arc;
use std::time::Duration;

use embeddables_queue::memory::{MemoryConfig, MemoryQueue};
use embeddables_queue::{DeadLetters as _, Ledger as _, Sequence, Store, TakeAs};
use embeddables_sidecar::clock::Clock;
use embeddables_sidecar::dispatch::board::Board;
use embeddables_sidecar::dispatch::{Lane, LaneParts, Stop, latest_steady};
use embeddables_sidecar::settle::progress::Progress;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::caller::{Caller, Door};
use crate::clock::{LifeClock, Running, Wall};
use crate::life::{Life, endpoint, lane_name, project, settings};
use crate::oracle::Oracle;
use crate::plan::{END, Plan};
use crate::planted::Planted;
use crate::store::SimStore;
use crate::upstream::Upstream;

/// Time between two looks at the store.
const LOOK: Duration = Duration::from_secs(60);

/// What happens at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Crash(Duration),
    Jump(i64),
    KeyUpstream(usize),
    KeyFile(usize),
    Operator { lane: usize, holds: bool },
    Replay(usize),
    Look,
    End,
}

/// Plays a seed.
///
/// # Errors
/// With the first violation.
pub(crate) fn play(seed: u64, planted: Option<Planted>) -> Result<(), String> {
    match run(seed, planted).violation() {
        None => Ok(()),
        Some(violation) => Err(violation),
    }
}

/// All that happens when a seed is played.
pub(crate) fn trace(seed: u64) -> Vec<String> {
    run(seed, None).trace()
}

fn run(seed: u64, planted: Option<Planted>) -> Arc<Oracle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let world = World::new(seed, planted);
        let oracle = Arc::clone(&world.oracle);
        world.play().await;
        oracle
    })
}

struct World {
    seed: u64,
    planted: Option<Planted>,
    plan: Arc<Plan>,
    begin: Instant,
    wall: Arc<Wall>,
    oracle: Arc<Oracle>,
    upstream: Arc<Upstream>,
    /// Key in each key file.
    keys: Vec<usize>,
    door: Arc<Door>,
    /// Outcomes read so far.
    outcomes: Vec<(u64, String)>,
}

impl World {
    fn new(seed: u64, planted: Option<Planted>) -> Self {
        let plan = Arc::new(Plan::draw(seed));
        let wall = Wall::new();
        let oracle = Oracle::new(Arc::clone(&plan), Arc::clone(&wall));
        Self {
            upstream: Upstream::new(seed, Arc::clone(&plan), Arc::clone(&oracle), planted),
            keys: vec![0; plan.lanes.len()],
            begin: Instant::now(),
            door: Arc::default(),
            outcomes: Vec::new(),
            seed,
            planted,
            plan,
            wall,
            oracle,
        }
    }

    async fn play(mut self) {
        let mut life = self.start(0, None);
        let mut callers = JoinSet::new();
        for (lane, plan) in self.plan.lanes.iter().enumerate() {
            for event in &plan.events {
                let caller = Caller {
                    lane,
                    event: event.clone(),
                    begin: self.begin,
                    door: Arc::clone(&self.door),
                    oracle: Arc::clone(&self.oracle),
                };
                callers.spawn(caller.call());
            }
        }
        let mut lives = 1;
        for (at, action) in self.actions() {
            tokio::time::sleep_until(self.begin + at).await;
            if self.oracle.violation().is_some() {
                break;
            }
            match action {
                Action::Crash(down) => {
                    life = self.crash(life, down, lives).await;
                    lives += 1;
                }
                other => self.act(&mut life, other).await,
            }
        }
        callers.abort_all();
        life.end().await;
    }

    /// Everything but what callers do, by time.
    fn actions(&self) -> Vec<(Duration, Action)> {
        let mut actions: Vec<(Duration, Action)> = vec![(END, Action::End)];
        actions.extend(
            self.plan
                .crashes
                .iter()
                .map(|(at, down)| (*at, Action::Crash(*down))),
        );
        actions.extend(self.plan.jumps.iter().map(|(at, by)| (*at, Action::Jump(*by))));
        for (lane, plan) in self.plan.lanes.iter().enumerate() {
            if let Some((upstream, file)) = plan.rotation {
                actions.push((upstream, Action::KeyUpstream(lane)));
                actions.push((file, Action::KeyFile(lane)));
            }
            if let Some((from, until)) = plan.operator {
                actions.push((from, Action::Operator { lane, holds: true }));
                actions.push((until, Action::Operator { lane, holds: false }));
            }
            let resume = Action::Operator { lane, holds: false };
            actions.extend(plan.resumes.iter().map(|at| (*at, resume)));
            actions.extend(plan.replays.iter().map(|at| (*at, Action::Replay(lane))));
        }
        let looks = (1..).map(|count| LOOK * count).take_while(|at| *at < END);
        actions.extend(looks.map(|at| (at, Action::Look)));
        actions.sort();
        actions
    }

    async fn act(&mut self, life: &mut Life, action: Action) {
        match action {
            Action::Jump(by) => self.wall.jump(by),
            Action::KeyUpstream(lane) => self.oracle.rekeyed_upstream(lane),
            Action::KeyFile(lane) => {
                self.keys[lane] = 1;
                self.oracle.rekeyed(lane);
                if self.planted != Some(Planted::OldKeyHolds) {
                    life.endpoints[lane].send_replace(endpoint(lane, 1));
                }
            }
            Action::Operator { lane, holds } => self.operate(life, lane, holds).await,
            Action::Replay(lane) => self.replay(life, lane).await,
            Action::Look => self.look(life, false).await,
            Action::End => {
                self.look(life, true).await;
                self.oracle.check_outcomes(&self.outcomes);
            }
            Action::Crash(_) => unreachable!("crashes are played by themselves"),
        }
    }

    async fn operate(&self, life: &Life, lane: usize, holds: bool) {
        let project = project(lane);
        let done = async {
            if holds {
                life.board.hold(&project, String::new()).await
            } else {
                self.oracle.operated(lane, false);
                life.board.resume(&project).await
            }
        };
        // A store that refuses writes keeps an answer back for its time, and for the longest pause after it.
        match tokio::time::timeout(Duration::from_secs(120), done).await {
            Ok(Ok(_)) if holds => self.oracle.operated(lane, true),
            Ok(Ok(_)) => {}
            other => self.oracle.fail(format!("the lane did not obey: {other:?}")),
        }
    }

    /// Takes all dead letters of a lane back into the queue, as the admin service does.
    async fn replay(&self, life: &Life, lane: usize) {
        let (store, name) = (life.store.inner(), lane_name(lane));
        let letters = store.list(Some(&name), Sequence(0), usize::MAX).await;
        for letter in letters.expect("open") {
            let noted = Progress::decode_bytes(&letter.progress).expect("progress of ours");
            let progress = Progress {
                attempt_count: noted.attempt_count,
                attempts: noted.attempts,
                possible_duplicate: noted.possible_duplicate,
                replay_count: noted.replay_count + 1,
                ..Progress::default()
            };
            let take_as = TakeAs::Replay {
                progress: progress.encode_bytes(),
            };
            let taken = store.take(&[letter.sequence], take_as).await.expect("open");
            let entry = store.find(&name, &letter.id).await.expect("open");
            let entry = entry.expect("a replayed event is known");
            self.oracle.replayed(lane, &letter.id, entry.sequence, taken);
        }
    }

    /// Reads new outcomes, and looks whether everything is known.
    async fn look(&mut self, life: &Life, over: bool) {
        loop {
            let after = self.outcomes.last().map_or(0, |(number, _)| *number);
            let page = life.store.outcomes(after, 8).await.expect("open");
            if page.is_empty() {
                break;
            }
            self.outcomes.extend(
                page.into_iter()
                    .map(|outcome| (outcome.number, outcome.id.to_string())),
            );
        }
        self.oracle.check_store(life.store.inner(), over).await;
    }

    async fn crash(&mut self, life: Life, down: Duration, lives: u32) -> Life {
        let until = Instant::now() + down;
        self.oracle.crashed(until);
        life.store.inner().kill();
        self.door.close();
        let store = Arc::clone(&life.store);
        life.end().await;
        tokio::time::sleep_until(until).await;
        let life = self.start(lives, Some(&store));
        self.oracle.check_store(life.store.inner(), false).await;
        life
    }

    fn start(&self, number: u32, former: Option<&SimStore>) -> Life {
        let names: Vec<_> = (0..self.plan.lanes.len()).map(lane_name).collect();
        let config = MemoryConfig {
            clock: Running::start(),
            ..MemoryConfig::new(names.clone())
        };
        let inner = match former {
            None => MemoryQueue::new(config),
            Some(former) => former.inner().reopened(config),
        };
        let seed = self.seed.wrapping_mul(31).wrapping_add(u64::from(number));
        let store = SimStore::new(seed, inner, Arc::clone(&self.oracle), self.planted, former);
        let clock = Arc::new(LifeClock::start(&self.wall, latest_steady(&*store, &names)));
        let (board, mut posts) = Board::new((0..self.plan.lanes.len()).map(project));
        self.oracle.watch(board.clone());
        let (stop, stopped) = watch::channel(Stop::Run);
        let mut life = Life {
            store: Arc::clone(&store),
            lanes: JoinSet::new(),
            stop,
            board,
            endpoints: Vec::new(),
        };
        for lane in 0..self.plan.lanes.len() {
            let (sender, receiver) = watch::channel(endpoint(lane, self.keys[lane]));
            life.endpoints.push(sender);
            let parts = LaneParts {
                store: Arc::clone(&store) as Arc<dyn Store>,
                deliver: self.upstream.service(lane, number),
                clock: Arc::clone(&clock) as Arc<dyn Clock>,
                feed: Arc::default(),
                endpoint: receiver,
                post: posts.remove(&project(lane)).expect("its post"),
                seed: seed ^ lane as u64,
            };
            let lane = Lane::new(
                settings(lane, &self.plan.lanes[lane], self.planted, &*clock),
                parts,
            );
            life.lanes.spawn(lane.run(stopped.clone()));
        }
        self.door.open(store, clock);
        life
    }
}
