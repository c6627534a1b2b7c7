//! Decides whether a plan that was begun is gone on with, once a coordinator may have a better one. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes left of a plan from which on it is worth asking whether there is a better one: twenty times what the answer
/// weighs for a tree of some thousand files, and nine minutes at 64 kbit/s.
const ASK_BYTES: u64 = 4 << 20;
/// Time between two such questions: about what a coordinator takes to find a better plan.
const ASK_INTERVAL: Duration = Duration::from_secs(300);

/// Says whether it is worth asking for a better plan before `left` bytes of the one at hand are fetched, when the last
/// question was asked at `asked`.
pub(crate) fn may_ask(left: u64, asked: Option<Instant>, now: Instant) -> bool {
    left >= ASK_BYTES && asked.is_none_or(|asked| now.duration_since(asked) >= ASK_INTERVAL)
}

/// Says whether an offered plan, of which `offered_left` bytes would have to come, replaces one of which `left` bytes
/// still have to. What has come of a frame that both name counts for both.
pub(crate) fn is_better(offered_left: u64, left: u64) -> bool {
    offered_left < left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_better_plan_is_asked_for_where_much_is_left_and_not_too_often() {
        let begun = Instant::now();
        tokio::time::advance(ASK_INTERVAL * 2).await;
        let now = Instant::now();
        for (name, left, asked, expected) in [
            ("agent restarted, much left", ASK_BYTES, None, true),
            ("agent restarted, little left", ASK_BYTES - 1, None, false),
            ("asked long ago", ASK_BYTES, Some(begun), true),
            ("asked long ago, nothing left", 0, Some(begun), false),
            ("asked just now", u64::MAX, Some(now), false),
            ("asked less than the interval ago", u64::MAX, Some(now - ASK_INTERVAL / 2), false),
            ("asked the interval ago", u64::MAX, Some(now - ASK_INTERVAL), true),
        ] {
            assert_eq!(may_ask(left, asked, now), expected, "{name}");
        }
    }

    #[test]
    fn the_plan_with_fewer_bytes_left_is_taken() {
        for (name, offered, left, expected) in [
            ("the same plan", 10, 10, false),
            ("a better plan, little of the old one done", 4, 9, true),
            ("a better plan, most of the old one done", 4, 3, false),
            ("a worse plan", 9, 4, false),
        ] {
            assert_eq!(is_better(offered, left), expected, "{name}");
        }
    }
}
