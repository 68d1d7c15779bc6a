use std::fs::File;
use std::io::Write;

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Mode, OFlags, fallocate, fstat, fstatvfs, openat, renameat, statat,
};
use rustix::io::Errno;

use super::{Error, Folder};

/// The file's name.
const NAME: &str = "reserve";
/// What going back needs: records of some KiB, a journal entry and a manifest with some thousand units.
const SIZE: u64 = 1 << 20;

/// Beside it, a folder of empty files: a file system can be out of inodes while it has space.
const SPARE: &str = "spare";
/// What going back needs of them: a note, a file for each that is replaced, and those that the commit took away.
const INODES: usize = 64;

/// Keeps disk space, and inodes, for what has to be written when there is none left: files that are given up then. `folder` is
/// the folder whose file system it is about.
///
/// # Errors
/// When there is no room for it (`is_full`), or the folder cannot be written.
pub fn keep_reserve(folder: &Folder) -> Result<(), Error> {
    keep_space(folder)?;
    let spare = folder.sub_or_make(SPARE, 0o700)?;
    if spare.entries(INODES)?.len() >= INODES {
        return Ok(());
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for number in 0..INODES {
        openat(spare.fd(), number.to_string(), flags, Mode::from_raw_mode(0o600))
            .map_err(|error| Error::io("keep inodes in", spare.path(), error))?;
    }
    Ok(())
}

fn keep_space(folder: &Folder) -> Result<(), Error> {
    let path = folder.path().join(NAME);
    let failed = |error: std::io::Error| Error::io("keep a reserve of disk space in", &path, error);
    match statat(folder.fd(), NAME, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if is_whole(&stat) => return Ok(()),
        Ok(_) | Err(Errno::NOENT) => {}
        Err(error) => return Err(failed(error.into())),
    }
    let unfinished = format!(".{NAME}.new");
    folder.forget(unfinished.as_ref())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fill = || -> std::io::Result<()> {
        let mut file = File::from(openat(folder.fd(), &unfinished, flags, Mode::from_raw_mode(0o600))?);
        match fallocate(&file, FallocateFlags::empty(), 0, SIZE) {
            // Not every file system can; bytes that no file system packs do as well.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                let mut noise = vec![0; SIZE as usize];
                rustix::rand::getrandom(&mut noise, rustix::rand::GetRandomFlags::empty())?;
                file.write_all(&noise)?;
            }
            other => other?,
        }
        file.sync_all()?;
        renameat(folder.fd(), &unfinished, folder.fd(), NAME).map_err(Into::into)
    };
    let filled = fill().map_err(failed);
    if filled.is_err() {
        // The error that matters is the one above.
        let _ = folder.forget(unfinished.as_ref());
    }
    filled
}

/// Gives the reserve up where little more than it is left, so that what follows finds room.
///
/// # Errors
/// When the file system cannot be asked, or the file not be removed.
pub fn give_up_reserve_if_full(folder: &Folder) -> Result<(), Error> {
    let room = fstatvfs(folder.fd()).map_err(|error| Error::io("ask for the room in", folder.path(), error))?;
    // File systems that make inodes as they need them say that they have none.
    let has_inodes = room.f_files == 0 || room.f_favail > 16;
    if room.f_bavail.saturating_mul(room.f_frsize) >= SIZE && has_inodes {
        return Ok(());
    }
    let inodes = give_up_inodes(folder, INODES)?;
    if folder.remove(NAME.as_ref())? || inodes > 0 {
        crate::log::warn!(
            "reserve_given_up",
            path = folder.path().display().to_string(),
            bytes = SIZE,
            inodes = inodes
        );
    }
    Ok(())
}

/// Gives up so many inodes at most; returns how many those were.
fn give_up_inodes(folder: &Folder, most: usize) -> Result<usize, Error> {
    let spare = match folder.sub(SPARE) {
        Err(error) if error.is_missing() => return Ok(0),
        spare => spare?,
    };
    let entries = spare.entries(most)?;
    for entry in &entries {
        spare.remove(&entry.name)?;
    }
    Ok(entries.len())
}

/// Gives half of the reserve up, for what must be written before the way back is taken; false where it was given up before.
///
/// # Errors
/// When the file cannot be opened or cut.
pub fn give_up_half_of_reserve(folder: &Folder) -> Result<bool, Error> {
    let path = folder.path().join(NAME);
    let failed = |error: std::io::Error| Error::io("cut", &path, error);
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(folder.fd(), NAME, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(failed(error.into())),
    };
    if !is_whole(&fstat(&file).map_err(|error| failed(error.into()))?) {
        return Ok(false);
    }
    file.set_len(SIZE / 2).map_err(failed)?;
    let inodes = give_up_inodes(folder, INODES / 2)?;
    crate::log::warn!(
        "reserve_given_up",
        path = folder.path().display().to_string(),
        bytes = SIZE / 2,
        inodes = inodes
    );
    Ok(true)
}

/// False for a file that somebody has cut, or that holds no space.
fn is_whole(stat: &rustix::fs::Stat) -> bool {
    let held = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && held >= SIZE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_is_kept_once_and_made_anew_where_it_holds_nothing() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path()).unwrap();
        let file = dir.path().join(NAME);
        keep_reserve(&folder).unwrap();
        let first = std::fs::metadata(&file).unwrap();
        assert!(first.blocks() * 512 >= SIZE);
        keep_reserve(&folder).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().ino(), first.ino());
        std::fs::write(&file, "").unwrap();
        keep_reserve(&folder).unwrap();
        assert!(std::fs::metadata(&file).unwrap().blocks() * 512 >= SIZE);
        assert!(give_up_half_of_reserve(&folder).unwrap());
        assert!(std::fs::metadata(&file).unwrap().blocks() * 512 < SIZE);
        assert!(!give_up_half_of_reserve(&folder).unwrap());
        keep_reserve(&folder).unwrap();
        // There is room here.
        give_up_reserve_if_full(&folder).unwrap();
        assert!(file.exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        assert_eq!(std::fs::read_dir(dir.path().join(SPARE)).unwrap().count(), INODES);
    }
}
