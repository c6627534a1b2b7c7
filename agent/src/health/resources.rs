//! What the host has left: memory, processor, disk.

use std::path::Path;

use sluice_common::spec::ResourcesProbe;
use sluice_common::units::format_size;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::stage::Space;

/// What a host has left now.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Left {
    memory: u64,
    load_per_core: f64,
    disk: u64,
}

/// Sees that the host has what a check asks; `path` is on the file system meant. Blocks for a moment.
pub(super) fn ask(probe: &ResourcesProbe, path: &Path) -> Result<(), String> {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(memory).map_err(|error| error.to_string())?;
    let load = System::load_average().map_err(|error| error.to_string())?.one;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let disk = match probe.disk_free {
        Some(_) => Space::of(path).map_err(|error| error.to_string())?.free,
        None => 0,
    };
    judge(probe, &Left { memory: system.available_memory(), load_per_core: load / cores as f64, disk })
}

fn judge(probe: &ResourcesProbe, left: &Left) -> Result<(), String> {
    let ResourcesProbe { memory_free, load_per_core, disk_free, path: _ } = probe;
    let less = |what: &str, has: u64, needed: u64| {
        Err(format!("{} of {what} left, less than {}", format_size(has), format_size(needed)))
    };
    match (memory_free, disk_free, load_per_core) {
        (Some(needed), _, _) if left.memory < *needed => less("memory", left.memory, *needed),
        (_, Some(needed), _) if left.disk < *needed => less("disk", left.disk, *needed),
        (_, _, Some(most)) if left.load_per_core > *most => {
            Err(format!("a load of {:.2} for each core, more than {most}", left.load_per_core))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_judged_one_by_one() {
        let left = Left { memory: 1_000, load_per_core: 0.5, disk: 2_000 };
        let probe = |memory_free, load_per_core, disk_free| ResourcesProbe {
            memory_free,
            load_per_core,
            disk_free,
            path: None,
        };
        for (asked, expected) in [
            (probe(Some(1_000), Some(0.5), Some(2_000)), ""),
            (probe(Some(1_001), None, None), "of memory left"),
            (probe(None, Some(0.4), None), "load of 0.50"),
            (probe(Some(1), None, Some(2_001)), "2.00 kB of disk left, less than 2.00 kB"),
        ] {
            let reason = judge(&asked, &left).err().unwrap_or_default();
            assert!(
                reason.contains(expected) && reason.is_empty() == expected.is_empty(),
                "{asked:?}: {reason}"
            );
        }
        ask(&probe(Some(1), None, Some(1)), Path::new("/")).unwrap();
        assert!(ask(&probe(None, None, Some(u64::MAX)), Path::new("/")).is_err());
    }
}
