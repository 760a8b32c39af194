//! Seeded randomness that a failing test tells.

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// A source of randomness; prints its seed when a test panics.
pub struct Seeded {
    /// The source.
    pub source: StdRng,
    /// What `E2E_SEED` must be to get the same values again.
    pub seed: u64,
}

impl Seeded {
    /// Takes the seed from `E2E_SEED`, or a new one where that is not set.
    ///
    /// # Panics
    /// Where `E2E_SEED` is not a number.
    pub fn new() -> Self {
        let seed = match std::env::var("E2E_SEED") {
            Ok(text) => text.parse().expect("E2E_SEED is a whole number"),
            Err(_) => rand::random(),
        };
        Self {
            source: StdRng::seed_from_u64(seed),
            seed,
        }
    }
}

impl Default for Seeded {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("E2E_SEED={} brings these values back", self.seed);
        }
    }
}
