//! What a crash took, taken together: of each core's journal an end, and with `everysec` no more than a second.

/// When a write was sent and answered: as numbers in the order of everything observable, and in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// When it was sent.
    pub(crate) invoked: u64,
    /// The same, in nanoseconds.
    pub(crate) invoked_ns: u64,
    /// When it was answered, both; `None`: it was not.
    pub(crate) replied: Option<(u64, u64)>,
}

/// What became of a write that changed these keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    /// Keys that it changed.
    pub(crate) keys: Vec<Vec<u8>>,
    /// When it was made.
    pub(crate) times: Times,
    /// Whether it is there after the crash.
    pub(crate) is_left: bool,
}

/// What a crash may take of what was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Loss {
    /// Nothing.
    Nothing,
    /// A second's worth, on each core, and a little more, all in nanoseconds.
    Span(u64),
    /// Anything that was not synced.
    Anything,
}

impl Loss {
    /// Whether anything may be missing.
    pub(crate) fn is_lossy(self) -> bool {
        self != Self::Nothing
    }
}

/// Judges the fates of one core's writes; returns how many answered ones are lost.
///
/// # Errors
/// What no crash explains.
pub(crate) fn check(fates: &[&Fate], loss: Loss) -> Result<usize, String> {
    let lost =
        || fates.iter().filter(|fate| !fate.is_left).filter_map(|fate| Some((fate, fate.times.replied?)));
    let Some((first, (replied, replied_ns))) = lost().min_by_key(|(_, (replied, _))| *replied) else {
        return Ok(0);
    };
    if !loss.is_lossy() {
        return Err(format!("{} is lost and was answered", shown(first)));
    }
    let left = fates.iter().filter(|fate| fate.is_left).max_by_key(|fate| fate.times.invoked);
    if let Some(left) = left.filter(|left| left.times.invoked > replied) {
        return Err(format!("{} is lost, and {} is left, which came later", shown(first), shown(left)));
    }
    if let Loss::Span(span_ns) = loss {
        let last = lost().map(|(fate, _)| fate).max_by_key(|fate| fate.times.invoked_ns).unwrap_or(first);
        if last.times.invoked_ns > replied_ns + span_ns {
            return Err(format!("{} and {} are lost: too much", shown(first), shown(last)));
        }
    }
    Ok(lost().count())
}

fn shown(fate: &Fate) -> String {
    let keys: Vec<String> = fate.keys.iter().map(|key| crate::sim::trace::shown(key)).collect();
    format!("a write of {} ({:?})", keys.join(" "), fate.times)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(invoked: u64, replied: u64, is_left: bool) -> Fate {
        let replied = (replied > 0).then_some((replied, replied));
        Fate { keys: Vec::new(), times: Times { invoked, invoked_ns: invoked, replied }, is_left }
    }

    fn judged(fates: &[Fate], loss: Loss) -> Result<usize, String> {
        check(&fates.iter().collect::<Vec<_>>(), loss)
    }

    #[test]
    fn nothing_answered_is_lost_unless_it_may_be() {
        assert_eq!(judged(&[fate(1, 2, true), fate(3, 0, false)], Loss::Nothing), Ok(0));
        assert!(judged(&[fate(1, 2, false)], Loss::Nothing).is_err());
        assert_eq!(judged(&[fate(1, 2, false)], Loss::Anything), Ok(1));
    }

    #[test]
    fn only_an_end_is_lost() {
        let overlapping = [fate(1, 5, false), fate(4, 6, true), fate(7, 8, false)];
        assert_eq!(judged(&overlapping, Loss::Anything), Ok(2));
        assert!(judged(&[fate(1, 2, false), fate(3, 4, true)], Loss::Anything).is_err());
        assert!(judged(&[fate(1, 2, false), fate(3, 0, true)], Loss::Anything).is_err());
    }

    #[test]
    fn no_more_than_a_span_is_lost() {
        let fates = [fate(1, 10, false), fate(60, 70, false)];
        assert_eq!(judged(&fates, Loss::Span(50)), Ok(2));
        assert!(judged(&fates, Loss::Span(49)).is_err());
    }
}
