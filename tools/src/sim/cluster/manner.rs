//! What clients of a run ask for besides the ordinary, and how nodes route it. A seed's remainder decides, so that those of one manner
//! stay as they are when another is changed.

use crate::sim::cluster::Sabotage;

/// How a run differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Manner {
    /// Whether clients move values between places ([`super::shelves`]).
    pub(super) has_shelves: bool,
    /// Whether they remove everything now and then. Then nothing is asked for that relies on keys being written together, or on
    /// counters that only grow.
    pub(super) flushes: bool,
    /// Whether nodes send clients to the leaders (`cluster-routing redirect`), instead of their requests.
    pub(super) redirects: bool,
}

impl Manner {
    /// The manner of a seed, or the one in which something done wrong is to be found.
    pub(super) fn choose(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let ordinary = Self::default();
        let shelves = Self { has_shelves: true, ..ordinary };
        match (sabotage, seed % 4) {
            (Some(Sabotage::HalfPlaces), _) => shelves,
            (Some(Sabotage::NoFlushes), _) => Self { flushes: true, ..shelves },
            (Some(_), _) | (None, 1) => ordinary,
            (None, 2) => shelves,
            (None, 3) => Self { redirects: true, ..shelves },
            (None, _) => Self { flushes: true, redirects: seed.is_multiple_of(8), ..shelves },
        }
    }
}
