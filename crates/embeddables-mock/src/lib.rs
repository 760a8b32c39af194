//! Mock of the Embeddables events API with faults on demand.
