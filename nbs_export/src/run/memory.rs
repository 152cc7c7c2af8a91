//! The peak memory of the process that runs the cells.

/// The largest `VmHWM` (peak resident memory, in bytes) among the kernel's runtime processes. Linux only.
///
/// The kernel's direct children are compilers and the process that runs the cells, which evcxr marks in its environment
/// (a compiler about to be started looks like the kernel itself, memory included); what is below it, a cell has started.
#[cfg(target_os = "linux")]
pub fn peak_below(kernel: u32) -> Option<u64> {
    let processes = parents();
    let children =
        |id: u32| processes.iter().filter(move |(_, parent)| *parent == id).map(|(child, _)| *child);
    let is_runtime = |id: &u32| {
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|&b| b == 0).any(|v| v.starts_with(b"EVCXR_IS_RUNTIME="))
    };
    // The kernel may stand in front of evcxr, which starts the process that runs the cells; what that one starts counts too.
    let mut waiting: Vec<(u32, bool)> = children(kernel).map(|id| (id, false)).collect();
    let mut peak = None;
    while let Some((id, below)) = waiting.pop() {
        let counts = below || is_runtime(&id);
        if counts {
            peak = peak.max(high_water(id));
        }
        waiting.extend(children(id).map(|child| (child, counts)));
    }
    peak
}

/// Elsewhere nothing is known.
#[cfg(not(target_os = "linux"))]
pub fn peak_below(_kernel: u32) -> Option<u64> {
    None
}

/// All processes with their parents.
#[cfg(target_os = "linux")]
fn parents() -> Vec<(u32, u32)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name, in brackets, may hold anything; state and parent follow it.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((id, parent))
        })
        .collect()
}

#[cfg(target_os = "linux")]
fn high_water(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_its_parents_child_and_has_a_peak() {
        let this = std::process::id();
        let parent = std::os::unix::process::parent_id();
        assert!(parents().contains(&(this, parent)));
        let before = high_water(this).unwrap();
        let big = vec![1_u8; 64 << 20];
        assert!(big.iter().map(|&b| u64::from(b)).sum::<u64>() == 64 << 20);
        assert!(high_water(this).unwrap() >= before.max(64 << 20));
    }
}
