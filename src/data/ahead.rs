//! A thread that prepares items ahead of their use.
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::{Error, Report, Result};

/// Items `first..last` of a function, computed by a thread some items ahead. An item is a function of
/// its number alone, so what is prepared and thrown away at a stop changes nothing.
#[derive(Debug)]
pub struct Ahead<T> {
    items: Option<Receiver<Result<T>>>,
    /// The next one, where it was looked at.
    seen: Option<Result<T>>,
    thread: Option<JoinHandle<()>>,
    waited: Duration,
}

impl<T: Send + 'static> Ahead<T> {
    /// Starts the thread; it holds at most `depth` finished items.
    pub fn start(
        numbers: std::ops::Range<u64>,
        depth: usize,
        make: impl Fn(u64) -> Result<T> + Send + 'static,
    ) -> Self {
        let (send, items) = sync_channel(depth);
        let work = move || {
            for number in numbers {
                // The other end is gone when training stops early.
                if send.send(make(number)).is_err() {
                    return;
                }
            }
        };
        let thread = Some(std::thread::spawn(work));
        Self { items: Some(items), seen: None, thread, waited: Duration::ZERO }
    }

    /// The next item; waits for it if need be.
    pub fn next_item(&mut self) -> Result<T> {
        if let Some(seen) = self.seen.take() {
            return seen;
        }
        let asked = Instant::now();
        let item = self.items.as_ref().and_then(|items| items.recv().ok());
        self.waited += asked.elapsed();
        item.unwrap_or_else(|| {
            let cause = "the thread that prepares batches stopped";
            Err(Error::Failed(Report::new("cannot read training data", cause)))
        })
    }

    /// The next item, if it is there.
    pub fn peek(&mut self) -> Option<&T> {
        if self.seen.is_none() {
            self.seen = self.items.as_ref().and_then(|items| items.try_recv().ok());
        }
        self.seen.as_ref().and_then(|seen| seen.as_ref().ok())
    }

    /// How long [`next_item`](Self::next_item) has waited since this was last asked.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }
}

impl<T> Drop for Ahead<T> {
    fn drop(&mut self) {
        // The closed channel ends the thread.
        drop(self.items.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
