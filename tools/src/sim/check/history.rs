//! What happened to the keys of a single client, and what a crash may have left of it.
//!
//! A crash takes from each key's history a last part: of what was answered, nothing or what the mode allows, and of what was
//! not, any. A request that changes several keys is taken from all of them or from none.

use std::rc::Rc;

use super::{
    loss::{Fate, Times},
    model::{Model, State, Value, Window},
};
use crate::sim::resp::Reply;

/// A request that changed something.
#[derive(Clone, Debug)]
struct Step {
    /// The command.
    name: Vec<u8>,
    /// The keys that it changed, each once.
    keys: Vec<Rc<[u8]>>,
    times: Times,
    /// The states before the next one.
    states: Vec<State>,
}

/// The keys of one client, and their history since they were last known for certain.
#[derive(Clone, Debug)]
pub(crate) struct History {
    model: Model,
    base: Vec<State>,
    steps: Vec<Step>,
}

/// What a key was seen to hold after a crash.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// The key.
    pub(crate) key: Vec<u8>,
    /// When it was looked at.
    pub(crate) window: Window,
    /// Its value, and how long it lives, in milliseconds, or -1; `None`: there was none.
    pub(crate) value: Option<(Vec<u8>, i64)>,
}

impl Observed {
    /// Whether `state` explains it.
    fn is_explained_by(&self, state: &State) -> bool {
        let held = state.get(&self.key[..]);
        let Some((bytes, left_ms)) = &self.value else {
            return held.is_none_or(|held| held.deadline.is_some_and(|deadline| deadline.0 <= self.window.1));
        };
        let Some(held) = held.filter(|held| *held.bytes == *bytes) else { return false };
        match held.deadline {
            None => *left_ms == -1,
            // It may have been gone when it was asked for its time.
            Some(deadline) if *left_ms == -2 => deadline.0 <= self.window.1,
            Some(deadline) => (deadline.0 - self.window.1..=deadline.1 - self.window.0).contains(left_ms),
        }
    }
}

/// The writes of one key, and how many of them an observation allows.
struct Track {
    key: Rc<[u8]>,
    /// Which steps write it.
    writes: Vec<usize>,
    /// How many of them may be left.
    allowed: Vec<usize>,
}

impl Track {
    /// Whether, with its first `left` writes left, step `step` is; `None`: it does not write this key.
    fn has(&self, left: usize, step: usize) -> Option<bool> {
        self.writes.binary_search(&step).ok().map(|place| place < left)
    }
}

impl History {
    /// No keys.
    pub(crate) fn new() -> Self {
        Self { model: Model::new(), base: vec![State::new()], steps: Vec::new() }
    }

    /// Takes a request that was executed within `window`, and checks its reply.
    ///
    /// # Errors
    /// What the reply should have been.
    pub(crate) fn apply(
        &mut self,
        arguments: &[Vec<u8>],
        reply: &Reply,
        window: Window,
        times: Times,
    ) -> Result<(), String> {
        self.model.apply(arguments, reply, window)?;
        self.add(arguments, times);
        Ok(())
    }

    /// Takes a request that was perhaps executed, within `window`.
    pub(crate) fn assume(&mut self, arguments: &[Vec<u8>], window: Window, times: Times) {
        self.model.assume(arguments, window);
        self.add(arguments, times);
    }

    fn add(&mut self, arguments: &[Vec<u8>], times: Times) {
        let states = self.model.states().to_vec();
        let keys = self.model.changed().to_vec();
        if keys.is_empty() {
            // What was shown to have expired stays away.
            let before = self.steps.last_mut().map_or(&mut self.base, |last| &mut last.states);
            *before = states;
            return;
        }
        self.steps.push(Step { name: arguments[0].clone(), keys, times, states });
    }

    /// Whether every write was answered.
    pub(crate) fn is_certain(&self) -> bool {
        self.steps.iter().all(|step| step.times.replied.is_some())
    }

    /// Every key that may be there.
    pub(crate) fn keys(&self) -> Vec<Vec<u8>> {
        let base = self.base.iter().flat_map(|state| state.keys());
        let mut keys: Vec<Vec<u8>> =
            base.chain(self.steps.iter().flat_map(|step| &step.keys)).map(|key| key.to_vec()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// Judges what was seen after a crash, which may have taken answered writes if `is_lossy`; returns what it took, and
    /// what it did not, as far as that is certain. From here on that is what there is.
    ///
    /// # Errors
    /// What cannot have come of these writes.
    pub(crate) fn judge(&mut self, observed: &[Observed], is_lossy: bool) -> Result<Vec<Fate>, String> {
        let tracks: Vec<Track> = observed.iter().map(|seen| self.track(seen, is_lossy)).collect();
        if let Some((track, seen)) = tracks.iter().zip(observed).find(|(track, _)| track.allowed.is_empty()) {
            return Err(self.unexplained(track, seen));
        }
        if !self.agrees(&tracks, &mut Vec::new()) {
            let shown = tracks.iter().zip(observed).map(|(track, seen)| self.shown(track, seen));
            return Err(format!("half of a request is left: {}", shown.collect::<Vec<_>>().join("; ")));
        }
        let fates = tracks.iter().flat_map(|track| self.fates(track)).collect();
        self.settle(observed);
        Ok(fates)
    }

    /// The states in which the first `left` of a key's writes have happened, as far as that key is concerned.
    fn states_at(&self, writes: &[usize], left: usize) -> &[State] {
        let next = writes.get(left).copied().unwrap_or(self.steps.len());
        next.checked_sub(1).map_or(&self.base, |last| &self.steps[last].states)
    }

    fn track(&self, seen: &Observed, is_lossy: bool) -> Track {
        let is_named = |step: &Step| step.keys.iter().any(|key| **key == *seen.key);
        let steps = self.steps.iter().enumerate();
        let writes: Vec<usize> = steps.filter(|(_, step)| is_named(step)).map(|(number, _)| number).collect();
        let answered = writes.iter().rposition(|&step| self.steps[step].times.replied.is_some());
        let least = if is_lossy { 0 } else { answered.map_or(0, |last| last + 1) };
        let is_explained =
            |&left: &usize| self.states_at(&writes, left).iter().any(|state| seen.is_explained_by(state));
        let allowed = (least..=writes.len()).filter(is_explained).collect();
        Track { key: seen.key[..].into(), writes, allowed }
    }

    /// Whether there is a choice for all keys in which no request is left for one and taken from another.
    fn agrees(&self, tracks: &[Track], chosen: &mut Vec<usize>) -> bool {
        let Some(track) = tracks.get(chosen.len()) else { return true };
        track.allowed.iter().any(|&left| {
            let fits = tracks.iter().zip(&*chosen).all(|(earlier, &earlier_left)| {
                track.writes.iter().all(|&step| match earlier.has(earlier_left, step) {
                    Some(has) => Some(has) == track.has(left, step),
                    None => true,
                })
            });
            if !fits {
                return false;
            }
            chosen.push(left);
            let agrees = self.agrees(tracks, chosen);
            chosen.pop();
            agrees
        })
    }

    /// What became of a key's writes.
    fn fates(&self, track: &Track) -> Vec<Fate> {
        let (Some(&least), Some(&most)) = (track.allowed.first(), track.allowed.last()) else {
            return Vec::new();
        };
        let value = |left: usize| -> Vec<_> {
            self.states_at(&track.writes, left).iter().map(|state| state.get(&track.key)).collect()
        };
        let changes = |&place: &usize| value(place) != value(place + 1);
        let places = (0..least).chain(most..track.writes.len());
        let fate = |place: usize| Fate {
            keys: vec![track.key.to_vec()],
            times: self.steps[track.writes[place]].times,
            is_left: place < least,
        };
        places.filter(changes).map(fate).collect()
    }

    /// What was seen is what there is.
    fn settle(&mut self, observed: &[Observed]) {
        let mut state = State::new();
        for seen in observed {
            if let Some((bytes, left_ms)) = &seen.value
                && *left_ms != -2
            {
                let deadline = (*left_ms >= 0).then_some((seen.window.0 + left_ms, seen.window.1 + left_ms));
                state.insert(seen.key[..].into(), Value { bytes: Rc::new(bytes.clone()), deadline });
            }
        }
        *self = Self { model: Model::of(vec![state.clone()]), base: vec![state], steps: Vec::new() };
    }

    fn unexplained(&self, track: &Track, seen: &Observed) -> String {
        format!("this cannot be what is left: {}", self.shown(track, seen))
    }

    /// What was seen of a key, and the last of its writes, with their numbers.
    fn shown(&self, track: &Track, seen: &Observed) -> String {
        let last = track.writes.iter().rev().take(6).rev().map(|&step| {
            let Step { name, times, .. } = &self.steps[step];
            let how = if times.replied.is_some() { "answered" } else { "not answered" };
            format!("{step} {} ({how})", name.escape_ascii())
        });
        let last: Vec<String> = last.collect();
        let (allowed, count) = (&track.allowed, track.writes.len());
        format!(
            "{}, which the first {allowed:?} of {count} writes explain, after {}",
            seen.shown(),
            last.join(", ")
        )
    }
}

impl Observed {
    fn shown(&self) -> String {
        let key = crate::sim::trace::shown(&self.key);
        match &self.value {
            None => format!("no {key}"),
            Some((bytes, left_ms)) => format!("{key} = {} for {left_ms} ms", crate::sim::trace::shown(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Vec<Vec<u8>> {
        text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
    }

    /// A history of requests, of which the first `answered` were answered, all with OK.
    fn history(requests: &[&str], answered: usize) -> History {
        let mut history = History::new();
        for (number, text) in requests.iter().enumerate() {
            let mut times = Times { invoked: number as u64, invoked_ns: 0, replied: None };
            if number < answered {
                times.replied = Some((100 + number as u64, 0));
                history.apply(&request(text), &Reply::ok(), (0, 0), times).unwrap();
            } else {
                history.assume(&request(text), (0, 0), times);
            }
        }
        history
    }

    fn seen(pairs: &[(&str, Option<&str>)]) -> Vec<Observed> {
        let value = |value: &str| (value.as_bytes().to_vec(), -1);
        let seen = pairs.iter().map(|(key, held)| Observed {
            key: key.as_bytes().to_vec(),
            window: (0, 0),
            value: held.map(value),
        });
        seen.collect()
    }

    #[test]
    fn what_was_answered_stays_and_the_rest_may() {
        let requests = ["SET a 1", "SET a 2", "SET a 3"];
        for (left, is_right) in [(None, false), (Some("1"), false), (Some("2"), true), (Some("3"), true)] {
            let judged = history(&requests, 2).judge(&seen(&[("a", left)]), false);
            assert_eq!(judged.is_ok(), is_right, "{left:?}: {judged:?}");
        }
    }

    #[test]
    fn a_power_loss_takes_the_end_of_each_key() {
        let requests = ["SET a 1", "SET b 1", "SET a 2"];
        let mut lossy = history(&requests, 3);
        let fates = lossy.judge(&seen(&[("a", Some("1")), ("b", None)]), true).unwrap();
        let left: Vec<(u64, bool)> = fates.iter().map(|fate| (fate.times.invoked, fate.is_left)).collect();
        assert_eq!(left, [(0, true), (2, false), (1, false)]);
        assert!(history(&requests, 3).judge(&seen(&[("a", Some("3")), ("b", None)]), true).is_err());
        // From here on only what was seen is there.
        assert_eq!(lossy.keys(), [b"a".to_vec()]);
    }

    #[test]
    fn no_half_of_a_request_is_left() {
        let requests = ["SET a 1", "MSET a 2 b 2"];
        for answered in [1, 2] {
            let half = seen(&[("a", Some("1")), ("b", Some("2"))]);
            assert!(history(&requests, answered).judge(&half, true).is_err());
            for whole in [[("a", Some("1")), ("b", None)], [("a", Some("2")), ("b", Some("2"))]] {
                assert!(history(&requests, answered).judge(&seen(&whole), true).is_ok());
            }
        }
    }
}
