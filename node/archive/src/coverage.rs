//! Computes the indexes that a set of objects covers without a gap. Pure.

use super::names::Object;

/// Walks from `next` on through objects that are sorted by their first index. Returns the index after the last one
/// covered without a gap, and true if any object touches `next` at all.
pub(crate) fn reach<'a>(objects: impl IntoIterator<Item = &'a Object>, next: u64) -> (u64, bool) {
    let mut reached = (next, false);
    for object in objects {
        if object.first > reached.0 {
            break;
        }
        if object.last.saturating_add(1) >= reached.0 {
            reached = (object.last.saturating_add(1), true);
        }
    }
    reached
}

/// The runs without a gap: first and last index, objects, bytes and the time of the last object.
pub fn runs(objects: &[Object]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for object in objects {
        match runs.last_mut() {
            Some(run) if run.epoch == object.epoch && object.first <= run.last.saturating_add(1) => {
                run.last = run.last.max(object.last);
                run.at_ms = run.at_ms.max(object.at_ms);
                run.objects += 1;
                run.size_bytes += object.size_bytes;
            }
            _ => runs.push(Run {
                epoch: object.epoch,
                first: object.first,
                last: object.last,
                at_ms: object.at_ms,
                objects: 1,
                size_bytes: object.size_bytes,
            }),
        }
    }
    runs
}

/// Objects without a gap between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub epoch: u64,
    pub first: u64,
    pub last: u64,
    pub at_ms: u64,
    pub objects: u64,
    pub size_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::super::names::ObjectKind;
    use super::*;

    fn objects(ranges: &[(u64, u64)]) -> Vec<Object> {
        let object = |(first, last): &(u64, u64)| Object {
            name: String::new(),
            kind: ObjectKind::Log,
            epoch: 0,
            first: *first,
            last: *last,
            at_ms: *last,
            size_bytes: 1,
        };
        ranges.iter().map(object).collect()
    }

    #[test]
    fn a_reach_ends_at_the_first_hole() {
        let all = objects(&[(0, 9), (5, 7), (10, 20), (22, 30)]);
        assert_eq!(reach(&all, 0), (21, true));
        assert_eq!(reach(&all, 15), (21, true));
        assert_eq!(reach(&all, 21), (21, true), "an object that ends right before touches it");
        assert_eq!(reach(&all, 22), (31, true));
        assert_eq!(reach(&all, 40), (40, false));
        assert_eq!(reach(&objects(&[(5, 9)]), 0), (0, false));
    }

    #[test]
    fn runs_are_split_at_holes() {
        let runs = runs(&objects(&[(0, 9), (5, 7), (10, 20), (22, 30)]));
        let shown: Vec<_> = runs.iter().map(|run| (run.first, run.last, run.objects)).collect();
        assert_eq!(shown, [(0, 20, 3), (22, 30, 1)]);
    }
}
