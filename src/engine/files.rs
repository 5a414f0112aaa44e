//! Writing files so that a crash, a full disk or an interrupt never leaves half a file.
use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Cursor, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tempfile::NamedTempFile;

#[cfg(unix)]
use super::interrupt;
use crate::error::{Error, Report, Result};

/// Whether `path` means standard input or output: `-` alone. A file of that name is `./-`.
pub fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// The bytes of a file whose length is known before it is read: devices and pipes, which may never end, are refused.
///
/// # Errors
/// If it is none, or cannot be read.
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    refuse_endless(path)?;
    fs::read(path)
}

/// Refuses devices, pipes and sockets, which may never end or begin.
///
/// # Errors
/// If `path` is one, or not there.
pub fn refuse_endless(path: &Path) -> io::Result<()> {
    let found = fs::metadata(path).map_err(|error| match dangling(path) {
        Some(cause) => io::Error::new(error.kind(), cause),
        None => error,
    })?;
    match found.is_file() || found.is_dir() {
        true => Ok(()),
        false => Err(io::Error::other("it is a device or a pipe, not a file")),
    }
}

/// That `path` is a link to what is not there, in words; none if it is not.
pub fn dangling(path: &Path) -> Option<String> {
    let to = fs::read_link(path).ok().filter(|_| !path.exists())?;
    Some(format!("it is a link to {}, which is not there", to.display()))
}

/// Opens a file to look at its head. A pipe is none: to open it waits for its writer, and what is read of it is gone.
///
/// # Errors
/// If it is none, or cannot be opened.
pub fn open_file(path: &Path) -> io::Result<File> {
    match fs::metadata(path)?.is_file() {
        true => File::open(path),
        false => Err(io::Error::other("it is not a file")),
    }
}

/// The text of a file or pipe of at most `most` bytes.
///
/// # Errors
/// If it cannot be read, is longer, or is no UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(most + 1).read_to_string(&mut text)?;
    match text.len() as u64 > most {
        true => Err(io::Error::other(format!("it is longer than {} MiB", most >> 20))),
        false => Ok(text),
    }
}

/// Writes what `fill` makes to standard output, all of it or nothing.
///
/// # Errors
/// That of `fill`, or if nobody reads on.
pub fn write_to_stdout<F>(fill: F) -> Result<()>
where
    F: FnOnce(&mut dyn WriteSeek) -> io::Result<()>,
{
    // A pipe cannot seek, so the content is collected first.
    let mut content = Cursor::new(Vec::new());
    let done = fill(&mut content).and_then(|()| {
        let mut out = io::stdout().lock();
        out.write_all(content.get_ref())?;
        out.flush()
    });
    done.map_err(|error| {
        let report = Report::new("cannot write the picture to standard output", &error);
        Error::Failed(report.code("write").help(match error.kind() {
            io::ErrorKind::BrokenPipe => "the program behind the pipe ended before it had read all",
            _ => "",
        }))
    })
}

/// Where `path` is, or will be once the folders on its way that are missing are made: everything that exists of it
/// resolved, and a way back out of a folder that does not exist undone.
pub fn place(path: &Path) -> PathBuf {
    // What is there, or would be in a folder that is there, in one or two questions: folders hold many files.
    if let Ok(whole) = fs::canonicalize(path) {
        return whole;
    }
    if let (Ok(folder), Some(name)) = (fs::canonicalize(folder_of(path)), path.file_name()) {
        return folder.join(name);
    }
    let mut place = fs::canonicalize(".").unwrap_or_default();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            // What stands there is resolved: its parent is the folder it is in.
            Component::ParentDir => _ = place.pop(),
            part => place.push(part),
        }
        if let Ok(resolved) = fs::canonicalize(&place) {
            place = resolved;
        }
    }
    place
}

/// Files that were not there when a command was told to replace none.
static EXPECTED_NEW: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The next [`atomic_write`] of the file at this [`place`] replaces nothing: it fails if there is a file by then.
pub fn expect_new(place: PathBuf) {
    EXPECTED_NEW.lock().unwrap_or_else(PoisonError::into_inner).insert(place);
}

/// What [`atomic_write`] hands to its closure.
pub trait WriteSeek: Write + Seek {}

impl<T: Write + Seek> WriteSeek for T {}

/// Writes `path` through `fill`: into a temporary file in the same folder, which is flushed, synced
/// and renamed over `path` only if everything succeeded. On failure nothing is left behind, and a
/// file that was there stays as it was.
///
/// A new file gets the usual permissions (0666 less the umask); a replaced one keeps its own. A
/// symbolic link is followed. A device or pipe cannot be renamed over, so it is written directly.
pub fn atomic_write<F>(path: &Path, fill: F) -> Result<()>
where
    F: FnOnce(&mut dyn WriteSeek) -> io::Result<()>,
{
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let existing = fs::metadata(&target).ok();
    let is_new = EXPECTED_NEW.lock().unwrap_or_else(PoisonError::into_inner).remove(&place(path));
    let done = match &existing {
        Some(m) if m.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        Some(m) if !m.is_file() => write_directly(&target, fill),
        Some(_) if is_new => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
        _ => write_and_rename(&target, existing.map(|m| m.permissions()), !is_new, fill),
    };
    done.map_err(|error| write_error(path, &error))
}

/// Makes sure, before the work, that [`atomic_write`] can write `path`, as far as that can be found out: by a temporary file
/// beside it that goes away at once.
///
/// # Errors
/// As there.
pub fn try_to_write(path: &Path) -> Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let tried = match fs::metadata(&target) {
        Ok(found) if found.is_dir() => Err(io::Error::from(io::ErrorKind::IsADirectory)),
        Ok(found) if !found.is_file() => Ok(()),
        _ => temporary_in(&folder_of(&target)).map(drop),
    };
    tried.map_err(|error| write_error(path, &error))
}

fn write_and_rename<F>(
    target: &Path,
    keep: Option<Permissions>,
    replace: bool,
    fill: F,
) -> io::Result<()>
where
    F: FnOnce(&mut dyn WriteSeek) -> io::Result<()>,
{
    let folder = folder_of(target);
    remove_leftovers_once(&folder);
    let mut temporary = temporary_in(&folder)?;
    let mut writer = BufWriter::with_capacity(1 << 18, temporary.as_file_mut());
    fill(&mut writer)?;
    writer.flush()?;
    drop(writer);
    if let Some(permissions) = keep {
        temporary.as_file().set_permissions(permissions)?;
    }
    temporary.as_file().sync_all()?;
    match replace {
        true => temporary.persist(target).map_err(|e| e.error)?,
        false => temporary.persist_noclobber(target).map_err(|e| e.error)?,
    };
    // The rename itself survives a power cut only once the folder is synced; not every file system
    // lets a folder be opened, and the data is safe by now.
    if let Ok(folder) = File::open(&folder) {
        let _ = folder.sync_all();
    }
    Ok(())
}

/// How the names of temporary files begin and end.
const TEMPORARY: [&str; 2] = [".srk-", ".tmp"];

/// A new file that is locked as long as it is written, so that [`remove_leftovers`] knows it from those of
/// processes that are no more.
fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY[0]).suffix(TEMPORARY[1]);
    // The default of 0600 would hide the result from other users; the umask applies to this one.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // Its error names a file that nobody asked for, and has what the system said in words alone.
    let plain = |error: io::Error| {
        let text = error.to_string();
        let code = text.split_once("(os error ").and_then(|(_, rest)| rest.split(')').next());
        let code = code.and_then(|code| code.parse().ok());
        code.map_or(error, io::Error::from_raw_os_error)
    };
    let mut temporary = builder.tempfile_in(folder).map_err(plain)?;
    // Between its making and its locking it may be taken for a leftover. Not for ever.
    for _ in 0..16 {
        // Not every file system has locks; where it has none, nothing is removed either.
        if temporary.as_file().lock().is_err() || temporary.path().exists() {
            break;
        }
        temporary = builder.tempfile_in(folder).map_err(plain)?;
    }
    Ok(temporary)
}

/// Calls [`remove_leftovers`] for the first file that this process writes into `folder`.
fn remove_leftovers_once(folder: &Path) {
    static DONE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if done.insert(folder.to_owned()) {
        drop(done);
        remove_leftovers(folder);
    }
}

/// Removes the temporary files of processes that were killed while they wrote into `folder`; those of living
/// processes are locked and stay.
fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let between = name.strip_prefix(TEMPORARY[0]).and_then(|n| n.strip_suffix(TEMPORARY[1]));
        // Six letters and digits, as the library draws them; a user's file of another name stays.
        let is_temporary =
            between.is_some_and(|n| n.len() == 6 && n.bytes().all(|b| b.is_ascii_alphanumeric()));
        if !is_temporary || !entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let file = File::options().read(true).write(true).open(entry.path());
        // Removed under the lock: its maker, if it lives, then finds it gone and makes another.
        if let Ok(file) = file
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn write_directly<F>(target: &Path, fill: F) -> io::Result<()>
where
    F: FnOnce(&mut dyn WriteSeek) -> io::Result<()>,
{
    // A pipe cannot seek, so the content is collected first.
    let mut content = Cursor::new(Vec::new());
    fill(&mut content)?;
    write_waiting(target, content.get_ref())
}

/// Opens and writes `target` without ever waiting inside a system call: a pipe that nobody reads, or reads no more
/// of, leaves time to hear that all is to stop.
#[cfg(unix)]
fn write_waiting(target: &Path, mut content: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let open = || File::options().write(true).custom_flags(libc::O_NONBLOCK).open(target);
    let mut file = loop {
        match open() {
            // What a pipe without a reader answers.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) => wait_a_moment()?,
            opened => break opened?,
        }
    };
    while !content.is_empty() {
        match file.write(content) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => content = &content[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_a_moment()?,
            Err(error) => return Err(error),
        }
    }
    file.flush()
}

#[cfg(not(unix))]
fn write_waiting(target: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).open(target)?;
    file.write_all(content)?;
    file.flush()
}

#[cfg(unix)]
fn wait_a_moment() -> io::Result<()> {
    interrupt::check().map_err(|error| io::Error::other(error.to_string()))?;
    std::thread::sleep(std::time::Duration::from_millis(20));
    Ok(())
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn write_error(path: &Path, error: &io::Error) -> Error {
    let folder = folder_of(path);
    let help = match error.kind() {
        // As in /proc, which holds no files of users.
        io::ErrorKind::NotFound if folder.is_dir() => {
            format!("'{}' takes no files; choose another folder", folder.display())
        }
        io::ErrorKind::NotFound => format!("create the folder: mkdir -p '{}'", folder.display()),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("choose a folder you may write to, not '{}'", folder.display())
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("free some space for '{}', or choose another disk", folder.display())
        }
        io::ErrorKind::FileTooLarge => {
            "ulimit -f limits files; raise it, or write to another disk".to_owned()
        }
        io::ErrorKind::IsADirectory => "give the name of a file in it".to_owned(),
        io::ErrorKind::AlreadyExists => {
            let what = format!("{} appeared while it was made, and was kept", path.display());
            let report = Report::new(what, "nothing is replaced unasked").code("exists");
            return Error::Failed(report.help("--overwrite replaces it; another name keeps it"));
        }
        _ => String::new(),
    };
    let report = Report::new(format!("cannot write {}", path.display()), error);
    Error::Failed(report.help(help).code("write"))
}

/// Where srk keeps what can be made or fetched again: `$XDG_CACHE_HOME/srk`, or `~/.cache/srk`.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    cache.map(|folder| folder.join("srk"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_no_temporary_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        atomic_write(&path, |w| w.write_all(b"old")).unwrap();
        let error = atomic_write(&path, |w| {
            w.write_all(&vec![7; 1 << 20])?;
            Err(io::Error::from(io::ErrorKind::StorageFull))
        })
        .unwrap_err();
        assert!(error.to_string().contains("a.bin"), "{error}");
        assert!(error.to_string().contains("free some space"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[cfg(unix)]
    #[test]
    fn what_never_ends_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "text").unwrap();
        assert_eq!(read_file(&path).unwrap(), b"text");
        assert_eq!(read_text(&path, 4).unwrap(), "text");
        assert!(read_text(&path, 3).is_err());
        assert!(read_file(Path::new("/dev/zero")).unwrap_err().to_string().contains("device"));
        assert!(read_text(Path::new("/dev/zero"), 1 << 20).is_err());
    }

    #[test]
    fn what_appears_while_a_file_is_made_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        expect_new(place(&path));
        let late = atomic_write(&path, |w| {
            fs::write(&path, "precious")?;
            w.write_all(b"mine")
        });
        assert!(late.unwrap_err().to_string().contains("appeared"));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(names(folder.path()), ["a"]);
        // Said once, for one file.
        atomic_write(&path, |w| w.write_all(b"mine")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn folders_that_are_missing_and_names_of_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = atomic_write(&folder.path().join("no/a"), |w| w.write_all(b"x")).unwrap_err();
        assert!(missing.to_string().contains("mkdir -p"), "{missing}");
        assert!(atomic_write(folder.path(), |w| w.write_all(b"x")).is_err());
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn leftovers_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".srk-D3adbe.tmp"), "half").unwrap();
        for name in [".srk-notes", ".srk-mine.tmp"] {
            fs::write(folder.path().join(name), "of the user").unwrap();
        }
        let living = temporary_in(folder.path()).unwrap();
        atomic_write(&folder.path().join("a"), |w| w.write_all(b"x")).unwrap();
        assert!(living.path().exists());
        let mut left = names(folder.path());
        left.sort();
        let mine = living.path().file_name().unwrap().to_string_lossy().into_owned();
        let users = [".srk-notes", ".srk-mine.tmp"].map(str::to_owned);
        let mut expected = [&users[..], &[mine, "a".to_owned()]].concat();
        expected.sort();
        assert_eq!(left, expected);
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_the_usual_ones_or_those_of_the_replaced_file() {
        use std::os::unix::fs::PermissionsExt;
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o7777;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let plain = folder.path().join("plain");
        fs::write(&plain, b"").unwrap();
        atomic_write(&path, |w| w.write_all(b"x")).unwrap();
        assert_eq!(mode(&path), mode(&plain));
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        atomic_write(&path, |w| w.write_all(b"y")).unwrap();
        assert_eq!(mode(&path), 0o640);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_devices_are_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, b"old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        atomic_write(&link, |w| w.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        // /dev/full accepts no byte: the error must be that of a full disk.
        let full = Path::new("/dev/full");
        if full.exists() {
            let error = atomic_write(full, |w| w.write_all(b"x")).unwrap_err();
            assert!(error.to_string().contains("free some space"), "{error}");
            assert!(full.exists());
        }
    }
}
