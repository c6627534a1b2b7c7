//! Whole lives of an application: real directories, real hooks, content from memory.

mod chances;
mod crashes;
mod hooks;
mod lives;
mod others;
mod own;
mod parallel;
mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sluice_common::keys::SecretKey;
use sluice_common::name::Platform;
use sluice_common::order::{Desired, Generation, Order, Phase, Report, Stage};
use sluice_common::release::Release;

use super::*;
use crate::config::Policy;
use crate::examine::examine;
use crate::observe::{self, Link};
use crate::planner::Rest;
use crate::stage::Floor;
use crate::stage::testing::{MemorySource, package};

pub(crate) struct World {
    root: tempfile::TempDir,
    key: SecretKey,
    pub(crate) source: MemorySource,
    pub(crate) board: Board,
    variables: BTreeMap<String, String>,
    upkeep: Upkeep,
    own: Own,
    reuse: crate::stage::Reuse,
    next: u64,
    packed: std::sync::Mutex<Vec<tempfile::TempDir>>,
}

pub(crate) type TestEngine = Engine<MemorySource>;

impl World {
    pub(crate) fn new() -> Self {
        // In memory where that can be: the tests sync thousands of times, and crash before the disk matters.
        let memory = Path::new("/dev/shm");
        let root = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap();
        Self {
            root,
            key: SecretKey::generate().unwrap(),
            source: MemorySource::default(),
            board: Board::default(),
            variables: BTreeMap::new(),
            upkeep: Upkeep::default(),
            own: Own::of_this_process(),
            reuse: crate::stage::Reuse::Auto,
            next: 1,
            packed: std::sync::Mutex::default(),
        }
    }

    pub(crate) fn app() -> AppName {
        "shop".parse().unwrap()
    }

    pub(crate) fn dir(&self) -> AppDir {
        AppDir::new(&self.root.path().join("srv"), &Self::app())
    }

    /// Where locks stand.
    pub(crate) fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// A file that hooks of the tests write to.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.path().join("log")
    }

    pub(crate) fn logged(&self) -> String {
        let log = fs_err::read_to_string(self.log()).unwrap_or_default();
        log.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn host(&self, crash: CrashPoints) -> Arc<Host<MemorySource>> {
        let mut variables = self.variables.clone();
        variables.insert("LOG".into(), self.log().display().to_string());
        fs_err::create_dir_all(self.root.path().join("srv")).unwrap();
        Arc::new(Host {
            root: self.root.path().join("srv"),
            rules: Rules {
                trusted_keys: vec![self.key.public()],
                policy: Policy::default(),
                platform: Platform::of_this_host(),
            },
            variables: [(Self::app(), variables)].into(),
            origin: self.source.clone(),
            reuse: self.reuse,
            upkeep: self.upkeep,
            staging: Semaphore::new(1),
            verifying: Semaphore::new(1),
            own: self.own.clone(),
            moving: Moving::default(),
            board: self.board.clone(),
            crash,
        })
    }

    pub(crate) async fn engine(&self, crash: CrashPoints) -> io::Result<TestEngine> {
        self.engine_of(Self::app(), self.host(crash)).await
    }

    pub(crate) async fn engine_of(
        &self,
        app: AppName,
        host: Arc<Host<MemorySource>>,
    ) -> io::Result<TestEngine> {
        let (monitored, _) = watch::channel(None);
        match Engine::open(app, host, monitored).await {
            Ok(engine) => Ok(engine),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Packs files as `version` with a `sluice.toml`, and adds them to the source.
    pub(crate) fn pack(&self, version: &str, spec: &str, files: &[(&str, &[u8])]) -> Digest {
        let mut all: Vec<(&str, &[u8])> =
            vec![("sluice.toml", spec.as_bytes()), ("VERSION", version.as_bytes())];
        all.extend_from_slice(files);
        let dir = package(&all);
        let package = self.source.add(dir.path());
        self.packed.lock().unwrap().push(dir);
        package
    }

    pub(crate) fn order(&mut self, version: &str, package: Digest, stage: Stage) -> Order {
        let release = Release {
            app: Self::app(),
            version: version.parse().unwrap(),
            packages: [(Platform::any(), package)].into(),
            notes: String::new(),
        };
        let release = release.sign(&self.key).unwrap();
        self.wrap(Desired::Release { stage, release, package })
    }

    pub(crate) fn wrap(&mut self, desired: Desired) -> Order {
        self.next += 1;
        Order {
            app: Self::app(),
            generation: Generation(self.next),
            rollout: "r7".parse().unwrap(),
            desired,
            ttl: Duration::from_secs(900),
            confirmed: false,
            migrates: true,
            needs: std::collections::BTreeMap::new(),
        }
    }

    pub(crate) fn report(&self) -> Report {
        self.board.watch().borrow().get(&Self::app()).cloned().expect("something was reported")
    }

    /// What `current` holds as its version file, after checking invariant I1.
    pub(crate) fn current(&self) -> String {
        match observe::link(&self.dir(), crate::layout::LinkName::Current).unwrap() {
            Link::Nothing => "none".into(),
            Link::Broken(reason) => panic!("I1: {reason}"),
            Link::Release(installed) => {
                let manifest = observe::manifest(&self.dir(), &installed.package).unwrap();
                let release = self.dir().release(&installed.package);
                assert_eq!(examine(&release, &manifest, &AtomicBool::new(false)).unwrap(), [], "I1");
                fs_err::read_to_string(self.dir().base().join("current/VERSION")).unwrap()
            }
        }
    }
}

/// Performs steps until there is nothing to do; returns how it rests.
pub(crate) async fn drive(engine: &mut TestEngine) -> io::Result<Rest> {
    let token = CancellationToken::new();
    loop {
        match engine.next().await? {
            Step::Rest(rest) => return Ok(rest),
            step => engine.perform(step, &token).await?,
        }
    }
}

pub(crate) async fn obey(engine: &mut TestEngine, order: Order) -> Phase {
    engine.take(order).await.unwrap();
    drive(engine).await.unwrap();
    engine.state().unwrap().progress.phase()
}

/// Hooks that log what they are told.
pub(crate) const LOGGING: &str = r#"
    [hooks.stop]
    command = ["/bin/sh", "-c", "echo stop $RELEASE_VERSION $PREVIOUS_VERSION >> $LOG"]
    [hooks.start]
    command = ["/bin/sh", "-c", "echo start $RELEASE_VERSION $PREVIOUS_VERSION >> $LOG"]
    [hooks.validate]
    command = ["/bin/sh", "-c", "echo validate $RELEASE_VERSION >> $LOG"]
"#;

pub(crate) fn exists(path: &Path) -> bool {
    fs_err::symlink_metadata(path).is_ok()
}
