//! The choice between engines that are made up: their speeds, results and failures are numbers.
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::error::{Error, Report};

/// A GPU on which time passes when engines run.
#[derive(Default)]
struct World {
    clock: Cell<f64>,
    result: RefCell<Vec<f32>>,
    kept: RefCell<Vec<f32>>,
    runs: Cell<usize>,
    full: Cell<bool>,
}

struct Mock {
    world: Rc<World>,
    name: &'static str,
    seconds: f64,
    /// What it writes; shorter results leave the rest as it was. None: it fails.
    writes: Option<Vec<f32>>,
}

impl Engine for Mock {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn run(&self) -> Result<()> {
        self.world.clock.set(self.world.clock.get() + self.seconds);
        self.world.runs.set(self.world.runs.get() + 1);
        let Some(writes) = &self.writes else {
            return Err(Error::Device(Report::new(format!("{} broke", self.name), "made to")));
        };
        self.world.result.borrow_mut()[..writes.len()].copy_from_slice(writes);
        Ok(())
    }
}

impl Bench for World {
    fn poison(&self) -> Result<()> {
        *self.result.borrow_mut() = vec![f32::NAN; 3];
        Ok(())
    }

    fn keep(&self) -> Result<()> {
        if self.full.get() {
            let report = Report::new("no room", "made to be full");
            return Err(Error::Memory(report));
        }
        self.kept.replace(self.result.borrow().clone());
        Ok(())
    }

    fn distance(&self) -> Result<f64> {
        let (result, kept) = (self.result.borrow(), self.kept.borrow());
        let square = |v: f32| f64::from(v).powi(2);
        let off: f64 = result.iter().zip(&*kept).map(|(&a, &b)| square(a - b)).sum();
        Ok((off / kept.iter().map(|&v| square(v)).sum::<f64>()).sqrt())
    }

    fn seconds(&self, engine: &dyn Engine, runs: usize, rounds: usize) -> Result<f64> {
        let start = self.clock.get();
        (0..runs * rounds).try_for_each(|_| engine.run())?;
        Ok((self.clock.get() - start) / rounds as f64)
    }
}

const RIGHT: [f32; 3] = [1.0, 2.0, 3.0];

fn gpu(driver: &str) -> Description {
    Description {
        name: "Mock / GPU".into(),
        compute_capability: (9, 0),
        multiprocessors: 1,
        shared_memory: 1,
        memory: 1,
        driver: driver.into(),
    }
}

/// The choice between a native engine of 1 ms and others: name, milliseconds, result.
fn choose_with(
    tuner: &Tuner,
    measure: bool,
    others: &[(&'static str, f64, Option<&[f32]>)],
) -> (usize, usize) {
    let world = Rc::new(World::default());
    *world.result.borrow_mut() = vec![f32::NAN; 3];
    let mut all = vec![("native", 1.0, Some(&RIGHT[..]))];
    all.extend_from_slice(others);
    let mocks: Vec<Mock> = all
        .into_iter()
        .map(|(name, ms, writes)| Mock {
            world: Rc::clone(&world),
            name,
            seconds: ms / 1e3,
            writes: writes.map(<[f32]>::to_vec),
        })
        .collect();
    let engines: Vec<&dyn Engine> = mocks.iter().map(|m| m as &dyn Engine).collect();
    let index = tuner.choose("problem", 1e-3, &engines, &*world, measure).unwrap();
    if world.runs.get() > 0 {
        assert_eq!(world.result.borrow()[..], RIGHT, "the chosen engine ran last");
    }
    (index, world.runs.get())
}

fn choose(others: &[(&'static str, f64, Option<&[f32]>)]) -> (usize, Vec<String>) {
    let tuner = Tuner::with_file(None, &gpu("13.0"), "");
    let (index, _) = choose_with(&tuner, true, others);
    (index, tuner.take_warnings())
}

#[test]
fn the_fastest_right_engine_is_taken() {
    let (index, warnings) =
        choose(&[("a", 0.8, Some(&RIGHT)), ("b", 0.3, Some(&RIGHT)), ("c", 0.5, Some(&RIGHT))]);
    assert_eq!((index, warnings.len()), (2, 0));
    assert_eq!(choose(&[("a", 2.0, Some(&RIGHT))]).0, 0, "slower than native");
    assert_eq!(choose(&[("a", 0.99, Some(&RIGHT))]).0, 0, "not clearly faster");
    assert_eq!(choose(&[]).0, 0);
}

#[test]
fn wrong_incomplete_and_failing_engines_are_left_out_with_a_warning() {
    let wrong = [1.0, 2.0, 3.02];
    let close = [1.0, 2.0, 3.0001];
    let nan = [1.0, f32::NAN, 3.0];
    for (writes, word) in [
        (Some(&wrong[..]), "off by 5.3e-3"),
        (Some(&nan[..]), "off by NaN"),
        (Some(&RIGHT[..2]), "off by NaN"),
        (None, "broke; cause: made to"),
    ] {
        let (index, warnings) = choose(&[("a", 0.1, writes)]);
        assert_eq!(index, 0);
        assert!(warnings[0].contains(word) && warnings[0].contains("problem"), "{warnings:?}");
    }
    let within = Tuner::with_file(None, &gpu("13.0"), "");
    let world = Rc::new(World::default());
    let mock = |name, seconds, writes: &[f32]| Mock {
        world: Rc::clone(&world),
        name,
        seconds,
        writes: Some(writes.to_vec()),
    };
    let (native, close) = (mock("native", 1e-3, &RIGHT), mock("a", 1e-4, &close));
    assert_eq!(within.choose("p", 1e-3, &[&native, &close], &*world, true).unwrap(), 1);
}

#[test]
fn a_choice_is_made_once_and_never_while_recording() {
    let tuner = Tuner::with_file(None, &gpu("13.0"), "");
    let fast = [("a", 0.5, Some(&RIGHT[..]))];
    assert_eq!(choose_with(&tuner, false, &fast), (0, 0), "nothing may be measured");
    let (index, runs) = choose_with(&tuner, true, &fast);
    assert!(index == 1 && runs > 4);
    assert_eq!(choose_with(&tuner, false, &fast), (1, 0));
    assert_eq!(choose_with(&tuner, true, &[("a", 9.0, Some(&RIGHT))]), (1, 0));
    assert_eq!(choose_with(&tuner, true, &[("b", 0.1, Some(&RIGHT))]), (0, 0), "a is gone");
}

#[test]
fn nothing_is_chosen_for_good_where_memory_is_short() {
    let tuner = Tuner::with_file(None, &gpu("13.0"), "");
    let world = Rc::new(World::default());
    *world.result.borrow_mut() = vec![f32::NAN; 3];
    let mock = |name, seconds| Mock {
        world: Rc::clone(&world),
        name,
        seconds,
        writes: Some(RIGHT.to_vec()),
    };
    let (native, fast) = (mock("native", 1e-3), mock("a", 1e-4));
    for (full, chosen) in [(true, 0), (false, 1), (true, 1)] {
        world.full.set(full);
        assert_eq!(tuner.choose("p", 1e-3, &[&native, &fast], &*world, true).unwrap(), chosen);
    }
}

#[test]
fn a_run_that_goes_on_makes_the_choices_it_made() {
    let open = |libraries| Tuner::with_file(None, &gpu("13.0"), libraries);
    let before = open("x");
    assert_eq!(before.choices(), None);
    assert_eq!(choose_with(&before, true, &[("a", 0.5, Some(&RIGHT))]).0, 1);
    let choices = before.choices().unwrap();
    // By now `b` would be faster.
    let both = [("a", 0.5, Some(&RIGHT[..])), ("b", 0.1, Some(&RIGHT[..]))];
    assert_eq!(choose_with(&open("x"), true, &both).0, 2);
    let after = open("x");
    assert_eq!(choose_with(&after, true, &both).0, 2);
    assert!(after.adopt(&choices));
    assert_eq!(choose_with(&after, true, &both), (1, 0));
    let other = open("y");
    assert!(!other.adopt(&choices) && !other.adopt("{") && !other.adopt(""));
    assert_eq!(choose_with(&other, true, &both).0, 2);
}

#[test]
fn choices_are_kept_for_the_same_gpu_driver_and_libraries() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/tuning.json");
    let open = |driver, libraries| Tuner::with_file(Some(path.clone()), &gpu(driver), libraries);
    let fast = [("a", 0.5, Some(&RIGHT[..]))];
    assert_eq!(choose_with(&open("13.0", "x"), true, &fast).0, 1);
    assert_eq!(choose_with(&open("13.0", "x"), true, &fast), (1, 0));
    assert_ne!(choose_with(&open("13.1", "x"), true, &fast).1, 0, "another driver");
    assert_ne!(choose_with(&open("13.0", "x"), true, &fast).1, 0, "it replaced the file");
    assert_ne!(choose_with(&open("13.0", "y"), true, &fast).1, 0, "other libraries");
    // What is kept for others is no choice of a run that does not meet it.
    let tuner = open("13.0", "y");
    assert!(tuner.known("another").is_none() && tuner.choices().is_none());
    assert!(tuner.known("problem").is_some() && tuner.choices().is_some());
}

#[test]
fn files_that_are_cut_short_foreign_or_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tuning.json");
    let fast = [("a", 0.5, Some(&RIGHT[..]))];
    let open = || Tuner::with_file(Some(path.clone()), &gpu("13.0"), "");
    choose_with(&open(), true, &fast);
    let good = std::fs::read(&path).unwrap();
    let mut cases: Vec<Vec<u8>> =
        (0..good.len() - 2).step_by(7).map(|n| good[..n].to_vec()).collect();
    cases.extend([b"[]".to_vec(), b"{\"choices\": 3}".to_vec(), vec![0xff; 100]]);
    for bad in cases {
        std::fs::write(&path, &bad).unwrap();
        assert_ne!(choose_with(&open(), true, &fast), (1, 0), "{}", bad.len());
        assert_eq!(std::fs::read(&path).unwrap(), good, "rebuilt");
    }
    // A folder in the file's place: the choice holds in memory, and that it is lost is said.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    let tuner = open();
    assert_eq!(choose_with(&tuner, true, &fast).0, 1);
    assert_eq!(choose_with(&tuner, true, &fast), (1, 0));
    assert!(tuner.take_warnings()[0].contains("not kept"));
}

#[test]
fn two_that_write_at_once_leave_a_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tuning.json");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let path = path.clone();
            scope.spawn(move || {
                let tuner = Tuner::with_file(Some(path), &gpu("13.0"), "");
                for i in 0..25 {
                    tuner.remember(&format!("{thread} {i}"), "a", vec![]);
                }
                assert!(tuner.take_warnings().is_empty());
            });
        }
    });
    let tuner = Tuner::with_file(Some(path), &gpu("13.0"), "");
    let kept = tuner.read();
    // Whoever wrote last had read a whole file before, and kept all of its own.
    assert!((0..4).any(|t| (0..25).all(|i| kept.contains_key(&format!("{t} {i}")))), "{kept:?}");
}
