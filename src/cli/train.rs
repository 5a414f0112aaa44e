//! `srk train`.
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::common::{self, DeviceChoice, Precision};
use super::ranks::{self, Role};
use super::{print, voice};
use crate::engine::device::{DType, Device};
use crate::engine::files;
use crate::engine::threads;
use crate::error::{Error, Report, Result};
use crate::training::config::SCHEMA;
use crate::training::job::Job;
use crate::training::jobs;
use crate::training::log::Reporter;
use crate::training::recipes;
use crate::training::run::dry::dry_run;
use crate::training::run::resume::{adopt, refuse_existing};
use crate::training::run::train_among;

const EXAMPLES: &str = "Examples:
  srk train --list-recipes
  srk train --init srk-x4 > run.toml              a recipe with its comments, to change
  srk train run.toml --dry-run                    memory, and how long a step takes
  srk train run.toml --gpus 4                     with four GPUs of this machine; torchrun, srun and mpirun do, too
  srk train run.toml --set optim.lr=2e-4          the same command again continues the run
  srk train --schema > srk.schema.json            all keys, for editors: #:schema srk.schema.json
";

/// Train a model from a recipe or a configuration file.
///
/// A run lives in OUT/NAME and continues by itself when the same command is given again, also with more
/// steps, another rate or its data elsewhere. Ctrl-C finishes the step, saves and exits with 130; a second Ctrl-C leaves
/// at once. SIGUSR1 writes a checkpoint after the step, and the run goes on.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct Args {
    /// A TOML configuration
    #[arg(required_unless_present_any = ["recipe", "list_recipes", "init", "schema"], conflicts_with = "recipe")]
    file: Option<PathBuf>,
    /// A recipe that comes with srk
    #[arg(long, value_name = "NAME")]
    recipe: Option<String>,
    /// Print a recipe as a configuration file, with its comments, and exit
    #[arg(long, value_name = "NAME", conflicts_with_all = ["file", "recipe"])]
    init: Option<String>,
    /// Change a value, for example optim.lr=2e-4; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Start a new run from these weights: a weights file, the folder of a run, or a name that -m of srk upscale takes, such as
    /// srk-x4 or hf:ORG/REPO:FILE (run.init)
    #[arg(long, value_name = "MODEL")]
    from: Option<PathBuf>,
    /// Whether a run that is there goes on: auto (it does), never (it is an error), or the run or checkpoint whose weights
    /// and moments a new run goes on from
    #[arg(long, value_name = "auto|never|PATH", default_value = "auto", conflicts_with_all = ["from", "dry_run"])]
    resume: PathBuf,
    /// Stop after this step, as if the run went on
    #[arg(long, value_name = "STEP")]
    until: Option<u64>,
    /// Where to run: auto, cpu, cuda, or one of several GPUs, such as cuda:1
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// What is computed in; auto is bf16 on a GPU, or f16 where there is none, and f32 on the CPU
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// The folder of all runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
    /// Read the data, take two steps, say what they took, and write nothing
    #[arg(long, conflicts_with = "until")]
    dry_run: bool,
    #[command(flatten)]
    together: ranks::Together,
    /// Show the recipes and exit
    #[arg(long, visible_alias = "list-templates")]
    list_recipes: bool,
    /// Print the JSON Schema of configurations, with every key, and exit
    #[arg(long, conflicts_with_all = ["file", "recipe", "init", "list_recipes"])]
    schema: bool,
    /// Threads [default: all cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
}

/// Makes SIGUSR1 ask for a checkpoint. Other commands go on as if it had not come.
pub(super) fn hear_of_checkpoints() {
    // Where it cannot be listened for, it ends the process as it always did.
    #[cfg(unix)]
    let _ =
        signal_hook::flag::register(signal_hook::consts::SIGUSR1, crate::training::asked::flag());
}

pub(super) fn run(args: Args) -> Result<()> {
    if args.list_recipes {
        for recipe in recipes::ALL {
            let (name, summary) = (recipe.name, recipe.summary());
            voice::event(&json!({"event": "recipe", "name": name, "summary": summary}));
            voice::result(format_args!("{name:<22}{summary}"));
        }
        return print::check();
    }
    if args.schema {
        print::line(SCHEMA.trim_end());
        return print::check();
    }
    if let Some(name) = &args.init {
        let text = recipes::find(name)?.text;
        voice::event(&json!({"event": "recipe", "name": name, "text": text}));
        voice::result(text.trim_end());
        return print::check();
    }
    let launch = match args.together.role()? {
        Role::Starter(count) => return ranks::start(count, &common::stop_on_signals()?),
        Role::Trainer(launch) => launch,
    };
    let asked = common::threads(args.threads)?;
    if let Some(count) = asked.or_else(|| ranks::share_of_threads(launch.as_ref())) {
        threads::set_count(count);
    }
    let (text, name) = match (&args.recipe, &args.file) {
        (Some(name), _) => (recipes::find(name)?.text.to_owned(), format!("the recipe {name}")),
        (None, file) => {
            let file = file.clone().unwrap_or_default();
            let text = files::read_text(&file, 16 << 20).map_err(|e| {
                let report = Report::new(format!("cannot read {}", file.display()), e);
                Error::Usage(report.help("srk train --list-recipes    shows what comes with srk"))
            })?;
            refuse_other_formats(&file)?;
            (text, file.display().to_string())
        }
    };
    let mut args = args;
    if let Some(from) = &args.from {
        args.overrides.push(format!("run.init={:?}", from.display().to_string()));
    }
    let job = jobs::read(&text, &name, &args.overrides)?;
    if let (true, Some(launch)) = (args.dry_run, &launch) {
        let report = Report::new(
            "--dry-run is for one process",
            format!("{} has started several", launch.by),
        );
        return Err(Error::Usage(report.help("--ranks none")));
    }
    let device = ranks::device(&args.device, launch.as_ref())?;
    let dtype = precision(&*job, args.precision, &device)?;
    let run = &job.shared().run;
    if args.dry_run {
        let dry = dry_run(&*job, (&device, dtype), &mut Terminal::default())?;
        voice::done(json!({"dry_run": true, "planned_bytes": dry.planned,
            "resident_bytes": dry.resident, "gpu_bytes": dry.on_gpu,
            "seconds_per_step": dry.seconds, "loss": dry.loss, "steps": run.steps}));
        return Ok(());
    }
    let stop = common::stop_on_signals()?;
    let ranks = args.together.meet(launch.as_ref())?;
    let prepared = if ranks.is_first() { going_on(&args, &*job) } else { Ok(()) };
    if let Err(error) = prepared {
        ranks.fail(&error);
        return Err(error);
    }
    let out = (args.out.as_path(), args.until);
    train_among(&ranks, &*job, out, (&device, dtype), &stop, &mut Terminal::default())?;
    if ranks.is_first() {
        voice::done(json!({"run": args.out.join(&run.name)}));
    }
    Ok(())
}

/// Does what `--resume` asks for.
fn going_on(args: &Args, job: &dyn Job) -> Result<()> {
    match args.resume.to_str() {
        Some("auto") => {}
        Some("never") => refuse_existing(&args.out.join(&job.shared().run.name))?,
        _ => {
            let warn = &mut |text: &str| voice::say(format_args!("warning: {text}"));
            let step = adopt(job, &args.out, &args.resume, warn)?;
            let from = args.resume.display();
            voice::say(format_args!("going on from {from} at step {step}"));
        }
    }
    Ok(())
}

/// Refuses configurations of other programs by their names.
fn refuse_other_formats(file: &Path) -> Result<()> {
    let ending = file.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if !["yml", "yaml", "json", "py"].contains(&ending.as_str()) {
        return Ok(());
    }
    let what = format!("{} is no configuration of srk", file.display());
    let report = Report::new(what, "those are TOML, with keys of their own");
    Err(Error::Usage(report.help(
        "srk train --list-recipes    shows published systems; --init NAME > run.toml prints one to change",
    )))
}

/// What networks compute in.
fn precision(job: &dyn Job, asked: Precision, device: &Device) -> Result<DType> {
    match (asked, device) {
        (Precision::Auto, Device::Cuda(_)) if !job.halves() => Ok(DType::F32),
        (Precision::Auto, Device::Cuda(gpu)) if gpu.compute_capability() >= (8, 0) => {
            Ok(DType::BF16)
        }
        (asked, device) => match asked.on(device)? {
            DType::F16 | DType::BF16 if !job.halves() => {
                let report = Report::new(
                    "cannot train in half precision",
                    "networks that draw digits are small",
                );
                Err(Error::Usage(report.help("leave --precision out")))
            }
            dtype => Ok(dtype),
        },
    }
}

/// Lines on standard output, warnings on standard error.
#[derive(Default)]
struct Terminal {
    /// Whether it was said that standard output takes no more.
    told: bool,
}

impl Reporter for Terminal {
    fn line(&mut self, text: &str) {
        let put = match (voice::json(), voice::quiet()) {
            (true, _) => print::line(json!({"event": "log", "text": text})),
            (_, true) => {
                print::log(text);
                true
            }
            _ => print::line(text),
        };
        if put || std::mem::replace(&mut self.told, true) {
            return;
        }
        let cause = print::refused().map_or_else(String::new, |error| format!(" ({error})"));
        self.warn(&format!(
            "standard output takes no more lines{cause}; training goes on, metrics.jsonl has its values"
        ));
    }

    fn warn(&mut self, text: &str) {
        voice::event(&json!({"event": "warn", "text": text}));
        print::note(format_args!("warning: {text}"));
    }

    fn record(&mut self, event: &str, values: &[(&str, Value)]) {
        let named = |(key, value): &(&str, Value)| ((*key).to_owned(), value.clone());
        let mut all: Map<String, Value> = values.iter().map(named).collect();
        all.insert("event".to_owned(), event.into());
        // A reader that went away ends no training: the line of the log says so.
        voice::event(&Value::Object(all));
    }
}
