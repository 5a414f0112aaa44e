//! The tiles of one picture on several GPUs.
//!
//! Tiles are dealt in batches: batch k of a plan goes to GPU k modulo their number, each of which has a thread with a
//! queue of its own. They come back in the order of the plan, so that the output is put together as that of one GPU,
//! and a GPU is at most two tiles ahead of what was taken.
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::plan::{Plan, Report};
use super::upscaler::Upscaler;
use super::work::{Store, Work};
use crate::error::{Error, Result};
use crate::imaging::Image;
use crate::imaging::tiles::Tile;

/// Between two looks at what was done, while nothing comes.
const LOOK: Duration = Duration::from_millis(50);

/// A tile and its pixels.
type Computed = (Tile, Vec<f32>);

/// What the threads and the one that takes their tiles know of each other.
#[derive(Default)]
struct Shared {
    /// Calls of the network, of all.
    calls: AtomicUsize,
    /// Whether nobody takes tiles any more.
    over: AtomicBool,
}

/// Computes all tiles of `plan` on all devices of `upscaler`, as [`Work::run`] does on one.
///
/// # Errors
/// Those of `Work::run` on any device, of `on_call` and of `store`.
pub(super) fn run(
    upscaler: &Upscaler,
    image: &Image,
    (plan, seed): (&Plan, u64),
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
    store: &mut Store<'_>,
) -> Result<Report> {
    let systems = upscaler.systems();
    // No GPU has more than its share at once.
    let batch = plan.batch.min(plan.tiles.len().div_ceil(systems.len()));
    let batches: Vec<&[Tile]> = plan.tiles.chunks(batch.max(1)).collect();
    let shared = Shared::default();
    let total = plan.tiles.len() * plan.steps;
    std::thread::scope(|scope| {
        let (mut threads, mut lines) = (Vec::new(), Vec::new());
        for (number, system) in systems.iter().enumerate() {
            let mine = batches.iter().skip(number).step_by(systems.len());
            let tiles: VecDeque<Tile> = mine.copied().flatten().copied().collect();
            let mut work = Work::new((upscaler, system), image, plan, seed).of(tiles, batch.max(1));
            let (send, line) = sync_channel::<Computed>(1);
            let shared = &shared;
            lines.push(line);
            threads.push(scope.spawn(move || {
                let mut before = 0;
                let told = &mut |done: usize, _: usize| {
                    shared.calls.fetch_add(done.saturating_sub(before), Ordering::Relaxed);
                    before = done;
                    if shared.over.load(Ordering::Relaxed) { Err(unheard()) } else { Ok(()) }
                };
                let handed = &mut |tile: &Tile, pixels: &[f32]| {
                    send.send((*tile, pixels.to_vec())).map_err(|_| unheard())
                };
                work.run(told, handed, None).map(|()| work.report)
            }));
        }
        let mut look = || on_call(shared.calls.load(Ordering::Relaxed).min(total), total);
        let taken = batches.iter().enumerate().try_for_each(|(k, tiles)| {
            let number = k % lines.len();
            take(tiles, (number, &lines[number]), store, &mut look)
        });
        shared.over.store(true, Ordering::Relaxed);
        drop(lines);
        let mut ends = Vec::new();
        for thread in threads {
            ends.push(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        match taken {
            Err(End::By(error)) => Err(error),
            Err(End::Thread(number)) => ends.swap_remove(number),
            Ok(()) => ends.into_iter().try_fold(Report::default(), |sum, one| {
                let Report { redone, halved } = one?;
                Ok(Report { redone: sum.redone + redone, halved: sum.halved + halved })
            }),
        }
    })
}

/// Why no more tiles are taken.
enum End {
    /// Who takes them wants no more.
    By(Error),
    /// The thread of this number has ended before it gave all.
    Thread(usize),
}

/// Hands `tiles`, which come from the thread of `number`, to `store`, in pieces where that had to cut them.
fn take(
    tiles: &[Tile],
    (number, line): (usize, &Receiver<Computed>),
    store: &mut Store<'_>,
    look: &mut dyn FnMut() -> Result<()>,
) -> std::result::Result<(), End> {
    let mut left: usize = tiles.iter().map(|tile| tile.core.area()).sum();
    while left > 0 {
        match line.recv_timeout(LOOK) {
            Ok((tile, pixels)) => {
                left = left.saturating_sub(tile.core.area());
                store(&tile, &pixels).map_err(End::By)?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(End::Thread(number)),
        }
        look().map_err(End::By)?;
    }
    Ok(())
}

/// What a thread ends with whose tiles nobody takes: nobody reads it.
fn unheard() -> Error {
    Error::Interrupted { signal: 2, what: String::new() }
}
