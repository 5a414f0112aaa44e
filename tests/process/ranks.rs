//! Training in several processes: real ones that meet over TCP, each on the CPU or with an emulated GPU of its own.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]
use crate::common;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use common::command::{Run, wait_until};
use common::training::*;
use srk::engine::device::{DType, Device};
use srk::models::weights::WeightsFile;
use srk::training::config::Config;
use srk::training::ranks::{Ranks, detect, meet};
use srk::training::run::train_among;

/// A step of four images.
pub(super) const FOUR: [&str; 3] = ["data.train.batch=4", "run.steps=3", "ckpt.every=3"];

/// Variables by which another launcher would be taken for ours.
const FOREIGN: [&str; 8] = [
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "SLURM_STEP_NUM_TASKS",
    "OMPI_COMM_WORLD_SIZE",
    "PMI_SIZE",
];

pub(super) fn without_launchers(command: &mut Command) {
    for name in FOREIGN {
        command.env_remove(name);
    }
}

/// `srk train` on the CPU with one thread.
pub(super) fn train(place: &Place, out: &Path, set: &[&str], more: &[&str]) -> Command {
    let mut command = place.command(out, set);
    command.args(["-j", "1"]).args(more);
    for (option, value) in [("--device", "cpu"), ("--rank-timeout", "60")] {
        if !more.contains(&option) {
            command.args([option, value]);
        }
    }
    without_launchers(&mut command);
    command
}

pub(super) fn to_end(mut command: Command) -> Run {
    Run::of(command.output().unwrap())
}

/// The same with `--gpus`.
fn started(place: &Place, out: &Path, set: &[&str], count: usize) -> Run {
    to_end(train(place, out, set, &["--gpus", &count.to_string()]))
}

/// A port that is free, for ranks that are started by hand.
pub(super) fn port() -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port().to_string()
}

/// What torchrun sets.
pub(super) fn as_rank<'a>(
    command: &'a mut Command,
    rank: usize,
    world: usize,
    port: &str,
) -> &'a mut Command {
    let (rank, world) = (rank.to_string(), world.to_string());
    command.env("RANK", &rank).env("LOCAL_RANK", &rank).env("WORLD_SIZE", &world);
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port)
}

/// Starts both as the ranks of one training; the file that they read is written by then.
fn start([first, second]: [Command; 2]) -> [Child; 2] {
    let port = port();
    let spawn = |mut command: Command, rank| as_rank(&mut command, rank, 2, &port).spawn().unwrap();
    [spawn(first, 0), spawn(second, 1)]
}

pub(super) fn end(child: Child) -> Run {
    Run::of(child.wait_with_output().unwrap())
}

/// The largest difference between the weights of two runs, relative to the largest weight.
pub(super) fn apart(a: &Path, b: &Path, step: u64) -> f64 {
    let read = |out: &Path| {
        let path = out.join(format!("tiny/ckpt/{step}/model.safetensors"));
        WeightsFile::read(&path).unwrap().tensors.into_values().flat_map(|(_, v)| v)
    };
    let (mut difference, mut size) = (0f64, 0f64);
    for (a, b) in read(a).zip(read(b)) {
        difference = difference.max(f64::from((a - b).abs()));
        size = size.max(f64::from(b.abs()));
    }
    difference / size
}

/// What validations measured, but how long they took.
fn measured(out: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(out.join("tiny/metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut lines: Vec<_> = lines.filter(|line| line.get("val_psnr_y").is_some()).collect();
    lines.iter_mut().for_each(|line| drop(line.as_object_mut().unwrap().remove("val_seconds")));
    lines
}

#[test]
fn a_fixed_sum_makes_one_two_and_four_processes_the_same_bits() {
    let place = Place::new();
    let val = place.val();
    let set =
        [&FOUR[..], &["run.reduce=fixed", "val.every=3", "val.sheet=1", val.as_str()]].concat();
    let one = place.runs("1");
    to_end(train(&place, &one, &set, &[])).worked();
    assert_eq!(measured(&one).len(), 1);
    for count in [2, 4] {
        let out = place.runs(&count.to_string());
        let run = started(&place, &out, &set, count).worked();
        run.says_all(&[&format!("{count} processes train together, started by --gpus")]);
        assert_same(&one, &out, 3);
        assert_eq!(losses(&out), losses(&one));
        assert_eq!(measured(&out), measured(&one), "{count} processes measure");
        assert!(out.join("tiny/val/3/sheet.png").is_file());
    }
}

#[test]
fn a_fast_sum_agrees_within_rounding() {
    let place = Place::new();
    let one = place.runs("1");
    to_end(train(&place, &one, &FOUR, &[])).worked();
    for count in [2, 4] {
        let out = place.runs(&count.to_string());
        started(&place, &out, &FOUR, count).worked();
        let difference = apart(&out, &one, 3);
        assert!(difference < 1e-4, "{count} processes: the weights differ by {difference:.1e}");
        for ((step, a), (_, b)) in losses(&out).into_iter().zip(losses(&one)) {
            assert!((a - b).abs() < 1e-5 * b, "{count} processes, step {step}: loss {a}, not {b}");
        }
    }
}

/// Whole batches go to ranks; two of them are added up in the order of one process.
#[test]
fn accumulated_batches_are_shared_whole() {
    let place = Place::new();
    let set = ["optim.accumulate=2", "data.train.batch=3", "run.steps=3", "ckpt.every=3"];
    let (one, two) = (place.runs("1"), place.runs("2"));
    to_end(train(&place, &one, &set, &[])).worked();
    started(&place, &two, &set, 2).worked();
    assert_same(&one, &two, 3);
}

/// Norms whose running statistics every unit moves: those of all ranks are the same, and written.
#[test]
fn running_statistics_are_those_of_all_ranks() {
    let place = Place::new();
    let text = place.text();
    let (before, rest) = text.split_once("kind = \"dual-domain-grid\"").unwrap();
    let rest = &rest[rest.find("[diffusion]").unwrap()..];
    let model = "kind = \"biggan-unet\"\ntime_dim = 8\nwidths = [8, 16, 16]\n";
    let file = place.runs("norms.toml");
    fs::write(&file, format!("{before}{model}{rest}")).unwrap();
    let run = |out: &Path, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_srk"));
        command.arg("train").arg(&file).arg("--out").arg(out).args(["--device", "cpu", "-j", "1"]);
        for set in [&FOUR[..], &["run.reduce=fixed"]].concat() {
            command.args(["--set", set]);
        }
        without_launchers(&mut command);
        command.args(more);
        to_end(command).worked();
    };
    let (one, two) = (place.runs("1"), place.runs("2"));
    run(&one, &[]);
    run(&two, &["--gpus", "2"]);
    assert_same(&one, &two, 3);
}

#[test]
fn a_run_goes_on_with_another_number_of_processes() {
    let place = Place::new();
    let set = ["data.train.batch=4", "run.reduce=fixed"];
    let (straight, changing) = (place.runs("straight"), place.runs("changing"));
    to_end(train(&place, &straight, &set, &[])).worked();
    let until = |step: &'static str, more: &[&str]| {
        let run = to_end(train(&place, &changing, &set, &[&["--until", step][..], more].concat()));
        run.worked()
    };
    until("2", &["--gpus", "4"]);
    until("4", &[]).says_all(&["resuming"]);
    until("6", &["--gpus", "2"]).says_all(&["resuming"]);
    assert_same(&straight, &changing, 6);
}

/// As torchrun starts them: one process each, of which the first alone writes and speaks.
#[test]
fn ranks_that_others_start_meet_by_their_variables() {
    let place = Place::new();
    let out = place.runs("out");
    let children = start([(); 2].map(|()| train(&place, &out, &FOUR, &[])));
    let [first, other] = children.map(|child| end(child).worked());
    first.says_all(&["2 processes train together, started by the environment", "step 3/3"]);
    assert_eq!((other.out.as_str(), other.err.as_str()), ("", ""));
    assert_eq!(losses(&out).len(), 3);
    let alone = place.runs("alone");
    let mut command = train(&place, &alone, &FOUR, &["--ranks", "none"]);
    as_rank(&mut command, 1, 2, &port());
    to_end(command).worked();
    assert_eq!(losses(&alone).len(), 3);
}

/// `srk train` of the folder of `place`, with `srk` and what `fakes` are on the path.
fn script(place: &Place, text: &str, fakes: &[(&str, &str)]) -> Run {
    use std::os::unix::fs::PermissionsExt;
    let folder = place.runs("job");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("run.toml"), place.text().replace("batch = 2", "batch = 4")).unwrap();
    fs::write(folder.join("job.sh"), text).unwrap();
    for (name, text) in fakes {
        fs::write(folder.join(name), text).unwrap();
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_srk")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut command = Command::new("bash");
    without_launchers(&mut command);
    command.arg("job.sh").current_dir(&folder).env("SRK_DEVICE", "cpu");
    command.env("PATH", format!("{}:{}:{path}", folder.display(), binary.display()));
    to_end(command)
}

/// Starts two tasks with what srun sets, and ends with the code of the last.
const SRUN: &str = r#"#!/bin/bash
for task in 1 0; do
    SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NODELIST='localhost' \
        SLURM_JOB_ID=$PPID SLURM_STEP_ID=0 "$@" &
done
wait $!
"#;

/// The job script of docs/cluster.md, on two tasks of one node.
#[test]
fn the_script_of_the_documentation_trains_with_srun() {
    let page = include_str!("../../docs/cluster.md");
    let rest = page.split_once("### Slurm, training\n\n```sh\n").unwrap().1;
    let text = rest.split("```").next().unwrap();
    assert!(text.starts_with("#!/bin/bash\n#SBATCH"));
    let run = script(&Place::new(), text, &[("srun", SRUN)]).worked();
    run.says_all(&["2 processes train together, started by srun", "step 6/6"]);
}

/// The same with what Open MPI and MPICH set.
#[test]
fn processes_of_mpi_meet_by_their_variables() {
    let fake =
        |set: &str| format!("#!/bin/bash\nfor n in 1 0; do env {set} \"$@\" & done\nwait $!\n");
    for (by, set) in [
        (
            "mpirun",
            "OMPI_COMM_WORLD_RANK=$n OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=$n \
             OMPI_COMM_WORLD_LOCAL_SIZE=2 PMIX_NAMESPACE=$PPID MASTER_PORT=$PORT",
        ),
        (
            "mpiexec",
            "PMI_RANK=$n PMI_SIZE=2 MPI_LOCALRANKID=$n MPI_LOCALNRANKS=2 MASTER_PORT=$PORT",
        ),
    ] {
        let text = format!("export PORT={}\n{by} srk train run.toml -j 1\n", port());
        let run = script(&Place::new(), &text, &[(by, &fake(set))]).worked();
        run.says_all(&[&format!("started by {by}"), "step 6/6"]);
    }
}

#[test]
fn what_contradicts_is_refused_before_anything_is_done() {
    let place = Place::new();
    let out = place.runs("out");
    let port = port();
    let with = |rank: usize, world: usize, more: &[&str]| {
        let mut command = train(&place, &out, &FOUR, more);
        as_rank(&mut command, rank, world, &port);
        to_end(command)
    };
    with(2, 2, &[]).failed(2, &["RANK is 2, which is not below WORLD_SIZE = 2", "--ranks none"]);
    with(0, 2, &["--gpus", "2"]).failed(2, &["--gpus 2 starts processes", "this is rank 0 of 2"]);
    with(0, 2, &["--dry-run"]).failed(2, &["--dry-run is for one process", "--ranks none"]);
    let named = with(0, 2, &["--device", "cuda:1"]);
    assert!(!out.exists());
    named.failed(2, &["cuda:1 is one GPU for 2 processes", "--device cuda:0,2"]);
}

#[test]
fn batches_that_cannot_be_shared_are_refused_with_one_that_can() {
    let place = Place::new();
    let run = started(&place, &place.runs("out"), &["data.train.batch=3"], 2);
    run.failed(2, &["2 processes cannot share a step", "data.train.batch=4"]);
}

#[test]
fn a_rank_that_does_not_come_is_named() {
    let place = Place::new();
    let short = ["--rank-timeout", "1"];
    let mut command = train(&place, &place.runs("out"), &FOUR, &short);
    as_rank(&mut command, 0, 3, &port());
    to_end(command).failed(1, &["ranks 1, 2 of 3 did not come", "MASTER_ADDR"]);
    let mut command = train(&place, &place.runs("out"), &FOUR, &short);
    as_rank(&mut command, 1, 2, &port());
    to_end(command).failed(1, &["rank 1 found no rank 0 at 127.0.0.1"]);
}

/// Two ranks with their own arguments, to their ends.
fn two(place: &Place, out: &Path, set: [&[&str]; 2]) -> [Run; 2] {
    start(set.map(|set| train(place, out, set, &[]))).map(end)
}

#[test]
fn ranks_that_train_something_else_are_refused_in_words() {
    let place = Place::new();
    let out = place.runs("out");
    let other = place.runs("other");
    fs::create_dir_all(other.join("images")).unwrap();
    write_image(&other.join("images/0.png"), 48, 48, 5);
    let lr = [&FOUR[..], &["optim.lr=0.5"]].concat();
    for run in two(&place, &out, [&FOUR[..], &lr[..]]) {
        run.failed(2, &["do not agree on the configuration", "lr = 0.001", "lr = 0.5", "rank 1 ("]);
    }
    // The same words, and another folder behind them.
    let set = [&FOUR[..], &["data.train.paths=[\"images\"]"]].concat();
    for run in start(in_folders(&place, &out, &set, &other)).map(end) {
        run.failed(2, &["do not agree on the training images", "3 images in", "1 image in"]);
    }
    assert!(!out.exists());
}

/// Two ranks with the same arguments, the second in a folder of its own.
fn in_folders(place: &Place, out: &Path, set: &[&str], other: &Path) -> [Command; 2] {
    let here = place.images();
    [here.parent().unwrap(), other].map(|folder| {
        let mut command = train(place, out, set, &[]);
        command.current_dir(folder);
        command
    })
}

/// A run that does not end by itself, with a checkpoint for each step.
pub(super) const LONG: [&str; 4] =
    ["data.train.batch=4", "run.steps=100000", "ckpt.every=1", "ckpt.keep=2"];

/// Two ranks of a long run that has taken some steps.
fn under_way(place: &Place, out: &Path, more: &[&str]) -> [Child; 2] {
    let mut children = start([(); 2].map(|()| train(place, out, &LONG, more)));
    wait_until(&mut children[0], || out.join("tiny/ckpt/latest").exists());
    children
}

pub(super) fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// The newest checkpoint is whole: the run goes on from it, alone.
pub(super) fn goes_on(place: &Place, out: &Path) {
    let text = fs::read_to_string(out.join("tiny/ckpt/latest")).unwrap();
    let step: u64 = text.trim().parse().unwrap();
    checkpoint(out, step);
    let until = (step + 1).to_string();
    let run = to_end(train(place, out, &LONG, &["--until", &until])).worked();
    run.says_all(&[&format!("resuming {} at step", out.join("tiny").display())]);
}

#[test]
fn a_rank_that_dies_ends_the_others_with_its_name() {
    let place = Place::new();
    for dies in [1, 0] {
        let out = place.runs(&format!("out{dies}"));
        let mut children = under_way(&place, &out, &[]).map(Some);
        let mut gone = children[dies].take().unwrap();
        signal(&gone, "-KILL");
        gone.wait().unwrap();
        let other = end(children[1 - dies].take().unwrap());
        other.failed(
            1,
            &[&format!("rank {dies} ("), "is gone", "its last step is ", "goes on from"],
        );
        goes_on(&place, &out);
    }
}

/// What torchrun does when a process fails: once the others have ended, it starts all of them again, in another round.
#[test]
fn processes_that_torchrun_starts_again_go_on() {
    let place = Place::new();
    let out = place.runs("out");
    let round = |count: &str, more: &[&str]| {
        start([(); 2].map(|()| {
            let mut command = train(&place, &out, &LONG, more);
            command.env("TORCHELASTIC_RUN_ID", "job").env("TORCHELASTIC_RESTART_COUNT", count);
            command
        }))
    };
    let [mut first, mut second] = round("0", &[]);
    wait_until(&mut first, || out.join("tiny/ckpt/latest").exists());
    signal(&second, "-KILL");
    second.wait().unwrap();
    end(first).failed(1, &["rank 1 (", "is gone"]);
    let step: u64 =
        fs::read_to_string(out.join("tiny/ckpt/latest")).unwrap().trim().parse().unwrap();
    let [first, second] = round("1", &["--until", &(step + 2).to_string()]).map(end);
    first.worked().says_all(&["started by torchrun", "resuming"]);
    second.worked();
    checkpoint(&out, step + 2);
}

#[test]
fn a_rank_that_hangs_ends_the_others_in_time() {
    let place = Place::new();
    let out = place.runs("out");
    let [first, second] = under_way(&place, &out, &["--rank-timeout", "10"]);
    signal(&second, "-STOP");
    end(first)
        .failed(1, &["rank 1 (", "hangs", "nothing came from it for 10s", "its last step is "]);
    signal(&second, "-CONT");
    end(second).failed(1, &["rank 1 (", "hangs"]);
    goes_on(&place, &out);
}

/// What a rank has to say itself is said by all.
#[test]
fn the_error_of_a_rank_is_that_of_all() {
    let place = Place::new();
    let (out, other) = (place.runs("out"), place.runs("other"));
    fs::create_dir_all(other.join("images")).unwrap();
    for entry in fs::read_dir(place.images()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, other.join("images").join(path.file_name().unwrap())).unwrap();
    }
    // Images that are read as they are drawn, by each rank from a folder of its own.
    let set = [&LONG[..], &["data.train.paths=[\"images\"]", "data.cache=\"1K\""]].concat();
    let [mut first, second] = start(in_folders(&place, &out, &set, &other));
    wait_until(&mut first, || out.join("tiny/ckpt/latest").exists());
    fs::remove_dir_all(other.join("images")).unwrap();
    let second = end(second);
    assert!(second.code == 1 && second.err.contains("images/"), "{}", second.err);
    end(first).failed(1, &["rank 1 (", "ended: "]);
    goes_on(&place, &out);
}

/// Two networks, each with an optimizer, one after the other; images that are cut from whole batches.
#[test]
fn a_gan_is_the_same_whatever_the_number_of_processes() {
    let place = Place::new();
    let digits = place.runs("digits");
    fs::create_dir(&digits).unwrap();
    (0..3).for_each(|i| write_image(&digits.join(format!("{i}.png")), 28, 28, i));
    let paths = format!("data.paths=[{:?}]", digits.display().to_string());
    let run = |out: &Path, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_srk"));
        command
            .args(["train", "--recipe", "wgan-gp", "--device", "cpu", "-j", "1", "--out"])
            .arg(out);
        for set in
            [paths.as_str(), "run.name=tiny", "run.steps=2", "data.batch=4", "run.reduce=fixed"]
        {
            command.args(["--set", set]);
        }
        without_launchers(&mut command);
        command.args(more);
        to_end(command).worked();
    };
    let (one, two) = (place.runs("1"), place.runs("2"));
    run(&one, &[]);
    run(&two, &["--gpus", "2"]);
    assert_same(&one, &two, 2);
}

#[test]
fn a_signal_to_the_one_that_started_them_saves_and_ends_all() {
    let place = Place::new();
    let out = place.runs("out");
    let mut starter = train(&place, &out, &LONG, &["--gpus", "2"]).spawn().unwrap();
    wait_until(&mut starter, || out.join("tiny/ckpt/latest").exists());
    signal(&starter, "-TERM");
    let run = end(starter);
    assert_eq!(run.code, 143, "{}", run.err);
    run.says_all(&["saved step"]);
    goes_on(&place, &out);
}

/// A rank of [`on_emulated_gpus`]: variables name its file, its folder and its type, beside those of torchrun.
#[test]
#[ignore = "a child of on_emulated_gpus"]
fn a_rank_with_an_emulated_gpu() {
    let variable = |name: &str| std::env::var(name).ok();
    let (file, out) = (variable("TEST_FILE").unwrap(), variable("TEST_OUT").unwrap());
    let set: Vec<String> = variable("TEST_SET").unwrap().split(' ').map(str::to_owned).collect();
    let config = Config::read(&fs::read_to_string(&file).unwrap(), &file, &set).unwrap();
    let dtype = if variable("TEST_DTYPE").unwrap() == "f32" { DType::F32 } else { DType::F16 };
    let launch = detect(&variable).unwrap();
    let ranks = launch.map_or_else(Ranks::alone, |l| meet(&l, Duration::from_secs(60)).unwrap());
    let device = Device::Cuda(common::fast_gpu());
    let stop = Arc::new(AtomicUsize::new(0));
    let mut heard = Heard::default();
    let out = (Path::new(&out), None);
    train_among(&ranks, &config, out, (&device, dtype), &stop, &mut heard).unwrap();
}

/// Trains with `world` processes, each with an emulated GPU; these add up gradients themselves in the folder `joined`,
/// where one is named.
pub(super) fn on_emulated(
    place: &Place,
    world: usize,
    dtype: &str,
    (set, joined): (&[&str], Option<&Path>),
) -> std::path::PathBuf {
    let out = place.runs(&format!("{world}-{dtype}-{}-{}", set.len(), joined.is_some()));
    let file = place.runs("gpu.toml");
    fs::write(&file, place.text()).unwrap();
    let port = port();
    let children: Vec<Child> = (0..world)
        .map(|rank| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--ignored", "--exact", "ranks::a_rank_with_an_emulated_gpu"]);
            command.env("TEST_FILE", &file).env("TEST_OUT", &out).env("TEST_DTYPE", dtype);
            command.env("TEST_SET", [&FOUR[..], set].concat().join(" "));
            without_launchers(&mut command);
            if world > 1 {
                as_rank(&mut command, rank, world, &port);
            }
            if let Some(joined) = joined {
                command.env("TEST_JOINED", joined);
            }
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    out
}

#[test]
fn on_emulated_gpus() {
    let place = Place::new();
    for dtype in ["f32", "f16"] {
        let [one, two] =
            [1, 2].map(|n| on_emulated(&place, n, dtype, (&["run.reduce=fixed"], None)));
        assert_same(&one, &two, 3);
    }
    let [one, two] = [1, 2].map(|n| on_emulated(&place, n, "f32", (&[], None)));
    let difference = apart(&two, &one, 3);
    assert!(difference < 1e-4, "the weights differ by {difference:.1e}");
}
