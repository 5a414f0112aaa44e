//! Compiles the kernels with the host's C++ compiler into one library a variant: `plain`, `checked`, and one
//! for each bug seeded in a source (`defined(BUG_...)`), which holds that source alone, checked.
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};
use std::{env, fs, thread};

type Result<T> = std::result::Result<T, String>;

const COMMON: &[&str] = &[
    "-std=c++17",
    "-O2",
    "-g",
    "-fPIC",
    "-ftls-model=initial-exec",
    "-fno-gnu-unique",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-DCUDA_EMULATION",
    "-fno-strict-aliasing", // vector loads
];
const KERNEL: &[&str] = &[
    "-ftrivial-auto-var-init=pattern", // uninitialised locals show up as -1.7e38
    "-Wno-unused-parameter",
    "-Wno-unknown-pragmas",
    "-Wno-psabi", // GCC says that it passes tensor maps as it does since 4.6
];
const CHECKED: &[&str] = &[
    // Array indices (of SHARED arrays too) and vector loads; traps, without a runtime library.
    "-fsanitize=bounds,alignment",
    "-fsanitize-undefined-trap-on-error",
    // Instrumentation only: emulation.cpp implements the callbacks, libtsan is not linked.
    "-fsanitize=thread",
    "--param=tsan-instrument-func-entry-exit=0",
];

fn main() {
    if let Err(text) = build() {
        eprintln!("error: {text}");
        std::process::exit(1);
    }
}

fn build() -> Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("no manifest directory")?);
    let kernels = here.parent().ok_or("no folder of kernels")?.to_path_buf();
    println!("cargo:rerun-if-env-changed=CXX");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=.."); // with this folder
    let os = env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if os != "linux" || !["x86_64", "aarch64"].contains(&arch.as_str()) {
        return write(&out.join("variants.rs"), "static VARIANTS: &[(&str, &str)] = &[];\n");
    }

    let compiler = Compiler::find(&out, &kernels)?;
    let mut sources: Vec<PathBuf> = with_extension(&kernels, "cu")?;
    sources.extend(with_extension(&here, "cu")?);
    let runtime = Unit { source: here.join("emulation.cpp"), flags: Vec::new() };
    let mut units = vec![runtime.clone()];
    let mut variants = vec![("plain".to_string(), vec![0]), ("checked".to_string(), vec![0])];
    for source in &sources {
        let unit = |flags: &[&str], define: Option<&str>| Unit {
            source: source.clone(),
            flags: flags
                .iter()
                .map(ToString::to_string)
                .chain(define.map(|d| format!("-D{d}")))
                .collect(),
        };
        let checked = [KERNEL, CHECKED].concat();
        for (variant, flags) in [KERNEL, &checked].into_iter().enumerate() {
            variants[variant].1.push(units.len());
            units.push(unit(flags, None));
        }
        for bug in bugs(source)? {
            variants.push((bug.clone(), vec![0, units.len()]));
            units.push(unit(&checked, Some(&bug)));
        }
    }

    let objects = in_parallel(&units, |unit| compiler.object(unit))?;
    let libraries = in_parallel(&variants, |(name, units)| {
        let of: Vec<&Path> = units.iter().map(|&unit| objects[unit].as_path()).collect();
        compiler.library(name, &of)
    })?;
    let mut table = String::from("static VARIANTS: &[(&str, &str)] = &[\n");
    for ((name, _), library) in variants.iter().zip(&libraries) {
        writeln!(table, "    ({name:?}, {:?}),", library.display().to_string()).map_err(text)?;
    }
    table.push_str("];\n");
    write(&out.join("variants.rs"), &table)?;
    discard_old(&out, &objects.into_iter().chain(libraries).collect());
    Ok(())
}

/// A source and what its compilation adds to the common flags.
#[derive(Clone)]
struct Unit {
    source: PathBuf,
    flags: Vec<String>,
}

struct Compiler {
    command: String,
    out: PathBuf,
    include: PathBuf,
    /// Of everything that each object depends on: compiler, common flags, the emulation's headers.
    hash: u64,
}

impl Compiler {
    fn find(out: &Path, kernels: &Path) -> Result<Self> {
        let command =
            env::var("CXX").ok().filter(|c| !c.is_empty()).unwrap_or_else(|| "g++".to_string());
        let version = Command::new(&command).arg("--version").output().map_err(|e| {
            format!(
                "the tests run the CUDA kernels on the host and need a C++ compiler: {command}: {e}\n\
                 Install g++ 12 or newer (Debian and Ubuntu: apt install g++), or set CXX."
            )
        })?;
        let mut hasher = DefaultHasher::new();
        (&command, &version.stdout, COMMON).hash(&mut hasher);
        for header in with_extension(&kernels.join("emulation"), "h")? {
            read(&header)?.hash(&mut hasher);
        }
        let include = kernels.to_path_buf();
        Ok(Self { command, out: out.to_path_buf(), include, hash: hasher.finish() })
    }

    /// Compiles, unless an object of the same content exists.
    fn object(&self, unit: &Unit) -> Result<PathBuf> {
        let mut hasher = DefaultHasher::new();
        (self.hash, &unit.flags, &unit.source, self.included(&unit.source)?).hash(&mut hasher);
        let stem = unit.source.file_stem().unwrap_or_default().to_string_lossy();
        self.cached(&format!("{stem}-{:016x}.o", hasher.finish()), |to| {
            let mut command = Command::new(&self.command);
            command.args(COMMON).args(&unit.flags).arg("-I").arg(&self.include);
            command.arg(format!("-fmacro-prefix-map={}/=", self.include.display())); // __FILE__
            command.args(["-x", "c++", "-c"]).arg(&unit.source).arg("-o").arg(to);
            command
        })
    }

    /// The source and all headers of kernels that it includes, whoever does; of the runtime all parts.
    fn included(&self, source: &Path) -> Result<Vec<Vec<u8>>> {
        let mut found: Vec<(PathBuf, Vec<u8>)> = vec![(source.to_path_buf(), read(source)?)];
        let mut next = 0;
        while let Some((_, text)) = found.get(next) {
            let text = String::from_utf8_lossy(text).into_owned();
            let names =
                text.lines().filter_map(|line| line.strip_prefix("#include \"")?.split('"').next());
            for name in names.filter(|name| name.ends_with(".cuh") || name.ends_with(".cpp")) {
                let folder = if name.ends_with(".cpp") { "emulation" } else { "" };
                let path = self.include.join(folder).join(name.rsplit('/').next().unwrap_or(name));
                if found.iter().all(|(known, _)| *known != path) {
                    let text = read(&path)?;
                    found.push((path, text));
                }
            }
            next += 1;
        }
        Ok(found.into_iter().map(|(_, text)| text).collect())
    }

    fn library(&self, name: &str, objects: &[&Path]) -> Result<PathBuf> {
        let mut hasher = DefaultHasher::new();
        (self.hash, objects).hash(&mut hasher);
        self.cached(&format!("{name}-{:016x}.so", hasher.finish()), |to| {
            let mut command = Command::new(&self.command);
            // Each library has an emulation of its own and must not call that of another.
            command.args(["-shared", "-pthread", "-Wl,-Bsymbolic", "-Wl,-z,defs"]).args(objects);
            command.arg("-o").arg(to).arg("-ldl").arg("-lrt");
            command
        })
    }

    fn cached(&self, name: &str, command: impl Fn(&Path) -> Command) -> Result<PathBuf> {
        let path = self.out.join(name);
        if !path.exists() {
            let unfinished = path.with_extension("unfinished");
            let output =
                command(&unfinished).output().map_err(|e| format!("{}: {e}", self.command))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!(
                    "{} failed ({}) on {name}:\n{said}",
                    self.command, output.status
                ));
            }
            fs::rename(&unfinished, &path).map_err(text)?;
        }
        Ok(path)
    }
}

/// The names of the mistakes that a source can be compiled with.
fn bugs(source: &Path) -> Result<BTreeSet<String>> {
    let bytes = read(source)?;
    let code = String::from_utf8_lossy(&bytes);
    let name = |part: &str| part.split(')').next().unwrap_or_default().to_string();
    Ok(code.split("defined(").skip(1).filter(|part| part.starts_with("BUG_")).map(name).collect())
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

/// Removes what earlier builds left, except of the last days: another branch may want it again.
fn discard_old(out: &Path, used: &BTreeSet<PathBuf>) {
    let limit = SystemTime::now() - Duration::from_secs(3 * 24 * 3600);
    for entry in fs::read_dir(out).into_iter().flatten().flatten() {
        let path = entry.path();
        let ours = path.extension().is_some_and(|e| e == "o" || e == "so" || e == "unfinished");
        let old = entry.metadata().and_then(|m| m.modified()).is_ok_and(|time| time < limit);
        if ours && old && !used.contains(&path) {
            let _ = fs::remove_file(path);
        }
    }
}

fn with_extension(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.extension().is_some_and(|e| e == extension));
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).map_err(|e| format!("{}: {e}", path.display()))
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
