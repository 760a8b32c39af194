//! HTTP client of the Embeddables events API: one call, one classified outcome.
