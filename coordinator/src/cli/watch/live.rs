//! Lines that are drawn over themselves on a terminal. What they say is [`super::render`]'s business.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::render::{Line, Tone};

/// The lines on the terminal.
pub(super) struct Live {
    screen: MultiProgress,
    lines: Vec<ProgressBar>,
    color: bool,
}

impl Live {
    pub(super) fn new(color: bool) -> Self {
        Self { screen: MultiProgress::new(), lines: Vec::new(), color }
    }

    /// Replaces what is drawn.
    pub(super) fn draw(&mut self, lines: &[Line]) {
        while self.lines.len() > lines.len() {
            if let Some(line) = self.lines.pop() {
                line.finish_and_clear();
                self.screen.remove(&line);
            }
        }
        while self.lines.len() < lines.len() {
            // `wide_msg` cuts what does not fit, so that a line is always one line.
            let style = ProgressStyle::with_template("{wide_msg}").expect("the template is fixed");
            self.lines.push(self.screen.add(ProgressBar::new_spinner().with_style(style)));
        }
        for (bar, line) in self.lines.iter().zip(lines) {
            let text = self.painted(line);
            // Each message is a redraw, so only news is one.
            if bar.message() != text {
                bar.set_message(text);
            }
        }
    }

    /// Colours a line where colours are wanted.
    pub(super) fn painted(&self, line: &Line) -> String {
        let code = match line.tone {
            Tone::Plain => "",
            Tone::Strong => "1",
            Tone::Good => "32",
            Tone::Busy => "33",
            Tone::Bad => "31",
            Tone::Faint => "2",
        };
        if self.color && !code.is_empty() {
            format!("\x1b[{code}m{}\x1b[0m", line.text)
        } else {
            line.text.clone()
        }
    }

    /// Takes the lines away.
    pub(super) fn clear(&mut self) {
        for line in self.lines.drain(..) {
            line.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_only_there_where_wanted() {
        let line = Line { tone: Tone::Bad, text: "failed".into() };
        assert_eq!(Live::new(true).painted(&line), "\x1b[31mfailed\x1b[0m");
        assert_eq!(Live::new(false).painted(&line), "failed");
    }
}
