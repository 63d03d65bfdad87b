//! A small file of `/proc` or a cgroup that is opened once and read again and again with pread.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::own;

/// Longest text read. `memory.stat` of cgroup v2 has some 2 KB; what lies beyond in a longer file is not seen.
pub const BUFFER_BYTES: usize = 16 << 10;

/// The file and the descriptor kept on it, if it could be opened.
#[derive(Debug)]
pub struct KeptFile {
    path: PathBuf,
    open: Option<(File, own::Fd)>,
}

impl KeptFile {
    /// Opens the file now or, where that fails, at a later reading.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let mut kept = KeptFile { path: path.into(), open: None };
        kept.reopen();
        kept
    }

    /// Reads the text as it is now. The kernel makes these files in one piece, so one pread is the whole of it.
    /// A read that fails (the cgroup is gone, the descriptor was closed by somebody) opens the file anew once.
    pub fn read<'b>(&mut self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let length = match self.try_read(buffer) {
            Some(length) => length,
            None => {
                self.reopen();
                self.try_read(buffer)?
            }
        };
        buffer.get(..length)
    }

    fn try_read(&self, buffer: &mut [u8]) -> Option<usize> {
        let (file, _) = self.open.as_ref()?;
        file.read_at(buffer, 0).ok()
    }

    fn reopen(&mut self) {
        self.open = None;
        self.open = File::open(&self.path).ok().map(|file| {
            let own = own::numbered_fd(file.as_raw_fd());
            (file, own)
        });
    }
}
