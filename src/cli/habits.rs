//! Flags of other programs that srk does not take: what to type in their place.
use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::{Error, Report};
use crate::imaging::folder;

/// Where a flag of that name is known from, and what srk has in its place.
const KNOWN: &[(&[&str], &str)] = &[
    (
        &[
            "--tile_pad",
            "--tile-pad",
            "--tile-overlap",
            "--tile_overlap",
            "--pre_pad",
            "--chop_stride",
        ],
        "leave it out: tiles carry as much around them as the network sees",
    ),
    (&["--tile-batch", "--bs", "--batch"], "leave it out: as many tiles as fit run at once"),
    (&["--face_enhance", "--face-enhance"], "srk restores no faces; leave it out"),
    (
        &["--alpha_upsampler", "--alpha-upsampler"],
        "leave it out: alpha is enlarged beside the colours; --alpha drop leaves it out",
    ),
    (&["-dn", "--denoise_strength", "--denoise-strength"], "--denoise 0..1"),
    (&["-z", "--model-scale"], "leave it out: a model knows its factor; -s asks for another"),
    (
        &[
            "--latent_tiled_size",
            "--latent-tiled-size",
            "--latent_tiled_overlap",
            "--vqgantile_size",
        ],
        "leave it out, or --tile N in pixels of the input",
    ),
    (
        &["--upscale-repeats", "--upscale_repeats"],
        "leave it out: -s 16 asks for more than the model's factor, or name the result as the next input",
    ),
    (&["--one_step"], "--steps 1"),
    (&["--init-img", "--init_img"], "-i PICTURE or FOLDER"),
    (&["--outdir", "--output_dir", "--save_dir"], "-o FOLDER"),
    (
        &["--list-devices", "--list_devices", "--list-gpus"],
        "srk doctor    lists GPUs, with their free memory",
    ),
    (&["-M", "--mode"], "srk upscale, train, eval, models ...: a command says what is done"),
    (&["--test_y_channel", "--y-channel"], "--space y"),
    (&["--crop_border", "--crop-border", "--shave"], "--border N"),
    (&["--ddim"], "--sampler ddim"),
    (&["--nocolor"], "--color-fix none"),
    (&["--task", "--mask_path"], "-m names the model, and with it the task"),
    (
        &["--dec_w"],
        "--fidelity 0..1, where 1 stays with the input; --color-fix and --kappa change more",
    ),
    (&["--prompt", "--pos_prompt", "--neg_prompt"], "models of srk take no words; leave it out"),
    (&["-opt", "--opt"], "srk train FILE.toml    takes the configuration without an option"),
    (&["--auto_resume"], "leave it out: a run goes on by itself when its command is given again"),
    (&["--force_yml"], "--set KEY=VALUE"),
    (&["--launcher", "--local_rank"], "leave it out: srk train needs no launcher"),
    (&["--debug"], "srk train ... --dry-run"),
    (&["-t", "--target"], "srk eval RESULTS TRUTHS    takes both without options"),
];

fn answer(flag: &str) -> Option<Error> {
    let (_, help) = KNOWN.iter().find(|(flags, _)| flags.contains(&flag))?;
    let report = Report::new(format!("srk has no {flag}"), "it is an option of another program");
    Some(Error::Usage(report.help(*help)))
}

/// The answer to flags that would be read as something else: one dash before several letters, and the version of
/// srk where another program is told that of a model.
pub(super) fn before(arguments: &[OsString], root: &clap::Command) -> Option<Error> {
    let flags = arguments.iter().skip(1).take_while(|argument| *argument != "--");
    let flags: Vec<&str> = flags.filter_map(|argument| argument.to_str()).collect();
    let foreign = flags.iter().find(|flag| ["-dn", "-opt"].contains(*flag));
    foreign.and_then(|flag| answer(flag)).or_else(|| version_among_others(&flags, root))
}

/// An error where `--version` stands beside more than commands: it would print the version and do nothing of the rest.
fn version_among_others(flags: &[&str], root: &clap::Command) -> Option<Error> {
    const BESIDE: [&str; 7] = ["--version", "-V", "--json", "-q", "--quiet", "-v", "--verbose"];
    let is_version = |flag: &&str| {
        ["--version", "-V"].contains(flag) || flag.strip_prefix("--version=").is_some()
    };
    flags.iter().find(|flag| is_version(flag))?;
    let mut command = root;
    let others = flags.iter().find(|flag| match command.find_subcommand(flag) {
        Some(found) => {
            command = found;
            false
        }
        None => !BESIDE.contains(*flag),
    })?;
    let what = "--version prints the version of srk, and goes alone";
    let report = Report::new(what, format!("it stands beside {others}; nothing was done"));
    Some(Error::Usage(
        report.help("-m MODEL    names a model, which ResShift's --version does; srk --version"),
    ))
}

/// Names of commands elsewhere, and what srk has in their place.
const COMMANDS: &[(&[&str], &str)] = &[
    (
        &[
            "enlarge",
            "upsample",
            "superres",
            "sr",
            "run",
            "predict",
            "infer",
            "inference",
            "resize",
        ],
        "srk upscale PICTURE",
    ),
    (
        &["test", "validate", "val", "measure", "metrics", "psnr", "ssim", "score"],
        "srk eval RESULTS TRUTHS",
    ),
    (&["finetune", "fine-tune", "fit"], "srk train --from WEIGHTS FILE.toml"),
    (&["generate", "draw"], "srk sample RUN -o grid.png"),
    (&["benchmark", "time", "speed"], "srk bench"),
    (
        &["info", "list", "ls", "import", "export", "verify", "convert"],
        "srk models COMMAND    has list, info, import, export, verify",
    ),
    (
        &["check", "stats", "prep", "degrade", "pack", "dataset"],
        "srk data COMMAND    has check, stats, prep, degrade, pack",
    ),
    (&["version"], "srk --version"),
    (&["diff", "sheet"], "srk compare BEFORE AFTER -o look.html"),
    (
        &["config", "settings"],
        "srk --help    says under --config where defaults of options are kept",
    ),
    (
        &["pull", "download", "get", "fetch"],
        "srk downloads nothing: curl -LO URL, then srk models verify FILE prints its SHA-256; docs/models.md names models",
    ),
    (&["rm", "remove", "delete", "uninstall"], "models are files: rm FILE removes one"),
    (&["show", "describe"], "srk models info FILE"),
    (&["crop", "cut", "subimages"], "srk data prep SRC OUT --crop 480 --step 240"),
];

/// The answer to a command that there is not: one of another program, or a picture without a command.
fn of_command(name: &str) -> Option<Error> {
    let ending = Path::new(name).extension().unwrap_or_default().to_string_lossy();
    let is_picture = folder::is_image_name(Path::new(name)) || Path::new(name).is_dir();
    let what = format!("{name} is no command of srk");
    if is_picture {
        let report = Report::new(what, "it is something to enlarge");
        return Some(Error::Usage(report.help(format!("srk upscale {name}"))));
    }
    if ending == "toml" {
        let report = Report::new(what, "it is a configuration");
        return Some(Error::Usage(report.help(format!("srk train {name}"))));
    }
    let (_, help) = COMMANDS.iter().find(|(names, _)| names.contains(&name))?;
    Some(Error::Usage(Report::new(what, "nothing was done").help(*help)))
}

/// The answer to a flag or a command that was not understood, if it is known from elsewhere or a number.
pub(super) fn after(error: &clap::Error, arguments: &[OsString]) -> Option<Error> {
    if error.kind() == ErrorKind::InvalidSubcommand {
        return match error.get(ContextKind::InvalidSubcommand)? {
            ContextValue::String(name) => of_command(name),
            _ => None,
        };
    }
    if error.kind() == ErrorKind::InvalidValue {
        return of_value(error);
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(flag) => answer(flag.split(['=', ' ']).next().unwrap_or(flag))
            .or_else(|| below_zero(flag, arguments)),
        _ => None,
    }
}

/// The answer to a value that other programs have.
fn of_value(error: &clap::Error) -> Option<Error> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (option, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let (cause, help) = match (option.split(' ').next()?, value) {
        ("--precision", "tf32") => (
            "srk computes no products in TF32, whose 10 bits would make f32 results differ between GPUs",
            "--precision f32, or bf16 and f16, which are faster",
        ),
        ("--precision", "fp8" | "int8" | "fp64" | "f64") => (
            "srk runs models in f32, f16 or bf16",
            "leave --precision out, for the fastest that the device has",
        ),
        (
            "--sampler",
            "dpm++" | "dpm" | "dpmpp" | "euler" | "euler_a" | "heun" | "plms" | "unipc" | "lcm",
        ) => (
            "samplers of many steps do not pay for chains of a few, which models of srk have",
            "--sampler ddim is the deterministic one; --steps says how many",
        ),
        ("--sampler", "resshift" | "ddpm") => (
            "that is a process, which a model has",
            "--sampler posterior is its own rule, the default",
        ),
        _ => return None,
    };
    let what = format!("{} has no {value}", option.split(' ').next()?);
    Some(Error::Usage(Report::new(what, cause).help(help)))
}

/// The answer to `-s -1`, which looks like two options.
fn below_zero(flag: &str, arguments: &[OsString]) -> Option<Error> {
    let texts: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let is_it = |text: &str| text.starts_with(flag) && text.parse::<f64>().is_ok();
    let pair = texts.windows(2).find(|pair| is_it(pair[1]))?;
    let (option, value) = (pair[0], pair[1]);
    if !option.starts_with('-') || !flag.starts_with('-') {
        return None;
    }
    let help = match option {
        "-n" | "--model-name" => return Some(noise_level(value)),
        "-s" | "--scale" | "--outscale" | "--upscale" => {
            "-s 2 makes it twice as large, -s 0.5 half as large"
        }
        "--seed" => "--seed random draws one and says which",
        "-t" | "--tile" | "--tile-size" => "-t auto, none, or a number of at least 8",
        "-j" | "--threads" => "leave it out, for all cores",
        _ => "srk COMMAND --help    says what it takes",
    };
    let what = format!("{option} takes no number below 0");
    Some(Error::Usage(Report::new(what, format!("{value} was given")).help(help)))
}

/// The answer to `-n 1`, which is a level of noise for waifu2x and its kin.
pub(super) fn noise_level(name: &str) -> Error {
    let what = format!("-n {name} is no model");
    let cause = "-n names a model here; in waifu2x it is how much noise is taken away";
    let help = "--denoise 0..1    says how much; leave it out to have it found in the picture";
    Error::Usage(Report::new(what, cause).help(help))
}

/// Options of ncnn's programs and of Real-ESRGAN for the device, as `srk upscale` takes them.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Habits {
    /// As ncnn's programs count GPUs: -1 is the CPU
    #[arg(short = 'g', long = "gpu", value_name = "N", hide = true, allow_hyphen_values = true,
        aliases = ["gpu-id", "gpu_id"], value_parser = gpu, conflicts_with = "device")]
    pub(super) gpu: Option<String>,
    /// The same as --precision f32
    #[arg(long, hide = true, conflicts_with_all = ["precision", "half"])]
    pub(super) fp32: bool,
    /// The same as --precision f16
    #[arg(long, hide = true, alias = "fp16", conflicts_with = "precision")]
    pub(super) half: bool,
}

fn gpu(text: &str) -> Result<String, String> {
    match text {
        "-1" => Ok("cpu".into()),
        "auto" => Ok("auto".into()),
        _ => match text.split(',').all(|number| number.parse::<u16>().is_ok()) {
            true => Ok(format!("cuda:{text}")),
            false => Err("the number of a GPU, several as in 0,1, or -1 for the CPU".into()),
        },
    }
}

/// Threads: a number, or that of the middle of ncnn's load:work:save.
pub(super) fn threads(text: &str) -> Result<u32, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let number = match parts[..] {
        [number] | [_, number, _] => number,
        _ => text,
    };
    match number.split(',').next().unwrap_or(number).parse() {
        Ok(threads @ 1..) => Ok(threads),
        _ => Err("a number of at least 1".into()),
    }
}
