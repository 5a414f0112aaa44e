//! `srk train` in several processes: which of them this one is, and starting them on one machine.
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::common::{self, DeviceChoice, Stop};
use super::voice;
use crate::engine::device::Device;
use crate::error::{Error, Report, Result};
use crate::training::asked;
use crate::training::ranks::{Launch, Ranks, detect, meet};

/// What of several processes `srk train` may be one.
#[derive(Debug, clap::Args)]
pub(super) struct Together {
    /// Start so many processes that train together, each with a GPU of this machine (with --device cpu, each with its
    /// share of the cores)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024), conflicts_with = "dry_run")]
    gpus: Option<u32>,
    /// Whether this process is one of several that train together, as torchrun, srun or mpirun say: auto, or none for a
    /// training of its own
    #[arg(
        long,
        value_enum,
        value_name = "auto|none",
        default_value_t,
        hide_possible_values = true
    )]
    ranks: Wanted,
    /// How long processes wait for each other, in seconds, before one that is silent ends all
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rank_timeout: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Wanted {
    #[default]
    Auto,
    None,
}

/// What a process that `--gpus` has started is told, beside the variables of torchrun.
const JOB: &str = "SRK_JOB";
/// How long the others may take to notice that one has ended.
const NOTICE: Duration = Duration::from_secs(10);
/// How long they may take to end once they are told.
const END: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(20);

/// What this process is to do.
pub(super) enum Role {
    /// To start others, and wait for them.
    Starter(u32),
    /// To train, as one of several or alone.
    Trainer(Option<Launch>),
}

impl Together {
    /// What this process is to do.
    ///
    /// # Errors
    /// Exit code 2 if what was asked for and what started it contradict each other.
    pub(super) fn role(&self) -> Result<Role> {
        let launch = match self.ranks {
            Wanted::None => None,
            Wanted::Auto => detect(&|name| common::variable(name))?,
        };
        match (self.gpus, &launch) {
            _ if self.is_started() => end_with_starter(),
            (Some(gpus), Some(launch)) => {
                let what = format!("--gpus {gpus} starts processes, and so did {}", launch.by);
                let cause = format!("this is rank {} of {} already", launch.rank, launch.world);
                let help = "leave --gpus out, or --ranks none";
                return Err(Error::Usage(Report::new(what, cause).help(help)));
            }
            (Some(gpus), None) if gpus > 1 => return Ok(Role::Starter(gpus)),
            _ => {}
        }
        Ok(Role::Trainer(launch))
    }

    fn is_started(&self) -> bool {
        self.gpus.is_some() && common::variable(JOB).is_some()
    }

    /// Meets the others of `launch`.
    ///
    /// # Errors
    /// If they do not come in time, or do not fit.
    pub(super) fn meet(&self, launch: Option<&Launch>) -> Result<Ranks> {
        let Some(launch) = launch else { return Ok(Ranks::alone()) };
        let ranks = meet(launch, Duration::from_secs(self.rank_timeout))?;
        if ranks.is_first() {
            let by = if self.is_started() { "--gpus" } else { launch.by };
            voice::say(format_args!("{} processes train together, started by {by}", ranks.world()));
        }
        Ok(ranks)
    }
}

/// Asks the system to end this process when the one that started it ends, whatever ends that.
fn end_with_starter() {
    #[cfg(target_os = "linux")]
    // SAFETY: this call takes two numbers and changes nothing but what it is named for.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
    }
}

/// Threads of this process where it is not said: its share of the machine, where it is known how many share it.
pub(super) fn share_of_threads(launch: Option<&Launch>) -> Option<usize> {
    launch?;
    let here = common::variable("LOCAL_WORLD_SIZE")?.parse::<usize>().ok().filter(|&n| n > 0)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Some((cores / here).max(1))
}

/// The device of the process of `launch`: the GPU of its number on its machine.
///
/// # Errors
/// Exit code 2 if one GPU was named for all, 4 if there are too few.
pub(super) fn device(choice: &DeviceChoice, launch: Option<&Launch>) -> Result<Device> {
    let Some(launch) = launch else { return choice.open(&mut |_| ()) };
    choice.of_several(launch.local, launch.world)
}

/// Starts `count` processes with the arguments of this one, and waits for them.
///
/// # Errors
/// That of the first that fails, in so far as its exit code tells; the others are ended.
pub(super) fn start(count: u32, stop: &Stop) -> Result<()> {
    let failed = |e: std::io::Error| Error::Failed(Report::new("cannot start a process", e));
    let program = std::env::current_exe().map_err(failed)?;
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).map_err(failed)?;
    let job = format!("{}-{}", std::process::id(), port.port());
    let mut children = Children(Vec::new());
    for rank in 0..count {
        let mut command = Command::new(&program);
        command.args(std::env::args_os().skip(1)).stdin(Stdio::null());
        command.env(JOB, &job).env("MASTER_ADDR", "127.0.0.1");
        command.env("MASTER_PORT", port.port().to_string());
        for (name, value) in [("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", count)] {
            command.env(name, value.to_string());
        }
        command.env("LOCAL_WORLD_SIZE", count.to_string());
        if rank > 0 {
            command.stdout(Stdio::null());
        }
        // Signals of the terminal come from here, once.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        children.0.push(Some(command.spawn().map_err(failed)?));
    }
    children.wait(stop)
}

/// Processes by their rank; none where one has ended. What is left is killed when this goes away.
struct Children(Vec<Option<Child>>);

impl Children {
    fn wait(&mut self, stop: &Stop) -> Result<()> {
        let (mut failed, mut since): (Vec<(usize, ExitStatus)>, Option<Instant>) = (vec![], None);
        let (mut told, mut ended) = (0, false);
        while self.0.iter().any(Option::is_some) {
            if let Some((rank, status)) = self.next()?
                && !status.success()
            {
                since = since.or_else(|| Some(Instant::now()));
                failed.push((rank, status));
            }
            let signal = stop.load(Ordering::Relaxed);
            if signal != told {
                told = signal;
                self.signal(signal);
            }
            if asked::take() {
                self.save();
            }
            if let Some(since) = since {
                if since.elapsed() > NOTICE && !ended {
                    ended = true;
                    self.signal(15);
                }
                if since.elapsed() > NOTICE + END {
                    break;
                }
            }
            sleep(PAUSE);
        }
        // Those that end because of another one end with 1.
        let cause = failed.iter().find(|(_, status)| status.code() != Some(1)).or(failed.first());
        cause.map_or(Ok(()), |&(rank, status)| Err(error(rank, self.0.len(), status)))
    }

    /// One that has ended since the last look.
    fn next(&mut self) -> Result<Option<(usize, ExitStatus)>> {
        for (rank, place) in self.0.iter_mut().enumerate() {
            let Some(child) = place else { continue };
            let status = child.try_wait().map_err(|e| {
                Error::Failed(Report::new(format!("cannot wait for rank {rank}"), e))
            })?;
            if let Some(status) = status {
                *place = None;
                return Ok(Some((rank, status)));
            }
        }
        Ok(None)
    }

    /// Sends `signal`, by its number, to all that are left.
    fn signal(&mut self, signal: usize) {
        for child in self.0.iter().flatten() {
            send(child, i32::try_from(signal).unwrap_or(15));
        }
    }

    /// Asks the first for a checkpoint.
    fn save(&self) {
        #[cfg(unix)]
        if let Some(Some(child)) = self.0.first() {
            send(child, libc::SIGUSR1);
        }
    }
}

/// Sends `signal` to `child`, which was not waited for yet.
fn send(child: &Child, signal: i32) {
    #[cfg(unix)]
    if let Ok(process) = libc::pid_t::try_from(child.id()) {
        // SAFETY: a call with two numbers; the process is our child until it is waited for.
        unsafe {
            libc::kill(process, signal);
        }
    }
    #[cfg(not(unix))]
    let _ = (child, signal);
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in self.0.iter_mut().flatten() {
            let _ = child.kill().and_then(|()| child.wait());
        }
    }
}

/// What the end of `rank` is for the user: it has said itself why, unless it was killed.
fn error(rank: usize, count: usize, status: ExitStatus) -> Error {
    let code = status.code();
    let cause = match code {
        Some(code) => format!("it ended with exit code {code}; it has said why above"),
        None => format!("it was ended from outside ({status})"),
    };
    let report = Report::new(format!("rank {rank} of {count} failed"), cause);
    match code {
        Some(2) => Error::Usage(report),
        Some(3) => Error::Model(report),
        Some(4) => Error::Device(report),
        Some(5) => Error::Memory(report),
        Some(6) => Error::Check(report),
        Some(code @ 129..=143) => {
            Error::Interrupted { signal: code - 128, what: "the processes have saved".into() }
        }
        _ => Error::Failed(report.help("the same command again goes on from the last checkpoint")),
    }
}
