//! How much memory the process has and may take.
//!
//! What the system calls available is no promise: limits of the address space (`ulimit -v`) and of
//! control groups end a process that exceeds them, so the smallest counts.
use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that the process can take more than it has, without swapping and within its limits; 4 GiB
/// where the system does not say.
pub fn available() -> u64 {
    let limits = [meminfo(), address_space(), control_groups()];
    limits.into_iter().flatten().min().unwrap_or(4 << 30)
}

/// Bytes of the process that are in memory now; 32 MiB where the system does not say.
pub fn resident() -> u64 {
    statm(1).unwrap_or(32 << 20)
}

/// Bytes of the process that were in memory at most, since it began or since [`reset_peak`]; none where the system does
/// not say.
pub fn peak() -> Option<u64> {
    let text = read("/proc/self/status")?;
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// From now on [`peak`] is what the process holds at most from now on, where the system can do that.
pub fn reset_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// `bytes` in words, rounded up: KiB, from 1 MiB on MiB with a decimal, from 10 MiB on whole ones, and from 10 GiB on
/// GiB.
pub fn in_words(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    match bytes.div_ceil(MIB) {
        _ if bytes < MIB => format!("{} KiB", bytes.div_ceil(1 << 10)),
        mib @ ..=10 if !bytes.is_multiple_of(MIB) && mib > 1 => {
            let tenths = (10 * bytes).div_ceil(MIB);
            format!("{}.{} MiB", tenths / 10, tenths % 10)
        }
        mib if bytes >> 30 < 10 => format!("{mib} MiB"),
        _ => format!("{} GiB", bytes.div_ceil(1 << 30)),
    }
}

/// Bytes from `512M`, `2GiB`, `1.5G`, a plain number of bytes, or a share such as `50%` of what is
/// free.
///
/// # Errors
/// What is wrong with the text.
pub fn parse(text: &str) -> Result<u64, String> {
    let text = text.trim();
    if let Some(percent) = text.strip_suffix('%') {
        let percent: f64 = percent.trim().parse().map_err(|_| format!("\"{text}\" is no share"))?;
        return if (1.0..=100.0).contains(&percent) {
            Ok(share(available(), percent / 100.0))
        } else {
            Err("a share is from 1% to 100%".into())
        };
    }
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| format!("\"{text}\" is no size"))?;
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        other => return Err(format!("unknown unit \"{other}\"; use M or G")),
    };
    Ok(share(u64::MAX, (number * unit) / u64::MAX as f64))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Between 0 and `of`.
fn share(of: u64, part: f64) -> u64 {
    (of as f64 * part) as u64
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn meminfo() -> Option<u64> {
    let text = read("/proc/meminfo")?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Field `i` of `/proc/self/statm`, which counts pages: 0 is the address space, 1 what is resident.
fn statm(i: usize) -> Option<u64> {
    let pages = read("/proc/self/statm")?.split_whitespace().nth(i)?.parse::<u64>().ok()?;
    Some(pages.saturating_mul(page()))
}

/// Bytes of a page: 4 KiB, but 16 or 64 KiB on some ARM machines.
fn page() -> u64 {
    // SAFETY: it takes a number and returns one.
    #[cfg(unix)]
    let asked = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    #[cfg(not(unix))]
    let asked = 0;
    u64::try_from(asked).ok().filter(|&page| page > 0).unwrap_or(4096)
}

/// What `ulimit -v` leaves. Threads to come and the allocator's reserve need address space, too.
fn address_space() -> Option<u64> {
    const RESERVE: u64 = 128 << 20;
    let limit = soft_limit(&read("/proc/self/limits")?)?;
    Some(limit.saturating_sub(statm(0)?).saturating_sub(RESERVE))
}

fn soft_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|l| l.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What the control group of the process, and those above it, leave.
fn control_groups() -> Option<u64> {
    let groups = read("/proc/self/cgroup")?;
    let left = groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (kinds, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or("/"));
        let (root, files) = match kinds {
            "" => ("/sys/fs/cgroup", &V2),
            _ => ("/sys/fs/cgroup/memory", &V1),
        };
        let counts = kinds.is_empty() || kinds.split(',').any(|k| k == "memory");
        let groups = Path::new(path).ancestors().filter(move |_| counts);
        groups
            .map(|group| Path::new(root).join(group.strip_prefix("/").unwrap_or(group)))
            .filter_map(|group: PathBuf| left_in(&group, files))
            .collect::<Vec<_>>()
    });
    left.min()
}

/// Where a version of control groups says what is allowed and what is taken, and which lines of its `memory.stat` count
/// files in memory.
struct Files {
    limit: &'static str,
    usage: &'static str,
    cached: [&'static str; 2],
}

const V2: Files = Files {
    limit: "memory.max",
    usage: "memory.current",
    cached: ["inactive_file", "active_file"],
};
const V1: Files = Files {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cached: ["total_inactive_file", "total_active_file"],
};

/// What the control group in `folder` leaves. Files that were read stay in memory and count as taken, but make room for
/// whatever a process asks for.
fn left_in(folder: &Path, files: &Files) -> Option<u64> {
    let number = |name: &str| read(folder.join(name))?.trim().parse::<u64>().ok();
    let (limit, usage) = (number(files.limit)?, number(files.usage)?);
    let stat = read(folder.join("memory.stat")).unwrap_or_default();
    let counts = stat.lines().filter_map(|line| line.split_once(' '));
    let cached = counts.filter(|(name, _)| files.cached.contains(name));
    let cached: u64 = cached.filter_map(|(_, n)| n.trim().parse::<u64>().ok()).sum();
    Some(limit.saturating_sub(usage.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_unlimited_is_none() {
        let line =
            "Limit   Soft Limit  Hard Limit  Units\nMax address space  4096000  unlimited  bytes\n";
        assert_eq!(soft_limit(line), Some(4_096_000));
        assert_eq!(soft_limit("Max address space  unlimited  unlimited  bytes\n"), None);
        assert_eq!(soft_limit(""), None);
        assert!(available() > 0 && resident() > 0);
        for (bytes, words) in [
            (288 << 10, "288 KiB"),
            ((200 << 10) - 1, "200 KiB"),
            (1_059_976, "1.1 MiB"),
            (3 << 20, "3 MiB"),
            ((3 << 20) + 1, "3.1 MiB"),
            ((10 << 20) - 1, "10.0 MiB"),
            ((10 << 20) + 1, "11 MiB"),
            ((10 << 30) - 1, "10240 MiB"),
            (12 << 30, "12 GiB"),
            ((12 << 30) + 1, "13 GiB"),
        ] {
            assert_eq!(in_words(bytes), words);
        }
    }

    #[test]
    fn files_in_memory_are_room_in_both_versions_of_control_groups() {
        let stat = "anon 7\nfile 1500\ninactive_file 900\nactive_file 500\ntotal_inactive_file 80\n\
                    total_active_file 20\nslab_reclaimable 3\n";
        for (files, left) in [(&V2, 2000 - (1600 - 1400)), (&V1, 2000 - (1600 - 100))] {
            let folder = tempfile::tempdir().unwrap();
            let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
            put(files.usage, "1600\n");
            assert_eq!(left_in(folder.path(), files), None, "without a limit");
            put(files.limit, "max\n");
            assert_eq!(left_in(folder.path(), files), None, "unlimited");
            put(files.limit, "2000\n");
            assert_eq!(left_in(folder.path(), files), Some(400), "where nothing says more");
            put("memory.stat", stat);
            assert_eq!(left_in(folder.path(), files), Some(left));
            // The numbers are read one after the other.
            put(files.usage, "90\n");
            assert_eq!(left_in(folder.path(), files), Some(2000));
        }
    }
}
