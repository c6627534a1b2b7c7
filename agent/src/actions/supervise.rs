//! Applications that the agent itself keeps running, for hosts without systemd.
//!
//! A supervisor of its own (this program, started as `supervise DIR`) is the parent of the application: it keeps its
//! output, starts it again when it ends, and outlives the agent. A restarted agent finds it by its socket; where the
//! supervisor has died, the application by its number, start and boot. Nothing else is ever ended.
//!
//! ```text
//! ROOT/APP/service/<slot>/    0700
//!   task.json                 what to run
//!   control.sock              where the supervisor listens
//!   process.json              the application's process
//!   output.log, .1, ...       what the application prints
//! ```

mod back_off;
mod control;
mod launch;
mod log;
mod supervisor;
mod task;

use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use sluice_common::durable;
use sluice_common::spec::Exec;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::processes::Identity;
use super::{ActionError, Scene, limited};
use crate::stage::make_directory;
use control::{Command, Status};
use launch::Launch;
use task::Task;

pub(crate) use supervisor::run;

/// Time within which a supervisor that was started answers, and has started the application.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Time beyond the application's own that a supervisor has for ending it.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of the end of the output that a failed start shows.
const OUTPUT_BYTES: u64 = 4 * 1024;

/// The application of one slot, as the agent runs it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Supervised {
    dir: PathBuf,
    task: Task,
    launch: Launch,
}

impl Supervised {
    /// Replaces the variables of a command.
    pub(super) fn new(exec: &Exec, stop_timeout: Duration, scene: &Scene) -> Result<Self, ActionError> {
        let dir = scene.base.join("service").join(scene.slot.as_deref().unwrap_or("main"));
        if control::socket(&dir).as_os_str().len() > control::SOCKET_PATH_MAX {
            return Err(ActionError::failed(format!(
                "{} is too long for a socket; name a shorter root in agent.toml",
                dir.display()
            )));
        }
        Ok(Self { dir, task: Task::new(exec, stop_timeout, scene)?, launch: Launch::of_this_program() })
    }

    /// Starts the application, unless it runs as wanted already.
    pub(super) async fn start(&self, token: &CancellationToken) -> Result<(), ActionError> {
        match control::ask(&self.dir, Command::Status).await {
            Some(status) if status.task == self.task.digest() && !status.is_stopping => return Ok(()),
            Some(_) => self.stop(token).await?,
            None => self.end_orphan(token).await?,
        }
        self.prepare().map_err(|error| ActionError::failed(error.to_string()))?;
        self.launch
            .start(&self.dir)
            .map_err(|error| ActionError::failed(format!("cannot start a supervisor: {error}")))?;
        let status = limited("the supervisor", START_TIMEOUT, token, self.until_started()).await?;
        match (status.pid, status.last_end) {
            (Some(_), _) => Ok(()),
            (None, reason) => {
                let output = log::tail(&self.dir, OUTPUT_BYTES);
                self.stop(token).await?;
                Err(ActionError::Failed { reason: reason.unwrap_or_default(), output })
            }
        }
    }

    /// Starts the application where nothing runs. Unlike [`Self::start`], it leaves alone what was started by another order: its
    /// variables differ, and it is the same release.
    pub(super) async fn keep_running(&self, token: &CancellationToken) -> Result<(), ActionError> {
        match control::ask(&self.dir, Command::Status).await {
            Some(_) => Ok(()),
            None => self.start(token).await,
        }
    }

    /// Stops the application with everything it started, and its supervisor.
    pub(super) async fn stop(&self, token: &CancellationToken) -> Result<(), ActionError> {
        let Some(status) = control::ask(&self.dir, Command::Stop).await else {
            return self.end_orphan(token).await;
        };
        // As the task says that runs, which another release may have brought.
        let limit = Duration::from_millis(status.stop_timeout_ms) + STOP_GRACE;
        let ended = async {
            while control::ask(&self.dir, Command::Status).await.is_some() {
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        };
        limited("stopping the application", limit, token, ended).await
    }

    /// Sends the application the signal at which it takes its configuration anew; starts it where it does not run.
    pub(super) async fn reload(&self, token: &CancellationToken) -> Result<(), ActionError> {
        // Written first: what is started after the next end is the new release's.
        self.prepare().map_err(|error| ActionError::failed(error.to_string()))?;
        match control::ask(&self.dir, Command::Reload).await {
            Some(status) if status.pid.is_some() && !status.is_stopping => Ok(()),
            Some(_) | None => self.start(token).await,
        }
    }

    async fn until_started(&self) -> Result<Status, ActionError> {
        loop {
            match control::ask(&self.dir, Command::Status).await {
                Some(status) if status.pid.is_some() || status.last_end.is_some() => return Ok(status),
                Some(_) | None => tokio::time::sleep(LOOK).await,
            }
        }
    }

    fn prepare(&self) -> std::io::Result<()> {
        make_directory(self.dir.parent().unwrap_or(&self.dir), 0o700)?;
        make_directory(&self.dir, 0o700)?;
        durable::write_private(&self.dir.join(task::FILE), &self.task.to_json())
    }

    /// Ends an application whose supervisor has died.
    async fn end_orphan(&self, token: &CancellationToken) -> Result<(), ActionError> {
        let Some(process) = supervisor::read_process(&self.dir).filter(Identity::is_alive) else {
            return Ok(());
        };
        tracing::warn!(dir = %self.dir.display(), "application has lost its supervisor; it is ended");
        process.signal_group(Signal::TERM);
        let kill_at = Instant::now() + self.task.stop_timeout();
        let ended = async {
            while process.is_alive() {
                if Instant::now() >= kill_at {
                    process.signal_group(Signal::KILL);
                }
                tokio::time::sleep(LOOK).await;
            }
            Ok(())
        };
        limited("ending the application", self.task.stop_timeout() + STOP_GRACE, token, ended).await
    }
}

#[cfg(test)]
mod tests;
