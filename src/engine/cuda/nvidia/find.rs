//! Where cuDNN, cuBLASLt and NCCL are: by name where the system finds them, or in a Python environment.
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use libloading::Library;

/// A library and where it was found; a bare name is one that the system's loader finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// `cudnn`, `cublas` or `nccl`.
    pub name: &'static str,
    /// The file.
    pub path: PathBuf,
}

/// Names of the libraries that we call, newest first.
const CUDNN: &[&str] = &["libcudnn.so.9"];
const CUBLAS: &[&str] = &["libcublasLt.so.13", "libcublasLt.so.12"];
const NCCL: &[&str] = &["libnccl.so.2"];
/// What they look for by name themselves, in the order in which it must be loaded.
const NEEDED: &[&str] = &["libnvrtc-builtins.so", "libnvrtc.so", "libcublas.so"];

/// Where pip puts NVIDIA's libraries, below `site-packages`.
const PIP: &[&str] = &[
    "nvidia/cudnn/lib",
    "nvidia/cu13/lib",
    "nvidia/cublas/lib",
    "nvidia/cuda_nvrtc/lib",
    "nvidia/nccl/lib",
];

/// The libraries that are there. Nothing of theirs runs but what loading them runs.
pub fn find() -> Vec<Found> {
    let folders = folders();
    let look = |name, files: &[&str]| Some(Found { name, path: locate(&folders, files)? });
    [look("cudnn", CUDNN), look("cublas", CUBLAS)].into_iter().flatten().collect()
}

/// NCCL, if it is there: apart from the others, as one GPU alone does not need it.
pub fn find_nccl() -> Option<Found> {
    Some(Found { name: "nccl", path: locate(&folders(), NCCL)? })
}

/// Loads a library for ever, and beside it what it looks for by name.
pub(super) fn load(found: &Found) -> Result<Library, libloading::Error> {
    for folder in folders() {
        for needed in NEEDED {
            for file in beginning_with(&folder, needed) {
                // Without it the library may still do.
                let _ = open(&file).map(std::mem::forget);
            }
        }
    }
    open(&found.path)
}

/// Opens a library so that others find it by its name.
fn open(path: &Path) -> Result<Library, libloading::Error> {
    #[cfg(unix)]
    {
        use libloading::os::unix;
        let flags = unix::RTLD_NOW | unix::RTLD_GLOBAL;
        // SAFETY: NVIDIA's libraries may be loaded at any time; their initialisers only register.
        unsafe { unix::Library::open(Some(path), flags) }.map(Library::from)
    }
    #[cfg(not(unix))]
    {
        // SAFETY: as above.
        unsafe { Library::new(path) }
    }
}

/// The first of `files` in one of the folders, else the first that the loader finds.
fn locate(folders: &[PathBuf], files: &[&str]) -> Option<PathBuf> {
    let in_folders = folders.iter().flat_map(|folder| files.iter().map(|f| folder.join(f)));
    in_folders
        .into_iter()
        .find(|path| path.is_file())
        .or_else(|| files.iter().map(PathBuf::from).find(|name| open(name).is_ok()))
}

/// The folders that are searched: `SRK_CUDA_LIBRARIES` (separated by colons), then those of the
/// Python environment that is active.
fn folders() -> Vec<PathBuf> {
    folders_of(
        std::env::var_os("SRK_CUDA_LIBRARIES"),
        ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os),
    )
}

fn folders_of(
    named: Option<OsString>,
    environments: impl Iterator<Item = OsString>,
) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        named.iter().flat_map(std::env::split_paths).filter(|p| p.is_dir()).collect();
    for environment in environments {
        let lib = Path::new(&environment).join("lib");
        for python in beginning_with(&lib, "python3") {
            let packages = python.join("site-packages");
            folders.extend(PIP.iter().map(|p| packages.join(p)).filter(|p| p.is_dir()));
        }
        folders.extend(Some(lib).filter(|p| p.is_dir()));
    }
    folders
}

/// What in `folder` begins with `name`, sorted; nothing if it cannot be read.
fn beginning_with(folder: &Path, name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let matches = entries.filter(|e| e.file_name().to_string_lossy().starts_with(name));
    let mut paths: Vec<PathBuf> = matches.map(|e| e.path()).collect();
    paths.sort();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_a_python_environment_and_named_ones() {
        let root = tempfile::tempdir().unwrap();
        let pip = root.path().join("env/lib/python3.12/site-packages/nvidia/cudnn/lib");
        let named = root.path().join("named");
        std::fs::create_dir_all(&pip).unwrap();
        std::fs::create_dir_all(&named).unwrap();
        std::fs::write(pip.join("libcudnn.so.9"), b"").unwrap();
        let list = std::env::join_paths([named.clone(), root.path().join("missing")]).unwrap();
        let environments = [root.path().join("env").into_os_string(), "/nonexistent".into()];
        let folders = folders_of(Some(list), environments.into_iter());
        assert_eq!(folders, [named.clone(), pip.clone(), root.path().join("env/lib")]);
        assert_eq!(locate(&folders, CUDNN), Some(pip.join("libcudnn.so.9")));
        std::fs::write(named.join("libcudnn.so.9"), b"").unwrap();
        assert_eq!(locate(&folders, CUDNN), Some(named.join("libcudnn.so.9")), "named first");
        assert_eq!(folders_of(None, std::iter::empty()), Vec::<PathBuf>::new());
    }
}
