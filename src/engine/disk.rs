//! How much a file system has free.
use std::path::Path;

/// Bytes that this user may still write into `folder`; none where the system does not say, or nothing is stored.
#[cfg(unix)]
pub fn free(folder: &Path) -> Option<u64> {
    use std::ffi::CString;
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with a zero byte, and the place is as large as what the call writes.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call returned 0 and has filled it.
    let found = unsafe { found.assume_init() };
    #[allow(clippy::unnecessary_cast, reason = "the fields have other types on other systems")]
    let (blocks, left, size) =
        (found.f_blocks as u64, found.f_bavail as u64, found.f_frsize as u64);
    (blocks > 0).then(|| left.saturating_mul(size))
}

/// Bytes that this user may still write into `folder`; this system is not asked.
#[cfg(not(unix))]
pub fn free(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_have_something_and_nothing_is_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        if cfg!(unix) {
            assert!(free(folder.path()).unwrap() > 0);
        }
        assert_eq!(free(&folder.path().join("nix")), None);
    }
}
