//! A real supervisor, played by a test of this program.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sluice_common::spec::SignalName;

use super::*;
use crate::actions::processes;
use crate::actions::testing::scene;

/// The test that is the supervisor when it is told a directory.
pub(super) const SUPERVISOR: &str = "actions::supervise::tests::play_the_supervisor";

#[test]
fn play_the_supervisor() {
    let mut arguments = std::env::args().skip_while(|argument| argument != "supervise").skip(1);
    if let Some(dir) = arguments.next() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(Path::new(&dir))).unwrap();
    }
}

/// An application that the supervisor runs, in a directory that ends it with itself.
struct Trial {
    dir: tempfile::TempDir,
    token: CancellationToken,
}

impl Trial {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), token: CancellationToken::new() }
    }

    fn supervised(&self, script: &str) -> Supervised {
        let path = self.dir.path().join("shop");
        fs_err::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        fs_err::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        self.exec("./shop")
    }

    fn exec(&self, program: &str) -> Supervised {
        let exec = Exec {
            command: vec![program.into(), "${PORT}".into()],
            environment: [("MODE".to_owned(), "fast".to_owned())].into(),
            user: None,
            reload: Some(SignalName::Hup),
            stop: SignalName::Term,
        };
        let scene = scene(self.dir.path(), &[("PORT", "8081")]);
        Supervised::new(&exec, Duration::from_secs(60), &scene).unwrap()
    }

    async fn until(&self, text: &str) {
        while !self.output().contains(text) {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn output(&self) -> String {
        log::tail(&self.dir.path().join("service/main"), 1 << 20)
    }
}

async fn status(supervised: &Supervised) -> Option<Status> {
    control::ask(&supervised.dir, Command::Status).await
}

const SERVER: &str = "trap 'echo reloaded' HUP; trap 'echo bye; exit 0' TERM\n\
                      echo \"serving $1 $MODE\"\nwhile :; do sleep 1000 & wait $!; done\n";

#[tokio::test]
async fn an_application_is_started_reloaded_and_stopped_by_whoever_asks() {
    let trial = Trial::new();
    let first = trial.supervised(SERVER);
    assert!(status(&first).await.is_none());
    first.start(&trial.token).await.unwrap();
    trial.until("serving 8081 fast").await;
    let pid = status(&first).await.unwrap().pid;
    // What a restarted agent does: it knows nothing but the directory.
    let again = trial.exec("./shop");
    again.start(&trial.token).await.unwrap();
    again.reload(&trial.token).await.unwrap();
    trial.until("reloaded").await;
    assert_eq!(status(&again).await.unwrap().pid, pid);
    again.stop(&trial.token).await.unwrap();
    again.stop(&trial.token).await.unwrap();
    assert!(trial.output().contains("bye") && trial.output().contains("stopped"));
    assert!(processes::Identity::of(pid.unwrap()).is_none());
}

#[tokio::test]
async fn another_task_takes_the_place_of_the_first() {
    let trial = Trial::new();
    let first = trial.supervised(SERVER);
    first.start(&trial.token).await.unwrap();
    let pid = status(&first).await.unwrap().pid;
    let mut second = first.clone();
    second.task = Task::new(
        &Exec {
            command: vec!["./shop".into(), "8082".into()],
            environment: Default::default(),
            user: None,
            reload: None,
            stop: SignalName::Term,
        },
        Duration::from_secs(60),
        &scene(trial.dir.path(), &[]),
    )
    .unwrap();
    second.keep_running(&trial.token).await.unwrap();
    assert_eq!(status(&second).await.unwrap().pid, pid);
    second.start(&trial.token).await.unwrap();
    trial.until("serving 8082").await;
    assert_ne!(status(&second).await.unwrap().pid, pid);
    second.stop(&trial.token).await.unwrap();
}

#[tokio::test]
async fn what_ends_is_started_again_and_leaves_nothing_behind() {
    let trial = Trial::new();
    let supervised = trial.supervised("setsid sleep 4242 & echo started; exit 3");
    // It may have ended before it was seen running.
    let _ = supervised.start(&trial.token).await;
    while status(&supervised).await.is_some_and(|status| status.starts < 2) {
        tokio::time::sleep(LOOK).await;
    }
    supervised.stop(&trial.token).await.unwrap();
    assert!(trial.output().contains("exit status: 3; it is started again in 500ms"), "{}", trial.output());
    let of_application = |entry: &fs_err::DirEntry| {
        let read = |name| fs_err::read(entry.path().join(name)).unwrap_or_default();
        let cwd = fs_err::read_link(entry.path().join("cwd"));
        read("cmdline").starts_with(b"sleep\x004242") && cwd.is_ok_and(|cwd| cwd == trial.dir.path())
    };
    let left = fs_err::read_dir("/proc").unwrap().filter_map(Result::ok).filter(of_application).count();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn what_cannot_run_says_why_and_leaves_no_supervisor() {
    let trial = Trial::new();
    let supervised = trial.exec("bin/none");
    let reason = supervised.start(&trial.token).await.unwrap_err().to_string();
    assert!(reason.contains("cannot run") && reason.contains("bin/none"), "{reason}");
    assert!(status(&supervised).await.is_none());
}

#[tokio::test]
async fn an_application_without_its_supervisor_is_found_and_ended_and_nothing_else_is() {
    let trial = Trial::new();
    let supervised = trial.supervised(SERVER);
    supervised.start(&trial.token).await.unwrap();
    let process = supervisor::read_process(&supervised.dir).unwrap();
    let parent = |pid: u32| {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse::<i32>().unwrap()
    };
    let pid = status(&supervised).await.unwrap().pid.unwrap();
    let supervisor = rustix::process::Pid::from_raw(parent(pid)).unwrap();
    rustix::process::kill_process(supervisor, Signal::KILL).unwrap();
    while status(&supervised).await.is_some() {
        tokio::time::sleep(LOOK).await;
    }
    assert!(process.is_alive());
    supervised.stop(&trial.token).await.unwrap();
    assert!(!process.is_alive());
    // A process that has the number but not the start is left alone.
    let mut foreign = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let text = serde_json::to_string(&processes::Identity::of(foreign.id()).unwrap()).unwrap();
    let text = text.replace("\"started\":", "\"started\":1");
    fs_err::write(supervised.dir.join("process.json"), text).unwrap();
    supervised.stop(&trial.token).await.unwrap();
    assert!(foreign.try_wait().unwrap().is_none());
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}
