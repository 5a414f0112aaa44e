//! The compiled kernels inside this binary, and which of them a GPU runs.
//!
//! build.rs embeds one container an architecture: machine code for known GPUs, and PTX, which the
//! driver compiles, for those that come later. A container holds the modules of all `kernels/*.cu`:
//!
//! ```text
//! "SRK1" | method: u32 | length: u64 | SHA-256 of the payload, first 8 bytes | payload
//! payload, stored (method 0) or LZMA (1): count: u32, then for each module
//!     length: u32 | stem | length: u32 | code (cubin, or PTX with its final zero)
//! ```
use super::sha256;
use crate::error::{Error, Report, Result};

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// All kernels for one architecture.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// Compute capability: 80 is 8.0.
    pub arch: u32,
    /// Whether the driver must compile it.
    pub ptx: bool,
    /// The container.
    pub bytes: &'static [u8],
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
    let name =
        |i: &Image| format!("{}.{}{}", i.arch / 10, i.arch % 10, if i.ptx { "-PTX" } else { "" });
    IMAGES.iter().map(name).collect()
}

/// The modules that a GPU of this compute capability runs.
pub fn modules(capability: (u32, u32)) -> Result<Vec<Module>> {
    let (major, minor) = capability;
    let failed = |cause: String, help: &str| {
        let what = format!("this build has no kernels for compute capability {major}.{minor}");
        Error::Device(Report::new(what, cause).help(help))
    };
    if IMAGES.is_empty() {
        return Err(failed(ORIGIN.into(), "rebuild with kernels, or use --device cpu"));
    }
    let Some(image) = choose(IMAGES, capability) else {
        let cause = format!("it has them for {}", architectures().join(" "));
        return Err(failed(cause, "GPUs from compute capability 7.5 (Turing) on are supported"));
    };
    unpack(image.bytes).map_err(|cause| {
        let what = "the kernels in this binary are damaged";
        Error::Device(Report::new(what, cause).help("install it again"))
    })
}

/// Machine code runs on its own generation, from its minor version on; that for 9.0 uses features which
/// later ones lack. PTX runs on everything from its version on. Machine code first, and the newest.
fn choose(images: &[Image], (major, minor): (u32, u32)) -> Option<&Image> {
    let device = 10 * major + minor;
    let runs = |image: &&Image| {
        let same_generation = image.arch / 10 == major && (image.arch != 90 || device == 90);
        image.arch <= device && (image.ptx || same_generation)
    };
    images.iter().filter(runs).max_by_key(|image| (!image.ptx, image.arch))
}

/// The modules in a container.
pub fn unpack(container: &[u8]) -> std::result::Result<Vec<Module>, String> {
    let mut rest = Bytes(container);
    if rest.take(4)? != b"SRK1" {
        return Err("they do not start with SRK1".into());
    }
    let (method, length, sum) = (rest.u32()?, rest.u64()?, rest.take(8)?);
    let payload = match method {
        0 => rest.0.to_vec(),
        1 => decompress(rest.0, length)?,
        _ => return Err(format!("unknown compression {method}")),
    };
    if payload.len() as u64 != length || sha256::digest(&payload)[..8] != *sum {
        return Err("their checksum is wrong".into());
    }
    let mut rest = Bytes(&payload);
    let mut modules = Vec::new();
    for _ in 0..rest.u32()? {
        let stem = String::from_utf8(rest.sized()?.to_vec()).map_err(|e| e.to_string())?;
        modules.push(Module { stem, bytes: rest.sized()?.to_vec() });
    }
    Ok(modules)
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
        let (taken, rest) = self.0.split_at_checked(n).ok_or("they end too early")?;
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

    fn image(arch: u32, ptx: bool) -> Image {
        Image { arch, ptx, bytes: &[] }
    }

    #[test]
    fn the_newest_machine_code_of_the_same_generation_is_chosen_then_ptx() {
        let mut images: Vec<Image> =
            [75, 80, 86, 89, 90, 100, 120].map(|arch| image(arch, false)).to_vec();
        images.push(image(80, true));
        let chosen = |major, minor| choose(&images, (major, minor)).map(|i| (i.arch, i.ptx));
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

    /// One module `silu` of three bytes, stored.
    fn container() -> Vec<u8> {
        let payload = [&[1, 0, 0, 0, 4, 0, 0, 0][..], b"silu", &[3, 0, 0, 0, 7, 8, 9]].concat();
        let head = [b"SRK1".as_slice(), &[0; 4], &(payload.len() as u64).to_le_bytes()].concat();
        [&head, &sha256::digest(&payload)[..8], &payload].concat()
    }

    #[test]
    fn a_container_gives_its_modules() {
        let modules = unpack(&container()).unwrap();
        assert_eq!(modules, [Module { stem: "silu".into(), bytes: vec![7, 8, 9] }]);
    }

    #[test]
    fn damage_anywhere_is_an_error() {
        let good = container();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            unpack(&bad).unwrap_err();
            unpack(&good[..at]).unwrap_err();
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn damaged_compression_is_an_error() {
        for image in IMAGES.iter().take(1) {
            for at in (24..image.bytes.len()).step_by(image.bytes.len() / 20) {
                let mut bad = image.bytes.to_vec();
                bad[at] ^= 0x10;
                unpack(&bad).unwrap_err();
            }
            unpack(&image.bytes[..image.bytes.len() / 2]).unwrap_err();
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
