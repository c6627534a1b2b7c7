//! Tells the allocator to give large buffers back when they are freed.
//!
//! Frames are restored in buffers of up to 28 MiB, now on one blocking thread and now on another. Left to itself, glibc
//! raises the size from which a buffer is a mapping of its own with the first that is freed, and from then on keeps freed
//! ones in the arena of each thread: an agent that needs 45 MiB was seen to hold 150.

/// Size from which a buffer is a mapping of its own: what glibc begins with. Setting it ends its growth.
#[cfg(target_env = "gnu")]
const MAPPING_BYTES: libc::c_int = 128 * 1024;
/// Arenas: threads that allocate at the same moment, here one that decodes and one that stores.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Bounds what freed buffers occupy. To be called before other threads are started; does nothing but under glibc.
pub(crate) fn give_back_what_is_freed() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [(libc::M_MMAP_THRESHOLD, MAPPING_BYTES), (libc::M_ARENA_MAX, ARENAS)] {
        // SAFETY: mallopt takes two integers, no pointers, and takes its own lock; a parameter it does not know, or a
        // value out of range, it refuses.
        #[expect(unsafe_code, reason = "the standard library has no way to set a parameter of the allocator")]
        let is_set = unsafe { libc::mallopt(parameter, value) } == 1;
        if !is_set {
            tracing::warn!(
                parameter,
                "the allocator refuses a parameter; memory may stay taken after an update"
            );
        }
    }
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use std::hint::black_box;
    use std::process::Command;
    use std::sync::Barrier;

    use super::*;

    /// Freed by this many threads that live on.
    const THREADS: usize = 4;
    const BUFFER: usize = 20 << 20;

    fn anonymous_kibibytes() -> usize {
        let status = fs_err::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Runs in a process of its own, where nothing else allocates.
    #[test]
    #[ignore = "is run by the other test"]
    fn measured() {
        give_back_what_is_freed();
        let before = anonymous_kibibytes();
        let freed = Barrier::new(THREADS + 1);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..3 {
                        drop(black_box(vec![1_u8; BUFFER]));
                    }
                    freed.wait();
                    freed.wait();
                });
            }
            freed.wait();
            let grown = anonymous_kibibytes().saturating_sub(before);
            freed.wait();
            assert!(grown < 4 << 10, "{grown} KiB are kept of buffers that were freed");
        });
    }

    #[test]
    fn freed_buffers_are_given_back() {
        let name = format!("{}::measured", module_path!().split_once("::").unwrap().1);
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--ignored"])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && told.contains("1 passed"), "{told}");
    }
}
