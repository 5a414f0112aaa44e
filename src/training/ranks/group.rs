//! What ranks say to each other once they have met: all to rank 0, and rank 0 to all.
//!
//! Every rank makes the same calls in the same order. A thread for each connection hears what comes, so that a rank
//! that goes away is known to rank 0 at once, whomever it waits for; it tells the others, and all end with its name.
use std::collections::VecDeque;
use std::fmt;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::wire::{self, Kind};
use crate::error::{Error, Report, Result};
use crate::training::log::{grouped, short};

/// The processes of a run, of which this is one. Clones are the same.
#[derive(Clone)]
pub struct Ranks(Arc<Inner>);

struct Inner {
    rank: usize,
    /// What each is called in messages.
    names: Vec<String>,
    limit: Duration,
    lines: Mutex<Lines>,
    /// The step that all have reached.
    step: AtomicU64,
    /// Whether it was said why all end.
    faulty: AtomicBool,
    /// Whether something was heard after which there is nothing to wait for.
    ends: Arc<AtomicBool>,
}

/// How much longer the others wait than rank 0, which knows best who is silent.
const GRACE: Duration = Duration::from_secs(5);

/// Connections: those of rank 0 to the others, or that of another to rank 0.
#[derive(Default)]
struct Lines {
    /// In the order of the ranks.
    to: Vec<TcpStream>,
    inbox: Option<Receiver<(usize, Heard)>>,
    /// What has come before it was asked for, of each rank.
    early: Vec<VecDeque<Vec<u8>>>,
    /// Who has said good-bye.
    left: Vec<bool>,
}

/// What came from a rank.
enum Heard {
    Data(Vec<u8>),
    Fault(Vec<u8>),
    Bye,
    Gone(String),
}

impl fmt::Debug for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.world())
    }
}

impl Ranks {
    /// A process that trains alone.
    pub fn alone() -> Self {
        Self::new(0, vec!["this process".to_owned()], Vec::new(), Duration::MAX)
    }

    /// `rank` among `names`, with its connections in the order of the ranks, that wait for `limit` at most.
    pub(super) fn new(
        rank: usize,
        names: Vec<String>,
        to: Vec<TcpStream>,
        limit: Duration,
    ) -> Self {
        let (send, inbox) = channel();
        let ends = Arc::new(AtomicBool::new(false));
        for (i, line) in to.iter().enumerate() {
            let (from, send) = (if rank == 0 { i + 1 } else { 0 }, send.clone());
            let ends = Arc::clone(&ends);
            if let Ok(line) = line.try_clone() {
                std::thread::spawn(move || hear(from, line, &send, &ends));
            }
        }
        let world = names.len();
        let lines = Lines {
            to,
            inbox: Some(inbox),
            early: vec![VecDeque::new(); world],
            left: vec![false; world],
        };
        Self(Arc::new(Inner {
            rank,
            names,
            limit,
            lines: Mutex::new(lines),
            step: AtomicU64::new(0),
            faulty: AtomicBool::new(false),
            ends,
        }))
    }

    /// The number of this process, from 0 on.
    pub fn rank(&self) -> usize {
        self.0.rank
    }

    /// How many there are.
    pub fn world(&self) -> usize {
        self.0.names.len()
    }

    /// Whether this one speaks and writes for all.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// What rank `rank` is called in messages, such as `rank 2 (gpu03, process 417)`.
    pub fn name(&self, rank: usize) -> &str {
        &self.0.names[rank]
    }

    /// Takes note that all have reached `step`, for messages.
    pub fn at_step(&self, step: u64) {
        self.0.step.store(step, Ordering::Relaxed);
    }

    /// Whether one of the others is why this rank ends.
    pub fn is_broken(&self) -> bool {
        self.0.faulty.load(Ordering::Relaxed)
    }

    /// Says whether to go on waiting for the others elsewhere than here: until the time limit, or until one of them is
    /// heard to end.
    pub fn patience(&self) -> impl FnMut() -> bool + use<> {
        let (started, limit, ends) = (Instant::now(), self.0.limit, Arc::clone(&self.0.ends));
        move || !ends.load(Ordering::Relaxed) && started.elapsed() < limit
    }

    /// Why the others did not do their part: which of them is gone, or hangs.
    pub fn why_broken(&self) -> Error {
        // All that are left ask.
        let Err(error) = self.largest([0]) else {
            let cause = format!("all are there; the last step is {}", self.last_step());
            let report = Report::new("the processes do not hear each other's GPUs", cause);
            return Error::Device(
                report.help("NCCL_DEBUG=WARN says more; run.reduce = \"fixed\" does without NCCL"),
            );
        };
        error
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all ranks give, in their order, at rank 0; none at the others.
    ///
    /// # Errors
    /// If one of them is gone, or silent for longer than the time limit.
    pub fn gather(&self, mine: Vec<u8>) -> Result<Option<Vec<Vec<u8>>>> {
        let lines = &mut *self.lines();
        if !self.is_first() {
            self.send(lines, 0, &mine)?;
            return Ok(None);
        }
        let mut all = vec![mine];
        for from in 1..self.world() {
            all.push(self.receive(lines, from)?);
        }
        Ok(Some(all))
    }

    /// What rank 0 gives, at all; the others give nothing.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    pub fn spread(&self, given: Option<Vec<u8>>) -> Result<Vec<u8>> {
        let lines = &mut *self.lines();
        if !self.is_first() {
            return self.receive(lines, 0);
        }
        let given = given.unwrap_or_default();
        for to in 1..self.world() {
            self.send(lines, to, &given)?;
        }
        Ok(given)
    }

    /// What all ranks give, in their order, at all.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    pub fn exchange(&self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        let all = self.gather(mine)?.map(|all| wire::joined(&all));
        wire::split(&self.spread(all)?).ok_or_else(|| self.garbled())
    }

    /// The largest number that any rank gives, for each of several questions.
    ///
    /// # Errors
    /// As [`gather`](Self::gather).
    pub fn largest<const N: usize>(&self, mine: [u64; N]) -> Result<[u64; N]> {
        if self.world() == 1 {
            return Ok(mine);
        }
        let bytes = mine.iter().flat_map(|number| number.to_le_bytes()).collect();
        let all = self.gather(bytes)?;
        let largest = all.map(|all| {
            let mut largest = [0; N];
            for bytes in all {
                for (most, bytes) in largest.iter_mut().zip(bytes.chunks_exact(8)) {
                    *most = number(bytes).max(*most);
                }
            }
            largest.iter().flat_map(|number: &u64| number.to_le_bytes()).collect()
        });
        let told = self.spread(largest)?;
        let mut largest = [0; N];
        largest.iter_mut().zip(told.chunks_exact(8)).for_each(|(to, bytes)| *to = number(bytes));
        Ok(largest)
    }

    /// Tells the others that this rank ends because of `error`, unless one of them is why.
    pub fn fail(&self, error: &Error) {
        if self.world() == 1 || self.0.faulty.swap(true, Ordering::Relaxed) {
            return;
        }
        let (what, cause) = error.report().map_or_else(
            || (error.to_string(), String::new()),
            |r| (r.what.clone(), r.cause.clone()),
        );
        let what = format!("{} ended: {what}", self.name(self.rank()));
        self.tell(&mut self.lines(), &what, &cause, self.rank());
    }

    /// Tells all but `but` why they end, as far as they hear it.
    fn tell(&self, lines: &mut Lines, what: &str, cause: &str, but: usize) {
        let text = json!({"what": what, "cause": cause}).to_string();
        for (i, line) in lines.to.iter_mut().enumerate() {
            if self.peer(i) != but {
                let _ = wire::send(line, Kind::Fault, text.as_bytes());
            }
        }
    }

    /// The rank at the end of connection `i`.
    fn peer(&self, i: usize) -> usize {
        if self.is_first() { i + 1 } else { 0 }
    }

    fn send(&self, lines: &mut Lines, to: usize, body: &[u8]) -> Result<()> {
        let line = if self.is_first() { to - 1 } else { 0 };
        let sent = wire::send(&mut lines.to[line], Kind::Data, body);
        match sent {
            Ok(()) => Ok(()),
            // What was heard of it says more.
            Err(e) => Err(match self.last_words(lines, to) {
                Some(error) => error,
                None => self.lost(lines, to, &e.to_string()),
            }),
        }
    }

    /// Why rank `from` takes nothing any more, if it has said so.
    fn last_words(&self, lines: &mut Lines, from: usize) -> Option<Error> {
        let deadline = Instant::now() + Duration::from_millis(500);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match lines.inbox.as_ref()?.recv_timeout(left).ok()? {
                (_, Heard::Data(_) | Heard::Bye) => {}
                (rank, Heard::Fault(text)) => return Some(self.told(lines, rank, &text)),
                (rank, Heard::Gone(why)) if rank == from => {
                    return Some(self.lost(lines, rank, &why));
                }
                (_, Heard::Gone(_)) => {}
            }
        }
    }

    fn receive(&self, lines: &mut Lines, from: usize) -> Result<Vec<u8>> {
        let started = Instant::now();
        let limit = if self.is_first() { self.0.limit } else { self.0.limit.saturating_add(GRACE) };
        loop {
            if let Some(data) = lines.early[from].pop_front() {
                return Ok(data);
            }
            let left = limit.saturating_sub(started.elapsed());
            let heard = lines.inbox.as_ref().map(|inbox| inbox.recv_timeout(left));
            match heard {
                Some(Ok((rank, Heard::Data(data)))) => lines.early[rank].push_back(data),
                Some(Ok((rank, Heard::Fault(text)))) => return Err(self.told(lines, rank, &text)),
                Some(Ok((rank, Heard::Bye))) => {
                    lines.left[rank] = true;
                    if rank == from {
                        return Err(self.lost(lines, rank, "it came to its end before the others"));
                    }
                }
                Some(Ok((rank, Heard::Gone(why)))) if !lines.left[rank] => {
                    return Err(self.lost(lines, rank, &why));
                }
                Some(Ok((_, Heard::Gone(_)))) => {}
                Some(Err(RecvTimeoutError::Timeout)) => return Err(self.silent(lines, from)),
                None | Some(Err(RecvTimeoutError::Disconnected)) => {
                    return Err(self.lost(lines, from, "nothing is heard of it"));
                }
            }
        }
    }

    /// A rank says why all end: so do the others, and this one.
    fn told(&self, lines: &mut Lines, by: usize, text: &[u8]) -> Error {
        let value: Value = serde_json::from_slice(text).unwrap_or_default();
        let word = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let (what, cause) = (word("what"), word("cause"));
        self.end(lines, &what, &cause, by)
    }

    /// A rank is gone without a word.
    fn lost(&self, lines: &mut Lines, rank: usize, why: &str) -> Error {
        let what = format!("{} is gone", self.name(rank));
        let cause = format!("{why}; its last step is {}", self.last_step());
        self.end(lines, &what, &cause, rank)
    }

    /// A rank says nothing for too long.
    fn silent(&self, lines: &mut Lines, rank: usize) -> Error {
        let what = format!("{} hangs", self.name(rank));
        let limit = short(self.0.limit);
        let cause =
            format!("nothing came from it for {limit}; its last step is {}", self.last_step());
        // Should it go on after all, it hears of it, too.
        self.end(lines, &what, &cause, self.rank())
    }

    fn last_step(&self) -> String {
        grouped(self.0.step.load(Ordering::Relaxed))
    }

    fn end(&self, lines: &mut Lines, what: &str, cause: &str, by: usize) -> Error {
        if !self.0.faulty.swap(true, Ordering::Relaxed) {
            self.tell(lines, what, cause, by);
        }
        let help = "the same command again goes on from the last checkpoint; --rank-timeout SECONDS waits longer";
        Error::Failed(Report::new(what, cause).code("rank_lost").help(help))
    }

    fn garbled(&self) -> Error {
        self.lost(&mut self.lines(), 0, "what it sends cannot be understood")
    }
}

fn number(bytes: &[u8]) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(bytes);
    u64::from_le_bytes(eight)
}

/// Passes on what comes over `line` until it ends; `ends` is set where that, or a word of it, ends all.
fn hear(from: usize, mut line: TcpStream, to: &Sender<(usize, Heard)>, ends: &AtomicBool) {
    let _ = line.set_read_timeout(None);
    loop {
        let heard = match wire::receive(&mut line, wire::LONG) {
            Ok((Kind::Data, body)) => Heard::Data(body),
            Ok((Kind::Fault, body)) => Heard::Fault(body),
            Ok((Kind::Bye, _)) => Heard::Bye,
            Ok(_) => Heard::Gone("it sends what srk does not".to_owned()),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                Heard::Gone("its connection was closed".to_owned())
            }
            Err(e) => Heard::Gone(format!("its connection broke: {e}")),
        };
        let gone = matches!(heard, Heard::Gone(_));
        if gone || matches!(heard, Heard::Fault(_)) {
            ends.store(true, Ordering::Relaxed);
        }
        if to.send((from, heard)).is_err() || gone {
            return;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let faulty = self.faulty.load(Ordering::Relaxed);
        let lines = self.lines.get_mut().unwrap_or_else(PoisonError::into_inner);
        for line in &mut lines.to {
            if !faulty {
                let _ = wire::send(line, Kind::Bye, &[]);
            }
            let _ = line.shutdown(Shutdown::Write);
        }
        if faulty {
            return;
        }
        // What the others still say is heard until they end, so that none of it comes back as a broken connection.
        let until = Instant::now() + Duration::from_secs(2);
        while lines.inbox.as_ref().is_some_and(|inbox| {
            inbox.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok()
        }) {}
    }
}
