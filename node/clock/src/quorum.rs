//! The largest group of readings that agree.

use crate::Micros;

/// The median of the largest group of at least `quorum` values that lie within `spread` of each other; of equally large
/// groups the closest one. `None` if there is no such group.
pub(crate) fn agreed(mut values: Vec<Micros>, quorum: usize, spread: Micros) -> Option<Micros> {
    values.sort_unstable();
    let groups = values.iter().enumerate().filter_map(|(start, lowest)| {
        let reach = lowest.saturating_add(spread);
        let group: Vec<Micros> =
            values.iter().skip(start).copied().take_while(|value| *value <= reach).collect();
        let width = group.last()?.saturating_sub(*lowest);
        (group.len() >= quorum.max(1)).then_some((group, width))
    });
    let best = groups.max_by_key(|(group, width)| (group.len(), std::cmp::Reverse(*width)))?;
    median(&best.0)
}

/// The median of sorted values: the middle one, or the mean of the two in the middle if their number is even.
pub(crate) fn median(sorted: &[Micros]) -> Option<Micros> {
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(lower + (upper - lower) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_group_wins_and_of_equal_ones_the_closest() {
        assert_eq!(agreed(vec![0, 3, 100], 2, 10), Some(1));
        assert_eq!(agreed(vec![100, 103, 0, 6], 2, 10), Some(101));
        assert_eq!(agreed(vec![0, 4, 8], 2, 10), Some(4));
        assert_eq!(agreed(vec![5], 1, 10), Some(5));
    }

    #[test]
    fn fewer_than_a_quorum_agree_on_nothing() {
        assert_eq!(agreed(vec![0, 100, 200], 2, 10), None);
        assert_eq!(agreed(vec![], 1, 10), None);
        assert_eq!(agreed(vec![Micros::MIN, Micros::MAX], 2, 10), None);
    }
}
