//! The board: one line a promise, with what was measured and what was promised.

use std::time::Instant;

use anyhow::Result;

/// Collects lines and remembers whether one fell short.
pub(super) struct Board {
    passed: usize,
    failed: Vec<String>,
    skipped: usize,
}

impl Board {
    pub(super) fn new() -> Self {
        Self { passed: 0, failed: Vec::new(), skipped: 0 }
    }

    /// Runs a section; an error in it is a promise that was not shown.
    pub(super) fn section(&mut self, name: &str, run: impl FnOnce(&mut Self) -> Result<()>) {
        println!("\n{name}");
        let begun = Instant::now();
        if let Err(error) = run(self) {
            self.line(&format!("{name} ran to its end"), &format!("{error:#}"), "no error", false);
        }
        println!("  ({:.0} s)", begun.elapsed().as_secs_f64());
    }

    /// Adds a line.
    pub(super) fn line(&mut self, what: &str, figure: &str, bound: &str, holds: bool) {
        println!("  {} {what:<58} {figure:<28} {bound}", if holds { "ok  " } else { "FAIL" });
        if holds {
            self.passed += 1;
        } else {
            self.failed.push(what.to_owned());
        }
    }

    /// Adds a line that could not be shown here, and says why.
    pub(super) fn skip(&mut self, what: &str, why: &str) {
        println!("  skip {what:<58} {why}");
        self.skipped += 1;
    }

    /// Prints the sum; returns whether every line holds.
    pub(super) fn close(&self) -> bool {
        println!("\n{} passed, {} failed, {} skipped", self.passed, self.failed.len(), self.skipped);
        for what in &self.failed {
            println!("fell short: {what}");
        }
        self.failed.is_empty() && self.passed > 0
    }
}
