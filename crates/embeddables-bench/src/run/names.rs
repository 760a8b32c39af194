//! Which scenarios a name picks.

use super::{comparison, delivery, store};

/// The scenarios that a name picks.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    /// The sidecar beside the null server.
    pub(crate) comparisons: Vec<comparison::scenario::Scenario>,
    /// The store alone.
    pub(crate) stores: Vec<store::Scenario>,
    /// Deliveries.
    pub(crate) deliveries: Vec<delivery::Scenario>,
}

impl Chosen {
    /// One, those whose names begin with it, or `all`.
    pub(crate) fn by(name: &str) -> Self {
        let is_exact = all_names().iter().any(|known| known == name);
        let is_chosen = |known: &str| {
            name == "all" || known == name || !is_exact && !name.is_empty() && known.starts_with(name)
        };
        Self {
            comparisons: comparison::scenario::SCENARIOS
                .into_iter()
                .filter(|scenario| is_chosen(scenario.name))
                .collect(),
            stores: store::SCENARIOS
                .into_iter()
                .filter(|scenario| is_chosen(scenario.name))
                .collect(),
            deliveries: delivery::SCENARIOS
                .into_iter()
                .filter(|scenario| is_chosen(&scenario.name()))
                .collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.comparisons.is_empty() && self.stores.is_empty() && self.deliveries.is_empty()
    }
}

fn all_names() -> Vec<String> {
    let comparisons = comparison::scenario::SCENARIOS.map(|scenario| scenario.name.to_owned());
    let stores = store::SCENARIOS.map(|scenario| scenario.name.to_owned());
    let deliveries = delivery::SCENARIOS.map(delivery::Scenario::name);
    comparisons.into_iter().chain(stores).chain(deliveries).collect()
}

/// Takes a name that picks something.
pub(crate) fn known_name(name: &str) -> Result<String, String> {
    if Chosen::by(name).is_empty() {
        let names = all_names().join(", ");
        return Err(format!(
            "there are: all, {names}, and what several of them begin with"
        ));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, comparisons: usize, stores: usize, deliveries: usize) {
        let chosen = Chosen::by(name);
        let found = [
            chosen.comparisons.len(),
            chosen.stores.len(),
            chosen.deliveries.len(),
        ];
        assert_eq!(found, [comparisons, stores, deliveries], "{name}");
    }

    #[test]
    fn a_name_picks_one_or_a_family_or_all() {
        check("all", 8, 2, 11);
        check("accept", 5, 0, 0);
        check("whole-way", 3, 0, 0);
        check("whole-way-unary-1", 1, 0, 0);
        check("accept-unary-64", 1, 0, 0);
        check("accept-stream", 1, 0, 0);
        check("store", 0, 2, 0);
        check("lanes", 0, 0, 1);
        check("latency", 0, 0, 2);
        check("latency-20ms", 0, 0, 1);
        check("throttled", 0, 0, 1);
        check("held", 0, 0, 1);
        check("offered", 0, 0, 1);
        check("drain", 0, 0, 1);
        check("busy-drain", 0, 0, 1);
        check("outage", 0, 0, 1);
        check("deep", 0, 0, 1);
        check("footprint", 0, 0, 1);
        check("nothing", 0, 0, 0);
        check("", 0, 0, 0);
    }

    #[test]
    fn an_unknown_name_is_answered_with_those_there_are() {
        let answer = known_name("nothing").expect_err("refused");
        for name in all_names() {
            assert!(answer.contains(&name), "{answer}");
        }
    }
}
