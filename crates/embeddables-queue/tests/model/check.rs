//! Compares both stores with the model, and with each other.

use embeddables_queue::{EntryState, Ledger as _, Sequence};

use crate::naive::Place;
use crate::run::Run;
use crate::step::{IDS, LANES};
use crate::stores::{id, lane};

impl Run {
    /// Compares everything that can be asked.
    pub(crate) async fn check(&self) {
        let mut files = std::fs::read_dir(self.dir.path()).unwrap();
        let is_damaged = files.any(|file| file.unwrap().file_name().to_string_lossy().contains("damaged"));
        assert!(!is_damaged, "the store contradicted itself and was salvaged");
        for (lane_number, id_number) in (0..LANES).flat_map(|lane| (0..IDS).map(move |id| (lane, id))) {
            let (name, id) = (lane(lane_number), id(id_number));
            let entry = self.queue().find(&name, &id).await.unwrap();
            let in_memory = self.memory.find(&name, &id).await.unwrap();
            let Some((sequence, known)) = self.model.of_id(lane_number, id_number) else {
                assert!(entry.is_none() && in_memory.is_none());
                continue;
            };
            let (entry, in_memory) = (entry.unwrap(), in_memory.unwrap());
            assert_eq!(
                (entry.sequence.0, entry.interrupted),
                (sequence, known.interrupted)
            );
            assert_eq!(
                (&entry.state, entry.interrupted, &entry.progress),
                (&in_memory.state, in_memory.interrupted, &in_memory.progress),
                "the backends differ"
            );
            let place = match entry.state {
                EntryState::Ready => Place::Ready,
                EntryState::Waiting { until } => Place::Waiting(until.0),
                EntryState::Delivered { .. } => Place::Delivered,
                EntryState::DeadLettered { .. } => Place::Dead,
                EntryState::Discarded { .. } => Place::Discarded,
                EntryState::Quarantined => panic!("nothing was damaged"),
            };
            assert_eq!(place, known.place);
        }
        self.check_books().await;
    }

    async fn check_books(&self) {
        let (books, in_memory) = (self.queue().books(), self.memory.books());
        assert_eq!(books.lanes, in_memory.lanes, "the backends differ");
        assert_eq!(
            (books.outcomes, books.newest_sequence),
            (in_memory.outcomes, in_memory.newest_sequence),
            "the backends differ"
        );
        let mut given_up = 0;
        for (name, books) in books.lanes {
            let number = (0..LANES).find(|number| lane(*number) == name).unwrap();
            let count = |wanted: fn(&Place) -> bool| {
                let here = self.model.records.values().filter(|known| known.lane == number);
                here.filter(|known| wanted(&known.place)).count() as u64
            };
            let accepted = self.model.accepted.get(&number).copied().unwrap_or(0);
            assert_eq!(books.accepted, accepted);
            assert_eq!(books.ready, count(|place| *place == Place::Ready));
            assert_eq!(books.waiting, count(|place| matches!(place, Place::Waiting(_))));
            assert_eq!(books.delivered, count(|place| *place == Place::Delivered));
            assert_eq!(books.dead_lettered, count(|place| *place == Place::Dead));
            assert_eq!(books.discarded, count(|place| *place == Place::Discarded));
            let totals = books.dead_lettered_total.iter().map(|(_, total)| total);
            given_up += totals.sum::<u64>();
            let backlog = self.queue().backlog(&name, Sequence(u64::MAX)).await.unwrap();
            assert_eq!((backlog.ready, backlog.waiting), (books.ready, books.waiting));
        }
        assert_eq!(given_up, self.model.given_up);
    }
}
