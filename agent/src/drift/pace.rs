//! Reads files slowly, on a thread that yields to everything else, and stops when it is told.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sluice_common::units::ByteRate;

/// Longest sleep: how long a reader may take to notice that it is to stop.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// The lowest priority: with it comes the lowest of the disk.
const NICE: i32 = 19;

/// A rate that readers keep together, and what tells them to stop.
#[derive(Debug)]
pub(crate) struct Pace<'a> {
    rate: ByteRate,
    /// When what was read so far may have been read.
    next: Instant,
    stop: &'a AtomicBool,
}

impl<'a> Pace<'a> {
    /// Begins to read at a rate.
    pub(crate) fn new(rate: ByteRate, stop: &'a AtomicBool) -> Self {
        Self { rate, next: Instant::now(), stop }
    }

    /// Fails, with the kind `Interrupted`, once reading is to stop.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(io::Error::new(io::ErrorKind::Interrupted, "work on the disk was interrupted")),
            false => Ok(()),
        }
    }

    /// Waits until `bytes` more may be read.
    fn wait(&mut self, bytes: usize) {
        let now = Instant::now();
        while self.next > Instant::now() && !self.stop.load(Ordering::Relaxed) {
            std::thread::sleep(self.next.saturating_duration_since(Instant::now()).min(SLEEP_MAX));
        }
        self.next = self.next.max(now) + self.rate.time_for(bytes as u64);
    }
}

/// Reads a file at a pace.
#[derive(Debug)]
pub(crate) struct Paced<'a, 'b, R> {
    pub(crate) reader: R,
    pub(crate) pace: &'a mut Pace<'b>,
}

impl<R: Read> Read for Paced<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // The kind `Interrupted` means "once more" to whoever reads.
        self.pace.check().map_err(io::Error::other)?;
        let read = self.reader.read(buffer)?;
        self.pace.wait(read);
        Ok(read)
    }
}

/// Does `work` on a thread of the lowest priority, and waits for it.
pub(crate) fn in_the_background<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let run = || {
            // Of this thread alone, as Linux has it. Where it cannot be lowered it works as it is.
            let _ = rustix::process::setpriority_process(None, NICE);
            work()
        };
        scope.spawn(run).join().expect("work on the disk does not panic")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_and_a_stop_is_heard() {
        let stop = AtomicBool::new(false);
        let rate = ByteRate::from_bytes_per_second(1_000_000).unwrap();
        let began = Instant::now();
        let mut pace = Pace::new(rate, &stop);
        let mut bytes = Vec::new();
        Paced { reader: io::repeat(7).take(50_000), pace: &mut pace }.read_to_end(&mut bytes).unwrap();
        Paced { reader: io::repeat(7).take(50_000), pace: &mut pace }.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 100_000);
        // All but the last piece of it has been waited for.
        assert!(began.elapsed() >= Duration::from_millis(60), "{:?}", began.elapsed());
        stop.store(true, Ordering::Relaxed);
        assert_eq!(pace.check().unwrap_err().kind(), io::ErrorKind::Interrupted);
        let read = Paced { reader: io::repeat(7), pace: &mut pace }.read_to_end(&mut bytes);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::Other);
    }

    #[test]
    fn work_in_the_background_yields() {
        let priority = || Ok(rustix::process::getpriority_process(None)?);
        let own = priority().unwrap();
        assert_eq!((in_the_background(priority).unwrap(), priority().unwrap()), (NICE, own));
    }
}
