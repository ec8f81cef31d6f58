//! Medians, ranges and ratios of pairs.

/// Several rounds of one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// # Panics
    /// If there is no figure.
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        assert!(!sorted.is_empty(), "no round was measured");
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Self { median, min: sorted[0], max: sorted[sorted.len() - 1] }
    }

    /// The ratios of rounds measured side by side.
    pub(crate) fn of_ratios(ours: &[f64], theirs: &[f64]) -> Self {
        assert_eq!(ours.len(), theirs.len(), "rounds come in pairs");
        Self::of(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs))
    }

    /// The median and, of several rounds, the range, written by `format`.
    pub(crate) fn write(&self, format: impl Fn(f64) -> String) -> String {
        if self.min == self.max {
            return format(self.median);
        }
        format!("{} ({}-{})", format(self.median), format(self.min), format(self.max))
    }
}

/// A figure with about three significant digits, thousands as K and millions as M.
pub(crate) fn short(figure: f64) -> String {
    match figure.abs() {
        size if size >= 999_500.0 => format!("{}M", digits(figure / 1e6)),
        size if size >= 9_995.0 => format!("{}K", digits(figure / 1e3)),
        _ => digits(figure),
    }
}

fn digits(figure: f64) -> String {
    match figure.abs() {
        size if size >= 99.95 => format!("{figure:.0}"),
        size if size >= 9.995 => format!("{figure:.1}"),
        size if size >= 0.9995 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(Spread::of_ratios(&[1.0, 4.0, 9.0], &[1.0, 2.0, 3.0]).median, 2.0);
    }

    #[test]
    fn figures_are_short() {
        for (figure, text) in [
            (0.0876, "0.088"),
            (4.694, "4.69"),
            (9.996, "10.0"),
            (99.96, "100"),
            (1234.0, "1234"),
            (161_234.0, "161K"),
            (999_400.0, "999K"),
            (999_600.0, "1.00M"),
            (4_234_567.0, "4.23M"),
        ] {
            assert_eq!(short(figure), text);
        }
        assert_eq!(Spread::of([2.0, 1.0, 3.0]).write(short), "2.00 (1.00-3.00)");
        assert_eq!(Spread::of([2.0]).write(short), "2.00");
    }
}
