//! nginx on this host: the `server` line of the application stands in an include file that the agent owns, and nginx is
//! reloaded when it changes.
//!
//! The file is `nginx-server.conf` in the application's own directory. A configuration that nginx refuses is taken back
//! before nginx sees it. After a reload, nginx's old workers finish what they began; their end is waited for.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use sluice_common::durable;
use sluice_common::spec::{self, is_word};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{ActionError, Scene, command, processes};

/// The include file's name.
const INCLUDE: &str = "nginx-server.conf";
/// Time limit of nginx's own commands.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// Time within which nginx's main process has started workers with a new configuration.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(15);
/// First and longest time between two looks at nginx's workers.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

/// The line of one application in an nginx on this host, with every variable replaced.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Nginx<'a> {
    scene: &'a Scene,
    spec: &'a spec::Nginx,
    server: String,
    pid: PathBuf,
}

impl<'a> Nginx<'a> {
    /// Replaces the variables, and checks what they brought.
    pub(super) fn new(spec: &'a spec::Nginx, scene: &'a Scene) -> Result<Self, ActionError> {
        let server = scene.fill("traffic.nginx.server", &spec.server)?;
        if !server.split(' ').all(|part| is_word(part) && !part.contains('/')) {
            return Err(ActionError::failed(format!(
                "traffic.nginx.server: {server:?} cannot stand in a configuration; see the variables in agent.toml"
            )));
        }
        let pid = scene.fill("traffic.nginx.pid", &spec.pid)?.into();
        Ok(Self { scene, spec, server, pid })
    }

    /// Keeps new requests away, and waits until those under way have ended or the time for that is over.
    pub(super) async fn drain(&self, token: &CancellationToken) -> Result<(), ActionError> {
        self.apply(&format!("server {} down;\n", self.server), token).await
    }

    /// Lets requests come to this address; those under way elsewhere are waited for as in [`Self::drain`].
    pub(super) async fn ready(&self, token: &CancellationToken) -> Result<(), ActionError> {
        self.apply(&format!("server {};\n", self.server), token).await
    }

    async fn apply(&self, line: &str, token: &CancellationToken) -> Result<(), ActionError> {
        let before = self.replace(line).await?;
        if let Err(error) = self.run("test", &self.spec.test, token).await {
            self.put_back(before).await?;
            return Err(error);
        }
        let old = self.workers().await?;
        self.run("reload", &self.spec.reload, token).await?;
        self.await_reload(&old, token).await
    }

    /// Writes the include file; returns what it said.
    async fn replace(&self, line: &str) -> Result<Option<Vec<u8>>, ActionError> {
        let (path, text) =
            (self.include(), format!("# Written by sluice-agent at every deployment.\n{line}"));
        blocking(move || {
            let before = match fs_err::read(&path) {
                Ok(before) => Some(before),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            };
            durable::write_public(&path, text.as_bytes())?;
            Ok(before)
        })
        .await
    }

    async fn put_back(&self, before: Option<Vec<u8>>) -> Result<(), ActionError> {
        let path = self.include();
        blocking(move || match before {
            Some(before) => durable::write_public(&path, &before),
            None => fs_err::remove_file(&path),
        })
        .await
    }

    async fn run(&self, what: &str, words: &[String], token: &CancellationToken) -> Result<(), ActionError> {
        match command::run(self.scene, words, COMMAND_TIMEOUT, token).await {
            Ok(_) => Ok(()),
            Err(ActionError::Failed { reason, output }) => {
                Err(ActionError::Failed { reason: format!("traffic.nginx.{what}: {reason}"), output })
            }
            Err(ActionError::Interrupted) => Err(ActionError::Interrupted),
        }
    }

    /// Waits until nginx has new workers, and then until the old ones have ended or the time for that is over.
    async fn await_reload(&self, old: &BTreeSet<u32>, token: &CancellationToken) -> Result<(), ActionError> {
        let began = Instant::now();
        let mut pause = LOOKS.0;
        let mut is_reloaded = false;
        loop {
            let now = self.workers().await?;
            is_reloaded |= now.difference(old).next().is_some();
            let left = now.intersection(old).count();
            if is_reloaded && left == 0 {
                return Ok(());
            }
            if !is_reloaded && began.elapsed() >= RELOAD_TIMEOUT {
                return Err(ActionError::failed(
                    "nginx has not taken its new configuration; its error log says why",
                ));
            }
            if is_reloaded && began.elapsed() >= self.spec.wait {
                tracing::warn!(
                    workers = left,
                    "requests are still under way after the time for them; going on"
                );
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LOOKS.1),
                () = token.cancelled() => return Err(ActionError::Interrupted),
            }
        }
    }

    /// Returns the workers of nginx, old and new.
    async fn workers(&self) -> Result<BTreeSet<u32>, ActionError> {
        let path = self.pid.clone();
        let text = fs_err::read_to_string(&path).map_err(|error| {
            ActionError::failed(format!("{error}; start nginx, or name its pid file in traffic.nginx.pid"))
        })?;
        let main = text.trim().parse::<u32>().map_err(|_| {
            ActionError::failed(format!(
                "{} holds no number of a process; see traffic.nginx.pid",
                path.display()
            ))
        })?;
        blocking(move || processes::children(main)).await
    }

    fn include(&self) -> PathBuf {
        self.scene.base.join(INCLUDE)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ActionError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(std::io::Error::other).flatten().map_err(|error| ActionError::failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::actions::testing::scene;

    /// A main process whose one child is replaced when it gets HUP, as nginx replaces its workers.
    const MAIN: &str = "#!/bin/sh
worker() { sleep 1000 & child=$!; }
trap 'old=$child; worker; kill $old' HUP
trap 'kill $child; exit 0' TERM
worker
echo $$ > new.pid; mv new.pid main.pid
while :; do wait; done
";

    fn spec(test: &[&str]) -> spec::Nginx {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        spec::Nginx {
            server: "127.0.0.1:${PORT} max_fails=0".into(),
            test: words(test),
            reload: words(&["sh", "-c", "kill -HUP $(cat main.pid)"]),
            pid: "${DIR}/main.pid".into(),
            wait: Duration::from_secs(60),
        }
    }

    async fn start(dir: &Path) -> tokio::process::Child {
        let mut main = tokio::process::Command::new("sh");
        let main = main.args(["-c", MAIN]).current_dir(dir).kill_on_drop(true).spawn().unwrap();
        while !dir.join("main.pid").exists() {
            tokio::task::yield_now().await;
        }
        main
    }

    #[tokio::test]
    async fn a_line_is_written_and_nginx_reloaded() {
        let dir = tempfile::tempdir().unwrap();
        let mut main = start(dir.path()).await;
        let scene = scene(dir.path(), &[("PORT", "8081"), ("DIR", dir.path().to_str().unwrap())]);
        let spec = spec(&["grep", "-q", "8081", INCLUDE]);
        let nginx = Nginx::new(&spec, &scene).unwrap();
        let token = CancellationToken::new();
        let text = || fs_err::read_to_string(dir.path().join(INCLUDE)).unwrap();
        let before = nginx.workers().await.unwrap();
        nginx.drain(&token).await.unwrap();
        assert!(text().ends_with("\nserver 127.0.0.1:8081 max_fails=0 down;\n"), "{}", text());
        assert!(nginx.workers().await.unwrap().is_disjoint(&before));
        nginx.ready(&token).await.unwrap();
        assert!(text().ends_with("\nserver 127.0.0.1:8081 max_fails=0;\n"), "{}", text());
        let pid = rustix::process::Pid::from_raw(main.id().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        main.wait().await.unwrap();
    }

    #[tokio::test]
    async fn what_nginx_refuses_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let scene = scene(dir.path(), &[("PORT", "8081"), ("DIR", dir.path().to_str().unwrap())]);
        let (spec, token) = (spec(&["sh", "-c", "echo bad line; exit 1"]), CancellationToken::new());
        let nginx = Nginx::new(&spec, &scene).unwrap();
        let refused = nginx.ready(&token).await.unwrap_err();
        assert!(
            matches!(&refused, ActionError::Failed { reason, output }
            if reason.contains("traffic.nginx.test") && output == "bad line\n"),
            "{refused:?}"
        );
        assert!(!dir.path().join(INCLUDE).exists());
        fs_err::write(dir.path().join(INCLUDE), "old").unwrap();
        nginx.ready(&token).await.unwrap_err();
        assert_eq!(fs_err::read_to_string(dir.path().join(INCLUDE)).unwrap(), "old");
    }

    #[tokio::test]
    async fn a_missing_nginx_names_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let scene = scene(dir.path(), &[("PORT", "8081"), ("DIR", "/nowhere")]);
        let (spec, token) = (spec(&["true"]), CancellationToken::new());
        let reason = Nginx::new(&spec, &scene).unwrap().ready(&token).await.unwrap_err().to_string();
        assert!(reason.contains("traffic.nginx.pid"), "{reason}");
    }

    #[test]
    fn variables_cannot_bring_a_second_line() {
        let dir = tempfile::tempdir().unwrap();
        for port in ["1; include /etc/passwd", "1\n", "1 "] {
            let scene = scene(dir.path(), &[("PORT", port), ("DIR", "/run")]);
            assert!(Nginx::new(&spec(&["true"]), &scene).is_err(), "{port:?}");
        }
    }
}
