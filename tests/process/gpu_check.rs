//! `benches/gpu_check.sh` with programs that do nothing, or too long: what it does with its time.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Upscales by copying, and trains by writing files.
const SRK: &str = r#"#!/bin/bash
case $1 in
    upscale) if [ "$3" = -o ]; then mkdir -p "$4"; else cp "$2" "$3"; fi && echo '{"event": "file", "seconds": 0.25}' ;;
    train)
        while [ $# -gt 0 ]; do [ "$1" != --out ] || out=$2; shift; done
        mkdir -p "$out/check/ckpt/40"
        for file in model ema; do echo "$file" >"$out/check/ckpt/40/$file.safetensors"; done
        echo '{"event": "step", "images_per_s": 812.5}' ;;
esac
"#;

/// Measures two things, and goes on.
const GPU: &str = r#"#!/bin/bash
echo '{"what": "copy", "gb_per_s": 4000}'
echo '{"what": "network", "network": "unet_64", "batch": 16, "dtype": "BF16", "parameters": 17501315,
    "launched_s": 0.5, "replayed_s": 0.25, "training_launched_s": 2, "training_replayed_s": 1}' | tr -d '\n'
echo
sleep 300
"#;

/// One thing, and goes on.
const TORCH: &str = r#"
import json, time
print(json.dumps({"what": "torch_network", "network": "unet_64", "batch": 16, "dtype": "bf16", "how": "graph",
                  "parameters": 17501315, "forward_s": 0.125, "training_s": 0.75}), flush=True)
time.sleep(300)
"#;

#[test]
fn a_gpu_is_checked_within_its_time_and_what_matters_comes_first() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    put(&at("gpu_check.sh"), include_str!("../../benches/gpu_check.sh"));
    put(&at("gpu_check.py"), include_str!("../../benches/gpu_check.py"));
    put(&at("images/a.png"), "no picture");
    put(&at("bin/srk"), SRK);
    put(&at("bin/suite"), "#!/bin/bash\ncase $* in *--ignored*) exit 3 ;; esac\n");
    put(&at("bin/gpu"), GPU);
    put(&at("peers/torch_unet.py"), TORCH);
    let started = Instant::now();
    let script = at("gpu_check.sh");
    let run = Command::new("bash").arg(&script).args(["--seconds", "40", "r"]).output().unwrap();
    let took = started.elapsed();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(took < Duration::from_secs(46), "{took:?}: {said}");
    assert_eq!(run.status.code(), Some(1), "{said}");
    let table = fs::read_to_string(at("r/table.txt")).unwrap();
    let result = |step: &str| {
        let line = table.lines().find(|line| line.split_whitespace().next() == Some(step));
        line.unwrap_or_else(|| panic!("no {step} in {table}")).to_owned()
    };
    for (step, word) in [
        ("doctor", "passed"),
        ("kernels", "passed"),
        ("bench-native", "CUT"),
        ("torch", "CUT"),
        ("upscale", "passed"),
        ("train", "passed"),
        ("bench-auto", "CUT"),
        ("engines", "FAILED (3)"),
    ] {
        assert!(result(step).contains(word), "{}", result(step));
    }
    // A network of both, by its name, with the optimizer of both.
    let of_network = |who: &str| {
        let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let found = lines.find(|words| words.first() == Some(&"unet_64") && words.contains(&who));
        found.unwrap_or_else(|| panic!("no {who} in {table}")).join(" ")
    };
    assert_eq!(
        of_network("launched"),
        "unet_64 16 bf16 17501315 srk native, launched 500.000 2000.000"
    );
    assert_eq!(of_network("torch"), "unet_64 16 bf16 17501315 torch graph 125.000 750.000");
    let steps = fs::read_to_string(at("r/steps.tsv")).unwrap();
    let order: Vec<&str> = steps.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(order[..3], ["doctor", "kernels", "bench-native"]);
    assert_eq!((order.len(), order[8]), (9, "memcheck"));
    // After each step, not at the end alone.
    assert!(said.matches("\nsteps\n").count() >= 9, "{said}");
    let summary: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(at("r/summary.json")).unwrap()).unwrap();
    assert_eq!(summary["bench"]["native"][0]["gb_per_s"], 4000);
    assert_eq!(summary["upscale_s"].as_array().unwrap().len(), 3);
    assert_eq!(summary["train_images_per_s"][0], 812.5);
}

/// With several GPUs, and only then, training with one and with all of them is compared.
#[test]
fn several_gpus_train_together_where_there_are_several() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    put(&at("gpu_check.sh"), include_str!("../../benches/gpu_check.sh"));
    put(&at("gpu_check.py"), include_str!("../../benches/gpu_check.py"));
    let logs = SRK.replace("case $1 in", "echo \"$*\" >>calls\ncase $1 in");
    put(&at("bin/srk"), &logs);
    let check = |arguments: &[&str], steps: &str| {
        let mut command = Command::new("bash");
        command.arg(at("gpu_check.sh")).args(arguments).arg("r").env("STEPS", steps);
        assert!(command.env_remove("GPUS").status().unwrap().success());
        fs::read_to_string(at("r/steps.tsv")).unwrap()
    };
    let steps = check(&["--gpus", "2", "--seconds", "60"], "ranks");
    assert!(steps.starts_with("ranks\t0\t") && steps.lines().count() == 1, "{steps}");
    let calls = fs::read_to_string(at("calls")).unwrap();
    for (gpus, reduce) in [(1, "fixed"), (2, "fixed"), (1, "fast"), (2, "fast")] {
        let call = calls.lines().find(|line| {
            line.contains(&format!("--gpus {gpus} ")) && line.contains(&format!("reduce={reduce}"))
        });
        assert!(call.is_some(), "{gpus} {reduce}: {calls}");
    }
    assert!(calls.contains("--device cuda:all"), "{calls}");
    // Bytes that differ fail.
    put(&at("bin/srk"), &logs.replace("echo \"$file\" >", "echo \"$file\" $$ >"));
    let script = Command::new("bash")
        .arg(at("gpu_check.sh"))
        .args(["--gpus", "2", "r"])
        .env("STEPS", "ranks")
        .output()
        .unwrap();
    assert_eq!(script.status.code(), Some(1));
}
