//! Hooks and checks of a release, as this application runs them.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use sluice_common::caps;
use sluice_common::digest::Digest;
use sluice_common::manifest::{Entry, EntryKind};
use sluice_common::order::Installed;
use sluice_common::path::RelPath;
use sluice_common::spec::{self, Hook, Spec};
use tokio_util::sync::CancellationToken;

use super::{Engine, blocking};
use crate::beneath::Beneath;
use crate::content::Origin;
use crate::health::Subject;
use crate::hook::{self, Call, Ended};
use crate::layout::AppDir;
use crate::observe;

/// Which hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Stop,
    Start,
    Validate,
}

impl Event {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Validate => "validate",
        }
    }

    fn of(self, spec: &Spec) -> Option<&Hook> {
        match self {
            Self::Stop => spec.hooks.stop.as_ref(),
            Self::Start => spec.hooks.start.as_ref(),
            Self::Validate => spec.hooks.validate.as_ref(),
        }
    }
}

impl<O: Origin> Engine<O> {
    /// Reads a release's `sluice.toml` after checking it, and the programs it names, against the signed manifest.
    pub(super) async fn spec(&self, release: &Installed) -> io::Result<Spec> {
        let (dir, package) = (self.dir.clone(), release.package);
        blocking(move || load_spec(&dir, &package)).await
    }

    /// Returns the call of a release's hook; nothing where it has none.
    pub(super) fn call(
        &self,
        event: Event,
        release: &Installed,
        spec: &Spec,
        previous: Option<&Installed>,
    ) -> Option<Call> {
        let Hook { command, timeout, environment } = event.of(spec)?;
        let mut variables = self.environment(release, previous);
        variables.insert("LIFECYCLE_EVENT".into(), event.as_str().into());
        variables.extend(environment.clone());
        Some(Call {
            command: command.clone(),
            release: self.dir.release(&release.package),
            environment: variables,
            timeout: *timeout,
            id: hook::new_id(&format!("{}hook", self.scope())),
        })
    }

    /// Runs a hook and shortens its output to what a report carries.
    pub(super) async fn run(&self, call: &Call, token: &CancellationToken) -> Ended {
        tracing::info!(app = %self.app, event = call.environment["LIFECYCLE_EVENT"], "hook begins");
        let began = tokio::time::Instant::now();
        let mut ended = hook::run(call, token).await;
        ended.output = hook::shorten(&ended.output, caps::REPORT_OUTPUT_BYTES_MAX);
        tracing::info!(app = %self.app, event = call.environment["LIFECYCLE_EVENT"], end = ?ended.end,
            elapsed_ms = began.elapsed().as_millis() as u64, "hook ended");
        ended
    }

    /// Returns what the checks of a release are asked of.
    pub(super) async fn subject(&self, release: &Installed) -> io::Result<Arc<Subject>> {
        let spec = self.spec(release).await?;
        Ok(Arc::new(Subject {
            checks: spec.health,
            environment: self.environment(release, None),
            release: self.dir.release(&release.package),
            scope: format!("{}check", self.scope()),
        }))
    }

    fn environment(&self, release: &Installed, previous: Option<&Installed>) -> BTreeMap<String, String> {
        let mut variables = self.host.variables.get(&self.app).cloned().unwrap_or_default();
        let version = release.version.to_string();
        variables.insert("APPLICATION_NAME".into(), self.app.to_string());
        variables.insert("VERSION".into(), version.clone());
        variables.insert("RELEASE_VERSION".into(), version);
        variables.insert(
            "PREVIOUS_VERSION".into(),
            previous.map(|release| release.version.to_string()).unwrap_or_default(),
        );
        let directory = self.dir.release(&release.package);
        variables.insert("RELEASE_DIR".into(), directory.to_string_lossy().into_owned());
        if let Some(state) = &self.state {
            variables.insert("ROLLOUT_ID".into(), state.rollout.to_string());
            variables.insert("GENERATION".into(), state.generation.to_string());
        }
        variables
    }
}

fn load_spec(dir: &AppDir, package: &Digest) -> io::Result<Spec> {
    let manifest = observe::manifest(dir, package)?;
    let Some(Entry { kind, .. }) = manifest.get(spec::FILE_NAME) else { return Ok(Spec::default()) };
    let EntryKind::File(file) = kind else {
        return Err(invalid(format!("{} is not a regular file", spec::FILE_NAME)));
    };
    if file.size > caps::SPEC_BYTES_MAX {
        return Err(invalid(spec::SpecError::TooLarge(file.size).to_string()));
    }
    let tree = Beneath::open(&dir.release(package))?;
    let mut text = String::new();
    let path: RelPath = spec::FILE_NAME.parse().map_err(|error| invalid(format!("{error}")))?;
    tree.read(&path)?.take(caps::SPEC_BYTES_MAX + 1).read_to_string(&mut text)?;
    if Digest::of(text.as_bytes()) != file.digest {
        return Err(invalid(format!("{} of release {} is damaged", spec::FILE_NAME, package.short())));
    }
    let spec = Spec::parse(&text).map_err(|error| invalid(error.to_string()))?;
    let hooks = [&spec.hooks.stop, &spec.hooks.start, &spec.hooks.validate];
    for program in hooks.into_iter().flatten().filter_map(|hook| hook.command.first()) {
        check_program(&tree, &manifest, program)?;
    }
    Ok(spec)
}

/// Checks that a program of the release is what was signed: the tree may have been tampered with since it was staged.
fn check_program(
    tree: &Beneath,
    manifest: &sluice_common::manifest::Manifest,
    program: &str,
) -> io::Result<()> {
    if program.starts_with('/') || !program.contains('/') {
        return Ok(());
    }
    let name = program.strip_prefix("./").unwrap_or(program);
    match manifest.get(name) {
        Some(Entry { path, kind: EntryKind::File(file) }) => {
            let (digest, _) = Digest::of_reader(tree.read(path)?)?;
            if digest == file.digest { Ok(()) } else { Err(invalid(format!("{name} is damaged"))) }
        }
        // A link, or a path through one, stays inside the package, whose files were verified; where there is nothing, the
        // hook fails by itself.
        Some(_) | None => Ok(()),
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
