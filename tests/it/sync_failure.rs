//! A sync that fails: nothing is acknowledged on it, nothing acknowledged is lost by it, and the sidecar heals.

use std::process::Stdio;

use e2e::event::TestEvent;
use e2e::sidecar::Sidecar;
use e2e::stage::Stage;
use e2e::{calls, gate, refusal, wait};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tonic::Code;

/// A tracer that makes syncs of the sidecar fail, from the moment it is attached until it is detached.
struct Tracer {
    child: Child,
}

impl Tracer {
    /// Attaches to every thread of the sidecar; `when` is strace's expression of which syncs of a thread fail.
    async fn attach(sidecar: &Sidecar, when: &str) -> Self {
        let pid = sidecar.pid().as_raw_nonzero().to_string();
        let inject = format!("inject=fsync,fdatasync:error=EIO:when={when}");
        let mut command = Command::new("strace");
        command.args([
            "-f",
            "-p",
            &pid,
            "-e",
            "trace=fsync,fdatasync",
            "-e",
            &inject,
            "-o",
            "/dev/null",
        ]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("strace can be started");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let attached = async {
            while let Some(line) = lines.next_line().await.expect("strace writes text") {
                if line.contains("attached") {
                    return;
                }
            }
            panic!("strace ended without attaching");
        };
        wait::within("strace to attach", wait::SOON, attached).await;
        // Read on, or strace would stop once the pipe is full.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child }
    }

    /// Waits until the tracer has ended because the sidecar did.
    async fn detach_after_death(mut self) {
        wait::within("strace to end", wait::SOON, self.child.wait())
            .await
            .expect("strace can be waited for");
    }

    async fn detach(mut self) {
        let pid = self
            .child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        kill_process(pid.expect("strace runs"), Signal::TERM).expect("a process of ours takes a signal");
        wait::within("strace to detach", wait::SOON, self.child.wait())
            .await
            .expect("strace can be waited for");
    }
}

fn can_trace() -> bool {
    let can = gate::is_root() && gate::has_program("strace", "-V");
    if !can {
        gate::skip("making syncs fail needs strace, and root to attach it");
    }
    can
}

/// Publishes events one after the other, each until it is taken; gives the reasons of the refusals between.
async fn publish_each_until_taken(stage: &Stage, events: &[TestEvent]) -> Vec<String> {
    let client = stage.client();
    let mut reasons = Vec::new();
    for event in events {
        wait::until("a repeat to be taken", wait::SOON, async || match calls::publish(
            &client,
            event.to_proto(),
        )
        .await
        {
            Ok(status) => Some(status),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                reasons.push(refusal::reason(&status));
                None
            }
        })
        .await;
    }
    reasons
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_one_failed_sync_the_sidecar_heals_and_repeats_are_taken_once() {
    if !can_trace() {
        return;
    }
    let mut stage = Stage::with(|settings| settings.set("DELIVERY__ENABLED", "false")).await;
    let before: Vec<_> = (0..20)
        .map(|index| TestEvent::new(format!("before-{index}")))
        .collect();
    assert_eq!(
        publish_each_until_taken(&stage, &before).await,
        Vec::<String>::new()
    );
    let tracer = Tracer::attach(&stage.sidecar, "1").await;
    let during: Vec<_> = (0..20)
        .map(|index| TestEvent::new(format!("during-{index}")))
        .collect();
    let reasons = publish_each_until_taken(&stage, &during).await;
    assert!(
        reasons.iter().any(|reason| reason == "DURABILITY_UNKNOWN"),
        "no sync failed: {reasons:?}"
    );
    tracer.detach().await;
    assert_eq!(stage.balance_books().await.accepted, 40.0);

    stage.sidecar.kill_nine().await;
    stage.settings = stage.settings.clone().set("DELIVERY__ENABLED", "true");
    stage.restart().await;
    stage
        .await_delivered(before.iter().chain(&during), wait::SOON)
        .await;
    assert_eq!(stage.drain(wait::SOON).await.delivered, 40.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_every_sync_fails_nothing_is_acknowledged_and_nothing_acknowledged_is_lost() {
    if !can_trace() {
        return;
    }
    let mut stage = Stage::new().await;
    let before: Vec<_> = (0..50)
        .map(|index| TestEvent::new(format!("before-{index}")))
        .collect();
    stage.upstream.go_down();
    publish_each_until_taken(&stage, &before).await;
    let tracer = Tracer::attach(&stage.sidecar, "1+").await;
    let client = stage.client();
    for index in 0..10 {
        let event = TestEvent::new(format!("failing-{index}"));
        let status = calls::publish(&client, event.to_proto())
            .await
            .expect_err("no sync succeeds");
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(
            ["DURABILITY_UNKNOWN", "STORAGE_REFUSED"].contains(&&*refusal::reason(&status)),
            "{status:?}"
        );
    }
    // The next life must not trust what the page cache shows of the failed writes.
    stage.sidecar.kill_nine().await;
    tracer.detach_after_death().await;
    stage.upstream.recover();
    stage.restart().await;
    stage.await_delivered(&before, wait::SOON).await;
    let after = TestEvent::new("after-1");
    publish_each_until_taken(&stage, std::slice::from_ref(&after)).await;
    stage.await_delivered([&after], wait::SOON).await;
    let books = stage.drain(wait::SOON).await;
    assert!(books.delivered >= 51.0, "{books:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_syncs_succeed_again_events_are_taken_again_without_a_restart() {
    if !can_trace() {
        return;
    }
    let stage = Stage::new().await;
    let before = TestEvent::new("before-1");
    publish_each_until_taken(&stage, std::slice::from_ref(&before)).await;
    stage.await_delivered([&before], wait::SOON).await;
    stage.drain(wait::SOON).await;
    let tracer = Tracer::attach(&stage.sidecar, "1+").await;
    let event = TestEvent::new("failing-1");
    let status = calls::publish(&stage.client(), event.to_proto())
        .await
        .expect_err("no sync succeeds");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    tracer.detach().await;
    publish_each_until_taken(&stage, std::slice::from_ref(&event)).await;
    stage.await_delivered([&event], wait::SOON).await;
    let books = stage.drain(wait::SOON).await;
    assert_eq!(books.accepted, 2.0, "{books:?}");
}
