//! A rate as people write it: `"200/s"`, `"600/m"`, `"30/h"`.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Most events in a rate, whatever the time: beyond it a limit is none.
const MOST_EVENTS: u32 = 1_000_000;

/// Times that a rate may be given for, by the letter that names them.
const PERIODS: [(&str, Duration); 3] = [
    ("s", Duration::from_secs(1)),
    ("m", Duration::from_mins(1)),
    ("h", Duration::from_hours(1)),
];

/// So many events in so much time. What is written out reads back to exactly the same value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    events: NonZeroU32,
    period: Duration,
}

impl Rate {
    /// Events in a [`Rate::period`].
    pub fn events(self) -> NonZeroU32 {
        self.events
    }

    /// A second, a minute or an hour.
    pub fn period(self) -> Duration {
        self.period
    }

    /// Time from one event to the next, at least a microsecond.
    pub fn interval(self) -> Duration {
        self.period / self.events.get()
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |what: &str| {
            format!("`{text}` is not a rate ({what}): write for example \"200/s\", \"600/m\" or \"30/h\"")
        };
        let (number, letter) = text.split_once('/').ok_or_else(|| wrong("it has no `/`"))?;
        let period = PERIODS
            .iter()
            .find(|(name, _)| *name == letter.trim())
            .ok_or_else(|| wrong("its time is none of s, m and h"))?
            .1;
        let events = number
            .trim()
            .parse::<NonZeroU32>()
            .ok()
            .filter(|events| events.get() <= MOST_EVENTS)
            .ok_or_else(|| wrong("its number is not a whole one from 1 to 1000000"))?;
        Ok(Self { events, period })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = PERIODS
            .iter()
            .find(|(_, period)| *period == self.period)
            .map_or("s", |(letter, _)| letter);
        write!(formatter, "{}/{letter}", self.events)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, events: u32, period_secs: u64, written: &str) {
        let rate: Rate = text.parse().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            (rate.events().get(), rate.period().as_secs()),
            (events, period_secs)
        );
        assert_eq!(rate.to_string(), written);
        assert_eq!(written.parse(), Ok(rate), "{written} round trip");
    }

    #[test]
    fn a_rate_is_a_number_in_a_time() {
        check("200/s", 200, 1, "200/s");
        check("600/m", 600, 60, "600/m");
        check(" 1 / h ", 1, 3_600, "1/h");
        check("1000000/s", 1_000_000, 1, "1000000/s");
    }

    #[test]
    fn its_interval_is_never_zero() {
        let interval = |text: &str| text.parse::<Rate>().map(Rate::interval);
        assert_eq!(interval("200/s"), Ok(Duration::from_millis(5)));
        assert_eq!(interval("1000000/s"), Ok(Duration::from_micros(1)));
        assert_eq!(interval("7/h"), Ok(Duration::from_hours(1) / 7));
    }

    #[test]
    fn what_is_no_rate_is_refused_with_an_example() {
        for text in [
            "",
            "200",
            "200/",
            "/s",
            "0/s",
            "-1/s",
            "1.5/s",
            "200/d",
            "200/second",
            "1000001/s",
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.contains("\"200/s\""), "{text}: {error}");
        }
    }
}
