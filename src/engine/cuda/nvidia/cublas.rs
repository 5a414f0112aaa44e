//! Matrix products by cuBLASLt.
//!
//! It thinks in columns: a row-major matrix is the transpose of a column-major one, so that
//! `C = A B` is done as `C' = B' A'`, with the operands exchanged.
use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use super::context::Stream;
use super::find::{Found, load};
use super::symbols::functions;
use super::workspace::Workspace;
use crate::engine::cuda::driver::DevicePointer;
use crate::engine::cuda::libraries::Product;
use crate::engine::device::DType;
use crate::error::{Error, Report, Result};

type Raw = *mut c_void;

functions! {
    /// cuBLASLt's functions.
    Api:
    create = "cublasLtCreate"(*mut Raw);
    destroy = "cublasLtDestroy"(Raw);
    operation_create = "cublasLtMatmulDescCreate"(*mut Raw, u32, u32);
    operation_set = "cublasLtMatmulDescSetAttribute"(Raw, u32, *const c_void, usize);
    operation_destroy = "cublasLtMatmulDescDestroy"(Raw);
    layout_create = "cublasLtMatrixLayoutCreate"(*mut Raw, u32, u64, u64, i64);
    layout_set = "cublasLtMatrixLayoutSetAttribute"(Raw, u32, *const c_void, usize);
    layout_destroy = "cublasLtMatrixLayoutDestroy"(Raw);
    preference_create = "cublasLtMatmulPreferenceCreate"(*mut Raw);
    preference_set = "cublasLtMatmulPreferenceSetAttribute"(Raw, u32, *const c_void, usize);
    preference_destroy = "cublasLtMatmulPreferenceDestroy"(Raw);
    heuristic = "cublasLtMatmulAlgoGetHeuristic"(
        Raw, Raw, Raw, Raw, Raw, Raw, Raw, c_int, *mut Answer, *mut c_int,
    );
    matmul = "cublasLtMatmul"(
        Raw, Raw, *const c_void, *const c_void, Raw, *const c_void, Raw, *const c_void,
        *const c_void, Raw, *mut c_void, Raw, *const Algorithm, *mut c_void, usize, Raw,
    );
}

/// `cublasLtMatmulAlgo_t`: cuBLASLt's own.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Algorithm([u64; 8]);

/// `cublasLtMatmulHeuristicResult_t`
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Answer {
    algorithm: Algorithm,
    workspace: usize,
    status: u32,
    waves: f32,
    reserved: [c_int; 4],
}

/// `CUBLAS_COMPUTE_32F`: sums in f32, and f32 inputs as they are.
const COMPUTE_F32: u32 = 68;
/// `CUDA_R_32F`
const REAL_F32: u32 = 0;
/// `CUBLASLT_MATMUL_DESC_TRANSA` and `_TRANSB`
const TRANSPOSED: [u32; 2] = [3, 4];
/// `CUBLAS_OP_T`
const TRANSPOSE: u32 = 1;
/// `CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT` and `_STRIDED_BATCH_OFFSET`
const BATCH: u32 = 5;
const BATCH_STRIDE: u32 = 6;
/// `CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES`
const MOST_WORKSPACE: u32 = 1;
/// NVIDIA's advice for Hopper.
const WORKSPACE: usize = 32 << 20;

/// cuBLASLt on one stream.
#[derive(Debug)]
pub(super) struct Cublas {
    plans: Mutex<HashMap<Product, Option<Plan>>>,
    workspace: Workspace,
    handle: Handle,
    stream: Arc<Stream>,
    version: usize,
}

#[derive(Debug)]
struct Handle {
    api: &'static Api,
    raw: Raw,
}

// SAFETY: cuBLASLt's handle may be used by any number of threads.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is ours.
        unsafe { (self.api.destroy)(self.raw) };
    }
}

/// What cuBLASLt is told at every call.
#[derive(Debug)]
struct Plan {
    operation: Owned,
    /// Of the exchanged operands, and of the result.
    layouts: [Owned; 3],
    answer: Answer,
}

/// A descriptor and how it is destroyed.
#[derive(Debug)]
struct Owned {
    raw: Raw,
    destroy: unsafe extern "C" fn(Raw) -> u32,
}

// SAFETY: descriptors are plain memory, which lies behind a lock.
unsafe impl Send for Owned {}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours.
        unsafe { (self.destroy)(self.raw) };
    }
}

impl Drop for Cublas {
    fn drop(&mut self) {
        // Its handle is destroyed next, in the context that is current.
        let _ = self.stream.context.bind();
    }
}

impl Cublas {
    pub(super) fn new(stream: &Arc<Stream>, found: &Found) -> std::result::Result<Self, String> {
        let library: &'static _ = Box::leak(Box::new(load(found).map_err(|e| e.to_string())?));
        // SAFETY: the library is cuBLASLt 12 or 13, and stays loaded.
        let api = unsafe { Api::of(library) }.map_err(|symbol| format!("it has no {symbol}"))?;
        let api: &'static Api = Box::leak(Box::new(api));
        // SAFETY: the signature is the one of the documentation.
        let version = unsafe {
            let get = library.get::<unsafe extern "C" fn() -> usize>(b"cublasLtGetVersion\0");
            get.map_err(|e| e.to_string())?()
        };
        stream.context.bind().map_err(|e| e.to_string())?;
        let mut raw = ptr::null_mut();
        // SAFETY: the out-pointer is a local; the context is bound.
        match unsafe { (api.create)(&raw mut raw) } {
            0 => Ok(Self {
                plans: Mutex::default(),
                workspace: Workspace::new(&stream.context),
                handle: Handle { api, raw },
                stream: Arc::clone(stream),
                version,
            }),
            status => Err(format!("status {status}")),
        }
    }

    pub(super) fn version(&self) -> String {
        let v = self.version;
        format!("{}.{}.{}", v / 10000, v % 10000 / 100, v % 100)
    }

    /// Whether there is a way to do `product`.
    pub(super) fn supports(&self, product: &Product) -> bool {
        if self.stream.context.bind().is_err() {
            return false;
        }
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        self.plan(&mut plans, product).is_ok()
    }

    /// # Safety
    /// As for [`Libraries::multiply`](crate::engine::cuda::Libraries::multiply).
    pub(super) unsafe fn multiply(
        &self,
        product: &Product,
        tensors: [DevicePointer; 3],
    ) -> Result<()> {
        self.stream.context.bind()?;
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = self.plan(&mut plans, product)?;
        let [a, b, c] = tensors.map(|at| ptr::without_provenance_mut::<c_void>(address(at)));
        let bytes = plan.answer.workspace;
        let workspace = DevicePointer::new(self.workspace.get(bytes)?);
        let (one, zero) = (1.0f32, 0.0f32);
        let [of_b, of_a, of_c] = plan.layouts.each_ref().map(|l| l.raw);
        // SAFETY: all descriptors are alive; the matrices are valid, as asked of this function; the
        // factors are read during the call.
        let status = unsafe {
            (self.handle.api.matmul)(
                self.handle.raw,
                plan.operation.raw,
                ptr::from_ref(&one).cast(),
                b,
                of_b,
                a,
                of_a,
                ptr::from_ref(&zero).cast(),
                c,
                of_c,
                c,
                of_c,
                &raw const plan.answer.algorithm,
                ptr::without_provenance_mut(address(workspace)),
                bytes,
                self.stream.raw.cast(),
            )
        };
        check(status, "failed")
    }

    fn plan<'a>(
        &self,
        plans: &'a mut HashMap<Product, Option<Plan>>,
        product: &Product,
    ) -> Result<&'a Plan> {
        let plan = plans.entry(*product).or_insert_with(|| make_plan(&self.handle, product).ok());
        plan.as_ref().ok_or_else(|| failed("does not do this product", 0))
    }
}

#[allow(clippy::cast_possible_truncation)] // Addresses; only 64-bit machines have such GPUs.
const fn address(at: DevicePointer) -> usize {
    at.address() as usize
}

fn failed(what: &str, status: u32) -> Error {
    let cause = if status == 0 { String::new() } else { format!("cuBLASLt status {status}") };
    let report = Report::new(format!("cuBLASLt {what}"), cause);
    Error::Device(report.help("SRK_CONV=native does without it"))
}

fn check(status: u32, what: &str) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(failed(what, status)) }
}

/// `cudaDataType_t`
const fn data_type(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => 2,
        DType::BF16 => 14,
        DType::F32 => REAL_F32,
        DType::F64 => 1,
    }
}

fn make_plan(handle: &Handle, p: &Product) -> Result<Plan> {
    let api = handle.api;
    let [a_transposed, b_transposed] = p.transposed;
    // Column-major sizes of what lies in memory: rows and columns exchanged.
    let stored =
        |rows, columns, transposed| if transposed { (rows, columns) } else { (columns, rows) };
    let layouts = [
        layout(api, p, stored(p.inner, p.columns, b_transposed))?,
        layout(api, p, stored(p.rows, p.inner, a_transposed))?,
        layout(api, p, (p.columns, p.rows))?,
    ];
    let operation = operation(api, [b_transposed, a_transposed])?;
    let preference = preference(api)?;
    let (mut answer, mut count) = (Answer::default(), 0);
    let [of_b, of_a, of_c] = layouts.each_ref().map(|l| l.raw);
    // SAFETY: all descriptors are alive; there is room for the one answer that is asked for.
    let status = unsafe {
        (api.heuristic)(
            handle.raw,
            operation.raw,
            of_b,
            of_a,
            of_c,
            of_c,
            preference.raw,
            1,
            &raw mut answer,
            &raw mut count,
        )
    };
    check(status, "does not do this product")?;
    match count {
        1 => check(answer.status, "does not do this product")?,
        _ => return Err(failed("does not do this product", 0)),
    }
    Ok(Plan { operation, layouts, answer })
}

/// What is multiplied how: whether the first and second operand are transposed.
fn operation(api: &'static Api, transposed: [bool; 2]) -> Result<Owned> {
    let mut raw = ptr::null_mut();
    // SAFETY: the out-pointer is a local.
    check(unsafe { (api.operation_create)(&raw mut raw, COMPUTE_F32, REAL_F32) }, "failed")?;
    let operation = Owned { raw, destroy: api.operation_destroy };
    for (attribute, _) in TRANSPOSED.into_iter().zip(transposed).filter(|(_, t)| *t) {
        set(api.operation_set, &operation, attribute, &TRANSPOSE)?;
    }
    Ok(operation)
}

/// A batch of dense column-major matrices.
fn layout(api: &'static Api, p: &Product, (rows, columns): (usize, usize)) -> Result<Owned> {
    let signed = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut raw = ptr::null_mut();
    let (dtype, height) = (data_type(p.dtype), signed(rows));
    // SAFETY: the out-pointer is a local.
    let status =
        unsafe { (api.layout_create)(&raw mut raw, dtype, rows as u64, columns as u64, height) };
    check(status, "failed")?;
    let layout = Owned { raw, destroy: api.layout_destroy };
    let batch = i32::try_from(p.batch).map_err(|_| failed("does not do this product", 0))?;
    set(api.layout_set, &layout, BATCH, &batch)?;
    set(api.layout_set, &layout, BATCH_STRIDE, &signed(rows * columns))?;
    Ok(layout)
}

fn preference(api: &'static Api) -> Result<Owned> {
    let mut raw = ptr::null_mut();
    // SAFETY: the out-pointer is a local.
    check(unsafe { (api.preference_create)(&raw mut raw) }, "failed")?;
    let preference = Owned { raw, destroy: api.preference_destroy };
    set(api.preference_set, &preference, MOST_WORKSPACE, &WORKSPACE)?;
    Ok(preference)
}

type Set = unsafe extern "C" fn(Raw, u32, *const c_void, usize) -> u32;

fn set<V>(function: Set, of: &Owned, attribute: u32, value: &V) -> Result<()> {
    // SAFETY: the value is copied; its size is the one of its type.
    let status =
        unsafe { function(of.raw, attribute, ptr::from_ref(value).cast(), size_of::<V>()) };
    check(status, "failed")
}
