//! Points at which a crash is simulated. Nothing in production; in tests the nth point fails, and every later one
//! too, so that what stands on disk afterwards is what a crash there would have left.

use std::io;

/// Counts the points that are passed.
#[derive(Debug, Clone, Default)]
pub(crate) struct CrashPoints {
    #[cfg(test)]
    left: Option<std::sync::Arc<std::sync::atomic::AtomicI64>>,
}

impl CrashPoints {
    /// Passes a point: between two effects that are durable on their own.
    #[cfg(not(test))]
    #[inline]
    pub(crate) fn pass(&self) -> io::Result<()> {
        Ok(())
    }

    /// Passes a point: between two effects that are durable on their own.
    #[cfg(test)]
    pub(crate) fn pass(&self) -> io::Result<()> {
        use std::sync::atomic::Ordering;
        match &self.left {
            Some(left) if left.fetch_sub(1, Ordering::SeqCst) <= 0 => {
                Err(io::Error::other("simulated crash"))
            }
            _ => Ok(()),
        }
    }

    /// Crashes at the point after `points` more.
    #[cfg(test)]
    pub(crate) fn after(points: i64) -> Self {
        Self { left: Some(std::sync::Arc::new(points.into())) }
    }

    /// Says whether the crash has happened.
    #[cfg(test)]
    pub(crate) fn has_happened(&self) -> bool {
        self.left.as_ref().is_some_and(|left| left.load(std::sync::atomic::Ordering::SeqCst) < 0)
    }
}
