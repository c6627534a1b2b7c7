//! What this host is: read once at the start of a session, and nothing that is not told.

use std::path::Path;

use sluice_common::name::Platform;
use sluice_proto::v1;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::stage::{Floor, Space};

/// Reads the facts; `root` is where applications stand, and `floor` of its disk stays free.
pub(crate) fn read(root: &Path, floor: Floor) -> v1::HostFacts {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(memory).ok();
    let space = Space::of(root).ok();
    v1::HostFacts {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        platform: Platform::of_this_host().to_string(),
        os_version: System::long_os_version().unwrap_or_default(),
        kernel: System::kernel_version().unwrap_or_default(),
        cpus: std::thread::available_parallelism().map_or(0, |count| count.get() as u32),
        memory_bytes: system.map_or(0, |system| system.total_memory()),
        disk_bytes: space.map_or(0, |space| space.total),
        disk_free_bytes: space.map_or(0, |space| space.free),
        hostname: hostname().unwrap_or_default(),
        disk_floor_bytes: space.map(|space| floor.of(space.total)),
    }
}

/// Returns the host's own name.
pub(crate) fn hostname() -> Option<String> {
    System::host_name().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_facts() {
        let facts = read(Path::new("/"), Floor::Bytes(1_000));
        assert_eq!(facts.disk_floor_bytes, Some(1_000));
        assert!(facts.cpus > 0 && facts.memory_bytes > 0 && facts.disk_bytes >= facts.disk_free_bytes);
        assert!(!facts.kernel.is_empty() && facts.platform.starts_with("linux-"));
    }
}
