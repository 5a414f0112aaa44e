//! Tensor maps by the driver, whose layout is its own. The functions are as old as CUDA 12; a driver may lack them.
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use cudarc::driver::sys;

use super::api::Api;
use super::symbols::functions;
use crate::engine::cuda::tensor_map::{Extent, TensorMap};
use crate::engine::device::DType;
use crate::error::{Error, Report, Result};

/// `CU_TENSOR_MAP_DATA_TYPE_FLOAT16` and `_BFLOAT16`
const TYPES: [u32; 2] = [6, 9];
/// `CU_TENSOR_MAP_INTERLEAVE_NONE`
const NO_INTERLEAVE: u32 = 0;
/// `CU_TENSOR_MAP_SWIZZLE_128B`
const SWIZZLE_128: u32 = 3;
/// `CU_TENSOR_MAP_L2_PROMOTION_L2_128B`: a row of a box.
const L2_128: u32 = 2;
/// `CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE`
const ZEROS: u32 = 0;

functions! {
    /// What makes tensor maps.
    Encoders:
    im2col = "cuTensorMapEncodeIm2col"(
        *mut c_void, u32, u32, *mut c_void, *const u64, *const u64, *const c_int, *const c_int, u32, u32,
        *const u32, u32, u32, u32, u32,
    );
    tiled = "cuTensorMapEncodeTiled"(
        *mut c_void, u32, u32, *mut c_void, *const u64, *const u64, *const u32, *const u32, u32, u32, u32, u32,
    );
}

/// As the driver wants to find its `CUtensorMap`.
#[repr(C, align(128))]
struct Words([u64; 16]);

/// The functions, looked up once; none if this driver has not both. Asked for when there is a driver.
pub(super) fn encoders() -> Option<&'static Encoders> {
    static ENCODERS: OnceLock<Option<Encoders>> = OnceLock::new();
    // SAFETY: whoever has a GPU has loaded the driver, which is never unloaded; the signatures are those of cuda.h.
    ENCODERS.get_or_init(|| unsafe { Encoders::of(sys::culib()) }.ok()).as_ref()
}

/// What kernels take for `map`, with the context bound.
pub(super) fn encode(api: &Api, map: &TensorMap) -> Result<[u64; 16]> {
    let none =
        || Error::Device(Report::new("no tensor maps", "the driver has no function for them"));
    let encoders = encoders().ok_or_else(none)?;
    let (boxes, mut words) = (&map.boxes, Words([0; 16]));
    let rank = u32::try_from(boxes.rank()).unwrap_or(0);
    let dtype = TYPES[usize::from(map.dtype == DType::BF16)];
    // Hosts of GPUs have 64 bits.
    let address =
        usize::try_from(map.address.address()).map_or(ptr::null_mut(), ptr::without_provenance_mut);
    let (sizes, traversal) = (boxes.sizes().map(u64::from), boxes.traversal());
    let strides = boxes.strides(map.dtype.size());
    let to = ptr::from_mut(&mut words).cast();
    let status = match boxes.extent() {
        Extent::Pixels { channels, count, lower, upper } => {
            let (lower, upper) = ([lower; 2], [upper; 2]);
            // SAFETY: the arrays hold four sizes and steps, three strides and two corners each, for a rank of 4; all
            // outlive the call, which reads no device memory.
            unsafe {
                (encoders.im2col)(
                    to,
                    dtype,
                    rank,
                    address,
                    sizes.as_ptr(),
                    strides.as_ptr(),
                    lower.as_ptr(),
                    upper.as_ptr(),
                    channels,
                    count,
                    traversal.as_ptr(),
                    NO_INTERLEAVE,
                    SWIZZLE_128,
                    L2_128,
                    ZEROS,
                )
            }
        }
        Extent::Tile(extent) => {
            // SAFETY: as above, for a rank of 3, with three numbers of the box.
            unsafe {
                (encoders.tiled)(
                    to,
                    dtype,
                    rank,
                    address,
                    sizes.as_ptr(),
                    strides.as_ptr(),
                    extent.as_ptr(),
                    traversal.as_ptr(),
                    NO_INTERLEAVE,
                    SWIZZLE_128,
                    L2_128,
                    ZEROS,
                )
            }
        }
    };
    api.check(status, || format!("cannot make a tensor map of {:?}", boxes.sizes()))?;
    Ok(words.0)
}
