//! Packing: scans a directory and checks what would fail on every host later.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use sluice_common::manifest::{EntryKind, Manifest};
use sluice_common::spec::{self, Probe, Runner, Service, Spec};
use sluice_common::tree::Tree;
use tokio::task::spawn_blocking;

use super::tree_text;
use crate::cli::Context;
use crate::cli::error::{advise, context as advice};
use crate::cli::exit::Exit;
use crate::cli::output::Output;
use crate::cli::progress;

#[derive(Serialize)]
struct Built {
    digest: String,
    files: u64,
    tree_bytes: u64,
}

/// Prints what `dir` packs to.
pub(super) async fn run(context: &Context, dir: PathBuf) -> anyhow::Result<Exit> {
    let tree = pack(context.output, dir).await?;
    let manifest = tree.manifest();
    let built = Built {
        digest: manifest.digest().to_string(),
        files: manifest.file_count(),
        tree_bytes: manifest.tree_bytes(),
    };
    context.output.show(&built, || format!("{}\n", built.digest))?;
    context.output.note(tree_text(built.files, built.tree_bytes));
    Ok(Exit::Success)
}

/// Scans `dir` and checks its `sluice.toml`.
pub(super) async fn pack(output: Output, dir: PathBuf) -> anyhow::Result<Tree> {
    let tree = scan(output, dir).await?;
    let failed = || {
        advice(
            format!("cannot pack {}", tree.root().display()),
            format!(
                "{} is signed with the package, so it is checked before anything is sent",
                spec::FILE_NAME
            ),
        )
    };
    let spec = Spec::load(tree.root()).with_context(failed)?;
    spec.check_against(tree.manifest()).with_context(failed)?;
    check_programs(&spec, tree.manifest()).with_context(failed)?;
    Ok(tree)
}

/// Walks and hashes `dir` on a blocking thread.
pub(super) async fn scan(output: Output, dir: PathBuf) -> anyhow::Result<Tree> {
    if !dir.is_dir() {
        return Err(advise(
            format_args!("{} is not a directory", dir.display()),
            "a package is made of a directory; give the one that holds the application's files",
        ));
    }
    let bar = progress::counter(output, "scanning");
    let scan = move || {
        let tree = Tree::scan_with(&dir, &|bytes| bar.inc(bytes));
        bar.finish_and_clear();
        tree.with_context(|| format!("cannot pack {}", dir.display()))
    };
    spawn_blocking(scan).await?
}

/// Refuses commands that name a program of the package which is not there or may not be executed.
fn check_programs(spec: &Spec, manifest: &Manifest) -> anyhow::Result<()> {
    for (name, hook) in spec.hooks.each() {
        check_program(&format!("hooks.{name}.command"), &hook.command, manifest)?;
    }
    for (i, check) in spec.health.iter().enumerate() {
        if let Probe::Command(probe) = &check.probe {
            check_program(&format!("health[{i}].command"), &probe.command, manifest)?;
        }
    }
    if let Some(Service { runner: Runner::Exec(exec), .. }) = &spec.service {
        check_program("service.exec", &exec.command, manifest)?;
    }
    Ok(())
}

fn check_program(field: &str, command: &[String], manifest: &Manifest) -> anyhow::Result<()> {
    let Some(program) =
        command.first().filter(|p| p.contains('/') && !p.starts_with('/') && !p.contains("${"))
    else {
        return Ok(());
    };
    let path = program.strip_prefix("./").unwrap_or(program);
    let is_link = |path: &Path| {
        let entry = path.to_str().and_then(|path| manifest.get(path));
        entry.is_some_and(|entry| matches!(entry.kind, EntryKind::Symlink { .. }))
    };
    match manifest.get(path).map(|entry| entry.kind) {
        Some(EntryKind::File(file)) if file.executable => Ok(()),
        Some(EntryKind::Symlink { .. }) => Ok(()),
        // Somewhere below a link: the host resolves it.
        None if Path::new(path).ancestors().any(is_link) => Ok(()),
        Some(EntryKind::File(_)) => Err(advise(
            format_args!("{}: {field}: {program} is not executable", spec::FILE_NAME),
            format_args!("run chmod +x {path} before packing"),
        )),
        Some(EntryKind::Directory) | None => Err(advise(
            format_args!("{}: {field}: the package has no program {program}", spec::FILE_NAME),
            "programs with a / are taken from the package, others from PATH",
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use fs_err as fs;

    use super::*;

    #[test]
    fn programs_of_the_package_must_be_there_and_executable() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        for (name, mode) in [("run", 0o755), ("text", 0o644)] {
            fs::write(dir.path().join("bin").join(name), name).unwrap();
            fs::set_permissions(dir.path().join("bin").join(name), PermissionsExt::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("bin", dir.path().join("sbin")).unwrap();
        let tree = Tree::scan(dir.path()).unwrap();
        for (program, refusal) in [
            ("bin/run", None),
            ("./bin/run", None),
            ("sbin/run", None),
            ("true", None),
            ("/bin/true", None),
            ("bin/${NAME}", None),
            ("bin/text", Some("hooks.start.command: bin/text is not executable")),
            ("bin/none", Some("the package has no program bin/none")),
            ("./bin", Some("the package has no program ./bin")),
        ] {
            let spec = Spec::parse(&format!("[hooks.start]\ncommand = [{program:?}]")).unwrap();
            let error = check_programs(&spec, tree.manifest()).err().map(|error| error.to_string());
            match refusal {
                None => assert_eq!(error, None, "{program}"),
                Some(text) => assert!(error.unwrap().contains(text), "{program}"),
            }
        }
    }
}
