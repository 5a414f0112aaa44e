//! Sums over the GPUs of several processes, by NCCL.
//!
//! A communicator has a stream of its own. What is to be added up waits there for an event behind what made it, and
//! whoever wants the sums waits for an event behind them: so sums run beside what is issued meanwhile, and as both are
//! recorded by graphs, replays do the same. Several tensors make one group, which NCCL carries out as one.
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cudarc::driver::sys::CUstream;

use super::context::{Event, Stream};
use super::find::{find_nccl, load};
use super::symbols::functions;
use crate::engine::cuda::driver::{Collective, DevicePointer, Members};
use crate::engine::dtype::DType;
use crate::error::{Error, Report, Result};

type Raw = *mut c_void;

/// `ncclUniqueId`
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Id([c_char; 128]);

functions! {
    /// NCCL's functions.
    Api:
    version = "ncclGetVersion"(*mut c_int);
    unique_id = "ncclGetUniqueId"(*mut Id);
    init_rank = "ncclCommInitRank"(*mut Raw, c_int, Id, c_int);
    abort = "ncclCommAbort"(Raw);
    fault = "ncclCommGetAsyncError"(Raw, *mut u32);
    all_reduce = "ncclAllReduce"(*const c_void, *mut c_void, usize, u32, u32, Raw, CUstream);
    group_start = "ncclGroupStart"();
    group_end = "ncclGroupEnd"();
}

/// The oldest that can be recorded and knows bf16, as `ncclGetVersion` says it: 2.10.3.
const OLDEST: c_int = 21_003;
/// `ncclSum`
const SUM: u32 = 0;
/// `ncclInProgress`, which is no fault.
const IN_PROGRESS: u32 = 7;
/// How long a wait asks again and again before it sleeps in between, and how long it sleeps.
const EAGER: Duration = Duration::from_millis(2);
const SLEEP: Duration = Duration::from_micros(50);

/// The library, with the number of its version.
struct Library {
    api: Api,
    version: c_int,
}

/// The library, looked for once, or why it cannot be used.
fn library() -> std::result::Result<&'static Library, String> {
    static LIBRARY: OnceLock<std::result::Result<Library, String>> = OnceLock::new();
    LIBRARY.get_or_init(open).as_ref().map_err(Clone::clone)
}

fn open() -> std::result::Result<Library, String> {
    let found = find_nccl().ok_or(
        "libnccl.so.2 was not found; SRK_CUDA_LIBRARIES can name its folder, or activate a Python environment that \
         has it",
    )?;
    let path = found.path.display();
    let library: &'static _ =
        Box::leak(Box::new(load(&found).map_err(|e| format!("{path}: {e}"))?));
    // SAFETY: the library is NCCL 2, and stays loaded.
    let api = unsafe { Api::of(library) }.map_err(|symbol| format!("{path} has no {symbol}"))?;
    let mut version = 0;
    // SAFETY: the out-pointer is a local.
    let status = unsafe { (api.version)(&raw mut version) };
    if status != 0 || version < OLDEST {
        let (is, least) = (in_words(version), in_words(OLDEST));
        return Err(format!("{path} is NCCL {is}; {least} is the oldest that will do"));
    }
    Ok(Library { api, version })
}

/// Its version, or why it cannot be used.
pub(super) fn version() -> std::result::Result<String, String> {
    library().map(|library| in_words(library.version))
}

/// `2.27.3` of 22703; before 2.9 there was a digit less.
fn in_words(version: c_int) -> String {
    let thousand = if version < 10_000 { 1000 } else { 10_000 };
    format!("{}.{}.{}", version / thousand, version % thousand / 100, version % 100)
}

/// What a status means.
fn meaning(status: u32) -> &'static str {
    match status {
        1 => "a call of CUDA failed",
        2 => "a call of the system failed",
        3 => "an error within NCCL",
        4 => "a wrong argument",
        5 => "a wrong use, such as one GPU for two processes",
        6 => "another process is gone, or the network between them",
        _ => "of a kind that srk does not know",
    }
}

fn check(status: u32, what: &str) -> Result<()> {
    match status {
        0 | IN_PROGRESS => Ok(()),
        _ => {
            let cause = format!("NCCL error {status}: {}", meaning(status));
            Err(Error::Device(Report::new(what, cause).help("NCCL_DEBUG=WARN says more")))
        }
    }
}

/// A communicator.
#[derive(Debug)]
pub(super) struct Nccl {
    api: &'static Api,
    raw: Handle,
    /// Whether it was given up.
    over: AtomicBool,
    /// Where sums run, and what everything else runs on.
    beside: Arc<Stream>,
    stream: Arc<Stream>,
    /// Behind what is to be added up, behind the sums, and behind all.
    made: Event,
    summed: Event,
    all: Event,
}

#[derive(Clone, Copy, Debug)]
struct Handle(Raw);

// SAFETY: a communicator may be used by any thread, one at a time; sums are issued under the tape of one thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Nccl {
    /// Joins the GPU of `stream` with those of the other members.
    pub(super) fn meet(stream: &Arc<Stream>, members: Members<'_>) -> Result<Self> {
        let why = |why| Error::Device(Report::new("NCCL cannot be used", why));
        let api = &library().map_err(why)?.api;
        let Members { rank, world, share, goes_on } = members;
        let mut id = Id([0; 128]);
        let mut mine = None;
        if rank == 0 {
            // SAFETY: the out-pointer is a local.
            check(unsafe { (api.unique_id)(&raw mut id) }, "NCCL cannot begin")?;
            mine = Some(id.0.iter().map(|byte| byte.cast_unsigned()).collect());
        }
        let told = share(mine)?;
        id.0.iter_mut().zip(&told).for_each(|(to, byte)| *to = byte.cast_signed());
        let raw = join(api, stream, id, [rank, world], goes_on)?;
        let context = &stream.context;
        Ok(Self {
            api,
            raw,
            over: AtomicBool::new(false),
            beside: Stream::new(context)?,
            stream: Arc::clone(stream),
            made: Event::new(context)?,
            summed: Event::new(context)?,
            all: Event::new(context)?,
        })
    }

    /// Ends what runs and all that comes.
    fn give_up(&self) {
        if !self.over.swap(true, Ordering::Relaxed) && self.stream.context.bind().is_ok() {
            // SAFETY: the communicator is ours, and nothing uses it afterwards: `over` says so.
            unsafe { (self.api.abort)(self.raw.0) };
        }
    }

    /// Whether NCCL knows of a fault, such as a network that broke.
    fn is_faulty(&self) -> bool {
        let mut fault = 0;
        // SAFETY: the communicator is ours and was not given up; the out-pointer is a local.
        let asked = unsafe { (self.api.fault)(self.raw.0, &raw mut fault) };
        check(asked, "").and(check(fault, "")).is_err()
    }
}

/// The communicator of `id`, in which this is number `rank` of `world`. It waits for the others in a thread of its own,
/// which is left to itself where they do not come.
fn join(
    api: &'static Api,
    stream: &Arc<Stream>,
    id: Id,
    [rank, world]: [usize; 2],
    goes_on: &mut dyn FnMut() -> bool,
) -> Result<Handle> {
    let what = "NCCL cannot join the GPUs";
    let number = |n: usize| c_int::try_from(n).unwrap_or(c_int::MAX);
    let (rank, world) = (number(rank), number(world));
    let (send, line) = channel();
    let stream = Arc::clone(stream);
    std::thread::spawn(move || {
        let mut raw = ptr::null_mut();
        let joined = stream.context.bind().and_then(|()| {
            // SAFETY: the out-pointer is a local, the id is that of the first member, and the context is this thread's.
            check(unsafe { (api.init_rank)(&raw mut raw, world, id, rank) }, what)
        });
        let _ = send.send(joined.map(|()| Handle(raw)));
    });
    loop {
        match line.recv_timeout(Duration::from_millis(20)) {
            Ok(joined) => return joined,
            Err(RecvTimeoutError::Timeout) if goes_on() => {}
            Err(_) => {
                let help = "NCCL_DEBUG=INFO shows over which network it tries; NCCL_SOCKET_IFNAME names one";
                let report = Report::new(what, "the others do not come");
                return Err(Error::Device(report.help(help)));
            }
        }
    }
}

impl Collective for Nccl {
    unsafe fn all_reduce(&self, sums: &[(DevicePointer, usize, DType)]) -> Result<()> {
        let what = "NCCL cannot add up";
        if self.over.load(Ordering::Relaxed) {
            return Err(Error::Device(Report::new(what, "it was given up")));
        }
        self.made.record(&self.stream)?;
        self.made.holds(&self.beside)?;
        // SAFETY: calls without arguments.
        check(unsafe { (self.api.group_start)() }, what)?;
        let mut first = 0;
        for &(at, count, dtype) in sums {
            let kind = match dtype {
                DType::F16 => 6,
                DType::F32 => 7,
                DType::F64 => 8,
                DType::BF16 => 9,
            };
            // An address of the device, which is no memory of the host.
            let at = at.address() as Raw;
            // SAFETY: as asked of this function; communicator and stream are ours.
            let status = unsafe {
                (self.api.all_reduce)(at, at, count, kind, SUM, self.raw.0, self.beside.raw)
            };
            first = if first == 0 { status } else { first };
        }
        // SAFETY: as above. A group that was begun is ended whatever became of its calls.
        let ended = unsafe { (self.api.group_end)() };
        check(first, what).and(check(ended, what))
    }

    fn join(&self) -> Result<()> {
        self.summed.record(&self.beside)?;
        self.summed.holds(&self.stream)
    }

    fn settle(&self, goes_on: &mut dyn FnMut() -> bool) -> Result<bool> {
        self.all.record(&self.stream)?;
        let started = Instant::now();
        while !self.all.is_reached()? {
            let waited = started.elapsed();
            if waited > EAGER {
                if self.over.load(Ordering::Relaxed) || self.is_faulty() || !goes_on() {
                    self.give_up();
                    return Ok(false);
                }
                std::thread::sleep(SLEEP);
            } else {
                std::thread::yield_now();
            }
        }
        Ok(!self.over.load(Ordering::Relaxed))
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        // All sums were waited for, or nobody wants them: there is nothing to finish with the others.
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_before_and_after_the_longer_form() {
        assert_eq!(in_words(22_703), "2.27.3");
        assert_eq!(in_words(OLDEST), "2.10.3");
        assert_eq!(in_words(2708), "2.7.8");
    }
}
