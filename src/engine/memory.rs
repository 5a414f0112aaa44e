//! How much memory a process may still take.
use std::fs::read_to_string;

/// Bytes that can be taken without swapping and without a limit of this process or its group saying no;
/// 4 GiB where the system does not tell.
pub fn available() -> u64 {
    let known = [of_the_machine(), of_the_process(), of_the_group()];
    known.into_iter().flatten().min().unwrap_or(4 << 30)
}

fn of_the_machine() -> Option<u64> {
    line_of("/proc/meminfo", "MemAvailable:")?.first().map(|kib| kib * 1024)
}

/// What `ulimit -v` leaves.
fn of_the_process() -> Option<u64> {
    let limit = *line_of("/proc/self/limits", "Max address space")?.first()?;
    let used = line_of("/proc/self/status", "VmSize:")?.first()? * 1024;
    Some(limit.saturating_sub(used))
}

/// What the limit of a container leaves.
fn of_the_group() -> Option<u64> {
    let number = |path: &str| read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max")?;
    // Files that the system keeps in memory count as used and are given back at need.
    let files =
        line_of("/sys/fs/cgroup/memory.stat", "inactive_file").and_then(|v| v.first().copied());
    let used = number("/sys/fs/cgroup/memory.current")?.saturating_sub(files.unwrap_or(0));
    Some(limit.saturating_sub(used))
}

/// The numbers in the line of `path` that starts with `key`; none if the first word is no number.
fn line_of(path: &str, key: &str) -> Option<Vec<u64>> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().map(|word| word.parse().ok()).take_while(Option::is_some).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn there_is_some() {
        let free = super::available();
        assert!(free > 1 << 20 && free < 1 << 50, "{free}");
    }
}
