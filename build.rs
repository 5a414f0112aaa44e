//! Writes the launchers of the CUDA kernels and embeds these and the recipes: the prebuilt kernels if they are of these
//! sources, else what nvcc makes of them, else none. Asks no GPU and no network. docs/building.md describes the variables.
use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;

#[path = "src/engine/cuda/launchers/mod.rs"]
mod launchers;
#[allow(unreachable_pub)]
#[path = "src/engine/cuda/sha256.rs"]
mod sha256;

type Result<T> = std::result::Result<T, String>;

/// What nvcc compiles for, unless SRK_CUDA_ARCHS says otherwise; as in kernels/prebuild.py.
const ARCHITECTURES: &str = "75,80,86,89,90a,100,120,80-ptx";
const FLAGS: &[&str] = &["-O3", "-std=c++17"];
/// PTX names the oldest version that has its instructions: then any driver takes it.
const PTX_VERSION: &str = ".version 7.0";

const VARIABLES: &[&str] = &["SRK_KERNELS", "SRK_CUDA_ARCHS", "SRK_NVCC", "NVCC", "DOCS_RS"];
const FOLDERS: &[&str] = &["CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_TOOLKIT_ROOT_DIR"];
const ENVIRONMENTS: &[&str] = &["VIRTUAL_ENV", "CONDA_PREFIX"];

fn main() -> ExitCode {
    match recipes().and_then(|()| launchers()).and_then(|()| embed()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("error: {text}");
            ExitCode::FAILURE
        }
    }
}

/// The folders of the output and of the sources.
fn folders() -> Result<(PathBuf, PathBuf)> {
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    let root = env::var_os("CARGO_MANIFEST_DIR").ok_or("no manifest directory")?;
    Ok((out.into(), root.into()))
}

/// Every file in recipes/ is a recipe of its name.
fn recipes() -> Result<()> {
    let (out, root) = folders()?;
    let folder = root.join("recipes");
    watch(&folder);
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))? {
        let path = entry.map_err(text)?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            names.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path));
        }
    }
    names.sort();
    let mut table =
        format!("/// All recipes, by name.\npub const ALL: [Recipe; {}] = [\n", names.len());
    for (name, path) in names {
        let path = path.display().to_string();
        writeln!(table, "    Recipe {{ name: {name:?}, text: include_str!({path:?}) }},")
            .map_err(text)?;
    }
    table += "];\n";
    write(&out.join("recipes.rs"), table.as_bytes())
}

/// What starts the kernels: src/engine/cuda/kernels.rs.
fn launchers() -> Result<()> {
    let (out, root) = folders()?;
    // A new source of kernels is not watched yet, but comes with an op.
    watch(&root.join("src/ops"));
    let mut sources = BTreeMap::new();
    for (path, content) in Sources::read(&root.join("kernels"))?.files {
        watch(&path);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        sources.insert(name, String::from_utf8(content).map_err(text)?);
    }
    write(&out.join("launchers.rs"), launchers::writer::generate(&sources)?.as_bytes())
}

fn embed() -> Result<()> {
    let (out, root) = folders()?;
    for script in ["build.rs", "src/engine/cuda/sha256.rs", "src/engine/cuda/launchers"] {
        watch(&root.join(script));
    }
    for variable in VARIABLES.iter().chain(FOLDERS).chain(ENVIRONMENTS) {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let kernels = pick(&root.join("kernels"), &out)?;
    let mut table = format!("static ORIGIN: &str = {:?};\n", kernels.origin);
    table += "static ARCHITECTURES: &[Arch] = &[\n";
    for arch in &kernels.archs {
        let (name, number, ptx) = (arch.file(), arch.number, arch.ptx);
        writeln!(table, "    Arch {{ name: {name:?}, number: {number}, ptx: {ptx} }},")
            .map_err(text)?;
    }
    table += "];\nstatic PACKS: &[(&str, &[u8])] = &[\n";
    for (stem, path) in &kernels.packs {
        let path = path.display().to_string();
        writeln!(table, "    ({stem:?}, include_bytes!({path:?})),").map_err(text)?;
    }
    table += "];\n";
    write(&out.join("kernels.rs"), table.as_bytes())
}

/// The packs to embed, one for each source, and what `srk doctor` says of them.
struct Kernels {
    origin: String,
    archs: Vec<Arch>,
    packs: Vec<(String, PathBuf)>,
}

impl Kernels {
    fn none(why: &str) -> Self {
        Self { origin: format!("none: {why}"), archs: Vec::new(), packs: Vec::new() }
    }
}

fn pick(folder: &Path, out: &Path) -> Result<Kernels> {
    let mode = env::var("SRK_KERNELS").unwrap_or_else(|_| "auto".into());
    if !["auto", "build", "prebuilt", "none"].contains(&mode.as_str()) {
        return Err(format!("SRK_KERNELS is {mode:?}, not auto, build, prebuilt or none"));
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(Kernels::none("built without the feature cuda"));
    }
    if mode == "none" || env::var_os("DOCS_RS").is_some() {
        return Ok(Kernels::none("left out at build time"));
    }

    let sources = Sources::read(folder)?;
    let stale = if mode == "build" {
        "SRK_KERNELS=build".to_string()
    } else {
        watch(&folder.join("prebuilt"));
        match prebuilt(folder, &sources) {
            Ok(kernels) => return Ok(kernels),
            Err(why) if mode == "prebuilt" => return Err(why),
            Err(why) => why,
        }
    };
    let Some(nvcc) = Nvcc::find() else {
        if mode == "build" {
            return Err("SRK_KERNELS=build, but there is no nvcc: set NVCC or CUDA_HOME".into());
        }
        println!("cargo:warning={stale}; no nvcc either, so this build has no GPU kernels");
        return Ok(Kernels::none(&stale));
    };
    watch(folder);
    match nvcc.build(&sources, folder, out) {
        Ok((archs, _)) if archs.is_empty() => {
            Ok(Kernels::none("nothing in SRK_CUDA_ARCHS to build for"))
        }
        Ok((archs, packs)) => {
            Ok(Kernels { origin: format!("built by nvcc {}", nvcc.version), archs, packs })
        }
        Err(why) if mode == "build" => Err(why),
        Err(why) => {
            println!("cargo:warning={stale}; nvcc failed, so this build has no GPU kernels");
            why.lines().for_each(|line| println!("cargo:warning={line}"));
            Ok(Kernels::none("nvcc failed"))
        }
    }
}

/// The prebuilt kernels, if they were made of these sources.
fn prebuilt(folder: &Path, sources: &Sources) -> Result<Kernels> {
    let manifest = folder.join("prebuilt/manifest.txt");
    let manifest = fs::read_to_string(manifest).map_err(|_| "no prebuilt kernels")?;
    let mut origin = String::new();
    let (mut listed, mut archs, mut packs) = (Vec::new(), Vec::new(), Vec::new());
    for line in manifest.lines() {
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["compiler", name, version] => origin = format!("prebuilt by {name} {version}"),
            ["source", hash, name] => listed.push((name.to_string(), hash.to_string())),
            ["architecture", name] => archs.push(Arch::parse(name)?),
            ["pack", _, name] => {
                let stem = name.strip_suffix(".bin").unwrap_or(name).to_owned();
                packs.push((stem, folder.join("prebuilt").join(name)));
            }
            _ => {}
        }
    }
    if listed != sources.hashes() {
        return Err("the prebuilt kernels are not of these sources".into());
    }
    Ok(Kernels { origin, archs, packs })
}

/// `kernels/*.cu` and `*.cuh`, by name.
struct Sources {
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl Sources {
    fn read(folder: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))? {
            let path = entry.map_err(text)?.path();
            if path.extension().is_some_and(|e| e == "cu" || e == "cuh") {
                let content = read(&path)?;
                files.push((path, content));
            }
        }
        files.sort();
        Ok(Self { files })
    }

    fn hashes(&self) -> Vec<(String, String)> {
        let name =
            |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.files.iter().map(|(path, content)| (name(path), sha256::hex(content))).collect()
    }

    /// Name, path and a hash of all that the object depends on, of each file to compile.
    fn units(&self) -> impl Iterator<Item = (String, &Path, String)> {
        let is_header = |path: &Path| path.extension().is_some_and(|e| e == "cuh");
        let of_headers = self.files.iter().filter(move |(path, _)| is_header(path));
        let headers: Vec<u8> = of_headers.flat_map(|(_, content)| content.clone()).collect();
        let sources = self.files.iter().filter(move |(path, _)| !is_header(path));
        sources.map(move |(path, content)| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            (stem, path.as_path(), sha256::hex(&[content.as_slice(), &headers].concat()))
        })
    }
}

/// `80`, `90a`, `80-ptx`, and `ptx80` as in file names.
#[derive(Clone, PartialEq, Eq)]
struct Arch {
    number: u32,
    name: String,
    ptx: bool,
}

impl Arch {
    fn parse(name: &str) -> Result<Self> {
        let bare = name.strip_suffix("-ptx").or_else(|| name.strip_prefix("ptx"));
        let (ptx, name) = (bare.is_some(), bare.unwrap_or(name).to_string());
        let number = name.trim_end_matches(['a', 'f']).parse();
        let number =
            number.map_err(|_| format!("{name:?} is no architecture, such as 80 or 90a"))?;
        Ok(Self { number, name, ptx })
    }

    fn file(&self) -> String {
        format!("{}{}", if self.ptx { "ptx" } else { "" }, self.name)
    }
}

struct Nvcc {
    path: PathBuf,
    version: String,
}

impl Nvcc {
    /// The first that runs and says its version.
    fn find() -> Option<Self> {
        Self::candidates().into_iter().find_map(|path| {
            let output = Command::new(&path).arg("--version").output().ok()?;
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            let version = said.split("release ").nth(1)?.split(',').next()?.trim().to_string();
            Some(Self { path, version })
        })
    }

    fn candidates() -> Vec<PathBuf> {
        let name = if cfg!(windows) { "nvcc.exe" } else { "nvcc" };
        let set =
            |variable: &&str| env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from);
        let mut found: Vec<PathBuf> = ["SRK_NVCC", "NVCC"].iter().filter_map(set).collect();
        found.extend(FOLDERS.iter().filter_map(set).map(|folder| folder.join("bin").join(name)));
        let path = env::var_os("PATH").unwrap_or_default();
        found.extend(env::split_paths(&path).map(|folder| folder.join(name)));
        let usual = ["/usr/local/cuda/bin", "/opt/cuda/bin", "/usr/lib/nvidia-cuda-toolkit/bin"];
        found.extend(usual.map(|folder| Path::new(folder).join(name)));
        // NVIDIA's Python packages.
        for environment in ENVIRONMENTS.iter().filter_map(set) {
            for entry in fs::read_dir(environment.join("lib")).into_iter().flatten().flatten() {
                let packages = entry.path().join("site-packages/nvidia");
                found.extend(["cu13", "cu14"].map(|cu| packages.join(cu).join("bin").join(name)));
            }
        }
        found
    }

    /// One pack a source, of objects that are made again only if what they depend on changed.
    #[allow(clippy::type_complexity)] // Said once, here: what [`Kernels`] holds.
    fn build(
        &self,
        sources: &Sources,
        folder: &Path,
        out: &Path,
    ) -> Result<(Vec<Arch>, Vec<(String, PathBuf)>)> {
        let names = env::var("SRK_CUDA_ARCHS").unwrap_or_else(|_| ARCHITECTURES.into());
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut archs = names.map(Arch::parse).collect::<Result<Vec<_>>>()?;
        archs.retain(|arch| self.knows(arch));
        let units: Vec<_> = sources.units().collect();
        let work: Vec<_> = units.iter().flat_map(|u| archs.iter().map(move |a| (a, u))).collect();
        let objects = in_parallel(&work, |(arch, (stem, source, hash))| {
            let hash =
                sha256::hex(format!("{} {FLAGS:?} {PTX_VERSION} {hash}", self.version).as_bytes());
            let object = out.join(format!("{stem}-{}-{}", arch.file(), &hash[..16]));
            if !object.exists() {
                self.compile(arch, source, folder, &object)?;
            }
            Ok(object)
        })?;
        let of_each = units.iter().zip(objects.chunks(archs.len().max(1)));
        let packs = of_each.map(|((stem, ..), objects)| {
            let path = out.join(format!("{stem}.bin"));
            write(&path, &pack(&archs, objects)?)?;
            Ok((stem.clone(), path))
        });
        let packs = packs.collect::<Result<Vec<_>>>()?;
        Ok((archs, packs))
    }

    fn knows(&self, arch: &Arch) -> bool {
        let known = Command::new(&self.path).arg("--list-gpu-code").output();
        let known =
            known.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        let wanted = format!("sm_{}", arch.number);
        let knows = known.is_empty() || known.lines().any(|line| line.trim() == wanted);
        if !knows {
            println!("cargo:warning=nvcc {} cannot target {wanted}: left out", self.version);
        }
        knows
    }

    fn compile(&self, arch: &Arch, source: &Path, folder: &Path, object: &Path) -> Result<()> {
        let unfinished = object.with_extension("unfinished");
        let mut command = Command::new(&self.path);
        command.args(FLAGS).arg("-I").arg(folder).arg(source).arg("-o").arg(&unfinished);
        let name = &arch.name;
        if arch.ptx {
            command.args(["-ptx", &format!("-arch=compute_{name}")]);
        } else {
            command.args(["-cubin", &format!("-gencode=arch=compute_{name},code=sm_{name}")]);
        }
        let output = command.output().map_err(|e| format!("{}: {e}", self.path.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{} on {}:\n{said}", self.path.display(), source.display()));
        }
        if arch.ptx {
            let ptx = String::from_utf8(read(&unfinished)?).map_err(text)?;
            let line = |line| if str::starts_with(line, ".version ") { PTX_VERSION } else { line };
            let ptx = ptx.lines().map(line).collect::<Vec<_>>().join("\n") + "\n\0";
            write(&unfinished, ptx.as_bytes())?;
        }
        fs::rename(&unfinished, object).map_err(text)
    }
}

/// As src/engine/cuda/images.rs reads it; not compressed.
fn pack(archs: &[Arch], objects: &[PathBuf]) -> Result<Vec<u8>> {
    let length = |n: usize| u32::try_from(n).map(u32::to_le_bytes).map_err(text);
    let mut pack = [&b"SRK2"[..], &length(archs.len())?].concat();
    for (arch, object) in archs.iter().zip(objects) {
        let (name, code) = (arch.file(), read(object)?);
        pack.extend([&length(name.len())?, name.as_bytes(), &[0; 4]].concat());
        pack.extend((code.len() as u64).to_le_bytes());
        pack.extend([&sha256::digest(&code)[..8], &length(code.len())?, &code].concat());
    }
    Ok(pack)
}

/// Applies `work` to all items on as many threads as cargo grants, and returns the results in order.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1).min(items.len());
    let next = Mutex::new(items.iter().enumerate());
    let done = Mutex::new(Vec::new());
    let take = || next.lock().ok().and_then(|mut next| next.next());
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some((i, item)) = take() {
                    let result = work(item);
                    if let Ok(mut done) = done.lock() {
                        done.push((i, result));
                    }
                }
            });
        }
    });
    let mut done = done.into_inner().map_err(text)?;
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

/// Cargo runs this script again when the path changes; one that does not exist would run it always.
fn watch(path: &Path) {
    if path.exists() {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).map_err(|e| format!("{}: {e}", path.display()))
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
