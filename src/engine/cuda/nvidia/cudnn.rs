//! Convolutions by cuDNN's graph interface.
//!
//! An operation is described by nested descriptors, and cuDNN's heuristics list ways to do it, best
//! first. A plan is kept for each of the first few that give the same bits in every run; for f32
//! only those that neither round the inputs nor use tensor cores, which would round them to TF32.
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use super::context::Stream;
use super::find::{Found, load};
use super::symbols::functions;
use super::workspace::Workspace;
use crate::engine::cuda::driver::DevicePointer;
use crate::engine::cuda::libraries::{Convolution, Pass};
use crate::engine::device::DType;
use crate::error::{Error, Report, Result};

type Raw = *mut c_void;

functions! {
    /// cuDNN's functions.
    Api:
    create = "cudnnCreate"(*mut Raw);
    destroy = "cudnnDestroy"(Raw);
    set_stream = "cudnnSetStream"(Raw, Raw);
    create_descriptor = "cudnnBackendCreateDescriptor"(u32, *mut Raw);
    destroy_descriptor = "cudnnBackendDestroyDescriptor"(Raw);
    set_attribute = "cudnnBackendSetAttribute"(Raw, u32, u32, i64, *const c_void);
    get_attribute = "cudnnBackendGetAttribute"(Raw, u32, u32, i64, *mut i64, *mut c_void);
    finalize = "cudnnBackendFinalize"(Raw);
    execute = "cudnnBackendExecute"(Raw, Raw, Raw);
}

/// `cudnnBackendDescriptorType_t`
mod kind {
    pub(super) const CONVOLUTION: u32 = 1;
    pub(super) const ENGINE: u32 = 2;
    pub(super) const ENGINE_CONFIGURATION: u32 = 3;
    pub(super) const HEURISTICS: u32 = 4;
    pub(super) const PLAN: u32 = 5;
    pub(super) const FORWARD: u32 = 10;
    pub(super) const WEIGHT_GRADIENT: u32 = 11;
    pub(super) const INPUT_GRADIENT: u32 = 12;
    pub(super) const GRAPH: u32 = 15;
    pub(super) const VARIANT_PACK: u32 = 16;
    pub(super) const TENSOR: u32 = 17;
}

/// `cudnnBackendAttributeType_t`
mod of {
    pub(super) const HANDLE: u32 = 0;
    pub(super) const DATA_TYPE: u32 = 1;
    pub(super) const INT64: u32 = 3;
    pub(super) const FLOAT: u32 = 4;
    pub(super) const POINTER: u32 = 6;
    pub(super) const CONVOLUTION_MODE: u32 = 7;
    pub(super) const HEURISTICS_MODE: u32 = 8;
    pub(super) const NUMERICAL_NOTE: u32 = 11;
    pub(super) const DESCRIPTOR: u32 = 15;
}

/// `cudnnBackendAttributeName_t`
mod attribute {
    pub(super) const CONVOLUTION_TYPE: u32 = 100;
    pub(super) const CONVOLUTION_MODE: u32 = 101;
    pub(super) const CONVOLUTION_DILATIONS: u32 = 102;
    pub(super) const CONVOLUTION_STRIDES: u32 = 103;
    pub(super) const CONVOLUTION_PADS_AFTER: u32 = 104;
    pub(super) const CONVOLUTION_PADS_BEFORE: u32 = 105;
    pub(super) const CONVOLUTION_AXES: u32 = 106;
    pub(super) const HEURISTICS_MODE: u32 = 200;
    pub(super) const HEURISTICS_GRAPH: u32 = 201;
    pub(super) const HEURISTICS_RESULTS: u32 = 202;
    pub(super) const CONFIGURATION_ENGINE: u32 = 300;
    pub(super) const PLAN_HANDLE: u32 = 400;
    pub(super) const PLAN_CONFIGURATION: u32 = 401;
    pub(super) const PLAN_WORKSPACE: u32 = 402;
    pub(super) const GRAPH_HANDLE: u32 = 800;
    pub(super) const GRAPH_OPERATIONS: u32 = 801;
    pub(super) const TENSOR_ALIGNMENT: u32 = 900;
    pub(super) const TENSOR_TYPE: u32 = 901;
    pub(super) const TENSOR_SIZES: u32 = 902;
    pub(super) const TENSOR_STRIDES: u32 = 903;
    pub(super) const TENSOR_ID: u32 = 906;
    pub(super) const PACK_IDS: u32 = 1000;
    pub(super) const PACK_POINTERS: u32 = 1001;
    pub(super) const PACK_WORKSPACE: u32 = 1003;
    pub(super) const ENGINE_NOTES: u32 = 1303;
}

/// `cudnnBackendNumericalNote_t`: what changes bits, or drops them.
const TENSOR_CORE: u32 = 0;
const DOWN_CONVERT_INPUTS: u32 = 1;
const REDUCED_PRECISION: u32 = 2;
const NONDETERMINISTIC: u32 = 4;

/// `CUDNN_CROSS_CORRELATION`: the kernel is not flipped.
const CROSS_CORRELATION: u32 = 1;
/// `CUDNN_HEUR_MODE_A`
const BEST_HEURISTICS: u32 = 3;
/// `CUDNN_DATA_FLOAT`
const FLOAT: u32 = 0;
/// How many answers of the heuristics are looked at, and how many plans are kept.
const ANSWERS: usize = 16;
const MOST_PLANS: usize = 3;
/// Plans that need more are left out.
const MOST_WORKSPACE: i64 = 512 << 20;
/// Tensors are aligned to this.
const ALIGNMENT: i64 = 256;

/// cuDNN on one stream.
#[derive(Debug)]
pub(super) struct Cudnn {
    state: Mutex<State>,
    workspace: Workspace,
    stream: Arc<Stream>,
    version: usize,
}

/// The plans go before the handle that they belong to.
#[derive(Debug)]
struct State {
    plans: HashMap<Convolution, Vec<Plan>>,
    handle: Handle,
}

#[derive(Debug)]
struct Handle {
    api: &'static Api,
    raw: Raw,
}

// SAFETY: a handle may be used by any thread, one at a time; it lies behind a lock.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: the handle is ours.
        unsafe { (self.api.destroy)(self.raw) };
    }
}

/// A way to do a convolution, with everything that it was made from.
#[derive(Debug)]
struct Plan {
    descriptor: Descriptor,
    workspace: usize,
    _configuration: Descriptor,
    _description: Arc<Description>,
}

/// A convolution as cuDNN wants it described.
#[derive(Debug)]
struct Description {
    heuristics: Descriptor,
    _graph: Descriptor,
    _parts: Parts,
}

impl Drop for Cudnn {
    fn drop(&mut self) {
        // Its handle is destroyed next, in the context that is current.
        let _ = self.stream.context.bind();
    }
}

impl Cudnn {
    pub(super) fn new(stream: &Arc<Stream>, found: &Found) -> std::result::Result<Self, String> {
        let library: &'static _ = Box::leak(Box::new(load(found).map_err(|e| e.to_string())?));
        // SAFETY: the library is cuDNN 9, and stays loaded.
        let api = unsafe { Api::of(library) }.map_err(|symbol| format!("it has no {symbol}"))?;
        let api: &'static Api = Box::leak(Box::new(api));
        // SAFETY: the signature is the one of the documentation.
        let version = unsafe {
            let get = library.get::<unsafe extern "C" fn() -> usize>(b"cudnnGetVersion\0");
            get.map_err(|e| e.to_string())?()
        };
        stream.context.bind().map_err(|e| e.to_string())?;
        let mut raw = ptr::null_mut();
        // SAFETY: the out-pointer is a local; the context is bound.
        words(library, unsafe { (api.create)(&raw mut raw) })?;
        let handle = Handle { api, raw };
        // SAFETY: handle and stream are alive; driver and runtime share the type of streams.
        words(library, unsafe { (api.set_stream)(handle.raw, stream.raw.cast()) })?;
        let state = Mutex::new(State { plans: HashMap::new(), handle });
        let workspace = Workspace::new(&stream.context);
        Ok(Self { state, workspace, stream: Arc::clone(stream), version })
    }

    pub(super) fn version(&self) -> String {
        let v = self.version;
        format!("{}.{}.{}", v / 10000, v % 10000 / 100, v % 100)
    }

    /// How many plans there are for `problem`.
    pub(super) fn plans(&self, problem: &Convolution) -> usize {
        if self.stream.context.bind().is_err() {
            return 0;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // cuDNN not knowing a way is no failure: there are other engines.
        state.plans_of(problem).map_or(0, <[Plan]>::len)
    }

    /// # Safety
    /// As for [`Libraries::convolve`](crate::engine::cuda::Libraries::convolve).
    pub(super) unsafe fn convolve(
        &self,
        problem: &Convolution,
        plan: usize,
        [x, w, y]: [DevicePointer; 3],
    ) -> Result<()> {
        self.stream.context.bind()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let api = state.handle.api;
        let handle = state.handle.raw;
        let plans = state.plans_of(problem)?;
        let plan = plans.get(plan).ok_or_else(|| failed("has no such plan", 0))?;
        let workspace = self.workspace.get(plan.workspace)?;
        let pack = Descriptor::new(api, kind::VARIANT_PACK)?
            .set(attribute::PACK_POINTERS, of::POINTER, &[x, w, y].map(DevicePointer::address))?
            .set(attribute::PACK_IDS, of::INT64, &[X, W, Y])?
            .set(attribute::PACK_WORKSPACE, of::POINTER, &[workspace])?
            .finish()?;
        // SAFETY: handle, plan and pack are alive; the tensors are valid, as asked of this function.
        check(unsafe { (api.execute)(handle, plan.descriptor.raw, pack.raw) }, "failed")
    }
}

/// `Ok`, or cuDNN's words.
fn words(library: &libloading::Library, status: u32) -> std::result::Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    // SAFETY: the signature is the one of the documentation; the text is constant.
    let text = unsafe {
        library
            .get::<unsafe extern "C" fn(u32) -> *const c_char>(b"cudnnGetErrorString\0")
            .ok()
            .map(|get| CStr::from_ptr(get(status)).to_string_lossy().into_owned())
    };
    Err(format!("status {status} ({})", text.unwrap_or_default()))
}

fn failed(what: &str, status: u32) -> Error {
    let cause = if status == 0 { String::new() } else { format!("cuDNN status {status}") };
    let report = Report::new(format!("cuDNN {what}"), cause);
    Error::Device(report.help("SRK_CONV=native does without it"))
}

fn check(status: u32, what: &str) -> Result<()> {
    if status == 0 { Ok(()) } else { Err(failed(what, status)) }
}

/// Names of the tensors within a graph.
const X: i64 = 1;
const W: i64 = 2;
const Y: i64 = 3;

impl State {
    fn plans_of(&mut self, problem: &Convolution) -> Result<&[Plan]> {
        if !self.plans.contains_key(problem) {
            let plans = make_plans(&self.handle, problem)?;
            self.plans.insert(*problem, plans);
        }
        Ok(&self.plans[problem])
    }
}

fn make_plans(handle: &Handle, problem: &Convolution) -> Result<Vec<Plan>> {
    let description = Arc::new(describe(handle, problem)?);
    let configurations = description.heuristics.descriptors(
        attribute::HEURISTICS_RESULTS,
        kind::ENGINE_CONFIGURATION,
        ANSWERS,
    )?;
    let plans = configurations.into_iter().filter_map(|configuration| {
        // What cuDNN suggests and then cannot run here is not worth a word.
        plan(handle, problem.dtype, configuration, &description).ok().flatten()
    });
    Ok(plans.take(MOST_PLANS).collect())
}

fn describe(handle: &Handle, problem: &Convolution) -> Result<Description> {
    let api = handle.api;
    let parts = parts(api, problem)?;
    let graph = Descriptor::new(api, kind::GRAPH)?
        .set(attribute::GRAPH_OPERATIONS, of::DESCRIPTOR, &[parts.operation.raw])?
        .set(attribute::GRAPH_HANDLE, of::HANDLE, &[handle.raw])?
        .finish()?;
    let heuristics = Descriptor::new(api, kind::HEURISTICS)?
        .set(attribute::HEURISTICS_GRAPH, of::DESCRIPTOR, &[graph.raw])?
        .set(attribute::HEURISTICS_MODE, of::HEURISTICS_MODE, &[BEST_HEURISTICS])?
        .finish()?;
    Ok(Description { heuristics, _graph: graph, _parts: parts })
}

/// The plan of a configuration; none if it is not wanted, an error if cuDNN cannot run it here.
fn plan(
    handle: &Handle,
    dtype: DType,
    configuration: Descriptor,
    description: &Arc<Description>,
) -> Result<Option<Plan>> {
    if !repeatable(dtype, &configuration)? {
        return Ok(None);
    }
    let descriptor = Descriptor::new(handle.api, kind::PLAN)?
        .set(attribute::PLAN_HANDLE, of::HANDLE, &[handle.raw])?
        .set(attribute::PLAN_CONFIGURATION, of::DESCRIPTOR, &[configuration.raw])?
        .finish()?;
    let mut bytes = [0i64];
    descriptor.get(attribute::PLAN_WORKSPACE, of::INT64, &mut bytes)?;
    let small = (0..=MOST_WORKSPACE).contains(&bytes[0]);
    let workspace = usize::try_from(bytes[0]).unwrap_or(0);
    let description = Arc::clone(description);
    Ok(small.then_some(Plan {
        descriptor,
        workspace,
        _configuration: configuration,
        _description: description,
    }))
}

/// Whether an engine gives the same bits in every run and keeps the precision of `dtype`.
fn repeatable(dtype: DType, configuration: &Descriptor) -> Result<bool> {
    let engines = configuration.descriptors(attribute::CONFIGURATION_ENGINE, kind::ENGINE, 1)?;
    let mut notes = vec![];
    for engine in &engines {
        let mut told = [0u32; 16];
        let count = engine.get(attribute::ENGINE_NOTES, of::NUMERICAL_NOTE, &mut told)?;
        notes.extend_from_slice(&told[..count]);
    }
    let unwanted: &[u32] = match dtype {
        DType::F16 | DType::BF16 => &[NONDETERMINISTIC, REDUCED_PRECISION],
        _ => &[NONDETERMINISTIC, REDUCED_PRECISION, TENSOR_CORE, DOWN_CONVERT_INPUTS],
    };
    Ok(!notes.iter().any(|note| unwanted.contains(note)))
}

/// An operation and what it refers to.
#[derive(Debug)]
struct Parts {
    operation: Descriptor,
    _tensors: [Descriptor; 3],
    _convolution: Descriptor,
}

fn parts(api: &'static Api, p: &Convolution) -> Result<Parts> {
    let [n, height, width, ci] = p.input.map(size);
    let [out_height, out_width] = p.output_size().map(size);
    let (co, k) = (size(p.outputs), size(p.kernel));
    let x = tensor(api, X, p.dtype, [n, ci, height, width])?;
    let w = tensor(api, W, p.dtype, [co, ci, k, k])?;
    let y = tensor(api, Y, p.dtype, [n, co, out_height, out_width])?;
    let convolution = convolution(api, p)?;
    // The attributes of the three operations have the same order within each.
    let (kind, [alpha, beta, description, of_w, of_x, of_y]) = match p.pass {
        Pass::Forward => (kind::FORWARD, [700, 701, 702, 703, 704, 705]),
        Pass::InputGradient => (kind::INPUT_GRADIENT, [706, 707, 708, 709, 710, 711]),
        Pass::WeightGradient => (kind::WEIGHT_GRADIENT, [712, 713, 714, 715, 716, 717]),
    };
    let operation = Descriptor::new(api, kind)?
        .set(of_x, of::DESCRIPTOR, &[x.raw])?
        .set(of_w, of::DESCRIPTOR, &[w.raw])?
        .set(of_y, of::DESCRIPTOR, &[y.raw])?
        .set(description, of::DESCRIPTOR, &[convolution.raw])?
        .set(alpha, of::FLOAT, &[1.0f32])?
        .set(beta, of::FLOAT, &[0.0f32])?
        .finish()?;
    Ok(Parts { operation, _tensors: [x, w, y], _convolution: convolution })
}

fn size(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A tensor of sizes N, C, H, W that lies in memory as N, H, W, C.
fn tensor(api: &'static Api, id: i64, dtype: DType, sizes: [i64; 4]) -> Result<Descriptor> {
    let [_, c, h, w] = sizes;
    Descriptor::new(api, kind::TENSOR)?
        .set(attribute::TENSOR_TYPE, of::DATA_TYPE, &[data_type(dtype)])?
        .set(attribute::TENSOR_SIZES, of::INT64, &sizes)?
        .set(attribute::TENSOR_STRIDES, of::INT64, &[h * w * c, 1, w * c, c])?
        .set(attribute::TENSOR_ID, of::INT64, &[id])?
        .set(attribute::TENSOR_ALIGNMENT, of::INT64, &[ALIGNMENT])?
        .finish()
}

/// `cudnnDataType_t`
const fn data_type(dtype: DType) -> u32 {
    match dtype {
        DType::F16 => 2,
        DType::BF16 => 9,
        DType::F32 => FLOAT,
        DType::F64 => 1,
    }
}

fn convolution(api: &'static Api, p: &Convolution) -> Result<Descriptor> {
    let (pad, stride) = (size(p.pad), size(p.stride));
    Descriptor::new(api, kind::CONVOLUTION)?
        .set(attribute::CONVOLUTION_AXES, of::INT64, &[2i64])?
        .set(attribute::CONVOLUTION_TYPE, of::DATA_TYPE, &[FLOAT])?
        .set(attribute::CONVOLUTION_MODE, of::CONVOLUTION_MODE, &[CROSS_CORRELATION])?
        .set(attribute::CONVOLUTION_PADS_BEFORE, of::INT64, &[pad, pad])?
        .set(attribute::CONVOLUTION_PADS_AFTER, of::INT64, &[pad, pad])?
        .set(attribute::CONVOLUTION_DILATIONS, of::INT64, &[1i64, 1])?
        .set(attribute::CONVOLUTION_STRIDES, of::INT64, &[stride, stride])?
        .finish()
}

/// One of cuDNN's descriptors.
#[derive(Debug)]
struct Descriptor {
    api: &'static Api,
    raw: Raw,
}

// SAFETY: a descriptor may be used by any thread, one at a time; kept ones lie behind a lock.
unsafe impl Send for Descriptor {}
// SAFETY: a shared one is only kept alive.
unsafe impl Sync for Descriptor {}

impl Descriptor {
    fn new(api: &'static Api, kind: u32) -> Result<Self> {
        let mut raw = ptr::null_mut();
        // SAFETY: the out-pointer is a local.
        check(unsafe { (api.create_descriptor)(kind, &raw mut raw) }, "made no descriptor")?;
        Ok(Self { api, raw })
    }

    /// Sets an attribute to values of the C type that `of` names.
    fn set<V>(self, attribute: u32, of: u32, values: &[V]) -> Result<Self> {
        let count = size(values.len());
        // SAFETY: cuDNN copies `count` values of the type, which is V.
        let status = unsafe {
            (self.api.set_attribute)(self.raw, attribute, of, count, values.as_ptr().cast())
        };
        check(status, "does not do this convolution")?;
        Ok(self)
    }

    fn finish(self) -> Result<Self> {
        // SAFETY: the descriptor is alive.
        check(unsafe { (self.api.finalize)(self.raw) }, "does not do this convolution")?;
        Ok(self)
    }

    /// Reads an attribute of the C type that `of` names; how many values there were.
    fn get<V>(&self, attribute: u32, of: u32, values: &mut [V]) -> Result<usize> {
        let (count, mut got) = (size(values.len()), 0i64);
        let to = values.as_mut_ptr().cast();
        // SAFETY: cuDNN writes at most `count` values of the type, which is V.
        let status =
            unsafe { (self.api.get_attribute)(self.raw, attribute, of, count, &raw mut got, to) };
        check(status, "does not answer")?;
        Ok(usize::try_from(got).unwrap_or(0).min(values.len()))
    }

    /// Reads an attribute that is up to `most` descriptors, which cuDNN fills in.
    fn descriptors(&self, attribute: u32, kind: u32, most: usize) -> Result<Vec<Self>> {
        let made = (0..most).map(|_| Self::new(self.api, kind)).collect::<Result<Vec<_>>>()?;
        let mut raw: Vec<Raw> = made.iter().map(|d| d.raw).collect();
        let got = self.get(attribute, of::DESCRIPTOR, &mut raw)?;
        Ok(made.into_iter().take(got).collect())
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: the descriptor is ours.
        unsafe { (self.api.destroy_descriptor)(self.raw) };
    }
}
