//! How the watcher is told: JSON events on stdout, a live view on a terminal, or plain lines on stderr.

use jiff::Timestamp;
use serde::Serialize;

use super::changes::{Change, changes};
use super::live::Live;
use super::render::{HOSTS_MAX, Hosts, Line, Tone, render};
use super::summary;
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::cli::view::rollout::{Rollout, State};

/// The last line of JSON: the whole rollout and how watching it ended.
#[derive(Serialize)]
struct End<'a> {
    event: &'static str,
    exit_code: u8,
    #[serde(flatten)]
    rollout: Option<&'a Rollout>,
}

/// Tells one watcher.
pub(super) struct Reporter {
    output: Output,
    form: Form,
    /// Whether an outage was told and is not over.
    is_interrupted: bool,
}

enum Form {
    Json,
    Live(Live),
    Plain,
}

impl Reporter {
    pub(super) fn new(output: Output) -> Self {
        let form = match (output.is_json(), output.has_progress()) {
            (true, _) => Form::Json,
            (false, true) => Form::Live(Live::new(output.has_color())),
            (false, false) => Form::Plain,
        };
        Self { output, form, is_interrupted: false }
    }

    /// Tells of a new state.
    pub(super) fn update(&mut self, before: Option<&Rollout>, now: &Rollout) -> anyhow::Result<()> {
        self.is_interrupted = false;
        match &mut self.form {
            Form::Json => changes(before, now).iter().try_for_each(|change| self.output.json(change))?,
            Form::Live(live) => live.draw(&render(now, Timestamp::now(), Hosts::Some)),
            Form::Plain => {
                let are_many = now.hosts().count() > HOSTS_MAX;
                for change in changes(before, now).into_iter().filter(Change::is_news) {
                    if !are_many || change.is_coarse() {
                        self.output.note(change);
                    }
                }
            }
        }
        Ok(())
    }

    /// Lets time pass in the live view.
    pub(super) fn tick(&mut self, now: Option<&Rollout>) {
        if let (Form::Live(live), Some(rollout)) = (&mut self.form, now) {
            live.draw(&render(rollout, Timestamp::now(), Hosts::Some));
        }
    }

    /// Tells, once, that the coordinator is away.
    pub(super) fn interrupted(&mut self, now: Option<&Rollout>) {
        if std::mem::replace(&mut self.is_interrupted, true) {
            return;
        }
        match &mut self.form {
            Form::Live(live) => {
                let mut lines = now.map(|now| render(now, Timestamp::now(), Hosts::Some)).unwrap_or_default();
                lines.insert(
                    0,
                    Line {
                        tone: Tone::Bad,
                        text: "connection to the coordinator lost; trying again (hosts keep working)"
                            .to_owned(),
                    },
                );
                live.draw(&lines);
            }
            Form::Json | Form::Plain => {
                self.output.note("connection to the coordinator lost; trying again (hosts keep working)");
            }
        }
    }

    /// Tells how the rollout ended.
    pub(super) fn end(&mut self, rollout: &Rollout, exit: Exit) -> anyhow::Result<()> {
        match &mut self.form {
            Form::Json => {
                self.output.json(&End { event: "end", exit_code: exit.code(), rollout: Some(rollout) })
            }
            Form::Live(live) => {
                settle(live, self.output, rollout, Hosts::None);
                self.output.raw(&format!("\n{}", summary::text(rollout)))?;
                self.next(rollout);
                Ok(())
            }
            Form::Plain => {
                self.output.raw(&summary::text(rollout))?;
                self.next(rollout);
                Ok(())
            }
        }
    }

    /// Ends watching while the rollout goes on.
    pub(super) fn leave(&mut self, rollout: Option<&Rollout>, exit: Exit) -> anyhow::Result<()> {
        match &mut self.form {
            Form::Json => self.output.json(&End { event: "left", exit_code: exit.code(), rollout }),
            Form::Live(live) => {
                if let Some(rollout) = rollout {
                    settle(live, self.output, rollout, Hosts::Some);
                }
                Ok(())
            }
            Form::Plain => Ok(()),
        }
    }

    /// Says what can be done now.
    fn next(&self, rollout: &Rollout) {
        let id = &rollout.id;
        match rollout.state {
            State::Paused => self.output.note(format_args!(
                "paused: go on with sluice rollout resume {id}, or back with sluice rollout rollback {id}"
            )),
            State::Aborted => self
                .output
                .note(format_args!("hosts keep what they have; back with sluice rollout rollback {id}")),
            State::Failed => self
                .output
                .note(format_args!("hosts need a look: sluice rollout show {id}, sluice host show NAME")),
            State::Unknown | State::Running | State::RollingBack | State::Succeeded | State::RolledBack => {}
        }
    }
}

/// Takes the live view away and prints it once more, to stay.
fn settle(live: &mut Live, output: Output, rollout: &Rollout, hosts: Hosts) {
    live.clear();
    for line in render(rollout, Timestamp::now(), hosts) {
        output.note(live.painted(&line));
    }
}
