//! What is told by files: `/proc/loadavg`, `/proc/stat`, `/proc/pressure/cpu`, the control group's `cpu.stat`, and of `/sys` the
//! cores' clocks and heat and the board's sensors.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Reading, Time};

/// No file is read further, in bytes. Of `/proc/stat` the processors come first.
const LONGEST: u64 = 256 * 1024;
/// Of at most so many cores and sensors something is read.
const MOST: usize = 256;
/// Where the group's processor counters may lie: version 2 alone, version 2 beside 1, and version 1.
const GROUPS: [(&str, &str); 4] = [
    ("", "sys/fs/cgroup"),
    ("", "sys/fs/cgroup/unified"),
    ("cpu", "sys/fs/cgroup/cpu"),
    ("cpu", "sys/fs/cgroup/cpu,cpuacct"),
];

/// Reads what the files below `root`, `/` on a real machine, tell now. `cores` are those that matter; none means all.
///
/// Blocks for as long as the kernel takes, which may be some milliseconds for a sensor.
#[must_use]
pub fn read(root: &Path, cores: &[u32]) -> Reading {
    let (load, runnable) = loads(root).unzip();
    Reading {
        load,
        runnable,
        time: time(root, cores),
        throttled: throttled(root),
        pressure: pressure(root),
        heat: heat(root, cores),
        celsius: celsius(root),
        mhz: mhz(root, cores),
        ..Reading::default()
    }
}

/// How many processes the kernel has killed for want of memory since it started, those of control groups among them; nothing where
/// it does not tell. `root` is `/` on a real machine.
#[must_use]
pub fn oom_kills(root: &Path) -> Option<u64> {
    text(&root.join("proc/vmstat"))?.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

/// The memory that processes may still have without others' being swapped out, in bytes; nothing where the kernel does not tell.
/// `root` is `/` on a real machine.
#[must_use]
pub fn available_memory(root: &Path) -> Option<u64> {
    let said = text(&root.join("proc/meminfo"))?;
    let line = said.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// What is free where a folder lies or would lie, in bytes; nothing where the system does not tell.
#[must_use]
pub fn free_disk(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|path| path.exists())?;
    let stat = nix::sys::statvfs::statvfs(there).ok()?;
    Some(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// The text at a path; nothing if there is none.
fn text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    text(path)?.trim().parse().ok()
}

/// `0.20 0.18 0.12 3/80 11206`: the load of the last minute, and how many tasks run or wait.
fn loads(root: &Path) -> Option<(f64, u32)> {
    let said = text(&root.join("proc/loadavg"))?;
    let mut words = said.split_ascii_whitespace();
    let load: f64 = words.next()?.parse().ok()?;
    let running: u32 = words.nth(2)?.split_once('/')?.0.parse().ok()?;
    load.is_finite().then(|| (load, running.saturating_sub(1)))
}

/// The line of all processors, or those of some cores. A core of which nothing is told leaves all unknown.
fn time(root: &Path, cores: &[u32]) -> Option<Time> {
    let said = text(&root.join("proc/stat"))?;
    let line = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    if cores.is_empty() {
        return ticks(line("cpu")?);
    }
    let own: Option<Vec<Time>> = cores.iter().take(MOST).map(|core| ticks(line(&format!("cpu{core}"))?)).collect();
    Some(own?.into_iter().fold(Time::default(), |all, one| Time {
        busy: all.busy + one.busy,
        idle: all.idle + one.idle,
        iowait: all.iowait + one.iowait,
        steal: all.steal + one.steal,
    }))
}

/// `user nice system idle iowait irq softirq steal guest guest_nice`, in ticks; guests are counted as user already.
fn ticks(line: &str) -> Option<Time> {
    let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    let second = u64::try_from(second).ok().filter(|ticks| *ticks > 0)?;
    let all: Option<Vec<u64>> = line.split_ascii_whitespace().take(8).map(|tick| tick.parse().ok()).collect();
    let [user, nice, system, idle, iowait, irq, softirq, steal] = <[u64; 8]>::try_from(all?).ok()?;
    let time = |ticks: u64| Duration::from_millis(ticks.saturating_mul(1000) / second);
    let busy = [nice, system, irq, softirq].iter().fold(user, |all, ticks| all.saturating_add(*ticks));
    Some(Time { busy: time(busy), idle: time(idle), iowait: time(iowait), steal: time(steal) })
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345`, in microseconds.
fn pressure(root: &Path) -> Option<Duration> {
    let said = text(&root.join("proc/pressure/cpu"))?;
    let total = said.lines().find_map(|line| line.strip_prefix("some ")?.split_once("total="))?.1;
    total.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_micros)
}

/// Of this process's own control group. A group without a quota says that it was never held back.
fn throttled(root: &Path) -> Option<Duration> {
    let groups = text(&root.join("proc/self/cgroup"))?;
    GROUPS.iter().find_map(|(controller, mount)| {
        let own = groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let of = parts.next()?;
            of.split(',').any(|name| name == *controller).then(|| parts.next())?
        })?;
        let plain = !own.split('/').any(|part| part == "..");
        let folder = root.join(mount).join(if plain { own.trim_start_matches('/') } else { "" });
        // Within a container the group that is mounted at the top may be the own one.
        let said = [folder, root.join(mount)].iter().find_map(|folder| text(&folder.join("cpu.stat")))?;
        let value = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        let micros = value("throttled_usec ").map(Duration::from_micros);
        micros.or_else(|| value("throttled_time ").map(Duration::from_nanos))
    })
}

/// The folders of the cores that matter.
fn folders(root: &Path, cores: &[u32]) -> Vec<PathBuf> {
    let cpus = root.join("sys/devices/system/cpu");
    if !cores.is_empty() {
        return cores.iter().take(MOST).map(|core| cpus.join(format!("cpu{core}"))).collect();
    }
    numbered(&cpus, "cpu")
}

/// The folders named by a word and a number.
fn numbered(folder: &Path, word: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let named = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(word));
        rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    });
    named.take(MOST).map(|entry| entry.path()).collect()
}

/// Of the core, and of the package that it is part of, whichever was slowed longer.
fn heat(root: &Path, cores: &[u32]) -> Option<Duration> {
    let of = |folder: &Path| {
        let part = |name: &str| number::<u64>(&folder.join("thermal_throttle").join(name));
        part("core_throttle_total_time_ms").max(part("package_throttle_total_time_ms"))
    };
    folders(root, cores).iter().filter_map(|folder| of(folder)).max().map(Duration::from_millis)
}

fn celsius(root: &Path) -> Option<f64> {
    let zones = numbered(&root.join("sys/class/thermal"), "thermal_zone");
    let degrees = zones.iter().filter_map(|zone| Some(number::<f64>(&zone.join("temp"))? / 1000.0));
    // A sensor that is not there says so by a number that is no temperature.
    degrees.filter(|degrees| (-50.0..200.0).contains(degrees)).reduce(f64::max)
}

fn mhz(root: &Path, cores: &[u32]) -> Option<f64> {
    let clock = |folder: &PathBuf| Some(number::<f64>(&folder.join("cpufreq/scaling_cur_freq"))? / 1000.0);
    let clocks: Vec<f64> = folders(root, cores).iter().filter_map(clock).filter(|mhz| mhz.is_finite()).collect();
    (!clocks.is_empty()).then(|| clocks.iter().sum::<f64>() / clocks.len() as f64)
}
