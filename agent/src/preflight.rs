//! Refuses what a host cannot run before anything of it is fetched: `[requires]` of the package's `sluice.toml`, which comes
//! with the plan. The space that the release itself takes is [`crate::stage`]'s business.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use sluice_common::manifest::{EntryKind, Manifest};
use sluice_common::spec::{self, AtLeast, Dotted, Requires, Spec};
use sluice_common::units::format_size;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::stage::Space;

/// What a host has, as far as releases may ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// `ID` and `VERSION_ID` of `/etc/os-release`.
    os: (String, Option<Dotted>),
    arch: String,
    /// Nothing where it cannot be told.
    libc: Option<(String, Option<Dotted>)>,
    kernel: Option<Dotted>,
    memory: u64,
    /// Free, where applications stand.
    disk: u64,
}

impl Host {
    /// Looks at this host; applications stand at `root`. Blocks.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
        let system = System::new_with_specifics(memory).ok();
        Ok(Self {
            os: os(&fs_err::read_to_string("/etc/os-release").unwrap_or_default()),
            arch: std::env::consts::ARCH.to_owned(),
            libc: libc(),
            kernel: System::kernel_version().ok().and_then(|text| Dotted::read(&text)),
            memory: system.map_or(0, |system| system.total_memory()),
            disk: Space::of(root)?.free,
        })
    }
}

/// Says why a package may not come to this host, from the text of its `sluice.toml` as it came with the plan. Nothing is said
/// where none came, or another than the manifest's. Blocks.
pub(crate) fn objection(text: &[u8], manifest: &Manifest, root: &Path) -> io::Result<Option<String>> {
    let entry = manifest.get(spec::FILE_NAME);
    let is_signed = entry.is_some_and(|entry| match entry.kind {
        EntryKind::File(file) => file.digest == sluice_common::digest::Digest::of(text),
        EntryKind::Directory | EntryKind::Symlink { .. } => false,
    });
    let Ok(text) = std::str::from_utf8(text) else { return Ok(None) };
    if !is_signed {
        return Ok(None);
    }
    match Spec::parse(text).and_then(|spec| spec.check_against(manifest).map(|()| spec)) {
        Ok(spec) => lacking(&spec.requires, root),
        Err(error) => Ok(Some(error.to_string())),
    }
}

/// Says what this host lacks of what a release asks for. Blocks.
pub(crate) fn lacking(requires: &Requires, root: &Path) -> io::Result<Option<String>> {
    if *requires == Requires::default() {
        return Ok(None);
    }
    let lacks = lacks(requires, &Host::read(root)?);
    Ok((!lacks.is_empty()).then(|| {
        format!(
            "this host is not what the release requires: {}; change the host, or leave it out by the rollout's selector",
            lacks.join("; ")
        )
    }))
}

/// Lists what `host` lacks of what is required, in words. Pure.
fn lacks(requires: &Requires, host: &Host) -> Vec<String> {
    let Requires { os, arch, libc, kernel, memory, disk } = requires;
    let mut lacks = Vec::new();
    let mut lack = |field: &str, required: String, found: String| {
        lacks.push(format!("{field} is to be {required} and is {found}"));
    };
    let either = |named: &[AtLeast]| named.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    if !os.is_empty() && !os.iter().any(|os| os.name == std::env::consts::OS || is_met(os, &host.os)) {
        lack("os", either(os), shown(&host.os));
    }
    if !arch.is_empty() && !arch.iter().any(|arch| arch.name == host.arch) {
        lack("arch", either(arch), host.arch.clone());
    }
    if let Some(libc) = libc
        && !host.libc.as_ref().is_some_and(|found| is_met(libc, found))
    {
        lack("libc", libc.to_string(), host.libc.as_ref().map_or_else(|| "not known".into(), shown));
    }
    if let Some(kernel) = kernel
        && host.kernel.as_ref().is_none_or(|found| found < kernel)
    {
        let found = host.kernel.as_ref().map_or_else(|| "not known".into(), ToString::to_string);
        lack("kernel", format!("{kernel} at least"), found);
    }
    for (field, required, found) in [("memory", memory, host.memory), ("free disk", disk, host.disk)] {
        if let Some(short) = required.and_then(|required| required.checked_sub(found)).filter(|s| *s > 0) {
            let required = format_size(required.unwrap_or_default());
            lack(
                field,
                format!("{required} at least"),
                format!("{}, {} too few", format_size(found), format_size(short)),
            );
        }
    }
    lacks
}

fn is_met(required: &AtLeast, (name, version): &(String, Option<Dotted>)) -> bool {
    let is_new_enough = || match (&required.version, version) {
        (None, _) => true,
        (Some(required), Some(found)) => found >= required,
        (Some(_), None) => false,
    };
    required.name == *name && is_new_enough()
}

fn shown((name, version): &(String, Option<Dotted>)) -> String {
    match version {
        Some(version) => format!("{name} {version}"),
        None => name.clone(),
    }
}

/// Reads `/etc/os-release`.
fn os(text: &str) -> (String, Option<Dotted>) {
    let value = |key: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.map(|value| value.trim().trim_matches(['"', '\'']))
    };
    let name = value("ID").filter(|name| !name.is_empty()).unwrap_or(std::env::consts::OS);
    (name.to_owned(), value("VERSION_ID").and_then(Dotted::read))
}

/// Finds out which C library the host's programs have: the agent's own need not be the same.
fn libc() -> Option<(String, Option<Dotted>)> {
    let asked =
        Command::new("getconf").arg("GNU_LIBC_VERSION").stdin(Stdio::null()).stderr(Stdio::null()).output();
    let answer = asked.ok().filter(|output| output.status.success());
    let answer = answer.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    if let Some((name, version)) = answer.trim().split_once(' ') {
        return Some((name.to_owned(), Dotted::read(version)));
    }
    let has_musl = fs_err::read_dir("/lib").is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("ld-musl-"))
    });
    has_musl.then(|| ("musl".to_owned(), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Host {
        Host {
            os: ("debian".into(), Dotted::read("12")),
            arch: "x86_64".into(),
            libc: Some(("glibc".into(), Dotted::read("2.36"))),
            kernel: Dotted::read("6.1.0"),
            memory: 2_000_000_000,
            disk: 5_000_000_000,
        }
    }

    #[test]
    fn what_is_lacking_is_said_with_how_much() {
        for (text, expected) in [
            ("", ""),
            ("os = \"linux\"", ""),
            ("os = \"debian\"", ""),
            ("os = [\"ubuntu\", \"debian 12\"]", ""),
            (
                "os = [\"ubuntu 22.04\", \"debian 13\"]",
                "os is to be ubuntu 22.04 or debian 13 and is debian 12",
            ),
            ("arch = [\"aarch64\", \"x86_64\"]", ""),
            ("arch = \"aarch64\"", "arch is to be aarch64 and is x86_64"),
            ("libc = \"glibc 2.31\"", ""),
            ("libc = \"glibc 2.39\"", "libc is to be glibc 2.39 and is glibc 2.36"),
            ("libc = \"musl\"", "libc is to be musl and is glibc 2.36"),
            ("kernel = \"5.10\"", ""),
            ("kernel = \"6.6\"", "kernel is to be 6.6 at least and is 6.1.0"),
            ("memory = \"2GB\"", ""),
            ("memory = \"2.5GB\"", "memory is to be 2.50 GB at least and is 2.00 GB, 500 MB too few"),
            ("disk = \"6GB\"", "free disk is to be 6.00 GB at least and is 5.00 GB, 1.00 GB too few"),
            (
                "arch = \"sparc\"\nkernel = \"7\"",
                "arch is to be sparc and is x86_64; kernel is to be 7 at least and is 6.1.0",
            ),
        ] {
            let requires = Spec::parse(&format!("[requires]\n{text}")).unwrap().requires;
            assert_eq!(lacks(&requires, &host()).join("; "), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_not_met() {
        let unknown = Host { libc: None, kernel: None, ..host() };
        let requires = Spec::parse("[requires]\nlibc = \"musl\"\nkernel = \"5\"").unwrap().requires;
        assert_eq!(lacks(&requires, &unknown).len(), 2);
    }

    #[test]
    fn os_release_is_read() {
        let version = |text: &str| Dotted::read(text);
        for (text, expected) in [
            ("NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n", ("debian", version("12"))),
            ("ID=\"rhel\"\nVERSION_ID='9.4'", ("rhel", version("9.4"))),
            ("ID=arch\n", ("arch", None)),
            ("", ("linux", None)),
        ] {
            assert_eq!(os(text), (expected.0.to_owned(), expected.1), "{text}");
        }
        let host = Host::read(Path::new("/")).unwrap();
        assert!(host.memory > 0 && host.disk > 0 && host.kernel.is_some() && host.libc.is_some());
    }

    #[test]
    fn only_the_signed_text_counts() {
        let text = "[requires]\narch = \"sparc\"";
        let package = crate::stage::testing::package(&[("sluice.toml", text.as_bytes())]);
        let tree = sluice_common::tree::Tree::scan(package.path()).unwrap();
        let ask = |text: &str| objection(text.as_bytes(), tree.manifest(), Path::new("/")).unwrap();
        assert!(ask(text).unwrap().contains("arch is to be sparc"));
        assert_eq!((ask("[requires]\narch = \"mips\""), ask("")), (None, None));
    }
}
