//! The compiled kernels inside this binary, and which of them a GPU runs.
//!
//! build.rs embeds one pack for each of `kernels/*.cu`: its machine code for known GPUs, and PTX, which the
//! driver compiles, for those that come later. What a GPU does not run stays packed.
//!
//! ```text
//! "SRK2" | count: u32, then for each architecture
//!     length: u32 | its name, as 90a or ptx80
//!     method: u32 | length of the code: u64 | its SHA-256, first 8 bytes
//!     length: u32 | code (cubin, or PTX with its final zero), stored (method 0) or LZMA (1)
//! ```
use super::sha256;
use crate::engine::threads::try_map;
use crate::error::{Error, Report, Result};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What kernels were compiled for.
#[derive(Debug, Clone, Copy)]
struct Arch {
    /// As packs call it.
    name: &'static str,
    /// Compute capability: 80 is 8.0.
    number: u32,
    /// Whether the driver must compile it.
    ptx: bool,
}

/// The compiled kernels of one source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Name of the source without its extension.
    pub stem: String,
    /// A cubin, or PTX that ends in a zero.
    pub bytes: Vec<u8>,
}

/// Where the kernels in this binary come from, or why there are none.
pub fn origin() -> &'static str {
    ORIGIN
}

/// The embedded architectures, such as `8.6` and `8.0-PTX`.
pub fn architectures() -> Vec<String> {
    let name = |a: &Arch| {
        format!("{}.{}{}", a.number / 10, a.number % 10, if a.ptx { "-PTX" } else { "" })
    };
    ARCHITECTURES.iter().map(name).collect()
}

/// The modules that a GPU of this compute capability runs.
pub fn modules(capability: (u32, u32)) -> Result<Vec<Module>> {
    let (major, minor) = capability;
    let failed = |cause: String, help: &str| {
        let what = format!("this build has no kernels for compute capability {major}.{minor}");
        Error::Device(Report::new(what, cause).help(help))
    };
    if ARCHITECTURES.is_empty() {
        return Err(failed(ORIGIN.into(), "rebuild with kernels, or use --device cpu"));
    }
    let Some(arch) = choose(ARCHITECTURES, capability) else {
        let cause = format!("it has them for {}", architectures().join(" "));
        return Err(failed(cause, "GPUs from compute capability 7.5 (Turing) on are supported"));
    };
    let module = |i: usize| {
        let (stem, pack) = PACKS[i];
        let bytes = code(pack, arch.name).map_err(|cause| format!("{stem}: {cause}"))?;
        Ok(Module { stem: stem.to_owned(), bytes })
    };
    try_map(PACKS.len(), module).map_err(|cause: String| {
        let what = "the kernels in this binary are damaged";
        Error::Device(Report::new(what, cause).help("install it again"))
    })
}

/// Machine code runs on its own generation, from its minor version on; that for 9.0 uses features which
/// later ones lack. PTX runs on everything from its version on. Machine code first, and the newest.
fn choose(archs: &[Arch], (major, minor): (u32, u32)) -> Option<&Arch> {
    let device = 10 * major + minor;
    let runs = |arch: &&Arch| {
        let same_generation = arch.number / 10 == major && (arch.number != 90 || device == 90);
        arch.number <= device && (arch.ptx || same_generation)
    };
    archs.iter().filter(runs).max_by_key(|arch| (!arch.ptx, arch.number))
}

/// The code in a pack for the architecture `name`, checked against its checksum.
///
/// # Errors
/// In words, if the pack is damaged or has no such code.
pub fn code(pack: &[u8], name: &str) -> std::result::Result<Vec<u8>, String> {
    let mut rest = Bytes(pack);
    if rest.take(4)? != b"SRK2" {
        return Err("it does not start with SRK2".into());
    }
    for _ in 0..rest.u32()? {
        let found = rest.sized()? == name.as_bytes();
        let (method, length, sum) = (rest.u32()?, rest.u64()?, rest.take(8)?);
        let packed = rest.sized()?;
        if !found {
            continue;
        }
        let code = match method {
            0 => packed.to_vec(),
            1 => decompress(packed, length)?,
            _ => return Err(format!("unknown compression {method}")),
        };
        if code.len() as u64 != length || sha256::digest(&code)[..8] != *sum {
            return Err("its checksum is wrong".into());
        }
        return Ok(code);
    }
    Err(format!("it has none for {name}"))
}

#[cfg(feature = "cuda")]
fn decompress(bytes: &[u8], length: u64) -> std::result::Result<Vec<u8>, String> {
    use std::io::Read;
    const MOST: u32 = 1 << 20; // KiB, against damaged headers
    let mut payload = Vec::new();
    lzma_rust2::LzmaReader::new_mem_limit(bytes, MOST, None)
        .and_then(|reader| reader.take(length + 1).read_to_end(&mut payload))
        .map_err(|e| e.to_string())?;
    Ok(payload)
}

#[cfg(not(feature = "cuda"))]
fn decompress(_: &[u8], _: u64) -> std::result::Result<Vec<u8>, String> {
    Err("built without the feature cuda".into())
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> std::result::Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or("it ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> std::result::Result<u32, String> {
        Ok(self.take(4)?.iter().rev().fold(0, |v, &byte| v << 8 | u32::from(byte)))
    }

    fn u64(&mut self) -> std::result::Result<u64, String> {
        Ok(u64::from(self.u32()?) | u64::from(self.u32()?) << 32)
    }

    fn sized(&mut self) -> std::result::Result<&'a [u8], String> {
        let length = self.u32()?;
        self.take(length as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arch(number: u32, ptx: bool) -> Arch {
        Arch { name: "", number, ptx }
    }

    #[test]
    fn the_newest_machine_code_of_the_same_generation_is_chosen_then_ptx() {
        let mut archs: Vec<Arch> = [75, 80, 86, 89, 90, 100, 120].map(|n| arch(n, false)).to_vec();
        archs.push(arch(80, true));
        let chosen = |major, minor| choose(&archs, (major, minor)).map(|a| (a.number, a.ptx));
        for (capability, want) in [
            ((7, 5), Some((75, false))),
            ((8, 0), Some((80, false))),
            ((8, 6), Some((86, false))),
            ((8, 7), Some((86, false))),
            ((8, 9), Some((89, false))),
            ((9, 0), Some((90, false))),
            ((9, 1), Some((80, true))), // 90a is for 9.0 alone
            ((10, 0), Some((100, false))),
            ((10, 3), Some((100, false))),
            ((11, 0), Some((80, true))),
            ((12, 1), Some((120, false))),
            ((13, 0), Some((80, true))),
            ((7, 0), None),
            ((6, 1), None),
        ] {
            assert_eq!(chosen(capability.0, capability.1), want, "{capability:?}");
        }
        assert!(choose(&[], (8, 0)).is_none());
    }

    /// Three bytes for 75 and one for ptx80, stored.
    fn pack() -> Vec<u8> {
        let mut pack = b"SRK2\x02\0\0\0".to_vec();
        for (name, code) in [("75", &[7u8, 8, 9][..]), ("ptx80", &[0])] {
            let length = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
            pack.extend([&length(name.len()), name.as_bytes(), &[0; 4]].concat());
            pack.extend((code.len() as u64).to_le_bytes());
            pack.extend([&sha256::digest(code)[..8], &length(code.len()), code].concat());
        }
        pack
    }

    #[test]
    fn a_pack_gives_the_code_of_each_architecture() {
        assert_eq!(code(&pack(), "75").unwrap(), [7, 8, 9]);
        assert_eq!(code(&pack(), "ptx80").unwrap(), [0]);
        assert_eq!(code(&pack(), "80").unwrap_err(), "it has none for 80");
    }

    #[test]
    fn damage_anywhere_is_an_error_or_harmless() {
        let good = pack();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            let found = ["75", "ptx80"].map(|name| code(&bad, name));
            for (found, want) in found.iter().zip([&[7u8, 8, 9][..], &[0]]) {
                assert!(found.as_ref().map_or(true, |code| code == want), "byte {at}");
            }
            code(&good[..at], "ptx80").unwrap_err();
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn damaged_compression_is_an_error() {
        let Some(arch) = ARCHITECTURES.last() else { return };
        for (stem, pack) in PACKS.iter().take(3) {
            code(pack, arch.name).unwrap();
            // The last architecture's code ends the pack.
            for at in 1..100 {
                let mut bad = pack.to_vec();
                let at = bad.len() - 7 * at;
                bad[at] ^= 0x10;
                assert!(code(&bad, arch.name).is_err(), "{stem} at {at}");
            }
            code(&pack[..pack.len() - 1], arch.name).unwrap_err();
        }
    }

    #[test]
    fn sha256_is_sha256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256::hex(b""), empty);
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256::hex(b"abc"), abc);
        let a_million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(sha256::hex(&[b'a'; 1_000_000]), a_million);
        // Lengths around the end of a block.
        let at_55 = "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318";
        assert_eq!(sha256::hex(&[b'a'; 55]), at_55);
        let at_56 = "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a";
        assert_eq!(sha256::hex(&[b'a'; 56]), at_56);
        let at_64 = "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb";
        assert_eq!(sha256::hex(&[b'a'; 64]), at_64);
    }
}
