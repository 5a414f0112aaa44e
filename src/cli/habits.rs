//! Flags of other programs that srk does not take: what to type in their place.
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::{Error, Report};

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
    (&["--max-vram", "--vram"], "--ram SIZE"),
    (&["--one_step"], "--steps 1"),
    (&["--ddim"], "--sampler ddim"),
    (&["--nocolor"], "--color-fix none"),
    (&["--task", "--mask_path"], "-m names the model, and with it the task"),
    (
        &["--dec_w", "--fidelity"],
        "--color-fix and --kappa change how near an output stays to its input",
    ),
    (&["--prompt", "--pos_prompt", "--neg_prompt"], "models of srk take no words; leave it out"),
    (&["-opt", "--opt"], "srk train FILE.toml    takes the configuration without an option"),
    (
        &["--auto_resume", "--resume"],
        "leave it out: a run goes on by itself when its command is given again",
    ),
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

/// The answer to flags that would be read as something else: one dash before several letters.
pub(super) fn before(arguments: &[OsString]) -> Option<Error> {
    let flags = arguments.iter().take_while(|argument| *argument != "--");
    let mut flags = flags.filter_map(|argument| argument.to_str());
    flags.find(|flag| ["-dn", "-opt"].contains(flag)).and_then(answer)
}

/// The answer to a flag that was not understood, if it is known from elsewhere.
pub(super) fn after(error: &clap::Error) -> Option<Error> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    match error.get(ContextKind::InvalidArg)? {
        ContextValue::String(flag) => answer(flag.split(['=', ' ']).next().unwrap_or(flag)),
        _ => None,
    }
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
        _ if text.contains(',') => {
            Err("one GPU, such as -g 0: srk does not share a folder among several".into())
        }
        _ => match text.parse::<u16>() {
            Ok(number) => Ok(format!("cuda:{number}")),
            Err(_) => Err("the number of a GPU, or -1 for the CPU".into()),
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
