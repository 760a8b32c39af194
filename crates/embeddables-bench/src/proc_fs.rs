//! What the kernel tells: CPU time and resident memory of a process, load of the machine.

use anyhow::Context as _;

/// CPU time that a process has used so far in seconds, user and system, all its threads.
///
/// # Errors
/// Where there is no such process, or `/proc` has another form.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("{path} has another form: {stat}"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Resident memory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What it has now, in bytes.
    pub resident_bytes: u64,
    /// The most that it ever had, in bytes.
    pub peak_resident_bytes: u64,
}

/// Resident memory of a process, now and at its peak.
///
/// # Errors
/// Where there is no such process, or `/proc` has another form.
pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let field = |name| kibibytes(&status, name).with_context(|| format!("{path} has no `{name}`"));
    Ok(Memory {
        resident_bytes: field("VmRSS")? * 1024,
        peak_resident_bytes: field("VmHWM")? * 1024,
    })
}

/// Load average of the machine over the last minute.
///
/// # Errors
/// Where `/proc` has another form.
pub fn load_average() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").context("cannot read /proc/loadavg")?;
    let first = text
        .split_ascii_whitespace()
        .next()
        .and_then(|first| first.parse().ok());
    first.with_context(|| format!("/proc/loadavg has another form: {text}"))
}

/// Sum of `utime` and `stime`, the 14th and 15th field. The 2nd is the name, which may hold blanks and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn kibibytes(status: &str, name: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_ticks(stat: &str, expected: Option<u64>) {
        assert_eq!(cpu_ticks(stat), expected, "{stat}");
    }

    #[test]
    fn cpu_time_is_found_behind_any_name() {
        let rest = "S 1 42 42 0 -1 4194560 1000 0 0 0 123 77 5 6 20 0 4 0 100 200 300";
        check_ticks(&format!("42 (sidecar) {rest}"), Some(200));
        check_ticks(&format!("42 (a ) b (c)) {rest}"), Some(200));
    }

    #[test]
    fn another_form_is_refused() {
        check_ticks("42 (sidecar) S 1 42", None);
        check_ticks("", None);
    }

    #[test]
    fn memory_fields_are_found_by_their_whole_name() {
        let status = "Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t    512 kB\nRssAnon:\t 100 kB\n";
        assert_eq!(kibibytes(status, "VmHWM"), Some(2048));
        assert_eq!(kibibytes(status, "VmRSS"), Some(512));
        assert_eq!(kibibytes(status, "Vm"), None);
        assert_eq!(kibibytes(status, "VmSwap"), None);
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id();
        assert!(load_average().expect("load average") >= 0.0);
        assert!(cpu_seconds(pid).expect("cpu time") >= 0.0);
        let memory = memory(pid).expect("memory");
        assert!(memory.peak_resident_bytes >= memory.resident_bytes && memory.resident_bytes > 0);
    }
}
