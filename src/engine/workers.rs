//! The threads behind [`threads`](super::threads). An op follows an op within microseconds, and waking a thread costs tens
//! of them: who asks for work does its share of it, and a thread without work watches for more before it sleeps.
use std::any::Any;
use std::cell::Cell;
use std::hint::spin_loop;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long a thread watches before it sleeps.
const WATCH: Duration = Duration::from_micros(100);

type Task = dyn Fn(usize) + Sync + 'static;

/// Tasks that are run by the thread that asks for them and by any others that have nothing to do.
struct Job {
    /// Lives as long as the job is open or held.
    task: *const Task,
    /// One for each thread that may take part. Tasks that are neighbours are run by the same thread where possible.
    shares: Vec<Share>,
    /// Threads that take part beside the one that asked.
    held: AtomicUsize,
    asked: Thread,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// Tasks from `next` on are not begun. Alone in what a cache moves at a time.
#[repr(align(128))]
struct Share {
    next: AtomicUsize,
    end: usize,
}

impl Job {
    fn new(tasks: usize, threads: usize, task: &(dyn Fn(usize) + Sync)) -> Self {
        let share = |i: usize| Share {
            next: AtomicUsize::new(tasks * i / threads),
            end: tasks * (i + 1) / threads,
        };
        // SAFETY: only the lifetime changes; `run` does not return while anybody could call it.
        let task =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Task>(task) };
        Self {
            task,
            shares: (0..threads).map(share).collect(),
            held: AtomicUsize::new(0),
            asked: thread::current(),
            panic: Mutex::new(None),
        }
    }

    /// Runs what is left: first of the share `first`, then of the others.
    fn work(&self, first: usize) {
        // SAFETY: the job is open or held.
        let task = unsafe { &*self.task };
        let (before, from) = self.shares.split_at(first % self.shares.len());
        for share in from.iter().chain(before) {
            loop {
                let i = share.next.fetch_add(1, Ordering::Relaxed);
                if i >= share.end {
                    break;
                }
                task(i);
            }
        }
    }

    fn has_work(&self) -> bool {
        self.shares.iter().any(|s| s.next.load(Ordering::Relaxed) < s.end)
    }
}

/// A job that others may still join.
struct Open(*const Job);

// SAFETY: a job is shared by reference; it lives until its `Opened` has gone, which waits for all who hold it.
unsafe impl Send for Open {}

#[derive(Default)]
struct State {
    jobs: Vec<Open>,
    started: usize,
    sleeping: usize,
}

#[derive(Default)]
struct Pool {
    state: Mutex<State>,
    /// Jobs so far: a thread that watches reads this alone.
    asked: AtomicUsize,
    wake: Condvar,
}

static POOL: LazyLock<Pool> = LazyLock::new(Pool::default);

impl Pool {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The latest job that has room and something left to do, held.
    fn join(&self) -> Option<*const Job> {
        let state = self.state();
        state.jobs.iter().rev().find_map(|open| {
            // SAFETY: it is open while the state is locked.
            let job = unsafe { &*open.0 };
            let room = job.held.load(Ordering::Relaxed) + 1 < job.shares.len();
            (room && job.has_work()).then(|| {
                job.held.fetch_add(1, Ordering::Relaxed);
                open.0
            })
        })
    }

    /// What thread `number`, from 1 on, does all its life.
    fn serve(&self, number: usize) {
        loop {
            let seen = self.asked.load(Ordering::Acquire);
            while let Some(job) = self.join() {
                // SAFETY: held, until `held` is counted down.
                let job = unsafe { &*job };
                if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| job.work(number))) {
                    *job.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(payload);
                }
                let asked = job.asked.clone();
                job.held.fetch_sub(1, Ordering::Release);
                asked.unpark();
            }
            if watch(number + 1, || self.asked.load(Ordering::Acquire) != seen) {
                continue;
            }
            let mut state = self.state();
            state.sleeping += 1;
            while self.asked.load(Ordering::Acquire) == seen {
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.sleeping -= 1;
        }
    }
}

/// Processors for this process.
static PROCESSORS: LazyLock<usize> =
    LazyLock::new(|| thread::available_parallelism().map_or(1, usize::from));

/// Whether `is_so` becomes true soon, for one of `threads` threads: where they are more than processors, watching would take
/// time from those that work.
fn watch(threads: usize, is_so: impl Fn() -> bool) -> bool {
    if threads > *PROCESSORS {
        return is_so();
    }
    let start = Instant::now();
    loop {
        for _ in 0..16 {
            if is_so() {
                return true;
            }
            spin_loop();
        }
        if start.elapsed() > WATCH {
            return false;
        }
    }
}

/// A job that others may join until this is dropped, which waits for those who have.
struct Opened<'a>(&'a Job);

impl<'a> Opened<'a> {
    fn new(job: &'a Job) -> Self {
        let helpers = job.shares.len() - 1;
        let mut state = POOL.state();
        while state.started < helpers {
            state.started += 1;
            let number = state.started;
            // Without it the others do its work.
            let _ = thread::Builder::new()
                .name(format!("srk-{number}"))
                .spawn(move || POOL.serve(number));
        }
        state.jobs.push(Open(job));
        POOL.asked.fetch_add(1, Ordering::Release);
        for _ in 0..helpers.min(state.sleeping) {
            POOL.wake.notify_one();
        }
        drop(state);
        Self(job)
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        let mut state = POOL.state();
        state.jobs.retain(|open| !std::ptr::eq(open.0, self.0));
        drop(state);
        let done = || self.0.held.load(Ordering::Acquire) == 0;
        if !watch(self.0.shares.len(), done) {
            while !done() {
                thread::park();
            }
        }
    }
}

/// `task(i)` for every `i` below `tasks`, by up to [`count`] threads.
///
/// # Panics
/// As a task does, once all others have ended.
pub(super) fn run(tasks: usize, task: &(dyn Fn(usize) + Sync)) {
    let threads = count().min(tasks);
    if threads < 2 {
        (0..tasks).for_each(task);
        return;
    }
    let job = Job::new(tasks, threads, task);
    let opened = Opened::new(&job);
    job.work(0);
    drop(opened);
    let panic = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(payload) = panic {
        panic::resume_unwind(payload);
    }
}

/// What [`set_count`] was given; 0 before.
static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static HERE: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The number of threads that share work: what [`set_count`] was given, the environment's `SRK_THREADS`, or as many as there
/// are processors for this process.
pub fn count() -> usize {
    static USUAL: LazyLock<usize> = LazyLock::new(|| {
        // The second is what the variable was called while the threads were rayon's.
        let given = ["SRK_THREADS", "RAYON_NUM_THREADS"].map(std::env::var);
        let asked = given.into_iter().find_map(|v| v.ok()?.trim().parse().ok());
        asked.filter(|&n| n > 0).unwrap_or(*PROCESSORS)
    });
    match (HERE.get(), COUNT.load(Ordering::Relaxed)) {
        (Some(count), _) => count,
        (None, 0) => *USUAL,
        (None, count) => count,
    }
}

/// Sets [`count`], for the whole process.
pub fn set_count(threads: usize) {
    COUNT.store(threads.max(1), Ordering::Relaxed);
}

/// `f()`, whose work is shared by `threads` threads.
pub fn with_count<R>(threads: usize, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<usize>);
    impl Drop for Restore {
        fn drop(&mut self) {
            HERE.set(self.0);
        }
    }
    let _restore = Restore(HERE.replace(Some(threads.max(1))));
    f()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whoever_asks() {
        let sums: Vec<AtomicUsize> = (0..8).map(|_| AtomicUsize::new(0)).collect();
        thread::scope(|scope| {
            for sum in &sums {
                scope.spawn(|| {
                    with_count(5, || {
                        for tasks in 0..200 {
                            run(tasks, &|i| {
                                // Work within work.
                                run(3, &|k| _ = sum.fetch_add(i * k, Ordering::Relaxed));
                            });
                        }
                    });
                });
            }
        });
        let expected = (0..200).map(|n: usize| 3 * (0..n).sum::<usize>()).sum::<usize>();
        for sum in sums {
            assert_eq!(sum.into_inner(), expected);
        }
    }

    #[test]
    fn a_panic_comes_to_who_asked_and_ends_no_thread() {
        for bad in [0, 99] {
            let ran = AtomicUsize::new(0);
            let result = panic::catch_unwind(AssertUnwindSafe(|| {
                with_count(3, || {
                    run(100, &|i| {
                        ran.fetch_add(1, Ordering::Relaxed);
                        // So long that others take part.
                        thread::sleep(Duration::from_micros(50));
                        assert!(i != bad, "task {bad}");
                    });
                });
            }));
            let payload = result.unwrap_err();
            assert_eq!(payload.downcast_ref::<String>(), Some(&format!("task {bad}")));
            assert!(ran.into_inner() > 0);
        }
        let after = AtomicUsize::new(0);
        with_count(3, || run(50, &|_| _ = after.fetch_add(1, Ordering::Relaxed)));
        assert_eq!(after.into_inner(), 50);
    }

    #[test]
    fn several_threads_take_part() {
        // Each waits for the others: one thread alone would wait forever.
        let barrier = std::sync::Barrier::new(3);
        with_count(3, || run(3, &|_| _ = barrier.wait()));
        let before = count();
        assert_eq!(with_count(before + 1, count), before + 1);
        assert_eq!(count(), before);
    }
}
