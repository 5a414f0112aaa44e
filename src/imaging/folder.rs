//! The pictures in a folder, as their names tell.
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Endings of names of pictures, lower case.
pub const ENDINGS: [&str; 12] =
    ["png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "pnm", "ppm", "pgm", "pam", "gif"];

/// Whether the extension is that of a format srk reads.
pub fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    ENDINGS.contains(&extension.as_str())
}

/// The pictures in `folder`, and in those below it if `recursive`, in the order of their paths.
///
/// Names that begin with a point are passed over: what systems put beside pictures. A link to a folder is
/// followed unless that lies in `folder` anyway, or around it; each folder is entered once.
///
/// # Errors
/// If a folder cannot be listed.
pub fn pictures(folder: &Path, recursive: bool) -> io::Result<Vec<PathBuf>> {
    let root = fs::canonicalize(folder)?;
    let mut entered = HashSet::from([root.clone()]);
    let mut files = Vec::new();
    walk(folder, &root, recursive, &mut entered, &mut files)?;
    Ok(files)
}

fn walk(
    folder: &Path,
    root: &Path,
    recursive: bool,
    entered: &mut HashSet<PathBuf>,
    files: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // Follows links; one into nowhere is not a picture.
        let Ok(found) = fs::metadata(&path) else { continue };
        if !found.is_dir() {
            files.extend(is_image_name(&path).then_some(path));
            continue;
        }
        let Ok(real) = fs::canonicalize(&path) else { continue };
        let linked = entry.file_type()?.is_symlink();
        let known = linked && (real.starts_with(root) || root.starts_with(&real));
        if recursive && !known && entered.insert(real) {
            walk(&path, root, recursive, entered, files)?;
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
}
