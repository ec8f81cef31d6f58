//! Links between nodes, one for each direction: what gets lost, comes late, comes twice, or not at all.

use super::random::Random;

/// How a link treats its messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    /// The shortest way, and how much longer it may take.
    pub(crate) delay_ns: u64,
    pub(crate) spread_ns: u64,
    /// How often a message takes far longer, in a thousand, and at most how long.
    pub(crate) late_permille: u32,
    pub(crate) late_ns: u64,
    pub(crate) lost_permille: u32,
    pub(crate) twice_permille: u32,
    /// Messages arrive as they were sent.
    pub(crate) in_order: bool,
}

impl Quality {
    /// Fast, in order, nothing lost.
    pub(crate) const GOOD: Self = Self {
        delay_ns: 50_000,
        spread_ns: 100_000,
        late_permille: 0,
        late_ns: 0,
        lost_permille: 0,
        twice_permille: 0,
        in_order: true,
    };
}

#[derive(Clone, Debug)]
struct Link {
    quality: Quality,
    is_blocked: bool,
    /// Messages wait on the way until then.
    held_until_ns: u64,
    generation: u32,
    last_arrival_ns: u64,
}

impl Link {
    fn arrival_ns(&mut self, random: &mut Random, now_ns: u64) -> u64 {
        let quality = self.quality;
        let mut delay_ns = quality.delay_ns + random.below(quality.spread_ns + 1);
        if random.permille(quality.late_permille) {
            delay_ns += random.below(quality.late_ns + 1);
        }
        let mut at_ns = (now_ns + delay_ns).max(self.held_until_ns);
        if quality.in_order {
            at_ns = at_ns.max(self.last_arrival_ns);
            self.last_arrival_ns = at_ns;
        }
        at_ns
    }
}

/// All links.
pub(crate) struct Network {
    nodes: usize,
    links: Vec<Link>,
}

/// When a message arrives, perhaps twice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) generation: u32,
    pub(crate) first_ns: Option<u64>,
    pub(crate) second_ns: Option<u64>,
}

impl Network {
    pub(crate) fn new(nodes: usize, quality: Quality) -> Self {
        let link = Link { quality, is_blocked: false, held_until_ns: 0, generation: 0, last_arrival_ns: 0 };
        Self { nodes, links: vec![link; nodes * nodes] }
    }

    /// What becomes of a message that leaves now.
    pub(crate) fn send(&mut self, random: &mut Random, now_ns: u64, from: usize, to: usize) -> Arrivals {
        let link = &mut self.links[from * self.nodes + to];
        let quality = link.quality;
        let generation = link.generation;
        if link.is_blocked || random.permille(quality.lost_permille) {
            return Arrivals { generation, ..Arrivals::default() };
        }
        let first_ns = Some(link.arrival_ns(random, now_ns));
        let is_twice = random.permille(quality.twice_permille);
        let second_ns = is_twice.then(|| link.arrival_ns(random, now_ns));
        Arrivals { generation, first_ns, second_ns }
    }

    /// Whether a message that left under `generation` still arrives.
    pub(crate) fn is_current(&self, from: usize, to: usize, generation: u32) -> bool {
        self.links[from * self.nodes + to].generation == generation
    }

    pub(crate) fn set_blocked(&mut self, from: usize, to: usize, is_blocked: bool) {
        self.links[from * self.nodes + to].is_blocked = is_blocked;
    }

    /// What leaves until then arrives only then, or later.
    pub(crate) fn hold(&mut self, from: usize, to: usize, until_ns: u64) {
        self.links[from * self.nodes + to].held_until_ns = until_ns;
    }

    pub(crate) fn set_quality(&mut self, from: usize, to: usize, quality: Quality) {
        self.links[from * self.nodes + to].quality = quality;
    }

    pub(crate) fn set_all(&mut self, quality: Quality) {
        for link in &mut self.links {
            link.quality = quality;
        }
    }

    /// The connection between two nodes breaks: what is on its way is gone.
    pub(crate) fn reset(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            let link = &mut self.links[from * self.nodes + to];
            link.generation += 1;
            link.last_arrival_ns = 0;
        }
    }

    /// All is well.
    pub(crate) fn heal(&mut self) {
        for link in &mut self.links {
            link.quality = Quality::GOOD;
            link.is_blocked = false;
            link.held_until_ns = 0;
        }
    }
}
