//! Bars on stderr for work of a known or an unknown amount of bytes. Hidden where nobody watches.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::Output;

/// How often a spinner turns while nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// Makes a bar of `total` bytes.
pub(super) fn bytes(output: Output, what: &'static str, total: u64) -> ProgressBar {
    styled(
        output,
        ProgressBar::new(total),
        what,
        "{msg:10} {bar:30} {decimal_bytes:>10} of {decimal_total_bytes:10} {decimal_bytes_per_sec:>12}  {eta} left",
    )
}

/// Makes a counter of bytes whose end is not known.
pub(super) fn counter(output: Output, what: &'static str) -> ProgressBar {
    styled(
        output,
        ProgressBar::new_spinner(),
        what,
        "{msg:10} {spinner} {decimal_bytes} {decimal_bytes_per_sec:>12}",
    )
}

fn styled(output: Output, bar: ProgressBar, what: &'static str, template: &str) -> ProgressBar {
    if !output.has_progress() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).expect("the template is fixed and tested");
    let bar = bar.with_style(style.progress_chars("=> ")).with_message(what);
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid_and_hidden_bars_count_nothing_visible() {
        for template in [
            "{msg:10} {bar:30} {decimal_bytes:>10} of {decimal_total_bytes:10} {decimal_bytes_per_sec:>12}  {eta} left",
            "{msg:10} {spinner} {decimal_bytes} {decimal_bytes_per_sec:>12}",
        ] {
            ProgressStyle::with_template(template).unwrap();
        }
        assert!(bytes(Output::new(false, true), "x", 1).is_hidden());
    }
}
