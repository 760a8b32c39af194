//! Tells callers that wait for an event that it has been settled.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use embeddables_queue::Sequence;
use tokio::sync::watch;

/// Callers by the event that they wait for. Holds an entry only while somebody waits.
#[derive(Debug, Default)]
pub struct Feed {
    waiting: Mutex<HashMap<Sequence, watch::Sender<()>>>,
}

impl Feed {
    /// Announces that settlements are on disk.
    pub fn announce(&self, settled: impl IntoIterator<Item = Sequence>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.is_empty() {
            return;
        }
        for sequence in settled {
            // Dropping the sender wakes every subscriber.
            waiting.remove(&sequence);
        }
    }

    /// Subscribes to the next settlement of an event. Look at the ledger after subscribing: it may have come before.
    pub fn subscribe(&self, sequence: Sequence) -> Subscription<'_> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = waiting
            .entry(sequence)
            .or_insert_with(|| watch::Sender::new(()))
            .subscribe();
        Subscription {
            feed: self,
            sequence,
            receiver,
        }
    }
}

/// One caller's wait for one event. Dropping it ends the wait.
#[derive(Debug)]
pub struct Subscription<'a> {
    feed: &'a Feed,
    sequence: Sequence,
    receiver: watch::Receiver<()>,
}

impl Subscription<'_> {
    /// Returns at the event's next settlement.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn settled(&mut self) {
        // Nothing is ever sent: the only thing that can happen is that the sender goes.
        while self.receiver.changed().await.is_ok() {}
    }
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        let mut waiting = self.feed.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // Ours is still alive here: with no other, the entry has nobody left.
        if waiting
            .get(&self.sequence)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            waiting.remove(&self.sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_settlement_wakes_all_that_wait_for_it_and_nobody_else() {
        let feed = Feed::default();
        let (mut one, mut same) = (feed.subscribe(Sequence(1)), feed.subscribe(Sequence(1)));
        let mut other = feed.subscribe(Sequence(2));
        feed.announce([Sequence(1), Sequence(9)]);
        one.settled().await;
        same.settled().await;
        tokio::select! {
            biased;
            () = other.settled() => panic!("woken by another event's settlement"),
            () = std::future::ready(()) => {}
        }
    }

    #[tokio::test]
    async fn nothing_is_kept_for_those_who_went_away() {
        let feed = Feed::default();
        let (one, two) = (feed.subscribe(Sequence(1)), feed.subscribe(Sequence(1)));
        drop(one);
        assert_eq!(feed.waiting.lock().unwrap().len(), 1);
        drop(two);
        assert!(feed.waiting.lock().unwrap().is_empty());
    }
}
