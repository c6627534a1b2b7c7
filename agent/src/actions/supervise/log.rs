//! The output of a supervised application: appended to a file, which is succeeded by a new one when it is full.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sluice_common::caps;

/// Writes output; what the disk does not take is lost, since the application must not wait for it.
pub(super) struct Log {
    dir: PathBuf,
    file: Option<fs_err::File>,
    bytes: u64,
}

impl Log {
    /// Goes on with the log in `dir`.
    pub(super) fn open(dir: &Path) -> Self {
        let mut log = Self { dir: dir.to_owned(), file: None, bytes: 0 };
        log.reopen();
        log
    }

    /// Appends output.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.bytes + bytes.len() as u64 > caps::SERVICE_LOG_BYTES {
            self.rotate();
        }
        if self.file.is_none() {
            self.reopen();
        }
        match self.file.as_mut().map(|file| file.write_all(bytes)) {
            Some(Ok(())) => self.bytes += bytes.len() as u64,
            Some(Err(_)) | None => self.file = None,
        }
    }

    /// Appends a line of the supervisor's own.
    pub(super) fn note(&mut self, text: &str) {
        self.write(format!("[sluice: {} {text}]\n", jiff::Timestamp::now().strftime("%FT%TZ")).as_bytes());
    }

    fn rotate(&mut self) {
        self.file = None;
        for number in (0..caps::SERVICE_LOGS - 1).rev() {
            // One that is not there yet has nothing to move.
            let _ = fs_err::rename(path(&self.dir, number), path(&self.dir, number + 1));
        }
    }

    fn reopen(&mut self) {
        let mut options = fs_err::OpenOptions::new();
        options.create(true).append(true);
        options.options_mut().mode(0o600);
        self.file = options.open(path(&self.dir, 0)).ok();
        self.bytes = self.file.as_ref().and_then(|file| Some(file.metadata().ok()?.len())).unwrap_or(0);
    }
}

/// Returns the end of the newest output.
pub(super) fn tail(dir: &Path, bytes: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = fs_err::File::open(path(dir, 0))?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(bytes)))?;
        let mut text = Vec::new();
        file.take(bytes).read_to_end(&mut text)?;
        Ok(text)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

fn path(dir: &Path, number: usize) -> PathBuf {
    match number {
        0 => dir.join("output.log"),
        number => dir.join(format!("output.log.{number}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_bounded_and_its_end_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path());
        let block = vec![b'x'; 1 << 20];
        for _ in 0..40 {
            log.write(&block);
        }
        log.note("the end");
        let files: Vec<u64> = fs_err::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(files.len(), caps::SERVICE_LOGS);
        assert!(files.iter().all(|len| *len <= caps::SERVICE_LOG_BYTES), "{files:?}");
        assert!(tail(dir.path(), 64).ends_with(" the end]\n"));
        drop(log);
        Log::open(dir.path()).write(b"more\n");
        assert!(tail(dir.path(), 64).ends_with(" the end]\nmore\n"));
        assert_eq!(tail(Path::new("/nowhere"), 64), "");
    }
}
