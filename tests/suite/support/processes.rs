//! Who is alive: processes found by a mark in their environment, which children inherit.

use std::fs;

/// Processes (id, start time) whose environment holds `mark`. Those that end meanwhile don't count.
pub fn marked_processes(mark: &str) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let found = environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
            // A zombie has ended; field 22 of the whole line is the start time.
            (found && fields[0] != "Z").then(|| (pid, fields[19].to_owned()))
        })
        .collect()
}
