//! Which chunks the coordinator lacks: runs of numbers, checked before anything is made of them.

use std::ops::Range;

/// Says why runs cannot be what a coordinator lacks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the coordinator asks for chunks that this package does not have")]
pub(super) struct RunsError;

/// Adds `runs` (first, count, first, count, ...) to `ranges`; all of them ascend and stay below `total`.
pub(super) fn extend(ranges: &mut Vec<Range<u32>>, runs: &[u32], total: usize) -> Result<(), RunsError> {
    let (pairs, []) = runs.as_chunks::<2>() else {
        return Err(RunsError);
    };
    for [first, count] in pairs {
        let end = first.checked_add(*count).filter(|end| *end as usize <= total).ok_or(RunsError)?;
        if ranges.last().is_some_and(|last| *first < last.end) {
            return Err(RunsError);
        }
        ranges.push(*first..end);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_ascend_and_stay_inside_the_package() {
        let mut ranges = Vec::new();
        extend(&mut ranges, &[0, 2, 5, 1], 10).unwrap();
        extend(&mut ranges, &[6, 4], 10).unwrap();
        assert_eq!(ranges, [0..2, 5..6, 6..10]);
        for bad in [&[1][..], &[0, 11], &[10, 1], &[u32::MAX, 2], &[3, 1, 2, 1], &[0, 2, 1, 1]] {
            assert!(extend(&mut Vec::new(), bad, 10).is_err(), "{bad:?}");
        }
    }
}
