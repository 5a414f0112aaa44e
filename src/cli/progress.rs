//! How far a command is: a bar on a terminal, now and then a plain line elsewhere.
use std::cell::RefCell;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use super::voice::Shown;
use super::{print, voice};

/// How often a plain line is due, and after how long the first.
const EVERY: Duration = Duration::from_secs(10);

/// The progress of one piece of work.
pub(super) enum Progress {
    Hidden,
    Bar(ProgressBar),
    Lines(RefCell<Lines>),
}

pub(super) struct Lines {
    name: String,
    started: Instant,
    told: Instant,
    done: u64,
    all: u64,
}

impl Progress {
    /// Of `all` steps of what is called `name`.
    pub(super) fn new(name: &str, all: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let (hidden, lines) = match voice::progress() {
            Shown::Auto => (false, !terminal),
            Shown::Bar => (!terminal, false),
            Shown::Plain => (false, true),
            Shown::None => (true, false),
        };
        if hidden || voice::quiet() {
            return Self::Hidden;
        }
        if lines {
            let now = Instant::now();
            let name = name.to_owned();
            return Self::Lines(RefCell::new(Lines {
                name,
                started: now,
                told: now,
                done: 0,
                all,
            }));
        }
        let bar = ProgressBar::new(all);
        let template = "{msg} {bar:30} {percent:>3} %{left}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            // Before anything is done, nobody knows.
            let left = |state: &ProgressState, out: &mut dyn Write| {
                if state.pos() > 0 {
                    let _ = write!(out, "  {} left", in_words(state.eta().as_secs_f64()));
                }
            };
            bar.set_style(style.with_key("left", left));
        }
        bar.set_message(name.to_owned());
        Self::Bar(bar)
    }

    /// `done` steps of `all` are done.
    pub(super) fn at(&self, done: u64, all: u64) {
        match self {
            Self::Hidden => {}
            Self::Bar(bar) => {
                bar.set_length(all);
                bar.set_position(done);
            }
            Self::Lines(lines) => {
                let mut lines = lines.borrow_mut();
                (lines.done, lines.all) = (done, all);
                lines.tell();
            }
        }
    }

    /// The bar goes away.
    pub(super) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

impl Lines {
    fn tell(&mut self) {
        if self.told.elapsed() < EVERY || self.done == 0 || self.done >= self.all {
            return;
        }
        self.told = Instant::now();
        let (done, all) = (self.done as f64, self.all as f64);
        let left = self.started.elapsed().as_secs_f64() * (all - done) / done;
        let percent = self.done * 100 / self.all.max(1);
        print::note(format_args!("{}: {percent} %, {} left", self.name, in_words(left)));
    }
}

/// A time that need not be exact: `8 s`, `3 min 20 s`, `2 h 15 min`.
pub(super) fn in_words(seconds: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    // Not negative; large is large.
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        0..10 => format!("{seconds:.1} s"),
        10..100 => format!("{whole} s"),
        100..6000 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}
