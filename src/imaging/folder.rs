//! The pictures in a folder, as their names tell; a name without an ending leaves it to the first bytes.
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::decode;

/// Endings of names of pictures, lower case.
pub const ENDINGS: [&str; 15] = [
    "png", "jpg", "jpeg", "jpe", "jfif", "webp", "tif", "tiff", "bmp", "pnm", "ppm", "pgm", "pbm",
    "pam", "gif",
];

/// Endings of names of pictures that srk does not read.
const FOREIGN: [&str; 33] = [
    "avif", "heic", "heif", "hif", "jxl", "jp2", "j2k", "jxr", "psd", "psb", "xcf", "kra", "svg",
    "svgz", "exr", "hdr", "tga", "dds", "qoi", "ico", "pcx", "raw", "dng", "cr2", "cr3", "nef",
    "arw", "orf", "rw2", "raf", "pef", "srw", "rwl",
];

/// What is in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The pictures, in the order of their paths.
    pub pictures: Vec<PathBuf>,
    /// Those in formats that srk does not read.
    pub foreign: Vec<PathBuf>,
    /// What is called like a picture and is no file: pipes, sockets, devices, which may be waited for without end, links to
    /// what is not there, and what the system says nothing of.
    pub no_files: Vec<PathBuf>,
    /// Folders below it that cannot be listed, with the reason; what else there is was found.
    pub closed: Vec<(PathBuf, String)>,
}

fn ending(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Whether the extension is that of a format srk reads.
pub fn is_image_name(path: &Path) -> bool {
    ENDINGS.contains(&ending(path).as_str())
}

/// The pictures in `folder`, and in those below it if `recursive`, in the order of their paths.
///
/// Names that begin with a point are passed over: what systems put beside pictures. A link to a folder is
/// followed unless that lies in `folder` anyway, or around it; each folder is entered once.
///
/// # Errors
/// If `folder` cannot be listed; those below it that cannot are passed over.
pub fn pictures(folder: &Path, recursive: bool) -> io::Result<Vec<PathBuf>> {
    Ok(listing(folder, recursive)?.pictures)
}

/// As [`pictures`], with what looks like a picture and is not read, and the folders that keep theirs to themselves.
///
/// # Errors
/// If `folder` cannot be listed.
pub fn listing(folder: &Path, recursive: bool) -> io::Result<Listing> {
    let root = fs::canonicalize(folder)?;
    let mut entered = HashSet::from([root.clone()]);
    let mut found = Listing::default();
    walk(folder, &root, recursive, &mut entered, &mut found)?;
    Ok(found)
}

fn walk(
    folder: &Path,
    root: &Path,
    recursive: bool,
    entered: &mut HashSet<PathBuf>,
    found: &mut Listing,
) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let ending = ending(&path);
        let named = ENDINGS.contains(&ending.as_str());
        // Follows links.
        let file = match fs::metadata(&path) {
            Ok(file) => file,
            Err(error) => {
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_folder && recursive {
                    found.closed.push((path, error.to_string()));
                } else if named && !is_folder {
                    found.no_files.push(path);
                }
                continue;
            }
        };
        if !file.is_dir() {
            // Of a pipe nothing is read to see what it is.
            let unnamed = ending.is_empty() && file.is_file();
            if named && !file.is_file() {
                found.no_files.push(path);
            } else if named || unnamed && decode::is_picture(&path) {
                found.pictures.push(path);
            } else if FOREIGN.contains(&ending.as_str()) {
                found.foreign.push(path);
            }
            continue;
        }
        let Ok(real) = fs::canonicalize(&path) else { continue };
        let linked = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        let known = linked && (real.starts_with(root) || root.starts_with(&real));
        if recursive
            && !known
            && entered.insert(real)
            && let Err(error) = walk(&path, root, recursive, entered, found)
        {
            found.closed.push((path, error.to_string()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_names_are_passed_over_and_the_order_is_that_of_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("b/.thumbnails")).unwrap();
        for name in
            ["c.PNG", "a.jpg", "._a.jpg", ".x.png", "notes.txt", "b/d.gif", "b/.thumbnails/e.png"]
        {
            fs::write(at(name), "").unwrap();
        }
        assert_eq!(pictures(folder.path(), false).unwrap(), [at("a.jpg"), at("c.PNG")]);
        assert_eq!(
            pictures(folder.path(), true).unwrap(),
            [at("a.jpg"), at("b/d.gif"), at("c.PNG")]
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_to_folders_are_followed_once_and_never_upwards() {
        use std::os::unix::fs::symlink;
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/a.png"), "").unwrap();
        fs::write(elsewhere.path().join("b.png"), "").unwrap();
        symlink(folder.path(), at("sub/up")).unwrap();
        symlink(at("sub"), at("again")).unwrap();
        symlink(elsewhere.path(), at("other")).unwrap();
        symlink(elsewhere.path(), at("twice")).unwrap();
        let found = pictures(folder.path(), true).unwrap();
        assert_eq!(found, [at("other/b.png"), at("sub/a.png")]);
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_sockets_are_no_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.png"), "").unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(at("b.png")).unwrap();
        let found = listing(folder.path(), false).unwrap();
        assert_eq!((found.pictures, found.no_files), (vec![at("a.png")], vec![at("b.png")]));
    }

    #[cfg(unix)]
    #[test]
    fn links_to_nothing_are_told_where_they_are_called_like_pictures() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.png"), "").unwrap();
        for (name, to) in [("b.PNG", "gone.png"), ("c.png", "c.png"), ("d.txt", "gone.txt")] {
            symlink(at(to), at(name)).unwrap();
        }
        let found = listing(folder.path(), true).unwrap();
        assert_eq!(found.pictures, [at("a.png")]);
        assert_eq!(found.no_files, [at("b.PNG"), at("c.png")]);
    }

    #[test]
    fn names_without_an_ending_are_looked_into_and_foreign_pictures_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        for name in ["scan", "data.bin", "b.jfif", "c.PBM"] {
            fs::write(at(name), png).unwrap();
        }
        for name in ["README", "a.avif", "d.NEF", "notes.txt"] {
            fs::write(at(name), "text").unwrap();
        }
        let found = listing(folder.path(), false).unwrap();
        assert_eq!(found.pictures, [at("b.jfif"), at("c.PBM"), at("scan")]);
        assert_eq!(found.foreign, [at("a.avif"), at("d.NEF")]);
    }
}
