//! The order in which quick frames travel.

use crate::transfer::{Extent, FrameSpec};

/// Length of the way that frames are spread over: enough to tell the places of any number of them.
const WAY: u64 = 1 << 60;

/// Moves the frames of a large content apart, so that those that are restored at the same time are of different files.
///
/// Two frames that write one file wait for each other. And the later one cannot be hashed with what comes before it, so the
/// receiver reads it again once the file is whole: of a large file that comes last, while nothing else is left to be done. The frames of
/// one content stay in order.
pub(super) fn apart(frames: Vec<FrameSpec>) -> Vec<FrameSpec> {
    // Each run is spread over the whole plan, and so are all those frames together that go on with nothing.
    let (mut alone, mut placed) = (Vec::new(), Vec::with_capacity(frames.len()));
    for run in runs(frames) {
        match run.len() {
            1 => alone.extend(run),
            _ => placed.extend(evenly(run)),
        }
    }
    placed.extend(evenly(alone));
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, frame)| frame).collect()
}

/// Parts frames into runs in which each goes on with a content of the one before it.
fn runs(frames: Vec<FrameSpec>) -> Vec<Vec<FrameSpec>> {
    let mut runs: Vec<Vec<FrameSpec>> = Vec::new();
    for frame in frames {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|before| goes_on(before, &frame)) => run.push(frame),
            _ => runs.push(vec![frame]),
        }
    }
    runs
}

fn goes_on(before: &FrameSpec, frame: &FrameSpec) -> bool {
    let content_of = |part: Option<&Extent>| part.map(|part| part.content);
    content_of(before.parts.last()) == content_of(frame.parts.first())
}

/// Gives frames places at even distances on a way that is as long for any number of them.
fn evenly(frames: Vec<FrameSpec>) -> impl Iterator<Item = (u64, FrameSpec)> {
    let len = frames.len() as u64;
    (0..len).map(move |nth| (2 * nth + 1) * (WAY / (2 * len))).zip(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes frames of parts named by a letter for the content and a digit for its place in it.
    fn frames(named: &str) -> Vec<FrameSpec> {
        let part = |name: &[u8]| Extent { content: name[0].into(), offset: name[1].into(), len: 1 };
        let frame = |names: &str| FrameSpec {
            base: Vec::new(),
            parts: names.as_bytes().chunks(2).map(part).collect(),
        };
        named.split_whitespace().map(frame).collect()
    }

    fn names(frames: &[FrameSpec]) -> String {
        let part = |part: &Extent| [part.content as u8 as char, part.offset as u8 as char];
        let names: Vec<String> =
            frames.iter().map(|frame| frame.parts.iter().flat_map(part).collect()).collect();
        names.join(" ")
    }

    #[test]
    fn frames_of_one_content_are_apart_and_in_order() {
        for (name, planned, expected) in [
            ("nothing", "", ""),
            ("nothing is cut", "a0b0 c0 d0", "a0b0 c0 d0"),
            ("one among others", "a0 b0 c0 d0 x0 x1 x2", "a0 x0 b0 x1 c0 x2 d0"),
            ("nothing to lie between", "x0 x1 x2", "x0 x1 x2"),
            ("two", "x0 x1 y0 y1", "x0 y0 x1 y1"),
            (
                "two of which the second begins in a frame of the first",
                "a0 b0 x0 x1y0 y1",
                "x0 a0 x1y0 b0 y1",
            ),
            ("one that begins after others and ends before some", "a0 b0x0 x1 x2c0 d0", "b0x0 a0 x1 d0 x2c0"),
        ] {
            assert_eq!(names(&apart(frames(planned))), expected, "{name}");
        }
    }
}
