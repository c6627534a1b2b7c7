//! The supervisor's own process: one application, kept running until it is told to stop.
//!
//! One task, which waits for all at once: the application's output, its end, what the agent asks, the time for the next
//! start or for KILL. As a subreaper it inherits whatever the application leaves behind, and ends it.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, kill_process_group, set_child_subreaper, setsid, wait,
};
use sluice_common::durable;
use sluice_common::units::format_duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::back_off::BackOff;
use super::control::{self, Command, Status};
use super::log::Log;
use super::task::Task;
use crate::actions::processes::{self, Identity};
use crate::hook;

/// The file that names the application's process.
const PROCESS: &str = "process.json";
/// Rounds of ending what the application left behind, and the time of one.
const SWEEPS: (u32, Duration) = (200, Duration::from_millis(10));

/// Runs the supervisor of `dir` until it is told to stop.
pub(crate) async fn run(dir: &Path) -> io::Result<()> {
    // Fails where it leads a session already, which is as good.
    let _ = setsid();
    set_child_subreaper(Some(rustix::process::getpid()))?;
    let listener = listen(dir)?;
    let mut supervisor = Supervisor::new(dir, Task::load(dir)?);
    supervisor.serve(&listener).await?;
    // While it still listens: once it does not, the next supervisor may have put its own socket here.
    fs_err::remove_file(control::socket(dir))
}

/// Reads which process an application is.
pub(super) fn read_process(dir: &Path) -> Option<Identity> {
    serde_json::from_slice(&fs_err::read(dir.join(PROCESS)).ok()?).ok()
}

fn listen(dir: &Path) -> io::Result<UnixListener> {
    let path = control::socket(dir);
    match fs_err::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => UnixListener::bind(path),
    }
}

struct Supervisor<'a> {
    dir: &'a Path,
    task: Task,
    log: Log,
    state: State,
    output: Option<pipe::Receiver>,
    back_off: BackOff,
    starts: u32,
    last_end: Option<String>,
    /// When it is to be ended for good by KILL; nothing while it is to run.
    kill_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running { pid: Pid, since: Instant },
    Waiting { until: Instant },
    Ended,
}

impl<'a> Supervisor<'a> {
    fn new(dir: &'a Path, task: Task) -> Self {
        Self {
            dir,
            task,
            log: Log::open(dir),
            state: State::Ended,
            output: None,
            back_off: BackOff::default(),
            starts: 0,
            last_end: None,
            kill_at: None,
        }
    }

    async fn serve(&mut self, listener: &UnixListener) -> io::Result<()> {
        let (mut child, mut term) = (signal(SignalKind::child())?, signal(SignalKind::terminate())?);
        // After that, so that no end is missed.
        self.start();
        while self.state != State::Ended {
            let moment = self.next_moment();
            tokio::select! {
                _ = child.recv() => self.reap(),
                bytes = read(&mut self.output) => self.log.write(&bytes),
                accepted = listener.accept() => {
                    if let Ok((stream, _)) = accepted {
                        self.converse(stream).await;
                    }
                }
                () = sleep_until(moment) => self.act(),
                _ = term.recv() => self.stop(),
            }
        }
        self.sweep();
        let _ = fs_err::remove_file(self.dir.join(PROCESS));
        self.log.note("stopped");
        Ok(())
    }

    async fn converse(&mut self, mut stream: tokio::net::UnixStream) {
        match control::hear(&mut stream).await {
            Some(Command::Status) => {}
            Some(Command::Stop) => self.stop(),
            Some(Command::Reload) => self.reload(),
            None => return,
        }
        control::answer(stream, &self.status()).await;
    }

    fn status(&self) -> Status {
        Status {
            task: self.task.digest(),
            pid: match self.state {
                State::Running { pid, .. } => u32::try_from(pid.as_raw_nonzero().get()).ok(),
                State::Waiting { .. } | State::Ended => None,
            },
            starts: self.starts,
            last_end: self.last_end.clone(),
            is_stopping: self.kill_at.is_some(),
            stop_timeout_ms: self.task.stop_timeout().as_millis() as u64,
        }
    }

    /// When there is something to do by itself.
    fn next_moment(&self) -> Option<Instant> {
        match self.state {
            State::Running { .. } => self.kill_at,
            State::Waiting { until } => Some(until),
            State::Ended => None,
        }
    }

    fn act(&mut self) {
        match self.state {
            State::Running { pid, .. } => {
                // The group may be gone already.
                let _ = kill_process_group(pid, Signal::KILL);
                self.kill_at = Some(Instant::now() + SWEEPS.1);
            }
            State::Waiting { .. } => self.start(),
            State::Ended => {}
        }
    }

    fn start(&mut self) {
        self.starts = self.starts.saturating_add(1);
        match self.spawn() {
            Ok(pid) => {
                self.log.note(&format!("started as process {}", pid.as_raw_nonzero()));
                self.state = State::Running { pid, since: Instant::now() };
            }
            Err(error) => {
                self.has_ended(&format!("cannot run {}: {error}", self.task.program()), Duration::ZERO);
            }
        }
    }

    fn spawn(&mut self) -> io::Result<Pid> {
        let (reader, writer) = io::pipe()?;
        self.output = Some(pipe::Receiver::from_owned_fd(reader.into())?);
        let mut command = self.task.command();
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        if let Some(user) = self.task.user() {
            let user =
                hook::find_user(user).map_err(|reason| io::Error::other(format!("service.exec {reason}")))?;
            // Its own group only: with these, the groups of root are left behind.
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
            command.env("USER", &user.name).env("LOGNAME", &user.name).env("HOME", &user.home);
        }
        // This process has the agent's, for the log that it keeps.
        let own = rustix::process::umask(hook::UMASK);
        let child = command.spawn();
        rustix::process::umask(own);
        let child = child?;
        let identity = Identity::of(child.id());
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("it has no number"))?;
        if let Some(text) = identity.and_then(|identity| serde_json::to_vec(&identity).ok()) {
            // Needed only after this process has died; an application that runs is worth more than that.
            let _ = durable::write_private(&self.dir.join(PROCESS), &text);
        }
        Ok(pid)
    }

    /// Takes the ends of all children: the application's, and those it left behind.
    fn reap(&mut self) {
        while let Ok(Some((ended, status))) = wait(WaitOptions::NOHANG) {
            if let State::Running { pid, since } = self.state
                && pid == ended
            {
                let status = ExitStatus::from_raw(status.as_raw());
                // What it left behind could hold its port.
                let _ = kill_process_group(pid, Signal::KILL);
                self.has_ended(&status.to_string(), since.elapsed());
            }
        }
    }

    fn has_ended(&mut self, how: &str, ran: Duration) {
        self.drain();
        self.output = None;
        self.last_end = Some(how.to_owned());
        if self.kill_at.is_some() {
            self.state = State::Ended;
            return;
        }
        self.sweep();
        let delay = self.back_off.after(ran);
        self.log.note(&format!("{how}; it is started again in {}", format_duration(delay)));
        self.state = State::Waiting { until: Instant::now() + delay };
    }

    /// Takes what the application printed last.
    fn drain(&mut self) {
        let Some(output) = &mut self.output else { return };
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = output.try_read(&mut buffer) {
            self.log.write(&buffer[..n]);
        }
    }

    fn stop(&mut self) {
        if self.kill_at.is_some() {
            return;
        }
        self.kill_at = Some(Instant::now() + self.task.stop_timeout());
        match self.state {
            State::Running { pid, .. } => {
                let _ = kill_process_group(pid, self.task.stop());
            }
            State::Waiting { .. } | State::Ended => self.state = State::Ended,
        }
    }

    fn reload(&mut self) {
        // One that cannot be read is as before; the agent has just written it.
        if let Ok(task) = Task::load(self.dir) {
            self.task = task;
        }
        if let (State::Running { pid, .. }, Some(signal)) = (self.state, self.task.reload()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Ends what the application left behind: this process has become its parent.
    fn sweep(&mut self) {
        for _ in 0..SWEEPS.0 {
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
            let left = processes::children(std::process::id()).unwrap_or_default();
            if left.is_empty() {
                return;
            }
            for pid in left.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(SWEEPS.1);
        }
        self.log.note("some processes that the application left behind cannot be ended");
    }
}

/// Returns what comes next; waits for ever once the pipe has ended.
async fn read(output: &mut Option<pipe::Receiver>) -> Vec<u8> {
    let mut buffer = vec![0; 64 * 1024];
    if let Some(pipe) = output {
        match pipe.read(&mut buffer).await {
            Ok(n @ 1..) => {
                buffer.truncate(n);
                return buffer;
            }
            Ok(_) | Err(_) => *output = None,
        }
    }
    std::future::pending().await
}

async fn sleep_until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
