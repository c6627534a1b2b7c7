//! Tells the allocator to give large lists back when they are freed.
//!
//! A package of a million files comes with lists of dozens of MiB, which are worked on now by one blocking thread and now by
//! another. Left to itself, glibc takes the size from which memory is a mapping of its own for as large as what was freed
//! last, up to 32 MiB, and keeps what is smaller in the arena of each thread.

/// Size from which memory is a mapping of its own: far above what messages and blocks of frames take, which come and go all
/// the time.
#[cfg(target_env = "gnu")]
const MAPPING_BYTES: libc::c_int = 1 << 20;

/// Bounds what freed lists occupy. To be called before other threads are started; does nothing but under glibc.
pub(crate) fn give_back_what_is_freed() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt takes two integers, no pointers, and takes its own lock; a parameter it does not know, or a value
        // out of range, it refuses.
        #[expect(unsafe_code, reason = "the standard library has no way to set a parameter of the allocator")]
        let is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPING_BYTES) } == 1;
        if !is_set {
            tracing::warn!("the allocator refuses a parameter; memory may stay taken after large packages");
        }
    }
}
