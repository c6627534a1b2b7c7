//! Bounded output: the head and the tail of what a command prints, however much it is.

use std::collections::VecDeque;

use sluice_common::caps;

const HALF: usize = caps::HOOK_OUTPUT_BYTES_MAX / 2;

/// Keeps the first and the last bytes of a stream.
#[derive(Default)]
pub(super) struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Capture {
    /// Takes the next bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let (head, tail) = bytes.split_at(bytes.len().min(HALF - self.head.len()));
        self.head.extend_from_slice(head);
        self.tail.extend(tail);
        let over = self.tail.len().saturating_sub(HALF);
        self.tail.drain(..over);
        self.left_out += over as u64;
    }

    /// Returns what was kept, as text.
    pub(super) fn into_text(mut self) -> String {
        let mut text = String::from_utf8_lossy(&self.head).into_owned();
        if self.left_out > 0 {
            text.push_str(&format!("\n[sluice: {} bytes left out]\n", self.left_out));
        }
        text.push_str(&String::from_utf8_lossy(self.tail.make_contiguous()));
        text
    }
}

/// Cuts a text to `max` bytes, half from its head, half from its tail.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    const NOTE: &str = "\n[sluice: shortened]\n";
    if text.len() <= max {
        return text.to_owned();
    }
    let half = max.saturating_sub(NOTE.len()) / 2;
    let head = text.floor_char_boundary(half);
    let tail = text.ceil_char_boundary(text.len() - half);
    format!("{}{NOTE}{}", &text[..head], &text[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_output_is_kept_whole_and_long_output_by_its_ends() {
        let mut capture = Capture::default();
        capture.take(b"one ");
        capture.take(b"two");
        assert_eq!(capture.into_text(), "one two");
        let mut capture = Capture::default();
        for _ in 0..3 {
            capture.take(&vec![b'a'; HALF - 1]);
        }
        capture.take(b"end");
        let text = capture.into_text();
        assert!(text.contains(&format!("{HALF} bytes left out")) && text.ends_with("end"), "{}", text.len());
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(shorten("short", 100), "short");
        let text = shorten(&"ä".repeat(1_000), 101);
        assert!(text.len() <= 101 && text.starts_with("äää") && text.ends_with('ä'), "{text}");
    }
}
