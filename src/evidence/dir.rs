//! A directory held open, and the few operations on it that evidence needs. On Unix each is relative
//! to the kept descriptor and follows no link; elsewhere it goes by path and refuses what is a link.
//!
//! It knows no names and no policy: those are in `store`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What one directory entry is, links not followed.
#[derive(Clone, Debug)]
pub(crate) struct DirEntry {
    pub name: String,
    pub size_bytes: u64,
    pub modified: SystemTime,
}

/// More entries than this are not looked at: a directory shared with something else must not turn
/// every retention into a long walk. Evidence alone never comes near.
const MAX_ENTRIES: usize = 100_000;

#[cfg(unix)]
pub(crate) use unix::Dir;

#[cfg(unix)]
mod unix {
    use super::{DirEntry, File, MAX_ENTRIES, Path, PathBuf, SystemTime, io};
    use std::os::fd::OwnedFd;
    use std::time::{Duration, UNIX_EPOCH};

    use rustix::fs::{self, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat};
    use rustix::io::Errno;

    const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);
    const PRIVATE_DIR: Mode = Mode::RWXU;

    #[derive(Debug)]
    pub(crate) struct Dir {
        fd: OwnedFd,
        path: PathBuf,
    }

    impl Dir {
        /// Opens a directory the operator named, which may be a link; creates it (0700) and its parents.
        pub fn open_or_create(path: &Path) -> io::Result<Self> {
            use std::os::unix::fs::DirBuilderExt;
            match Self::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
                    Self::open(path)
                }
                opened => opened,
            }
        }

        /// Opens a directory that is there; the path itself may be a link.
        pub fn open(path: &Path) -> io::Result<Self> {
            let fd = fs::openat(
                CWD,
                path,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            // A relative path would change its meaning with the app's `process.chdir()`.
            let path = std::path::absolute(path)?;
            Ok(Self { fd, path })
        }

        /// Opens, or creates, a child that only we can use: ours, 0700, and not a link.
        pub fn private_child(&self, name: &str) -> io::Result<Self> {
            match fs::mkdirat(&self.fd, name, PRIVATE_DIR) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let fd = fs::openat(
                &self.fd,
                name,
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let stat = fs::fstat(&fd)?;
            if stat.st_uid != rustix::process::geteuid().as_raw() {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!("{name} belongs to user {}", stat.st_uid),
                ));
            }
            if permissions(&stat).intersects(Mode::RWXG | Mode::RWXO) {
                fs::fchmod(&fd, PRIVATE_DIR)?;
            }
            Ok(Self { fd, path: self.path.join(name) })
        }

        pub fn path(&self) -> &Path {
            &self.path
        }

        /// Whether any user of the machine may create and rename files here.
        pub fn is_world_writable(&self) -> io::Result<bool> {
            Ok(permissions(&fs::fstat(&self.fd)?).contains(Mode::WOTH))
        }

        /// Whether files here are held in memory (Linux: tmpfs, ramfs). `false` where it cannot be told.
        pub fn is_memory(&self) -> bool {
            #[cfg(target_os = "linux")]
            {
                // linux/magic.h; width and sign of f_type differ between architectures.
                const TMPFS_MAGIC: fs::FsWord = 0x0102_1994;
                const RAMFS_MAGIC: fs::FsWord = 0x8584_58f6_u32 as fs::FsWord;
                fs::fstatfs(&self.fd).is_ok_and(|s| matches!(s.f_type, TMPFS_MAGIC | RAMFS_MAGIC))
            }
            #[cfg(not(target_os = "linux"))]
            {
                false
            }
        }

        /// Bytes that we may still write to the file system of this directory.
        pub fn free_bytes(&self) -> Option<u64> {
            let s = fs::fstatvfs(&self.fd).ok()?;
            s.f_bavail.checked_mul(s.f_frsize)
        }

        /// Creates a file (0600) that must not exist yet.
        pub fn create_new(&self, name: &str) -> io::Result<File> {
            let flags =
                OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Ok(File::from(fs::openat(&self.fd, name, flags, PRIVATE_FILE)?))
        }

        /// Opens a regular file for reading. Never waits: a FIFO put there by somebody is refused.
        pub fn open_read(&self, name: &str) -> io::Result<File> {
            self.open_regular(name, OFlags::RDONLY)
        }

        /// Opens, or creates, a regular file to lock.
        pub fn open_lock(&self, name: &str) -> io::Result<File> {
            self.open_regular(name, OFlags::RDWR | OFlags::CREATE)
        }

        fn open_regular(&self, name: &str, access: OFlags) -> io::Result<File> {
            let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = fs::openat(&self.fd, name, flags, PRIVATE_FILE)?;
            let stat = fs::fstat(&fd)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("{name} is not a regular file"),
                ));
            }
            Ok(File::from(fd))
        }

        pub fn exists(&self, name: &str) -> bool {
            !matches!(fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
        }

        /// Renames within the directory; `AlreadyExists` if `to` is there.
        pub fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
            #[cfg(target_os = "linux")]
            match fs::renameat_with(&self.fd, from, &self.fd, to, fs::RenameFlags::NOREPLACE) {
                // Not every kernel and file system has it.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
                renamed => return Ok(renamed?),
            }
            match fs::linkat(&self.fd, from, &self.fd, to, AtFlags::empty()) {
                Ok(()) => Ok(fs::unlinkat(&self.fd, from, AtFlags::empty())?),
                Err(Errno::EXIST) => Err(Errno::EXIST.into()),
                // No hard links either (some network and FAT volumes): look, then rename. The names
                // carry pid and sequence, so what could slip in between is not of our making.
                Err(_) if self.exists(to) => Err(Errno::EXIST.into()),
                Err(_) => self.rename_over(from, to),
            }
        }

        /// Renames within the directory, replacing `to` if it is there.
        pub fn rename_over(&self, from: &str, to: &str) -> io::Result<()> {
            Ok(fs::renameat(&self.fd, from, &self.fd, to)?)
        }

        /// Removes a file; a link is removed, not what it points to.
        pub fn remove(&self, name: &str) -> io::Result<()> {
            Ok(fs::unlinkat(&self.fd, name, AtFlags::empty())?)
        }

        /// The regular files whose names `wanted` accepts.
        pub fn entries(&self, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<DirEntry>> {
            let mut entries = Vec::new();
            for entry in fs::Dir::read_from(&self.fd)?.take(MAX_ENTRIES) {
                let entry = entry?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                if !wanted(name) {
                    continue;
                }
                // A sister process may have renamed or removed it since.
                let Ok(stat) = fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) else {
                    continue;
                };
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                    entries.push(DirEntry {
                        name: name.to_owned(),
                        size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
                        modified: modified(&stat),
                    });
                }
            }
            Ok(entries)
        }

        /// Takes the lock of an open file without waiting: `Some(true)` taken, `Some(false)` held by
        /// somebody, `None` if the file system has no such locks. It ends when the file is closed.
        pub fn try_lock(file: &File) -> io::Result<Option<bool>> {
            match fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(true)),
                Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(Some(false)),
                Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => Ok(None),
                Err(error) => Err(error.into()),
            }
        }
    }

    fn permissions(stat: &Stat) -> Mode {
        Mode::from_raw_mode(stat.st_mode)
    }

    fn modified(stat: &Stat) -> SystemTime {
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or(0).min(999_999_999);
        UNIX_EPOCH.checked_add(Duration::new(seconds, nanos)).unwrap_or(UNIX_EPOCH)
    }
}

#[cfg(not(unix))]
pub(crate) use portable::Dir;

#[cfg(not(unix))]
mod portable {
    use super::{DirEntry, File, MAX_ENTRIES, Path, PathBuf, SystemTime, io};
    use std::fs;

    #[derive(Debug)]
    pub(crate) struct Dir {
        path: PathBuf,
    }

    impl Dir {
        pub fn open_or_create(path: &Path) -> io::Result<Self> {
            fs::create_dir_all(path)?;
            Self::open(path)
        }

        pub fn open(path: &Path) -> io::Result<Self> {
            if !fs::metadata(path)?.is_dir() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a directory"));
            }
            Ok(Self { path: std::path::absolute(path)? })
        }

        pub fn private_child(&self, name: &str) -> io::Result<Self> {
            let path = self.path.join(name);
            fs::create_dir_all(&path)?;
            refuse_link(&path)?;
            Self::open(&path)
        }

        pub fn path(&self) -> &Path {
            &self.path
        }

        /// Access lists are the operator's business here.
        pub fn is_world_writable(&self) -> io::Result<bool> {
            Ok(false)
        }

        pub fn is_memory(&self) -> bool {
            false
        }

        pub fn free_bytes(&self) -> Option<u64> {
            None
        }

        pub fn create_new(&self, name: &str) -> io::Result<File> {
            fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(self.path.join(name))
        }

        pub fn open_read(&self, name: &str) -> io::Result<File> {
            let path = self.path.join(name);
            refuse_link(&path)?;
            File::open(path)
        }

        /// Windows: opened without sharing, so that opening it is the lock.
        pub fn open_lock(&self, name: &str) -> io::Result<File> {
            let path = self.path.join(name);
            if path.exists() {
                refuse_link(&path)?;
            }
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            #[cfg(windows)]
            {
                use std::os::windows::fs::OpenOptionsExt;
                const ERROR_SHARING_VIOLATION: i32 = 32;
                return options.share_mode(0).open(path).map_err(|e| match e.raw_os_error() {
                    Some(ERROR_SHARING_VIOLATION) => io::ErrorKind::WouldBlock.into(),
                    _ => e,
                });
            }
            #[cfg(not(windows))]
            options.open(path)
        }

        pub fn exists(&self, name: &str) -> bool {
            fs::symlink_metadata(self.path.join(name)).is_ok()
        }

        pub fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
            if self.exists(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            self.rename_over(from, to)
        }

        pub fn rename_over(&self, from: &str, to: &str) -> io::Result<()> {
            fs::rename(self.path.join(from), self.path.join(to))
        }

        pub fn remove(&self, name: &str) -> io::Result<()> {
            fs::remove_file(self.path.join(name))
        }

        pub fn entries(&self, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<DirEntry>> {
            let mut entries = Vec::new();
            for entry in fs::read_dir(&self.path)?.take(MAX_ENTRIES) {
                let entry = entry?;
                let file_name = entry.file_name();
                let Some(name) = file_name.to_str().filter(|name| wanted(name)) else { continue };
                let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
                if metadata.is_file() {
                    entries.push(DirEntry {
                        name: name.to_owned(),
                        size_bytes: metadata.len(),
                        modified: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                    });
                }
            }
            Ok(entries)
        }

        pub fn try_lock(_file: &File) -> io::Result<Option<bool>> {
            Ok(if cfg!(windows) { Some(true) } else { None })
        }
    }

    fn refuse_link(path: &Path) -> io::Result<()> {
        if fs::symlink_metadata(path)?.file_type().is_symlink() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is a link"));
        }
        Ok(())
    }
}
