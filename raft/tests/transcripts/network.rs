//! The network of a transcript: a queue of messages for every ordered pair of replicas, and links that are cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use duva_raft::Message;

/// Replica ids in transcripts are single digits.
pub const IDS: std::ops::RangeInclusive<u64> = 1..=9;

/// From whom, to whom.
pub type Link = (u64, u64);

/// Messages on their way.
#[derive(Default)]
pub struct Network {
    queues: BTreeMap<Link, VecDeque<Message>>,
    delayed: BTreeMap<Link, VecDeque<Message>>,
    cut: BTreeSet<Link>,
}

impl Network {
    /// Takes a message; `false`: the link is cut, and the message is lost.
    pub fn send(&mut self, message: Message) -> bool {
        let link = (message.from.0, message.to.0);
        if self.cut.contains(&link) {
            return false;
        }
        self.queues.entry(link).or_default().push_back(message);
        true
    }

    /// The oldest message of a link.
    pub fn receive(&mut self, link: Link) -> Option<Message> {
        self.queues.get_mut(&link)?.pop_front()
    }

    /// How many messages wait on a link.
    pub fn len(&self, link: Link) -> usize {
        self.queues.get(&link).map_or(0, VecDeque::len)
    }

    /// Has every waiting message of a link arrive once more, after all of them.
    pub fn duplicate(&mut self, link: Link) {
        if let Some(queue) = self.queues.get_mut(&link) {
            queue.extend(queue.clone());
        }
    }

    /// Turns a link's order round.
    pub fn reverse(&mut self, link: Link) {
        if let Some(queue) = self.queues.get_mut(&link) {
            queue.make_contiguous().reverse();
        }
    }

    /// Keeps a link's messages back until [`Self::release`].
    pub fn delay(&mut self, link: Link) {
        if let Some(queue) = self.queues.get_mut(&link) {
            self.delayed.entry(link).or_default().append(queue);
        }
    }

    /// Puts a link's delayed messages before those that came since.
    pub fn release(&mut self, link: Link) {
        if let Some(mut delayed) = self.delayed.remove(&link) {
            let queue = self.queues.entry(link).or_default();
            delayed.append(queue);
            *queue = delayed;
        }
    }

    /// Loses what is sent on a link from now on.
    pub fn cut(&mut self, link: Link) {
        self.cut.insert(link);
    }

    /// Ends [`Self::cut`].
    pub fn heal(&mut self, link: Link) {
        self.cut.remove(&link);
    }

    /// What waits on a link, oldest first.
    pub fn waiting(&self, link: Link) -> impl Iterator<Item = &Message> {
        self.queues.get(&link).into_iter().flatten()
    }
}

/// The links that a word names: `1->2`, `1->*`, `*->2`, `*` for all, `1` for all from and to 1, `1,2` for all
/// between 1 or 2 and the others.
pub fn links(word: &str) -> Vec<Link> {
    let all = || IDS.flat_map(|from| IDS.map(move |to| (from, to))).filter(|(from, to)| from != to);
    let end = |text: &str| match text {
        "*" => None,
        digits => Some(digits.parse::<u64>().unwrap_or_else(|_| panic!("{word} names no link"))),
    };
    if word == "*" {
        return all().collect();
    }
    match word.split_once("->") {
        Some((from, to)) => {
            let (from, to) = (end(from), end(to));
            all()
                .filter(|link| from.is_none_or(|id| id == link.0) && to.is_none_or(|id| id == link.1))
                .collect()
        }
        None => {
            let side: Vec<u64> = word.split(',').filter_map(end).collect();
            all().filter(|link| side.contains(&link.0) != side.contains(&link.1)).collect()
        }
    }
}
