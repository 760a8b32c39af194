//! The numbers behind `GET /_mock/counts`.

use std::collections::BTreeMap;

use serde::Serialize;

/// Most projects counted apart; the requests of further ones count in the totals only.
const MAX_PROJECTS: usize = 10_000;

/// What the mock has seen since it started or was last reset. Control requests count nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// Complete requests: the sum of `by_status`, `unanswered` and `in_flight`.
    pub requests: u64,
    /// Requests that created an event, answered or not.
    pub created: u64,
    /// Different bodies, with their project, among the requests to create an event.
    pub distinct_event_bodies: u64,
    /// Different bodies, with their project, among the events created: `created` less the repeats.
    pub distinct_created: u64,
    /// Whether the two numbers above are exact: `false` once there were more than 10,000,000 different bodies,
    /// of which the further ones are not told apart.
    pub distinct_is_exact: bool,
    /// Requests that got no answer: reset, closed after a hang, or given up by the client.
    pub unanswered: u64,
    /// Requests whose body never arrived in full. They count nowhere else.
    pub incomplete: u64,
    /// Requests being answered now.
    pub in_flight: u64,
    /// The most requests that were being answered at once.
    pub max_in_flight: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Connections open now, including those that only carry control requests.
    pub open_connections: u64,
    /// Requests answered, by status.
    pub by_status: BTreeMap<u16, u64>,
    /// Requests by the project in their path, for the first 10,000 projects.
    pub by_project: BTreeMap<String, ProjectCounts>,
    /// Requests kept for `GET /_mock/requests`.
    pub recorded: u64,
    /// Requests that are not kept any more, or never were.
    pub not_recorded: u64,
    /// Fault steps not consumed yet; `None` (`null`) if a script has no end.
    pub fault_steps_left: Option<u64>,
}

/// The numbers of one project.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ProjectCounts {
    /// Complete requests.
    pub requests: u64,
    /// Requests that created an event, answered or not.
    pub created: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            requests: 0,
            created: 0,
            distinct_event_bodies: 0,
            distinct_created: 0,
            distinct_is_exact: true,
            unanswered: 0,
            incomplete: 0,
            in_flight: 0,
            max_in_flight: 0,
            connections: 0,
            open_connections: 0,
            by_status: BTreeMap::new(),
            by_project: BTreeMap::new(),
            recorded: 0,
            not_recorded: 0,
            fault_steps_left: Some(0),
        }
    }
}

impl Counts {
    /// Counts one more complete request, in flight.
    pub(crate) fn arrived(&mut self, project: Option<&str>, created: bool) {
        self.requests += 1;
        self.created += u64::from(created);
        self.in_flight += 1;
        self.max_in_flight = self.max_in_flight.max(self.in_flight);
        if let Some(counts) = project.and_then(|project| self.project(project)) {
            counts.requests += 1;
            counts.created += u64::from(created);
        }
    }

    /// Counts the end of a request in flight: its status, or none.
    pub(crate) fn finished(&mut self, status: Option<u16>) {
        self.in_flight -= 1;
        match status {
            Some(status) => *self.by_status.entry(status).or_default() += 1,
            None => self.unanswered += 1,
        }
    }

    fn project(&mut self, project: &str) -> Option<&mut ProjectCounts> {
        if !self.by_project.contains_key(project) {
            if self.by_project.len() >= MAX_PROJECTS {
                return None;
            }
            self.by_project
                .insert(project.to_owned(), ProjectCounts::default());
        }
        self.by_project.get_mut(project)
    }
}
