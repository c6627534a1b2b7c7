//! Tells the allocator to give large buffers back when they are freed.
//!
//! An agent restores frames in buffers of up to 28 MiB, a coordinator lists what a package of a million files has in dozens of MiB,
//! now on one blocking thread and now on another. Left to itself, glibc raises the size from which a buffer is a mapping of its
//! own with the first that is freed, up to 32 MiB, and from then on keeps freed ones in the arena of each thread: an agent that
//! needs 45 MiB was seen to hold 150.

/// What a program asks of the allocator.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Size from which a buffer is a mapping of its own, in bytes. Setting it ends its growth.
    pub mapping_bytes: i32,
    /// Arenas: threads that allocate at the same moment; nothing leaves them to the allocator.
    pub arenas: Option<i32>,
}

/// Of the agent: the size that glibc begins with, and a thread that decodes beside one that stores.
pub const AGENT: Bounds = Bounds { mapping_bytes: 128 * 1024, arenas: Some(2) };
/// Of the coordinator and its command line: far above what messages and blocks of frames take, which come and go all the time.
pub const COORDINATOR: Bounds = Bounds { mapping_bytes: 1 << 20, arenas: None };

/// Bounds what freed buffers occupy; says whether the allocator lets it, without which memory may stay taken after large
/// transfers. To be called before other threads are started; does nothing but under glibc.
#[cfg(target_env = "gnu")]
pub fn give_back_what_is_freed(bounds: Bounds) -> bool {
    let set = |parameter, value| {
        // SAFETY: mallopt takes two integers, no pointers, and takes its own lock; a parameter it does not know, or a
        // value out of range, it refuses.
        #[expect(unsafe_code, reason = "the standard library has no way to set a parameter of the allocator")]
        let is_set = unsafe { libc::mallopt(parameter, value) } == 1;
        is_set
    };
    set(libc::M_MMAP_THRESHOLD, bounds.mapping_bytes)
        && bounds.arenas.is_none_or(|arenas| set(libc::M_ARENA_MAX, arenas))
}

/// Gives back the pages between what is in use: what thousands of small buffers leave behind, in the arenas of all threads. Takes
/// milliseconds; for moments before or after a lot of memory is taken.
#[cfg(target_env = "gnu")]
pub fn give_back_what_is_between() {
    // SAFETY: malloc_trim takes an integer, no pointers, and takes the locks of the allocator itself.
    #[expect(unsafe_code, reason = "the standard library has no way to trim the allocator")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Does nothing: no other allocator has arenas that are asked to.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_what_is_between() {}

/// Bounds nothing: no other allocator has such parameters.
#[cfg(not(target_env = "gnu"))]
pub fn give_back_what_is_freed(_: Bounds) -> bool {
    true
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
    fn agent() {
        measure(AGENT);
    }

    /// Runs in a process of its own, where nothing else allocates.
    #[test]
    #[ignore = "is run by the other test"]
    fn coordinator() {
        measure(COORDINATOR);
    }

    fn measure(bounds: Bounds) {
        assert!(give_back_what_is_freed(bounds));
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
        for bounds in ["agent", "coordinator"] {
            let name = format!("{}::{bounds}", module_path!().split_once("::").unwrap().1);
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", &name, "--ignored"])
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && told.contains("1 passed"), "{told}");
        }
    }
}
